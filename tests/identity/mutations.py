"""Each defence against an attack that others suffered, and the tests that fail when it is taken out.

    python tests/identity/mutations.py [--only WORD] [--json FILE]

reads mutations.toml, copies the source, takes out one defence after another and runs the tests that stand
beside it. A defence that is missed by its tests is told, and the exit code is 1.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Final, NamedTuple

import msgspec

REPO: Final = Path(__file__).resolve().parents[2]
TABLE: Final = Path(__file__).with_name("mutations.toml")


class Mutation(msgspec.Struct, frozen=True):
    attack: str
    defence: str  # what stands against it
    file: str  # below src/argosy
    old: str  # stands there once
    new: str
    tests: tuple[str, ...]  # below tests/, as pytest names them: at least one fails


class _Table(msgspec.Struct, frozen=True):
    mutation: tuple[Mutation, ...]


MUTATIONS: Final = msgspec.toml.decode(TABLE.read_bytes(), type=_Table).mutation


def text_of(mutation: Mutation) -> str:
    return (REPO / "src" / "argosy" / mutation.file).read_text()


class Result(NamedTuple):
    mutation: Mutation
    is_found: bool
    seconds: float
    said: str


class Bench:
    """A copy of the source in which one defence at a time is missing."""

    def __init__(self, folder: Path) -> None:
        self.source = folder / "src"
        shutil.copytree(REPO / "src", self.source, ignore=shutil.ignore_patterns("__pycache__"))

    def run(self, mutation: Mutation) -> Result:
        path = self.source / "argosy" / mutation.file
        whole = path.read_text()
        path.write_text(whole.replace(mutation.old, mutation.new, 1))
        begun = time.monotonic()
        try:
            code, said = self.tests(mutation.tests)
        finally:
            path.write_text(whole)
        return Result(mutation, code == 1, time.monotonic() - begun, said)

    def tests(self, names: tuple[str, ...]) -> tuple[int, str]:
        """pytest's exit code (1: some failed) and its last lines."""
        env = {**os.environ, "PYTHONPATH": str(self.source), "PYTHONDONTWRITEBYTECODE": "1"}
        tests = [str(REPO / "tests" / name) for name in names]
        plain = ["-x", "-q", "-n", "0", "-p", "no:cacheprovider", "--no-header", "--tb=line"]
        done = subprocess.run(
            [sys.executable, "-m", "pytest", *plain, *tests],
            cwd=REPO, env=env, capture_output=True, text=True, check=False, timeout=900,
        )  # fmt: skip
        return done.returncode, "\n".join(done.stdout.strip().splitlines()[-12:])


def main(arguments: list[str]) -> int:
    parser = argparse.ArgumentParser(description="takes defences out and looks which tests notice")
    parser.add_argument("--only", default="", help="only where this word stands in the attack or the file")
    parser.add_argument("--json", type=Path)
    wish = parser.parse_args(arguments)
    some = [each for each in MUTATIONS if wish.only in f"{each.attack} {each.defence} {each.file}"]
    found = []
    with tempfile.TemporaryDirectory(prefix="argosy-mutations-") as folder:
        bench = Bench(Path(folder))
        for mutation in some:
            result = bench.run(mutation)
            found.append(result)
            word = "found" if result.is_found else "MISSED"
            print(f"{word:7} {result.seconds:5.1f} s  {mutation.attack}: {mutation.defence}", flush=True)
            if not result.is_found:
                print(result.said, flush=True)
    missed = [each for each in found if not each.is_found]
    print(f"{len(found)} defences were taken out; the tests found {len(found) - len(missed)}")
    if wish.json:
        rows = [
            {
                "attack": each.mutation.attack,
                "defence": each.mutation.defence,
                "file": each.mutation.file,
                "tests": each.mutation.tests,
                "found": each.is_found,
            }
            for each in found
        ]
        wish.json.write_text(
            json.dumps({"taken_out": len(found), "missed": len(missed), "rows": rows}, indent=1)
        )
    return 1 if missed else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))

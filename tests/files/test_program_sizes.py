"""Both programs in C as a release ships them: small, static, and for the machine that their name says; the
one for arm64 runs, where an emulator of its processor is installed."""

from __future__ import annotations

import importlib.util
import shutil
import struct
import subprocess
from pathlib import Path

import pytest
import test_same_as_gnu as same
from file_tools import run

from argosy.files.building import LIMIT_BYTES, build_programs

#: The machine that the head of a program names (ELF).
MACHINES = {"pf-x86_64": 62, "pf-aarch64": 183}
_LINKS = 3  # a part of the program that names the linker at run time: what is static has none


@pytest.mark.nightly
def test_both_programs_are_static_and_within_the_limit(tmp_path: Path) -> None:
    if importlib.util.find_spec("ziglang") is None:
        pytest.skip("ziglang is not installed: the sizes of the programs are not held (pip install ziglang)")
    made = build_programs(tmp_path)
    assert {path.name for path in made} == MACHINES.keys()
    for path in made:
        data = path.read_bytes()
        assert len(data) <= LIMIT_BYTES, f"{path.name} has {len(data):,} bytes"
        assert data[:5] == b"\x7fELF\x02"
        assert struct.unpack_from("<H", data, 18)[0] == MACHINES[path.name]
        at, size, count = (
            struct.unpack_from(form, data, where)[0] for form, where in (("<Q", 32), ("<H", 54), ("<H", 56))
        )
        parts = {struct.unpack_from("<I", data, at + number * size)[0] for number in range(count)}
        assert _LINKS not in parts, f"{path.name} is not static"


@pytest.mark.nightly
def test_the_program_for_arm64_gives_what_gnu_gives(tmp_path: Path) -> None:
    emulator = shutil.which("qemu-aarch64-static") or shutil.which("qemu-aarch64")
    if emulator is None:
        pytest.skip("no qemu-aarch64: the program for arm64 was not run (apt-get install qemu-user-static)")
    if importlib.util.find_spec("ziglang") is None:
        pytest.skip("ziglang is not installed: the program for arm64 was not run (pip install ziglang)")
    program = next(path for path in build_programs(tmp_path) if path.name == "pf-aarch64")

    def engine(*words: str, cwd: Path) -> subprocess.CompletedProcess[bytes]:
        return run([emulator, str(program), *words], cwd=cwd)

    tests = (
        same.test_find_finds_the_same,
        same.test_du_sums_the_same,
        same.test_chmod_sets_the_same_modes,
        same.test_chown_gives_the_same_owners,
        same.test_cp_copies_the_same,
        same.test_sync_makes_a_copy_and_keeps_it_one,
        same.test_rm_removes_the_same,
    )
    for seed in range(3):
        for number, test in enumerate(tests):
            folder = tmp_path / f"{seed}-{number}"
            folder.mkdir()
            test(engine, folder, seed)

"""What a change needs before it is shown to others: lint and types of everything, unit tests of what changed.

    python tools/check_changed.py [--since main]

Compares with the point where this branch left `--since`, uncommitted changes included. The tests of a package
are those in the folder of tests with its name; the house's own tests always run.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
from pathlib import Path

REPO = Path(__file__).resolve().parents[1]


def changed(since: str) -> list[str]:
    """Paths that differ from the point where this branch left `since`, new files included."""
    base = _git("merge-base", since, "HEAD").strip() or "HEAD"
    named = _git("diff", "--name-only", base).splitlines()
    return named + _git("ls-files", "--others", "--exclude-standard").splitlines()


def folders(paths: list[str], tests: Path = REPO / "tests") -> list[str]:
    """Folders of tests: `src/argosy/store/x.py` and `tests/store/y.py` give `tests/store`."""
    found = set()
    for path in paths:
        parts = Path(path).parts
        if parts[:2] == ("src", "argosy") and len(parts) > 3:
            found.add(parts[2])
        elif parts[:1] == ("tests",) and len(parts) > 2:
            found.add(parts[1])
    return [f"tests/{name}" for name in sorted(found | {"house"}) if (tests / name).is_dir()]


def _git(*words: str) -> str:
    return subprocess.run(["git", *words], cwd=REPO, capture_output=True, text=True, check=False).stdout


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--since", default="main", help="branch or commit to compare with (default: main)")
    since = parser.parse_args().since
    where = folders(changed(since))
    bin_dir = Path(sys.executable).parent
    print(f"checking {', '.join(where)}", flush=True)
    for words in (
        [str(bin_dir / "ruff"), "format", "--check", "--quiet", "."],
        [str(bin_dir / "ruff"), "check", "--quiet", "."],
        [str(bin_dir / "mypy"), "--no-error-summary"],
        [str(bin_dir / "lint-imports"), "--no-color"],
        [sys.executable, "-m", "pytest", "-q", "-n", "2", "-m", "unit and not slow", *where],
    ):
        quiet = Path(words[0]).name == "lint-imports"
        done = subprocess.run(words, cwd=REPO, capture_output=quiet, text=True, check=False)
        if done.returncode not in (0, 5):  # 5: no test was selected
            print(done.stdout or "", done.stderr or "", f"failed: {' '.join(words)}", sep="\n")
            return done.returncode
    return 0


if __name__ == "__main__":
    sys.exit(main())

"""Tier 0: the house stays tidy. Names, sizes, clocks, hints, READMEs: what a reviewer should not have to look
for."""

from __future__ import annotations

import ast
import re
import subprocess
import warnings
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import pytest

from argosy.model.errors import CODES
from argosy.model.reasons import REASONS, Reason

REPO = Path(__file__).resolve().parents[2]
SOURCE = REPO / "src" / "argosy"

WALL_LINES = 1000
WARN_LINES = 600
BANNED_STEMS = {
    "utils",
    "util",
    "helpers",
    "helper",
    "common",
    "base",
    "manager",
    "misc",
    "types_",
    "stuff",
    "tools",
    "lib",
    "core",
}
README_HEADINGS = ("purpose", "words", "laws", "test", "add")


def _tracked() -> list[Path]:
    listing = subprocess.run(
        ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"],
        cwd=REPO, capture_output=True, check=False,
    )  # fmt: skip
    if listing.returncode != 0:
        pytest.skip("not a git checkout: tracked files cannot be told from others")
    names = [name for name in listing.stdout.decode().split("\0") if name]
    return [REPO / name for name in names if (REPO / name).is_file()]


def _sources(*below: str) -> list[Path]:
    roots = [SOURCE / name for name in below] if below else [SOURCE]
    return sorted(path for root in roots for path in root.rglob("*.py"))


def _packages() -> list[Path]:
    """Every top package of the house; its README speaks for what is below, but providers and kinds have their
    own."""
    tops = sorted(path.parent for path in SOURCE.glob("*/__init__.py"))
    return tops + sorted(path.parent for path in SOURCE.glob("providers/*/__init__.py"))


# --- sizes and names -------------------------------------------------------------------------------


def test_no_file_is_beyond_the_wall() -> None:
    sizes = {
        path.relative_to(REPO): len(path.read_text(encoding="utf-8").splitlines())
        for path in _tracked()
        if path.suffix in {".py", ".ts", ".tsx"}
    }
    long = sorted((lines, str(path)) for path, lines in sizes.items() if lines > WARN_LINES)
    if long:
        listing = ", ".join(f"{path} {lines}" for lines, path in reversed(long))
        warnings.warn(f"files above {WARN_LINES} lines: {listing}", stacklevel=1)
    assert [entry for entry in long if entry[0] > WALL_LINES] == []


def test_names_are_true() -> None:
    bad = []
    for path in _sources():
        names = {path.stem, path.parent.name}
        if names & BANNED_STEMS or any(
            stem.endswith(("_utils", "_helpers", "_manager", "_misc")) for stem in names
        ):
            bad.append(str(path.relative_to(REPO)))
        if path.stem == "types":
            bad.append(str(path.relative_to(REPO)))
    assert bad == []


def test_test_files_have_unique_names() -> None:
    seen: dict[str, Path] = {}
    for path in sorted((REPO / "tests").rglob("test_*.py")):
        if path.parent.name == "live":
            continue  # a package: named as the places are
        assert path.name not in seen, f"{path} and {seen[path.name]} would shadow each other"
        seen[path.name] = path


# --- clocks, dice and mocks ------------------------------------------------------------------------

CLOCKS = re.compile(
    r"time\.(time|time_ns|monotonic|monotonic_ns|perf_counter|perf_counter_ns)"
    r"|datetime\.(datetime\.)?(now|utcnow|today)|(datetime\.)?date\.today"
    r"|random\..+|uuid\.uuid[14]|os\.urandom|os\.getrandom|secrets\..+"
)
_MAY_BE_A_CLOCK = re.compile(
    r"^\s*(import|from)\b.*\b(time|datetime|random|uuid|secrets)\b|\b(urandom|getrandom)\b", re.MULTILINE
)
#: Where the real world comes in. Everything else gets its clock and its dice as arguments.
MAY_READ_THE_CLOCK = (
    "infra/system.py",  # the real clock and dice, for everybody else
    "agent/",  # it is the node's end of the real world
    "cli/",
    "files/",  # tools of their own: ages of files, and how fast it goes
    "checkpoint.py",  # it is part of a program, alone
    "client/",  # it waits in real time for a server in another process
    "functions/__main__.py",  # a function's process; the rest has the clock as an argument
    "functions/serving.py",  # the process of one function
    "functions/worker.py",  # handlers ask how long they have left, and dice are thrown anew after a fork
    "gateway/run.py",  # the gateway's process
    "gateway/tunnel.py",  # the process of one end of a tunnel
    "server/run.py",  # the server's process: it waits for its own shutdown
    "testing/",
)


def _imported_names(tree: ast.AST) -> dict[str, str]:
    names: dict[str, str] = {}
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            for alias in node.names:
                names[alias.asname or alias.name.split(".")[0]] = (
                    alias.name if alias.asname else alias.name.split(".")[0]
                )
        elif isinstance(node, ast.ImportFrom) and node.module and node.level == 0:
            for alias in node.names:
                names[alias.asname or alias.name] = f"{node.module}.{alias.name}"
    return names


def _dotted(node: ast.AST) -> str | None:
    parts: list[str] = []
    while isinstance(node, ast.Attribute):
        parts.append(node.attr)
        node = node.value
    if not isinstance(node, ast.Name):
        return None
    return ".".join([node.id, *reversed(parts)])


def clock_uses(text: str) -> Iterator[tuple[int, str]]:
    """(line, full name) of everything in a module that reads a clock or throws dice."""
    tree = ast.parse(text)
    names = _imported_names(tree)
    for node in ast.walk(tree):
        if isinstance(node, ast.Attribute | ast.Name) and isinstance(node.ctx, ast.Load):
            dotted = _dotted(node)
            if dotted is None:
                continue
            head, _, rest = dotted.partition(".")
            if head not in names:
                continue
            full = names[head] + (f".{rest}" if rest else "")
            if CLOCKS.fullmatch(full):
                yield node.lineno, full


def test_the_clock_scanner_sees_what_it_should() -> None:
    text = """
import time, random as r, os
from datetime import datetime
from time import monotonic as tick
from uuid import uuid4
a = time.time(); b = tick(); c = datetime.now(); d = r.choice([1]); e = uuid4(); f = os.urandom(4)
def g(time): return time.sleep
time.sleep(1); os.getpid()
"""
    assert sorted(name for _, name in clock_uses(text)) == [
        "datetime.datetime.now",
        "os.urandom",
        "random.choice",
        "time.monotonic",
        "time.time",
        "uuid.uuid4",
    ]


def test_nothing_reads_the_clock_or_throws_dice_but_the_shells() -> None:
    bad = []
    for path in _sources():
        place = path.relative_to(SOURCE).as_posix()
        if place.startswith(MAY_READ_THE_CLOCK):
            continue
        text = path.read_text(encoding="utf-8")
        if not _MAY_BE_A_CLOCK.search(text):  # parsing every file is most of what these tests cost
            continue
        for line, name in clock_uses(text):
            bad.append(f"{place}:{line} {name}")
    assert bad == [], "take a model.ids.Clock or Ids as an argument; infra.system has the real ones"


def test_fakes_not_mocks() -> None:
    bad = []
    for path in [*_sources(), *sorted((REPO / "tests").rglob("*.py"))]:
        if path == Path(__file__):
            continue
        text = path.read_text(encoding="utf-8")
        if "mock" not in text:
            continue
        found = {
            name
            for name in _imported_names(ast.parse(text)).values()
            if name.startswith(("unittest.mock", "mock."))
        }
        bad += [f"{path.relative_to(REPO)}: {name}" for name in sorted(found)]
    assert bad == []


def test_broad_excepts_say_why() -> None:
    """Catching everything is for outermost shells: each place says, behind its `noqa`, why it is one."""
    bad = []
    for path in _sources():
        if path == SOURCE / "controllers" / "shell.py":
            continue  # it is the shell: an effect may fail in any way, and the others must go on
        text = path.read_text(encoding="utf-8")
        if not re.search(r"\bexcept\s*:|\bexcept\s+(Base)?Exception\b", text):
            continue
        lines = text.splitlines()
        for node in ast.walk(ast.parse(text)):
            if not isinstance(node, ast.ExceptHandler):
                continue
            broad = node.type is None or (
                isinstance(node.type, ast.Name) and node.type.id in {"Exception", "BaseException"}
            )
            reraises = any(isinstance(child, ast.Raise) and child.exc is None for child in ast.walk(node))
            says_why = re.search(r"#\W*\w", lines[node.lineno - 1].replace("noqa: BLE001", "", 1))
            if broad and not reraises and not says_why:
                bad.append(f"{path.relative_to(SOURCE)}:{node.lineno}")
    assert bad == []


# --- words that people read ------------------------------------------------------------------------


@pytest.mark.parametrize("package", _packages(), ids=lambda path: path.relative_to(SOURCE).as_posix())
def test_every_package_has_a_readme(package: Path) -> None:
    readme = package / "README.md"
    assert readme.is_file(), (
        f"{package.relative_to(REPO)} has no README.md: purpose, words, laws, how to test, how to add one"
    )
    text = readme.read_text(encoding="utf-8")
    headings = [line.lstrip("#").strip().lower() for line in text.splitlines() if line.startswith("#")]
    lead = text.partition("\n")[2].partition("\n## ")[0].strip()
    if lead:  # the purpose may stand first, without a heading
        headings.append("purpose")
    wanted = README_HEADINGS
    if package.parent.name == "providers" and not (package / "provider.py").is_file():
        wanted = ("purpose", "test")  # prices only, without a driver
    missing = [word for word in wanted if not any(word in heading for heading in headings)]
    assert missing == [], f"{readme.relative_to(REPO)} lacks headings about: {', '.join(missing)}"


@cache
def _raised_codes() -> dict[str, list[str]]:
    """Code -> files that name it, anywhere but in the table itself: naming is near enough to raising."""
    raised: dict[str, list[str]] = {}
    for path in _sources():
        if path == SOURCE / "model" / "errors.py":
            continue
        text = path.read_text(encoding="utf-8")
        if not CODES.keys() - raised.keys() & set(re.findall(r'"([a-z-]+)"', text)):
            continue  # docstrings name codes as well: only code raises one
        for node in ast.walk(ast.parse(text)):
            if isinstance(node, ast.Constant) and isinstance(node.value, str) and node.value in CODES:
                raised.setdefault(node.value, []).append(path.relative_to(SOURCE).as_posix())
    return raised


@cache
def _test_texts() -> str:
    paths = sorted((REPO / "tests").rglob("*.py")) + sorted(
        (SOURCE / "testing" / "conformance").rglob("*.py")
    )
    return "\n".join(path.read_text(encoding="utf-8") for path in paths if path != Path(__file__))


def test_every_error_code_has_a_hint() -> None:
    assert [code for code, info in CODES.items() if not info.hint.strip()] == []
    assert [
        code for code, info in CODES.items() if not 400 <= info.http < 600 or not 0 < info.exit < 126
    ] == []
    assert [code for code in CODES if not re.fullmatch(r"[a-z]+(-[a-z]+)*", code)] == []


@pytest.mark.parametrize("code", sorted(CODES))
def test_every_error_code_is_raised_and_tested(code: str) -> None:
    assert code in _raised_codes(), f"nothing raises `{code}`: remove it from CODES, or raise it"
    assert f'"{code}"' in _test_texts(), f"no test names the error code `{code}`"


def test_every_reason_has_its_info() -> None:
    assert set(REASONS) == set(Reason)
    assert [reason for reason, info in REASONS.items() if not info.hint.strip()] == []
    assert [reason.value for reason in Reason if not re.fullmatch(r"[a-z]+(-[a-z]+)*", reason.value)] == []


def test_no_reason_is_dead() -> None:
    sources = "\n".join(
        path.read_text(encoding="utf-8")
        for path in (REPO / "src" / "argosy").rglob("*.py")
        if path.name != "reasons.py"
    )
    assert [reason.name for reason in Reason if f"Reason.{reason.name}" not in sources] == []


def test_the_changelog_has_a_place_for_what_comes() -> None:
    text = (REPO / "CHANGELOG.md").read_text(encoding="utf-8")
    assert re.search(r"^## \[?Unreleased\]?$", text, re.MULTILINE)


def test_decision_records_are_numbered_and_complete() -> None:
    records = sorted((REPO / "docs" / "decisions").glob("[0-9]*.md"))
    numbers = [int(path.name[:4]) for path in records]
    assert len(set(numbers)) == len(numbers), "one number each"
    index = (REPO / "docs" / "decisions" / "README.md").read_text(encoding="utf-8")
    assert [path.name for path in records if f"({path.name})" not in index] == [], "each stands in the list"
    for path in records:
        text = path.read_text(encoding="utf-8")
        for heading in ("## Context", "## Decision", "## Consequences"):
            assert heading in text, f"{path.name} lacks `{heading}`"


# --- what must not be in the repository ------------------------------------------------------------

# Written in pieces, so that this file does not contain what it looks for.
FOREIGN = re.compile(
    "|".join(
        [
            r"/work/" + r"(main|shared)",
            r"/root/" + r"\.pyenv",
            r"/opt/" + r"(pypi|wheels)",
            r"/tmp/" + r"argosy/",
            r"index-" + r"url",
            r"find-" + r"links",
            r"--trusted-" + r"host",
            r"files\.python" + r"hosted\.org",
            r"registry\.npm" + r"js\.org",
            r"deb\.debian" + r"\.org",
            r"pypi" + r"\.org/simple",
            r"--hash=" + r"sha256",
        ]
    )
)


def test_no_registry_hosts_nor_machine_paths() -> None:
    bad = []
    for path in _tracked():
        try:
            text = path.read_text(encoding="utf-8")
        except UnicodeDecodeError:
            continue
        for number, line in enumerate(text.splitlines(), 1):
            if match := FOREIGN.search(line):
                bad.append(f"{path.relative_to(REPO)}:{number} {match[0]}")
    assert bad == []


def test_no_large_files() -> None:
    bad = [
        f"{path.relative_to(REPO)} {path.stat().st_size >> 10} KiB"
        for path in _tracked()
        if path.stat().st_size > 1 << 20
    ]
    assert bad == []

"""Both engines give what GNU's tools give: the same results and exit codes on random trees."""

from __future__ import annotations

import os
import stat
from pathlib import Path

import pytest
from file_tools import Engine, in_a_fork, make_tree, run

SEEDS = range(1) if not os.environ.get("ARGOSY_NIGHTLY") else range(200)

FIND = (
    (),
    ("-type", "f"),
    ("-type", "d,l"),
    ("-name", "*.txt*", "-o", "-name", ".*"),
    ("-size", "+8"),
    ("-size", "-2k", "-type", "f"),
    ("!", "-type", "d", "-perm", "-u+x"),
    ("-perm", "/022"),
    ("-maxdepth", "2", "-mindepth", "1"),
    ("-name", "a*", "-prune", "-o", "-print"),
    ("-empty",),
    ("-links", "+1", "-type", "f"),
    ("-mtime", "+200", "-a", "-not", "-name", "[ab]*"),
    ("-depth", "-path", "*/a*"),
    ("-iname", "B*", "-print0"),
    ("(", "-user", "root", "-o", "-name", "x", ")", "-type", "p"),
    ("-newer", "tree/marker"),
)
DU = (
    (),
    ("-a",),
    ("-s",),
    ("-sh",),
    ("-d", "1"),
    ("-ab",),
    ("-c", "-k", "."),
    ("--inodes",),
    ("-S",),
    ("-l",),
    ("-x", "-m"),
    ("--exclude=*.txt", "-a"),
    ("-0", "--max-depth=2"),
    ("--apparent-size", "-B", "1000"),
)
MODES = (
    "u=rwX,g=rX,o=",
    "go-w",
    "a+X",
    "0750",
    "2755",
    "u+s,g=u",
    "+t",
    "-x",
    "o=u-w",
    "=r",
    "ug=rw,o+x",
    "a-x+X",
    "00700",
)


def _sorted(output: bytes, end: bytes = b"\n") -> list[bytes]:
    return sorted(output.split(end))


def facts(root: Path) -> dict[bytes, tuple[int, ...]]:
    """What there is, with all that tools may change."""
    found = {}
    for folder, below, files in os.walk(os.fsencode(root)):
        for name in [b"", *below, *files]:
            path = os.path.join(folder, name)
            st = os.lstat(path)
            found[os.path.relpath(path, os.fsencode(root))] = (st.st_mode, st.st_uid, st.st_gid, st.st_nlink)
    return found


@pytest.mark.process
@pytest.mark.parametrize("seed", SEEDS)
def test_find_finds_the_same(engine: Engine, tmp_path: Path, seed: int) -> None:
    make_tree(tmp_path / "tree", seed)
    (tmp_path / "tree" / "marker").touch()
    for words in FIND:
        theirs = run(["find", "tree", *words], cwd=tmp_path)
        ours = engine("find", "tree", *words, cwd=tmp_path)
        end = b"\0" if "-print0" in words else b"\n"
        assert _sorted(ours.stdout, end) == _sorted(theirs.stdout, end), words
        assert ours.returncode == theirs.returncode, (words, ours.stderr)


@pytest.mark.process
@pytest.mark.parametrize("seed", SEEDS)
def test_du_sums_the_same(engine: Engine, tmp_path: Path, seed: int) -> None:
    make_tree(tmp_path / "tree", seed)
    for words in (
        ("-s",),
        ("-sb",),
        ("-sl",),
        ("-s", "--inodes"),
        ("-sh",),
        ("-c", "-s", "tree/."),
        ("-s0",),
    ):
        theirs = run(["du", *words, "tree"], cwd=tmp_path)
        ours = engine("du", *words, "tree", cwd=tmp_path)
        assert (ours.stdout, ours.returncode) == (theirs.stdout, theirs.returncode), words


@pytest.mark.process
@pytest.mark.parametrize("seed", SEEDS)
def test_du_without_several_names_gives_the_same_lines(engine: Engine, tmp_path: Path, seed: int) -> None:
    make_tree(tmp_path / "tree", seed)
    for path in (tmp_path / "tree").rglob("*"):
        if path.is_file() and not path.is_symlink() and path.stat().st_nlink > 1:
            path.unlink()
    for words in DU:
        theirs = run(["du", *words, "tree"], cwd=tmp_path)
        ours = engine("du", *words, "tree", cwd=tmp_path)
        end = b"\0" if "-0" in words else b"\n"
        assert _sorted(ours.stdout, end) == _sorted(theirs.stdout, end), words


@pytest.mark.process
@pytest.mark.parametrize("seed", SEEDS)
def test_chmod_sets_the_same_modes(engine: Engine, tmp_path: Path, seed: int) -> None:
    for side in ("ours", "theirs"):
        make_tree(tmp_path / side, seed)
    for mode in MODES:
        theirs = run(["chmod", "-R", mode, "."], cwd=tmp_path / "theirs")
        ours = engine("chmod", "-R", mode, ".", cwd=tmp_path / "ours")
        assert ours.returncode == theirs.returncode, (mode, ours.stderr)
        assert facts(tmp_path / "ours") == facts(tmp_path / "theirs"), mode


OWNERS = (
    ("-R", "11:12"),
    ("-R", ":13"),
    ("-R", "14"),
    ("-Rh", "15:16"),
    ("-R", "--from=15", "17:18"),
    ("-R", "--from=:12", "0"),
    ("--reference=a-file", "-R"),
)


@pytest.mark.process
@pytest.mark.parametrize("seed", SEEDS)
def test_chown_gives_the_same_owners(engine: Engine, tmp_path: Path, seed: int) -> None:
    if os.getuid():
        pytest.skip("needs root: what chown does was not compared")
    for side in ("ours", "theirs"):
        make_tree(tmp_path / side / "tree", seed)
        (tmp_path / side / "a-file").touch()
        os.chown(tmp_path / side / "a-file", 21, 22)
    for words in OWNERS:
        theirs = run(["chown", *words, "tree"], cwd=tmp_path / "theirs")
        ours = engine("chown", *words, "tree", cwd=tmp_path / "ours")
        assert ours.returncode == theirs.returncode, (words, ours.stderr)
        assert facts(tmp_path / "ours") == facts(tmp_path / "theirs"), words


def contents(root: Path, *, meta: bool) -> dict[bytes, tuple[object, ...]]:
    """What copies must agree on. Names of one file are told by the first of them; holes by the blocks."""
    found: dict[bytes, tuple[object, ...]] = {}
    names: dict[int, bytes] = {}
    base = os.fsencode(root)
    for folder, below, files in os.walk(base):
        for name in [b"", *below, *files]:
            path = os.path.join(folder, name)
            st = os.lstat(path)
            short = os.path.relpath(path, base)
            data = b""
            if stat.S_ISREG(st.st_mode):
                data = Path(os.fsdecode(path)).read_bytes()
                names[st.st_ino] = min(names.get(st.st_ino, short), short)
            elif stat.S_ISLNK(st.st_mode):
                data = os.readlink(path)
            sparse = stat.S_ISREG(st.st_mode) and st.st_blocks * 512 < st.st_size
            known = (st.st_mtime_ns, st.st_uid, st.st_nlink) if meta else ()
            found[short] = (st.st_mode, st.st_ino if meta and st.st_nlink > 1 else 0, data, sparse, *known)
    return {
        short: (mode, names.get(inode, b""), *rest) for short, (mode, inode, *rest) in found.items()  # type: ignore[call-overload]
    }  # fmt: skip


@pytest.mark.process
@pytest.mark.parametrize("seed", SEEDS)
def test_cp_copies_the_same(engine: Engine, tmp_path: Path, seed: int) -> None:
    make_tree(tmp_path / "tree", seed)
    for number, words in enumerate(
        (("-r",), ("-a",), ("-rp",), ("-dR", "--preserve=links"), ("-a", "--sparse=always"), ("-aT",))
    ):
        theirs = run(["cp", *words, "tree", f"theirs{number}"], cwd=tmp_path)
        ours = engine("cp", *words, "tree", f"ours{number}", cwd=tmp_path)
        assert ours.returncode == theirs.returncode, (words, ours.stderr, theirs.stderr)
        meta = "-a" in words
        assert contents(tmp_path / f"ours{number}", meta=meta) == contents(
            tmp_path / f"theirs{number}", meta=meta
        ), words
    leftovers = list(tmp_path.rglob(".pf-*"))
    assert leftovers == []


@pytest.mark.process
@pytest.mark.parametrize("seed", SEEDS)
def test_sync_makes_a_copy_and_keeps_it_one(engine: Engine, tmp_path: Path, seed: int) -> None:
    make_tree(tmp_path / "tree", seed)
    assert engine("sync", "--delete", "tree", "copy", cwd=tmp_path).returncode == 0
    assert contents(tmp_path / "copy", meta=True) == contents(tmp_path / "tree", meta=True)
    again = engine("sync", "--delete", "-v", "tree", "copy", cwd=tmp_path)
    assert (again.returncode, again.stdout) == (0, b"")
    make_tree(tmp_path / "other", seed + 1000)
    planned = engine("sync", "--delete", "-n", "other", "copy", cwd=tmp_path)
    assert planned.returncode == 0 and planned.stdout
    assert contents(tmp_path / "copy", meta=True) == contents(tmp_path / "tree", meta=True)
    done = engine("sync", "--delete", "other", "copy", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert contents(tmp_path / "copy", meta=True) == contents(tmp_path / "other", meta=True)


@pytest.mark.process
@pytest.mark.parametrize("seed", SEEDS)
def test_rm_removes_the_same(engine: Engine, tmp_path: Path, seed: int) -> None:
    for side in ("ours", "theirs"):
        make_tree(tmp_path / side / "tree", seed)
    for words in (
        ("tree",),
        ("-d", "tree"),
        ("-r", "tree/a"),
        ("-f", "tree/nowhere"),
        ("-r", "."),
        ("-rf", "tree"),
    ):
        theirs = run(["rm", *words], cwd=tmp_path / "theirs")
        ours = engine("rm", *words, cwd=tmp_path / "ours")
        assert ours.returncode == theirs.returncode, (words, ours.stderr)
        assert facts(tmp_path / "ours") == facts(tmp_path / "theirs"), words


@pytest.mark.process
@pytest.mark.parametrize("seed", SEEDS)
def test_ls_and_stat_say_the_same(tmp_path: Path, seed: int) -> None:
    make_tree(tmp_path / "tree", seed)
    for path in [tmp_path / "tree", *(tmp_path / "tree").rglob("*")]:
        if not path.is_symlink() and path.is_socket():
            path.unlink()
    for words in (
        (),
        ("-l",),
        ("-lR",),
        ("-a",),
        ("-AR",),
        ("-lSr",),
        ("-lt",),
        ("-ln",),
        ("-lhi",),
        ("-d",),
        ("-1U",),
    ):
        theirs = run(["ls", *words, "tree"], cwd=tmp_path)
        ours = in_a_fork("ls", *words, "tree", cwd=tmp_path)
        if "-1U" in words:
            assert _sorted(ours.stdout) == _sorted(theirs.stdout)
        else:
            assert ours.stdout == theirs.stdout, words
        assert ours.returncode == theirs.returncode
    names = sorted(
        os.fsdecode(os.path.join(b"tree", name)) for name in os.listdir(os.fsencode(tmp_path / "tree"))
    )
    form = "%n|%s|%b|%B|%f|%F|%a|%A|%u|%g|%U|%G|%i|%h|%X|%Y|%Z|%y"
    theirs = run(["stat", "-c", form, *names, "nowhere"], cwd=tmp_path)
    ours = in_a_fork("stat", "-c", form, *names, "nowhere", cwd=tmp_path)
    assert (ours.stdout, ours.returncode) == (theirs.stdout, theirs.returncode)

"""Which files travel, as what, and what need not be read or sent again."""

from __future__ import annotations

import asyncio
import hashlib
import os
import socket
import stat
import subprocess
import threading
import time
from pathlib import Path
from typing import NoReturn

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from argosy.api.location import Location
from argosy.client import files
from argosy.client.async_client import AsyncClient
from argosy.client.client import Client
from argosy.client.files import Scanned, scan
from argosy.client.looking import Notes, load_notes, look
from argosy.client.progress import Progress
from argosy.model.errors import ArgosyError
from argosy.model.task import FileMount, Task
from argosy.model.tree import CHUNK_BYTES, Tree
from argosy.testing.fake_server import FakeServer

LATER_NS = 10_000_000_000


def peek(source: Path, home: Path | None) -> Notes | None:
    """What the last scan found of a folder, when one look at all stats says that nothing has changed."""
    notes = load_notes(source, home)
    seen = look(source, notes) if notes is not None else None
    return seen.notes if seen is not None and seen.is_same else None


def now_ns() -> int:
    """So late that every file has settled."""
    return time.time_ns() + LATER_NS


def take(folder: Path, **options: object) -> Scanned:
    return scan(folder, now_ns=now_ns(), **options)  # type: ignore[arg-type]


def make(root: Path, *paths: str) -> None:
    """Files with their own path as content; a path that ends with `/` is a folder."""
    for path in paths:
        full = root / path
        if path.endswith("/"):
            full.mkdir(parents=True, exist_ok=True)
        else:
            full.parent.mkdir(parents=True, exist_ok=True)
            full.write_text(path)


def names(scanned: Scanned) -> list[str]:
    return [entry.path + ("/" if entry.kind == "d" else "") for entry in scanned.tree.entries]


def test_entries_are_sorted_and_complete(tmp_path: Path) -> None:
    make(tmp_path, "b.txt", "a/x.py", "a/y/", "ü/é.txt", "a-b")
    scanned = take(tmp_path)
    assert names(scanned) == ["a/", "a-b", "a/x.py", "a/y/", "b.txt", "ü/", "ü/é.txt"]
    assert [entry.path for entry in scanned.tree.entries] == sorted(
        entry.path for entry in scanned.tree.entries
    )
    entry = next(entry for entry in scanned.tree.entries if entry.path == "ü/é.txt")
    assert entry.chunks == (hashlib.sha256("ü/é.txt".encode()).hexdigest(),)
    assert entry.size == len("ü/é.txt".encode())


def test_modes_and_empty_files(tmp_path: Path) -> None:
    make(tmp_path, "run.sh", "data/")
    (tmp_path / "empty").write_bytes(b"")
    (tmp_path / "run.sh").chmod(0o755)
    (tmp_path / "data").chmod(0o700)
    (tmp_path / "empty").chmod(0o600)
    by_path = {entry.path: entry for entry in take(tmp_path).tree.entries}
    assert by_path["run.sh"].mode == 0o755
    assert by_path["data"].mode == 0o700
    assert (by_path["empty"].mode, by_path["empty"].size, by_path["empty"].chunks) == (0o600, 0, ())


def test_equal_content_has_equal_digests(tmp_path: Path) -> None:
    for name in ("one", "two"):
        make(tmp_path / name, "a/b.txt", "c/")
    one, two = take(tmp_path / "one").tree, take(tmp_path / "two").tree
    assert one.digest() == two.digest()
    (tmp_path / "two" / "a" / "b.txt").chmod(0o755)
    assert take(tmp_path / "two").tree.digest() != one.digest()


def test_large_files_are_chunks(tmp_path: Path) -> None:
    data = os.urandom(CHUNK_BYTES) + os.urandom(5)
    (tmp_path / "big").write_bytes(data)
    (entry,) = take(tmp_path).tree.entries
    assert entry.size == len(data)
    assert entry.chunks == tuple(
        hashlib.sha256(data[at : at + CHUNK_BYTES]).hexdigest() for at in (0, CHUNK_BYTES)
    )


@pytest.mark.parametrize(
    ("rules", "paths", "left"),
    [
        ({}, ["a", ".git/config", "x/.git/y", ".gitignore.txt"], [".gitignore.txt", "a", "x/"]),
        ({".gitignore": "*.log\n"}, ["a.log", "b/c.log", "b/d"], [".gitignore", "b/", "b/d"]),
        ({".gitignore": "*.log\n!keep.log\n"}, ["a.log", "keep.log"], [".gitignore", "keep.log"]),
        ({".gitignore": "/out\n"}, ["out/a", "x/out/b"], [".gitignore", "x/", "x/out/", "x/out/b"]),
        ({".gitignore": "build/\n"}, ["build/a", "x/build"], [".gitignore", "x/", "x/build"]),
        ({".gitignore": "out\n!out/keep\n"}, ["out/keep"], [".gitignore"]),
        ({".gitignore": "# no\n\n\\#yes\n"}, ["#yes", "no"], [".gitignore", "no"]),
        ({".gitignore": "**/cache/*\n"}, ["a/cache/x", "a/b"], [".gitignore", "a/", "a/b", "a/cache/"]),
        ({".gitignore": "é*\n"}, ["été", "a"], [".gitignore", "a"]),
        (
            {".gitignore": "*.txt\n", "sub/.gitignore": "!yes.txt\n"},
            ["sub/yes.txt", "sub/no.txt", "yes.txt"],
            [".gitignore", "sub/", "sub/.gitignore", "sub/yes.txt"],
        ),
        ({"sub/.gitignore": "/a\n"}, ["sub/a", "sub/b/a", "a"], ["a", "sub/", "sub/.gitignore", "sub/b/", "sub/b/a"]),  # noqa: E501
        ({".gitignore": "a\n", ".argosyignore": "b\n"}, ["a", "b", "c"], [".argosyignore", ".gitignore", "c"]),  # noqa: E501
        ({".gitignore": "a\n", ".skyignore": "b\n"}, ["a", "b", "c"], [".gitignore", ".skyignore", "c"]),
        ({".argosyignore": "!b\na\n", ".skyignore": "b\n"}, ["a", "b"], [".argosyignore", ".skyignore", "b"]),
        ({".argosyignore": ""}, ["a", ".git/x"], [".argosyignore", "a"]),
        ({".gitignore": "!.git\n"}, ["a", ".git/x"], [".gitignore", "a"]),
        ({".argosyignore": "!.git\n"}, ["a", ".git/x"], [".argosyignore", ".git/", ".git/x", "a"]),
        ({".argosyignore": "!*\n", ".gitignore": "*.ckpt\n"}, ["a.ckpt", ".git/x"], [".argosyignore", ".gitignore", "a.ckpt"]),  # noqa: E501
        ({".argosyignore": "!*.ckpt\n", "sub/.gitignore": "*\n"}, ["sub/y", "sub/z.ckpt"], [".argosyignore", "sub/", "sub/z.ckpt"]),  # noqa: E501
        ({".argosyignore": "x\n", "sub/.gitignore": "y\n"}, ["sub/y"], [".argosyignore", "sub/", "sub/.gitignore"]),  # noqa: E501
    ],
)  # fmt: skip
def test_what_is_left_out(tmp_path: Path, rules: dict[str, str], paths: list[str], left: list[str]) -> None:
    make(tmp_path, *paths)
    for name, text in rules.items():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(text)
    assert names(take(tmp_path)) == left


PATHS = [
    "a.log",
    "b.log",
    "x/a.log",
    "x/y/a.log",
    "y",
    "x/b/c",
    "ab",
    "z/x/b",
    "z/a.log",
    "x/y/b",
    "z/y/ab",
    "a-",
    "]",
    "x/a b",
    "é",
]
PIECES = [
    "*",
    "**",
    "/",
    "?",
    "a",
    "b",
    "x",
    "y",
    "z",
    ".log",
    "!",
    "[ab]",
    "[!a]",
    "[^x-z]",
    "[]a]",
    "[a-",
    "\\*",
    "\\",
    "[[:alpha:]]",
    " ",
    "#",
    "-",
    "]",
    "é",
    "**/",
    "/**",
]
PATTERNS = st.one_of(
    st.sampled_from(
        ["*.log", "!a.log", "/x", "x/", "y", "!y", "x/*", "**/b", "a?", "x/**", "[ab].log", "!x/y/", "z/**/b"]
    ),
    st.lists(st.sampled_from(PIECES), min_size=1, max_size=5).map("".join),
)


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    st.lists(PATTERNS, max_size=5),
    st.lists(PATTERNS, max_size=3),
    st.lists(st.sampled_from(PATHS), min_size=1, max_size=8, unique=True),
)
def test_ignore_files_mean_what_git_says(
    tmp_path_factory: pytest.TempPathFactory, top: list[str], below: list[str], paths: list[str]
) -> None:
    root = tmp_path_factory.mktemp("git")
    for path in paths:
        full = root / path
        if any((root / parent).is_file() for parent in Path(path).parents if str(parent) != "."):
            continue
        if not full.is_dir():
            full.parent.mkdir(parents=True, exist_ok=True)
            full.write_text("")
    (root / ".gitignore").write_text("\n".join(top) + "\n")
    if (root / "x").is_dir():
        (root / "x" / ".gitignore").write_text("\n".join(below) + "\n")
    env = {"PATH": os.environ["PATH"], "HOME": str(root), "GIT_CONFIG_NOSYSTEM": "1"}
    subprocess.run(["git", "init", "-q", "."], cwd=root, env=env, check=True)
    listed = subprocess.run(
        ["git", "ls-files", "-z", "--others", "--exclude-standard"],
        cwd=root,
        env=env,
        check=True,
        capture_output=True,
    ).stdout.decode()
    ours = {entry.path for entry in take(root).tree.entries if entry.kind == "f"}
    assert ours == {name for name in listed.split("\0") if name}


@pytest.mark.parametrize(
    ("link", "target", "kept"),
    [
        ("l", "a.txt", "a.txt"),
        ("sub/l", "../a.txt", "../a.txt"),
        ("l", "sub", "sub"),
        ("l", "missing", "missing"),
        ("l", "./sub/../a.txt", "./sub/../a.txt"),
        ("sub/l", "{root}/a.txt", "../a.txt"),
        ("l", ".", "."),
    ],
)
def test_links_inside_are_kept(tmp_path: Path, link: str, target: str, kept: str) -> None:
    make(tmp_path, "a.txt", "sub/b.txt")
    (tmp_path / link).symlink_to(target.format(root=tmp_path))
    by_path = {entry.path: entry for entry in take(tmp_path).tree.entries}
    assert (by_path[link].kind, by_path[link].target) == ("l", kept)


@pytest.mark.parametrize(
    ("link", "target"),
    [
        ("l", "/etc/passwd"),
        ("l", ".."),
        ("l", "../other/x"),
        ("sub/l", "../../x"),
        ("sub/l", "{root}-other/x"),
        ("l", "../{name}/a.txt"),
    ],
)
def test_links_that_leave_travel_as_they_are_with_one_warning(tmp_path: Path, link: str, target: str) -> None:
    root = tmp_path / "root"
    make(root, "a.txt", "sub/b.txt")
    (root / link).symlink_to(target.format(root=root, name=root.name))
    (root / "other").symlink_to("/usr/bin/python3")
    scanned = take(root)
    by_path = {entry.path: entry for entry in scanned.tree.entries}
    assert by_path[link].target == target.format(root=root, name=root.name)
    (warning,) = scanned.warnings
    assert "lead outside" in warning and link in warning and "other -> /usr/bin/python3" in warning
    (root / ".argosyignore").write_text(f"/{link}\nother\n")
    assert link not in names(take(root)) and take(root).warnings == ()


def test_a_folder_reached_by_a_link(tmp_path: Path) -> None:
    make(tmp_path, "real/a.txt")
    (tmp_path / "short").symlink_to("real")
    (tmp_path / "real" / "l").symlink_to(tmp_path / "short" / "a.txt")
    by_path = {entry.path: entry for entry in take(tmp_path / "short").tree.entries}
    assert by_path["l"].target == "a.txt"


def test_special_files_are_left_out_with_a_word(tmp_path: Path) -> None:
    make(tmp_path, "a")
    os.mkfifo(tmp_path / "pipe")
    folder = os.getcwd()
    with socket.socket(socket.AF_UNIX) as one:
        os.chdir(tmp_path)
        try:
            one.bind("sock")
        finally:
            os.chdir(folder)
        scanned = take(tmp_path)
    assert names(scanned) == ["a"]
    assert sorted(scanned.warnings) == [
        "pipe is left out: it is a named pipe",
        "sock is left out: it is a socket",
    ]


def test_a_name_that_is_not_utf8(tmp_path: Path) -> None:
    with open(os.fsencode(tmp_path) + b"/caf\xe9", "w"):
        pass
    with pytest.raises(ArgosyError, match="not UTF-8") as error:
        take(tmp_path)
    error.value.problem().what.encode()  # can be shown


def test_what_cannot_be_read(tmp_path: Path) -> None:
    make(tmp_path, "a")
    (tmp_path / "a").chmod(0)
    if os.access(tmp_path / "a", os.R_OK):
        pytest.skip("root reads everything")
    with pytest.raises(ArgosyError) as error:
        take(tmp_path)
    assert error.value.code == "spec-unreadable"


@pytest.mark.parametrize("kind", ["missing", "file", "fifo"])
def test_a_workdir_that_is_no_folder(tmp_path: Path, kind: str) -> None:
    path = tmp_path / "w"
    if kind == "file":
        path.write_text("")
    elif kind == "fifo":
        os.mkfifo(path)
    with pytest.raises(ArgosyError) as error:
        take(path)
    assert error.value.code == "workdir-missing"
    assert str(path) in error.value.what


def test_a_deep_folder(tmp_path: Path) -> None:
    path = tmp_path
    folder = os.getcwd()
    try:
        for _ in range(1200):  # deeper than Python's stack; absolute paths of it would be too long to make
            os.chdir(path)
            os.mkdir("d")
            path = Path("d")
        os.chdir(path)
        Path("f").write_text("x")
    finally:
        os.chdir(folder)
    assert len(take(tmp_path).tree.entries) == 1201
    subprocess.run(["rm", "-rf", str(tmp_path / "d")], check=True)


def test_a_single_file(tmp_path: Path) -> None:
    make(tmp_path, "data.csv")
    scanned = take(tmp_path / "data.csv", what="file_mounts")
    assert scanned.tree.is_file
    assert names(scanned) == ["data.csv"]
    (tmp_path / "link.csv").symlink_to("data.csv")
    linked = take(tmp_path / "link.csv", what="file_mounts")
    assert names(linked) == ["link.csv"]
    assert dict(files.read_chunks(linked, linked.tree.chunk_digests())) == {
        hashlib.sha256(b"data.csv").hexdigest(): b"data.csv"
    }


# The cache --------------------------------------------------------------------------------------------------------  # noqa: E501


def test_what_is_known_is_not_read_again(tmp_path: Path) -> None:
    root, home = tmp_path / "root", tmp_path / "home"
    make(root, *(f"d{number % 7}/f{number}" for number in range(200)))
    first = take(root, home=home)
    assert first.hashed_bytes > 0
    again = take(root, home=home)
    assert again.hashed_bytes == 0
    assert again.tree == first.tree
    assert stat.S_IMODE((home / "cache").stat().st_mode) & 0o077 == 0


@pytest.mark.parametrize("change", ["content", "touch", "replace", "same-size-and-time"])
def test_what_changed_is_read_again(tmp_path: Path, change: str) -> None:
    root, home = tmp_path / "root", tmp_path / "home"
    make(root, "a", "b")
    take(root, home=home)
    before = (root / "a").stat()
    if change == "content":
        (root / "a").write_text("other")
    elif change == "touch":
        os.utime(root / "a", ns=(1, 1))
    elif change == "replace":
        (root / "c").write_text("z")
        os.utime(root / "c", ns=(before.st_atime_ns, before.st_mtime_ns))
        (root / "c").replace(root / "a")
    else:
        (root / "a").write_text("z")
        os.utime(root / "a", ns=(before.st_atime_ns, before.st_mtime_ns))
    scanned = take(root, home=home)
    assert scanned.hashed_bytes == (root / "a").stat().st_size
    entry = next(entry for entry in scanned.tree.entries if entry.path == "a")
    assert entry.chunks == (hashlib.sha256((root / "a").read_bytes()).hexdigest(),)


def test_a_file_that_was_just_written_is_not_trusted(tmp_path: Path) -> None:
    root, home = tmp_path / "root", tmp_path / "home"
    make(root, "a")
    for _ in range(2):
        assert scan(root, home=home, now_ns=(root / "a").stat().st_mtime_ns).hashed_bytes == 1
        assert peek(root, home) is None


@pytest.mark.parametrize("data", [b"", b"\xff\xff", b"\x81\xa1a\x01"])
def test_a_broken_cache_is_empty(tmp_path: Path, data: bytes) -> None:
    root, home = tmp_path / "root", tmp_path / "home"
    make(root, "a")
    take(root, home=home)
    caches = list((home / "cache" / "hashes").iterdir())
    assert len(caches) == 2
    for cache in caches:
        cache.write_bytes(data)
    assert peek(root, home) is None
    assert take(root, home=home).hashed_bytes == 1


@pytest.mark.parametrize(
    "change",
    ["content", "mode", "new", "gone", "folder", "folder-mode", "link", "rules", "ignored-becomes-folder"],
)
def test_one_look_tells_whether_a_folder_has_changed(tmp_path: Path, change: str) -> None:
    root, home = tmp_path / "root", tmp_path / "home"
    make(root, "a", "d/b", "d/x.log", "no/c")
    (root / ".gitignore").write_text("*.log\nno/\n")
    (root / "l").symlink_to("a")
    first = take(root, home=home)
    for _ in range(2):
        peeked = peek(root, home)
        assert peeked is not None and peeked.digest == first.tree.digest()
        assert peeked.entries == len(first.tree.entries)
        (root / "no" / "new").write_text("ignored")
        (root / "d" / "x.log").write_text("ignored")
    if change == "content":
        (root / "d/b").write_text("y")
    elif change == "mode":
        (root / "d/b").chmod(0o755)
    elif change == "new":
        (root / "d/new").touch()
    elif change == "gone":
        (root / "d/b").unlink()
    elif change == "folder":
        (root / "d/e").mkdir()
    elif change == "folder-mode":
        (root / "d").chmod(0o700)
    elif change == "link":
        (root / "l").unlink()
        (root / "l").symlink_to("b")
    elif change == "rules":
        (root / ".gitignore").write_text("*.log\n")
    else:
        (root / "d/x.log").unlink()
        (root / "d/x.log").mkdir()
        assert peek(root, home) is None, "it may be matched by another rule now"
        return
    assert peek(root, home) is None
    assert take(root, home=home).tree.digest() != first.tree.digest()
    assert peek(root, home) is not None


def test_a_home_that_cannot_be_written_is_no_error(tmp_path: Path) -> None:
    make(tmp_path, "root/a", "home")  # a file where the folder should be
    assert names(take(tmp_path / "root", home=tmp_path / "home")) == ["a"]


class Rewriter:
    """Changes a file each time that its reading is reported."""

    def __init__(self, path: Path, times: int, *, append: bool = False) -> None:
        self.path, self.left, self.append = path, times, append

    def __call__(self, count: int, size: int) -> None:
        if self.left:
            self.left -= 1
            with self.path.open("r+b") as file:
                file.seek(0, os.SEEK_END if self.append else os.SEEK_SET)
                file.write(os.urandom(8))


def test_a_file_that_changes_while_it_is_read_is_read_again(tmp_path: Path) -> None:
    big = tmp_path / "big"
    big.write_bytes(bytes(CHUNK_BYTES + 1))
    scanned = take(tmp_path, progress=Rewriter(big, 1))
    assert scanned.tree.chunk_digests() == {
        hashlib.sha256(big.read_bytes()[:CHUNK_BYTES]).hexdigest(),
        hashlib.sha256(b"\0").hexdigest(),
    }
    with pytest.raises(ArgosyError, match="`big` keeps changing") as error:
        take(tmp_path, progress=Rewriter(big, 1000))
    assert error.value.code == "conflict"


def test_a_file_that_grows_is_taken_as_it_was(tmp_path: Path) -> None:
    big = tmp_path / "log"
    big.write_bytes(bytes(CHUNK_BYTES + 1))
    (entry,) = take(tmp_path, progress=Rewriter(big, 1000, append=True)).tree.entries
    assert entry.size == CHUNK_BYTES + 1


# Sending ----------------------------------------------------------------------------------------------------------  # noqa: E501


def restore(server: FakeServer, digest: str, target: Path) -> None:
    """Make a tree of the server appear on disk."""
    tree: Tree = server.trees[digest]
    for entry in tree.entries:
        path = target / entry.path
        path.parent.mkdir(parents=True, exist_ok=True)
        if entry.kind == "d":
            path.mkdir(exist_ok=True)
        elif entry.kind == "l":
            path.symlink_to(entry.target)
        else:
            path.write_bytes(b"".join(server.chunks[chunk] for chunk in entry.chunks))
            path.chmod(entry.mode)


def test_a_workdir_arrives_and_only_once(server: FakeServer, client: Client, tmp_path: Path) -> None:
    make(tmp_path / "w", "a.py", "lib/b.py", "lib/same", "empty/")
    (tmp_path / "w" / "copy").write_text("lib/same")
    (tmp_path / "w" / "big").write_bytes(os.urandom(CHUNK_BYTES + 100))
    seen: list[Progress] = []
    sent = client.send_files(Task(workdir="w", run="ls"), cwd=tmp_path, on_progress=seen.append)
    assert sent.task.workdir_tree in server.trees
    restore(server, sent.task.workdir_tree, tmp_path / "got")
    assert names(take(tmp_path / "got")) == names(take(tmp_path / "w"))
    assert (tmp_path / "got" / "big").read_bytes() == (tmp_path / "w" / "big").read_bytes()
    assert seen[-1].stage == "done" and sent.sent_bytes == sum(map(len, server.chunks.values()))
    requests = len(server.requests)
    again = client.send_files(Task(workdir="w", run="ls"), cwd=tmp_path)
    assert again.task.workdir_tree == sent.task.workdir_tree and again.sent_bytes == 0
    assert [request.endpoint for request in server.requests[requests:]] == ["missing_chunks"]
    (tmp_path / "w" / "a.py").write_text("changed")
    assert client.send_files(Task(workdir="w", run="ls"), cwd=tmp_path).sent_bytes == len("changed")


def test_mounts_are_folders_files_or_elsewhere(server: FakeServer, client: Client, tmp_path: Path) -> None:
    make(tmp_path, "data/x", "one.txt")
    task = Task(
        run="ls",
        file_mounts=(
            FileMount(target="/data", source="./data"),
            FileMount(target="~/one.txt", source=str(tmp_path / "one.txt")),
            FileMount(target="/bucket", source="s3://bucket/x"),
            FileMount(target="/again", source="data"),
        ),
    )
    sent = client.send_files(task, cwd=tmp_path).task
    folder, one, bucket, again = sent.file_mounts
    assert folder.tree == again.tree and not folder.is_file
    assert one.is_file and server.trees[one.tree or ""].entries[0].path == "one.txt"
    assert bucket.tree is None


def test_a_home_folder_is_that_of_the_environment(server: FakeServer, tmp_path: Path) -> None:
    make(tmp_path, "home/w/a")
    place = Location(server.socket, home=tmp_path / "state")
    with Client(place, env={"HOME": str(tmp_path / "home")}) as client:
        sent = client.send_files(Task(workdir="~/w", run="x"), cwd=Path("/"))
    assert [entry.path for entry in server.trees[sent.task.workdir_tree or ""].entries] == ["a"]


def test_a_missing_mount_names_its_field(client: Client, tmp_path: Path) -> None:
    task = Task(run="x", file_mounts=(FileMount(target="/data", source="nope"),))
    with pytest.raises(ArgosyError, match="file_mounts `/data`") as error:
        client.send_files(task, cwd=tmp_path)
    assert error.value.code == "workdir-missing"
    assert str(tmp_path / "nope") in error.value.what


def test_packs_stay_small(server: FakeServer, client: Client, tmp_path: Path) -> None:
    for number in range(5):
        (tmp_path / f"f{number}").write_bytes(os.urandom(CHUNK_BYTES))
    client.send_files(Task(workdir=".", run="x"), cwd=tmp_path)
    sizes = [len(request.body) for request in server.seen("put_chunks")]
    assert len(sizes) == 4 and max(sizes) <= (16 << 20) + 2 * 100


def test_a_file_is_read_once(
    server: FakeServer, client: Client, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    make(tmp_path, *(f"w/{number}" for number in range(30)))

    def again(*_: object) -> NoReturn:
        raise AssertionError("it was read already")

    monkeypatch.setattr(
        "argosy.client.sending.read_chunks", lambda _, wanted: again() if wanted else iter(())
    )
    sent = client.send_files(Task(workdir="w", run="x"), cwd=tmp_path)
    assert sent.sent_bytes == sum(map(len, server.chunks.values())) > 0
    assert sent.task.workdir_tree in server.trees


def test_what_the_server_refuses_ends_the_scan(server: FakeServer, client: Client, tmp_path: Path) -> None:
    for number in range(60):
        (tmp_path / f"f{number}").write_bytes(os.urandom(1 << 20))
    server.failures["put_chunks"] = [ArgosyError("disk-full", "the disk is full")]
    with pytest.raises(ArgosyError, match="the disk is full"):
        client.send_files(Task(workdir=".", run="x"), cwd=tmp_path)
    assert not [thread for thread in threading.enumerate() if thread.name == "scan"]


def test_a_file_that_changes_before_it_is_sent(server: FakeServer, client: Client, tmp_path: Path) -> None:
    make(tmp_path, "w/a", "w/b")
    scan(tmp_path / "w", home=client.location.home, now_ns=now_ns())  # they are known, and not read now
    changed: list[bool] = []

    def change(progress: Progress) -> None:
        if progress.stage == "scan" and not changed:
            changed.append(True)
            (tmp_path / "w" / "a").write_text("new")

    sent = client.send_files(Task(workdir="w", run="x"), cwd=tmp_path, on_progress=change)
    restore(server, sent.task.workdir_tree or "", tmp_path / "got")
    assert (tmp_path / "got" / "a").read_text() == "new"


def test_nothing_is_sent_for_a_cluster_that_does_not_exist(
    server: FakeServer, client: Client, tmp_path: Path
) -> None:
    make(tmp_path, "w/a")
    with pytest.raises(ArgosyError) as error:
        client.send_files(Task(workdir="w"), cwd=tmp_path, cluster="nope")
    assert error.value.code == "not-found"
    assert [request.endpoint for request in server.requests] == ["health", "cluster"]


def test_an_unchanged_workdir_is_one_question(server: FakeServer, client: Client, tmp_path: Path) -> None:
    make(tmp_path, *(f"w/{number}" for number in range(50)))
    first = client.send_files(Task(workdir="w"), cwd=tmp_path)
    scan(tmp_path / "w", home=client.location.home, now_ns=now_ns())  # a second later
    before = len(server.requests)
    again = client.send_files(Task(workdir="w"), cwd=tmp_path)
    assert (again.task, again.files, again.sent_bytes) == (first.task, 50, 0)
    assert [request.endpoint for request in server.requests[before:]] == ["missing_chunks"]


def test_a_task_without_files_asks_nothing(server: FakeServer, client: Client) -> None:
    task = Task(run="x", file_mounts=(FileMount(target="/b", source="gs://b"),))
    assert client.send_files(task).task == task
    assert server.requests == []


def test_the_async_client_sends_too(server: FakeServer, tmp_path: Path) -> None:
    make(tmp_path, "w/a", "w/b/c")

    async def main() -> str | None:
        async with AsyncClient(Location(server.socket), env={"HOME": str(tmp_path)}) as client:
            return (await client.send_files(Task(workdir="w", run="x"), cwd=tmp_path)).task.workdir_tree

    assert asyncio.run(main()) in server.trees


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    st.dictionaries(
        st.lists(
            st.text(st.characters(codec="utf-8", exclude_characters="/\0"), min_size=1, max_size=6).filter(
                lambda name: name not in (".", "..", ".git", ".gitignore", ".argosyignore", ".skyignore")
            ),
            min_size=1,
            max_size=3,
        ).map("/".join),
        st.binary(max_size=30),
        max_size=8,
    )
)
def test_any_folder_comes_back_as_it_was(
    tmp_path_factory: pytest.TempPathFactory, content: dict[str, bytes]
) -> None:
    root = tmp_path_factory.mktemp("tree")
    kept: dict[str, bytes] = {}
    for path, data in content.items():
        try:
            (root / path).parent.mkdir(parents=True, exist_ok=True)
            (root / path).write_bytes(data)
        except OSError:
            continue  # a name is a folder here and a file there
        kept[path] = data
    scanned = take(root)
    chunks = dict(files.read_chunks(scanned, scanned.tree.chunk_digests()))
    assert {
        entry.path: b"".join(chunks[one] for one in entry.chunks)
        for entry in scanned.tree.entries
        if entry.kind == "f"
    } == kept

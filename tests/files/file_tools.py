"""The two engines, and random trees to run them on."""

from __future__ import annotations

import os
import random
import socket
import subprocess
import tempfile
import traceback
from collections.abc import Callable, Sequence
from pathlib import Path

import pytest

from argosy.files.building import compile_program, compilers, this_architecture
from argosy.files.twin.start import main

Engine = Callable[..., "subprocess.CompletedProcess[bytes]"]


@pytest.fixture(scope="session")
def program(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The program in C, compiled by this machine's compiler."""
    commands = {arch: command for arch, command in compilers().items() if arch == this_architecture()}
    if not commands:
        pytest.skip("there is no C compiler: the program in C is not tested")
    path = tmp_path_factory.mktemp("program") / "pf"
    assert compile_program(commands[this_architecture()], path), "the program in C does not compile"
    return path


@pytest.fixture(scope="session", params=["c", "python"])
def engine(request: pytest.FixtureRequest) -> Engine:
    """Calls a tool as `engine("du", "-s", path, cwd=...)`."""
    if request.param == "python":
        return in_a_fork
    command = str(request.getfixturevalue("program"))

    def call(*words: str, cwd: Path) -> subprocess.CompletedProcess[bytes]:
        return run([command, *words], cwd=cwd)

    return call


def in_a_fork(*words: str, cwd: Path) -> subprocess.CompletedProcess[bytes]:
    """The tool in Python, without the start of an interpreter."""
    with tempfile.TemporaryFile() as out, tempfile.TemporaryFile() as err:
        pid = os.fork()
        if not pid:
            status = 70
            try:
                os.chdir(cwd)
                os.dup2(out.fileno(), 1)
                os.dup2(err.fileno(), 2)
                status = main(words)
            except BaseException:  # the child must not go on as another pytest
                os.write(2, traceback.format_exc().encode())
            finally:
                os._exit(status)
        status = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
        out.seek(0)
        err.seek(0)
        return subprocess.CompletedProcess(words, status, out.read(), err.read())


def run(command: Sequence[str], *, cwd: Path) -> subprocess.CompletedProcess[bytes]:
    """In the C locale, whose order is that of bytes."""
    environ = {**os.environ, "LC_ALL": "C", "TZ": "UTC"}
    return subprocess.run(command, cwd=cwd, env=environ, capture_output=True, check=False, timeout=60)


NAMES = (
    b"a",
    b"b.txt",
    b".hidden",
    b"two words",
    b"new\nline",
    b"bad\xff\xfebytes",
    "größe".encode(),
    b"-dash",
    b"[x]",
    b"q?",
)


def make_tree(root: Path, seed: int) -> None:
    """A tree with what file tools trip over: several names of a file, holes, pipes, sockets, links that lead
    nowhere, in circles or out, names of any bytes, modes that forbid."""
    dice = random.Random(seed)
    root.mkdir(parents=True)
    folders = [os.fsencode(root)]
    files: list[bytes] = []
    for number in range(dice.randint(5, 40)):
        folder = dice.choice(folders)
        name = dice.choice(NAMES) + (b"" if dice.random() < 0.4 else b"%d" % number)
        path = folder + b"/" + name
        if os.path.lexists(path):
            continue
        _make_one(dice, path, folders, files)
    for path in files + folders[1:]:
        if dice.random() < 0.3:
            os.chmod(path, dice.choice((0o600, 0o644, 0o755, 0o500, 0o4755, 0o2711, 0o1777, 0o444)))
        if dice.random() < 0.3:
            when = 1_700_000_000 + dice.randint(-9_000_000, 9_000_000)
            os.utime(path, ns=(when * 10**9, when * 10**9 + dice.randint(0, 999_999_999)))


def _make_one(dice: random.Random, path: bytes, folders: list[bytes], files: list[bytes]) -> None:
    kind = dice.choice(("folder", "folder", "file", "file", "file", "link", "hard", "hole", "fifo", "socket"))
    if kind == "folder":
        os.mkdir(path)
        folders.append(path)
    elif kind == "file":
        Path(os.fsdecode(path)).write_bytes(dice.randbytes(dice.choice((0, 1, 511, 4096, 70_000))))
        files.append(path)
    elif kind == "hole":
        with open(path, "wb") as file:
            file.seek(dice.choice((100_000, 1_000_000)))
            file.write(b"end")
            file.truncate(1_500_000)
        files.append(path)
    elif kind == "link":
        os.symlink(dice.choice((b"a", b".", b"..", b"nowhere", b"/etc")), path)
    elif kind == "hard" and files:
        os.link(dice.choice(files), path)
    elif kind == "fifo":
        os.mkfifo(path)
    elif kind == "socket":
        _make_socket(path)


def _make_socket(path: bytes) -> None:
    """Below a short name: an address has 107 bytes."""
    folder = os.open(os.path.dirname(path), os.O_RDONLY)
    try:
        with socket.socket(socket.AF_UNIX) as made:
            made.bind(b"/proc/self/fd/%d/" % folder + os.path.basename(path))
    finally:
        os.close(folder)

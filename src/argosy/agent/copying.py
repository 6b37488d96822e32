"""Files to and from a node as a tar stream, for `argosy cp`. The first part of every name in it is `x`: what
is copied, whatever it is called on either side.

to the node     tar, then the end of the sender's direction; answer: one line of JSON
from the node   one line of JSON with the size, then tar
"""

from __future__ import annotations

import asyncio
import json
import os
import socket
import tarfile

from argosy.agent import joining
from argosy.agent.orders import Refused

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import BinaryIO

_TOP = "x"


def place_of(home: str, path: str) -> str:
    """A path as people write it (`~/x`, relative to the home, or absolute) on this machine."""
    if path == "~" or path.startswith("~/"):
        path = path[2:]
    return os.path.normpath(os.path.join(home, path))


def target_of(home: str, path: str, name: str) -> str:
    """Where what is called `name` goes: into a folder that is there or is written as one, else to just this
    path."""
    place = place_of(home, path)
    return os.path.join(place, name) if path.endswith("/") or os.path.isdir(place) else place


async def serve(
    home: str, arguments: dict[str, object], streams: tuple[asyncio.StreamReader, asyncio.StreamWriter],
    upgraded: bytes,
) -> None:  # fmt: skip
    """Carry one copy. Raises Refused before anything is sent."""
    path, name, is_read = (arguments.get(key) for key in ("path", "name", "read"))
    if not isinstance(path, str) or not path or "\0" in path:
        raise Refused("path", "`path` must be a path")
    if is_read:
        place = place_of(home, path)
        if not os.path.lexists(place):
            raise Refused("path", "there is no `%s`" % path)
    else:
        if not isinstance(name, str) or name in ("", ".", "..") or "/" in name:
            raise Refused("name", "`name` must be the name of a file or folder")
        place = target_of(home, path, name)
    ours, theirs = socket.socketpair()
    ours.setblocking(False)
    streams[1].write(upgraded)
    loop = asyncio.get_running_loop()
    working = loop.run_in_executor(None, _send if is_read else _receive, place, theirs)
    try:
        await joining.join(streams, await asyncio.open_connection(sock=ours))
    finally:
        await working


def _send(place: str, stream: socket.socket) -> None:
    """Blocks. Sockets, pipes and what cannot be read are left out."""
    try:
        with stream, stream.makefile("wb") as sink:
            total = os.path.getsize(place) if os.path.isfile(place) else 0
            for folder, _, files in os.walk(place):
                for name in files:
                    path = os.path.join(folder, name)
                    total += os.lstat(path).st_size if os.path.lexists(path) else 0
            sink.write(json.dumps({"bytes": total}).encode() + b"\n")
            with tarfile.open(fileobj=sink, mode="w|") as tar:
                tar.add(place, _TOP, filter=_wanted)
    except OSError:
        pass  # the other side left, or a file changed while it was read: the stream ends before the tar does


def _wanted(member: tarfile.TarInfo) -> tarfile.TarInfo | None:
    member.uid = member.gid = 0
    member.uname = member.gname = ""
    return member if member.isfile() or member.isdir() or member.issym() or member.islnk() else None


def _receive(place: str, stream: socket.socket) -> None:
    """Blocks. Answers how many files came, or what was wrong; then the rest is taken in, so that the answer
    is read."""
    with stream, stream.makefile("rb") as source:
        try:
            answer: dict[str, object] = {"files": _unpack(place, source)}
        except (OSError, tarfile.TarError, ValueError) as error:
            reason = getattr(error, "strerror", None) or str(error) or type(error).__name__
            path = getattr(error, "filename", None)
            answer = {"error": "%s: %s" % (path, reason) if path else reason}
        try:
            stream.sendall(json.dumps(answer).encode() + b"\n")
            while source.read(1 << 20):
                pass
        except OSError:
            pass


def _unpack(place: str, source: BinaryIO) -> int:
    count = 0
    modes = []  # of folders, set at the end: one may be closed to us
    if os.path.dirname(place):
        os.makedirs(os.path.dirname(place), exist_ok=True)
    with tarfile.open(fileobj=source, mode="r|") as tar:
        for member in tar:
            top, _, rest = member.name.partition("/")
            if top != _TOP or ".." in rest.split("/"):
                raise ValueError("the stream holds `%s`, which is no part of what is copied" % member.name)
            path = os.path.join(place, rest) if rest else place
            if member.isdir():
                os.makedirs(path, exist_ok=True)
                modes.append((path, member.mode & 0o7777))
                continue
            if os.path.isdir(path) and not os.path.islink(path):
                raise ValueError("%s is a folder there, and a file here" % path)
            if os.path.lexists(path):
                os.unlink(path)
            if member.issym():
                os.symlink(member.linkname, path)
            elif member.islnk():
                os.link(os.path.join(place, member.linkname.partition("/")[2]), path)
            else:
                _write(tar, member, path)
            count += 1
    for path, mode in reversed(modes):
        os.chmod(path, mode)
    return count


def _write(tar: tarfile.TarFile, member: tarfile.TarInfo, path: str) -> None:
    data = tar.extractfile(member)
    if data is None:
        return
    with open(path, "wb") as file:
        while True:
            piece = data.read(1 << 20)
            if not piece:
                break
            file.write(piece)
        os.fchmod(file.fileno(), member.mode & 0o777)
    os.utime(path, (member.mtime, member.mtime))

"""Files to and from nodes as tar streams (`argosy cp`). In a stream, what is copied is called `x`; a folder
that is there takes it in under its own name, as with cp and scp."""

from __future__ import annotations

import os
import tarfile
import threading
from collections.abc import Callable
from pathlib import Path
from typing import BinaryIO, Final, NamedTuple, cast

import msgspec

from argosy.api.location import Location
from argosy.api.shell import ShellCalls
from argosy.client.node_stream import NodeStream
from argosy.model.errors import ArgosyError

_TOP: Final = "x"
_PIECE_BYTES: Final = 512 << 10

OnBytes = Callable[[int, int], None]  # done, of how many (0: not known)


class Place(NamedTuple):
    """One side of a copy. `cluster` "": this machine."""

    cluster: str
    path: str


class Copied(NamedTuple):
    files: int
    bytes: int
    left_out: tuple[str, ...] = ()  # with the reason


class _Answer(msgspec.Struct, frozen=True):
    files: int = 0
    error: str = ""
    bytes: int = 0


def parse_place(text: str) -> Place:
    """`NAME:path` is on a node; what begins as a path does is not.

    >>> parse_place("dev:out/model.pt"), parse_place("./a:b")
    (Place(cluster='dev', path='out/model.pt'), Place(cluster='', path='./a:b'))
    """
    cluster, colon, path = text.partition(":")
    if not colon or not cluster or cluster[0] in "./~":
        return Place("", text)
    return Place(cluster, path or ".")


def send(location: Location, source: Path, to: Place, *, node: int, on_bytes: OnBytes) -> Copied:
    """A file or folder to a node. Errors: "not-found" for what is not here, and what the node says."""
    name = source.name if source.name not in ("", "..") else source.resolve().name
    if not os.path.lexists(source):
        raise ArgosyError("not-found", f"there is no `{source}` here", hint="check the path")
    total = _size(source)
    target = ShellCalls.copy(to.cluster, path=to.path, name=name, node=node).target
    with NodeStream(location, target) as stream:
        sink = _Sink(stream, total, on_bytes)
        broken: list[OSError] = []

        def pack() -> None:
            try:
                with tarfile.open(fileobj=cast(BinaryIO, sink), mode="w|", bufsize=_PIECE_BYTES) as tar:
                    tar.add(source, _TOP, filter=_wanted)
                stream.end()
            except _Refused:
                pass  # the node's answer says why
            except OSError as error:
                broken.append(error)
                stream.close()

        packing = threading.Thread(target=pack, daemon=True)
        packing.start()
        try:
            answer = msgspec.json.decode(stream.read_line(), type=_Answer)
        except ArgosyError:
            if broken:
                raise ArgosyError(
                    "not-found",
                    f"cannot read {broken[0].filename}: {broken[0].strerror}",
                    hint="nothing more is sent",
                ) from None
            raise
        sink.is_refused = bool(answer.error)
        packing.join()
    if answer.error:
        raise ArgosyError(
            "conflict", f"`{to.cluster}` did not take it: {answer.error}", hint="choose another path"
        )
    return Copied(answer.files, sink.done)


def fetch(location: Location, source: Place, to: str, *, node: int, on_bytes: OnBytes) -> Copied:
    """A file or folder from a node. Links that lead out of what is copied are left out."""
    name = Path(source.path).name
    place = Path(to)
    if to.endswith("/") or place.is_dir():
        place = place / (name if name not in ("", ".", "..", "~") else source.cluster)
    target = ShellCalls.copy(source.cluster, path=source.path, read=True, node=node).target
    with NodeStream(location, target) as stream:
        total = msgspec.json.decode(stream.read_line(), type=_Answer).bytes
        reader = _Source(stream, total, on_bytes)
        try:
            with tarfile.open(fileobj=cast(BinaryIO, reader), mode="r|", bufsize=_PIECE_BYTES) as tar:
                count, left_out = _unpack(tar, place)
        except (tarfile.ReadError, EOFError):
            raise ArgosyError(
                "node-unreachable",
                f"the copy of `{source.path}` broke off",
                hint="repeat it; files may have changed",
            ) from None
        stream.end()
    return Copied(count, reader.done, left_out)


class _Refused(Exception):
    """The node has answered before all was sent."""


class _Sink:
    """What tarfile writes to."""

    def __init__(self, stream: NodeStream, total: int, on_bytes: OnBytes) -> None:
        self._stream, self._total, self._on_bytes = stream, total, on_bytes
        self.done = 0
        self.is_refused = False

    def write(self, data: bytes) -> int:
        if self.is_refused or not self._stream.write(bytes(data)):
            raise _Refused
        self.done += len(data)
        self._on_bytes(min(self.done, self._total), self._total)
        return len(data)


class _Source:
    """What tarfile reads from."""

    def __init__(self, stream: NodeStream, total: int, on_bytes: OnBytes) -> None:
        self._stream, self._total, self._on_bytes = stream, total, on_bytes
        self.done = 0
        self._left = b""
        self._ended = False

    def read(self, size: int) -> bytes:
        pieces, have = [self._left], len(self._left)
        while have < size and not self._ended:
            data = self._stream.read()
            self._ended = not data
            pieces.append(data)
            have += len(data)
        whole = b"".join(pieces)
        self._left = whole[size:]
        self.done += min(size, len(whole))
        self._on_bytes(min(self.done, self._total), self._total)
        return whole[:size]


def _wanted(member: tarfile.TarInfo) -> tarfile.TarInfo | None:
    member.uid = member.gid = 0
    member.uname = member.gname = ""
    return member if member.isfile() or member.isdir() or member.issym() or member.islnk() else None


def _size(source: Path) -> int:
    if source.is_file():
        return source.stat().st_size
    total = 0
    for folder, _, files in os.walk(source):
        for name in files:
            try:
                total += os.lstat(os.path.join(folder, name)).st_size  # noqa: PTH118
            except OSError:
                continue
    return total


def _unpack(tar: tarfile.TarFile, place: Path) -> tuple[int, tuple[str, ...]]:
    """By Python's rules for streams from others: nothing outside of `place`, no devices, no foreign
    owners."""
    place.parent.mkdir(parents=True, exist_ok=True)
    count, left_out = 0, []
    for member in tar:
        top, _, rest = member.name.partition("/")
        if top != _TOP:
            left_out.append(f"{member.name}: no part of what is copied")
            continue
        member.name = f"{place.name}/{rest}" if rest else place.name
        if member.islnk():
            member.linkname = f"{place.name}/{member.linkname.partition('/')[2]}"
        try:
            tar.extract(member, place.parent, filter="data")
        except tarfile.FilterError as error:
            left_out.append(str(error))
            continue
        count += not member.isdir()
    return count, tuple(left_out)

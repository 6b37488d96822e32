"""Virtual folders for nodes that do not see their volume: mounted through the server, or as a copy whose
changes come back.

What may be done is asked with every call, of the rights of whoever the program runs for: who loses a folder
loses it there, too. A file appears when all of it has come. What was changed on both sides is kept twice.
"""

from __future__ import annotations

import asyncio
import collections
import functools
import hashlib
import os
import socket
import stat
import threading
from collections.abc import Callable, Coroutine, Iterable, Iterator, Mapping, Sequence
from typing import Any, Final, NamedTuple, TypeVar, cast

import msgspec

from argosy.api.folders import FileView
from argosy.controllers.folder_links import WentBack
from argosy.infra.agent_port import LINK, UNTOLD, Duplex, Reshaped, Shape
from argosy.infra.border import BorderError
from argosy.infra.buckets import (
    AccessRefused,
    Bucket,
    BucketError,
    BucketMissing,
    ChangedMeanwhile,
    MountKeys,
    NoSpace,
    NotPossible,
    ObjectMissing,
    ReadsOnly,
    RequestRefused,
    Traits,
)
from argosy.model.errors import ArgosyError
from argosy.model.folders import Access, Folder, check_room
from argosy.model.ids import Ids
from argosy.model.mounts import ServedFolder
from argosy.model.objects import ObjectInfo, ObjectPage
from argosy.server.folder_traffic import FolderTraffic
from argosy.server.folder_transfers import byte_range
from argosy.server.folders import Folders
from argosy.storage.folders.beneath import HIDDEN, Beneath
from argosy.storage.folders.uploads import Upload, Uploads

T = TypeVar("T")
_PIECE: Final = 1 << 20
_IDLE_S: Final = 60.0  # a connection that asks for nothing ends
_CALL_S: Final = 60.0
_TRAITS: Final = Traits(mounts=True)


class _Now(NamedTuple):
    """A folder as it is for a call."""

    folder: Folder
    access: Access
    beneath: Beneath
    uploads: Uploads


class NodeFolders:
    """`controllers.folder_links.ServesFolders`."""

    def __init__(self, folders: Folders, traffic: FolderTraffic, ids: Ids) -> None:
        self.folders, self.traffic, self._ids = folders, traffic, ids
        self._loop: asyncio.AbstractEventLoop | None = None

    def bucket(self, mount: ServedFolder) -> Bucket:
        return FolderAsBucket(self._opened(mount), mount)

    def sink(self, mount: ServedFolder, label: str) -> Changes:
        return Changes(self._opened(mount), mount.sub_path, label)

    def _opened(self, mount: ServedFolder) -> OpenFolder:
        """Also from a thread, once it was asked for in the loop."""
        try:
            self._loop = asyncio.get_running_loop()
        except RuntimeError:
            pass
        assert self._loop is not None
        return OpenFolder(self.folders, self.traffic, self._ids, mount.folder, mount.as_user, self._loop)

    async def serve(self, mount: ServedFolder, duplex: Duplex, begun: Callable[[], None]) -> None:
        head = b""
        while b"\n" not in head:
            more = await duplex.read()
            if not more:
                return
            head += more
        line, _, first = head.partition(b"\n")
        first = first or await duplex.read()
        if not first:
            return
        begun()
        dav = _Dav(msgspec.json.decode(line, type=_Told).token, MountedFolder(self._opened(mount), mount))
        ours, theirs = socket.socketpair()
        threading.Thread(target=_answer, args=(theirs, dav), daemon=True, name="folder").start()
        reader, writer = await asyncio.open_connection(sock=ours)
        writer.write(first)
        asking = asyncio.ensure_future(_ask(duplex, writer))
        try:
            while data := await reader.read(256 << 10):
                await duplex.write(data)
        finally:
            asking.cancel()
            writer.close()


class _Told(msgspec.Struct):
    token: str


class _Dav(NamedTuple):
    token: str
    files: MountedFolder


async def _ask(duplex: Duplex, writer: asyncio.StreamWriter) -> None:
    try:
        while data := await duplex.read():
            writer.write(data)
            await writer.drain()
        writer.write_eof()
    except (BorderError, OSError):
        writer.close()


def _answer(connection: socket.socket, dav: _Dav) -> None:
    """In a thread of its own: a program that mounts waits long between two questions."""
    from argosy.api.folder_dav import DavConnection  # brings a server of HTTP along

    with connection:
        connection.settimeout(_IDLE_S)
        try:
            DavConnection(connection, ("node", 0), cast(Any, dav))
        except (OSError, ValueError):
            pass  # whoever asked has gone


class OpenFolder:
    """One folder for one user, from any thread but the loop's. Raises ArgosyError."""

    def __init__(
        self,
        folders: Folders,
        traffic: FolderTraffic,
        ids: Ids,
        folder: str,
        as_user: str,
        loop: asyncio.AbstractEventLoop,
    ) -> None:
        self._folders, self.traffic, self._ids = folders, traffic, ids
        self._id, self.as_user, self._loop = folder, as_user, loop

    def now(self, least: Access) -> _Now:
        async def look() -> _Now:
            folder, has = await self._folders.usable(self._id, self.as_user, least)
            disk = await self._folders.disk(folder)
            return _Now(folder, has, await self._folders.beneath(folder), disk.uploads)

        return self._wait(look())

    def _wait(self, coroutine: Coroutine[Any, Any, T]) -> T:  # Any: what a loop exchanges with it
        try:
            return asyncio.run_coroutine_threadsafe(coroutine, self._loop).result(_CALL_S)
        except TimeoutError:
            raise ArgosyError("transient", "the server is too busy", hint="it is tried again") from None

    def add_used(self, folder: Folder, size: int) -> None:
        self._wait(self._folders.add_used(folder, size))

    def take(
        self,
        now: _Now,
        path: str,
        size: int,
        pieces: Iterable[bytes],
        placing: Callable[[Upload], Upload | None],
        mode: int = UNTOLD,
    ) -> bool:
        """The bytes become a file when all have come, where `placing` says; None: they are not wanted. Raises
        what `pieces` raises."""
        check_room(now.folder, size, now.uploads.coming(now.folder.id))
        upload = Upload(
            id=self._ids.new("up"),
            folder_id=now.folder.id,
            path=path,
            size=size,
            by=self.as_user,
            mode=_mode_of(now.beneath, path) if mode == UNTOLD else (mode & 0o777) | 0o600,
            replace=True,
        )
        now.uploads.begin(upload)
        try:
            came = 0
            with now.uploads.writing(upload, 0) as write:
                for piece in pieces:
                    write(piece)
                    came += len(piece)
            if came != size:
                raise ArgosyError("transient", f"`{path}` broke off", hint="it is tried again")
            now.uploads.sync(upload)
            placed = placing(upload)
            if placed is None:
                now.uploads.forget(upload.id)
                return False
            now.uploads.finish(placed, now.beneath)
        except BaseException:
            now.uploads.forget(upload.id)
            raise
        self.traffic.wrote(now.folder.id, size)
        self.add_used(now.folder, size)
        return True


class MountedFolder:
    """`api.folder_dav.DavFiles` of a part of a folder. Paths begin with what the tool was told to mount."""

    def __init__(self, opened: OpenFolder, mount: ServedFolder) -> None:
        self._opened, self._sub, self._read_only = opened, mount.sub_path, mount.read_only
        self._root = mount_root(mount)

    def _in(self, path: str) -> str:
        """A path of the folder. Raises "not-found" for what is not below the mount."""
        if path != self._root and not path.startswith(self._root + "/"):
            raise ArgosyError("not-found", f"there is no `{path}`", hint="only this folder is mounted")
        return f"{self._sub}/{path[len(self._root) :].strip('/')}".strip("/")

    def _now(self, least: Access) -> _Now:
        if self._read_only and least > Access.READ:
            raise ArgosyError("forbidden", "it is mounted to be read", hint="leave `:ro` away")
        return self._opened.now(least)

    def look(self, path: str) -> FileView:
        beneath = self._now(Access.READ).beneath
        if not (inside := self._in(path)):
            return FileView(name="", kind="folder")
        return FileView(**beneath.look(inside)._asdict())

    def list(self, path: str) -> Sequence[FileView]:
        found = self._now(Access.READ).beneath.list(self._in(path))
        return [FileView(**each._asdict()) for each in found]

    def make_folder(self, path: str) -> None:
        self._now(Access.WRITE).beneath.make_folder(self._in(path))

    def remove(self, path: str) -> None:
        now = self._now(Access.REMOVE)
        gone = now.beneath.remove(self._in(path))
        self._opened.add_used(now.folder, -gone)

    def rename(self, path: str, to: str, *, replace: bool) -> None:
        self._now(Access.REMOVE).beneath.rename(self._in(path), self._in(to), replace=replace)

    def read(
        self,
        path: str,
        span: str,
        begin: Callable[[int, dict[str, str]], None],
        take: Callable[[bytes], object],
    ) -> None:
        now = self._now(Access.READ)
        fd, size = now.beneath.open_file(self._in(path))
        sent = 0
        try:
            first, last = byte_range(span, size)
            headers = {"content-length": str(last - first), "etag": f'"{_etag(os.fstat(fd))}"'}
            whole = last - first == size
            if not whole:
                headers["content-range"] = f"bytes {first}-{last - 1}/{size}"
            begin(200 if whole else 206, headers)
            while first < last:
                piece = os.pread(fd, min(_PIECE, last - first), first)
                if not piece:
                    raise ArgosyError(
                        "conflict", "the file became shorter while it was read", hint="read again"
                    )
                take(piece)
                first, sent = first + len(piece), sent + len(piece)
        finally:
            os.close(fd)
            self._opened.traffic.read(now.folder.id, sent)

    def write(self, path: str, size: int, pieces: Iterator[bytes]) -> None:
        self._opened.take(self._now(Access.WRITE), self._in(path), size, pieces, lambda upload: upload)


class FolderAsBucket(ReadsOnly):
    """A folder as `infra.buckets.Bucket`, as far as copies to nodes need it."""

    def __init__(self, opened: OpenFolder, mount: ServedFolder) -> None:
        self._opened, self._mount = opened, mount
        self.url = mount.sources[0]
        self.region = ""
        self.traits = _TRAITS
        self.shape = Shape(mode=0o660)  # as it was listed last

    def mount_keys(self, key: str, *, writes: bool) -> MountKeys:
        """No key: the agent makes one for the tool, and streams are opened from here."""
        with _as_bucket():
            self._opened.now(Access.WRITE if writes else Access.READ)
        return MountKeys(settings={}, path=mount_root(self._mount), scoped=True, door="link")

    def page(self, *, prefix: str = "", delimiter: str = "", after: str = "", most: int = 1000) -> ObjectPage:
        """All files below the folder `prefix`. Links are in `shape`, with modes."""
        found, modes, links = [], dict[str, int](), dict[str, str]()
        with _as_bucket():
            below = prefix.strip("/")
            beneath = self._opened.now(Access.READ).beneath
            for name, fd, st in beneath.walk(below, links=True, opens=False):
                if stat.S_ISLNK(st.st_mode) and _is_text(name):
                    target = beneath.read_link(f"{below}/{name}" if below else name)
                    links |= {name: target} if _is_text(target) and target else {}
                if fd is not None and _is_text(name):
                    modes[name] = st.st_mode & 0o777
                    key = f"{below}/{name}" if below else name
                    modified_ms = st.st_mtime_ns // 1_000_000
                    found.append(
                        ObjectInfo(key=key, size=st.st_size, etag=_etag(st), modified_ms=modified_ms)
                    )
        common, _ = next(iter(collections.Counter(modes.values()).most_common(1)), (0o660, 0))
        others = {name: mode for name, mode in modes.items() if mode != common}
        self.shape = Shape(mode=common, modes=others, links=links)
        return ObjectPage(objects=tuple(found))

    def head(self, key: str) -> ObjectInfo:
        raise ObjectMissing(f"{self.url} is a folder")

    def read(self, key: str, *, first: int = 0, count: int = -1, etag: str = "") -> Iterator[bytes]:
        with _as_bucket():
            now = self._opened.now(Access.READ)
            fd, size = now.beneath.open_file(key)
        sent = 0
        try:
            if etag and _etag(now.beneath.facts(fd, key)) != etag:
                raise ChangedMeanwhile(f"{self.url}: `{key}` changed while it was read")
            last = size if count < 0 else min(size, first + count)
            while first < last:
                piece = os.pread(fd, min(_PIECE, last - first), first)
                if not piece:
                    raise ChangedMeanwhile(f"{self.url}: `{key}` changed while it was read")
                first, sent = first + len(piece), sent + len(piece)
                yield piece
        finally:
            os.close(fd)
            self._opened.traffic.read(now.folder.id, sent)

    def close(self) -> None:
        """Nothing stays open."""

    def refusal(self) -> NotPossible:
        return NotPossible(f"{self.url} is a folder, no bucket", "argosy folder --help")


class Changes:
    """`controllers.folder_links.FolderSink`: what one node changed in its copy goes into the folder."""

    def __init__(self, opened: OpenFolder, sub_path: str, label: str) -> None:
        self._opened, self._sub, self._label = opened, sub_path, label
        self._was: dict[str, str] = {}
        self._modes: dict[str, int] = {}
        self._files = self._bytes = self._removed = 0
        self._links = self._reshaped = 0
        self._beside: list[tuple[str, str]] = []
        self._stayed: list[str] = []
        self._left: list[tuple[str, str]] = []

    headers: Mapping[str, str] = {}

    def went(self) -> WentBack:
        return WentBack(
            self._files,
            self._bytes,
            self._removed,
            tuple(self._beside),
            tuple(self._stayed),
            tuple(self._left),
            self._links,
            self._reshaped,
        )

    def was(self, path: str, etag: str, mode: int) -> None:
        self._was[path], self._modes[path] = etag, mode

    def wants(self, path: str, size: int) -> bool:
        return True

    def address(self, path: str, size: int) -> str:
        return ""

    def sent(self, path: str, size: int) -> None:
        """It was counted when it was written."""

    def write(self, path: str, size: int, pieces: Iterator[bytes]) -> None:
        """What the folder does not take is noted, and the next one comes."""
        inside = f"{self._sub}/{path}".strip("/")
        try:
            now = self._opened.now(Access.WRITE)
            mode = self._modes.get(path, UNTOLD)
            placing = functools.partial(self._placed, now, path)
            if self._opened.take(now, inside, size, pieces, placing, mode):
                self._files, self._bytes = self._files + 1, self._bytes + size
        except ArgosyError as error:
            if error.code == "transient":
                raise
            self._left.append((path, f"{error.what}; {error.hint}" if error.hint else error.what))

    def _placed(self, now: _Now, path: str, upload: Upload) -> Upload | None:
        """Under its own name where nobody else has changed it, else beside; None: it is there already."""
        there = now.beneath.stat(upload.path)
        if there is None or _is_as_it_was(now, upload.path, there, self._was.get(path, "")):
            return msgspec.structs.replace(upload, replace=there is not None)
        if now.beneath.size_of(upload.path) == upload.size and _same(now, upload):
            return None
        return msgspec.structs.replace(upload, path=self._name_beside(now, path), replace=False)

    def _name_beside(self, now: _Now, path: str) -> str:
        """Where the node's goes, as both sides have changed it: a path of the folder."""
        number, beside = 1, f"{path}.{self._label}"
        while now.beneath.exists(f"{self._sub}/{beside}".strip("/")):
            number += 1
            beside = f"{path}.{self._label}-{number}"
        self._beside.append((path, beside))
        return f"{self._sub}/{beside}".strip("/")

    def reshaped(self, change: Reshaped) -> None:
        """A link under its own name or beside, as a file. A mode where nobody else has changed it."""
        inside = f"{self._sub}/{change.path}".strip("/")
        try:
            now = self._opened.now(Access.WRITE)
            there = now.beneath.stat(inside)
            is_as_it_was = there is not None and _is_as_it_was(now, inside, there, change.was)
            if change.link:
                self._link(now, inside, change, there, is_as_it_was=is_as_it_was)
            elif there is not None and is_as_it_was and there.st_mode & 0o777 == change.was_mode:
                now.beneath.set_mode(inside, change.mode)
                self._reshaped += 1
        except ArgosyError as error:
            if error.code == "transient":
                raise
            self._left.append((change.path, error.what))

    def _link(
        self, now: _Now, inside: str, change: Reshaped, there: os.stat_result | None, *, is_as_it_was: bool
    ) -> None:
        if now.beneath.read_link(inside) == change.link:
            return
        place = inside if there is None or is_as_it_was else self._name_beside(now, change.path)
        now.beneath.make_link(place, change.link, replace=is_as_it_was)
        self._links += 1
        if there is not None and is_as_it_was and stat.S_ISREG(there.st_mode):
            self._opened.add_used(now.folder, -there.st_size)

    def removed(self, path: str, etag: str) -> None:
        """Gone from the folder, too, when it is as it was, and may be removed."""
        inside = f"{self._sub}/{path}".strip("/")
        try:
            now = self._opened.now(Access.WRITE)
            there = now.beneath.stat(inside)
            if there is None:
                return
            if now.access < Access.REMOVE or not _is_as_it_was(now, inside, there, etag):
                self._stayed.append(path)
                return
            gone = now.beneath.remove(inside)
        except ArgosyError:
            self._stayed.append(path)
            return
        self._removed += 1
        self._opened.add_used(now.folder, -gone)


def mount_root(mount: ServedFolder) -> str:
    """What the tool mounts: another text for another part of another folder."""
    part = hashlib.sha256(mount.sub_path.encode("utf-8", "surrogateescape")).hexdigest()[:8]
    return f"{mount.folder}-{part}" if mount.sub_path else mount.folder


def _is_as_it_was(now: _Now, path: str, there: os.stat_result, was: str) -> bool:
    """Whether nobody has changed it since a copy was made. `was`: as in `DataSink.was`."""
    if was.startswith(LINK):
        return stat.S_ISLNK(there.st_mode) and now.beneath.read_link(path) == was[len(LINK) :]
    return stat.S_ISREG(there.st_mode) and _etag(there) == was


def _same(now: _Now, upload: Upload) -> bool:
    return now.beneath.sha256_of(upload.path) == now.uploads.sha256_of(upload.id)


def _mode_of(beneath: Beneath, path: str) -> int:
    there = beneath.stat(path)
    return there.st_mode & 0o777 if there is not None else 0o660


def _etag(st: os.stat_result) -> str:
    return f"{st.st_mtime_ns:x}-{st.st_size:x}-{st.st_ino:x}"


def _is_text(name: str) -> bool:
    try:
        name.encode()
    except UnicodeEncodeError:
        return False
    return HIDDEN not in name


class _as_bucket:
    """What a folder says becomes what a store says."""

    def __enter__(self) -> None:
        return None

    def __exit__(self, kind: object, error: BaseException | None, trace: object) -> None:
        if isinstance(error, ArgosyError) and not isinstance(error, BucketError):
            made = {"forbidden": AccessRefused, "not-found": BucketMissing, "over-quota": NoSpace}
            raise made.get(error.code, RequestRefused)(error.what, error.hint or "") from None

"""Folders of a volume that is a bucket: `ID/PATH` below its prefix, whatever the store is.

Stores have no folders: one without files is an object of ours in it. A file has its name when all of it is in
the store. What is read is fetched once into a spool of this server, and read there. Modes and links have no
place in a store.
"""

from __future__ import annotations

import contextlib
import errno
import hashlib
import os
import stat
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Final

from argosy.infra.buckets import PIECE_BYTES, Bucket, BucketMissing, Extra, ObjectMissing
from argosy.model.errors import ArgosyError
from argosy.model.objects import Conditions, ObjectInfo
from argosy.storage.folders.beneath import HIDDEN, Beneath, Found, error_of, split
from argosy.storage.folders.disk import VolumeDisk

_MARK: Final = f"{HIDDEN}folder"  # of a folder, so that an empty one is there
_AT_ONCE: Final = 1000  # keys that are removed together
_SPOOL_BYTES: Final = 8 << 30  # of files that were read; the oldest go


class BucketBeneath(Beneath):
    """`prefix`: of the folder's keys, with a `/` at the end."""

    def __init__(self, bucket: Bucket, prefix: str, spool: Path) -> None:
        super().__init__(f"{bucket.url}/{prefix}")
        self._bucket, self._prefix, self._spool = bucket, prefix, spool

    def _key(self, path: str) -> str:
        return self._prefix + "/".join(split(path))

    def objects(self) -> Iterator[ObjectInfo]:
        """All that the folder has in the store."""
        return self._below("")

    def _below(self, path: str) -> Iterator[ObjectInfo]:
        """All objects of a folder, those that mark folders among them."""
        prefix, after = f"{self._key(path)}/" if split(path) else self._prefix, ""
        while True:
            page = self._bucket.page(prefix=prefix, after=after)
            yield from page.objects
            after = page.after
            if not after:
                return

    def stat(self, path: str) -> os.stat_result | None:
        try:
            return facts_of(self._bucket.head(self._key(path)))
        except (ObjectMissing, BucketMissing):
            pass
        found = next(self._below(path), None)
        return None if found is None else _FOLDER

    def list(self, path: str) -> list[Found]:
        there = self.stat(path) if split(path) else _FOLDER
        if there is None:
            raise error_of(path, FileNotFoundError(errno.ENOENT, ""))
        if stat.S_ISREG(there.st_mode):
            return [Found(split(path)[-1], "file", there.st_size, there.st_mtime_ns // 1_000_000)]
        prefix, after = f"{self._key(path)}/" if split(path) else self._prefix, ""
        found: list[Found] = []
        while True:
            page = self._bucket.page(prefix=prefix, delimiter="/", after=after)
            found += [
                Found(each.key[len(prefix) :], "file", each.size, each.modified_ms)
                for each in page.objects
                if not each.key[len(prefix) :].startswith(HIDDEN)
            ]
            found += [Found(each[len(prefix) :].rstrip("/"), "folder", 0, 0) for each in page.prefixes]
            after = page.after
            if not after:
                return sorted(found)

    def open_file(self, path: str) -> tuple[int, int]:
        if not split(path):
            raise ArgosyError("usage", "the folder itself is no file", hint="name a file in it")
        try:
            info = self._bucket.head(self._key(path))
        except ObjectMissing:
            if self.stat(path) is not None:
                raise ArgosyError(
                    "usage", f"`{path}` is no file", hint="a folder comes as an archive"
                ) from None
            raise error_of(path, FileNotFoundError(errno.ENOENT, "")) from None
        return self._fetched(info), info.size

    def facts(self, fd: int, path: str) -> os.stat_result:
        found = self.stat(path)
        if found is None:
            raise error_of(path, FileNotFoundError(errno.ENOENT, ""))
        return found

    def _fetched(self, info: ObjectInfo) -> int:
        """A descriptor of its bytes on this server."""
        name = hashlib.sha256(f"{self._bucket.url}\0{info.key}\0{info.etag}\0{info.size}".encode())
        place = self._spool / name.hexdigest()
        with contextlib.suppress(FileNotFoundError):
            os.utime(place, (info.modified_ms / 1000, info.modified_ms / 1000))
            return os.open(place, os.O_RDONLY | os.O_CLOEXEC)
        self._spool.mkdir(mode=0o700, parents=True, exist_ok=True)
        _make_room(self._spool, info.size)
        handle, temporary = tempfile.mkstemp(dir=self._spool, prefix=".part-")
        try:
            with os.fdopen(handle, "wb", closefd=False) as file:
                for piece in self._bucket.read(info.key, etag=info.etag):
                    file.write(piece)
            os.utime(temporary, (info.modified_ms / 1000, info.modified_ms / 1000))
            fd = os.open(temporary, os.O_RDONLY | os.O_CLOEXEC)
            Path(temporary).replace(place)
            return fd
        except OSError as error:
            raise error_of(info.key, error) from None
        finally:
            os.close(handle)
            Path(temporary).unlink(missing_ok=True)

    def make_folder(self, path: str) -> None:
        there = self.stat(path) if split(path) else _FOLDER
        if there is not None and stat.S_ISREG(there.st_mode):
            raise error_of(path, NotADirectoryError(errno.ENOTDIR, ""))
        self._check_way(path)
        if there is None:
            self._bucket.write(f"{self._key(path)}/{_MARK}", (), Extra(size=0))

    def place(self, temporary: str, path: str, *, replace: bool) -> None:
        if not split(path):
            raise ArgosyError("usage", "the folder itself is no file", hint="name a file in it")
        there = self.stat(path)
        if there is not None and (not replace or not stat.S_ISREG(there.st_mode)):
            raise error_of(path, FileExistsError(errno.EEXIST, ""))
        self._check_way(path)
        absent = Conditions(if_absent=not replace and self._bucket.traits.conditions)
        size = Path(temporary).stat().st_size
        with open(temporary, "rb") as file:
            pieces = iter(lambda: file.read(PIECE_BYTES), b"")
            self._bucket.write(self._key(path), pieces, Extra(size=size, conditions=absent))
        Path(temporary).unlink()

    def _check_way(self, path: str) -> None:
        """A file cannot be a folder of others, though a store would take it."""
        parts = split(path)
        for count in range(1, len(parts)):
            above = "/".join(parts[:count])
            there = self.stat(above)
            if there is None:
                return
            if stat.S_ISREG(there.st_mode):
                raise error_of(above, NotADirectoryError(errno.ENOTDIR, ""))

    def remove(self, path: str) -> int:
        if not split(path):
            raise ArgosyError(
                "usage", "the folder itself is not removed this way", hint="argosy folder rm NAME"
            )
        there = self.stat(path)
        if there is None:
            raise error_of(path, FileNotFoundError(errno.ENOENT, ""))
        if stat.S_ISREG(there.st_mode):
            self._keep_folder(path)
            self._bucket.remove([self._key(path)])
            return there.st_size
        self._keep_folder(path)
        return remove_all(self._bucket, [*self._below(path)])

    def _keep_folder(self, path: str) -> None:
        """The folder that it was in stays, as on a disk."""
        above = "/".join(split(path)[:-1])
        if above:
            self._bucket.write(f"{self._key(above)}/{_MARK}", (), Extra(size=0))

    def rename(self, path: str, to: str, *, replace: bool = False) -> None:
        """Every object is copied within the store, and removed: not one step, as on a disk."""
        if not split(path) or not split(to):
            raise ArgosyError("usage", "the folder itself is not renamed this way", hint="name what is in it")
        there, target = self.stat(path), self.stat(to)
        if there is None:
            raise error_of(path, FileNotFoundError(errno.ENOENT, ""))
        is_file = stat.S_ISREG(there.st_mode)
        if target is not None and not (replace and is_file and stat.S_ISREG(target.st_mode)):
            raise ArgosyError("conflict", f"`{to}` is there already", hint="remove it first")
        if f"{'/'.join(split(to))}/".startswith(f"{'/'.join(split(path))}/"):
            raise ArgosyError("usage", f"`{to}` is within `{path}`", hint="name another place")
        self._check_way(to)
        source, goal = self._key(path), self._key(to)
        keys = [source] if is_file else [each.key for each in self._below(path)]
        for key in keys:
            self._bucket.copy(key, goal + key[len(source) :])
        self._keep_folder(path)
        for first in range(0, len(keys), _AT_ONCE):
            self._bucket.remove(keys[first : first + _AT_ONCE])

    def walk(
        self, path: str, *, links: bool = False, opens: bool = True
    ) -> Iterator[tuple[str, int | None, os.stat_result]]:
        cut, told = len(f"{self._key(path)}/" if split(path) else self._prefix), set[str]()
        for each in self._below(path):
            name = each.key[cut:]
            above = name.rpartition("/")[0]
            for folder in _folders_on(above):
                if folder not in told:
                    told.add(folder)
                    yield folder, None, _FOLDER
            if name.rpartition("/")[2].startswith(HIDDEN):
                continue
            if not opens:
                yield name, -1, facts_of(each)
                continue
            fd = self._fetched(each)
            try:
                yield name, fd, facts_of(each)
            finally:
                os.close(fd)

    def read_link(self, path: str) -> str:
        return ""

    def make_link(self, path: str, target: str, *, replace: bool) -> None:
        raise ArgosyError(
            "unsupported", f"`{path}` is a link, and a bucket holds files only", hint="copy what it leads to"
        )

    def set_mode(self, path: str, mode: int) -> None:
        """A store keeps none."""


class BucketVolume(VolumeDisk):
    """Folders below `prefix` of a bucket. `spool`: a folder of this server, for what comes and what is
    read. The trash is a row of the folder alone: nothing moves."""

    def __init__(self, bucket: Bucket, prefix: str, spool: Path) -> None:
        super().__init__(spool)
        self._bucket, self._prefix = bucket, f"{prefix.strip('/')}/" if prefix.strip("/") else ""

    def beneath(self, folder_id: str) -> BucketBeneath:
        return BucketBeneath(self._bucket, f"{self._prefix}{folder_id}/", self.root / "read")

    def is_made(self, folder_id: str) -> bool:
        return True

    def make(self, folder_id: str, quota_bytes: int = 0) -> str:
        return ""

    def limit(self, folder_id: str, quota_bytes: int) -> str:
        return ""

    def trash(self, folder_id: str) -> None:
        """Nothing moves."""

    def restore(self, folder_id: str) -> None:
        """Nothing has moved."""

    def has(self, folder_id: str) -> bool:
        return True

    def purge(self, folder_id: str) -> bool:
        remove_all(self._bucket, [*self.beneath(folder_id).objects()])
        return True

    def clone(self, folder_id: str, new_id: str, quota_bytes: int = 0) -> None:
        """Within the store: bytes do not come here."""
        source, target = f"{self._prefix}{folder_id}/", f"{self._prefix}{new_id}/"
        for each in self.beneath(folder_id).objects():
            self._bucket.copy(each.key, target + each.key[len(source) :])

    def used_bytes(self, folder_id: str) -> int:
        return sum(each.size for each in self.beneath(folder_id).objects())


def facts_of(info: ObjectInfo) -> os.stat_result:
    """An object as a file: another number for other bytes."""
    number = int(hashlib.sha256(info.etag.encode()).hexdigest()[:15], 16)
    modified_s = info.modified_ms // 1000
    plain = (stat.S_IFREG | 0o660, number, 0, 1, 0, 0, info.size, modified_s, modified_s, modified_s)
    return os.stat_result(plain, {"st_mtime_ns": info.modified_ms * 1_000_000})


def remove_all(bucket: Bucket, objects: list[ObjectInfo]) -> int:
    """The bytes that went."""
    for first in range(0, len(objects), _AT_ONCE):
        bucket.remove([each.key for each in objects[first : first + _AT_ONCE]])
    return sum(each.size for each in objects)


def _folders_on(path: str) -> Iterator[str]:
    parts = path.split("/") if path else []
    for count in range(1, len(parts) + 1):
        yield "/".join(parts[:count])


def _make_room(spool: Path, size: int) -> None:
    """What was read long ago goes."""
    kept = sorted((each for each in spool.iterdir() if each.is_file()), key=lambda each: each.stat().st_atime)
    total = sum(each.stat().st_size for each in kept) + size
    for each in kept:
        if total <= _SPOOL_BYTES:
            return
        total -= each.stat().st_size
        each.unlink(missing_ok=True)


_FOLDER: Final = os.stat_result((stat.S_IFDIR | 0o770, 0, 0, 1, 0, 0, 0, 0, 0, 0), {"st_mtime_ns": 0})

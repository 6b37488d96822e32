"""A folder as a bucket: file:///PATH. Keys that a disk cannot hold are refused by name."""

from __future__ import annotations

import contextlib
import errno
import os
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Final
from urllib.parse import unquote

from argosy.infra.buckets import (
    PIECE_BYTES,
    PLAIN,
    AccessRefused,
    BucketInUse,
    BucketMissing,
    ChangedMeanwhile,
    ConditionFailed,
    Encryption,
    Extra,
    NoSpace,
    NotPossible,
    ObjectMissing,
    Opened,
    RequestRefused,
    StoreSettings,
    Traits,
    UrlUnknown,
)
from argosy.model.objects import ObjectInfo, ObjectPage
from argosy.storage.disk import disk_full, write_all

_TEMPORARY: Final = ".argosy-part-"
_FULL: Final = frozenset((errno.ENOSPC, errno.EDQUOT, errno.EFBIG))


def open_url(url: str, settings: StoreSettings, encryption: Encryption) -> Opened:
    """`file:///a/b/c`: the bucket is the file system's root, so that a prefix needs no folder."""
    path = unquote(url.removeprefix("file://"))
    if not path.startswith("/"):
        raise UrlUnknown(f"`{url}` is no path on this machine", "write file:///PATH, with three slashes")
    if encryption.type:
        raise NotPossible("files are not encrypted by Argosy", "encrypt the disk, or use an object store")
    return Opened(FolderBucket(Path("/"), "file://"), path.lstrip("/"))


class FolderBucket:
    """Files below `root`, by their paths; symbolic links are followed to files, not to folders. What is below
    another root cannot be reached."""

    def __init__(self, root: Path, url: str) -> None:
        self._root, self._url = root, url
        self._traits = Traits(conditions=True, makes_buckets=True)

    @property
    def url(self) -> str:
        return self._url

    @property
    def region(self) -> str:
        return ""

    @property
    def traits(self) -> Traits:
        return self._traits

    def close(self) -> None:
        """Nothing stays open."""

    def _path(self, key: str) -> Path:
        parts = key.split("/")
        if any(part in ("", ".", "..") or "\0" in part or len(os.fsencode(part)) > 255 for part in parts):
            raise RequestRefused(f"`{key}` cannot be a file's path", "give it another name")
        return self._root / key

    @contextlib.contextmanager
    def _said(self, key: str) -> Iterator[None]:
        whole = f"{self._url}/{key}"
        try:
            yield
        except (FileNotFoundError, NotADirectoryError):
            if not self._root.is_dir():
                raise self._no_root() from None
            raise ObjectMissing(
                f"there is no {whole}", f"`argosy storage ls {self._url}/` lists it"
            ) from None
        except IsADirectoryError:
            raise ObjectMissing(
                f"{whole} is a folder", "name a file, or the folder with a / at its end"
            ) from None
        except PermissionError:
            raise AccessRefused(
                f"the system does not let us use {whole}", "look at its permissions"
            ) from None
        except OSError as error:
            if error.errno in _FULL:
                raise NoSpace(disk_full(self._root).what, "free some space, then repeat") from None
            raise RequestRefused(f"{whole}: {error.strerror or error}") from None

    def _no_root(self) -> BucketMissing:
        return BucketMissing(f"there is no folder {self._url}", "make it, or check its name")

    # -- listing --------------------------------------------------------------------------------------------

    def page(self, *, prefix: str = "", delimiter: str = "", after: str = "", most: int = 1000) -> ObjectPage:
        if not self._root.is_dir():
            raise self._no_root()
        top = prefix.rpartition("/")[0]
        objects: list[ObjectInfo] = []
        prefixes: list[str] = []
        last = ""
        for key, info in self._walk(top + "/" if top else "", prefix, after, deep=not delimiter):
            if len(objects) + len(prefixes) == most:
                return ObjectPage(objects=tuple(objects), prefixes=tuple(prefixes), after=last)
            if info is None:
                prefixes.append(key)
            else:
                objects.append(info)
            last = key
        return ObjectPage(objects=tuple(objects), prefixes=tuple(prefixes))

    def _walk(
        self, folder: str, prefix: str, after: str, *, deep: bool
    ) -> Iterator[tuple[str, ObjectInfo | None]]:
        """Keys after `after`, in order; a folder that is not walked is a prefix (None)."""
        try:
            with os.scandir(self._root / folder) as found:
                entries = [(each.name, each.is_dir(follow_symlinks=False)) for each in found]
        except (FileNotFoundError, NotADirectoryError, PermissionError):
            return
        named = sorted((folder + name + ("/" if is_dir else ""), is_dir) for name, is_dir in entries)
        for key, is_dir in sorted(named, key=lambda each: os.fsencode(each[0])):
            if not (key.startswith(prefix) or (is_dir and prefix.startswith(key))):
                continue
            if is_dir and (deep or not key.startswith(prefix)):
                if key > after or after.startswith(key):
                    yield from self._walk(key, prefix, after, deep=deep)
            elif key > after and _TEMPORARY not in key:
                if is_dir:
                    yield key, None
                elif (info := self._info(key)) is not None:
                    yield key, info

    def _info(self, key: str) -> ObjectInfo | None:
        try:
            told = os.stat(f"{self._root}/{key}")  # noqa: PTH116  for each of very many files
        except OSError:
            return None
        return _described(key, told) if not _is_dir(told) else None

    def head(self, key: str) -> ObjectInfo:
        with self._said(key):
            told = self._path(key).stat()
            if _is_dir(told):
                raise IsADirectoryError
            return _described(key, told)

    # -- bytes ----------------------------------------------------------------------------------------------

    def read(self, key: str, *, first: int = 0, count: int = -1, etag: str = "") -> Iterator[bytes]:
        with self._said(key), self._path(key).open("rb", buffering=0) as file:
            before = _described(key, os.fstat(file.fileno()))
            if etag and before.etag != etag:
                raise self._changed(key)
            left = before.size - first if count < 0 else min(count, before.size - first)
            file.seek(first)
            while left > 0:
                piece = file.read(min(PIECE_BYTES, left))
                if not piece:
                    raise self._changed(key)
                left -= len(piece)
                yield piece
            if _described(key, os.fstat(file.fileno())).etag != before.etag:
                raise self._changed(key)

    def _changed(self, key: str) -> ChangedMeanwhile:
        return ChangedMeanwhile(
            f"{self._url}/{key} changed while it was read", "repeat it when nobody writes the file"
        )

    def write(self, key: str, data: Iterable[bytes], extra: Extra = PLAIN) -> ObjectInfo:
        path = self._path(key)
        self._expect(key, extra)
        with self._said(key):
            self._root.stat()
            path.parent.mkdir(parents=True, exist_ok=True)
            temporary = path.with_name(f"{_TEMPORARY}{os.getpid()}-{id(data):x}")
            fd = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o666)
        try:
            try:
                for piece in data:
                    with self._said(key):
                        write_all(fd, piece)
                with self._said(key):
                    self._place(temporary, path, key, extra)
                return _described(key, os.fstat(fd))
            finally:
                os.close(fd)
        except BaseException:
            temporary.unlink(missing_ok=True)
            raise

    def _expect(self, key: str, extra: Extra) -> None:
        wanted = extra.conditions
        if not wanted.if_absent and not wanted.if_match:
            return
        try:
            etag = self.head(key).etag
        except ObjectMissing:
            etag = ""
        if (wanted.if_absent and etag) or (wanted.if_match and etag != wanted.if_match):
            raise ConditionFailed(
                f"{self._url}/{key} is not as it was expected", "look at it again, then repeat"
            )

    def _place(self, temporary: Path, path: Path, key: str, extra: Extra) -> None:
        if extra.conditions.if_absent:
            try:
                os.link(temporary, path)
            except FileExistsError:
                raise ConditionFailed(f"{self._url}/{key} is not as it was expected") from None
            temporary.unlink()
            return
        self._expect(key, extra)
        temporary.replace(path)

    def remove(self, keys: Sequence[str]) -> None:
        for key in keys:
            with contextlib.suppress(ObjectMissing), self._said(key):
                self._path(key).unlink()

    def copy(self, source: str, target: str) -> None:
        self.write(target, self.read(source))

    def sign(self, key: str, method: str, seconds: int) -> str | None:
        return None

    def make(self) -> None:
        with self._said(""):
            self._root.mkdir(parents=True, exist_ok=True)

    def drop(self) -> None:
        try:
            with contextlib.suppress(FileNotFoundError):
                self._root.rmdir()
        except OSError:
            raise BucketInUse(f"the folder {self._root} is not empty", "remove what it holds first") from None


def _is_dir(told: os.stat_result) -> bool:
    return (told.st_mode & 0o170000) == 0o040000


def _described(key: str, told: os.stat_result) -> ObjectInfo:
    # The time of the last change of any kind: programs can set the other one back.
    etag = f"{told.st_mtime_ns:x}-{told.st_size:x}-{told.st_ino:x}-{told.st_ctime_ns:x}"
    return ObjectInfo(key=key, size=told.st_size, etag=etag, modified_ms=told.st_mtime_ns // 1_000_000)

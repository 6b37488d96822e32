"""The embedded store's folder, for callers that may block: buckets, objects, and their bytes in files.

    <root>/index.db          what there is (`shelf_index`)
    <root>/files/ab/...      bytes, in files that never change; an object of an upload in parts has several
    <root>/secret            of which access keys' secrets follow

An object is there when its row is: a killed server leaves files that nobody speaks of, and `sweep` takes
them. What was answered survives the server; with `sync` it also survives a loss of power.
"""

from __future__ import annotations

import base64
import contextlib
import hashlib
import hmac
import os
import threading
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Final, NamedTuple

from argosy.infra.system import new_token
from argosy.model.errors import ArgosyError
from argosy.model.ids import Clock, Ids
from argosy.model.object_urls import NAME_RULE, may_be_bucket
from argosy.model.objects import (
    KEY_MAX_BYTES,
    PART_MIN_BYTES,
    Conditions,
    ObjectHead,
    ObjectInfo,
    ObjectPart,
    ObjectProblem,
    Upload,
    Written,
)
from argosy.storage.disk import full_disk_said, write_all, write_whole
from argosy.storage.s3_signing import Keys
from argosy.storage.shelf_index import AccessKey, Extents, ShelfIndex
from argosy.storage.shelf_tokens import Allowed, name_of, token_of

READ_BYTES: Final = 512 << 10
ALWAYS: Final = Conditions()
ENCRYPTS: Final = "x-amz-server-side-encryption"
_SECRETS_MAX: Final = 1000
_YOUNG_S: Final = 3600.0  # a file of an upload under way is not swept


class Writing:
    """Bytes on their way to a file that nobody can see yet. `add`, then `end`; or `undo`."""

    def __init__(self, file: str, path: str, root: Path, *, sync: bool, md5: str = "") -> None:
        self._file, self._path, self._root, self._sync, self._known = file, path, root, sync, md5
        self._md5, self._size, self._fd = hashlib.md5(usedforsecurity=False), 0, -1

    def add(self, pieces: Sequence[bytes]) -> None:
        """Raises ArgosyError `disk-full`, OSError."""
        with full_disk_said(self._root):
            if self._fd < 0:
                flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC
                self._fd = os.open(self._path, flags, 0o600)
            for piece in pieces:
                if not self._known:
                    self._md5.update(piece)
                self._size += len(piece)
                write_all(self._fd, piece)

    def end(self) -> Written:
        if self._fd < 0:
            self.add(())
        if self._sync:
            os.fsync(self._fd)
        self._close()
        md5 = self._known or self._md5.hexdigest()
        return Written(extents=((self._file, self._size),), size=self._size, md5=md5)

    def undo(self) -> None:
        self._close()
        with contextlib.suppress(FileNotFoundError):
            os.unlink(self._path)  # noqa: PTH108

    def _close(self) -> None:
        if self._fd >= 0:
            os.close(self._fd)
            self._fd = -1


class Put(NamedTuple):
    """An object to be: where, of which bytes, and when."""

    bucket: str
    key: str
    written: Written
    headers: Mapping[str, str]
    conditions: Conditions = ALWAYS


#: What became of a `Put`.
Made = ObjectInfo | ObjectProblem | ArgosyError | OSError


class ShelfFolder:
    """One folder of buckets. Safe to use from several threads. Raises ObjectProblem, ArgosyError `disk-full`,
    and OSError."""

    def __init__(self, root: Path, clock: Clock, ids: Ids, *, sync: bool = False) -> None:
        self._root, self._clock, self._ids, self._sync = root, clock, ids, sync
        self._opened: ShelfIndex | None = None
        self._opening = threading.Lock()
        self._secret = b""
        self._secrets: dict[str, str] = {}
        self._files = f"{os.fspath(root)}/files"

    @property
    def index(self) -> ShelfIndex:
        if self._opened is None:
            with self._opening:
                if self._opened is None:
                    for number in range(256):
                        (self._root / "files" / f"{number:02x}").mkdir(
                            mode=0o700, parents=True, exist_ok=True
                        )
                    self._opened = ShelfIndex(self._root / "index.db")
        return self._opened

    def close(self) -> None:
        if self._opened is not None:
            self._opened.close()
            self._opened = None

    # -- buckets and keys -----------------------------------------------------------------------------------

    def make_bucket(self, name: str) -> None:
        if not may_be_bucket(name):
            what = f"`{name}` cannot be a bucket's name: it has {NAME_RULE}"
            raise ObjectProblem("InvalidBucketName", what)
        self.index.make_bucket(name, self._clock.now_ms())

    def remove_bucket(self, name: str) -> None:
        self._unlink(self.index.remove_bucket(name))

    def make_key(self, name: str, *, bucket: str = "", reads_only: bool = False) -> tuple[str, str]:
        """A new access key of this name, in place of an older one: its id and its secret."""
        dice = self._ids.new("key").rpartition("-")[2].upper()
        key = AccessKey(
            id=f"AR{dice[:18]}", name=name, bucket=bucket, reads_only=reads_only, made_ms=self._clock.now_ms()
        )
        self.index.put_key(key)
        return key.id, self.secret_of(key.id)

    def lend_key(self, allowed: Allowed) -> Keys:
        """A key that ends by itself."""
        key_id, token = f"AT{self._ids.new('key').rpartition('-')[2].upper()[:18]}", token_of(allowed)
        secret = self.secret_of(name_of(key_id, token))
        return Keys(id=key_id, secret=secret, token=token, expires_s=float(allowed.expires_s))

    def secret_of(self, key_id: str) -> str:
        """The secret of an access key follows from this store's own, so that none is kept on the disk."""
        if key_id in self._secrets:
            return self._secrets[key_id]
        if not self._secret:
            path = self._root / "secret"
            if not path.exists():
                self._root.mkdir(mode=0o700, parents=True, exist_ok=True)
                write_whole(path, new_token().encode())
            self._secret = path.read_bytes()
        made = hmac.digest(self._secret, b"argosy s3 " + key_id.encode(), "sha256")
        if len(self._secrets) > _SECRETS_MAX:
            self._secrets.clear()
        self._secrets[key_id] = base64.b64encode(made[:30]).decode()
        return self._secrets[key_id]

    # -- objects --------------------------------------------------------------------------------------------

    def begin(self, md5: str = "") -> Writing:
        """`md5`: of what will be added, where somebody has made it already."""
        self.index  # noqa: B018  the folders are there
        file = self._ids.new("obj").rpartition("-")[2]
        return Writing(file, self._path(file), self._root, sync=self._sync, md5=md5)

    def discard(self, written: Written) -> None:
        self._unlink(written.extents)

    def put(
        self,
        bucket: str,
        key: str,
        written: Written,
        headers: Mapping[str, str],
        conditions: Conditions = ALWAYS,
    ) -> ObjectInfo:
        """Make an object of bytes that were written."""
        (made,) = self.put_many([Put(bucket, key, written, headers, conditions)])
        if isinstance(made, ObjectInfo):
            return made
        raise made

    def put_many(self, puts: Sequence[Put]) -> list[Made]:
        """Objects, with one change of the index for all. Those that are refused are discarded."""
        told: list[Made] = []
        heads: list[tuple[int, Put, ObjectHead]] = []
        for put in puts:
            try:
                check_key(put.key)
                check_headers(put.headers)
                head = self._head(put)
            except (ObjectProblem, ArgosyError, OSError) as error:
                self.discard(put.written)
                told.append(error)
                continue
            heads.append((len(told), put, head))
            told.append(head.info)
        olds = self.index.put_many([(put.bucket, head, put.conditions) for _, put, head in heads])
        gone: list[tuple[str, int]] = []
        for (at, _, head), old in zip(heads, olds, strict=True):
            if isinstance(old, ObjectProblem):
                told[at] = old
                gone += head.extents
            else:
                gone += old
        self._unlink(tuple(gone))
        return told

    def _head(self, put: Put) -> ObjectHead:
        written = self.stored(put.written)
        info = ObjectInfo(key=put.key, size=written.size, etag=written.md5, modified_ms=self._clock.now_ms())
        return ObjectHead(info=info, headers=put.headers, extents=written.extents)

    def stored(self, written: Written) -> Written:
        """The same bytes in a file, where they are in memory yet."""
        if written.extents:
            return written
        held, md5 = written.checked()
        writing = self.begin(md5)
        try:
            writing.add(held)
            return writing.end()
        except BaseException:
            writing.undo()
            raise

    def runs(self, head: ObjectHead, first: int, count: int) -> Iterator[tuple[str, int, int]]:
        """The files that hold `count` bytes from `first` on: file, offset, bytes."""
        for file, size in head.extents:
            if first >= size:
                first -= size
                continue
            take = min(size - first, count)
            if take <= 0:
                return
            yield file, first, take
            first, count = 0, count - take

    def open(self, file: str) -> int:
        """A file descriptor."""
        try:
            return os.open(self._path(file), os.O_RDONLY | os.O_CLOEXEC)
        except FileNotFoundError:
            raise ObjectProblem("NoSuchKey", "the object was replaced or removed a moment ago") from None

    def read(self, head: ObjectHead, first: int, count: int) -> Iterator[bytes]:
        """`count` bytes from `first` on. What is read stays the same when the object is replaced meanwhile:
        its files are open, or it is told that they are gone."""
        for file, at, size in self.runs(head, first, count):
            fd = self.open(file)
            try:
                end = at + size
                while at < end:
                    piece = piece_of(fd, min(READ_BYTES, end - at), at)
                    at += len(piece)
                    yield piece
            finally:
                os.close(fd)

    def remove(self, bucket: str, keys: Sequence[str]) -> None:
        self._unlink(self.index.remove(bucket, keys))

    # -- uploads in parts -----------------------------------------------------------------------------------

    def begin_upload(self, bucket: str, key: str, headers: dict[str, str]) -> str:
        check_key(key)
        check_headers(headers)
        upload = Upload(id=self._ids.new("upl"), key=key, begun_ms=self._clock.now_ms())
        self.index.begin_upload(bucket, upload, headers)
        return upload.id

    def put_part(self, bucket: str, key: str, upload_id: str, number: int, written: Written) -> ObjectPart:
        written = self.stored(written)
        now_ms = self._clock.now_ms()
        part = ObjectPart(number=number, size=written.size, etag=written.md5, modified_ms=now_ms)
        try:
            old = self.index.put_part(bucket, key, upload_id, part, written.extents)
        except ObjectProblem:
            self.discard(written)
            raise
        self._unlink(old)
        return part

    def parts(self, bucket: str, key: str, upload_id: str) -> list[ObjectPart]:
        return [part for part, _ in self.index.parts(bucket, key, upload_id)]

    def complete(
        self,
        bucket: str,
        key: str,
        upload_id: str,
        wanted: Sequence[tuple[int, str]],
        conditions: Conditions = ALWAYS,
    ) -> ObjectInfo:
        """The parts with these numbers and ETags become the object, whose bytes stay where they are."""
        found = self.index.parts(bucket, key, upload_id)
        chosen = _chosen(found, wanted)
        digests = b"".join(bytes.fromhex(part.etag) for part, _ in chosen)
        info = ObjectInfo(
            key=key,
            size=sum(part.size for part, _ in chosen),
            etag=f"{hashlib.md5(digests, usedforsecurity=False).hexdigest()}-{len(chosen)}",
            modified_ms=self._clock.now_ms(),
        )
        extents = tuple(each for _, some in chosen for each in some)
        numbers = {part.number for part, _ in chosen}
        unused = tuple(each for part, some in found if part.number not in numbers for each in some)

        def made(headers: dict[str, str]) -> ObjectHead:
            return ObjectHead(info=info, headers=headers, extents=extents)

        self._unlink(self.index.complete(bucket, upload_id, made, conditions, unused))
        return info

    def abort(self, bucket: str, key: str, upload_id: str) -> None:
        self._unlink(self.index.abort(bucket, key, upload_id))

    # -- files ----------------------------------------------------------------------------------------------

    def sweep(self) -> int:
        """Remove files that no row speaks of and that are not young; how many."""
        known, swept = self.index.files(), 0
        limit_s = self._clock.now_ms() / 1000 - _YOUNG_S
        for folder in (self._root / "files").iterdir():
            for path in folder.iterdir():
                if path.name not in known and path.stat().st_mtime < limit_s:
                    path.unlink(missing_ok=True)
                    swept += 1
        return swept

    def _path(self, file: str) -> str:
        return f"{self._files}/{ord(file[-1]) * 31 + ord(file[-2]) & 255:02x}/{file}"

    def _unlink(self, extents: Extents) -> None:
        for file, _ in extents:
            with contextlib.suppress(FileNotFoundError):
                os.unlink(self._path(file))  # noqa: PTH108  a Path costs more than the call


def piece_of(fd: int, count: int, at: int) -> bytes:
    piece = os.pread(fd, count, at)
    if not piece:
        raise ObjectProblem("InternalError", "the object's file is shorter than it was")
    return piece


def _chosen(
    found: Sequence[tuple[ObjectPart, Extents]], wanted: Sequence[tuple[int, str]]
) -> list[tuple[ObjectPart, Extents]]:
    """The parts that are wanted. Raises ObjectProblem."""
    have = {part.number: (part, extents) for part, extents in found}
    chosen = []
    for position, (number, etag) in enumerate(wanted):
        if number not in have or have[number][0].etag != etag:
            raise ObjectProblem("InvalidPart", f"part {number} was not uploaded, or has another ETag")
        if position and number <= wanted[position - 1][0]:
            raise ObjectProblem("InvalidPartOrder", "the parts are not in ascending order")
        if position < len(wanted) - 1 and have[number][0].size < PART_MIN_BYTES:
            raise ObjectProblem("EntityTooSmall", f"part {number} is smaller than 5 MiB and not the last")
        chosen.append(have[number])
    if not chosen:
        raise ObjectProblem("MalformedXML", "an upload is completed with at least one part")
    return chosen


def check_headers(headers: Mapping[str, str]) -> None:
    """Raises ObjectProblem for what this store would have to do and does not."""
    if any(name.startswith(ENCRYPTS) for name in headers):
        raise ObjectProblem(
            "NotImplemented", "buckets of this server do not encrypt: encrypt the disk below them"
        )


def check_key(key: str) -> None:
    """Raises ObjectProblem for what cannot be a key."""
    if not key:
        raise ObjectProblem("InvalidArgument", "an object's key is not empty")
    if len(key.encode()) > KEY_MAX_BYTES:
        raise ObjectProblem("KeyTooLongError", f"an object's key has at most {KEY_MAX_BYTES} bytes")

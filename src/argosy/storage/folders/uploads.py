"""Uploads that resume at any byte. Nothing half-written is ever visible in a folder.

The bytes of an upload are one file beside the folders of its volume; its length says how many have come. They
are on the disk before they are confirmed. When all are there, and the checksum is right, the file gets its
name.
"""

from __future__ import annotations

import errno
import hashlib
import os
import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final

import msgspec

from argosy.model.errors import ArgosyError
from argosy.storage.folders.beneath import Beneath, split, told
from argosy.storage.folders.quotas import as_everybody, join_folder

KEPT_MS: Final = 7 * 86_400_000  # an upload that nobody goes on with is forgotten
_ROOM_BYTES: Final = 64 << 20
_ID: Final = re.compile(r"up-[0-9a-z-]{1,60}")


class Upload(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """What was announced."""

    id: str
    folder_id: str
    path: str
    size: int
    by: str = ""
    made_ms: int = 0
    sha256: str = ""  # "": not told, or told with the last byte
    key: str = ""  # what its sender calls these bytes, so that an upload that broke off is found again
    mode: int = 0o660
    replace: bool = False


class Uploads:
    """Uploads of one volume. Files below `folder`: ID.json, ID.part. `target`: where a folder's files are."""

    def __init__(self, folder: Path, target: Callable[[str], Path]) -> None:
        self._folder, self._target = folder, target

    def begin(self, upload: Upload) -> None:
        """Raises "usage", "disk-full"."""
        split(upload.path)
        check_sum(upload.sha256)
        with told(upload.path):
            self._folder.mkdir(mode=0o700, parents=True, exist_ok=True)
            fd = os.open(self._part(upload.id), os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
            try:
                join_folder(fd, self._target(upload.folder_id))
            finally:
                os.close(fd)
            _write_whole(self._row(upload.id), msgspec.json.encode(upload))

    def find(self, id: str, folder_id: str) -> tuple[Upload, int]:
        """What was announced, and how many bytes are on the disk. Raises "not-found"."""
        try:
            if not _ID.fullmatch(id):
                raise FileNotFoundError
            upload = msgspec.json.decode(self._row(id).read_bytes(), type=Upload)
            size = self._part(id).stat().st_size
        except (FileNotFoundError, msgspec.MsgspecError):
            raise no_upload(id) from None
        if upload.folder_id != folder_id:
            raise no_upload(id)
        return upload, size

    def unfinished(self, like: Upload) -> tuple[Upload, int] | None:
        """An upload of the same bytes (by their `key`) to the same place by the same person that was broken
        off, and how many of its bytes are on the disk."""
        best: tuple[Upload, int] | None = None
        for each in self._all() if like.key else ():
            same = msgspec.structs.replace(each, id=like.id, made_ms=like.made_ms, sha256=like.sha256)
            if same != like:
                continue
            try:
                size = self._part(each.id).stat().st_size
            except FileNotFoundError:
                continue
            if best is None or size > best[1]:
                best = each, size
        return best

    def append(self, upload: Upload, offset: int, *pieces: bytes | memoryview) -> None:
        """Bytes at `offset`, which is where the file ends. Raises "disk-full", "over-quota", "conflict"."""
        with self.writing(upload, offset) as write:
            for piece in pieces:
                write(piece)

    @contextmanager
    def writing(self, upload: Upload, offset: int) -> Iterator[Callable[[bytes | memoryview], None]]:
        """Gives a function that puts bytes at the end of the file, which is at `offset`. For one thread.
        Raises as `append`, where it is called and then."""
        with told(upload.path), as_everybody():
            fd = os.open(self._part(upload.id), os.O_WRONLY | os.O_CLOEXEC | os.O_NOFOLLOW)
            at = os.fstat(fd).st_size

            def write(piece: bytes | memoryview) -> None:
                nonlocal at
                if at + len(piece) > upload.size:
                    raise _elsewhere(upload, at)
                view = memoryview(piece)
                while view:
                    try:
                        done = os.pwrite(fd, view, at)
                    except OSError as error:
                        raise self._why(error) from None
                    view, at = view[done:], at + done

            try:
                if at != offset:
                    raise _elsewhere(upload, offset)
                yield write
            finally:
                os.close(fd)

    def _why(self, error: OSError) -> OSError:
        """xfs says of a project's limit that the disk is full: where the volume has room, it is the quota."""
        if error.errno == errno.ENOSPC:
            volume = os.statvfs(self._folder)
            if volume.f_bavail * volume.f_frsize > _ROOM_BYTES:
                return OSError(errno.EDQUOT, os.strerror(errno.EDQUOT))
        return error

    def sync(self, upload: Upload) -> None:
        """What has come is on the disk."""
        with told(upload.path):
            fd = os.open(self._part(upload.id), os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW)
            try:
                os.fdatasync(fd)
            finally:
                os.close(fd)

    def finish(self, upload: Upload, beneath: Beneath, digest: str = "") -> str:
        """The file gets its name. Returns its SHA-256. Raises "conflict" when that is not what was told, or
        the name is taken; of a wrong sum nothing is kept. `digest`: of all that came, where it is known."""
        check_sum(upload.sha256)
        digest = (digest or _digest(self._part(upload.id))) if upload.sha256 else ""
        if digest != upload.sha256:
            self.forget(upload.id)
            raise ArgosyError(
                "conflict",
                f"`{upload.path}` arrived with another checksum: "
                f"{digest[:12]}… instead of {upload.sha256[:12]}…",
                hint="send it again",
            )
        with told(upload.path):
            self._part(upload.id).chmod(upload.mode)
        beneath.place(str(self._part(upload.id)), upload.path, replace=upload.replace)
        self._row(upload.id).unlink(missing_ok=True)
        return digest

    def sha256_of(self, id: str) -> str:
        """Of what has come."""
        return _digest(self._part(id))

    def forget(self, id: str) -> None:
        self._part(id).unlink(missing_ok=True)
        self._row(id).unlink(missing_ok=True)

    def coming(self, folder_id: str) -> int:
        """Bytes that unfinished uploads into the folder will have."""
        return sum(each.size for each in self._all() if each.folder_id == folder_id)

    def sweep(self, now_ms: int) -> int:
        """Forget what nobody goes on with. Returns how many."""
        old = [each for each in self._all() if now_ms - self._seen_ms(each) > KEPT_MS]
        for each in old:
            self.forget(each.id)
        return len(old)

    def _seen_ms(self, upload: Upload) -> int:
        try:
            return max(upload.made_ms, self._part(upload.id).stat().st_mtime_ns // 1_000_000)
        except FileNotFoundError:
            return upload.made_ms

    def _all(self) -> Iterator[Upload]:
        for path in self._folder.glob("up-*.json"):
            try:
                yield msgspec.json.decode(path.read_bytes(), type=Upload)
            except (FileNotFoundError, msgspec.MsgspecError):
                continue

    def _part(self, id: str) -> Path:
        return self._folder / f"{id}.part"

    def _row(self, id: str) -> Path:
        return self._folder / f"{id}.json"


def _elsewhere(upload: Upload, offset: int) -> ArgosyError:
    return ArgosyError(
        "conflict",
        f"the upload of `{upload.path}` is not at byte {offset}",
        hint="ask where it is (HEAD), and go on from there",
    )


def check_sum(sha256: str) -> None:
    """Raises "usage" for what is neither a SHA-256 nor ""."""
    if sha256 and not re.fullmatch("[0-9a-f]{64}", sha256):
        raise ArgosyError("usage", f"`{sha256[:70]}` is no SHA-256", hint="64 hexadecimal digits")


def no_upload(id: str) -> ArgosyError:
    shown = id if _ID.fullmatch(id) else "?"
    return ArgosyError(
        "not-found", f"there is no upload `{shown}`", hint="it is finished, was given up, or is too old"
    )


def _write_whole(path: Path, data: bytes) -> None:
    temporary = path.with_suffix(".new")
    with temporary.open("wb") as file:
        file.write(data)
        file.flush()
        os.fsync(file.fileno())
    temporary.replace(path)


def _digest(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()

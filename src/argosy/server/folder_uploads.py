"""Uploads into folders as tus 1.0 says (creation, also with the first bytes; termination): they go on where
they were.

A sender that names a `key` for its bytes finds an upload again that broke off, from whatever process: the
answer to the announcement says how much of it is here.
"""

from __future__ import annotations

import asyncio
import base64
import binascii
import hashlib
import re
from collections.abc import Sequence
from typing import Final
from urllib.parse import quote

import msgspec

from argosy.api.endpoint import PREFIX
from argosy.model.errors import ArgosyError
from argosy.model.folders import OWN_VOLUME, Access, Folder, check_room
from argosy.model.ids import Clock, Ids
from argosy.server.exchange import Disconnected, Exchange
from argosy.server.folder_traffic import FolderTraffic
from argosy.server.folders import Folders
from argosy.server.raw_bodies import RawBody, raw_body, take
from argosy.storage.folders.beneath import Beneath
from argosy.storage.folders.uploads import Upload, Uploads

_PIECE: Final = 1 << 20  # is written at once, while the next one comes
_MOST: Final = 1 << 50  # a file; what a volume can hold is asked when it is written
_SUMS_MAX: Final = 10_000  # of uploads that wait for their rest; more are summed from the disk
_BYTES: Final = "application/offset+octet-stream"
_TUS: Final = [(b"tus-resumable", b"1.0.0"), (b"cache-control", b"no-store")]


class _Sum:
    """The sum of an upload's bytes up to `at`: of all that came since this server runs."""

    def __init__(self) -> None:
        self.at, self._sum = 0, hashlib.sha256()

    def add(self, at: int, pieces: Sequence[bytes | memoryview]) -> None:
        """What comes behind a gap is left out: then the sum is of less than the file."""
        if at == self.at:
            for piece in pieces:
                self._sum.update(piece)
                self.at += len(piece)

    def of_all(self, size: int) -> str:
        """The digest; "" when not all bytes were heard."""
        return self._sum.hexdigest() if self.at == size else ""


class FolderUploads:
    def __init__(self, folders: Folders, clock: Clock, ids: Ids, traffic: FolderTraffic) -> None:
        self._folders, self._clock, self._ids, self._traffic = folders, clock, ids, traffic
        self._busy: set[str] = set()  # uploads that bytes come for now
        self._sums: dict[str, _Sum] = {}

    async def begin(self, exchange: Exchange) -> None:
        """Announce a file, perhaps with its first bytes."""
        folder = await self._folders.find(exchange.caller, exchange.path["folder"], Access.WRITE)
        upload = self._announced(exchange, folder)
        beneath, disk = await self._folders.beneath(folder), await self._folders.disk(folder)
        if bool(upload.key) and await asyncio.to_thread(_is_there, beneath, upload):
            await _reply(exchange, 200, [_offset(upload.size), *_TUS])
            return
        found = await asyncio.to_thread(disk.uploads.unfinished, upload)
        if found is None:
            if not upload.replace and await asyncio.to_thread(beneath.exists, upload.path):
                raise ArgosyError(
                    "conflict", f"`{upload.path}` is there already", hint="say `replace`, or another name"
                )
            check_room(folder, upload.size, await asyncio.to_thread(disk.uploads.coming, folder.id))
            await asyncio.to_thread(disk.uploads.begin, upload)
            found = upload, 0
        upload, at = found
        if exchange.header("content-type") == _BYTES and not at:
            at = await self._takes(exchange, folder, upload.id, 0)
        elif not upload.size:
            await self._finish(folder, upload, beneath)
        elif upload.id in self._busy:
            raise _busy()
        where = f"{_origin(exchange)}{PREFIX}/folders/{quote(folder.id)}/uploads/{upload.id}"
        await _reply(exchange, 201, [(b"location", where.encode()), _offset(at), *_TUS])

    def _announced(self, exchange: Exchange, folder: Folder) -> Upload:
        size = _number(exchange, "upload-length")
        told = _metadata(exchange.header("upload-metadata"))
        path = told.get("path") or told.get("filename", "")
        if not path:
            raise ArgosyError("usage", "the upload names no `path`", hint="Upload-Metadata: path BASE64")
        return Upload(
            id=self._ids.new("up"),
            folder_id=folder.id,
            path=path,
            size=size,
            by=exchange.caller.name,
            made_ms=self._clock.now_ms(),
            sha256=told.get("sha256", ""),
            key=told.get("key", "")[:200],
            replace=told.get("replace") in ("true", "1"),
        )

    async def offset(self, exchange: Exchange) -> None:
        """How many bytes of it are here."""
        folder = await self._folders.find(exchange.caller, exchange.path["folder"], Access.WRITE)
        disk = await self._folders.disk(folder)
        upload, at = await asyncio.to_thread(disk.uploads.find, exchange.path["upload"], folder.id)
        size = (b"upload-length", str(upload.size).encode())
        await _reply(exchange, 200, [_offset(at), size, *_TUS])

    async def append(self, exchange: Exchange) -> None:
        """What has come stays, also when the client goes away in the middle."""
        folder = await self._folders.find(exchange.caller, exchange.path["folder"], Access.WRITE)
        at = await self._takes(exchange, folder, exchange.path["upload"], _number(exchange, "upload-offset"))
        await _reply(exchange, 204, [_offset(at), *_TUS])

    async def _takes(self, exchange: Exchange, folder: Folder, id: str, told_at: int) -> int:
        """The body of the request goes to the disk; with the last byte the file gets its name."""
        disk, beneath = await self._folders.disk(folder), await self._folders.beneath(folder)
        if id in self._busy:
            raise _busy()
        self._busy.add(id)
        try:
            upload, at = await asyncio.to_thread(disk.uploads.find, id, folder.id)
            if told_at != at:
                raise ArgosyError(
                    "conflict",
                    f"the upload is at byte {at}",
                    hint="ask where it is (HEAD), and go on from there",
                )
            check_room(folder, upload.size)
            began = at
            try:
                at = await self._take(exchange, disk.uploads, upload, at)
            except Disconnected:
                _, at = await asyncio.to_thread(disk.uploads.find, id, folder.id)
                raise
            finally:
                self._traffic.wrote(folder.id, at - began)
            await asyncio.to_thread(disk.uploads.sync, upload)
            if at == upload.size:
                told = exchange.header("upload-sha256")
                upload = msgspec.structs.replace(upload, sha256=told or upload.sha256)
                await self._finish(folder, upload, beneath)
        finally:
            self._busy.discard(id)
        return at

    async def _take(self, exchange: Exchange, uploads: Uploads, upload: Upload, at: int) -> int:
        """One piece is written while the next one comes."""
        raw = raw_body(exchange) if upload.size - at >= exchange.length else None
        if raw is not None:
            exchange.headers.append((b"connection", b"close"))
            return await self._take_raw(raw, uploads, upload, at)
        held: list[bytes] = []
        size, writing = 0, asyncio.ensure_future(asyncio.sleep(0))
        try:
            async for piece in exchange.stream(_MOST):
                held.append(piece)
                size += len(piece)
                if size >= _PIECE:
                    await writing
                    writing = asyncio.ensure_future(self._write(uploads, upload, at, held))
                    at, held, size = at + size, [], 0
        except Disconnected:
            await writing
            await self._write(uploads, upload, at, held)
            await asyncio.to_thread(uploads.sync, upload)
            raise
        await writing
        await self._write(uploads, upload, at, held)
        return at + size

    async def _take_raw(self, raw: RawBody, uploads: Uploads, upload: Upload, at: int) -> int:
        summed = self._sum_of(upload)
        try:
            return await take(
                raw,
                at,
                lambda: uploads.writing(upload, at),
                None if summed is None else lambda place, piece: summed.add(place, [piece]),
            )
        except Disconnected:
            await asyncio.to_thread(uploads.sync, upload)
            raise

    def _sum_of(self, upload: Upload) -> _Sum | None:
        """None: nobody asks for it."""
        if not upload.sha256 and not upload.key:
            return None
        if len(self._sums) > _SUMS_MAX:
            self._sums.clear()
        return self._sums.setdefault(upload.id, _Sum())

    async def _write(self, uploads: Uploads, upload: Upload, at: int, held: list[bytes]) -> None:
        if not held:
            return
        summed = self._sum_of(upload)

        def write() -> None:
            uploads.append(upload, at, *held)
            if summed is not None:
                summed.add(at, held)

        await asyncio.to_thread(write)

    async def _finish(self, folder: Folder, upload: Upload, beneath: Beneath) -> None:
        disk = await self._folders.disk(folder)
        digest = self._sums.pop(upload.id, _Sum()).of_all(upload.size)
        await asyncio.to_thread(disk.uploads.finish, upload, beneath, digest)
        await self._folders.add_used(folder, upload.size)

    async def sweep(self) -> int:
        """Forget uploads that nobody goes on with, on every volume; how many."""
        gone = 0
        for volume in await self._folders.volumes.all():
            if volume.name == OWN_VOLUME and not self._folders.keeping.is_here:
                continue
            uploads = self._folders.volumes.disk_of(volume).uploads
            gone += await asyncio.to_thread(uploads.sweep, self._clock.now_ms())
        return gone

    async def give_up(self, exchange: Exchange) -> None:
        folder = await self._folders.find(exchange.caller, exchange.path["folder"], Access.WRITE)
        disk = await self._folders.disk(folder)
        upload, _ = await asyncio.to_thread(disk.uploads.find, exchange.path["upload"], folder.id)
        self._sums.pop(upload.id, None)
        await asyncio.to_thread(disk.uploads.forget, upload.id)
        await _reply(exchange, 204, _TUS)


def _is_there(beneath: Beneath, upload: Upload) -> bool:
    """Whether the folder has these bytes at this place already. Raises "conflict" when only their sum can
    tell."""
    if beneath.size_of(upload.path) != upload.size:
        return False
    if not upload.sha256 and upload.size:
        raise ArgosyError(
            "conflict",
            f"`{upload.path}` is there already, with {upload.size} bytes",
            hint="tell the `sha256` of yours to see whether it is the same",
        )
    return beneath.sha256_of(upload.path) == upload.sha256 or not upload.size


def _origin(exchange: Exchange) -> str:
    """Of the address that was asked: some clients take only whole ones. "": over the unix socket."""
    host = exchange.header("host")
    if exchange.is_local or not re.fullmatch(r"[A-Za-z0-9.:\[\]-]{1,255}", host):
        return ""
    encrypted = "https" in (exchange.scope.get("scheme"), exchange.header("x-forwarded-proto"))
    return f"http{'s' if encrypted else ''}://{host}"


def _busy() -> ArgosyError:
    return ArgosyError("conflict", "this upload is receiving bytes already", hint="one at a time")


def _offset(at: int) -> tuple[bytes, bytes]:
    return (b"upload-offset", str(at).encode())


async def _reply(exchange: Exchange, status: int, headers: Sequence[tuple[bytes, bytes]]) -> None:
    exchange.answered = True
    headers = [*headers, *exchange.headers]
    length = [] if status == 204 else [(b"content-length", b"0")]
    await exchange.send({"type": "http.response.start", "status": status, "headers": [*headers, *length]})
    await exchange.send({"type": "http.response.body", "body": b""})


def _number(exchange: Exchange, name: str) -> int:
    text = exchange.header(name)
    if not re.fullmatch(r"[0-9]{1,18}", text):
        raise ArgosyError("usage", f"the header `{name}` is a number of bytes, not `{text[:40]}`")
    return int(text)


def _metadata(text: str) -> dict[str, str]:
    """tus: `key BASE64, key BASE64`. Raises "usage"."""
    found = {}
    for pair in text.split(","):
        key, _, value = pair.strip().partition(" ")
        try:
            found[key] = base64.b64decode(value, validate=True).decode()
        except (binascii.Error, UnicodeDecodeError):
            raise ArgosyError("usage", f"`{key[:40]}` of Upload-Metadata is no base64 of a text") from None
    return found

"""Bytes of folders: uploads that resume (tus 1.0), downloads with ranges, many files as one tar stream."""

from __future__ import annotations

import asyncio
import base64
import binascii
import os
import re
import tarfile
from collections.abc import AsyncGenerator, Iterator, Sequence
from contextlib import closing
from typing import Final
from urllib.parse import quote

from argosy.api.endpoint import PREFIX
from argosy.model.errors import ArgosyError
from argosy.model.folders import Access, Folder, check_room
from argosy.model.ids import Clock, Ids
from argosy.server.exchange import Disconnected, Exchange
from argosy.server.folders import Folders
from argosy.storage.folders.beneath import Beneath
from argosy.storage.folders.uploads import Upload, Uploads

_PIECE: Final = 1 << 20
_MOST: Final = 1 << 50  # a file; what a volume can hold is asked when it is written
_TUS: Final = [(b"tus-resumable", b"1.0.0"), (b"cache-control", b"no-store")]


class Transfers:
    def __init__(self, folders: Folders, clock: Clock, ids: Ids) -> None:
        self._folders, self._clock, self._ids = folders, clock, ids
        self._busy: set[str] = set()  # uploads that bytes come for now

    # -- uploads --------------------------------------------------------------------------------------

    async def begin(self, exchange: Exchange) -> None:
        folder = await self._folders.find(exchange.caller, exchange.path["folder"], Access.WRITE)
        size = _number(exchange, "upload-length")
        told = _metadata(_header(exchange, "upload-metadata"))
        beneath, disk = await self._folders.beneath(folder), await self._folders.disk(folder)
        replace = told.get("replace") in ("true", "1")
        upload = Upload(
            id=self._ids.new("up"),
            folder_id=folder.id,
            path=told.get("path") or told.get("filename", ""),
            size=size,
            by=exchange.caller.name,
            made_ms=self._clock.now_ms(),
            sha256=told.get("sha256", ""),
            replace=replace,
        )
        if not upload.path:
            raise ArgosyError("usage", "the upload names no `path`", hint="Upload-Metadata: path BASE64")
        if not replace and await asyncio.to_thread(beneath.exists, upload.path):
            raise ArgosyError(
                "conflict", f"`{upload.path}` is there already", hint="say `replace`, or another name"
            )
        check_room(folder, size, await asyncio.to_thread(disk.uploads.coming, folder.id))
        await asyncio.to_thread(disk.uploads.begin, upload)
        if not size:
            await self._finish(folder, upload, beneath)
        where = f"{PREFIX}/folders/{quote(folder.id)}/uploads/{upload.id}"
        await _reply(exchange, 201, [(b"location", where.encode()), *_TUS])

    async def offset(self, exchange: Exchange) -> None:
        folder = await self._folders.find(exchange.caller, exchange.path["folder"], Access.WRITE)
        disk = await self._folders.disk(folder)
        upload, size = await asyncio.to_thread(disk.uploads.find, exchange.path["upload"], folder.id)
        await _reply(
            exchange,
            200,
            [(b"upload-offset", str(size).encode()), (b"upload-length", str(upload.size).encode()), *_TUS],
        )

    async def append(self, exchange: Exchange) -> None:
        """What has come stays, also when the client goes away in the middle."""
        folder = await self._folders.find(exchange.caller, exchange.path["folder"], Access.WRITE)
        disk, beneath = await self._folders.disk(folder), await self._folders.beneath(folder)
        id = exchange.path["upload"]
        if id in self._busy:
            raise ArgosyError("conflict", "bytes of this upload are coming already", hint="one at a time")
        self._busy.add(id)
        try:
            upload, at = await asyncio.to_thread(disk.uploads.find, id, folder.id)
            if _number(exchange, "upload-offset") != at:
                raise ArgosyError(
                    "conflict",
                    f"the upload is at byte {at}",
                    hint="ask where it is (HEAD), and go on from there",
                )
            check_room(folder, upload.size)
            at = await self._take(exchange, disk.uploads, upload, at)
            await asyncio.to_thread(disk.uploads.sync, upload)
            if at == upload.size:
                await self._finish(folder, upload, beneath)
        finally:
            self._busy.discard(id)
        await _reply(exchange, 204, [(b"upload-offset", str(at).encode()), *_TUS])

    async def _take(self, exchange: Exchange, uploads: Uploads, upload: Upload, at: int) -> int:
        held: list[bytes] = []
        size = 0
        try:
            async for piece in exchange.stream(_MOST):
                held.append(piece)
                size += len(piece)
                if size >= _PIECE:
                    await asyncio.to_thread(uploads.append, upload, at, b"".join(held))
                    at, held, size = at + size, [], 0
        except Disconnected:
            if held:
                await asyncio.to_thread(uploads.append, upload, at, b"".join(held))
            await asyncio.to_thread(uploads.sync, upload)
            raise
        if held:
            await asyncio.to_thread(uploads.append, upload, at, b"".join(held))
        return at + size

    async def _finish(self, folder: Folder, upload: Upload, beneath: Beneath) -> None:
        disk = await self._folders.disk(folder)
        await asyncio.to_thread(disk.uploads.finish, upload, beneath)
        await self._folders.add_used(folder, upload.size)

    async def give_up(self, exchange: Exchange) -> None:
        folder = await self._folders.find(exchange.caller, exchange.path["folder"], Access.WRITE)
        disk = await self._folders.disk(folder)
        upload, _ = await asyncio.to_thread(disk.uploads.find, exchange.path["upload"], folder.id)
        await asyncio.to_thread(disk.uploads.forget, upload.id)
        await _reply(exchange, 204, _TUS)

    # -- downloads ------------------------------------------------------------------------------------

    async def content(self, exchange: Exchange) -> None:
        folder = await self._folders.find(exchange.caller, exchange.path["folder"])
        beneath = await self._folders.beneath(folder)
        fd, size = await asyncio.to_thread(beneath.open_file, exchange.text("path"))
        try:
            first, last = _range(_header(exchange, "range"), size)
            whole = last - first == size
            headers = [
                (b"content-type", b"application/octet-stream"),
                (b"content-length", str(last - first).encode()),
                (b"accept-ranges", b"bytes"),
                (b"etag", f'"{os.fstat(fd).st_mtime_ns:x}-{size:x}"'.encode()),
            ]
            if not whole:
                headers.append((b"content-range", f"bytes {first}-{last - 1}/{size}".encode()))
            exchange.answered = True
            await exchange.send(
                {"type": "http.response.start", "status": 200 if whole else 206, "headers": headers}
            )
            while first < last:
                piece = await asyncio.to_thread(os.pread, fd, min(_PIECE, last - first), first)
                if not piece:
                    raise ArgosyError("conflict", "the file became shorter while it was read")
                first += len(piece)
                await exchange.send({"type": "http.response.body", "body": piece, "more_body": True})
            await exchange.send({"type": "http.response.body", "body": b""})
        finally:
            os.close(fd)

    async def archive(self, exchange: Exchange) -> None:
        folder = await self._folders.find(exchange.caller, exchange.path["folder"])
        beneath, path = await self._folders.beneath(folder), exchange.text("path")
        await asyncio.to_thread(beneath.list, path)  # what is wrong with it is told before the stream begins
        await exchange.reply_stream("application/x-tar", _pieces(_tar(beneath, path)))


def _tar(beneath: Beneath, path: str) -> Iterator[bytes]:
    """Files as they were when their turn came: each is as long as its head says."""
    for name, fd, st in beneath.walk(path):
        head = tarfile.TarInfo(name)
        head.mode, head.mtime = st.st_mode & 0o777, int(st.st_mtime)
        if fd is None:
            head.type = tarfile.DIRTYPE
            yield head.tobuf(tarfile.PAX_FORMAT, errors="surrogateescape")
            continue
        head.size = left = st.st_size
        yield head.tobuf(tarfile.PAX_FORMAT, errors="surrogateescape")
        while left:
            data = os.read(fd, min(_PIECE, left)) or b"\0" * min(_PIECE, left)
            left -= len(data)
            yield data
        yield b"\0" * (-st.st_size % tarfile.BLOCKSIZE)
    yield b"\0" * (2 * tarfile.BLOCKSIZE)


async def _pieces(made: Iterator[bytes]) -> AsyncGenerator[bytes, None]:
    """Made in threads; small ones go together."""

    def some() -> bytes:
        held: list[bytes] = []
        size = 0
        for piece in made:
            held.append(piece)
            size += len(piece)
            if size >= _PIECE:
                break
        return b"".join(held)

    with closing(made):  # type: ignore[type-var]
        while data := await asyncio.to_thread(some):
            yield data


async def _reply(exchange: Exchange, status: int, headers: Sequence[tuple[bytes, bytes]]) -> None:
    exchange.answered = True
    length = [] if status == 204 else [(b"content-length", b"0")]
    await exchange.send({"type": "http.response.start", "status": status, "headers": [*headers, *length]})
    await exchange.send({"type": "http.response.body", "body": b""})


def _header(exchange: Exchange, name: str) -> str:
    wanted = name.encode()
    return next((value.decode("latin-1") for key, value in exchange.scope["headers"] if key == wanted), "")


def _number(exchange: Exchange, name: str) -> int:
    text = _header(exchange, name)
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


def _range(text: str, size: int) -> tuple[int, int]:
    """First byte and end of what is asked for; one range only. Anything else means the whole file."""
    match = re.fullmatch(r"bytes=(\d{0,18})-(\d{0,18})", text)
    if match is None or not (match[1] or match[2]):
        return 0, size
    if not match[1]:
        return max(0, size - int(match[2])), size
    first = int(match[1])
    last = min(size, int(match[2]) + 1) if match[2] else size
    return (first, last) if first < last else (0, size)

"""Downloads from folders: byte ranges, and many files as one tar stream."""

from __future__ import annotations

import asyncio
import os
import re
import tarfile
from collections.abc import AsyncGenerator, Callable, Iterator
from contextlib import closing
from typing import Final

from argosy.model.errors import ArgosyError
from argosy.server.exchange import Exchange
from argosy.server.folder_traffic import FolderTraffic
from argosy.server.folders import Folders
from argosy.server.raw_bodies import send_file
from argosy.storage.folders.beneath import Beneath

_PIECE: Final = 1 << 20


class FolderDownloads:
    def __init__(self, folders: Folders, traffic: FolderTraffic) -> None:
        self._folders, self._traffic = folders, traffic

    async def content(self, exchange: Exchange) -> None:
        folder = await self._folders.find(exchange.caller, exchange.path["folder"])
        beneath = await self._folders.beneath(folder)
        fd, size = await asyncio.to_thread(beneath.open_file, exchange.text("path"))
        sent = 0
        try:
            first, last = byte_range(exchange.header("range"), size)
            whole = last - first == size
            headers = [
                (b"content-type", b"application/octet-stream"),  # whatever it is: no browser shows it
                (b"content-disposition", b"attachment"),
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
            went = await send_file(exchange.receive, fd, first, last)
            first, sent = first + went, sent + went
            while first < last:
                piece = await asyncio.to_thread(os.pread, fd, min(_PIECE, last - first), first)
                if not piece:
                    raise ArgosyError("conflict", "the file became shorter while it was read")
                first += len(piece)
                sent += len(piece)
                await exchange.send({"type": "http.response.body", "body": piece, "more_body": True})
            await exchange.send({"type": "http.response.body", "body": b""})
        finally:
            os.close(fd)
            self._traffic.read(folder.id, sent)

    async def archive(self, exchange: Exchange) -> None:
        folder = await self._folders.find(exchange.caller, exchange.path["folder"])
        beneath, path = await self._folders.beneath(folder), exchange.text("path")
        await asyncio.to_thread(beneath.list, path)  # what is wrong with it is told before the stream begins
        sent = [0]
        try:
            await exchange.reply_stream("application/x-tar", _pieces(_tar(beneath, path), sent))
        finally:
            self._traffic.read(folder.id, sent[0])


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


async def _pieces(made: Iterator[bytes], sent: list[int]) -> AsyncGenerator[bytes, None]:
    """Made in threads; small ones go together. `sent`: how much it was, so far."""

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
        while data := await _to_its_end(some):
            yield data
            sent[0] += len(data)


async def _to_its_end(work: Callable[[], bytes]) -> bytes:
    """In a thread. Who is cancelled meanwhile waits for its end: a generator that runs cannot be closed."""
    running = asyncio.ensure_future(asyncio.to_thread(work))
    try:
        return await asyncio.shield(running)
    except asyncio.CancelledError:
        await asyncio.wait({running})
        raise


def byte_range(text: str, size: int) -> tuple[int, int]:
    """First byte and end of what is asked for; one range only. Anything else means the whole file."""
    match = re.fullmatch(r"bytes=(\d{0,18})-(\d{0,18})", text)
    if match is None or not (match[1] or match[2]):
        return 0, size
    if not match[1]:
        return max(0, size - int(match[2])), size
    first = int(match[1])
    last = min(size, int(match[2]) + 1) if match[2] else size
    return (first, last) if first < last else (0, size)

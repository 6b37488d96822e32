"""Clients of a service: short requests and streams at a steady pace, and what became of each."""

from __future__ import annotations

import asyncio
from collections import Counter
from typing import Final
from urllib.parse import urlsplit

import msgspec

_LIMIT_S: Final = 60.0


class Outcome(msgspec.Struct, frozen=True):
    """What became of one request."""

    path: str
    status: int  # 0: no answer
    is_whole: bool  # the answer came to its end
    body: bytes = b""
    why: str = ""
    began_s: float = 0.0  # on the loop's clock, when it was asked

    @property
    def is_good(self) -> bool:
        return self.status == 200 and self.is_whole


class Load:
    """Asks `url` at a pace until `stop`; every request has a connection of its own."""

    def __init__(self, url: str, *, paths: tuple[str, ...] = ("/",), per_s: float = 50.0) -> None:
        """`paths` are asked in turn."""
        parts = urlsplit(url)
        self._host, self._port, self._prefix = parts.hostname or "", parts.port or 80, parts.path.rstrip("/")
        self._paths, self._per_s = paths, per_s
        self.outcomes: list[Outcome] = []
        self._open: set[asyncio.Task[None]] = set()
        self._pacing: asyncio.Task[None] | None = None

    async def __aenter__(self) -> Load:
        self._pacing = asyncio.ensure_future(self._pace())
        return self

    async def __aexit__(self, *error: object) -> None:
        await self.stop()

    async def stop(self) -> None:
        """No new requests; those that are under way come to their end."""
        if self._pacing is not None:
            self._pacing.cancel()
        if self._open:
            await asyncio.wait(self._open, timeout=_LIMIT_S)

    @property
    def bad(self) -> list[Outcome]:
        return [each for each in self.outcomes if not each.is_good]

    def bodies(self) -> Counter[bytes]:
        return Counter(each.body for each in self.outcomes)

    async def _pace(self) -> None:
        loop = asyncio.get_running_loop()
        began_s, count = loop.time(), 0
        while True:
            path = self._paths[count % len(self._paths)]
            task = loop.create_task(self._one(path))
            self._open.add(task)
            task.add_done_callback(self._open.discard)
            count += 1
            await asyncio.sleep(max(0.0, began_s + count / self._per_s - loop.time()))

    async def _one(self, path: str) -> None:
        began_s = asyncio.get_running_loop().time()
        outcome = await ask(self._host, self._port, self._prefix + path)
        self.outcomes.append(msgspec.structs.replace(outcome, began_s=began_s))


async def ask(host: str, port: int, path: str) -> Outcome:
    """One GET, read to its end."""
    status = 0
    try:
        async with asyncio.timeout(_LIMIT_S):
            reader, writer = await asyncio.open_connection(host, port)
            try:
                writer.write(f"GET {path} HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\n\r\n".encode())
                head = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1").lower()
                status = int(head.split(" ", 2)[1])
                body = await _body(reader, head)
                return Outcome(path, status, True, body)
            finally:
                writer.close()
    except (OSError, EOFError, ValueError, TimeoutError) as error:
        return Outcome(path, status, False, why=f"{type(error).__name__}: {error}")


async def _body(reader: asyncio.StreamReader, head: str) -> bytes:
    """Raises EOFError for one that was cut."""
    if "transfer-encoding: chunked" in head:
        parts = []
        while size := int((await reader.readuntil(b"\r\n")).strip() or b"0", 16):
            parts.append((await reader.readexactly(size + 2))[:-2])
        return b"".join(parts)
    for line in head.split("\r\n"):
        if line.startswith("content-length:"):
            return await reader.readexactly(int(line.split(":")[1]))
    return await reader.read()

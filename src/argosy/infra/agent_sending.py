"""The server's end of a copy from a node to a store: `argosy.agent.send` says what is on the wire."""

from __future__ import annotations

import asyncio
import collections
import queue
from collections.abc import Iterator
from typing import Final

import msgspec

from argosy.infra import border
from argosy.infra.agent_port import Channel, DataSink, Reshaped, SendOrder

_WINDOW: Final = 64  # addresses that the node has not used yet
_SILENT_S: Final = 600.0  # a large file that is put says nothing meanwhile
_PIECES: Final = 8  # of a file that goes through here, between the node and the store
_TRIES: Final = 3


class _News(msgspec.Struct):
    count: int = -1
    removed: int = 0
    reshaped: int = 0
    single: bool = False
    done: int = -1
    failed: int = -1
    changed: int = -1
    data: int = -1
    size: int = 0
    why: str = ""
    error: str = ""
    text: str = ""


class Sending:
    """One order."""

    def __init__(self, channel: Channel, order: SendOrder, sink: DataSink) -> None:
        self._channel, self._order, self._sink = channel, order, sink
        self._tries: collections.Counter[int] = collections.Counter()

    async def run(self) -> int:
        """How many files lie there."""
        self._say({"path": self._order.path} | ({"changes": True} if self._order.changes else {}))
        head = await self._hear()
        files = [await self._file() for _ in range(max(0, head.count))]
        gone = [msgspec.json.decode(await self._line(), type=tuple[str, str]) for _ in range(head.removed)]
        reshaped = [msgspec.json.decode(await self._line(), type=Reshaped) for _ in range(head.reshaped)]
        todo = collections.deque(
            index for index, (path, size) in enumerate(files) if self._sink.wants(path, size)
        )
        through_here: list[int] = []
        outstanding = 0
        while todo or outstanding:
            while todo and outstanding < _WINDOW:
                index = todo.popleft()
                href = await asyncio.to_thread(self._sink.address, *files[index])
                if href:
                    self._say({"put": index, "href": href, "headers": dict(self._sink.headers)})
                    outstanding += 1
                else:
                    through_here.append(index)
            await self._channel.writer.drain()
            if not outstanding:
                continue
            news = await self._hear()
            outstanding -= 1
            if news.done >= 0:
                self._sink.sent(*files[news.done])
            elif news.changed >= 0:
                self._again(news.changed, files)
                todo.append(news.changed)
            else:
                through_here.append(news.failed)
        for index in through_here:
            while not await self._take(index, files):
                self._again(index, files)
            self._sink.sent(*files[index])
        for change in reshaped:
            await asyncio.to_thread(self._sink.reshaped, change)
        for path, etag in gone:
            await asyncio.to_thread(self._sink.removed, path, etag)
        self._say({"end": True})
        return len(files)

    async def _file(self) -> tuple[str, int]:
        path, size, *was = msgspec.json.decode(await self._line(), type=list[str | int])
        if was:
            self._sink.was(str(path), str(was[0]), int(was[1]))
        return str(path), int(size)

    def _again(self, index: int, files: list[tuple[str, int]]) -> None:
        """Raises Transient when it has changed too often."""
        self._tries[index] += 1
        if self._tries[index] >= _TRIES:
            name = files[index][0] or self._order.path
            raise border.Transient(f"`{name}` changes while it is sent; does a program still write there?")

    async def _take(self, index: int, files: list[tuple[str, int]]) -> bool:
        """Carry one file from the node to the store; whether it stayed the same. A file that has changed is
        not written: the store never gets the last piece."""
        pieces: queue.Queue[bytes | border.Transient | None] = queue.Queue(_PIECES)
        changed = border.Transient("it changed")

        def arriving() -> Iterator[bytes]:
            while (piece := pieces.get()) is not None:
                if isinstance(piece, border.Transient):
                    raise piece
                yield piece

        writing = asyncio.ensure_future(asyncio.to_thread(self._sink.write, *files[index], arriving()))
        self._say({"give": index})
        end: border.Transient | None = border.Transient("the connection broke")
        try:
            while True:
                news = await self._hear()
                if news.data < 0:
                    break
                piece = await self._channel.reader.readexactly(news.size)
                while not writing.done():
                    try:
                        pieces.put_nowait(piece)
                        break
                    except queue.Full:
                        await asyncio.sleep(0.002)
            if news.failed >= 0:
                raise border.RequestRefused("outputs", f"`{files[index][0]}` cannot be read: {news.why}")
            end = None if news.done >= 0 else changed
        finally:
            while not writing.done():
                try:
                    pieces.put_nowait(end)
                    break
                except queue.Full:
                    await asyncio.sleep(0.002)
            await asyncio.wait({writing})
        error = writing.exception()
        if error is changed:
            return False
        if error is not None:
            raise error
        return end is None

    # ---- the node

    async def _line(self) -> bytes:
        async with asyncio.timeout(_SILENT_S):
            return await self._channel.reader.readuntil(b"\n")

    async def _hear(self) -> _News:
        try:
            news = msgspec.json.decode(await self._line(), type=_News)
        except TimeoutError:
            raise border.Transient(f"sending `{self._order.path}` stands still") from None
        if news.error == "transient":
            raise border.Transient(news.text)
        if news.error:
            raise border.RequestRefused(news.error, news.text)
        return news

    def _say(self, what: dict[str, object]) -> None:
        self._channel.writer.write(msgspec.json.encode(what) + b"\n")

"""The agent's wire protocol, spoken by an object of this process where there is no agent: to
`infra.agent_client` it is a node's agent.

What the object cannot do (files, terminals, ports) is refused with its own reason.
"""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Awaitable, Callable, Sequence
from typing import Final, Protocol

import msgspec

from argosy.agent import wire
from argosy.infra import border
from argosy.infra.agent_client import StreamChannel
from argosy.infra.agent_port import Channel, RankOrder
from argosy.model.facts import NodeFacts, RankFact

_FIRST_LOOK_S: Final = 0.3
_LAST_LOOK_S: Final = 4.0


class SpokenFor(Protocol):
    """Runs ranks in some way of its own. Calls raise border errors and may be repeated, as an agent's."""

    cannot: str  # why files, terminals and ports are refused; `{}` stands for what was asked for

    def facts(self) -> NodeFacts: ...

    async def prepare(self, orders: Sequence[RankOrder]) -> None: ...

    async def run(self, rank_ids: Sequence[str]) -> None: ...

    async def stop(self, rank_ids: Sequence[str], grace_s: float) -> None: ...

    async def forget(self, rank_ids: Sequence[str]) -> None: ...

    async def look(self, cursors: dict[str, int]) -> tuple[list[RankFact], list[tuple[str, int, bytes]]]:
        """Facts of every rank, and (rank, offset, bytes) of logs after `cursors`. An end is told with or
        after the last byte."""


class Speaker:
    """The other end of streams to a native node."""

    def __init__(self, node: SpokenFor) -> None:
        self._node = node
        self._tasks: set[asyncio.Task[None]] = set()

    async def open(self) -> Channel:
        ours, theirs = socket.socketpair()
        reader, writer = await asyncio.open_connection(sock=ours, limit=wire.BODY_LIMIT_BYTES)
        task = asyncio.create_task(self._serve(reader, writer))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        return StreamChannel(*await asyncio.open_connection(sock=theirs, limit=wire.BODY_LIMIT_BYTES))

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            while await self._one(reader, writer):
                pass
        except (OSError, EOFError, asyncio.LimitOverrunError):
            pass
        finally:
            writer.close()

    async def _one(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> bool:
        """True when another request may follow."""
        head = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1").split("\r\n")
        path = head[0].split(" ")[1].removeprefix(wire.PREFIX)
        lengths = [line.partition(":")[2] for line in head if line.lower().startswith("content-length:")]
        body = await reader.readexactly(int(lengths[0]) if lengths else 0)
        status, answer = 200, b"{}"
        try:
            if path == "/watch":
                await self._watch(msgspec.json.decode(body, type=_Cursors).cursors, reader, writer)
                return False
            answer = await self._call(path, body)
        except border.RequestRefused as error:
            status, answer = 400, _failure("refused", error.field, str(error))
        except border.BorderError as error:
            status, answer = 503, _failure("transient", "", str(error))
        writer.write(b"HTTP/1.1 %d -\r\nContent-Length: %d\r\n\r\n" % (status, len(answer)) + answer)
        await writer.drain()
        return status != 400

    async def _call(self, path: str, body: bytes) -> bytes:
        node = self._node
        calls: dict[str, Callable[[], Awaitable[None]]] = {
            "/prepare": lambda: node.prepare(msgspec.json.decode(body, type=_Orders).orders),
            "/run": lambda: node.run(msgspec.json.decode(body, type=_Ids).ids),
            "/stop": lambda: node.stop(*msgspec.structs.astuple(msgspec.json.decode(body, type=_Stop))),
            "/forget": lambda: node.forget(msgspec.json.decode(body, type=_Ids).ids),
        }
        if path == "/node":
            return msgspec.json.encode(node.facts())
        if path == "/shutdown":
            return b"{}"
        if path not in calls:
            what = "files are not brought there; keep them on the cluster's file system"
            if path in ("/shell", "/forward"):
                what = "there is no agent that opens terminals and ports"
            raise border.RequestRefused("path", node.cannot.format(what))
        await calls[path]()
        return b"{}"

    async def _watch(
        self, cursors: dict[str, int], reader: asyncio.StreamReader, writer: asyncio.StreamWriter
    ) -> None:
        writer.write(b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: argosy\r\n\r\n")
        told: dict[str, RankFact] = {}
        first, pause_s = True, _FIRST_LOOK_S
        gone = asyncio.ensure_future(reader.read())
        try:
            while not gone.done():
                facts, logs = await self._node.look(cursors)
                for rank_id, offset, data in logs:
                    cursors[rank_id] = offset + len(data)
                for fact in facts:
                    cursors.setdefault(fact.id, 0)
                news = [fact for fact in facts if told.get(fact.id) != fact]
                told.update({fact.id: fact for fact in news})
                writer.writelines(_frame(news, logs, complete=first))
                await writer.drain()
                busy = bool(news or logs) or first
                first, pause_s = False, _FIRST_LOOK_S if busy else min(_LAST_LOOK_S, pause_s * 1.5)
                await asyncio.wait({gone}, timeout=pause_s)
        except border.BorderError:
            return  # the stream ends; whoever reads opens it anew
        finally:
            gone.cancel()


class _Orders(msgspec.Struct):
    orders: list[RankOrder]


class _Ids(msgspec.Struct):
    ids: list[str]


class _Stop(msgspec.Struct):
    ids: list[str]
    grace_s: float = 10.0


class _Cursors(msgspec.Struct):
    cursors: dict[str, int] = {}


def _frame(
    facts: Sequence[RankFact], logs: Sequence[tuple[str, int, bytes]], *, complete: bool
) -> list[bytes]:
    head = {
        "complete": complete,
        "ranks": facts,
        "logs": [(rank_id, offset, len(data)) for rank_id, offset, data in logs],
    }
    text = msgspec.json.encode(head)
    size = sum(len(data) for _, _, data in logs)
    return [wire.FRAME.pack(len(text), size), text, *(data for _, _, data in logs)]


def _failure(error: str, field: str, text: str) -> bytes:
    return msgspec.json.encode({"error": error, "field": field, "text": text})

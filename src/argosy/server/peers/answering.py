"""What this server answers to others of the same database: only from what it has itself."""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import Callable
from typing import Final

import msgspec

from argosy.infra.agent_port import Channel
from argosy.infra.border import BorderError
from argosy.infra.mux import Acceptor
from argosy.model.errors import ArgosyError
from argosy.model.facts import ClaimFact
from argosy.server.peers.joining import Here
from argosy.server.peers.words import (
    Admit,
    Answer,
    AnyQuestion,
    Drive,
    GetChunks,
    GetTree,
    News,
    PassOn,
    Reach,
    ReadLog,
    answer_of,
    hear,
    say,
)

_log: Final = logging.getLogger(__name__)
_PIECE_BYTES: Final = 256 << 10


class Answering:
    """Serves connections of other servers."""

    def __init__(self, here: Here, hear: Callable[[News], None]) -> None:
        self._here, self._hear = here, hear
        acceptor = Acceptor(self._stream)
        self.serve, self.close = acceptor.serve, acceptor.close

    async def _stream(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            question: AnyQuestion = msgspec.json.decode(await hear(reader), type=AnyQuestion)
            try:
                await self._answer(question, reader, writer)
            except (ArgosyError, BorderError, OSError, TimeoutError, KeyError) as error:
                await say(writer, answer_of(error))
        except (OSError, ValueError):
            pass  # the other server, or its connection, is gone
        except Exception:  # noqa: BLE001  broad by intent: what one question does wrong must not end the others
            _log.exception("a question of another server failed in an unforeseen way")
        finally:
            writer.close()

    async def _answer(
        self, question: AnyQuestion, reader: asyncio.StreamReader, writer: asyncio.StreamWriter
    ) -> None:
        here = self._here
        match question:
            case Reach():
                channel = await here.reach(question.node)
                await say(writer, Answer())
                await _join(reader, writer, channel)
            case ReadLog():
                await self._read_log(question, writer)
            case GetTree():
                body = await here.blobs.own_tree(question.digest)
                await say(writer, Answer(size=len(body)))
                await _send(writer, body)
            case GetChunks():
                await say(writer, Answer())
                await self._send_chunks(question, writer)
            case Drive():
                await say(writer, Answer(facts=tuple(await self._drive(question))))
            case Admit():
                await say(writer, Answer(key=here.admit(question.node, question.token) or ""))
            case PassOn():
                channel = await here.door(question.door, question.address)
                await say(writer, Answer())
                await _join(reader, writer, channel)
            case News():
                self._hear(question)
                await say(writer, Answer())

    async def _read_log(self, question: ReadLog, writer: asyncio.StreamWriter) -> None:
        logs, rank_id = self._here.logs, question.rank_id
        complete = logs.is_finished(rank_id)  # before the size: what comes later is then not counted
        end = logs.stored(rank_id)
        offset = min(question.offset, end)
        await say(writer, Answer(size=end - offset, complete=complete))
        while offset < end:
            data = await logs.read(rank_id, offset, min(_PIECE_BYTES, end - offset))
            if not data:
                raise ConnectionResetError("the log was deleted meanwhile")
            offset += len(data)
            await _send(writer, data)

    async def _send_chunks(self, question: GetChunks, writer: asyncio.StreamWriter) -> None:
        for digest in question.digests:
            with contextlib.suppress(KeyError):
                data = await self._here.blobs.own_chunk(digest)
                await _send(writer, f"{digest} {len(data)}\n".encode() + data)

    async def _drive(self, question: Drive) -> list[ClaimFact]:
        provider = self._here.providers.get(question.provider)
        if question.verb == "observe":
            return list(await provider.observe(question.claim_ids))
        if question.verb == "release":
            for claim_id in question.claim_ids:
                await provider.release(claim_id)
        elif question.claim is not None:
            await provider.ensure(question.claim)
            return list(await provider.observe([question.claim.id]))
        return []


async def _send(writer: asyncio.StreamWriter, data: bytes) -> None:
    writer.write(data)
    await writer.drain()


async def _join(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, channel: Channel) -> None:
    """Carry bytes both ways until both ends have said all, or the other server has closed the stream."""
    there = asyncio.ensure_future(_pour(reader, channel.writer))
    back = asyncio.ensure_future(_pour(channel.reader, writer))
    closed = asyncio.ensure_future(writer.wait_closed())
    both = asyncio.ensure_future(asyncio.wait({there, back}, return_when=asyncio.FIRST_EXCEPTION))
    try:
        await asyncio.wait({both, closed}, return_when=asyncio.FIRST_COMPLETED)
    finally:
        for task in (there, back, closed, both):
            task.cancel()
        await asyncio.wait({there, back, closed, both})
        for task in (there, back, closed):
            if not task.cancelled():
                task.exception()  # the connection that ended says so at its other end
        channel.writer.close()


async def _pour(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    while data := await reader.read(_PIECE_BYTES):
        writer.write(data)
        await writer.drain()
    if writer.can_write_eof():
        writer.write_eof()

"""The async client: the same methods as `client.Client`, on asyncio streams."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Sequence
from types import TracebackType
from typing import Any, Self, TypeVar

from argosy import __version__
from argosy.api.endpoint import AwaitingCalls, Call
from argosy.api.location import Location
from argosy.api.server import ServerCalls
from argosy.client.connection import READ_BYTES, Broken, check_owner, fed, host_of, unreachable, while_sending
from argosy.client.flow import Aside, Flow, Own, ReadLog, Step
from argosy.client.frames import FrameDecoder, LogPiece
from argosy.client.replies import check_version, decode_reply, error_of
from argosy.client.shared import (
    BACKOFF_FIRST_S,
    RECONNECT_FOR_S,
    STARTING_FOR_S,
    Resumed,
    SharedClient,
    new_key,
)
from argosy.client.wire import ReplyParser, render_head
from argosy.model.errors import ArgosyError

T = TypeVar("T")


class _Stream:
    """One connection, one request at a time."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.reader = reader
        self.writer = writer

    def is_usable(self) -> bool:
        return not (self.writer.is_closing() or self.reader.at_eof())

    def close(self) -> None:
        self.writer.close()

    async def send(
        self, location: Location, call: Call[Any], headers: Sequence[tuple[str, str]], timeout_s: float
    ) -> None:
        """Raises Broken."""
        target = location.prefix + call.target
        size = sum(map(len, call.parts))
        with while_sending(f"the server took nothing for {timeout_s:.0f} s"):
            async with asyncio.timeout(timeout_s):
                self.writer.write(render_head(call.endpoint.method, target, host_of(location), headers, size))
                for part in call.parts:
                    self.writer.write(part)
                    await self.writer.drain()

    async def read(self, parser: ReplyParser, timeout_s: float | None) -> AsyncIterator[bytes]:
        """Pieces of the body. Raises Broken."""
        answered = False
        while not parser.done:
            try:
                async with asyncio.timeout(timeout_s):
                    data = await self.reader.read(READ_BYTES)
            except TimeoutError as error:
                raise Broken(f"no answer within {timeout_s or 0:.0f} s", answered=answered) from error
            except OSError as error:
                raise Broken(error.strerror or str(error), answered=answered) from error
            answered = answered or bool(data)
            for piece in fed(parser, data, answered=answered):
                yield piece


class AsyncClient(SharedClient, AwaitingCalls):
    """Talks to one server from one event loop. See `Client` for arguments and errors.

    >>> async def main() -> None:
    ...     async with AsyncClient(env={"HOME": "/nonexistent"}, start=False) as client:
    ...         try:
    ...             await client.status()
    ...         except ArgosyError as error:
    ...             print(error.code)
    >>> asyncio.run(main())
    server-unreachable
    """

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._idle: list[_Stream] = []

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.close()

    async def close(self) -> None:
        """Drop idle connections; the next call opens a new one."""
        while self._idle:
            stream = self._idle.pop()
            stream.close()
            try:
                await stream.writer.wait_closed()
            except OSError:
                pass

    # Carrying out calls ----------------------------------------------------------------------------------

    async def send(self, call: Call[T]) -> T:
        """Carry out one call. A request that a dying connection swallowed is repeated once: each is
        idempotent."""
        call.encode(new_key())
        if call.endpoint.any_version:
            return await self._exchange(call)
        deadline = time.monotonic() + STARTING_FOR_S
        while True:
            try:
                await self._shake_hands()
                return await self._exchange(call)
            except ArgosyError as error:
                if error.code != "server-starting" or time.monotonic() > deadline:
                    raise
                await asyncio.sleep(BACKOFF_FIRST_S)

    async def run(self, flow: Flow[T], *, aside: bool = False) -> T:
        """Carry out a flow (see `client.flow`) to its end; `aside`: its own work happens in a thread."""
        answer: object = None
        failure: BaseException | None = None
        while True:
            if aside:
                is_end, step = await asyncio.to_thread(_advance, flow, answer, failure)
            else:
                is_end, step = _advance(flow, answer, failure)
            if is_end:
                result: T = step
                return result
            answer = failure = None
            try:
                answer = await self._perform(step)
            except BaseException as error:  # noqa: BLE001  the flow decides what becomes of it
                failure = error

    async def _perform(self, step: Step) -> object:
        if isinstance(step, Call):
            return await self.send(step)
        if isinstance(step, Aside):
            return await self.run(step.flow, aside=True)
        if isinstance(step, Own):
            return await self.run(step.start(self))
        assert isinstance(step, ReadLog)
        async for piece in self.logs(step.job_id, follow=step.follow, tail=step.tail):
            step.take(piece)
        return None

    async def _shake_hands(self) -> None:
        if not self._shaken_hands:
            check_version(await self._exchange(ServerCalls.health()), __version__)
            self._shaken_hands = True

    async def _exchange(self, call: Call[T]) -> T:
        for last in (False, True):
            stream = await self._take()
            parser = ReplyParser()
            try:
                await stream.send(self.location, call, self._headers(call), self._reply_timeout_s)
                body = b"".join([piece async for piece in stream.read(parser, self._reply_timeout_s)])
            except Broken as error:
                stream.close()
                if last or error.answered:
                    raise unreachable(self.location, str(error)) from None
                continue
            except BaseException:
                stream.close()  # cancelled: a reply may still come
                raise
            if parser.keep_alive and len(self._idle) < 64:
                self._idle.append(stream)
            else:
                stream.close()
            return decode_reply(call, parser.status, body)
        raise AssertionError("unreachable")

    async def _take(self) -> _Stream:
        while self._idle:
            stream = self._idle.pop()
            if stream.is_usable():
                return stream
            stream.close()
        try:
            return await self._open()
        except OSError as error:
            if refused := self._refused(error, may_start=True):
                raise refused from None
        from argosy.client.local_server import ensure_running

        if self._on_start is not None:
            self._on_start()
        await asyncio.to_thread(ensure_running, self.location, self.env)
        try:
            return await self._open()
        except OSError as error:
            raise unreachable(self.location, error.strerror or str(error)) from None

    async def _open(self) -> _Stream:
        location = self.location
        async with asyncio.timeout(self._connect_timeout_s):
            if location.socket is not None:
                check_owner(location)
                return _Stream(*await asyncio.open_unix_connection(location.socket, limit=READ_BYTES))
            return _Stream(
                *await asyncio.open_connection(
                    location.host, location.port, ssl=location.tls or None, limit=READ_BYTES
                )
            )

    # Logs ------------------------------------------------------------------------------------------------

    async def logs(
        self,
        job_id: str,
        *,
        follow: bool = True,
        tail: int | None = None,
        rank: int | None = None,
        cursor: str | None = None,
        attempt: int | None = None,
        reconnect_for_s: float = RECONNECT_FOR_S,
    ) -> AsyncIterator[LogPiece]:
        """The frames of a job's log, the last one with `end`; resumes after lost connections as
        `Client.logs`."""
        await self._shake_hands()
        wanted = {"follow": follow, "tail": tail, "rank": rank, "cursor": cursor, "attempt": attempt}
        resumed = Resumed(self.location, reconnect_for_s, job=job_id, **wanted)
        while True:
            failure: Exception | None = None
            try:
                async for piece in self._stream(resumed.call()):
                    is_last = resumed.seen(piece)
                    yield piece
                    if is_last:
                        return
            except (Broken, ArgosyError) as error:
                failure = error
            await asyncio.sleep(resumed.lost(failure, time.monotonic()))

    async def _stream(self, call: Call[bytes]) -> AsyncIterator[LogPiece]:
        stream = await self._take()
        parser, decoder = ReplyParser(), FrameDecoder()
        refused: list[bytes] = []
        try:
            await stream.send(self.location, call, self._headers(call), self._reply_timeout_s)
            async for data in stream.read(parser, None):
                if parser.status >= 400:
                    refused.append(data)
                    continue
                for piece in decoder.feed(data):
                    yield piece
        finally:
            stream.close()
        if parser.status >= 400:
            raise error_of(parser.status, b"".join(refused))


def _advance(flow: Flow[Any], answer: object, failure: BaseException | None) -> tuple[bool, Any]:
    """(False, the next step), or (True, the result). A StopIteration must not leave a coroutine."""
    try:
        return False, flow.send(answer) if failure is None else flow.throw(failure)
    except StopIteration as end:
        return True, end.value

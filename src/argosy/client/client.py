"""The blocking client: a method per endpoint, flows, and streams of logs."""

from __future__ import annotations

import os
import time
from collections.abc import Iterator
from types import TracebackType
from typing import Any, Self, TypeVar

from argosy import __version__
from argosy.api.endpoint import BlockingCalls, Call
from argosy.api.server import ServerCalls
from argosy.client.connection import Broken, Connection, unreachable
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
from argosy.client.wire import ReplyParser
from argosy.model.errors import ArgosyError

T = TypeVar("T")


class Client(SharedClient, BlockingCalls):
    """Talks to one server. Safe to share between threads.

    `location` None: as the environment says. `start` lets the first call start the local server when there is
    none. Every method raises ArgosyError: "server-unreachable", "unauthorized", "version-mismatch", and what
    its endpoint says.

    >>> client = Client(env={"HOME": "/nonexistent"}, start=False)
    >>> client.status()  # doctest: +NORMALIZE_WHITESPACE
    Traceback (most recent call last):
    ...
    argosy.model.errors.ArgosyError: no Argosy server answers at /nonexistent/.argosy/run/server.sock: it is
    not running
    """

    _idle: list[Connection]
    _pid = 0  # the process that opened the idle connections

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Drop idle connections; the next call opens a new one."""
        while self._connections():
            self._connections().pop().close()

    # Carrying out calls ----------------------------------------------------------------------------------

    def send(self, call: Call[T]) -> T:
        """Carry out one call. A request that a dying connection swallowed is repeated once: each is
        idempotent."""
        call.encode(new_key())
        if call.endpoint.any_version:
            return self._exchange(call)
        deadline = time.monotonic() + STARTING_FOR_S
        while True:
            try:
                self._shake_hands()
                return self._exchange(call)
            except ArgosyError as error:
                if error.code != "server-starting" or time.monotonic() > deadline:
                    raise
                time.sleep(BACKOFF_FIRST_S)

    def run(self, flow: Flow[T]) -> T:
        """Carry out a flow (see `client.flow`) to its end. What a step raises is raised in the flow."""
        answer: object = None
        failure: BaseException | None = None
        while True:
            try:
                step = flow.send(answer) if failure is None else flow.throw(failure)
            except StopIteration as end:
                result: T = end.value
                return result
            answer = failure = None
            try:
                answer = self._perform(step)
            except BaseException as error:  # noqa: BLE001  the flow decides what becomes of it
                failure = error

    def _perform(self, step: Step) -> object:
        if isinstance(step, Call):
            return self.send(step)
        if isinstance(step, Aside):
            return self.run(step.flow)
        if isinstance(step, Own):
            return self.run(step.start(self))
        assert isinstance(step, ReadLog)
        for piece in self.logs(step.job_id, follow=step.follow, tail=step.tail):
            step.take(piece)
        return None

    def _shake_hands(self) -> None:
        if not self._shaken_hands:
            check_version(self._exchange(ServerCalls.health()), __version__)
            self._shaken_hands = True

    def _exchange(self, call: Call[T]) -> T:
        for last in (False, True):
            connection = self._take()
            parser = ReplyParser()
            try:
                self._request(connection, call)
                body = b"".join(connection.read(parser, self._reply_timeout_s))
            except Broken as error:
                connection.close()
                if last or error.answered:
                    raise unreachable(self.location, str(error)) from None
                continue
            except BaseException:
                connection.close()  # a reply may still come: this connection is out of step
                raise
            if parser.keep_alive and len(self._idle) < 8:
                self._idle.append(connection)
            else:
                connection.close()
            return decode_reply(call, parser.status, body)
        raise AssertionError("unreachable")

    def _request(self, connection: Connection, call: Call[Any]) -> None:
        target = self.location.prefix + call.target
        headers, timeout_s = self._headers(call), self._reply_timeout_s
        connection.send(call.endpoint.method, target, headers, call.parts, timeout_s)

    def _connections(self) -> list[Connection]:
        if os.getpid() != self._pid:  # new or forked: a parent's connections are not ours to use or to close
            self._idle, self._pid = [], os.getpid()
        return self._idle

    def _take(self) -> Connection:
        idle = self._connections()
        while idle:
            connection = idle.pop()
            if connection.is_usable():
                return connection
            connection.close()
        try:
            return Connection(self.location, self._connect_timeout_s)
        except OSError as error:
            if refused := self._refused(error, may_start=True):
                raise refused from None
        from argosy.client.local_server import ensure_running

        if self._on_start is not None:
            self._on_start()
        ensure_running(self.location, self.env)
        try:
            return Connection(self.location, self._connect_timeout_s)
        except OSError as error:
            raise unreachable(self.location, error.strerror or str(error)) from None

    # Logs ------------------------------------------------------------------------------------------------

    def logs(
        self,
        job_id: str,
        *,
        follow: bool = True,
        tail: int | None = None,
        rank: int | None = None,
        cursor: str | None = None,
        attempt: int | None = None,
        reconnect_for_s: float = RECONNECT_FOR_S,
    ) -> Iterator[LogPiece]:
        """The frames of a job's log, the last one with `end`.

        When the connection is lost or the server restarts, it goes on after the last whole frame: nothing is
        lost and nothing comes twice. After `reconnect_for_s` without an answer it raises
        "server-unreachable".
        """
        self._shake_hands()
        wanted = {"follow": follow, "tail": tail, "rank": rank, "cursor": cursor, "attempt": attempt}
        resumed = Resumed(self.location, reconnect_for_s, job=job_id, **wanted)
        while True:
            failure: Exception | None = None
            try:
                for piece in self._stream(resumed.call()):
                    is_last = resumed.seen(piece)
                    yield piece
                    if is_last:
                        return
            except (Broken, ArgosyError) as error:
                failure = error
            time.sleep(resumed.lost(failure, time.monotonic()))

    def _stream(self, call: Call[bytes]) -> Iterator[LogPiece]:
        connection = self._take()
        parser, decoder = ReplyParser(), FrameDecoder()
        refused: list[bytes] = []
        try:
            self._request(connection, call)
            for data in connection.read(parser, None):
                if parser.status >= 400:
                    refused.append(data)
                else:
                    yield from decoder.feed(data)
        finally:
            connection.close()
        if parser.status >= 400:
            raise error_of(parser.status, b"".join(refused))

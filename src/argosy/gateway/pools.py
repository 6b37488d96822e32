"""Connections to one replica: kept while idle, each with at most one request at a time.

An `Upstream` reads answers for its `Asker`: it finds their heads and ends and hands every piece on as it
comes.
"""

from __future__ import annotations

import asyncio
import collections
import re
from collections.abc import Callable
from typing import Final, Generic, Protocol, TypeVar, cast

from argosy.gateway.addresses import Address, connect_to
from argosy.gateway.framing import BadBody, Body, UntilClose, body_of
from argosy.gateway.heads import HEAD_MAX, AnswerHead, BadHead, parse_answer

T = TypeVar("T")
#: Idle connections are closed after so long: servers close theirs after 5 s, and who closes first is not
#: surprised.
IDLE_S: Final = 4.0
#: A request that must not be sent twice goes only over a connection that was in use so lately.
WARM_S: Final = 1.0
CONNECT_S: Final = 3.0
_IDLE_MAX: Final = 256
_INTERIM_MAX: Final = 16
_BARE_LINE: Final = re.compile(rb"(?<!\r)\n")


class Asker(Protocol):
    """Whoever waits for an answer."""

    is_head_request: bool

    @property
    def is_sending(self) -> bool:
        """The body of the request is not complete yet."""

    def takes(self, head: AnswerHead | None, piece: bytes, done: bool) -> None:
        """The next piece of the answer; `head` with the first one, `done` with the last."""

    def takes_interim(self, head: AnswerHead) -> None:
        """An answer with a status below 200."""

    def takes_switch(self, upstream: Upstream, head: AnswerHead, rest: bytes) -> bool:
        """The replica speaks another protocol from now on. False: nobody asked for that."""

    def takes_raw(self, data: bytes) -> None:
        """Bytes of the other protocol."""

    def loses(self, upstream: Upstream, why: str) -> None:
        """The connection ended in mid-answer or before it, or what came is not an answer."""

    def holds_back(self, full: bool) -> None:
        """The replica takes no more bytes for now, or takes them again."""


class Alone(Generic[T]):
    """An asker behind which no client waits: its request is written at once, and changes no protocol."""

    is_sending = is_head_request = False

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self.ended: asyncio.Future[T] = loop.create_future()

    def takes_interim(self, head: AnswerHead) -> None:
        """Nobody is told."""

    def takes_switch(self, upstream: Upstream, head: AnswerHead, rest: bytes) -> bool:
        return False

    def takes_raw(self, data: bytes) -> None:
        """No protocol is changed."""

    def loses(self, upstream: Upstream, why: str) -> None:
        if not self.ended.done():
            self.ended.set_exception(ConnectionResetError(why))

    def holds_back(self, full: bool) -> None:
        """It was written at once."""


class Upstream(asyncio.Protocol):
    """One connection to a replica."""

    __slots__ = (
        "_body", "_buffer", "_interims", "_keep", "_raw", "asker", "dead", "fresh", "idle_since_s", "paused",
        "pool", "transport",
    )  # fmt: skip

    def __init__(self, pool: Pool) -> None:
        self.pool = pool
        self.transport: asyncio.Transport = cast(asyncio.Transport, None)
        self.asker: Asker | None = None
        self.fresh = True  # nothing was asked over it before
        self.dead = False
        self.paused = False
        self.idle_since_s = 0.0
        self._body: Body | None = None
        self._buffer = b""
        self._interims = 0
        self._keep = False
        self._raw = False

    # --- what the owner does -----------------------------------------------------------------------

    def attach(self, asker: Asker) -> None:
        """From now on the answers are for `asker`."""
        self.asker = asker
        self._interims = 0

    def pause(self) -> None:
        if not self.paused and not self.dead:
            self.paused = True
            self.transport.pause_reading()

    def resume(self) -> None:
        if self.paused and not self.dead:
            self.paused = False
            self.transport.resume_reading()

    def close(self) -> None:
        """End it after what was written has been sent."""
        self.dead = True
        if self.transport is not None:
            self.transport.close()

    def abort(self) -> None:
        """End it now: the replica sees that nobody waits for its answer."""
        self.dead = True
        self.asker = None
        if self.transport is not None:
            self.transport.abort()

    # --- asyncio -----------------------------------------------------------------------------------

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = cast(asyncio.Transport, transport)

    def pause_writing(self) -> None:
        if self.asker is not None:
            self.asker.holds_back(True)

    def resume_writing(self) -> None:
        if self.asker is not None:
            self.asker.holds_back(False)

    def data_received(self, data: bytes) -> None:
        asker = self.asker
        if asker is None:
            self.close()  # bytes that nobody asked for: what comes next cannot be trusted
            return
        if self._raw:
            asker.takes_raw(data)
            return
        body = self._body
        if body is not None and body.passes(data):
            asker.takes(None, data, False)
            return
        head, start = None, 0
        if body is None:
            if self._buffer:
                data = self._buffer + data
                self._buffer = b""
            head, start = self._read_head(asker, data)
            if head is None:
                return
        self._pass(asker, head, data, start)

    def eof_received(self) -> None:
        self.dead = True  # it is not taken for another request before `connection_lost`

    def connection_lost(self, error: Exception | None) -> None:
        self.dead = True
        self.pool.forget(self)
        asker, self.asker = self.asker, None
        if asker is None:
            return
        if error is None and isinstance(self._body, UntilClose):
            asker.takes(None, b"", True)
        else:
            asker.loses(self, "cut" if self._body is not None or self._raw else "closed")

    # --- reading -----------------------------------------------------------------------------------

    def _read_head(self, asker: Asker, data: bytes) -> tuple[AnswerHead | None, int]:
        """The next head that is not an interim one, and where its body begins."""
        start = 0
        while True:
            end = data.find(b"\r\n\r\n", start) + 4
            if end < 4 or end - start > HEAD_MAX:
                return self._wait_for_head(asker, data[start:])
            try:
                head = parse_answer(data[start:end])
            except BadHead as bad:
                self._refuse(asker, bad.text)
                return None, 0
            if head.status >= 200:
                break
            if head.switches:
                self._switch(asker, head, data[end:])
                return None, 0
            self._interims += 1
            if self._interims > _INTERIM_MAX:
                self._refuse(asker, "too many interim answers")
                return None, 0
            asker.takes_interim(head)
            start = end
        self._keep = head.keep
        self._body = None if asker.is_head_request else body_of(head.length, strict=False)
        return head, end

    def _wait_for_head(self, asker: Asker, begun: bytes) -> tuple[None, int]:
        if len(begun) > HEAD_MAX or _BARE_LINE.search(begun) is not None:
            self._refuse(asker, "the replica's answer is not HTTP/1.1")
        else:
            self._buffer = begun
        return None, 0

    def _switch(self, asker: Asker, head: AnswerHead, rest: bytes) -> None:
        self._raw = True
        if not asker.takes_switch(self, head, rest):
            self._refuse(asker, "the replica changed the protocol unasked")

    def _pass(self, asker: Asker, head: AnswerHead | None, data: bytes, start: int) -> None:
        body = self._body
        end, done = start, True
        if body is not None:
            try:
                end = body.feed(data, start)
            except BadBody as bad:
                self._refuse(asker, str(bad))
                return
            done = body.done
        if done:
            self._body = None
            self.asker = None
            if self._keep and end == len(data) and not self.dead and not asker.is_sending:
                self.pool.release(self)
            else:
                self.close()
        asker.takes(head, data if not start and end == len(data) else data[start:end], done)
        if done and self.asker is None:
            self.resume()  # the last bytes were too many for who reads them: the next one waits for others

    def _refuse(self, asker: Asker, why: str) -> None:
        self.asker = None
        self.abort()
        asker.loses(self, why)


class Pool:
    """All connections to one address."""

    __slots__ = ("_forget_s", "_now_s", "_open", "address", "idle", "retired")

    def __init__(self, address: Address, now_s: Callable[[], float]) -> None:
        self.address = address
        self.idle: collections.deque[Upstream] = collections.deque()
        self.retired = False  # nothing is kept any more
        self._now_s = now_s
        self._open = 0

    @property
    def open(self) -> int:
        """Connections there are."""
        return self._open

    async def connect(self) -> Upstream:
        """A new connection. Raises OSError, TimeoutError."""
        async with asyncio.timeout(CONNECT_S):
            upstream = await connect_to(self.address, lambda: Upstream(self))
        self._open += 1
        return upstream

    def take(self, *, warm: bool) -> Upstream | None:
        """An idle connection; with `warm` only one that was in use a moment ago."""
        while self.idle:
            upstream = self.idle[-1]
            if warm and self._now_s() - upstream.idle_since_s > WARM_S:
                return None  # all others are older
            self.idle.pop()
            if not upstream.dead:
                upstream.fresh = False
                return upstream
        return None

    def release(self, upstream: Upstream) -> None:
        """An answer is complete: the connection may be used again."""
        if self.retired or len(self.idle) >= _IDLE_MAX:
            upstream.close()
            return
        upstream.resume()
        upstream.idle_since_s = self._now_s()
        self.idle.append(upstream)

    def forget(self, upstream: Upstream) -> None:
        """A connection has ended."""
        self._open -= 1
        if upstream.idle_since_s and upstream in self.idle:
            self.idle.remove(upstream)

    def sweep(self) -> None:
        """Close what has been idle for long. Call it every second."""
        border_s = self._now_s() - IDLE_S
        while self.idle and self.idle[0].idle_since_s < border_s:
            self.idle.popleft().close()

    def retire(self) -> None:
        """Close what is idle, and what is in use when it is done."""
        self.retired = True
        while self.idle:
            self.idle.pop().close()

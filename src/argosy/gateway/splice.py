"""A reverse proxy for HTTP/1.1 on asyncio protocols: one head is parsed for each message, then bytes pass.

Each `Client` reads requests, asks its `Decider` what becomes of them, and splices: bodies are counted,
never kept whole (but what may have to be sent a second time, up to REPLAY_MAX, and what the decider wants
to read). Answers pass as they come, so streams have no delay; WebSockets are spliced after the replica's
101. Back pressure goes both ways. A client that leaves ends its request at the replica at once.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Final

from argosy.gateway.connection import (
    BODY_BYTES_S,
    BODY_S,
    HEAD_S,
    IDLE_S,
    LINGER_S,
    STALL_S,
    Connection,
    Door,
)
from argosy.gateway.exchange import REPLAY_MAX, Answer, Decision, Exchange, Forward, refusal
from argosy.gateway.framing import BadBody, body_of
from argosy.gateway.heads import HEAD_MAX, UNTIL_CLOSE, AnswerHead, BadHead, parse_request
from argosy.gateway.pools import Upstream
from argosy.gateway.streams import EarlyStream
from argosy.gateway.websocket import Socket

_CONTINUE: Final = b"HTTP/1.1 100 Continue\r\n\r\n"
_REFUSED: Final = (ConnectionError, FileNotFoundError)
_BARE_LINE: Final = re.compile(rb"(?<!\r)\n")


class Answers(Connection):
    """The side of the replica: its answer passes to the client. `pools.Asker` says what the calls mean."""

    __slots__ = ()

    def takes(self, head: AnswerHead | None, piece: bytes, done: bool) -> None:
        exchange = self._exchange
        if exchange is None:
            return
        size = len(piece)
        if head is None and exchange.first_s and not done and exchange.stream is None:
            exchange.sent += size  # in the middle of a body: most pieces of streams
            if exchange.tap is not None:
                exchange.tap(piece)
            self.transport.write(piece)
            self._ticks = 0
            return
        if head is not None:
            begun = self._begin(exchange, head)
            if exchange.stream is None:
                piece = begun + piece
        if size or done:
            exchange.sent += size
            if not exchange.first_s:
                exchange.first_s = self._door.now_s()
                self._door.decider.first_byte(exchange)
            if exchange.tap is not None and size:
                exchange.tap(piece if head is None else piece[-size:])
        if exchange.stream is not None:
            piece = exchange.stream.render(head, piece, done)
        self.transport.write(piece)
        self._ticks = 0
        if done:
            self._up = None
            self._end("done", exchange.status)
            self._next(not self._keep or self._body is not None)

    def _begin(self, exchange: Exchange, head: AnswerHead) -> bytes:
        exchange.status = head.status
        exchange.pieces = None
        self._started = True
        if self._door.closing or (head.length == UNTIL_CLOSE and not self.is_head_request):
            self._keep = False
        return exchange.render_answer(head, closing=not self._keep or self._body is not None)

    def takes_interim(self, head: AnswerHead) -> None:
        exchange = self._exchange
        if exchange is not None and (head.status != 100 or exchange.head.expects) and exchange.head.minor:
            self.transport.write(head.line + head.fields + b"\r\n")

    def takes_switch(self, upstream: Upstream, head: AnswerHead, rest: bytes) -> bool:
        exchange = self._exchange
        if exchange is None or not exchange.head.upgrade:
            return False
        exchange.status = 101
        exchange.first_s = self._door.now_s()
        exchange.pieces = None
        self._door.decider.first_byte(exchange)
        self._started = self._raw = True
        self._socket = Socket()
        self.transport.write(exchange.render_answer(head, closing=False))
        early, self._buffer = self._buffer, b""
        if early:
            upstream.transport.write(early)
        self._resume()
        if rest:
            self.takes_raw(rest)
        return True

    def takes_raw(self, data: bytes) -> None:
        exchange, socket = self._exchange, self._socket
        if exchange is None or socket is None or self._closing:
            return
        piece, leaves = socket.takes(data)
        exchange.sent += len(piece)
        self.transport.write(piece)
        if leaves:
            self._say_goodbye()

    def loses(self, upstream: Upstream, why: str) -> None:
        exchange = self._exchange
        self._up = None
        if exchange is None:
            return
        if self._raw:
            self._end("done" if why == "cut" else "cut", exchange.status)
            self._close()
        elif self._started:
            self._end("cut", exchange.status)
            self._abort()  # never an end that looks complete
        elif why == "closed" and not upstream.fresh and exchange.may_repeat and exchange.tries < 3:
            self._again(exchange, "stale")  # an idle connection died under us
        else:
            self._again(exchange, why)

    def holds_back(self, full: bool) -> None:
        if full:
            self._pause()
        else:
            self._resume()

    def _again(self, exchange: Exchange, why: str) -> None:
        """The connection failed before the first byte."""
        raise NotImplementedError


class Client(Answers):
    """One connection from a client."""

    # --- asyncio -----------------------------------------------------------------------------------

    def data_received(self, data: bytes) -> None:
        if self._raw:
            if self._up is not None:
                self._up.transport.write(data)
        elif self._linger:
            return
        elif self._body is not None:
            self._ticks = 0
            self._take_body(data)
        else:
            self._take_head(data)

    def tick(self) -> None:
        """A second has passed."""
        self._ticks += 1
        if self._raw:
            return
        exchange, waited_s = self._exchange, self._ticks
        if self._linger:
            if waited_s >= LINGER_S:
                self.transport.abort()
        elif self._closing or self._stalled:
            if waited_s >= STALL_S:
                self.transport.abort()
        elif self._body is not None and exchange is not None and not self._paused:
            exchange.sending_s += 1
            due = (exchange.sending_s - BODY_S) * BODY_BYTES_S
            if waited_s >= BODY_S or exchange.received < due:
                self._fail(refusal(408, "timeout", "the body of the request did not come"), "gone")
        elif exchange is not None:
            limit_s = exchange.forward.answer_timeout_s if exchange.forward is not None else 0
            if 0 < limit_s <= waited_s and not self._started and self._up is not None:
                self._fail(refusal(504, "timeout", "the replica did not answer in time"), "timeout")
            elif (
                self._door.waits is not None and self._up is not None and (not self._started or waited_s <= 1)
            ):
                self._door.waits(exchange, waited_s, self._started)
        elif self._buffer and waited_s >= HEAD_S:
            self._fail(refusal(408, "timeout", "the head of the request did not come"), "gone")
        elif waited_s >= IDLE_S:
            self.transport.close()

    # --- requests ----------------------------------------------------------------------------------

    def _take_head(self, data: bytes) -> None:
        if self._buffer:
            data = self._buffer + data
        else:
            self._ticks = 0  # a head has so much time as a whole
        if self._exchange is not None or self._closing:  # the request before is not answered yet
            self._buffer = data
            self._pause()
            return
        if data[:2] == b"\r\n":
            data = data[2:]  # RFC 9112, section 2.2
        end = data.find(b"\r\n\r\n") + 4
        if end < 4:
            self._wait_for_head(data)
            return
        self._buffer = b""
        try:
            if end > HEAD_MAX:
                raise BadHead(431, "the head of the request is too large")
            head = parse_request(data[:end])
            if self._door.serves is not None and not self._door.serves(head.host):
                raise BadHead(421, "no certificate here is for this host")
        except BadHead as bad:
            self._fail(refusal(bad.status, "bad-request", bad.text), "answered")
            return
        door = self._door
        exchange = Exchange(self, head, self.ip, door.new_id(), door.now_s())
        exchange.secure = door.secure
        exchange.is_local = door.is_local and not head.forwarded_for
        if door.trusted and head.forwarded_for:
            exchange.ip = head.forwarded_for.rpartition(b",")[2].strip(b" ")
            exchange.secure = head.forwarded_proto == b"https"
        if door.peers and head.passed:
            exchange.passed, exchange.is_local = True, head.passed == b"here"
        self._exchange = exchange
        self._started = False
        self._keep = head.keep and not door.closing
        self.is_head_request = head.method == b"HEAD"
        if 0 < head.length == len(data) - end:  # all of it is here
            exchange.body = data[end:]
            exchange.pieces = [exchange.body]
            exchange.received = head.length
            self.act(exchange, door.decider.decide(exchange))
            return
        self._body = body_of(head.length, strict=True)
        if self._body is not None and end < len(data):
            self._take_body(data[end:], decide=True)
            return
        if end < len(data):
            self._buffer = data[end:]
        self.act(exchange, door.decider.decide(exchange))

    def _wait_for_head(self, data: bytes) -> None:
        self._buffer = data
        if len(data) > HEAD_MAX:
            self._fail(refusal(431, "bad-request", "the head of the request is too large"), "answered")
        elif _BARE_LINE.search(data) is not None or not (32 < data[0] < 127 if data else True):
            self._fail(refusal(400, "bad-request", "this is not a request of HTTP/1.1"), "answered")

    def _take_body(self, data: bytes, *, decide: bool = False) -> None:
        body, exchange = self._body, self._exchange
        if body is None or exchange is None:
            return
        try:
            end = body.feed(data, 0)
        except BadBody as bad:
            self._drop_upstream()
            self._fail(refusal(400, "bad-request", str(bad)), "answered")
            return
        piece, rest = (data, b"") if end == len(data) else (data[:end], data[end:])
        if body.done:
            self._body = None
        self._buffer = rest
        if not exchange.keep(piece, max(REPLAY_MAX, self._gather), sent=self._up is not None):
            self._pause()  # nobody takes it yet
        if 0 < exchange.limit < exchange.received:
            text = f"the body is larger than {exchange.limit} bytes"
            self._fail(refusal(413, "too-large", text), "answered")
            return
        if decide:
            self.act(exchange, self._door.decider.decide(exchange))
        elif self._gather:
            self._gathered(exchange)
        elif self._up is not None:
            self._up.transport.write(piece)

    def _gathered(self, exchange: Exchange) -> None:
        """The decider waits for the body."""
        if exchange.received > self._gather or exchange.head.length > self._gather:
            limit = self._gather
            self._fail(refusal(413, "too-large", f"the body is larger than {limit} bytes"), "answered")
            return
        if self._body is not None:
            return
        self._gather = 0
        exchange.body = exchange.content()
        self.act(exchange, self._door.decider.decide(exchange))

    # --- what was decided --------------------------------------------------------------------------

    def act(self, exchange: Exchange, decision: Decision) -> None:
        """Do what was decided about the request."""
        if exchange is not self._exchange or decision is None:
            return
        if isinstance(decision, Forward):
            exchange.forward = decision
            self._ticks = 0
            upstream = decision.pool.take(warm=not exchange.may_repeat)
            if upstream is None:
                self._opening = self._door.loop.create_task(self._open(exchange, decision))
            else:
                self._attach(exchange, decision, upstream)
        elif isinstance(decision, Answer):
            self._answer(exchange, decision)
        else:
            self._gather = decision.limit
            self._resume()  # more is kept now than before it was asked for
            if exchange.head.expects and self._body is not None and not exchange.received:
                self.transport.write(_CONTINUE)
            self._gathered(exchange)

    async def _open(self, exchange: Exchange, forward: Forward) -> None:
        try:
            upstream = await forward.pool.connect()
        except (OSError, TimeoutError) as error:
            self._opening = None
            self._again(exchange, "refused" if isinstance(error, _REFUSED) else "unreachable")
            return
        self._opening = None
        if exchange is not self._exchange or self._closing:
            forward.pool.release(upstream)
        else:
            self._attach(exchange, forward, upstream)

    def _attach(self, exchange: Exchange, forward: Forward, upstream: Upstream) -> None:
        self._up = upstream
        upstream.attach(self)
        exchange.send(forward, upstream.transport)
        if exchange.received > REPLAY_MAX:
            exchange.pieces = None
        if self._stalled:
            upstream.pause()
        if self._body is not None:
            self._resume()

    def comment(self, exchange: Exchange, text: bytes) -> None:
        """Begin a stream of events before there is an answer, or go on with it."""
        if exchange is not self._exchange or self._started:
            return
        if exchange.stream is None:
            exchange.stream = EarlyStream()
            self.transport.write(exchange.stream.head(exchange.id))
        self.transport.write(exchange.stream.chunk(text))

    def _answer(self, exchange: Exchange, answer: Answer, outcome: str = "answered") -> None:
        exchange.status = answer.status
        close = not self._keep or self._body is not None
        if exchange.stream is not None:
            data, close = exchange.stream.end_with(answer.body), True
        else:
            data = answer.render(close=close, request_id=exchange.id, without_body=self.is_head_request)
        exchange.sent = len(answer.body)
        self.transport.write(data)
        self._end(outcome, answer.status)
        self._next(close)

    def _fail(self, answer: Answer, outcome: str) -> None:
        """Refuse what cannot go on; the connection ends with it."""
        exchange = self._exchange
        self._drop_upstream()
        if self._started:
            self._end(outcome, answer.status)
            self._abort()
            return
        if exchange is not None and exchange.stream is not None:
            self.transport.write(exchange.stream.end_with(answer.body))
        elif not self.transport.is_closing():
            request_id = exchange.id if exchange is not None else b""
            self.transport.write(answer.render(close=True, request_id=request_id))
        self._end(outcome, answer.status)
        self._next(True, lingers=True)

    def give_up(self, exchange: Exchange, answer: Answer) -> None:
        """Answer so and end it at its replica, unless an answer has begun."""
        if exchange is self._exchange and not self._started:
            self._fail(answer, "failed")

    def _again(self, exchange: Exchange, why: str) -> None:
        if exchange is not self._exchange:
            return
        exchange.tries += 1
        decision = self._door.decider.again(exchange, why)
        if isinstance(decision, Answer):
            self._answer(exchange, decision, "failed")
        else:
            self.act(exchange, decision)

    def _read_ahead(self) -> None:
        if self._exchange is None and self._buffer and not self._closing:
            self._take_head(b"")


def clients(door: Door) -> Callable[[], Client]:
    """What makes a `Client` for each connection that a listener accepts."""
    return lambda: Client(door)

"""One request on its way, and what can be decided about it: pass it on, answer it, look at its body
first, wait."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import TYPE_CHECKING, Final, Protocol

import msgspec

from argosy.gateway.heads import CHUNKED, AnswerHead, RequestHead
from argosy.gateway.pools import Pool
from argosy.gateway.streams import EarlyStream

if TYPE_CHECKING:
    from argosy.gateway.splice import Client

#: Requests up to this size are kept until the first byte of the answer, so that they can be sent elsewhere.
REPLAY_MAX: Final = 64 * 1024
_LONG: Final = 8 * 1024
_IDEMPOTENT: Final = frozenset((b"GET", b"HEAD", b"OPTIONS", b"PUT", b"DELETE", b"TRACE"))
_PHRASES: Final = {
    200: "OK", 202: "Accepted", 204: "No Content", 302: "Found", 400: "Bad Request", 401: "Unauthorized",
    402: "Payment Required",
    403: "Forbidden", 404: "Not Found", 405: "Method Not Allowed", 408: "Request Timeout", 409: "Conflict",
    413: "Content Too Large", 421: "Misdirected Request", 429: "Too Many Requests",
    431: "Request Header Fields Too Large", 500: "Internal Server Error", 502: "Bad Gateway",
    503: "Service Unavailable", 504: "Gateway Timeout", 505: "HTTP Version Not Supported",
}  # fmt: skip


class Forward:
    """Pass the request on to a replica."""

    __slots__ = ("answer_timeout_s", "extra", "fields", "pool", "repeat", "start", "target")

    def __init__(
        self,
        pool: Pool,
        *,
        target: bytes = b"",
        fields: bytes | None = None,
        extra: bytes = b"",
        repeat: bool = False,
        answer_timeout_s: int = 600,
        start: bytes = b"",
    ) -> None:
        self.pool = pool
        self.start = start  # the request's line and fields as they are sent, where they are known already
        self.target = target  # empty: as the client said it
        self.fields = fields  # None: as the client said them
        self.extra = extra  # more lines, each with its CRLF
        self.repeat = repeat  # also what is not idempotent may be sent again before the first byte
        self.answer_timeout_s = answer_timeout_s


class Answer(msgspec.Struct, frozen=True, kw_only=True):
    """Answer the request here."""

    status: int
    body: bytes = b""
    fields: bytes = b""  # more lines, each with its CRLF
    content_type: bytes = b"application/json"

    def render(self, *, close: bool, request_id: bytes, without_body: bool = False) -> bytes:
        phrase = _PHRASES.get(self.status, "Status").encode()
        head = b"HTTP/1.1 %d %b\r\ncontent-length: %d\r\n" % (self.status, phrase, len(self.body))
        if self.body:
            head += b"content-type: " + self.content_type + b"\r\n"
        if close:
            head += b"connection: close\r\n"
        if request_id:
            head += b"x-argosy-request-id: " + request_id + b"\r\n"
        return head + self.fields + b"\r\n" + (b"" if without_body else self.body)


def refusal(status: int, code: str, message: str, *, fields: bytes = b"") -> Answer:
    """An error as JSON, in the form that clients of language models also read."""
    body = msgspec.json.encode({"error": {"code": code, "type": code, "message": message}})
    return Answer(status=status, body=body + b"\n", fields=fields)


class NeedBody(msgspec.Struct, frozen=True, kw_only=True):
    """Read the body first, up to `limit` bytes, then ask again: it is in `Exchange.body`. What is longer is
    refused."""

    limit: int


Decision = Forward | Answer | NeedBody | None


class Decider(Protocol):
    """What becomes of requests. Its calls never wait."""

    def decide(self, exchange: Exchange) -> Decision:
        """For a new request, or again with its body. None: `exchange.proceed` will be called later."""

    def again(self, exchange: Exchange, why: str) -> Forward | Answer | None:
        """The connection to `exchange.forward.pool` failed before the first byte: another replica, or an
        answer."""

    def first_byte(self, exchange: Exchange) -> None:
        """The first byte of the answer's body, or its end, has come."""

    def ended(self, exchange: Exchange) -> None:
        """Once for each request, also for one that broke off before `decide`: `outcome` tells how."""


class Exchange:
    """One request from its head to the end of its answer."""

    __slots__ = (
        "answer_fields", "asked", "begun_s", "body", "client", "first_s", "forward", "head", "id", "ip",
        "is_local", "limit", "memo", "outcome", "passed", "pieces", "received", "secure", "sending_s", "sent",
        "status", "stream", "tap", "tries", "weighed",
    )  # fmt: skip

    def __init__(self, client: Client, head: RequestHead, ip: bytes, request_id: bytes, now_s: float) -> None:
        self.client: Client | None = client
        self.head = head
        self.ip = ip
        self.id = request_id
        self.secure = False
        self.is_local = False  # a program on this machine asks, for itself
        self.passed = False  # by another gateway
        self.begun_s = now_s
        self.first_s = 0.0
        self.body: bytes | None = None  # after NeedBody
        self.forward: Forward | None = None
        self.tries = 0  # connections that failed
        self.pieces: list[bytes] | None = []  # of the body, as it came; None: too much to be kept
        self.limit = 0  # of the body in bytes, also when it comes in chunks; 0: none
        self.sending_s = 0  # the client has sent its body for so long
        self.received = 0  # bytes of the request's body
        self.sent = 0  # bytes of the answer's body
        self.status = 0
        #: "" while it goes on; done, answered, gone (the client left), cut (the replica did), timeout, failed
        self.outcome = ""
        self.stream: EarlyStream | None = None  # status 200 was told before a replica answered
        self.answer_fields = b""  # more lines for the client
        self.tap: Callable[[bytes], None] | None = None  # sees the answer's body pass
        self.asked: object = None  # what the body asks of a language model, where somebody has read it
        self.memo: object = None  # the decider's own
        self.weighed: object = None  # its balancer's own

    @property
    def is_idempotent(self) -> bool:
        return self.head.method in _IDEMPOTENT

    @property
    def may_repeat(self) -> bool:
        """It can be sent a second time, and that does no harm."""
        allowed = self.is_idempotent or (self.forward is not None and self.forward.repeat)
        return allowed and self.pieces is not None

    def comment(self, text: bytes) -> None:
        """Tell a client that reads server-sent events that something goes on. This commits status 200."""
        if self.client is not None and not self.outcome:
            self.client.comment(self, text)

    def leave_socket(self) -> None:
        """Close its WebSocket: going away."""
        if self.client is not None:
            self.client.go_away()

    @property
    def is_sending(self) -> bool:
        """The client has not sent the whole body yet."""
        return self.client is not None and self.client.is_sending

    def keep(self, piece: bytes, limit: int, *, sent: bool) -> bool:
        """Keep a piece of the body that may have to be sent (again). False: it is too much for now."""
        self.received += len(piece)
        if self.pieces is not None:
            self.pieces.append(piece)
            if sent and self.received > limit:
                self.pieces = None
        return sent or self.received <= limit

    def content(self) -> bytes:
        """The whole body, without the framing of its chunks."""
        raw = b"".join(self.pieces or ())
        return unchunked(raw) if self.head.length == CHUNKED else raw

    def render_request(self, forward: Forward) -> bytes:
        """The request as the replica sees it, with what has come of the body."""
        start = forward.start or self.render_start(forward)
        request = b"%bx-forwarded-for: %b\r\nx-forwarded-proto: %b\r\nx-argosy-request-id: %b\r\n\r\n" % (
            start,
            self.ip,
            b"https" if self.secure else b"http",
            self.id,
        )
        if self.pieces:
            return request + (self.pieces[0] if len(self.pieces) == 1 else b"".join(self.pieces))
        return request

    def send(self, forward: Forward, transport: asyncio.WriteTransport) -> None:
        """Write the request to a replica; what is long is not copied for that."""
        pieces = self.pieces
        if pieces and len(pieces[0]) >= _LONG:
            self.pieces = None
            head = self.render_request(forward)
            self.pieces = pieces
            transport.writelines((head, *pieces))  # in one call of the system
        else:
            transport.write(self.render_request(forward))

    def render_start(self, forward: Forward) -> bytes:
        """The request's line and its fields, but for those that tell its client and its id."""
        head = self.head
        fields = head.fields if forward.fields is None else forward.fields
        if self.body is not None and head.expects:
            lines = fields.split(b"\r\n")[:-1]
            fields = b"".join(line + b"\r\n" for line in lines if not line.lower().startswith(b"expect:"))
        start = b"%b %b HTTP/1.%d\r\n%b%b" % (
            head.method,
            forward.target or head.path + head.query,
            head.minor,
            fields,
            forward.extra,
        )
        if head.upgrade:
            start += b"connection: upgrade\r\nupgrade: " + head.upgrade + b"\r\n"
        return start

    def render_answer(self, head: AnswerHead, *, closing: bool) -> bytes:
        """The head of the answer as the client sees it."""
        return b"%b%b%b%bx-argosy-request-id: %b\r\n\r\n" % (
            head.line,
            head.fields,
            self.answer_fields,
            b"connection: close\r\n" if closing else b"",
            self.id,
        )

    def give_up(self, answer: Answer) -> None:
        """Answer so and end it at its replica, unless an answer has begun or it is over."""
        if self.client is not None and not self.outcome:
            self.client.give_up(self, answer)

    def proceed(self, decision: Forward | Answer) -> None:
        """Go on with a request that was left waiting. Nothing happens when its client has left."""
        if self.client is not None and not self.outcome:
            self.client.act(self, decision)


def unchunked(raw: bytes) -> bytes:
    """The content of a complete chunked body."""
    pieces: list[bytes] = []
    at = 0
    while True:
        end = raw.index(b"\r\n", at)
        size = int(raw[at:end], 16)
        if not size:
            return b"".join(pieces)
        pieces.append(raw[end + 2 : end + 2 + size])
        at = end + size + 4

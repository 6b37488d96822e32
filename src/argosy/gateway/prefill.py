"""Prefill and decode apart: one service reads prompts, another one makes the answers.

With vLLM's wire one after the other: a request to a service that names another one for its prompts goes there
first, for one token and with `kv_transfer_params`; what comes back in that field says where the blocks of the
prompt are, and goes with the request to a replica that answers. Where the first part fails, the request goes
on without it: its replica reads the prompt itself, so nothing is lost but time.

With SGLang's wire (`bootstrap`) both get the request at the same time. There nobody answers without a reader:
where none takes the request, or it fails before the first byte of the answer, the client is told so.
"""

from __future__ import annotations

import asyncio
import copy
from collections.abc import Callable, Coroutine, Iterator
from contextlib import contextmanager
from functools import partial
from typing import Final

import msgspec

from argosy.gateway.bootstrap import Rooms
from argosy.gateway.exchange import Answer, Exchange, Forward, refusal, unchunked
from argosy.gateway.heads import CHUNKED, AnswerHead
from argosy.gateway.pools import Alone, Upstream
from argosy.gateway.replicas import Replica
from argosy.gateway.service import Service

_FIELD: Final = "kv_transfer_params"
#: What vLLM's connectors are told: the blocks stay until somebody has fetched them.
_ASKED: Final = msgspec.json.encode(
    {
        "do_remote_decode": True,
        "do_remote_prefill": False,
        "remote_engine_id": None,
        "remote_block_ids": None,
        "remote_host": None,
        "remote_port": None,
    }
)
_PATHS: Final = (b"/chat/completions", b"/completions")
_OWN_PATH: Final = b"/generate"  # SGLang's own
_READERS: Final = 3  # so many are tried
_ANSWER_MAX: Final = 16 << 20
_Body = dict[str, msgspec.Raw]
_decoder: Final = msgspec.json.Decoder(_Body)


class _Told(msgspec.Struct, frozen=True):
    """What is read of the answer to the first part."""

    kv_transfer_params: msgspec.Raw = msgspec.Raw(b"")


_told: Final = msgspec.json.Decoder(_Told)


class _Reply:
    """What a reader of prompts answered."""

    def __init__(self) -> None:
        self.status = 502  # until it has answered
        self.told = b""


def is_split(exchange: Exchange, service: Service) -> bool:
    """Whether this request's prompt is read elsewhere first."""
    head, route = exchange.head, service.route
    if not (route.prefill or route.bootstrap_port) or head.method != b"POST":
        return False
    return head.path.endswith(_PATHS) or (route.bootstrap_port > 0 and head.path.endswith(_OWN_PATH))


def ask_for_prompt(body: bytes) -> bytes:
    """The request of the first part. Raises ValueError for a body that is no object.

    >>> asked = ask_for_prompt(b'{"model":"m","stream":true,"stream_options":{},"max_tokens":9,"prompt":"x"}')
    >>> asked.startswith(b'{"model":"m","prompt":"x","stream":false,"max_tokens":1,"kv_transfer_params":{')
    True
    """
    fields = _fields_of(body)
    for name in ("stream", "stream_options", "max_completion_tokens", "max_tokens", "min_tokens"):
        fields.pop(name, None)
    changed = {**fields, "stream": msgspec.Raw(b"false"), "max_tokens": msgspec.Raw(b"1")}
    if b'"max_completion_tokens"' in body:
        changed["max_completion_tokens"] = msgspec.Raw(b"1")
    return msgspec.json.encode({**changed, _FIELD: msgspec.Raw(_ASKED)})


def with_blocks(body: bytes, told: bytes) -> bytes:
    """The request of the second part; as it was when the first one told nothing.

    >>> with_blocks(b'{"model":"m"}', b'{"id":"x","kv_transfer_params":{"remote_host":"a"}}')
    b'{"model":"m","kv_transfer_params":{"remote_host":"a"}}'
    >>> with_blocks(b'{"model":"m"}', b'no JSON')
    b'{"model":"m"}'
    """
    try:
        found = bytes(_told.decode(told).kv_transfer_params)
        if not found or found == b"null":
            return body
        return msgspec.json.encode({**_fields_of(body), _FIELD: msgspec.Raw(found)})
    except (msgspec.DecodeError, UnicodeDecodeError, ValueError):
        return body


def _fields_of(body: bytes) -> _Body:
    try:
        return _decoder.decode(body)
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise ValueError(str(error)) from None


class Prefill:
    """Asks the first part of requests. `failed` is told of replicas that did not answer."""

    def __init__(
        self,
        loop: asyncio.AbstractEventLoop,
        now_s: Callable[[], float],
        now_ms: Callable[[], int],
        failed: Callable[[Service, Replica], None],
    ) -> None:
        self._loop, self._now_s, self._now_ms, self._failed = loop, now_s, now_ms, failed
        self._tasks: dict[Exchange, asyncio.Task[None]] = {}

    def begin(
        self, exchange: Exchange, asked_of: Service, readers: Service | None, then: Callable[[bytes], None]
    ) -> bool | Answer:
        """Send the first part of a request to `asked_of` to a replica of `readers`; `then` is called with the
        body of the second one, unless the client leaves. False: the request goes on without it."""
        together = asked_of.route.bootstrap_port > 0
        if readers is None:
            return _no_readers(asked_of) if together else False
        try:
            parts = self._begin_together if together else self._begin_first
            part = parts(exchange, asked_of, readers, then)
        except ValueError:
            return False
        if part is None:
            return False
        task = self._tasks[exchange] = self._loop.create_task(part)
        task.add_done_callback(lambda _: self._tasks.pop(exchange, None))
        return True

    def _begin_first(
        self, exchange: Exchange, asked_of: Service, readers: Service, then: Callable[[bytes], None]
    ) -> Coroutine[None, None, None] | None:
        """None: nobody there takes it now. Raises ValueError for what is no request to a model."""
        asked = ask_for_prompt(exchange.body or b"")
        replica = readers.choose(exchange)
        if replica is None:
            return None
        readers.sent(exchange, replica)
        readers.in_flight += 1
        return self._carry(exchange, readers, replica, _request(exchange, asked_of, replica, asked), then)

    def _begin_together(
        self, exchange: Exchange, asked_of: Service, readers: Service, then: Callable[[bytes], None]
    ) -> Coroutine[None, None, None]:
        """`then` gets the body that the reader gets. Raises ValueError for what is no request to a model."""
        rooms = Rooms(exchange.body or b"", exchange)
        return self._meet(exchange, asked_of, readers, rooms, then)

    def ended(self, exchange: Exchange) -> None:
        """The request is over: its first part is of no use, unless it goes to its end by itself."""
        task = self._tasks.get(exchange)
        if task is not None and exchange.outcome != "done":
            task.cancel()

    async def _meet(
        self,
        exchange: Exchange,
        asked_of: Service,
        readers: Service,
        rooms: Rooms,
        then: Callable[[bytes], None],
    ) -> None:
        part = copy.copy(exchange)  # two balancers have it in their books at the same time
        part.client = part.weighed = None
        tried: list[Replica] = []
        while len(tried) < _READERS and (replica := readers.choose(part, tried)) is not None:
            tried.append(replica)
            body = rooms.at(replica.pool.address, asked_of.route.bootstrap_port)
            data = _request(exchange, asked_of, replica, body)
            if await self._read_beside(exchange, part, readers, replica, data, partial(then, body)):
                return
        text = f"no replica of `{readers.route.name}` reads prompts now"
        exchange.give_up(refusal(503, "no-replica", text, fields=b"retry-after: 1\r\n"))

    async def _read_beside(
        self,
        exchange: Exchange,
        part: Exchange,
        readers: Service,
        replica: Replica,
        data: bytes,
        then: Callable[[], None],
    ) -> bool:
        """Whether the replica got the request, and `then` was called; if it fails later, clients are told."""
        has_begun = False
        readers.sent(part, replica)
        readers.in_flight += 1
        with self._counted(part, readers, replica) as answer:
            # Not one that may have died: nobody asks twice for a room.
            upstream = await replica.pool.connect()
            has_begun = True
            async with asyncio.timeout(readers.route.answer_timeout_s):
                answer.status, answer.told = await self._answer_of(upstream, data, then)
        if has_begun and answer.status >= 400:
            exchange.give_up(_failure(readers, answer.status, answer.told))
        return has_begun

    async def _carry(
        self,
        exchange: Exchange,
        readers: Service,
        replica: Replica,
        data: bytes,
        then: Callable[[bytes], None],
    ) -> None:
        with self._counted(exchange, readers, replica) as answer:
            async with asyncio.timeout(readers.route.answer_timeout_s):
                answer.status, answer.told = await self._ask(replica, data)
        good = 200 <= answer.status < 300
        body = exchange.body or b""
        then(with_blocks(body, answer.told) if good else body)

    @contextmanager
    def _counted(self, exchange: Exchange, readers: Service, replica: Replica) -> Iterator[_Reply]:
        """What the replica does with a request, however it ends. A replica that fails leaves 502 behind."""
        begun_s, answer = self._now_s(), _Reply()
        try:
            yield answer
            replica.answered()
        except asyncio.CancelledError:
            answer.status = 499
            raise
        except (OSError, TimeoutError):
            self._failed(readers, replica)
        finally:
            self._settle(exchange, readers, replica, answer.status, self._now_s() - begun_s)

    def _settle(
        self, exchange: Exchange, readers: Service, replica: Replica, status: int, took_s: float
    ) -> None:
        """As of a request that came by itself: what scales the readers looks at that."""
        if 200 <= status < 300:
            exchange.status = status
            readers.balancer.first_byte(exchange, replica)
            exchange.status = 0
        readers.counters.requests += 1
        readers.counters.last_use_ms = replica.counters.last_use_ms = self._now_ms()
        counters, failed = replica.counters, status >= 500
        counters.requests += 1
        counters.errors += failed
        counters.latency[replica.revision.count(failed, took_s, took_s)] += 1
        counters.latency_ms += int(took_s * 1000)
        readers.in_flight -= 1
        readers.unsent(exchange, replica)

    async def _ask(self, replica: Replica, data: bytes) -> tuple[int, bytes]:
        """Status and body. Raises OSError, TimeoutError."""
        return await self._answer_of(replica.pool.take(warm=True) or await replica.pool.connect(), data)

    async def _answer_of(
        self, upstream: Upstream, data: bytes, then: Callable[[], None] | None = None
    ) -> tuple[int, bytes]:
        answer = _Whole(self._loop)
        upstream.attach(answer)
        upstream.transport.write(data)
        if then is not None:
            then()
        try:
            return await answer.ended
        except BaseException:
            upstream.abort()
            raise


def _no_readers(asked_of: Service) -> Answer:
    text = f"no service reads the prompts of `{asked_of.route.name}` yet"
    return refusal(503, "no-replica", text, fields=b"retry-after: 1\r\n")


def _failure(readers: Service, status: int, told: bytes) -> Answer:
    """For the client, when the prompt was not read: what is wrong with the request in the reader's words."""
    if status < 500:
        return Answer(status=status, body=told)
    return refusal(502, "replica-failed", f"a replica of `{readers.route.name}` failed to read the prompt")


def _request(exchange: Exchange, asked_of: Service, replica: Replica, asked: bytes) -> bytes:
    fields = framed(exchange, asked_of, len(asked))
    start = exchange.render_start(Forward(replica.pool, target=_target(exchange), fields=fields))
    return b"%bx-argosy-request-id: %b\r\n\r\n%b" % (start, exchange.id, asked)


def _target(exchange: Exchange) -> bytes:
    """The path as runtimes have it, wherever the service stands."""
    path = exchange.head.path
    at = path.rfind(b"/v1/")
    if at < 0 and path.endswith(_OWN_PATH):
        return _OWN_PATH + exchange.head.query
    return (path[at:] if at >= 0 else path) + exchange.head.query


def framed(exchange: Exchange, service: Service, length: int) -> bytes:
    """The fields of a request whose body has another length."""
    fields = exchange.head.without(b"content-length", b"transfer-encoding", b"expect")
    if service.route.keys and not service.route.pass_authorization:
        fields = b"".join(
            line + b"\r\n"
            for line in fields.split(b"\r\n")[:-1]
            if not line.lower().startswith((b"authorization:", b"x-api-key:"))
        )
    return fields + b"content-length: %d\r\n" % length


class _Whole(Alone[tuple[int, bytes]]):
    """Reads one answer whole."""

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        super().__init__(loop)
        self._status = 0
        self._pieces: list[bytes] = []
        self._length = 0
        self._is_chunked = False

    def takes(self, head: AnswerHead | None, piece: bytes, done: bool) -> None:
        if head is not None:
            self._status, self._is_chunked = head.status, head.length == CHUNKED
        self._pieces.append(piece)
        self._length += len(piece)
        if self.ended.done():
            return
        if self._length > _ANSWER_MAX:
            self.ended.set_exception(ConnectionAbortedError("the answer is too long"))
        elif done:
            whole = b"".join(self._pieces)
            self.ended.set_result((self._status, unchunked(whole) if self._is_chunked else whole))

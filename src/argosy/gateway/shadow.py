"""Copies of requests for a revision that is tried out: sent beside the request, answered to nobody, never
retried.

Copies have connections of their own and a limit of their own; what is over it is dropped and counted. Their
failures are in no counter but those for shadows.
"""

from __future__ import annotations

import asyncio
from typing import Final

from argosy.gateway.exchange import Exchange, Forward
from argosy.gateway.heads import AnswerHead
from argosy.gateway.pools import Alone, Pool, Upstream
from argosy.gateway.replicas import Revision
from argosy.model.routes import WHOLE, Shadow

_SAFE: Final = (b"GET", b"HEAD", b"OPTIONS")
_COPY_S: Final = 60.0


class Copier:
    """The copies of one service."""

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self._loop = loop
        self._pools: dict[str, Pool] = {}
        self._in_flight = 0
        self._owed = 0
        self._turn = 0
        self._tasks: set[asyncio.Task[None]] = set()

    def wants(self, exchange: Exchange, rule: Shadow) -> bool:
        """Whether a copy of this request is due. Call it once for each request."""
        if exchange.head.upgrade or not (rule.shadow_safe or exchange.head.method in _SAFE):
            return False
        if not 0 <= exchange.head.length <= rule.max_body_bytes:
            return False
        self._owed += rule.share
        if self._owed < WHOLE:
            return False
        self._owed -= WHOLE
        return True

    def send(self, exchange: Exchange, rule: Shadow, revision: Revision, forward: Forward) -> None:
        """Send a copy; its body is whole by now."""
        ready, counters = revision.ready, revision.counters
        if not ready or self._in_flight >= rule.max_concurrency or exchange.pieces is None:
            counters.shadow_dropped += 1
            return
        self._turn += 1
        replica = ready[self._turn % len(ready)]
        pool = self._pools.get(replica.route.address)
        if pool is None:
            pool = self._pools[replica.route.address] = Pool(replica.pool.address, self._loop.time)
        self._in_flight += 1
        counters.shadowed += 1
        data = _request(exchange, forward)
        task = self._loop.create_task(self._carry(pool, data, exchange.head.method == b"HEAD", revision))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _carry(self, pool: Pool, data: bytes, is_head: bool, revision: Revision) -> None:
        copy = _Copy(self._loop, is_head)
        try:
            async with asyncio.timeout(_COPY_S):
                upstream = pool.take(warm=True) or await pool.connect()
                copy.upstream = upstream
                upstream.attach(copy)
                upstream.transport.write(data)
                if await copy.ended >= 500:
                    revision.counters.shadow_errors += 1
        except (OSError, TimeoutError):
            revision.counters.shadow_errors += 1
            if copy.upstream is not None:
                copy.upstream.abort()
        finally:
            self._in_flight -= 1

    def sweep(self) -> None:
        for pool in self._pools.values():
            pool.sweep()


def _request(exchange: Exchange, forward: Forward) -> bytes:
    start = forward.start or exchange.render_start(forward)
    return b"%bx-argosy-shadow: 1\r\nx-argosy-request-id: %b\r\n\r\n%b" % (
        start,
        exchange.id,
        b"".join(exchange.pieces or ()),
    )


class _Copy(Alone[int]):
    """Reads an answer and forgets it."""

    def __init__(self, loop: asyncio.AbstractEventLoop, is_head_request: bool) -> None:
        self.is_head_request = is_head_request
        super().__init__(loop)
        self.upstream: Upstream | None = None
        self._status = 0

    def takes(self, head: AnswerHead | None, piece: bytes, done: bool) -> None:
        if head is not None:
            self._status = head.status
        if done and not self.ended.done():
            self.ended.set_result(self._status)

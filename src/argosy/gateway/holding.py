"""Requests that wait for a replica: at zero while one starts, or while all have as many requests as they
take.

The queue is bounded and each request has a deadline. Requests are released in their order, each only when a
replica takes it; those whose client has left are dropped before they are sent.
"""

from __future__ import annotations

import collections
import re
from collections.abc import Callable
from typing import Final

from argosy.gateway.exchange import Answer, Exchange, Forward, refusal
from argosy.model.routes import Holding
from argosy.model.units import many_do

_STREAMS: Final = re.compile(rb'"stream"\s*:\s*true')
_COMMENT: Final = b": starting\n\n"


class Held:
    """One request that waits."""

    __slots__ = ("exchange", "since_s", "told_s")

    def __init__(self, exchange: Exchange, now_s: float) -> None:
        self.exchange = exchange
        self.since_s = now_s
        self.told_s = now_s  # when its client last got a comment


class Queue:
    """The requests of one service that wait."""

    __slots__ = ("_held", "_now_s", "is_empty", "refused", "total")

    def __init__(self, now_s: Callable[[], float]) -> None:
        self._held: collections.deque[Held] = collections.deque()
        self._now_s = now_s
        self.is_empty = True
        self.total = 0
        self.refused = 0

    def __len__(self) -> int:
        return len(self._held)

    @property
    def oldest_s(self) -> float:
        """How long the first one has waited."""
        return self._now_s() - self._held[0].since_s if self._held else 0.0

    def hold(self, exchange: Exchange, rule: Holding, name: str) -> Answer | None:
        """Let a request wait. An answer: there are too many already."""
        if len(self._held) >= rule.max_held:
            self.refused += 1
            text = f"{many_do(rule.max_held, 'request', 'wait')} for a replica of `{name}` already"
            return refusal(429, "too-many-held", text, fields=self.retry_after(rule))
        self.total += 1
        self._held.append(Held(exchange, self._now_s()))
        self.is_empty = False
        return None

    def retry_after(self, rule: Holding) -> bytes:
        """When a replica can be expected."""
        return b"retry-after: %d\r\n" % max(1, round(rule.start_s - self.oldest_s))

    def drop(self, exchange: Exchange) -> bool:
        """Its client has left. True: it waited here."""
        for held in self._held:
            if held.exchange is exchange:
                self._held.remove(held)
                self.is_empty = not self._held
                return True
        return False

    def release(self, send: Callable[[Exchange], Forward | None]) -> None:
        """Send what can be sent, in order, until a request finds no replica."""
        while self._held:
            exchange = self._held[0].exchange
            if exchange.client is None:
                self._held.popleft()
                continue
            forward = send(exchange)
            if forward is None:
                return
            self._held.popleft()
            self.is_empty = not self._held
            exchange.proceed(forward)
        self.is_empty = True

    def sweep(self, rule: Holding, name: str) -> None:
        """Refuse what has waited for too long, and tell streaming clients that something goes on."""
        now_s = self._now_s()
        late = [held for held in self._held if now_s - held.since_s >= rule.timeout_s]
        for held in late:
            self._held.remove(held)
            self.is_empty = not self._held
            self.refused += 1
            text = f"no replica of `{name}` was ready within {rule.timeout_s} s"
            held.exchange.proceed(refusal(503, "no-replica", text, fields=self.retry_after(rule)))
        if rule.comments_s:
            for held in self._held:
                if now_s - held.told_s >= rule.comments_s and wants_stream(held.exchange):
                    held.told_s = now_s
                    held.exchange.comment(_COMMENT)


def wants_stream(exchange: Exchange) -> bool:
    """The client reads server-sent events."""
    head = exchange.head
    if not head.minor or head.method == b"HEAD":
        return False
    if b"text/event-stream" in (head.get(b"accept") or b""):
        return True
    body = exchange.body if exchange.body is not None else b"".join(exchange.pieces or ())
    return _STREAMS.search(body) is not None

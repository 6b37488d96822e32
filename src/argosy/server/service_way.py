"""Services at the server's own port: `https://HOST/s/NAME/…`, and language models under `/v1/…`.

A connection whose next request is for a service goes to the gateway of this machine, request by request; the
first one that is not comes back to the door. A request has the rights of its service there, as if it came
from another machine: a key, or the service is public. It shares an origin with the console, so nothing of
the console reaches the service (cookies, tokens), and no page of a service can act as one of the console:
browsers are told to keep each of its pages in a box of its own.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from pathlib import Path
from typing import Final

from argosy.gateway.addresses import Address
from argosy.gateway.connection import Door, Doors
from argosy.gateway.exchange import Answer, Exchange, Forward, refusal
from argosy.gateway.heads import AnswerHead, RequestHead
from argosy.gateway.pools import Pool
from argosy.gateway.splice import Client
from argosy.identity.credentials import KINDS
from argosy.server.apps import rules
from argosy.server.service_paths import is_for_service

_TRIES: Final = 3
#: A page of a service has no origin: no script of it reads or asks anything as the console.
_BOX: Final = (
    b"content-security-policy: "
    b"sandbox allow-downloads allow-forms allow-modals allow-popups allow-scripts\r\n"
    b"x-content-type-options: nosniff\r\n"
)
#: Fields that would speak for the console's host as a whole.
_FOR_ALL: Final = frozenset(
    (b"clear-site-data", b"strict-transport-security", b"service-worker-allowed", b"alt-svc")
)
_TOKENS: Final = tuple(kind.encode() for kind in KINDS)


class ServiceClient(Client):
    """One connection, as long as its requests are for services."""

    __slots__ = ("_back",)

    def __init__(self, door: Door, back: Callable[[], asyncio.Protocol]) -> None:
        super().__init__(door)
        self._back = back

    def _take_head(self, data: bytes) -> None:
        if self._exchange is None and not self._closing:
            early = self._buffer + data
            mine = is_for_service(early.removeprefix(b"\r\n"))
            if mine is False:
                self._go_back(early)
                return
        super()._take_head(data)

    def _go_back(self, early: bytes) -> None:
        """The next request is for the server itself."""
        self._closing = True  # nothing of it is written any more
        self._buffer = b""
        self._door.left(self)
        door = self._back()
        self.transport.set_protocol(door)
        door.connection_made(self.transport)
        door.data_received(early)

    def _begin(self, exchange: Exchange, head: AnswerHead) -> bytes:
        return super()._begin(exchange, boxed(head))


class ServiceWay:
    """The decider of all such connections. `folder`: of the gateways' sockets."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._pools: dict[str, Pool] = {}
        self._doors = Doors(self, b"way", self._sweep_pools)

    def client(self, back: Callable[[], asyncio.Protocol], *, secure: bool) -> ServiceClient:
        """A protocol for one more connection; `back` makes the one that takes what is not for services."""
        return ServiceClient(self._doors.door(secure=secure), back)

    async def _sweep_pools(self) -> None:
        for pool in self._pools.values():
            pool.sweep()

    def close(self) -> None:
        self._doors.close()
        for pool in self._pools.values():
            pool.retire()

    # -- decisions ----------------------------------------------------------------------------------

    def decide(self, exchange: Exchange) -> Forward | Answer:
        sockets = self._sockets()
        if not sockets:
            return refusal(503, "no-gateway", "no gateway is up on the server's machine: no service is there")
        place = sockets[exchange.tries % len(sockets)]
        pool = self._pools.get(place)
        if pool is None:
            pool = self._pools[place] = Pool(Address(path=place), asyncio.get_running_loop().time)
        # The gateway gives up who waits too long; nobody else knows how long that is.
        return Forward(pool, fields=passed_on(exchange.head), answer_timeout_s=0)

    def _sockets(self) -> list[str]:
        """Of the gateways that may be up, the server's own first."""
        found = [str(path) for path in self._folder.glob("*.outside")]
        return sorted(found, key=lambda path: (not path.endswith("/control.outside"), path))

    def again(self, exchange: Exchange, why: str) -> Forward | Answer:
        unsent = why in ("refused", "unreachable") and exchange.pieces is not None
        if exchange.tries <= _TRIES and (unsent or why == "stale" or exchange.may_repeat):
            return self.decide(exchange)
        return refusal(502, "gateway-failed", f"the gateway of the server's machine failed: {why}")

    def first_byte(self, exchange: Exchange) -> None:
        """Nothing is counted here."""

    def ended(self, exchange: Exchange) -> None:
        """Nothing is kept."""


def passed_on(head: RequestHead) -> bytes:
    """The fields that a service may see: nothing that lets in to the server. Other cookies stay byte for
    byte."""
    kept = []
    for line in head.fields.split(b"\r\n")[:-1]:
        name, _, value = line.partition(b":")
        plain = name.lower().replace(b"_", b"-")
        if plain == b"cookie":
            line = name + b":" + rules.others_cookies(value)
            if line.endswith(b":"):
                continue
        elif plain in (b"authorization", b"x-api-key") and any(kind in value for kind in _TOKENS):
            continue
        kept.append(line)
    return b"".join(line + b"\r\n" for line in kept)


def boxed(head: AnswerHead) -> AnswerHead:
    """The head of a service's answer as browsers see it at the console's own host."""
    head = rules.answered(head)
    lines = [
        line for line in head.fields.split(b"\r\n")[:-1] if line.partition(b":")[0].lower() not in _FOR_ALL
    ]
    return head.with_fields(b"".join(line + b"\r\n" for line in lines) + _BOX)

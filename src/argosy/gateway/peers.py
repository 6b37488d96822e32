"""Several gateways that serve the same services: whose requests are whose, so that limits and caches of a
user are at one place.

A service whose choice remembers (prompts, users) or whose keys have limits is shared out by key: each user
has one gateway of those that are up (rendezvous hashing: when one goes, only its users move). What comes in
elsewhere is passed on to it, over a socket that only the gateways' owner may open. Whoever gets a request
from another gateway keeps it, so none goes in a circle.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from typing import Final

from argosy.gateway.addresses import parse_address
from argosy.gateway.balance import user_of
from argosy.gateway.exchange import Exchange, Forward
from argosy.gateway.limits import Key, key_row
from argosy.gateway.pools import Pool
from argosy.gateway.service import Service
from argosy.gateway.shared import Board
from argosy.model.routes import PeerRoute, RouteTable

#: Another gateway is up that was heard of so lately; after a failed connection it is not asked for a while.
HEARD_S: Final = 3.0
_FAILED_S: Final = 2.0
#: Policies whose choice remembers who was where.
_REMEMBERING: Final = frozenset(("prefix-aware", "least-work", "least-tokens", "consistent-hash"))


class Peer:
    """Another gateway, as one worker of this one knows it."""

    __slots__ = ("down_until_s", "pool", "route", "row")

    def __init__(self, route: PeerRoute, board: Board, now_s: Callable[[], float]) -> None:
        self.route = route
        self.pool = Pool(parse_address(route.address), now_s)
        self.row = board.row("peer/" + route.id)
        self.down_until_s = 0.0


class Passed:
    """What is remembered of a request that another gateway has got."""

    __slots__ = ("peer", "prefix", "service")

    def __init__(self, peer: Peer, service: Service, prefix: int) -> None:
        self.peer = peer
        self.service = service
        self.prefix = prefix


class Peers:
    """The gateways of one table."""

    def __init__(self, board: Board, now_s: Callable[[], float]) -> None:
        self._board, self._now_s = board, now_s
        self._own = ""
        self._others: list[Peer] = []

    def __bool__(self) -> bool:
        return bool(self._others)

    def take_table(self, table: RouteTable) -> None:
        """Those of a new table; connections to those that stay go on."""
        before = {peer.route: peer for peer in self._others}
        self._own = table.own
        self._others = []
        for route in table.peers:
            if route.id != table.own:
                peer = before.pop(route, None) or Peer(route, self._board, self._now_s)
                peer.row = self._board.row("peer/" + route.id)
                self._others.append(peer)
        for peer in before.values():
            peer.pool.retire()

    def owner_of(self, exchange: Exchange, service: Service) -> Peer | None:
        """The gateway whose request it is; None: this one's."""
        user = _user(exchange, service)
        if not user:
            return None
        best, most = None, _weight(self._own, user)
        for peer in self._others:
            weight = _weight(peer.route.id, user)
            if weight > most and self._is_up(peer):
                best, most = peer, weight
        return best

    def _is_up(self, peer: Peer) -> bool:
        now_s = self._now_s()
        return now_s >= peer.down_until_s and now_s - self._board.level(peer.row, 0) < HEARD_S

    def failed(self, peer: Peer) -> None:
        """A connection to it failed."""
        peer.down_until_s = self._now_s() + _FAILED_S

    def sweep(self) -> None:
        """Call it every second: idle connections are closed."""
        for peer in self._others:
            peer.pool.sweep()


def pass_to(peer: Peer, exchange: Exchange, service: Service) -> Forward:
    """The request as the other gateway gets it: as it came, and whether its client is on this machine."""
    said = b"x-argosy-passed: %b\r\n" % (b"here" if exchange.is_local else b"outside")
    return Forward(peer.pool, extra=said, answer_timeout_s=service.route.answer_timeout_s)


def _user(exchange: Exchange, service: Service) -> bytes:
    """By what the requests of a service are shared out; b"": they are not."""
    remembers = service.route.policy.name in _REMEMBERING
    if service.keys:
        key = service.keys.find(exchange, notes=False)
        if isinstance(key, Key) and (remembers or key.is_limited):
            return key_row(service.route.id, key.route).encode()
        return b""
    return user_of(exchange, service.route.policy.hash_by) if remembers else b""


def _weight(gateway: str, user: bytes) -> bytes:
    return hashlib.blake2b(user, key=gateway.encode()[:64], digest_size=8).digest()


def others_of(table: RouteTable) -> Sequence[PeerRoute]:
    """The gateways of a table but for the one that it is for."""
    return [peer for peer in table.peers if peer.id != table.own]

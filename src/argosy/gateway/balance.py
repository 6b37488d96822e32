"""How one replica is chosen among several.

A `Balancer` sees the request (`Exchange`: head, `ip`, and `body` when it asked for it by `body_limit`) and
the replicas that take one more (never none), and is told what becomes of the request: `sent` in the same
turn as the choice, `first_byte`, `ended` on every way it can end. Add one: a class here or in a file
beside, and a line in `BALANCERS`.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from typing import Final, Protocol

from argosy.gateway import language
from argosy.gateway.exchange import Exchange
from argosy.gateway.replicas import Replica
from argosy.model.routes import HashBy, Policy

_POINTS: Final = 64  # of each replica on the ring


class Balancer(Protocol):
    """Chooses replicas for the requests of one service."""

    body_limit: int  # 0: it chooses without the body; else it sees bodies up to so many bytes
    work_s: float  # seconds of one replica, for all requests together; 0: it does not weigh them

    def choose(self, exchange: Exchange, ready: Sequence[Replica]) -> Replica: ...

    def sent(self, exchange: Exchange, replica: Replica) -> None: ...

    def first_byte(self, exchange: Exchange, replica: Replica) -> None: ...

    def ended(self, exchange: Exchange, replica: Replica) -> None: ...


class _Stateless:
    """What needs no events."""

    body_limit = 0
    work_s = 0.0

    def sent(self, exchange: Exchange, replica: Replica) -> None:
        """Nothing is kept."""

    def first_byte(self, exchange: Exchange, replica: Replica) -> None:
        """Nothing is kept."""

    def ended(self, exchange: Exchange, replica: Replica) -> None:
        """Nothing is kept."""


class RoundRobin(_Stateless):
    """Each in its turn; a replica that starts slowly gets its share of turns."""

    def __init__(self, policy: Policy) -> None:
        self._clock = 0.0

    def choose(self, exchange: Exchange, ready: Sequence[Replica]) -> Replica:
        chosen = min(ready, key=_taken)
        # A newcomer begins where the others are: it does not get all requests until it has caught up.
        self._clock = max(self._clock, chosen.taken)
        chosen.taken = max(chosen.taken, self._clock - 1.0) + 1.0 / chosen.weight
        return chosen


def _taken(replica: Replica) -> float:
    return replica.taken


class LeastOutstanding(_Stateless):
    """The one with the fewest requests in flight; among equals each in its turn."""

    def __init__(self, policy: Policy) -> None:
        self._turn = 0

    def choose(self, exchange: Exchange, ready: Sequence[Replica]) -> Replica:
        count = len(ready)
        self._turn += 1
        best = ready[self._turn % count]
        if count == 1:
            return best
        least = best.load
        for step in range(1, count):
            if least <= 1.0:
                break  # nobody has less than nothing
            replica = ready[(self._turn + step) % count]
            load = replica.load
            if load < least:
                best, least = replica, load
        return best


class PowerOfTwo(_Stateless):
    """The better of two that are drawn: nearly as good as the best, and many gateways do not all choose
    the same."""

    def __init__(self, policy: Policy) -> None:
        self._dice = 0

    def choose(self, exchange: Exchange, ready: Sequence[Replica]) -> Replica:
        count = len(ready)
        if count == 1:
            return ready[0]
        self._dice = (self._dice * 6364136223846793005 + 1442695040888963407) & ((1 << 64) - 1)
        first = (self._dice >> 33) % count
        second = (first + 1 + (self._dice >> 12) % (count - 1)) % count
        one, other = ready[first], ready[second]
        return one if one.load <= other.load else other


class ConsistentHash(_Stateless):
    """The same user goes to the same replica, as long as it has no more than its bound of the load
    (Mirrokni and others, 2016). When one of n replicas comes or goes, about one user in n moves."""

    def __init__(self, policy: Policy) -> None:
        self._by = policy.hash_by
        self._bound = policy.bound_percent / 100
        self._ring: list[tuple[int, Replica]] = []
        self._of: tuple[str, ...] = ()

    def choose(self, exchange: Exchange, ready: Sequence[Replica]) -> Replica:
        if len(ready) == 1:
            return ready[0]
        ring = self._ring_of(ready)
        total = sum(replica.in_flight + replica.elsewhere for replica in ready) + 1
        most = max(1.0, self._bound * total / len(ready))
        place = _hash(user_of(exchange, self._by))
        at = _first_at(ring, place)
        for step in range(len(ring)):
            replica = ring[(at + step) % len(ring)][1]
            if replica.in_flight + replica.elsewhere < most:
                return replica
        return ring[at % len(ring)][1]

    def _ring_of(self, ready: Sequence[Replica]) -> list[tuple[int, Replica]]:
        ids = tuple(replica.id for replica in ready)
        if ids != self._of:
            points = [
                (_hash(f"{replica.id}/{point}".encode()), replica)
                for replica in ready
                for point in range(_POINTS)
            ]
            self._ring, self._of = sorted(points, key=lambda point: point[0]), ids
        return self._ring


def _first_at(ring: list[tuple[int, Replica]], place: int) -> int:
    low, high = 0, len(ring)
    while low < high:
        middle = (low + high) // 2
        if ring[middle][0] < place:
            low = middle + 1
        else:
            high = middle
    return low


def _hash(text: bytes) -> int:
    return int.from_bytes(hashlib.blake2b(text, digest_size=8).digest(), "big")


def user_of(exchange: Exchange, by: HashBy) -> bytes:
    """What tells the user of a request; its address where the request does not tell."""
    found: bytes | None = None
    if by.attribute == "header":
        found = exchange.head.get(by.name.lower().encode())
    elif by.attribute == "cookie":
        found = exchange.head.cookie(by.name.encode())
    elif by.attribute == "key":
        found = exchange.head.get(b"authorization") or exchange.head.get(b"x-api-key")
    return found or exchange.ip


#: By name: what makes a balancer. Unknown names are least-outstanding.
BALANCERS: Final[dict[str, Callable[[Policy], Balancer]]] = {
    "round-robin": RoundRobin,
    "least-outstanding": LeastOutstanding,
    "power-of-two": PowerOfTwo,
    "consistent-hash": ConsistentHash,
}


def balancer_of(policy: Policy, now_s: Callable[[], float]) -> Balancer:
    """The balancer of a policy."""
    if policy.name in language.RULES:
        return language.Language(policy, now_s)
    return BALANCERS.get(policy.name, LeastOutstanding)(policy)

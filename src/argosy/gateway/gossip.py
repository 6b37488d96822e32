"""What gateways tell each other: requests in flight at each replica, what is to be read of them, and what is
left of the limits of keys. It goes over the others' control sockets, also while the server is away.

Each has its turn four times a second, the turns of all evenly spread over the time: it asks all others what
they have, and tells each of them what it has itself and what it heard. So with n gateways nobody's picture is
older than the n-th part of that. A gateway that dies leaves what its keys have used with the others, not
older than one second.
"""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Callable, Iterable
from typing import Final

import msgspec

from argosy.gateway.peers import others_of
from argosy.gateway.shared import Board, Buckets, Spent
from argosy.model.routes import RouteTable

#: The choice of replicas for prompts needs it so often: `benchmarks/routing.py`.
GOSSIP_S: Final = 0.25
_ASK_S: Final = 1.0


class Shared(msgspec.Struct, kw_only=True, omit_defaults=True):
    """What one gateway tells the others, by name of a row of its board. Times are of the machine's clock."""

    in_flight: dict[str, int] = {}
    work: dict[str, float] = {}
    buckets: dict[str, Buckets] = {}
    spent: dict[str, Spent] = {}


def told_by(board: Board) -> Shared:
    """What a gateway tells of itself."""
    return Shared(
        in_flight=board.own_in_flight(),
        work=board.own_work(),
        buckets=board.buckets(),
        spent=board.spendings(),
    )


class Told(msgspec.Struct, kw_only=True):
    """What a gateway says in its turn: of itself, and of the others as it has just heard it."""

    by: str  # its id
    of: dict[str, Shared]


class Gossip:
    """Listens to the other gateways of a table and tells them. `news` is called when something was heard."""

    def __init__(self, board: Board, now_s: Callable[[], float], news: Callable[[], None]) -> None:
        """`now_s`: the machine's clock, by which all gateways have their turns."""
        self._board, self._now_s, self._news = board, now_s, news
        self._own = ""
        self._phase_s = 0.0
        self._peers: dict[str, str] = {}  # control sockets, by id
        self._heard: dict[str, Shared] = {}

    def take_table(self, table: RouteTable) -> None:
        self._own, self._peers = table.own, {peer.id: peer.control for peer in others_of(table)}
        ids = sorted({self._own, *self._peers})
        self._phase_s = GOSSIP_S * ids.index(self._own) / len(ids)

    def until_turn_s(self) -> float:
        """Seconds until this gateway has its turn."""
        return GOSSIP_S - (self._now_s() - self._phase_s) % GOSSIP_S

    async def run(self) -> None:
        """For ever."""
        while True:
            await asyncio.sleep(self.until_turn_s())
            if self._peers or self._heard:
                await self.take_turn()

    async def take_turn(self) -> None:
        """Ask each of the others once; then tell them."""
        peers = dict(self._peers)
        told = await asyncio.gather(*(_ask(control) for control in peers.values()))
        self._heard = {id: shared for id, shared in zip(peers, told, strict=True) if shared is not None}
        now_s = self._now_s()
        for id in self._heard:
            self._board.note_heard("peer/" + id, now_s)
        self._take(self._heard.values())
        own = told_by(self._board)
        await asyncio.gather(*(self._tell(id, peers[id], own) for id in self._heard))

    async def _tell(self, id: str, control: str, own: Shared) -> None:
        others = {each: shared for each, shared in self._heard.items() if each != id}
        told = Told(by=self._own, of={**others, self._own: own})
        await _request(control, b"PUT /shared", msgspec.json.encode(told))

    def hear(self, told: Told) -> None:
        """Another gateway has its turn."""
        known = {id: shared for id, shared in told.of.items() if id in self._peers}
        if told.by in known:
            self._board.note_heard("peer/" + told.by, self._now_s())
        self._heard.update(known)
        self._take(known.values())

    def _take(self, new: Iterable[Shared]) -> None:
        for shared in new:
            self._board.adopt_buckets(shared.buckets)
            self._board.adopt_spendings(shared.spent)
        sums: Counter[str] = Counter()
        work: dict[str, float] = {}
        for shared in self._heard.values():
            sums.update(shared.in_flight)
            for name, units in shared.work.items():
                work[name] = work.get(name, 0.0) + units
        self._board.note_peers(sums, work)
        self._news()


async def _ask(control: str) -> Shared | None:
    """What it tells; None: it does not answer."""
    try:
        body = await _request(control, b"GET /shared")
        return msgspec.json.decode(body, type=Shared) if body is not None else None
    except msgspec.DecodeError:
        return None


async def _request(control: str, line: bytes, body: bytes = b"") -> bytes | None:
    """The body of the answer; None: there was none, or another one than 200."""
    try:
        async with asyncio.timeout(_ASK_S):
            reader, writer = await asyncio.open_unix_connection(control)
            try:
                fields = b"Host: gateway\r\nConnection: close\r\nContent-Length: %d" % len(body)
                writer.write(b"%b HTTP/1.1\r\n%b\r\n\r\n%b" % (line, fields, body))
                answer = await reader.read()
            finally:
                writer.close()
    except (OSError, TimeoutError):
        return None
    head, _, text = answer.partition(b"\r\n\r\n")
    return text if b" 200 " in head[:16] else None

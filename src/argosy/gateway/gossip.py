"""What gateways tell each other four times a second: requests in flight at each replica, what is to be
read of them, and what is left of the limits of keys. It comes from the other's control socket, also while the
server is away.

So a gateway that dies leaves what its keys have used with the others, not older than one second.
"""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Callable
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


class Gossip:
    """Listens to the other gateways of a table. `news` is called when something was heard."""

    def __init__(self, board: Board, now_s: Callable[[], float], news: Callable[[], None]) -> None:
        self._board, self._now_s, self._news = board, now_s, news
        self._peers: dict[str, str] = {}  # control sockets, by id
        self._heard: dict[str, Shared] = {}

    def take_table(self, table: RouteTable) -> None:
        self._peers = {peer.id: peer.control for peer in others_of(table)}

    async def run(self) -> None:
        """For ever."""
        while True:
            await asyncio.sleep(GOSSIP_S)
            if self._peers or self._heard:
                await self.listen()

    async def listen(self) -> None:
        """Ask each of the others once."""
        peers = dict(self._peers)
        told = await asyncio.gather(*(_ask(control) for control in peers.values()))
        self._heard = {id: shared for id, shared in zip(peers, told, strict=True) if shared is not None}
        for id, shared in self._heard.items():
            self._board.note_heard("peer/" + id, self._now_s())
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
        async with asyncio.timeout(_ASK_S):
            reader, writer = await asyncio.open_unix_connection(control)
            try:
                writer.write(b"GET /shared HTTP/1.1\r\nHost: gateway\r\nConnection: close\r\n\r\n")
                answer = await reader.read()
            finally:
                writer.close()
        head, _, body = answer.partition(b"\r\n\r\n")
        return msgspec.json.decode(body, type=Shared) if b" 200 " in head[:16] else None
    except (OSError, TimeoutError, msgspec.DecodeError):
        return None

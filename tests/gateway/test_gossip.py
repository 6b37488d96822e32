"""Gateways tell each other what they have, each in its turn, over real control sockets and by our clock."""

from __future__ import annotations

import asyncio
import contextlib
import itertools
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from gateway_house import Clock

from argosy.gateway.connection import Door
from argosy.gateway.control import Control
from argosy.gateway.gossip import GOSSIP_S, Gossip, Told, told_by
from argosy.gateway.routing import Router
from argosy.gateway.run import Alone
from argosy.gateway.shared import Board
from argosy.gateway.splice import clients
from argosy.model.routes import PeerRoute, RouteTable

NAMES = "abcd"


class One:
    """A gateway as the others see it: a board with a row for a replica, and a control socket."""

    def __init__(self, name: str, folder: Path, clock: Clock) -> None:
        self.name, self.socket, self.board = name, str(folder / f"{name}.sock"), Board()
        self.row = self.board.row("replica/r")
        self.news = 0
        self.gossip = Gossip(self.board, clock, self._hear_news)

    def _hear_news(self) -> None:
        self.news += 1

    async def start(self) -> asyncio.AbstractServer:
        loop = asyncio.get_running_loop()
        routed = Alone(Router(loop, lambda: 0))
        control = Control(routed, loop.time, share=lambda: told_by(self.board), hear=self.gossip.hear)
        count = itertools.count()
        door = Door(control, loop, lambda: b"%d" % next(count), trusted=True)
        return await loop.create_unix_server(clients(door), self.socket)

    def has(self, requests: int, units: float) -> None:
        for _ in range(requests):
            self.board.begin(self.row)
        self.board.note_work(self.row, units)

    @property
    def elsewhere(self) -> tuple[int, float]:
        return self.board.elsewhere(self.row), self.board.work_elsewhere(self.row)


@contextlib.asynccontextmanager
async def _four(folder: Path, clock: Clock) -> AsyncIterator[list[One]]:
    ones = [One(name, folder, clock) for name in NAMES]
    peers = tuple(PeerRoute(id=one.name, address=one.socket, control=one.socket) for one in ones)
    async with contextlib.AsyncExitStack() as stack:
        for one in ones:
            server = await one.start()
            stack.callback(server.close)
            one.gossip.take_table(RouteTable(generation=1, own=one.name, peers=peers))
        yield ones


def test_one_turn_tells_everybody_what_all_have(tmp_path: Path) -> None:
    async def main() -> None:
        async with _four(tmp_path, Clock()) as ones:
            for number, one in enumerate(ones):
                one.has(number + 1, 100.0 * (number + 1))
            await ones[2].gossip.take_turn()
            assert [one.elsewhere for one in ones] == [(9, 900.0), (8, 800.0), (7, 700.0), (6, 600.0)]
            assert all(one.news for one in ones)
            ones[0].has(10, 5000.0)
            await ones[0].gossip.take_turn()
            assert [one.elsewhere for one in ones] == [(9, 900.0), (18, 5700.0), (17, 5600.0), (16, 5500.0)]

    asyncio.run(asyncio.wait_for(main(), 90))


def test_who_is_gone_is_forgotten_in_ones_own_turn_and_spoils_none(tmp_path: Path) -> None:
    async def main() -> None:
        async with _four(tmp_path, Clock()) as ones:
            for one in ones:
                one.has(1, 10.0)
            await ones[0].gossip.take_turn()
            Path(ones[3].socket).unlink()
            await ones[1].gossip.take_turn()
            assert ones[1].elsewhere == (2, 20.0), "it does not answer"
            assert ones[2].elsewhere == (3, 30.0), "nobody says that it is gone"
            await ones[2].gossip.take_turn()
            assert ones[2].elsewhere == (2, 20.0)

    asyncio.run(asyncio.wait_for(main(), 90))


def test_what_a_stranger_says_is_not_taken(tmp_path: Path) -> None:
    async def main() -> None:
        async with _four(tmp_path, Clock()) as ones:
            stranger = Board()
            stranger.row("replica/r")
            stranger.begin(0)
            ones[0].gossip.hear(Told(by="e", of={"e": told_by(stranger)}))
            assert ones[0].elsewhere == (0, 0.0)
            reader, writer = await asyncio.open_unix_connection(ones[0].socket)
            writer.write(
                b"PUT /shared HTTP/1.1\r\nHost: a\r\nContent-Length: 2\r\nConnection: close\r\n\r\n[]"
            )
            assert (await reader.read())[9:12] == b"400"
            writer.close()

    asyncio.run(asyncio.wait_for(main(), 90))


@pytest.mark.parametrize("now_s", [0.0, 3.2, 1234.56])
def test_turns_are_spread_evenly_over_the_time(now_s: float, tmp_path: Path) -> None:
    clock = Clock()
    clock.now = now_s
    ones = [One(name, tmp_path, clock) for name in NAMES]
    peers = tuple(PeerRoute(id=one.name, address=one.socket, control=one.socket) for one in ones)
    for one in ones:
        one.gossip.take_table(RouteTable(generation=1, own=one.name, peers=peers))
    turns = sorted((now_s + one.gossip.until_turn_s()) % GOSSIP_S for one in ones)
    later = [*turns[1:], turns[0] + GOSSIP_S]
    assert [after - turn for turn, after in zip(turns, later, strict=True)] == pytest.approx(
        [GOSSIP_S / 4] * 4
    )
    assert all(0 < one.gossip.until_turn_s() <= GOSSIP_S for one in ones)

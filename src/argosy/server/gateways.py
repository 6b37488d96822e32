"""The gateways of this machine as one: the server's own, and those that somebody has started by hand
(`argosy gateway run --name NAME`). All route by the same table; what they count is added up."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Final

import msgspec

from argosy.controllers.service.nearness import nearest_first
from argosy.gateway.merging import largest, merge, without_moment
from argosy.model.areas import Atlas
from argosy.model.routes import GatewayCounters, PeerRoute, RouteTable, Wanted, Wants
from argosy.server.gateway_control import ControlSocket
from argosy.server.gateway_process import GatewayProcess, read_one

_OWN: Final = "control"  # name of the one that the server starts
_LISTEN_S: Final = 5.0  # then those that have come meanwhile are asked, too
_LIVES: Final = 16  # of one gateway whose counters are kept apart


class Gateways:
    """Implements `infra.gateway_port.GatewayPort`."""

    def __init__(self, folder: Path, own: GatewayProcess, atlas: Callable[[], Atlas] | None = None) -> None:
        """`folder`: where their control sockets are, `NAME.sock`. `atlas`: where regions are."""
        self._folder, self._own, self._atlas = folder, own, atlas
        self._ledger = Ledger()
        self._sequence = 0
        self._wants: dict[str, Wants] = {}
        self._told: frozenset[str] = frozenset()  # who has the last table

    async def take(self, table: RouteTable) -> int:
        """All that are up route by it. Raises Transient when one that is up does not take it."""
        there = await self._there()
        peers = tuple(_peer(name, socket) for name, socket in there.items()) if len(there) > 1 else ()
        taken = await asyncio.gather(
            *(
                socket.take(self._for(name, msgspec.structs.replace(table, own=name, peers=peers)))
                for name, socket in there.items()
            )
        )
        self._told = frozenset(there)
        return min(taken)

    def _for(self, name: str, table: RouteTable) -> RouteTable:
        """The table of one: replicas near to it come first."""
        region = read_one(self._folder, name).region
        if not region:
            return table
        regions = {
            replica.region
            for service in table.services
            for revision in service.revisions
            for replica in revision.replicas
            if replica.region
        }
        near = nearest_first(region, regions | {region}, self._atlas() if self._atlas is not None else {})
        return msgspec.structs.replace(table, region=region, near=near)

    async def counters(self) -> GatewayCounters:
        """The sum of all, also of those that have ended. The generation is that of the slowest; 0 when one
        has come or gone since the last table, so that all are told."""
        there = await self._there()
        told = await asyncio.gather(*(socket.counters() for socket in there.values()))
        for name, counters in zip(there, told, strict=True):
            self._ledger.note(name, counters)
        total = self._ledger.total(there)
        same = self._told == frozenset(there)
        total.generation = min(each.generation for each in told) if same else 0
        return total

    async def wants(self, after: int) -> Wants:
        """As soon as the requests of another service wait at any of them; unchanged after a while."""
        there = await self._there()
        asked = {name: self._wants[name].sequence if name in self._wants else 0 for name in there}
        asking = {
            asyncio.ensure_future(there[name].wants(sequence if after else 0)): name
            for name, sequence in asked.items()
        }
        done, waiting = await asyncio.wait(asking, timeout=_LISTEN_S, return_when=asyncio.FIRST_COMPLETED)
        for task in waiting:
            task.cancel()
        await asyncio.gather(*waiting, return_exceptions=True)
        self._wants = {name: wants for name, wants in self._wants.items() if name in there}
        for task in done:
            self._wants[asking[task]] = task.result()
        self._sequence += bool(done)
        return Wants(sequence=self._sequence, wanted=_together(self._wants))

    async def rest(self) -> None:
        """The own one may end; the others are told that nothing is routed."""
        await self._own.rest()

    async def _there(self) -> dict[str, ControlSocket]:
        """Those that are up, by name; the own one is started when there is none. Raises Transient."""
        found: dict[str, ControlSocket] = {}
        for path in sorted(self._folder.glob("*.sock")):
            socket = ControlSocket(path)
            if await socket.is_up():
                found[path.stem] = socket
        if not found:
            await self._own.ensure()
            found[_OWN] = ControlSocket(self._own.control)
        return found


def gateways_of(folder: Path, listen: str, atlas: Callable[[], Atlas]) -> Gateways:
    """`listen`: HOST:PORT of the one that is started where there is none; "": a free port of the loopback."""
    return Gateways(folder, GatewayProcess(folder, listen), atlas)


class Ledger:
    """What gateways have counted, also those that have ended or begun anew: nothing twice, nothing lost."""

    def __init__(self) -> None:
        self._lives: dict[str, dict[int, GatewayCounters]] = {}  # by name, then by when the life began

    def note(self, name: str, told: GatewayCounters) -> None:
        """The counters of a gateway now. One that was killed may tell a second less than before."""
        lives = self._lives.setdefault(name, {})
        before = lives.pop(told.since_ms, None)
        lives[told.since_ms] = told if before is None else largest(before, told)
        while len(lives) > _LIVES:
            first, second, *_ = sorted(lives)
            lives[second] = merge([lives.pop(first), lives[second]])

    def total(self, there: Mapping[str, object]) -> GatewayCounters:
        """The sum; of gateways that are not `there`, and of earlier lives, without what was under way."""
        found = []
        for name, lives in self._lives.items():
            newest = max(lives)
            for since_ms, counters in lives.items():
                is_up = name in there and since_ms == newest
                found.append(counters if is_up else without_moment(counters))
        return merge(found)


def _peer(name: str, socket: ControlSocket) -> PeerRoute:
    return PeerRoute(id=name, address=str(socket.path.with_suffix(".peer")), control=str(socket.path))


def _together(wants: Mapping[str, Wants]) -> tuple[Wanted, ...]:
    found: dict[str, Wanted] = {}
    for each in (wanted for told in wants.values() for wanted in told.wanted):
        other = found.get(each.service)
        held = each.held + (other.held if other is not None else 0)
        oldest_s = max(each.oldest_s, other.oldest_s if other is not None else 0.0)
        found[each.service] = Wanted(service=each.service, held=held, oldest_s=oldest_s)
    return tuple(found.values())

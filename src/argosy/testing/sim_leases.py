"""Leases of simulated ranks: they end by the clock of their machine, also when its agent is dead."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import TYPE_CHECKING, Final

from argosy.model.facts import RankPhase

if TYPE_CHECKING:
    from argosy.testing.machines import Machine, SimRank
    from argosy.testing.world import World

_ENDED: Final = (RankPhase.EXITED, RankPhase.VANISHED)


def renew(world: World, machine: Machine, attempts: Sequence[str], sent: int) -> None:
    """The server wants ranks of these attempts to go on."""
    for rank in machine.ranks.values():
        if rank.order.lease is not None and rank.fact.attempt_id in attempts:
            lease_rank(world, machine, rank, sent)


def lease_rank(world: World, machine: Machine, rank: SimRank, sent: int) -> None:
    """Its lease counts from `sent`; it ends also when its agent is dead."""
    assert rank.order.lease is not None
    until_ms = sent + rank.order.lease.ms
    if rank.fact.phase in _ENDED or rank.lapsed or until_ms <= rank.lease_until_ms:
        return
    rank.lease_until_ms = until_ms
    if rank.lease_timer is not None:
        rank.lease_timer.cancel()
    left_s = (until_ms - machine.clock_ms(world.now_s)) / 1000 / machine.rate
    if left_s <= 0:
        rank.lapsed = True
        return
    rank.lease_timer = asyncio.get_running_loop().call_later(left_s, lapse, world, machine, rank)


def lapse(world: World, machine: Machine, rank: SimRank) -> None:
    world.tell(f"{machine.address}: the lease of {rank.fact.id} ends")
    rank.lapsed = True
    delay_s = world.dice("lapses").uniform(0.0, 6.0)  # its grace, and how often the guard looks
    world.later(rank, delay_s, world.end_rank, machine, rank, 143)

"""The weather of the simulated world: what goes wrong by itself, so many times per virtual hour."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Callable
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from argosy.testing.machines import Machine
    from argosy.testing.world import World


class Weather:
    """Strikes machines, agents, networks, clocks and state folders at the rates of `world.faults`."""

    def __init__(self, world: World) -> None:
        self.world = world

    def start(self) -> None:
        faults = self.world.faults
        for name, per_h, strike in (
            ("node-deaths", faults.node_deaths_per_h, self._strike_node),
            ("agent-deaths", faults.agent_deaths_per_h, self._strike_agent),
            ("partitions", faults.partitions_per_h, self._strike_partition),
            ("clock-jumps", faults.clock_jumps_per_h, self._strike_clock),
            ("replacements", faults.replacements_per_h, self._strike_state),
        ):
            if per_h > 0:
                self.world.go(self._strike(name, per_h, strike))

    async def _strike(self, name: str, per_h: float, strike: Callable[[random.Random], None]) -> None:
        dice = self.world.dice(name)
        while True:
            await asyncio.sleep(dice.expovariate(per_h / 3600))
            strike(dice)

    def _pick(self, dice: random.Random) -> Machine | None:
        up = [machine for machine in self.world.machines.values() if machine.state == "up"]
        return dice.choice(up) if up else None

    def _strike_node(self, dice: random.Random) -> None:
        if (machine := self._pick(dice)) is not None:
            self.world.kill_machine(machine, "kernel panic")

    def _strike_agent(self, dice: random.Random) -> None:
        machine = self._pick(dice)
        if machine is not None and machine.agent_alive:
            self.world.agent_dies(machine, dice)

    def _strike_state(self, dice: random.Random) -> None:
        """Somebody replaces the state folder of a server by a copy, and a new server begins on that: both are
        called the same, so each would take what the other ordered for its own."""
        lives = [life for life in self.world.lives if life.is_ours() and not life.dead.is_set()]
        if lives:
            life = dice.choice(lives)
            life.replace(self.world.now_s)
            self.world.tell(f"the state folder of {life.name} is replaced")

    def _strike_partition(self, dice: random.Random) -> None:
        machine = self._pick(dice)
        if machine is None or machine.is_partitioned:
            return
        length_s = dice.choice([3.0, 20.0, 90.0, 400.0, 1500.0])
        machine.is_partitioned = True
        self.world.tell(f"{machine.address}: unreachable for {length_s:.0f} s")
        asyncio.get_running_loop().call_later(length_s, self.world.heal, machine)

    def _strike_clock(self, dice: random.Random) -> None:
        by_ms = dice.choice([-3_600_000, -60_000, -500, 500, 60_000, 7_200_000])
        self.world.clock.step_wall(by_ms)
        self.world.tell(f"the wall clock jumps by {by_ms} ms")

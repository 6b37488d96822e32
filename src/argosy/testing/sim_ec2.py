"""The AWS driver in the simulated world: the fake EC2 under virtual time, whose instances are machines there.

The driver, boto3 and the fake cloud are the real ones; calls are made in place, and before and after each one
the server may be killed. `look` makes the world's machines agree with the cloud's instances.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import Any, Final

import msgspec

from argosy.infra.machine_driver import MachineDriver
from argosy.infra.machines import CLAIM
from argosy.infra.provider import Want
from argosy.model.facts import ClaimFact, NodeFacts
from argosy.model.offer import Capacity, Offer, Shape
from argosy.model.rows import Claim
from argosy.model.units import GIB
from argosy.providers.aws.account import Account
from argosy.testing.fake_ec2 import FakeEc2
from argosy.testing.fake_ec2_cloud import tags_of
from argosy.testing.machines import Machine
from argosy.testing.sim_driver import SimDriver
from argosy.testing.world import World

_LOOK_S: Final = 1.0
_CHANGING: Final = ("run_", "terminate_", "start_", "stop_", "create_", "delete_", "authorize_", "cancel_")


class SimAccount(Account):
    """Calls take a moment, and are places to be killed at: before and after whatever changes something."""

    def __init__(self, world: World) -> None:
        super().__init__()
        self.world = world

    async def call(
        self, service: str, region: str, verb: str, scope: str = "", fine: tuple[str, ...] = (), **fields: Any
    ) -> Any:
        point = f"aws.{verb}"
        changes = verb.startswith(_CHANGING)
        if changes:
            self.world.maybe_crash(f"before {point}")
        self.world.check_alive()
        await asyncio.sleep(self.world.dice("latency").uniform(0.01, 0.3))
        self.world.check_alive()
        answer = await super().call(service, region, verb, scope, fine, **fields)
        if changes:
            self.world.maybe_crash(f"after {point}")
        return answer


class SimEc2(SimDriver):
    """The driver with offers of its own, whose instances are looked at after each of its verbs."""

    def __init__(self, world: World, cloud: FakeEc2, driver: MachineDriver, offers: Sequence[Offer]) -> None:
        super().__init__(world, driver)
        self.cloud, self.offers = cloud, offers

    async def quote(self, want: Want) -> Sequence[Offer]:
        now_ms = self.world.clock.now_ms()
        return [msgspec.structs.replace(each, quoted_at_ms=now_ms) for each in self.offers]

    async def ensure(self, claim: Claim) -> None:
        try:
            await super().ensure(claim)
        finally:
            look(self.world, self.cloud)

    async def observe(self, claim_ids: Sequence[str]) -> Sequence[ClaimFact]:
        facts = await super().observe(claim_ids)
        look(self.world, self.cloud)
        return facts

    async def release(self, claim_id: str) -> None:
        try:
            await super().release(claim_id)
        finally:
            look(self.world, self.cloud)


def look(world: World, cloud: FakeEc2) -> None:
    """What has happened to instances happens to machines."""
    for instance in cloud.instances(live=False):
        claim_id = tags_of(instance).get(CLAIM, "")
        address = f"{claim_id}/{instance.ami_launch_index}"
        machine, state = world.machines.get(address), instance.state
        if not claim_id or state in ("terminated", "shutting-down"):
            if machine is not None and machine.facts.hostname == instance.id:
                world.remove_machine(machine)
        elif state in ("stopped", "stopping"):
            if machine is not None and machine.state != "stopped":
                world.stop_machine(machine)
        elif state == "running":
            if machine is None:
                facts = NodeFacts(
                    hostname=instance.id,
                    arch="x86_64",
                    cpus_milli=2000,
                    memory_bytes=8 * GIB,
                    agent_version="sim",
                )
                made = Machine("aws", claim_id, instance.ami_launch_index, facts)
                world.add_machine(made, world.dice("boots").uniform(5, 20))
            elif machine.state == "stopped":
                world.restart_machine(machine, world.dice("boots").uniform(5, 20))
            elif machine.facts.hostname != instance.id:
                world.violate("one-machine", f"{address} is {machine.facts.hostname} and {instance.id}")


async def keep_looking(world: World, cloud: FakeEc2) -> None:
    while True:
        await asyncio.sleep(_LOOK_S)
        look(world, cloud)


def some_offers(regions: Sequence[str] = ("us-east-1", "us-west-2")) -> list[Offer]:
    """Small machines in some regions, on demand and spot."""
    shape = Shape(instance_type="m6i.large", cpus_milli=2000, memory_bytes=8 * GIB)
    return [
        Offer(
            provider="aws",
            region=region,
            shape=shape,
            capacity=capacity,
            price_micro_usd=price + 1000 * number,
        )
        for number, region in enumerate(regions)
        for capacity, price in ((Capacity.ON_DEMAND, 96_000), (Capacity.SPOT, 30_000))
    ]

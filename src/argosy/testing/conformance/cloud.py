"""The subject of the suite for a cloud of virtual machines: a `FakeCloud` and a `MachineDriver` that speaks
to it, with a clock that tests move.

    class Subject(CloudSubject):
        calls = ("launch", "terminate")          # handlers whose replies the suite loses
        def claim(self, count=1): return a_machine_claim("x", "small", region="east", count=count)
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping
from pathlib import Path
from typing import Any

import msgspec

from argosy.infra.agent_client import AgentClient
from argosy.infra.agent_port import Channel
from argosy.infra.border import BorderError, Transient, Unreachable
from argosy.infra.machine_driver import MachineDriver
from argosy.infra.machines import CLAIM, of_name
from argosy.infra.provider import Provider, Setting
from argosy.model.facts import ClaimState
from argosy.model.offer import Capacity, Choice, Offer, Shape
from argosy.model.resources import Resources
from argosy.model.rows import Claim
from argosy.model.units import GIB
from argosy.testing.builders import a_claim, a_node
from argosy.testing.conformance.provider import NotApplicable
from argosy.testing.fake_cloud import FakeCloud, FakeMachine
from argosy.testing.virtual_time import EPOCH_MS, SimIds


class MovedClock:
    """Time passes when a test says so."""

    def __init__(self) -> None:
        self.s = 0.0

    def now_ms(self) -> int:
        return EPOCH_MS + int(self.s * 1000)

    def monotonic_s(self) -> float:
        return self.s

    def now_s(self) -> float:
        return EPOCH_MS / 1000 + self.s


def a_setting(root: Path, clock: MovedClock, environ: Mapping[str, str]) -> Setting:
    return Setting(root=root, clock=clock, ids=SimIds(1), environ=environ, home=root)


def a_machine_claim(
    provider: str,
    kind: str,
    *,
    region: str = "",
    zone: str = "",
    count: int = 1,
    spot: bool = False,
    accelerator: str | None = None,
    wish: Resources | None = None,
) -> Claim:
    """A claim for machines of one type."""
    milli = 1000 if accelerator else 0
    shape = Shape(
        instance_type=kind,
        cpus_milli=4000,
        memory_bytes=16 * GIB,
        accelerator=accelerator,
        accelerators_milli=milli,
    )
    offer = Offer(
        provider=provider,
        region=region,
        zone=zone,
        shape=shape,
        capacity=Capacity.SPOT if spot else Capacity.ON_DEMAND,
        price_micro_usd=800_000,
    )
    choice = Choice(
        offer=offer,
        resources=wish or Resources(),
        cpus_milli=0,
        memory_bytes=0,
        accelerator=accelerator,
        accelerators_milli=milli,
    )
    return a_claim(choice=choice, count=count)


def a_claim_with(subject: CloudSubject, wish: Resources) -> Claim:
    """A claim of a subject, of a task with that wish."""
    claim = subject.claim()
    choice = msgspec.structs.replace(claim.choice, resources=wish)
    return msgspec.structs.replace(claim, choice=choice)


class CloudSubject:
    """A driver under the conformance suite. `calls`: handlers that make and end machines; `most`: so many
    machines of the type of `claim` there are."""

    secrets: tuple[str, ...] = ("PRIVATE KEY",)
    gaps: Mapping[str, str] = {
        "reach_leads_to_the_agent_and_nowhere_else": "the machines of this fake are no hosts"
    }
    calls: tuple[str, ...] = ()
    most = 8
    #: Whether machines may be taken back; if not, declare the gap `preemption_becomes_a_fact`.
    takes_back = True

    def __init__(self, provider: MachineDriver, cloud: FakeCloud, clock: MovedClock) -> None:
        self.driver, self.cloud, self.clock = provider, cloud, clock
        self.provider: Provider = provider
        cloud.capacity[(self.claim().choice.offer.shape.instance_type, "")] = self.most

    def claim(self, count: int = 1) -> Claim:
        raise NotImplementedError

    def too_large(self) -> Claim:
        return self.claim(self.most + 1)

    def claim_of(self, machine: FakeMachine) -> str:
        """The claim whose mark a machine carries; "": none."""
        named = of_name(machine.name)
        return machine.labels.get(CLAIM, named[0] if named is not None else "")

    async def pass_time(self, seconds: float) -> None:
        self.clock.s += seconds
        await asyncio.sleep(0.002)

    def truth(self) -> set[str]:
        return {claim for each in self.cloud.machines() if (claim := self.claim_of(each))}

    def machines(self, claim_id: str) -> int:
        running = self.cloud.machines("starting", "running")
        return len([each for each in running if self.claim_of(each) == claim_id])

    async def lose_reply_of(self, call: Callable[[], Awaitable[None]]) -> None:
        self.cloud.lost += self.calls
        try:
            await call()
        except BorderError:
            pass
        finally:
            self.cloud.lost.clear()

    async def preempt(self, claim_id: str) -> None:
        found = [each for each in self.cloud.machines() if self.claim_of(each) == claim_id]
        if not self.takes_back or not found:
            raise NotApplicable("nothing is taken back here")
        for each in found:
            self.cloud.preempt(each)

    async def make_foreign(self) -> None:
        claim = self.claim().choice.offer
        self.cloud.order(name="web-1", kind=claim.shape.instance_type, region=claim.region, zone=claim.zone)


def hold_case(case: Callable[[Any], Awaitable[object]], subject: CloudSubject) -> None:
    """One case of the suite, or of `REFUSALS`, on a subject of its own. Nothing with a mark is left."""

    async def act() -> None:
        try:
            await case(subject)
        finally:
            await subject.driver.disconnect()

    asyncio.run(act())
    assert [each for each in subject.cloud.machines() if subject.claim_of(each)] == []


async def strangers_may_tell_little(subject: CloudSubject) -> None:
    """A machine of others of which nothing but its id is told (`FakeCloud.bare`) disturbs nobody."""
    claim = subject.claim()
    offer = claim.choice.offer
    kind = offer.shape.instance_type
    subject.cloud.order(name="web-1", kind=kind, region=offer.region, extra={"bare": True})
    await subject.driver.ensure(claim)
    assert [fact.claim_id for fact in await subject.driver.observe([])] == [claim.id]
    await subject.driver.release(claim.id)
    assert len(subject.cloud.machines()) == 1


async def hold_host_life(driver: MachineDriver, claim: Claim) -> None:
    """One claim's life on a real host behind its machine: reached by ssh with a host key that was known
    before, its agent answers, and after the release nothing does."""
    await driver.ensure(claim)
    fact = None
    for _ in range(600):
        (fact,) = await driver.observe([claim.id])
        if fact.state is ClaimState.HELD:
            break
        await asyncio.sleep(0.05)
    assert fact is not None
    assert fact.state is ClaimState.HELD, fact
    node = a_node(claim_id=claim.id, provider=claim.choice.offer.provider, address=fact.nodes[0].address)

    async def open_channel() -> Channel:
        for _ in range(100):
            try:
                return await driver.reach(node)
            except Transient:
                await asyncio.sleep(0.1)
        return await driver.reach(node)

    client = AgentClient(open_channel)
    facts = await client.node()
    assert facts.cpus_milli > 0
    await client.close()
    await driver.release(claim.id)
    try:
        await driver.reach(node)
    except Unreachable:
        pass
    else:
        raise AssertionError("a released machine is still reached")
    await driver.disconnect()

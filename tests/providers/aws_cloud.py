"""The fake cloud under the driver: a clock that tests move, and the subject of the conformance suite."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Awaitable, Callable, Iterator, Mapping
from pathlib import Path
from typing import NamedTuple

import msgspec
import pytest

from argosy.infra.border import BorderError
from argosy.infra.machine_driver import MachineDriver
from argosy.infra.machines import CLAIM
from argosy.infra.provider import Setting
from argosy.model.offer import Capacity, Choice, Offer, Shape
from argosy.model.resources import Resources
from argosy.model.rows import Claim
from argosy.model.units import GIB
from argosy.providers.aws.account import Account
from argosy.providers.aws.provider import Aws
from argosy.testing.builders import a_claim
from argosy.testing.conformance.cloud import MovedClock
from argosy.testing.conformance.provider import NotApplicable
from argosy.testing.fake_ec2 import SECRET, FakeEc2
from argosy.testing.virtual_time import SimIds

REGION = "us-east-1"
SMALL = "g6.xlarge"  # 4 vCPUs


def an_order(
    kind: str = SMALL,
    *,
    count: int = 1,
    region: str = REGION,
    zone: str = "",
    spot: bool = False,
    arch: str = "x86_64",
    cpus: int = 4,
    accelerator: str | None = "L4",
    wish: Resources | None = None,
) -> Claim:
    """A claim for machines of one type."""
    offer = Offer(
        provider="aws",
        region=region,
        zone=zone,
        shape=Shape(
            instance_type=kind,
            cpus_milli=cpus * 1000,
            memory_bytes=16 * GIB,
            accelerator=accelerator,
            accelerators_milli=1000 if accelerator else 0,
            arch=arch,
        ),
        capacity=Capacity.SPOT if spot else Capacity.ON_DEMAND,
        price_micro_usd=800_000,
    )
    choice = Choice(
        offer=offer,
        resources=wish or Resources(),
        cpus_milli=0,
        memory_bytes=0,
        accelerator=accelerator,
        accelerators_milli=1000 if accelerator else 0,
    )
    return a_claim(choice=choice, count=count)


class AwsSubject:
    """The driver under the conformance suite."""

    secrets = (SECRET, "PRIVATE KEY")

    def __init__(self, provider: MachineDriver, cloud: FakeEc2, clock: MovedClock) -> None:
        self.provider, self.cloud, self.clock = provider, cloud, clock
        self.gaps: Mapping[str, str] = {
            "reach_leads_to_the_agent_and_nowhere_else": "instances of this fake are no hosts"
        }
        cloud.capacity[(SMALL, "")] = 8

    def claim(self, count: int = 1) -> Claim:
        return an_order(count=count)

    def too_large(self) -> Claim:
        return an_order(count=9)

    async def pass_time(self, seconds: float) -> None:
        self.clock.s += seconds
        await asyncio.sleep(0.002)

    def truth(self) -> set[str]:
        listed = {_tag(each) for each in self.cloud.instances()}
        return {tag for tag in listed if tag}

    def machines(self, claim_id: str) -> int:
        return len(self.cloud.tagged(CLAIM, claim_id))

    async def lose_reply_of(self, call: Callable[[], Awaitable[None]]) -> None:
        self.cloud.lost += ["RunInstances", "TerminateInstances"] * 2
        try:
            await call()
        except BorderError:
            pass
        finally:
            self.cloud.lost.clear()

    async def preempt(self, claim_id: str) -> None:
        found = self.cloud.tagged(CLAIM, claim_id)
        if not found:
            raise NotApplicable("nothing runs")
        for each in found:
            self.cloud.interrupt(each.id, 0)

    async def make_foreign(self) -> None:
        backend = self.cloud.backend(REGION)
        backend.run_instances(
            "ami-1", 1, None, [], instance_type="t3.micro", is_instance_type_default=False, tags={}
        )


def _tag(instance: object) -> str:
    from argosy.testing.fake_ec2_cloud import tags_of

    return tags_of(instance).get(CLAIM, "")


def with_wish(claim: Claim, **fields: object) -> Claim:
    """The claim with other wishes in its resources."""
    wish = msgspec.structs.replace(claim.choice.resources, **fields)
    return msgspec.structs.replace(claim, choice=msgspec.structs.replace(claim.choice, resources=wish))


def a_provider(root: Path, clock: MovedClock, account: Account) -> MachineDriver:
    setting = Setting(root=root, environ={}, clock=clock, ids=SimIds(1))
    return MachineDriver(Aws(setting, account), setting, settle_s=0.0)


class Cloud(NamedTuple):
    """One fake cloud for all tests of a process, empty at the beginning of each."""

    fake: FakeEc2
    clock: MovedClock
    account: Account


def one_cloud() -> Iterator[Cloud]:
    """The environment of this process leads to it; for a fixture."""
    clock = MovedClock()
    with FakeEc2(now=clock.now_s) as fake, pytest.MonkeyPatch.context() as patch:
        for name in [name for name in os.environ if name.startswith("AWS_")]:
            patch.delenv(name)
        for name, value in fake.environ(REGION).items():
            patch.setenv(name, value)
        yield Cloud(fake, clock, Account())

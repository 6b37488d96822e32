"""A driver of Google Cloud, the fake that it speaks to, and a clock: for tests of what is special there."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping
from pathlib import Path

import msgspec

from argosy.infra.border import BorderError
from argosy.infra.machine_driver import MachineDriver
from argosy.model.facts import ClaimFact
from argosy.model.resources import Networking, Resources
from argosy.model.rows import Claim
from argosy.providers.gcp.provider import Google
from argosy.testing.conformance.cloud import MovedClock, a_machine_claim, a_setting
from argosy.testing.fake_gcp import FakeGcp


class World:
    def __init__(self, fake: FakeGcp, clock: MovedClock, root: Path, environ: Mapping[str, str]) -> None:
        self.fake, self.clock = fake, clock
        setting = a_setting(root, clock, {"HOME": str(root), **environ})
        self.vendor = Google(setting, patience_s=0.0)
        self.driver = MachineDriver(self.vendor, setting, settle_s=0.0)

    def run(self, act: Callable[[], Awaitable[None]]) -> None:
        async def whole() -> None:
            try:
                await act()
            finally:
                await self.driver.disconnect()

        asyncio.run(whole())

    def refusal(self, claim: Claim) -> BorderError:
        """What `ensure` raises."""
        found: list[BorderError] = []

        async def act() -> None:
            try:
                await self.driver.ensure(claim)
            except BorderError as error:
                found.append(error)

        self.run(act)
        assert found, "it was not refused"
        assert [each for each in self.fake.machines() if each.labels] == []
        assert self.fake.disks == {}
        return found[0]

    async def fact(self, claim: Claim) -> ClaimFact:
        (fact,) = await self.driver.observe([claim.id])
        return fact


def a_claim_for(
    kind: str = "n2-standard-4",
    *,
    region: str = "us-central1",
    zone: str = "",
    count: int = 1,
    spot: bool = False,
    accelerator: str | None = None,
    config: Mapping[str, object] | None = None,
    **wish: object,
) -> Claim:
    """A claim at Google Cloud; `config`: the task's `config.gcp`, `wish`: other fields of its resources."""
    text = msgspec.json.encode({"gcp": config}).decode() if config else ""
    resources = msgspec.structs.replace(Resources(config=text), **wish)
    return a_machine_claim(
        "gcp", kind, region=region, zone=zone, count=count, spot=spot, accelerator=accelerator, wish=resources
    )


def in_network(vpc: str = "", *subnets: str, tags: tuple[str, ...] = ()) -> Networking:
    return Networking(vpc_name=vpc, subnet_names=subnets, security_groups=tags)

"""The simulated provider passes the suite that real ones pass; its faults are what they claim to be."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any, ClassVar

import msgspec
import pytest

from argosy.infra import border
from argosy.model.facts import ClaimState
from argosy.model.offer import Capacity
from argosy.model.rows import Claim
from argosy.testing.builders import a_choice, a_claim
from argosy.testing.conformance.provider import CASES, Case, NotApplicable, case_name, hold, settled
from argosy.testing.faults import NONE, Faults
from argosy.testing.sim_provider import SimProvider, a_market
from argosy.testing.virtual_time import run_virtual
from argosy.testing.world import World


class SimSubject:
    gaps: ClassVar[dict[str, str]] = {
        "reach_leads_to_the_agent_and_nowhere_else": "simulated agents have a directory of their own"
    }

    def __init__(self, world: World, name: str) -> None:
        self.world = world
        self.provider = a_market(world).get(name)
        self.secrets = (self.provider.secret,)

    def claim(self, count: int = 1) -> Claim:
        offer = self.provider.offers[0]
        gpus = 2000 if offer.capacity is Capacity.OWNED else offer.shape.accelerators_milli
        return a_claim(
            count=count,
            choice=a_choice(offer=offer, cpus_milli=1000, memory_bytes=0, accelerators_milli=gpus),
        )

    def too_large(self) -> Claim:
        self.provider.offers[0] = msgspec.structs.replace(self.provider.offers[0], nodes_max=5)
        return self.claim(count=6)

    async def pass_time(self, seconds: float) -> None:
        await asyncio.sleep(seconds)

    def truth(self) -> set[str]:
        return {machine.claim_id for machine in self.world.machines.values()}

    def machines(self, claim_id: str) -> int:
        return sum(
            m.claim_id == claim_id and m.state in ("up", "booting") for m in self.world.machines.values()
        )

    async def lose_reply_of(self, call: Callable[[], Awaitable[None]]) -> None:
        self.world.faults = Faults(provider_lost_reply=1.0)
        with pytest.raises(border.Transient):
            await call()
        self.world.faults = NONE

    async def preempt(self, claim_id: str) -> None:
        self.provider.preempt(claim_id)

    async def make_foreign(self) -> None:
        return None


@pytest.mark.parametrize("name", ["pool", "cloud"])
@pytest.mark.parametrize("case", CASES, ids=case_name)
def test_conformance(case: Case, name: str) -> None:
    async def main() -> None:
        world = World(1)
        await hold(case, SimSubject(world, name))
        assert world.violations == []

    try:
        run_virtual(main())
    except NotApplicable as reason:
        pytest.skip(str(reason))


def test_gaps_are_strict() -> None:
    """An ability that starts to work fails until its gap is taken out; one that is missing is declared."""

    async def works(subject: Any) -> None:
        return None

    async def lacks_a_knob(subject: Any) -> None:
        raise NotApplicable("there is no such knob")

    def told(case: Case, gaps: dict[str, str]) -> str:
        async def main() -> None:
            subject = SimSubject(World(1), "pool")
            subject.gaps = gaps  # type: ignore[misc]
            await hold(case, subject)

        with pytest.raises((AssertionError, NotApplicable)) as caught:
            run_virtual(main())
        return f"{caught.type.__name__}: {caught.value}"

    name = case_name(CASES[0])
    works.__name__ = lacks_a_knob.__name__ = name
    assert told(works, {name: "not yet"}).startswith(f"AssertionError: `{name}` works")
    assert told(lacks_a_knob, {name: "not yet"}) == "NotApplicable: not yet"
    assert told(lacks_a_knob, {}).startswith(f"AssertionError: declare the gap `{name}`")
    assert told(works, {"nonsense": "x"}).startswith("AssertionError: no such cases: ['nonsense']")


def _in_world(faults: Faults, body: Callable[[SimSubject], Awaitable[None]]) -> World:
    async def main() -> World:
        world = World(3, faults)
        await body(SimSubject(world, "cloud"))
        return world

    return run_virtual(main())


def test_errors_are_of_the_border_and_have_no_effect() -> None:
    async def body(subject: SimSubject) -> None:
        for _ in range(30):
            with pytest.raises(border.BorderError):
                await subject.provider.ensure(subject.claim())
        assert subject.truth() == set()

    _in_world(Faults(provider_error=1.0), body)


def test_listings_lag_and_tell_of_the_past() -> None:
    async def body(subject: SimSubject) -> None:
        claim = subject.claim()
        await subject.provider.ensure(claim)
        assert list(await subject.provider.observe([])) == []
        await asyncio.sleep(61)
        assert [fact.claim_id for fact in await subject.provider.observe([])] == [claim.id]

    _in_world(Faults(listing_lag_s=60), body)


def test_spot_is_preempted_by_the_weather() -> None:
    async def body(subject: SimSubject) -> None:
        offer = next(o for o in subject.provider.offers if o.capacity is Capacity.SPOT)
        claim = a_claim(choice=a_choice(offer=offer))
        await subject.provider.ensure(claim)
        await settled(subject, claim.id, ClaimState.PREEMPTED, timeout_s=36_000)

    _in_world(Faults(preemptions_per_h=20), body)


def test_machines_without_a_committed_claim_are_told() -> None:
    async def main() -> World:
        world = World(1)
        world.knows_rows = True
        subject = SimSubject(world, "pool")
        await subject.provider.ensure(subject.claim())
        return world

    assert [violation.checker for violation in run_virtual(main()).violations] == ["intent-first"]


def test_the_unlike_are_not_the_same_provider() -> None:
    async def main() -> SimProvider:
        world = World(1)
        return a_market(world).get("pool")

    assert run_virtual(main()).manifest.capabilities.owned

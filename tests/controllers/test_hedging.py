"""Second orders: only for who asks, only when the first is late; one of both is used, one attempt lives."""

from __future__ import annotations

import asyncio
from typing import Any

import msgspec
import pytest
from rented_rig import Rig, a_rig

from argosy.model.phases import ClaimPhase, Outcome, WorkloadPhase
from argosy.model.rows import Workload
from argosy.planning.availability import Memory, note_start, typical_start_ms
from argosy.testing.builders import a_cluster, a_job, a_task, want_gpus
from argosy.testing.virtual_time import run_virtual

HEDGED = msgspec.structs.replace(want_gpus(1000), hedge=True)


def a_workload(kind: str, *, hedge: bool = True) -> Workload:
    wish = msgspec.structs.replace(HEDGED, hedge=hedge)
    if kind == "cluster":
        return a_cluster(resources=(wish,))
    return a_job(managed=True, host_id=None, task=a_task(run="sim work_s=600", resources=(wish,)))


async def settled(rig: Rig) -> dict[str, str]:
    """Phase of every order, by zone, when nothing is under way any more."""
    await asyncio.sleep(60)
    claims = await rig.store.load_claims(since_ms=0)
    return {claim.choice.offer.zone: claim.phase.value for claim in claims}


@pytest.mark.parametrize("kind", ["cluster", "job"])
def test_a_late_order_gets_a_second_one_and_the_first_that_is_up_is_used(kind: str) -> None:
    async def main() -> None:
        async with a_rig() as rig:
            rig.aws.boots_s = {"us-east-1a": 900, "us-east-1b": 30}
            row = await rig.put(a_workload(kind))
            row = await rig.until(row.id, WorkloadPhase.RUNNING, limit_s=300)
            assert rig.aws.asked == ["g1 us-east-1a", "g1 us-east-1b"]
            assert await settled(rig) == {"us-east-1a": "gone", "us-east-1b": "held"}
            assert len(rig.aws.names_of_all()) == 1
            told = await rig.events(row.id, "hedged")
            assert told[0].startswith("aws us-east-1a has not come up after 1m 3")
            assert told[0].endswith("aws us-east-1b is ordered as well, the first that is up is used")
            assert told[1] == "aws us-east-1b came up first: aws us-east-1a is given back"
            if kind == "job":
                done = await rig.until(row.id, WorkloadPhase.FINISHED)
                assert done.outcome is Outcome.SUCCEEDED
                assert len(await rig.store.load_attempts(row.id)) == 1

    run_virtual(main())


@pytest.mark.parametrize("kind", ["cluster", "job"])
def test_the_first_order_may_still_win(kind: str) -> None:
    async def main() -> None:
        async with a_rig() as rig:
            rig.aws.boots_s = {"us-east-1a": 120, "us-east-1b": 900}
            row = await rig.put(a_workload(kind))
            await rig.until(row.id, WorkloadPhase.RUNNING, limit_s=300)
            assert await settled(rig) == {"us-east-1a": "held", "us-east-1b": "gone"}
            assert len(rig.aws.asked) == 2

    run_virtual(main())


def test_nobody_pays_twice_who_does_not_ask_for_it() -> None:
    async def main() -> None:
        async with a_rig() as rig:
            rig.aws.boots_s = {"us-east-1a": 900}
            row = await rig.put(a_workload("cluster", hedge=False))
            await rig.until(row.id, WorkloadPhase.RUNNING)
            assert rig.aws.asked == ["g1 us-east-1a"] and not await rig.events(row.id, "hedged")

    run_virtual(main())


def test_one_that_comes_up_in_time_is_alone() -> None:
    async def main() -> None:
        async with a_rig() as rig:
            rig.aws.boots_s = {"us-east-1a": 60}
            row = await rig.put(a_workload("cluster"))
            await rig.until(row.id, WorkloadPhase.RUNNING)
            assert len(rig.aws.asked) == 1

    run_virtual(main())


def test_what_is_typical_is_learnt_from_orders_that_came_up() -> None:
    async def main() -> None:
        async with a_rig() as rig:
            rig.aws.boots_s = {"us-east-1a": 20}
            for number in range(3):
                first = await rig.put(a_cluster(name=f"c{number}", resources=(want_gpus(1000),)))
                await rig.until(first.id, WorkloadPhase.RUNNING)
            known_ms = typical_start_ms(rig.shell.refusals(), "aws")
            assert known_ms is not None and 20_000 <= known_ms <= 40_000
            rig.aws.boots_s = {"us-east-1a": 900, "us-east-1b": 10}
            row = await rig.put(a_workload("job"))
            await rig.until(row.id, WorkloadPhase.RUNNING, limit_s=75)

    run_virtual(main())


def test_two_orders_that_fail_leave_both_reasons() -> None:
    async def main() -> None:
        async with a_rig() as rig:
            rig.aws.boots_s = {"us-east-1a": 3600}
            rig.aws.full("us-east-1b", "us-west-2a", text="no room")
            rig.gcp.full("")
            row = await rig.put(a_workload("cluster"))
            await rig.until(row.id, WorkloadPhase.RUNNING, WorkloadPhase.FINISHED, limit_s=4000)
            claims = await rig.store.load_claims(since_ms=0)
            live = [claim for claim in claims if claim.phase is not ClaimPhase.GONE]
            assert len(live) <= 2 and rig.aws.asked[:2] == ["g1 us-east-1a", "g1 us-east-1b"]

    run_virtual(main())


def test_few_starts_say_nothing() -> None:
    memory = Memory()
    took: list[Any] = []
    for number in range(1, 11):
        memory = note_start(memory, "aws", 1000 * number)
        took.append(typical_start_ms(memory, "aws"))
    assert took[:3] == [None, None, 3000] and took[-1] == 9000
    assert typical_start_ms(memory, "gcp") is None

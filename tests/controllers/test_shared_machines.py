"""A fraction asked of a place that rents whole devices: managed jobs of one owner share a machine, which goes
when the last of them has left."""

from __future__ import annotations

import asyncio
import random
from collections import Counter
from typing import Any

import msgspec
import pytest
from rented_rig import Rig, a_rig

from argosy.model.kinds.job import job_state
from argosy.model.phases import Desired, Outcome, WorkloadPhase
from argosy.model.resources import Resources
from argosy.model.rows import Claim, Workload
from argosy.model.scheduling import Isolation, Scheduling
from argosy.model.task import FileMount
from argosy.model.units import GIB, Bound
from argosy.testing.builders import a_job, a_task, want_gpus
from argosy.testing.virtual_time import run_virtual


def a_part(number: int, work_s: int = 60, milli: int = 250, **more: Any) -> Workload:
    task = a_task(run=f"sim work_s={work_s}", **{"resources": (want_gpus(milli),), **more})
    return a_job(managed=True, host_id=None, id=f"job-{number}", number=number, task=task)


async def running(rig: Rig, *rows: Workload) -> None:
    for row in rows:
        await rig.put(row)
    for row in rows:
        await rig.until(row.id, WorkloadPhase.RUNNING)


async def claims_of(rig: Rig) -> list[Claim]:
    return sorted(await rig.store.load_claims(since_ms=0), key=lambda claim: claim.id)


async def shares_of(rig: Rig, *ids: str) -> list[tuple[str, int, int, int]]:
    """(node, device, milli, bytes of its memory) of each job."""
    rows, found = await rig.store.snapshot(), []
    for id in ids:
        attempt = rows.attempt_of(id)
        assert attempt is not None, id
        (place,) = attempt.placements
        (share,) = place.devices
        found.append((place.node_id, share.index, share.milli, share.memory_bytes))
    return found


def test_four_quarters_share_one_rented_machine_and_the_fifth_gets_its_own() -> None:
    async def main() -> None:
        async with a_rig() as rig:
            jobs = [a_part(number, 30 * number) for number in range(1, 6)]
            await running(rig, *jobs)
            first, second = await claims_of(rig)
            assert (first.workload_id, first.guests) == ("job-1", ("job-2", "job-3", "job-4"))
            assert (second.workload_id, second.guests) == ("job-5", ())
            seats = await shares_of(rig, *(job.id for job in jobs))
            assert {seat[0] for seat in seats[:4]} == {seats[0][0]} != {seats[4][0]}
            assert {seat[1:] for seat in seats} == {(0, 250, 10 * GIB)}
            (said,) = await rig.events("job-3", "placed")
            assert said == "shares the machine of job 1 in aws us-east-1a"
            # Who ordered it has ended: it stays for the others, and goes with the last of them.
            await rig.until("job-3", WorkloadPhase.FINISHED)
            ended = await rig.until("job-1", WorkloadPhase.FINISHED)
            (still,) = (await rig.store.snapshot()).claims_of("job-1")
            assert (still.left, still.desired, still.guests) == (True, Desired.RUN, ("job-4",))
            assert ended.outcome is Outcome.SUCCEEDED
            assert (await rig.until("job-4", WorkloadPhase.FINISHED)).outcome is Outcome.SUCCEEDED
            await rig.until("job-5", WorkloadPhase.FINISHED)
            for _ in range(60):
                await asyncio.sleep(1)
            assert not rig.aws.names_of_all()

    run_virtual(main())


def test_a_machine_that_runs_takes_more_while_it_has_room() -> None:
    async def main() -> None:
        async with a_rig() as rig:
            await running(rig, a_part(1, 600))
            await running(rig, a_part(2, 600, milli=500))
            await running(rig, a_part(3, 600, milli=500))  # a quarter is left
            assert [claim.guests for claim in await claims_of(rig)] == [("job-2",), ()]

    run_virtual(main())


@pytest.mark.parametrize(
    ("more", "why"),
    [
        ({"resources": (msgspec.structs.replace(want_gpus(250), ports=("8080",)),)}, "ports"),
        ({"scheduling": Scheduling(isolation=Isolation.HARDWARE)}, "a device of its own"),
        ({"file_mounts": (FileMount(target="~/data", source="./data", tree="t" * 64),)}, "other files"),
        ({"resources": (msgspec.structs.replace(want_gpus(250), disk_size_bytes=GIB),)}, "another disk"),
        ({"resources": (msgspec.structs.replace(want_gpus(250), memory=Bound(80 * GIB)),)}, "memory"),
    ],
)
def test_who_could_disturb_a_neighbour_gets_a_machine_of_its_own(more: dict[str, Any], why: str) -> None:
    async def main() -> None:
        async with a_rig() as rig:
            wish: Resources = msgspec.structs.replace(want_gpus(250), memory=Bound(8 * GIB))
            await running(rig, a_part(1, 900, resources=(wish,)), a_part(2, 900, **more))
            assert [claim.guests for claim in await claims_of(rig)] == [(), ()], why

    run_virtual(main())


def test_jobs_of_somebody_else_share_nothing() -> None:
    async def main() -> None:
        async with a_rig() as rig:
            await running(rig, a_part(1, 900), msgspec.structs.replace(a_part(2, 900), user="ben"))
            assert [claim.guests for claim in await claims_of(rig)] == [(), ()]

    run_virtual(main())


def test_all_who_shared_a_lost_machine_go_on_together_on_another() -> None:
    async def main() -> None:
        async with a_rig() as rig:
            jobs = [a_part(number, 300) for number in range(1, 4)]
            await running(rig, *jobs)
            (lost,) = await claims_of(rig)
            rig.aws.preempt(lost.id)
            for job in jobs:
                row = await rig.until(job.id, WorkloadPhase.FINISHED)
                assert (row.outcome, job_state(row).recoveries) == (Outcome.SUCCEEDED, 1)
            first, second = await claims_of(rig)
            assert {second.workload_id, *second.guests} <= {"job-1", "job-2", "job-3"}
            assert (first.guests, second.left) == ((), True)
            assert not rig.world.violations

    run_virtual(main())


def test_a_refused_order_takes_those_who_wait_for_it_to_the_next_place() -> None:
    async def main() -> None:
        async with a_rig() as rig:
            rig.aws.full("us-east-1a")
            await running(rig, a_part(1, 300), a_part(2, 300))
            rows = await rig.store.snapshot()
            (claim,) = [each for each in rows.claims.values() if each.desired is Desired.RUN]
            assert claim.choice.offer.zone != "us-east-1a"
            assert {claim.workload_id, *claim.guests} == {"job-1", "job-2"}

    run_virtual(main())


def test_who_is_cancelled_leaves_the_others_alone() -> None:
    async def main() -> None:
        async with a_rig() as rig:
            await running(rig, a_part(1, 100), a_part(2, 100))
            row = await rig.store.load("job-1")
            assert isinstance(row, Workload)
            await rig.put(msgspec.structs.replace(row, desired=Desired.END))
            await rig.until("job-1", WorkloadPhase.FINISHED)
            done = await rig.until("job-2", WorkloadPhase.FINISHED)
            assert (done.outcome, job_state(done).recoveries) == (Outcome.SUCCEEDED, 0)

    run_virtual(main())


# -- whatever happens ----------------------------------------------------------------------------------------


async def overfull(rig: Rig) -> list[str]:
    """Devices of which more is given out than there is, and jobs that ran twice at once."""
    rows = await rig.store.snapshot()
    held: Counter[tuple[str, int]] = Counter()
    for attempt in rows.attempts.values():
        for place in attempt.placements:
            held.update({(place.node_id, share.index): share.milli for share in place.devices})
    return [f"{device}: {milli}" for device, milli in held.items() if milli > 1000]


async def weather(rig: Rig, dice: random.Random, jobs: list[Workload]) -> set[str]:
    """Losses, refusals, cancellations and servers that go, for some minutes; who was cancelled."""
    cancelled: set[str] = set()
    for _ in range(24):
        await asyncio.sleep(dice.uniform(1, 40))
        match dice.choice(("lose", "lose", "cancel", "full", "free", "restart")):
            case "lose":
                if there := sorted(rig.aws.names_of_all()):
                    rig.aws.preempt(dice.choice(there))
            case "cancel" if len(cancelled) < 3:
                row = await rig.store.load(dice.choice(jobs).id)
                if isinstance(row, Workload) and row.is_live:
                    cancelled.add(row.id)
                    await rig.put(msgspec.structs.replace(row, desired=Desired.END))
            case "full":
                rig.aws.full(dice.choice(("us-east-1a", "us-east-1b", "us-west-2a")))
            case "restart":
                await rig.stop()
                await asyncio.sleep(dice.uniform(0, 5))
                rig.start()
            case _:
                rig.aws.says.clear()
        assert not await overfull(rig)
    rig.aws.says.clear()
    return cancelled


def lives_through(seed: int) -> None:
    async def main() -> None:
        dice = random.Random(seed)
        async with a_rig() as rig:
            jobs = [
                a_part(number, dice.randrange(20, 400), milli=dice.choice((125, 250, 500)))
                for number in range(1, 9)
            ]
            for job in jobs:
                await rig.put(job)
                await asyncio.sleep(dice.choice((0, 0, 30)))
            cancelled = await weather(rig, dice, jobs)
            for job in jobs:
                row = await rig.until(job.id, WorkloadPhase.FINISHED, limit_s=7200)
                assert job.id in cancelled or row.outcome is Outcome.SUCCEEDED, f"seed {seed}: {row}"
            for _ in range(120):
                await asyncio.sleep(1)
            left = (await rig.store.snapshot()).claims
            assert not rig.aws.names_of_all() and not rig.world.machines and not left, f"seed {seed}: {left}"
            assert not rig.world.violations, f"seed {seed}: {rig.world.violations[0].render()}"

    run_virtual(main(), seed)


@pytest.mark.parametrize("seed", range(4))
def test_nothing_is_lost_or_left_whatever_happens(seed: int) -> None:
    lives_through(seed)


@pytest.mark.nightly
@pytest.mark.parametrize("seed", range(100, 160))
def test_nothing_is_lost_or_left_at_night(seed: int) -> None:
    lives_through(seed)

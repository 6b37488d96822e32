"""Failover over the rows of the catalog, with the real shell in virtual time: in which order places are
asked, what people are told meanwhile, and what is left behind."""

from __future__ import annotations

import asyncio
from typing import Any

import msgspec
from rented_rig import AWS, GPU, NO, a_rig

from argosy.controllers.cluster.decide import decide
from argosy.controllers.failover import told_refusals
from argosy.controllers.observed import Facts
from argosy.controllers.pool.pictures import Picture
from argosy.controllers.view import Policy, Put, View, WakeAt
from argosy.infra import border
from argosy.model.offer import Capacity, Confirmed, Tried
from argosy.model.phases import ClaimPhase, Outcome, WorkloadPhase
from argosy.model.reasons import Reason
from argosy.model.resources import Infra
from argosy.model.rows import Workload
from argosy.model.units import GIB
from argosy.planning import Ability
from argosy.planning.availability import penalty
from argosy.store import Snapshot
from argosy.testing.builders import a_choice, a_claim, a_cluster, a_job, a_task, an_offer, changed, want_gpus
from argosy.testing.rented import a_block
from argosy.testing.virtual_time import EPOCH_MS, run_virtual


def a_gpu_cluster(**fields: Any) -> Workload:
    wish = msgspec.structs.replace(GPU, infra=Infra(provider=fields.pop("provider", None)))
    return a_cluster(resources=(wish,), **fields)


def a_gpu_job(**fields: Any) -> Workload:
    task = a_task(run="sim work_s=60", resources=(GPU,))
    return a_job(managed=True, host_id=None, task=task, **fields)


def test_other_zones_and_regions_of_about_the_same_price_then_dearer_types_then_providers() -> None:
    async def main() -> None:
        async with a_rig() as rig:
            rig.aws.full("us-east-1a", "us-east-1b", "us-west-2a", text=NO)
            row = await rig.put(a_gpu_cluster())
            row = await rig.until(row.id, WorkloadPhase.RUNNING)
            asked = [*rig.aws.asked, *rig.gcp.asked]
            assert asked == [
                "g1 us-east-1a", "g1 us-west-2a", "g1 us-east-1b", "g1.large us-east-1a", "a2 us-central1-a",
            ]  # fmt: skip
            assert await rig.events(row.id) == [
                f"aws us-east-1a: {NO}, trying us-west-2a",
                f"aws us-west-2a: {NO}, trying us-east-1b",
                f"aws us-east-1b: {NO}, trying g1.large in us-east-1a",
                f"aws us-east-1a: {NO}, trying a2 in gcp us-central1-a",
            ]
            assert [each.text for each in row.status.tried] == [NO] * 4
            assert row.detail == ""

    run_virtual(main())


def test_while_it_waits_the_place_and_the_reason_are_shown() -> None:
    async def main() -> None:
        async with a_rig() as rig:
            rig.aws.full("us-east-1a", text=NO)
            cluster = await rig.put(a_gpu_cluster())
            job = await rig.put(a_job(host_id=cluster.id))
            seen: set[str] = set()
            for _ in range(400):
                rows = await rig.store.snapshot()
                now_ms = rig.world.clock.now_ms()
                if job.id not in rows.workloads:
                    break
                pending = Picture(rig.shell.view(rows)).pending(rows, rows.workloads[job.id], now_ms)
                seen.add(pending.text if pending is not None else "")
                await asyncio.sleep(0.25)
            assert f"waits for the cluster: aws us-east-1a: {NO}, trying us-west-2a" in seen

    run_virtual(main())


def test_when_nothing_is_left_all_places_are_told_with_reason_and_time() -> None:
    async def main() -> None:
        async with a_rig() as rig:
            rig.aws.full("", text=NO)
            rig.gcp.says[""] = lambda: border.QuotaExceeded("NVIDIA_A100_GPUS in us-central1", "0")
            row = await rig.put(a_gpu_cluster())
            row = await rig.until(row.id, WorkloadPhase.FINISHED)
            assert (row.outcome, row.reason) == (Outcome.FAILED, Reason.OUT_OF_CAPACITY)
            text = row.detail
            for part in (
                f"{NO} in aws us-east-1a g1, ", "us-west-2a g1", "us-east-1a g1.large",
                "quota NVIDIA_A100_GPUS in us-central1 is exhausted (limit 0) in gcp us-central1-a",
                " UTC)",
            ):  # fmt: skip
                assert part in text
            assert len(row.status.tried) == 5 and all(each.at_ms for each in row.status.tried)
            assert len(rig.aws.asked) == 4 and len(rig.gcp.asked) == 1

    run_virtual(main())


def test_a_failover_never_costs_more_than_was_confirmed() -> None:
    async def main() -> None:
        async with a_rig() as rig:
            rig.aws.full("us-east-1a", "us-east-1b", "us-west-2a", text=NO)
            row = a_gpu_cluster()
            confirmed = Confirmed(max_hourly_micro_usd=3_200_000)
            row = await rig.put(changed(row, spec=msgspec.structs.replace(row.spec, confirmed=confirmed)))
            row = await rig.until(row.id, WorkloadPhase.FINISHED)
            assert {price for _, price in await rig.places()} == {3_000_000, 3_100_000}
            assert rig.gcp.asked == [] and len(rig.aws.asked) == 3
            assert "at most $3.20/h" in row.detail and "costs $3.40/h now" in row.detail

    run_virtual(main())


def test_prices_that_rise_while_places_refuse_keep_to_the_confirmed_one() -> None:
    async def main() -> None:
        async with a_rig() as rig:
            rig.aws.full("us-east-1a", text=NO)
            row = a_gpu_cluster()
            confirmed = Confirmed(max_hourly_micro_usd=3_000_000)
            rig.prices.replace(a_block("aws", [AWS[0], AWS[1]._replace(usd=3.5)]))
            row = await rig.put(changed(row, spec=msgspec.structs.replace(row.spec, confirmed=confirmed)))
            await rig.until(row.id, WorkloadPhase.FINISHED)
            assert await rig.places() == [("us-east-1a", 3_000_000)]

    run_virtual(main())


def test_a_quota_is_not_asked_for_again_in_its_region() -> None:
    async def main() -> None:
        async with a_rig() as rig:
            rig.aws.says["us-east-1"] = lambda: border.QuotaExceeded("G instances", "0")
            row = await rig.put(a_gpu_cluster())
            await rig.until(row.id, WorkloadPhase.RUNNING)
            assert [place for place in rig.aws.asked if place.startswith("g1 us-east")] == ["g1 us-east-1a"]
            assert rig.aws.asked[-1] == "g1 us-west-2a"

    run_virtual(main())


def test_credentials_that_are_rejected_leave_the_other_providers() -> None:
    async def main() -> None:
        async with a_rig() as rig:
            rig.aws.says[""] = lambda: border.CredentialsRejected("the token has expired")
            row = await rig.put(a_gpu_cluster())
            await rig.until(row.id, WorkloadPhase.RUNNING)
            assert len(rig.aws.asked) == 1 and rig.gcp.asked == ["a2 us-central1-a"]
            rig.gcp.says[""] = lambda: border.CredentialsRejected("no key")
            other = await rig.until((await rig.put(a_gpu_cluster(name="d"))).id, WorkloadPhase.FINISHED)
            assert (
                other.reason is Reason.CREDENTIALS
                and "has expired" in other.detail
                and "no key" in other.detail
            )

    run_virtual(main())


def test_a_wrong_request_is_not_repeated_elsewhere() -> None:
    async def main() -> None:
        async with a_rig() as rig:
            rig.aws.says[""] = lambda: border.RequestRefused("image_id", "the AMI has the wrong architecture")
            row = await rig.until((await rig.put(a_gpu_cluster())).id, WorkloadPhase.FINISHED)
            assert row.reason is Reason.PROVIDER_REFUSED and "wrong architecture" in row.detail
            assert len(rig.aws.asked) == 1 and rig.gcp.asked == []

    run_virtual(main())


def test_a_managed_job_goes_through_all_places_at_once_and_then_again_after_a_while() -> None:
    async def main() -> None:
        async with a_rig() as rig:
            rig.aws.full("", text=NO)
            rig.gcp.full("", text="STOCKOUT")
            row = await rig.put(a_gpu_job())
            await asyncio.sleep(45)
            first = [*rig.aws.asked, *rig.gcp.asked]
            assert len(first) >= 5 and len(set(first[:4])) == 4
            now = await rig.store.load(row.id)
            assert isinstance(now, Workload) and now.phase in (
                WorkloadPhase.RECOVERING, WorkloadPhase.STARTING,
            )  # fmt: skip
            assert {each.text for each in now.status.tried} == {NO, "STOCKOUT"}
            rig.aws.says.clear()
            row = await rig.until(row.id, WorkloadPhase.FINISHED)
            assert row.outcome is Outcome.SUCCEEDED
            await asyncio.sleep(30)
            claims = await rig.store.load_claims(since_ms=0)
            assert all(claim.phase is ClaimPhase.GONE for claim in claims)
            assert not rig.aws.names_of_all() and not rig.gcp.names_of_all()

    run_virtual(main())


def test_what_was_refused_comes_last_in_the_next_plan() -> None:
    async def main() -> None:
        async with a_rig() as rig:
            rig.aws.full("us-east-1a", text=NO)
            first = await rig.put(a_gpu_cluster(provider="aws"))
            await rig.until(first.id, WorkloadPhase.RUNNING)
            memory = rig.shell.refusals()
            refused = next(
                claim.choice
                for claim in await rig.store.load_claims(since_ms=0)
                if claim.reason is Reason.OUT_OF_CAPACITY
            )
            assert penalty(memory, refused, rig.world.clock.now_ms()) > 0.9
            rig.aws.asked.clear()
            second = await rig.put(a_gpu_cluster(name="other"))
            await rig.until(second.id, WorkloadPhase.RUNNING)
            assert rig.aws.asked == ["g1 us-west-2a"]  # another zone of the same region is doubted, too

    run_virtual(main())


def test_places_that_say_the_same_are_told_together() -> None:
    tried = [
        Tried(provider="aws", zone=f"us-east-1{zone}", text=f"{NO}.", at_ms=1000 * second)
        for zone, second in (("a", 0), ("b", 61), ("c", 3600))
    ]
    other = Tried(provider="gcp", region="r", text="STOCKOUT", at_ms=5000)
    assert told_refusals([*tried, other]) == (
        f"{NO} in aws us-east-1a, us-east-1b, us-east-1c (00:00:00 to 01:00:00 UTC); "
        "STOCKOUT in gcp r (00:00:05 UTC)"
    )
    many = [msgspec.structs.replace(tried[0], zone=f"z{number}") for number in range(9)]
    assert "z5 and 3 more" in told_refusals(many)


def test_a_fraction_gets_its_part_of_the_machine_that_was_rented() -> None:
    async def main() -> None:
        async with a_rig() as rig:
            task = a_task(run="sim work_s=60", resources=(want_gpus(250),))
            row = await rig.put(a_job(managed=True, host_id=None, task=task))
            await rig.until(row.id, WorkloadPhase.RUNNING)
            rows = await rig.store.snapshot()
            attempt = rows.attempt_of(row.id)
            assert attempt is not None
            (share,) = attempt.placements[0].devices
            assert (share.milli, share.memory_bytes) == (250, 10 * GIB)
            (claim,) = rows.claims_of(row.id)
            assert (claim.choice.accelerators_milli, claim.choice.price_micro_usd) == (1000, 3_000_000)
            await rig.until(row.id, WorkloadPhase.FINISHED)

    run_virtual(main())


def test_a_server_that_has_just_begun_waits_for_what_providers_say_before_it_gives_up() -> None:
    """It was killed between a refusal and the next order: nobody has told it yet what there is."""
    cluster = a_gpu_cluster(phase=WorkloadPhase.STARTING, provider="far")
    choice = a_choice(offer=an_offer(provider="far", capacity=Capacity.ON_DEMAND))
    claim = a_claim(
        workload_id=cluster.id, phase=ClaimPhase.RELEASING, reason=Reason.OUT_OF_CAPACITY, choice=choice
    )
    view = View(
        now_ms=EPOCH_MS, rows=Snapshot.of([cluster, claim]), observed=Facts(), offers=[],
        abilities={"far": Ability(multi_node=True)}, policy=Policy(), silent=frozenset({"far"}),
    )  # fmt: skip
    noted, wakes = decide(view, cluster, lambda prefix: f"{prefix}-1")
    assert isinstance(noted, Put) and isinstance(noted.row, Workload)
    assert noted.row.phase is WorkloadPhase.STARTING and len(noted.row.status.tried) == 1
    assert isinstance(wakes, WakeAt) and wakes.at_ms == EPOCH_MS + 1000
    told = msgspec.structs.replace(view, silent=frozenset())
    rows = [each.row for each in decide(told, cluster, lambda prefix: f"{prefix}-1") if isinstance(each, Put)]
    assert [row.phase for row in rows if isinstance(row, Workload)] == [WorkloadPhase.FINISHED]

"""Objectives: what ranks first, by which knowledge, and the sentence that says so."""

from __future__ import annotations

import msgspec
import pytest

from argosy.model.offer import Capacity, Choice, Offer, Shape
from argosy.model.resources import Resources
from argosy.planning.objective import Known, Objective, Run, rank_by, runtime_of, watts_of

HOUR = 3600


def gpu(model: str, dollars: int, count: int = 8, provider: str = "aws", region: str = "us-east-1") -> Choice:
    shape = Shape(
        instance_type=f"{model.lower()}-box",
        cpus_milli=100_000,
        accelerator=model,
        accelerators_milli=count * 1000,
    )
    offer = Offer(
        provider=provider,
        region=region,
        shape=shape,
        capacity=Capacity.ON_DEMAND,
        price_micro_usd=dollars * 1_000_000,
    )
    return Choice(
        offer=offer, resources=Resources(), cpus_milli=shape.cpus_milli, memory_bytes=0, accelerator=model,
        accelerators_milli=count * 1000, price_micro_usd=dollars * 1_000_000,
    )  # fmt: skip


A100, H100, L4 = gpu("A100", 32), gpu("H100", 60, provider="gcp", region="us-central1"), gpu("L4", 8)
RUN = Run(accelerator="A100", accelerators_milli=8000, duration_s=6 * HOUR)
SPEEDS = {"A100": 312.0, "H100": 989.0}


def first(objective: Objective, known: Known, *choices: Choice) -> tuple[str | None, str]:
    ranking = rank_by(objective, choices, 1, known)
    return ranking.ranked[0].choice.accelerator, ranking.text


def test_measured_runs_beat_scaled_ones_and_those_the_estimate() -> None:
    known = Known(
        estimated_s=9 * HOUR,
        runs=(RUN, RUN, Run(accelerator="A100", accelerators_milli=8000, duration_s=60 * HOUR)),
        speeds=SPEEDS,
    )
    found = [runtime_of(choice, 1, known) for choice in (A100, H100, L4)]
    assert [each.basis for each in found] == ["measured", "scaled", "estimate"]
    assert found[0].seconds == 6 * HOUR, "the median: one slow run changes nothing"
    assert found[1].seconds == pytest.approx(6 * HOUR * 312 / 989, abs=1)
    assert found[2].seconds == 9 * HOUR
    assert runtime_of(L4, 1, Known()).seconds is None


def test_a_run_on_other_nodes_is_scaled_by_all_devices() -> None:
    known = Known(
        runs=(Run(accelerator="A100", accelerators_milli=8000, num_nodes=2, duration_s=HOUR),), speeds=SPEEDS
    )
    assert runtime_of(A100, 1, known).seconds == 2 * HOUR


def test_the_faster_machine_may_cost_less_in_total() -> None:
    known = Known(runs=(RUN,), speeds=SPEEDS)
    assert first(Objective.COST, known, A100, H100) == (
        "H100",
        "gcp/us-central1 h100-box (on-demand): $113.57 for 1h 53m, scaled from earlier runs on other "
        "accelerators; next is "
        "aws/us-east-1 a100-box (on-demand) at $192.00 (+69%)",
    )


def test_without_a_runtime_cost_is_by_the_hour() -> None:
    assert first(Objective.COST, Known(), A100, H100) == (
        "A100",
        "aws/us-east-1 a100-box (on-demand): $32.00/h; next is gcp/us-central1 h100-box (on-demand) at "
        "$60.00/h (+88%)",
    )


def test_time() -> None:
    assert first(Objective.TIME, Known(runs=(RUN,), speeds=SPEEDS), A100, H100) == (
        "H100",
        "gcp/us-central1 h100-box (on-demand): 1h 53m, scaled from earlier runs on other accelerators; "
        "next is "
        "aws/us-east-1 a100-box (on-demand) with 6h",
    )
    assert first(Objective.TIME, Known(estimated_s=HOUR), A100, L4) == (
        "L4",
        "aws/us-east-1 l4-box (on-demand): 1h, by your estimate; no choice is known to be faster than "
        "another, so the "
        "cheapest is first",
    )
    assert first(Objective.TIME, Known(), A100, L4)[1] == (
        "aws/us-east-1 l4-box (on-demand): nothing is known of how long the task runs, so the cheapest is "
        "first"
    )


def test_an_unknown_time_is_behind_every_known_one() -> None:
    ranking = rank_by(Objective.TIME, [L4, A100], 1, Known(runs=(RUN,)))
    assert [each.choice.accelerator for each in ranking.ranked] == ["A100", "L4"]


def test_carbon_is_power_times_grid() -> None:
    known = Known(
        estimated_s=10 * HOUR,
        watts={"A100": 400.0, "H100": 700.0},
        carbon_g_per_kwh={("aws", "us-east-1"): 400.0, ("gcp", "us-central1"): 100.0},
    )
    assert watts_of(A100, 1, known) == pytest.approx((100 * 4 + 8 * 400) * 1.2)
    assert watts_of(L4, 1, known) is None
    assert first(Objective.CARBON, known, A100, H100, L4) == (
        "H100",
        "gcp/us-central1 h100-box (on-demand): ~7,200 g CO2; not known for 1 of 3 choices (no power of L4)",
    )
    assert first(Objective.CARBON, Known(), A100)[1] == (
        "aws/us-east-1 a100-box (on-demand): the carbon of no choice is known (no figure for the grid of "
        "aws/us-east-1), "
        "so the cheapest is first"
    )
    everywhere = msgspec.structs.replace(known, carbon_g_per_kwh={("aws", ""): 50.0})
    assert first(Objective.CARBON, everywhere, A100, H100)[1] == (
        "aws/us-east-1 a100-box (on-demand): ~2,160 g CO2; not known for 1 of 2 choices (no figure for the "
        "grid of gcp/us-central1)"
    )


def test_nothing_fits() -> None:
    assert rank_by(Objective.COST, [], 1, Known()).text == "nothing fits"

"""Side by side: rows and cells."""

from __future__ import annotations

from argosy.model.offer import Capacity, Choice, Offer, Shape
from argosy.model.resources import Resources
from argosy.pages.comparison import HEADINGS, render_cells
from argosy.planning.compare import compare
from argosy.planning.outlook import DeadlineAsk

HOUR = 3600


def at(
    dollars: int, capacity: Capacity, provider: str = "aws", kind: str = "p4d", *, estimated: bool = False
) -> Choice:
    offer = Offer(
        provider=provider, region="r1", shape=Shape(instance_type=kind), capacity=capacity,
        price_micro_usd=dollars * 1_000_000, estimated=estimated,
    )  # fmt: skip
    return Choice(
        offer=offer, resources=Resources(), cpus_milli=0, memory_bytes=0, price_micro_usd=dollars * 1_000_000
    )


CHOICES = [
    at(32, Capacity.ON_DEMAND),
    at(40, Capacity.ON_DEMAND, "gcp"),
    at(10, Capacity.SPOT, estimated=True),
    at(0, Capacity.OWNED, "ssh", ""),
]


def test_one_row_for_each_capacity_cheapest_first() -> None:
    rows = compare(CHOICES)
    assert [(row.kind, row.price_micro_usd) for row in rows] == [
        ("owned", 0), ("spot", 10_000_000), ("on-demand", 32_000_000)
    ]  # fmt: skip
    assert [render_cells(row) for row in rows] == [
        ("owned", "ssh/r1", "-", "1", "$0", "-", "-", "-", "-", "100%"),
        ("spot", "aws/r1", "p4d", "1", "~$10.00", "-", "-", "-", "-", "69%"),
        ("on-demand", "aws/r1", "p4d", "1", "$32.00", "-", "-", "-", "-", "-"),
    ]
    assert all(len(render_cells(row)) == len(HEADINGS) for row in rows)


def test_totals_count_what_losses_cost() -> None:
    ask = DeadlineAsk(deadline_s=12 * HOUR, estimated_s=10 * HOUR, start_s=0)
    rows = {row.kind: row for row in compare(CHOICES, ask=ask, hazard=lambda choice: 0.1)}
    assert render_cells(rows["on-demand"])[5:] == ("$320.00", "10h", "0.0", "100%", "-")
    assert render_cells(rows["spot"])[5:] == ("$104.25", "10h 25m", "1.0", "99.4%", "67%")


def test_a_horizon_is_no_deadline() -> None:
    ask = DeadlineAsk(deadline_s=10**9, estimated_s=HOUR)
    assert {row.in_time for row in compare(CHOICES, ask=ask, deadline_given=False)} == {None}


def test_spot_that_is_dearer_is_told_as_it_is() -> None:
    rows = compare([at(10, Capacity.ON_DEMAND), at(12, Capacity.SPOT)])
    assert render_cells(rows[1])[-1] == "-20%"


def test_nothing_to_compare_is_no_row() -> None:
    assert compare([]) == ()

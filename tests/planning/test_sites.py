"""Sites at the edge: names, links, latencies and power of owned places as constraints."""

from __future__ import annotations

import pytest

from argosy.model.areas import Where
from argosy.model.offer import Capacity, Offer, Shape
from argosy.model.resources import Edge, Resources
from argosy.planning.ability import Ability
from argosy.planning.choose import plan

SITE = Where(location="Plant-3", bandwidth_kbps=100_000, latency_us=8_000, power_mw=60_000)
ATLAS = {("ssh", "pool-a"): SITE}
OFFERS = [
    Offer(
        provider="ssh",
        region=region,
        shape=Shape(cpus_milli=8000),
        capacity=Capacity.OWNED,
        price_micro_usd=0,
    )
    for region in ("pool-a", "pool-b")
]
ABLE = {"ssh": Ability(owned=True)}


def told(wish: Resources) -> tuple[list[str], list[tuple[str, str, str]]]:
    made = plan([wish], 1, OFFERS, abilities=ABLE, atlas=ATLAS)
    return (
        [choice.offer.region for choice in made.choices],
        [(each.region, each.code, each.text) for each in made.rejected],
    )


@pytest.mark.parametrize("location", ["plant-3", "PLANT-3", "pool-a", "ssh/pool-a"])
def test_a_site_has_the_name_that_it_was_given_and_its_own(location: str) -> None:
    fits, refused = told(Resources(location=location))
    assert fits == ["pool-a"]
    assert refused == [("pool-b", "location", f"is not at {location}")]


def test_a_site_that_is_another_says_which() -> None:
    assert told(Resources(location="plant-9"))[1] == [
        ("pool-a", "location", "is at Plant-3, not at plant-9"),
        ("pool-b", "location", "is not at plant-9"),
    ]


@pytest.mark.parametrize(
    ("edge", "known", "unknown"),
    [
        (
            Edge(bandwidth_kbps=1_000_000),
            "its link has 100 Mbps, `edge_config` asks for 1 Gbps",
            "its link is not known, `edge_config` asks for 1 Gbps",
        ),
        (
            Edge(latency_us=5_000),
            "answers in 8 ms, `edge_config` asks for at most 5 ms",
            "its latency is not known, `edge_config` asks for at most 5 ms",
        ),
        (
            Edge(power_mw=15_000),
            "draws 60 W, `edge_config` allows 15 W",
            "its power is not known, `edge_config` allows 15 W",
        ),
    ],
)
def test_limits_are_promises(edge: Edge, known: str, unknown: str) -> None:
    fits, refused = told(Resources(edge=edge))
    assert fits == []
    assert refused == [("pool-a", "edge", known), ("pool-b", "edge", unknown)]


def test_what_the_site_can_do_is_enough() -> None:
    fits, _ = told(Resources(edge=Edge(bandwidth_kbps=100_000, latency_us=8_000, power_mw=60_000)))
    assert fits == ["pool-a"]

"""Availability memory: what a refusal lowers, for how long, and that nothing is ever lost."""

from __future__ import annotations

from collections import Counter

from hypothesis import given
from hypothesis import strategies as st

from argosy.model.offer import Capacity, Choice, Offer, Shape
from argosy.model.resources import Accelerator, Resources
from argosy.planning.availability import (
    Memory,
    Refusal,
    forgive,
    order_for_failover,
    penalty,
    refusal_of,
    remember,
    standing,
    weight_at,
)

MINUTE = 60_000
NOW = 1_800_000_000_000


def at(
    provider: str = "aws", region: str = "r1", zone: str = "a", kind: str = "p4d", price: int = 100, *, spot: bool = True,  # noqa: E501
    wish: Resources | None = None,
) -> Choice:  # fmt: skip
    offer = Offer(
        provider=provider, region=region, zone=zone, shape=Shape(instance_type=kind),
        capacity=Capacity.SPOT if spot else Capacity.ON_DEMAND, price_micro_usd=price,
    )  # fmt: skip
    return Choice(
        offer=offer, resources=wish or Resources(), cpus_milli=0, memory_bytes=0, price_micro_usd=price
    )


def told(*choices: Choice, at_ms: int = NOW) -> Memory:
    memory = Memory()
    for choice in choices:
        memory = remember(memory, refusal_of(choice, at_ms))
    return memory


choices = st.lists(
    st.builds(
        at,
        st.sampled_from(["aws", "gcp"]),
        st.sampled_from(["r1", "r2"]),
        st.sampled_from(["", "a", "b"]),
        st.sampled_from(["p4d", "p5"]),
        st.integers(0, 300),
        spot=st.booleans(),
    ),
    max_size=12,
)
memories = st.lists(
    st.builds(
        Refusal,
        provider=st.sampled_from(["aws", "gcp"]),
        region=st.sampled_from(["", "r1", "r2"]),
        zone=st.sampled_from(["", "a", "b"]),
        instance_type=st.sampled_from(["", "p4d", "p5"]),
        spot=st.booleans(),
        at_ms=st.integers(NOW - 100 * MINUTE, NOW),
    ),
    max_size=8,
)


@given(choices=choices, refusals=memories, hedge=st.integers(0, 8), ordered=st.booleans())
def test_an_order_is_a_permutation_and_time_heals_everything(
    choices: list[Choice], refusals: list[Refusal], hedge: int, ordered: bool
) -> None:
    memory = Memory()
    for each in sorted(refusals, key=lambda r: r.at_ms):
        memory = remember(memory, each)
    now = order_for_failover(choices, memory, NOW, hedge=hedge, ordered=ordered)
    assert Counter(map(id, now)) == Counter(map(id, choices))
    later = NOW + 200 * MINUTE
    calm = order_for_failover(choices, Memory(), NOW, hedge=hedge, ordered=ordered)
    assert order_for_failover(choices, memory, later, hedge=hedge, ordered=ordered) == calm
    assert order_for_failover(choices, memory, later, hedge=1) == choices


@given(choices=choices, refusals=memories)
def test_what_is_refused_more_is_never_before_what_is_not_refused(
    choices: list[Choice], refusals: list[Refusal]
) -> None:
    memory = Memory()
    for each in sorted(refusals, key=lambda r: r.at_ms):
        memory = remember(memory, each)
    found = order_for_failover(choices, memory, NOW)
    asked = [any(_is_here(each, choice) for each in standing(memory, NOW)) for choice in found]
    assert asked == sorted(asked)
    calm = order_for_failover(choices, Memory(), NOW)
    clean = [choice for choice in calm if penalty(memory, choice, NOW) == 0]
    assert len(clean) < len(choices) or [id(each) for each in found] == [id(each) for each in calm]


def _is_here(refusal: Refusal, choice: Choice) -> bool:
    """Whether a refusal speaks of exactly this place."""
    offer = choice.offer
    return (
        refusal.provider == offer.provider
        and refusal.spot == (offer.capacity is Capacity.SPOT)
        and refusal.region in ("", offer.region)
        and refusal.instance_type in ("", offer.shape.instance_type)
        and (not refusal.zone or not offer.zone or refusal.zone == offer.zone)
    )


def test_a_neighbour_of_a_refused_zone_comes_before_what_costs_much_more() -> None:
    memory = told(at(zone="a"))
    listed = [at(zone="a"), at(zone="b"), at(region="r2", price=105), at("gcp", price=200)]
    found = order_for_failover(listed, memory, NOW)
    assert [(each.offer.provider, each.offer.region, each.offer.zone) for each in found] == [
        ("aws", "r2", "a"), ("aws", "r1", "b"), ("gcp", "r1", "a"), ("aws", "r1", "a"),
    ]  # fmt: skip


def test_a_refusal_lowers_its_zone_most_its_region_less_and_others_not() -> None:
    memory = told(at(zone="a"))
    against = [
        penalty(memory, choice, NOW)
        for choice in (at(zone="a"), at(zone="b"), at(region="r2"), at("gcp"), at(kind="p5"), at(spot=False))
    ]
    assert against == [1.0, 0.5, 0.0, 0.0, 0.0, 0.0]


def test_it_halves_and_goes() -> None:
    memory = told(at())
    assert [penalty(memory, at(), NOW + 10 * n * MINUTE) for n in range(5)] == [1.0, 0.5, 0.25, 0.125, 0.0]
    assert weight_at(memory.refusals[0], NOW - MINUTE, 600) == 1.0, "a clock that is behind"


def test_refusals_add_up_and_sink_lower() -> None:
    twice = told(at(zone="a"), at(zone="a"))
    assert penalty(twice, at(zone="a"), NOW) == 2.0 and len(twice.refusals) == 1
    often = remember(twice, refusal_of(at("gcp"), NOW))
    found = order_for_failover([at(zone="a"), at("gcp", price=101), at("azure", price=900)], often, NOW)
    assert [each.offer.provider for each in found] == ["azure", "gcp", "aws"]


def test_a_grant_takes_it_back() -> None:
    assert forgive(told(at(), at("gcp")), at()).refusals == told(at("gcp")).refusals


def test_the_whole_region_and_the_whole_provider_can_refuse() -> None:
    region = remember(Memory(), refusal_of(at(), NOW, scope="region"))
    provider = remember(Memory(), refusal_of(at(), NOW, scope="provider"))
    assert [penalty(region, choice, NOW) for choice in (at(zone="z"), at(region="r2"))] == [1.0, 0.0]
    assert [penalty(provider, choice, NOW) for choice in (at(zone="z"), at(region="r2"))] == [1.0, 1.0]


def test_the_first_attempts_differ_and_cost_about_the_same() -> None:
    listed = [
        at(zone="a", price=100),
        at(zone="b", price=100),
        at(zone="c", price=100),
        at(region="r2", price=105),
        at("gcp", price=109),
        at("azure", price=500),
    ]
    found = order_for_failover(listed, Memory(), NOW)
    assert [(each.offer.provider, each.offer.region, each.offer.zone) for each in found] == [
        ("aws", "r1", "a"),
        ("gcp", "r1", "a"),
        ("aws", "r2", "a"),
        ("aws", "r1", "b"),
        ("aws", "r1", "c"),
        ("azure", "r1", "a"),
    ]


def test_preference_is_kept_where_the_user_gave_one() -> None:
    first, second = (Resources(accelerator=Accelerator(model=m, milli=1000)) for m in ("H100", "A100"))
    listed = [at(zone="a", wish=first), at(zone="b", wish=first), at("gcp", wish=second)]
    assert order_for_failover(listed, Memory(), NOW, ordered=True) == listed
    assert order_for_failover(listed, Memory(), NOW)[1] is listed[2]


def test_the_memory_does_not_grow_without_end() -> None:
    memory = Memory()
    for n in range(50):
        memory = remember(memory, refusal_of(at(zone=str(n)), NOW + n * 60 * MINUTE))
    assert len(memory.refusals) == 1

"""The fast planner gives what the plain one gives."""

from __future__ import annotations

from itertools import islice

import pytest
from hypothesis import given
from hypothesis import strategies as st

from argosy.catalog.table import PriceRow, build_block, rows_of
from argosy.model.market import Market, Note, market_of
from argosy.model.offer import Capacity, Offer, Shape
from argosy.model.resources import Accelerator, Infra, LocalDisk, Resources
from argosy.model.units import GIB, Bound
from argosy.planning.ability import Ability
from argosy.planning.choose import plan
from argosy.planning.market import NOT_IN_USE, explain_none, rank

CLOUD = Ability(spot=True, multi_node=True, images=True)
NOTES = [Note(20000, "list"), Note(0, "guess", "x 2", True)]
KINDS = [
    # type, model, milli, device memory, cpus, memory
    ("c.small", "", 0, 0, 2000, 4),
    ("c.large", "", 0, 0, 8000, 32),
    ("m.large", "", 0, 0, 8000, 64),
    ("g.one", "L4", 1000, 24, 8000, 32),
    ("g.part", "L4", 500, 12, 4000, 16),
    ("g.four", "L4", 4000, 24, 48000, 192),
    ("a.one", "A100", 1000, 40, 12000, 85),
    ("a.eight", "A100", 8000, 40, 96000, 680),
    (
        "a.eight",
        "A100-80GB",
        8000,
        80,
        96000,
        1360,
    ),  # one type with two shapes, like hosts with attached devices
    ("h.eight", "H100", 8000, 80, 192000, 2048),
]


@st.composite
def price_rows(draw: st.DrawFn) -> PriceRow:
    name, model, milli, device, cpus, memory = draw(st.sampled_from(KINDS))
    region = draw(st.sampled_from(["east", "west", "north"]))
    disk = draw(st.sampled_from([0, 0, 250, 900])) * 10**9
    return PriceRow(
        name, model, milli, device * GIB, cpus, memory * GIB, disk,
        "arm64" if name in ("m.large", "a.one") else "x86_64",
        region, draw(st.sampled_from(["", f"{region}-a", f"{region}-b"])),
        draw(st.sampled_from([Capacity.ON_DEMAND, Capacity.SPOT])),
        draw(st.sampled_from([1, 2, 3, 3, 5, 8, 13])) * 1_000_000, draw(st.sampled_from(NOTES)),
    )  # fmt: skip


def one_each(rows: list[PriceRow]) -> list[PriceRow]:
    return list({(row.kind, row.region, row.zone, row.capacity): row for row in rows}.values())


markets = st.dictionaries(
    st.sampled_from(["aws", "gcp", "lambda"]), st.lists(price_rows(), min_size=1, max_size=25), min_size=1
).map(
    lambda by_name: market_of([build_block(name, one_each(rows)) for name, rows in sorted(by_name.items())])
)

bounds = st.builds(Bound, st.sampled_from([2000, 4000, 8000, 50000]), st.booleans())
sizes = st.builds(
    lambda gib, exact: Bound(gib * GIB, exact), st.sampled_from([4, 32, 100, 5000]), st.booleans()
)
accelerators = st.builds(
    lambda model, milli, least: Accelerator(model=model, milli=milli, memory_min_bytes=least * GIB),
    st.sampled_from([None, "L4", "a100", "A100-80GB", "T4"]),
    st.sampled_from([250, 500, 1000, 4000, 8000]),
    st.sampled_from([0, 0, 24, 80]),
)
local_disks = st.builds(
    lambda amount, exact: LocalDisk(bound=Bound(amount, exact)),
    st.sampled_from([1, 200 * 10**9, 900 * 10**9, 10**13]),
    st.booleans(),
)
infras = st.builds(
    Infra,
    provider=st.sampled_from([None, None, "aws", "gcp", "azure"]),
    region=st.sampled_from([None, None, None, "*", "east", "nowhere"]),
    zone=st.sampled_from([None, None, None, "*", "east-a"]),
)


def maybe(strategy: st.SearchStrategy[object]) -> st.SearchStrategy[object]:
    return st.one_of(st.none(), strategy)


wishes = st.builds(
    Resources,
    infra=infras,
    instance_type=st.sampled_from([None, None, None, "g.one", "a.eight"]),
    cpus=maybe(bounds),
    memory=maybe(sizes),
    memory_per_cpu_bytes=st.sampled_from([0, 0, 4 * GIB]),
    accelerator=maybe(accelerators),
    node_disk=st.sampled_from([None, None]) | local_disks,
    arch=st.sampled_from(["", "", "arm64", "any"]),
    image_id=st.sampled_from([None, None, "docker:ubuntu"]),
    use_spot=st.sampled_from([None, True, False]),
    max_hourly_micro_usd=st.sampled_from([None, None, 2_500_000, 20_000_000]),
)
abilities_drawn = st.sampled_from(
    [
        CLOUD,
        Ability(spot=False, multi_node=True),
        Ability(spot=True, images=True),
        Ability(spot=True, fractions=True, images=True),
    ]
)


@given(
    market=markets,
    resources=st.lists(wishes, min_size=1, max_size=3),
    num_nodes=st.integers(1, 3),
    ordered=st.booleans(),
    limit=st.sampled_from([None, 1, 3, 100]),
    ability=abilities_drawn,
)
def test_the_fast_plan_is_the_plain_plan(
    market: Market,
    resources: list[Resources],
    num_nodes: int,
    ordered: bool,
    limit: int | None,
    ability: Ability,
) -> None:
    abilities = dict.fromkeys(market.providers, ability)
    slow = plan(resources, num_nodes, list(market.offers()), abilities=abilities, ordered=ordered)
    fast = rank(resources, num_nodes, market, abilities=abilities, ordered=ordered, limit=limit)
    assert list(fast.plan.choices) == list(islice(slow.choices, limit))
    assert fast.fitting == len(slow.choices)
    assert {(r.provider, r.code) for r in fast.plan.rejected} == {(r.provider, r.code) for r in slow.rejected}
    if not slow.choices:
        for wish, steps in zip(resources, fast.steps, strict=True):
            assert explain_none(wish, steps).startswith("nothing has")


@given(market=markets, wish=wishes, num_nodes=st.integers(1, 2), price=st.sampled_from([0, 3_000_000]))
def test_single_offers_are_merged_in(market: Market, wish: Resources, num_nodes: int, price: int) -> None:
    shape = Shape(
        cpus_milli=64000,
        memory_bytes=512 * GIB,
        disk_bytes=500 * 10**9,
        accelerator="L4",
        accelerators_milli=4000,
        accelerator_memory_bytes=24 * GIB,
        instance_type="lab",
    )
    lab = Offer(provider="lab", shape=shape, capacity=Capacity.OWNED, price_micro_usd=price)
    abilities = {
        **dict.fromkeys(market.providers, CLOUD),
        "lab": Ability(owned=True, fractions=True, multi_node=True),
    }
    slow = plan([wish], num_nodes, [lab, *market.offers()], abilities=abilities)
    fast = rank([wish], num_nodes, market, offers=[lab], abilities=abilities, limit=None)
    assert fast.plan.choices == slow.choices
    assert {(r.provider, r.code) for r in fast.plan.rejected} == {(r.provider, r.code) for r in slow.rejected}


@given(
    market=markets,
    wish=wishes,
    limit=st.integers(1, 3),
    able=st.sets(st.sampled_from(["aws", "gcp", "lambda"])),
)
def test_every_provider_without_a_driver_is_told(
    market: Market, wish: Resources, limit: int, able: set[str]
) -> None:
    abilities = dict.fromkeys(market.providers, CLOUD)
    everything = plan([wish], 1, list(market.offers()), abilities=abilities).choices
    fast = rank([wish], 1, market, limit=limit, launchable=able.__contains__)
    mine = [choice for choice in everything if choice.offer.provider in able]
    others = [choice for choice in everything if choice.offer.provider not in able]
    assert list(fast.plan.choices) == mine[:limit]
    assert list(fast.shown) == others[:limit]
    told = {each.provider: each.text for each in fast.plan.rejected if each.code == NOT_IN_USE}
    assert set(told) == {choice.offer.provider for choice in others}
    for name, text in told.items():
        best = next(choice for choice in others if choice.offer.provider == name)
        assert text.startswith(f"{best.offer.shape.instance_type} in {best.offer.region} fits at ")


@given(market=markets)
def test_a_block_survives_its_rows(market: Market) -> None:
    for name in market.providers:
        block = market.block(name)
        again = build_block(name, rows_of(block))
        assert [again.offer(*row) for row in again.rows()] == [block.offer(*row) for row in block.rows()]


def _market() -> Market:
    rows = [
        PriceRow(
            name,
            model,
            milli,
            device * GIB,
            cpus,
            memory * GIB,
            index * 100 * 10**9,
            "x86_64",
            region,
            "",
            capacity,
            round(price * 1e6),
            NOTES[0],
        )
        for index, (name, model, milli, device, cpus, memory) in enumerate(KINDS)
        for region, factor in (("east", 1.0), ("west", 1.1))
        for capacity, price in (
            (Capacity.ON_DEMAND, (index + 1) * factor),
            (Capacity.SPOT, (index + 1) * factor / 3),
        )
    ]
    return market_of([build_block("aws", rows), build_block("gcp", rows)], {"l4": "nvidia", "a100": "nvidia"})


def test_offers_without_a_driver_are_shown_and_not_chosen() -> None:
    wish = Resources(accelerator=Accelerator(model="L4", milli=1000), use_spot=False)
    ranking = rank([wish], 2, _market(), launchable=lambda name: name == "gcp", limit=3)
    assert {choice.offer.provider for choice in ranking.plan.choices} == {"gcp"}
    assert {choice.offer.provider for choice in ranking.shown} == {"aws"}
    (refused,) = [each for each in ranking.plan.rejected if each.code == NOT_IN_USE]
    assert refused.provider == "aws"
    assert refused.text == (
        "g.one in east fits at $8.00/h, but aws is not in use on this server: "
        "`argosy check aws` says what it needs"
    )


@pytest.mark.parametrize(
    ("wish", "text"),
    [
        (
            Resources(accelerator=Accelerator(model="A100", milli=8000), memory=Bound(900 * GIB)),
            "nothing has `A100:8, 900 GB+`: 2 kinds of machines are left until `memory`: "
            "has 680 GB of memory at most, asked for 900 GB",
        ),
        (
            Resources(accelerator=Accelerator(model="A100", milli=2000)),
            "nothing has `A100:2`: 4 kinds of machines are left until `accelerator count`: "
            "they come with 1, 8 per machine",
        ),
        (
            Resources(accelerator=Accelerator(model="T4", milli=1000)),
            "nothing has `T4:1`: no machine passes `accelerator`",
        ),
        (
            Resources(accelerator=Accelerator(model="L4", milli=1000), max_hourly_micro_usd=100_000),
            "nothing has `L4:1`: 2 kinds of machines are left until `price-cap`: cheapest is $1.33/h, cap "
            "is $0.10/h",
        ),
        (
            Resources(cpus=Bound(500_000)),
            "nothing has `500+ CPUs`: no machine passes `cpus`: has 192 CPUs at the nearest, asked for 500",
        ),
        (
            Resources(cpus=Bound(2000, exact=True), node_disk=LocalDisk(kind="nvme")),
            "nothing has `2 CPUs, local disk nvme`: 2 kinds of machines are left until `local-disk`: "
            "has no local disk that is known, asked for nvme",
        ),
        (
            Resources(node_disk=LocalDisk(bound=Bound(2000 * 10**9))),
            "nothing has `local disk 2000+`: no machine passes `local-disk`: "
            "has 900 GB of local disk at most, asked for 2000+",
        ),
        (
            Resources(node_disk=LocalDisk(bound=Bound(320 * 10**9, exact=True))),
            "nothing has `local disk 320`: no machine passes `local-disk`: "
            "has 300 GB of local disk at the nearest, asked for 320",
        ),
    ],
)
def test_the_last_constraint_is_named(wish: Resources, text: str) -> None:
    ranking = rank([wish], 1, _market())
    assert ranking.plan.choices == ()
    assert explain_none(wish, ranking.steps[0]) == text


def test_vendor_and_memory_choose_the_model() -> None:
    wish = Resources(
        accelerator=Accelerator(model=None, milli=8000, memory_min_bytes=30 * GIB, vendor="nvidia")
    )
    found = rank([wish], 1, _market(), limit=None).plan.choices
    assert {choice.accelerator for choice in found} == {"A100"}


def test_a_zone_can_be_had_where_only_the_region_is_known() -> None:
    wish = Resources(
        infra=Infra(provider="aws", region="east", zone="east-z"), instance_type="g.one", use_spot=False
    )
    (choice,) = rank([wish], 1, _market()).plan.choices
    assert (choice.offer.region, choice.offer.zone) == ("east", "")


@given(market=markets, wish=wishes, banned=st.sets(st.sampled_from(["east", "west", "north"])))
def test_places_can_be_ruled_out(market: Market, wish: Resources, banned: set[str]) -> None:
    abilities = dict.fromkeys(market.providers, CLOUD)
    left = [offer for offer in market.offers() if offer.region not in banned]
    slow = plan([wish], 1, left, abilities=abilities)
    fast = rank([wish], 1, market, limit=None, allowed=lambda provider, region, zone: region not in banned)
    assert fast.plan.choices == slow.choices


def test_residency_is_a_refusal_like_others() -> None:
    wish = Resources(instance_type="g.one")
    ranking = rank([wish], 1, _market(), allowed=lambda provider, region, zone: False)
    assert {(each.provider, each.code, each.text) for each in ranking.plan.rejected} == {
        ("aws", "place", "its places are ruled out"), ("gcp", "place", "its places are ruled out"),
    }  # fmt: skip
    assert explain_none(wish, ranking.steps[0]) == "nothing has `g.one`: no machine passes `place`"

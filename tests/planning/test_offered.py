"""Rows of the catalog as offers: the same choices as over single offers, live quotes first, closed ones
gone."""

from __future__ import annotations

from array import array
from collections.abc import Sequence

import pytest
from hypothesis import given
from hypothesis import strategies as st

from argosy.model.market import Block, Lane, Market, Note, Place, market_of
from argosy.model.offer import Capacity, Choice, Offer, Shape, offer_key
from argosy.model.resources import Accelerator, Infra, Resources
from argosy.model.units import GIB, Bound
from argosy.planning.ability import Ability
from argosy.planning.choose import plan
from argosy.planning.offered import ROWS, Priced, Supply, closes, plan_offered, rows_for

CAN = {"aws": Ability(spot=True, multi_node=True), "gcp": Ability(multi_node=True)}
TYPES = ("m5", "g4", "p4")
PLACES = (Place("east", "east-a"), Place("east", "east-b"), Place("west", ""))
GPU = Resources(accelerator=Accelerator(model="T4", milli=1000), use_spot=False)


def block(provider: str, rows: list[tuple[str, int, int, bool]]) -> Block:
    """Rows of (type, index of the place, price in dollars, whether it is spot)."""
    lanes = []
    for spot in (False, True):
        start, place, price = [0], array("H"), array("q")
        for kind in TYPES:
            mine = sorted(
                (usd, where) for name, where, usd, is_spot in rows if (name, is_spot) == (kind, spot)
            )
            for usd, where in mine:
                place.append(where)
                price.append(usd * 1_000_000)
            start.append(len(price))
        capacity = Capacity.SPOT if spot else Capacity.ON_DEMAND
        lanes.append(Lane(capacity, start, place, price, array("H", [0] * len(price))))
    return Block(
        provider,
        instance_types=TYPES,
        models=("", "T4", "A100"),
        accelerators_milli=(0, 1000, 8000),
        device_memory_bytes=(0, 16 * GIB, 40 * GIB),
        cpus_milli=(2000, 4000, 96000),
        memory_bytes=(8 * GIB, 16 * GIB, 1152 * GIB),
        disk_bytes=(0, 0, 0),
        arch=("x86_64",) * 3,
        places=PLACES,
        lanes=lanes,
        notes=(Note(0, "test"),),
    )


def having(offers: Sequence[Offer], market: Market) -> Supply:
    return Supply(offers, CAN, Priced(market))


def of(market: Market) -> list[Offer]:
    return list(market.offers())


def live(kind: str = "g4", zone: str = "east-a", usd: float = 9, **fields: object) -> Offer:
    shape = next(each.shape for each in of(market_of([ALL])) if each.shape.instance_type == kind)
    values: dict[str, object] = {
        "provider": "aws", "region": "east", "zone": zone, "shape": shape,
        "capacity": Capacity.ON_DEMAND, "price_micro_usd": round(usd * 1_000_000),
    } | fields  # fmt: skip
    return Offer(**values)  # type: ignore[arg-type]  # fields of an offer


ALL = block(
    "aws", [(kind, place, 1 + place + 2 * at, spot) for at, kind in enumerate(TYPES)
            for place in range(3) for spot in (False, True)],
)  # fmt: skip


def told(choices: tuple[Choice, ...]) -> list[str]:
    return [offer_key(each.offer) for each in choices]


row = st.tuples(st.sampled_from(TYPES), st.integers(0, 2), st.integers(1, 9), st.booleans())
rows = st.lists(row, max_size=14, unique_by=lambda each: (each[0], each[1], each[3]))
wishes = st.builds(
    Resources,
    accelerator=st.sampled_from([None, Accelerator(model="T4", milli=1000)]),
    cpus=st.sampled_from([None, Bound(4000)]),
    use_spot=st.sampled_from([None, False, True]),
    max_hourly_micro_usd=st.sampled_from([None, 5_000_000]),
)


@given(rows, rows, st.lists(wishes, min_size=1, max_size=2, unique=True), st.booleans(), st.integers(1, 2))
def test_choices_are_those_over_all_rows_as_single_offers(
    aws: list[tuple[str, int, int, bool]],
    gcp: list[tuple[str, int, int, bool]],
    asked: list[Resources],
    ordered: bool,
    num_nodes: int,
) -> None:
    market = market_of([block("aws", aws), block("gcp", [each for each in gcp if not each[3]])])
    found, fitting = plan_offered(asked, num_nodes, having((), market), ordered=ordered)  # fmt: skip
    plain = plan(asked, num_nodes, of(market), abilities=CAN, ordered=ordered)
    assert list(found.choices) == list(plain.choices)
    assert fitting == len(plain.choices)


def test_a_live_quote_takes_the_place_of_its_row() -> None:
    market = market_of([ALL])
    found, _ = plan_offered((GPU,), 1, having([live(usd=7.5)], market))
    assert [(each.offer.zone, each.price_micro_usd) for each in found.choices] == [
        ("east-b", 4_000_000), ("", 5_000_000), ("east-a", 7_500_000),
    ]  # fmt: skip


def test_a_reservation_is_offered_beside_the_rows_of_the_market() -> None:
    reserved = live(usd=0.5, capacity=Capacity.RESERVED, nodes_max=2)
    found, _ = plan_offered((GPU,), 2, having([reserved], market_of([ALL])))
    assert [each.offer.capacity for each in found.choices[:2]] == [Capacity.RESERVED, Capacity.ON_DEMAND]
    three, _ = plan_offered((GPU,), 3, having([reserved], market_of([ALL])))
    assert [each.text for each in three.rejected] == ["has 2 nodes at present, asked for 3"]


def test_what_is_closed_is_no_choice_and_says_why() -> None:
    quota = live(zone="", usd=0, shape=Shape(), closed="quota `G instances` is 0 in east")
    priced = Priced(market_of([ALL]))
    found, fitting = plan_offered((GPU,), 1, Supply([quota], CAN, priced))
    assert [each.offer.region for each in found.choices] == ["west"] and fitting == 1
    assert [(each.region, each.code, each.text) for each in found.rejected] == [
        ("east", "capacity", "quota `G instances` is 0 in east")
    ]
    spot = Resources(accelerator=GPU.accelerator, use_spot=True)
    assert len(plan_offered((spot,), 1, Supply([quota], CAN, priced)).plan.choices) == 3
    nothing = Resources(accelerator=Accelerator(model="H100", milli=1000), use_spot=False)
    refused = plan_offered((nothing,), 1, Supply([quota], CAN, priced)).plan.rejected
    assert [each.text for each in refused] == [
        "has no H100"
    ]  # a quota of what was not asked for is no reason


@pytest.mark.parametrize(
    ("closed", "is_closed"),
    [
        ({"region": "", "zone": "", "shape": Shape()}, True),
        ({"zone": "east-b"}, False),
        ({"shape": Shape(instance_type="p4")}, False),
        ({"capacity": Capacity.SPOT}, False),
        ({"provider": "gcp"}, False),
        ({}, True),
    ],
)
def test_a_closed_offer_speaks_of_its_own_place(closed: dict[str, object], is_closed: bool) -> None:
    assert closes(live(closed="no", **closed), live()) is is_closed


def test_places_that_are_left_out_make_room_for_the_next_ones() -> None:
    """However many are left out, the cheapest of the others are found."""
    wide = block("aws", [])
    count = 4 * ROWS
    wide.places = [Place("east", f"z{number:03}") for number in range(count)]
    lane = Lane(
        Capacity.ON_DEMAND, [0, 0, count, count], array("H", range(count)),
        array("q", [1_000_000 + number for number in range(count)]), array("H", [0] * count),
    )  # fmt: skip
    wide.lanes = (lane,)
    priced = Priced(market_of([wide]))
    out = {f"z{number:03}" for number in range(2 * ROWS)}
    found, _ = plan_offered(
        (GPU,), 1, Supply((), CAN, priced), without=lambda offer: offer.zone in out
    )  # fmt: skip
    assert [each.offer.zone for each in found.choices] == [f"z{n:03}" for n in range(2 * ROWS, 3 * ROWS)]
    assert len(plan_offered((GPU,), 1, Supply((), CAN, priced)).plan.choices) == ROWS
    assert rows_for("cost") == ROWS < rows_for("carbon")


def test_a_wish_that_says_nothing_of_spot_sees_the_cheapest_of_both() -> None:
    """A thousand cheap spot rows do not hide on-demand, which a deadline may need."""
    free = Resources(accelerator=GPU.accelerator)
    found, _ = plan_offered((free,), 1, having((), market_of([ALL])), limit=1)
    assert {each.offer.capacity for each in found.choices} == {Capacity.SPOT, Capacity.ON_DEMAND}
    assert all(each.resources == free for each in found.choices)


def test_what_nothing_fits_is_told_once_for_each_provider() -> None:
    market = market_of([ALL, block("gcp", [])])
    wish = Resources(infra=Infra(provider="gcp"), cpus=Bound(4000), use_spot=False)
    found, _ = plan_offered((wish,), 1, having((), market))
    assert not found.choices and [each.provider for each in found.rejected] == ["aws"]


def test_controllers_rank_equal_wishes_once() -> None:
    priced, offers = Priced(market_of([ALL])), [live()]
    one = priced.plan((GPU,), 1, Supply(offers, CAN), ordered=False, limit=ROWS)
    assert priced.plan((GPU,), 1, Supply(offers, CAN), ordered=False, limit=ROWS) is one
    other = priced.plan((GPU,), 1, Supply(list(offers), CAN), ordered=False, limit=ROWS)
    assert other is not one and other == one

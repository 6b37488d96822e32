"""Combinations that nothing serves, residency, exclusions: exact texts."""

from __future__ import annotations

import pytest
from msgspec.structs import replace

from argosy.catalog import Catalog
from argosy.model.areas import Where, is_within
from argosy.model.offer import Capacity, Offer, Shape
from argosy.model.resources import Accelerator, Exclusion, Infra, LocalDisk, Resources
from argosy.model.units import GIB, Bound
from argosy.planning import Ability, plan
from argosy.planning.impossible import explain_impossible, explain_no_board
from argosy.planning.market import cheapest_in_regions, rank

ATLAS = {
    ("aws", "eu-west-1"): Where(country="IE", continent="Europe"),
    ("aws", "eu-west-2"): Where(country="GB", continent="Europe"),
    ("aws", "us-east-1"): Where(country="US", continent="North America"),
    ("gcp", "asia-northeast3"): Where(country="KR", continent="Asia"),
}
ABLE = {name: Ability(spot=True, multi_node=True) for name in ("aws", "gcp", "local")}


def machine(
    provider: str,
    region: str,
    kind: str,
    dollars: int,
    model: str = "A100",
    count: int = 8,
    *,
    spot: bool = False,
) -> Offer:
    shape = Shape(
        instance_type=kind, cpus_milli=96_000, memory_bytes=1000 * GIB, accelerator=model,
        accelerators_milli=count * 1000, accelerator_memory_bytes=40 * GIB,
    )  # fmt: skip
    return Offer(
        provider=provider, region=region, shape=shape, price_micro_usd=dollars * 1_000_000,
        capacity=Capacity.SPOT if spot else Capacity.ON_DEMAND,
    )  # fmt: skip


OFFERS = [
    machine("aws", "us-east-1", "p4d", 32),
    machine("aws", "us-east-1", "p4d", 12, spot=True),
    machine("aws", "eu-west-1", "p4d", 35),
    machine("aws", "eu-west-2", "p4d", 36),
    machine("gcp", "asia-northeast3", "a2", 40),
    machine("aws", "us-east-1", "g5", 6, "A10G", 4),
]
EIGHT = Accelerator(model="A100", milli=8000)


def places(wish: Resources) -> set[tuple[str, str]]:
    answer = plan([wish], 1, OFFERS, abilities=ABLE, atlas=ATLAS)
    return {(each.offer.region, each.offer.shape.instance_type) for each in answer.choices}


def test_residency_is_by_country_not_by_the_name_of_a_region() -> None:
    assert places(Resources(areas=("eu",))) == {("eu-west-1", "p4d")}
    assert places(Resources(areas=("europe",))) == {("eu-west-1", "p4d"), ("eu-west-2", "p4d")}
    assert places(Resources(areas=("kr", "GB"))) == {("asia-northeast3", "a2"), ("eu-west-2", "p4d")}
    assert places(Resources(areas=("eu-*",))) == {("eu-west-1", "p4d"), ("eu-west-2", "p4d")}
    assert places(Resources(areas=("aws/us-east-1",))) == {("us-east-1", "p4d"), ("us-east-1", "g5")}
    assert places(Resources(areas=("gcp",))) == {("asia-northeast3", "a2")}


def test_what_is_not_known_to_be_in_a_country_is_not_in_it() -> None:
    answer = plan([Resources(areas=("eu",))], 1, OFFERS[:1], abilities=ABLE)
    assert [(each.code, each.text) for each in answer.rejected] == [
        ("residency", "its country is not known, `regions` asks for eu")
    ]
    answer = plan([Resources(areas=("eu", "KR"))], 1, OFFERS[:1], abilities=ABLE, atlas=ATLAS)
    assert [(each.code, each.text) for each in answer.rejected] == [
        ("residency", "is in US, `regions` asks for eu, KR")
    ]
    answer = plan([Resources(excluded=(Exclusion(area="CN"),))], 1, OFFERS[:1], abilities=ABLE)
    assert [(each.code, each.text) for each in answer.rejected] == [
        ("excluded", "its country is not known, `not` rules out CN")
    ]


def test_not_rules_out_places_and_machines() -> None:
    assert places(Resources(excluded=(Exclusion(area="aws"),))) == {("asia-northeast3", "a2")}
    assert places(Resources(excluded=(Exclusion(area="aws/us-*"), Exclusion(area="kr")))) == {
        ("eu-west-1", "p4d"), ("eu-west-2", "p4d")
    }  # fmt: skip
    assert places(Resources(excluded=(Exclusion(instance_type="p4*"),))) == {
        ("asia-northeast3", "a2"), ("us-east-1", "g5")
    }  # fmt: skip
    assert places(Resources(excluded=(Exclusion(area="aws", accelerator="a100"),))) == {
        ("asia-northeast3", "a2"), ("us-east-1", "g5")
    }  # fmt: skip
    answer = plan([Resources(excluded=(Exclusion(area="aws"),))], 1, OFFERS[:1], abilities=ABLE)
    assert [(each.code, each.text) for each in answer.rejected] == [("excluded", "`not` rules out aws")]


def test_areas_do_not_match_by_accident() -> None:
    where = Where(country="DE", continent="Europe")
    assert not is_within("d", "aws", "eu-central-1", "", where)
    assert not is_within("us", "aws", "eu-central-1", "", where)
    assert not is_within("aws/eu-central-1/a", "aws", "eu-central-1", "", where)
    assert is_within("EU", "local", "", "", where) and not is_within("eu", "local", "", "", None)


@pytest.mark.parametrize(
    ("wish", "nodes", "text"),
    [
        (
            Resources(accelerator=EIGHT, infra=Infra(provider="gcp"), use_spot=True),
            1,
            "nothing fits `A100:8, spot`, and any one of these is enough: without `infra: gcp` "
            "it would run on aws/us-east-1 p4d ($12.00/h); "
            "without `use_spot: true` it would run on gcp/asia-northeast3 a2 ($40.00/h)",
        ),
        (
            Resources(accelerator=EIGHT, areas=("eu",), max_hourly_micro_usd=30_000_000),
            1,
            "nothing fits `A100:8`, and any one of these is enough: "
            "without `regions: [eu]` it would run on aws/us-east-1 p4d ($12.00/h); "
            "without `max_hourly_cost: 30` it would run on aws/eu-west-1 p4d ($35.00/h)",
        ),
        (
            Resources(accelerator=EIGHT, memory=Bound(2000 * GIB)),
            1,
            "nothing fits `A100:8, 2 TB+`; "
            "without the memory of 2 TB+ it would run on aws/us-east-1 p4d ($12.00/h)",
        ),
        (
            Resources(accelerator=EIGHT, max_hourly_micro_usd=20_000_000),
            2,
            "nothing fits `A100:8` on 2 nodes, and any one of these is enough: "
            "without `accelerators: A100:8` it would run on aws/us-east-1 g5 ($12.00/h); "
            "without `max_hourly_cost: 20` it would run on aws/us-east-1 p4d ($24.00/h); "
            "without `num_nodes: 2` it would run on aws/us-east-1 p4d ($12.00/h)",
        ),
        (
            Resources(accelerator=EIGHT, cpus=Bound(200_000), memory=Bound(2000 * GIB)),
            1,
            "nothing fits `A100:8, 200+ CPUs, 2 TB+`, and no single constraint is to blame: without `cpus: "
            "200+` and the memory of "
            "2 TB+ it would run on aws/us-east-1 p4d ($12.00/h)",
        ),
    ],
)  # fmt: skip
def test_the_constraint_that_removes_the_last_candidate_is_named(
    wish: Resources, nodes: int, text: str
) -> None:
    assert explain_impossible(wish, OFFERS, num_nodes=nodes, abilities=ABLE, atlas=ATLAS) == text


def test_a_local_disk_that_nothing_has_is_to_blame() -> None:
    wish = Resources(accelerator=EIGHT, node_disk=LocalDisk(kind="nvme", bound=Bound(500 * 10**9)))
    assert explain_impossible(wish, OFFERS, abilities=ABLE) == (
        "nothing fits `A100:8, local disk nvme:500+`; without `local_disk: nvme:500+` it would run on "
        "aws/us-east-1 p4d ($12.00/h)"
    )


def test_nothing_to_explain_and_nothing_to_choose_from() -> None:
    assert explain_impossible(Resources(accelerator=EIGHT), OFFERS) == ""
    assert explain_impossible(Resources(accelerator=EIGHT), []) == (
        "nothing fits `A100:8`: no infrastructure is enabled"
    )


CATALOG = Catalog.load()
L4 = Resources(accelerator=Accelerator(model="L4", milli=1000))


@pytest.mark.parametrize(
    "wish",
    [
        replace(L4, areas=("eu",)),
        replace(L4, areas=("asia", "us-*"), excluded=(Exclusion(area="jp"), Exclusion(area="azure"))),
        replace(L4, excluded=(Exclusion(area="aws", instance_type="g6.*"), Exclusion(area="gcp/us-*"))),
    ],
)
def test_columns_and_offers_agree_on_places(wish: Resources) -> None:
    atlas, market = CATALOG.atlas(), CATALOG.market
    abilities = {name: Ability(spot=True, multi_node=True) for name in market.providers}
    slow = plan([wish], 1, CATALOG.candidates(L4), abilities=abilities, atlas=atlas)
    fast = rank([wish], 1, market, limit=None, atlas=atlas)
    assert fast.plan.choices == slow.choices and 0 < len(slow.choices) < len(CATALOG.candidates(L4))
    regions = {each.offer.region for each in slow.choices}
    assert "eu-west-2" not in regions or wish.areas != ("eu",)


def test_the_cheapest_of_each_region_is_the_first_of_it() -> None:
    wishes = [L4, Resources(accelerator=Accelerator(model="A100", milli=8000), use_spot=True)]
    expected: dict[tuple[str, str, str | None], int] = {}
    for choice in rank(wishes, 2, CATALOG.market, limit=None).plan.choices:
        expected.setdefault(
            (choice.offer.provider, choice.offer.region, choice.accelerator), choice.price_micro_usd
        )
    found = cheapest_in_regions(wishes, 2, CATALOG.market)
    assert {(c.offer.provider, c.offer.region, c.accelerator): c.price_micro_usd for c in found} == expected
    assert len(found) == len(expected)


def test_the_whole_market_is_asked_without_each_constraint() -> None:
    wish = replace(L4, infra=Infra(provider="aws"), areas=("ch",), max_hourly_micro_usd=10_000)
    text = explain_impossible(wish, [], market=CATALOG.market, atlas=CATALOG.atlas())
    assert text.startswith("nothing fits `L4:1`")
    assert "without `max_hourly_cost: 0.01` it would run on aws/eu-central-2 g6" in text


BOARD = Accelerator(model="Jetson", milli=1000)
BOARDS = [machine("ssh", "plant-3", "", 0, "Jetson-Orin-NX-16GB", 1)]


def test_any_board_of_a_family_serves_its_name() -> None:
    able = {"ssh": Ability(owned=True, multi_node=True)}
    (choice,) = plan([Resources(accelerator=BOARD)], 4, BOARDS, abilities=able).choices
    assert (choice.offer.region, choice.accelerator) == ("plant-3", "Jetson-Orin-NX-16GB")
    assert (
        plan(
            [Resources(accelerator=replace(BOARD, model="Jetson-AGX-Thor"))], 1, BOARDS, abilities=able
        ).choices
        == ()
    )


def test_several_boards_on_one_node_are_several_nodes() -> None:
    wish = Resources(accelerator=replace(BOARD, milli=4000), location="plant-3")
    assert explain_impossible(wish, BOARDS) == (
        "nothing fits `Jetson:4`: such a board has one device; with one on each, `num_nodes: 4` takes as "
        "many: ssh/plant-3 ($0/h)"
    )


@pytest.mark.parametrize(
    ("model", "own", "text"),
    [
        ("Jetson", set(), "no pool has a `Jetson` at `site-7`: no cloud rents such boards"),
        (
            "Jetson-AGX-Thor",
            {"A100", "Jetson-Orin-NX-16GB"},
            "no pool has a `Jetson-AGX-Thor` at `site-7`; "
            "there are Jetson-Orin-NX-16GB: no cloud rents such boards",
        ),
        ("H100", {"A100"}, ""),
    ],
)
def test_boards_that_nobody_has(model: str, own: set[str], text: str) -> None:
    wish = Resources(accelerator=Accelerator(model=model, milli=4000), location="site-7")
    error = explain_no_board(wish, own)
    assert (error.what if error else "") == text
    if error:
        assert error.hint == (
            "machines of your own join as a pool (`argosy pool --help`); then `argosy gpus` lists them"
        )

"""Offers against wishes: each refusal by name, the order of what is left, and never an offer that cannot
serve."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from argosy.model.offer import Capacity, Offer, Shape
from argosy.model.phases import ClaimPhase
from argosy.model.resources import Accelerator, Infra, LocalDisk, Resources
from argosy.model.units import GIB, Bound
from argosy.planning import Ability, Usage, plan, usage_by_provider
from argosy.testing.builders import a_choice, a_claim, a_gpu_shape, an_offer

OWNED = {"pool": Ability(multi_node=True, fractions=True, owned=True)}
CLOUD = {"cloud": Ability(spot=True, multi_node=True)}


def machine(disk_bytes: int = 0, **fields: object) -> Offer:
    shape = a_gpu_shape(count=2, cpus_milli=8000, memory_bytes=32 * GIB, disk_bytes=disk_bytes)
    return an_offer(shape=shape, **fields)


def vm(price: int, name: str = "v1", capacity: Capacity = Capacity.ON_DEMAND, **shape: object) -> Offer:
    fields = {"cpus_milli": 4000, "memory_bytes": 16 * GIB, "instance_type": name} | shape
    return Offer(
        provider="cloud", region="r1", shape=Shape(**fields), capacity=capacity, price_micro_usd=price
    )


@pytest.mark.parametrize(
    ("wish", "nodes", "code", "text"),
    [
        (Resources(infra=Infra(provider="aws")), 1, "infra", "`infra` asks for aws"),
        (Resources(infra=Infra(region="eu")), 1, "region", "`infra` asks for region eu"),
        (Resources(cpus=Bound(16000)), 1, "cpus", "has 8 CPUs, asked for 16"),
        (Resources(cpus=Bound(5000)), 2, "cpus", "has 8 CPUs, asked for 5 for each of 2 nodes"),
        (Resources(memory=Bound(64 * GIB)), 1, "memory", "has 32 GB of memory, asked for 64 GB"),
        (Resources(accelerator=Accelerator(model="H100", milli=1000)), 1, "accelerator", "has A100, asked for H100"),  # noqa: E501
        (Resources(accelerator=Accelerator(model="A100", milli=4000)), 1, "accelerator", "has 2 A100, asked for 4"),  # noqa: E501
        (
            Resources(accelerator=Accelerator(model=None, milli=1000, memory_min_bytes=96 * GIB)),
            1,
            "accelerator-memory",
            "A100 has 80 GB, asked for 96 GB",
        ),
        (Resources(accelerator=Accelerator(model="A100", milli=1500)), 1, "fraction", "1.5 accelerators: a "
                                                                                      "share is below 1, more are whole numbers"),  # noqa: E501
        (Resources(use_spot=True), 1, "spot", "has no spot capacity"),
        (Resources(instance_type="p4d"), 1, "instance-type", "has no instance type p4d"),
    ],
)  # fmt: skip
def test_every_refusal_says_what_there_is(wish: Resources, nodes: int, code: str, text: str) -> None:
    answer = plan([wish], nodes, [machine()], abilities=OWNED)
    assert answer.choices == ()
    assert [(each.code, each.text) for each in answer.rejected] == [(code, text)]


def local_disk(gb: int, *, exact: bool = False, kind: str = "") -> Resources:
    return Resources(node_disk=LocalDisk(kind=kind, bound=Bound(gb * 10**9, exact=exact)))


@pytest.mark.parametrize(
    ("wish", "nodes", "offer", "text"),
    [
        (local_disk(500), 1, vm(1, disk_bytes=500 * 10**9), ""),
        (local_disk(500, exact=True), 1, vm(1, disk_bytes=500 * 10**9), ""),
        (local_disk(500), 4, vm(1, disk_bytes=500 * 10**9), ""),
        (Resources(node_disk=LocalDisk(kind="nvme")), 1, vm(1, disk_bytes=59 * 10**9), ""),
        (local_disk(500, exact=True), 1, vm(1, disk_bytes=900 * 10**9), "has 900 GB of local disk, asked "
                                                                        "for 500"),
        (local_disk(500, kind="nvme"), 1, vm(1, disk_bytes=474 * 10**9), "has 474 GB of local disk, asked "
                                                                         "for nvme:500+"),
        (local_disk(500), 1, vm(1), "has no local disk that is known, asked for 500+"),
        (Resources(node_disk=LocalDisk(kind="ssd")), 1, vm(1), "has no local disk that is known, asked for "
                                                               "ssd"),
        # An owned machine: the free room of its disk, shared by the nodes on it; more than an exact size will
        # do.
        (local_disk(200, exact=True), 2, machine(disk_bytes=500 * 10**9), ""),
        (local_disk(300), 2, machine(disk_bytes=500 * 10**9), "has 500 GB of free disk, asked for 300+ for "
                                                              "each of 2 nodes"),
        (local_disk(300), 1, machine(), "has no local disk that is known, asked for 300+"),
    ],
)  # fmt: skip
def test_a_local_disk_must_be_known_to_be_there(wish: Resources, nodes: int, offer: Offer, text: str) -> None:
    answer = plan([wish], nodes, [offer], abilities=OWNED | CLOUD)
    assert [(each.code, each.text) for each in answer.rejected] == ([("local-disk", text)] if text else [])
    assert len(answer.choices) == (0 if text else 1)


def test_a_busy_machine_is_the_one_refusal_that_time_cures() -> None:
    usage = {"pool": Usage(accelerators_milli=1500, holders=("clu-1",))}
    answer = plan(
        [Resources(accelerator=Accelerator(model="a100", milli=1000))],
        1,
        [machine()],
        abilities=OWNED,
        usage=usage,
    )
    assert [(each.code, each.text) for each in answer.rejected] == [
        ("busy", "waits for 1 A100: 1.5 of 2 in use by clu-1")
    ]


def test_machines_share_cpus_that_nobody_asked_for_by_number() -> None:
    choice = plan(
        [Resources()], 4, [machine()], abilities=OWNED, usage={"pool": Usage(cpus_milli=8000)}
    ).choices[0]
    assert (choice.cpus_milli, choice.memory_bytes, choice.accelerators_milli) == (0, 0, 0)


def test_cheapest_first_and_ties_in_a_fixed_order() -> None:
    offers = [vm(300, "c"), vm(100, "b"), vm(100, "a"), vm(50, "small", cpus_milli=1000)]
    answer = plan([Resources(cpus=Bound(2000))], 2, offers, abilities=CLOUD)
    assert [each.offer.shape.instance_type for each in answer.choices] == ["a", "b", "c"]
    assert [each.price_micro_usd for each in answer.choices] == [200, 200, 600]


def test_ordered_candidates_come_before_cheaper_ones() -> None:
    wishes = [Resources(instance_type="dear"), Resources(instance_type="cheap")]
    answer = plan(wishes, 1, [vm(1, "cheap"), vm(9, "dear")], abilities=CLOUD, ordered=True)
    assert [each.offer.shape.instance_type for each in answer.choices] == ["dear", "cheap"]


def test_spot_is_neither_given_nor_taken_unasked() -> None:
    offers = [vm(10, "s", Capacity.SPOT), vm(30, "d")]
    for wish, names in ((True, ["s"]), (False, ["d"]), (None, ["s", "d"])):
        answer = plan([Resources(use_spot=wish)], 1, offers, abilities=CLOUD)
        assert [each.offer.shape.instance_type for each in answer.choices] == names


def test_a_price_cap_counts_all_nodes() -> None:
    answer = plan([Resources(max_hourly_micro_usd=5_000_000)], 3, [vm(2_000_000)], abilities=CLOUD)
    assert answer.rejected[0].text == "costs $6.00/h, cap is $5.00/h"


def test_no_infrastructure_at_all_says_what_to_do() -> None:
    assert (
        plan([Resources()], 1, [], abilities={}).rejected[0].text.endswith("`argosy check` says what to do")
    )


def test_claims_at_rest_hold_nothing() -> None:
    live = a_claim(choice=a_choice(accelerators_milli=1000), count=2, workload_id="clu-a")
    rest = a_claim(choice=a_choice(accelerators_milli=1000), phase=ClaimPhase.STOPPED)
    assert usage_by_provider([live, rest])["pool"].accelerators_milli == 2000
    assert usage_by_provider([live, rest])["pool"].holders == ("clu-a",)


_offers = st.lists(
    st.builds(
        vm,
        st.integers(1, 50),
        st.sampled_from("abcdef"),
        st.sampled_from([Capacity.SPOT, Capacity.ON_DEMAND]),
        cpus_milli=st.integers(1, 8).map(lambda n: n * 1000),
        memory_bytes=st.integers(1, 64).map(lambda n: n * GIB),
    ),
    max_size=8,
)


@given(
    _offers,
    st.integers(1, 8),
    st.booleans(),
    st.integers(1, 64),
    st.sampled_from([None, True, False]),
    st.integers(1, 3),
)
def test_choices_are_exactly_the_offers_that_serve(
    offers: list[Offer], cpus: int, exact: bool, memory: int, spot: bool | None, nodes: int
) -> None:
    wish = Resources(cpus=Bound(cpus * 1000, exact=exact), memory=Bound(memory * GIB), use_spot=spot)
    answer = plan([wish], nodes, offers, abilities=CLOUD)
    serving = [
        offer
        for offer in offers
        if (offer.shape.cpus_milli == cpus * 1000 if exact else offer.shape.cpus_milli >= cpus * 1000)
        and offer.shape.memory_bytes >= memory * GIB
        and (spot is None or spot == (offer.capacity is Capacity.SPOT))
    ]
    assert sorted(each.price_micro_usd for each in answer.choices) == sorted(
        o.price_micro_usd * nodes for o in serving
    )
    prices = [each.price_micro_usd for each in answer.choices]
    assert prices == sorted(prices)
    assert plan([wish], nodes, offers[::-1], abilities=CLOUD).choices == answer.choices or len(
        set(prices)
    ) < len(prices)

"""Devices of one machine: sets that are well linked, fractions and who shares with whom, parts of cards."""

from __future__ import annotations

from itertools import combinations

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st
from pool_places import GB, ask, box, card, put

from argosy.model.facts import Device
from argosy.model.scheduling import Isolation
from argosy.scheduler.ask import Machine, Need
from argosy.scheduler.devices import (
    MIG_CARDS,
    Kind,
    Topology,
    covers,
    mig_bits,
    mig_card,
    mig_start,
    smallest,
)
from argosy.scheduler.inventory import Inventory

#: Two sockets of four; NVLink bridges join pairs.
PAIRS = tuple(
    card(i, numa=i // 4, nvlinks=tuple(4 if i != j and i // 2 == j // 2 else 0 for j in range(8)))
    for i in range(8)
)
#: All to all, as with NVSwitch.
SWITCH = tuple(card(i, numa=i // 4, nvlinks=tuple(18 * (i != j) for j in range(8))) for i in range(8))


@pytest.mark.parametrize(
    ("devices", "free", "count", "chosen"),
    [
        (PAIRS, range(8), 2, (0, 1)),
        (PAIRS, (1, 2, 3), 2, (2, 3)),  # a bridge, not two sides
        (PAIRS, (0, 2, 4, 5), 1, (0,)),  # the bridge stays whole
        (PAIRS, (0, 1, 2), 1, (2,)),
        (PAIRS, (0, 4, 6), 2, (4, 6)),  # one socket
        (PAIRS, range(8), 4, (0, 1, 2, 3)),
        (PAIRS, (2, 3, 4, 5, 6, 7), 4, (4, 5, 6, 7)),
        (SWITCH, (0, 4, 5, 6, 7), 1, (0,)),  # the fuller socket gives
        (SWITCH, (0, 1, 4, 5, 6, 7), 2, (0, 1)),
    ],
)
def test_sets_of_whole_devices(
    devices: tuple[Device, ...], free: tuple[int, ...], count: int, chosen: tuple[int, ...]
) -> None:
    assert Topology.of(devices).best(tuple(free), count) == chosen


@given(st.data())
def test_the_chosen_set_has_the_best_links(data: st.DataObject) -> None:
    """Study invariant 12, by trying all sets."""
    size = data.draw(st.integers(1, 8))
    links = {pair: data.draw(st.sampled_from([0, 0, 2, 4])) for pair in combinations(range(size), 2)}
    devices = tuple(
        card(
            i,
            numa=data.draw(st.integers(-1, 1)),
            nvlinks=tuple(links.get((min(i, j), max(i, j)), 0) for j in range(size)),
        )
        for i in range(size)
    )
    topology = Topology.of(devices)
    free = tuple(sorted(data.draw(st.sets(st.integers(0, size - 1), min_size=1))))
    count = data.draw(st.integers(1, len(free)))
    chosen = topology.best(free, count)
    assert len(set(chosen)) == count and set(chosen) <= set(free)

    def links_of(positions: tuple[int, ...]) -> tuple[int, int]:
        pairs = list(combinations(positions, 2))
        numa = [devices[a].numa == devices[b].numa >= 0 for a, b in pairs]
        return sum(links[pair] for pair in pairs), sum(numa)

    assert links_of(chosen) == max(links_of(each) for each in combinations(free, count))


def test_sixteen_devices_are_chosen_by_growing() -> None:
    devices = tuple(
        card(i, numa=0, nvlinks=tuple(4 if i != j and i // 8 == j // 8 else 0 for j in range(16)))
        for i in range(16)
    )
    assert Topology.of(devices).best(tuple(range(4, 16)), 6) in {(8, 9, 10, 11, 12, 13)}
    assert len(Topology.of(tuple(card(i, numa=i % 2) for i in range(32))).best(tuple(range(32)), 16)) == 16


def test_the_first_fractions_of_an_empty_pool_share_a_device() -> None:
    """Two requests say little about the third: whole devices are kept together all the same."""
    inventory = Inventory([box(1)])
    used = []
    for holder, milli in (("ann", 500), ("bob", 250), ("cho", 250)):
        need = Need(gpu_milli=milli, cpus_milli=100, open=True)
        inventory.weigh([(need, 1)])
        (placed,) = put(inventory, holder, need)
        used += [share.index for share in placed.devices]
    assert len(set(used)) == 1


def test_fractions_pack_and_whole_devices_stay_whole() -> None:
    inventory = Inventory([box(0, 4)])
    used = {
        share.index
        for n in range(4)
        for p in put(inventory, str(n), Need(gpu_milli=250))
        for share in p.devices
    }
    assert len(used) == 1
    assert put(inventory, "whole", Need(gpu_milli=3000))


@pytest.mark.parametrize(
    ("first", "second", "together"),
    [
        (Need(tenant="ann"), Need(tenant="ann"), True),
        (Need(tenant="ann"), Need(tenant="bob"), False),
        (Need(tenant="ann", open=True), Need(tenant="bob"), False),
        (Need(tenant="ann", open=True), Need(tenant="bob", open=True), True),
        (Need(tenant="ann"), Need(tenant="ann", open=True), True),
        (
            Need(tenant="ann", isolation=Isolation.MEMORY),
            Need(tenant="ann"),
            True,
        ),  # it joins as an MPS client
        (
            Need(tenant="ann"),
            Need(tenant="ann", isolation=Isolation.MEMORY),
            False,
        ),  # it would not be kept apart
        (
            Need(tenant="ann", isolation=Isolation.MEMORY),
            Need(tenant="bob", isolation=Isolation.MEMORY),
            False,
        ),
        (
            Need(tenant="ann", isolation=Isolation.HARDWARE),
            Need(tenant="bob", isolation=Isolation.HARDWARE),
            True,
        ),
        (Need(tenant="ann", isolation=Isolation.HARDWARE), Need(tenant="ann"), False),
        (Need(tenant="ann"), Need(tenant="ann", isolation=Isolation.HARDWARE), False),
    ],
)
def test_who_shares_a_device(first: Need, second: Need, together: bool) -> None:
    inventory = Inventory([box(0, 1, sharing=("mps", "mig"))])
    (one,) = put(inventory, "first", msgspec.structs.replace(first, gpu_milli=250))
    found = inventory.find(ask(msgspec.structs.replace(second, gpu_milli=250)))
    assert (found is not None) == together
    if found is not None:
        inventory.take("second", msgspec.structs.replace(second, gpu_milli=250), found)
        assert found[0].devices[0].mechanism == one.devices[0].mechanism
        inventory.give("first")
        inventory.give("second")
    else:
        inventory.give("first")
        assert inventory.find(ask(msgspec.structs.replace(second, gpu_milli=250))) is not None


def test_a_third_tenant_needs_both_others_open() -> None:
    inventory = Inventory([box(0, 1)])
    put(inventory, "a", Need(gpu_milli=100, tenant="ann", open=True))
    put(inventory, "b", Need(gpu_milli=100, tenant="bob", open=True))
    assert inventory.find(ask(Need(gpu_milli=100, tenant="ann"))) is None  # bob is there
    inventory.give("b")
    put(inventory, "c", Need(gpu_milli=100, tenant="ann"))
    assert inventory.find(ask(Need(gpu_milli=100, tenant="bob", open=True))) is None


def test_mechanism_and_memory_of_a_share() -> None:
    inventory = Inventory([box(0, 8, sharing=("mps", "mig"))])
    (turns,) = put(inventory, "a", Need(gpu_milli=330))[0].devices
    assert (turns.mechanism, turns.milli, turns.memory_bytes) == ("", 330, 80 * GB * 330 // 1000)
    (client,) = put(inventory, "b", Need(gpu_milli=250, isolation=Isolation.MEMORY))[0].devices
    assert (client.mechanism, client.milli, client.memory_bytes) == ("mps", 250, 20 * GB)
    (part,) = put(inventory, "c", Need(gpu_milli=250, isolation=Isolation.HARDWARE))[0].devices
    assert (part.mechanism, part.milli, part.profile, part.slot) == ("mig", 250, "2g.20gb", 4)
    (whole,) = put(inventory, "d", Need(gpu_milli=1000, isolation=Isolation.HARDWARE))[0].devices
    assert (whole.mechanism, whole.milli, whole.memory_bytes) == ("", 1000, 0)


def test_without_mps_a_memory_limit_is_a_mig_instance() -> None:
    need = Need(gpu_milli=250, isolation=Isolation.MEMORY)
    (part,) = put(Inventory([box(0, 1, sharing=("mig",))]), "a", need)[0].devices
    assert part.mechanism == "mig"
    assert Inventory([box(0, 1)]).find(ask(need)) is None


@pytest.mark.parametrize(
    ("milli", "profile"),
    [
        (1, "1g.10gb"),
        (125, "1g.10gb"),
        (126, "1g.20gb"),
        (200, "2g.20gb"),
        (250, "2g.20gb"),
        (251, "3g.40gb"),
        (500, "3g.40gb"),
        (501, "7g.80gb"),
        (999, "7g.80gb"),
    ],
)
def test_smallest_profile_that_covers(milli: int, profile: str) -> None:
    known = mig_card("H100", 80 * GB)
    assert known is not None
    found = smallest(known, milli)
    assert found is not None and found.name == profile


def test_a_card_holds_two_halves_or_seven_sevenths() -> None:
    for milli, count in ((500, 2), (125, 7), (250, 3)):
        inventory = Inventory([box(0, 1, sharing=("mig",))])
        need = Need(gpu_milli=milli, isolation=Isolation.HARDWARE)
        for number in range(count):
            put(inventory, str(number), need)
        assert inventory.find(ask(need)) is None


@pytest.mark.parametrize(("family", "gib", "slices", "profiles"), MIG_CARDS)
def test_profiles_are_in_order_and_fit(
    family: str, gib: int, slices: int, profiles: tuple[object, ...]
) -> None:
    known = mig_card(family, gib * GB)
    assert known == (slices, profiles)
    sizes = [(each.slices, each.compute) for each in known[1]]
    assert sizes == sorted(sizes)
    for each in known[1]:
        assert all(start + each.slices <= slices for start in each.starts)
    assert covers(known[1][-1], slices, 1000)


def test_instances_go_where_most_stays_possible() -> None:
    known = mig_card("A100", 40 * GB)
    assert known is not None
    one, two, three = known[1][0], known[1][2], known[1][3]
    assert mig_start(known, one, 0) == 6  # only there it blocks the fewest others
    assert mig_start(known, three, 0) == 4
    assert mig_start(known, two, mig_bits(three, 4)) == 2
    assert mig_start(known, three, mig_bits(one, 0) | mig_bits(one, 6)) == -1


#: Cut in two by its owner: the parts are devices of their own.
PARTED = Machine(
    id="m0",
    cpus_milli=64_000,
    devices=(
        card(0),
        card(1, gb=40, mig_profile="3g.40gb", mig_parent=0, mig_slots=(0, 4)),
        card(2, gb=40, mig_profile="3g.40gb", mig_parent=0, mig_slots=(4, 4)),
    ),
)


def test_instances_that_exist_serve_fractions_whole() -> None:
    inventory = Inventory([PARTED])
    assert inventory.capacity()["gpus/H100"] == 1000
    (part,) = put(inventory, "a", Need(gpu_milli=300, isolation=Isolation.HARDWARE, tenant="ann"))[0].devices
    assert (part.index, part.milli, part.mechanism, part.profile) == (1, 1000, "mig", "3g.40gb")
    assert put(inventory, "b", Need(gpu_milli=500, tenant="bob"))[0].devices[0].index == 2
    assert inventory.free()["gpus"] == 0


def test_instances_are_no_whole_devices_unless_named() -> None:
    inventory = Inventory([PARTED])
    assert inventory.never(ask(Need(gpu_milli=1000))) is not None
    assert inventory.never(ask(Need(gpu_milli=600))) is not None
    assert put(inventory, "a", Need(gpu_milli=2000, models=("H100-3g.40gb",)))


def test_no_part_of_a_device_that_serves_one_program_at_a_time() -> None:
    gaudi = tuple(card(index, "Gaudi2", 96, whole_only=True) for index in range(2))
    inventory = Inventory([box(0, devices=gaudi)])
    need = Need(gpu_milli=500, cpus_milli=100)
    assert inventory.find(ask(need)) is None
    way = Kind(0, box(0, devices=gaudi)).way(need)
    assert (way.why, way.text) == ("isolation", "a Gaudi2 serves one program at a time")
    assert len(put(inventory, "ann", msgspec.structs.replace(need, gpu_milli=2000))[0].devices) == 2

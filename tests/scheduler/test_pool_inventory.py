"""Books of what is free: never too much, undone exactly, and found where it may be."""

from __future__ import annotations

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule
from pool_places import GB, ask, asks, box, card, check_books, needs, nodes_of, pools, put

from argosy.model.offer import DeviceShare, Placement
from argosy.model.scheduling import Isolation
from argosy.scheduler.ask import Ask, Machine, Need
from argosy.scheduler.inventory import Inventory, OverCommitted, need_of

ONE = Need(cpus_milli=1000, memory_bytes=GB, gpu_milli=1000)


def test_take_and_give_are_exact() -> None:
    inventory = Inventory([box(0)])
    found = put(inventory, "j", ONE)
    assert inventory.holding("j") == found
    assert inventory.free() == {"cpus": 63_000, "memory": 255 * GB, "gpus": 7000, "gpus/H100": 7000}
    inventory.give("j")
    inventory.give("j")
    assert inventory.free() == inventory.capacity()
    assert inventory.holding("j") is None


@pytest.mark.parametrize(
    ("placement", "why"),
    [
        (Placement(rank=0, node_id="m9"), "no machine m9"),
        (Placement(rank=0, node_id="m0", cpus_milli=64_001), "63000 milli-CPU"),
        (Placement(rank=0, node_id="m0", memory_bytes=257 * GB), "bytes free"),
        (Placement(rank=0, node_id="m0", devices=(DeviceShare(index=8, milli=1000),)), "lacks a device"),
        (Placement(rank=0, node_id="m0", devices=(DeviceShare(index=0, milli=501),)), "500 milli free"),
        (
            Placement(rank=0, node_id="m0", devices=(DeviceShare(index=0, milli=500, mechanism="mps"),)),
            "turns",
        ),
        (Placement(rank=0, node_id="m0", devices=(DeviceShare(index=0, milli=500),)), "another tenant"),
    ],
)
def test_what_is_not_free_is_refused_whole(placement: Placement, why: str) -> None:
    inventory = Inventory([box(0)])
    put(inventory, "first", Need(gpu_milli=500, tenant="ann"))
    free, version = inventory.free(), inventory.version
    fine = Placement(rank=0, node_id="m0", cpus_milli=1000)
    with pytest.raises(OverCommitted, match=why):
        inventory.take("second", Need(gpu_milli=500, tenant="bob"), [fine, placement])
    assert (inventory.free(), inventory.version, inventory.holding("second")) == (free, version, None)
    with pytest.raises(OverCommitted, match="already holds"):
        inventory.take("first", Need(), [fine])


def test_a_machine_that_changes_keeps_what_is_taken() -> None:
    inventory = Inventory([box(0), box(1)])
    put(inventory, "j", Need(cpus_milli=8000, gpu_milli=2000))
    inventory.put(msgspec.structs.replace(box(0), cpus_milli=4000))
    assert inventory.free()["cpus"] == 64_000 - 4000  # the machine owes four
    assert nodes_of(inventory.find(ask(Need(cpus_milli=1))) or ()) == ["m1"]
    inventory.drop("m0")
    assert inventory.free()["cpus"] == 64_000
    inventory.put(box(0))
    assert inventory.free()["gpus"] == 14_000  # it is back with what it held
    inventory.give("j")
    assert inventory.free() == inventory.capacity()


def test_closed_machines_take_nothing_and_count() -> None:
    inventory = Inventory([box(0, open=False)])
    assert inventory.find(ask(ONE)) is None
    assert inventory.never(ask(ONE)) is None
    assert inventory.capacity()["gpus"] == 8000
    inventory.put(box(0))
    assert inventory.find(ask(ONE)) is not None


def test_candidates_in_order_of_preference() -> None:
    inventory = Inventory([box(0, 1, "L4"), box(1)])
    wish = Ask(
        id="a", needs=(Need(gpu_milli=2000, models=("L4",)), Need(gpu_milli=1000, models=("l4",)), ONE)
    )
    found = inventory.find(wish)
    assert found is not None and nodes_of(found) == ["m0"]
    assert need_of(wish, found) == wish.needs[1]


def test_within_another_view() -> None:
    now, later = Inventory([box(0), box(1)]), Inventory([box(0), box(1)])
    put(later, "reserved", Need(gpu_milli=8000))
    assert nodes_of(now.find(ask(ONE)) or ()) == ["m0"]
    assert nodes_of(now.find(ask(ONE), within=later) or ()) == ["m1"]
    put(later, "more", Need(gpu_milli=6000))
    found = now.find(ask(Need(gpu_milli=500), 4), within=later)
    assert found is not None
    assert {(p.node_id, s.index) for p in found for s in p.devices} == {("m1", 6), ("m1", 7)}
    assert now.find(ask(Need(gpu_milli=500), 5), within=later) is None


def test_gains_wake_only_those_who_could_use_them() -> None:
    inventory = Inventory([box(0, 1, "L4"), box(1, 1, "H100")])
    for holder in ("a", "b"):
        put(inventory, holder, Need(gpu_milli=1000))
    seen = inventory.version
    small, large = Need(gpu_milli=1000, models=("L4",)), Need(gpu_milli=1000, models=("H100",))
    assert not inventory.gained(small, seen)
    inventory.give("a")
    assert (inventory.gained(small, seen), inventory.gained(large, seen)) == (True, False)
    seen = inventory.version
    mark = inventory.mark()
    inventory.give("b")
    put(inventory, "c", small)
    within = inventory.version
    inventory.rollback(mark)
    assert not inventory.gained(large, seen)  # what was undone is no news
    assert inventory.gained(small, within)  # but it is for who looked meanwhile
    inventory.put(box(2))
    assert inventory.gained(large, seen)


def test_copies_go_their_own_way() -> None:
    inventory = Inventory([box(0)])
    put(inventory, "j", ONE)
    twin = inventory.copy()
    twin.give("j")
    put(twin, "k", Need(gpu_milli=8000))
    assert inventory.free()["gpus"] == 7000
    assert inventory.holding("k") is None and twin.holding("j") is None


@pytest.mark.parametrize(
    ("wish", "text"),
    [
        (ask(Need(cpus_milli=128_000)), "m0 comes nearest: it has 64 of 128 CPUs."),
        (ask(Need(gpu_milli=9000)), "m0 comes nearest: 8 of 9 x device."),
        (ask(Need(gpu_milli=1500)), "more than one device is asked for as a whole number"),
        (ask(Need(gpu_milli=1000, models=("B200",))), "no B200"),
        (ask(Need(gpu_milli=5, isolation=Isolation.MEMORY)), "a part of a device under MPS is at least 1 %"),
        (ask(Need(gpu_milli=500, isolation=Isolation.HARDWARE)), "cannot be divided in hardware (no MIG)"),
        (ask(Need(only_group="training")), "it is not in group training"),
        (ask(Need(labels=(("zone", "a"),))), "it lacks the label zone=a"),
        (ask(Need(gpu_milli=8000), 2), "it has 2 ranks, and at most 1 fit in all."),
        (ask(Need(), required="rack"), "no machine says which rack it is in."),
        (ask(Need(), required="shelf"), "there is no level `shelf`"),
        (ask(Need(), 2, required="node", spread="node"), "within one node and each in another node"),
    ],
)
def test_never_names_what_is_missing(wish: Ask, text: str) -> None:
    nearest = Inventory([box(0, sharing=("mps",)), box(1, 0, cpus_milli=1000)]).never(wish)
    assert nearest is not None and text in nearest.text


def test_what_is_full_is_not_never() -> None:
    inventory = Inventory([box(0)])
    put(inventory, "j", Need(gpu_milli=8000))
    assert inventory.never(ask(ONE)) is None
    assert Inventory().never(ask(ONE)) is not None


def test_why_not_now() -> None:
    machines = [box(n, 2, domains=("b", f"r{n}", f"l{n}"), groups=("x",) * (n == 3)) for n in range(4)]
    inventory = Inventory([msgspec.structs.replace(each, cpus_milli=8000) for each in machines])
    assert inventory.why_not(ask(Need(gpu_milli=1000), 7)).code == "group"
    assert inventory.why_not(ask(Need(gpu_milli=1000), 3, required="rack")).code == "topology"
    put(inventory, "a", Need(gpu_milli=500, tenant="ann"), 3, spread="node")
    full = Need(gpu_milli=1000)
    put(inventory, "b", full, 3)
    assert inventory.why_not(ask(Need(gpu_milli=500, tenant="bob"))).code == "group"
    put(inventory, "c", Need(gpu_milli=2000, groups=("x",)))
    why = inventory.why_not(ask(Need(gpu_milli=500, tenant="bob")))
    assert (why.code, why.text) == (
        "isolation",
        "the devices with room are shared with other tenants, or in another way",
    )
    why = inventory.why_not(ask(full))
    assert why.code == "fragmented"
    assert why.text == "24 CPUs and 1.5 GPUs (0 whole) are free, but together on no single machine"
    why = inventory.why_not(ask(Need(gpu_milli=2000)))
    assert (why.code, why.text) == ("capacity", "2 GPUs are needed, 1.5 are free")


class Books(RuleBasedStateMachine):
    """Study invariants 1, 2, 12 (domains) and 13, for any order of finds, takes, gives, changes of machines
    and undoing."""

    @initialize(machines=pools(), vector=st.booleans())
    def begin(self, machines: list[Machine], vector: bool) -> None:
        self.inventory = Inventory(machines, vector_min=1 if vector else 1000)
        self.held: dict[str, tuple[Need, tuple[Placement, ...]]] = {}
        self.saved: list[tuple[int, dict[str, tuple[Need, tuple[Placement, ...]]], object]] = []
        self.number = 0

    @rule(wish=asks())
    def start(self, wish: Ask) -> None:
        found = self.inventory.find(wish)
        if found is None:
            return
        need = need_of(wish, found)
        assert [p.rank for p in found] == list(range(wish.num_nodes))
        machines = self.inventory.machines()
        for level, same in ((wish.required, True), (wish.spread, False)):
            depth = {"block": 1, "rack": 2, "leaf": 3}.get(level)
            where = [p.node_id if depth is None else machines[p.node_id].domains[:depth] for p in found]
            if level:
                assert len(set(where)) == (1 if same else len(where))
        assert all(machines[p.node_id].open for p in found)
        self.number += 1
        self.inventory.take(f"j{self.number}", need, found)
        self.held[f"j{self.number}"] = (need, found)

    @precondition(lambda self: self.held)
    @rule(data=st.data())
    def end(self, data: st.DataObject) -> None:
        holder = data.draw(st.sampled_from(sorted(self.held)))
        self.inventory.give(holder)
        del self.held[holder]

    @rule(data=st.data(), is_open=st.booleans())
    def change(self, data: st.DataObject, is_open: bool) -> None:
        machine = data.draw(st.sampled_from(list(self.inventory.machines().values())))
        self.inventory.put(msgspec.structs.replace(machine, open=is_open))

    @rule()
    def mark(self) -> None:
        self.saved.append((self.inventory.mark(), dict(self.held), self.inventory.free()))

    @precondition(lambda self: self.saved)
    @rule()
    def rollback(self) -> None:
        mark, self.held, free = self.saved.pop()
        self.inventory.rollback(mark)
        assert self.inventory.free() == free

    @rule()
    def settle(self) -> None:
        self.inventory.settle()
        self.saved.clear()

    @invariant()
    def holds(self) -> None:
        check_books(self.inventory, self.held)
        for holder, (_, placements) in self.held.items():
            assert self.inventory.holding(holder) == placements


Books.TestCase.settings = settings(stateful_step_count=20)
TestBooks = Books.TestCase


@given(pools(), st.lists(asks(), min_size=1, max_size=8), asks(), st.integers(0, 7))
def test_more_capacity_never_hurts_one_job(
    machines: list[Machine], before: list[Ask], wish: Ask, which: int
) -> None:
    """Study invariant 14: on the same state a job that fits still fits when a machine grows or another
    comes."""
    inventory = Inventory(machines)
    for number, each in enumerate(before):
        found = inventory.find(each)
        if found is not None:
            inventory.take(str(number), need_of(each, found), found)
    if inventory.find(wish) is None:
        return
    old = machines[which % len(machines)]
    inventory.put(
        msgspec.structs.replace(old, cpus_milli=old.cpus_milli * 2, memory_bytes=old.memory_bytes * 2)
    )
    assert inventory.find(wish) is not None
    inventory.put(msgspec.structs.replace(old, id="new", index=9, open=True, devices=(*old.devices, card(7))))
    assert inventory.find(wish) is not None


@given(pools(), st.lists(needs(), min_size=1, max_size=6), st.integers(1, 4))
def test_what_can_never_start_never_does(machines: list[Machine], wishes: list[Need], ranks: int) -> None:
    inventory = Inventory([msgspec.structs.replace(each, open=True) for each in machines])
    for need in wishes:
        assert (inventory.never(ask(need, ranks)) is None) == (inventory.find(ask(need, ranks)) is not None)

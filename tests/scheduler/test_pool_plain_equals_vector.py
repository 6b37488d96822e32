"""Caches and arrays are invisible: both evaluators, warm and cold, decide the same (study invariant 11), and
the same twice (10)."""

from __future__ import annotations

import subprocess
import sys

import msgspec
from hypothesis import given
from hypothesis import strategies as st
from pool_places import asks, needs, pools

from argosy.scheduler import plain
from argosy.scheduler.ask import Ask, Machine, Need
from argosy.scheduler.fragment import Grid
from argosy.scheduler.inventory import Inventory, need_of
from argosy.scheduler.sheet import Sheet
from argosy.scheduler.typical import Typical

VECTOR = 1  # machines from which on arrays are used
PLAIN = 1000


@given(
    pools(most=12),
    st.lists(st.tuples(asks(), st.integers(0, 9)), min_size=1, max_size=25),
    st.lists(needs(), max_size=5),
)
def test_both_decide_the_same(
    machines: list[Machine], steps: list[tuple[Ask, int]], typical: list[Need]
) -> None:
    """A long life in two inventories; a third one is made anew for each decision, from what is held."""
    fast, slow = Inventory(machines, vector_min=VECTOR), Inventory(machines, vector_min=PLAIN)
    weights = [(need, 1 + number) for number, need in enumerate(typical)]
    fast.weigh(weights)
    slow.weigh(weights)
    held: list[str] = []
    for number, (wish, dice) in enumerate(steps):
        if dice == 0 and held:
            gone = held.pop(number % len(held))
            fast.give(gone)
            slow.give(gone)
        elif dice == 1:
            other = msgspec.structs.replace(machines[number % len(machines)], cpus_milli=1000 * number)
            fast.put(other)
            slow.put(other)
        elif dice == 2:
            fast, slow = fast.copy(), slow.copy()
        elif dice == 3:
            mark, other_mark = fast.mark(), slow.mark()
            for each in held:
                fast.give(each)
                slow.give(each)
            assert fast.find(wish) == slow.find(wish)
            fast.rollback(mark)
            slow.rollback(other_mark)
        elif dice == 4:
            new = msgspec.structs.replace(machines[number % len(machines)], id=f"n{number}", index=number)
            fast.put(new)
            slow.put(new)
        found = fast.find(wish)
        assert found == slow.find(wish)
        assert found == slow.find(wish)
        assert found == fast.copy().find(wish)
        if found is not None:
            need = need_of(wish, found)
            fast.take(f"j{number}", need, found)
            slow.take(f"j{number}", need, found)
            held.append(f"j{number}")


@given(pools(most=12), st.lists(asks(), max_size=12), needs(), st.lists(needs(), min_size=1, max_size=8))
def test_costs_are_equal_row_by_row(
    machines: list[Machine], before: list[Ask], need: Need, typical: list[Need]
) -> None:
    inventory = Inventory(machines, vector_min=PLAIN)
    for number, wish in enumerate(before):
        found = inventory.find(wish)
        if found is not None:
            inventory.take(str(number), need_of(wish, found), found)
    weights = Typical({each: 1 + number for number, each in enumerate(typical)})
    kinds = [inventory._kind[each] for each in inventory.machines()]
    rooms = [inventory._rooms[each] for each in inventory.machines()]
    ids = list(inventory.machines())
    sheet, grid = Sheet(ids, kinds, rooms, weights), Grid(ids, kinds, rooms, weights)
    other = Grid(ids, kinds, rooms, Typical({need: 1}))
    other.costs(need)
    other.typical = weights
    assert grid.costs(need).tolist() == sheet.costs(need) == other.costs(need).tolist()
    assert grid.counts(need).tolist() == sheet.counts(need)
    for rows in ([row] for row in range(len(ids))):
        assert grid.fits_any(need, rows) == sheet.fits_any(need, rows)
    assert grid.fits_any(need, [*range(len(ids))] * 9) == sheet.fits_any(need, range(len(ids)))
    assert [count > 0 for count in sheet.counts(need)] == [cost != plain.NEVER for cost in sheet.costs(need)]


@given(pools(most=12), st.lists(asks(), max_size=12), needs())
def test_free_capacity_is_added_up_alike(machines: list[Machine], before: list[Ask], need: Need) -> None:
    slow, fast = Inventory(machines, vector_min=PLAIN), Inventory(machines, vector_min=VECTOR)
    for number, wish in enumerate(before):
        found = slow.find(wish)
        if found is not None:
            for inventory in (slow, fast):
                inventory.take(str(number), need_of(wish, found), found)
    assert slow.free_for(need) == fast.free_for(need)


def test_small_pools_do_not_import_numpy() -> None:
    code = (
        "import sys; from argosy.scheduler.inventory import Inventory;"
        "from argosy.scheduler.ask import Ask, Machine, Need;"
        "pool = Inventory([Machine(id=str(n), index=n, cpus_milli=1000) for n in range({})]);"
        "assert pool.find(Ask(id='a', needs=(Need(cpus_milli=1),)));"
        "print('numpy' in sys.modules)"
    )
    answers = [
        subprocess.run(
            [sys.executable, "-c", code.format(count)], capture_output=True, text=True, check=True
        ).stdout
        for count in (48, 49)
    ]
    assert answers == ["False\n", "True\n"]


@given(pools(most=8), st.lists(asks(), min_size=1, max_size=10))
def test_the_order_in_which_machines_are_told_does_not_matter(
    machines: list[Machine], wishes: list[Ask]
) -> None:
    one, other = Inventory(machines), Inventory(reversed(machines))
    for number, wish in enumerate(wishes):
        found = one.find(wish)
        assert found == other.find(wish)
        if found is not None:
            one.take(str(number), need_of(wish, found), found)
            other.take(str(number), need_of(wish, found), found)

"""How much must come back until something fits: the sums of both evaluators, the rooms themselves, and the
search for a time."""

from __future__ import annotations

from collections.abc import Sequence

from hypothesis import given
from hypothesis import strategies as st
from msgspec.structs import replace
from pool_places import asks, needs, pools

from argosy.model.offer import Placement
from argosy.model.tenancy import Tenancy
from argosy.scheduler.ask import Ask, Machine, Need
from argosy.scheduler.backfill import ReservationBook
from argosy.scheduler.ends import Release
from argosy.scheduler.foresee import ever_hosting, foresee, reach
from argosy.scheduler.inventory import Inventory, need_of
from argosy.scheduler.quota import Quotas, amounts_of
from argosy.scheduler.whatif import Allocation, WhatIf

VECTOR = 1
PLAIN = 1000
ALL = 1 << 30


def fill(inventory: Inventory, wishes: Sequence[tuple[Ask, int]]) -> list[Release]:
    """What fits runs; it ends in the second that is told."""
    releases = []
    for number, (wish, at_s) in enumerate(wishes):
        found = inventory.find(wish)
        if found is not None:
            need = need_of(wish, found)
            inventory.take(f"j{number}", need, found)
            allocation = Allocation(need, found, amounts_of(need, wish.num_nodes))
            releases.append(Release(1000 * at_s, f"j{number}", "q", allocation))
    return sorted(releases)


def moments_of(releases: Sequence[Release]) -> list[list[Release]]:
    times = sorted({each.at_ms for each in releases})
    return [[each for each in releases if each.at_ms == at_ms] for at_ms in times]


def places(moments: Sequence[Sequence[Release]]) -> list[list[Placement]]:
    return [[place for each in releases for place in each.allocation.placements] for releases in moments]


histories = st.lists(st.tuples(asks(), st.integers(1, 6)), max_size=25)


@given(pools(most=12), histories, needs(), st.integers(1, 6))
def test_arrays_have_the_same_sums(
    machines: list[Machine], history: list[tuple[Ask, int]], need: Need, num_nodes: int
) -> None:
    slow = Inventory(machines, vector_min=PLAIN)
    fast = Inventory(machines, vector_min=VECTOR)
    gives = places(moments_of(fill(slow, history)))
    fill(fast, history)
    assert reach(fast, need, num_nodes, gives) == reach(slow, need, num_nodes, gives)
    backwards = gives[::-1]
    assert reach(fast, need, num_nodes, backwards) == reach(slow, need, num_nodes, backwards)


@given(pools(most=12), histories, needs(), st.integers(1, 4), st.sampled_from([1, 2, ALL]))
def test_what_is_foreseen_is_what_comes(
    machines: list[Machine], history: list[tuple[Ask, int]], need: Need, num_nodes: int, enough: int
) -> None:
    inventory = Inventory(machines, vector_min=VECTOR)
    moments = moments_of(fill(inventory, history))
    before = inventory.version
    found = foresee(inventory, need, num_nodes, moments, enough=enough)
    ever = ever_hosting(inventory, [need], [each for moment in moments for each in moment])
    assert inventory.version == before
    for number in range(len(moments) + 1):
        for each in moments[number - 1] if number else ():
            inventory.give(each.holder)
        hosted = {each: inventory.hosts(each, need, num_nodes) for each in inventory.machines()}
        if sum(hosted.values()) >= num_nodes:
            assert found is not None and found.least == number
            room = {each for each, count in hosted.items() if count}
            assert found.nodes <= room
            assert sum(hosted[each] for each in found.nodes) >= num_nodes
            assert found.nodes == room or len(found.nodes) >= enough
            assert room <= ever
            return
    assert found is None


@given(pools(most=10), histories, st.lists(asks(levels=False), min_size=1, max_size=3))
def test_how_many_places_are_looked_at_does_not_change_the_time(
    machines: list[Machine], history: list[tuple[Ask, int]], wishes: list[Ask]
) -> None:
    """Also beside the reservations of those before; where is another matter. The first is at the first moment
    at which it fits."""
    both = []
    for places_max in (1, ALL):
        inventory = Inventory(machines, vector_min=VECTOR)
        releases = sorted(fill(inventory, history))
        books = WhatIf(inventory, Quotas(Tenancy(), inventory.capacity()), bounded=False)
        book = ReservationBook(books, lambda node_id, index: None, lambda queue: None, places_max=places_max)
        book.learn(releases)
        both.append(book)
    for number, wish in enumerate(wishes):
        ask = replace(wish, id=f"w{number}")

        def place(books: WhatIf, ask: Ask = ask) -> Allocation | None:
            placements = books.inventory.find(ask)
            if placements is None:
                return None
            need = need_of(ask, placements)
            return Allocation(need, placements, amounts_of(need, ask.num_nodes))

        found = [book.earliest(ask, place, 0) for book in both]
        times = [None if each is None else each[0] for each in found]
        assert times[0] == times[1]
        if number == 0:
            assert times[0] == first_moment(machines, history, ask)
        if found[0] is not None:
            for book in both:
                book.add(ask, found[0][0], found[0][0] + 2500, found[0][1])


def first_moment(machines: list[Machine], history: list[tuple[Ask, int]], ask: Ask) -> int | None:
    """One end after the other, and then the placer is asked."""
    inventory = Inventory(machines)
    moments = moments_of(sorted(fill(inventory, history)))
    if inventory.find(ask) is not None:
        return 0
    for moment in moments:
        for release in moment:
            inventory.give(release.holder)
        if inventory.find(ask) is not None:
            return moment[0].at_ms
    return None

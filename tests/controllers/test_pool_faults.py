"""Machines that contradict each other about the topology: told, used all the same, and mended when they
agree."""

from __future__ import annotations

import msgspec

from argosy.model.tenancy import Tenancy
from argosy.scheduler.ask import Ask, Machine, Need
from argosy.scheduler.cache import PoolCache

FAULT = (
    "rack r1 of machine node 1 lies in block b2, for other machines it lies in block b1; "
    "until that is corrected, node 1 has no place in the topology"
)


def machine(index: int, *domains: str) -> Machine:
    return Machine(id=f"n{index}", index=index, name=f"node {index}", cpus_milli=4000, domains=domains)


def test_the_first_is_believed_and_the_other_is_used_without_its_domains() -> None:
    books = PoolCache(Tenancy(), "")
    books.set_machines([machine(0, "b1", "r1"), machine(1, "b2", "r1"), machine(2, "b1", "r1")])
    assert books.faults == {"n1": FAULT}
    books.set("job-1", Ask(id="job-1", needs=(Need(cpus_milli=4000),), num_nodes=3, spread="node", number=1))
    (start,) = books.cycle(0).starts
    assert {place.node_id for place in start.placements} == {"n0", "n1", "n2"}


def test_no_gang_that_needs_a_rack_goes_there() -> None:
    books = PoolCache(Tenancy(), "")
    books.set_machines([machine(0, "b1", "r1"), machine(1, "b2", "r1"), machine(2, "b1", "r1")])
    gang = Ask(id="job-1", needs=(Need(cpus_milli=4000),), num_nodes=2, required="rack", number=1)
    books.set("job-1", gang)
    (start,) = books.cycle(0).starts
    assert {place.node_id for place in start.placements} == {"n0", "n2"}


def test_a_machine_with_other_levels_is_told() -> None:
    books = PoolCache(Tenancy(), "")
    books.set_machines([machine(0, "b1", "r1"), machine(1, "b1")])
    assert books.faults == {
        "n1": "machine node 1 names 1 level of the topology (b1), others name 2; "
        "until that is corrected, node 1 has no place in the topology"
    }


def test_what_is_corrected_is_believed_again_whoever_corrects_it() -> None:
    books = PoolCache(Tenancy(), "")
    contradicting = [machine(0, "b1", "r1"), machine(1, "b2", "r1")]
    books.set_machines(contradicting)
    books.set_machines([contradicting[0], machine(1, "b1", "r1")])
    assert books.faults == {}
    books.set_machines(contradicting)
    assert list(books.faults) == ["n1"]
    books.set_machines([machine(0, "b2", "r1"), contradicting[1]])  # the other one was wrong
    assert books.faults == {}
    books.set_machines(contradicting)
    books.set_machines(contradicting[1:])
    assert books.faults == {} and books.pool.inventory.machines()["n1"].domains == ("b2", "r1")


def test_all_move_at_once() -> None:
    books = PoolCache(Tenancy(), "")
    before = [machine(index, "b1", f"r{index % 2}") for index in range(6)]
    books.set_machines(before)
    books.set_machines([msgspec.structs.replace(each, domains=("b9", each.domains[1])) for each in before])
    assert books.faults == {}
    assert {each.domains[0] for each in books.pool.inventory.machines().values()} == {"b9"}

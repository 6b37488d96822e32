"""Gangs and domains: within one, spread over several, the fullest that fits; contradictions are refused in
words."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pool_places import ask, box, nodes_of, put

from argosy.model.errors import ArgosyError
from argosy.scheduler.ask import Machine, Need
from argosy.scheduler.inventory import Inventory
from argosy.scheduler.topology import Path, share_out

WHOLE = Need(gpu_milli=8000)
HALF = Need(gpu_milli=4000)


def cluster(shape: Sequence[Sequence[int]]) -> list[Machine]:
    """Racks with the sizes of their leaves; two racks to a block; machines of eight devices."""
    paths = [
        (f"b{rack // 2}", f"r{rack}", f"l{rack}.{leaf}")
        for rack, leaves in enumerate(shape)
        for leaf, size in enumerate(leaves)
        for _ in range(size)
    ]
    return [box(number, domains=path) for number, path in enumerate(paths)]


@pytest.fixture(params=[1, 1000], ids=["vector", "plain"])
def vector_min(request: pytest.FixtureRequest) -> int:
    return int(request.param)


@pytest.mark.parametrize(
    ("shape", "ranks", "wish", "domains"),
    [
        # ([leaves of rack 0], [of rack 1], ...), ranks of a whole machine each, wish, ranks by (rack, leaf)
        (([4], [2], [3]), 2, {"required": "rack"}, {(1, 0): 2}),  # the fullest that fits
        (([4], [2], [3]), 3, {"required": "rack"}, {(2, 0): 3}),
        (([2, 2], [3, 1]), 3, {"required": "rack"}, {(0, 0): 2, (0, 1): 1}),  # racks are equal: the first
        (([1, 2], [4]), 3, {"preferred": "leaf"}, {(1, 0): 3}),
        (([1, 2], [2, 2]), 3, {"preferred": "leaf"}, {(0, 0): 1, (0, 1): 2}),  # no leaf: the fullest rack
        (([2], [2], [3]), 4, {"preferred": "leaf"}, {(0, 0): 2, (1, 0): 2}),  # no rack: a block
        (
            ([2], [2], [3]),
            5,
            {"preferred": "leaf"},
            {(0, 0): 2, (1, 0): 2, (2, 0): 1},
        ),  # the emptiest block first
        (([2], [2], [3]), 5, {"preferred": "leaf", "required": "block"}, None),
        (([2], [2], [3]), 4, {"required": "block"}, {(0, 0): 2, (1, 0): 2}),
        (([2], [1], [3]), 3, {"spread": "rack"}, {(0, 0): 1, (1, 0): 1, (2, 0): 1}),
        (([2], [1], [3]), 4, {"spread": "rack"}, None),
        (([1, 3], [1, 1, 1]), 3, {"spread": "leaf", "required": "rack"}, {(1, 0): 1, (1, 1): 1, (1, 2): 1}),
        (([1, 3], [2]), 2, {"spread": "leaf", "preferred": "leaf"}, {(0, 0): 1, (0, 1): 1}),
        (([3],), 4, {}, None),
    ],
)
def test_domains_of_gangs(
    shape: tuple[list[int], ...],
    ranks: int,
    wish: dict[str, str],
    domains: dict[tuple[int, int], int] | None,
    vector_min: int,
) -> None:
    machines = cluster(shape)
    found = Inventory(machines, vector_min=vector_min).find(ask(WHOLE, ranks, **wish))
    if domains is None:
        assert found is None
        return
    assert found is not None
    by_id = {machine.id: machine for machine in machines}
    where = Counter(by_id[each].domains[2] for each in nodes_of(found))
    assert where == {f"l{rack}.{leaf}": count for (rack, leaf), count in domains.items()}


def test_ranks_share_nodes_unless_they_spread(vector_min: int) -> None:
    inventory = Inventory(cluster([[3]]), vector_min=vector_min)
    assert sorted(nodes_of(inventory.find(ask(HALF, 4)) or ())) == ["m0", "m0", "m1", "m1"]
    assert sorted(nodes_of(inventory.find(ask(HALF, 3, spread="node")) or ())) == ["m0", "m1", "m2"]
    assert inventory.find(ask(HALF, 4, spread="node")) is None
    assert nodes_of(inventory.find(ask(HALF, 2, required="node")) or ()) == ["m0", "m0"]
    assert inventory.find(ask(HALF, 3, required="node")) is None
    assert len(inventory.find(ask(HALF, 3, preferred="node")) or ()) == 3


def test_a_preferred_node_without_any_topology(vector_min: int) -> None:
    inventory = Inventory([box(0), box(1)], vector_min=vector_min)
    put(inventory, "a", HALF)
    assert nodes_of(inventory.find(ask(HALF, 2, preferred="node")) or ()) == ["m1", "m1"]
    assert len(inventory.find(ask(HALF, 3, preferred="rack")) or ()) == 3


def test_machines_without_domains_serve_only_who_may_go_anywhere(vector_min: int) -> None:
    inventory = Inventory([*cluster([[2]]), box(8), box(9)], vector_min=vector_min)
    assert inventory.find(ask(WHOLE, 3, required="block")) is None
    assert sorted(nodes_of(inventory.find(ask(WHOLE, 3, preferred="leaf")) or ())) == ["m0", "m1", "m8"]
    assert inventory.find(ask(WHOLE, 2, spread="leaf")) is None


@pytest.mark.parametrize(
    ("machines", "fact", "hint"),
    [
        (
            [box(0, domains=("b", "r0", "leaf-a")), box(1, domains=("b", "r1", "leaf-a"), name="gpu-1")],
            "leaf leaf-a of machine gpu-1 lies in rack r1, for other machines it lies in rack r0",
            "Correct the domains of one of the machines, or give the leaf another name.",
        ),
        (
            [box(0, domains=("b0", "r")), box(1, domains=("b1", "r"))],
            "rack r of machine m1 lies in block b1, for other machines it lies in block b0",
            "Correct the domains of one of the machines, or give the rack another name.",
        ),
        (
            [box(0, domains=("b", "r", "l")), box(1, domains=("b", "r"))],
            "machine m1 names 2 levels of the topology (b/r), others name 3",
            "Give all machines of a pool the same levels, the widest first (block, rack, leaf), or none at "
            "all.",
        ),
        (
            [box(0, domains=("z", "b", "r", "l"))],
            "machine m0 names 4 levels of the topology: z/b/r/l",
            "Name at most block, rack and leaf, the widest first.",
        ),
    ],
)
def test_contradictions_are_refused(machines: list[Machine], fact: str, hint: str) -> None:
    inventory = Inventory(machines[:-1])
    with pytest.raises(ArgosyError) as caught:
        inventory.put(machines[-1])
    assert (caught.value.code, caught.value.what, caught.value.hint) == ("spec-invalid", fact, hint)
    assert machines[-1].id not in inventory.machines()


def test_a_leaf_may_move_once_nothing_else_is_in_it() -> None:
    inventory = Inventory([box(0, domains=("b", "r0", "l")), box(1, domains=("b", "r0", "m"))])
    inventory.put(box(0, domains=("b", "r1", "l")))
    inventory.drop("m1")
    inventory.put(box(2, domains=("b", "r1", "m")))
    inventory.put(box(0, domains=("b", "r2", "l")))
    with pytest.raises(ArgosyError):
        inventory.put(box(0, domains=("b", "r2", "m")))


_PATHS = st.tuples(st.sampled_from("ab"), st.sampled_from("cd"), st.sampled_from("ef")).map(
    lambda each: (each[0], "".join(each[:2]), "".join(each))
)


@given(
    st.dictionaries(_PATHS, st.integers(0, 3), min_size=1),
    st.integers(1, 8),
    st.sampled_from(["", "leaf", "rack", "block"]),
    st.sampled_from(["", "leaf", "rack", "block"]),
)
def test_the_narrowest_level_that_is_possible(
    counts: dict[Path, int], ranks: int, required: str, preferred: str
) -> None:
    """Study invariant 12: `required` is never crossed, `preferred` uses the lowest feasible level."""
    depths = {"": 0, "block": 1, "rack": 2, "leaf": 3}
    shares = share_out(counts, ranks, required=required, preferred=preferred)

    def possible(depth: int) -> bool:
        sums: Counter[Path] = Counter()
        for path, count in counts.items():
            sums[path[:depth]] += count
        return max(sums.values()) >= ranks

    if shares is None:
        assert not possible(depths[required])
        return
    assert sum(share.ranks for share in shares) == ranks
    for share in shares:
        assert share.ranks <= sum(
            count for path, count in counts.items() if path[: len(share.path)] == share.path
        )
    used = {share.path[:depth] for share in shares for depth in [depths[required]]}
    assert len(used) == 1
    for depth in range(depths[required], max(depths[preferred], depths[required]) + 1):
        assert (len({share.path[:depth] for share in shares}) == 1) == possible(depth)

"""Law 4 with the whole pool: who is below its guarantee is served in one cycle, whatever borrowers hold."""

from __future__ import annotations

from typing import NamedTuple

from hypothesis import given
from hypothesis import strategies as st
from pool_world import World, gpus, job, node, tenancy

from argosy.model.tenancy import Queue
from argosy.scheduler.ask import Ask
from argosy.scheduler.pool import Pool
from argosy.scheduler.quota import amounts_of

PROTECTED_S = 60
PLAIN = tenancy(min_runtime_s=PROTECTED_S)


class Tree(NamedTuple):
    """Two teams with guarantees, their users with parts of these, and people without any."""

    queues: tuple[Queue, ...]
    leaves: tuple[str, ...]


@st.composite
def trees(draw: st.DrawFn, size: int) -> Tree:
    """What is guaranteed is there: `size` GPUs at most."""
    first = draw(st.integers(1, size))
    second = draw(st.integers(0, size - first))
    queues = []
    for path, promised in (("a", first), ("b", second)):
        if not promised:
            continue
        deserved = draw(st.integers(promised, size))
        queues.append(Queue(path=path, guaranteed=gpus(promised), deserved=gpus(deserved)))
        inner = draw(st.integers(0, promised))
        if inner:
            queues.append(Queue(path=f"{path}/x", guaranteed=gpus(inner)))
            rest = draw(st.integers(0, promised - inner))
            if rest:
                queues.append(Queue(path=f"{path}/y", guaranteed=gpus(rest)))
    return Tree(tuple(queues), ("a/x", "a/y", "b/x", "b/y", "c", "d/z"))


def filled(nodes: int, size: int, asks: list[Ask]) -> World:
    """A pool in which as many of these run as fit, and are old; nobody waits."""
    world = World(Pool(PLAIN, machines=[node(i, size) for i in range(nodes)]))
    for ask in asks:
        world.submit(ask)
    world.settle()
    for ask_id in sorted(world.waiting):
        world.pool.withdraw(ask_id)
        del world.waiting[ask_id]
    world.now_ms += PROTECTED_S * 1000 * 2
    return world


def is_served(world: World, tree: Tree, ask: Ask) -> bool:
    """Whether it is, after one cycle with this tree; asks beyond the guarantee count as served."""
    world.pool.set_tenancy(tenancy(*tree.queues, min_runtime_s=PROTECTED_S))
    world.pool.quotas.advance(world.now_ms)
    if not world.pool.quotas.below_guarantee(ask.queue, amounts_of(ask.needs[0], ask.num_nodes)):
        return True
    world.submit(ask)
    world.cycle()
    return ask.id in world.running or ask.id in world.pool.nominated


@given(st.data(), st.integers(2, 8))
def test_one_by_one_whatever_anybody_borrows(data: st.DataObject, size: int) -> None:
    """One machine, jobs of one GPU: only sums matter, and others, too, may have guarantees that they use."""
    tree = data.draw(trees(size))
    holders = data.draw(st.lists(st.sampled_from(tree.leaves), min_size=size, max_size=size))
    asks = [job(n, 1, queue=queue, preemptible=True) for n, queue in enumerate(holders)]
    world = filled(1, size, asks)
    wants = data.draw(st.integers(1, min(3, size)))
    ask = job(
        99, wants, queue=data.draw(st.sampled_from(tree.leaves[:4])), preemptible=data.draw(st.booleans())
    )
    assert is_served(world, tree, ask)


@given(st.data(), st.integers(1, 3), st.sampled_from([2, 4]))
def test_gangs_whatever_the_shape_of_what_is_borrowed(data: st.DataObject, nodes: int, size: int) -> None:
    """Several machines, and jobs of any size of people to whom nothing is guaranteed, in a random order."""
    tree = data.draw(trees(nodes * size))
    row = st.tuples(
        st.sampled_from(("c", "d/z", "d/w")),
        st.sampled_from([0.5, 1, 1, 2, size]),
        st.integers(1, nodes),
        st.integers(0, 4),
    )
    rows = data.draw(st.lists(row, min_size=3, max_size=12))
    asks = [
        job(n, wants, ranks, queue=queue, urgency=urgency, preemptible=True)
        for n, (queue, wants, ranks, urgency) in enumerate(rows)
    ]
    world = filled(nodes, size, asks)
    ask = job(
        99, data.draw(st.sampled_from([0.5, 1, 2, size])), data.draw(st.integers(1, nodes)),
        queue=data.draw(st.sampled_from(tree.leaves[:4])),
    )  # fmt: skip
    if world.pool.inventory.never(ask) is None:
        assert is_served(world, tree, ask)

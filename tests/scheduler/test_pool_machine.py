"""Random histories of a pool, with all laws after every step; and the same pool without any memory as a
reference."""

from __future__ import annotations

import random

import msgspec
from hypothesis import given
from hypothesis import strategies as st
from pool_world import World, job, node, tenancy

from argosy.model.tenancy import Queue, Tenancy
from argosy.scheduler.ask import Ask, Decision
from argosy.scheduler.pool import Pool

TREES = (
    tenancy(min_runtime_s=30),
    tenancy(
        Queue(path="a", guaranteed={"gpus": 2000}, deserved={"gpus": 4000}),
        Queue(path="a/x", limit={"gpus": 4000, "jobs": 5}),
        Queue(path="b", deserved={"gpus": 4000}, weight_milli=2000),
        min_runtime_s=30,
        attained_service=True,
    ),
    tenancy(Queue(path="b", limit={"gpus": 3000}), backfill="conservative", preemption=False),
    tenancy(Queue(path="a", limit={"gpus/A100": 6000}), min_runtime_s=0, consolidation=True, aging_s=600),
    tenancy(backfill="none", preemption=False),
)
QUEUES = ("a/x", "a/y", "b", "c")


class History:
    """One seeded history of a pool."""

    def __init__(self, seed: int, *, unlike: str = "") -> None:
        self.dice = random.Random(seed)
        self.tree = self.dice.choice(TREES)
        self.nodes = {
            i: node(i, self.dice.choice([2, 4]), model=self.dice.choice(["A100", "H100"])) for i in range(3)
        }
        self.world = World(Pool(self.tree, machines=self.nodes.values()))
        self.number = 0
        self.unlike = unlike
        self.decisions: list[Decision] = []

    def ask(self) -> Ask:
        dice = self.dice
        self.number += 1
        return job(
            self.number,
            dice.choice([0.5, 1, 1, 2, 4]),
            dice.choice([1, 1, 1, 2]),
            queue=dice.choice(QUEUES),
            cpus=dice.choice([1, 4]),
            models=dice.choice([(), (), ("A100",), ("H100", "A100")]),
            urgency=dice.choice([1, 2, 3, 3, 4]),
            priority=dice.choice([0, 0, 5]),
            preemptible=dice.random() < 0.6,
            checkpoint=dice.random() < 0.5,
            estimate_s=dice.choice([None, 10, 60, 600]),
            submitted_ms=self.world.now_ms,
            not_before_ms=self.world.now_ms + 5000 if dice.random() < 0.1 else 0,
        )

    def step(self) -> None:
        world, dice = self.world, self.dice
        world.now_ms += dice.choice([0, 1, 1000, 30_000, 400_000])
        for _ in range(dice.choice([1, 1, 2, 4])):
            self.event()
        self.forget()
        decision = world.cycle()
        self.decisions.append(decision)
        self.check(decision)

    def event(self) -> None:
        world, dice = self.world, self.dice
        kind = dice.choice(
            ["submit"] * 5 + ["end"] * 3 + ["leave"] * 3 + ["withdraw", "node", "tree", "restart"]
        )
        leaving = sorted(world.terminating)
        settled = sorted(set(world.running) - set(leaving))
        if kind == "submit":
            world.submit(self.ask())
        elif kind == "end" and settled:
            world.end(dice.choice(settled))
        elif kind == "leave" and leaving:
            world.leave(dice.choice(leaving))
        elif kind == "withdraw" and world.waiting:
            ask_id = dice.choice(sorted(world.waiting))
            del world.waiting[ask_id]
            world.pool.withdraw(ask_id)
        elif kind == "node":
            self.change_node(dice.randrange(3))
        elif kind == "tree":
            self.tree = dice.choice(TREES)
            world.pool.set_tenancy(self.tree)
        elif kind == "restart":
            world.pool = world.rebuilt()

    def change_node(self, number: int) -> None:
        """It closes or opens again; or it is lost with what ran there, and comes back later."""
        pool = self.world.pool
        name = f"n{number}"
        if name not in pool.inventory.machines():
            pool.put_machine(self.nodes[number])
        elif self.dice.random() < 0.5:
            there = pool.inventory.machines()[name]
            pool.put_machine(msgspec.structs.replace(there, open=not there.open))
        else:
            pool.drop_machine(name)
            for job_id, run in list(self.world.running.items()):
                if any(placement.node_id == name for placement in run.placements):
                    self.world.end(job_id)

    def forget(self) -> None:
        """What must make no difference."""
        pool = self.world.pool
        if self.unlike == "memory":  # classes that were blocked, the last answer
            pool._classes.clear()
            pool._cycled = -1
        elif self.unlike == "often":  # looked at in between for no reason
            pool.explain(next(iter(self.world.waiting)), self.world.now_ms) if self.world.waiting else None
            pool.line(self.world.now_ms)

    def check(self, decision: Decision) -> None:
        """World.check has counted: nothing over-committed, gangs whole, usage the sum of what runs."""
        world, pool = self.world, self.world.pool
        quotas = pool.quotas
        for queue in pool.tenancy.queues:
            used = quotas.used(queue.path)
            for start in decision.starts:
                path = world.running[start.ask_id].ask.queue
                if path == queue.path or path.startswith(f"{queue.path}/"):
                    for name in pool.held[
                        start.ask_id
                    ].allocation.amounts:  # other names may be over since the tree has changed
                        assert used.get(name, 0) <= queue.limit.get(name, 1 << 60), queue.path
        for start in decision.starts:
            for placement in start.placements:
                assert pool.inventory.machines()[placement.node_id].open
        assert set(pool.terminating) == set(world.terminating)
        for ask_id, nominated in pool.nominated.items():
            assert ask_id in world.waiting or nominated.moving
        # Work is conserved: what fits today and within quotas waits only for a reservation, a nominated
        # placement or strict order.
        if not decision.reservations and not pool.terminating and not pool.nominated:
            for ask in world.waiting.values():
                if ask.not_before_ms > world.now_ms or pool.tenancy.policy.backfill == "none":
                    continue
                for variant in pool.equivalence_class(ask).variants:
                    fits = pool.inventory.find(variant.ask) is not None
                    allowed = quotas.over(ask.queue, variant.amounts) is None and quotas.lends(
                        ask.queue, variant.amounts
                    )
                    assert not (fits and allowed), ask.id


SEEDS = st.integers(0, 1 << 32)


@given(SEEDS)
def test_the_laws_hold_after_every_step(seed: int) -> None:
    history = History(seed)
    for _ in range(25):
        history.step()
    drain(history)


def drain(history: History) -> None:
    """No more arrivals: evictions end, and everything that fits an empty pool starts sooner or later."""
    world = history.world
    for number, machine in history.nodes.items():
        world.pool.put_machine(machine)
        del number
    world.pool.set_tenancy(Tenancy(policy=world.pool.tenancy.policy))
    for _ in range(400):
        world.now_ms += 700_000
        world.settle()
        if not world.running:
            break
        world.end(min(world.running))
    for ask in world.waiting.values():
        assert world.pool.explain(ask.id, world.now_ms).code == "never", ask


@given(SEEDS, st.sampled_from(["memory", "often", ""]))
def test_memory_makes_no_difference(seed: int, unlike: str) -> None:
    """Skipping blocked classes, keeping answers, being asked why: the decisions are those of a pool that does
    everything anew. And twice the same history is twice the same decisions."""
    one, other = History(seed), History(seed, unlike=unlike)
    for _ in range(20):
        one.step()
        other.step()
        ours, theirs = one.decisions[-1], other.decisions[-1]
        assert ours.starts == theirs.starts
        assert ours.evictions == theirs.evictions


@given(SEEDS)
def test_a_restart_decides_the_same(seed: int) -> None:
    """A pool that is built from the rows starts the same asks and ends as many, unless places were kept:
    those are not in the rows. (Nor is what queues have borrowed lately, which decides between equals: one
    history in a thousand, hence no dice here.)"""
    history = History(seed)
    for _ in range(12):
        history.step()
    world = history.world
    world.now_ms += 1
    again = world.rebuilt()
    kept = bool(world.pool.promised) or any(not each.tentative for each in world.pool.nominated.values())
    world.submit(job(900, 1, queue="c", submitted_ms=world.now_ms))
    again.submit(world.waiting["j900"])
    for job_id in sorted(set(world.running) - set(world.terminating))[:2]:
        again.ended(job_id)
        world.end(job_id)
    theirs = again.cycle(world.now_ms)
    ours = world.pool.cycle(world.now_ms)
    if not kept:
        assert {s.ask_id for s in ours.starts} == {s.ask_id for s in theirs.starts}
        assert len(ours.evictions) == len(theirs.evictions)


@given(SEEDS)
def test_simultaneous_news_may_come_in_any_order(seed: int) -> None:
    history = History(seed)
    for _ in range(8):
        history.step()
    world = history.world
    one, other = world.rebuilt(), world.rebuilt()
    ends = sorted(set(world.running) - set(world.terminating))[:3]
    asks = [history.ask() for _ in range(6)]
    for pool, flip in ((one, 1), (other, -1)):
        for ask in asks[::flip]:
            pool.submit(ask)
        for job_id in ends[::flip]:
            pool.ended(job_id)
    ours, theirs = one.cycle(world.now_ms), other.cycle(world.now_ms)
    assert (ours.starts, ours.evictions) == (theirs.starts, theirs.evictions)


@given(SEEDS, st.sampled_from([0.5, 1, 2, 4]), st.integers(1, 2))
def test_more_machines_hurt_no_single_job(seed: int, size: float, nodes: int) -> None:
    history = History(seed)
    for _ in range(6):
        history.step()
    pool = history.world.pool
    ask = job(999, size, nodes)
    if pool.inventory.find(ask) is not None:
        pool.put_machine(node(7, 1))
        assert pool.inventory.find(ask) is not None

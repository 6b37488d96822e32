"""Random pools of everything at once, decided with arrays and without: the decisions are the same.

Some seeds run always; `ARGOSY_POOL_SEEDS=500` runs as many (nightly).
"""

from __future__ import annotations

import os
import random

import pytest
from pool_places import GB, box, card, check_books, devices_of

from argosy.model.scheduling import Isolation
from argosy.model.tenancy import Queue, SharePolicy, Tenancy
from argosy.scheduler.ask import Ask, Machine, Need
from argosy.scheduler.inventory import Inventory
from argosy.scheduler.pool import Pool

SEEDS = int(os.environ.get("ARGOSY_POOL_SEEDS", "12"))
QUEUES = ("a/x/u/v", "a/x/w", "a/y", "b", "b/z")


def machine(number: int, dice: random.Random) -> Machine:
    sort = dice.choice(["cpu", "h100", "h100", "a100", "l4", "mixed", "parted"])
    devices = devices_of(sort)
    if sort == "a100":
        devices = tuple(card(index, "A100", dice.choice([40, 80])) for index in range(2))
    rack = dice.randrange(4)
    return Machine(
        id=f"m{number:02}",
        index=number,
        cpus_milli=dice.choice([4000, 16_000, 64_000]),
        memory_bytes=dice.choice([16, 64, 256]) * GB,
        devices=devices,
        sharing=dice.choice([(), ("mps",), ("mig",), ("mps", "mig")]),
        taints=dice.choice([(), (), ("spot",)]),
        domains=(f"b{rack // 2}", f"r{rack}"),
    )


def need(dice: random.Random) -> Need:
    gpu_milli = dice.choice([0, 5, 100, 250, 330, 500, 500, 1000, 1000, 2000])
    return Need(
        cpus_milli=dice.choice([0, 500, 1000, 4000]),
        memory_bytes=dice.choice([0, 1, 4]) * GB,
        gpu_milli=gpu_milli,
        models=dice.choice([(), (), ("H100",), ("A100", "L4")]) if gpu_milli else (),
        tolerations=dice.choice([(), ("spot",)]),
        isolation=dice.choice(list(Isolation)),
        tenant=dice.choice(["", "ann", "bob"]),
        open=dice.random() < 0.5,
    )


def request(number: int, dice: random.Random, now_ms: int) -> Ask:
    first = need(dice)
    ranks = dice.choice([1, 1, 1, 2, 3])
    return Ask(
        id=f"j{number:03}",
        number=number,
        needs=(first, need(dice)) if dice.random() < 0.3 else (first,),
        num_nodes=ranks,
        required=dice.choice(["", "", "rack", "block"]) if ranks > 1 else "",
        preferred=dice.choice(["", "rack"]) if ranks > 1 else "",
        spread=dice.choice(["", "", "node"]) if ranks > 1 else "",
        queue=dice.choice(QUEUES),
        urgency=dice.choice([2, 3, 3, 4]),
        submitted_ms=now_ms,
        preemptible=dice.random() < 0.5,
        estimate_s=dice.choice([None, 10, 60, 600]),
    )


def tree(dice: random.Random) -> Tenancy:
    queues = (
        Queue(path="a", deserved={"gpus": 6000}),
        Queue(path="a/x", guaranteed={"gpus": dice.choice([1000, 2000])}),
        Queue(path="a/x/u", limit={"gpus": 4000}),
        Queue(path="b", limit=dice.choice([{"gpus/H100": 3000}, {"cpus": 40_000}, {"jobs": 4}])),
    )
    policy = SharePolicy(min_runtime_s=0, preemption=dice.random() < 0.5)
    return Tenancy(queues=queues if dice.random() < 0.7 else (), policy=policy)


@pytest.mark.parametrize("seed", range(SEEDS))
def test_both_evaluators_decide_the_same(seed: int) -> None:
    dice = random.Random(seed)
    machines = [machine(number, dice) for number in range(dice.choice([3, 6, 12]))]
    tenancy = tree(dice)
    fast, slow = Pool(tenancy, machines=machines), Pool(tenancy, machines=machines)
    fast.inventory = Inventory(machines, vector_min=1)
    slow.inventory = Inventory(machines, vector_min=1000)
    running: dict[str, Ask] = {}
    now_ms, number = 1_000_000, 0
    for _ in range(25):
        now_ms += dice.choice([0, 1000, 30_000])
        for _ in range(dice.choice([1, 2, 4])):
            number += 1
            ask = request(number, dice, now_ms)
            fast.submit(ask)
            slow.submit(ask)
        for job_id in dice.sample(sorted(running), min(len(running), dice.choice([0, 1, 2]))):
            del running[job_id]
            fast.ended(job_id)
            slow.ended(job_id)
        ours, theirs = fast.cycle(now_ms), slow.cycle(now_ms)
        assert ours == theirs, seed
        running |= {start.ask_id: fast.held[start.ask_id].ask for start in ours.starts}
        for evict in ours.evictions:
            running.pop(evict.job_id, None)
            fast.ended(evict.job_id)
            slow.ended(evict.job_id)
        held = {id: (each.allocation.need, each.allocation.placements) for id, each in fast.held.items()}
        check_books(fast.inventory, held)


def test_sixty_machines_of_which_one_has_the_cpus() -> None:
    """However many machines are large enough in GPUs alone: what fits on the last one starts, and nobody is
    preempted for it."""
    small = [box(number, 1, cpus_milli=100) for number in range(59)]
    pool = Pool(machines=[*small, box(59, 2)])
    half = Need(cpus_milli=4000, gpu_milli=500)
    for number in range(4):
        pool.submit(Ask(id=f"j{number}", number=number, needs=(half,), queue="a", preemptible=True))
        decision = pool.cycle(1000 * (1 + number))
        assert [each.ask_id for each in decision.starts] == [f"j{number}"] and not decision.evictions
        assert decision.starts[0].placements[0].node_id == "m59"

"""Golden decisions of the pool scheduler: a hash of every start, eviction and reservation of five workloads.

    python benchmarks/decisions.py [--cases pools,openb,kueue,philly,growth] [--update]

A change that only moves code must leave all hashes as they are; one that changes what is decided records new
ones with `--update` and says why in its commit. The reference is `results/decisions.json`.

    pools     200 random histories of tests/scheduler (arrivals, ends, failures, other trees, restarts)
    openb     every placement of the default list, one seed
    kueue     the first 1,500 workloads of Kueue's baseline and topology tests, in virtual time
    philly    the first 1,500 jobs of the Philly trace with attained service and preemption
    growth    40 incremental cycles of 600 nodes of openb with 6,000 jobs in 60 queues
"""

from __future__ import annotations

import argparse
import hashlib
import heapq
import json
import random
import sys
from collections import Counter
from pathlib import Path

import kueue
import msgspec
import openb
import philly
import pool_scale

from argosy.scheduler.ask import Ask, Decision
from argosy.scheduler.inventory import Inventory
from argosy.scheduler.pool import Pool

REFERENCE = Path(__file__).parent / "results" / "decisions.json"


class Log:
    """A running hash of decisions. Sentences are left out: words may change."""

    def __init__(self) -> None:
        self.hash = hashlib.sha256()
        self.count = 0

    def add(self, decision: Decision) -> None:
        what = (
            [(start.ask_id, start.placements) for start in decision.starts],
            [(evict.job_id, evict.for_id, evict.kind) for evict in decision.evictions],
            decision.reservations,
        )
        self.hash.update(msgspec.msgpack.encode(what))
        self.count += len(decision.starts) + len(decision.evictions)

    def digest(self) -> str:
        return f"{self.hash.hexdigest()[:24]} {self.count}"


def pools() -> str:
    sys.path.insert(0, str(Path(__file__).parents[1] / "tests" / "scheduler"))
    from test_pool_machine import History

    log = Log()
    for seed in range(200):
        history = History(seed)
        for _ in range(25):
            history.step()
        for decision in history.decisions:
            log.add(decision)
    return log.digest()


def placements(name: str = "default", seed: int = 42) -> str:
    folder = openb.traces()
    inventory = Inventory(openb.machines(folder))
    pods = openb.needs(folder, name)
    inventory.weigh(list(Counter(pods).items()))
    log = Log()
    for number, need in enumerate(openb.stream(pods, inventory.capacity()["gpus"], seed)):
        found = inventory.find(Ask(id="", needs=(need,)))
        log.hash.update(msgspec.msgpack.encode(found))
        if found is not None:
            inventory.take(f"pod-{number}", need, found)
            log.count += 1
    return log.digest()


def queues(case: str, most: int = 1500) -> str:
    """In virtual time: what arrives and ends within 100 ms is told together."""
    read = kueue.read(case)
    pool, log = Pool(read.tenancy, machines=read.machines), Log()
    planned = {each.ask.id: each for each in read.planned[:most]}
    events = [(each.at_ms // 100, 1, each.ask.id, 0) for each in planned.values()]
    heapq.heapify(events)
    runs: Counter[str] = Counter()
    running: set[str] = set()
    while events:
        tick = events[0][0]
        while events and events[0][0] == tick:
            _, kind, job_id, run = heapq.heappop(events)
            each = planned[job_id]
            if kind:
                pool.submit(msgspec.structs.replace(each.ask, submitted_ms=each.at_ms))
            elif runs[job_id] == run and job_id in running:
                running.discard(job_id)
                pool.ended(job_id)
        while True:
            decision = pool.cycle(tick * 100)
            log.add(decision)
            for start in decision.starts:
                runs[start.ask_id] += 1
                running.add(start.ask_id)
                length = planned[start.ask_id].runtime_ms // 100 + 1
                heapq.heappush(events, (tick + length, 0, start.ask_id, runs[start.ask_id]))
            for evict in decision.evictions:
                running.discard(evict.job_id)
                pool.ended(evict.job_id)
                pool.submit(planned[evict.job_id].ask)
            if not decision.evictions:
                break
    return log.digest()


def trace(jobs: int = 1500) -> str:
    log = Log()
    run = philly.Run("argosy", philly.load(jobs), 512)
    cycle = run.pool.cycle

    def recorded(now_ms: int) -> Decision:
        decision = cycle(now_ms)
        log.add(decision)
        return decision

    run.pool.cycle = recorded  # type: ignore[method-assign]
    run.play()
    return log.digest()


def growth(nodes: int = 600) -> str:
    dice, log = random.Random(1), Log()
    pool = Pool(machines=pool_scale.nodes(nodes))
    waiting = pool_scale.asks(10 * nodes + 1000, queues=nodes // 10)
    for ask in waiting[: 10 * nodes]:
        pool.submit(ask)
    running: list[str] = []
    for turn in range(40):
        decision = pool.cycle(1 + turn * 1000)
        log.add(decision)
        running += (start.ask_id for start in decision.starts)
        gone = set(dice.sample(running, 20))
        running = [each for each in running if each not in gone]
        for job_id in sorted(gone):
            pool.ended(job_id)
        for ask in waiting[10 * nodes + 20 * turn :][:20]:
            pool.submit(ask)
    return log.digest()


CASES = {
    "pools": pools,
    "openb": placements,
    "kueue": lambda: f"{queues('baseline')}, {queues('tas')}",
    "philly": trace,
    "growth": growth,
}


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--cases", default=",".join(CASES))
    parser.add_argument("--update", action="store_true")
    args = parser.parse_args()
    known = json.loads(REFERENCE.read_text()) if REFERENCE.exists() else {}
    changed = []
    for name in args.cases.split(","):
        found = CASES[name]()
        same = known.get(name) == found
        print(name, found, "as before" if same else f"CHANGED, was {known.get(name)}", flush=True)
        if not same:
            changed.append(name)
            known[name] = found
    if args.update:
        REFERENCE.write_text(json.dumps(known, indent=1, sort_keys=True) + "\n")
    elif changed:
        sys.exit(f"other decisions than recorded: {', '.join(changed)}")


if __name__ == "__main__":
    main()

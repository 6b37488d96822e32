"""Routing of language models, replayed over a public trace: how soon answers begin, by rule.

    python benchmarks/routing.py [--json FILE] [--cases main,memory,tier,slow,dies,routers2,routers4]
                                 [--rules prefix-aware,least] [--seeds 1,2,3] [--decision]

Mooncake's conversation trace (12,031 requests in an hour, prompts as chains of blocks of 512 tokens; arrivals
of one tick of 3 s are spread over it) on eight simulated replicas (`argosy.testing.language_replica`). An
answer is good when it begins within 1 s, or twice the time that its own uncached prompt takes alone. The
rules `prefix-aware`, `least-work` and `least-tokens` are those of gateways (`argosy.gateway.choosing`), which
learn the replicas' speed from first bytes; the others are written here from what their projects publish.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import random
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from statistics import fmean, median

import msgspec
import numpy as np
from machine import write
from routing_rivals import RIVALS, Books, Told

from argosy.gateway.choosing import Chooser, Load, Prompt, Sent, Terms
from argosy.testing.language_replica import BLOCK, Engine, Query, Replica

TRACES = Path(os.environ.get("ARGOSY_TRACES", Path(__file__).resolve().parents[2] / "shared" / "traces"))
OURS = ("prefix-aware", "least-work", "least-tokens")
TICK_S = 3.0


class Case(msgspec.Struct, frozen=True, kw_only=True):
    """One set-up."""

    speed: float = 1.5  # the trace runs so many times faster
    blocks: int = 2600  # of each replica's cache
    replicas: int = 8
    routers: int = 1
    shared: bool = False  # routers have sessions of their own and tell each other their load
    lag_s: float = 0.25  # each router has its turn so often: it asks all, and tells them what it heard
    capacity: float = 1.0  # of the index, in caches
    slow: float = 1.0  # the first replica is so many times slower
    dies_s: float = 0.0  # when the first replica dies; 0: never


CASES = {
    "main": Case(),
    "memory": Case(speed=1.0, blocks=880),
    "tier": Case(speed=1.0, blocks=10_000),
    "large-index": Case(capacity=4.0),
    "small-index": Case(capacity=0.25),
    "slow": Case(slow=3.0),
    "dies": Case(speed=1.0, dies_s=1800.0),
    "routers2-alone": Case(routers=2),
    "routers4-alone": Case(routers=4),
    "routers2": Case(routers=2, shared=True),
    "routers4": Case(routers=4, shared=True),
    "routers4-500ms": Case(routers=4, shared=True, lag_s=0.5),
    "routers4-1s": Case(routers=4, shared=True, lag_s=1.0),
}


class Outcome(msgspec.Struct):
    """One run."""

    case: str
    rule: str
    seed: int
    hit: float
    mean_s: float
    p50_s: float
    p90_s: float
    p99_s: float
    good: float
    tpot_ms: float  # median time of one more token
    lost: int  # requests that had an answer byte when their replica died
    sent_again: int


def load(speed: float) -> list[Query]:
    queries = []
    with (TRACES / "requests" / "mooncake_conversation.jsonl").open(encoding="utf-8") as lines:
        for number, line in enumerate(lines):
            row = json.loads(line)
            at_s = row["timestamp"] / 1000 / speed
            queries.append(Query(number, at_s, row["input_length"], row["output_length"], row["hash_ids"]))
    first = 0
    while first < len(queries):
        last = first
        while last < len(queries) and queries[last].sent_s == queries[first].sent_s:
            last += 1
        for query in queries[first:last]:
            query.sent_s += TICK_S / speed * (query.number - queries[first].number) / (last - first)
        first = last
    return queries


class Own:
    """A gateway's rule at work."""

    def __init__(self, rule: str, case: Case, seed: int) -> None:
        terms = Terms(rule=rule, capacity=int(case.capacity * case.blocks), block=BLOCK)  # type: ignore[arg-type]
        self.chooser = Chooser(terms, seed)
        self.sent: dict[int, Sent] = {}

    def pick(self, query: Query, there: Sequence[int], now_s: float) -> int:
        prompt = Prompt([hash(block) for block in query.blocks], query.prompt, query.answer)
        chosen = there[self.chooser.choose(prompt, there, now_s)]
        self.sent[query.number] = self.chooser.sent(prompt, chosen, now_s)
        return chosen

    def first(self, query: Query) -> None:
        assert query.first_s is not None
        self.chooser.first_byte(self.sent[query.number], query.first_s)

    def ended(self, query: Query) -> None:
        self.chooser.ended(self.sent.pop(query.number))

    def told(self) -> Told:
        loads = self.chooser.loads.items()
        return {name: (load.units, load.requests) for name, load in loads}

    def hear(self, others: Sequence[Told], there: Sequence[int], now_s: float) -> None:
        for replica in there:
            load: Load = self.chooser.load(replica)
            load.other_units = sum(other.get(replica, (0.0, 0))[0] for other in others)
            load.other_requests = sum(other.get(replica, (0.0, 0))[1] for other in others)
            load.heard_s = now_s


def play(name: str, rule: str, seed: int) -> Outcome:
    case = CASES[name]
    engine = Engine(blocks=case.blocks)
    queries = load(case.speed)
    dice = random.Random(seed)
    owner: dict[int, int] = {}
    replicas = [_replica(number, engine, case) for number in range(case.replicas)]
    routers: list[Own | Books] = [
        Own(rule, case, 100 * seed + number)
        if rule in OURS
        else Books(rule, replicas, engine, 100 * seed + number, int(case.capacity * case.blocks))
        for number in range(case.routers)
    ]
    for replica in replicas:
        replica.first = lambda query: routers[owner[query.number]].first(query)
        replica.ended = lambda query: routers[owner[query.number]].ended(query)
    there, lost, again = list(range(case.replicas)), 0, 0
    told_s, turn_s = 0.0, case.lag_s / case.routers

    def send(query: Query, now_s: float) -> None:
        router = routers[owner[query.number]]
        replicas[router.pick(query, there, now_s)].submit(query, now_s)

    for query in queries:
        now_s = query.sent_s
        if case.dies_s and now_s >= case.dies_s and 0 in there:
            there.remove(0)
            for orphan in replicas[0].drop():
                routers[owner[orphan.number]].ended(orphan)
                if orphan.first_s is not None:
                    lost += 1
                    continue
                orphan.hit = orphan.done = 0
                again += 1
                send(orphan, now_s)
        while case.shared and told_s + turn_s <= now_s:
            told_s += turn_s
            for replica in replicas:
                replica.advance(told_s)
            _gossip(routers, there, told_s)
        for replica in replicas:
            replica.advance(now_s)
        owner[query.number] = _shard(query, case.routers) if case.shared else dice.randrange(case.routers)
        send(query, now_s)
    for replica in replicas:
        replica.advance(1e12)
    return _outcome(name, rule, seed, engine, queries, lost, again)


def _replica(number: int, engine: Engine, case: Case) -> Replica:
    if number or case.slow == 1.0:
        return Replica(number, engine)
    slower = {
        field: getattr(engine, field) * case.slow
        for field in ("fixed_s", "prompt_s", "attention_s", "request_s", "context_s")
    }
    return Replica(number, msgspec.structs.replace(engine, **slower))


def _shard(query: Query, count: int) -> int:
    return int.from_bytes(hashlib.blake2b(str(query.session).encode(), digest_size=8).digest(), "big") % count


def _gossip(routers: Sequence[Own | Books], there: Sequence[int], now_s: float) -> None:
    told = [router.told() for router in routers]
    for number, router in enumerate(routers):
        router.hear([one for other, one in enumerate(told) if other != number], there, now_s)


def _outcome(
    name: str, rule: str, seed: int, engine: Engine, queries: Sequence[Query], lost: int, again: int
) -> Outcome:
    done = [query for query in queries if query.ended_s is not None]
    assert len(done) + lost == len(queries)
    first = np.array([(query.first_s or 0) - query.sent_s for query in done])
    alone = np.array([engine.alone_s(query.prompt) for query in done])
    good = float((first <= np.maximum(1.0, 2 * alone)).sum()) / len(queries)
    long = [query for query in done if query.answer > 1]
    more = [((query.ended_s or 0) - (query.first_s or 0)) / (query.answer - 1) for query in long]
    p50, p90, p99 = (float(np.percentile(first, at)) for at in (50, 90, 99))
    hit = sum(query.hit for query in queries) / sum(query.prompt for query in queries)
    mean, token_ms = float(first.mean()), 1000 * float(np.median(more))
    return Outcome(name, rule, seed, hit, mean, p50, p90, p99, good, token_ms, lost, again)


def decision_cost(replicas: int) -> tuple[float, float]:
    """(least, median) of 50 means over 200 choices with their books, prompts of 48 kB (24 blocks), in
    microseconds of CPU time. Neighbours on the same core make the caches slower, never faster."""
    from argosy.gateway.prompts import read_prompt

    dice = random.Random(1)
    words = ["".join(dice.choices("abcdefghij", k=dice.randint(2, 9))) for _ in range(5000)]
    bodies = []
    for _ in range(200):
        text = " ".join(dice.choices(words, k=9000))[:48_000]
        messages = [{"role": "user", "content": text}]
        bodies.append(json.dumps({"model": "m", "stream": True, "messages": messages}).encode())
    chooser = Chooser()
    names = [f"replica-{number}" for number in range(replicas)]
    flying: list[Sent] = []
    samples = []
    for start in range(0, 10_000, 200):
        began = time.process_time()
        for turn in range(start, start + 200):
            prompt = read_prompt(bodies[turn % len(bodies)])
            chosen = chooser.choose(prompt, names, turn * 0.01)
            flying.append(chooser.sent(prompt, names[chosen], turn * 0.01))
            if len(flying) > 64:
                old = flying.pop(0)
                chooser.first_byte(old, turn * 0.01)
                chooser.ended(old)
        samples.append((time.process_time() - began) * 5000)
    return min(samples), median(samples)


def table(outcomes: Sequence[Outcome]) -> str:
    lines = [
        "| case | rule | hit | p50 s | p90 s | p99 s | mean s | good | token ms |",
        "|---|---|---|---|---|---|---|---|---|",
    ]
    read: Callable[[Sequence[Outcome], str], float] = lambda some, field: fmean(  # noqa: E731
        getattr(one, field) for one in some
    )
    for case, rule in dict.fromkeys((one.case, one.rule) for one in outcomes):
        some = [one for one in outcomes if (one.case, one.rule) == (case, rule)]
        cells = [f"{read(some, field):.2f}" for field in ("p50_s", "p90_s", "p99_s", "mean_s")]
        good, hit = f"{read(some, 'good'):.3f}", f"{read(some, 'hit'):.3f}"
        cells = [case, rule, hit, *cells, good, f"{read(some, 'tpot_ms'):.0f}"]
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--json", type=Path)
    parser.add_argument("--cases", default="main")
    parser.add_argument("--rules", default=",".join((*OURS, *RIVALS)))
    parser.add_argument("--seeds", default="1,2,3")
    parser.add_argument("--decision", action="store_true", help="only what a decision costs")
    given = parser.parse_args()
    if given.decision:
        costs = {count: decision_cost(count) for count in (8, 64)}
        for count, (least, usual) in costs.items():
            print(f"{count} replicas: {least:.0f} us of CPU time for a prompt of 48 kB (median {usual:.0f})")
        rows = [{"replicas": n, "least_us": a, "median_us": b} for n, (a, b) in costs.items()]
        write(given.json, prompt_bytes=48_000, decisions=rows)
        return
    if not (TRACES / "requests").is_dir():
        raise SystemExit(f"no traces: {TRACES / 'requests'} is not there; set ARGOSY_TRACES")
    outcomes = []
    for case in given.cases.split(","):
        for rule in given.rules.split(","):
            for seed in map(int, given.seeds.split(",")):
                outcomes.append(play(case, rule, seed))
            print(table(outcomes[-len(given.seeds.split(",")) :]).splitlines()[-1], flush=True)
    print("\n" + table(outcomes))
    write(given.json, outcomes=msgspec.to_builtins(outcomes))


if __name__ == "__main__":
    main()

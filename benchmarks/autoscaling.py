"""Autoscaling, replayed over public traces of language models: replica-hours against slow answers.

    python benchmarks/autoscaling.py [--json FILE] [--cases code:30,day:120] [--policies work,hpa:8]

Three traces (Azure's code hour, its conversation hour, and a day of three hours made of the second), two
times that a replica takes to start, give six cases; every policy has one setting for all of them. Replicas
are simulated (`argosy.testing.language_replica`, a model of 8 B parameters on a small card). A gateway holds
requests in one queue and gives one away when a replica has room for it, so that policies differ only in the
number of replicas. Hours run from the order to the end of the drain; an answer is slow when its first token
takes more than 5 s; the first 5 minutes are not counted. All policies are the ones that services use:
`argosy.controllers.service.scaling`.
"""

from __future__ import annotations

import argparse
import csv
import datetime as dt
import math
import os
import random
import time
from collections import deque
from collections.abc import Sequence
from pathlib import Path
from statistics import fmean

import msgspec
from machine import write
from msgspec.structs import replace

from argosy.controllers.service.scaling import FRESH, wanted_replicas
from argosy.controllers.service.work import Language
from argosy.model.scaling import CONCURRENCY, PRESETS, REQUESTS, WORK, Formula, Policy, Seen, Target
from argosy.testing.language_replica import BLOCK, Engine, Query, Replica

TRACES = Path(os.environ.get("ARGOSY_TRACES", Path(__file__).resolve().parents[2] / "shared" / "traces"))
ENGINE = Engine(
    fixed_s=0.060, prompt_s=0.27e-3, attention_s=8.7e-9, request_s=0.1e-3, context_s=0.55e-6,
    budget=2048, max_running=32, blocks=60,
)  # fmt: skip
SLOW_S = 5.0
SKIP_S = 300.0
MOST = 64
STEP_S = 0.25
CASES = tuple((trace, cold) for trace in ("code", "conv", "day") for cold in (30, 120))
KEPT_S = 1300  # of the series


class Outcome(msgspec.Struct):
    """What one policy did in one case."""

    policy: str
    trace: str
    cold_s: int
    hours: float
    slow: float  # share of requests
    orders: int
    peak: int
    need: int  # the most replicas whose whole time was asked for in any 5 s
    cpu_s: float


# --- traces ----------------------------------------------------------------------------------------


def load(name: str) -> list[tuple[float, int, int]]:
    """(second, tokens of the prompt, of the answer)"""
    if name != "day":
        path = TRACES / "requests" / f"AzureLLMInferenceTrace_{name}.csv"
        with path.open(encoding="utf-8") as lines:
            rows = list(csv.reader(lines))[1:]
        times = [dt.datetime.fromisoformat(row[0][:26]).timestamp() for row in rows]
        return [(at - times[0], int(row[1]), int(row[2])) for at, row in zip(times, rows, strict=True)]
    hour = load("conv")
    length = hour[-1][0] + 1
    kept = []
    for part in range(3):  # thinned by a curve of the day from 0.1 to 1 and back; no dice
        for number, (at, prompt, answer) in enumerate(hour):
            moment = at + part * length
            share = 0.1 + 0.9 * math.sin(math.pi * moment / (3 * length)) ** 2
            if ((part * len(hour) + number) * 2654435761 % 2**32) / 2**32 < share:
                kept.append((moment, prompt, answer))
    return kept


def queries(rows: Sequence[tuple[float, int, int]]) -> list[Query]:
    """Nobody shares a block: the traces tell no contents."""
    return [
        Query(i, at, prompt, answer, [(i, j) for j in range((max(1, prompt) + BLOCK - 1) // BLOCK)])
        for i, (at, prompt, answer) in enumerate(rows)
    ]


# --- the service -----------------------------------------------------------------------------------


class Service:
    """Replicas, the gateway's queue, and what the policy gets to see."""

    def __init__(self, start: int) -> None:
        self.live: dict[int, Replica] = {}
        self.draining: dict[int, Replica] = {}
        self.starting: list[float] = []  # when each becomes ready
        self.queue: deque[Query] = deque()
        self.tokens: dict[int, int] = {}  # promised to each replica
        self.pending: dict[int, float] = {}  # seconds of prompts that wait at each
        self.inside = 0
        self.number = 0
        self.answer_tokens = 100.0
        for _ in range(start):
            self.add(0.0)

    def add(self, now_s: float) -> None:
        replica = Replica(self.number, ENGINE, first=self._first, ended=self._ended, now_s=now_s)
        self.number += 1
        self.live[replica.number] = replica
        self.tokens[replica.number], self.pending[replica.number] = 0, 0.0

    def _first(self, query: Query) -> None:
        self.pending[query.replica] -= ENGINE.prompt_s * query.prompt

    def _ended(self, query: Query) -> None:
        self.tokens[query.replica] -= query.prompt + query.answer
        self.answer_tokens += 0.02 * (query.answer - self.answer_tokens)
        self.inside -= 1

    def language(self) -> Language:
        return Language(
            prompt_s=ENGINE.prompt_s,
            attention_s=ENGINE.attention_s,
            step_s=ENGINE.fixed_s + ENGINE.request_s * 20,
            context_s=ENGINE.context_s,
            batch=20,
            answer_tokens=self.answer_tokens,
        )

    def dispatch(self, now_s: float) -> None:
        """Each request goes where it waits least, once a replica has room for it."""
        room = ENGINE.blocks * BLOCK
        while self.queue:
            query, best = self.queue[0], None
            asked = query.prompt + self.answer_tokens
            for number in self.live:
                tokens, pending = self.tokens[number], self.pending[number]
                if pending <= 1.0 and (tokens + asked <= room or tokens == 0):
                    cost = (pending, tokens, number)
                    best = cost if best is None or cost[:2] < best[:2] else best
            if best is None:
                return
            self.queue.popleft()
            self.tokens[best[2]] += query.prompt + query.answer
            self.pending[best[2]] += ENGINE.prompt_s * query.prompt
            self.live[best[2]].submit(query, max(now_s, query.sent_s))

    def resize(self, wanted: int, ready_at: Sequence[float]) -> int:
        """How many were ordered."""
        present = len(self.live) + len(self.starting)
        if wanted > present:
            self.starting = sorted([*self.starting, *ready_at[: wanted - present]])
            return wanted - present
        for _ in range(present - wanted):
            if self.starting:  # the youngest that does not serve yet goes first
                self.starting.pop()
                continue
            number = min(self.live, key=lambda each: self.tokens[each])
            self.draining[number] = self.live.pop(number)
        return 0

    def advance(self, now_s: float) -> None:
        for replica in (*self.live.values(), *self.draining.values()):
            replica.advance(now_s)
        self.draining = {n: replica for n, replica in self.draining.items() if not replica.is_idle}
        while self.starting and self.starting[0] <= now_s:
            self.starting.pop(0)
            self.add(now_s)


def replay(name: str, policy: Policy, trace: str, cold_s: int, seed: int) -> Outcome:
    began = time.process_time()
    rows = queries(load(trace))
    dice = random.Random(seed)
    service = Service(4 if trace == "day" else 8)
    series: dict[str, deque[float]] = {
        signal: deque(maxlen=KEPT_S) for signal in (CONCURRENCY, REQUESTS, WORK)
    }
    minute: list[float] = []
    weighs = policy.formula is Formula.WORK and not policy.targets
    memory, spent_s, orders, peak = FRESH, 0.0, 0, 0
    arrived = next_query = 0
    work_s = inside = 0.0
    end_s, ticks, next_s = rows[-1].sent_s, 0, policy.interval_s
    while next_query < len(rows) or service.queue or service.inside:
        ticks += 1
        now_s = ticks * STEP_S
        if now_s > end_s + 3600:
            break
        service.advance(now_s)
        language = service.language()
        while next_query < len(rows) and rows[next_query].sent_s <= now_s:
            query = rows[next_query]
            service.queue.append(query)
            service.inside += 1
            arrived, work_s, next_query = arrived + 1, work_s + language.of(query.prompt), next_query + 1
        service.dispatch(now_s)
        if now_s > SKIP_S:
            spent_s += (len(service.live) + len(service.starting) + len(service.draining)) * STEP_S
        inside += service.inside * STEP_S
        if ticks % int(1 / STEP_S) == 0:
            for signal, value in ((CONCURRENCY, inside), (REQUESTS, float(arrived)), (WORK, work_s)):
                series[signal].append(value)
            minute.append(work_s)
            arrived, work_s, inside = 0, 0.0, 0.0
        if now_s >= next_s:
            next_s += policy.interval_s
            seen = Seen(
                now_ms=int(now_s * 1000),
                ready=len(service.live),
                starting=len(service.starting),
                held=len(service.queue),
                held_work_s=sum(language.of(query.prompt) for query in service.queue),
                cold_start_s=cold_s,
                signals={
                    signal: list(values) for signal, values in series.items() if signal != WORK or weighs
                },
            )
            answer = wanted_replicas(policy, seen, memory)
            memory = answer.memory
            late = [now_s + cold_s * (1 + 0.2 * (2 * dice.random() - 1)) for _ in range(MOST)]
            orders += service.resize(answer.replicas, late)
            peak = max(peak, len(service.live) + len(service.starting))
    counted = [query for query in rows if query.sent_s > SKIP_S]
    slow = sum((now_s if q.first_s is None else q.first_s) - q.sent_s > SLOW_S for q in counted)
    slack = int(SLOW_S)
    need = max(math.ceil(fmean(minute[i : i + slack])) for i in range(int(SKIP_S), len(minute) - slack))
    return Outcome(
        name,
        trace,
        cold_s,
        spent_s / 3600,
        slow / len(counted),
        orders,
        peak,
        need,
        time.process_time() - began,
    )


# --- policies --------------------------------------------------------------------------------------


def policy_of(text: str) -> Policy:
    """`work[:QUANTILE:UTILISATION]` with requests weighed by their tokens, `requests:N` for the same rule
    with nothing but requests per second, `fixed:N`, `hpa|kpa|ray-serve|skyserve|target:TARGET[:HOLD_S]`."""
    name, *given = text.split(":")
    values = [float(each) for each in given]
    if name == "fixed":
        return Policy(min_replicas=int(values[0]), max_replicas=int(values[0]), interval_s=60)
    formula = Formula.WORK if name == "requests" else Formula(name)
    policy = replace(PRESETS[formula], max_replicas=MOST)
    if name == "work":
        quantile, utilisation = (values + [policy.quantile, policy.utilisation][len(values) :])[:2]
        return replace(policy, quantile=quantile, utilisation=utilisation)
    signal = REQUESTS if name in ("skyserve", "requests") else CONCURRENCY
    policy = replace(policy, targets=(Target(signal=signal, value=values[0]),))
    return replace(policy, hold_s=int(values[1])) if len(values) > 1 else policy


POLICIES = (
    "work", "work:0.98:0.85", "requests:1", "target:8", "target:12", "fixed:10", "fixed:12", "fixed:16",
    "hpa:8", "hpa:12", "kpa:8:300", "kpa:12", "kpa:12:300", "ray-serve:8", "skyserve:0.6",
)  # fmt: skip


def table(outcomes: Sequence[Outcome], cases: Sequence[tuple[str, int]]) -> str:
    head = ["policy", *(f"{trace} {cold} s" for trace, cold in cases), "hours", "slow %", "worst %", "orders"]
    lines = [f"| {' | '.join(head)} |", "|" + "---|" * len(head)]
    for name in dict.fromkeys(each.policy for each in outcomes):
        mine = [each for each in outcomes if each.policy == name]
        cells = []
        for case in cases:
            each = [one for one in mine if (one.trace, one.cold_s) == case]
            hours, slow = fmean(one.hours for one in each), fmean(one.slow for one in each)
            cells.append(f"{hours:.1f} h, {100 * slow:.1f} %")
        lines.append(f"| {' | '.join([name, *cells, *totals(mine, cases)])} |")
    return "\n".join(lines)


def totals(mine: Sequence[Outcome], cases: Sequence[tuple[str, int]]) -> list[str]:
    seeds = len(mine) / len(cases)
    by_case = [fmean(one.slow for one in mine if (one.trace, one.cold_s) == case) for case in cases]
    hours, orders = sum(one.hours for one in mine) / seeds, sum(one.orders for one in mine) / seeds
    return [f"{hours:.1f}", f"{100 * fmean(by_case):.2f}", f"{100 * max(by_case):.1f}", f"{orders:.0f}"]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--json", type=Path)
    parser.add_argument("--cases", default=",".join(f"{trace}:{cold}" for trace, cold in CASES))
    parser.add_argument("--policies", default=",".join(POLICIES))
    parser.add_argument("--seeds", default="1")
    given = parser.parse_args()
    if not (TRACES / "requests").is_dir():
        raise SystemExit(f"no traces: {TRACES / 'requests'} is not there; set ARGOSY_TRACES")
    cases = [(text.split(":")[0], int(text.split(":")[1])) for text in given.cases.split(",")]
    outcomes = []
    for name in given.policies.split(","):
        for trace, cold_s in cases:
            for seed in map(int, given.seeds.split(",")):
                outcome = replay(name, policy_of(name), trace, cold_s, seed)
                outcomes.append(outcome)
                print(
                    f"{name:16} {trace:5} {cold_s:4} s: {outcome.hours:6.2f} h, "
                    f"{100 * outcome.slow:5.2f} % slow, {outcome.orders} orders, peak {outcome.peak} "
                    f"of {outcome.need}, {outcome.cpu_s:.0f} s of CPU time",
                    flush=True,
                )
    print("\n" + table(outcomes, cases))
    write(given.json, outcomes=msgspec.to_builtins(outcomes))


if __name__ == "__main__":
    main()

"""What a look at a busy server costs: processor milliseconds of the event loop for `status` and `queue`.

    python benchmarks/reads.py [--machines 40] [--running 320] [--waiting 400] [--finished 0] [--runs 9]
                               [--json FILE]

A server with owned machines of eight GPUs, jobs that run on them, and jobs that wait in ten queues with eight
different needs; `--finished` puts jobs that are over into its store first. Each request is answered by the
application as it is, without the socket. *Unchanged*: nothing has happened since the last request, but the
second is another one. *After a cycle*: one job has ended, another was submitted, and the scheduler has
decided, so every reason is worked out anew. The decision itself stands beside it.
"""

from __future__ import annotations

import argparse
import itertools
import time
from collections.abc import Callable
from pathlib import Path
from statistics import median
from typing import Any

import msgspec
from machine import describe, write

from argosy.controllers.observed import Facts
from argosy.controllers.pool.caches import PoolCaches
from argosy.controllers.pool.decide import decide_owned
from argosy.controllers.pool.pictures import Picture
from argosy.controllers.view import Put, View
from argosy.model.offer import Capacity, Offer, Placement
from argosy.model.phases import AttemptPhase, ClaimPhase, NodePhase, Outcome, WorkloadPhase
from argosy.model.resources import Accelerator, Resources
from argosy.model.rows import Claim, Row, Workload
from argosy.model.units import Bound
from argosy.planning import Ability
from argosy.store import Snapshot
from argosy.testing.builders import a_gpu_shape, a_job, a_node, a_task, an_attempt
from argosy.testing.idle_server import IdleControllers, IdleServer, a_pool

SIZES = (1000, 2000, 4000, 8000)  # milli-GPU of the jobs that wait
USERS = 10
TARGET_MS = 20.0
BATCH = 2000


class Deciding(IdleControllers):
    """The scheduler of a server without the rest of its controllers: `decide` is one pass."""

    def __init__(self, offers: tuple[Offer, ...]) -> None:
        super().__init__()
        self._caches, self._offers = PoolCaches(), offers
        self._numbers = itertools.count(1)
        self._picture = Picture(self._view(Snapshot.of(()), 1))

    @property
    def picture(self) -> Any:
        return self._picture

    def _view(self, rows: Snapshot, now_ms: int) -> View:
        return View(
            now_ms=now_ms,
            rows=rows,
            observed=Facts(),
            offers=self._offers,
            abilities={"pool": Ability(multi_node=True, fractions=True, owned=True)},
            pools=self._caches,
        )

    def foresee(self) -> None:
        self._caches.foresee()

    def decide(self, rows: Snapshot, now_ms: int) -> list[Row]:
        """The rows that a pass would write."""
        view = self._view(rows, now_ms)
        actions = decide_owned(view, lambda prefix: f"{prefix}-{next(self._numbers):020}")
        self._picture = Picture(view, rows.seq)
        return [action.row for action in actions if isinstance(action, Put)]


class Lab:
    """One server and what happens to it."""

    def __init__(self, server: IdleServer, controllers: Deciding) -> None:
        self.server, self.controllers = server, controllers
        self.now_ms = server.store.clock.now_ms()
        self._numbers = itertools.count(1)
        self.decisions: list[float] = []
        self.forecasts: list[float] = []

    def job(self, gpu_milli: int, cpus_milli: int) -> Workload:
        number = next(self._numbers)
        user = f"user{number % USERS}"
        wish = Resources(accelerator=Accelerator(model="A100", milli=gpu_milli), cpus=Bound(cpus_milli))
        return a_job(
            id=f"job-{number:020}", name=f"train-{number}", number=number, managed=True,
            user=user, queue=f"lab/{user}", created_ms=self.now_ms,
            task=a_task(name=f"train-{number}", resources=(wish,)),
        )  # fmt: skip

    def commit(self, rows: list[Row]) -> None:
        for begin in range(0, len(rows), BATCH):
            self.server.do(self.server.store.commit(rows[begin : begin + BATCH]))

    def rows(self) -> Snapshot:
        return self.server.do(self.server.store.snapshot())

    def decide(self) -> None:
        """One pass, written; what begins runs at once."""
        rows, now_ms = self.rows(), self.server.store.clock.now_ms()
        begun = time.process_time()
        decided = self.server.call(lambda: self.controllers.decide(rows, now_ms))
        self.decisions.append((time.process_time() - begun) * 1000)
        self.commit(decided)
        rows = self.rows()
        begun_now = [row for row in decided if isinstance(row, Claim)]
        jobs = (rows.workloads[claim.workload_id] for claim in begun_now)
        claims = (rows.claims[claim.id] for claim in begun_now)
        self.commit([row for job, claim in zip(jobs, claims, strict=True) for row in running(job, claim)])

    def foresee(self) -> None:
        """What the controllers do between two passes: when do the first in line start?"""
        begun = time.process_time()
        self.server.call(self.controllers.foresee)
        self.forecasts.append((time.process_time() - begun) * 1000)

    def request(self, path: str) -> float:
        """Processor milliseconds of the event loop."""
        return self.server.do(self._request(path))

    async def _request(self, path: str) -> float:
        sent: list[dict[str, Any]] = []

        async def receive() -> dict[str, Any]:
            return {"type": "http.request", "body": b"", "more_body": False}

        async def send(message: Any) -> None:
            sent.append(message)

        path, _, query = path.partition("?")
        scope = {
            "type": "http", "method": "GET", "path": f"/v1{path}", "query_string": query.encode(),
            "headers": [], "client": None, "http_version": "1.1",
        }  # fmt: skip
        begun = time.thread_time()
        await self.server.application.front.over_socket(scope, receive, send)
        spent = (time.thread_time() - begun) * 1000
        assert sent[0]["status"] == 200, sent
        return spent


def running(job: Workload, claim: Claim) -> list[Row]:
    """The rows of a job that runs where its claim stands."""
    held = msgspec.structs.replace(claim, phase=ClaimPhase.HELD, held_ms=claim.requested_ms)
    node = a_node(
        id=f"nod-{job.number:020}", claim_id=claim.id, workload_id=job.id, provider="pool",
        phase=NodePhase.READY, gpus=len(claim.placements[0].devices),
    )  # fmt: skip
    place = Placement(rank=0, node_id=node.id, devices=claim.placements[0].devices)
    attempt = an_attempt(
        id=f"att-{job.number:020}", workload_id=job.id, phase=AttemptPhase.RUNNING, placements=(place,),
        placed_ms=claim.requested_ms, running_ms=claim.requested_ms,
    )  # fmt: skip
    begun = msgspec.structs.replace(job, phase=WorkloadPhase.RUNNING, started_ms=claim.requested_ms)
    return [begun.with_status(attempts=1, attempt_id=attempt.id), held, node, attempt]


def end_one(lab: Lab) -> None:
    """The first job that runs is over."""
    rows = lab.rows()
    job = next(each for each in rows.managed_jobs() if each.phase is WorkloadPhase.RUNNING)
    attempt, (claim,) = rows.attempt_of(job.id), rows.claims_of(job.id)
    assert attempt is not None
    now_ms = lab.server.store.clock.now_ms()
    lab.commit(
        [
            msgspec.structs.replace(
                job, phase=WorkloadPhase.FINISHED, outcome=Outcome.SUCCEEDED, ended_ms=now_ms
            ),
            msgspec.structs.replace(
                attempt, phase=AttemptPhase.ENDED, outcome=Outcome.SUCCEEDED, ended_ms=now_ms
            ),
            msgspec.structs.replace(claim, phase=ClaimPhase.GONE, gone_ms=now_ms),
            *(msgspec.structs.replace(each, phase=NodePhase.GONE) for each in rows.nodes_of(job.id)),
        ]
    )


def measure(args: argparse.Namespace) -> dict[str, list[float]]:
    pool = a_pool(
        provider="pool", capacity=Capacity.OWNED, nodes_max=args.machines, price_micro_usd=0,
        shape=a_gpu_shape(8, cpus_milli=128_000),
    )  # fmt: skip
    server = IdleServer(pool)
    controllers = server.controllers = Deciding(tuple(pool.offers))
    found: dict[str, list[float]] = {}
    with server:
        lab = Lab(server, controllers)
        over = [
            msgspec.structs.replace(
                lab.job(1000, 1000), phase=WorkloadPhase.FINISHED, outcome=Outcome.SUCCEEDED,
                ended_ms=lab.now_ms,
            )
            for _ in range(args.finished)
        ]  # fmt: skip
        lab.commit(list(over))
        lab.commit([lab.job(1000, 1000) for _ in range(args.running)])
        lab.decide()
        lab.commit([lab.job(SIZES[n % 4], (1000, 4000)[n // 4 % 2]) for n in range(args.waiting)])
        lab.decide()
        phases = [each.phase for each in lab.rows().managed_jobs()]
        print(
            f"{phases.count(WorkloadPhase.RUNNING)} run, {phases.count(WorkloadPhase.QUEUED)} wait",
            flush=True,
        )
        paths = {"status": "/status", "queue": "/jobs?live=true", "queue, a page of 1,000": "/jobs"}
        lab.decisions.clear()
        for name, path in paths.items():
            rows: dict[str, Callable[[], None]] = {"unchanged": lambda: time.sleep(1.0)}
            rows["after a cycle"] = lambda: change(lab)
            for when, happens in rows.items():
                samples = []
                for _ in range(args.runs):
                    happens()
                    samples.append(lab.request(path))
                found[f"{name}, {when}"] = sorted(samples)
        found["the decision of a cycle"] = sorted(lab.decisions)
        found["forecast of the first four, at most every 5 s"] = sorted(lab.forecasts)
    return found


def change(lab: Lab) -> None:
    lab.foresee()
    end_one(lab)
    lab.commit([lab.job(1000, 1000)])
    lab.decide()
    lab.decide()
    del lab.decisions[-1]  # it only saw what the first had started


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    for name, count in (("machines", 40), ("running", 320), ("waiting", 400), ("finished", 0), ("runs", 9)):
        parser.add_argument(f"--{name}", type=int, default=count)
    parser.add_argument("--json", type=Path)
    args = parser.parse_args()
    machine = describe()
    print(f"{machine['cpu']}, {machine['cores']} cores, load {machine['load_1m']} when it began\n")
    found = measure(args)
    print("| processor ms | median | most | target |\n|---|---|---|---|")
    for what, samples in found.items():
        target = f"{TARGET_MS:g}" if what.startswith(("status", "queue")) else ""
        print(f"| {what} | **{median(samples):,.3g}** | {samples[-1]:,.3g} | {target} |")
    given = {name: getattr(args, name) for name in ("machines", "running", "waiting", "finished")}
    rows = [{"what": what, "ms": [round(each, 3) for each in samples]} for what, samples in found.items()]
    write(args.json, machine=machine, **given, rows=rows)


if __name__ == "__main__":
    main()

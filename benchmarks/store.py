"""How fast the store commits, reads and opens: a table, and JSON with --json FILE.

    python benchmarks/store.py [--postgres] [--json FILE]

Medians of three runs. SQLite: a file, WAL, synchronous=FULL (what a caller was told is on the disk), the
store's own thread. PostgreSQL: a server of its own, started here, with fsync off.
"""

from __future__ import annotations

import argparse
import asyncio
import itertools
import json
import statistics
import tempfile
import time
from collections.abc import Awaitable, Callable
from pathlib import Path

import msgspec

from argosy.model.phases import WorkloadPhase
from argosy.model.rows import Event, Workload
from argosy.store import Store
from argosy.testing.builders import a_job, a_task
from argosy.testing.postgres_server import PostgresServer, find_postgres
from argosy.testing.virtual_time import FixedClock, SimIds

JOBS = 1000
LIVE = 5000


def moved(job: Workload, phase: WorkloadPhase) -> Workload:
    return msgspec.structs.replace(job, phase=phase)


async def measure(url: str) -> dict[str, float]:
    found: dict[str, float] = {}

    async def timed(name: str, work: Callable[[], Awaitable[object]], count: int | None = None) -> None:
        """Milliseconds, or per second when `count` things are done."""
        start = time.perf_counter()
        await work()
        spent_s = time.perf_counter() - start
        found[name] = count / spent_s if count else spent_s * 1000

    task = a_task(run="python train.py " * 8, envs={f"K{n}": "v" * 20 for n in range(8)})

    def jobs(cluster: str, count: int) -> list[Workload]:
        return [a_job(host_id=cluster, number=n, task=task) for n in range(1, count + 1)]

    store = await Store.open(url, ids=SimIds(), clock=FixedClock())
    await store.commit(jobs("clu-9", LIVE))
    rows = jobs("clu-1", JOBS)
    await timed(f"bulk insert of {JOBS} rows, ms", lambda: store.commit(rows))
    rows = list((await store.snapshot()).jobs_of("clu-1"))

    async def one_by_one() -> None:
        for place, job in enumerate(rows):
            event = Event(at_ms=1, subject=job.id, code="started", text="it starts")
            (rows[place],) = await store.commit([moved(job, WorkloadPhase.STARTING)], events=[event])  # type: ignore[assignment]

    await timed("commits/s, one row and one event, one after another", one_by_one, JOBS)

    async def together() -> None:
        done = await asyncio.gather(*(store.commit([moved(job, WorkloadPhase.RUNNING)]) for job in rows))
        rows[:] = itertools.chain.from_iterable(done)  # type: ignore[assignment]

    await timed("commits/s, one row, many writers", together, JOBS)

    async def look() -> None:
        for _ in range(100):
            (await store.snapshot()).jobs_of("clu-9")

    await timed(f"views of {LIVE} jobs/s", look, 100)
    await timed(f"load {JOBS} jobs, ms", lambda: store.load_jobs(host_id="clu-1"))
    await store.close()

    async def reopen() -> None:
        nonlocal store
        store = await Store.open(url, ids=SimIds(), clock=FixedClock())

    await timed(f"open with {LIVE + JOBS} live rows, ms", reopen)
    await store.close()
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--postgres", action="store_true", help="measure PostgreSQL too")
    parser.add_argument("--json", type=Path, help="write the results here")
    arguments = parser.parse_args()
    results: dict[str, dict[str, float]] = {}
    with tempfile.TemporaryDirectory() as folder:
        engines: dict[str, Callable[[int], str]] = {
            "sqlite": lambda run: f"sqlite://{folder}/{run}/argosy.db"
        }
        binaries = find_postgres() if arguments.postgres else None
        if binaries is not None:
            server = PostgresServer(binaries)
            engines["postgres"] = lambda run: server.url(server.make_database())
        for engine, url in engines.items():
            runs = [asyncio.run(measure(url(run))) for run in range(3)]
            results[engine] = {
                name: round(statistics.median(run[name] for run in runs), 1) for name in runs[0]
            }
    for name in next(iter(results.values())):
        print(
            f"{name:52}", *(f"{engine} {found[name]:>10,.1f}" for engine, found in results.items()), sep="  "
        )
    if arguments.json:
        arguments.json.write_text(json.dumps(results, indent=2) + "\n")


if __name__ == "__main__":
    main()

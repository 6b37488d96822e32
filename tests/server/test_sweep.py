"""What the server forgets by itself: old finished work and its logs, and nothing that lives."""

from __future__ import annotations

import asyncio
import os
from pathlib import Path

import pytest
from msgspec.structs import replace

from argosy.infra.system import SystemIds
from argosy.model.errors import ArgosyError
from argosy.model.facts import LogChunk
from argosy.model.offer import Placement
from argosy.model.phases import AttemptPhase, ClaimPhase, Outcome, WorkloadPhase
from argosy.model.rows import Event
from argosy.server.housekeeping import Housekeeping, Retention, parse_retention
from argosy.storage.blobs import BlobStore
from argosy.storage.logs import LogStore
from argosy.store import Store
from argosy.testing.builders import a_claim, a_job, an_attempt
from argosy.testing.virtual_time import EPOCH_MS, FixedClock

DAY_MS = 86_400_000


def test_old_work_goes_with_its_logs_and_live_work_stays(tmp_path: Path) -> None:
    async def run() -> None:
        store = await Store.open("sqlite://", ids=SystemIds(), clock=FixedClock(), inline=True)
        logs, blobs = LogStore(tmp_path / "logs"), BlobStore(tmp_path)
        old, live = a_job(id="job-old", host_id=None), a_job(id="job-live", number=2, host_id=None)
        attempts = [
            an_attempt(
                id=f"att-{job.id}", workload_id=job.id, placements=(Placement(rank=0, node_id="nod-0"),)
            )
            for job in (old, live)
        ]
        rows = await store.commit([old, live, *attempts])
        ended = {"phase": WorkloadPhase.FINISHED, "outcome": Outcome.SUCCEEDED, "ended_ms": EPOCH_MS}
        over = {"phase": AttemptPhase.ENDED, "outcome": Outcome.SUCCEEDED, "ended_ms": EPOCH_MS}
        await store.commit([replace(rows[0], **ended), replace(rows[2], **over)])
        for attempt in attempts:
            await logs.write(LogChunk(rank_id=f"{attempt.id}.0", offset=0, data=b"x"))
            os.utime(tmp_path / "logs" / attempt.id / "0.log", (EPOCH_MS / 1000, EPOCH_MS / 1000))
        clock = FixedClock(EPOCH_MS + 10 * DAY_MS)
        keeping = Housekeeping(store, blobs, logs, clock, Retention(days=30))
        await keeping.prune()
        assert await store.load("job-old") is not None
        clock.advance(30 * 86_400)
        would = await keeping.prune(dry_run=True)
        assert (would.workloads, would.logs, would.dry_run) == (1, 1, True)
        assert await store.load("job-old") is not None
        assert (await keeping.prune()).workloads == 1
        assert await store.load("job-old") is None
        assert await store.load("job-live") is not None
        assert [each.name for each in (tmp_path / "logs").iterdir()] == ["att-job-live"]
        await logs.close()
        await store.close()

    asyncio.run(run())


def test_logs_have_a_size_and_what_is_young_stays(tmp_path: Path) -> None:
    logs = LogStore(tmp_path)
    for number, age_days in enumerate((30, 20, 10, 2, 1)):
        folder = tmp_path / f"att-{number}"
        folder.mkdir()
        (folder / "0.log").write_bytes(b"x" * 100_000)
        at_s = EPOCH_MS / 1000 - age_days * 86_400
        os.utime(folder / "0.log", (at_s, at_s))

    def swept(keep_bytes: int, *, dry_run: bool = False) -> int:
        count, _ = logs.sweep(
            {"att-1"},
            older_than_s=90 * 86_400,
            now_s=EPOCH_MS / 1000,
            keep_bytes=keep_bytes,
            spare_s=7 * 86_400,
            dry_run=dry_run,
        )
        return count

    assert swept(1 << 30) == 0
    assert swept(350_000, dry_run=True) == 1 and swept(350_000) == 1
    assert swept(0) == 1  # the live one and those of this week stay
    assert sorted(path.name for path in tmp_path.iterdir()) == ["att-1", "att-3", "att-4"]


def test_rows_and_events_have_a_number_and_what_is_young_or_paid_stays(tmp_path: Path) -> None:
    async def run() -> None:
        clock = FixedClock()
        store = await Store.open(f"sqlite://{tmp_path}/argosy.db", ids=SystemIds(), clock=clock, inline=True)
        now_ms = clock.now_ms()
        jobs = await store.commit([a_job(number=n, host_id=None, detail="x" * 4000) for n in range(40)])
        claim = a_claim(
            workload_id=jobs[0].id, phase=ClaimPhase.GONE, gone_ms=now_ms - 39 * DAY_MS, cost_micro_usd=1
        )
        ended = [
            replace(job, phase=WorkloadPhase.FINISHED, ended_ms=now_ms - (39 - n) * DAY_MS)
            for n, job in enumerate(jobs)
        ]
        told = [Event(at_ms=job.ended_ms, subject=job.id, code="told", text="it ended") for job in ended]
        await store.commit([*ended, claim], events=told)
        housekeeping = Housekeeping(
            store, BlobStore(tmp_path), LogStore(tmp_path / "logs"), clock, Retention(jobs=20, events=10)
        )
        would = await housekeeping.prune(dry_run=True)
        reply = await housekeeping.prune()
        assert (would.workloads, would.events) == (reply.workloads, reply.events)
        left = [job.number for job in await store.load_jobs(host_id=None)][::-1]
        assert left == [0, *range(20, 40)]  # the first was paid for a month ago: budgets still count it
        assert len(await store.load_events()) == 10
        assert reply.freed_bytes > 0
        few = Housekeeping(
            store, BlobStore(tmp_path), LogStore(tmp_path / "logs"), clock, Retention(jobs=1, events=1)
        )
        await few.prune()
        left = [job.number for job in await store.load_jobs(host_id=None)][::-1]
        assert left == [0, *range(32, 40)]  # this week's stay, whatever their number
        assert len(await store.load_events()) == 8
        await store.close()

    asyncio.run(run())


def test_what_is_kept_is_set_by_the_environment() -> None:
    assert parse_retention({}) == Retention()
    env = {
        "ARGOSY_KEEP_DAYS": "30",
        "ARGOSY_KEEP_JOBS": "5",
        "ARGOSY_KEEP_EVENTS": "6",
        "ARGOSY_KEEP_LOGS": "2GB",
    }
    assert parse_retention(env) == Retention(days=30, jobs=5, events=6, log_bytes=2 << 30)
    for name in ("DAYS", "JOBS", "EVENTS", "LOGS"):
        for wrong in ("0", "-1", "many", "1.5e3"):
            with pytest.raises(ArgosyError, match=f"ARGOSY_KEEP_{name}"):
                parse_retention({f"ARGOSY_KEEP_{name}": wrong})

"""What the server forgets by itself: old finished work and its logs, and nothing that lives."""

from __future__ import annotations

import asyncio
import os
from pathlib import Path

from msgspec.structs import replace

from argosy.infra.system import SystemIds
from argosy.model.facts import LogChunk
from argosy.model.offer import Placement
from argosy.model.phases import AttemptPhase, Outcome, WorkloadPhase
from argosy.server.run import sweep
from argosy.storage.blobs import BlobStore
from argosy.storage.logs import LogStore
from argosy.store import Store
from argosy.testing.builders import a_job, an_attempt
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
        await sweep(store, blobs, logs, now_ms=EPOCH_MS + 10 * DAY_MS, keep_days=30)
        assert await store.load("job-old") is not None
        await sweep(store, blobs, logs, now_ms=EPOCH_MS + 40 * DAY_MS, keep_days=30)
        assert await store.load("job-old") is None
        assert await store.load("job-live") is not None
        assert [each.name for each in (tmp_path / "logs").iterdir()] == ["att-job-live"]
        await logs.close()
        await store.close()

    asyncio.run(run())

"""Files that a job brings are placed before its ranks are ordered; what is gone from the server is said."""

from __future__ import annotations

import asyncio

import msgspec
import pytest

from argosy.controllers.shell import Shell
from argosy.model.kinds.job import job_state
from argosy.model.phases import Outcome
from argosy.model.reasons import Reason
from argosy.model.resources import Infra, Resources
from argosy.model.rows import Attempt, Workload
from argosy.model.tree import Entry, Tree
from argosy.store import Store
from argosy.testing.builders import a_job, a_task
from argosy.testing.memory_files import MemoryFiles
from argosy.testing.memory_log_sink import MemoryLogSink
from argosy.testing.sim_agent import SimAgentDirectory
from argosy.testing.sim_provider import a_market
from argosy.testing.virtual_time import run_virtual
from argosy.testing.world import World

CHUNK = "c" * 64
TREE = Tree(entries=(Entry(path="train.py", kind="f", size=3, chunks=(CHUNK,)),))


def _run(files: MemoryFiles) -> tuple[Workload, Attempt]:
    async def main() -> tuple[Workload, Attempt]:
        world = World(0)
        store = await Store.open("sqlite://", ids=world.ids, clock=world.clock, inline=True)
        shell = Shell(
            store=store,
            providers=a_market(world),
            agents=SimAgentDirectory(world),
            logs=MemoryLogSink(),
            files=files,
            clock=world.clock,
            ids=world.ids,
        )
        running = asyncio.create_task(shell.run())
        await asyncio.sleep(1)
        task = a_task(
            run="sim work_s=5",
            workdir_tree=TREE.digest(),
            resources=(Resources(infra=Infra(provider="pool")),),
        )
        await store.commit([a_job(id="job-1", managed=True, task=task)])
        shell.wake("job-1")
        async with asyncio.timeout(600):
            while True:
                await asyncio.sleep(1)
                job = await store.load("job-1")
                assert isinstance(job, Workload)
                if not job.is_live:
                    break
        attempt = await store.load(job_state(job).attempt_id or "")
        assert isinstance(attempt, Attempt)
        running.cancel()
        await asyncio.wait([running])
        await store.close()
        return job, attempt

    return run_virtual(main())


def test_files_that_are_there_are_placed_and_the_job_runs() -> None:
    files = MemoryFiles({TREE.digest(): msgspec.json.encode(TREE)}, {CHUNK: b"abc"})
    job, _ = _run(files)
    assert (job.outcome, files.dropped) == (Outcome.SUCCEEDED, [])


@pytest.mark.parametrize("what", ["tree", "chunk"])
def test_a_tree_of_which_something_is_gone_is_dropped_so_that_the_next_launch_uploads_it(what: str) -> None:
    files = MemoryFiles({TREE.digest(): msgspec.json.encode(TREE)} if what == "chunk" else {}, {})
    job, attempt = _run(files)
    assert set(files.dropped) == {TREE.digest()}
    assert TREE.digest() not in files.trees
    assert (job.outcome, attempt.reason) == (Outcome.FAILED, Reason.PREPARE_FAILED)
    assert attempt.detail == "the uploaded files are gone from the server; launch again"

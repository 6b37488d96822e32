"""What a managed job keeps survives its nodes: the real shell, store, agents and files on this machine."""

from __future__ import annotations

import asyncio
import contextlib
import os
import tempfile
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path
from typing import Any

import msgspec

from argosy.controllers.shell import Shell
from argosy.controllers.view import Policy
from argosy.infra.agent_client import AgentClient
from argosy.infra.system import SystemClock, SystemIds
from argosy.model.facts import Notice
from argosy.model.kinds.job import job_state
from argosy.model.kinds.kind import Checkpoint
from argosy.model.phases import Desired, Outcome, WorkloadPhase
from argosy.model.rows import Workload
from argosy.providers import load_providers
from argosy.server.agents import Agents
from argosy.storage.blobs import BlobStore
from argosy.storage.logs import LogStore
from argosy.store import Store
from argosy.testing.builders import a_job, a_task

PATIENCE_S = 60.0
#: The first attempt keeps a step and waits to be lost; the second one finds it, or fails.
KEEPS = """cd "$ARGOSY_CHECKPOINT_DIR"
if [ -f model/step ]; then [ "$(cat latest/step)" = "$WANTED" ] && [ ! -e other.tmp ]; exit; fi
[ "$ARGOSY_ATTEMPT" = 1 ] || { echo nothing was put back; exit 3; }
mkdir model && echo 7 >model/step && echo half >other.tmp && ln -s model latest
trap 'echo 8 >model/step; exit 1' TERM
sleep 600 & wait
"""


class House:
    """A server whose machines share no folder, so that it has to copy what jobs keep."""

    def __init__(self, store: Store, shell: Shell, provider: Any) -> None:  # Any: the driver is not imported
        self.store, self.shell, self.provider = store, shell, provider

    async def job(self) -> Workload:
        row = await self.store.load("job-1")
        assert isinstance(row, Workload)
        return row

    async def until(self, reached: Callable[[], Awaitable[object]]) -> None:
        async with asyncio.timeout(PATIENCE_S):
            while not await reached():
                await asyncio.sleep(0.05)

    async def checkpoint(self) -> Checkpoint | None:
        return job_state(await self.job()).checkpoint

    async def is_running(self) -> bool:
        return (await self.job()).phase is WorkloadPhase.RUNNING

    async def is_over(self) -> bool:
        return (await self.job()).phase is WorkloadPhase.FINISHED


@contextlib.asynccontextmanager
async def a_house(policy: Policy, wanted: str) -> AsyncIterator[House]:
    with tempfile.TemporaryDirectory(dir="/tmp", prefix="argosy-", ignore_cleanup_errors=True) as folder:
        root, clock, ids = Path(folder), SystemClock(), SystemIds()
        store = await Store.open("sqlite://", ids=ids, clock=clock)
        providers = load_providers(None, root / "providers", clock, ids, os.environ)
        provider = providers.get("local")
        provider.manifest = msgspec.structs.replace(provider.manifest, shared_dir="")
        agents, logs = Agents(providers, AgentClient), LogStore(root / "logs")
        shell = Shell(
            store=store,
            providers=providers,
            agents=agents,
            logs=logs,
            files=BlobStore(root),
            clock=clock,
            ids=ids,
            policy=policy,
        )
        running = asyncio.create_task(shell.run())
        house = House(store, shell, provider)
        try:
            task = a_task(run=KEEPS, grace_s=5, envs={"WANTED": wanted})
            await store.commit([a_job(id="job-1", managed=True, task=task)])
            shell.wake("job-1")
            yield house
        finally:
            job = await house.job()
            if job.is_live:
                await store.commit([msgspec.structs.replace(job, desired=Desired.END)])
                shell.wake("job-1")

            async def empty() -> bool:
                return not (await store.snapshot()).claims

            await house.until(empty)
            running.cancel()
            await asyncio.wait([running])
            await agents.close()
            await logs.close()
            await store.close()


def test_what_a_job_keeps_is_put_back_after_its_machine_was_lost() -> None:
    async def main() -> None:
        async with a_house(Policy(copy_every_ms=200), "7") as house:
            await house.until(house.checkpoint)
            copied = await house.checkpoint()
            assert copied is not None
            assert copied.size_bytes == 2
            [claim] = (await house.store.snapshot()).claims.values()
            await house.provider.simulate_preemption(claim.id)
            await house.until(house.is_over)
            job = await house.job()
            assert (job.outcome, job_state(job).recoveries) == (Outcome.SUCCEEDED, 1), job.detail

    asyncio.run(main())


def test_what_a_program_writes_when_its_machine_is_taken_away_is_copied_before_that() -> None:
    """It is told by SIGTERM, and its machine is given back only when what it wrote then is here."""

    async def main() -> None:
        async with a_house(Policy(copy_every_ms=3_600_000), "8") as house:
            await house.until(house.is_running)
            [node] = (await house.store.snapshot()).nodes.values()

            async def has_begun() -> bool:
                home = house.provider._home(node.claim_id, 0) / "home"
                return (home / "checkpoints" / "job-1" / "latest").exists()

            await house.until(has_begun)
            link = house.shell.observed.link(node.id)
            assert link is not None
            now_ms = SystemClock().now_ms()
            told = Notice(code="terminate", at_ms=now_ms + 60_000)
            facts = msgspec.structs.replace(link.facts, notice=told)
            house.shell.observed.set_node(node.id, facts, now_ms)
            house.shell.wake(node.id)
            await house.until(house.is_over)
            job = await house.job()
            assert (job.outcome, job_state(job).attempts) == (Outcome.SUCCEEDED, 2), job.detail

    asyncio.run(main())

"""A server on this machine: the real shell, store, agents and files, and one managed job."""

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
from argosy.infra.buckets import OpensBuckets
from argosy.infra.system import SystemClock, SystemIds
from argosy.model.kinds.job import job_state
from argosy.model.kinds.kind import Checkpoint
from argosy.model.phases import Desired, WorkloadPhase
from argosy.model.rows import Workload
from argosy.model.task import Task
from argosy.providers import load_providers
from argosy.server.agents import Agents
from argosy.server.folder_traffic import FolderTraffic
from argosy.server.folders import Folders
from argosy.server.node_folders import NodeFolders
from argosy.storage.blobs import BlobStore
from argosy.storage.logs import LogStore
from argosy.store import Store
from argosy.testing.builders import a_job

PATIENCE_S = 120.0


class House:
    """A server whose machines share no folder, so that it has to copy what jobs keep."""

    def __init__(
        self, store: Store, shell: Shell, provider: Any, nodes: NodeFolders
    ) -> None:  # Any: the driver is not imported
        self.store, self.shell, self.provider, self.nodes = store, shell, provider, nodes

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
async def a_house(
    task: Task,
    policy: Policy | None = None,
    stores: OpensBuckets | None = None,
    *,
    shares_disk: bool = False,
    before: Callable[[House, Task], Awaitable[Task]] | None = None,
) -> AsyncIterator[House]:
    """A server with one managed job of this task, on this machine. `before`: what makes the task of it."""
    with tempfile.TemporaryDirectory(dir="/tmp", prefix="argosy-", ignore_cleanup_errors=True) as folder:
        root, clock, ids = Path(folder), SystemClock(), SystemIds()
        store = await Store.open("sqlite://", ids=ids, clock=clock)
        providers = load_providers(None, root / "providers", clock, ids, os.environ)
        provider = providers.get("local")
        if not shares_disk:
            provider.manifest = msgspec.structs.replace(provider.manifest, shared_dir="")
        agents, logs = Agents(providers, AgentClient), LogStore(root / "logs")
        nodes = NodeFolders(Folders(store, clock, ids, str(root)), FolderTraffic(clock), ids)
        shell = Shell(
            store=store,
            providers=providers,
            agents=agents,
            logs=logs,
            files=BlobStore(root),
            clock=clock,
            ids=ids,
            policy=policy,
            stores=(lambda: stores) if stores is not None else None,
        )
        shell.mounts.copies.folders = lambda: nodes
        running = asyncio.create_task(shell.run())
        house = House(store, shell, provider, nodes)
        try:
            if before is not None:
                task = await before(house, task)
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

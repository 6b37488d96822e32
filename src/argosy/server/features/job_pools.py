"""Pools of workers: made, changed, shown, ended."""

from __future__ import annotations

from typing import Final

import msgspec

from argosy.api.endpoint import Done
from argosy.api.job_pools import JobPoolList, JobPoolRequest, JobPoolView
from argosy.model.access import Caller
from argosy.model.errors import ArgosyError
from argosy.model.kinds.workers import WORKERS, WorkersSpec, WorkersStatus, workers_spec
from argosy.model.phases import Desired
from argosy.model.reasons import Reason
from argosy.model.rows import Workload
from argosy.model.units import many
from argosy.server.exchange import Exchange
from argosy.server.guarding import made_by, project_of, require_new, require_over, scopes
from argosy.server.intake import check_fixed
from argosy.server.job_pools import find_pool, view_pool
from argosy.server.kept_plans import subject_of
from argosy.server.services import Services

WORKERS_MAX: Final = 1000


class JobPoolFeature:
    """Every method raises ArgosyError and is safe to repeat."""

    def __init__(self, services: Services) -> None:
        self._services, self._store, self._writer = services, services.store, services.writer

    async def apply_job_pool(self, exchange: Exchange) -> JobPoolView:
        from argosy.spec.names import check_name

        request, caller = await exchange.decode(JobPoolRequest), exchange.caller
        check_name("cluster", request.name)
        if not 0 <= request.workers <= WORKERS_MAX:
            raise ArgosyError("spec-invalid", f"a pool has 0 to {WORKERS_MAX} workers, not {request.workers}")
        if request.task.secrets:
            raise ArgosyError(
                "unsupported",
                "`secrets` of a worker pool are not kept: its workers are made again at any time",
                hint="give secrets to the jobs that run on it",
            )
        task = await self._services.intake.task(request.task, caller, with_files=True)
        check_fixed(task)
        project = project_of(caller, request.project)
        require_new(caller, project)
        user = made_by(caller, request.user)
        asked = msgspec.structs.replace(request, task=task, project=project, user=user)
        return await self._writer.retried(lambda: self._apply(asked, caller))

    async def _apply(self, request: JobPoolRequest, caller: Caller) -> JobPoolView:
        rows = await self._store.snapshot()
        old = rows.find_named(WORKERS.name, request.name, request.project)
        if old is not None:
            require_over(caller, old)
        if old is not None and old.desired is Desired.END:
            raise ArgosyError(
                "wrong-state",
                f"worker pool `{request.name}` is being ended",
                hint="wait until `argosy jobs pool status` does not list it",
            )
        seated = self._services.tenants.seat(
            rows, (request.task,), project=request.project, user=request.user
        )
        plans = await self._services.admission.planned(
            (request.task,), request.project, named="", limit_micro_usd=None
        )
        confirmed = plans[subject_of(request.task)][1]
        if old is None:
            spec = WorkersSpec(task=request.task, size=request.workers, confirmed=confirmed)
            row = Workload(
                id=self._services.ids.new(WORKERS.prefix),
                kind=WORKERS.name,
                name=request.name,
                spec=spec,
                status=WorkersStatus(),
                user=request.user,
                project=request.project,
                queue=seated.queues[0],
                created_ms=self._services.clock.now_ms(),
            )
        else:
            spec = workers_spec(old)
            generation = spec.generation + (spec.task != request.task)
            row = msgspec.structs.replace(
                old,
                spec=msgspec.structs.replace(
                    spec, task=request.task, size=request.workers, generation=generation, confirmed=confirmed
                ),
            )
        told = self._writer.event(row.id, "applied", f"asked for: {many(request.workers, 'worker')}")
        await self._store.commit([row], events=[told], expect=seated.expect)
        self._services.controllers.wake(row.id)
        return view_pool(row, await self._store.snapshot())

    async def job_pools(self, exchange: Exchange) -> JobPoolList:
        rows = await self._store.snapshot()
        seen = scopes(exchange.caller)
        pools = (row for row in rows.named(WORKERS.name) if seen.holds(row.project, row.user))
        return JobPoolList(pools=tuple(view_pool(row, rows) for row in pools))

    async def down_job_pool(self, exchange: Exchange) -> Done:
        name, caller = exchange.path["pool"], exchange.caller
        project = project_of(caller)

        async def act() -> Done:
            pool = find_pool(await self._store.snapshot(), name, project, caller)
            require_over(caller, pool)
            wished = msgspec.structs.replace(pool, desired=Desired.END, reason=Reason.CANCELLED_BY_USER)
            told = self._writer.event(pool.id, "ending", "asked to end, with its workers")
            await self._store.commit([wished], events=[told])
            self._services.controllers.wake(pool.id)
            return Done(names=(pool.name,))

        return await self._writer.retried(act)

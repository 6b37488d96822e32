"""Admission: whether managed jobs and jobs of clusters may be queued, by the budget of their project and by
whether any machine could ever hold them."""

from __future__ import annotations

from collections.abc import Sequence

from argosy.model.errors import ArgosyError
from argosy.model.ids import Clock
from argosy.model.kinds.job import JOB, JobSpec, JobStatus
from argosy.model.offer import Confirmed
from argosy.model.rows import Workload
from argosy.model.task import Task
from argosy.server.accounts import Accounts
from argosy.server.kept_plans import Made, subject_of
from argosy.server.planner import Planner
from argosy.server.ports import Controllers
from argosy.server.tenancy import Seated


class Admission:
    """Looks at tasks before anything of them is written. Raises ArgosyError."""

    def __init__(self, planner: Planner, accounts: Accounts, controllers: Controllers, clock: Clock) -> None:
        self._planner, self._accounts = planner, accounts
        self._controllers, self._clock = controllers, clock

    async def planned(
        self, tasks: Sequence[Task], project: str, *, named: str, limit_micro_usd: int | None
    ) -> dict[object, tuple[Made, Confirmed | None]]:
        """One plan for all tasks that are planned alike, within the budget. `named`: the id of the plan that
        was confirmed. Raises `no-offer`, `usage`."""
        alike = {subject_of(task): task for task in tasks}
        if named and len(alike) > 1:
            raise ArgosyError("usage", f"plan `{named}` is of one task, these are {len(alike)}")
        plans: dict[object, tuple[Made, Confirmed | None]] = {}
        for subject, task in alike.items():
            plans[subject] = await self._planner.for_launch(
                task, managed=True, named=named, limit_micro_usd=limit_micro_usd
            )
            await self._accounts.check(plans[subject][0].plan, project)
        return plans

    def check_jobs(self, seated: Seated, project: str, cluster: Workload | None) -> None:
        """Raises `no-offer` for a task that no state of the machines could ever hold."""
        now_ms = self._clock.now_ms()
        for task, queue in {
            (subject_of(task), queue): (task, queue)
            for task, queue in zip(seated.tasks, seated.queues, strict=True)
        }.values():
            job = Workload(
                id="new",
                kind=JOB.name,
                name=task.name or "",
                spec=JobSpec(task=task, managed=cluster is None),
                status=JobStatus(),
                project=project,
                queue=queue,
                host_id=cluster.id if cluster is not None else None,
                created_ms=now_ms,
            )
            self.check_room(job, task)

    def check_room(self, workload: Workload, task: Task) -> None:
        """As `check_jobs`, of one workload that is about to be written."""
        never = self._controllers.picture.never(workload)
        if never:
            name = f"task `{task.name}`" if task.name else "the task"
            raise ArgosyError(
                "no-offer",
                f"{name} can never start: {never.removeprefix('It can never start: ')}",
                hint="ask for less; `argosy pool top` shows the machines, `argosy launch --dryrun` what "
                "else exists",
            )

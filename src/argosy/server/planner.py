"""What could be had: what providers offered last, and the plan that comes of it. Writes nothing."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import Final

import msgspec

from argosy.api.planning import PipelineReply, PipelineRequest, PlanReply, PlanRequest
from argosy.controllers.view import abilities_of
from argosy.infra.border import BorderError
from argosy.infra.provider import Diagnostic, Providers
from argosy.infra.quotes import Quotes
from argosy.model.errors import ArgosyError
from argosy.model.offer import Offer, Plan, Rejection, waits_for
from argosy.model.resources import Resources
from argosy.model.task import Task
from argosy.planning import plan, usage_by_provider
from argosy.planning.deadline import wishes_of
from argosy.server.exchange import Caller
from argosy.server.intake import Intake, render_warnings
from argosy.server.pricing import Asked, Pricing
from argosy.server.task_facts import earlier_runs
from argosy.store.store import Store

_PIPELINED_WITH: Final = frozenset(("inputs", "outputs"))  # plans of several tasks use them
_NOBODY: Final = Caller()


class Planner:
    """Answers what a task could have. Raises ArgosyError."""

    def __init__(
        self, *, store: Store, providers: Providers, quotes: Quotes, pricing: Pricing, intake: Intake
    ) -> None:
        self._store, self._providers, self._quotes = store, providers, quotes
        self._pricing, self._intake = pricing, intake

    async def quote(self) -> tuple[tuple[Offer, ...], tuple[Rejection, ...]]:
        """What all providers offered last; and who did not answer, as rejections."""
        quoted = await self._quotes.read()
        return quoted.offers, quoted.failed

    async def asked(
        self, task: Task, *, managed: bool
    ) -> tuple[tuple[Resources, ...], tuple[Offer, ...], tuple[Rejection, ...]]:
        """The candidates of the task as places are asked for them, what providers quote, and who could not
        answer."""
        wishes = wishes_of(task, managed=managed)
        offers, failed = await self.quote()
        return wishes, offers, failed

    async def planned(
        self,
        resources: Sequence[Resources],
        num_nodes: int,
        ordered: bool,
        offers: Sequence[Offer],
        failed: tuple[Rejection, ...],
    ) -> Plan:
        """The seam to `planning`: the same function that the controllers decide with."""
        snapshot = await self._store.snapshot()
        names = {row.id: row.name for row in snapshot.workloads.values()}
        made = plan(
            resources,
            num_nodes,
            offers,
            abilities=abilities_of(self._providers),
            usage=usage_by_provider(snapshot.claims.values(), names),
            ordered=ordered,
            atlas=self._pricing.atlas(resources),
        )
        return msgspec.structs.replace(made, rejected=made.rejected + failed) if failed else made

    async def ordered(self, task: Task, made: Plan) -> tuple[Plan, str]:
        """The plan in the order of the task's deadline and objective, and why. Raises `no-offer` for a
        deadline that nothing meets."""
        if task.deadline_s is None and task.deadline_at_ms is None and task.objective == Task().objective:
            return made, ""
        runs = await earlier_runs(self._store, task)
        return await asyncio.to_thread(self._pricing.ordered, task, made, runs)

    async def duration(self, task: Task, made: Plan) -> int | None:
        """Seconds that the whole task takes, as its deadline is weighed: earlier runs say more than an
        estimate."""
        if (task.deadline_s is None and task.deadline_at_ms is None) or not made.choices:
            return task.estimated_s
        runs = await earlier_runs(self._store, task)
        return await asyncio.to_thread(self._pricing.duration, task, made.choices[0], runs)

    async def check(self, limit_s: float) -> list[Diagnostic]:
        """What every provider says of itself, by name; one that does not answer is a finding too."""

        async def ask(name: str) -> list[Diagnostic]:
            try:
                async with asyncio.timeout(limit_s):
                    return list(await self._providers.get(name).check())
            except TimeoutError:
                return [Diagnostic(provider=name, ok=False, what=f"did not answer within {limit_s:.0f} s")]
            except (BorderError, OSError) as error:
                return [Diagnostic(provider=name, ok=False, what=str(error))]

        answers = await asyncio.gather(*map(ask, sorted(self._providers.all())))
        return [finding for answer in answers for finding in answer]

    async def plan(self, request: PlanRequest, caller: Caller = _NOBODY) -> PlanReply:
        task = await self._intake.task(request.task, caller, with_files=False)
        wishes, offers, failed = await self.asked(task, managed=request.managed)
        made = await self.planned(wishes, task.num_nodes, task.ordered, offers, failed)
        warnings = render_warnings(task)
        if not request.prices:
            made, why = await self.ordered(task, await self.explained(task, made, offers))
            return PlanReply(plan=made, warnings=warnings, deadline=why)
        able, runs = abilities_of(self._providers), await earlier_runs(self._store, task)
        reply = await asyncio.to_thread(self._pricing.complete, request, made, offers, able, runs)
        return msgspec.structs.replace(reply, warnings=warnings)

    async def plan_pipeline(self, request: PipelineRequest) -> PipelineReply:
        """All stages together. Every stage is planned as if it were alone on the own machines: they run one
        after another."""
        from argosy.server.pipelines import STAGES_MAX

        if len(request.tasks) > STAGES_MAX:
            raise ArgosyError("too-large", f"at most {STAGES_MAX} tasks, these are {len(request.tasks):,}")
        tasks = [await self._intake.task(task, _NOBODY, with_files=False) for task in request.tasks]
        asked = []
        for task in tasks:
            task = msgspec.structs.replace(task, deadline_s=None, deadline_at_ms=None)
            wishes, offers, failed = await self.asked(task, managed=True)
            own = await self.planned(wishes, task.num_nodes, task.ordered, offers, failed)
            asked.append(Asked(task, own, offers, tuple(await earlier_runs(self._store, task))))
        able = abilities_of(self._providers)
        reply = await asyncio.to_thread(self._pricing.pipeline, request, asked, able)
        unweighed = tuple(
            f"the deadline of `{task.name or number}` is not weighed: a plan of several tasks has no "
            "deadlines yet"
            for number, task in enumerate(tasks, 1)
            if task.deadline_s is not None or task.deadline_at_ms is not None
        )
        return msgspec.structs.replace(
            reply, warnings=(*render_warnings(*tasks, heeded=_PIPELINED_WITH), *unweighed)
        )

    async def explained(self, task: Task, made: Plan, offers: Sequence[Offer]) -> Plan:
        """A plan without choices also says what clouds could do. Raises `no-offer` for what does not exist
        anywhere.

        An infrastructure that did not answer is told alone: nobody knows what it has.
        """
        silent = any(each.code in ("credentials", "unreachable") for each in made.rejected)
        if made.choices or waits_for(made) or silent:
            return made
        return await asyncio.to_thread(
            self._pricing.explain, task, made, offers, abilities_of(self._providers)
        )

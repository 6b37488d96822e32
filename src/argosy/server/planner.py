"""Makes plans from what providers offered last. Writes nothing."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import Final

import msgspec

from argosy.api.planning import PipelineReply, PipelineRequest, PlanReply, PlanRequest
from argosy.api.plans import no_offer
from argosy.controllers.view import abilities_of
from argosy.infra.provider import Providers
from argosy.infra.quotes import Quoted, Quotes
from argosy.model.access import OWNER, Caller
from argosy.model.errors import ArgosyError
from argosy.model.ids import Clock
from argosy.model.offer import Choice, Confirmed, Offer, Plan, Rejection, waits_for
from argosy.model.resources import Resources
from argosy.model.task import Task
from argosy.model.units import render_price
from argosy.planning import usage_by_provider
from argosy.planning.ability import Ability
from argosy.planning.confirmed import keep_to, order_of_plan, place_text, what_changed
from argosy.planning.deadline import wishes_of
from argosy.planning.offered import ROWS, Offered, Supply, plan_offered, rows_for
from argosy.server.guarding import made_by
from argosy.server.intake import Intake, render_warnings
from argosy.server.kept_plans import KeptPlans, Made, made_of, subject_of
from argosy.server.price_rows import share_notes
from argosy.server.pricing import Asked, Pricing
from argosy.server.task_facts import earlier_runs
from argosy.store.store import Store

_PIPELINED_WITH: Final = frozenset(("inputs", "outputs"))  # plans of several tasks use them


class Planner:
    """Answers what a task could have. Raises ArgosyError."""

    def __init__(
        self,
        *,
        store: Store,
        providers: Providers,
        quotes: Quotes,
        pricing: Pricing,
        intake: Intake,
        clock: Clock,
    ) -> None:
        self._store, self._providers, self._quotes = store, providers, quotes
        self._pricing, self._intake, self._kept = pricing, intake, KeptPlans(clock)

    @property
    def abilities(self) -> dict[str, Ability]:
        """What each provider in use can do."""
        return abilities_of(self._providers)

    async def quote(self) -> tuple[tuple[Offer, ...], tuple[Rejection, ...]]:
        """What all providers offered last; and who did not answer, as rejections."""
        quoted = await self._quotes.read()
        return quoted.offers, quoted.failed

    async def ask(self, provider: str) -> None:
        """Ask a provider now what it has: something there has just been changed."""
        await self._quotes.ask(provider)

    async def _read(self) -> Quoted:
        """Quotes, with the revision of all that plans are made from: of the catalog's rows, too."""
        quoted = await self._quotes.read()
        self._pricing.rented.priced()
        return msgspec.structs.replace(quoted, revision=quoted.revision + self._pricing.rented.revision)

    async def make(
        self, task: Task, quoted: Quoted, *, managed: bool, limit_micro_usd: int | None = None
    ) -> Made:
        """The one plan of a request. `limit_micro_usd`: the most that all nodes may cost per hour. Raises
        `no-offer` for a deadline that nothing meets."""
        wishes = capped(wishes_of(task, managed=managed), limit_micro_usd)
        found, _ = await self.planned(
            wishes, task.num_nodes, task.ordered, quoted.offers, quoted.failed, limit=rows_for(task.objective)
        )
        if task.min_nodes and not found.choices:  # an elastic gang: fewer may be had
            found, _ = await self.planned(
                wishes,
                task.min_nodes,
                task.ordered,
                quoted.offers,
                quoted.failed,
                limit=rows_for(task.objective),
            )
        found, why = await self.ordered(task, found)
        duration_s = await self.duration(task, found) if managed else None
        return made_of(
            task, found, quoted.offers,
            managed=managed, why=why, duration_s=duration_s, revision=quoted.revision,
        )  # fmt: skip

    async def for_launch(
        self, task: Task, *, managed: bool, named: str = "", limit_micro_usd: int | None = None
    ) -> tuple[Made, Confirmed | None]:
        """What a launch goes by, and what it keeps to: the plan that it names, if its offers are the same,
        else one that is made now. Raises `no-offer` for what nothing fits, `conflict` for a named plan that
        cannot be had any more."""
        quoted = await self._read()
        kept = self._kept.find(named) if named else None
        if kept is not None and kept.subject != (managed, *subject_of(task)):
            raise ArgosyError("usage", f"plan `{named}` was made for another task")
        within = limit_micro_usd is None or (
            kept is not None and limit_micro_usd >= (kept.limit_micro_usd or 0)
        )
        if kept is not None and kept.revision == quoted.revision and within:
            return kept, kept.confirmed(limit_micro_usd)
        made = await self.make(task, quoted, managed=managed, limit_micro_usd=limit_micro_usd)
        if named:
            _check_unchanged(named, kept, made, quoted.offers)
        elif not made.plan.choices and not waits_for(made.plan) and not (managed and quoted.failed):
            raise no_offer(task, await self.explained(task, made.plan, quoted.offers))
        if named:
            confirmed = (kept or made).confirmed(limit_micro_usd)
            choices, _ = keep_to(made.plan.choices, confirmed)
            return made._replace(plan=msgspec.structs.replace(made.plan, choices=choices)), confirmed
        if limit_micro_usd is None and (managed or not is_weighed(task)):
            return made, None
        # A cluster's row does not have the task by which its places were ordered.
        order = order_of_plan(made.plan) if not managed and is_weighed(task) else ()
        return made, Confirmed(max_hourly_micro_usd=limit_micro_usd, order=order)

    async def planned(
        self,
        resources: Sequence[Resources],
        num_nodes: int,
        ordered: bool,
        offers: Sequence[Offer],
        failed: tuple[Rejection, ...],
        *,
        limit: int = ROWS,
    ) -> Offered:
        """The seam to `planning`: the same function that the controllers decide with. `limit`: how many rows
        of the catalog become choices, of each provider in use."""
        snapshot = await self._store.snapshot()
        names = {row.id: row.name for row in snapshot.workloads.values()}
        made, fitting = plan_offered(
            resources,
            num_nodes,
            Supply(
                offers,
                abilities_of(self._providers),
                self._pricing.rented.priced(),
                usage_by_provider(snapshot.claims.values(), names),
                self._pricing.elsewhere.atlas(resources),
            ),
            ordered=ordered,
            limit=limit,
        )
        if failed:  # then there are infrastructures: that none is enabled would be wrong
            known = tuple(each for each in made.rejected if each.provider != "-")
            made = msgspec.structs.replace(made, rejected=known + failed)
        return Offered(made, fitting)

    async def ordered(self, task: Task, made: Plan) -> tuple[Plan, str]:
        """The plan in the order of the task's deadline and objective, and why. Raises `no-offer` for a
        deadline that nothing meets."""
        if not is_weighed(task):
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

    async def plan(self, request: PlanRequest, caller: Caller = OWNER) -> PlanReply:
        task = await self._intake.task(request.task, caller, with_files=False)
        folders = await self._intake.folder_lines(task, caller, made_by(caller, request.user))
        quoted = await self._read()
        if request.prices:
            reply = await self._priced(request, task, quoted)
            return msgspec.structs.replace(reply, folders=folders)
        made = await self.make(task, quoted, managed=request.managed)
        shown = await self.explained(task, made.plan, quoted.offers)
        notes = share_notes(made.plan.choices)
        reply = PlanReply(
            plan=shown, warnings=render_warnings(task), deadline=made.why, notes=notes, folders=folders
        )
        return self._noted(reply, made)

    async def _priced(self, request: PlanRequest, task: Task, quoted: Quoted) -> PlanReply:
        wishes = wishes_of(task, managed=request.managed)
        limit = max(rows_for(request.objective or task.objective), request.limit)
        own, fitting = await self.planned(
            wishes, task.num_nodes, task.ordered, quoted.offers, quoted.failed, limit=limit
        )
        able, runs = abilities_of(self._providers), await earlier_runs(self._store, task)
        mine = Offered(own, fitting)
        reply = await asyncio.to_thread(self._pricing.complete, request, mine, quoted.offers, able, runs)
        reply = msgspec.structs.replace(reply, warnings=render_warnings(task))
        try:
            own, why = await self.ordered(task, own)
        except ArgosyError:  # only clouds without a driver meet the deadline: nothing to launch
            return reply
        duration_s = await self.duration(task, own) if request.managed else None
        made = made_of(
            task, own, quoted.offers,
            managed=request.managed, why=why, duration_s=duration_s, revision=quoted.revision,
        )  # fmt: skip
        return self._noted(reply, made)

    def _noted(self, reply: PlanReply, made: Made) -> PlanReply:
        """The plan is kept under its id; one that cannot be launched has none."""
        if not made.plan.choices and not waits_for(made.plan):
            return reply
        self._kept.keep(made)
        return msgspec.structs.replace(
            reply, id=made.id, revision=made.revision, max_hourly_micro_usd=made.limit_micro_usd
        )

    async def plan_pipeline(self, request: PipelineRequest, caller: Caller = OWNER) -> PipelineReply:
        """All stages together. Every stage is planned as if it were alone on the own machines: they run one
        after another."""
        from argosy.server.pipelines import STAGES_MAX

        if len(request.tasks) > STAGES_MAX:
            raise ArgosyError("too-large", f"at most {STAGES_MAX} tasks, these are {len(request.tasks):,}")
        tasks = [await self._intake.task(task, OWNER, with_files=False) for task in request.tasks]
        folders, owner = list[str](), made_by(caller, request.user)
        for number, task in enumerate(tasks, 1):
            lines = await self._intake.folder_lines(task, caller, owner)
            folders += [f"{task.name or number}: {line}" for line in lines]
        asked = []
        for task in tasks:
            task = msgspec.structs.replace(task, deadline_s=None, deadline_at_ms=None)
            wishes = wishes_of(task, managed=True)
            offers, failed = await self.quote()
            own, _ = await self.planned(wishes, task.num_nodes, task.ordered, offers, failed)
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
            reply,
            warnings=(*render_warnings(*tasks, heeded=_PIPELINED_WITH), *unweighed),
            folders=tuple(folders),
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


def capped(wishes: Sequence[Resources], limit_micro_usd: int | None) -> tuple[Resources, ...]:
    """The candidates with a price that all nodes together may not pass."""
    if limit_micro_usd is None:
        return tuple(wishes)
    return tuple(
        wish
        if wish.max_hourly_micro_usd is not None and wish.max_hourly_micro_usd <= limit_micro_usd
        else msgspec.structs.replace(wish, max_hourly_micro_usd=limit_micro_usd)
        for wish in wishes
    )


def is_weighed(task: Task) -> bool:
    """Whether more than the price decides in which order places are tried."""
    timed = task.deadline_s is not None or task.deadline_at_ms is not None
    return timed or task.objective != Task().objective


def _check_unchanged(named: str, kept: Made | None, made: Made, offers: Sequence[Offer]) -> None:
    """Raises `conflict` when what was confirmed cannot be ordered any more."""
    if kept is None:
        what = (
            "" if made.id == named else f"plan `{named}` is not known here any more, and plans differ by now"
        )
        before: tuple[str, ...] = ()
    else:
        what = what_changed(kept.plan, made.plan, offers)
        before = tuple(f"confirmed: {_told(choice)}" for choice in kept.plan.choices[:1])
    if what:
        now = tuple(f"now: {_told(choice)}" for choice in made.plan.choices[:1]) or ("now: nothing fits",)
        raise ArgosyError(
            "conflict",
            f"the plan has changed since it was confirmed: {what}",
            details=(*before, *now),
            hint="nothing was launched; the same command shows the plan as it is now",
        )


def _told(choice: Choice) -> str:
    return f"{place_text(choice)} at {render_price(choice.price_micro_usd)}/h"

"""What things cost, for plans: what providers quote and what the catalog knows, put together.

Prices claim no driver: what a provider of this server quotes can be launched, what only the catalog knows is
shown. Blocking; the caller keeps it off the event loop.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Final, NamedTuple

import msgspec

from argosy.api.planning import OfferView, PipelineReply, PipelineRequest, PlanReply, PlanRequest
from argosy.model.errors import ArgosyError
from argosy.model.ids import Clock
from argosy.model.offer import Choice, Offer, Plan, Rejection, offer_key, waits_for
from argosy.model.priced import CompareView
from argosy.model.task import Task
from argosy.server.catalog_offers import CatalogOffers
from argosy.server.price_list import PriceList
from argosy.server.price_rows import choice_notes, distinct, merged, offer_view, parse_objective, steady, told
from argosy.server.rented import RentedRows
from argosy.server.task_facts import hazard_of, known_of

if TYPE_CHECKING:
    from argosy.planning.ability import Ability
    from argosy.planning.deadline import Weighed
    from argosy.planning.objective import Known, Ranked, Run
    from argosy.planning.offered import Offered

_WIDE: Final = 1000  # candidates that are looked at when not the cheapest is the best
_LIMIT_MAX: Final = 2000


class Asked(NamedTuple):
    """One task of a pipeline, with what the providers of this server say to it."""

    task: Task
    own: Plan
    offers: Sequence[Offer]
    runs: Sequence[Run]


class Pricing:
    """Completes and orders plans. `prices`: what is priced."""

    def __init__(self, prices: PriceList, clock: Clock) -> None:
        self.prices, self._clock = prices, clock
        self.rented = RentedRows(lambda: prices.catalog, clock)
        self.elsewhere = CatalogOffers(prices, self.rented, clock)

    # -- plans --------------------------------------------------------------------------------------

    def complete(
        self,
        request: PlanRequest,
        offered: Offered,
        offers: Sequence[Offer],
        abilities: Mapping[str, Ability],
        runs: Sequence[Run] = (),
    ) -> PlanReply:
        """`offered` (from what the providers in use offer) with what all others would take.

        Raises ArgosyError for an accelerator or a place that does not exist, and for a deadline that cannot
        be met.
        """
        from argosy.planning.objective import Objective, rank_by

        own, fitting = offered
        objective = parse_objective(request.objective or request.task.objective)
        task = msgspec.structs.replace(request.task, objective=objective.value)
        limit = max(1, min(request.limit, _LIMIT_MAX))
        wide = request.distinct or objective is not Objective.COST
        ranking = self.elsewhere.rank(task, limit=_WIDE if wide else limit)
        fits = bool(own.choices or ranking.shown)
        if not fits and not waits_for(own):
            self._refuse_unknown(task, offers)
        known = known_of(lambda: self.prices.catalog, task, runs)
        choices = merged([*own.choices, *ranking.shown], task)
        fitting += ranking.fitting
        due = task.deadline_s is not None or task.deadline_at_ms is not None
        compares = request.compare or request.html
        capacities = self._all_capacities(task, own, request) if fits and (compares or due) else []
        weighed = self._weighed(task, capacities, known) if fits and due else None
        best = None
        if weighed is not None and weighed.plan is not None:  # the deadline decides
            choices, fitting = list(weighed.choices), max(fitting, len(weighed.choices))
            own = _in_order_of(weighed.choices, own)
        elif choices and not (task.ordered and objective is Objective.COST):
            best = rank_by(objective, choices, task.num_nodes, known)
        ranked = best.ranked if best is not None else [_plain(each, task, known) for each in choices]
        none = "" if fits else self.elsewhere.impossible(task, ranking, offers, abilities)
        text = none or (best.text if best is not None else "")
        kept = distinct(ranked, limit) if request.distinct else [(each, 1) for each in ranked[:limit]]
        views = self._views(kept)
        if best is not None and request.distinct:  # the next best is another machine, not another place
            text = rank_by(objective, [each.choice for each, _ in kept], task.num_nodes, known).text
        rows = self._compared(task, capacities, known) if compares else ()
        fits_at = {each.offer.provider for each in choices}
        spot_weighed = best is None and weighed is not None
        rejected = told(ranking.plan.rejected, task, fits_at, spot_weighed=spot_weighed)
        plan = msgspec.structs.replace(own, rejected=(*own.rejected, *rejected))
        deadline = weighed.reason if weighed is not None else ""
        return PlanReply(
            plan=plan,
            offers=views,
            fitting=fitting,
            text=text,
            deadline=deadline,
            compared=rows,
            page=_page(rows, task, (text, deadline)) if request.html else "",
            notes=self._notes(own, abilities, views),
        )

    def _views(self, kept: Sequence[tuple[Ranked, int]]) -> tuple[OfferView, ...]:
        """As people see them; each with how many places it stands for."""
        standing, drivers = self.prices.standing(), self.prices.drivers()
        return tuple(
            offer_view(self.prices.catalog, each, places, standing, drivers) for each, places in kept
        )

    def _notes(
        self, own: Plan, abilities: Mapping[str, Ability], views: Sequence[OfferView]
    ) -> tuple[str, ...]:
        old = self.prices.notes(view.provider for view in views)
        return (*choice_notes(own.choices, abilities), *old)

    def _refuse_unknown(self, task: Task, offers: Sequence[Offer]) -> None:
        """Raises ArgosyError when every candidate asks for something that does not exist anywhere."""
        unknown = self.elsewhere.unknown(task, offers)
        if unknown is not None:
            raise unknown

    def ordered(self, task: Task, own: Plan, runs: Sequence[Run]) -> tuple[Plan, str]:
        """`own` in the order in which a launch of `task` tries it, and why. Raises `no-offer` for a deadline
        that cannot be met."""
        if not own.choices:
            return own, ""
        weighed = self._weighed(task, own.choices, known_of(lambda: self.prices.catalog, task, runs))
        return msgspec.structs.replace(own, choices=weighed.choices), weighed.reason

    def duration(self, task: Task, choice: Choice, runs: Sequence[Run]) -> int | None:
        """Seconds that the whole task takes on `choice`, as plans weigh it."""
        from argosy.planning.objective import runtime_of

        known = msgspec.structs.replace(known_of(lambda: self.prices.catalog, task, runs), progress=0.0)
        return runtime_of(choice, task.num_nodes, known).seconds

    def _weighed(self, task: Task, choices: Sequence[Choice], known: Known) -> Weighed:
        """For a task that is submitted now. Raises `no-offer` when nothing meets its deadline."""
        from argosy.planning.deadline import order_choices

        now_ms = self._clock.now_ms()
        found = order_choices(
            choices,
            task,
            now_ms=now_ms,
            submitted_ms=now_ms,
            known=known,
            hazard=lambda choice: hazard_of(self.prices.catalog, choice),
        )
        error = found.plan.error() if found.plan is not None else None
        if error is not None:
            raise error
        return found

    def pipeline(
        self, request: PipelineRequest, asked: Sequence[Asked], abilities: Mapping[str, Ability]
    ) -> PipelineReply:
        """The optimum of all stages with traffic between them.

        Raises ArgosyError: `no-offer` for a stage that fits nowhere, `spec-invalid` for edges in a circle,
        `usage`.
        """
        from argosy.planning.objective import evaluate
        from argosy.server import pipelines

        objective = parse_objective(request.objective)
        shape = pipelines.shape_of([each.task for each in asked], request.edges)
        candidates, known = [], []
        for name, one in zip(shape.names, asked, strict=True):
            known.append(pipelines.with_assumed(known_of(lambda: self.prices.catalog, one.task, one.runs)))
            choices = self._stage_choices(name, one, abilities)
            candidates.append(pipelines.candidates(choices, one.task.num_nodes, known[-1]))
        found = pipelines.planned(shape, candidates, pipelines.tariffs_of(self.prices.catalog), objective)
        views, standing = [], self.prices.standing()
        for pick, one, facts in zip(found.plan.picks, asked, known, strict=True):
            ranked = evaluate(pick.candidate.choice, one.task.num_nodes, facts)
            view = offer_view(self.prices.catalog, ranked, 1, standing, self.prices.drivers())
            assumed = view.basis == "estimate" and one.task.estimated_s is None
            views.append(msgspec.structs.replace(view, basis="assumed") if assumed else view)
        reply = pipelines.view_of(shape, found, views, [each.task for each in asked])
        notes = (*pipelines.notes_of(shape, reply), *self.prices.notes(view.provider for view in views))
        return msgspec.structs.replace(reply, notes=notes)

    def _stage_choices(self, name: str, one: Asked, abilities: Mapping[str, Ability]) -> list[Choice]:
        """The cheapest of every region, and own machines. Raises `no-offer` when there is none."""
        from argosy.api.plans import no_offer
        from argosy.planning.market import cheapest_in_regions

        task, wishes = one.task, tuple(map(steady, one.task.resources))
        atlas = self.elsewhere.atlas(wishes)
        # In order of preference: the first that fits anywhere is meant.
        for group in [(wish,) for wish in wishes] if task.ordered else [wishes]:
            rented = self.rented.names()  # of these the cheapest of every region is found below
            found = [
                each
                for each in one.own.choices
                if each.offer.provider not in rented and (not task.ordered or steady(each.resources) in group)
            ]
            found += self.elsewhere.reserved(group, task)
            found += cheapest_in_regions(
                group, task.num_nodes, self.elsewhere.market(rented=True), atlas=atlas
            )
            if found:
                return found
        self._refuse_unknown(task, one.offers)
        why = waits_for(one.own) or self.elsewhere.impossible(
            task, self.elsewhere.rank(task, limit=1), one.offers, abilities
        )
        error = no_offer(task, one.own)
        text = f"stage `{name}`: {why}" if why else error.what
        raise ArgosyError("no-offer", text, details=error.details, hint=error.hint)

    def explain(
        self, task: Task, own: Plan, offers: Sequence[Offer], abilities: Mapping[str, Ability]
    ) -> Plan:
        """`own`, which has no choices, with a line on what clouds could do. Raises `no-offer` for what does
        not exist."""
        from argosy.planning.market import NOT_IN_USE

        unknown = (
            self.elsewhere.not_in_use(task)
            or self.elsewhere.unknown(task, offers)
            or self.elsewhere.nothing_there(task, offers)
        )
        if unknown is not None:
            raise unknown
        ranking = self.elsewhere.rank(task, limit=1)
        priced = [each for each in ranking.plan.rejected if each.code == NOT_IN_USE]
        more: tuple[Rejection, ...] = ()
        if len(priced) == 1:
            more = (priced[0],)
        elif priced:
            text = "fit, but are not in use on this server: `argosy check --all` says what each needs"
            more = (Rejection(provider=f"{len(priced)} clouds", code=NOT_IN_USE, text=text),)
        elif sentence := self.elsewhere.impossible(task, ranking, offers, abilities):
            code = next((step.code for steps in ranking.steps for step in steps if not step.kept), "capacity")
            more = (Rejection(provider="clouds", code=code.replace(" ", "-"), text=sentence),)
        return msgspec.structs.replace(own, rejected=(*own.rejected, *more))

    def _compared(self, task: Task, choices: Sequence[Choice], known: Known) -> tuple[CompareView, ...]:
        """The best of each capacity."""
        from argosy.planning.compare import compare
        from argosy.planning.deadline import deadline_ask, seconds_left, some_of_each
        from argosy.planning.objective import runtime_of

        now_ms = self._clock.now_ms()
        choices = some_of_each(choices)
        runtimes = {each: runtime_of(each, task.num_nodes, known).seconds for each in choices}
        known_s = [seconds for seconds in runtimes.values() if seconds is not None]
        if not known_s or len(known_s) < len(runtimes):
            return compare(choices, num_nodes=task.num_nodes)
        left_s = seconds_left(task, now_ms=now_ms, submitted_ms=now_ms)
        rows = compare(
            choices,
            num_nodes=task.num_nodes,
            ask=deadline_ask(task, left_s if left_s is not None else max(known_s) * 10),
            hazard=lambda choice: hazard_of(self.prices.catalog, choice),
            durations=lambda choice: runtimes[choice] or 1,
            deadline_given=left_s is not None,
        )
        return rows

    def _all_capacities(self, task: Task, own: Plan, request: PlanRequest) -> list[Choice]:
        """The cheapest of spot and of the rest: neither hides the other. A cluster does not recover: its spot
        is asked for."""
        found = list(own.choices)
        for spot in (False, True):
            if any(wish.use_spot is not None and wish.use_spot != spot for wish in task.resources):
                continue
            if spot and not request.managed and not any(wish.use_spot for wish in task.resources):
                continue
            wishes = tuple(msgspec.structs.replace(wish, use_spot=spot) for wish in task.resources)
            asked = msgspec.structs.replace(task, resources=wishes)
            found += self.elsewhere.rank(asked, limit=_WIDE, rented=True).shown
        first = {offer_key(each.offer): each for each in reversed(found)}
        return merged(list(first.values()), task)


def _plain(choice: Choice, task: Task, known: Known) -> Ranked:
    from argosy.planning.objective import evaluate

    return evaluate(choice, task.num_nodes, known)


def _in_order_of(choices: Sequence[Choice], own: Plan) -> Plan:
    mine = set(own.choices)
    return msgspec.structs.replace(own, choices=tuple(each for each in choices if each in mine))


def _page(rows: Sequence[CompareView], task: Task, said: Sequence[str]) -> str:
    from argosy.pages.comparison import render_comparison

    title = f"Where to run {task.name}" if task.name else "Where to run the task"
    return render_comparison(rows, title=title, said=said)

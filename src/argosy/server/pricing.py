"""What things cost, for plans and listings: the catalog and what providers quote, put together.

The catalog is opened by the first question about prices and again when the user's folder changed; a server
that nobody asks never reads it. Prices claim no driver: what a provider of this server quotes can be
launched, what only the catalog knows is shown. Blocking and without I/O beyond those files; `refresh` alone
uses the network. The caller keeps it off the event loop.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Final, NamedTuple, TypeVar

import msgspec

from argosy.api.planning import CompareView, PipelineReply, PipelineRequest, PlanReply, PlanRequest
from argosy.api.prices import CatalogAge, CatalogReply, GpuList, RefreshReply, RegionList
from argosy.model.areas import Atlas
from argosy.model.errors import ArgosyError
from argosy.model.ids import Clock
from argosy.model.offer import Capacity, Choice, Offer, Plan, Rejection, offer_key, waits_for
from argosy.model.resources import Infra, Resources
from argosy.model.rows import Claim
from argosy.model.task import Task
from argosy.server.price_rows import (
    by_price,
    choice_notes,
    distinct,
    is_there,
    merged,
    nobody_has,
    offer_view,
    parse_gpu,
    parse_objective,
    parse_place,
    refused,
    steady,
    summed_by_model,
    told,
)
from argosy.server.rented import RentedRows, some_of
from argosy.server.spending import Rates
from argosy.server.task_facts import hazard_of, known_of

if TYPE_CHECKING:
    from argosy.catalog import Catalog
    from argosy.catalog.refresh import PriceServices, Watch
    from argosy.model.market import Market
    from argosy.planning.ability import Ability
    from argosy.planning.availability import Memory, Refusal
    from argosy.planning.compare import CompareRow
    from argosy.planning.deadline import Weighed
    from argosy.planning.market import Ranking
    from argosy.planning.objective import Known, Ranked, Run
    from argosy.planning.offered import Offered

T = TypeVar("T")
_DAY_MS: Final = 86_400_000
_WIDE: Final = 1000  # candidates that are looked at when not the cheapest is the best
_LIMIT_MAX: Final = 2000
_NOTES_MAX: Final = 3


class _Stamp(NamedTuple):
    """What the user's folder looked like: names, sizes and times of its files."""

    files: tuple[tuple[str, int, int], ...] = ()


class Asked(NamedTuple):
    """One task of a pipeline, with what the providers of this server say to it."""

    task: Task
    own: Plan
    offers: Sequence[Offer]
    runs: Sequence[Run]


class Pricing:
    """Answers questions about prices. `drivers`: names of the providers that this server uses. `services`:
    how live prices are asked for; `status` and `refresh` alone need it."""

    def __init__(
        self,
        folder: Path,
        *,
        clock: Clock,
        drivers: Callable[[], Iterable[str]],
        services: Callable[[], PriceServices],
        shipped: Path | None = None,
    ) -> None:
        self.folder, self._shipped = folder, shipped
        self._clock, self._drivers, self._services = clock, drivers, services
        self._opening = threading.Lock()
        self._catalog: Catalog | None = None
        self._stamp = _Stamp()
        self._ages: dict[str, tuple[int, str]] = {}  # provider -> day, warning
        self.refusals: Callable[[], Memory] | None = None  # what the controllers remember; None: nothing
        self.rented = RentedRows(lambda: self.catalog, clock)

    @property
    def catalog(self) -> Catalog:
        """Opened when it is first needed (~20 ms), and again when the user's folder changed."""
        stamp = _stamp_of(self.folder)
        with self._opening:
            if self._catalog is None or stamp != self._stamp:
                self._catalog, self._stamp = self._load(), stamp
                self._ages = {}
            return self._catalog

    def _load(self) -> Catalog:
        from argosy.catalog import Catalog

        return (
            Catalog.load(self.folder)
            if self._shipped is None
            else Catalog.load(self.folder, shipped=self._shipped)
        )

    # -- plans --------------------------------------------------------------------------------------

    def own_prices(self, offers: Sequence[Offer]) -> tuple[Offer, ...]:
        """What providers quote, at the prices of `terms.toml`: own machines at what they are said to cost,
        list prices less what was negotiated. Without that file nothing is opened."""
        if not (self.folder / "terms.toml").exists():
            return tuple(offers)
        return tuple(map(self.catalog.on_terms, offers))

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
        ranking = self._rank(task, limit=_WIDE if wide else limit)
        fits = bool(own.choices or ranking.shown)
        if not fits and not waits_for(own):
            unknown = self._unknown(task, offers)
            if unknown is not None:
                raise unknown
        known = known_of(lambda: self.catalog, task, runs)
        choices = merged([*own.choices, *ranking.shown], task)
        fitting += ranking.fitting
        due = task.deadline_s is not None or task.deadline_at_ms is not None
        capacities = (
            self._all_capacities(task, own, managed=request.managed)
            if fits and (request.compare or request.html or due)
            else []
        )
        weighed = self._weighed(task, capacities, known) if fits and due else None
        best = None
        if weighed is not None and weighed.plan is not None:  # the deadline decides
            choices, fitting = list(weighed.choices), max(fitting, len(weighed.choices))
            mine = set(own.choices)
            kept_choices = tuple(each for each in weighed.choices if each in mine)
            own = msgspec.structs.replace(own, choices=kept_choices)
        elif choices and not (task.ordered and objective is Objective.COST):
            best = rank_by(objective, choices, task.num_nodes, known)
        ranked = best.ranked if best is not None else [_plain(each, task, known) for each in choices]
        text = best.text if best is not None else ""
        if not fits:
            text = self._impossible(task, ranking, offers, abilities)
        kept = distinct(ranked, limit) if request.distinct else [(each, 1) for each in ranked[:limit]]
        standing, drivers = self._standing(), set(self._drivers())
        views = [offer_view(self.catalog, each, places, standing, drivers) for each, places in kept]
        if best is not None and request.distinct:  # the next best is another machine, not another place
            text = rank_by(objective, [each.choice for each, _ in kept], task.num_nodes, known).text
        compared = self._compared(task, capacities, known) if request.compare or request.html else ()
        rows = tuple(_view_of(row, CompareView) for row in compared)
        rejected = told(
            ranking.plan.rejected,
            task,
            {each.offer.provider for each in choices},
            spot_weighed=best is None and weighed is not None,
        )
        plan = msgspec.structs.replace(own, rejected=(*own.rejected, *rejected))
        return PlanReply(
            plan=plan,
            offers=tuple(views),
            fitting=fitting,
            text=text,
            deadline=weighed.reason if weighed is not None else "",
            compared=rows,
            page=_page(rows, task, (text, weighed.reason if weighed is not None else ""))
            if request.html
            else "",
            notes=(*choice_notes(own.choices, abilities), *self.notes(view.provider for view in views)),
        )

    def ordered(self, task: Task, own: Plan, runs: Sequence[Run]) -> tuple[Plan, str]:
        """`own` in the order in which a launch of `task` tries it, and why. Raises `no-offer` for a deadline
        that cannot be met."""
        if not own.choices:
            return own, ""
        weighed = self._weighed(task, own.choices, known_of(lambda: self.catalog, task, runs))
        return msgspec.structs.replace(own, choices=weighed.choices), weighed.reason

    def duration(self, task: Task, choice: Choice, runs: Sequence[Run]) -> int | None:
        """Seconds that the whole task takes on `choice`, as plans weigh it."""
        from argosy.planning.objective import runtime_of

        known = msgspec.structs.replace(known_of(lambda: self.catalog, task, runs), progress=0.0)
        return runtime_of(choice, task.num_nodes, known).seconds

    def _weighed(self, task: Task, choices: Sequence[Choice], known: Known) -> Weighed:
        """For a task that is submitted now. Raises `no-offer` when nothing meets its deadline."""
        from argosy.planning.deadline import weigh

        now_ms = self._clock.now_ms()
        found = weigh(
            choices,
            task,
            now_ms=now_ms,
            submitted_ms=now_ms,
            known=known,
            hazard=lambda choice: hazard_of(self.catalog, choice),
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
            known.append(pipelines.with_assumed(known_of(lambda: self.catalog, one.task, one.runs)))
            choices = self._stage_choices(name, one, abilities)
            candidates.append(pipelines.candidates(choices, one.task.num_nodes, known[-1]))
        found = pipelines.planned(shape, candidates, pipelines.tariffs_of(self.catalog), objective)
        views, standing = [], self._standing()
        for pick, one, facts in zip(found.plan.picks, asked, known, strict=True):
            ranked = evaluate(pick.candidate.choice, one.task.num_nodes, facts)
            view = offer_view(self.catalog, ranked, 1, standing, set(self._drivers()))
            assumed = view.basis == "estimate" and one.task.estimated_s is None
            views.append(msgspec.structs.replace(view, basis="assumed") if assumed else view)
        reply = pipelines.view_of(shape, found, views, [each.task for each in asked])
        notes = (*pipelines.notes_of(shape, reply), *self.notes(view.provider for view in views))
        return msgspec.structs.replace(reply, notes=notes)

    def _stage_choices(self, name: str, one: Asked, abilities: Mapping[str, Ability]) -> list[Choice]:
        """The cheapest of every region, and own machines. Raises `no-offer` when there is none."""
        from argosy.api.plans import no_offer
        from argosy.planning.market import cheapest_in_regions

        task, wishes = one.task, tuple(map(steady, one.task.resources))
        atlas = self.atlas(wishes)
        # In order of preference: the first that fits anywhere is meant.
        for group in [(wish,) for wish in wishes] if task.ordered else [wishes]:
            rented = self.rented.names()  # of these the cheapest of every region is found below
            found = [
                each
                for each in one.own.choices
                if each.offer.provider not in rented and (not task.ordered or steady(each.resources) in group)
            ]
            found += self._reserved(self.catalog, group, task)
            found += cheapest_in_regions(group, task.num_nodes, self._market(rented=True), atlas=atlas)
            if found:
                return found
        unknown = self._unknown(task, one.offers)
        if unknown is not None:
            raise unknown
        why = waits_for(one.own) or self._impossible(task, self._rank(task, limit=1), one.offers, abilities)
        error = no_offer(task, one.own)
        text = f"stage `{name}`: {why}" if why else error.what
        raise ArgosyError("no-offer", text, details=error.details, hint=error.hint)

    def explain(
        self, task: Task, own: Plan, offers: Sequence[Offer], abilities: Mapping[str, Ability]
    ) -> Plan:
        """`own`, which has no choices, with a line on what clouds could do. Raises `no-offer` for what does
        not exist."""
        from argosy.planning.market import NOT_IN_USE

        unknown = self._not_in_use(task) or self._unknown(task, offers)
        if unknown is not None:
            raise unknown
        ranking = self._rank(task, limit=1)
        priced = [each for each in ranking.plan.rejected if each.code == NOT_IN_USE]
        more: tuple[Rejection, ...] = ()
        if len(priced) == 1:
            more = (priced[0],)
        elif priced:
            text = "fit, but are not in use on this server: `argosy check --all` says what each needs"
            more = (Rejection(provider=f"{len(priced)} clouds", code=NOT_IN_USE, text=text),)
        elif sentence := self._impossible(task, ranking, offers, abilities):
            code = next((step.code for steps in ranking.steps for step in steps if not step.kept), "capacity")
            more = (Rejection(provider="clouds", code=code.replace(" ", "-"), text=sentence),)
        return msgspec.structs.replace(own, rejected=(*own.rejected, *more))

    def _not_in_use(self, task: Task) -> ArgosyError | None:
        """What is missing to use the places that the task insists on; None when some of them have prices, or
        are in use here."""
        from argosy.providers import what_is_missing

        drivers = set(self._drivers())
        asked = {wish.infra.provider or "*" for wish in task.resources}
        if asked & {"*", *drivers, *self.catalog.providers}:
            return None
        missing = [said for name in sorted(asked) if (said := what_is_missing(name)) is not None]
        if not missing:
            return None
        fixes = [fix for _, fix in missing if fix]
        return ArgosyError(
            "no-offer",
            "; ".join(fact for fact, _ in missing),
            hint="; ".join(fixes) or f"available: {', '.join(sorted(drivers)) or 'nothing'}",
        )

    def _rank(self, task: Task, *, limit: int, rented: bool = False) -> Ranking:
        """Offers of the catalog from providers that are not in use here, best first: all of them are only
        `shown`. `rented`: also of those that are in use."""
        from argosy.planning.market import rank

        catalog = self.catalog
        wishes = tuple(map(steady, task.resources))
        ranking = rank(
            wishes,
            task.num_nodes,
            self._market(rented=rented),
            ordered=task.ordered,
            limit=limit,
            launchable=lambda provider: False,
            atlas=self.atlas(wishes),
        )
        reserved = self._reserved(catalog, wishes, task)
        if not reserved:
            return ranking
        shown = sorted([*reserved, *ranking.shown], key=by_price)[:limit]
        return msgspec.structs.replace(ranking, shown=tuple(shown), fitting=ranking.fitting + len(reserved))

    def _reserved(self, catalog: Catalog, wishes: Sequence[Resources], task: Task) -> list[Choice]:
        from argosy.planning import Ability, plan

        drivers = set(self._drivers())
        offers = [each for each in catalog.owned(self._clock.now_ms()) if each.provider not in drivers]
        if not offers:
            return []
        able = {offer.provider: Ability(multi_node=True) for offer in offers}
        return list(plan(wishes, task.num_nodes, offers, abilities=able, ordered=task.ordered).choices)

    def _market(self, *, rented: bool = False) -> Market:
        """Priced providers that are not in use here; with `rented` also those in use that are priced here."""
        market = self.catalog.market
        hidden = set(self._drivers()) - (self.rented.names() if rented else frozenset())
        names = [name for name in market.providers if name not in hidden]
        return market if len(names) == len(market.providers) else some_of(market, names)

    def atlas(self, wishes: Sequence[Resources]) -> Atlas | None:
        """Where regions are, for wishes that care."""
        return self._atlas() if any(wish.says_where for wish in wishes) else None

    def _atlas(self) -> Atlas:
        return self.catalog.atlas()

    def _unknown(self, task: Task, offers: Sequence[Offer]) -> ArgosyError | None:
        """The error when every candidate asks for something that does not exist anywhere; None otherwise."""
        own = {offer.shape.accelerator for offer in offers if offer.shape.accelerator}
        drivers = set(self._drivers())
        first: ArgosyError | None = None
        for wish in task.resources:
            error = None
            if wish.infra.provider not in drivers or wish.infra.provider in self.rented.names():
                error = self.catalog.unknown_place(wish.infra.provider, wish.infra.region, wish.infra.zone)
            error = error or nobody_has(wish, own, self.catalog)
            if error is None:
                return None
            first = first or error
        return first

    def _impossible(
        self, task: Task, ranking: Ranking, offers: Sequence[Offer], abilities: Mapping[str, Ability]
    ) -> str:
        """Which constraint removes the last candidate; "" when only machines of this server were asked
        for."""
        from argosy.planning.impossible import explain_impossible
        from argosy.planning.market import explain_none

        said = []
        for wish, steps in zip(task.resources, ranking.steps, strict=True):
            if steps:
                sentence = explain_impossible(
                    steady(wish),
                    offers,
                    num_nodes=task.num_nodes,
                    abilities=abilities,
                    market=self._market(rented=True),
                    atlas=self._atlas(),
                    spot_was_asked=wish.use_spot is not None,
                )
                said.append(sentence or explain_none(wish, steps))
        return "; ".join(dict.fromkeys(said))

    def _standing(self) -> Sequence[Refusal]:
        """Refusals that still count."""
        memory = self.refusals() if self.refusals is not None else None
        if memory is None or not memory.refusals:
            return ()
        from argosy.planning.availability import standing

        return standing(memory, self._clock.now_ms())

    def _compared(self, task: Task, choices: Sequence[Choice], known: Known) -> tuple[CompareRow, ...]:
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
        return compare(
            choices,
            num_nodes=task.num_nodes,
            ask=deadline_ask(task, left_s if left_s is not None else max(known_s) * 10),
            hazard=lambda choice: hazard_of(self.catalog, choice),
            durations=lambda choice: runtimes[choice] or 1,
            deadline_given=left_s is not None,
        )

    def _all_capacities(self, task: Task, own: Plan, *, managed: bool) -> list[Choice]:
        """The cheapest of spot and of the rest: neither hides the other. A cluster does not recover: its spot
        is asked for."""
        found = list(own.choices)
        for spot in (False, True):
            if any(wish.use_spot is not None and wish.use_spot != spot for wish in task.resources):
                continue
            if spot and not managed and not any(wish.use_spot for wish in task.resources):
                continue
            wishes = tuple(msgspec.structs.replace(wish, use_spot=spot) for wish in task.resources)
            asked = msgspec.structs.replace(task, resources=wishes)
            found += self._rank(asked, limit=_WIDE, rented=True).shown
        first = {offer_key(each.offer): each for each in reversed(found)}
        return merged(list(first.values()), task)

    # -- listings -----------------------------------------------------------------------------------

    def gpus(
        self, gpu: str, infra: str, *, spot: bool, cheapest: bool, every: bool, offers: Sequence[Offer]
    ) -> GpuList:
        """Accelerators. `offers` are those of the infrastructure in use. Raises `no-offer` for what does not
        exist."""
        from argosy.catalog.listing import gpu_rows

        model, milli = parse_gpu(gpu)
        place = parse_place(infra)
        own = [] if spot else [each for each in offers if is_there(each, model, place)]
        error = None
        if place.provider not in set(self._drivers()):
            error = self.catalog.unknown_place(place.provider, place.region, place.zone)
        if error is None and model and not any(each.shape.accelerator for each in own):
            error = self.catalog.unknown_accelerator(model, family=True)
        if error is not None:
            raise error
        drivers, standing = set(self._drivers()), self._standing()
        rows = tuple(
            msgspec.structs.replace(
                row,
                launchable=row.provider in drivers,
                refused=refused(standing, row.provider, row.instance_type),
            )
            for row in gpu_rows(
                self.catalog,
                model=model or None,
                milli=milli,
                infra=place,
                spot=True if spot else None,
                cheapest=cheapest,
            )
        )
        summed = not model and not every and not cheapest
        notes = self.notes({row.provider for row in rows})
        if summed:
            return GpuList(offers=tuple(own), models=summed_by_model(rows), notes=notes)
        return GpuList(offers=tuple(own), gpus=rows, notes=notes)

    def regions(self, provider: str, area: str) -> RegionList:
        from argosy.catalog.listing import region_rows

        if provider and provider not in set(self._drivers()):
            error = self.catalog.unknown_place(provider, None)
            if error is not None:
                raise error
        rows = region_rows(self.catalog, provider=provider or None, area=area or None)
        return RegionList(regions=rows)

    def status(self) -> CatalogReply:
        """How old prices are."""
        services = self._services()
        refreshable = set(services.names())
        catalog, now_ms = self.catalog, self._clock.now_ms()
        drivers = set(self._drivers())
        return CatalogReply(
            built=catalog.built,
            folder=str(self.folder),
            providers=tuple(
                CatalogAge(
                    provider=age.provider,
                    offers=len(catalog.market.block(age.provider)),
                    source=age.source,
                    newest=age.newest,
                    oldest=age.oldest,
                    days=age.days,
                    undated=age.undated,
                    stale=age.stale,
                    launchable=age.provider in drivers,
                    refreshable=age.provider in refreshable,
                    needs=services.missing_keys(age.provider),
                )
                for age in catalog.ages(now_ms)
            ),
            warnings=catalog.warnings,
        )

    def refresh(self, provider: str, force: bool, watch: Watch | None = None) -> RefreshReply:
        """Seconds to minutes. Raises ArgosyError, and leaves the old prices, when the new ones cannot be had;
        `Stopped` when `watch` calls it off."""
        kept = self._services().refresh(
            self._load(),  # of its own: questions go on meanwhile
            self.folder,
            provider,
            now_ms=self._clock.now_ms(),
            force=force,
            watch=watch,
        )
        return RefreshReply(
            provider=kept.provider, before=kept.before, after=kept.after, skipped=kept.skipped
        )

    def notes(self, providers: Iterable[str]) -> tuple[str, ...]:
        """What to say beside prices: those that are old, and what of the user's folder was left out."""
        catalog, now_ms = self.catalog, self._clock.now_ms()
        today = now_ms // _DAY_MS
        found = []
        for name in sorted(set(providers) & set(catalog.providers)):
            kept = self._ages.get(name)
            if kept is None or kept[0] != today:
                kept = self._ages[name] = (today, catalog.stale_warning(name, now_ms))
            if kept[1]:
                found.append(kept[1])
        if len(found) > _NOTES_MAX:
            rest = len(found) - _NOTES_MAX + 1
            found = [*found[: _NOTES_MAX - 1], f"and of {rest} more providers: `argosy catalog show`"]
        return (*catalog.warnings, *found)

    # -- what was spent -----------------------------------------------------------------------------

    def rates(self, claim: Claim, against: str) -> Rates:
        """What the nodes of a claim cost per hour today on demand (for those that were spot), and on another
        cloud."""
        from argosy.planning.market import rank

        offer = claim.choice.offer
        on_demand = elsewhere = None
        if offer.capacity is Capacity.SPOT:
            known = self.catalog.prices_for(
                offer.shape.instance_type,
                provider=offer.provider,
                region=offer.region,
                capacity=Capacity.ON_DEMAND,
            )
            on_demand = known[0].price_micro_usd * claim.count if known else None
        if against:
            if against not in self.catalog.providers:
                names = ", ".join(self.catalog.providers)
                raise ArgosyError(
                    "usage", f"there are no prices of `{against}` to compare with", hint=f"known are {names}"
                )
            wish = msgspec.structs.replace(
                claim.choice.resources,
                infra=Infra(provider=against),
                instance_type=None,
                use_spot=False,
                max_hourly_micro_usd=None,
            )
            best = rank((wish,), claim.count, self.catalog.market, limit=1).plan.choices
            elsewhere = best[0].price_micro_usd if best else None
        return Rates(on_demand, elsewhere)


def _plain(choice: Choice, task: Task, known: Known) -> Ranked:
    from argosy.planning.objective import evaluate

    return evaluate(choice, task.num_nodes, known)


def _view_of(value: object, kind: type[T]) -> T:
    """The API's type of a row: the same fields."""
    return msgspec.convert(value, kind, from_attributes=True)


def _page(rows: Sequence[CompareView], task: Task, said: Sequence[str]) -> str:
    from argosy.pages.comparison import render_comparison

    title = f"Where to run {task.name}" if task.name else "Where to run the task"
    return render_comparison(rows, title=title, said=said)


def _stamp_of(folder: Path) -> _Stamp:
    found = []
    for path in (*folder.glob("*"), *folder.glob("live/*")):
        try:
            stat = path.stat()
        except OSError:
            continue
        found.append((str(path), stat.st_size, stat.st_mtime_ns))
    return _Stamp(tuple(sorted(found)))

"""The same decision as `choose.plan` over tens of thousands of offers in columns: kinds of machines are
filtered, not offers, and objects are made only for what is returned.

Choices are those of `choose.plan`, in its order, cut after `limit`; refusals are summed up by provider and
constraint. Owned and other single offers join as blocks of their own, tested one by one.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from heapq import nsmallest

import msgspec

from argosy.model.areas import Atlas
from argosy.model.market import Block, Market, OfferBlock
from argosy.model.offer import Choice, Offer, Plan, Rejection
from argosy.model.resources import Resources
from argosy.model.units import render_price
from argosy.planning.ability import Ability, Usage
from argosy.planning.choose import grant
from argosy.planning.constraints import Applied
from argosy.planning.places import INFRA, Spot
from argosy.planning.sieve import FAR, Ceiling, Refusals, Run, Sieve, Step, runs_of

NOT_IN_USE = "not-in-use"  # it fits, but this server has no way to launch there
_DEFAULT_LIMIT = 64
_PRICED = Ability(spot=True, multi_node=True, images=True, machine_images=True, networks=True)


class Ranking(msgspec.Struct, frozen=True, kw_only=True):
    """What fits, best first.

    `plan.choices` can be launched; `shown` fits too, but its providers are not in use here. `fitting` counts
    all offers that fit, `steps` tells for each wish how many kinds of machines each constraint left.
    """

    plan: Plan
    shown: tuple[Choice, ...] = ()
    fitting: int = 0
    steps: tuple[tuple[Step, ...], ...] = ()


def rank(
    resources: Sequence[Resources],
    num_nodes: int,
    market: Market,
    *,
    offers: Sequence[Offer] = (),
    abilities: Mapping[str, Ability] | None = None,
    usage: Mapping[str, Usage] | None = None,
    ordered: bool = False,
    limit: int | None = _DEFAULT_LIMIT,
    launchable: Callable[[str], bool] | None = None,
    allowed: Callable[[str, str, str], bool] | None = None,
    atlas: Atlas | None = None,
) -> Ranking:
    """Rank a market and single offers for candidates of resources.

    Args:
        resources: candidates; any of them will do (in order of preference when `ordered`).
        num_nodes: how many equal nodes, all or none.
        market: offers in columns. A provider without an ability is taken to have spot capacity and several
        nodes. offers: owned and other single offers; `abilities` and `usage` are as for `choose.plan`. limit:
        how many choices at most; None: all of them. allowed: whether a place (provider, region, zone) may be
        used: residency, places that just refused. It is asked for each
            place of the market; single offers are the caller's.
        atlas: where regions are; as for `choose.plan`.
        launchable: providers of the market for which it is False are `shown` and refused with `not-in-use`.
    """
    abilities, usage = abilities or {}, usage or {}
    search = _Search(resources, num_nodes, ordered, limit)
    search.add_offers(offers, abilities, usage, atlas)
    for name in market.providers:
        can = launchable is None or launchable(name)
        search.add_block(market, name, abilities.get(name, _PRICED), can, allowed, atlas)
    return search.ranking()


class _Search:
    """Collects the runs that fit, of single offers and of blocks, and ranks them."""

    def __init__(
        self, resources: Sequence[Resources], num_nodes: int, ordered: bool, limit: int | None
    ) -> None:
        self.resources, self.num_nodes, self.ordered, self.limit = resources, num_nodes, ordered, limit
        self.constraints = [Applied(wish, num_nodes) for wish in resources]
        self.told = [Refusals() for _ in resources]
        self.blocks: list[Block] = []
        self.runs: list[Run] = []
        self.shown: list[Run] = []  # what fits and cannot be launched
        self.fitting = 0
        self.refused: dict[tuple[str, str, str], Rejection] = {}  # of single offers
        self._ceilings: dict[tuple[int, bool], Ceiling] = {}  # by preference, and whether it can be launched

    def _preference(self, position: int) -> int:
        return position if self.ordered else 0

    def add_offers(
        self,
        offers: Sequence[Offer],
        abilities: Mapping[str, Ability],
        usage: Mapping[str, Usage],
        atlas: Atlas | None,
    ) -> None:
        """Single offers, by provider: owned machines and live quotes."""
        by_provider: dict[str, list[Offer]] = {}
        for offer in offers:
            by_provider.setdefault(offer.provider, []).append(offer)
        first = len(self.blocks)
        self.blocks += [OfferBlock(name, listed) for name, listed in by_provider.items()]
        for position, constraints in enumerate(self.constraints):
            for at, (name, listed) in enumerate(by_provider.items(), first):
                ability, used = abilities.get(name, Ability()), usage.get(name, Usage())
                for kind, offer in enumerate(listed):
                    refusal = constraints.refuse(offer, ability, used, atlas)
                    if refusal is None:
                        run = (offer.price_micro_usd, self._preference(position), position, at, 0, kind)
                        self.runs.append(Run(*run, (kind,)))
                        self.fitting += 1
                        continue
                    key = (name, offer.region, refusal[0])
                    rejection = Rejection(
                        provider=name, region=offer.region, code=refusal[0], text=refusal[1]
                    )
                    self.refused.setdefault(key, rejection)

    def add_block(
        self,
        market: Market,
        name: str,
        ability: Ability,
        can_launch: bool,
        allowed: Callable[[str, str, str], bool] | None,
        atlas: Atlas | None,
    ) -> None:
        """Priced offers of one provider of the market; its block is loaded when a wish may go there."""
        at = -1
        for position, constraints in enumerate(self.constraints):
            wish, told = self.resources[position], self.told[position]
            elsewhere = INFRA.refuse(wish, Spot(name, "", "", True, None))
            if elsewhere:
                told.add(name, INFRA.code, elsewhere)
                continue
            if at < 0:
                at = len(self.blocks)
                self.blocks.append(market.block(name))
            left = Sieve(
                wish, self.num_nodes, self.blocks[at], ability,
                vendors=market.vendors, allowed=allowed, atlas=atlas, told=told,
            )  # fmt: skip
            constraints.sift(left)
            preference = self._preference(position)
            ceiling = self._ceilings.setdefault((preference, can_launch), Ceiling(self.limit))
            found, count = runs_of(left, ceiling, preference, position, at)
            (self.runs if can_launch else self.shown).extend(found)
            self.fitting += count

    def ranking(self) -> Ranking:
        priced = self.cheapest(self.shown)
        refusals: dict[tuple[str, str], Rejection] = {}
        for told in self.told:
            for key, rejection in told.found.items():
                refusals.setdefault(key, rejection)
        for at in sorted({run.block for run in self.shown}, key=lambda at: self.blocks[at].provider):
            name = self.blocks[at].provider
            best = next((choice for choice in priced if choice.offer.provider == name), None)
            if best is None:  # beyond the limit
                best = self.cheapest([run for run in self.shown if run.block == at], 1)[0]
            refusals[name, NOT_IN_USE] = Rejection(
                provider=name,
                code=NOT_IN_USE,
                text=f"{best.offer.shape.instance_type} in {best.offer.region} fits at "
                f"{render_price(best.price_micro_usd)}/h, but {name} is not in use on this server: "
                f"`argosy check {name}` says what it needs",
            )
        return Ranking(
            plan=Plan(
                num_nodes=self.num_nodes,
                choices=tuple(self.cheapest(self.runs)),
                rejected=(*self.refused.values(), *refusals.values()),
            ),
            shown=tuple(priced),
            fitting=self.fitting,
            steps=tuple(told.steps() for told in self.told),
        )

    def cheapest(self, runs: list[Run], limit: int | None = None) -> list[Choice]:
        """The first choices in the order of `choose.plan`; single offers come first among equals."""
        limit = limit or self.limit
        bound = None
        if limit is not None and len(runs) > limit:
            # Each run has a row at its own price: what is beyond the `limit`-th cheapest run cannot be among
            # the first.
            bound = nsmallest(limit, [(run.preference, run.price) for run in runs])[-1]
            runs = [run for run in runs if (run.preference, run.price) <= bound]
        rows: list[tuple[int, int, str, str, str, str, int, int, int, int, int]] = []
        for _, preference, wish, at, lane, kind, own in runs:
            block = self.blocks[at]
            columns, places = block.lanes[lane], block.places
            price, place, provider = columns.price, columns.place, block.provider
            instance_type = block.instance_types[kind]
            # Rows are sorted by price, region, zone: those after the first `limit` come after them for
            # certain.
            for row in own if limit is None else own[:limit]:
                micro_usd = price[row]
                if bound is not None and (preference, micro_usd) > bound:
                    break
                region, zone = places[place[row]]
                rows.append(
                    (preference, micro_usd, provider, region, zone, instance_type, at, wish, lane, kind, row)
                )
        return [
            grant(self.resources[wish], self.num_nodes, self.blocks[at].offer(lane, kind, row))
            for *_, at, wish, lane, kind, row in (sorted(rows) if limit is None else nsmallest(limit, rows))
        ]


def cheapest_in_regions(
    resources: Sequence[Resources],
    num_nodes: int,
    market: Market,
    *,
    abilities: Mapping[str, Ability] | None = None,
    allowed: Callable[[str, str, str], bool] | None = None,
    atlas: Atlas | None = None,
) -> list[Choice]:
    """The cheapest choice of every region, for every accelerator and number of them where one was asked for:
    the candidates of a stage of a pipeline.

    Arguments are as for `rank`. No other choice can be in an optimum, as egress depends on the region and
    time on the accelerator.
    """
    abilities = abilities or {}
    # price, provider, region, wish, lane, kind, row
    found: list[tuple[int, str, str, int, int, int, int]] = []
    for name in market.providers:
        wishes = [(at, wish) for at, wish in enumerate(resources) if wish.infra.provider in (None, "", name)]
        if not wishes:
            continue
        block = market.block(name)
        regions = sorted({place.region for place in block.places})
        number = {region: index for index, region in enumerate(regions)}
        region_of = [number[place.region] for place in block.places]
        groups: dict[tuple[str, int], list[Run]] = {}
        for position, wish in wishes:
            left = Sieve(
                wish, num_nodes, block, abilities.get(name, _PRICED),
                vendors=market.vendors, allowed=allowed, atlas=atlas, told=Refusals(),
            )  # fmt: skip
            Applied(wish, num_nodes).sift(left)
            asked = wish.accelerator is not None
            for run in runs_of(left, Ceiling(None), 0, position, 0)[0]:
                key = (block.models[run.kind], block.accelerators_milli[run.kind]) if asked else ("", 0)
                groups.setdefault(key, []).append(run)
        for runs in groups.values():
            runs.sort(key=_run_order)
            least = [FAR] * len(regions)
            best: list[tuple[int, int, int, int] | None] = [None] * len(regions)
            for run in runs:
                columns = block.lanes[run.lane]
                price, place = columns.price, columns.place
                ceiling = max(least)
                if run.price >= ceiling:
                    break  # every region has something cheaper, and so it is for the runs that follow
                for row in run.rows:
                    micro_usd = price[row]
                    if micro_usd >= ceiling:
                        break
                    region = region_of[place[row]]
                    if micro_usd < least[region]:
                        least[region] = micro_usd
                        best[region] = run.wish, run.lane, run.kind, row
            found += [
                (micro_usd, name, region, *each)
                for micro_usd, region, each in zip(least, regions, best, strict=True)
                if each is not None
            ]
    found.sort()
    return [
        grant(resources[wish], num_nodes, market.block(name).offer(lane, kind, row))
        for _, name, _, wish, lane, kind, row in found
    ]


def _run_order(run: Run) -> tuple[int, int, int, int]:
    return run.price, run.wish, run.lane, run.kind


def explain_none(wish: Resources, steps: Sequence[Step]) -> str:
    """Which constraint removed the last kind of machine: one sentence. For a ranking without any fit.

    >>> explain_none(Resources(), (Step(code="accelerator", kept=7), Step(code="memory", kept=0, text="has at most 1 TB")))
    'nothing has `default`: 7 kinds of machines are left until `memory`: has at most 1 TB'
    """  # noqa: E501
    before = None
    for step in steps:
        if step.kept == 0:
            left = (
                f"{before} {'kind' if before == 1 else 'kinds'} of machines "
                f"{'is' if before == 1 else 'are'} left until `{step.code}`"
                if before
                else f"no machine passes `{step.code}`"
            )
            return f"nothing has `{wish.render()}`: {left}" + (f": {step.text}" if step.text else "")
        before = step.kept
    return f"nothing has `{wish.render()}`"

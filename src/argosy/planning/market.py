"""The same decision as `choose.plan` over tens of thousands of offers in columns: kinds of machines are
filtered, not offers, and objects are made only for what is returned.

Choices are those of `choose.plan`, in its order, cut after `limit`; refusals are summed up by provider and
constraint. Owned and other single offers go through `choose.plan` itself and are merged in.
"""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections.abc import Callable, Iterable, Mapping, Sequence
from heapq import heappush, heapreplace, nsmallest
from typing import NamedTuple

import msgspec

from argosy.model.areas import Atlas
from argosy.model.market import Block, Market
from argosy.model.offer import Capacity, Choice, Offer, Plan, Rejection
from argosy.model.resources import Accelerator, LocalDisk, Resources
from argosy.model.units import render_bytes, render_disk, render_milli, render_price
from argosy.planning.choose import (
    Ability,
    Usage,
    grant,
    kind_excluded,
    memory_wished,
    plan,
    refuse_number,
    refuse_place,
)

NO_DRIVER = "no-driver"  # it fits, but Argosy cannot launch there
_DEFAULT_LIMIT = 64
_FAR = 1 << 62  # above every distance: what is near gets the larger number
_PRICED = Ability(spot=True, multi_node=True)


class Step(msgspec.Struct, frozen=True, kw_only=True):
    """One constraint of a wish, and how many kinds of machines of the market were left after it."""

    code: str
    kept: int
    text: str = ""  # why the last of them fell


class Ranking(msgspec.Struct, frozen=True, kw_only=True):
    """What fits, best first.

    `plan.choices` can be launched; `shown` fits too, but its providers have no driver here. `fitting` counts
    all offers that fit, `steps` tells for each wish how many kinds of machines each constraint left.
    """

    plan: Plan
    shown: tuple[Choice, ...] = ()
    fitting: int = 0
    steps: tuple[tuple[Step, ...], ...] = ()


class _Run(NamedTuple):
    """Rows of one kind that fit, cheapest first."""

    price: int  # of the first
    preference: int
    wish: int
    provider: str
    lane: int
    kind: int
    rows: Sequence[int]


class _Refusals:
    """Reasons by (provider, code), and the funnel of one wish."""

    def __init__(self) -> None:
        self.found: dict[tuple[str, str], Rejection] = {}
        self.kept: dict[str, int] = {}
        self.nearest: dict[str, tuple[int, str]] = {}
        self.counts: set[int] = set()  # accelerators per machine of the wished model, in thousandths

    def add(self, provider: str, code: str, text: str, near: int = -1) -> None:
        """`near` orders texts of one code: the funnel tells the one of the machine that comes nearest."""
        self.found[provider, code] = Rejection(provider=provider, code=code, text=text)
        if near >= 0 and near >= self.nearest.get(code, (0, ""))[0]:
            self.nearest[code] = near, text

    def keep(self, code: str, kinds: int) -> None:
        self.kept[code] = self.kept.get(code, 0) + kinds

    def steps(self) -> tuple[Step, ...]:
        texts = {code: text for code, (_, text) in self.nearest.items()}
        if self.counts:
            texts["accelerator count"] = "they come with " + _counts(self.counts)
        return tuple(Step(code=code, kept=kept, text=texts.get(code, "")) for code, kept in self.kept.items())


class _Bound:
    """What the `limit`-th cheapest run of one preference costs so far: dearer ones need not be looked at."""

    def __init__(self, limit: int | None) -> None:
        self.limit = limit
        self._dearest_first: list[int] = []

    @property
    def price(self) -> int:
        return -self._dearest_first[0] if len(self._dearest_first) == self.limit else _FAR

    def add(self, price: int) -> None:
        if self.limit is None:
            return
        if len(self._dearest_first) < self.limit:
            heappush(self._dearest_first, -price)
        elif -price > self._dearest_first[0]:
            heapreplace(self._dearest_first, -price)


class _Query(NamedTuple):
    """One wish against one block."""

    wish: Resources
    position: int
    preference: int
    num_nodes: int
    bound: _Bound
    vendors: Mapping[str, str]
    allowed: Callable[[str, str, str], bool] | None
    name: str
    block: Block
    ability: Ability
    told: _Refusals
    atlas: Atlas | None = None


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
        launchable: providers of the market for which it is False are `shown` and refused with `no-driver`.
    """
    abilities = abilities or {}
    blocks: dict[str, Block] = {}
    runs: list[_Run] = []
    fitting = 0
    bounds: dict[tuple[int, bool], _Bound] = {}  # by preference, and whether it can be launched
    refusals: dict[tuple[str, str], Rejection] = {}
    steps: list[tuple[Step, ...]] = []
    for position, wish in enumerate(resources):
        told = _Refusals()
        preference = position if ordered else 0
        bounds.setdefault((preference, True), _Bound(limit))
        bounds.setdefault((preference, False), _Bound(limit))
        for name in market.providers:
            if wish.infra.provider and wish.infra.provider != name:
                told.add(name, "infra", f"`infra` asks for {wish.infra.provider}")
                continue
            blocks[name] = market.block(name)
            can = launchable is None or launchable(name)
            query = _Query(
                wish, position, preference, num_nodes, bounds[preference, can], market.vendors, allowed,
                name, blocks[name], abilities.get(name, _PRICED), told, atlas,
            )  # fmt: skip
            found, count = _fit(query)
            runs += found
            fitting += count
        for key, rejection in told.found.items():
            refusals.setdefault(key, rejection)
        steps.append(told.steps())

    able = {name: launchable is None or launchable(name) for name in blocks}
    chosen = [run for run in runs if able[run.provider]]
    shown = [run for run in runs if not able[run.provider]]
    choices = _cheapest(chosen, blocks, resources, num_nodes, limit)
    priced = _cheapest(shown, blocks, resources, num_nodes, limit)
    for name in sorted({run.provider for run in shown}):
        best = next((c for _, c in priced if c.offer.provider == name), None)
        if best is None:  # beyond the limit
            own = [run for run in shown if run.provider == name]
            best = _cheapest(own, blocks, resources, num_nodes, 1)[0][1]
        refusals[name, NO_DRIVER] = Rejection(
            provider=name,
            code=NO_DRIVER,
            text=f"{best.offer.shape.instance_type} in {best.offer.region} fits at "
            f"{render_price(best.price_micro_usd)}/h, but Argosy cannot launch on {name} yet",
        )
    rejected = tuple(refusals.values())
    if offers:
        single = plan(
            resources, num_nodes, offers, abilities=abilities, usage=usage, ordered=ordered, atlas=atlas
        )
        choices = _merge(choices, single.choices, resources, ordered)
        fitting += len(single.choices)
        rejected = (*single.rejected, *rejected)
    chosen_first = [choice for _, choice in choices]
    return Ranking(
        plan=Plan(
            num_nodes=num_nodes,
            choices=tuple(chosen_first if limit is None else chosen_first[:limit]),
            rejected=rejected,
        ),
        shown=tuple(choice for _, choice in priced),
        fitting=fitting,
        steps=tuple(steps),
    )


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
    found: list[
        tuple[int, str, str, int, int, int, int]
    ] = []  # price, provider, region, wish, lane, kind, row
    for name in market.providers:
        wishes = [(at, wish) for at, wish in enumerate(resources) if wish.infra.provider in (None, "", name)]
        if not wishes:
            continue
        block = market.block(name)
        regions = sorted({place.region for place in block.places})
        number = {region: index for index, region in enumerate(regions)}
        region_of = [number[place.region] for place in block.places]
        groups: dict[tuple[str, int], list[_Run]] = {}
        for position, wish in wishes:
            query = _Query(
                wish,
                position,
                0,
                num_nodes,
                _Bound(None),
                market.vendors,
                allowed,
                name,
                block,
                abilities.get(name, _PRICED),
                _Refusals(),
                atlas,
            )
            asked = wish.accelerator is not None
            for run in _fit(query)[0]:
                key = (block.models[run.kind], block.accelerators_milli[run.kind]) if asked else ("", 0)
                groups.setdefault(key, []).append(run)
        for runs in groups.values():
            runs.sort(key=_run_order)
            least = [_FAR] * len(regions)
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


def _run_order(run: _Run) -> tuple[int, int, int, int]:
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


# --- kinds -----------------------------------------------------------------------------------------

_Local = list[dict[int, list[int]]]  # rows by kind, for each lane


def _fit(query: _Query) -> tuple[list[_Run], int]:
    """Runs of the block that serve the wish, and how many offers fit; constraints in the order of
    `choose.refuse`."""
    wish, block, told = query.wish, query.block, query.told
    local = _rows_in_place(query)
    kinds: Sequence[int] = range(len(block.instance_types))
    members: frozenset[int] | set[int] | None = None  # None: all kinds
    if local is not None:
        members = {kind for rows in local for kind in rows}
        kinds = sorted(members)
    if wish.infra.region or wish.infra.zone or query.allowed is not None or wish.says_where:
        told.keep("place", len(kinds))
    if any(each.instance_type or each.accelerator for each in wish.excluded):
        types, models = block.instance_types, block.models
        left = [kind for kind in kinds if not kind_excluded(wish, types[kind], models[kind], query.name)]
        if len(left) < len(kinds):
            told.add(query.name, "excluded", "`not` rules out some of its machines")
        kinds, members = left, set(left)
        told.keep("excluded", len(kinds))
    if wish.instance_type:
        of_type = block.of_type(wish.instance_type)
        left = of_type if members is None else [kind for kind in of_type if kind in members]
        if len(left) < len(kinds):
            told.add(query.name, "instance-type", f"has no instance type {wish.instance_type}")
        kinds, members = left, set(left)
        told.keep("instance-type", len(kinds))
    lanes, kinds, members = _lanes(query, kinds, members, local)
    number = refuse_number(query.num_nodes, query.ability)
    if number is not None:
        if kinds:
            told.add(query.name, *number)
        kinds, members = (), set()
        told.keep(number[0], 0)
    if wish.accelerator is not None:
        kinds = _with_accelerator(query, wish.accelerator, kinds, members)
    kinds = _with_size(query, kinds)
    if wish.node_disk is not None:
        kinds = _with_disk(query, wish.node_disk, kinds)
    return _runs(query, lanes, kinds, local)


def _rows_in_place(query: _Query) -> _Local | None:
    """Rows by kind for each lane when not every place will do; None when anywhere will."""
    block, told, allowed = query.block, query.told, query.allowed
    region, zone = query.wish.infra.region, query.wish.infra.zone
    region = None if region == "*" else region
    zone = None if zone == "*" else zone
    wish = query.wish
    if not region and not zone and allowed is None and not wish.says_where:
        return None
    here = list(range(len(block.places)))
    places = block.places
    if region:
        left = [index for index in here if places[index].region == region]
        if len(left) < len(here):
            told.add(query.name, "region", f"`infra` asks for region {region}")
        here = left
    if zone:
        # An offer without a zone can be had in any zone of its region.
        left = [index for index in here if places[index].zone in ("", zone)]
        if len(left) < len(here):
            told.add(query.name, "zone", f"`infra` asks for zone {zone}")
        here = left
    if allowed is not None:
        left = [index for index in here if allowed(query.name, places[index].region, places[index].zone)]
        if len(left) < len(here):
            told.add(
                query.name,
                "place",
                "some of its places are ruled out" if left else "its places are ruled out",
            )
        here = left
    if wish.says_where:
        left = []
        for index in here:
            ruled_out = refuse_place(wish, query.name, places[index].region, places[index].zone, query.atlas)
            if ruled_out is None:
                left.append(index)
            else:
                told.add(query.name, *ruled_out, near=0)
        here = left
    chosen = frozenset(here)
    if len(chosen) == len(places):
        return None
    return [block.in_places(lane, chosen) for lane in range(len(block.lanes))]


def _lanes(
    query: _Query, kinds: Sequence[int], members: frozenset[int] | set[int] | None, local: _Local | None
) -> tuple[list[int], Sequence[int], frozenset[int] | set[int] | None]:
    """Lanes of the wished capacity, and the kinds that have rows in them."""
    want, block, ability = query.wish.use_spot, query.block, query.ability
    if want is None:
        return list(range(len(block.lanes))), kinds, members
    good: list[int] = []
    bad: list[int] = []
    for lane, columns in enumerate(block.lanes):
        spot = columns.capacity is Capacity.SPOT
        (good if want == spot and (ability.spot or not spot) else bad).append(lane)

    def has_rows(lane: int) -> frozenset[int] | set[int]:
        here = block.in_lane(lane)[1] if local is None else local[lane].keys()
        return frozenset(here) if members is None else members & here

    if any(has_rows(lane) for lane in bad):
        text = ("is not spot" if ability.spot else "has no spot capacity") if want else "is spot"
        query.told.add(query.name, "spot", text)
    if len(good) == 1:
        members = has_rows(good[0])
    else:
        members = frozenset[int]().union(*(has_rows(lane) for lane in good))
    query.told.keep("spot", len(members))
    return good, tuple(members), members


def _counts(millis: Iterable[int]) -> str:
    return ", ".join(render_milli(each) for each in sorted(millis)) + " per machine"


def _with_accelerator(
    query: _Query, wish: Accelerator, kinds: Sequence[int], members: frozenset[int] | set[int] | None
) -> Sequence[int]:
    name, block, told = query.name, query.block, query.told
    millis = block.accelerators_milli
    if wish.model is not None:
        left = block.of_model(wish.model)
        if members is not None:
            left = [kind for kind in left if kind in members]
    else:
        left = [kind for kind in kinds if millis[kind]]
    if wish.vendor:
        vendor_of, models = query.vendors.get, block.models
        left = [kind for kind in left if vendor_of(models[kind].lower()) == wish.vendor]
    if len(left) < len(kinds):
        text = f"has no {wish.model or wish.vendor or 'accelerator'}"
        if wish.model is not None and not left and block.of_model(wish.model):
            spot = {True: " as spot", False: " but as spot", None: ""}[query.wish.use_spot]
            text += spot or " that is not ruled out"
        told.add(name, "accelerator", text)
    told.keep("accelerator", len(left))
    if wish.memory_min_bytes:
        memory = block.device_memory_bytes
        big = [kind for kind in left if memory[kind] >= wish.memory_min_bytes]
        if len(big) < len(left):
            most = max(left, key=memory.__getitem__)
            told.add(
                name,
                "accelerator-memory",
                f"{block.models[most]} has {render_bytes(memory[most])}, asked for "
                f"{render_bytes(wish.memory_min_bytes)}",
                memory[most],
            )
        left = big
        told.keep("accelerator-memory", len(left))
    exact = [kind for kind in left if millis[kind] == wish.milli]
    if not wish.is_fraction:
        if len(exact) < len(left):
            has = {millis[kind] for kind in left}
            told.counts |= has
            asked = f"asked for {render_milli(wish.milli)}"
            told.add(name, "accelerator", f"has {wish.model or 'accelerators'} with {_counts(has)}, {asked}")
        told.keep("accelerator count", len(exact))
        return exact
    if not query.ability.fractions or wish.milli > 1000:
        if len(exact) < len(left):
            text = f"{render_milli(wish.milli)} accelerators: a share is below 1, more are whole numbers"
            if not query.ability.fractions:
                text = "gives whole accelerators only"
            told.add(name, "fraction", text, 0)
        left = exact
    told.keep("fraction", len(left))
    return left


def _with_size(query: _Query, kinds: Sequence[int]) -> Sequence[int]:
    """Kinds with the CPUs and the memory of the wish."""
    name, told, wish = query.name, query.told, query.wish
    cpus, memory = query.block.cpus_milli, query.block.memory_bytes
    if wish.cpus is not None:
        want = wish.cpus.amount
        if isinstance(kinds, range):  # all of them
            ordered, amounts = query.block.by_cpus()
            end = bisect_right(amounts, want) if wish.cpus.exact else None
            left = ordered[bisect_left(amounts, want) : end]
        elif wish.cpus.exact:
            left = [kind for kind in kinds if cpus[kind] == want]
        else:
            left = [kind for kind in kinds if cpus[kind] >= want]
        if len(left) < len(kinds):
            text, near = f"some have other than {render_milli(want)} CPUs", 0
            if not left:
                have = min((cpus[kind] for kind in kinds), key=lambda each: abs(each - want))
                text = f"has {render_milli(have)} CPUs at the nearest, asked for {render_milli(want)}"
                near = _FAR - abs(have - want)
            told.add(name, "cpus", text, near)
        kinds = left
        told.keep("cpus", len(kinds))
    each = wish.memory_per_cpu_bytes
    if wish.memory is not None or (each and wish.cpus is not None):
        amount = memory_wished(wish, wish.cpus.amount if wish.cpus else 0)
        if wish.memory is not None and wish.memory.exact:
            left = [kind for kind in kinds if memory[kind] == amount]
        else:
            left = [kind for kind in kinds if memory[kind] >= amount]
        asked = render_bytes(amount)
    elif each:
        left = [kind for kind in kinds if memory[kind] >= each * cpus[kind] // 1000]
        asked = f"{render_bytes(each)} per CPU"
    else:
        return kinds
    if len(left) < len(kinds):
        text, most = f"some have other than {asked} of memory", 0
        if not left:
            most = max([memory[kind] for kind in kinds])
            text = f"has {render_bytes(most)} of memory at most, asked for {asked}"
        told.add(name, "memory", text, most)
    told.keep("memory", len(left))
    return left


def _with_disk(query: _Query, wish: LocalDisk, kinds: Sequence[int]) -> Sequence[int]:
    """Kinds that are known to have the local disk of the wish."""
    disk, bound = query.block.disk_bytes, wish.bound
    left = [kind for kind in kinds if bound.holds(disk[kind])]
    if len(left) < len(kinds):
        text, near = "some have no such local disk", 0
        if not left:
            known = [disk[kind] for kind in kinds if disk[kind]]
            have = min(known, key=lambda each: abs(each - bound.amount), default=0)
            has = f"{render_disk(have)} of local disk at {'the nearest' if bound.exact else 'most'}"
            text = f"has {has if have else 'no local disk that is known'}, asked for {wish.render()}"
            near = _FAR - abs(have - bound.amount) if have else 0
        query.told.add(query.name, "local-disk", text, near)
    query.told.keep("local-disk", len(left))
    return left


# --- rows ------------------------------------------------------------------------------------------


def _runs(
    query: _Query, lanes: Sequence[int], kinds: Sequence[int], local: _Local | None
) -> tuple[list[_Run], int]:
    """Rows of the kinds that fit within the price cap; not those that cannot be among the first `limit`."""
    block, cap = query.block, query.wish.max_hourly_micro_usd
    bound = query.bound
    members = set(kinds) if local is None and cap is None else set()
    runs: list[_Run] = []
    fitting = 0
    for lane in lanes:
        columns = block.lanes[lane]
        start, price = columns.start, columns.price
        rows_by_kind = None if local is None else local[lane]
        if rows_by_kind is None:
            fitting += sum(map(block.counts(lane).__getitem__, kinds))
            if cap is None:
                firsts = _cheapest_kinds(block, lane, members, bound)
            else:
                firsts = [(price[start[kind]], kind) for kind in kinds if start[kind] < start[kind + 1]]
        else:
            here = [kind for kind in kinds if kind in rows_by_kind]
            fitting += sum([len(rows_by_kind[kind]) for kind in here])
            firsts = [(price[rows_by_kind[kind][0]], kind) for kind in here]
            if cap is None:
                dearest = bound.price
                firsts = sorted([pair for pair in firsts if pair[0] <= dearest] or sorted(firsts)[:1])
                for first, _ in firsts[: bound.limit]:
                    bound.add(first)
                firsts = firsts[: max(1, bisect_right(firsts, bound.price, key=_first))]
        for micro_usd, kind in firsts:
            rows: Sequence[int] = (
                range(start[kind], start[kind + 1]) if rows_by_kind is None else rows_by_kind[kind]
            )
            runs.append(_Run(micro_usd, query.preference, query.position, query.name, lane, kind, rows))
    if cap is None:
        return runs, fitting
    return _within_cap(query, runs, cap)


def _first(pair: tuple[int, int]) -> int:
    return pair[0]


def _cheapest_kinds(block: Block, lane: int, members: set[int], bound: _Bound) -> list[tuple[int, int]]:
    """Kinds of `members`, cheapest first, until they are dearer than the bound; with their prices."""
    columns = block.lanes[lane]
    start, price = columns.start, columns.price
    found: list[tuple[int, int]] = []
    for kind in block.in_lane(lane)[0]:
        if kind in members:
            first = price[start[kind]]
            if found and first > bound.price:  # the cheapest is always kept: a provider's best is told
                break
            bound.add(first)
            found.append((first, kind))
    return found


def _within_cap(query: _Query, runs: list[_Run], cap: int) -> tuple[list[_Run], int]:
    cap_each = cap // query.num_nodes
    within: list[_Run] = []
    cheapest: int | None = None
    for run in runs:
        price = query.block.lanes[run.lane].price
        if price[run.rows[-1]] <= cap_each:
            within.append(run)
            continue
        cheapest = run.price if cheapest is None else min(cheapest, run.price)
        rows = run.rows[: bisect_right(run.rows, cap_each, key=price.__getitem__)]
        if rows:
            within.append(run._replace(rows=rows))
    if cheapest is not None:
        none_fits = cheapest > cap_each
        has = f"cheapest is {render_price(cheapest * query.num_nodes)}/h" if none_fits else "some cost more"
        near = _FAR - cheapest if none_fits else 0
        query.told.add(query.name, "price-cap", f"{has}, cap is {render_price(cap)}/h", near)
    query.told.keep("price-cap", len({run.kind for run in within}))
    return within, sum([len(run.rows) for run in within])


_Key = tuple[int, int, str, str, str, str]


def _cheapest(
    runs: list[_Run],
    blocks: Mapping[str, Block],
    resources: Sequence[Resources],
    num_nodes: int,
    limit: int | None,
) -> list[tuple[_Key, Choice]]:
    """The first `limit` choices in the order of `choose.plan`."""
    if limit is not None and len(runs) > limit:
        # Each run has a row at its own price: what is beyond the `limit`-th cheapest run cannot be among the
        # first.
        bound = nsmallest(limit, [(run.preference, run.price) for run in runs])[-1]
        runs = [run for run in runs if (run.preference, run.price) <= bound]
    else:
        bound = None
    rows: list[tuple[int, int, str, str, str, str, int, int, int, int]] = []
    for _, preference, wish, provider, lane, kind, own in runs:
        block = blocks[provider]
        columns, places = block.lanes[lane], block.places
        price, place = columns.price, columns.place
        instance_type = block.instance_types[kind]
        if limit is not None and len(own) > limit:
            # Rows are sorted by price, region, zone: those after the first `limit` come after them for
            # certain.
            own = own[:limit]
        for row in own:
            micro_usd = price[row]
            if bound is not None and (preference, micro_usd) > bound:
                break
            region, zone = places[place[row]]
            rows.append((preference, micro_usd, provider, region, zone, instance_type, wish, lane, kind, row))
    rows = sorted(rows) if limit is None else nsmallest(limit, rows)
    found = []
    for row_key in rows:
        wish, lane, kind, row = row_key[6:]
        choice = grant(resources[wish], num_nodes, blocks[row_key[2]].offer(lane, kind, row))
        key = (row_key[0], choice.price_micro_usd, *row_key[2:6])
        found.append((key, choice))
    return found


def _merge(
    priced: list[tuple[_Key, Choice]], single: Sequence[Choice], resources: Sequence[Resources], ordered: bool
) -> list[tuple[_Key, Choice]]:
    """Choices of the market and of single offers by the same key; single ones first among equals."""
    positions = {id(wish): position for position, wish in enumerate(resources)}
    keyed = []
    for choice in single:
        offer = choice.offer
        preference = positions[id(choice.resources)] if ordered else 0
        key = (
            preference,
            choice.price_micro_usd,
            offer.provider,
            offer.region,
            offer.zone,
            offer.shape.instance_type,
        )
        keyed.append((key, choice))
    return sorted([*keyed, *priced], key=lambda pair: pair[0])

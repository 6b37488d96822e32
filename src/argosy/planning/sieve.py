"""One wish against all offers of one provider, in columns: each function keeps the kinds of machines that
meet one constraint, and says why the others fell.

These are the columnar tests of the table in `constraints`; a property test holds them equal to the tests of
single offers.
"""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections.abc import Callable, Iterable, Mapping, Sequence
from heapq import heappush, heapreplace
from typing import Final, NamedTuple

import msgspec

from argosy.model.areas import Atlas
from argosy.model.market import Block
from argosy.model.offer import Capacity, Rejection
from argosy.model.resources import Resources
from argosy.model.slices import hosts_of
from argosy.model.units import render_bytes, render_disk, render_milli, render_price
from argosy.planning.ability import Ability

FAR: Final = 1 << 62  # above every distance: what is near gets the larger number


class Step(msgspec.Struct, frozen=True, kw_only=True):
    """One constraint of a wish, and how many kinds of machines of the market were left after it."""

    code: str
    kept: int
    text: str = ""  # why the last of them fell


class Run(NamedTuple):
    """Rows of one kind that fit, cheapest first."""

    price: int  # of the first
    preference: int
    wish: int
    block: int  # index in the caller's list
    lane: int
    kind: int
    rows: Sequence[int]


class Refusals:
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


class Ceiling:
    """What the `limit`-th cheapest run of one preference costs so far: dearer ones need not be looked at."""

    def __init__(self, limit: int | None) -> None:
        self.limit = limit
        self._dearest_first: list[int] = []

    @property
    def price(self) -> int:
        return -self._dearest_first[0] if len(self._dearest_first) == self.limit else FAR

    def add(self, price: int) -> None:
        if self.limit is None:
            return
        if len(self._dearest_first) < self.limit:
            heappush(self._dearest_first, -price)
        elif -price > self._dearest_first[0]:
            heapreplace(self._dearest_first, -price)


Members = frozenset[int] | set[int]


class Sieve:
    """What is left of a block. `kinds` are those that fit so far, `members` the same as a set (None: all).

    `members` is kept up to the test of the accelerator, which begins with the few kinds that have it.
    `here`: rows by kind for each lane, where not all places count; `lanes`: those of the wished capacity.
    """

    __slots__ = (
        *("ability", "allowed", "atlas", "block", "ceiling", "kinds", "lanes", "here", "members", "name"),
        *("num_nodes", "preference", "told", "vendors", "wish"),
    )

    def __init__(
        self,
        wish: Resources,
        num_nodes: int,
        block: Block,
        ability: Ability,
        *,
        vendors: Mapping[str, str],
        allowed: Callable[[str, str, str], bool] | None,
        atlas: Atlas | None,
        told: Refusals,
    ) -> None:
        self.wish, self.num_nodes, self.block, self.ability = wish, num_nodes, block, ability
        self.name, self.vendors, self.allowed, self.atlas, self.told = (
            block.provider,
            vendors,
            allowed,
            atlas,
            told,
        )
        self.kinds: Sequence[int] = range(len(block.instance_types))
        self.members: Members | None = None
        self.here: list[dict[int, list[int]]] | None = None
        self.lanes: Sequence[int] = range(len(block.lanes))

    def keep_allowed(self, here: Sequence[int]) -> Sequence[int]:
        """Places that the caller allows: what the wish does not say, as places that refused lately."""
        allowed, places, name = self.allowed, self.block.places, self.name
        assert allowed is not None
        left = [index for index in here if allowed(name, places[index].region, places[index].zone)]
        if len(left) < len(here):
            text = "some of its places are ruled out" if left else "its places are ruled out"
            self.told.add(name, "place", text)
        return left

    def in_places(self, chosen: Sequence[int]) -> None:
        """Only rows at these places (indexes of `block.places`) count from now on."""
        if len(chosen) < len(self.block.places):
            there = frozenset(chosen)
            self.here = [self.block.in_places(lane, there) for lane in range(len(self.block.lanes))]
            self.members = {kind for rows in self.here for kind in rows}
            self.kinds = sorted(self.members)
        self.told.keep("place", len(self.kinds))

    def keep_none(self, code: str, text: str) -> None:
        """The provider as a whole does not meet the constraint."""
        self.keep(code, (), text)
        self.members = set()

    def keep(self, code: str, left: Sequence[int], text: str = "", near: int = -1) -> None:
        """Only these kinds are left after the constraint `code`; `text`: why others fell."""
        if len(left) < len(self.kinds):
            self.told.add(self.name, code, text, near)
        self.kinds = left
        self.told.keep(code, len(left))


def _counts(millis: Iterable[int]) -> str:
    return ", ".join(render_milli(each) for each in sorted(millis)) + " per machine"


# --- columnar tests, one for each constraint of machines ---------------------------------------------


def keep_not_excluded(sieve: Sieve) -> None:
    types, models, name = sieve.block.instance_types, sieve.block.models, sieve.name
    left = [k for k in sieve.kinds if not sieve.wish.excludes_kind(types[k], models[k], name)]
    sieve.keep("excluded", left, "`not` rules out some of its machines")
    sieve.members = set(left)


def keep_instance_type(sieve: Sieve) -> None:
    wanted = sieve.wish.instance_type or ""
    of_type = sieve.block.of_type(wanted)
    members = sieve.members
    left = of_type if members is None else [kind for kind in of_type if kind in members]
    sieve.keep("instance-type", left, f"has no instance type {wanted}")
    sieve.members = set(left)


def keep_lanes(sieve: Sieve) -> None:
    """Lanes of the wished capacity, and the kinds that have rows in them."""
    want, block, ability, local, members = (
        sieve.wish.use_spot,
        sieve.block,
        sieve.ability,
        sieve.here,
        sieve.members,
    )
    good: list[int] = []
    bad: list[int] = []
    for lane, columns in enumerate(block.lanes):
        spot = columns.capacity is Capacity.SPOT
        (good if want == spot and (ability.spot or not spot) else bad).append(lane)

    def has_rows(lane: int) -> Members:
        here = block.in_lane(lane)[1] if local is None else local[lane].keys()
        return frozenset(here) if members is None else members & here

    if any(has_rows(lane) for lane in bad):
        text = ("is not spot" if ability.spot else "has no spot capacity") if want else "is spot"
        sieve.told.add(sieve.name, "spot", text)
    left = has_rows(good[0]) if len(good) == 1 else frozenset[int]().union(*map(has_rows, good))
    sieve.lanes, sieve.members, sieve.kinds = good, left, tuple(left)
    sieve.told.keep("spot", len(left))


def keep_accelerator(sieve: Sieve) -> None:
    """Model, vendor and memory of the device, and how many come with a machine."""
    wish, block, members = sieve.wish.accelerator, sieve.block, sieve.members
    assert wish is not None
    if wish.model is not None:
        left = block.of_model(wish.model)
        if members is not None:
            left = [kind for kind in left if kind in members]
    else:
        left = [kind for kind in sieve.kinds if block.accelerators_milli[kind]]
    if wish.vendor:
        vendor_of, models = sieve.vendors.get, block.models
        left = [kind for kind in left if vendor_of(models[kind].lower()) == wish.vendor]
    text = f"has no {wish.model or wish.vendor or 'accelerator'}"
    if wish.model is not None and not left and block.of_model(wish.model):
        spot = {True: " as spot", False: " but as spot", None: ""}[sieve.wish.use_spot]
        text += spot or " that is not ruled out"
    sieve.keep("accelerator", left, text)
    if wish.memory_min_bytes:
        memory = block.device_memory_bytes
        big = [kind for kind in left if memory[kind] >= wish.memory_min_bytes]
        most = max(left, key=memory.__getitem__, default=0)
        text = (
            f"{block.models[most]} has {render_bytes(memory[most])}, asked for "
            f"{render_bytes(wish.memory_min_bytes)}"
            if left
            else ""
        )
        sieve.keep("accelerator-memory", big, text, memory[most] if left else 0)
    _keep_count(sieve)


def _keep_count(sieve: Sieve) -> None:
    wish, told, millis, left = (
        sieve.wish.accelerator,
        sieve.told,
        sieve.block.accelerators_milli,
        sieve.kinds,
    )
    assert wish is not None
    exact = [kind for kind in left if millis[kind] == wish.milli]
    if not wish.is_fraction:
        if len(exact) < len(left):
            has = {millis[kind] for kind in left}
            told.counts |= has
            asked = f"asked for {render_milli(wish.milli)}"
            told.add(
                sieve.name, "accelerator", f"has {wish.model or 'accelerators'} with {_counts(has)}, {asked}"
            )
        sieve.kinds = exact
        told.keep("accelerator count", len(exact))
        return
    if wish.milli > 1000:
        if len(exact) < len(left):
            text = f"{render_milli(wish.milli)} accelerators: a share is below 1, more are whole numbers"
            told.add(sieve.name, "fraction", text, 0)
        sieve.kinds = exact
    else:  # a machine is rented as a whole: a task gets its fraction of it
        sieve.kinds = [kind for kind in left if millis[kind] >= wish.milli]
        if len(sieve.kinds) < len(left):
            counts = _counts({millis[kind] for kind in left})
            text = f"has {wish.model or 'accelerators'} with {counts}, asked for {render_milli(wish.milli)}"
            told.add(sieve.name, "accelerator", text)
    told.keep("fraction", len(sieve.kinds))


def keep_arch(sieve: Sieve) -> None:
    """Kinds with processors of the wished architecture."""
    wanted, arch = sieve.wish.arch_wanted(), sieve.block.arch
    if sieve.block.arches == {wanted}:
        return  # nothing falls, and nothing is told of a default
    left = [kind for kind in sieve.kinds if arch[kind] == wanted]
    sieve.keep("arch", left, f"some have other than {wanted} processors", 0)


def lacks_nodes(accelerator: str | None, num_nodes: int) -> str:
    """Why so many nodes are no whole slices, as a clause; "" when they are."""
    hosts = hosts_of(accelerator)
    if num_nodes % hosts == 0:
        return ""
    each = num_nodes // hosts * hosts + hosts
    return f"{accelerator} has {hosts} hosts, and each is a node: asked for {num_nodes} (`num_nodes: {each}`)"


def keep_slices(sieve: Sieve) -> None:
    """Kinds whose slices are had whole with so many nodes."""
    slices = sieve.block.slices
    if not slices:
        return
    left = [kind for kind in sieve.kinds if sieve.num_nodes % slices.get(kind, 1) == 0]
    if len(left) == len(sieve.kinds):
        return
    kept = frozenset(left)
    fallen = max((kind for kind in sieve.kinds if kind not in kept), key=lambda kind: -slices[kind])
    sieve.keep("slice", left, lacks_nodes(sieve.block.models[fallen], sieve.num_nodes), 0)


def keep_cpus(sieve: Sieve) -> None:
    bound, cpus, kinds = sieve.wish.cpus, sieve.block.cpus_milli, sieve.kinds
    assert bound is not None
    want = bound.amount
    if isinstance(kinds, range):  # all of them
        ordered, amounts = sieve.block.by_cpus()
        end = bisect_right(amounts, want) if bound.exact else None
        left = ordered[bisect_left(amounts, want) : end]
    elif bound.exact:
        left = [kind for kind in kinds if cpus[kind] == want]
    else:
        left = [kind for kind in kinds if cpus[kind] >= want]
    text, near = f"some have other than {render_milli(want)} CPUs", 0
    if not left and kinds:
        have = min((cpus[kind] for kind in kinds), key=lambda each: abs(each - want))
        text = f"has {render_milli(have)} CPUs at the nearest, asked for {render_milli(want)}"
        near = FAR - abs(have - want)
    sieve.keep("cpus", left, text, near)


def keep_memory(sieve: Sieve) -> None:
    wish, kinds, memory, cpus = sieve.wish, sieve.kinds, sieve.block.memory_bytes, sieve.block.cpus_milli
    each = wish.memory_per_cpu_bytes
    if wish.memory is not None or wish.cpus is not None:
        amount = wish.memory_for(wish.cpus.amount if wish.cpus else 0)
        if wish.memory is not None and wish.memory.exact:
            left = [kind for kind in kinds if memory[kind] == amount]
        else:
            left = [kind for kind in kinds if memory[kind] >= amount]
        asked = render_bytes(amount)
    else:
        left = [kind for kind in kinds if memory[kind] >= each * cpus[kind] // 1000]
        asked = f"{render_bytes(each)} per CPU"
    text, most = f"some have other than {asked} of memory", 0
    if not left and kinds:
        most = max([memory[kind] for kind in kinds])
        text = f"has {render_bytes(most)} of memory at most, asked for {asked}"
        if wish.memory is not None and wish.memory.exact and most > amount:
            text = f"has no machine with exactly {asked} of memory; a `+` behind it means at least"
    sieve.keep("memory", left, text, most)


def keep_local_disk(sieve: Sieve) -> None:
    """Kinds that are known to have the local disk of the wish."""
    wish, disk = sieve.wish.node_disk, sieve.block.disk_bytes
    assert wish is not None
    bound = wish.bound
    left = [kind for kind in sieve.kinds if bound.holds(disk[kind])]
    text, near = "some have no such local disk", 0
    if not left:
        known = [disk[kind] for kind in sieve.kinds if disk[kind]]
        have = min(known, key=lambda each: abs(each - bound.amount), default=0)
        has = f"{render_disk(have)} of local disk at {'the nearest' if bound.exact else 'most'}"
        text = f"has {has if have else 'no local disk that is known'}, asked for {wish.render()}"
        near = FAR - abs(have - bound.amount) if have else 0
    sieve.keep("local-disk", left, text, near)


# --- rows --------------------------------------------------------------------------------------------


def runs_of(sieve: Sieve, ceiling: Ceiling, preference: int, wish: int, block: int) -> tuple[list[Run], int]:
    """Rows of the kinds that are left, within the price cap; not those that cannot be among the first
    `limit`.

    Also how many offers fit.
    """
    cap = sieve.wish.max_hourly_micro_usd
    members = set(sieve.kinds) if sieve.here is None and cap is None else set()
    runs: list[Run] = []
    fitting = 0
    for lane in sieve.lanes:
        firsts, count = _firsts(sieve, lane, members, ceiling)
        fitting += count
        start = sieve.block.lanes[lane].start
        local = None if sieve.here is None else sieve.here[lane]
        for micro_usd, kind in firsts:
            rows: Sequence[int] = range(start[kind], start[kind + 1]) if local is None else local[kind]
            runs.append(Run(micro_usd, preference, wish, block, lane, kind, rows))
    return (runs, fitting) if cap is None else _within_cap(sieve, runs, cap)


def _firsts(
    sieve: Sieve, lane: int, members: set[int], ceiling: Ceiling
) -> tuple[list[tuple[int, int]], int]:
    """Kinds with rows in the lane and the prices of their first; how many rows they have in all."""
    block, kinds, cap = sieve.block, sieve.kinds, sieve.wish.max_hourly_micro_usd
    columns = block.lanes[lane]
    start, price = columns.start, columns.price
    if sieve.here is None:
        count = sum(map(block.counts(lane).__getitem__, kinds))
        if cap is None:
            return _cheapest_kinds(block, lane, members, ceiling), count
        return [(price[start[kind]], kind) for kind in kinds if start[kind] < start[kind + 1]], count
    local = sieve.here[lane]
    here = [kind for kind in kinds if kind in local]
    count = sum([len(local[kind]) for kind in here])
    firsts = [(price[local[kind][0]], kind) for kind in here]
    if cap is None:
        dearest = ceiling.price
        firsts = sorted([pair for pair in firsts if pair[0] <= dearest] or sorted(firsts)[:1])
        for first, _ in firsts[: ceiling.limit]:
            ceiling.add(first)
        firsts = firsts[: max(1, bisect_right(firsts, ceiling.price, key=_first))]
    return firsts, count


def _first(pair: tuple[int, int]) -> int:
    return pair[0]


def _cheapest_kinds(block: Block, lane: int, members: set[int], ceiling: Ceiling) -> list[tuple[int, int]]:
    """Kinds of `members`, cheapest first, until they are dearer than the ceiling; with their prices."""
    columns = block.lanes[lane]
    start, price = columns.start, columns.price
    found: list[tuple[int, int]] = []
    for kind in block.in_lane(lane)[0]:
        if kind in members:
            first = price[start[kind]]
            if found and first > ceiling.price:  # the cheapest is always kept: a provider's best is told
                break
            ceiling.add(first)
            found.append((first, kind))
    return found


def _within_cap(sieve: Sieve, runs: list[Run], cap: int) -> tuple[list[Run], int]:
    cap_each = cap // sieve.num_nodes
    within: list[Run] = []
    cheapest: int | None = None
    for run in runs:
        price = sieve.block.lanes[run.lane].price
        if price[run.rows[-1]] <= cap_each:
            within.append(run)
            continue
        cheapest = run.price if cheapest is None else min(cheapest, run.price)
        rows = run.rows[: bisect_right(run.rows, cap_each, key=price.__getitem__)]
        if rows:
            within.append(run._replace(rows=rows))
    if cheapest is not None:
        none_fits = cheapest > cap_each
        has = f"cheapest is {render_price(cheapest * sieve.num_nodes)}/h" if none_fits else "some cost more"
        near = FAR - cheapest if none_fits else 0
        sieve.told.add(sieve.name, "price-cap", f"{has}, cap is {render_price(cap)}/h", near)
    sieve.told.keep("price-cap", len({run.kind for run in within}))
    return within, sum([len(run.rows) for run in within])

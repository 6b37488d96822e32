"""The constraints of a wish, each stated once: when it applies, how one offer is tested, how all offers of a
provider are tested in columns, and how it is relaxed.

`choose.refuse` (one offer), `market.rank` (columns), `impossible.relaxations` (what to drop) and what people
read about refusals are loops over this table, in its order.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Final, NamedTuple

from msgspec.structs import replace

from argosy.model.areas import Atlas
from argosy.model.offer import BUSY, Capacity, Offer
from argosy.model.resources import LocalDisk, Networking, Resources, serves
from argosy.model.units import many, render_bytes, render_disk, render_milli, render_price
from argosy.planning import named, sieve
from argosy.planning.ability import Ability, Usage
from argosy.planning.places import INFRA, PLACES, PlaceConstraint, Relaxed, Spot, dropped, nothing


class Case(NamedTuple):
    """One offer, tested for one wish."""

    wish: Resources
    num_nodes: int
    offer: Offer
    ability: Ability
    usage: Usage | None  # None: what is free at present does not matter

    @property
    def owned(self) -> bool:
        return self.offer.capacity is Capacity.OWNED


class Constraint(NamedTuple):
    """About the machine, its price, or whether it is there at present."""

    code: str
    asked: Callable[[Resources, int], bool]  # of the wish and the number of nodes
    refuse: Callable[[Case], str]  # why the offer will not do; "" when it will
    keep: Callable[[sieve.Sieve], None] | None  # the same in columns; None: priced offers always meet it
    relax: Callable[[Resources], Iterator[Relaxed]] = nothing


# --- machines ----------------------------------------------------------------------------------------


def machines_in(offer: Offer) -> int:
    """How many machines an owned offer stands for: its nodes share them."""
    return offer.nodes_max if offer.nodes_max is not None else 1


def _gang_fits(case: Case, each: int, shape: int, amount: named.Amount) -> bool:
    """Whether all nodes of `each` fit into the machines of an owned offer, of which one has `shape` (of
    different ones `amount` tells what a machine has); of others, into a node."""
    if not case.owned:
        return each <= shape
    if case.offer.machines:
        return named.gang_fits(case.offer, case.wish, case.num_nodes, each, amount)
    return not each or shape // each * machines_in(case.offer) >= case.num_nodes


def _for_each(case: Case) -> str:
    """Owned offers describe the whole machine, so a text says for how many nodes."""
    return f" for each of {case.num_nodes} nodes" if case.owned and case.num_nodes > 1 else ""


def _refuse_spot(case: Case) -> str:
    wanted, spot = case.wish.use_spot, case.offer.capacity is Capacity.SPOT
    if wanted and not case.ability.spot:
        return "has no spot capacity"
    if case.ability.owned or wanted == spot:
        return ""
    return "is spot" if spot else "is not spot"


def _refuse_arch(case: Case) -> str:
    """Owned machines are what they are: only a wish that says so rules them out."""
    wanted, has = case.wish.arch_wanted(), case.offer.shape.arch
    if wanted == has or (case.owned and not case.wish.arch):
        return ""
    return f"has {has} processors, asked for {wanted}"


def _refuse_accelerator(case: Case) -> str:
    wish, shape = case.wish.accelerator, case.offer.shape
    assert wish is not None
    if not shape.accelerators_milli or shape.accelerator is None:
        return f"has no accelerator, asked for {wish.render()}"
    if wish.model is not None and not serves(shape.accelerator, wish.model):
        return f"has {shape.accelerator}, asked for {wish.model}"
    facts = case.offer.facts
    makers = {each.vendor for each in facts.devices if each.model == shape.accelerator} if facts else set()
    if wish.vendor and any(makers) and wish.vendor not in makers:
        return f"has {shape.accelerator} of {', '.join(sorted(makers))}, asked for {wish.vendor}"
    return ""


def _refuse_accelerator_memory(case: Case) -> str:
    wish, shape = case.wish.accelerator, case.offer.shape
    assert wish is not None
    if wish.memory_min_bytes <= shape.accelerator_memory_bytes:
        return ""
    has, asked = render_bytes(shape.accelerator_memory_bytes), render_bytes(wish.memory_min_bytes)
    return f"{shape.accelerator} has {has}, asked for {asked}"


def _as_sold(case: Case) -> bool:
    """Some clouds sell machines with just that number, or with that part of a device."""
    wish = case.wish.accelerator
    return wish is not None and not case.owned and wish.milli == case.offer.shape.accelerators_milli


def _refuse_fraction(case: Case) -> str:
    wish = case.wish.accelerator
    if wish is None or not wish.is_fraction or _as_sold(case):
        return ""
    in_parts = case.owned or case.offer.divisible  # elsewhere a machine is rented as a whole
    if in_parts and not case.ability.fractions and not case.offer.parts:
        return "gives whole accelerators only"
    if wish.milli > 1000:
        return f"{render_milli(wish.milli)} accelerators: a share is below 1, more are whole numbers"
    return ""


def _refuse_count(case: Case) -> str:
    wish, shape = case.wish.accelerator, case.offer.shape
    assert wish is not None
    asked = f"asked for {render_milli(wish.milli)}"
    if case.offer.divisible and wish.milli <= shape.accelerators_milli:
        return ""
    if case.owned:
        if _gang_fits(case, wish.milli, shape.accelerators_milli, named.devices_of(shape.accelerator)):
            return ""
        if case.offer.machines:
            what = f"{render_milli(wish.milli)} {shape.accelerator}"
            return named.too_few(case.offer, case.wish, case.num_nodes, wish.milli, what,
                                 named.devices_of(shape.accelerator), render_milli)  # fmt: skip
        return f"has {render_milli(shape.accelerators_milli)} {shape.accelerator}, {asked}{_for_each(case)}"
    if _as_sold(case) or (wish.is_fraction and wish.milli <= shape.accelerators_milli):
        return ""  # a machine is rented as a whole: a task gets its fraction of it
    return f"has {render_milli(shape.accelerators_milli)} per node, {asked}"


def _refuse_slice(case: Case) -> str:
    return sieve.lacks_nodes(case.offer.shape.accelerator, case.num_nodes)


def _relax_accelerator(wish: Resources) -> Iterator[Relaxed]:
    asked = wish.accelerator
    if asked is None:
        return
    if asked.memory_min_bytes:
        yield Relaxed(
            f"the accelerator memory of {render_bytes(asked.memory_min_bytes)}",
            replace(wish, accelerator=replace(asked, memory_min_bytes=0)),
        )
    yield Relaxed(f"`accelerators: {asked.render()}`", replace(wish, accelerator=None))


def _refuse_cpus(case: Case) -> str:
    bound, has = case.wish.cpus, case.offer.shape.cpus_milli
    assert bound is not None
    parts = case.owned or case.offer.divisible
    if _gang_fits(case, bound.amount, has, named.cpus) if parts else bound.holds(has):
        return ""
    if case.offer.machines:
        what = f"{render_milli(bound.amount)} CPUs"
        return named.too_few(case.offer, case.wish, case.num_nodes, bound.amount, what,
                             named.cpus, render_milli)  # fmt: skip
    return f"has {render_milli(has)} CPUs, asked for {render_milli(bound.amount)}{_for_each(case)}"


def _relax_cpus(wish: Resources) -> Iterator[Relaxed]:
    if wish.cpus is not None:
        plus = "" if wish.cpus.exact else "+"
        yield Relaxed(f"`cpus: {render_milli(wish.cpus.amount)}{plus}`", replace(wish, cpus=None))


def _refuse_memory(case: Case) -> str:
    wish, shape = case.wish, case.offer.shape
    memory = wish.memory_for(wish.cpus.amount if wish.cpus else shape.cpus_milli)
    exact = wish.memory is not None and wish.memory.exact and not (case.owned or case.offer.divisible)
    if not memory or (
        memory == shape.memory_bytes if exact else _gang_fits(case, memory, shape.memory_bytes, named.memory)
    ):
        return ""
    if case.offer.machines:
        what = f"{render_bytes(memory)} of memory"
        return named.too_few(case.offer, wish, case.num_nodes, memory, what,
                             named.memory, render_bytes)  # fmt: skip
    has = render_bytes(shape.memory_bytes)
    return f"has {has} of memory, asked for {render_bytes(memory)}{_for_each(case)}"


def _relax_memory(wish: Resources) -> Iterator[Relaxed]:
    if wish.memory is not None:
        plus = "" if wish.memory.exact else "+"
        yield Relaxed(f"the memory of {render_bytes(wish.memory.amount)}{plus}", replace(wish, memory=None))
    if wish.memory_per_cpu_bytes:
        each = render_bytes(wish.memory_per_cpu_bytes)
        yield Relaxed(f"the memory of {each} per CPU", replace(wish, memory_per_cpu_bytes=0))


def lacks_disk(disk: LocalDisk, num_nodes: int, offer: Offer) -> str:
    """What an offer lacks for nodes with this local disk, as a clause; "" when it has it.

    On owned machines it is the free room of their disk, and an exact size is a least one, as for memory.
    """
    have, owned = offer.shape.disk_bytes, offer.capacity is Capacity.OWNED
    if have <= 0:
        return f"has no local disk that is known, asked for {disk.render()}"
    case = Case(Resources(), num_nodes, offer, Ability(), Usage())
    if _gang_fits(case, disk.bound.amount, have, named.disk) if owned else disk.bound.holds(have):
        return ""
    return f"has {render_disk(have)} of {'free' if owned else 'local'} disk, asked for {disk.render()}"


def _refuse_local_disk(case: Case) -> str:
    assert case.wish.node_disk is not None
    lacking = lacks_disk(case.wish.node_disk, case.num_nodes, case.offer)
    return lacking + _for_each(case) if lacking else ""


def _refuse_disk_size(case: Case) -> str:
    """Disks of other places are made as large as they are asked for."""
    asked, has = case.wish.disk_size_bytes, case.offer.shape.disk_bytes
    if not case.owned or asked <= has or has <= 0:
        return ""
    return f"has {render_bytes(has)} of free disk, asked for {render_bytes(asked)}"


def _refuse_price(case: Case) -> str:
    price, cap = case.offer.price_micro_usd * case.num_nodes, case.wish.max_hourly_micro_usd
    if cap is None or price <= cap:
        return ""
    return f"costs {render_price(price)}/h, cap is {render_price(cap)}/h"


def _refuse_capacity(case: Case) -> str:
    if case.offer.closed:
        return case.offer.closed
    most = case.offer.nodes_max
    if case.offer.machines:
        return named.not_together(case.offer, case.wish, case.num_nodes)
    if case.owned or most is None or case.num_nodes <= most:
        return ""
    return f"has {many(most, 'node')} at present, asked for {case.num_nodes}"


def _refuse_busy(case: Case) -> str:
    """Whether what is asked for exists here but is held by others at present."""
    if not case.owned or case.usage is None:
        return ""
    wish, shape, usage, nodes = case.wish, case.offer.shape, case.usage, case.num_nodes
    if case.offer.machines:
        return named.waits_for(case.offer, wish, nodes, usage)
    cpus = wish.cpus.amount if wish.cpus else 0
    unit = "CPU" if cpus * nodes == 1000 else "CPUs"
    milli = wish.accelerator.milli if wish.accelerator else 0
    wants = (
        (cpus, usage.cpus_milli, shape.cpus_milli, unit, render_milli),
        (wish.memory_for(cpus), usage.memory_bytes, shape.memory_bytes, "of memory", render_bytes),
        (milli, usage.accelerators_milli, shape.accelerators_milli, shape.accelerator or "", render_milli),
    )
    for each, used, has, unit, render in wants:
        want, total = each * nodes, has * machines_in(case.offer)
        if want and want + used > total:
            by = ", ".join(sorted(set(usage.holders))[:3])
            return f"waits for {render(want)} {unit}: {render(used)} of {render(total)} in use by {by}"
    return ""


def _refuse_apart(case: Case) -> str:
    """Whether there are as many different machines as nodes, where each node is one."""
    if not case.offer.machines or case.num_nodes <= (
        has := len(case.offer.machines_for(case.wish.infra.zone))
    ):
        return ""
    machines = "1 machine" if has == 1 else f"{has} machines"
    return f"has {machines}, asked for {many(case.num_nodes, 'node')}, each on a machine of its own"


def _refuse_number(ability: Ability, num_nodes: int) -> str:
    if ability.nodes_max is None or num_nodes <= ability.nodes_max:
        return ""
    limit = ability.nodes_text or f"gives at most {many(ability.nodes_max, 'node')} at once"
    return f"{limit}, asked for {num_nodes}"


def _of_provider(
    code: str,
    asked: Callable[[Resources, int], bool],
    why: Callable[[Ability, int], str],
    relax: Callable[[Resources], Iterator[Relaxed]] = nothing,
) -> Constraint:
    """A constraint that a provider meets as a whole, or not at all."""

    def keep(left: sieve.Sieve) -> None:
        if text := why(left.ability, left.num_nodes):
            left.keep_none(code, text)

    return Constraint(code, asked, lambda case: why(case.ability, case.num_nodes), keep, relax)


def _always(wish: Resources, num_nodes: int) -> bool:
    return True


def _wants_accelerator(wish: Resources, num_nodes: int) -> bool:
    return wish.accelerator is not None


MACHINES: Final = (
    Constraint("nodes", lambda _, num_nodes: num_nodes > 1, _refuse_apart, None),
    Constraint(
        "excluded",
        lambda wish, _: any(each.instance_type or each.accelerator for each in wish.excluded),
        lambda case: (
            f"`not` rules out {case.offer.shape.instance_type or case.offer.shape.accelerator}"
            if case.wish.excludes_kind(
                case.offer.shape.instance_type, case.offer.shape.accelerator or "", case.offer.provider
            )
            else ""
        ),
        sieve.keep_not_excluded,
    ),
    Constraint(
        "instance-type",
        lambda wish, _: bool(wish.instance_type),
        lambda case: (
            ""
            if case.wish.instance_type == case.offer.shape.instance_type
            else f"has no instance type {case.wish.instance_type}"
        ),
        sieve.keep_instance_type,
        dropped(lambda wish: f"`instance_type: {wish.instance_type}`", instance_type=None),
    ),
    Constraint(
        "spot",
        lambda wish, _: wish.use_spot is not None,
        _refuse_spot,
        sieve.keep_lanes,
        dropped(lambda wish: f"`use_spot: {str(wish.use_spot).lower()}`", use_spot=None),
    ),
    _of_provider(
        "multi-node",
        lambda _, num_nodes: num_nodes > 1,
        lambda ability, num_nodes: "" if ability.multi_node else f"cannot give {num_nodes} nodes at once",
    ),
    _of_provider("nodes", _always, _refuse_number),
    _of_provider(
        "image",
        lambda wish, _: bool(wish.image_id) and not wish.machine_image,
        lambda ability, _: (
            "" if ability.images else "runs programs on the machine itself: it has no images yet"
        ),
        dropped(lambda wish: f"`image_id: {wish.image_id}`", image_id=None),
    ),
    _of_provider(
        "image",
        lambda wish, _: bool(wish.image_id) and wish.machine_image,
        lambda ability, _: "" if ability.machine_images else "has no machine images to choose from",
        dropped(lambda wish: f"`image_id: {wish.image_id}`", image_id=None),
    ),
    _of_provider(
        "network",
        lambda wish, _: wish.networking != Networking(),
        lambda ability, _: "" if ability.networks else "has no networks to choose from",
        dropped(lambda wish: "`networking`", networking=Networking()),
    ),
    Constraint(
        "accelerator", _wants_accelerator, _refuse_accelerator, sieve.keep_accelerator, _relax_accelerator
    ),
    # The columnar test of the accelerator is one pass over the few kinds that have the model.
    Constraint("accelerator-memory", _wants_accelerator, _refuse_accelerator_memory, None),
    Constraint("fraction", _wants_accelerator, _refuse_fraction, None),
    Constraint("accelerator", _wants_accelerator, _refuse_count, None),
    Constraint("slice", _always, _refuse_slice, sieve.keep_slices),
    Constraint(
        "arch",
        lambda wish, _: wish.arch_wanted() != "",
        _refuse_arch,
        sieve.keep_arch,
        dropped(lambda wish: f"`arch: {wish.arch_wanted()}`", arch="any"),
    ),
    Constraint("cpus", lambda wish, _: wish.cpus is not None, _refuse_cpus, sieve.keep_cpus, _relax_cpus),
    Constraint(
        "memory",
        lambda wish, _: wish.memory is not None or wish.memory_per_cpu_bytes > 0,
        _refuse_memory,
        sieve.keep_memory,
        _relax_memory,
    ),
    Constraint(
        "local-disk",
        lambda wish, _: wish.node_disk is not None,
        _refuse_local_disk,
        sieve.keep_local_disk,
        dropped(
            lambda wish: f"`local_disk: {wish.node_disk.render() if wish.node_disk else ''}`", node_disk=None
        ),
    ),
    Constraint(
        "disk",
        lambda wish, _: wish.disk_size_bytes > 0,
        _refuse_disk_size,
        None,
        dropped(lambda wish: f"`disk_size` of {render_bytes(wish.disk_size_bytes)}", disk_size_bytes=0),
    ),
    Constraint(
        "price-cap",
        lambda wish, _: wish.max_hourly_micro_usd is not None,
        _refuse_price,
        None,  # rows, not kinds, have prices: `sieve.runs_of`
        dropped(
            lambda wish: f"`max_hourly_cost: {(wish.max_hourly_micro_usd or 0) / 1e6:g}`",
            max_hourly_micro_usd=None,
        ),
    ),
    Constraint("capacity", _always, _refuse_capacity, None),
    Constraint(BUSY, _always, _refuse_busy, None),
)


# --- loops over the table ----------------------------------------------------------------------------


class Applied:
    """The constraints that one wish has, so that many offers are tested by these alone."""

    __slots__ = ("machines", "num_nodes", "places", "wish")

    def __init__(self, wish: Resources, num_nodes: int) -> None:
        self.wish, self.num_nodes = wish, num_nodes
        self.places = tuple(each for each in PLACES if each.asked(wish))
        self.machines = tuple(each for each in MACHINES if each.asked(wish, num_nodes))

    def sift(self, left: sieve.Sieve) -> None:
        """Leave in a sieve what meets all constraints but the price: first places, then machines."""
        places = [each for each in self.places if each is not INFRA]
        if places or left.allowed is not None:
            here: Sequence[int] = range(len(left.block.places))
            for place in places:
                here = self._keep_places(place, left, here)
            if left.allowed is not None:
                here = left.keep_allowed(here)
            left.in_places(here)
        for each in self.machines:
            if each.keep is not None:
                each.keep(left)

    def _keep_places(
        self, constraint: PlaceConstraint, left: sieve.Sieve, here: Sequence[int]
    ) -> Sequence[int]:
        places, name, atlas = left.block.places, left.name, left.atlas or {}

        def why(index: int) -> str:
            region, zone = places[index]
            spot = Spot(name, region, zone, not zone, atlas.get((name, region)))
            return constraint.refuse(self.wish, spot)

        if constraint.keep is not None:
            kept = constraint.keep(self.wish, places, here)
            if len(kept) < len(here):
                fallen = next(index for index in here if index not in frozenset(kept))
                left.told.add(name, constraint.code, why(fallen))
            return kept
        texts = [(index, why(index)) for index in here]
        for _, text in texts:
            if text:
                left.told.add(name, constraint.code, text, near=0)
        return [index for index, text in texts if not text]

    def refuse_place(
        self, provider: str, region: str, zone: str, anywhere: bool, atlas: Atlas | None
    ) -> tuple[str, str] | None:
        """Code and text of the first constraint that a place does not meet."""
        spot = Spot(provider, region, zone, anywhere, (atlas or {}).get((provider, region)))
        for each in self.places:
            if text := each.refuse(self.wish, spot):
                return each.code, text
        return None

    def refuse(
        self, offer: Offer, ability: Ability, usage: Usage | None, atlas: Atlas | None = None
    ) -> tuple[str, str] | None:
        """Code and text of the first constraint that an offer does not meet; `busy` is the last."""
        if self.places:
            anywhere = not offer.zone and (
                offer.capacity is not Capacity.OWNED or bool(offer.machines_for(self.wish.infra.zone))
            )
            refused = self.refuse_place(offer.provider, offer.region, offer.zone, anywhere, atlas)
            if refused is not None:
                return refused
        case = Case(self.wish, self.num_nodes, offer, ability, usage)
        for each in self.machines:
            if text := each.refuse(case):
                return each.code, text
        return None


def relaxations(wish: Resources, *, spot_was_asked: bool = True) -> Iterator[Relaxed]:
    """Every constraint of the wish, dropped alone. `spot_was_asked` False: its `use_spot` is not the
    user's."""
    for place in PLACES:
        if place.asked(wish):
            yield from place.relax(wish)
    for each in MACHINES:
        if each.asked(wish, 1) and (each.code != "spot" or spot_was_asked):
            yield from each.relax(wish)

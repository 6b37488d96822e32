"""Devices of one machine: which of them a need may use, who may share one with whom, parts of cards, sets
that are well linked.

A `Kind` is what machines of one sort have in common; a `Way` is how a need is met on a kind, or why it never
is; a `Room` is what is free on one machine at one time, and never changes: a take makes another one. That
makes copies, what-ifs and memos cheap.

Who shares a device. Each share is kept with its mechanism, its tenant and whether it is open to others;
together they are the `Lock` of the device. A need joins a device when the mechanism agrees and either all
shares are of its tenant or all of them and itself are open.

    isolation   fraction of a device gets
    none        its turns ("": nothing is enforced), or a place among MPS clients where those are already
    memory      an MPS client with a limit of memory and of compute
    hardware    a MIG instance: one that exists, or the smallest profile that covers it on a card that holds
    nothing else
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache
from itertools import combinations
from typing import Final, NamedTuple

import msgspec

from argosy.model.device_memory import sold_memory
from argosy.model.facts import Device
from argosy.model.offer import DeviceShare
from argosy.model.resources import serves
from argosy.model.scheduling import Isolation
from argosy.scheduler.ask import WHOLE_MILLI, Machine, Need

MPS_STEP_MILLI: Final = 10  # an active-thread percentage is a whole number

Lock = tuple[str, str | None, bool]  # mechanism, the only tenant (None: several), all shares are open
Use = tuple[
    int, int, str, str, bool, int
]  # milli, memory in bytes, mechanism, tenant, open, MIG slices as bits


class Profile(NamedTuple):
    """A MIG instance profile: compute slices of 7 (A30: of 4), memory slices, and where its first memory
    slice may lie."""

    name: str
    compute: int
    slices: int
    starts: tuple[int, ...]


def _seven(*names: str) -> tuple[Profile, ...]:
    """Cards with seven compute and eight memory slices."""
    one, double, two, three, four, seven = names
    return (
        Profile(one, 1, 1, (0, 1, 2, 3, 4, 5, 6)),
        Profile(double, 1, 2, (0, 2, 4, 6)),
        Profile(two, 2, 2, (0, 2, 4)),
        Profile(three, 3, 4, (0, 4)),
        Profile(four, 4, 4, (0,)),
        Profile(seven, 7, 8, (0,)),
    )


#: Profiles by model and memory in GiB, at most so much. Source: NVIDIA Multi-Instance GPU User Guide,
#: "Supported MIG profiles".
MIG_CARDS: Final[tuple[tuple[str, int, int, tuple[Profile, ...]], ...]] = (
    (
        "A30",
        24,
        4,
        (
            Profile("1g.6gb", 1, 1, (0, 1, 2, 3)),
            Profile("2g.12gb", 2, 2, (0, 2)),
            Profile("4g.24gb", 4, 4, (0,)),
        ),
    ),
    ("A100", 40, 8, _seven("1g.5gb", "1g.10gb", "2g.10gb", "3g.20gb", "4g.20gb", "7g.40gb")),
    ("A100", 80, 8, _seven("1g.10gb", "1g.20gb", "2g.20gb", "3g.40gb", "4g.40gb", "7g.80gb")),
    ("H100", 80, 8, _seven("1g.10gb", "1g.20gb", "2g.20gb", "3g.40gb", "4g.40gb", "7g.80gb")),
    ("H100", 96, 8, _seven("1g.12gb", "1g.24gb", "2g.24gb", "3g.48gb", "4g.48gb", "7g.96gb")),
    ("H200", 141, 8, _seven("1g.18gb", "1g.35gb", "2g.35gb", "3g.71gb", "4g.71gb", "7g.141gb")),
)


def mig_card(model: str, memory_bytes: int) -> tuple[int, tuple[Profile, ...]] | None:
    """(memory slices, profiles from the smallest) of a card; None when it cannot be divided.

    >>> slices, profiles = mig_card("A100-80GB", 80 << 30)
    >>> slices, profiles[0].name
    (8, '1g.10gb')
    """
    family = model.upper().partition("-")[0]
    rows = [row for row in MIG_CARDS if row[0] == family]
    if not rows:
        return None
    gib = memory_bytes >> 30
    row = next((row for row in rows if gib <= row[1]), rows[-1])
    return row[2], row[3]


def covers(profile: Profile, slices: int, milli: int) -> bool:
    """Whether an instance has that part of a card. Its memory covers it whole; of eight memory slices the
    card has only seven of compute, so that 6/7 of the compute do: else two halves of a card would not fit on
    it."""
    compute = slices - 1 if slices == 8 else slices
    return profile.slices * WHOLE_MILLI >= milli * slices and profile.compute * 7000 >= milli * compute * 6


def smallest(card: tuple[int, tuple[Profile, ...]], milli: int) -> Profile | None:
    """The smallest profile that covers a fraction."""
    return next((each for each in card[1] if covers(each, card[0], milli)), None)


def mig_bits(profile: Profile, start: int) -> int:
    return ((1 << profile.slices) - 1) << start


@lru_cache(maxsize=4096)
def mig_start(card: tuple[int, tuple[Profile, ...]], profile: Profile, taken: int) -> int:
    """Where an instance goes on a card, given the slices that are taken; -1 when nowhere. What leaves most
    places for others, counted by their slices; then the highest slice, since the first ones serve the most
    profiles."""
    best, place = -1, -1
    for start in profile.starts:
        bits = mig_bits(profile, start)
        if taken & bits:
            continue
        left = sum(
            each.slices for each in card[1] for s in each.starts if not (taken | bits) & mig_bits(each, s)
        )
        if left >= best:
            best, place = left, start
    return place


Counting = tuple[
    int, int, tuple[int, ...]
]  # sum of milli that are left, untouched devices, what is left of those in part use


def counting(left: Sequence[int]) -> Counting:
    """What the score wants to know of the devices that count."""
    total = whole = 0
    mixed: tuple[int, ...] = ()
    for each in left:
        if each == WHOLE_MILLI:
            whole += 1
        elif each:
            total += each
            mixed = (*mixed, each)
    return total + whole * WHOLE_MILLI, whole, mixed


class Room(msgspec.Struct, eq=False, gc=False):
    """What is free on a machine. Never changed after it was made, but for its memo."""

    cpus: int  # milli
    memory: int  # bytes
    left: tuple[int, ...]  # milli of each device, by position
    locks: tuple[Lock | None, ...]  # who may join; None: everybody
    uses: tuple[tuple[Use, ...], ...]
    slots: tuple[int, ...]  # MIG slices taken, as bits
    total: int  # see `Counting`
    whole: int
    mixed: tuple[int, ...]
    judge: object = None  # a memo of `plain.Typical`: who said what it is worth
    before: int = 0


class Way:
    """How a need is met on a kind of machine: the positions of devices that it may use. `why`: a code when it
    never is."""

    __slots__ = (
        "card",
        "count",
        "every",
        "instances",
        "mechanism",
        "milli",
        "positions",
        "profile",
        "text",
        "why",
    )

    def __init__(self, why: str = "", text: str = "") -> None:
        self.why = why
        self.text = text
        self.count = 0  # whole devices
        self.milli = 0  # of one device, when a fraction
        self.positions: tuple[int, ...] = ()
        self.every = False  # these are all that count
        self.instances: tuple[int, ...] = ()  # MIG instances that cover the fraction, the smallest first
        self.mechanism = ""
        self.card: tuple[int, tuple[Profile, ...]] | None = None  # set: a part of a card that is divided
        self.profile: Profile | None = None


class Kind:
    """What machines of one sort have in common, and how each need is met on them."""

    __slots__ = (
        "counted",
        "devices",
        "empties",
        "id",
        "index_of",
        "machine",
        "models",
        "parents",
        "topology",
        "ways",
    )

    def __init__(self, id: int, machine: Machine) -> None:
        self.id = id
        self.machine = machine  # any of them; its amounts and name mean nothing here
        self.devices = machine.devices
        self.index_of = {device.index: position for position, device in enumerate(machine.devices)}
        self.models = {device.index: device.model for device in machine.devices}
        self.parents = frozenset(d.mig_parent for d in machine.devices if d.mig_profile)
        # Instances and the cards under them are outside of the score: no typical need competes for them.
        self.counted = tuple(
            position
            for position, d in enumerate(machine.devices)
            if not d.mig_profile and d.index not in self.parents
        )
        self.topology = Topology.of(machine.devices)
        self.ways: dict[Need, Way] = {}
        self.empties: dict[tuple[int, int], Room] = {}

    def way(self, need: Need) -> Way:
        found = self.ways.get(need)
        if found is None:
            found = self.ways[need] = self._way(need)
        return found

    def _way(self, need: Need) -> Way:
        machine = self.machine
        refused = refuse(machine, need)
        if refused:
            return Way(*refused)
        way = Way()
        if not need.gpu_milli:
            return way
        if need.gpu_milli > WHOLE_MILLI and need.gpu_milli % WHOLE_MILLI:
            return Way("never", "more than one device is asked for as a whole number")
        fitting = [
            position
            for position, device in enumerate(machine.devices)
            if sold_memory(device.memory_bytes) >= need.gpu_memory_bytes and _of_model(device, need.models)
        ]
        wanted = " or ".join(need.models) or "device"
        if not fitting:
            if any(_of_model(device, need.models) for device in machine.devices):
                return Way("capacity", f"no {wanted} with enough memory")
            return Way("capacity", f"no {wanted}")
        counted = set(self.counted)
        if need.gpu_milli >= WHOLE_MILLI:
            way.count = need.gpu_milli // WHOLE_MILLI
            named = {model.lower() for model in need.models}
            way.positions = tuple(
                p for p in fitting if p in counted or instance_name(machine.devices[p]).lower() in named
            )
            if len(way.positions) < way.count:
                return Way("capacity", f"{len(way.positions)} of {way.count} x {wanted}")
            way.every = way.positions == self.counted
            return way
        shared = [position for position in fitting if not machine.devices[position].whole_only]
        if not shared:
            return Way("isolation", f"a {machine.devices[fitting[0]].model} serves one program at a time")
        fitting = shared
        way.milli = need.gpu_milli
        way.instances = tuple(
            sorted(
                (p for p in fitting if _instance_covers(machine, p, need.gpu_milli)),
                key=lambda p: (machine.devices[p].mig_slots[1], machine.devices[p].memory_bytes, p),
            )
        )
        whole_cards = tuple(p for p in fitting if p in counted)
        if need.isolation == Isolation.HARDWARE:
            return self._divided(need, way, whole_cards)
        if need.isolation == Isolation.MEMORY:
            way.mechanism = "mps"
            if "mps" not in machine.sharing or need.gpu_milli < MPS_STEP_MILLI:
                divided = self._divided(need, way, whole_cards) if "mig" in machine.sharing else way
                if divided.why or divided.profile is not None or divided.instances:
                    return divided
                if "mps" in machine.sharing:
                    return Way("isolation", "a part of a device under MPS is at least 1 %")
                return Way("isolation", "its devices cannot limit memory (no MPS, no MIG)")
        way.positions = whole_cards
        if not way.positions and not way.instances:
            return Way("isolation", f"no MIG instance has {need.gpu_milli / 10:g} % of a card")
        return way

    def _divided(self, need: Need, way: Way, whole_cards: tuple[int, ...]) -> Way:
        """A part that hardware keeps apart."""
        way.mechanism = "mig"
        if "mig" in self.machine.sharing:
            cards: dict[tuple[int, tuple[Profile, ...]], list[int]] = {}
            for position in whole_cards:
                device = self.devices[position]
                card = mig_card(device.model, device.memory_bytes)
                if card is not None:
                    cards.setdefault(card, []).append(position)
            # A machine with two sorts of cards is divided on the sort that has more of them.
            for card, positions in sorted(cards.items(), key=lambda each: (-len(each[1]), each[1])):
                profile = smallest(card, need.gpu_milli)
                if profile is not None:
                    way.card, way.profile, way.positions = card, profile, tuple(positions)
                    return way
        if way.instances:
            return way
        return Way("isolation", "its devices cannot be divided in hardware (no MIG)")

    def empty(self, machine: Machine) -> Room:
        """All of a machine is free. Machines of a kind that have equally much share one room."""
        amounts = machine.cpus_milli, machine.memory_bytes
        found = self.empties.get(amounts)
        if found is None:
            count = len(machine.devices)
            found = self.empties[amounts] = Room(
                *amounts,
                (WHOLE_MILLI,) * count,
                (None,) * count,
                ((),) * count,
                (0,) * count,
                WHOLE_MILLI * len(self.counted),
                len(self.counted),
                (),
            )
        return found


def kind_key(machine: Machine) -> tuple[object, ...]:
    """Machines with equal keys are of one kind."""
    return (
        tuple(
            (
                *(d.index, d.model, d.memory_bytes, d.numa, d.nvlinks, d.whole_only),
                *(d.mig_profile, d.mig_parent, d.mig_slots),
            )
            for d in machine.devices
        ),
        machine.arch,
        machine.labels,
        machine.taints,
        machine.groups,
        machine.sharing,
        machine.open,
    )


def refuse(machine: Machine, need: Need) -> tuple[str, str] | None:
    """(code, text) when no state of its devices matters: the machine is closed, of another arch, group, label
    or taint."""
    if not machine.open:
        return "capacity", "it takes nothing new at present"
    if need.arch and machine.arch and need.arch != machine.arch:
        return "capacity", f"its architecture is {machine.arch}, not {need.arch}"
    if need.only_group and need.only_group not in machine.groups:
        return "group", f"it is not in group {need.only_group}"
    if machine.groups and not need.only_group and not set(machine.groups) & set(need.groups):
        return "group", f"it is kept for group {', '.join(machine.groups)}"
    if need.only and machine.id not in need.only:  # owned machines are each of a kind of their own
        return "capacity", f"its files are on {', '.join(need.only)}"
    missing = [pair for pair in need.labels if pair not in machine.labels]
    if missing:
        return "capacity", "it lacks the label " + ", ".join(f"{key}={value}" for key, value in missing)
    taints = [taint for taint in machine.taints if taint not in need.tolerations]
    if taints:
        return "capacity", f"it has the taint {', '.join(taints)}"
    return None


def instance_name(device: Device) -> str:
    """What a MIG instance is called by those who want exactly it: `H100-1g.10gb`."""
    return f"{device.model}-{device.mig_profile}" if device.mig_profile else device.model


def _of_model(device: Device, models: Sequence[str]) -> bool:
    return not models or any(
        serves(device.model, each) or each.lower() == instance_name(device).lower() for each in models
    )


def instance_milli(device: Device, parent: Device | None) -> int:
    """Which part of its card a MIG instance is, by its memory slices."""
    card = mig_card(device.model, parent.memory_bytes if parent else device.memory_bytes)
    slices = card[0] if card else 8
    return device.mig_slots[1] * WHOLE_MILLI // slices


def _instance_covers(machine: Machine, position: int, milli: int) -> bool:
    device = machine.devices[position]
    if not device.mig_profile:
        return False
    compute = device.mig_profile.partition("g.")[0]
    of_four = device.model.upper().startswith("A30")
    profile = Profile(device.mig_profile, int(compute) if compute.isdigit() else 0, device.mig_slots[1], ())
    return covers(profile, 4 if of_four else 8, milli)


def may_join(lock: Lock | None, mechanism: str, milli: int, tenant: str, shared: bool) -> bool:
    """Whether a fraction may go where others are. Turns join MPS clients (they are kept apart better than
    asked), not the reverse."""
    if lock is None:
        return True
    there, owner, all_open = lock
    if there != mechanism and not (mechanism == "" and there == "mps" and milli >= MPS_STEP_MILLI):
        return False
    return owner == tenant or (all_open and shared)


def lock_of(uses: tuple[Use, ...]) -> Lock | None:
    if not uses:
        return None
    first = uses[0]
    if len(uses) == 1:
        return first[2], first[3], first[4]
    tenants = {use[3] for use in uses}
    return first[2], first[3] if len(tenants) == 1 else None, all(use[4] for use in uses)


class Topology:
    """Links between the devices of a machine: for each pair 64 x its NVLinks, and 1 when on one NUMA node.
    Both sums show in one number because 8 devices have 28 pairs. (The PCIe switch is not reported; NUMA
    stands for it.)"""

    __slots__ = ("flat", "islands", "numa", "weights")

    def __init__(self, weights: tuple[tuple[int, ...], ...], numa: tuple[int, ...]) -> None:
        self.weights = weights
        self.numa = numa
        self.flat = len({w for i, row in enumerate(weights) for j, w in enumerate(row) if i != j}) <= 1
        self.islands = _islands(weights)

    @classmethod
    def of(cls, devices: Sequence[Device]) -> Topology:
        weights = tuple(
            tuple(_link(a, b, position) if a is not b else 0 for position, b in enumerate(devices))
            for a in devices
        )
        return cls(weights, tuple(device.numa for device in devices))

    def links(self, chosen: Sequence[int]) -> int:
        return sum(self.weights[a][b] for a, b in combinations(chosen, 2))

    def best(self, free: tuple[int, ...], count: int) -> tuple[int, ...]:
        """`count` of the free positions: the best linked; then what leaves the largest islands; then the
        lowest."""
        if count >= len(free) or self.flat:
            return free[:count]
        return _best_set(self, free, count)


def _link(a: Device, b: Device, position: int) -> int:
    links = a.nvlinks[b.index] if b.index < len(a.nvlinks) else 0
    return 64 * links + (a.numa == b.numa and a.numa >= 0)


def _islands(weights: tuple[tuple[int, ...], ...]) -> tuple[int, ...]:
    """The number of its NVLink island for each device."""
    island = list(range(len(weights)))
    for a, row in enumerate(weights):
        for b, weight in enumerate(row):
            if weight >= 64 and island[a] != island[b]:
                old, new = max(island[a], island[b]), min(island[a], island[b])
                island = [new if each == old else each for each in island]
    return tuple(island)


SETS_MAX: Final = 20_000  # of devices that are compared; beyond, sets grow by one device at a time


@lru_cache(maxsize=65_536)
def _best_set(topology: Topology, free: tuple[int, ...], count: int) -> tuple[int, ...]:
    total = 1
    for step in range(count):
        total = total * (len(free) - step) // (step + 1)
    if total > SETS_MAX:
        chosen = [free[0]]
        while len(chosen) < count:
            chosen.append(
                max(
                    (p for p in free if p not in chosen),
                    key=lambda p: (sum(topology.weights[p][c] for c in chosen), -p),
                )
            )
        return tuple(sorted(chosen))

    def worth(chosen: tuple[int, ...]) -> tuple[int, int, int, int]:
        rest = [p for p in free if p not in chosen]
        islands = [topology.islands[p] for p in rest]
        sockets = [topology.numa[p] for p in rest]
        return (
            topology.links(chosen),
            max((islands.count(each) for each in islands), default=0),
            max((sockets.count(each) for each in sockets), default=0),
            topology.links(rest),
        )

    return max(combinations(free, count), key=worth)  # the first of equals: the lowest positions


def use_of(share: DeviceShare, kind: Kind, position: int, need: Need) -> Use:
    bits = 0
    device = kind.devices[position]
    if share.mechanism == "mig" and not device.mig_profile:
        card = mig_card(device.model, device.memory_bytes)
        profile = next((p for p in card[1] if p.name == share.profile), None) if card else None
        bits = mig_bits(profile, share.slot) if profile and share.slot >= 0 else (1 << 8) - 1
    return share.milli, share.memory_bytes, share.mechanism, need.tenant, need.open, bits

"""Which rank goes to which node of a pool, and which devices it gets: in order, gangs all or none.

The pool is the nodes that many jobs share: a cluster's nodes. Strict order now: the first job that does not fit
holds back those behind it. The interface is the one that the pool scheduler keeps.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from typing import NamedTuple

import msgspec

from argosy.model.offer import DeviceShare, Placement
from argosy.model.resources import Accelerator
from argosy.model.rows import Attempt, Node
from argosy.model.task import Task

WHOLE_MILLI = 1000
DEFAULT_CPUS_MILLI = 500  # of a job that names no number: jobs run side by side by default


class Ask(msgspec.Struct, frozen=True, kw_only=True):
    """What each of `num_nodes` ranks needs."""

    id: str
    num_nodes: int = 1
    cpus_milli: int = DEFAULT_CPUS_MILLI
    memory_bytes: int = 0
    accelerator: Accelerator | None = None


class DeviceRoom(NamedTuple):
    device: int  # its index on the node
    model: str
    memory_bytes: int
    free_milli: int
    numa: int


class Room(msgspec.Struct, frozen=True, kw_only=True):
    """What is free on one node."""

    node_id: str
    index: int
    cpus_milli: int
    memory_bytes: int
    devices: tuple[DeviceRoom, ...] = ()


class Placed(NamedTuple):
    ask: Ask
    placements: tuple[Placement, ...]


class Shortage(NamedTuple):
    """Why an ask does not fit: the first resource that is short."""

    ask: Ask
    what: str  # nodes | accelerator | memory | cpus


def ask_of(job_id: str, task: Task) -> Ask:
    """What a job asks of the nodes of its cluster: its first candidate's numbers."""
    wish = task.resources[0]
    cpus = wish.cpus.amount if wish.cpus else DEFAULT_CPUS_MILLI
    memory = wish.memory.amount if wish.memory else wish.memory_per_cpu_bytes * cpus // 1000
    return Ask(
        id=job_id,
        num_nodes=task.num_nodes,
        cpus_milli=cpus,
        memory_bytes=memory,
        accelerator=wish.accelerator,
    )


def rooms(nodes: Iterable[Node], attempts: Iterable[Attempt]) -> list[Room]:
    """What is free on each node after what live attempts hold, by index."""
    held_cpus: dict[str, int] = {}
    held_memory: dict[str, int] = {}
    held_devices: dict[tuple[str, int], int] = {}
    for attempt in attempts:
        for placement in attempt.placements:
            node_id = placement.node_id
            held_cpus[node_id] = held_cpus.get(node_id, 0) + placement.cpus_milli
            held_memory[node_id] = held_memory.get(node_id, 0) + placement.memory_bytes
            for share in placement.devices:
                held_devices[node_id, share.index] = held_devices.get((node_id, share.index), 0) + share.milli
    result = []
    for node in sorted(nodes, key=lambda each: each.index):
        own = set(node.devices)
        devices = tuple(
            DeviceRoom(
                d.index,
                d.model,
                d.memory_bytes,
                WHOLE_MILLI - held_devices.get((node.id, d.index), 0),
                d.numa,
            )
            for d in node.facts.devices
            if d.index in own
        )
        result.append(
            Room(
                node_id=node.id,
                index=node.index,
                cpus_milli=node.cpus_milli - held_cpus.get(node.id, 0),
                memory_bytes=node.memory_bytes - held_memory.get(node.id, 0),
                devices=devices,
            )
        )
    return result


def place(pool: Sequence[Room], asks: Iterable[Ask]) -> Iterator[Placed | Shortage]:
    """Place asks in order until one does not fit; yields each placement, then the shortage that stopped it.

    Lazy: a queue of thousands costs only as much as fits.
    """
    free = {room.node_id: room for room in pool}
    for ask in asks:
        chosen = _fit(list(free.values()), ask)
        if chosen is None:
            yield find_shortage(list(free.values()), ask)
            return
        for placement in chosen:
            free[placement.node_id] = _take(free[placement.node_id], placement)
        yield Placed(ask, tuple(chosen))


def never_fits(nodes: Sequence[Node], ask: Ask) -> Shortage | None:
    """What is short for `ask` even when every node is empty; None when it fits then."""
    empty = rooms(nodes, ())
    return None if _fit(empty, ask) is not None else find_shortage(empty, ask)


def _fit(free: Sequence[Room], ask: Ask) -> list[Placement] | None:
    placements: list[Placement] = []
    for room in free:
        if room.cpus_milli < ask.cpus_milli or room.memory_bytes < ask.memory_bytes:
            continue
        devices = pick_devices(room.devices, ask.accelerator)
        if devices is None:
            continue
        placements.append(
            Placement(
                rank=len(placements),
                node_id=room.node_id,
                cpus_milli=ask.cpus_milli,
                memory_bytes=ask.memory_bytes,
                devices=devices,
            )
        )
        if len(placements) == ask.num_nodes:
            return placements
    return None


def pick_devices(devices: Sequence[DeviceRoom], wish: Accelerator | None) -> tuple[DeviceShare, ...] | None:
    """Devices for one rank, or None. A fraction goes to the fullest device that still has room, so that whole devices
    stay whole; whole devices come from one NUMA node when one has enough."""
    if wish is None:
        return ()
    fitting = [
        device
        for device in devices
        if (wish.model is None or device.model.lower() == wish.model.lower())
        and device.memory_bytes >= wish.memory_min_bytes
    ]
    if wish.milli < WHOLE_MILLI:
        shares = [device for device in fitting if device.free_milli >= wish.milli]
        if not shares:
            return None
        best = min(shares, key=lambda device: (device.free_milli, device.device))
        return (DeviceShare(index=best.device, milli=wish.milli),)
    count = wish.milli // WHOLE_MILLI
    whole = [device for device in fitting if device.free_milli == WHOLE_MILLI]
    if len(whole) < count:
        return None
    groups: dict[int, list[DeviceRoom]] = {}
    for device in whole:
        groups.setdefault(device.numa, []).append(device)
    enough = [group for group in groups.values() if len(group) >= count]
    source = min(enough, key=lambda group: (len(group), group[0].device)) if enough else whole
    return tuple(DeviceShare(index=device.device, milli=WHOLE_MILLI) for device in source[:count])


def _take(room: Room, placement: Placement) -> Room:
    taken = {share.index: share.milli for share in placement.devices}
    return Room(
        node_id=room.node_id,
        index=room.index,
        cpus_milli=room.cpus_milli - placement.cpus_milli,
        memory_bytes=room.memory_bytes - placement.memory_bytes,
        devices=tuple(d._replace(free_milli=d.free_milli - taken.get(d.device, 0)) for d in room.devices),
    )


def find_shortage(free: Sequence[Room], ask: Ask) -> Shortage:
    """The first resource of which too few nodes have enough."""
    if len(free) < ask.num_nodes:
        return Shortage(ask, "nodes")
    if sum(pick_devices(room.devices, ask.accelerator) is not None for room in free) < ask.num_nodes:
        return Shortage(ask, "accelerator")
    if sum(room.memory_bytes >= ask.memory_bytes for room in free) < ask.num_nodes:
        return Shortage(ask, "memory")
    return Shortage(ask, "cpus")

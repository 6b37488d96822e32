"""Why something waits, in one line: what it needs, how much there is, and who uses it. Pure.

`Pool.explain` tells the whole story for one that is asked about; a queue is read line by line.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import NamedTuple

from argosy.model.facts import Device
from argosy.model.kinds import kind_of, title
from argosy.model.rows import Workload
from argosy.model.units import render_bytes, render_milli
from argosy.scheduler.ask import WHOLE_MILLI, Ask, Machine, Need, Running, Waiting
from argosy.scheduler.cache import PoolCache
from argosy.scheduler.explain import ordinal
from argosy.scheduler.machines import WITHHELD

_SHORT = ("capacity", "fragmented")  # codes for which amounts and names say more than a sentence
NAMED_MAX = 3
STARTS_NOW = "starts now"
_ABOUT_TO_START = "it is about to be considered"  # as the pool says it


class _Room(NamedTuple):
    """What is left of one machine."""

    cpus_milli: int
    memory_bytes: int
    devices: tuple[int, ...]  # milli of those that suit


class _Scarce(NamedTuple):
    """One resource, of all machines that count."""

    wanted: int  # by each rank
    total: int
    unit: str
    render: Callable[[int], str]
    of: Callable[[Running], int]  # how much of it somebody holds


def one_line(books: PoolCache, ask: Ask, waiting: Waiting, workloads: Mapping[str, Workload]) -> str:
    """`waits for 1 A100: 2 of 2 in use by job 3`, where room is what is missing; else what the pool says."""
    if waiting.code == "order" and _ABOUT_TO_START in waiting.text:
        return STARTS_NOW
    if waiting.code not in _SHORT:
        return waiting.text
    text = _shortage(books, ask, workloads)
    if not text:
        return waiting.text
    return text if waiting.place <= 1 else f"{text}; it is {ordinal(waiting.place)} in queue {ask.queue}"


def name_of(workload: Workload | None, id: str) -> str:
    """As people call it."""
    if workload is None:
        return id
    return workload.name if kind_of(workload).named else title(workload)


def _shortage(books: PoolCache, ask: Ask, workloads: Mapping[str, Workload]) -> str:
    need = ask.needs[0]
    machines = [machine for machine in books.machines.values() if _counts(machine, need)]
    if len(machines) < ask.num_nodes and ask.spread == "node":
        return ""
    scarce = _scarce(books, ask, need, machines)
    held = [
        value
        for id, value in books.known.items()
        if isinstance(value, Running) and not id.startswith(WITHHELD)
    ]
    mine = {machine.id for machine in machines}
    users: dict[str, int] = {}
    for value in held:
        if any(place.node_id in mine for place in value.placements) and (amount := scarce.of(value)):
            users[value.ask.id] = amount
    used = sum(users.values())
    if not users:
        return ""
    each = f" on each of {ask.num_nodes} nodes" if ask.num_nodes > 1 else ""
    names = list(dict.fromkeys(name_of(workloads.get(id), id) for id in sorted(users)))
    more = f" and {len(names) - NAMED_MAX} more" if len(names) > NAMED_MAX else ""
    return (
        f"waits for {scarce.render(scarce.wanted)} {scarce.unit}{each}: {scarce.render(used)} of "
        f"{scarce.render(scarce.total)} in use by {', '.join(names[:NAMED_MAX])}{more}"
    )


def _counts(machine: Machine, need: Need) -> bool:
    return set(need.labels) <= set(machine.labels) and set(machine.taints) <= set(need.tolerations)


def _suits(device: Device, need: Need) -> bool:
    return (not need.models or device.model in need.models) and device.memory_bytes >= need.gpu_memory_bytes


def _scarce(books: PoolCache, ask: Ask, need: Need, machines: Iterable[Machine]) -> _Scarce:
    """The first resource of which too few machines have enough left: accelerators, memory, CPUs."""
    listed = list(machines)
    free = {machine.id: _free(books, machine, need) for machine in listed}
    suited = {
        machine.id: {device.index for device in machine.devices if _suits(device, need)} for machine in listed
    }
    enough_gpus = sum(_gangs(room.devices, need.gpu_milli) for room in free.values())
    if need.gpu_milli and enough_gpus < ask.num_nodes:
        models = sorted({d.model for machine in listed for d in machine.devices if _suits(d, need)})
        return _Scarce(
            need.gpu_milli,
            WHOLE_MILLI * sum(map(len, suited.values())),
            "/".join(models) or "/".join(need.models) or "accelerator",
            render_milli,
            lambda value: sum(
                share.milli
                for place in value.placements
                for share in place.devices
                if share.index in suited.get(place.node_id, ())
            ),
        )
    enough_memory = sum(room.memory_bytes >= need.memory_bytes for room in free.values())
    if need.memory_bytes and enough_memory < ask.num_nodes:
        return _Scarce(
            need.memory_bytes,
            sum(machine.memory_bytes for machine in listed),
            "of memory",
            render_bytes,
            lambda value: sum(place.memory_bytes for place in value.placements),
        )
    return _Scarce(
        need.cpus_milli,
        sum(machine.cpus_milli for machine in listed),
        "CPU" if need.cpus_milli == 1000 else "CPUs",
        render_milli,
        lambda value: sum(place.cpus_milli for place in value.placements),
    )


def _gangs(devices: Iterable[int], milli: int) -> int:
    """How many ranks find their devices on one machine."""
    if milli < WHOLE_MILLI:
        return sum(left // milli for left in devices) if milli else 1
    return sum(left == WHOLE_MILLI for left in devices) * WHOLE_MILLI // milli


def _free(books: PoolCache, machine: Machine, need: Need) -> _Room:
    cpus, memory = machine.cpus_milli, machine.memory_bytes
    left = {device.index: WHOLE_MILLI for device in machine.devices if _suits(device, need)}
    for value in books.known.values():
        for place in value.placements if isinstance(value, Running) else ():
            if place.node_id == machine.id:
                cpus -= place.cpus_milli
                memory -= place.memory_bytes
                for share in place.devices:
                    if share.index in left:
                        left[share.index] -= share.milli
    return _Room(cpus, memory, tuple(left.values()))

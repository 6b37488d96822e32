"""A pool as people see it: machines, allocations, pending workloads. Filled from the scheduler cache."""

from __future__ import annotations

from collections.abc import Mapping

import msgspec

from argosy.model.kinds import kind_of_id
from argosy.model.offer import Placement
from argosy.model.pooled import HolderView, PendingWorkload
from argosy.scheduler.ask import Machine, Waiting


class Held(HolderView, frozen=True, kw_only=True, omit_defaults=True):
    """What one workload holds, and where."""

    placements: tuple[Placement, ...] = ()


class Pending(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """What lists tell of a pending workload."""

    code: str = ""  # as in `ask.Waiting`
    text: str = ""  # one line
    position: int = 0  # in the order of its pool, from 1; 0: not told
    starts_at_ms: int | None = None  # when it probably starts; None: not known


class Queued(PendingWorkload, frozen=True, kw_only=True, omit_defaults=True):
    """What one workload waits for."""

    waiting: Waiting | None = None  # why, and until when


class PoolPicture(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """One pool at one moment. A workload that holds parts of several machines stands once in `held`."""

    id: str  # of its cluster; of owned machines the name of the provider
    name: str  # as people call it
    queue: str = ""  # that the pool itself belongs to; "": the root
    machines: tuple[Machine, ...] = ()  # in the order of their indices
    held: tuple[Held, ...] = ()
    waiting: tuple[Queued, ...] = ()  # in the order in which they are considered
    withheld: tuple[
        Placement, ...
    ] = ()  # parts of its devices that are others', so that nobody here gets them
    warnings: tuple[str, ...] = ()  # what is wrong with its machines


class Gang(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """`num_nodes` machines of which each has `gpus` whole devices of `model` free."""

    model: str
    gpus: int
    num_nodes: int


def is_of_cluster(picture: PoolPicture) -> bool:
    """Whether these are the nodes of a cluster: they may be parts of machines that stand in another
    picture."""
    return kind_of_id(picture.id) is not None


def taken_of(picture: PoolPicture) -> Mapping[tuple[str, int], int]:
    """Milli-GPU that are held or withheld, by machine and device."""
    taken: dict[tuple[str, int], int] = {}
    for place in (*picture.withheld, *(place for held in picture.held for place in held.placements)):
        for share in place.devices:
            key = (place.node_id, share.index)
            taken[key] = taken.get(key, 0) + share.milli
    return taken


def largest_gangs(picture: PoolPicture) -> tuple[Gang, ...]:
    """Per model and number of whole devices per node, the largest gang that would fit now: sizes 1, 2, 4, 8 …
    as far as any machine has them free. What is free but stands in no row for its size is fragmented."""
    taken = taken_of(picture)
    free: dict[str, list[int]] = {}
    for machine in picture.machines:
        count: dict[str, int] = {}
        for device in machine.devices:
            if machine.open and not taken.get((machine.id, device.index)):
                count[device.model] = count.get(device.model, 0) + 1
        for model, number in count.items():
            free.setdefault(model, []).append(number)
    gangs: list[Gang] = []
    for model in sorted(free):
        size = 1
        while any(number >= size for number in free[model]):
            fits = sum(1 for number in free[model] if number >= size)
            gangs.append(Gang(model=model, gpus=size, num_nodes=fits))
            size *= 2
    return tuple(gangs)

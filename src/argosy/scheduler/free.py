"""Free capacity: what the open machines that suit a need have left. The one place that adds it up."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Final, NamedTuple

from argosy.scheduler import plain
from argosy.scheduler.ask import WHOLE_MILLI, Need

if TYPE_CHECKING:
    from argosy.scheduler.fragment import Grid
    from argosy.scheduler.inventory import Inventory

CPUS: Final = "cpus"
MEMORY: Final = "memory"
GPUS: Final = "gpus"


class Free(NamedTuple):
    """What is left for ranks of one need. Of devices only those that it may use count."""

    machines: tuple[str, ...]  # ids of those that suit, in their order
    roomy: tuple[str, ...]  # those of them that have CPUs, memory and one device for a rank by amounts alone
    cpus_milli: int
    memory_bytes: int
    gpu_milli: int
    whole: int  # devices of which nothing is taken
    devices: int  # of all machines that suit, taken or not
    enough_memory: int  # ranks that would fit if only memory mattered, each machine counted once,
    enough_gpus: int  # or devices: here as many ranks of a machine as it has devices for

    def scarce(self, need: Need, num_nodes: int) -> str:
        """The resource of which too few machines have enough left: devices before memory before CPUs."""
        if need.gpu_milli and self.enough_gpus < num_nodes:
            return GPUS
        if need.memory_bytes and self.enough_memory < num_nodes:
            return MEMORY
        return CPUS


def add_up(inventory: Inventory, need: Need) -> Free:
    """`Inventory.free_for`. O(machines); in a large pool without a step of Python for each."""
    grid = inventory.grid()
    return _of_rows(inventory, need) if grid is None else _of_grid(grid, need)


def ranks_now(inventory: Inventory, need: Need, machines: Sequence[str]) -> int:
    """How many ranks these machines could host now."""
    total = 0
    for machine_id in machines:
        kind, room = inventory.kind_and_room(machine_id)
        total += plain.count(need, kind.way(need), kind, room)
    return total


def _of_rows(inventory: Inventory, need: Need) -> Free:
    suited: list[str] = []
    roomy: list[str] = []
    cpus = memory = milli = whole = devices = with_memory = with_gpus = 0
    for machine_id in inventory.machines():
        kind, room = inventory.kind_and_room(machine_id)
        way = kind.way(need)
        if way.why:
            continue
        suited.append(machine_id)
        cpus += max(0, room.cpus)
        memory += max(0, room.memory)
        with_memory += room.memory >= need.memory_bytes
        left = [room.left[position] for position in way.positions]
        free = sum(each == WHOLE_MILLI for each in left)
        if (
            room.cpus >= need.cpus_milli
            and room.memory >= need.memory_bytes
            and max(left, default=0) >= min(need.gpu_milli, WHOLE_MILLI)
        ):
            roomy.append(machine_id)
        milli += sum(left)
        whole += free
        devices += len(left)
        if need.gpu_milli >= WHOLE_MILLI:
            with_gpus += free * WHOLE_MILLI // need.gpu_milli
        elif need.gpu_milli:
            with_gpus += sum(each // need.gpu_milli for each in left)
    amounts = (cpus, memory, milli, whole, devices, with_memory, with_gpus)
    return Free(tuple(suited), tuple(roomy), *amounts)


def _of_grid(grid: Grid, need: Need) -> Free:
    import numpy as np

    rooms = grid.suited(need)
    cpus, memory, left, eligible = rooms.cpus, rooms.memory, rooms.left, rooms.eligible
    left = np.where(eligible, left, 0)
    free = (left == WHOLE_MILLI).sum(axis=1)
    if need.gpu_milli >= WHOLE_MILLI:
        with_gpus = int((free * WHOLE_MILLI // need.gpu_milli).sum())
    else:
        with_gpus = int((left // need.gpu_milli).sum()) if need.gpu_milli else 0
    enough = (cpus >= need.cpus_milli) & (memory >= need.memory_bytes)
    if need.gpu_milli:
        enough &= left.max(axis=1, initial=0) >= min(need.gpu_milli, WHOLE_MILLI)
    return Free(
        tuple(map(grid.ids.__getitem__, rooms.rows.tolist())),
        tuple(map(grid.ids.__getitem__, rooms.rows[enough].tolist())),
        int(np.maximum(cpus, 0).sum()),
        int(np.maximum(memory, 0).sum()),
        int(left.sum()),
        int(free.sum()),
        int(eligible.sum()),
        int((memory >= need.memory_bytes).sum()),
        with_gpus,
    )

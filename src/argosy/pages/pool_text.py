"""What drawings of a pool share: colours of users; texts about machines, allocations, pending workloads."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING, Final, NamedTuple

from argosy.model.kinds import is_named
from argosy.model.units import do, many, render_duration, render_milli

if TYPE_CHECKING:
    from argosy.api.pool import DeviceView, MachineView, PoolView, WaitingView
    from argosy.model.pooled import HolderView

WHOLE_MILLI: Final = 1000
_LETTERS: Final = "ABCDEFGHIJKLMNOPQRSTUVWXYZ"
#: For up to twelve users: apart in hue and in lightness, readable on white and on black. (terminal, light
#: page, dark page)
COLOURS: Final = (
    (33, "#2f74d0", "#5b9bf0"),
    (208, "#d9730d", "#f29b47"),
    (35, "#1f8a5b", "#43b584"),
    (170, "#a846b0", "#cd7bd4"),
    (178, "#b08800", "#dcb53c"),
    (45, "#0b8c9e", "#3fbccd"),
    (161, "#c2325f", "#ea6f94"),
    (107, "#6a8f1f", "#9cc250"),
    (99, "#6253c7", "#9587ee"),
    (173, "#9c5b33", "#c98b63"),
    (31, "#3b6a94", "#7aa7cf"),
    (132, "#8a4a6f", "#c084a4"),
)
_OTHERS: Final = (245, "#8a94a3", "#8a94a3")  # whoever comes after those


class Person(NamedTuple):
    """A user of the pool, with a colour and a letter."""

    user: str
    rank: int  # among the others: chooses colour and letter
    gpu_milli: int
    workloads: int

    @property
    def letter(self) -> str:
        return _LETTERS[self.rank] if self.rank < len(_LETTERS) else "*"

    @property
    def shade(self) -> int:
        """Of 256 colours."""
        return self.colours[0]

    @property
    def has_colour(self) -> bool:
        """A colour of its own; the others share a grey."""
        return self.rank < len(COLOURS)

    @property
    def colours(self) -> tuple[int, str, str]:
        return COLOURS[self.rank] if self.has_colour else _OTHERS


def people_of(pool: PoolView) -> dict[str, Person]:
    """Who holds something, by name; those with most GPUs first, then by name."""
    milli: dict[str, int] = {}
    count: dict[str, int] = {}
    for holder in pool.holders:
        milli.setdefault(holder.user, 0)
        count[holder.user] = count.get(holder.user, 0) + 1
    for machine in pool.machines:
        for device in machine.devices:
            for share in device.shares:
                milli[pool.holders[share.holder].user] += share.milli
    ranked = sorted(milli, key=lambda user: (-milli[user], user))
    return {user: Person(user, rank, milli[user], count[user]) for rank, user in enumerate(ranked)}


def used_milli(device: DeviceView) -> int:
    return sum(share.milli for share in device.shares)


def headline(pool: PoolView) -> str:
    """`40 nodes, 259 of 320 GPUs used, 12 of 640 CPUs used, 1 waits`."""
    devices = [device for machine in pool.machines for device in machine.devices]
    cpus = sum(machine.cpus_milli for machine in pool.machines)
    cpus_used = sum(machine.cpus_used_milli for machine in pool.machines)
    parts = [many(len(pool.machines), "node")]
    if devices:
        used = sum(map(used_milli, devices))
        parts.append(f"{render_milli(used)} of {many(len(devices), 'GPU')} used")
    parts.append(f"{render_milli(cpus_used)} of {many(render_milli(cpus), 'CPU')} used")
    closed = sum(not machine.open for machine in pool.machines)
    if closed:
        parts.append(f"{do(closed, 'take')} nothing new")
    parts.append(waits_of(pool))
    return ", ".join(parts)


def waits_of(pool: PoolView) -> str:
    return do(len(pool.waiting), "wait")


def legend_of(people: Iterable[Person], *, coloured: bool) -> list[tuple[Person, str]]:
    """Who is who: each with a colour or letter of its own, then the others together."""
    known = sorted(people, key=lambda person: person.rank)
    own = [each for each in known if (each.has_colour if coloured else each.rank < len(_LETTERS))]
    lines = [(each, f"{each.user or 'somebody'} ({_holds(each.gpu_milli, each.workloads)})") for each in own]
    others = known[len(own) :]
    if others:
        holds = _holds(sum(each.gpu_milli for each in others), sum(each.workloads for each in others))
        lines.append((others[0], f"{many(len(others), 'other')} ({holds})"))
    return lines


def _holds(gpu_milli: int, workloads: int) -> str:
    if not gpu_milli:
        return f"{workloads} running"
    return many(render_milli(gpu_milli), "GPU")


def free_milli(pool: PoolView) -> int:
    """What is free of devices of machines that take something new."""
    return sum(
        max(0, WHOLE_MILLI - used_milli(device))
        for machine in pool.machines
        if machine.open
        for device in machine.devices
    )


def cpus_text(machine: MachineView) -> str:
    return f"{render_milli(machine.cpus_used_milli)}/{render_milli(machine.cpus_milli)} CPUs"


def shortened(name: str, width: int) -> str:
    """Names of machines differ at their ends.

    >>> shortened("dgx-a100-07", 8)
    'dgx…0-07'
    """
    if len(name) <= width:
        return name
    front = (width - 1) // 2
    return f"{name[:front]}…{name[len(name) - (width - 1 - front) :]}"


def holder_line(holder: HolderView, now_ms: int) -> str:
    """Who it is and for how long: `ann's job 12 (train), 2h 5m, preemptible`."""
    what = f"cluster {holder.name}" if is_named(holder.kind) else f"job {holder.label or holder.number}"
    named = f" ({holder.name})" if not is_named(holder.kind) and holder.name else ""
    parts = [f"{holder.user or 'somebody'}'s {what}{named}"]
    if holder.queue:
        parts.append(f"queue {holder.queue}")
    if holder.started_ms:
        parts.append(f"for {render_duration(max(0, now_ms - holder.started_ms) / 1000)}")
    if holder.ends_at_ms is not None and holder.ends_at_ms > now_ms:
        parts.append(f"about {render_duration((holder.ends_at_ms - now_ms) / 1000)} left")
    if holder.preemptible:
        parts.append("preemptible")
    if holder.leaving:
        parts.append("being ended")
    return ", ".join(parts)


def starts_in(starts_at_ms: int, now_ms: int) -> str:
    """
    >>> starts_in(90_000, 0), starts_in(0, 5)
    ('~1m 30s', 'soon')
    """
    left_s = (starts_at_ms - now_ms) / 1000
    return f"~{render_duration(left_s)}" if left_s >= 1 else "soon"


def wish_of(each: WaitingView) -> str:
    """What each of its nodes needs: `A100|H100:8 x2`, `4 CPUs`."""
    if each.gpu_milli:
        wish = f"{'|'.join(each.models) or 'GPU'}:{render_milli(each.gpu_milli)}"
    elif each.cpus_milli:
        wish = many(render_milli(each.cpus_milli), "CPU")
    else:
        wish = "any node"
    return wish + (f" x{each.num_nodes}" if each.num_nodes > 1 else "")

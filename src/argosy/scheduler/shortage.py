"""In words: why an ask could never start on these machines, and why it does not fit now."""

from __future__ import annotations

from typing import TYPE_CHECKING

import msgspec

from argosy.model.scheduling import Isolation
from argosy.model.units import render_bytes, render_milli
from argosy.scheduler import plain
from argosy.scheduler.ask import UNANSWERED, WHOLE_MILLI, Ask, Machine, Need
from argosy.scheduler.devices import Kind
from argosy.scheduler.free import ranks_now
from argosy.scheduler.gang import Search
from argosy.scheduler.tenancy_check import render_named, say_amount
from argosy.scheduler.topology import level_problem

if TYPE_CHECKING:
    from argosy.scheduler.inventory import Inventory


class Nearest(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """Why an ask can never start here, with the machine that comes closest."""

    code: str = "never"
    machine_id: str = ""  # "": there is no machine, or the wish itself cannot be met
    lacks: str = ""  # what that machine lacks
    text: str = ""  # a whole sentence


class Why(msgspec.Struct, frozen=True, kw_only=True):
    """Why an ask does not fit now: a code of `ask.Waiting`, and amounts in words."""

    code: str
    text: str
    scarce: str = ""  # the resource that is missing: gpus | memory | cpus; "": it is no matter of amounts


def find_nearest(empty: Inventory, ask: Ask) -> Nearest | None:
    """Of an inventory from which nothing is taken."""
    problem = level_problem(ask.num_nodes, ask.required, ask.spread, empty._domains.depth)
    if problem:
        return Nearest(text=f"It can never start: {problem}.")
    machines = empty.machines()
    if not machines:
        return Nearest(text="It can never start: the pool has no machine.")
    if empty.find(ask) is not None:
        return None
    alone = msgspec.structs.replace(ask, num_nodes=1, required="", preferred="", spread="")
    if empty.find(alone) is not None:
        return Nearest(text=f"It can never start: {too_few(empty, ask)}.")
    nearest: tuple[tuple[int, int], str, str] | None = None
    for number, machine in enumerate(machines.values()):
        for need in ask.needs:
            lacks = find_lacks(machine, empty._kind[machine.id], need)
            if nearest is None or (len(lacks), number) < nearest[0]:
                nearest = ((len(lacks), number), machine.id, "; ".join(lacks))
    assert nearest is not None
    _, machine_id, text = nearest
    name = machines[machine_id].name or machine_id
    return Nearest(
        machine_id=machine_id,
        lacks=text,
        text=f"It can never start: no machine has all that it needs. {name} comes nearest: {text}.",
    )


def find_lacks(machine: Machine, kind: Kind, need: Need) -> list[str]:
    lacks = []
    way = kind.way(need)
    if way.why:
        lacks.append(way.text)
    if machine.cpus_milli < need.cpus_milli:
        lacks.append(f"it has {render_milli(machine.cpus_milli)} of {render_milli(need.cpus_milli)} CPUs")
    if machine.memory_bytes < need.memory_bytes:
        lacks.append(
            f"it has {render_bytes(machine.memory_bytes)} of {render_bytes(need.memory_bytes)} of memory"
        )
    return lacks


def too_few(inventory: Inventory, ask: Ask) -> str:
    """Of a gang of which single ranks fit."""
    most = max(Search(inventory, ask, need).most() for need in ask.needs)
    where = f"within one {ask.required}" if ask.required else "in all"
    spread = f", each in another {ask.spread}" if ask.spread else ""
    return f"it has {ask.num_nodes} ranks{spread}, and at most {most} fit {where}"


def find_why(inventory: Inventory, ask: Ask) -> Why:
    """Why nothing is found for it now. Codes: capacity, fragmented, topology, isolation, group."""
    need = ask.needs[0]
    problem = level_problem(ask.num_nodes, ask.required, ask.spread, inventory._domains.depth)
    if problem:
        return Why(code="topology", text=problem)
    if ask.required or ask.spread:
        loose = msgspec.structs.replace(ask, required="", preferred="", spread="")
        if inventory.find(loose) is not None:
            return Why(code="topology", text=f"{too_few(inventory, ask)} at present")
    anywhere = msgspec.structs.replace(need, only_group="", groups=inventory.groups())
    if anywhere != need and inventory.find(msgspec.structs.replace(ask, needs=(anywhere,))) is not None:
        group = f"group {need.only_group}" if need.only_group else "the groups that it may use"
        return Why(code="group", text=f"there is room only outside of {group}")
    if 0 < need.gpu_milli < WHOLE_MILLI:
        apart = _kept_apart(inventory, ask, need)
        if apart:
            return Why(code="isolation", text=apart)
    return _short(inventory, ask, need)


def _kept_apart(inventory: Inventory, ask: Ask, need: Need) -> str:
    """In words, when there is room under a weaker isolation or beside other tenants; else ""."""
    if need.isolation != Isolation.NONE:
        weak = msgspec.structs.replace(need, isolation=Isolation.NONE)
        if inventory.find(msgspec.structs.replace(ask, needs=(weak,))) is not None:
            return f"there is room only where isolation `{need.isolation.value}` cannot be given"
    for machine_id in inventory.free_for(need).roomy:
        kind, room = inventory.kind_and_room(machine_id)
        way = kind.way(need)
        if any(room.left[p] >= way.milli and room.locks[p] is not None for p in way.positions) and (
            plain.pick(inventory._typical, need, way, kind, room) is None
        ):
            return "the devices with room are shared with other tenants, or in another way"
    return ""


def _short(inventory: Inventory, ask: Ask, need: Need) -> Why:
    """Amounts over the machines that suit: enough in sum is fragmentation, else it is capacity."""
    free = inventory.free_for(need)
    n = ask.num_nodes
    if not free.machines:
        return Why(code="capacity", text=_closed(inventory, need))
    short = []
    if free.cpus_milli < n * need.cpus_milli:
        short.append(("cpus", _short_of("cpus", n * need.cpus_milli, free.cpus_milli)))
    if free.memory_bytes < n * need.memory_bytes:
        short.append(("memory", _short_of("memory", n * need.memory_bytes, free.memory_bytes)))
    if free.gpu_milli < n * need.gpu_milli:
        short.append(("gpus", _short_of(_gpus(need), n * need.gpu_milli, free.gpu_milli)))
    if short:
        names = [name for name, _ in short]
        scarce = next(name for name in ("gpus", "memory", "cpus") if name in names)
        return Why(code="capacity", text="; ".join(text for _, text in short), scarce=scarce)
    parts = [say_amount("cpus", free.cpus_milli)]
    if need.memory_bytes:
        parts.append(say_amount("memory", free.memory_bytes))
    if need.gpu_milli:
        parts.append(f"{say_amount(_gpus(need), free.gpu_milli)} ({free.whole} whole)")
    fits = ranks_now(inventory, need, free.machines) if n > 1 else 0
    where = f"for {fits} of {n} ranks" if n > 1 else "on no single machine"
    text = f"{' and '.join(parts)} are free, but together {where}"
    return Why(code="fragmented", text=text, scarce="gpus" if need.gpu_milli else free.scarce(need, n))


def _closed(inventory: Inventory, need: Need) -> str:
    """No machine is open to it: how many would suit it if they were, and what is wrong with them."""
    suited = [
        machine
        for machine in inventory.machines().values()
        if not machine.open and not Kind(0, msgspec.structs.replace(machine, open=True)).way(need).why
    ]
    why = list(dict.fromkeys(machine.closed or "takes nothing new" for machine in suited))
    if not suited:
        return "no machine that suits it is there"
    if len(suited) == 1:
        return f"the only suitable node {why[0]}"
    if why == [UNANSWERED]:
        return f"none of the {len(suited)} suitable nodes answers"
    return f"none of the {len(suited)} suitable nodes takes new work"


def _gpus(need: Need) -> str:
    return f"gpus/{'/'.join(need.models)}" if need.models else "gpus"


def _short_of(name: str, needed: int, free: int) -> str:
    """
    >>> _short_of("cpus", 1000, 0), _short_of("gpus/A100", 8000, 1000)
    ('1 CPU is needed, 0 are free', '8 A100 are needed, 1 is free')
    """
    verbs = ["is" if name != "memory" and amount == 1000 else "are" for amount in (needed, free)]
    return f"{say_amount(name, needed)} {verbs[0]} needed, {render_named(name, free)} {verbs[1]} free"


__all__ = ["Nearest", "Why", "find_lacks", "find_nearest", "find_why", "too_few"]

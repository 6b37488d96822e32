"""Owned offers whose machines differ: whether a gang fits, each node on a machine of its own. Pure."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

from argosy.model.offer import Offer, OwnedMachine, machine_id, place_of
from argosy.model.resources import Resources
from argosy.model.units import render_bytes, render_milli
from argosy.planning.ability import NOTHING_HELD, Usage

#: What a machine has of something, in its smallest unit.
Amount = Callable[[OwnedMachine], int]
_Amounts = tuple[int, int, int]  # milli-CPU, bytes, milli-accelerators


def cpus(machine: OwnedMachine) -> int:
    return machine.facts.cpus_milli


def memory(machine: OwnedMachine) -> int:
    return machine.facts.memory_bytes


def disk(machine: OwnedMachine) -> int:
    return machine.facts.disk_free_bytes


def devices_of(model: str | None) -> Amount:
    """Milli-accelerators of a model; None: of any."""
    return partial(_devices, model)


def _devices(model: str | None, machine: OwnedMachine) -> int:
    return 1000 * sum(
        1 for each in machine.facts.devices if not each.mig_profile and model in (None, each.model)
    )


def gang_fits(offer: Offer, wish: Resources, num_nodes: int, each: int, amount: Amount) -> bool:
    """Whether so many machines have `each`, whatever runs on them."""
    return _count(offer, wish, each, amount) >= num_nodes


def _count(offer: Offer, wish: Resources, each: int, amount: Amount) -> int:
    return sum(1 for machine in offer.machines_for(wish.infra.zone) if amount(machine) >= each)


def too_few(
    offer: Offer,
    wish: Resources,
    num_nodes: int,
    each: int,
    what: str,
    amount: Amount,
    render: Callable[[int], str],
) -> str:
    """Why a gang does not fit, as a clause. `what`: each node's amount, in words."""
    machines = offer.machines_for(wish.infra.zone)
    most = max(map(amount, machines), default=0)
    if most < each:
        return f"its largest machine has {render(most)}, asked for {what}"
    has = _count(offer, wish, each, amount)
    return f"has {_machines(has)} with {what}, asked for {num_nodes}"


def not_together(offer: Offer, wish: Resources, num_nodes: int) -> str:
    """Why a gang does not fit though there are enough machines for each of its amounts alone."""
    wants = _wants(offer, wish)
    suited = sum(
        1
        for each in offer.machines_for(wish.infra.zone)
        if _covers(_has(each, wants, offer.shape.accelerator), wants)
    )
    if suited >= num_nodes:
        return ""
    return f"has {_machines(suited)}{_what(offer, wants)}, asked for {num_nodes}"


def waits_for(offer: Offer, wish: Resources, num_nodes: int, usage: Usage) -> str:
    """What of the machines that would do is in use or closed; "" when enough of them are free."""
    place, wants = place_of(offer), _wants(offer, wish)
    free, suited = 0, 0
    holders: set[str] = set()
    closed: list[str] = []
    for machine in offer.machines_for(wish.infra.zone):
        has = _has(machine, wants, offer.shape.accelerator)
        if not _covers(has, wants):
            continue
        suited += 1
        held = usage.machines.get(machine_id(place, machine.name), NOTHING_HELD)
        if machine.closed:
            closed.append(f"{machine.name} {machine.closed}")
        elif _covers((has[0] - held[0], has[1] - held[1], has[2] - held[2]), wants):
            free += 1
        else:
            holders.update(held.holders)
    if free >= num_nodes:
        return ""
    why = [f"in use by {', '.join(sorted(holders)[:3])}"] if holders else []
    what = f"{_machines(num_nodes)}{_what(offer, wants)}"
    return f"waits for {what}: {free} of {suited} are free ({'; '.join((*why, *closed[:3]))})"


def _wants(offer: Offer, wish: Resources) -> _Amounts:
    cores = wish.cpus.amount if wish.cpus else 0
    return cores, wish.memory_for(cores), wish.accelerator.milli if wish.accelerator else 0


def _has(machine: OwnedMachine, wants: _Amounts, model: str | None) -> _Amounts:
    return cpus(machine), memory(machine), _devices(model, machine) if wants[2] else 0


def _covers(has: _Amounts, wants: _Amounts) -> bool:
    return all(have >= want for have, want in zip(has, wants, strict=True))


def _what(offer: Offer, wants: _Amounts) -> str:
    cores, bytes_, milli = wants
    parts = [f"{render_milli(milli)} {offer.shape.accelerator}"] if milli else []
    parts += [f"{render_milli(cores)} CPUs"] if cores else []
    parts += [f"{render_bytes(bytes_)} of memory"] if bytes_ else []
    return f" with {' and '.join(parts)}" if parts else ""


def _machines(count: int) -> str:
    return "1 machine" if count == 1 else f"{count} machines"

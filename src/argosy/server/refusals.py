"""Refusals in words: what is missing, what there is instead, and what to do. Pure."""

from __future__ import annotations

import difflib

from argosy.model.errors import ArgosyError
from argosy.model.offer import Capacity, Choice, Plan
from argosy.model.resources import Resources
from argosy.model.rows import Workload
from argosy.model.task import Task
from argosy.model.units import render_bytes, render_milli, render_price
from argosy.store.snapshot import Snapshot


def no_cluster(name: str, snapshot: Snapshot) -> ArgosyError:
    close = difflib.get_close_matches(name, [cluster.name for cluster in snapshot.clusters()], 1)
    return ArgosyError(
        "not-found", f"there is no cluster `{name}`", hint=f"did you mean `{close[0]}`?" if close else ""
    )


def missing(wish: Resources, has: Choice, num_nodes: int) -> str:
    """What a node of `has` lacks for `wish`, as a clause; empty when it has everything."""
    offer = has.offer
    place = wish.infra
    if place.provider and place.provider != offer.provider:
        return f"it is on {offer.provider}"
    if place.region and place.region not in ("*", offer.region):
        return f"it is in region {offer.region or '-'}"
    owned = offer.capacity is Capacity.OWNED
    count = num_nodes if owned else 1  # an owned offer describes the whole machine
    cpus = has.cpus_milli or offer.shape.cpus_milli // count
    if wish.cpus and wish.cpus.amount > cpus:
        return f"its nodes have {render_milli(cpus)} CPUs"
    memory = has.memory_bytes or offer.shape.memory_bytes // count
    if wish.memory and wish.memory.amount > memory:
        return f"its nodes have {render_bytes(memory)} of memory"
    if wish.accelerator is not None:
        milli = has.accelerators_milli
        if not milli or has.accelerator is None:
            return "it has no accelerator"
        if wish.accelerator.model and wish.accelerator.model.lower() != has.accelerator.lower():
            return f"it has {has.accelerator}"
        if wish.accelerator.milli > milli:
            return f"its nodes have {has.accelerator}:{render_milli(milli)}"
    return ""


def not_covered(cluster: Workload, task: Task, why: str) -> ArgosyError:
    nodes = f" x{task.num_nodes}" if task.num_nodes > 1 else ""
    return ArgosyError(
        "conflict",
        f"cluster `{cluster.name}` does not have {task.resources[0].render()}{nodes}: {why}",
        hint="ask for less, or launch another cluster with another name",
    )


def no_offer(task: Task, made: Plan) -> ArgosyError:
    """The error with the table of refusals, as DESIGN shows it."""
    wishes = " | ".join(dict.fromkeys(wish.render() for wish in task.resources))
    nodes = f" ×{task.num_nodes}" if task.num_nodes > 1 else ""
    name = f"`{task.name}` " if task.name else ""
    columns = [(each.provider, each.region or "–", each.code, each.text) for each in made.rejected]
    widths = [max((len(row[i]) for row in columns), default=0) for i in range(3)]
    details = tuple(
        "  ".join([*(cell.ljust(width) for cell, width in zip(row, widths, strict=False)), row[3]])
        for row in columns
    )
    return ArgosyError(
        "no-offer", f"no offer fits task {name}({wishes}{nodes})", details=details, hint=_hint(task, made)
    )


def _hint(task: Task, made: Plan) -> str:
    codes = {each.code for each in made.rejected}
    hints = []
    if "price-cap" in codes:
        caps = [wish.max_hourly_micro_usd for wish in task.resources if wish.max_hourly_micro_usd]
        hints.append(
            f"raise `max_hourly_cost` above {render_price(max(caps))}" if caps else "raise `max_hourly_cost`"
        )
    if "spot" in codes:
        hints.append("drop `use_spot`")
    if codes & {"credentials", "unreachable"}:
        hints.append("`argosy check` says what is wrong with an infrastructure")
    if codes & {"cpus", "memory", "accelerator", "accelerator-memory", "multi-node", "disk"}:
        hints.append("ask for less; `argosy launch --dryrun` and `argosy gpus` show what exists")
    return ", or ".join(hints)

"""Refusals in words: what is missing, what there is instead, and what to do. Pure."""

from __future__ import annotations

from argosy.model.access import OWNER, Caller
from argosy.model.errors import ArgosyError, suggest
from argosy.model.offer import Capacity, Choice
from argosy.model.resources import Resources
from argosy.model.rows import Workload
from argosy.model.units import render_bytes, render_milli
from argosy.planning.constraints import lacks_disk
from argosy.server.guarding import sees
from argosy.store.snapshot import Snapshot


def no_cluster(name: str, snapshot: Snapshot, caller: Caller = OWNER) -> ArgosyError:
    there = [cluster.name for cluster in snapshot.clusters() if sees(caller, cluster)]
    return ArgosyError("not-found", f"there is no cluster `{name}`", hint=suggest(name, there))


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
    if wish.node_disk is not None and (lacking := lacks_disk(wish.node_disk, count, offer)):
        return f"it {lacking.partition(', asked')[0]}"
    if wish.accelerator is not None:
        milli = has.accelerators_milli
        if not milli or has.accelerator is None:
            return "it has no accelerator"
        if wish.accelerator.model and wish.accelerator.model.lower() != has.accelerator.lower():
            return f"it has {has.accelerator}"
        if wish.accelerator.milli > milli:
            return f"its nodes have {has.accelerator}:{render_milli(milli)}"
    return ""


def not_covered(cluster: Workload, needs: str, but: str) -> ArgosyError:
    """`needs`: what the task asks for; `but`: the clause about the cluster, such as `has 2`."""
    return ArgosyError(
        "conflict",
        f"the task needs {needs}; cluster `{cluster.name}` {but}",
        hint="ask for less, or launch another cluster with another name",
    )

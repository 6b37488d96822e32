"""How many replicas of a service are spot and how many on demand, where a task file asks for both. Pure."""

from __future__ import annotations

from typing import NamedTuple

import msgspec

from argosy.model.kinds.service import Revision
from argosy.model.serving import Replicas
from argosy.model.task import Task


class Mix(NamedTuple):
    spot: int
    on_demand: int


def is_mixed(revision: Revision) -> bool:
    """Whether it runs on spot, and some replicas are to be on demand."""
    replicas = revision.serving.replicas
    wants = replicas.on_demand > 0 or replicas.fallback
    return wants and any(wish.use_spot for wish in revision.task.resources)


def mix_of(count: int, replicas: Replicas, ready_spot: int) -> Mix:
    """`count` replicas, of which `replicas.on_demand` are on demand at all times. With `replicas.fallback`
    one on demand more stands in for each spot replica that is not ready.

    >>> base = Replicas(on_demand=1)
    >>> mix_of(4, base, 0), mix_of(0, base, 0)
    (Mix(spot=3, on_demand=1), Mix(spot=0, on_demand=0))
    >>> mix_of(4, Replicas(on_demand=1, fallback=True), 2)
    Mix(spot=3, on_demand=2)
    """
    base = min(count, replicas.on_demand)
    spot = count - base
    missing = max(0, spot - ready_spot) if replicas.fallback else 0
    return Mix(spot=spot, on_demand=base + missing)


def on_demand_task(task: Task) -> Task:
    """The same task on on-demand machines."""
    wishes = tuple(msgspec.structs.replace(wish, use_spot=False) for wish in task.resources)
    return msgspec.structs.replace(task, resources=wishes)

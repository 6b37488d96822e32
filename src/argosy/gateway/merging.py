"""The counters of several workers as those of one gateway."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any, Final, TypeVar

import msgspec

from argosy.model.routes import (
    GatewayCounters,
    KeyCounters,
    ReplicaCounters,
    RevisionCounters,
    ServiceCounters,
)

C = TypeVar("C", ServiceCounters, ReplicaCounters, RevisionCounters, KeyCounters)
_LATEST: Final = "last_use_ms"


def merge(all_counters: Sequence[GatewayCounters]) -> GatewayCounters:
    """Sums of everything; times of the last use are the latest. The generation is that of the slowest
    worker."""
    return GatewayCounters(
        generation=min((each.generation for each in all_counters), default=0),
        since_ms=min((each.since_ms for each in all_counters), default=0),
        services=_by_id([service for each in all_counters for service in each.services]),
    )


def _by_id(counters: Iterable[C]) -> list[C]:
    merged: dict[str, C] = {}
    for each in counters:
        before = merged.get(each.id)
        merged[each.id] = each if before is None else _sum(before, each)
    return list(merged.values())


def _sum(one: C, other: C) -> C:
    """Of two counters of the same thing: numbers and lists of numbers are added, lists of counters by
    their ids."""
    changes: dict[str, Any] = {}
    for name in one.__struct_fields__:
        here, there = getattr(one, name), getattr(other, name)
        if isinstance(here, int):
            changes[name] = max(here, there) if name == _LATEST else here + there
        elif isinstance(here, list):
            changes[name] = _sum_lists(here, there)
    state = getattr(one, "state", None)
    if state == "ready":
        changes["state"] = getattr(other, "state", state)  # one worker that cannot reach it is enough
    return msgspec.structs.replace(one, **changes)


def _sum_lists(here: list[Any], there: list[Any]) -> list[Any]:
    if not here or not there:
        return here or there
    if isinstance(here[0], int):
        return [left + right for left, right in zip(here, there, strict=True)]
    return _by_id([*here, *there])

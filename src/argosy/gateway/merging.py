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
_LATEST: Final = ("last_use_ms", "spent_micro_usd")  # all say the same, some a little earlier


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
            changes[name] = max(here, there) if name in _LATEST else here + there
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


def largest(before: GatewayCounters, now: GatewayCounters) -> GatewayCounters:
    """The counters of one gateway, of which nothing was ever smaller; what is under way, as it is now."""
    mine = {each.id: each for each in before.services}
    services = [_most(mine[each.id], each) if each.id in mine else each for each in now.services]
    return msgspec.structs.replace(now, services=services)


_NOW: Final = ("in_flight", "held", "spent_micro_usd")


def _most(before: C, now: C) -> C:
    changes: dict[str, Any] = {}
    for name in now.__struct_fields__:
        then, here = getattr(before, name), getattr(now, name)
        if isinstance(here, int) and name not in _NOW:
            changes[name] = max(then, here)
        elif isinstance(here, list) and here and isinstance(here[0], int):
            changes[name] = [max(pair) for pair in zip(then, here, strict=True)] if then else here
        elif isinstance(here, list):
            mine = {each.id: each for each in then}
            changes[name] = [_most(mine[each.id], each) if each.id in mine else each for each in here]
    return msgspec.structs.replace(now, **changes)


def without_moment(counters: GatewayCounters) -> GatewayCounters:
    """What was counted, without what was under way at the end."""
    for service in counters.services:
        service.in_flight = service.held = 0
        for replica in service.replicas:
            replica.in_flight = 0
            replica.state = "ready"
        for key in service.keys:
            key.spent_micro_usd = 0  # the board has it
    return counters

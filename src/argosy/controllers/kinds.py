"""Finds the `decide` of each kind of workload by the registry, and has the decisions that all kinds share."""

from __future__ import annotations

from collections.abc import Iterable
from functools import cache
from importlib import import_module
from typing import Protocol, cast

import msgspec

from argosy.controllers.view import Action, NewId, Put, View
from argosy.model.kinds import KINDS, kind_of
from argosy.model.phases import Desired
from argosy.model.reasons import Reason
from argosy.model.rows import Workload


class Decide(Protocol):
    """A kind's own decision: what to do about one live workload. Pure."""

    def __call__(self, view: View, row: Workload, new_id: NewId, /) -> list[Action]: ...


def decide_workload(view: View, row: Workload, new_id: NewId) -> list[Action]:
    """What to do about one live workload: it ends with its parent, else what its kind decides."""
    return _end_with_parent(view, row) or _decide_of(kind_of(row).decided_by)(view, row, new_id)


def in_order(rows: Iterable[Workload]) -> list[Workload]:
    """Workloads in the order in which they are decided about: by the registry, then by id."""
    place = {name: number for number, name in enumerate(KINDS)}
    return sorted(rows, key=lambda row: (place[row.kind], row.id))


def _end_with_parent(view: View, row: Workload) -> list[Action]:
    if row.parent_id is None or row.desired is Desired.END:
        return []
    parent = view.rows.workloads.get(row.parent_id)
    if parent is not None and (parent.desired is not Desired.END or kind_of(parent).tends):
        return []
    reason = (parent.reason if parent is not None else None) or Reason.CANCELLED_BY_USER
    return [Put(msgspec.structs.replace(row, desired=Desired.END, reason=reason))]


@cache
def _decide_of(module: str) -> Decide:
    return cast("Decide", import_module(module).decide)

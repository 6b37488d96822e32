"""Notifications: which events somebody has subscribed to. Pure."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

import msgspec

from argosy.controllers.view import Action, Emit, Put, Rows
from argosy.model.kinds import kind_of
from argosy.model.notify import occasion_of
from argosy.model.rows import Event, Workload


class Channels(Protocol):
    """The channels of the server: those who are told of everything in a project."""

    def wants(self, project: str, occasion: str) -> bool: ...

    def wake(self) -> None:
        """There is something to tell. Never blocks."""


def marked(one: Event, row: Workload | None, channels: Channels | None) -> Event:
    """The event, marked when somebody is to be told of it."""
    occasion = occasion_of(one.code)
    if row is None or not occasion:
        return one
    told = kind_of(row).told(row)
    if told is None:
        return one
    wanted = any(occasion in wish.on for wish in told.wishes)
    if not wanted and channels is not None and row.parent_id is None:
        wanted = channels.wants(row.project, occasion)
    return msgspec.structs.replace(one, tell=True) if wanted else one


def events_of(actions: Sequence[Action], rows: Rows | None, channels: Channels | None) -> list[Event]:
    """The events of one decision. `rows`: as they were before it."""
    changed = {
        action.row.id: action.row
        for action in actions
        if isinstance(action, Put) and isinstance(action.row, Workload)
    }
    known = rows.workloads if rows is not None else changed
    return [
        marked(action.event, changed.get(action.event.subject) or known.get(action.event.subject), channels)
        for action in actions
        if isinstance(action, Emit)
    ]

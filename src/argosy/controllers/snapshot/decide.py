"""A snapshot lies there until somebody removes it. Pure."""

from __future__ import annotations

from argosy.controllers.view import Action, NewId, View
from argosy.model.rows import Workload


def decide(view: View, snapshot: Workload, new_id: NewId) -> list[Action]:
    """Nothing: its files are there when its row is, and go with it."""
    return []

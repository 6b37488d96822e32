"""Ranks that no live attempt wants: those that run are stopped, those that ended are forgotten. Pure."""

from __future__ import annotations

from typing import Final

from argosy.controllers.view import Action, ForgetRanks, StopRanks, View
from argosy.model.facts import RankPhase
from argosy.model.rows import Node

FORGET_BATCH: Final = 64  # fewer are forgotten in a full pass only
_STOP_GRACE_S: Final = 1.0


def decide_ranks(view: View, node: Node, *, everything: bool) -> list[Action]:
    """What to do about ranks on this node. The logs and exits of those that ended are stored, so that the
    agent may drop them; `everything`: this is a full pass."""
    ranks = view.observed.ranks_on(node.id)
    if not ranks:
        return []
    over: list[str] = []
    actions: list[Action] = []
    for fact in ranks.values():
        if fact.attempt_id in view.rows.attempts:
            continue
        if fact.phase in (RankPhase.EXITED, RankPhase.VANISHED):
            over.append(fact.id)
        else:
            actions.append(StopRanks(fact.attempt_id, node.id, (fact.id,), _STOP_GRACE_S))
    if over and (everything or len(over) >= FORGET_BATCH):
        actions.append(ForgetRanks(node.id, tuple(over)))
    return actions

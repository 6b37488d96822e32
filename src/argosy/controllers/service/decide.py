"""What to do about one live service: states of replicas, the way to another revision, how many of each.
Pure."""

from __future__ import annotations

from argosy.controllers.policies import finish
from argosy.controllers.service.draft import Draft
from argosy.controllers.service.replicas import observe, staff
from argosy.controllers.service.rollout import steer
from argosy.controllers.view import Action, NewId, View
from argosy.model.kinds.service import ReplicaState
from argosy.model.phases import Desired, Outcome
from argosy.model.reasons import Reason
from argosy.model.rows import Workload


def decide(view: View, row: Workload, new_id: NewId) -> list[Action]:
    """What to do about one live service."""
    draft = Draft(view, row)
    observe(draft)
    if row.desired is Desired.END:
        return _close(draft)
    staff(draft, steer(draft), new_id)
    if draft.replicas:
        draft.is_running()
    if any(each.state is ReplicaState.READY for each in draft.replicas):
        draft.is_running()
    return draft.actions()


def _close(draft: Draft) -> list[Action]:
    """All replicas answer what they have, and end; then the service does."""
    if not draft.view.rows.children_of(draft.row.id):
        reason = draft.row.reason or Reason.CANCELLED_BY_USER
        closed = draft.row.with_status(replicas=(), weights=())
        return finish(draft.view, closed, Outcome.CANCELLED, reason, "")
    for replica in draft.replicas:
        if replica.state is not ReplicaState.DRAINING:
            draft.drain(replica, "the service is taken down")
    return draft.actions()

"""Whether a new revision is good: what takes it back at once, and what its answers say. Pure."""

from __future__ import annotations

from argosy.controllers.service.draft import Draft
from argosy.model.kinds.service import Revision, Rollout


def judge(draft: Draft, rollout: Rollout, new: Revision) -> str:
    """Why the new revision is to be taken back; "" when it is not."""
    if not new.strategy.auto:
        return ""
    if rollout.failed:
        return f"its replicas do not become ready: {rollout.why}"
    return ""

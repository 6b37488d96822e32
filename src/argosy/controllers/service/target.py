"""How many replicas a service is to have now. Pure."""

from __future__ import annotations

from argosy.controllers.service.draft import Draft
from argosy.model.kinds.service import Revision


def target_of(draft: Draft, revision: Revision) -> int:
    """So many replicas are to serve."""
    if draft.spec.fixed is not None:
        return draft.spec.fixed
    wanted = revision.serving.replicas
    return max(wanted.least, min(wanted.most, draft.before.target)) + wanted.spare

"""Whether a new revision is good: what rolls it back at once, and what its answers say. Pure."""

from __future__ import annotations

import msgspec

from argosy.controllers.service.draft import Draft
from argosy.controllers.service.verdict import Evidence, Outcome, Tally, Terms, verdict
from argosy.model.kinds.job import job_state
from argosy.model.kinds.service import Revision, Rollout, RolloutPhase
from argosy.model.served import Count

_WHOLE = 1000
_NOT_JUDGED = ("shadow",)  # nobody waits for its answers


def judge(draft: Draft, rollout: Rollout, new: Revision) -> str:
    """Why the new revision is to be rolled back; "" when it is not."""
    if not new.strategy.auto:
        return ""
    if rollout.failed:
        return f"its replicas do not become ready: {rollout.why}"
    if new.strategy.name in _NOT_JUDGED:
        return ""
    share = dict(draft.before.weights).get(rollout.new, 0) / _WHOLE
    fact = draft.view.observed.served(draft.row.id)
    if fact is None or not share or fact.generation != draft.before.generation:
        return ""  # nothing was seen yet of the shares as they are now
    old = _tally(draft, rollout.old, fact.counts.get(rollout.old) or Count())
    mine = _tally(draft, rollout.new, fact.counts.get(rollout.new) or Count())
    found = verdict(old, mine, share, Terms(), Evidence(errors=rollout.errors, slow=rollout.slow))
    return found.why if found.outcome is Outcome.BAD else ""


def _tally(draft: Draft, revision: int, count: Count) -> Tally:
    jobs = [draft.view.rows.workloads.get(each.job_id) for each in draft.of(revision) if not each.is_proven]
    crashes = max((job_state(job).errors for job in jobs if job is not None), default=0)
    return Tally(
        requests=count.requests,
        errors=count.errors,
        slow=count.slow,
        ready=draft.ready(revision),
        crashes=crashes,
    )


def carried(draft: Draft, rollout: Rollout) -> Rollout:
    """The rollout with the evidence of the shares that end now: it counts under the next ones, too."""
    share = dict(draft.before.weights).get(rollout.new, 0) / _WHOLE
    fact = draft.view.observed.served(draft.row.id)
    if fact is None or not 0 < share < 1 or rollout.phase is RolloutPhase.ROLLING_BACK:
        return rollout
    old = _tally(draft, rollout.old, fact.counts.get(rollout.old) or Count())
    mine = _tally(draft, rollout.new, fact.counts.get(rollout.new) or Count())
    before = Evidence(errors=rollout.errors, slow=rollout.slow)
    evidence = verdict(old, mine, share, Terms(), before).evidence
    return msgspec.structs.replace(rollout, errors=evidence.errors, slow=evidence.slow)

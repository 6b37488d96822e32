"""How long a replica of a service that must leave its node goes on with the requests that it has. Pure."""

from __future__ import annotations

from argosy.controllers.view import View
from argosy.model.facts import Notice
from argosy.model.kinds.job import job_spec
from argosy.model.phases import Desired, Outcome
from argosy.model.reasons import Reason
from argosy.model.rows import Attempt, Workload


def drains_until_ms(view: View, job: Workload, attempt: Attempt, notice: Notice | None) -> int:
    """Until when the program of a replica is not told to end, after it was evicted or its node was given
    notice: its service takes it out of the routes meanwhile, and ends it when its requests are answered.

    An evicted one has its grace twice, first for the requests and then for its program. After a notice the
    program gets its grace out of the time that is left, at most a third of it. 0: it is told at once."""
    spec = job_spec(job)
    if spec.replica is None or job.desired is Desired.END or attempt.outcome is not Outcome.PREEMPTED:
        return 0
    grace_ms = spec.task.grace_s * 1000
    if attempt.reason is Reason.EVICTED:
        return attempt.ending_ms + grace_ms
    if attempt.reason is not Reason.PREEMPTED or notice is None:
        return 0
    latest_ms = notice.at_ms - view.policy.notice_reserve_ms
    left_ms = max(0, latest_ms - attempt.ending_ms)
    return latest_ms - min(grace_ms, left_ms // 3) if left_ms else 0

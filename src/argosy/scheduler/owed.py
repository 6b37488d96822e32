"""Why a request waits though its queue deserves what it asks for: in words."""

from __future__ import annotations

from typing import TYPE_CHECKING

from argosy.model.units import render_duration
from argosy.scheduler.explain import label
from argosy.scheduler.preempt import guarded_ms
from argosy.scheduler.reclaim import entitled, may_reclaim

if TYPE_CHECKING:
    from argosy.scheduler.ask import Ask
    from argosy.scheduler.pool import Pool


def owed_text(pool: Pool, ask: Ask, now_ms: int) -> str:
    """When what its queue deserves is taken back for it, and from whom. "" when its queue deserves less, or
    nobody borrows that. O(running jobs).

    Amounts are those of its first candidate.
    """
    amounts = pool.equivalence_class(ask).variants[0].amounts
    quotas, policy = pool.quotas, pool.tenancy.policy
    queue = entitled(quotas, ask.queue, amounts)
    if queue is None or not policy.preemption:
        return ""
    borrowing = [
        held
        for held in pool.held.values()
        if held.id not in pool.terminating
        and may_reclaim(quotas, ask.queue, amounts, held.ask.queue, held.allocation.amounts)
    ]
    if not borrowing:
        return ""
    deserved = f"queue `{queue}` deserves it and has lent it"
    makes_room = [held for held in borrowing if held.ask.preemptible]
    if not makes_room:
        queues = sorted({held.ask.queue for held in borrowing})
        more = f" and {len(queues) - 1} more" if len(queues) > 1 else ""
        return (
            f"{deserved}: it comes back when a job of {queues[0]}{more} ends, as none there is `preemptible`"
        )
    first = min(makes_room, key=lambda held: held.running.started_ms + guarded_ms(held.ask, policy))
    left_ms = first.running.started_ms + guarded_ms(first.ask, policy) - now_ms
    if left_ms <= 0:
        return ""
    return (
        f"{deserved}: {label(first.ask)} may be ended for it in {render_duration(left_ms // 1000)}, when it "
        f"has run for the `min_runtime` of {render_duration(policy.min_runtime_s)}"
    )

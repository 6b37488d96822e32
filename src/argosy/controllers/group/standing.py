"""Where every task of a group is: waiting, made, over or skipped. Pure, from the group's row and those of its
jobs."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Iterable, Mapping, Sequence
from enum import Enum

import msgspec

from argosy.model.group import Layout, When
from argosy.model.phases import Desired, Outcome
from argosy.model.reasons import Reason
from argosy.model.rows import Workload


class Standing(Enum):
    WAITING = "waiting"  # not made yet
    LIVE = "live"
    SUCCEEDED = "succeeded"
    FAILED = "failed"
    CANCELLED = "cancelled"
    SKIPPED = "skipped"  # it will never be made

    @property
    def is_over(self) -> bool:
        return self not in (Standing.WAITING, Standing.LIVE)


class Standings(msgspec.Struct, frozen=True):
    """By position."""

    found: tuple[Standing, ...]
    jobs: Mapping[int, Workload]  # the present or last job of each task that was made
    counts: Mapping[Standing, int]

    @property
    def is_over(self) -> bool:
        return not (self.counts.get(Standing.WAITING) or self.counts.get(Standing.LIVE))

    def those(self, which: Standing) -> list[int]:
        return [at for at, each in enumerate(self.found) if each is which]


def standings_of(
    layout: Layout,
    jobs: Iterable[Workload],
    *,
    closed: bool = False,
    again: bool = False,
    retried: Collection[int] = (),
) -> Standings:
    """`jobs`: those of the group, live and ended, in the order in which they were made. `closed`: nothing
    more is made, so what was not is skipped. `again`: tasks whose worker was lost wait for another one.
    `retried`: tasks that have ended and wait once more."""
    newest: dict[int, Workload] = {}
    for job in jobs:
        before = newest.get(job.number)
        if before is None or not before.is_live:
            newest[job.number] = job
    rest = Standing.SKIPPED if closed else Standing.WAITING
    found = [rest] * layout.size
    for at, job in newest.items():
        waits = (again and lost_its_worker(job)) or (at in retried and not job.is_live)
        found[at] = rest if waits else standing_of(job)
    if not closed and layout.members:
        _skip(layout, found)
    return Standings(tuple(found), newest, Counter(found))


def lost_its_worker(job: Workload) -> bool:
    """Whether the job ended because its nodes did."""
    if job.is_live or job.desired is Desired.END:
        return False
    return job.outcome in (Outcome.LOST, Outcome.PREEMPTED) or job.reason is Reason.CLUSTER_GONE


def standing_of(job: Workload) -> Standing:
    if job.is_live:
        return Standing.LIVE
    if job.outcome is Outcome.SUCCEEDED:
        return Standing.SUCCEEDED
    if job.outcome is Outcome.CANCELLED and job.reason is not Reason.CLUSTER_GONE:
        return Standing.CANCELLED
    return Standing.FAILED


def _skip(layout: Layout, found: list[Standing]) -> None:
    """Mark the tasks whose turn can never come; those that wait for them, too."""
    changed = True
    while changed:
        changed = False
        for at, member in enumerate(layout.members):
            if found[at] is Standing.WAITING and member.after:
                before = [found[each] for each in member.after]
                if never_due(before, member.when):
                    found[at] = Standing.SKIPPED
                    changed = True


def never_due(before: Sequence[Standing], when: When) -> bool:
    """Whether what became of the tasks before rules out that this one ever runs.

    >>> never_due([Standing.FAILED, Standing.LIVE], When.SUCCEEDED)
    True
    """
    if when is When.SUCCEEDED:
        return any(each.is_over and each is not Standing.SUCCEEDED for each in before)
    if when is When.FAILED:
        return all(each.is_over and each is not Standing.FAILED for each in before)
    return False


def is_due(before: Sequence[Standing], when: When) -> bool:
    """Whether the turn of a task has come.

    >>> is_due([Standing.FAILED, Standing.LIVE], When.FAILED), is_due([], When.SUCCEEDED)
    (True, True)
    """
    if when is When.SUCCEEDED:
        return all(each is Standing.SUCCEEDED for each in before)
    if when is When.FAILED:
        return any(each is Standing.FAILED for each in before)
    return all(each.is_over for each in before)

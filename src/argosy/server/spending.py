"""What claims cost, by whom, by what, by day and by month; and what would have been paid elsewhere. Pure.

A claim tells the price and for how long it is held now, and the sum of its earlier periods. Those are laid
directly before the present one (or before its end): when exactly a cluster rested is not recorded, so a day's
share of a claim that rested is an estimate, its sum is not.
"""

from __future__ import annotations

import datetime
from collections.abc import Callable, Mapping, Sequence
from typing import Final, NamedTuple

from argosy.api.costs import CostGroup
from argosy.model.errors import ArgosyError
from argosy.model.offer import Choice
from argosy.model.phases import ClaimPhase
from argosy.model.rows import Claim, Workload
from argosy.model.units import render_day
from argosy.store.accounts import Spending

DAY_MS: Final = 86_400_000
HOUR_MS: Final = 3_600_000
GROUPINGS: Final = ("user", "project", "task", "infra", "day")


class Span(NamedTuple):
    """A time for which nodes were held, and what it cost."""

    start_ms: int
    end_ms: int
    cost_micro_usd: int

    def within(self, start_ms: int, end_ms: int) -> Span:
        """The part between two times."""
        start, end = max(self.start_ms, start_ms), min(self.end_ms, end_ms)
        if end <= start:
            return Span(start_ms, start_ms, 0)
        whole = self.end_ms - self.start_ms
        return Span(start, end, self.cost_micro_usd * (end - start) // whole)


class Rates(NamedTuple):
    """Micro-USD per hour for all nodes of a claim, elsewhere than it was. None: not known."""

    on_demand: int | None = None
    elsewhere: int | None = None


def spans_of(claim: Claim, now_ms: int) -> list[Span]:
    found = []
    end_ms = claim.gone_ms or now_ms
    if claim.held_ms:
        present = claim.cost_until(now_ms) - claim.cost_micro_usd
        found.append(Span(claim.held_ms, max(now_ms, claim.held_ms), present))
        end_ms = claim.held_ms
    elif claim.phase is ClaimPhase.STOPPED:
        end_ms = min(now_ms, claim.requested_ms + claim.spent_ms)
    if claim.spent_ms:
        found.append(Span(end_ms - claim.spent_ms, end_ms, claim.cost_micro_usd))
    return found


def month_of(now_ms: int) -> tuple[str, int, int]:
    """Name, start and end of the month (UTC) of a time.

    >>> month_of(0)
    ('1970-01', 0, 2678400000)
    """
    day = datetime.datetime.fromtimestamp(now_ms / 1000, datetime.UTC)
    start = datetime.datetime(day.year, day.month, 1, tzinfo=datetime.UTC)
    after = datetime.datetime(day.year + day.month // 12, day.month % 12 + 1, 1, tzinfo=datetime.UTC)
    return start.strftime("%Y-%m"), int(start.timestamp() * 1000), int(after.timestamp() * 1000)


def add_spending(spending: Spending, start_ms: int, now_ms: int) -> dict[str, int]:
    """Micro-USD since `start_ms` by project: what the store summed, and the share of each open claim."""
    total = dict(spending.settled)
    for project, claim in spending.open:
        cost = sum(span.within(start_ms, now_ms).cost_micro_usd for span in spans_of(claim, now_ms))
        total[project] = total.get(project, 0) + cost
    return total


def saved(cost_micro_usd: int, held_ms: int, rate: int | None) -> int | None:
    """What was saved against a rate per hour; below 0 when it was dearer."""
    return None if rate is None else rate * held_ms // HOUR_MS - cost_micro_usd


class _Sum:
    def __init__(self) -> None:
        self.held_ms = 0
        self.cost = 0
        self.on_demand: int | None = None
        self.elsewhere: int | None = None

    def add(self, span: Span, rates: Rates) -> None:
        held_ms = span.end_ms - span.start_ms
        self.held_ms += held_ms
        self.cost += span.cost_micro_usd
        more = saved(span.cost_micro_usd, held_ms, rates.on_demand)
        self.on_demand = self.on_demand if more is None else (self.on_demand or 0) + more
        more = saved(span.cost_micro_usd, held_ms, rates.elsewhere)
        self.elsewhere = self.elsewhere if more is None else (self.elsewhere or 0) + more


def grouped(
    by: str,
    claims: Sequence[Claim],
    owners: Mapping[str, Workload],
    rates: Callable[[Claim], Rates],
    *,
    since_ms: int,
    now_ms: int,
) -> tuple[CostGroup, ...]:
    """Costs in groups, dearest first (days: in order). Raises `usage` for a grouping that does not exist."""
    if by not in GROUPINGS:
        raise ArgosyError("usage", f"costs cannot be grouped by `{by}`", hint=f"by {', '.join(GROUPINGS)}")
    sums: dict[str, _Sum] = {}
    for claim in claims:
        owner = owners.get(claim.workload_id)
        if owner is None:
            continue
        rate = rates(claim)
        for span in spans_of(claim, now_ms):
            if by != "day":
                sums.setdefault(_key(by, owner, claim.choice), _Sum()).add(span, rate)
                continue
            first = max(span.start_ms, since_ms) // DAY_MS
            for day in range(first, (max(span.end_ms, span.start_ms + 1) - 1) // DAY_MS + 1):
                part = span.within(day * DAY_MS, (day + 1) * DAY_MS)
                sums.setdefault(render_day(day), _Sum()).add(part, rate)
    groups = [
        CostGroup(
            key=key,
            held_s=one.held_ms // 1000,
            cost_micro_usd=one.cost,
            saved_on_demand_micro_usd=one.on_demand,
            saved_elsewhere_micro_usd=one.elsewhere,
        )
        for key, one in sums.items()
    ]
    return tuple(sorted(groups, key=lambda g: (g.key,) if by == "day" else (-g.cost_micro_usd, g.key)))


def _key(by: str, owner: Workload, choice: Choice) -> str:
    if by == "infra":
        offer = choice.offer
        return "/".join(part for part in (offer.provider, offer.region, offer.zone) if part)
    found = {"user": owner.user, "project": owner.project, "task": owner.name}[by]
    return found or "-"

"""Spot, on-demand and owned side by side: rows for `argosy plan --compare`."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Final

import msgspec

from argosy.model.offer import Capacity, Choice
from argosy.model.priced import CompareView
from argosy.planning.outlook import DeadlineAsk, Policy, plan_deadline

_KINDS: Final = (
    (Capacity.OWNED, "owned"),
    (Capacity.RESERVED, "reserved"),
    (Capacity.SPOT, "spot"),
    (Capacity.ON_DEMAND, "on-demand"),
    (Capacity.QUEUED, "queued"),
)


def compare(
    choices: Sequence[Choice],
    *,
    num_nodes: int = 1,
    ask: DeadlineAsk | None = None,
    hazard: Callable[[Choice], float | None] | None = None,
    durations: Callable[[Choice], int] | None = None,
    deadline_given: bool = True,
) -> tuple[CompareView, ...]:
    """One row for each capacity that is there, cheapest first.

    Without `ask` the best of a capacity has the lowest price per hour; with it, the lowest expected total.
    `deadline_given` False: the deadline in `ask` is only a horizon, no chance is told.
    """
    rows: list[CompareView] = []
    for capacity, kind in _KINDS:
        mine = [choice for choice in choices if choice.offer.capacity is capacity]
        if not mine:
            continue
        if ask is None:
            rows.append(_row(kind, min(mine, key=lambda c: c.price_micro_usd), num_nodes))
            continue
        policy = Policy.SPOT if capacity is Capacity.SPOT else Policy.ON_DEMAND
        plan = plan_deadline(mine, ask, hazard=hazard, durations=durations)
        best = next(each for each in plan.outlooks if each.policy is policy)
        rows.append(
            msgspec.structs.replace(
                _row(kind, best.choice, num_nodes),
                total_micro_usd=best.cost_micro_usd,
                finish_s=best.finish_s,
                losses=best.losses,
                in_time=best.probability if deadline_given else None,
            )
        )

    def money(row: CompareView) -> int:
        return row.price_micro_usd if row.total_micro_usd is None else row.total_micro_usd

    usual = next((money(row) for row in rows if row.kind == "on-demand"), None)
    if usual:
        rows = [msgspec.structs.replace(row, against_on_demand=1 - money(row) / usual) for row in rows]
    return tuple(sorted(rows, key=money))


def _row(kind: str, choice: Choice, num_nodes: int) -> CompareView:
    offer = choice.offer
    return CompareView(
        kind=kind,
        place="/".join(part for part in (offer.provider, offer.region, offer.zone) if part),
        instance_type=offer.shape.instance_type,
        num_nodes=num_nodes,
        price_micro_usd=choice.price_micro_usd,
        estimated=offer.estimated,
        note="its price is set by your configuration" if offer.capacity is Capacity.OWNED else "",
    )

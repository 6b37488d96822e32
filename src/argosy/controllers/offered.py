"""What a workload could have now, as a view shows it: live quotes and the rows of the catalog. Pure."""

from __future__ import annotations

from argosy.controllers.view import View
from argosy.model.offer import Plan
from argosy.model.resources import Resources
from argosy.planning.offered import Hidden, Supply, plan_offered, rows_for


def plan_in(
    view: View,
    wishes: tuple[Resources, ...],
    num_nodes: int,
    *,
    ordered: bool = False,
    objective: str = "cost",
    without: Hidden | None = None,
) -> Plan:
    """The plan for `wishes` over all that is offered in the view. `without`: places that are left out."""
    cares = view.atlas is not None and any(wish.says_where for wish in wishes)
    atlas = view.atlas() if cares and view.atlas is not None else None
    limit, supply = rows_for(objective), Supply(view.offers, view.abilities, view.priced, None, atlas)
    kept = view.priced or (view.pools.plans if view.pools is not None else None)
    if kept is not None and without is None:
        return kept.plan(wishes, num_nodes, supply, ordered=ordered, limit=limit)
    return plan_offered(wishes, num_nodes, supply, ordered=ordered, limit=limit, without=without).plan

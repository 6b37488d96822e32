"""How many replicas a service is to have now. Pure."""

from __future__ import annotations

from msgspec.structs import replace

from argosy.controllers.service.draft import Draft
from argosy.model.kinds.service import Revision
from argosy.model.scaling import PRESETS, REQUESTS, Formula, Policy, Target
from argosy.model.units import many


def target_of(draft: Draft, revision: Revision) -> int:
    """So many replicas are to serve. What the load asks for becomes the row's `target`."""
    if draft.spec.fixed is not None:
        return draft.spec.fixed
    wanted = revision.serving.replicas
    if wanted.is_fixed:
        return wanted.least + wanted.spare
    fact = draft.view.observed.served(draft.row.id)
    target = int(draft.changes.get("target", draft.before.target))
    if fact is not None and fact.wanted >= 0 and fact.wanted != target:
        if target >= 0 and "target" not in draft.changes:
            draft.tell("scaled", f"from {target} to {many(fact.wanted, 'replica')}: {fact.why}")
        target = fact.wanted
        draft.changes |= {"target": target, "scaled_ms": draft.now_ms, "scaled_why": fact.why}
    return max(wanted.least, min(wanted.most, 1 if target < 0 else target))


def scaling_policy(revision: Revision) -> Policy:
    """The policy that the autoscaler follows, from the words of the task file."""
    replicas = revision.serving.replicas
    targets: tuple[Target, ...] = ()
    if replicas.qps_milli:
        each = replicas.qps_milli.get("", min(replicas.qps_milli.values()))
        targets = (Target(signal=REQUESTS, value=each / 1000, trigger="target_qps_per_replica"),)
    formula = Formula(replicas.formula) if replicas.formula else Formula.WORK
    return replace(
        PRESETS[formula],
        min_replicas=replicas.least,
        max_replicas=replicas.most,
        targets=(*targets, *replicas.targets),
        crons=replicas.crons,
        spare=replicas.spare,
        up_delay_s=replicas.up_ms // 1000,
        hold_s=replicas.down_ms // 1000,
        idle_s=replicas.down_ms // 1000,
    )

"""Workloads that wait for machines of their own (managed jobs, queued clusters), and every place that would
do. Pure."""

from __future__ import annotations

from collections.abc import Sequence

import msgspec

from argosy.controllers.deadlines import done_fraction, step_of
from argosy.controllers.elastic import comes_back
from argosy.controllers.failover import refused_in_round
from argosy.controllers.offered import plan_in
from argosy.controllers.sharing import orders_of
from argosy.controllers.view import View
from argosy.model.kinds import gang_of, gangs, kind_of
from argosy.model.offer import Choice, Plan, Rejection
from argosy.model.phases import ClaimPhase, Desired, WorkloadPhase
from argosy.model.resources import Resources
from argosy.model.rows import Claim, Workload
from argosy.model.task import Task
from argosy.planning.confirmed import keep_to
from argosy.planning.deadline import order_choices, wishes_of
from argosy.scheduler.ask import Ask
from argosy.scheduler.machines import is_owned
from argosy.scheduler.requests import ask_of_choices, with_floor


class Wanted(msgspec.Struct, frozen=True, kw_only=True):
    """What one workload would take. Owned machines that come before all others are asked for in the pool;
    `elsewhere` is where it goes when they have no room."""

    workload: Workload
    num_nodes: int  # that places elsewhere are asked for; `ask` says how many here
    ordered: bool = False  # in order of preference rather than by price
    here: tuple[Choice, ...] = ()
    elsewhere: tuple[Choice, ...] = ()
    rejected: tuple[Rejection, ...] = ()  # why nothing else would do
    ask: Ask | None = None  # None: no owned machine would do, or others are better
    why: str = ""  # what the deadline says about the order
    rests: Claim | None = None  # a cluster at rest that is to run again: this claim, on its own machine
    dear: str = ""  # what would do costs more than was confirmed: it waits for the price
    unsure: bool = False  # a place that would do may not have told yet what it has
    timed: bool = False  # the order of places depends on the time
    most: int = 0  # of an elastic gang: `ask` may grow to so many nodes
    waits_ms: int = 0  # nothing is ordered elsewhere before: there is slack to wait for spot

    @property
    def hopes(self) -> bool:
        """Whether there may be a place for it that is not one of the owned machines."""
        return bool(self.elsewhere or self.unsure or self.dear)


def wanted_of(view: View, workload: Workload) -> Wanted | None:
    """None: it waits for nothing, or not for a place of its own."""
    if workload.desired is not Desired.RUN:
        return None
    if not gangs(workload):
        return None
    if not kind_of(workload).runs:
        if workload.phase is WorkloadPhase.QUEUED:
            return _of(view, workload)
        return _of_resting(view, workload) if workload.phase is WorkloadPhase.STOPPED else None
    if workload.host_id is not None or view.rows.attempt_of(workload.id) is not None:
        return None
    if comes_back(view, workload):  # then there is more to have
        return Wanted(workload=workload, num_nodes=0, unsure=True, timed=True)
    # Its last attempt has ended, so what it ran on may be on its way back while it goes on elsewhere.
    waits = workload.phase is WorkloadPhase.QUEUED or (
        workload.phase is WorkloadPhase.RECOVERING
        and all(claim.desired is Desired.END for claim in orders_of(view.rows, workload))
    )
    return _of(view, workload) if waits else None


def places_left(view: View, workload: Workload) -> Wanted:
    """Where a workload whose order was refused may go: places that have not refused it in this round."""
    return _of(view, workload, strict=True)


def _of(view: View, workload: Workload, *, strict: bool = False) -> Wanted:
    gang = gang_of(workload)
    num_nodes, ordered, task = gang.size or gang.num_nodes, gang.ordered, gang.task
    wishes = with_floor(wishes_of(task)) if task is not None else _never_spot_unasked(gang.resources)
    objective = task.objective if task is not None else "cost"
    without = refused_in_round(workload)

    def planned(nodes: int) -> Plan:
        made = plan_in(view, wishes, nodes, ordered=ordered, objective=objective, without=without)
        if without is not None and not made.choices and not strict:  # all have refused: they may have some
            made = plan_in(view, wishes, nodes, ordered=ordered, objective=objective)
        return made

    few = planned(gang.least) if gang.is_elastic else None
    made = planned(num_nodes)
    if few is not None and not made.choices:
        made, num_nodes = few, gang.least
    choices, why = made.choices, ""
    timed = task is not None and is_timed(task)
    if task is not None and timed:
        order = order_choices(
            choices,
            task,
            now_ms=view.now_ms,
            submitted_ms=workload.created_ms,
            done_fraction=done_fraction(workload, view.now_ms),
        )
        choices, why = order.choices, order.reason
    choices, dear = keep_to(choices, gang.confirmed)
    here, elsewhere = split(view, choices)
    if few is not None:
        here, _ = split(view, keep_to(few.choices, gang.confirmed)[0])
    step = step_of(view, workload, elsewhere) if timed and elsewhere else None
    if step is not None and step.choices:
        elsewhere = step.choices
    ask = ask_of_choices(workload, here, gang.least, view.rows.tenancy, view.history) if here else None
    return Wanted(
        workload=workload,
        num_nodes=num_nodes,
        ordered=ordered,
        here=here,
        elsewhere=elsewhere,
        rejected=made.rejected,
        ask=ask,
        most=gang.num_nodes if few is not None else 0,
        why=why,
        dear=dear,
        unsure=any(not wish.infra.provider or wish.infra.provider in view.silent for wish in wishes)
        if view.silent
        else False,
        timed=timed or bool(view.silent),
        waits_ms=step.again_ms if step is not None and step.waits else 0,
    )


def _of_resting(view: View, cluster: Workload) -> Wanted | None:
    """A cluster at rest on owned machines has its disks there, so it asks for the same ones again."""
    claims = [claim for claim in view.rows.claims_of(cluster.id) if claim.phase is ClaimPhase.STOPPED]
    if not claims or not is_owned(claims[0].choice.offer, view.abilities):
        return None
    claim = claims[0]
    machines = tuple(sorted({place.node_id for place in claim.placements}))
    same = machines if claim.choice.offer.apart or len(machines) == 1 else ()
    ask = ask_of_choices(cluster, (claim.choice,), claim.count, view.rows.tenancy, view.history, only=same)
    return Wanted(workload=cluster, num_nodes=claim.count, here=(claim.choice,), ask=ask, rests=claim)


def split(view: View, choices: Sequence[Choice]) -> tuple[tuple[Choice, ...], tuple[Choice, ...]]:
    """(owned ones that come before all others, those that are not owned), both in their order."""
    here: list[Choice] = []
    elsewhere: list[Choice] = []
    for choice in choices:
        if not is_owned(choice.offer, view.abilities):
            elsewhere.append(choice)
        elif not elsewhere:
            here.append(choice)
    return tuple(here), tuple(elsewhere)


def is_timed(task: Task) -> bool:
    """Whether the order of its places depends on more than their price."""
    return task.deadline_s is not None or task.deadline_at_ms is not None or task.objective != "cost"


def _never_spot_unasked(wishes: tuple[Resources, ...]) -> tuple[Resources, ...]:
    """Clusters do not recover: who does not speak of spot does not get machines that are taken back."""
    return tuple(
        wish if wish.use_spot is not None else msgspec.structs.replace(wish, use_spot=False)
        for wish in wishes
    )

"""Rows to what people see. Pure: rows, facts and the time in, API types out."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from types import MappingProxyType

from argosy.api.clusters import ClusterView, NodeView
from argosy.api.costs import CostView
from argosy.api.jobs import JobView
from argosy.controllers.cluster.idle import in_use, stops_at_ms
from argosy.model.kinds import kind_of
from argosy.model.kinds.cluster import ClusterSpec, cluster_spec
from argosy.model.kinds.job import job_label, job_spec, job_state, task_id
from argosy.model.offer import Choice
from argosy.model.phases import Desired, NodePhase, Outcome, WorkloadPhase
from argosy.model.reasons import Reason, explained, hint_for
from argosy.model.rows import Attempt, Claim, Node, Workload
from argosy.scheduler.picture import Pending
from argosy.server.ports import ObservedFacts
from argosy.server.spending import HOUR_MS, Rates
from argosy.store.snapshot import Snapshot


def view_cluster(
    cluster: Workload,
    snapshot: Snapshot,
    observed: ObservedFacts,
    *,
    now_ms: int,
    claims: Sequence[Claim] = (),
    pending: Pending | None = None,
) -> ClusterView:
    """`claims`: those of a finished cluster, which the snapshot does not have. `pending`: why it waits."""
    spec = cluster_spec(cluster)
    mine = claims or snapshot.claims_of(cluster.id)
    claim = next((each for each in mine if each.is_live), mine[-1] if mine else None)
    nodes = snapshot.nodes_of(cluster.id) if cluster.is_live else ()
    jobs = snapshot.jobs_of(cluster.id) if cluster.is_live else ()
    jobs_queued = sum(job.phase is WorkloadPhase.QUEUED for job in jobs)
    return ClusterView(
        id=cluster.id,
        name=cluster.name,
        status=_cluster_status(cluster, nodes),
        infra=render_place(claim.choice) if claim is not None else _wished_place(spec),
        resources=render_grant(claim.choice) if claim is not None else spec.resources[0].render(),
        num_nodes=spec.num_nodes,
        user=cluster.user,
        project=cluster.project,
        queue=cluster.queue,
        position=pending.position if pending is not None else 0,
        starts_at_ms=pending.starts_at_ms if pending is not None else None,
        created_ms=cluster.created_ms,
        detail=_why(pending) or _cluster_detail(cluster, claim, nodes),
        autostop=spec.autostop,
        down_when_done=spec.down_when_done,
        price_micro_usd=claim.choice.price_micro_usd if claim is not None else 0,
        cost_micro_usd=sum(each.cost_until(now_ms) for each in mine),
        nodes=tuple(_view_node(node, observed) for node in nodes),
        jobs_running=len(jobs) - jobs_queued,
        jobs_queued=jobs_queued,
        in_use=in_use(cluster, jobs, nodes, observed, now_ms) if _may_rest(cluster) else "",
        stops_at_ms=stops_at_ms(cluster, nodes, observed) if _may_rest(cluster) else 0,
    )


def _may_rest(cluster: Workload) -> bool:
    """Whether it runs and has a policy by which it stops."""
    policy = cluster_spec(cluster).autostop
    runs = cluster.phase is WorkloadPhase.RUNNING and cluster.desired is Desired.RUN
    return runs and (policy.idle_s is not None or policy.max_s is not None)


def _cluster_status(cluster: Workload, nodes: Sequence[Node]) -> str:
    if cluster.phase is WorkloadPhase.RUNNING:
        if cluster.desired is not Desired.RUN:
            return WorkloadPhase.STOPPING.value  # as good as: the wish is recorded
        if any(node.phase is NodePhase.UNREACHABLE for node in nodes):
            return "degraded"
    return cluster.phase.value


def _cluster_detail(cluster: Workload, claim: Claim | None, nodes: Sequence[Node]) -> str:
    if cluster.phase is WorkloadPhase.RUNNING:
        away = [node for node in nodes if node.phase is NodePhase.UNREACHABLE]
        if away:
            which = ", ".join(str(node.index) for node in away)
            return f"node {which} does not answer; `argosy start {cluster.name}` replaces dead nodes"
    if cluster.reason is not None:
        return render_reason(
            cluster.reason,
            cluster.detail,
            cluster=cluster.name,
            gone=cluster.phase is WorkloadPhase.FINISHED or cluster.desired is Desired.END,
        )
    if cluster.detail:
        return cluster.detail
    if cluster.phase is WorkloadPhase.STARTING and claim is not None:
        return claim.detail
    return ""


def _view_node(node: Node, observed: ObservedFacts) -> NodeView:
    facts = observed.node(node.id) or node.facts
    own = set(node.devices)
    return NodeView(
        id=node.id,
        index=node.index,
        phase=node.phase.value,
        ip=node.ip,
        hostname=facts.hostname or node.facts.hostname,
        cpus_milli=node.cpus_milli,
        memory_bytes=node.memory_bytes,
        devices=tuple(device for device in facts.devices or node.facts.devices if device.index in own),
        load_milli=facts.load_milli,
        memory_used_bytes=facts.memory_used_bytes,
        user=facts.user or node.facts.user,
        detail=render_reason(node.reason, "") if node.reason is not None else "",
    )


def view_job(
    job: Workload, *, cluster: str | None, attempt: Attempt | None = None, pending: Pending | None = None
) -> JobView:
    """`attempt`: the present or last one, when there is one. `pending`: why it waits."""
    spec, state = job_spec(job), job_state(job)
    task = spec.task
    return JobView(
        id=job.id,
        number=job.number,
        name=job.name,
        cluster=cluster,
        managed=spec.managed,
        status=job_status(job),
        phase=job.phase.value,
        outcome=job.outcome.value if job.outcome else None,
        reason=job.reason.value if job.reason else None,
        detail=_why(pending) or why_of_job(job, cluster),
        exit_code=exit_code(job, attempt),
        user=job.user,
        created_ms=job.created_ms,
        started_ms=job.started_ms,
        ended_ms=job.ended_ms,
        resources=task.resources[0].render(),
        num_nodes=len(attempt.placements) if task.min_nodes and attempt is not None else task.num_nodes,
        exit_codes=attempt.exit_codes if attempt is not None else (),
        recoveries=state.recoveries,
        checkpoint_ms=state.checkpoint.at_ms if state.checkpoint is not None else 0,
        checkpoint_bytes=state.checkpoint.size_bytes if state.checkpoint is not None else 0,
        errors=state.errors,
        attempt=attempt.id if attempt is not None else state.attempt_id,
        task_id=task_id(job),
        project=job.project,
        queue=job.queue,
        position=pending.position if pending is not None else 0,
        starts_at_ms=pending.starts_at_ms if pending is not None else None,
        evictions=state.evictions,
        preemptible=task.scheduling.preemptible,
        group=spec.member.group if spec.member is not None else None,
    )


def why_of_job(job: Workload, cluster: str | None) -> str:
    """Why it ended, or waits again, and what to do. `cluster`: the name of the one it runs on."""
    if job.reason is None:
        return job.detail
    return render_reason(job.reason, job.detail, cluster=cluster or "", number=job_label(job))


def exit_code(job: Workload, attempt: Attempt | None) -> int | None:
    """The exit code of the rank that failed first; 0 when the job succeeded; None when it has not ended, or
    no program of it failed: ranks that were told to stop do not count."""
    if job.phase is not WorkloadPhase.FINISHED:
        return None
    if job.outcome is Outcome.SUCCEEDED:
        return 0
    if attempt is None or attempt.failed_rank is None:
        return None
    return attempt.exit_codes[attempt.failed_rank] if attempt.failed_rank < len(attempt.exit_codes) else None


def _why(pending: Pending | None) -> str:
    return pending.text if pending is not None else ""


def job_status(job: Workload) -> str:
    """The phase; when finished, how it ended."""
    if job.outcome is not None and job.phase is WorkloadPhase.FINISHED:
        return job.outcome.value
    if job.desired is Desired.END and job.phase is not WorkloadPhase.FINISHED:
        return WorkloadPhase.STOPPING.value
    return job.phase.value


def view_cost(
    workload: Workload,
    claims: Sequence[Claim],
    *,
    now_ms: int,
    rates: Mapping[str, Rates] = MappingProxyType({}),
) -> CostView:
    """`rates`: what the same would cost elsewhere per hour, by claim."""
    claim = claims[-1]
    held_ms = sum(each.held_until(now_ms) for each in claims)
    status = job_status(workload) if kind_of(workload).runs else workload.phase.value
    return CostView(
        name=workload.name,
        kind=workload.kind,
        infra=render_place(claim.choice),
        resources=render_grant(claim.choice),
        num_nodes=claim.count,
        held_s=held_ms // 1000,
        price_micro_usd=claim.choice.price_micro_usd,
        cost_micro_usd=sum(each.cost_until(now_ms) for each in claims),
        status=status,
        user=workload.user,
        project=workload.project,
        on_demand_micro_usd=_at_rate(claims, now_ms, {one: rate.on_demand for one, rate in rates.items()}),
        elsewhere_micro_usd=_at_rate(claims, now_ms, {one: rate.elsewhere for one, rate in rates.items()}),
    )


def _at_rate(claims: Sequence[Claim], now_ms: int, rates: Mapping[str, int | None]) -> int | None:
    """What the claims would have cost; None when it is not known of any of them (the others count as they
    are)."""
    known = {one.id: rate for one in claims if (rate := rates.get(one.id)) is not None}
    if not known:
        return None
    return sum(
        known[one.id] * one.held_until(now_ms) // HOUR_MS if one.id in known else one.cost_until(now_ms)
        for one in claims
    )


def render_place(choice: Choice) -> str:
    offer = choice.offer
    return "/".join(part for part in (offer.provider, offer.region, offer.zone) if part)


def render_grant(choice: Choice) -> str:
    """What was asked for, or where nothing was, what it is."""
    wish = choice.resources.render()
    return wish if wish != "default" else choice.offer.shape.instance_type or wish


def _wished_place(spec: ClusterSpec) -> str:
    infra = spec.resources[0].infra
    return "/".join(part for part in (infra.provider, infra.region, infra.zone) if part) or "-"


def render_reason(
    reason: Reason, detail: str, *, cluster: str = "", number: int | str = 0, gone: bool = False
) -> str:
    """What happened and what to do, with the commands of this cluster or job (see `hint_for`)."""
    hint = hint_for(reason, cluster=cluster, number=number, gone=gone)
    return explained(detail or reason.value.replace("-", " "), hint)

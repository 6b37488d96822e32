"""What plans know about running times and places: earlier runs, speeds, power, carbon of grids, losses."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Final

from argosy.model.kinds import gang_of
from argosy.model.offer import Choice
from argosy.model.phases import Outcome
from argosy.model.rows import Claim, Workload
from argosy.model.task import Task
from argosy.store.store import Store

if TYPE_CHECKING:
    from argosy.catalog import Catalog
    from argosy.planning.objective import Known, Run

_RUNS_SINCE_MS: Final = (
    30 * 86_400_000
)  # so long before the end of the first of them their claims are looked for


def known_of(catalog: Callable[[], Catalog], task: Task, runs: Sequence[Run]) -> Known:
    """What objectives and deadlines are weighed with. The catalog is only asked where it matters."""
    from argosy.planning.objective import Known

    progress = task.progress_milli / 1000
    if task.objective == "cost" and not runs:
        return Known(estimated_s=task.estimated_s, progress=progress)
    facts = catalog().accelerators()
    return Known(
        estimated_s=task.estimated_s,
        progress=progress,
        runs=tuple(runs),
        speeds={fact.name: fact.bf16_tflops or fact.fp16_tflops or fact.fp32_tflops for fact in facts},
        watts={fact.name: float(fact.tdp_w) for fact in facts if fact.tdp_w},
        carbon_g_per_kwh={place: grid.grams_per_kwh for place, grid in catalog().grids().items()}
        if task.objective == "carbon"
        else {},
    )


def hazard_of(catalog: Catalog, choice: Choice) -> float | None:
    """Losses of one spot node per hour, where they are published."""
    from argosy.planning.outlook import hazard_per_hour

    offer = choice.offer
    band = catalog.hazard(offer.provider, offer.region, offer.shape.instance_type)
    return None if band is None else hazard_per_hour(band.low_pct, band.high_pct)


async def earlier_runs(store: Store, task: Task) -> list[Run]:
    """Jobs of the same name that went to their end, managed ones and those of clusters: how long this one
    will take."""
    if not task.name:
        return []
    done = [
        job for job in await store.load_runs(task.name) if job.outcome is Outcome.SUCCEEDED and job.started_ms
    ]
    if not done:
        return []
    claims = await store.load_claims(since_ms=min(job.ended_ms for job in done) - _RUNS_SINCE_MS)
    last = {claim.workload_id: claim for claim in claims}
    return [run for job in done if (run := _run_of(job, last)) is not None]


def _run_of(job: Workload, claims: Mapping[str, Claim]) -> Run | None:
    from argosy.planning.objective import Run

    claim = claims.get(job.host_id or job.id)
    if claim is None:
        return None
    choice = claim.choice
    model, milli, num_nodes = choice.accelerator or "", choice.accelerators_milli, claim.count
    if job.host_id is not None:
        # It shared the nodes of its cluster: what it asked for is what it had.
        gang = gang_of(job)
        wish, num_nodes = gang.resources[0], gang.num_nodes
        milli = wish.accelerator.milli if wish.accelerator is not None else 0
        model = model if milli else ""
    return Run(
        instance_type=choice.offer.shape.instance_type,
        accelerator=model,
        accelerators_milli=milli,
        num_nodes=num_nodes,
        duration_s=max(1, (job.ended_ms - job.started_ms) // 1000),
    )

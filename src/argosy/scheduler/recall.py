"""Past usage, from the rows that record it: claims on owned machines, attempts on the nodes of clusters.

So what a queue borrowed lately is in no row of its own, and still known after a restart: the books of a pool
are opened with it (`scheduler.quota.Quotas.recall`). It is exact but for what no row says: the tree and
the machines as they were then (those of today count), and when a cluster that was stopped for a while was
held (its earlier periods count as one, from its beginning).
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Final, NamedTuple

from argosy.model.kinds import kind_of
from argosy.model.kinds.job import job_task
from argosy.model.offer import Placement
from argosy.model.rows import Attempt, Claim, Workload
from argosy.model.tenancy import Amounts, Tenancy
from argosy.scheduler.ask import Need
from argosy.scheduler.inventory import served_need
from argosy.scheduler.pool import Pool
from argosy.scheduler.quota import Span, amounts_of
from argosy.scheduler.requests import holds_room, needs_of_job, queue_of

HALF_LIVES: Final = 8  # what is older counts less than one part in 256


class Use(NamedTuple):
    """What one holder used."""

    queue: str
    amounts: Amounts
    devices: tuple[Placement, ...]  # where the machines know of which model they were; (): `amounts` tells
    from_ms: int
    to_ms: int  # 0: it is used still

    def span(self, pool: Pool, now_ms: int) -> Span:
        amounts, model = self.amounts, pool.model_of(self.devices)
        if model:
            amounts = amounts | {f"gpus/{model}": amounts["gpus"]}
        return Span(self.queue, amounts, self.from_ms, self.to_ms or now_ms)


#: By cluster; None: of all owned machines.
Uses = Mapping[str | None, list[Use]]


def uses_of_claim(owner: Workload, claim: Claim, tenancy: Tenancy) -> Iterator[Use]:
    """Of a claim on owned machines."""
    choice = claim.choice
    need = Need(
        cpus_milli=choice.cpus_milli,
        memory_bytes=choice.memory_bytes,
        gpu_milli=choice.accelerators_milli,
        models=(choice.accelerator,) if choice.accelerator else (),
    )
    queue, amounts = queue_of(owner, tenancy), amounts_of(need, claim.count)
    if kind_of(owner).runs:  # it does not rest
        yield Use(queue, amounts, (), claim.requested_ms, claim.gone_ms)
        return
    if claim.spent_ms:
        yield Use(queue, amounts, (), claim.requested_ms, claim.requested_ms + claim.spent_ms)
    if holds_room(claim) and (claim.held_ms or not claim.spent_ms):
        yield Use(queue, amounts, (), claim.held_ms or claim.requested_ms, 0)


def uses_of_attempt(job: Workload, attempt: Attempt, tenancy: Tenancy, share_milli: int) -> Iterator[Use]:
    """Of an attempt on the nodes of a cluster. `share_milli`: see `share_of_nodes`."""
    queue = queue_of(job, tenancy)
    need = served_need(needs_of_job(job, tenancy, queue, share_milli), attempt.placements)
    amounts = amounts_of(need, job_task(job).num_nodes)
    counted = "gpus" not in amounts or any("/" in name for name in amounts)
    devices = () if counted else attempt.placements
    yield Use(queue, amounts, devices, attempt.placed_ms, attempt.ended_ms)

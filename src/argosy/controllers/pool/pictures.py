"""Pools as people see them, and why something waits, in words. Pure."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Final

from argosy.controllers.pool.caches import WAITING, caches_of
from argosy.controllers.pool.wanted import Wanted, wanted_of
from argosy.controllers.pool.words import one_line
from argosy.controllers.view import View
from argosy.model.kinds import kind_of
from argosy.model.phases import Desired, WorkloadPhase
from argosy.model.rows import Workload
from argosy.model.tenancy import QueueUsage
from argosy.scheduler.ask import Ask, Machine, Running, Waiting
from argosy.scheduler.cache import PoolCache
from argosy.scheduler.estimate import expected_end_ms, is_guess
from argosy.scheduler.machines import WITHHELD
from argosy.scheduler.picture import Held, PoolPicture, Queued
from argosy.scheduler.requests import ask_of_job, queue_of

EXPLAINED_MAX: Final = 16  # of a picture: the others are explained when somebody asks for one
FORECAST_SHOWN: Final = 4  # of these it is told when they start,
FORECAST_MACHINES: Final = 64  # where that is worked out in milliseconds


def explain(view: View, workload_id: str, *, when: bool = True) -> Waiting | None:
    """Why a queued cluster or job does not start now, and when it probably will; None when it waits for no
    pool."""
    workload = view.rows.workloads.get(workload_id)
    if workload is None or workload.desired is not Desired.RUN:
        return None
    if workload.host_id is not None:
        return _explain_job(view, workload, when)
    books, wanted = caches_of(view).owned(view)
    each = wanted.get(workload_id)
    if each is None:
        return None
    return _explain_wanted(view, books, each, when)


def _explain_job(view: View, job: Workload, when: bool) -> Waiting | None:
    cluster = view.rows.workloads.get(job.host_id or "")
    if cluster is None or job.phase not in WAITING or view.rows.attempt_of(job.id) is not None:
        return None
    if cluster.phase is not WorkloadPhase.RUNNING:
        return Waiting(ask_id=job.id, code="later", text=_of_cluster(view, cluster))
    books = caches_of(view).of_cluster(view, cluster)
    if not isinstance(books.known.get(job.id), Ask):
        return None
    return books.pool.explain(job.id, view.now_ms, when=when)


def explain_new(view: View, workload: Workload) -> str:
    """Of a workload that is not in the rows yet: why no state of the machines that it would wait for could
    ever hold it, with the nearest machine. "" when some could, when it may go elsewhere, and when nothing is
    known about them."""
    if workload.host_id is not None:
        cluster = view.rows.workloads.get(workload.host_id)
        if cluster is None or cluster.phase is not WorkloadPhase.RUNNING:
            return ""
        books, ask = (
            caches_of(view).of_cluster(view, cluster),
            ask_of_job(workload, view.rows.tenancy, view.history),
        )
    else:
        wanted = wanted_of(view, workload)
        if wanted is None or wanted.ask is None or wanted.elsewhere or wanted.unsure:
            return ""
        (books, _), ask = caches_of(view).owned(view), wanted.ask
    if not books.machines:
        return ""
    return books.never(ask)


def _of_cluster(view: View, cluster: Workload) -> str:
    phase = cluster.phase
    if phase is WorkloadPhase.STOPPED and cluster.desired is not Desired.RUN:
        return f"waits for the cluster, which is stopped: `argosy start {cluster.name}`"
    if phase in (WorkloadPhase.QUEUED, WorkloadPhase.STOPPED):
        text = tell(view, cluster.id) or cluster.detail
        return f"waits for the cluster, which {text or 'has no nodes yet'}"
    return f"waits for the cluster, which is {phase.value}"


def _explain_wanted(view: View, books: PoolCache, each: Wanted, when: bool) -> Waiting:
    id = each.workload.id
    if isinstance(books.known.get(id), Ask):
        return books.pool.explain(id, view.now_ms, when=when)
    if each.elsewhere:
        return Waiting(ask_id=id, code="later", text="gets its nodes now")
    return Waiting(
        ask_id=id, code="never", text=each.rejected[0].text if each.rejected else "waits for offers"
    )


def tell(view: View, workload_id: str) -> str:
    """The same in one line, as lists show it; "" when it waits for no pool."""
    found = explain(view, workload_id, when=False)
    if found is None:
        return ""
    workload = view.rows.workloads[workload_id]
    book = caches_of(view)
    cluster = view.rows.workloads.get(workload.host_id or "")
    if cluster is None:
        books, _ = book.owned(view)
    elif cluster.phase is WorkloadPhase.RUNNING:
        books = book.of_cluster(view, cluster)
    else:
        return found.text
    ask = books.known.get(workload_id)
    return one_line(books, ask, found, view.rows.workloads) if isinstance(ask, Ask) else found.text


class Waits(Mapping[str, str]):
    """Why each queued cluster and job waits, by id. Looked up when asked for: a queue may be long."""

    def __init__(self, view: View) -> None:
        self._view = view
        self._texts: dict[str, str] = {}

    def __getitem__(self, id: str) -> str:
        if id not in self._texts:
            self._texts[id] = tell(self._view, id)
        if not self._texts[id]:
            raise KeyError(id)
        return self._texts[id]

    def _ids(self) -> list[str]:
        return [
            row.id
            for row in self._view.rows.workloads.values()
            if row.desired is Desired.RUN
            and row.phase in (*WAITING, WorkloadPhase.STOPPED)
            and self.get(row.id)
        ]

    def __iter__(self) -> Iterator[str]:
        return iter(self._ids())

    def __len__(self) -> int:
        return len(self._ids())


def picture_pools(view: View) -> Sequence[PoolPicture]:
    """The owned machines of each provider, by name, then the nodes of running clusters, by name."""
    book = caches_of(view)
    books, _ = book.owned(view)
    providers: dict[str, list[Machine]] = {}
    for machine in books.pool.inventory.machines().values():
        providers.setdefault(machine.id.split("/")[0].split("#")[0], []).append(machine)
    pictures = [
        _picture(view, books, name, name, "", providers[name], alone=len(providers) == 1)
        for name in sorted(providers)
    ]
    for cluster, own in book.clusters(view):
        machines = list(own.pool.inventory.machines().values())
        owner = queue_of(cluster, view.rows.tenancy)
        pictures.append(_picture(view, own, cluster.id, cluster.name, owner, machines, alone=True))
    return pictures


def _picture(
    view: View, books: PoolCache, id: str, name: str, queue: str, machines: Sequence[Machine], *, alone: bool
) -> PoolPicture:
    """`alone`: these are all machines of the books; else who waits is told where it would fit."""
    mine = {machine.id for machine in machines}
    held = [
        _held(view, holder, value)
        for holder, value in sorted(books.known.items())
        if isinstance(value, Running)
        and not holder.startswith(WITHHELD)
        and any(place.node_id in mine for place in value.placements)
    ]
    asks = [value for value in books.known.values() if isinstance(value, Ask)]
    pool = books.pool
    position = {ask.id: number for number, ask in enumerate(pool.line(view.now_ms), 1)}
    last = len(position) + 1
    asks.sort(key=lambda ask: (position.get(ask.id, last), ask.submitted_ms, ask.number, ask.id))
    forecast = FORECAST_SHOWN if len(pool.inventory.machines()) <= FORECAST_MACHINES else 0
    explained = {  # from the last on: the forecast of one has those before it in it
        ask.id: pool.explain(ask.id, view.now_ms, when=number <= forecast)
        for number, ask in reversed(list(enumerate(asks[:EXPLAINED_MAX], 1)))
    }
    queued = [
        _queued(view, ask, number, explained.get(ask.id))
        for number, ask in enumerate(asks, 1)
        if alone or _would_use(ask, machines)
    ]
    return PoolPicture(
        id=id,
        name=name,
        queue=queue,
        machines=tuple(sorted(machines, key=lambda each: (each.index, each.id))),
        held=tuple(held),
        waiting=tuple(queued),
        withheld=tuple(
            place
            for holder, value in sorted(books.known.items())
            if isinstance(value, Running) and holder.startswith(WITHHELD)
            for place in value.placements
        ),
        warnings=tuple(text for machine, text in sorted(books.faults.items()) if machine in mine),
    )


def _would_use(ask: Ask, machines: Sequence[Machine]) -> bool:
    labels = {label for machine in machines for label in machine.labels}
    return any(set(need.labels) <= labels for need in ask.needs)


def _held(view: View, holder: str, value: Running) -> Held:
    claim = view.rows.claims.get(holder)
    workload_id = claim.workload_id if claim is not None else holder
    workload = view.rows.workloads.get(workload_id)
    return Held(
        id=workload_id,
        kind=workload.kind if workload is not None else "job",
        number=workload.number if workload is not None else 0,
        name=workload.name if workload is not None else "",
        user=workload.user if workload is not None else "",
        project=workload.project if workload is not None else "",
        queue=value.ask.queue,
        placements=value.placements,
        started_ms=value.started_ms,
        ends_at_ms=expected_end_ms(value, view.now_ms)
        if workload is not None and kind_of(workload).runs and not is_guess(value.ask)
        else None,
        preemptible=value.ask.preemptible,
        leaving=value.leaving,
    )


def _queued(view: View, ask: Ask, position: int, waiting: Waiting | None) -> Queued:
    workload = view.rows.workloads[ask.id]
    return Queued(
        id=ask.id,
        kind=workload.kind,
        number=workload.number,
        name=workload.name,
        user=workload.user,
        project=workload.project,
        queue=ask.queue,
        position=position,
        num_nodes=ask.num_nodes,
        gpu_milli=ask.needs[0].gpu_milli,
        cpus_milli=ask.needs[0].cpus_milli,
        memory_bytes=ask.needs[0].memory_bytes,
        models=ask.needs[0].models,
        waiting=waiting,
    )


def usage_of_queues(view: View) -> Sequence[QueueUsage]:
    """Of the owned machines: a cluster counts with all of its nodes, whatever runs on them."""
    books, _ = caches_of(view).owned(view)
    return sorted(books.pool.quotas.rows(), key=lambda row: row.path)

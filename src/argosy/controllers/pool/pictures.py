"""The picture: the results of the last cycles of all pools, for requests, which read nothing else.

A cycle and the publication of its picture are one step, which no request comes between (`Shell`). What a
picture shows is worked out at the first look and kept until the cache changes: one that nobody looks at
costs the cycle nothing. So it is to be read at once, not to be kept over an `await`.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import cached_property

import msgspec

from argosy.controllers.failover import round_of
from argosy.controllers.pool.caches import WAITING, caches_of, running_clusters
from argosy.controllers.pool.wanted import Wanted, wanted_of
from argosy.controllers.pool.words import COMING, for_cluster, later, one_line
from argosy.controllers.view import Rows, View
from argosy.model.kinds import kind_of, label
from argosy.model.phases import Desired, WorkloadPhase
from argosy.model.rows import Workload
from argosy.model.tenancy import QueueUsage
from argosy.scheduler.ask import Ask, Machine, Running, Waiting
from argosy.scheduler.cache import PoolCache
from argosy.scheduler.estimate import expected_end_ms, is_guess
from argosy.scheduler.machines import NAMED, WITHHELD
from argosy.scheduler.picture import Held, Pending, PoolPicture, Queued
from argosy.scheduler.requests import ask_of_job, queue_of, share_of_nodes
from argosy.scheduler.snapshot import PoolSnapshot


class Picture:
    """All pools after one pass. `seq`: the commit up to which it has seen the rows."""

    def __init__(self, view: View, seq: int = 0) -> None:
        self._view = view
        self._caches = caches_of(view)
        self.seq = seq

    # -- one workload ---------------------------------------------------------------------------------------

    def pending(self, rows: Rows, workload: Workload, now_ms: int) -> Pending | None:
        """Why a workload of `rows` waits, in one line, with its place and start; None when it waits for no
        pool. `rows` may be newer than the picture."""
        if not _waits(workload):
            return None
        cluster = _cluster_of(rows, workload)
        if cluster is not None and cluster.phase is not WorkloadPhase.RUNNING:
            return Pending(code="later", text=self._of_cluster(rows, cluster, now_ms))
        cache = self._caches.known(workload.host_id)
        pool, ask = self._ask(workload)
        if cache is not None and pool is not None and ask is not None:
            waiting = self._told(pool, workload, now_ms, when=False)
            return Pending(
                code=waiting.code,
                text=one_line(pool, ask, waiting, rows.workloads),
                position=pool.positions.get(ask.id, 0),
                starts_at_ms=cache.expected.get(ask.id, waiting.starts_at_ms),
            )
        elsewhere = self._without_ask(workload, now_ms)
        if elsewhere is not None:
            return Pending(code=elsewhere.code, text=elsewhere.text)
        return Pending(code="order", text=COMING) if workload.phase is WorkloadPhase.QUEUED else None

    def knows(self, rows: Rows, workload: Workload) -> bool:
        """False when a later picture may say more about a workload than this one."""
        if workload.phase is not WorkloadPhase.QUEUED or not _waits(workload):
            return True
        cluster = _cluster_of(rows, workload)
        if cluster is not None and cluster.phase is not WorkloadPhase.RUNNING:
            return self.knows(rows, cluster)
        return self._ask(workload)[1] is not None or self._without_ask(workload, 0) is not None

    def explain(self, rows: Rows, workload: Workload, now_ms: int) -> Waiting | None:
        """Why a queued cluster or job does not start now, and when it probably will: the whole story. None
        when it waits for no pool, or is in no picture yet."""
        if not _waits(workload):
            return None
        cluster = _cluster_of(rows, workload)
        if cluster is not None and cluster.phase is not WorkloadPhase.RUNNING:
            text = self._of_cluster(rows, cluster, now_ms)
            return Waiting(ask_id=workload.id, code="later", text=text)
        pool, ask = self._ask(workload)
        if pool is None or ask is None:
            return self._without_ask(workload, now_ms)
        return self._told(pool, workload, now_ms, when=True)

    def line_of(self, workload: Workload) -> tuple[str, int]:
        """The pool that a workload waits for, as people call it, and how many wait for it; ("", 0): for
        none."""
        pool, ask = self._ask(workload)
        if pool is None or ask is None:
            return "", 0
        if workload.host_id is not None:
            cluster = _cluster_of(self._view.rows, workload)
            return cluster.name if cluster is not None else "", len(pool.pending)
        cache = self._caches.known(None)
        machines = cache.machines.values() if cache is not None else ()
        name = next((pool_of(each) for each in machines if _would_use(ask, [each])), "")
        return name, len(pool.pending)

    def never(self, workload: Workload) -> str:
        """Of a workload that is not in the rows yet: why no state of the machines that it would wait for
        could ever hold it, with the nearest machine. "" when some could, when it may go elsewhere, and when
        nothing is known about them."""
        view = self._view
        if workload.host_id is not None:
            cluster = _cluster_of(view.rows, workload)
            if cluster is None or cluster.phase is not WorkloadPhase.RUNNING:
                return ""
            cache = self._caches.known(cluster.id)
            share_milli = share_of_nodes(view.rows.claims_of(cluster.id))
            ask = ask_of_job(workload, view.rows.tenancy, view.history, share_milli)
        else:
            wanted = wanted_of(view, workload)
            if wanted is None or wanted.ask is None or wanted.hopes:
                return ""
            cache, ask = self._caches.known(None), wanted.ask
        return cache.never(ask) if cache is not None and cache.machines else ""

    def _pool(self, cluster_id: str | None) -> PoolSnapshot | None:
        cache = self._caches.known(cluster_id)
        return cache.snapshot() if cache is not None else None

    def _ask(self, workload: Workload) -> tuple[PoolSnapshot | None, Ask | None]:
        pool = self._pool(workload.host_id)
        return pool, pool.ask(workload.id) if pool is not None else None

    def _told(self, pool: PoolSnapshot, workload: Workload, now_ms: int, *, when: bool) -> Waiting:
        waiting = pool.explain(workload.id, now_ms, when=when)
        if waiting.code != "later":
            return waiting
        text = later(workload.retry_ms, workload.detail, now_ms)
        return Waiting(ask_id=waiting.ask_id, code="later", text=text, starts_at_ms=waiting.starts_at_ms)

    def _of_cluster(self, rows: Rows, cluster: Workload, now_ms: int) -> str:
        phase = cluster.phase
        if phase is WorkloadPhase.STOPPED and cluster.desired is not Desired.RUN:
            return f"waits for the cluster, which is stopped: `argosy start {cluster.name}`"
        if phase in (WorkloadPhase.QUEUED, WorkloadPhase.STOPPED):
            known = self.pending(rows, cluster, now_ms)
            return for_cluster(known.text if known is not None else cluster.detail)
        if phase is WorkloadPhase.STARTING and cluster.detail:
            return f"waits for the cluster: {cluster.detail}"
        return f"waits for the cluster, which is {phase.value}"

    def _without_ask(self, workload: Workload, now_ms: int) -> Waiting | None:
        """Return why a workload is pending that no owned machine can serve."""
        each = self._caches.wanted.get(workload.id) if workload.host_id is None else None
        return _elsewhere(each, workload, now_ms) if each is not None else None

    # -- all of them ----------------------------------------------------------------------------------------

    @cached_property
    def pools(self) -> Sequence[PoolPicture]:
        """Owned machines by provider, or by place of it, then the nodes of running clusters; by name."""
        owned = self._caches.known(None)
        pictures: list[PoolPicture] = []
        if owned is not None:
            places: dict[str, list[Machine]] = {}
            for machine in owned.pool.inventory.machines().values():
                places.setdefault(pool_of(machine), []).append(machine)
            alone = len(places) == 1
            pictures += [
                self._picture(owned, PoolPicture(id=name, name=name), places[name], alone=alone)
                for name in sorted(places)
            ]
        for cluster in running_clusters(self._view.rows):
            cache = self._caches.known(cluster.id)
            if cache is not None:
                machines = list(cache.pool.inventory.machines().values())
                owner = queue_of(cluster, self._view.rows.tenancy)
                empty = PoolPicture(id=cluster.id, name=cluster.name, queue=owner)
                pictures.append(self._picture(cache, empty, machines, alone=True))
        return tuple(pictures)

    @cached_property
    def usage(self) -> Sequence[QueueUsage]:
        """What every queue of the tree has of the owned machines; by path. A cluster counts with all of its
        nodes, whatever runs on them."""
        pool = self._pool(None)
        return pool.usage if pool is not None else ()

    def _picture(
        self, cache: PoolCache, empty: PoolPicture, machines: Sequence[Machine], *, alone: bool
    ) -> PoolPicture:
        """`alone`: these are all machines of the cache; else pending workloads are shown where they fit."""
        pool, workloads = cache.snapshot(), self._view.rows.workloads
        mine = {machine.id for machine in machines}
        on_mine = [
            (holder, value)
            for holder, value in pool.allocations.items()
            if any(place.node_id in mine for place in value.placements)
        ]
        queued = []
        for number, ask in enumerate(pool.pending, 1):
            row = workloads.get(ask.id)
            if row is not None and (alone or _would_use(ask, machines)):
                why = None
                if number <= len(pool.positions):
                    why = pool.explain(ask.id, pool.now_ms, when=False)
                    starts_at_ms = cache.expected.get(ask.id, why.starts_at_ms)
                    why = msgspec.structs.replace(why, starts_at_ms=starts_at_ms)
                queued.append(_queued(row, ask, number, why))
        return PoolPicture(
            id=empty.id,
            name=empty.name,
            queue=empty.queue,
            machines=tuple(sorted(machines, key=lambda each: (each.index, each.id))),
            held=tuple(_held(self._view, *each) for each in on_mine if not each[0].startswith(WITHHELD)),
            waiting=tuple(queued),
            withheld=tuple(
                place
                for holder, value in on_mine
                if holder.startswith(WITHHELD)
                for place in value.placements
            ),
            warnings=tuple(text for machine, text in sorted(cache.faults.items()) if machine in mine),
        )


def pool_of(machine: Machine) -> str:
    """The pool that an owned machine is shown in: its place where that has named machines, else all of its
    provider."""
    if any(label == NAMED for label, _ in machine.labels):
        return machine.id.split("#")[0]
    return machine.id.split("/")[0].split("#")[0]


def _waits(workload: Workload) -> bool:
    if workload.desired is not Desired.RUN:
        return False
    return workload.phase in WAITING or (kind_of(workload).hosts and workload.phase is WorkloadPhase.STOPPED)


def _cluster_of(rows: Rows, workload: Workload) -> Workload | None:
    return rows.workloads.get(workload.host_id) if workload.host_id is not None else None


def _elsewhere(each: Wanted, workload: Workload, now_ms: int) -> Waiting:
    id = workload.id
    if workload.retry_ms > now_ms:
        text = later(workload.retry_ms, workload.detail, now_ms)
        return Waiting(ask_id=id, code="later", text=text, starts_at_ms=workload.retry_ms)
    if each.elsewhere:
        tried = round_of(workload) and workload.detail
        return Waiting(ask_id=id, code="later", text=tried or "gets its nodes now")
    if each.dear:
        return Waiting(ask_id=id, code="later", text=each.dear)
    if each.unsure:
        text = "the server has just started: it does not know yet what all places have"
        return Waiting(ask_id=id, code="later", text=text)
    text = each.rejected[0].text if each.rejected else "waits for offers"
    return Waiting(ask_id=id, code="never", text=text)


def _would_use(ask: Ask, machines: Sequence[Machine]) -> bool:
    labels = {label for machine in machines for label in machine.labels}
    return any(set(need.labels) <= labels for need in ask.needs)


def _held(view: View, holder: str, value: Running) -> Held:
    claim = view.rows.claims.get(holder)
    id = claim.workload_id if claim is not None else holder
    row = view.rows.workloads.get(id)
    ends = row is not None and kind_of(row).runs and not is_guess(value.ask)
    return Held(
        id=id,
        kind=row.kind if row is not None else "job",
        number=row.number if row is not None else 0,
        label=label(row) if row is not None else "",
        name=row.name if row is not None else "",
        user=row.user if row is not None else "",
        project=row.project if row is not None else "",
        queue=value.ask.queue,
        placements=value.placements,
        started_ms=value.started_ms,
        ends_at_ms=expected_end_ms(value, view.now_ms) if ends else None,
        preemptible=value.ask.preemptible,
        leaving=value.leaving,
    )


def _queued(row: Workload, ask: Ask, position: int, waiting: Waiting | None) -> Queued:
    need = ask.needs[0]
    return Queued(
        id=ask.id,
        kind=row.kind,
        number=row.number,
        label=label(row),
        name=row.name,
        user=row.user,
        project=row.project,
        queue=ask.queue,
        position=position,
        num_nodes=ask.num_nodes,
        gpu_milli=need.gpu_milli,
        cpus_milli=need.cpus_milli,
        memory_bytes=need.memory_bytes,
        models=need.models,
        waiting=waiting,
    )

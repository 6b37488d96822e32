"""The pools of a server, kept in step with rows: one of each cluster's nodes, one of all owned machines.

Books are a cache and nothing else: a pool made from the same rows alone decides the same, but for what it
remembers of the past (what was borrowed lately, what was asked for). What was borrowed before the server was
started is recalled from the rows of what has ended (`recall`). Books follow by comparing rows by identity, so
a pass costs what changed.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Final, NamedTuple

import msgspec

from argosy.controllers.pool.wanted import Wanted, wanted_of
from argosy.controllers.view import Rows, View
from argosy.model.kinds import kind_of
from argosy.model.kinds.job import JOB, JobSpec, JobStatus
from argosy.model.offer import Offer, Placement, place_of
from argosy.model.phases import ClaimPhase, Desired, WorkloadPhase
from argosy.model.rows import Attempt, Claim, Node, Row, Workload
from argosy.model.task import Task
from argosy.model.tenancy import Tenancy
from argosy.planning.offered import KeptPlans, Priced
from argosy.scheduler.ask import Ask, Decision, Running
from argosy.scheduler.cache import PoolCache
from argosy.scheduler.estimate import History
from argosy.scheduler.machines import WITHHELD, is_owned, machine_of_node, machines_of_offers, withheld_of
from argosy.scheduler.recall import Use, Uses
from argosy.scheduler.requests import (
    ask_of_choices,
    ask_of_job,
    holder_of,
    holds_room,
    queue_of,
    running_attempt,
    running_claim,
    share_of_nodes,
)

STUCK_TRIES: Final = 8  # a claim that could not be given back so often in a row is not waited for
WAITING: Final = (WorkloadPhase.QUEUED, WorkloadPhase.RECOVERING)


class _Seen(NamedTuple):
    """What all asks of a pool depend on besides rows."""

    tenancy: Tenancy
    history: History
    offers: Sequence[Offer] = ()
    owner: str = ""
    priced: Priced | None = None

    def is_same(self, other: _Seen) -> bool:
        """By identity: values are replaced, never changed."""
        return (
            self.tenancy is other.tenancy
            and self.history is other.history
            and self.offers is other.offers
            and self.owner == other.owner
            and self.priced is other.priced
        )


class _Kept:
    """A cache, what it was made from, and which ids to look at again. `stale` None: everything."""

    def __init__(self, books: PoolCache) -> None:
        self.books = books
        self.seen: _Seen | None = None
        self.stale: set[str] | None = None
        self.machines_stale = True


class PoolCaches:
    """All pools of one server. Not for use by two threads."""

    kind: type[PoolCache] = PoolCache

    def __init__(self) -> None:
        self._clusters: dict[str, _Kept] = {}
        self._owned: _Kept | None = None
        self._wanted: dict[
            str, Wanted
        ] = {}  # pending workloads for owned machines, with all places that would do
        self._holders: dict[str, set[str]] = {}  # of the owned machines: ids in the books, by workload
        self._last: dict[str, Workload] = {}  # workloads that are over while their claims are not
        self._going: dict[str, str] = {}  # claims that are given back, and their owners
        self._stuck: set[str] = set()  # owners of those of them that nobody waits for
        self.plans = KeptPlans()  # while there are no rows of the catalog, which keep their own
        self._rows: Rows | None = None
        self._uses: dict[str | None, list[Use]] = {}  # what the books have not been told yet

    def recall(self, uses: Uses) -> None:
        """What was used before this server was started."""
        self._uses = dict(uses)

    def remember(self, workload: Workload) -> None:
        """It is over, but its claims are not: they count in its name until they are gone."""
        self._last[workload.id] = workload

    # -- following ------------------------------------------------------------------------------------------

    def follow(self, rows: Rows) -> None:
        """Note what differs from the rows of the last time."""
        before, self._rows = self._rows, rows
        if rows is before:
            return
        if before is None:
            self._going = {
                claim.id: claim.workload_id
                for claim in rows.claims.values()
                if claim.phase is ClaimPhase.RELEASING
            }
            return  # whatever is made now is made from these rows
        for old, new in rows.news(before):
            self._note(rows, old, new)

    def _note(self, rows: Rows, old: Row | None, new: Row | None) -> None:
        row = new or old
        match row:
            case Workload():
                if kind_of(row).hosts:
                    if new is None:
                        self._clusters.pop(row.id, None)
                        self._uses.pop(row.id, None)
                    elif (kept := self._clusters.get(row.id)) is not None:
                        kept.machines_stale = True
                if new is None and rows.claims_of(row.id):
                    self._last[row.id] = row
                self._mark(row.host_id, row.id)
            case Attempt():
                job = rows.workloads.get(row.workload_id)
                if job is not None:
                    self._mark(job.host_id, job.id)
            case Claim():
                if isinstance(new, Claim) and new.phase is ClaimPhase.RELEASING:
                    self._going[row.id] = row.workload_id
                else:
                    self._going.pop(row.id, None)
                if new is None and not rows.claims_of(row.workload_id):
                    self._last.pop(row.workload_id, None)
                if (kept := self._clusters.get(row.workload_id)) is not None:
                    kept.machines_stale = True  # it may stand on other devices
                self._mark(None, row.workload_id)
            case Node():
                if (kept := self._clusters.get(row.workload_id)) is not None:
                    kept.machines_stale = True
            case _:
                pass

    def _mark(self, cluster_id: str | None, id: str) -> None:
        kept = self._clusters.get(cluster_id) if cluster_id else self._owned
        if kept is not None and kept.stale is not None:
            kept.stale.add(id)

    def recheck(self, cluster_id: str | None, ids: Iterable[str]) -> None:
        """Compare these with their rows the next time: a decision about them may not have been written."""
        for id in ids:
            self._mark(cluster_id, id)

    # -- pools ----------------------------------------------------------------------------------------------

    def of_cluster(self, view: View, cluster: Workload) -> PoolCache:
        """The pool of the cluster's nodes. It belongs to the queue of the cluster."""
        self.follow(view.rows)
        rows, tenancy = view.rows, view.rows.tenancy
        owner = queue_of(cluster, tenancy)
        kept = self._clusters.get(cluster.id)
        if kept is None or (kept.seen is not None and kept.seen.owner != owner):
            kept = self._clusters[cluster.id] = _Kept(self.kind(tenancy, owner))
        books = kept.books
        seen = _Seen(tenancy, view.history, (), owner)
        self._renew(kept, seen)
        if kept.machines_stale:
            nodes = rows.nodes_of(cluster.id)
            books.set_machines(machine_of_node(node, cluster, tenancy) for node in nodes)
            books.withhold(withheld_of(cluster, rows.claims_of(cluster.id), nodes))
            kept.machines_stale = False
        if books.machines and (uses := self._uses.pop(cluster.id, None)) is not None:
            books.recall(uses, view.now_ms)
        stale, kept.stale = kept.stale, set()
        if stale is None or stale:
            books.pass_time(view.now_ms)
        if stale is None:
            jobs = {job.id for job in rows.jobs_of(cluster.id)}
            stale = jobs.union(id for id in books.known if not id.startswith(WITHHELD))
        for id in sorted(stale):
            job = rows.workloads.get(id)
            attempt = rows.attempt_of(id)
            leaving_for = attempt.room_for if attempt is not None else ""
            books.set(id, _of_job(view, job) if job is not None else None, leaving_for=leaving_for)
        books.settle()
        return books

    def _renew(self, kept: _Kept, seen: _Seen) -> None:
        if kept.seen is not None and kept.seen.is_same(seen):
            return
        if kept.seen is not None and kept.seen.tenancy is not seen.tenancy:
            kept.books.set_tenancy(seen.tenancy)
        if kept.seen is None or kept.seen.tenancy is not seen.tenancy or kept.seen.offers is not seen.offers:
            kept.machines_stale = True
        kept.seen, kept.stale = seen, None

    def owned(self, view: View) -> tuple[PoolCache, Mapping[str, Wanted]]:
        """Return the cache of all owned machines and the pending workloads by id, including those that owned
        machines cannot serve."""
        self.follow(view.rows)
        tenancy = view.rows.tenancy
        if self._owned is None:
            self._owned = _Kept(self.kind(tenancy, ""))
        kept = self._owned
        self._renew(kept, _Seen(tenancy, view.history, view.offers, "", view.priced))
        if kept.machines_stale:
            offers = [offer for offer in view.offers if is_owned(offer, view.abilities)]
            kept.books.set_machines(machines_of_offers(offers, tenancy))
            kept.machines_stale = False
            if kept.books.machines and (uses := self._uses.get(None)) is not None:
                kept.books.recall(uses, view.now_ms)  # again while providers are asked for the first time
        if kept.books.machines and not view.silent:
            self._uses.pop(None, None)
        stale, kept.stale = kept.stale, set()
        if stale is None or stale:
            kept.books.pass_time(view.now_ms)
        if stale is None:
            stale = {
                *(row.id for row in view.rows.managed_jobs()),
                *(row.id for row in view.rows.workloads.values() if kind_of(row).hosts),
                *(claim.workload_id for claim in view.rows.claims.values()),
                *self._holders,
                *self._wanted,
            }
        stale.update(id for id, each in self._wanted.items() if each.timed)
        stale |= self._stuck
        self._stuck = {owner for id, owner in self._going.items() if is_stuck(view, id)}
        stale |= self._stuck
        for id in sorted(stale):
            self._look_at_owner(view, kept.books, id)
        kept.books.settle()
        return kept.books, self._wanted

    def cycle(self, books: PoolCache, now_ms: int) -> Decision:
        """One cycle of the owned machines, in which every elastic gang asks for as many nodes as it could
        have now. While it waits it asks for as many as it needs."""
        elastic = [(id, each) for id, each in self._wanted.items() if each.most and id in books.waiting]
        for id, each in elastic:
            if each.ask is not None:
                books.set(id, books.stretched(each.ask, each.most))
        decision = books.cycle(now_ms)
        for id, each in elastic:
            if each.ask is not None and id in books.waiting:
                books.set(id, each.ask)
        return decision

    def _look_at_owner(self, view: View, books: PoolCache, id: str) -> None:
        values: dict[str, Ask | Running] = {}
        workload = view.rows.workloads.get(id)
        owner = workload or self._last.get(id)
        for claim in view.rows.claims_of(id):
            if is_owned(claim.choice.offer, view.abilities) and holds_room(claim):
                holder, value = self._of_claim(view, books, owner, claim)
                if holder in values:  # a second one: only one of them is what the workload uses
                    holder = claim.id
                    value = msgspec.structs.replace(value, ask=msgspec.structs.replace(value.ask, id=holder))
                values[holder] = value
        self._wanted.pop(id, None)
        if workload is not None and id not in values:
            wanted = wanted_of(view, workload)
            if wanted is not None:
                self._wanted[id] = wanted
                if wanted.ask is not None:
                    values[id] = wanted.ask
        held = self._holders.pop(id, set())
        again = (
            {id} if isinstance(values.get(id), Ask) else set()
        )  # what it held has another name from now on
        for holder in sorted((held - values.keys()) | (held & again)):
            if holder not in again or isinstance(books.known.get(holder), Running):
                books.set(holder, None)
        for holder in sorted(values, key=lambda each: isinstance(values[each], Ask)):
            attempt = view.rows.attempt_of(id) if holder == id else None
            leaving_for = attempt.room_for if attempt is not None else ""
            books.set(holder, values[holder], leaving_for=leaving_for)
        if values:
            self._holders[id] = set(values)

    def _of_claim(
        self, view: View, books: PoolCache, owner: Workload | None, claim: Claim
    ) -> tuple[str, Running]:
        tenancy = view.rows.tenancy
        if owner is None:  # over before we came: its room is held until it is gone, in nobody's name
            owner = _nobody(claim.workload_id)
        attempt = view.rows.attempt_of(owner.id) if kind_of(owner).runs else None
        placements = claim.placements or self._spread(books, owner, claim, tenancy)
        running = running_claim(owner, claim, placements, attempt, tenancy, view.history)
        if running.leaving and claim.phase is ClaimPhase.RELEASING and is_stuck(view, claim.id):
            running = msgspec.structs.replace(running, stuck=True)
        return running.ask.id, running

    def _spread(
        self, books: PoolCache, owner: Workload, claim: Claim, tenancy: Tenancy
    ) -> tuple[Placement, ...]:
        """Where a claim stands that says nothing about it: as it stood, else where it fits first."""
        known = books.known.get(holder_of(owner, claim)) or books.known.get(claim.id)
        if isinstance(known, Running):
            return known.placements
        ask = ask_of_choices(owner, (claim.choice,), claim.count, tenancy, History())
        found = books.pool.inventory.find(ask)
        if found is not None:
            return found
        place = place_of(claim.choice.offer)
        return tuple(
            Placement(rank=0, node_id=machine_id)
            for machine_id in books.machines
            if machine_id.split("#")[0] == place
        )

    def clusters(self, view: View) -> Iterator[tuple[Workload, PoolCache]]:
        """Pools of running clusters, by name, brought up to date."""
        for row in running_clusters(view.rows):
            yield row, self.of_cluster(view, row)

    # -- reading --------------------------------------------------------------------------------------------

    @property
    def wanted(self) -> Mapping[str, Wanted]:
        """Who waits for machines of their own, by id, as it was followed last."""
        return self._wanted

    def foresee(self) -> None:
        """Work out when the first in each line start (`PoolCache.foresee`)."""
        for kept in (*self._clusters.values(), *([self._owned] if self._owned is not None else ())):
            kept.books.foresee()

    def known(self, cluster_id: str | None) -> PoolCache | None:
        """The pool of a cluster (None: of the owned machines) as it was followed last; None: never yet."""
        kept = self._owned if cluster_id is None else self._clusters.get(cluster_id)
        return kept.books if kept is not None else None


def running_clusters(rows: Rows) -> list[Workload]:
    """By project and name."""
    running = (
        row for row in rows.workloads.values() if kind_of(row).hosts and row.phase is WorkloadPhase.RUNNING
    )
    return sorted(running, key=lambda row: (row.project, row.name))


def _of_job(view: View, job: Workload) -> Ask | Running | None:
    tenancy = view.rows.tenancy
    attempt = view.rows.attempt_of(job.id)
    share_milli = share_of_nodes(view.rows.claims_of(job.host_id or ""))
    if attempt is not None:
        return running_attempt(job, attempt, tenancy, view.history, share_milli)
    if job.phase in WAITING and job.desired is Desired.RUN:
        return ask_of_job(job, tenancy, view.history, share_milli)
    return None


def caches_of(view: View) -> PoolCaches:
    """The books that came with the view, else fresh ones."""
    return view.pools if view.pools is not None else PoolCaches()


def _nobody(id: str) -> Workload:
    """A workload of which nothing is known any more."""
    spec = JobSpec(task=Task())
    return Workload(id=id, kind=JOB.name, name="", spec=spec, status=JobStatus(), created_ms=0)


def is_stuck(view: View, claim_id: str) -> bool:
    """Whether a claim could not be given back for a while: its machine does not answer."""
    failure = view.observed.failure(claim_id)
    return failure is not None and failure.count >= STUCK_TRIES

"""What the cases of the store's suite share: the database under test, and what they compare with."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Protocol, TypeVar

from argosy.model.kinds import kind_of
from argosy.model.rows import Event, Row
from argosy.model.tenancy import Tenancy
from argosy.store import Conflict, Snapshot, Store
from argosy.testing.conformance.provider import NotApplicable

R = TypeVar("R", bound=Row | Tenancy)


class Subject(Protocol):
    """A database under test."""

    folder: Path  # to write files in
    is_shared: bool  # several stores may be open at once and see each other
    is_lasting: bool  # what was committed is there when it is opened again

    async def open(self) -> Store:
        """A store on the database; the suite closes it."""

    async def pass_time(self, ms: int) -> None:
        """The clock that leases go by moves on."""

    async def cut(self, store: Store) -> None:
        """The store's connection breaks. Raises `NotApplicable`."""


Case = Callable[[Subject], Awaitable[None]]


async def put(store: Store, row: R) -> R:
    """Commit one row."""
    (written,) = await store.commit([row])
    assert isinstance(written, type(row))
    return written


def an_event(subject: str = "job-0", text: str = "something happened", at_ms: int = 1) -> Event:
    return Event(at_ms=at_ms, subject=subject, code="test", text=text)


async def refused(call: Awaitable[object], kind: type[BaseException]) -> BaseException:
    try:
        await call
    except kind as error:
        return error
    raise AssertionError(f"{kind.__name__} was not raised")


async def conflicting(call: Awaitable[object]) -> set[str]:
    error = await refused(call, Conflict)
    assert isinstance(error, Conflict)
    return set(error.keys)


def contents(snapshot: Snapshot) -> dict[str, Row]:
    return {**snapshot.workloads, **snapshot.attempts, **snapshot.claims, **snapshot.nodes}


def check_indexes(snapshot: Snapshot) -> None:
    """Every index says what a search through all rows says."""
    jobs = sorted((w for w in snapshot.workloads.values() if kind_of(w).runs), key=lambda w: (w.number, w.id))
    assert list(snapshot.managed_jobs()) == [job for job in jobs if job.host_id is None]
    for cluster_id in {job.host_id for job in jobs if job.host_id}:
        assert list(snapshot.jobs_of(cluster_id)) == [job for job in jobs if job.host_id == cluster_id]
    clusters = [w for w in snapshot.workloads.values() if kind_of(w).hosts]
    assert {(c.project, c.name): c for c in clusters} == {(c.project, c.name): c for c in snapshot.clusters()}
    for cluster in clusters:
        assert snapshot.cluster_named(cluster.name, cluster.project) == cluster
    for attempt in snapshot.attempts.values():
        assert snapshot.attempt_of(attempt.workload_id) == attempt
    claims = sorted(snapshot.claims.values(), key=lambda claim: claim.id)
    for owner in {claim.workload_id for claim in claims}:
        assert list(snapshot.claims_of(owner)) == [claim for claim in claims if claim.workload_id == owner]
    nodes = sorted(snapshot.nodes.values(), key=lambda node: (node.claim_id, node.index, node.id))
    for claim_id in {node.claim_id for node in nodes}:
        assert list(snapshot.nodes_of_claim(claim_id)) == [n for n in nodes if n.claim_id == claim_id]
    for owner in {node.workload_id for node in nodes}:
        assert list(snapshot.nodes_of(owner)) == [n for n in nodes if n.workload_id == owner]
    for id, row in contents(snapshot).items():
        assert row.is_live and snapshot.row(id) == row and row.rev > 0


async def two_stores(subject: Subject) -> tuple[Store, Store]:
    if not subject.is_shared:
        raise NotApplicable("one store at a time")
    return await subject.open(), await subject.open()

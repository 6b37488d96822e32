"""What the store must do on every engine, as cases that run against any of them.

    @pytest.mark.parametrize("case", CASES, ids=case_name)
    def test_conformance(case): asyncio.run(case(my_subject))

A *subject* is a database, empty at first, that stores are opened on. A case that needs a knob which the
subject does not have raises `NotApplicable`.
"""

from __future__ import annotations

import asyncio
import itertools
import random
from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Final, Protocol, TypeVar

from argosy.model.errors import ArgosyError
from argosy.model.kinds import kind_of
from argosy.model.kinds.job import job_state
from argosy.model.phases import AttemptPhase, ClaimPhase, NodePhase, Phase, WorkloadPhase, may_move
from argosy.model.reasons import Reason
from argosy.model.resources import Accelerator, Resources
from argosy.model.rows import Attempt, Claim, Event, Node, Row, Workload
from argosy.model.tenancy import TENANCY_ID, Group, Preset, Queue, SharePolicy, Tenancy
from argosy.store import Conflict, IllegalMove, KeyUsed, Snapshot, Store
from argosy.testing.builders import a_claim, a_cluster, a_job, a_node, a_task, an_attempt, an_id, changed
from argosy.testing.conformance.provider import NotApplicable

__all__ = ["CASES", "NotApplicable", "Subject", "case_name", "random_walk"]

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


# -- rows -------------------------------------------------------------------------------------------


async def a_new_store_is_empty(subject: Subject) -> None:
    store = await subject.open()
    assert contents(await store.snapshot()) == {}
    assert await store.load("job-x") is None
    assert await store.load_events() == []
    assert await store.load_secrets("job-x") == {}
    assert await store.load_key("x") is None
    assert await store.find_cluster("x", finished=True) is None
    await store.close()


async def every_kind_of_row_comes_back_as_it_went(subject: Subject) -> None:
    store = await subject.open()
    cluster = a_cluster(name="c", user="me", project="p")
    job = a_job(host_id=cluster.id, number=7, task=a_task(run="echo", envs={"A": "b"}))
    claim = a_claim(workload_id=cluster.id, count=2)
    node = a_node(workload_id=cluster.id, claim_id=claim.id, gpus=2)
    attempt = an_attempt(workload_id=job.id)
    rows: list[Row] = [cluster, job, claim, node, attempt]
    written = await store.commit(rows)
    assert list(written) == [changed(row, rev=1) for row in rows]
    assert contents(await store.snapshot()) == {row.id: row for row in written}
    for row in written:
        assert await store.load(row.id) == row
    assert await store.find_cluster("c", project="p") == written[0]
    assert await store.find_job(cluster.id, 7) == written[1]
    assert await store.load_jobs(host_id=cluster.id) == [written[1]]
    assert await store.load_claims() == [written[2]]
    assert await store.load_nodes(claim.id) == [written[3]]
    assert await store.load_attempts(job.id) == [written[4]]
    assert await store.load_clusters() == [written[0]]
    check_indexes(await store.snapshot())
    await store.close()


async def any_text_comes_back(subject: Subject) -> None:
    store = await subject.open()
    for text in (
        "",
        "Ünïcödé 한국어 🦜",
        "nul \0 inside",
        "' \" ; DROP TABLE workload; %s :x ?",
        "x" * 300_000,
    ):
        job = await put(store, a_job(detail=text, number=1))
        assert await store.load(job.id) == job
        ended = await put(store, changed(job, phase=WorkloadPhase.FINISHED))
        assert await store.load(job.id) == ended
        await store.commit(events=[an_event(job.id, text)])
        (event,) = await store.load_events(subject=job.id)
        assert event.text == text.replace("\0", "\N{REPLACEMENT CHARACTER}")
    await refused(store.commit([a_job(detail="\ud800")]), ValueError)
    await refused(store.commit([a_job(name="a\0b")]), ValueError)
    await refused(store.commit([a_job(created_ms=1 << 70)]), (OverflowError, ArgosyError))  # type: ignore[arg-type]
    assert len(contents(await store.snapshot())) == 0
    await store.close()


async def a_row_that_changed_meanwhile_is_a_conflict(subject: Subject) -> None:
    store = await subject.open()
    job = await put(store, a_job())
    newer = await put(store, changed(job, detail="newer"))
    assert newer.rev == 2
    other = a_job(number=2)
    before = store.seq
    stale = store.commit(
        [other, changed(job, detail="older")],
        events=[an_event()],
        secrets={other.id: {"A": "1"}},
        key=("k", b"reply"),
    )
    assert await conflicting(stale) == {job.id}
    # nothing of it was written
    assert store.seq == before and contents(await store.snapshot()) == {job.id: newer}
    assert await store.load_events() == [] and await store.load_key("k") is None
    assert await store.load(other.id) is None and await store.load_secrets(other.id) == {}
    # revisions from the future, of rows that are not there, and of finished rows
    assert await conflicting(store.commit([changed(newer, rev=9)])) == {job.id}
    assert await conflicting(store.commit([a_job(id="job-none", rev=1)])) == {"job-none"}
    ended = await put(store, changed(newer, phase=WorkloadPhase.FINISHED))
    assert await conflicting(store.commit([changed(newer, detail="late")])) == {job.id}
    assert (await put(store, changed(ended, detail="said later"))).rev == 4
    await store.close()


async def an_id_is_taken_once(subject: Subject) -> None:
    store = await subject.open()
    job = await put(store, a_job())
    assert await conflicting(store.commit([changed(job, rev=0)])) == {job.id}
    await put(store, changed(job, phase=WorkloadPhase.FINISHED))
    other = a_job(number=2)
    assert await conflicting(store.commit([other, changed(job, rev=0)])) == {job.id}
    assert await store.load(other.id) is None
    await refused(store.commit([other, other]), ValueError)
    await store.close()


async def expectations_hold_or_nothing_is_written(subject: Subject) -> None:
    store = await subject.open()
    job, other = await put(store, a_job()), a_job(number=2)
    ended = await put(store, changed(await put(store, a_job()), phase=WorkloadPhase.FINISHED))
    await store.commit([other], expect={job.id: 1, ended.id: 2, "job-none": 0})
    before = store.seq
    for wrong in ({job.id: 2}, {job.id: 0}, {ended.id: 1}, {ended.id: 0}, {"job-none": 1}):
        third = a_job(number=3)
        assert await conflicting(store.commit([third], expect=wrong)) == set(wrong)
        assert await store.load(third.id) is None
    assert await store.commit(expect={job.id: 1}) == ()
    assert await conflicting(store.commit(expect={job.id: 3})) == {job.id}
    assert await store.commit() == ()
    assert store.seq == before
    await store.close()


async def the_tenancy_is_one_row_with_a_revision(subject: Subject) -> None:
    store = await subject.open()
    before = await store.snapshot()
    assert (
        before.tenancy == Tenancy() and before.stored(TENANCY_ID) is None and before.row(TENANCY_ID) is None
    )
    tree = Tenancy(
        queues=(
            Queue(path="acme", deserved={"gpus": 8000, "memory": 1 << 40}, limit={"gpus/A100": 16_000}),
            Queue(path="acme/vision", guaranteed={"gpus": 2000}, weight_milli=2500, max_pending=3),
        ),
        groups=(Group(name="training", nodes=("gpu-*",), kinds=("job",), queues=("acme",)),),
        presets=(
            Preset(name="small", resources=Resources(accelerator=Accelerator(model="A100", milli=250))),
        ),
        policy=SharePolicy(backfill="conservative", min_runtime_s=60),
    )
    job = a_job()
    puts: list[Row | Tenancy] = [tree, job]
    written, _ = await store.commit(puts, expect={TENANCY_ID: 0})
    assert isinstance(written, Tenancy) and written == changed(tree, rev=1)
    after = await store.snapshot()
    assert after.tenancy == written and after.stored(TENANCY_ID) == written
    assert before.tenancy == Tenancy()
    # it is no row among the others
    assert after.row(TENANCY_ID) is None and set(contents(after)) == {job.id}
    assert await store.load(TENANCY_ID) is None
    # whoever was slower reads again
    newer = await put(store, changed(written, policy=SharePolicy(preemption=False)))
    assert newer.rev == 2
    assert await conflicting(store.commit([changed(written, queues=())])) == {TENANCY_ID}
    assert await conflicting(store.commit([tree])) == {TENANCY_ID}
    late = store.commit([a_job(number=2)], expect={TENANCY_ID: 1})
    assert await conflicting(late) == {TENANCY_ID}
    assert len((await store.snapshot()).workloads) == 1
    await store.commit([a_job(number=3)], expect={TENANCY_ID: 2})
    await refused(store.commit([changed(newer, id="another", rev=0)]), ValueError)
    assert (await store.snapshot()).tenancy == newer
    await store.prune(before_ms=1 << 50)
    await store.close()
    if subject.is_lasting:
        store = await subject.open()
        assert (await store.snapshot()).tenancy == newer
        await store.close()


async def servers_see_one_tenancy(subject: Subject) -> None:
    if not subject.is_shared:
        raise NotApplicable
    one, other = await subject.open(), await subject.open()
    first = await put(one, Tenancy(queues=(Queue(path="a"),)))
    assert (await other.snapshot()).tenancy == first
    second = await put(other, changed(first, queues=(Queue(path="b"),)))
    assert await conflicting(one.commit([changed(first, queues=())])) == {TENANCY_ID}
    assert (await one.snapshot()).tenancy == second
    await one.close()
    await other.close()


# -- laws -------------------------------------------------------------------------------------------


def _in_phase(phase: Phase, number: int) -> Row:
    owner = f"job-{number}"
    if isinstance(phase, WorkloadPhase):
        return a_cluster(phase=phase, name=f"c{number}") if number % 2 else a_job(phase=phase, number=number)
    if isinstance(phase, AttemptPhase):
        return an_attempt(phase=phase, workload_id=owner)
    if isinstance(phase, ClaimPhase):
        return a_claim(phase=phase)
    return a_node(phase=phase)


async def only_moves_of_the_tables_are_written(subject: Subject) -> None:
    store = await subject.open()
    machines: tuple[Iterable[Phase], ...] = (WorkloadPhase, AttemptPhase, ClaimPhase, NodePhase)
    pairs = [pair for machine in machines for pair in itertools.product(machine, machine)]
    rows = await store.commit([_in_phase(old, number) for number, (old, _) in enumerate(pairs)])
    for row, (old, new) in zip(rows, pairs, strict=True):
        move = store.commit([changed(row, phase=new)], events=[an_event(row.id)])
        if may_move(old, new):
            (moved,) = await move
            assert moved == changed(row, phase=new, rev=2)
        else:
            moved = row
            await refused(move, IllegalMove)
        assert await store.load(row.id) == moved
        assert len(await store.load_events(subject=row.id)) == int(moved.rev == 2)
    check_indexes(await store.snapshot())
    await store.close()


async def what_a_row_is_and_belongs_to_never_changes(subject: Subject) -> None:
    store = await subject.open()
    job, cluster = await put(store, a_job()), await put(store, a_cluster())
    claim, node = await put(store, a_claim()), await put(store, a_node())
    attempt = await put(store, an_attempt())
    changes: Sequence[Row] = (
        changed(job, kind="cluster"),
        changed(job, host_id="clu-other"),
        changed(job, host_id=None),
        changed(cluster, kind="job"),
        changed(claim, workload_id="clu-other"),
        changed(node, claim_id="clm-other"),
        changed(node, workload_id="clu-other"),
        changed(attempt, workload_id="job-other"),
    )
    for row in changes:
        await refused(store.commit([row]), IllegalMove)
    assert {row.rev for row in contents(await store.snapshot()).values()} == {1}
    await store.close()


async def one_live_cluster_has_a_name(subject: Subject) -> None:
    store = await subject.open()
    first = await put(store, a_cluster(name="x"))
    assert await conflicting(store.commit([a_cluster(name="x")])) == {first.id}
    elsewhere = await put(store, a_cluster(name="x", project="other"))
    assert await store.find_cluster("x") == first
    assert await store.find_cluster("x", project="other") == elsewhere
    await put(store, a_job(name="x"))  # jobs may have any name
    twins = [a_cluster(name="y"), a_cluster(name="y")]
    await conflicting(store.commit(twins))
    # it ends and another begins, in one commit, whichever stands first
    second = a_cluster(name="x", created_ms=first.created_ms + 1)
    await store.commit([changed(first, phase=WorkloadPhase.FINISHED), second])
    second = changed(second, rev=1)
    assert await store.find_cluster("x") == second
    third = a_cluster(name="x", created_ms=first.created_ms + 2)
    await store.commit([third, changed(second, phase=WorkloadPhase.FINISHED)])
    third = changed(third, rev=1)
    assert await store.find_cluster("x") == third and (await store.snapshot()).cluster_named("x") == third
    # so it may by a cluster that was there before
    other = await put(store, a_cluster(name="z"))
    await store.commit([changed(other, name="x"), changed(third, phase=WorkloadPhase.FINISHED)])
    third = changed(other, name="x", rev=2, created_ms=first.created_ms + 3)
    await store.commit([third])
    third = changed(third, rev=3)
    assert (await store.snapshot()).cluster_named("z") is None
    ended = await put(store, changed(third, phase=WorkloadPhase.FINISHED))
    assert await store.find_cluster("x") is None
    assert await store.find_cluster("x", finished=True) == ended
    check_indexes(await store.snapshot())
    await store.close()


async def a_workload_has_one_live_attempt(subject: Subject) -> None:
    store = await subject.open()
    first = await put(store, an_attempt(workload_id="job-1"))
    again = an_attempt(workload_id="job-1", number=2)
    assert await conflicting(store.commit([again])) == {first.id}
    await put(store, an_attempt(workload_id="job-2"))
    await conflicting(store.commit([an_attempt(workload_id="job-3"), an_attempt(workload_id="job-3")]))
    await store.commit([again, changed(first, phase=AttemptPhase.ENDED)])
    assert (await store.snapshot()).attempt_of("job-1") == changed(again, rev=1)
    assert [row.number for row in await store.load_attempts("job-1")] == [1, 2]
    await store.close()


# -- keys, secrets, events, numbers, leases ---------------------------------------------------------


async def a_key_is_carried_out_once(subject: Subject) -> None:
    store = await subject.open()
    job = a_job()
    await store.commit([job], key=("k", b"first"))
    error = await refused(store.commit([a_job(number=2)], key=("k", b"second")), KeyUsed)
    assert isinstance(error, KeyUsed) and error.reply == b"first"
    # the same request again: the answer counts, not that the row is there
    await refused(store.commit([job], key=("k", b"first")), KeyUsed)
    assert await store.load_key("k") == b"first"
    assert len(contents(await store.snapshot())) == 1
    tries = (store.commit([a_job(number=3)], key=("race", b"%d" % n)) for n in range(8))
    results = await asyncio.gather(*tries, return_exceptions=True)
    assert sum(isinstance(one, tuple) for one in results) == 1
    assert sum(isinstance(one, KeyUsed) for one in results) == 7
    assert len(contents(await store.snapshot())) == 2
    await store.close()


async def secrets_live_as_long_as_their_workload(subject: Subject) -> None:
    store = await subject.open()
    job, other = a_job(), a_job(number=2)
    hidden = "s3cr3t-\0-värde"
    await store.commit([job, other], secrets={job.id: {"A": hidden}, other.id: {"B": "2"}})
    assert await store.load_secrets(job.id) == {"A": hidden}
    job = await put(store, changed(job, rev=1, detail="x"))
    assert await store.load_secrets(job.id) == {"A": hidden}
    await store.commit(secrets={job.id: {"C": hidden}})
    assert await store.load_secrets(job.id) == {"C": hidden}
    for wrong in (changed(job, rev=7), changed(job, rev=0)):
        error = await refused(store.commit([wrong], secrets={job.id: {"A": hidden}}), Conflict)
        assert "s3cr3t" not in repr(error) + str(error)
    await store.commit([changed(job, phase=WorkloadPhase.FINISHED)], secrets={job.id: {"late": hidden}})
    assert await store.load_secrets(job.id) == {}
    assert await store.load_secrets(other.id) == {"B": "2"}
    await store.close()


async def events_keep_the_order_of_commits(subject: Subject) -> None:
    store = await subject.open()
    await store.commit(events=[an_event("a", "1"), an_event("b", "2")])
    await asyncio.gather(
        *(store.commit(events=[an_event("a", f"{n}-{m}") for m in "xyz"]) for n in range(20))
    )
    events = await store.load_events()
    assert [event.text for event in events[:2]] == ["1", "2"]
    order = [event.seq for event in events]
    assert order == sorted(set(order)) and len(order) == 62
    for first in range(2, 62, 3):  # those of one commit stand together
        assert [event.text.partition("-")[2] for event in events[first : first + 3]] == ["x", "y", "z"]
    assert [event.text for event in await store.load_events(subject="b")] == ["2"]
    assert await store.load_events(after=None) == events
    assert await store.load_events(after=None, limit=3) == events[-3:]
    pages: list[Event] = []
    while page := await store.load_events(subject="a", after=pages[-1].seq if pages else 0, limit=7):
        assert len(page) <= 7
        pages += page
    assert pages == [event for event in events if event.subject == "a"]
    await store.close()


async def numbers_are_given_once(subject: Subject) -> None:
    store = await subject.open()
    assert await store.take_numbers("x", 1) == 1
    assert await store.take_numbers("x", 5) == 2
    assert await store.take_numbers("y", 1) == 1
    counts = [1, 3, 7] * 5
    firsts = await asyncio.gather(*(store.take_numbers("x", count) for count in counts))
    taken = [first + n for first, count in zip(firsts, counts, strict=True) for n in range(count)]
    assert sorted(taken) == list(range(7, 7 + sum(counts)))
    await store.close()


async def a_lease_has_one_holder(subject: Subject) -> None:
    store = await subject.open()
    assert await store.lease("work", "a", 60_000)
    assert not await store.lease("work", "b", 60_000)
    assert await store.lease("work", "a", 60_000)  # renewed
    assert await store.lease("other", "b", 60_000)
    assert await store.lease("work", "a", 0)  # given back
    assert await store.lease("work", "b", 20)
    await subject.pass_time(21)
    assert await store.lease("work", "a", 60_000)
    assert not await store.lease("work", "b", 60_000)
    await store.close()


# -- views ------------------------------------------------------------------------------------------


async def old_snapshots_stay_as_they_were(subject: Subject) -> None:
    store = await subject.open()
    jobs = list(await store.commit([a_job(number=n, host_id="clu-1") for n in range(300)]))
    old = await store.snapshot()
    was, was_jobs = contents(old), list(old.jobs_of("clu-1"))
    assert [job.number for job in was_jobs] == list(range(300))
    for job in jobs[::3]:
        await store.commit([changed(job, phase=WorkloadPhase.FINISHED), a_job(host_id="clu-1", number=1000)])
    assert contents(old) == was and list(old.jobs_of("clu-1")) == was_jobs
    check_indexes(old)
    new = await store.snapshot()
    assert len(new.workloads) == 300 and new.seq > old.seq
    check_indexes(new)
    await store.close()


async def seq_changes_when_anything_changes(subject: Subject) -> None:
    store = await subject.open()
    seen = [store.seq]
    job = await put(store, a_job())
    seen.append(store.seq)
    await store.commit(events=[an_event()])
    seen.append(store.seq)
    await store.commit([changed(job, phase=WorkloadPhase.FINISHED)])
    seen.append(store.seq)
    assert seen == sorted(set(seen))
    snapshot = await store.snapshot()
    assert snapshot.seq == store.seq == seen[-1] and await store.snapshot() is snapshot
    await conflicting(store.commit([a_job(rev=1)]))
    assert store.seq == seen[-1] and await store.snapshot() is snapshot
    await store.close()


async def jobs_come_newest_first_in_pages(subject: Subject) -> None:
    store = await subject.open()
    jobs = [await put(store, a_job(number=n, host_id="clu-1")) for n in range(1, 26)]
    managed = await put(store, a_job(managed=True, number=1))
    await put(store, a_job(host_id="clu-2", number=99))
    for place in range(0, 25, 2):
        jobs[place] = await put(store, changed(jobs[place], phase=WorkloadPhase.FINISHED))
    jobs.reverse()
    assert await store.load_jobs(host_id="clu-1") == jobs
    assert await store.load_jobs(host_id="clu-1", live=True) == [job for job in jobs if job.is_live]
    assert await store.load_jobs(host_id=None) == [managed]
    assert await store.load_jobs(host_id="clu-3") == []
    pages: list[Workload] = []
    while page := await store.load_jobs(host_id="clu-1", limit=4, after=pages[-1].id if pages else None):
        assert len(page) <= 4
        pages += page
    assert pages == jobs
    for job in (jobs[0], jobs[1]):
        assert await store.find_job("clu-1", job.number) == job
    assert await store.find_job(None, 1) == managed
    assert await store.find_job("clu-1", 77) is None
    await store.close()


async def attempts_of_a_cluster_are_asked_since_a_time(subject: Subject) -> None:
    store = await subject.open()
    made: list[Attempt] = []
    for number, ended_ms in ((1, 200), (2, 400), (3, 0)):
        job = await put(store, a_job(host_id="clu-1", number=number))
        attempt = await put(store, an_attempt(workload_id=job.id))
        if ended_ms:
            attempt = await put(store, changed(attempt, phase=AttemptPhase.ENDED, ended_ms=ended_ms))
            await put(store, changed(job, phase=WorkloadPhase.FINISHED, ended_ms=ended_ms))
        made.insert(0, attempt)
    other = await put(store, a_job(host_id="clu-2"))
    await put(store, an_attempt(workload_id=other.id))
    assert await store.load_past_attempts("clu-1") == made
    assert await store.load_past_attempts("clu-1", since_ms=201) == made[:2]
    assert await store.load_past_attempts("clu-1", since_ms=201, limit=1) == made[:1]
    assert await store.load_past_attempts("clu-3") == []
    await store.close()


async def costs_are_asked_since_a_time(subject: Subject) -> None:
    store = await subject.open()
    early = await put(store, a_claim(requested_ms=100))
    early = await put(store, changed(early, phase=ClaimPhase.GONE, gone_ms=200))
    late = await put(store, changed(await put(store, a_claim()), phase=ClaimPhase.GONE, gone_ms=400))
    live = await put(store, a_claim(requested_ms=150))
    assert await store.load_claims() == [early, late, live]
    assert await store.load_claims(since_ms=200) == [early, late, live]
    assert await store.load_claims(since_ms=201) == [late, live]
    assert await store.load_claims(since_ms=500) == [live]
    assert await store.load_claims(limit=2) == [late, live]
    assert await store.load_claims(since_ms=201, limit=1) == [live]
    old = await put(store, a_cluster(name="old"))
    old = await put(store, changed(old, phase=WorkloadPhase.FINISHED, ended_ms=300))
    new = await put(store, a_cluster(name="new"))
    assert await store.load_clusters() == [old, new]
    assert await store.load_clusters(since_ms=301) == [new]
    await store.close()


# -- many at once -----------------------------------------------------------------------------------


async def one_of_many_writers_wins(subject: Subject) -> None:
    store = await subject.open()
    job = await put(store, a_job())
    tries = (store.commit([changed(job, detail=str(n))], events=[an_event()]) for n in range(50))
    results = await asyncio.gather(*tries, return_exceptions=True)
    (winner,) = [one for one in results if isinstance(one, tuple)]
    assert sum(isinstance(one, Conflict) for one in results) == 49
    assert await store.load(job.id) == winner[0]
    assert len(await store.load_events()) == 1
    await store.close()


async def count_up(store: Store, job_id: str, times: int) -> None:
    """The loop that every writer uses: read, decide, commit; on a conflict again."""
    for _ in range(times):
        while True:
            job = (await store.snapshot()).workloads[job_id]
            try:
                await store.commit([changed(job, attempts=job_state(job).attempts + 1)])
            except Conflict:
                continue
            break


async def nothing_is_lost_among_many_writers(subject: Subject) -> None:
    store = await subject.open()
    job = await put(store, a_job())
    await asyncio.gather(*(count_up(store, job.id, 10) for _ in range(8)))
    row = await store.load(job.id)
    assert isinstance(row, Workload) and job_state(row).attempts == 80 and row.rev == 81
    await store.close()


async def a_refused_commit_leaves_its_neighbours_alone(subject: Subject) -> None:
    store = await subject.open()
    ended = await put(store, changed(await put(store, a_job()), phase=WorkloadPhase.FINISHED))
    live = await put(store, a_job())
    good = [a_job(number=n) for n in range(30)]
    bad: list[Row] = [
        changed(live, rev=5),
        changed(live, host_id="clu-other"),
        changed(ended, rev=0),
        changed(ended, phase=WorkloadPhase.RUNNING),
        a_job(detail="\ud800"),
        a_job(name="a\0b"),
        a_job(created_ms=1 << 70),
    ]
    mixed: list[Row] = [*good[:10], *bad[:4], *good[10:20], *bad[4:], *good[20:]]
    results = await asyncio.gather(*(store.commit([row]) for row in mixed), return_exceptions=True)
    for row, result in zip(mixed, results, strict=True):
        assert isinstance(result, tuple) == (row in good), (row.id, result)
    assert set(contents(await store.snapshot())) == {live.id, *(row.id for row in good)}
    await store.close()


async def who_goes_away_disturbs_nobody(subject: Subject) -> None:
    store = await subject.open()
    rows = [a_job(number=n) for n in range(40)]
    tasks = [asyncio.create_task(store.commit([row])) for row in rows]
    await asyncio.sleep(0)
    for task in tasks[::2]:
        task.cancel()
    results = await asyncio.gather(*tasks, return_exceptions=True)
    there = contents(await store.snapshot())
    for row, result in zip(rows, results, strict=True):
        if isinstance(result, tuple):
            assert there[row.id] == result[0]
        else:
            assert isinstance(result, asyncio.CancelledError)
    await put(store, a_job(number=99))
    await store.close()


async def a_thousand_rows_in_one_commit(subject: Subject) -> None:
    store = await subject.open()
    rows = [a_job(number=n, host_id="clu-1") for n in range(1000)]
    written = await store.commit(rows, events=[an_event(row.id) for row in rows])
    assert [row.id for row in written] == [row.id for row in rows]
    moved = await store.commit([changed(row, phase=WorkloadPhase.STARTING) for row in written])
    snapshot = await store.snapshot()
    assert list(snapshot.jobs_of("clu-1")) == list(moved)
    await store.commit([changed(row, phase=WorkloadPhase.FINISHED) for row in moved])
    assert len((await store.snapshot()).workloads) == 0
    assert len(await store.load_jobs(host_id="clu-1", limit=2000)) == 1000
    await store.close()


# -- a long life ------------------------------------------------------------------------------------


async def everything_is_there_when_it_is_opened_again(subject: Subject) -> None:
    if not subject.is_lasting:
        raise NotApplicable("a database in memory ends with its store")
    store = await subject.open()
    await random_walk(store, random.Random(1), steps=60)
    before, seq = contents(await store.snapshot()), store.seq
    events, number = await store.load_events(), await store.take_numbers("x", 3)
    await store.commit(secrets={"job-1": {"A": "1"}}, key=("k", b"reply"))
    await store.close()
    again = await subject.open()
    assert contents(await again.snapshot()) == before and again.seq == seq + 1
    assert await again.load_events() == events
    assert await again.take_numbers("x", 1) == number + 3
    assert await again.load_secrets("job-1") == {"A": "1"} and await again.load_key("k") == b"reply"
    check_indexes(await again.snapshot())
    await again.close()


async def a_closed_store_says_so(subject: Subject) -> None:
    store = await subject.open()
    await store.close()
    await store.close()
    for call in (store.commit([a_job()]), store.load("job-x"), store.take_numbers("x", 1)):
        error = await refused(call, ArgosyError)
        assert isinstance(error, ArgosyError) and error.code == "store-busy"


async def what_ended_long_ago_is_forgotten(subject: Subject) -> None:
    store = await subject.open()
    cluster, job = a_cluster(name="c"), a_job(host_id="clu-x")
    attempt = an_attempt(workload_id=job.id)
    claim = a_claim(workload_id=cluster.id)
    node = a_node(workload_id=cluster.id, claim_id=claim.id)
    made: list[Row] = [cluster, job, attempt, claim, node]
    ours = await store.commit(made, events=[an_event(at_ms=100)])
    ends = (
        WorkloadPhase.FINISHED,
        WorkloadPhase.FINISHED,
        AttemptPhase.ENDED,
        ClaimPhase.HELD,
        NodePhase.GONE,
    )
    ours = await store.commit(
        [
            changed(row, phase=phase, **({"ended_ms": 100} if isinstance(row, Workload) else {}))
            for row, phase in zip(ours, ends, strict=True)
        ]
    )
    live = await put(store, a_job(number=2))
    late = await put(
        store, changed(await put(store, a_job(number=3)), phase=WorkloadPhase.FINISHED, ended_ms=900)
    )
    await store.commit(events=[an_event(at_ms=900)])
    assert await store.prune(before_ms=50) == 0
    # the cluster still has a live claim; so it stays
    assert await store.prune(before_ms=500) == 3
    assert await store.load(job.id) is None and await store.load(attempt.id) is None
    assert await store.load(cluster.id) == ours[0] and await store.load(claim.id) == ours[3]
    assert await store.load(live.id) == live and await store.load(late.id) == late
    assert [event.at_ms for event in await store.load_events()] == [900]
    await store.commit([changed(ours[3], phase=ClaimPhase.GONE, gone_ms=100)])
    assert await store.prune(before_ms=500) == 3
    assert await store.load(cluster.id) is None and await store.load(node.id) is None
    many = await store.commit([a_job(number=n) for n in range(10, 1210)])
    await store.commit([changed(row, phase=WorkloadPhase.FINISHED, ended_ms=100) for row in many])
    assert await store.prune(before_ms=500) == 1200
    assert contents(await store.snapshot()) == {live.id: live}
    await store.close()


async def a_broken_connection_is_made_again(subject: Subject) -> None:
    store = await subject.open()
    job = await put(store, a_job())
    await subject.cut(store)
    assert await store.load(job.id) == job
    await subject.cut(store)
    job = await put(store, changed(job, detail="after"))
    await subject.cut(store)
    assert contents(await store.snapshot()) == {job.id: job}
    await subject.cut(store)
    assert await store.take_numbers("x", 1) == 1
    await store.close()


# -- several stores ---------------------------------------------------------------------------------


async def _two(subject: Subject) -> tuple[Store, Store]:
    if not subject.is_shared:
        raise NotApplicable("one store at a time")
    return await subject.open(), await subject.open()


async def stores_see_each_other(subject: Subject) -> None:
    one, two = await _two(subject)
    job = await put(one, a_job())
    assert (await two.snapshot()).workloads == {job.id: job}
    job = await put(two, changed(job, detail="by two"))
    assert await one.load(job.id) == job
    assert await one.find_job(job.host_id, job.number) == job
    assert await conflicting(one.commit([a_job(id=job.id)])) == {job.id}
    job = await put(one, changed(job, phase=WorkloadPhase.FINISHED))
    assert (await two.snapshot()).workloads == {} and two.seq == one.seq
    await one.commit([a_cluster(name="x")], key=("k", b"1"), secrets={"job-9": {"A": "1"}})
    assert await conflicting(two.commit([a_cluster(name="x")]))
    await refused(two.commit([a_job()], key=("k", b"2")), KeyUsed)
    assert await two.load_secrets("job-9") == {"A": "1"}
    assert await one.lease("l", "one", 60_000) and not await two.lease("l", "two", 60_000)
    # a refused commit looks at what the other wrote, and overlooks nothing that comes after
    await one.commit([a_job(number=5)])
    await conflicting(two.commit([changed(job, rev=1)]))
    await one.commit([a_job(number=6)])
    assert contents(await two.snapshot()) == contents(await one.snapshot())
    firsts = await asyncio.gather(*(store.take_numbers("n", 2) for store in (one, two) * 10))
    assert sorted(firsts) == list(range(1, 41, 2))
    await one.close()
    await two.close()


async def stores_do_not_overwrite_each_other(subject: Subject) -> None:
    one, two = await _two(subject)
    job = await put(one, a_job())
    await asyncio.gather(*(count_up(store, job.id, 10) for store in (one, two, one, two)))
    row = await one.load(job.id)
    assert isinstance(row, Workload) and job_state(row).attempts == 40
    # each of many names goes to one of them
    names = [f"c{n}" for n in range(20)]
    tries = [store.commit([a_cluster(name=name)]) for name in names for store in (one, two)]
    results = await asyncio.gather(*tries, return_exceptions=True)
    assert sum(isinstance(result, tuple) for result in results) == 20
    assert sum(isinstance(result, Conflict) for result in results) == 20
    assert contents(await one.snapshot()) == contents(await two.snapshot())
    await one.close()
    await two.close()


async def stores_agree_after_a_walk_of_both(subject: Subject) -> None:
    one, two = await _two(subject)
    seen: list[int] = []

    async def watch() -> None:
        for _ in range(40):
            snapshot = await two.snapshot()
            seen.append(snapshot.seq)
            check_indexes(snapshot)
            await asyncio.sleep(0)

    await asyncio.gather(
        random_walk(one, random.Random(2), steps=60), random_walk(two, random.Random(3), steps=60), watch()
    )
    assert seen == sorted(seen)
    third = await subject.open()
    assert (
        contents(await one.snapshot()) == contents(await two.snapshot()) == contents(await third.snapshot())
    )
    for store in (one, two, third):
        check_indexes(await store.snapshot())
        await store.close()


# -- a walk against a model -------------------------------------------------------------------------


async def a_random_walk_matches_a_dict(subject: Subject) -> None:
    store = await subject.open()
    await random_walk(store, random.Random(4), steps=200, alone=True)
    await store.close()
    if subject.is_lasting:
        again = await subject.open()
        await random_walk(again, random.Random(5), steps=50)
        await again.close()


async def random_walk(store: Store, dice: random.Random, *, steps: int, alone: bool = False) -> None:
    """Random commits, each checked against a plain dict of what must be there; `alone`: nobody else
    writes."""
    model: dict[str, Row] = {}  # all rows that this walk wrote, finished ones too
    for _ in range(steps):
        puts = _random_puts(dice, model)
        expect = {row.id: row.rev for row in dice.sample(list(model.values()), k=min(len(model), 2))}
        spoiled = dice.random() < 0.2 and _spoil(dice, puts, expect)
        events = [an_event(row.id) for row in puts[:2]]
        before = store.seq
        try:
            written = await store.commit(puts, expect=expect, events=events)
        except (Conflict, IllegalMove):
            assert spoiled or not alone, "refused without a reason"
            if alone:
                assert store.seq == before
        else:
            assert not spoiled, "a spoiled commit was written"
            assert written == tuple(changed(row, rev=row.rev + 1) for row in puts)
            model |= {row.id: row for row in written}
        snapshot = await store.snapshot()
        live = {id: row for id, row in model.items() if row.is_live}
        there = contents(snapshot)
        assert {id: there.get(id) for id in live} == live
        assert not {id for id, row in model.items() if not row.is_live} & there.keys()
        if alone:
            assert there == live
            check_indexes(snapshot)
    for id, row in model.items():
        assert await store.load(id) == row


def _random_puts(dice: random.Random, model: Mapping[str, Row]) -> list[Row]:
    puts: list[Row] = []
    live = [row for row in model.values() if row.is_live]
    for row in dice.sample(live, k=min(len(live), dice.randrange(4))):
        phases = [phase for phase in type(row.phase) if may_move(row.phase, phase)]
        puts.append(
            changed(row, phase=dice.choice(phases), detail=str(dice.random()))
            if not isinstance(row, Node)
            else changed(row, phase=dice.choice(phases), index=dice.randrange(9))
        )
    clusters = [row.id for row in live if isinstance(row, Workload) and kind_of(row).hosts] or ["clu-0"]
    claims = [row for row in live if isinstance(row, Claim)]
    for _ in range(dice.randrange(3)):
        owner = dice.choice(clusters)
        kind = dice.randrange(5)
        if kind == 0:
            puts.append(a_cluster(name=an_id("name")))
        elif kind == 1:
            puts.append(a_job(host_id=dice.choice([owner, None]), number=dice.randrange(1, 50)))
        elif kind == 2:
            puts.append(an_attempt(workload_id=an_id("job"), reason=dice.choice([None, *Reason])))
        elif kind == 3:
            puts.append(a_claim(workload_id=owner))
        elif claims:
            claim = dice.choice(claims)
            puts.append(a_node(claim_id=claim.id, workload_id=claim.workload_id, index=dice.randrange(4)))
    return puts


def _spoil(dice: random.Random, puts: list[Row], expect: dict[str, int]) -> bool:
    """Make the commit one that must be refused, if that can be done."""
    if expect and dice.random() < 0.5:
        expect[next(iter(expect))] += dice.choice([-1, 1])
        return True
    if not puts:
        return False
    at = dice.randrange(len(puts))
    puts[at] = changed(puts[at], rev=puts[at].rev + 1 if not puts[at].rev else 0)
    return True


CASES: Final[tuple[Case, ...]] = (
    a_new_store_is_empty,
    every_kind_of_row_comes_back_as_it_went,
    any_text_comes_back,
    a_row_that_changed_meanwhile_is_a_conflict,
    an_id_is_taken_once,
    expectations_hold_or_nothing_is_written,
    only_moves_of_the_tables_are_written,
    the_tenancy_is_one_row_with_a_revision,
    servers_see_one_tenancy,
    what_a_row_is_and_belongs_to_never_changes,
    one_live_cluster_has_a_name,
    a_workload_has_one_live_attempt,
    a_key_is_carried_out_once,
    secrets_live_as_long_as_their_workload,
    events_keep_the_order_of_commits,
    numbers_are_given_once,
    a_lease_has_one_holder,
    old_snapshots_stay_as_they_were,
    seq_changes_when_anything_changes,
    jobs_come_newest_first_in_pages,
    costs_are_asked_since_a_time,
    one_of_many_writers_wins,
    nothing_is_lost_among_many_writers,
    a_refused_commit_leaves_its_neighbours_alone,
    who_goes_away_disturbs_nobody,
    a_thousand_rows_in_one_commit,
    everything_is_there_when_it_is_opened_again,
    a_closed_store_says_so,
    what_ended_long_ago_is_forgotten,
    a_broken_connection_is_made_again,
    stores_see_each_other,
    stores_do_not_overwrite_each_other,
    stores_agree_after_a_walk_of_both,
    a_random_walk_matches_a_dict,
)


def case_name(case: Case) -> str:
    return getattr(case, "__name__", str(case))

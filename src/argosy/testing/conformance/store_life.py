"""Cases of the store's suite: keys, secrets, events, numbers, leases, views, and a long life."""

from __future__ import annotations

import asyncio
import random

from argosy.model.errors import ArgosyError
from argosy.model.phases import AttemptPhase, ClaimPhase, NodePhase, WorkloadPhase
from argosy.model.rows import Attempt, Event, Row, Workload
from argosy.store import Conflict, KeyUsed
from argosy.store.servers import Peer, fence_of
from argosy.testing.builders import a_claim, a_cluster, a_job, a_node, an_attempt, changed
from argosy.testing.conformance.provider import NotApplicable
from argosy.testing.conformance.store_subject import (
    Subject,
    an_event,
    check_indexes,
    conflicting,
    contents,
    put,
    refused,
)
from argosy.testing.conformance.store_writers import random_walk

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


async def a_term_counts_its_holders_and_fences(subject: Subject) -> None:
    store = await subject.open()
    fence = fence_of("deciding")
    assert await store.servers.take("deciding", "a", 60_000) == 1
    assert await store.servers.take("deciding", "a", 60_000) == 1  # renewed
    assert await store.servers.take("deciding", "b", 60_000) == 0
    (job,) = await store.commit([a_job()], expect={fence: 1})
    assert await store.servers.take("deciding", "a", 0) == 1  # given back
    assert await conflicting(store.commit([changed(job, detail="late")], expect={fence: 1})) == {fence}
    assert await store.servers.take("deciding", "b", 20) == 2
    (job,) = await store.commit([changed(job, detail="by b")], expect={fence: 2})
    await subject.pass_time(21)
    assert await conflicting(store.commit([changed(job, detail="too late")], expect={fence: 2}))
    assert await store.servers.take("deciding", "b", 60_000) == 3, "after a pause it is another term"
    assert await conflicting(store.commit([changed(job, detail="of before")], expect={fence: 2}))
    row = await store.load(job.id)
    assert isinstance(row, Workload) and row.detail == "by b"
    await store.close()


async def servers_are_known_until_they_leave(subject: Subject) -> None:
    store = await subject.open()
    peers = [Peer(id=f"srv-{name}", name=name, address="/x", schema="0007") for name in ("b", "a")]
    for peer in peers:
        await store.servers.tell(peer)
    assert [seen.peer.name for seen in await store.servers.all()] == ["a", "b"]
    await store.servers.leave("srv-a")
    assert [seen.silent_ms < 0 for seen in await store.servers.all()] == [True, False]
    assert await store.servers.place("clm-1", "srv-a") == "srv-a"
    assert await store.servers.place("clm-1", "srv-b") == "srv-a", "where it is, it stays"
    assert await store.servers.place("clm-2", "srv-b") == "srv-b"
    await store.servers.unplace("clm-2")
    assert dict(await store.servers.placed()) == {"clm-1": "srv-a"}
    await store.servers.forget("srv-a")
    assert [seen.peer.id for seen in await store.servers.all()] == ["srv-b"]
    assert not await store.servers.placed()
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


async def rows_are_asked_by_id(subject: Subject) -> None:
    store = await subject.open()
    jobs = await store.commit([a_job(number=number) for number in range(1, 1203)])
    over = await put(store, changed(jobs[0], phase=WorkloadPhase.FINISHED))
    attempt = await put(store, an_attempt(workload_id=over.id))
    found = await store.load_by_id(Workload, {job.id for job in jobs} | {attempt.id, "job-none"})
    assert found == {job.id: job for job in (over, *jobs[1:])}
    assert await store.load_by_id(Attempt, [attempt.id]) == {attempt.id: attempt}
    assert await store.load_by_id(Attempt, []) == {}
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

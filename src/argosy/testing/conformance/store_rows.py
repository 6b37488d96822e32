"""Cases of the store's suite: rows come back as they went, and only what the laws allow is written."""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Sequence

from argosy.model.errors import ArgosyError
from argosy.model.phases import AttemptPhase, ClaimPhase, NodePhase, Phase, WorkloadPhase, may_move
from argosy.model.resources import Accelerator, Resources
from argosy.model.rows import Row
from argosy.model.tenancy import TENANCY_ID, Group, Preset, Queue, SharePolicy, Tenancy
from argosy.store import IllegalMove
from argosy.testing.builders import a_claim, a_cluster, a_job, a_node, a_task, an_attempt, changed
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

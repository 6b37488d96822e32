"""Cases of the store's suite: many writers, several stores, and a random walk against a dict."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Mapping

from argosy.model.kinds import kind_of
from argosy.model.kinds.job import job_state
from argosy.model.phases import WorkloadPhase, may_move
from argosy.model.reasons import Reason
from argosy.model.rows import Claim, Node, Row, Workload
from argosy.store import Conflict, IllegalMove, KeyUsed, Store
from argosy.testing.builders import a_claim, a_cluster, a_job, a_node, an_attempt, an_id, changed
from argosy.testing.conformance.store_subject import (
    Subject,
    an_event,
    check_indexes,
    conflicting,
    contents,
    put,
    refused,
    two_stores,
)

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


# -- several stores ---------------------------------------------------------------------------------


async def stores_see_each_other(subject: Subject) -> None:
    one, two = await two_stores(subject)
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
    one, two = await two_stores(subject)
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
    one, two = await two_stores(subject)
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

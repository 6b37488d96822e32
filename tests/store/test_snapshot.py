"""Snapshots without a database: what changes by little steps is what one would read anew."""

from __future__ import annotations

import random

import msgspec
from hypothesis import given
from hypothesis import strategies as st

from argosy.model.phases import AttemptPhase, NodePhase, WorkloadPhase
from argosy.model.rows import Row
from argosy.store import Snapshot
from argosy.testing.builders import a_claim, a_cluster, a_job, a_node, an_attempt
from argosy.testing.conformance.store_subject import check_indexes, contents


def some_row(dice: random.Random, n: int) -> Row:
    owner, gone = f"clu-{dice.randrange(3)}", dice.random() < 0.3
    kind = dice.randrange(5)
    if kind == 0:
        phase = WorkloadPhase.FINISHED if gone else WorkloadPhase.QUEUED
        return a_cluster(id=f"clu-{n % 7}", name=f"n{n % 7}-{dice.randrange(3)}", phase=phase, rev=1)
    if kind == 1:
        phase = WorkloadPhase.FINISHED if gone else WorkloadPhase.RUNNING
        job = a_job(id=f"job-{n % 11}", host_id=owner, number=dice.randrange(9), phase=phase, rev=1)
        return msgspec.structs.replace(job, host_id=None) if dice.random() < 0.2 else job
    if kind == 2:
        phase = AttemptPhase.ENDED if gone else AttemptPhase.RUNNING
        return an_attempt(id=f"att-{n % 5}", workload_id=f"job-{n % 5}", phase=phase, rev=1)
    if kind == 3:
        return a_claim(id=f"clm-{n % 5}", workload_id=owner, rev=1)
    phase = NodePhase.GONE if gone else NodePhase.READY
    return a_node(id=f"nod-{n % 9}", claim_id=f"clm-{n % 3}", index=dice.randrange(4), phase=phase, rev=1)


@given(st.integers(0, 10**6))
def test_little_steps_are_one_reading(seed: int) -> None:
    dice = random.Random(seed)
    snapshot, model = Snapshot.of(()), dict[str, Row]()
    for seq in range(1, 15):
        rows = {row.id: row for row in (some_row(dice, dice.randrange(50)) for _ in range(dice.randrange(6)))}
        before, was = snapshot, contents(snapshot)
        snapshot = snapshot.changed(rows.values(), seq=seq)
        model |= rows
        live = {id: row for id, row in model.items() if row.is_live}
        assert contents(before) == was
        assert contents(snapshot) == live and snapshot.seq == seq
        check_indexes(snapshot)
        news = {(new or old).id: (old, new) for old, new in snapshot.news(before)}  # type: ignore[union-attr]
        assert news.keys() == {id for id in was.keys() | live.keys() if was.get(id) is not live.get(id)}
        assert all(pair == (was.get(id), live.get(id)) for id, pair in news.items())
        whole = Snapshot.of(model.values(), seq=seq)
        assert contents(whole) == live
        for owner in ("clu-0", "clu-1", "clu-2"):
            assert snapshot.jobs_of(owner) == whole.jobs_of(owner)
            assert snapshot.claims_of(owner) == whole.claims_of(owner)
            assert snapshot.nodes_of(owner) == whole.nodes_of(owner)
        assert snapshot.managed_jobs() == whole.managed_jobs()
        assert snapshot.clusters() == whole.clusters()


def test_ids_that_begin_alike_are_kept_apart() -> None:
    snapshot = Snapshot.of([a_job(host_id="clu-1", number=1), a_job(host_id="clu-10", number=2)])
    assert [job.number for job in snapshot.jobs_of("clu-1")] == [1]
    assert [job.number for job in snapshot.jobs_of("clu-10")] == [2]
    assert snapshot.jobs_of("clu-") == ()
    assert snapshot.job("clu-10", 2) is not None and snapshot.job("clu-1", 2) is None


def test_numbers_are_in_order_of_counting() -> None:
    jobs = [a_job(host_id="clu-1", number=n) for n in (100, 9, 10, 1)]
    assert [job.number for job in Snapshot.of(jobs).jobs_of("clu-1")] == [1, 9, 10, 100]

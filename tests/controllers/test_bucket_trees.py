"""Checkpoints in a bucket: copied there, put back from there, also by a server that knows nothing of them."""

from __future__ import annotations

import asyncio
import hashlib
from pathlib import Path

import msgspec
from local_house import a_house

from argosy.controllers.bucket_trees import BucketTrees, place_of
from argosy.controllers.view import Policy
from argosy.infra.buckets import StoreSettings
from argosy.infra.system import SystemClock
from argosy.model.kinds.job import job_state
from argosy.model.kinds.kind import Checkpoint
from argosy.model.phases import Outcome
from argosy.model.task import CheckpointRules
from argosy.model.tree import Entry, Tree
from argosy.storage.buckets import Stores
from argosy.testing.builders import a_job, a_task

#: Counts how often it has run, from what it finds.
COUNTS = """cd "$ARGOSY_CHECKPOINT_DIR"
count=$(cat count 2>/dev/null || echo 0)
[ "$count" = "$WANTED" ] || { echo "found $count"; exit 3; }
echo $((count + 1)) > count.tmp && mv count.tmp count
[ -z "$STAYS" ] || [ "$ARGOSY_ATTEMPT" != 1 ] || sleep 600
"""


def stores_of(tmp_path: Path) -> Stores:
    return Stores(StoreSettings(environ={}, home=tmp_path, clock=SystemClock()))


def test_a_job_goes_on_from_its_bucket_also_with_a_server_that_has_lost_all(tmp_path: Path) -> None:
    url, stores = f"file://{tmp_path}/kept/", stores_of(tmp_path)

    async def run(wanted: str) -> None:
        rules = CheckpointRules(to=url)
        task = a_task(run=COUNTS, envs={"WANTED": wanted, "STAYS": ""}, checkpoints=rules)
        async with a_house(task, Policy(copy_every_ms=3_600_000), stores) as house:  # a database of its own
            await house.until(house.is_over)
            job = await house.job()
            assert job.outcome is Outcome.SUCCEEDED, job.detail

    asyncio.run(run("0"))
    asyncio.run(run("1"))
    asyncio.run(run("2"))
    assert (
        len(list((tmp_path / "kept" / "trees").iterdir())) == 1
    )  # the older ones are gone, with their chunks
    chunks = [path for path in (tmp_path / "kept" / "chunks").rglob("*") if path.is_file()]
    assert [path.read_text() for path in chunks] == ["3\n"]


def test_a_job_that_loses_its_machine_goes_on_from_its_bucket(tmp_path: Path) -> None:
    stores = stores_of(tmp_path)

    async def main() -> None:
        rules = CheckpointRules(to=f"file://{tmp_path}/kept")
        run = COUNTS.replace('"$WANTED"', '"$((ARGOSY_ATTEMPT - 1))"')
        task = a_task(run=run, envs={"STAYS": "1"}, checkpoints=rules)
        async with a_house(task, Policy(copy_every_ms=200), stores) as house:
            await house.until(house.checkpoint)
            [claim] = (await house.store.snapshot()).claims.values()
            await house.provider.simulate_preemption(claim.id)
            await house.until(house.is_over)
            job = await house.job()
            assert (job.outcome, job_state(job).recoveries) == (Outcome.SUCCEEDED, 1), job.detail

    asyncio.run(main())


def test_copies_that_do_not_stay_go_with_what_only_they_need(tmp_path: Path) -> None:
    bucket = stores_of(tmp_path).open(f"file://{tmp_path}/").bucket

    async def main() -> None:
        trees = BucketTrees(bucket, f"{tmp_path}/kept".lstrip("/"))
        shared, made = b"in all of them", []
        for number in range(3):
            own = f"only in {number}".encode()
            entries = []
            for name, data in (("own", own), ("shared", shared)):
                digest = hashlib.sha256(data).hexdigest()
                if await trees.missing([digest]):
                    await trees.put(digest, data)
                entries.append(Entry(path=name, kind="f", size=len(data), chunks=(digest,)))
            tree = await trees.put_tree(msgspec.json.encode(Tree(entries=tuple(entries))))
            made.append(Checkpoint(tree=tree, at_ms=number, size_bytes=30))
            await trees.note(made[-1], CheckpointRules(keep_last=2))
        fresh = BucketTrees(bucket, f"{tmp_path}/kept".lstrip("/"))
        assert [copy.tree for copy in await fresh.copies()] == [made[2].tree, made[1].tree]
        gone, stays = (hashlib.sha256(data).hexdigest() for data in (b"only in 0", shared))
        assert list(await fresh.missing([gone, stays])) == [gone]
        assert await fresh.read(stays) == shared
        await fresh.forget([made[1].tree, made[2].tree])
        assert await fresh.copies() == ()
        assert [path for path in (tmp_path / "kept" / "chunks").rglob("*") if path.is_file()] == []

    asyncio.run(main())


def test_tasks_of_a_group_have_places_of_their_own() -> None:
    from argosy.model.group import Membership

    task = a_task(checkpoints=CheckpointRules(to="s3://b/run"))
    single = a_job(id="job-1", managed=True, host_id=None, task=task)
    assert place_of(single) == "s3://b/run"
    member = Membership(group=7, program=0, size=9)
    spec = msgspec.structs.replace(single.spec, member=member)  # type: ignore[type-var]
    assert place_of(msgspec.structs.replace(single, spec=spec, number=3)) == "s3://b/run/3/"

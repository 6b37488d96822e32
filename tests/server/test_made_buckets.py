"""Buckets that were made for a task go after its end: only those, and also when the server was killed."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import msgspec
import pytest

from argosy.infra.buckets import AccessRefused, BucketError, StoreSettings
from argosy.infra.system import SystemIds
from argosy.model.errors import ArgosyError
from argosy.model.made_buckets import OF, MadeBucket
from argosy.model.phases import Outcome, WorkloadPhase
from argosy.model.rows import Workload
from argosy.model.task import StorageMount
from argosy.server.made_buckets import LAUNCHED_MS, UNUSED_MS, MadeBuckets
from argosy.storage.buckets import Stores
from argosy.storage.shelf_bucket import ShelfBucket
from argosy.storage.shelf_folder import ShelfFolder
from argosy.store import Store
from argosy.testing.builders import a_cluster, a_job, a_task
from argosy.testing.virtual_time import FixedClock

URL = "argosy://passing"


class Killed(BaseException):
    """The server is killed here."""


class Rig:
    """A server's ledger over a real store of objects. `break_at`: calls of the bucket that fail, and how."""

    def __init__(self, root: Path, store: Store, clock: FixedClock) -> None:
        self.folder = ShelfFolder(root, clock, SystemIds())
        self.store, self.clock = store, clock
        self.break_at: dict[str, BaseException] = {}
        settings = StoreSettings(environ={}, home=root, clock=clock, local=self.local)
        self.made = MadeBuckets(store, lambda: Stores(settings), clock, SystemIds())

    def local(self, name: str) -> Any:
        rig = self

        class Bucket(ShelfBucket):
            def make(self) -> None:
                rig.fail("make")
                super().make()
                rig.fail("made")

            def drop(self) -> None:
                rig.fail("drop")
                super().drop()

        return Bucket(self.folder, name)

    def fail(self, where: str) -> None:
        if where in self.break_at:
            raise self.break_at.pop(where)

    def bucket(self, name: str = "passing") -> ShelfBucket:
        return ShelfBucket(self.folder, name)

    @property
    def is_there(self) -> bool:
        return self.folder.index.has_bucket("passing")

    async def rows(self) -> list[MadeBucket]:
        return [row for row in (await self.store.snapshot()).entries_of(OF) if isinstance(row, MadeBucket)]

    async def put(self, row: Workload) -> Workload:
        [written] = await self.store.commit([row])
        assert isinstance(written, Workload)
        return written

    async def end(self, row: Workload) -> None:
        await self.put(
            msgspec.structs.replace(row, phase=WorkloadPhase.FINISHED, outcome=Outcome.SUCCEEDED, ended_ms=1)
        )

    async def told(self) -> list[tuple[str, str]]:
        return [(each.subject, each.text) for each in await self.store.load_events() if each.code == "data"]


def job(*, persistent: bool = False, **fields: Any) -> Workload:
    mount = StorageMount(target="/data", name="passing", store="argosy", persistent=persistent)
    told = {"id": "job-1", "number": 1, "host_id": None, "managed": True, **fields}
    return a_job(task=a_task(storage_mounts=(mount,)), **told)


@pytest.fixture
def act(tmp_path: Path) -> Callable[[Callable[[Rig], Awaitable[None]]], None]:
    def run(scenario: Callable[[Rig], Awaitable[None]]) -> None:
        async def main() -> None:
            clock = FixedClock()
            store = await Store.open("sqlite://", ids=SystemIds(), clock=clock, inline=True)
            await scenario(Rig(tmp_path, store, clock))
            await store.close()

        asyncio.run(main())

    return run


def test_a_bucket_that_was_made_for_a_job_goes_after_its_end(act: Any) -> None:
    async def scenario(rig: Rig) -> None:
        assert await rig.made.ensure(URL, passing=True)
        row = await rig.put(job())
        rig.bucket().write("model", [b"x"])
        await rig.made.look()
        assert rig.is_there
        await rig.end(row)
        await rig.made.look()
        assert rig.is_there  # somebody may be launching with it just now
        rig.clock.advance(LAUNCHED_MS / 1000)
        await rig.made.look()
        assert not rig.is_there and await rig.rows() == []
        assert await rig.told() == [("job-1", f"the bucket {URL}, which was made for it, is removed")]

    act(scenario)


def test_a_bucket_that_was_there_before_stays(act: Any) -> None:
    async def scenario(rig: Rig) -> None:
        rig.bucket().make()
        assert not await rig.made.ensure(URL, passing=True)
        await rig.end(await rig.put(job()))
        await rig.made.look()
        assert rig.is_there and await rig.told() == []

    act(scenario)


def test_it_stays_as_long_as_the_cluster_on_which_its_job_ran(act: Any) -> None:
    async def scenario(rig: Rig) -> None:
        await rig.made.ensure(URL, passing=True)
        cluster = await rig.put(a_cluster(id="clu-1", name="dev"))
        row = await rig.put(job(host_id="clu-1", managed=False))
        await rig.made.look()
        await rig.end(row)
        await rig.made.look()
        assert rig.is_there
        rig.clock.advance(LAUNCHED_MS / 1000)
        await rig.made.look()
        assert rig.is_there
        await rig.end(cluster)
        await rig.made.look()
        assert not rig.is_there

    act(scenario)


def test_who_keeps_it_meanwhile_keeps_it_for_good(act: Any) -> None:
    async def scenario(rig: Rig) -> None:
        await rig.made.ensure(URL, passing=True)
        first = await rig.put(job())
        await rig.made.look()
        await rig.made.ensure(URL, passing=False)  # another task names it, and keeps it
        await rig.end(first)
        await rig.made.look()
        assert rig.is_there and await rig.rows() == []

    act(scenario)


def test_a_bucket_that_was_filled_for_a_launch_which_never_came_goes_after_an_hour(act: Any) -> None:
    async def scenario(rig: Rig) -> None:
        await rig.made.ensure(URL, passing=True)
        await rig.made.look()
        assert rig.is_there
        rig.clock.advance(UNUSED_MS / 1000)
        await rig.made.look()
        assert not rig.is_there

    act(scenario)


@pytest.mark.parametrize("where", ["make", "made"])
def test_a_server_that_is_killed_while_it_makes_one_leaves_none_behind(act: Any, where: str) -> None:
    async def scenario(rig: Rig) -> None:
        rig.break_at[where] = Killed()
        with pytest.raises(Killed):
            await rig.made.ensure(URL, passing=True)
        assert rig.is_there == (where == "made")
        (row,) = await rig.rows()
        assert not row.is_made
        rig.clock.advance(UNUSED_MS / 1000)
        await rig.made.look()
        assert not rig.is_there and await rig.rows() == []

    act(scenario)


def test_one_that_may_be_somebody_else_s_is_not_emptied(act: Any) -> None:
    """The server was killed before it made it, and somebody made one of that name."""

    async def scenario(rig: Rig) -> None:
        rig.break_at["make"] = Killed()
        with pytest.raises(Killed):
            await rig.made.ensure(URL, passing=True)
        rig.bucket().make()
        rig.bucket().write("theirs", [b"x"])
        rig.clock.advance(UNUSED_MS / 1000)
        await rig.made.look()
        assert [each.key for each in rig.bucket().page().objects] == ["theirs"]
        assert await rig.rows() == []

    act(scenario)


def test_a_server_that_is_killed_while_it_removes_one_is_followed_by_one_that_goes_on(act: Any) -> None:
    async def scenario(rig: Rig) -> None:
        await rig.made.ensure(URL, passing=True)
        await rig.end(await rig.put(job()))
        rig.clock.advance(UNUSED_MS / 1000)
        rig.break_at["drop"] = Killed()
        with pytest.raises(Killed):
            await rig.made.look()
        with pytest.raises(ArgosyError, match="the bucket argosy://passing is being removed") as told:
            await rig.made.ensure(URL, passing=True)
        assert told.value.hint == "repeat it in a minute"
        await rig.made.look()
        assert not rig.is_there
        assert await rig.made.ensure(URL, passing=True)

    act(scenario)


def test_a_store_that_refuses_is_told_once_and_tried_again(act: Any) -> None:
    async def scenario(rig: Rig) -> None:
        await rig.made.ensure(URL, passing=True)
        row = await rig.put(job())
        await rig.made.look()
        await rig.end(row)
        rig.clock.advance(LAUNCHED_MS / 1000)
        for _ in range(2):
            rig.break_at["drop"] = AccessRefused("the store does not let us", "ask its owner")
            await rig.made.look()
        said = "is not removed yet: the store does not let us"
        assert [text for _, text in await rig.told()] == [f"the bucket {URL} {said}"]
        await rig.made.look()
        assert not rig.is_there

    act(scenario)


def test_one_that_cannot_be_made_leaves_no_row(act: Any) -> None:
    async def scenario(rig: Rig) -> None:
        rig.break_at["make"] = AccessRefused("the store does not let us", "ask its owner")
        with pytest.raises(BucketError, match="does not let us"):
            await rig.made.ensure(URL, passing=True)
        assert await rig.rows() == []

    act(scenario)

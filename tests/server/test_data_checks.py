"""Storage of a task is looked at before anything is ordered."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable
from pathlib import Path

import pytest
from raw_requests import Raw

from argosy.infra.buckets import (
    BY_ITSELF,
    AccessRefused,
    BucketMissing,
    Encryption,
    Opened,
    StoreSettings,
    StoreUnreachable,
)
from argosy.infra.system import SystemClock
from argosy.model.errors import ArgosyError
from argosy.model.objects import ObjectPage
from argosy.model.task import Returned, StorageMount, Task
from argosy.server.data_checks import DataChecks
from argosy.storage.buckets import Stores
from argosy.testing.idle_server import IdleServer


def copies(*urls: str) -> Task:
    mounts = tuple(
        StorageMount(target=f"/data/{at}", sources=(url,), mode="COPY") for at, url in enumerate(urls)
    )
    return Task(run="x", storage_mounts=mounts)


class Says:
    """A store that answers in one way."""

    def __init__(self, answer: Callable[[], Opened]) -> None:
        self._answer = answer

    def open(self, url: str, encryption: Encryption = BY_ITSELF) -> Opened:
        return self._answer()


def raising(error: Exception) -> Callable[[], Opened]:
    def answer() -> Opened:
        raise error

    return answer


@pytest.mark.parametrize(
    ("error", "code", "said"),
    [
        (BucketMissing("there is no bucket s3://b", "make it"), "not-found", "there is no bucket s3://b"),
        (AccessRefused("s3://b is not ours", "ask"), "forbidden", "s3://b is not ours"),
    ],
)  # fmt: skip
def test_a_bucket_that_cannot_be_used_is_told_at_once(error: Exception, code: str, said: str) -> None:
    checks = DataChecks(lambda: Says(raising(error)))
    with pytest.raises(ArgosyError) as told:
        asyncio.run(checks.check([copies("s3://b/x")]))
    assert (told.value.code, str(told.value)) == (code, f"`/data/0`: {said}")
    assert told.value.hint


def test_a_store_that_does_not_answer_is_asked_again_later() -> None:
    gate = threading.Event()

    def waits() -> Opened:
        gate.wait(20)
        raise BucketMissing("too late")

    asked = asyncio.new_event_loop()
    asked.run_until_complete(DataChecks(lambda: Says(waits), patience_s=0.01).check([copies("s3://b")]))
    gate.set()
    asked.run_until_complete(asked.shutdown_default_executor())
    asked.close()
    asyncio.run(DataChecks(lambda: Says(raising(StoreUnreachable("no route")))).check([copies("s3://b")]))


def test_what_is_read_must_be_there_and_what_is_written_need_not(tmp_path: Path) -> None:
    stores = Stores(StoreSettings(environ={}, home=tmp_path, clock=SystemClock()))
    checks = DataChecks(lambda: stores)
    (tmp_path / "a").mkdir()
    (tmp_path / "a" / "x").touch()
    there, none = f"file://{tmp_path}/a", f"file://{tmp_path}/none"
    asyncio.run(checks.check([copies(there, there + "/x")]))
    with pytest.raises(ArgosyError, match="nothing lies at"):
        asyncio.run(checks.check([copies(there, none)]))
    asyncio.run(checks.check([Task(run="x", returns=(Returned(path="out", url=none + "/"),))]))


def test_a_launch_is_refused_before_it_is_written(server: IdleServer, raw: Raw) -> None:
    task = {
        "run": "x",
        "storage_mounts": [{"target": "/data", "sources": ["argosy://none/x"], "mode": "COPY"}],
    }
    answer = raw.post("/jobs", {"tasks": [task]})
    assert (answer.status, answer.json["code"]) == (404, "not-found")
    assert "`/data`" in answer.json["what"]
    assert server.do(server.store.snapshot()).workloads == {}


class NewBucket:
    """One that is not there until it is made."""

    made = False

    def page(self, *, prefix: str = "", most: int = 1000) -> ObjectPage:
        if not self.made:
            raise BucketMissing("there is no bucket", "make it")
        return ObjectPage()

    def make(self) -> None:
        self.made = True


def test_a_named_bucket_is_made_when_something_may_be_written_to_it() -> None:
    bucket = NewBucket()
    stores = Says(lambda: Opened(bucket, ""))  # type: ignore[arg-type]

    class Made:
        """Makes what is missing."""

        async def ensure(self, url: str, encryption: object, *, passing: bool) -> bool:
            assert not passing
            bucket.make()
            return True

    checks = DataChecks(lambda: stores, Made())  # type: ignore[arg-type]
    for mount in (
        StorageMount(target="/data", name="new", store="s3", mode="COPY"),
        StorageMount(target="/data", sources=("s3://new",)),
        StorageMount(target="/data", name="new", store="file"),
    ):
        with pytest.raises(ArgosyError, match="there is no bucket"):
            asyncio.run(checks.check([Task(run="x", storage_mounts=(mount,))]))
        assert not bucket.made
    named = StorageMount(target="/data", name="new", store="s3")
    asyncio.run(checks.check([Task(run="x", storage_mounts=(named,))]))
    assert bucket.made

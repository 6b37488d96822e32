"""Storage of a task: copied to its nodes before it is set up, and what is wrong with it is told."""

from __future__ import annotations

import asyncio
import os
import shutil
import threading
from collections.abc import Iterator
from pathlib import Path

import msgspec
import pytest
from local_house import House, a_house

from argosy.api.storage import TransferState, TransferView
from argosy.client.near import near_task
from argosy.controllers.folder_links import Mounted
from argosy.controllers.mounts import Mounts, check_names
from argosy.infra.border import RequestRefused
from argosy.infra.buckets import BY_ITSELF, BucketError, Encryption, Opened, StoreSettings
from argosy.infra.system import SystemClock, SystemIds
from argosy.model.kinds.job import job_task
from argosy.model.phases import Desired, Outcome
from argosy.model.reasons import Reason
from argosy.model.task import Returned, StorageMount, SyncRules, Task
from argosy.storage.buckets import Stores
from argosy.store import Store
from argosy.testing.builders import a_job, a_node, a_task
from argosy.testing.s3_site import Site


@pytest.fixture
def stores(tmp_path: Path) -> Stores:
    return Stores(StoreSettings(environ={}, home=tmp_path, clock=SystemClock()))


def copied(url: str, target: str = "data") -> StorageMount:
    return StorageMount(target=target, sources=(url,), mode="COPY")


def ended(task: Task, stores: Stores) -> tuple[Outcome | None, Reason | None, str, list[str]]:
    """How its job ended, and what people were told of its data."""

    async def main() -> tuple[Outcome | None, Reason | None, str, list[str]]:
        async with a_house(task, stores=stores) as house:
            await house.until(house.is_over)
            job = await house.job()
            events = await house.store.load_events(subject="job-1")
            return job.outcome, job.reason, job.detail, [each.text for each in events if each.code == "data"]

    return asyncio.run(main())


def test_objects_are_files_before_the_task_is_set_up(tmp_path: Path, stores: Stores) -> None:
    (tmp_path / "bucket" / "deep").mkdir(parents=True)
    (tmp_path / "bucket" / "a.pt").write_text("weights")
    (tmp_path / "bucket" / "deep" / "b.pt").write_text("more")
    (tmp_path / "bucket" / "deep" / "c.tmp").write_text("not this")
    task = a_task(
        setup="cat data/a.pt > seen",
        run='[ "$(cat seen data/deep/b.pt ~/one)" = weightsmoreweights ] && [ ! -e data/deep/c.tmp ]',
        storage_mounts=(
            copied(f"file://{tmp_path}/bucket/"),
            copied(f"file://{tmp_path}/bucket/a.pt", "~/one"),
        ),
        sync=SyncRules(exclude=("*.tmp",)),
    )
    outcome, _, detail, told = ended(task, stores)
    assert outcome is Outcome.SUCCEEDED, detail
    assert told[0].startswith(f"node 0: data has 2 files of file://{tmp_path}/bucket/; 11 B came in ")
    assert told[0].endswith("(11 B through the server)")


@pytest.mark.parametrize(
    ("url", "said"),
    [
        ("file://{0}/missing/", "`data`: nothing lies at file://{0}/missing/"),
        pytest.param(
            "gopher://b/x",
            "`data`: no object store has URLs that begin with gopher://; known are ",
            marks=pytest.mark.nightly,  # it is tried four times, as the first is
        ),
    ],
)
def test_what_is_not_there_ends_the_job_with_the_fix(
    tmp_path: Path, stores: Stores, url: str, said: str
) -> None:
    outcome, reason, detail, _ = ended(
        a_task(run="true", storage_mounts=(copied(url.format(tmp_path)),)), stores
    )
    assert (outcome, reason) == (Outcome.FAILED, Reason.PREPARE_FAILED)
    assert detail.startswith(said.format(tmp_path))


class Slow:
    """A store whose objects are read when the gate is open."""

    def __init__(self, stores: Stores, folder: Path) -> None:
        self.gate = threading.Event()
        self._stores, self._url = stores, f"file://{folder}/"
        (folder / "large").write_bytes(b"x" * 10)

    def open(self, url: str, encryption: Encryption = BY_ITSELF) -> Opened:
        opened = self._stores.open(self._url)

        def read(key: str, **which: object) -> Iterator[bytes]:
            self.gate.wait(60)
            yield b"x" * 10

        opened.bucket.read = read  # type: ignore[method-assign]
        return opened


def test_a_job_that_is_cancelled_does_not_wait_for_its_data(tmp_path: Path, stores: Stores) -> None:
    slow = Slow(stores, tmp_path)

    async def main() -> None:
        task = a_task(run="true", storage_mounts=(copied("file:///x/"),))
        async with a_house(task, stores=slow) as house:
            await house.until(lambda: _is_copying(house))
            job = await house.job()
            await house.store.commit([msgspec.structs.replace(job, desired=Desired.END)])
            house.shell.wake("job-1")
            await house.until(house.is_over)
            assert (await house.job()).outcome is Outcome.CANCELLED
            slow.gate.set()

    asyncio.run(main())


async def _is_copying(house: House) -> bool:
    attempts = (await house.store.snapshot()).attempts.values()
    mounts = house.shell._effects.mounts
    return any(mounts._working.get(attempt.id) for attempt in attempts)


@pytest.mark.parametrize(
    ("names", "said"),
    [
        (["a//b"], "the object `a//b` of s3://b is no path that a disk can hold; leave it out: `sync: {ex"),
        (["../x"], "the object `../x` of s3://b is no path that a disk can hold"),
        (["a", "a/b"], "the object `a` of s3://b is a file, and a folder of other objects, too"),
        (["é" * 128], "is no path that a disk can hold"),
    ],
)  # fmt: skip
def test_names_that_a_disk_cannot_hold_are_told(names: list[str], said: str) -> None:
    with pytest.raises(RequestRefused) as told:
        check_names(copied("s3://b"), names)
    assert said in str(told.value)


def test_a_copy_has_a_limit(tmp_path: Path, stores: Stores) -> None:
    for number in range(3):
        (tmp_path / str(number)).touch()
    mounts = Mounts(None, SystemClock(), lambda: stores, None)  # type: ignore[arg-type]
    with pytest.raises(
        RequestRefused, match=r"holds more than 2 objects; copy less of it with `sync: \{include"
    ):
        mounts.listed(copied(f"file://{tmp_path}/"), SyncRules(), most=2)
    with pytest.raises(BucketError, match=r"nothing lies at .*, as `sync` has it$"):
        mounts.listed(copied(f"file://{tmp_path}/"), SyncRules(include=("*.pt",)))


def returning(url: str, path: str = "out") -> tuple[Returned, ...]:
    return (Returned(path=path, url=url),)


@pytest.mark.parametrize(("code", "outcome"), [(0, Outcome.SUCCEEDED), (3, Outcome.FAILED)])
def test_outputs_go_to_their_store_also_after_a_failure(
    tmp_path: Path, stores: Stores, code: int, outcome: Outcome
) -> None:
    url = f"file://{tmp_path}/results/"
    run = f"mkdir out && echo 7 > out/score && echo 8 > one && exit {code}"
    task = a_task(run=run, returns=(*returning(url), *returning(url, "one"), *returning(url, "none")))
    ended_as, _, detail, told = ended(task, stores)
    assert ended_as is outcome, detail
    assert (tmp_path / "results" / "score").read_text() == "7\n"
    assert (tmp_path / "results" / "one").read_text() == "8\n"
    assert told == [
        f"2 B of out went to {url}",
        f"2 B of one went to {url}",
        f"nothing lies at none: {url} got nothing",
    ]


def test_a_copy_between_stores_on_a_node_sends_what_the_target_lacks(tmp_path: Path, stores: Stores) -> None:
    """As `argosy storage transfer` has it done near the data: an attempt that is repeated sends the rest."""
    source, target = f"file://{tmp_path}/from/", f"file://{tmp_path}/to/"
    (tmp_path / "from" / "deep").mkdir(parents=True)
    (tmp_path / "to" / "deep").mkdir(parents=True)
    for name in ("a", "deep/b", "deep/c.tmp"):
        (tmp_path / "from" / name).write_text(name)
    (tmp_path / "to" / "a").write_text("a")  # later: an attempt before had copied it
    view = TransferView(
        source=source,
        target=target,
        state=TransferState.PLANNED,
        source_place="local",
        files=2,
        bytes=7,
        near_seconds=1,
    )
    wanted = near_task(view, (), ("*.tmp",))
    assert wanted is not None
    task = msgspec.structs.replace(wanted, resources=a_task().resources)
    outcome, _, detail, told = ended(task, stores)
    assert outcome is Outcome.SUCCEEDED, detail
    assert (tmp_path / "to" / "deep" / "b").read_text() == "deep/b"
    assert not (tmp_path / "to" / "deep" / "c.tmp").exists()
    assert told[-1] == f"6 B of transfer went to {target}"


def test_a_job_whose_outputs_do_not_arrive_has_not_succeeded(tmp_path: Path, stores: Stores) -> None:
    (tmp_path / "file").touch()
    task = a_task(run="mkdir out && echo 7 > out/score", returns=returning(f"file://{tmp_path}/file/x/"))
    outcome, reason, detail, _ = ended(task, stores)
    assert (outcome, reason) == (Outcome.FAILED, Reason.OUTPUTS_NOT_SENT)
    assert detail.startswith("`out` was not sent: `out`: ")


def mounted(url: str, *, read_only: bool = False, mode: str = "MOUNT") -> StorageMount:
    extra = '{"config": {"mount": {"read_only": true}}}' if read_only else ""
    return StorageMount(target="data", sources=(url,), mode=mode, extra=extra)


@pytest.fixture
def site(tmp_path: Path) -> Iterator[Site]:
    made = Site(tmp_path / "shelf")
    made.ask(made.shelf.make_bucket("data"))
    yield made
    made.close()


def of_site(site: Site, tmp_path: Path) -> Stores:
    environ = {"OWN_ACCESS_KEY_ID": site.key[0], "OWN_SECRET_ACCESS_KEY": site.key[1]}
    sections = {"own": f'{{"endpoint": "{site.address}"}}'}
    return Stores(StoreSettings(environ=environ, home=tmp_path, clock=SystemClock(), sections=sections))


@pytest.mark.skipif(
    not (shutil.which("rclone") and shutil.which("fusermount3") and os.access("/dev/fuse", os.W_OK)),
    reason="buckets cannot be mounted here: no rclone, fuse3 or /dev/fuse",
)
def test_what_a_job_writes_to_a_mount_is_in_the_bucket_when_it_has_ended(tmp_path: Path, site: Site) -> None:
    task = a_task(
        setup="ls data > before",
        run="head -c 3000000 /dev/zero > data/model && echo 7 > data/score && exit 3",
        storage_mounts=(mounted("own://data/run/", mode="MOUNT_CACHED"),),
    )
    outcome, _, detail, _ = ended(task, of_site(site, tmp_path))
    assert (outcome, detail) == (Outcome.FAILED, "the program exited with code 3")
    found = {each.key: each.size for each in site.ask(site.shelf.page("data")).objects}
    assert found == {"run/model": 3_000_000, "run/score": 2}


def test_a_mount_that_is_only_read_is_copied_where_it_cannot_be_mounted(
    tmp_path: Path, stores: Stores
) -> None:
    (tmp_path / "b").mkdir()
    (tmp_path / "b" / "x").write_text("there")
    url = f"file://{tmp_path}/b/"
    task = a_task(run='[ "$(cat data/x)" = there ]', storage_mounts=(mounted(url, read_only=True),))
    outcome, _, detail, told = ended(task, stores)
    assert outcome is Outcome.SUCCEEDED, detail
    assert told[0] == "file:// is no store that nodes can mount: data is copied"
    outcome, reason, detail, _ = ended(a_task(run="true", storage_mounts=(mounted(url),)), stores)
    assert (outcome, reason) == (Outcome.FAILED, Reason.PREPARE_FAILED)
    assert detail == (
        "`data`: file:// is no store that nodes can mount; say `mode: COPY`, or `config: {mount: {read_only: "
        "true}}` if it is only read: then it is copied where it cannot be mounted"
    )


def test_a_node_that_does_not_reach_the_store_copies_what_is_only_read(tmp_path: Path, site: Site) -> None:
    """The store is at the server's own loopback: another machine would find itself there."""
    mounts = Mounts(None, SystemClock(), lambda: of_site(site, tmp_path), None)  # type: ignore[arg-type]
    far = Mounted(a_job(), a_node(ip="10.0.0.7"), mounted("own://data/run/"))
    with pytest.raises(RequestRefused, match="which other machines do not reach") as told:
        asyncio.run(mounts._order(far))
    assert told.value.field == "fuse"
    order, keys = asyncio.run(mounts._order(far._replace(node=a_node(ip="127.0.0.1"))))
    assert (order.path, order.read_only, keys.scoped) == ("data/run", False, False)


def test_two_jobs_that_write_to_one_bucket_are_told(tmp_path: Path) -> None:
    async def main() -> None:
        store = await Store.open("sqlite://", ids=SystemIds(), clock=SystemClock(), inline=True)
        tasks = [a_task(storage_mounts=(mounted(f"s3://b/{key}"),)) for key in ("x", "x/y", "z")]
        jobs = [
            a_job(id=f"job-{number}", number=number, host_id=None, managed=True, task=task)
            for number, task in enumerate(tasks)
        ]
        await store.commit(jobs)
        mounts = Mounts(store, SystemClock(), None, None)  # type: ignore[arg-type]
        for job in jobs:
            await mounts._warn_of_others(job, job_task(job).storage_mounts[0])
        told = [(each.subject, each.text) for each in await store.load_events() if each.code == "data"]
        rule = "of two writes of one file the later one stays"
        assert told == [
            ("job-0", f"job 1 also writes to s3://b/x: {rule}"),
            ("job-1", f"job 0 also writes to s3://b/x/y: {rule}"),
        ]
        await store.close()

    asyncio.run(main())

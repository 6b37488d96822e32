"""Copies of what managed jobs keep, as the API shows them; and which of them stay."""

from __future__ import annotations

import asyncio
import hashlib
from pathlib import Path

import msgspec
import pytest
from raw_requests import Raw

from argosy.api.checkpoints import CheckpointList
from argosy.api.location import Location
from argosy.client.checkpoints import fetch_checkpoint
from argosy.client.client import Client
from argosy.controllers.retention import retained
from argosy.infra.system import SystemIds
from argosy.model.errors import ArgosyError
from argosy.model.kinds.job import job_state
from argosy.model.kinds.kind import Checkpoint
from argosy.model.rows import Workload
from argosy.model.task import CheckpointRules
from argosy.model.tree import Entry, Tree
from argosy.server.housekeeping import Housekeeping
from argosy.storage.blobs import BlobStore
from argosy.storage.logs import LogStore
from argosy.store import Store
from argosy.testing.builders import a_job, a_task
from argosy.testing.idle_server import IdleServer
from argosy.testing.virtual_time import EPOCH_MS, FixedClock


async def _copy(blobs: BlobStore, text: str, at_ms: int) -> Checkpoint:
    data = text.encode()
    digest = hashlib.sha256(data).hexdigest()
    await blobs.put(digest, data)
    entry = Entry(path="model/step", kind="f", mode=0o640, size=len(data), chunks=(digest,))
    tree = await blobs.put_tree(msgspec.json.encode(Tree(entries=(entry,))))
    return Checkpoint(tree=tree, at_ms=at_ms, size_bytes=len(data))


async def _filled(store: Store, blobs: BlobStore) -> list[Checkpoint]:
    copies = [await _copy(blobs, text, EPOCH_MS - age) for age, text in enumerate(("new", "old", "oldest"))]
    rules = CheckpointRules(keep_last=3)
    job = a_job(id="job-kept", managed=True, host_id=None, task=a_task(checkpoints=rules))
    await store.commit([job.with_status(checkpoint=copies[0], older=tuple(copies[1:]))])
    return copies


def test_copies_are_listed_fetched_and_removed(server: IdleServer, raw: Raw, tmp_path: Path) -> None:
    copies = server.do(_filled(server.store, server.blobs))
    client = Client(Location(socket=server.socket))
    reply = client.checkpoints("job-kept")
    assert [(each.files, each.size_bytes, each.newest) for each in reply.checkpoints] == [
        (1, 3, True),
        (1, 3, False),
        (1, 6, False),
    ]
    assert (reply.keep_last, reply.keep_every_s) == (3, 0)
    assert client.run(fetch_checkpoint("job-kept", reply.checkpoints[1].id, tmp_path / "old")) == 1
    assert (tmp_path / "old" / "model" / "step").read_text() == "old"
    assert (tmp_path / "old" / "model" / "step").stat().st_mode & 0o777 == 0o640
    with pytest.raises(ArgosyError, match="is there and not empty"):
        client.run(fetch_checkpoint("job-kept", "newest", tmp_path / "old"))
    other = hashlib.sha256(b"of another job").hexdigest()
    server.do(server.blobs.put(other, b"of another job"))
    assert raw.get(f"/jobs/job-kept/checkpoints/newest/chunks/{other}").status == 404
    assert client.remove_checkpoint("job-kept", "newest").names == (copies[0].tree[:12],)
    left = msgspec.json.decode(raw.get("/jobs/job-kept/checkpoints").body, type=CheckpointList)
    assert [each.newest for each in left.checkpoints] == [True, False]
    row = server.do(server.store.load("job-kept"))
    assert isinstance(row, Workload)
    assert job_state(row).checkpoint == copies[1]
    assert len(client.remove_checkpoint("job-kept", "all").names) == 2
    assert client.checkpoints("job-kept").checkpoints == ()
    with pytest.raises(ArgosyError, match=r"nothing was copied of job 1$"):
        client.remove_checkpoint("job-kept", "newest")
    with pytest.raises(ArgosyError, match="there is no job `9`"):
        client.checkpoints("9")


def test_what_is_kept_is_not_swept(tmp_path: Path) -> None:
    async def run() -> None:
        clock = FixedClock()
        store = await Store.open("sqlite://", ids=SystemIds(), clock=clock, inline=True)
        logs, blobs = LogStore(tmp_path / "logs"), BlobStore(tmp_path)
        copies = await _filled(store, blobs)
        gone = await _copy(blobs, "nobody's", EPOCH_MS)
        clock.advance(10**9)
        await Housekeeping(store, blobs, logs, clock).prune()
        assert [blobs.has_tree(copy.tree) for copy in (*copies, gone)] == [True, True, True, False]
        assert await blobs.read(hashlib.sha256(b"oldest").hexdigest()) == b"oldest"
        await logs.close()
        await store.close()

    asyncio.run(run())


def test_of_older_copies_one_stays_for_each_period() -> None:
    hour_ms = 3_600_000
    rules, copies = CheckpointRules(keep_last=2, keep_every_s=6 * 3600), (())
    for hour in range(48):
        made = Checkpoint(tree=str(hour), at_ms=hour * hour_ms, size_bytes=1)
        copies = retained([made, *copies], rules)
    assert [copy.tree for copy in copies] == ["47", "46", "42", "36", "30", "24", "18", "12", "6", "0"]
    assert [copy.tree for copy in retained(copies, CheckpointRules())] == ["47"]

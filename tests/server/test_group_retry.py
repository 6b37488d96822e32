"""One task of a group that runs once more: what is written, and what is refused."""

from __future__ import annotations

from collections.abc import Iterator

import msgspec
import pytest
from raw_requests import Raw

from argosy.model.kinds.group import GroupStatus
from argosy.model.phases import Desired, Outcome, WorkloadPhase
from argosy.model.rows import Workload
from argosy.testing.builders import a_job
from argosy.testing.idle_server import IdleServer

TASK = {"run": "echo hello"}


@pytest.fixture
def server() -> Iterator[IdleServer]:
    with IdleServer() as running:
        yield running


def _group(server: IdleServer, raw: Raw) -> Workload:
    layout = {"size": 3, "members": [{"name": "a"}, {"name": "b"}, {"name": "c", "after": [1]}]}
    answer = raw.post("/groups", {"tasks": [TASK], "layout": layout})
    assert answer.status == 200, answer.body
    row = server.do(server.store.snapshot()).workloads[answer.json["jobs"][0]["id"]]
    ends = {0: None, 1: Outcome.FAILED}
    for number in ends:
        job = a_job(id=f"job-m{number}", managed=True, parent_id=row.id, number=number)
        server.do(server.store.commit([job]))
        if ends[number] is not None:
            job = server.do(server.store.snapshot()).workloads[job.id]
            ended = msgspec.structs.replace(job, phase=WorkloadPhase.FINISHED, outcome=ends[number])
            server.do(server.store.commit([ended]))
    return row


def test_a_task_that_failed_runs_once_more(server: IdleServer) -> None:
    raw = Raw(server.socket)
    row = _group(server, raw)

    def retry(task: str) -> tuple[int, str]:
        answer = raw.post("/groups/retry", {"task": task})
        said = answer.json
        return answer.status, f"{said['what']}; {said['hint']}" if answer.status != 200 else said["names"][0]

    assert retry(f"{row.number}/b") == (200, f"{row.number}/1")
    assert row.id in server.controllers.woken
    status = server.do(server.store.snapshot()).workloads[row.id].status
    assert isinstance(status, GroupStatus) and status.retried == (1,)
    assert retry(f"{row.number}/1") == (
        409,
        f"task {row.number}/1 is waiting for its turn; it starts by itself",
    )
    assert retry(f"{row.number}/a") == (409, f"task {row.number}/a is not over; `argosy jobs cancel` ends it")
    assert retry("9/1") == (404, "there is no managed job `9`; `argosy jobs queue` lists them")
    assert retry(f"{row.number}") == (
        409,
        f"`{row.number}` is no task of a group; name one, such as `{row.number}/0`",
    )
    group = server.do(server.store.snapshot()).workloads[row.id]
    server.do(server.store.commit([msgspec.structs.replace(group, desired=Desired.END)]))
    assert retry(f"{row.number}/1") == (
        409, f"job {row.number} is being ended; launch it again: `argosy jobs launch`",
    )  # fmt: skip

from __future__ import annotations

import http.client
import os
import socket
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import msgspec
import pytest
from raw_requests import Raw

from argosy.api.jobs import LogFrame
from argosy.model.facts import LogChunk, RankFact, RankPhase
from argosy.model.offer import Placement
from argosy.model.phases import AttemptPhase, Outcome, WorkloadPhase
from argosy.model.reasons import Reason
from argosy.model.rows import Attempt, Workload
from argosy.scheduler.ask import Waiting
from argosy.server.features.server import resident_bytes
from argosy.testing.builders import a_job, an_attempt, changed
from argosy.testing.idle_server import IdleServer


class Reader:
    """Reads frames in a thread, as they come."""

    def __init__(self, raw: Raw, path: str) -> None:
        self.frames: list[tuple[LogFrame, bytes]] = []
        self.complete = False
        self._connection = raw.connection()
        self._connection.request("GET", "/v1" + path)
        self._reply = self._connection.getresponse()
        self.status = self._reply.status
        self._thread = threading.Thread(target=self._read, daemon=True)
        self._thread.start()

    def _read(self) -> None:
        try:
            while line := self._reply.readline():
                frame = msgspec.json.decode(line, type=LogFrame)
                self.frames.append((frame, self._reply.read(frame.size) if frame.size else b""))
            self.complete = True
        except (OSError, ValueError, AttributeError, http.client.HTTPException):
            return

    @property
    def text(self) -> bytes:
        return b"".join(data for _, data in list(self.frames))

    @property
    def notes(self) -> list[str]:
        return [frame.note for frame, _ in list(self.frames) if frame.note]

    @property
    def end(self) -> LogFrame:
        return self.frames[-1][0]

    def until(self, holds: Any) -> None:
        deadline = time.monotonic() + 90
        while not holds():
            assert time.monotonic() < deadline, self.frames
            time.sleep(0.005)

    def join(self) -> Reader:
        self._thread.join(20)
        assert not self._thread.is_alive()
        return self

    def close(self) -> None:
        if self._connection.sock is not None:
            self._connection.sock.shutdown(socket.SHUT_RDWR)
        self._reply.close()
        self._connection.close()


class House:
    """A job whose life the test plays."""

    def __init__(self, server: IdleServer, *, num_nodes: int = 1, managed: bool = True) -> None:
        self.server, self.raw = server, Raw(server.socket)
        from argosy.testing.builders import a_task

        job = a_job(managed=managed, task=a_task(num_nodes=num_nodes), number=1)
        self.job_id = job.id
        self.ranks = num_nodes
        server.do(server.store.commit([job]))
        self.attempt_id = ""
        self.said: dict[str, int] = {}

    @property
    def job(self) -> Workload:
        row = self.server.do(self.server.store.load(self.job_id))
        assert isinstance(row, Workload)
        return row

    def change(self, **changes: Any) -> None:
        self.server.do(self.server.store.commit([changed(self.job, **changes)]))

    def begin(self) -> None:
        number = self.job.status.attempts + 1
        placements = tuple(Placement(rank=rank, node_id="nod-0") for rank in range(self.ranks))
        attempt = an_attempt(workload_id=self.job_id, number=number, placements=placements)
        self.attempt_id = attempt.id
        started = changed(self.job, phase=WorkloadPhase.STARTING, attempts=number, attempt_id=attempt.id)
        self.server.do(self.server.store.commit([started, attempt]))

    def say(self, data: bytes, rank: int = 0) -> None:
        rank_id = f"{self.attempt_id}.{rank}"
        logs = self.server.logs

        async def write() -> None:
            await logs.write(LogChunk(rank_id=rank_id, offset=self.said.get(rank_id, 0), data=data))

        self.server.do(write())
        self.said[rank_id] = self.said.get(rank_id, 0) + len(data)

    def end_attempt(
        self, codes: tuple[int | None, ...] = (0,), failed_rank: int | None = None, **job: Any
    ) -> None:
        for rank in range(self.ranks):
            self.server.do(self.server.logs.finish(f"{self.attempt_id}.{rank}"))
        row = self.server.do(self.server.store.load(self.attempt_id))
        assert isinstance(row, Attempt)
        ended = msgspec.structs.replace(
            row, phase=AttemptPhase.ENDED, exit_codes=codes, failed_rank=failed_rank
        )
        self.server.do(self.server.store.commit([ended, changed(self.job, **job)]))

    def finish(
        self,
        outcome: Outcome = Outcome.SUCCEEDED,
        codes: tuple[int | None, ...] = (0,),
        failed_rank: int | None = None,
        **job: Any,
    ) -> None:
        self.end_attempt(codes, failed_rank, phase=WorkloadPhase.FINISHED, outcome=outcome, ended_ms=9, **job)

    def read(self, query: str = "") -> Reader:
        return Reader(self.raw, f"/jobs/{self.job_id}/logs{query}")


@pytest.fixture
def house(server: IdleServer) -> House:
    return House(server)


def test_what_is_there_is_given(house: House) -> None:
    house.begin()
    house.say(b"hello\n\xff\xfe not text\n")
    reader = house.read().join()
    assert reader.text == b"hello\n\xff\xfe not text\n"
    assert (reader.end.end, reader.end.status, reader.end.exit_code) == (True, "starting", None)


def test_following_goes_on_until_the_job_ends(house: House) -> None:
    reader = house.read("?follow=true")
    reader.until(lambda: reader.notes)
    house.begin()
    house.say(b"one\n")
    reader.until(lambda: reader.text == b"one\n")
    house.say(b"two\n")
    reader.until(lambda: reader.text == b"one\ntwo\n")
    house.say(b"three")
    house.finish()
    reader.join()
    assert reader.text == b"one\ntwo\nthree"
    assert (reader.end.end, reader.end.status, reader.end.exit_code) == (True, "succeeded", 0)
    assert reader.notes == ["waits for nodes"]


def test_the_end_says_why(house: House) -> None:
    house.begin()
    house.finish(
        Outcome.FAILED, (143, 3), 1, reason=Reason.USER_CODE_FAILED, detail="rank 1 exited with code 3"
    )
    end = house.read().join().end
    assert (end.status, end.exit_code) == ("failed", 3)
    assert end.detail == "rank 1 exited with code 3. Log: `argosy jobs logs 1`"


def test_a_job_that_never_ran_ends_too(house: House) -> None:
    reader = house.read("?follow=true")
    house.change(phase=WorkloadPhase.FINISHED, outcome=Outcome.CANCELLED, reason=Reason.CANCELLED_BY_USER)
    reader.join()
    assert (reader.end.status, reader.end.exit_code, reader.text) == ("cancelled", None, b"")


def test_the_tail(house: House) -> None:
    house.begin()
    house.say(b"".join(b"%d\n" % i for i in range(10_000)))
    assert house.read("?tail=3").join().text == b"9997\n9998\n9999\n"
    assert house.read("?tail=0").join().text == b""
    follower = house.read("?tail=1&follow=true")
    follower.until(lambda: follower.text == b"9999\n")
    house.say(b"more\n")
    house.finish()
    assert follower.join().text == b"9999\nmore\n"


def test_a_cursor_goes_on_without_loss_or_repeat(house: House) -> None:
    house.begin()
    data = os.urandom(2_000_000)
    house.say(data)
    first = house.read().join()
    for stop in (1, len(first.frames) // 2):
        cursor = first.frames[stop][0].cursor
        so_far = b"".join(piece for _, piece in first.frames[: stop + 1])
        assert so_far + house.read(f"?cursor={cursor}").join().text == data
    assert max(frame.size for frame, _ in first.frames) == 256 << 10
    assert house.read("?cursor=x").status == 400
    assert house.read("?cursor=1:-5").status == 400


def test_ranks(server: IdleServer) -> None:
    house = House(server, num_nodes=3)
    house.begin()
    for rank in range(3):
        house.say(b"a%d\nb%d" % (rank, rank), rank)
    frames = house.read().join().frames
    assert {frame.rank: data for frame, data in frames if data} == {0: b"a0\nb0", 1: b"a1\nb1", 2: b"a2\nb2"}
    assert house.read("?rank=1").join().text == b"a1\nb1"
    assert house.read("?rank=3").status == 400
    text = house.raw.get(f"/jobs/{house.job_id}/logs?format=text")
    assert text.headers["content-type"] == "text/plain; charset=utf-8"
    assert sorted(text.body.splitlines()) == sorted(
        b"(rank %d) %s%d" % (rank, letter, rank) for rank in range(3) for letter in (b"a", b"b")
    )
    cursor = frames[1][0].cursor
    assert house.read(f"?cursor={cursor}").join().text == b"a2\nb2"


def test_a_stream_goes_on_across_attempts(house: House) -> None:
    house.begin()
    reader = house.read("?follow=true")
    house.say(b"first\n")
    house.end_attempt((None,), phase=WorkloadPhase.RECOVERING, reason=Reason.NODE_LOST, detail="node lost")
    reader.until(lambda: any("recovers" in note for note in reader.notes))
    house.begin()
    house.say(b"second\n")
    house.finish(recoveries=1)
    reader.join()
    assert reader.text == b"first\nsecond\n"
    assert [frame.attempt for frame, data in reader.frames if data] == [1, 2]
    assert any(note.startswith("attempt 2 begins") for note in reader.notes)
    assert reader.end.status == "succeeded"
    # afterwards: all of it, one of them, or the last
    assert house.read().join().text == b"first\nsecond\n"
    assert house.read("?attempt=1").join().text == b"first\n"
    assert house.read("?attempt=2").join().text == b"second\n"
    assert house.read("?tail=10").join().text == b"second\n"
    assert house.read("?attempt=3").status == 404
    within = next(frame.cursor for frame, data in reader.frames if data == b"first\n")
    assert house.read(f"?cursor={within}").join().text == b"second\n"


def test_what_is_still_on_its_way_is_waited_for(house: House) -> None:
    """The job is over and its last output is not here yet: known from the rank's fact."""
    house.begin()
    rank_id = f"{house.attempt_id}.0"
    fact = RankFact(id=rank_id, phase=RankPhase.EXITED, exit_code=0, log_bytes=5)
    house.server.call(lambda: house.server.controllers.observed.set_ranks("nod-0", [fact], complete=True))
    row = house.server.do(house.server.store.load(house.attempt_id))
    done = msgspec.structs.replace(house.job, phase=WorkloadPhase.FINISHED, outcome=Outcome.SUCCEEDED)
    ended = msgspec.structs.replace(row, phase=AttemptPhase.ENDED, exit_codes=(0,))  # type: ignore[type-var]
    house.server.do(house.server.store.commit([done, ended]))  # type: ignore[list-item]
    reader = house.read("?follow=true")
    house.say(b"late\n")
    assert reader.join().text == b"late\n"


def test_why_a_job_of_a_cluster_waits(server: IdleServer) -> None:
    raw = Raw(server.socket)
    job = raw.post("/launch", {"task": {"run": "x"}, "cluster": "c"}).json["job"]
    reader = Reader(raw, f"/jobs/{job['id']}/logs?follow=true")
    text = "waits for the cluster, which is starting"
    server.controllers.whys[job["id"]] = Waiting(ask_id=job["id"], code="later", text=text)
    server.call(server.application.streams.commits.wake_all)
    reader.until(lambda: reader.notes[-1:] == [text])
    reader.close()


def test_secrets_are_masked_in_the_stream(house: House) -> None:
    house.begin()
    house.server.call(lambda: house.server.logs.mask(f"{house.attempt_id}.0", ["hunter2"]))
    reader = house.read("?follow=true")
    house.say(b"it is hun")
    house.say(b"ter2!\n")
    house.finish()
    assert reader.join().text == b"it is *******!\n"


def test_jobs_that_are_not_there(raw: Raw) -> None:
    for name in ("job-0", "77", "clu-0", "..%2f..%2fetc"):
        answer = raw.get(f"/jobs/{name}/logs")
        assert (answer.status, answer.json["code"]) == (404, "not-found")
    assert raw.get("/jobs/1/logs?format=xml").status == 400


def test_a_reader_that_leaves_leaves_nothing(house: House) -> None:
    house.begin()
    readers = [house.read("?follow=true") for _ in range(5)]
    house.say(b"x\n")
    for reader in readers:
        reader.until(lambda reader=reader: reader.text == b"x\n")
        reader.close()
    deadline = time.monotonic() + 90
    streams, logs = house.server.application.streams, house.server.logs
    while house.server.call(
        lambda: len(streams.commits._waiting) + len(logs._live[f"{house.attempt_id}.0"].waiters)
    ):
        assert time.monotonic() < deadline
        time.sleep(0.01)


def test_a_slow_reader_costs_no_memory(house: House) -> None:
    house.begin()
    piece = os.urandom(1 << 20)
    for _ in range(100):
        house.say(piece)
    connections = []
    before = resident_bytes()
    for _ in range(4):
        connection = house.raw.connection()
        connection.request("GET", f"/v1/jobs/{house.job_id}/logs?follow=true")
        reply = connection.getresponse()
        reply.read(1000)  # and then no more
        connections.append((connection, reply))
    for _ in range(20):
        assert house.raw.get("/health").status == 200
        time.sleep(0.02)
    assert resident_bytes() - before < 40 << 20
    reply = connections[0][1]
    left = 30 << 20
    while left > 0:
        left -= len(reply.read(1 << 20))
    for connection, reply in connections:
        reply.close()
        connection.close()


def test_a_server_that_stops_lets_readers_come_back(tmp_path: Path) -> None:
    with IdleServer() as server:
        house = House(server)
        house.begin()
        house.say(b"so far\n")
        reader = house.read("?follow=true")
        reader.until(lambda: reader.text == b"so far\n")
        server.call(server.application.stop)
        reader.join()
    assert reader.complete
    assert not reader.end.end  # no end frame: the client goes on from the cursor
    assert reader.end.cursor == "1:7"


@pytest.fixture(autouse=True)
def _no_thread_left() -> Iterator[None]:
    yield
    assert threading.active_count() < 50

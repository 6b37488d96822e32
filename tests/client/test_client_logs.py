"""Log streams: frames, prefixes, and going on after lost connections."""

from __future__ import annotations

import asyncio
import itertools
import threading

import pytest
from hypothesis import given
from hypothesis import strategies as st

from argosy.api.jobs import LogFrame
from argosy.api.location import Location
from argosy.client.async_client import AsyncClient
from argosy.client.client import Client
from argosy.client.frames import LINE_LIMIT_BYTES, FrameDecoder, LogPiece, Prefixer
from argosy.client.wire import ReplyParser, WireError
from argosy.model.errors import ArgosyError
from argosy.model.task import Task
from argosy.testing.fake_memory import FakeLog, Line
from argosy.testing.fake_server import FakeServer


def encode(pieces: list[LogPiece]) -> bytes:
    import msgspec

    return b"".join(msgspec.json.encode(piece.frame) + b"\n" + piece.data for piece in pieces)


def split(data: bytes, cuts: list[int]) -> list[bytes]:
    at = sorted({cut % (len(data) + 1) for cut in cuts} | {0, len(data)})
    return [data[a:b] for a, b in itertools.pairwise(at)]


@given(
    st.lists(st.tuples(st.integers(0, 3), st.binary(max_size=40)), max_size=8),
    st.lists(st.integers(0, 5000), max_size=12),
)
def test_frames_survive_any_cut(parts: list[tuple[int, bytes]], cuts: list[int]) -> None:
    pieces = [
        LogPiece(LogFrame(rank=rank, size=len(data), cursor=str(index)), data)
        for index, (rank, data) in enumerate(parts)
    ]
    decoder = FrameDecoder()
    seen = [piece for part in split(encode(pieces), cuts) for piece in decoder.feed(part)]
    assert seen == pieces


@pytest.mark.parametrize("data", [b"<html>\n", b'{"size": -1}\n', b'{"rank": "x"}\n', b"x" * 70_000])
def test_what_is_no_frame_is_refused(data: bytes) -> None:
    with pytest.raises(ArgosyError) as error:
        list(FrameDecoder().feed(data))
    assert error.value.code == "version-mismatch"


@given(st.lists(st.binary(min_size=1, max_size=30), max_size=6), st.lists(st.integers(0, 4000), max_size=10))
def test_chunked_replies_survive_any_cut(chunks: list[bytes], cuts: list[int]) -> None:
    body = b"".join(f"{len(one):x}\r\n".encode() + one + b"\r\n" for one in chunks) + b"0\r\n\r\n"
    data = b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n" + body
    parser = ReplyParser()
    pieces = [piece for part in split(data, cuts) for piece in parser.feed(part)]
    assert parser.status == 200 and parser.done and parser.keep_alive
    assert b"".join(pieces) == b"".join(chunks)


@given(st.binary(max_size=50), st.lists(st.integers(0, 400), max_size=10))
def test_sized_replies_survive_any_cut(body: bytes, cuts: list[int]) -> None:
    data = f"HTTP/1.1 404 Not Found\r\ncontent-length: {len(body)}\r\nX-A: b:c\r\n\r\n".encode() + body
    parser = ReplyParser()
    pieces = [piece for part in split(data, cuts) for piece in parser.feed(part)]
    assert parser.status == 404 and parser.done and parser.headers["x-a"] == "b:c"
    assert b"".join(pieces) == body


def test_replies_that_end_with_the_connection() -> None:
    parser = ReplyParser()
    assert parser.feed(b"HTTP/1.0 200 OK\r\n\r\nhello") == [b"hello"]
    assert not parser.done
    parser.feed_end()
    assert parser.done and not parser.keep_alive


@pytest.mark.parametrize(
    "data",
    [
        b"SSH-2.0\r\n\r\n",
        b"HTTP/1.1 200 OK\r\ncontent-length: x\r\n\r\n",
        b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\nzz\r\n",
        b"HTTP/1.1 200 OK\r\nx: " + b"y" * 100_000,
        b"HTTP/1.1 200 OK\r\ncontent-length: 5\r\n\r\nab",
    ],
)
def test_broken_replies_are_refused(data: bytes) -> None:
    parser = ReplyParser()
    with pytest.raises(WireError):
        parser.feed(data)
        parser.feed_end()


def test_prefixes() -> None:
    prefixer = Prefixer("train")
    assert prefixer.add(0, b"a\nb\n") == b"(train, rank=0) a\n(train, rank=0) b\n"
    assert prefixer.add(0, b"\n\n") == b"(train, rank=0) \n(train, rank=0) \n"
    assert prefixer.add(0, b"half") == b""
    assert prefixer.add(1, b"x\n") == b"(train, rank=1) x\n"
    assert prefixer.add(0, b" done\nnext") == b"(train, rank=0) half done\n"
    assert prefixer.rest() == b"(train, rank=0) next\n"
    assert prefixer.rest() == b""
    long = b"z" * (LINE_LIMIT_BYTES + 1)
    assert prefixer.add(2, long) == b"(train, rank=2) " + long + b"\n"


@given(st.lists(st.sampled_from([b"a", b"\n", b"bc\n", b"\xff", b"\r\n"]), max_size=20), st.integers(1, 5))
def test_prefixes_do_not_depend_on_how_output_is_cut(parts: list[bytes], every: int) -> None:
    text = b"".join(parts)
    prefixer = Prefixer("n")
    shown = (
        b"".join(prefixer.add(0, text[at : at + every]) for at in range(0, len(text), every))
        + prefixer.rest()
    )
    lines = text.split(b"\n")
    if lines[-1] == b"":
        lines.pop()
    assert shown == b"".join(b"(n, rank=0) " + line + b"\n" for line in lines)


def launched(server: FakeServer, client: Client, log: FakeLog) -> str:
    server.next_log = log
    job = client.launch(Task(run="x"), cluster="c").job
    assert job is not None
    return job.id


@pytest.mark.parametrize("inside", [False, True])
def test_lost_connections_lose_and_repeat_nothing(server: FakeServer, client: Client, inside: bool) -> None:
    lines = [Line(f"line {index}\n".encode()) for index in range(50)]
    job = launched(server, client, FakeLog(lines))
    server.cut_logs_after = 7
    server.cut_inside_frame = inside
    seen = [piece.data for piece in client.logs(job)]
    assert b"".join(seen) == b"".join(line.data for line in lines)
    cursors = [request.query.get("cursor") for request in server.seen("logs")]
    assert cursors[:3] == [None, "7", "14"]


def test_a_tail_is_asked_for_once(server: FakeServer, client: Client) -> None:
    job = launched(server, client, FakeLog([Line(b"%d\n" % index) for index in range(20)]))
    server.cut_logs_after = 2
    assert b"".join(piece.data for piece in client.logs(job, tail=5)) == b"15\n16\n17\n18\n19\n"
    assert [request.query.get("tail") for request in server.seen("logs")][:2] == ["5", None]


def test_a_restarted_server_is_found_again(server: FakeServer, client: Client) -> None:
    log = FakeLog([Line(b"before\n")], held=True)
    job = launched(server, client, log)
    stream = client.logs(job)
    assert next(stream).data == b"before\n"
    server.stop()

    def back() -> None:
        log.lines.append(Line(b"after\n"))
        log.release()
        server.start()

    timer = threading.Timer(0.3, back)
    timer.start()
    rest = list(stream)
    timer.join()
    assert [piece.data for piece in rest] == [b"after\n", b""]
    assert rest[-1].frame.status == "succeeded"


def test_a_server_that_stays_away_is_an_error_that_says_so(server: FakeServer, client: Client) -> None:
    job = launched(server, client, FakeLog([Line(b"x\n")], held=True))
    stream = client.logs(job, reconnect_for_s=0.3)
    assert next(stream).data == b"x\n"
    server.stop()
    with pytest.raises(ArgosyError) as error:
        list(stream)
    assert error.value.code == "server-unreachable"


def test_logs_of_an_unknown_job(client: Client) -> None:
    with pytest.raises(ArgosyError) as error:
        list(client.logs("job-none"))
    assert error.value.code == "not-found"


def test_only_one_rank(server: FakeServer, client: Client) -> None:
    job = launched(server, client, FakeLog([Line(b"a\n", 0), Line(b"b\n", 1)]))
    assert [piece.data for piece in client.logs(job, rank=1)] == [b"b\n", b""]


def test_async_logs_go_on_too(server: FakeServer, client: Client) -> None:
    job = launched(server, client, FakeLog([Line(b"%d\n" % index) for index in range(20)]))
    server.cut_logs_after = 3
    server.cut_inside_frame = True

    async def main() -> bytes:
        async with AsyncClient(Location(server.socket)) as other:
            return b"".join([piece.data async for piece in other.logs(job)])

    assert asyncio.run(main()) == b"".join(b"%d\n" % index for index in range(20))

"""A connection that is used again reads again, though its last reader was slow."""

from __future__ import annotations

import asyncio
from typing import cast

from argosy.gateway.addresses import Address
from argosy.gateway.heads import AnswerHead
from argosy.gateway.pools import Asker, Pool, Upstream


class Line:
    """A transport that says whether it reads."""

    reads = True

    def pause_reading(self) -> None:
        self.reads = False

    def resume_reading(self) -> None:
        self.reads = True


class SlowReader:
    """Has enough with each piece that it takes, as one whose own line is full."""

    is_head_request = is_sending = False

    def __init__(self, upstream: Upstream) -> None:
        self.upstream, self.got = upstream, b""

    def takes(self, head: AnswerHead | None, data: bytes, done: bool) -> None:
        self.got += data
        self.upstream.pause()


def test_the_last_bytes_of_an_answer_do_not_hold_up_the_next_one() -> None:
    pool, line = Pool(Address(path="app"), lambda: 1.0), Line()
    upstream = Upstream(pool)
    upstream.connection_made(cast(asyncio.Transport, line))
    reader = SlowReader(upstream)
    upstream.attach(cast(Asker, reader))
    upstream.data_received(b"HTTP/1.1 200 OK\r\ncontent-length: 4\r\n\r\nhe")
    assert not line.reads  # until it has room again
    upstream.resume()
    upstream.data_received(b"re")
    assert reader.got == b"here" and upstream in pool.idle
    assert line.reads and not upstream.paused

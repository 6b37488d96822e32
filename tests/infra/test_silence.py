"""A dead line says nothing: that is noticed, and a slow line or a busy reader is not taken for one."""

from __future__ import annotations

import asyncio

import pytest

from argosy.infra.agent_port import silence_s
from argosy.infra.silence import Ear
from argosy.testing.virtual_time import run_virtual


def test_a_heartbeat_may_be_missed_twice() -> None:
    assert [silence_s(beat_s) for beat_s in (0.5, 1.5, 5.0, 20.0)] == [5.0, 5.0, 15.0, 60.0]


def test_silence_is_noticed_in_time_also_when_the_pace_has_changed() -> None:
    async def body() -> None:
        reader = asyncio.StreamReader()
        ear = Ear(reader, 15.0)
        reader.feed_data(b"12345678")
        assert await ear.read(8) == b"12345678"
        ear.expect(5.0)
        began_s = asyncio.get_running_loop().time()
        with pytest.raises(ConnectionError):
            await ear.read(8)
        assert ear.is_silent
        assert 5.0 <= asyncio.get_running_loop().time() - began_s <= 5.3
        ear.close()

    run_virtual(body())


def test_a_slow_line_is_heard() -> None:
    async def body() -> None:
        reader = asyncio.StreamReader()
        ear = Ear(reader, 5.0)

        async def trickle() -> None:
            for _ in range(8):
                await asyncio.sleep(4)
                reader.feed_data(b"x" * (64 << 10))

        feeding = asyncio.create_task(trickle())
        assert len(await ear.read(512 << 10)) == 512 << 10
        await feeding
        ear.close()

    run_virtual(body())


def test_a_busy_reader_hears_what_came_meanwhile() -> None:
    async def body() -> None:
        reader = asyncio.StreamReader()
        ear = Ear(reader, 5.0)
        reader.feed_data(b"1")
        assert await ear.read(1) == b"1"
        await asyncio.sleep(60)  # it writes to a slow disk
        reader.feed_data(b"2")
        assert await ear.read(1) == b"2"
        await asyncio.sleep(60)
        waiting = asyncio.create_task(ear.read(1))
        await asyncio.sleep(4.9)
        reader.feed_data(b"3")
        assert await waiting == b"3"
        assert not ear.is_silent
        ear.close()

    run_virtual(body())


def test_the_end_of_a_stream_is_no_silence() -> None:
    async def body() -> None:
        reader = asyncio.StreamReader()
        ear = Ear(reader, 5.0)
        reader.feed_eof()
        with pytest.raises(asyncio.IncompleteReadError):
            await ear.read(1)
        assert not ear.is_silent
        ear.close()

    run_virtual(body())

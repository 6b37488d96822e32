"""The lane: one thread, in order, together what waits together."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Sequence

import pytest

from argosy.model.errors import ArgosyError
from argosy.store.lane import BATCH_MAX, Lane


class Recorder:
    def __init__(self, *, inline: bool = False) -> None:
        self.batches: list[list[int]] = []
        self.threads: set[int] = set()
        self.gate = threading.Event()
        self.gate.set()
        self.lane: Lane[int, str] = Lane(self.perform, inline=inline, name="test-lane")

    def perform(self, requests: Sequence[int]) -> Sequence[str | Exception]:
        self.gate.wait(30)
        self.threads.add(threading.get_ident())
        self.batches.append(list(requests))
        if 13 in requests:
            raise OSError("the whole batch")
        return [KeyError(n) if n < 0 else f"did {n}" for n in requests]


def test_waiting_requests_are_performed_together_and_in_order() -> None:
    async def main() -> None:
        it = Recorder()
        it.gate.clear()
        tasks = [asyncio.create_task(it.lane.join(n)) for n in range(100, 100 + BATCH_MAX + 10)]
        await asyncio.sleep(0)
        it.gate.set()
        assert await asyncio.gather(*tasks) == [f"did {n}" for n in range(100, 100 + BATCH_MAX + 10)]
        assert [n for batch in it.batches for n in batch] == list(range(100, 100 + BATCH_MAX + 10))
        assert len(it.batches) <= 3 and max(map(len, it.batches)) <= BATCH_MAX
        assert it.threads.isdisjoint({threading.get_ident()}) and len(it.threads) == 1
        await it.lane.close()

    asyncio.run(main())


def test_calls_keep_their_place_between_requests() -> None:
    async def main() -> None:
        it = Recorder()
        it.gate.clear()
        seen: list[int] = []
        work = [
            asyncio.create_task(it.lane.join(1)),
            asyncio.create_task(it.lane.join(2)),
            asyncio.create_task(it.lane.call(lambda: seen.append(sum(map(len, it.batches))))),
            asyncio.create_task(it.lane.join(3)),
        ]
        await asyncio.sleep(0)
        it.gate.set()
        await asyncio.gather(*work)
        assert seen == [2]
        await it.lane.close()

    asyncio.run(main())


@pytest.mark.parametrize("inline", [False, True])
def test_errors_go_to_who_asked(inline: bool) -> None:
    async def main() -> None:
        it = Recorder(inline=inline)
        results = await asyncio.gather(*(it.lane.join(n) for n in (1, -2, 3)), return_exceptions=True)
        assert results[0] == "did 1" and isinstance(results[1], KeyError) and results[2] == "did 3"
        with pytest.raises(OSError, match="the whole batch"):
            await it.lane.join(13)
        with pytest.raises(ZeroDivisionError):
            await it.lane.call(lambda: 1 // 0)
        assert await it.lane.join(5) == "did 5"
        await it.lane.close()
        with pytest.raises(ArgosyError, match="closed"):
            await it.lane.join(6)

    asyncio.run(main())


def test_who_left_before_its_turn_is_not_served() -> None:
    async def main() -> None:
        it = Recorder()
        it.gate.clear()
        first = asyncio.create_task(it.lane.join(1))
        while it.lane._queue.qsize() or not first.get_stack():
            await asyncio.sleep(0)
        later = [asyncio.create_task(it.lane.join(n)) for n in (2, 3)]
        calls: list[int] = []
        call = asyncio.create_task(it.lane.call(lambda: calls.append(1)))
        await asyncio.sleep(0)
        later[0].cancel()
        call.cancel()
        await asyncio.sleep(0)
        it.gate.set()
        assert await later[1] == "did 3" and await first == "did 1"
        await it.lane.close()
        assert [n for batch in it.batches for n in batch] == [1, 3] and calls == []

    asyncio.run(main())


def test_a_loop_that_ended_does_not_end_the_lane() -> None:
    it = Recorder()

    async def leave() -> None:
        it.gate.clear()
        asyncio.get_running_loop().call_soon(asyncio.current_task().cancel)  # type: ignore[union-attr]
        await it.lane.join(1)

    with pytest.raises(asyncio.CancelledError):
        asyncio.run(leave())
    it.gate.set()

    async def again() -> None:
        assert await it.lane.join(2) == "did 2"
        await it.lane.close()

    asyncio.run(again())

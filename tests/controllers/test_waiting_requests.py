"""Requests that begin to wait at a gateway are seen at once, not at the next look."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine
from types import SimpleNamespace

from argosy.controllers.observed import Facts
from argosy.controllers.routing import Routing
from argosy.infra.system import SystemClock
from argosy.model.routes import GatewayCounters, RouteTable, Wanted, Wants


class _Gateway:
    """Tells one time that requests wait, and counts who looks."""

    def __init__(self) -> None:
        self.waits = asyncio.Event()
        self.looks = 0
        self.asked: list[int] = []

    async def take(self, table: RouteTable) -> int:
        return table.generation

    async def counters(self) -> GatewayCounters:
        self.looks += 1
        return GatewayCounters(generation=1 << 62, since_ms=1)

    async def wants(self, after: int) -> Wants:
        self.asked.append(after)
        if after:
            await asyncio.Event().wait()
        await self.waits.wait()
        return Wants(sequence=7, wanted=(Wanted(service="svc-1", held=1),))

    async def rest(self) -> None:
        """Nothing runs."""


def test_the_gateway_is_looked_at_when_requests_begin_to_wait() -> None:
    async def main() -> None:
        loop, gateway = asyncio.get_running_loop(), _Gateway()
        tasks: list[asyncio.Task[None]] = []

        def spawn(work: Coroutine[object, object, None]) -> asyncio.Task[None]:
            tasks.append(loop.create_task(work))
            return tasks[-1]

        routing = Routing(
            gateway=gateway, facts=Facts(), clock=SystemClock(), spawn=spawn, wake=lambda *_: None
        )
        routing._services["svc-1"] = SimpleNamespace(id="svc-1")  # type: ignore[assignment]
        routing._pause_s = lambda: 60.0  # type: ignore[method-assign]
        routing._send = _nothing  # type: ignore[assignment,method-assign]
        routing._note = lambda *_: None  # type: ignore[method-assign]
        running = spawn(routing._run(gateway))
        await _until(lambda: gateway.looks == 1)
        gateway.waits.set()
        await _until(lambda: gateway.looks == 2)
        await _until(lambda: gateway.asked == [0, 7])
        running.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        assert all(task.done() for task in tasks)

    asyncio.run(main())


async def _nothing(_: object) -> None:
    pass


async def _until(condition: object) -> None:
    async with asyncio.timeout(90):
        while not condition():  # type: ignore[operator]
            await asyncio.sleep(0)

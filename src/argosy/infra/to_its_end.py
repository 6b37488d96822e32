"""Work that is finished once it has begun, even when its caller is cancelled."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine
from typing import Any


class ToItsEnd:
    """A caller that gives up does not leave half of the work behind: it goes on by itself."""

    def __init__(self) -> None:
        self._going: set[asyncio.Task[None]] = set()  # the loop itself keeps no task alive

    async def __call__(self, work: Coroutine[Any, Any, None]) -> None:
        """Wait for `work`; what it raises is raised here, unless this wait was cancelled."""
        task = asyncio.get_running_loop().create_task(work)
        self._going.add(task)
        task.add_done_callback(self._done)
        await asyncio.shield(task)

    def _done(self, task: asyncio.Task[None]) -> None:
        self._going.discard(task)
        if not task.cancelled():
            task.exception()  # the caller may be gone; somebody has to look at it

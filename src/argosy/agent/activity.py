"""Whether a session is used: what is typed, what its kernels and its programs compute, what its GPUs do."""

from __future__ import annotations

import asyncio
import json
import os
import time

from argosy.agent import devices
from argosy.agent.programs import stat_fields
from argosy.agent.rank import Rank, now_ms

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable
    from typing import Dict, List, Tuple

    from argosy.agent.node import Node
    from argosy.agent.supervision import Supervision

    Ask = Callable[[Rank, str], Awaitable[Dict[str, object] | None]]
    Get = Callable[[Rank, str], Awaitable[Tuple[int, bytes]]]

_ACTIVITY_EVERY_S = 10.0
_NEWS_MS = 20_000  # what is said of activity is at least so much newer than before
_BUSY_SHARE = 0.05  # of one core: less is what an app does that nobody uses


class Activity:
    """Of one session. `ask`: `inside`; `get`: a path of its app."""

    def __init__(self, shared: Supervision, node: Node, ask: Ask, get: Get) -> None:
        self._shared, self._node, self._ask, self._get = shared, node, ask, get
        self._work, self._news, self._gpu_news = _Work(shared), News(), News()

    async def watch(self, rank: Rank, order: Dict[str, object]) -> None:
        """Until it ends."""
        await self._work.share(rank)
        while not rank.ended:
            await asyncio.sleep(_ACTIVITY_EVERY_S)
            await self._note(rank, order)

    async def _note(self, rank: Rank, order: Dict[str, object]) -> None:
        found: List[Tuple[int, str]] = []
        said = await self._ask(rank, "status")
        if said is not None:
            found.append((int(str(said.get("typed_ms") or 0)), "terminal"))
        if order.get("kernels"):
            _, body = await self._get(rank, str(order["kernels"]))
            if _is_busy(body):
                found.append((now_ms(), "kernels"))
        if await self._work.share(rank) > _BUSY_SHARE:
            found.append((now_ms(), "cpu"))
        if self._news.take(max(found, default=(0, "")), rank.active_ms):
            rank.active_ms, rank.active_by = self._news.last
            self._shared.changed(rank)
        if rank.gpu_limit or self._node.has_devices:
            await self._note_gpu_work(rank)

    async def _note_gpu_work(self, rank: Rank) -> None:
        """Whether its own programs computed on an accelerator: others may share that, and be busy."""
        found = await self._shared.loop.run_in_executor(None, devices.at_work, rank.gpu_seen_us)
        if found is None:
            return
        rank.gpu_seen_us, pids = found
        mine = self._shared.members(rank, await self._shared.table.snapshot())
        worked = not rank.gpu_active_ms or bool(pids.intersection(mine))
        if self._gpu_news.take((now_ms(), "gpu") if worked else (0, ""), rank.gpu_active_ms):
            rank.gpu_active_ms = self._gpu_news.last[0]
            self._shared.changed(rank)


class News:
    """When it is told that a session was used: from time to time while it is, and when that has ended, so
    that idleness counts from the last use and not from one before."""

    def __init__(self) -> None:
        self.last: Tuple[int, str] = (0, "")

    def take(self, seen: Tuple[int, str], told_ms: int) -> bool:
        """What a look has found; whether `last` is to be told now."""
        is_new = seen[0] > self.last[0]
        self.last = max(self.last, seen)
        return self.last[0] > told_ms and (not is_new or self.last[0] - told_ms > _NEWS_MS)


class _Work:
    """How much of a core the processes of a rank use."""

    def __init__(self, shared: Supervision) -> None:
        self._shared = shared
        self._ticks: Dict[int, int] = {}
        self._at_s = 0.0

    async def share(self, rank: Rank) -> float:
        """Since it was asked last."""
        now_s = time.monotonic()
        found: Dict[int, int] = {}
        for pid in self._shared.members(rank, await self._shared.table.snapshot()):
            fields = stat_fields(pid)
            if fields is not None and len(fields) > 12:
                found[pid] = int(fields[11]) + int(fields[12])
        worked = sum(ticks - self._ticks.get(pid, ticks) for pid, ticks in found.items())
        passed_s = now_s - self._at_s
        self._ticks, self._at_s = found, now_s
        return worked / os.sysconf("SC_CLK_TCK") / max(0.001, passed_s)


def _is_busy(body: bytes) -> bool:
    """Whether a list of kernels, as Jupyter gives it, has one that computes."""
    try:
        kernels = json.loads(body)
    except ValueError:
        return False
    return isinstance(kernels, list) and any(
        isinstance(each, dict) and each.get("execution_state") == "busy" for each in kernels
    )

"""What is asked for, or made, once for each key, or once in a while."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from math import inf
from typing import Generic, TypeVar

from argosy.model.ids import Clock

K = TypeVar("K")
T = TypeVar("T")


class Once(Generic[K, T]):
    """Whoever comes while it is made waits for it. What failed is tried again by the next. `lasts_s`: so long
    it holds; None: as long as we run."""

    def __init__(self, clock: Clock | None = None, lasts_s: float = inf) -> None:
        self._clock, self._lasts_s = clock, lasts_s
        self._known: dict[K, tuple[float, T]] = {}
        self._making: dict[K, asyncio.Lock] = {}

    async def get(self, key: K, make: Callable[[], Awaitable[T]]) -> T:
        async with self._making.setdefault(key, asyncio.Lock()):
            now_s = self._clock.monotonic_s() if self._clock is not None else 0.0
            if key not in self._known or now_s - self._known[key][0] > self._lasts_s:
                self._known[key] = (now_s, await make())
            return self._known[key][1]

    def forget(self, which: Callable[[K], bool]) -> None:
        """Of these keys something has changed."""
        self._known = {key: value for key, value in self._known.items() if not which(key)}

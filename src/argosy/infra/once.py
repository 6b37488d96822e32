"""What is asked for, or made, once for each key."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Generic, TypeVar

K = TypeVar("K")
T = TypeVar("T")


class Once(Generic[K, T]):
    """Whoever comes while it is made waits for it. What failed is tried again by the next."""

    def __init__(self) -> None:
        self._known: dict[K, T] = {}
        self._lock = asyncio.Lock()

    async def get(self, key: K, make: Callable[[], Awaitable[T]]) -> T:
        async with self._lock:
            if key not in self._known:
                self._known[key] = await make()
            return self._known[key]

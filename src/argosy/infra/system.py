"""The real clock and random numbers: the only place of the server that reads them."""

from __future__ import annotations

import secrets
import threading
import time
from collections.abc import Callable

from argosy.model.ids import make_id


def _steady_ns() -> int:
    return time.clock_gettime_ns(getattr(time, "CLOCK_BOOTTIME", time.CLOCK_MONOTONIC))


class SystemClock:
    """`model.ids.Clock` from the operating system. The wall clock is read once, at the start; from then on
    time advances steadily (also through suspend, where the system counts that). A wall clock that is set or
    jumps while the server runs neither ends a job early nor keeps an idle cluster for ever."""

    def __init__(
        self, wall_ns: Callable[[], int] = time.time_ns, steady_ns: Callable[[], int] = _steady_ns
    ) -> None:
        self._steady_ns = steady_ns
        self._offset_ns = wall_ns() - steady_ns()

    def now_ms(self) -> int:
        return (self._steady_ns() + self._offset_ns) // 1_000_000

    def monotonic_s(self) -> float:
        return time.monotonic()


class SystemIds:
    """`model.ids.Ids` from the operating system. Ids of one process are strictly increasing, also within one
    millisecond and when the wall clock steps back: lists sorted by id are in order of creation."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._last_ms = 0
        self._last_dice = 0

    def new(self, prefix: str) -> str:
        with self._lock:
            now_ms = max(time.time_ns() // 1_000_000, self._last_ms)
            if now_ms == self._last_ms:
                # Steps stay random so that ids cannot be guessed; 2^28 on average leaves room for millions.
                self._last_dice += 1 + secrets.randbits(28)
                if self._last_dice >= 1 << 50:
                    now_ms += 1
            if now_ms != self._last_ms:
                self._last_ms, self._last_dice = now_ms, secrets.randbits(48)
            return make_id(prefix, self._last_ms, self._last_dice)


def throw_dice() -> float:
    """From 0 to 1, for waits that are to differ."""
    return secrets.randbelow(1 << 30) / (1 << 30)


def random_bytes(count: int) -> bytes:
    """For secrets: never from dice that a test can load."""
    return secrets.token_bytes(count)


def new_token() -> str:
    """A secret that cannot be guessed, for clients to show."""
    return "argosy_" + secrets.token_urlsafe(32)

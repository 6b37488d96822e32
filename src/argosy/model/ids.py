"""Ids: a kind prefix and 20 characters that sort by time. Time and dice are arguments."""

from __future__ import annotations

from typing import Final, Protocol

_ALPHABET: Final = "0123456789abcdefghjkmnpqrstvwxyz"  # Crockford's base 32: sorts like the number


class Clock(Protocol):
    """Where time comes from: milliseconds since the epoch, and a monotonic count of seconds."""

    def now_ms(self) -> int: ...

    def monotonic_s(self) -> float: ...


class Ids(Protocol):
    """Where ids come from."""

    def new(self, prefix: str) -> str: ...


def make_id(prefix: str, now_ms: int, dice: int) -> str:
    """`prefix-` + 10 characters of time (50 bits of ms) + 10 of `dice` (50 bits).

    >>> make_id("job", 0, 31)
    'job-0000000000000000000z'
    """
    number = ((now_ms & ((1 << 50) - 1)) << 50) | (dice & ((1 << 50) - 1))
    return prefix + "-" + "".join(_ALPHABET[(number >> shift) & 31] for shift in range(95, -1, -5))

"""What policies wanted in the last minutes, as far as it still counts. Pure."""

from __future__ import annotations

from typing import NamedTuple

from msgspec.structs import replace

from argosy.model.scaling import Memory, Wish


class Wished(NamedTuple):
    """What a rule answers."""

    replicas: int
    why: str
    memory: Memory


def noted(memory: Memory, now_ms: int, replicas: int, hold_s: float) -> Memory:
    """With one more wish, and without those that are older than `hold_s` or smaller than a later one."""
    since = now_ms - hold_s * 1000
    kept = [wish for wish in memory.wishes if wish.at_ms >= since and wish.replicas > replicas]
    return replace(memory, wishes=(*kept, Wish(at_ms=now_ms, replicas=replicas)))


def largest(memory: Memory) -> int:
    """The largest wish that still counts; 0 without any."""
    return memory.wishes[0].replicas if memory.wishes else 0

"""What queues borrowed lately: a mean that decays by half in each half-life, in exact integers."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from functools import lru_cache
from math import isqrt
from typing import Final, NamedTuple

from argosy.model.tenancy import Amounts
from argosy.scheduler.queues import Node, Pairs, QueueTree

_ONE: Final = 1 << 32  # fixed point of the decay: 32 binary places
_TICKS: Final = 4096  # steps of a half-life


class Span(NamedTuple):
    """What somebody used in a leaf in the past. Times in ms since the epoch."""

    leaf: str
    amounts: Amounts
    from_ms: int
    to_ms: int


def ticks_at(now_ms: int, half_life_ms: int) -> int:
    """Time in steps of a 4096th of a half-life, from the epoch on."""
    return now_ms * _TICKS // half_life_ms


def fade(node: Node, used: Sequence[int], remains: int) -> None:
    """The history of a queue after it used so much for a while. `remains`: of what was (`decay`)."""
    for i in node.counted:
        above = max(0, used[i] - node.deserved[i])
        if above or node.history_fine[i]:
            fine = (node.history_fine[i] * remains >> 32) + above * (_ONE - remains)
            node.history_fine[i], node.history[i] = fine, fine >> 32


def recall(tree: QueueTree, spans: Iterable[Span], now_ms: int, half_life_ms: int) -> int:
    """The history of all queues from records of who used what, instead of what was known; returns the time in
    ticks."""
    now = ticks_at(now_ms, half_life_ms)
    changes: list[tuple[int, int, Node, Pairs]] = []
    for span in spans:
        begin, end = (min(now, ticks_at(at_ms, half_life_ms)) for at_ms in (span.from_ms, span.to_ms))
        if begin < end:
            leaf, pairs = tree.leaf(span.leaf), tree.pairs(span.amounts)
            changes += [(begin, 1, leaf, pairs), (end, -1, leaf, pairs)]
    changes.sort(key=lambda change: change[0])
    used: dict[Node, list[int]] = {}
    known: dict[Node, int] = {}  # until which tick the history is right
    for node in tree.nodes.values():
        node.history, node.history_fine = [0] * len(tree.names), [0] * len(tree.names)

    def go_on(node: Node, tick: int) -> None:
        passed = tick - known.get(node, tick)
        known[node] = tick
        if passed:
            fade(node, used[node], decay(passed))

    for tick, sign, leaf, pairs in changes:
        at: Node | None = tree.leaf_below(leaf) if leaf.children else leaf
        while at is not None:
            row = used.setdefault(at, [0] * len(tree.names))
            go_on(at, tick)
            for i, amount in pairs:
                row[i] += sign * amount
            at = at.parent
    for node in known:
        go_on(node, now)
    return now


@lru_cache(maxsize=4096)  # a history of many uses asks for few different times
def decay(ticks: int) -> int:
    """2^(-ticks / 4096) with 32 binary places, by square roots of a half: the same on every machine."""
    if ticks >= 64 * _TICKS:
        return 0
    result, root = 1 << 64, 1 << 63
    halves, rest = divmod(ticks, _TICKS)
    for bit in range(_TICKS.bit_length() - 2, -1, -1):
        root = isqrt(root << 64)
        if rest >> bit & 1:
            result = result * root >> 64
    return result >> halves >> 32

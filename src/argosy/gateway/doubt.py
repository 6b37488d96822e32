"""When a replica is doubted that takes requests and answers nothing, long before their answer time is over.

Two facts together: a request waits there for its first byte several times longer than nearly all requests of
its revision ever did, and for so long no byte of any answer has come from the replica either. So a language
model that is slow, or busy with long prompts, is not doubted: tokens of other answers come from it, and what
is usual there is long. One that is doubted gets no new requests while there are others; what is there is left
to wait, and the first byte that comes ends the doubt.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from argosy.model.routes import LATENCY_BOUNDS_MS

#: Nothing is doubted sooner; longer than what 99 of 100 first bytes took, by this factor; with less answers
#: nobody knows what is usual.
LEAST_S: Final = 5.0
TIMES: Final = 4
SEEN: Final = 20
#: It is left alone for so long, and twice as long each time that it is doubted again.
ALONE_S: Final = 30.0
ALONE_MOST_S: Final = 600.0


def patience_s(first_byte: Sequence[int]) -> float:
    """For so long a first byte may take, from the counts of first bytes by LATENCY_BOUNDS_MS; 0: for ever,
    because too few are known, or they take longer than is counted.

    >>> patience_s([0, 0, 0, 0, 0, 98, 2, *[0] * 9]), patience_s([0] * 15 + [40]), patience_s([3] + [0] * 15)
    (5.0, 0.0, 0.0)
    """
    total = sum(first_byte)
    if total < SEEN:
        return 0.0
    beyond = total
    for bound_ms, count in zip(LATENCY_BOUNDS_MS, first_byte, strict=False):
        beyond -= count
        if 100 * beyond <= total:
            return max(LEAST_S, TIMES * bound_ms / 1000)
    return 0.0


def is_silent(waited_s: float, since_byte_s: float, first_byte: Sequence[int]) -> bool:
    """A request has waited so long; the last byte came from its replica so long ago."""
    silent_s = min(waited_s, since_byte_s)
    return silent_s >= LEAST_S and 0 < patience_s(first_byte) <= silent_s

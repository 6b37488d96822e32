"""How long a job will run, guessed from its limit and from what jobs like it took.

Only backfill and what people read (`starts_at`) use the guess; nothing is ended because it was wrong. The
quantile of one's own recent jobs follows Tsafrir, Etsion and Feitelson, "Backfilling Using System-Generated
Predictions" (TPDS 2007): short memory of the same user beats everything elaborate; a high quantile instead of
the mean, because a guess that is too short moves a reservation.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Final

import msgspec

from argosy.scheduler.ask import Ask, Running

REMEMBERED: Final = 20  # runs of one kind
ENOUGH: Final = 3  # runs of one kind that say more than many of a wider one
QUANTILE_PERCENT: Final = 90
#: Of a job that nothing is known about, by its priority class. None: it is not expected to end.
CLASS_DEFAULT_S: Final[tuple[int | None, ...]] = (None, None, 8 * 3600, 24 * 3600, 24 * 3600)


class History(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """Run times of the past, by kind of job: the last `REMEMBERED` of each, the newest last. The caller keeps
    the value."""

    runtimes_s: Mapping[str, tuple[int, ...]] = {}


def kinds_of(*, user: str, name: str, gpu_milli: int, project: str = "") -> tuple[str, ...]:
    """The kinds that a job belongs to, from the narrowest: its user's of this name and size, of this size,
    all of the user's.

    `gpu_milli` counts all nodes. Numbers in names do not matter: `train-17` is like `train-18`.

    >>> kinds_of(user="ann", name="train-17", gpu_milli=8000, project="vision")
    ('vision/ann/8000/train-#', 'vision/ann/8000', 'vision/ann')
    """
    whose = f"{project}/{user}"
    stem = re.sub(r"\d+", "#", name)
    return (f"{whose}/{gpu_milli}/{stem}", f"{whose}/{gpu_milli}", whose)


def is_known(history: History, kinds: Sequence[str]) -> bool:
    """Whether the past says enough to promise something by: a run of the same name and size, or several of
    the same size. What the same user did in other sizes only helps to reckon."""
    same, *others = (history.runtimes_s.get(kind, ()) for kind in kinds[:-1])
    return bool(same) or any(len(runs) >= ENOUGH for runs in others)


def remember(history: History, kinds: Sequence[str], runtime_s: int) -> History:
    """The history with one more run that ended by itself. Runs that were cancelled or preempted say nothing:
    leave them out."""
    runtimes = dict(history.runtimes_s)
    for kind in kinds:
        runtimes[kind] = (*runtimes.get(kind, ()), runtime_s)[-REMEMBERED:]
    return History(runtimes_s=runtimes)


def estimate_s(
    history: History, kinds: Sequence[str], *, urgency: int, max_duration_s: int | None = None
) -> int | None:
    """The guess in seconds: the 90 % quantile of the narrowest kind that has enough runs (else of the widest
    that has any), else the default of the class; never more than `max_duration_s`. None: it runs until
    somebody ends it."""
    known = [runs for kind in kinds if (runs := history.runtimes_s.get(kind))]
    guess = CLASS_DEFAULT_S[min(urgency, len(CLASS_DEFAULT_S) - 1)]
    if known:
        runs = next((runs for runs in known if len(runs) >= ENOUGH), known[-1])
        guess = quantile(runs, QUANTILE_PERCENT)
    if max_duration_s is None:
        return guess
    return max_duration_s if guess is None else min(guess, max_duration_s)


def left_s(estimate: int, done_s: int) -> int:
    """What is left of a job that goes on from a checkpoint after `done_s` of work; the guess doubles until it
    is longer than that.

    >>> left_s(3600, 600), left_s(3600, 4000)
    (3000, 3200)
    """
    estimate = max(estimate, 60)
    while estimate <= done_s:
        estimate *= 2
    return estimate - done_s


def quantile(values: Sequence[int], percent: int) -> int:
    """The smallest of `values` that at least `percent` % do not exceed (nearest rank).

    >>> quantile([5, 1, 3], 50), quantile(range(1, 21), 90)
    (3, 18)
    """
    ordered = sorted(values)
    return ordered[max(0, -(-len(ordered) * percent // 100) - 1)]


def expected_s(ask: Ask) -> int | None:
    """What the pool reckons with: the estimate that the ask brings, else the default of its class."""
    if ask.estimate_s is not None:
        return ask.estimate_s
    return CLASS_DEFAULT_S[min(ask.urgency, len(CLASS_DEFAULT_S) - 1)]


def is_guess(ask: Ask) -> bool:
    """Whether little is known about its length: good enough to reckon with, not to promise anything by."""
    return expected_s(ask) is not None and (ask.guessed or ask.estimate_s is None)


def expected_end_ms(running: Running, now_ms: int) -> int | None:
    """When it will probably end; always after `now_ms`. None: not by itself.

    Who overruns is reckoned to need twice as long, and twice again: run times have heavy tails, so what has
    run long goes on for long, and the guess moves in few steps, not with every look.
    """
    length_s = expected_s(running.ask)
    if length_s is None:
        return None
    length_ms = max(length_s, 1) * 1000
    while running.started_ms + length_ms <= now_ms:
        length_ms *= 2
    return running.started_ms + length_ms

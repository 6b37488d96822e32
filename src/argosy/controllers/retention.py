"""Retention: which checkpoint copies of a job are kept. Pure."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from argosy.model.kinds.kind import Checkpoint
from argosy.model.task import CheckpointRules

COPIES_MAX: Final = 200  # of one job


def retained(copies: Sequence[Checkpoint], rules: CheckpointRules) -> tuple[Checkpoint, ...]:
    """The copies that stay, the newest first: the last ones, and of the older ones one for each period.

    >>> made = [Checkpoint(tree=str(at), at_ms=at * 1000, size_bytes=1) for at in (100, 70, 65, 40, 10)]
    >>> [one.tree for one in retained(made, CheckpointRules(keep_last=2, keep_every_s=30))]
    ['100', '70', '40', '10']
    """
    newest_first = sorted(copies, key=lambda copy: copy.at_ms, reverse=True)
    last, older = newest_first[: rules.keep_last], newest_first[rules.keep_last :]
    stay: list[Checkpoint] = []
    if rules.keep_every_s:
        for copy in reversed(older):
            if not stay or copy.at_ms - stay[-1].at_ms >= rules.keep_every_s * 1000:
                stay.append(copy)
    return (*last, *reversed(stay))[:COPIES_MAX]

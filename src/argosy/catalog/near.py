"""Suggests similar names, for error messages."""

from __future__ import annotations

import re
from collections.abc import Iterable


def near_names(word: str, known: Iterable[str], *, most: int = 3) -> list[str]:
    """At most `most` known names, nearest first; [] when none is near.

    >>> near_names("A1000", ["A100", "A10", "H100", "T4"])
    ['A100', 'A10', 'H100']
    """
    import difflib  # costs 4 ms: only on the way to an error

    wanted = _fold(word)
    scored = []
    for name in set(known):
        folded = _fold(name)
        score = difflib.SequenceMatcher(None, wanted[:60], folded[:60]).ratio()
        if folded.startswith(wanted) or wanted.startswith(folded):
            score += 0.25
        if score >= 0.55:
            scored.append((-score, len(folded), name))
    return [name for _, _, name in sorted(scored)[:most]]


def _fold(name: str) -> str:
    return re.sub(r"[\s_\-]+", "", name).lower().replace("o", "0")  # `H1OO` means `H100`

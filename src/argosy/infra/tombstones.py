"""Tombstones: which claims were released, so that a late repeat of `ensure` does not bring one back."""

from __future__ import annotations

from pathlib import Path
from typing import Final

_MOST: Final = 5000


class Tombstones:
    """One empty file for each released claim. Only the newest are kept: ids sort by time."""

    def __init__(self, folder: Path, most: int = _MOST) -> None:
        self._folder, self._most = folder, most

    def __contains__(self, claim_id: str) -> bool:
        return (self._folder / claim_id).exists()

    def add(self, claim_id: str) -> None:
        """Raises OSError."""
        self._folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        (self._folder / claim_id).touch()
        if hash(claim_id) % 64 == 0:  # now and then
            for old in sorted(self._folder.iterdir())[: -self._most]:
                old.unlink(missing_ok=True)


def is_claim_id(name: str) -> bool:
    """Whether a name, of a folder or a tag, is the id of a claim. Nothing else is ours.

    >>> is_claim_id("clm-0000000000000000000z"), is_claim_id("clm-../x"), is_claim_id("shared")
    (True, False, False)
    """
    return name.startswith("clm-") and name[4:].isalnum()

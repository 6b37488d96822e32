"""Notes of what was ordered, one file for each claim: written before the order, kept until the release.

The truth is what a cloud lists; a note bridges the seconds in which a listing does not show a fresh machine
yet, and makes a repeated order the same order.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import Generic, Protocol, TypeVar

import msgspec

from argosy.infra.tombstones import is_claim_id


class OfClaim(Protocol):
    @property
    def claim_id(self) -> str: ...


N = TypeVar("N", bound=OfClaim)


class Notes(Generic[N]):
    """Structs of one type as files in `folder`. Raises OSError."""

    def __init__(self, folder: Path, kind: type[N]) -> None:
        self._folder, self._kind = folder, kind

    def load(self, claim_id: str) -> N | None:
        """None also for a note that a crash cut off."""
        try:
            return msgspec.json.decode((self._folder / claim_id).read_bytes(), type=self._kind)
        except (OSError, msgspec.MsgspecError):
            return None

    def save(self, note: N) -> N:
        self._folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        new = self._folder / f".{note.claim_id}.{os.getpid()}"
        new.write_bytes(msgspec.json.encode(note))
        new.replace(self._folder / note.claim_id)
        return note

    def remove(self, claim_id: str) -> None:
        (self._folder / claim_id).unlink(missing_ok=True)

    def all(self) -> list[N]:
        try:
            names = sorted(each.name for each in self._folder.iterdir() if is_claim_id(each.name))
        except OSError:
            return []
        return [note for name in names if (note := self.load(name)) is not None]

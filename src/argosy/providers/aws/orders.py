"""Notes of what was ordered: where it is, and with which words, until it is released.

The truth is what AWS lists; a note bridges the seconds in which a listing does not show a fresh machine yet,
makes a repeated order the same order, and tells which regions have to be looked at.
"""

from __future__ import annotations

import os
from pathlib import Path

import msgspec

from argosy.infra.tombstones import is_claim_id


class Order(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """One claim at AWS. `ids` are known when the answer to the order arrived."""

    claim_id: str
    region: str
    count: int
    tag: str = ""
    spot: bool = False
    rests: bool = False  # ordered to rest before it ever ran
    zone: str = ""  # of the last order
    image_id: str = ""
    ids: tuple[str, ...] = ()
    asked_ms: int = 0  # when it was last ordered
    group: str = ""  # placement group of its own
    ended_ms: int = 0  # released: what is left goes when AWS lets it


class Orders:
    """One file for each claim. Raises OSError."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def load(self, claim_id: str) -> Order | None:
        """None also for a note that a crash cut off."""
        try:
            return msgspec.json.decode((self._folder / claim_id).read_bytes(), type=Order)
        except (OSError, msgspec.MsgspecError):
            return None

    def save(self, order: Order) -> Order:
        self._folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        new = self._folder / f".{order.claim_id}.{os.getpid()}"
        new.write_bytes(msgspec.json.encode(order))
        new.replace(self._folder / order.claim_id)
        return order

    def remove(self, claim_id: str) -> None:
        (self._folder / claim_id).unlink(missing_ok=True)

    def all(self) -> list[Order]:
        try:
            names = sorted(each.name for each in self._folder.iterdir() if is_claim_id(each.name))
        except OSError:
            return []
        return [order for name in names if (order := self.load(name)) is not None]

"""Decides whether the result of a refresh replaces the present prices: a catalog never becomes empty or half
because a price service failed for a moment."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterable
from pathlib import Path

import msgspec

from argosy.catalog.table import PriceRow, Table, build_block, rows_of, write_table
from argosy.model.errors import ArgosyError
from argosy.model.market import Block
from argosy.model.offer import Capacity
from argosy.model.units import many

SHRINK_PERCENT = 50  # a refresh that brings less than this share of what it replaces is not believed


class Fetched(msgspec.Struct, frozen=True, kw_only=True):
    """What a provider's price service said, and how much of the world it spoke of."""

    provider: str
    rows: tuple[PriceRow, ...]
    capacities: frozenset[Capacity]  # rows of other capacities stay as they are
    regions: frozenset[str] | None = None  # None: all of them
    skipped: int = 0  # entries that could not be used (no shape known, price 0, other systems)


class Kept(msgspec.Struct, frozen=True, kw_only=True):
    """The outcome of a refresh that was taken."""

    provider: str
    before: int
    after: int
    skipped: int

    def render(self) -> str:
        more = f", {many(self.skipped, 'entry')} skipped" if self.skipped else ""
        return f"{self.provider}: {many(self.after, 'price')} (before: {self.before}{more})"


def keep_refreshed(
    user_dir: Path, fetched: Fetched, before: Block | None, today: str, *, force: bool = False
) -> Kept:
    """Write `<user_dir>/live/PROVIDER.prices` and tell what changed. `before` is the block in use now.

    Raises ArgosyError (`transient`) and leaves the old prices alone when the new ones are none or, unless
    `force`, strangely few.
    """
    good = [row for row in fetched.rows if row.price_micro_usd > 0]
    skipped = fetched.skipped + len(fetched.rows) - len(good)

    def covered(row: PriceRow) -> bool:
        return row.capacity in fetched.capacities and (
            fetched.regions is None or row.region in fetched.regions
        )

    old = list(rows_of(before)) if before is not None else []
    replaced = sum(covered(row) for row in old)
    if not good or (not force and len(good) * 100 < replaced * SHRINK_PERCENT):
        raise ArgosyError(
            "transient",
            f"the new prices of {fetched.provider} are refused: {len(good)} instead of {replaced} before; "
            "the old ones are kept",
            hint=f"repeat `argosy catalog refresh {fetched.provider}` later; "
            f"`--force` takes them as they are",
        )
    block = build_block(fetched.provider, [*(row for row in old if not covered(row)), *good])
    save(user_dir, block, today)
    return Kept(provider=fetched.provider, before=len(old), after=len(block), skipped=skipped)


def save(user_dir: Path, block: Block, today: str) -> Path:
    """Write the block whole or not at all. Raises ArgosyError (`disk-full`) when it cannot be written."""
    data = write_table(today, [block])
    Table(data).check()
    path = user_dir / "live" / f"{block.provider}.prices"
    draft = path.with_suffix(f".{os.getpid()}.new")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        draft.write_bytes(data)
        draft.replace(path)
    except OSError as error:
        with contextlib.suppress(OSError):
            draft.unlink(missing_ok=True)
        raise ArgosyError(
            "disk-full",
            f"the new prices cannot be written to {path}: {error.strerror}; the old ones are kept",
        ) from None
    return path


def merged(rows: Iterable[PriceRow]) -> tuple[PriceRow, ...]:
    """The cheapest of rows for the same machine, place and capacity, in a stable order."""
    best: dict[tuple[object, ...], PriceRow] = {}
    for row in rows:
        key = (row.kind, row.region, row.zone, row.capacity)
        if key not in best or row.price_micro_usd < best[key].price_micro_usd:
            best[key] = row
    return tuple(best.values())

"""Claims that were released do not come back; only the newest are remembered."""

from __future__ import annotations

from pathlib import Path

from argosy.infra.tombstones import Tombstones
from argosy.testing.virtual_time import SimIds


def test_released_claims_are_remembered_by_whoever_comes_next(tmp_path: Path) -> None:
    first, other = SimIds().new("clm"), SimIds(2).new("clm")
    Tombstones(tmp_path / "graves").add(first)
    Tombstones(tmp_path / "graves").add(first)  # again: nothing new
    again = Tombstones(tmp_path / "graves")
    assert first in again
    assert other not in again


def test_only_the_newest_are_kept(tmp_path: Path) -> None:
    ids, graves = SimIds(), Tombstones(tmp_path, most=10)
    made = [ids.new("clm") for _ in range(2000)]
    for each in made:
        graves.add(each)
    kept = [each for each in made if each in graves]
    assert kept == made[-len(kept) :]
    assert 10 <= len(kept) < 1000

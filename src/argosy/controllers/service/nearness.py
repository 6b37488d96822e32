"""Which regions are near a gateway, so that requests go to the nearest replicas that are well. Pure."""

from __future__ import annotations

from collections.abc import Iterable

from argosy.model.areas import Atlas, Where

_NOWHERE = Where()


def nearest_first(region: str, regions: Iterable[str], atlas: Atlas) -> tuple[tuple[str, ...], ...]:
    """Groups of regions, the nearest first: `region` itself, its country, its continent, the rest. What
    is not known to be anywhere is in the rest. Regions are `provider/region`.

    >>> atlas = {("a", "x"): Where(country="DE", continent="Europe"), ("b", "y"): Where(country="DE")}
    >>> nearest_first("a/x", ["b/y", "c/z", "a/x"], atlas)
    (('a/x',), ('b/y',), ('c/z',))
    """
    groups: dict[int, list[str]] = {}
    for each in sorted(set(regions)):
        groups.setdefault(_distance(region, each, atlas), []).append(each)
    return tuple(tuple(groups[distance]) for distance in sorted(groups))


def _distance(one: str, other: str, atlas: Atlas) -> int:
    if one == other:
        return 0
    here, there = _where(one, atlas), _where(other, atlas)
    if here.country and here.country == there.country:
        return 1
    return 2 if here.continent and here.continent == there.continent else 3


def _where(place: str, atlas: Atlas) -> Where:
    provider, _, region = place.partition("/")
    return atlas.get((provider, region), _NOWHERE)

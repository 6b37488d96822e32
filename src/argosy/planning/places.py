"""Constraints of a wish that are about a place alone: one test serves offers and the places of a block.

The first part of the table of constraints; `constraints` has the other, and the loops over both.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Final, NamedTuple

from msgspec.structs import replace

from argosy.model.areas import Where, is_within, names_country
from argosy.model.market import Place
from argosy.model.places import REGION_IS_REST
from argosy.model.resources import Edge, Infra, Resources


class Spot(NamedTuple):
    """A place of a provider. `anywhere`: offers without a zone can be had in any zone of their region."""

    provider: str
    region: str
    zone: str
    anywhere: bool
    where: Where | None


class Relaxed(NamedTuple):
    """A wish without one constraint, as the user wrote it."""

    words: str
    wish: Resources


def nothing(_: Resources) -> Iterator[Relaxed]:
    return iter(())


def dropped(words: Callable[[Resources], str], **without: object) -> Callable[[Resources], Iterator[Relaxed]]:
    """A relaxation that sets fields of the wish to what asks for nothing."""
    return lambda wish: iter([Relaxed(words(wish), replace(wish, **without))])


class PlaceConstraint(NamedTuple):
    """One row: `keep` is the test of many places at once, where that is quicker than one by one."""

    code: str
    asked: Callable[[Resources], bool]
    refuse: Callable[[Resources, Spot], str]  # why the place will not do; "" when it will
    keep: Callable[[Resources, Sequence[Place], Sequence[int]], list[int]] | None = None  # the same of many
    relax: Callable[[Resources], Iterator[Relaxed]] = nothing


def _relax_infra(wish: Resources) -> Iterator[Relaxed]:
    place = wish.infra
    if place.zone:
        yield Relaxed(f"the zone {place.zone}", replace(wish, infra=replace(place, zone=None)))
    if place.region:
        without = replace(place, region=None, zone=None)
        yield Relaxed(f"the region {place.region}", replace(wish, infra=without))
    if place.provider:
        yield Relaxed(f"`infra: {place.provider}`", replace(wish, infra=Infra()))


def _refuse_zone(wish: Resources, spot: Spot) -> str:
    zone = wish.infra.zone
    return "" if zone in ("*", spot.zone) or spot.anywhere else f"`infra` asks for zone {zone}"


def _in_zone(wish: Resources, places: Sequence[Place], here: Sequence[int]) -> list[int]:
    return [each for each in here if places[each].zone in ("", wish.infra.zone)]


def _refuse_areas(wish: Resources, spot: Spot) -> str:
    """Where a country is asked for, a place that is not known to be in it is refused: residency is a
    promise."""
    if any(is_within(area, spot.provider, spot.region, spot.zone, spot.where) for area in wish.areas):
        return ""
    asked = f"`regions` asks for {', '.join(wish.areas)}"
    if spot.where is None and any(names_country(area) for area in wish.areas):
        return f"its country is not known, {asked}"
    country = f"is in {spot.where.country}, " if spot.where is not None and spot.where.country else ""
    return f"{country}{asked}"


def _refuse_excluded_place(wish: Resources, spot: Spot) -> str:
    for each in wish.excluded:
        if each.instance_type or each.accelerator or not each.area:
            continue
        if is_within(each.area, spot.provider, spot.region, spot.zone, spot.where):
            return f"`not` rules out {each.area}"
        if spot.where is None and names_country(each.area):
            return f"its country is not known, `not` rules out {each.area}"
    return ""


def _relax_excluded(wish: Resources) -> Iterator[Relaxed]:
    if wish.excluded:
        named = ", ".join(each.render() for each in wish.excluded)
        yield Relaxed(f"`not: {named}`", replace(wish, excluded=()))


def _refuse_location(wish: Resources, spot: Spot) -> str:
    """A name of a place is its location, too."""
    site = spot.where.location if spot.where is not None else ""
    names = [
        name.lower() for name in (site, spot.region, spot.zone, f"{spot.provider}/{spot.region}") if name
    ]
    if wish.location.lower() in names:
        return ""
    return f"is at {site}, not at {wish.location}" if site else f"is not at {wish.location}"


def _refuse_edge(wish: Resources, spot: Spot) -> str:
    edge, known = wish.edge, spot.where or Where()
    if edge.bandwidth_kbps and known.bandwidth_kbps < edge.bandwidth_kbps:
        asked = f"`edge_config` asks for {render_bandwidth(edge.bandwidth_kbps)}"
        if not known.bandwidth_kbps:
            return f"its link is not known, {asked}"
        return f"its link has {render_bandwidth(known.bandwidth_kbps)}, {asked}"
    if edge.latency_us and not 0 < known.latency_us <= edge.latency_us:
        asked = f"`edge_config` asks for at most {edge.latency_us / 1000:g} ms"
        if not known.latency_us:
            return f"its latency is not known, {asked}"
        return f"answers in {known.latency_us / 1000:g} ms, {asked}"
    if edge.power_mw and not 0 < known.power_mw <= edge.power_mw:
        asked = f"`edge_config` allows {edge.power_mw / 1000:g} W"
        if not known.power_mw:
            return f"its power is not known, {asked}"
        return f"draws {known.power_mw / 1000:g} W, {asked}"
    return ""


def render_bandwidth(kbps: int) -> str:
    """
    >>> render_bandwidth(50_000), render_bandwidth(500), render_bandwidth(2_500_000)
    ('50 Mbps', '500 kbps', '2.5 Gbps')
    """
    for unit, name in ((1_000_000, "Gbps"), (1000, "Mbps")):
        if kbps >= unit:
            return f"{kbps / unit:g} {name}"
    return f"{kbps} kbps"


def _refuse_provider(wish: Resources, spot: Spot) -> str:
    asked = wish.infra.provider
    return "" if not asked or asked == spot.provider else f"`infra` asks for {asked}"


def _is_in(asked: Infra, region: str) -> bool:
    """Where all that follows a provider's name is its region, more than the name of one is a part of it.

    >>> _is_in(Infra(provider="kubernetes", region="lab/team"), "lab"), _is_in(Infra(region="us"), "us-east1")
    (True, False)
    """
    rest = asked.provider in REGION_IS_REST and f"{asked.region}/".startswith(f"{region}/")
    return asked.region == region or rest


#: About the provider alone; its relaxations are those of all parts of `infra`.
INFRA: Final = PlaceConstraint(
    "infra", lambda wish: wish.infra != Infra(), _refuse_provider, relax=_relax_infra
)
PLACES: Final = (
    INFRA,
    PlaceConstraint(
        "region",
        lambda wish: wish.infra.region not in (None, "", "*"),
        lambda wish, spot: (
            "" if _is_in(wish.infra, spot.region) else f"`infra` asks for region {wish.infra.region}"
        ),
        lambda wish, places, here: [each for each in here if _is_in(wish.infra, places[each].region)],
    ),
    PlaceConstraint("zone", lambda wish: wish.infra.zone not in (None, "", "*"), _refuse_zone, _in_zone),
    PlaceConstraint(
        "residency",
        lambda wish: bool(wish.areas),
        _refuse_areas,
        relax=dropped(lambda wish: f"`regions: [{', '.join(wish.areas)}]`", areas=()),
    ),
    PlaceConstraint(
        "excluded", lambda wish: bool(wish.excluded), _refuse_excluded_place, relax=_relax_excluded
    ),
    PlaceConstraint(
        "location",
        lambda wish: bool(wish.location),
        _refuse_location,
        relax=dropped(lambda wish: f"`location: {wish.location}`", location=""),
    ),
    PlaceConstraint(
        "edge",
        lambda wish: wish.edge != Edge(),
        _refuse_edge,
        relax=dropped(lambda wish: "`edge_config`", edge=Edge()),
    ),
)

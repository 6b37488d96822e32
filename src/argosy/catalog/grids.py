"""Carbon intensity of the grids of cloud regions: grams of CO2 equivalent per kWh.

From the best that is known of a region to the least:

1. Google's own figures for its regions: yearly averages of 2025, emissions of the power stations that serve
   the place
   (github.com/GoogleCloudPlatform/region-carbon-info, data/yearly/2025.csv at 74d9bf8).
2. That of the nearest of them on the same grid: in the same country, and not farther than `_NEAR_KM` where a
   country has several grids.
3. In the United States, the state: EPA eGRID2023, annual output emission rate (STC2ERTA, 453.6 g to the
   pound).
4. The average of the country where it has one grid, or grids that are alike: Ember by way of Our World in
   Data, 2022 and 2023, as
   codecarbon 3.3.2 (MIT) keeps them. These count the life cycle of power stations, the others only what they
   burn: a little higher.

All but the first are estimates. What none of them tells is not known: Calgary burns gas, the average Canadian
does not.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Final, NamedTuple

from argosy.catalog.facts import RegionFact

_GOOGLE_SOURCE: Final = "Google Cloud region carbon data 2025"
_STATE_SOURCE: Final = "EPA eGRID2023"
_COUNTRY_SOURCE: Final = "Ember by way of Our World in Data, {year}"
USER_SOURCE: Final = "terms.toml"


class Grid(NamedTuple):
    """What is known of the current at a place."""

    grams_per_kwh: float
    source: str
    stands_for: str  # `gcp/us-east4`, `Ireland`: where the figure is from; "": the place itself
    estimated: bool


#: Region of Google Cloud -> grams per kWh.
GOOGLE: Final[dict[str, float]] = {
    "africa-south1": 641.42,
    "asia-east1": 427.95,
    "asia-east2": 488.52,
    "asia-northeast1": 449.23,
    "asia-northeast2": 298.92,
    "asia-northeast3": 359.05,
    "asia-south1": 598.45,
    "asia-south2": 472.55,
    "asia-southeast1": 365.66,
    "asia-southeast2": 587.80,
    "asia-southeast3": 364.68,
    "australia-southeast1": 468.34,
    "australia-southeast2": 415.89,
    "europe-central2": 498.57,
    "europe-north1": 29.84,
    "europe-north2": 19.39,
    "europe-southwest1": 95.75,
    "europe-west1": 126.43,
    "europe-west2": 109.39,
    "europe-west3": 275.81,
    "europe-west4": 194.35,
    "europe-west6": 21.20,
    "europe-west8": 202.03,
    "europe-west9": 15.83,
    "europe-west10": 275.81,
    "europe-west12": 202.03,
    "me-central1": 370.0,
    "me-central2": 381.29,
    "me-west1": 380.95,
    "northamerica-northeast1": 11.36,
    "northamerica-northeast2": 74.20,
    "northamerica-south1": 293.25,
    "southamerica-east1": 73.25,
    "southamerica-west1": 209.94,
    "us-central1": 431.95,
    "us-central2": 417.39,
    "us-east1": 579.44,
    "us-east2": 391.20,
    "us-east4": 343.48,
    "us-east5": 343.48,
    "us-east7": 339.89,
    "us-south1": 299.13,
    "us-west1": 97.85,
    "us-west2": 149.91,
    "us-west3": 567.51,
    "us-west4": 360.0,
}
#: Places of the United States that are far from all of these: state, and grams per kWh.
_STATES: Final[dict[str, tuple[str, float]]] = {
    "California": ("California", 179.1),
    "Chicago": ("Illinois", 215.2),
    "Illinois": ("Illinois", 215.2),
    "San Francisco": ("California", 179.1),
    "San Jose": ("California", 179.1),
    "Wyoming": ("Wyoming", 831.6),
}
#: Country -> name, grams per kWh, year.
_COUNTRIES: Final[dict[str, tuple[str, float, int]]] = {
    "AE": ("the United Arab Emirates", 561.1, 2022),
    "AT": ("Austria", 110.8, 2023),
    "BG": ("Bulgaria", 335.3, 2023),
    "BH": ("Bahrain", 904.6, 2022),
    "CN": ("China", 582.3, 2023),
    "CO": ("Colombia", 259.5, 2023),
    "CZ": ("Czechia", 449.7, 2023),
    "DK": ("Denmark", 151.7, 2023),
    "EE": ("Estonia", 416.7, 2023),
    "IE": ("Ireland", 290.8, 2023),
    "IN": ("India", 713.4, 2023),
    "IS": ("Iceland", 27.7, 2022),
    "MY": ("Malaysia", 605.8, 2022),
    "NO": ("Norway", 30.1, 2023),
    "NZ": ("New Zealand", 112.8, 2023),
    "QA": ("Qatar", 602.5, 2023),
    "RO": ("Romania", 240.6, 2023),
    "RU": ("Russia", 441.0, 2023),
    "TH": ("Thailand", 549.6, 2023),
    "VN": ("Vietnam", 475.4, 2023),
}
#: Countries with several grids: only what is near stands on the same one.
_MANY_GRIDS: Final = frozenset({"AU", "BR", "CA", "IN", "JP", "US"})
_NEAR_KM: Final = 500.0


def grid_of(fact: RegionFact, regions: Sequence[RegionFact]) -> Grid | None:
    """What is known of the grid of a region; None: nothing. `regions`: where Google's are, among others."""
    if fact.provider == "gcp" and fact.region in GOOGLE:
        return Grid(GOOGLE[fact.region], _GOOGLE_SOURCE, "", False)
    near = _neighbour(fact, regions) if fact.country and (fact.latitude or fact.longitude) else ""
    if near:
        return Grid(GOOGLE[near], _GOOGLE_SOURCE, f"gcp/{near}", True)
    if fact.country == "US" and fact.city in _STATES:
        state, grams = _STATES[fact.city]
        return Grid(grams, _STATE_SOURCE, state, True)
    if fact.country in _COUNTRIES:
        name, grams, year = _COUNTRIES[fact.country]
        return Grid(grams, _COUNTRY_SOURCE.format(year=year), name, True)
    return None


def _neighbour(fact: RegionFact, regions: Sequence[RegionFact]) -> str:
    """The nearest region of Google on the same grid; "": there is none."""
    near = [
        (distance, other.region)
        for other in regions
        if other.provider == "gcp" and other.region in GOOGLE and other.country == fact.country
        if (distance := _distance_km(fact, other)) <= _NEAR_KM or fact.country not in _MANY_GRIDS
    ]
    return min(near)[1] if near else ""


def _distance_km(one: RegionFact, other: RegionFact) -> float:
    """Along the surface (haversine)."""
    north, south = math.radians(one.latitude), math.radians(other.latitude)
    across = math.radians(other.longitude - one.longitude)
    half = math.sin((south - north) / 2) ** 2 + math.cos(north) * math.cos(south) * math.sin(across / 2) ** 2
    return 12_742 * math.asin(min(1.0, math.sqrt(half)))

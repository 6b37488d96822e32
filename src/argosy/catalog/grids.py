"""How dirty the current is where clouds stand: grams of CO2 per kWh of the local grid.

The figures are Google's for its own regions (yearly average of 2024, operational gross emissions of the grid:
github.com/GoogleCloudPlatform/region-carbon-info, data/yearly/2024.csv). A region of another provider has the figure of the
nearest of them on the same grid: in the same country, and not farther than `_NEAR_KM` where a country has several grids. What has no
such neighbour is not known.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Final

from argosy.catalog.facts import RegionFact

SOURCE: Final = "Google Cloud region carbon data 2024"
#: Region of Google Cloud -> grams of CO2 equivalent per kWh.
GOOGLE: Final[dict[str, float]] = {
    "africa-south1": 656.85, "asia-east1": 439.29, "asia-east2": 505.02, "asia-northeast1": 452.85,
    "asia-northeast2": 296.19, "asia-northeast3": 356.57, "asia-south1": 678.76, "asia-south2": 531.83,
    "asia-southeast1": 366.85, "asia-southeast2": 560.55, "australia-southeast1": 497.50, "australia-southeast2": 454.37,
    "europe-central2": 642.88, "europe-north1": 39.32, "europe-north2": 2.73, "europe-southwest1": 89.04,
    "europe-west1": 103.37, "europe-west2": 105.94, "europe-west3": 275.82, "europe-west4": 208.81,
    "europe-west6": 15.05, "europe-west8": 201.69, "europe-west9": 16.30, "europe-west10": 275.82,
    "europe-west12": 201.69, "me-central2": 382.23, "me-west1": 433.75, "northamerica-northeast1": 5.48,
    "northamerica-northeast2": 58.56, "northamerica-south1": 305.00, "southamerica-east1": 67.32,
    "southamerica-west1": 238.00, "us-central1": 412.72, "us-east1": 575.77, "us-east2": 340.42, "us-east4": 323.05,
    "us-south1": 302.95, "us-west1": 79.23, "us-west2": 169.28, "us-west3": 555.17, "us-west4": 357.30,
}  # fmt: skip
#: Countries with several grids: only what is near stands on the same one.
_MANY_GRIDS: Final = frozenset({"AU", "BR", "CA", "IN", "JP", "US"})
_NEAR_KM: Final = 500.0


def intensity(fact: RegionFact, regions: Sequence[RegionFact]) -> float | None:
    """Grams per kWh at a region; None: not known. `regions`: where Google's are, among others."""
    if fact.carbon_g_per_kwh is not None:
        return fact.carbon_g_per_kwh
    if fact.provider == "gcp" and fact.region in GOOGLE:
        return GOOGLE[fact.region]
    if not fact.country or not (fact.latitude or fact.longitude):
        return None
    near = [
        (distance, other.region)
        for other in regions
        if other.provider == "gcp" and other.region in GOOGLE and other.country == fact.country
        if (distance := _distance_km(fact, other)) <= _NEAR_KM or fact.country not in _MANY_GRIDS
    ]
    return GOOGLE[min(near)[1]] if near else None


def _distance_km(one: RegionFact, other: RegionFact) -> float:
    """Along the surface (haversine)."""
    north, south = math.radians(one.latitude), math.radians(other.latitude)
    across = math.radians(other.longitude - one.longitude)
    half = math.sin((south - north) / 2) ** 2 + math.cos(north) * math.cos(south) * math.sin(across / 2) ** 2
    return 12_742 * math.asin(min(1.0, math.sqrt(half)))

"""Geographic areas of regions, and the names people use for them: for data residency and exclusions.

An area is a provider (`aws`), a place (`aws/us-east-1`), a region or a pattern of regions (`us-*`), a country
(`KR`), `eu` (the member states), `eea` (with Iceland, Liechtenstein and Norway), or a continent (`asia`). Any
case.
"""

from __future__ import annotations

from collections.abc import Mapping
from fnmatch import fnmatchcase
from typing import Final

import msgspec


class Where(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """What is known of a place. Of sites at the edge also what their link and their nodes can do; 0: not
    known."""

    country: str = ""  # ISO 3166, two letters; "": not known
    continent: str = ""  # `North America`
    location: str = ""  # name of the site: `plant-3`
    bandwidth_kbps: int = 0  # of its link
    latency_us: int = 0  # to those who use it
    power_mw: int = 0  # what a node draws at most


#: (provider, region) -> where it is. What is not in it is not known to be anywhere.
Atlas = Mapping[tuple[str, str], Where]

# fmt: off
EU: Final = frozenset((
    "AT", "BE", "BG", "CY", "CZ", "DE", "DK", "EE", "ES", "FI", "FR", "GR", "HR", "HU", "IE", "IT", "LT", "LU", "LV", "MT", "NL", "PL",  # noqa: E501
    "PT", "RO", "SE", "SI", "SK",
))
# fmt: on
#: The economic area: what the Union's rules on data reach.
EEA: Final = EU | {"IS", "LI", "NO"}
_CONTINENTS: Final = frozenset(
    ("africa", "asia", "europe", "middle-east", "north-america", "oceania", "south-america")
)


def is_within(area: str, provider: str, region: str, zone: str, where: Where | None) -> bool:
    """Whether a place is in `area`. A place whose country is not known is in no country.

    >>> is_within("eu", "aws", "eu-west-1", "", Where(country="IE")), is_within("eu", "aws", "eu-west-2", "", Where(country="GB"))
    (True, False)
    """  # noqa: E501
    word = area.strip().lower()
    place = [part.lower() for part in (provider, region, zone) if part]
    if "/" in word:
        parts = word.split("/")
        return len(parts) <= len(place) and all(
            fnmatchcase(have, want) for want, have in zip(parts, place, strict=False)
        )
    if word in (provider.lower(), region.lower(), zone.lower()):
        return True
    if any(sign in word for sign in "*?["):
        return fnmatchcase(region.lower(), word)
    if where is None:
        return False
    if word in ("eu", "eea"):
        return where.country.upper() in (EU if word == "eu" else EEA)
    continent = where.continent.lower().replace(" ", "-")
    return (len(word) == 2 and word == where.country.lower()) or (
        word.replace(" ", "-") in _CONTINENTS and word.replace(" ", "-") == continent
    )


def names_country(area: str) -> bool:
    """Whether the answer depends on knowing the country: two letters, or a continent."""
    word = area.strip().lower().replace(" ", "-")
    return len(word) == 2 or word in _CONTINENTS

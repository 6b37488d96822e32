"""Offers and prices, offline: what is available where, at which price, and how old the prices are."""

from argosy.catalog.catalog import STALE_DAYS, Age, Catalog, Traffic
from argosy.catalog.facts import AcceleratorFact, AttachedFact, HazardBand, RegionFact, StorageFact
from argosy.catalog.keep import Fetched, Kept, keep_refreshed
from argosy.catalog.table import CorruptTable, PriceRow

__all__ = [
    "STALE_DAYS",
    "AcceleratorFact",
    "Age",
    "AttachedFact",
    "Catalog",
    "CorruptTable",
    "Fetched",
    "HazardBand",
    "Kept",
    "PriceRow",
    "RegionFact",
    "StorageFact",
    "Traffic",
    "keep_refreshed",
]

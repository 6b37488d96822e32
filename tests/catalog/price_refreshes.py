"""Refreshing prices as the server does it, for tests of the services of all providers."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from argosy.catalog import Catalog, Fetched, Kept
from argosy.catalog.refresh import PriceServices
from argosy.providers import price_services

SERVICES = price_services()
FETCHERS = {name: service.source for name, service in SERVICES.items() if service.source is not None}
UNPRICED = {name: service.unpriced for name, service in SERVICES.items() if service.unpriced}


def fetch(
    catalog: Catalog, provider: str, *, environ: Mapping[str, str], sleep_s: Any = None, **options: Any
) -> tuple[Fetched, str]:
    return PriceServices(SERVICES, environ, sleep_s).fetch(catalog, provider, **options)


def refresh(
    catalog: Catalog,
    folder: Path,
    provider: str,
    *,
    environ: Mapping[str, str],
    sleep_s: Any = None,
    **options: Any,
) -> Kept:
    return PriceServices(SERVICES, environ, sleep_s).refresh(catalog, folder, provider, **options)

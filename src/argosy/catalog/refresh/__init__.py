"""Live prices from providers' own services. The only part of the catalog that touches the network."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Final

import msgspec

from argosy.catalog.catalog import Catalog
from argosy.catalog.keep import Fetched, Kept, keep_refreshed
from argosy.model.errors import ArgosyError


class Service(msgspec.Struct, frozen=True, kw_only=True):
    """One price service. `key`: the environment variable with what lets us in; "": none is needed."""

    module: str
    key: str = ""
    header: str = "Authorization"
    scheme: str = "Bearer "


FETCHERS: Final[dict[str, Service]] = {
    "aws": Service(module="aws"),
    "azure": Service(module="azure"),
    "digitalocean": Service(module="digitalocean", key="DIGITALOCEAN_TOKEN"),
    "gcp": Service(module="gcp", key="GOOGLE_API_KEY", header="X-Goog-Api-Key", scheme=""),
    "lambda": Service(module="lambda_cloud", key="LAMBDA_API_KEY"),
    "oci": Service(module="oci"),
    "runpod": Service(module="runpod", key="RUNPOD_API_KEY"),
    "vast": Service(module="vast"),
}


def refresh(
    catalog: Catalog,
    user_dir: Path,
    provider: str,
    *,
    environ: Mapping[str, str],
    now_ms: int,
    endpoint: str | None = None,
    force: bool = False,
    sleep_s: Callable[[float], None] | None = None,
) -> Kept:
    """Ask the provider's price service and keep what it says in `user_dir`. Blocks: seconds to minutes.

    Raises ArgosyError and leaves the old prices as they are when the service cannot be used, or when what it brings is strangely
    little (unless `force`). `endpoint` replaces the service's address.
    """
    fetched, today = fetch(
        catalog, provider, environ=environ, now_ms=now_ms, endpoint=endpoint, sleep_s=sleep_s
    )
    return keep_refreshed(user_dir, fetched, catalog.listed_block(provider), today, force=force)


def fetch(
    catalog: Catalog,
    provider: str,
    *,
    environ: Mapping[str, str],
    now_ms: int,
    endpoint: str | None = None,
    sleep_s: Callable[[float], None] | None = None,
) -> tuple[Fetched, str]:
    """What the service says, and the date of today."""
    import datetime
    import importlib

    from argosy.catalog.refresh.book import Book
    from argosy.catalog.refresh.wire import Wire

    service = FETCHERS.get(provider)
    if service is None:
        known = ", ".join(f"`{name}`" for name in FETCHERS)
        raise ArgosyError(
            "unsupported",
            f"there is no way yet to get live prices of `{provider}`",
            hint=f"it works for {known}; a private catalog (docs/catalog.md) works for all",
        )
    secret = environ.get(service.key, "") if service.key else ""
    if service.key and not secret:
        raise ArgosyError(
            "unauthorized",
            f"the price service of {provider} needs a key; the old prices are kept",
            hint=f"set {service.key}",
        )
    day = now_ms // 86_400_000
    today = (datetime.date(1970, 1, 1) + datetime.timedelta(days=day)).isoformat()
    block = catalog.listed_block(provider)
    book = Book(provider, block, catalog.accelerators(), day)
    module = importlib.import_module(f"argosy.catalog.refresh.{service.module}")
    if provider == "aws":
        found: Fetched = module.fetch(book, endpoint=endpoint)
        return found, today
    wire = Wire(
        provider,
        endpoint or module.URL,
        headers={service.header: service.scheme + secret} if secret else None,
        hint=f"check {service.key}: the service does not accept it" if service.key else "",
        sleep_s=sleep_s,
    )
    found = module.fetch(wire, book)
    return found, today

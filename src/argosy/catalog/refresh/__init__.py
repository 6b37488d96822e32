"""Live prices from providers' own services. The only part of the catalog that touches the network."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Final

import msgspec

from argosy.catalog.catalog import Catalog
from argosy.catalog.keep import Fetched, Kept, keep_refreshed
from argosy.catalog.refresh.wire import Stopped, Watch
from argosy.model.errors import ArgosyError

__all__ = ["FETCHERS", "UNPRICED", "Service", "Stopped", "Watch", "fetch", "missing_keys", "refresh"]


class Service(msgspec.Struct, frozen=True, kw_only=True):
    """One price service.

    `keys`: environment variables with what lets us in; all are needed. The first is sent as `header`, unless
    the module logs in with them by itself (`login`), or talks through the vendor's SDK (`sdk`).
    """

    module: str
    keys: tuple[str, ...] = ()
    header: str = "Authorization"
    scheme: str = "Bearer "
    login: bool = False
    sdk: bool = False


FETCHERS: Final[dict[str, Service]] = {
    "aws": Service(module="aws", sdk=True),
    "azure": Service(module="azure"),
    "cudo": Service(module="cudo"),
    "digitalocean": Service(module="digitalocean", keys=("DIGITALOCEAN_TOKEN",)),
    "fluidstack": Service(module="fluidstack", keys=("FLUIDSTACK_API_KEY",), header="api-key", scheme=""),
    "gcp": Service(module="gcp", keys=("GOOGLE_API_KEY",), header="X-Goog-Api-Key", scheme=""),
    "hyperstack": Service(module="hyperstack", keys=("HYPERSTACK_API_KEY",), header="api_key", scheme=""),
    "ibm": Service(module="ibm"),
    "lambda": Service(module="lambda_cloud", keys=("LAMBDA_API_KEY",)),
    "nebius": Service(module="nebius", keys=("NEBIUS_IAM_TOKEN",), sdk=True),
    "oci": Service(module="oci"),
    "runpod": Service(module="runpod", keys=("RUNPOD_API_KEY",)),
    "vast": Service(module="vast"),
    "verda": Service(module="verda", keys=("VERDA_CLIENT_ID", "VERDA_CLIENT_SECRET"), login=True),
}

#: Providers with shipped prices and no service that Argosy can ask for them, and why (docs/catalog.md has the
#: sources).
UNPRICED: Final[dict[str, str]] = {
    "paperspace": "its public API tells which machines are available, not what they cost",
    "scp": "its price list does not tell which machine and region a price is for",
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
    watch: Watch | None = None,
) -> Kept:
    """Ask the provider's price service and keep what it says in `user_dir`. Blocks: seconds to minutes.

    Raises ArgosyError and leaves the old prices as they are when the service cannot be used, or when what it
    brings is strangely little (unless `force`); Stopped when `watch` calls it off. `endpoint` replaces the
    service's address, and so does `ARGOSY_PRICES_OF_<PROVIDER>` of the environment (a mirror, for servers
    without a way out).
    """
    fetched, today = fetch(
        catalog, provider, environ=environ, now_ms=now_ms, endpoint=endpoint, sleep_s=sleep_s, watch=watch
    )
    if watch is not None and not watch.seal():  # what follows is one step
        raise Stopped
    return keep_refreshed(user_dir, fetched, catalog.listed_block(provider), today, force=force)


def missing_keys(provider: str, environ: Mapping[str, str]) -> tuple[str, ...]:
    """Environment variables without which its service lets nobody in."""
    service = FETCHERS.get(provider)
    return tuple(name for name in service.keys if not environ.get(name)) if service is not None else ()


def fetch(
    catalog: Catalog,
    provider: str,
    *,
    environ: Mapping[str, str],
    now_ms: int,
    endpoint: str | None = None,
    sleep_s: Callable[[float], None] | None = None,
    watch: Watch | None = None,
) -> tuple[Fetched, str]:
    """What the service says, and the date of today."""
    import datetime
    import importlib

    from argosy.catalog.refresh.book import Book
    from argosy.catalog.refresh.wire import Wire

    service = FETCHERS.get(provider)
    if service is None:
        raise _no_service(catalog, provider)
    if missing := missing_keys(provider, environ):
        raise ArgosyError(
            "unauthorized",
            f"the price service of {provider} needs a key; the old prices are kept",
            hint=f"set {' and '.join(missing)}",
        )
    secrets = {name: environ[name] for name in service.keys}
    endpoint = endpoint or environ.get(f"ARGOSY_PRICES_OF_{provider.upper()}") or None
    day = now_ms // 86_400_000
    today = (datetime.date(1970, 1, 1) + datetime.timedelta(days=day)).isoformat()
    book = Book(provider, catalog.listed_block(provider), catalog.accelerators(), day)
    module = importlib.import_module(f"argosy.catalog.refresh.{service.module}")
    found: Fetched
    if service.sdk:
        more: dict[str, Any] = {"token": secrets[service.keys[0]]} if service.keys else {}
        found = module.fetch(book, endpoint=endpoint, watch=watch, **more)
        return found, today
    sent = {service.header: service.scheme + secrets[service.keys[0]]} if secrets else None
    names = " and ".join(service.keys)
    wire = Wire(
        provider,
        endpoint or module.URL,
        headers=None if service.login else sent,
        hint=f"check {names}: the service does not accept {'it' if len(secrets) == 1 else 'them'}"
        if names
        else "",
        sleep_s=sleep_s,
        watch=watch,
    )
    if service.login:
        module.login(wire, secrets)
    found = module.fetch(wire, book)
    return found, today


def _no_service(catalog: Catalog, provider: str) -> ArgosyError:
    """Why live prices of this provider cannot be had, and what can be done instead."""
    if provider in UNPRICED:
        return ArgosyError(
            "unsupported",
            f"there are no live prices of `{provider}`: {UNPRICED[provider]}; the old prices are kept",
            hint=f"write what you know to `{provider}.csv` in the catalog folder that `argosy catalog "
            "show` names "
            "(docs/catalog.md, Private catalogs)",
        )
    error = catalog.unknown_place(provider, None)
    if error is not None:
        return error
    known = ", ".join(f"`{name}`" for name in FETCHERS)
    return ArgosyError(
        "unsupported",
        f"there is no price service to ask for `{provider}`",
        hint=f"it works for {known}; a private catalog (docs/catalog.md) works for all",
    )

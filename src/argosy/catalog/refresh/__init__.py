"""Live prices from providers' own services. The only part of the catalog that touches the network.

How a service is asked and its answers are read is each provider's (`providers/<x>/prices.py`). What they
share is here: the wire (`wire`), what is known before (`book`), and the one way in and out (`PriceServices`).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from types import ModuleType
from typing import Any, NamedTuple

from argosy.catalog.catalog import Catalog
from argosy.catalog.keep import Fetched, Kept, keep_refreshed
from argosy.catalog.refresh.wire import Stopped, Watch, Wire
from argosy.model.errors import ArgosyError
from argosy.model.priced import PriceSource

__all__ = ["PriceService", "PriceServices", "Stopped", "Watch"]


class PriceService(NamedTuple):
    """One provider's. `module` has `fetch(wire, book)` and `URL`, or `fetch(book, endpoint=, watch=)` through
    an SDK. `unpriced`: why there is none, for a provider with shipped prices."""

    source: PriceSource | None
    unpriced: str
    module: Callable[[], ModuleType]


class PriceServices:
    """All price services, by the provider's name. `environ` has their keys and, for a server without a way
    out, the addresses of mirrors (`ARGOSY_PRICES_OF_<PROVIDER>`)."""

    def __init__(
        self,
        services: Mapping[str, PriceService],
        environ: Mapping[str, str],
        sleep_s: Callable[[float], None] | None = None,
    ) -> None:
        self._services, self._environ, self._sleep_s = services, environ, sleep_s

    def names(self) -> list[str]:
        """Those that can be asked."""
        return sorted(name for name, service in self._services.items() if service.source is not None)

    def missing_keys(self, provider: str) -> tuple[str, ...]:
        """Environment variables without which its service lets nobody in."""
        service = self._services.get(provider)
        keys = service.source.keys if service is not None and service.source is not None else ()
        return tuple(name for name in keys if not self._environ.get(name))

    def refresh(
        self,
        catalog: Catalog,
        user_dir: Path,
        provider: str,
        *,
        now_ms: int,
        endpoint: str | None = None,
        force: bool = False,
        watch: Watch | None = None,
    ) -> Kept:
        """Ask the provider's price service and keep what it says in `user_dir`. Blocks: seconds to minutes.

        Raises ArgosyError and leaves the old prices as they are when the service cannot be used, or when what
        it brings is strangely little (unless `force`); Stopped when `watch` calls it off. `endpoint` replaces
        the service's address.
        """
        fetched, today = self.fetch(catalog, provider, now_ms=now_ms, endpoint=endpoint, watch=watch)
        if watch is not None and not watch.seal():  # what follows is one step
            raise Stopped
        return keep_refreshed(user_dir, fetched, catalog.listed_block(provider), today, force=force)

    def fetch(
        self,
        catalog: Catalog,
        provider: str,
        *,
        now_ms: int,
        endpoint: str | None = None,
        watch: Watch | None = None,
    ) -> tuple[Fetched, str]:
        """What the service says, and the date of today."""
        import datetime

        from argosy.catalog.refresh.book import Book

        service = self._services.get(provider)
        if service is None or service.source is None:
            raise self._no_service(catalog, provider)
        source = service.source
        if missing := self.missing_keys(provider):
            raise ArgosyError(
                "unauthorized",
                f"the price service of {provider} needs a key; the old prices are kept",
                hint=f"set {' and '.join(missing)}",
            )
        endpoint = endpoint or self._environ.get(f"ARGOSY_PRICES_OF_{provider.upper()}") or None
        day = now_ms // 86_400_000
        today = (datetime.date(1970, 1, 1) + datetime.timedelta(days=day)).isoformat()
        book = Book(provider, catalog.listed_block(provider), catalog.accelerators(), day)
        module = service.module()
        found: Fetched
        if source.sdk:
            more: dict[str, Any] = {"token": self._environ[source.keys[0]]} if source.keys else {}
            found = module.fetch(book, endpoint=endpoint, watch=watch, **more)
            return found, today
        wire = self._wire(provider, source, endpoint or module.URL, watch)
        if source.login:
            module.login(wire, {name: self._environ[name] for name in source.keys})
        found = module.fetch(wire, book)
        return found, today

    def _wire(self, provider: str, source: PriceSource, url: str, watch: Watch | None) -> Wire:
        keys = source.keys
        sent = {source.header: source.scheme + self._environ[keys[0]]} if keys and not source.login else None
        hint = f"check {' and '.join(keys)}: the service does not accept {'it' if len(keys) == 1 else 'them'}"
        return Wire(
            provider, url, headers=sent, hint=hint if keys else "", sleep_s=self._sleep_s, watch=watch
        )

    def _no_service(self, catalog: Catalog, provider: str) -> ArgosyError:
        """Why live prices of this provider cannot be had, and what can be done instead."""
        service = self._services.get(provider)
        if service is not None and service.unpriced:
            return ArgosyError(
                "unsupported",
                f"there are no live prices of `{provider}`: {service.unpriced}; the old prices are kept",
                hint=f"write what you know to `{provider}.csv` in the catalog folder that `argosy catalog "
                "show` names (docs/catalog.md, Private catalogs)",
            )
        error = catalog.unknown_place(provider, None)
        if error is not None:
            return error
        known = ", ".join(f"`{name}`" for name in self.names())
        return ArgosyError(
            "unsupported",
            f"there is no price service to ask for `{provider}`",
            hint=f"it works for {known}; a private catalog (docs/catalog.md) works for all",
        )

"""Infrastructure and prices: what works, what can be had, what it costs."""

from __future__ import annotations

from typing import Annotated

from argosy.api.endpoint import Reply, Request, endpoint
from argosy.model.offer import Offer
from argosy.model.priced import GpuView, PriceView, RegionView


class DiagnosticView(Reply, frozen=True, kw_only=True, omit_defaults=True):
    provider: str
    ok: bool
    what: str
    hint: str = ""
    in_use: bool = True  # False: the server does not use it; `what` says why


class CheckReply(Reply, frozen=True, kw_only=True, omit_defaults=True):
    findings: tuple[DiagnosticView, ...]
    asking: tuple[str, ...] = ()  # in use, and not asked by this call


class OfferList(Reply, frozen=True, kw_only=True, omit_defaults=True):
    offers: tuple[Offer, ...]


class ModelView(Reply, frozen=True, kw_only=True, omit_defaults=True):
    """One accelerator; prices are the lowest per device."""

    accelerator: str
    device_memory_bytes: int
    vendor: str = ""
    architecture: str = ""
    interconnect: str = ""
    counts_milli: tuple[int, ...] = ()  # per machine
    providers: tuple[str, ...] = ()
    on_demand: PriceView | None = None
    spot: PriceView | None = None


class GpuList(Reply, frozen=True, kw_only=True, omit_defaults=True):
    offers: tuple[Offer, ...] = ()  # of the infrastructure in use
    models: tuple[ModelView, ...] = ()  # when no model was named
    gpus: tuple[GpuView, ...] = ()
    notes: tuple[str, ...] = ()


class RegionList(Reply, frozen=True, kw_only=True, omit_defaults=True):
    regions: tuple[RegionView, ...]


class CatalogAge(Reply, frozen=True, kw_only=True, omit_defaults=True):
    """How much is known of a provider's prices, and how old it is."""

    provider: str
    offers: int
    source: str  # shipped | refreshed | private
    newest: str = ""  # YYYY-MM-DD
    oldest: str = ""
    days: int | None = None  # None: no figure has a date
    undated: int = 0
    stale: bool = False
    launchable: bool = False
    refreshable: bool = False
    needs: tuple[str, ...] = ()  # environment variables that the server lacks to refresh it


class CatalogReply(Reply, frozen=True, kw_only=True, omit_defaults=True):
    built: str  # date of the newest shipped figure
    folder: str  # of the user
    providers: tuple[CatalogAge, ...]
    warnings: tuple[str, ...] = ()  # what was left out of the user's folder, and why


class RefreshRequest(Request, frozen=True, kw_only=True, omit_defaults=True):
    """Ask a provider's own price service. `force` takes also strangely few prices; `cancel` calls off the one
    under way."""

    provider: str
    force: bool = False
    cancel: bool = False


class RefreshReply(Reply, frozen=True, kw_only=True, omit_defaults=True):
    """How a refresh is. Counts of prices are there when it is done."""

    provider: str
    before: int = 0
    after: int = 0
    skipped: int = 0  # entries that could not be used
    state: str = "done"  # running | done | failed | cancelled
    progress: str = ""  # while it runs: how far it is
    step: int = 0  # grows with every change


class PriceCalls:
    @endpoint("GET", "/check", permission="offers.read")
    def check(
        self,
        infra: Annotated[str | None, "only these, with commas between them"] = None,
        *,
        all: Annotated[bool, "also those that are not in use"] = False,
        quick: Annotated[bool, "ask nobody: name those that would be asked"] = False,
    ) -> CheckReply:
        """Which infrastructure works, and what to do about the rest."""

    @endpoint("GET", "/offers", permission="offers.read")
    def offers(self, gpu: Annotated[str | None, "only this model"] = None) -> OfferList:
        """What can be had."""

    @endpoint("GET", "/gpus", permission="offers.read")
    def gpus(
        self,
        gpu: Annotated[str | None, "only this model: `A100`, or `A100:8`"] = None,
        *,
        infra: Annotated[str | None, "only there: PROVIDER[/REGION[/ZONE]]"] = None,
        spot: Annotated[bool, "only what can be had as spot, by that price"] = False,
        cheapest: Annotated[bool, "one machine for each model, count and provider"] = False,
        all: Annotated[bool, "every machine"] = False,
    ) -> GpuList:
        """Accelerators that can be had or are priced. Without a model and without `all`: one entry for each
        model."""

    @endpoint("GET", "/regions", permission="offers.read")
    def regions(
        self,
        provider: Annotated[str | None, "only of this one"] = None,
        *,
        area: Annotated[str | None, "eu, eea, a country (`kr`) or a continent"] = None,
    ) -> RegionList:
        """Regions of providers, and what they have."""

    @endpoint("GET", "/catalog", permission="offers.read")
    def catalog(self) -> CatalogReply:
        """How old the known prices are."""

    @endpoint("POST", "/catalog/refresh", RefreshRequest, permission="offers.write")
    def catalog_refresh(self, provider: str, *, force: bool = False, cancel: bool = False) -> RefreshReply:
        """Start to get a provider's present prices from its own service, which takes seconds to minutes; or
        call it off.

        `refresh_prices` of the clients waits until it is done.
        """

    @endpoint("GET", "/catalog/refresh", permission="offers.read")
    def catalog_refreshing(
        self,
        provider: Annotated[str, "whose prices"],
        after: Annotated[int, "the last `step` that is known"] = 0,
    ) -> RefreshReply:
        """How a refresh is: answered when it has changed, or after a while. What it failed with is the
        error."""

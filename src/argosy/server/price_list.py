"""Prices as they stand: the catalog, what is said beside it, and listings of accelerators, regions and ages.

The catalog is opened by the first question about prices and again when the user's folder changed; a server
that nobody asks never reads it. Blocking and without I/O beyond those files; `refresh` alone uses the
network. The caller keeps it off the event loop.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Final, NamedTuple

import msgspec

from argosy.api.prices import CatalogAge, CatalogReply, GpuList, RefreshReply, RegionList
from argosy.model.errors import ArgosyError
from argosy.model.ids import Clock
from argosy.model.offer import Capacity, Offer
from argosy.model.resources import Infra
from argosy.model.rows import Claim
from argosy.server.price_rows import is_there, parse_gpu, parse_place, refused, summed_by_model
from argosy.server.spending import Rates

if TYPE_CHECKING:
    from argosy.catalog import Catalog
    from argosy.catalog.refresh import PriceServices, Watch
    from argosy.planning.availability import Memory, Refusal

_DAY_MS: Final = 86_400_000
_NOTES_MAX: Final = 3


class _Stamp(NamedTuple):
    """What the user's folder looked like: names, sizes and times of its files."""

    files: tuple[tuple[str, int, int], ...] = ()


class PriceList:
    """Answers what is priced. `drivers`: names of the providers that this server uses. `services`: how live
    prices are asked for; `status` and `refresh` alone need it."""

    def __init__(
        self,
        folder: Path,
        *,
        clock: Clock,
        drivers: Callable[[], Iterable[str]],
        services: Callable[[], PriceServices],
        shipped: Path | None = None,
    ) -> None:
        self.folder, self._shipped = folder, shipped
        self._clock, self._drivers, self._services = clock, drivers, services
        self._opening = threading.Lock()
        self._catalog: Catalog | None = None
        self._stamp = _Stamp()
        self._ages: dict[str, tuple[int, str]] = {}  # provider -> day, warning
        self.refusals: Callable[[], Memory] | None = None  # what the controllers remember; None: nothing

    @property
    def catalog(self) -> Catalog:
        """Opened when it is first needed (~20 ms), and again when the user's folder changed."""
        stamp = _stamp_of(self.folder)
        with self._opening:
            if self._catalog is None or stamp != self._stamp:
                self._catalog, self._stamp = self._load(), stamp
                self._ages = {}
            return self._catalog

    def _load(self) -> Catalog:
        from argosy.catalog import Catalog

        return (
            Catalog.load(self.folder)
            if self._shipped is None
            else Catalog.load(self.folder, shipped=self._shipped)
        )

    def own_prices(self, offers: Sequence[Offer]) -> tuple[Offer, ...]:
        """What providers quote, at the prices of `terms.toml`: own machines at what they are said to cost,
        list prices less what was negotiated. Without that file nothing is opened."""
        if not (self.folder / "terms.toml").exists():
            return tuple(offers)
        return tuple(map(self.catalog.on_terms, offers))

    def drivers(self) -> set[str]:
        """Names of the providers that this server uses."""
        return set(self._drivers())

    def standing(self) -> Sequence[Refusal]:
        """Refusals that still count."""
        memory = self.refusals() if self.refusals is not None else None
        if memory is None or not memory.refusals:
            return ()
        from argosy.planning import availability

        return availability.standing(memory, self._clock.now_ms())

    # -- listings -----------------------------------------------------------------------------------

    def gpus(
        self, gpu: str, infra: str, *, spot: bool, cheapest: bool, every: bool, offers: Sequence[Offer]
    ) -> GpuList:
        """Accelerators. `offers` are those of the infrastructure in use. Raises `no-offer` for what does not
        exist."""
        from argosy.catalog.listing import gpu_rows

        model, milli = parse_gpu(gpu)
        place = parse_place(infra)
        own = [] if spot else [each for each in offers if is_there(each, model, place)]
        error = None
        if place.provider not in self.drivers():
            error = self.catalog.unknown_place(place.provider, place.region, place.zone)
        if error is None and model and not any(each.shape.accelerator for each in own):
            error = self.catalog.unknown_accelerator(model, family=True)
        if error is not None:
            raise error
        drivers, standing = self.drivers(), self.standing()
        rows = tuple(
            msgspec.structs.replace(
                row,
                launchable=row.provider in drivers,
                refused=refused(standing, row.provider, row.instance_type),
            )
            for row in gpu_rows(
                self.catalog,
                model=model or None,
                milli=milli,
                infra=place,
                spot=True if spot else None,
                cheapest=cheapest,
            )
        )
        summed = not model and not every and not cheapest
        notes = self.notes({row.provider for row in rows})
        if summed:
            return GpuList(offers=tuple(own), models=summed_by_model(rows), notes=notes)
        return GpuList(offers=tuple(own), gpus=rows, notes=notes)

    def regions(self, provider: str, area: str) -> RegionList:
        from argosy.catalog.listing import region_rows

        if provider and provider not in self.drivers():
            error = self.catalog.unknown_place(provider, None)
            if error is not None:
                raise error
        rows = region_rows(self.catalog, provider=provider or None, area=area or None)
        return RegionList(regions=rows)

    def status(self) -> CatalogReply:
        """How old prices are."""
        services = self._services()
        refreshable = set(services.names())
        catalog, now_ms = self.catalog, self._clock.now_ms()
        drivers = self.drivers()
        return CatalogReply(
            built=catalog.built,
            folder=str(self.folder),
            providers=tuple(
                CatalogAge(
                    provider=age.provider,
                    offers=len(catalog.market.block(age.provider)),
                    source=age.source,
                    newest=age.newest,
                    oldest=age.oldest,
                    days=age.days,
                    undated=age.undated,
                    stale=age.stale,
                    launchable=age.provider in drivers,
                    refreshable=age.provider in refreshable,
                    needs=services.missing_keys(age.provider),
                )
                for age in catalog.ages(now_ms)
            ),
            warnings=catalog.warnings,
        )

    def refresh(self, provider: str, force: bool, watch: Watch | None = None) -> RefreshReply:
        """Seconds to minutes. Raises ArgosyError, and leaves the old prices, when the new ones cannot be had;
        `Stopped` when `watch` calls it off."""
        kept = self._services().refresh(
            self._load(),  # of its own: questions go on meanwhile
            self.folder,
            provider,
            now_ms=self._clock.now_ms(),
            force=force,
            watch=watch,
        )
        return RefreshReply(
            provider=kept.provider, before=kept.before, after=kept.after, skipped=kept.skipped
        )

    def notes(self, providers: Iterable[str]) -> tuple[str, ...]:
        """What to say beside prices: those that are old, and what of the user's folder was left out."""
        catalog, now_ms = self.catalog, self._clock.now_ms()
        today = now_ms // _DAY_MS
        found = []
        for name in sorted(set(providers) & set(catalog.providers)):
            kept = self._ages.get(name)
            if kept is None or kept[0] != today:
                kept = self._ages[name] = (today, catalog.stale_warning(name, now_ms))
            if kept[1]:
                found.append(kept[1])
        if len(found) > _NOTES_MAX:
            rest = len(found) - _NOTES_MAX + 1
            found = [*found[: _NOTES_MAX - 1], f"and of {rest} more providers: `argosy catalog show`"]
        return (*catalog.warnings, *found)

    # -- what was spent -----------------------------------------------------------------------------

    def rates(self, claim: Claim, against: str) -> Rates:
        """What the nodes of a claim cost per hour today on demand (for those that were spot), and on another
        cloud."""
        from argosy.planning.market import rank

        offer = claim.choice.offer
        on_demand = elsewhere = None
        if offer.capacity is Capacity.SPOT:
            known = self.catalog.prices_for(
                offer.shape.instance_type,
                provider=offer.provider,
                region=offer.region,
                capacity=Capacity.ON_DEMAND,
            )
            on_demand = known[0].price_micro_usd * claim.count if known else None
        if against:
            if against not in self.catalog.providers:
                names = ", ".join(self.catalog.providers)
                raise ArgosyError(
                    "usage", f"there are no prices of `{against}` to compare with", hint=f"known are {names}"
                )
            wish = msgspec.structs.replace(
                claim.choice.resources,
                infra=Infra(provider=against),
                instance_type=None,
                use_spot=False,
                max_hourly_micro_usd=None,
            )
            best = rank((wish,), claim.count, self.catalog.market, limit=1).plan.choices
            elsewhere = best[0].price_micro_usd if best else None
        return Rates(on_demand, elsewhere)


def _stamp_of(folder: Path) -> _Stamp:
    found = []
    for path in (*folder.glob("*"), *folder.glob("live/*")):
        try:
            stat = path.stat()
        except OSError:
            continue
        found.append((str(path), stat.st_size, stat.st_mtime_ns))
    return _Stamp(tuple(sorted(found)))

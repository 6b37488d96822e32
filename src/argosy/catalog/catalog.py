"""All known prices, offline: the shipped table, with the user's own folder over it."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Final

import msgspec

from argosy.catalog.facts import (
    AcceleratorFact,
    AttachedFact,
    Facts,
    HazardBand,
    HazardColumns,
    RegionFact,
    StorageFact,
)
from argosy.catalog.near import near_names
from argosy.catalog.overlay import Overlay, less, load_overlay
from argosy.catalog.table import CorruptTable, Table
from argosy.model.areas import Where
from argosy.model.errors import ArgosyError
from argosy.model.market import DAY_MS, Block, Market
from argosy.model.offer import Capacity, Offer
from argosy.model.places import OWNED
from argosy.model.resources import Resources
from argosy.model.units import render_bytes, render_date

if TYPE_CHECKING:
    from argosy.catalog.grids import Grid

SHIPPED: Final = Path(__file__).with_name("prices.bin")
STALE_DAYS: Final = 60
#: Machines that belong to the user: priced by configuration, 0 by default.


class Age(msgspec.Struct, frozen=True, kw_only=True):
    """How old the prices of a provider are."""

    provider: str
    source: str  # shipped | refreshed | private
    newest: str  # YYYY-MM-DD; "": no figure has a date
    oldest: str
    days: int | None  # of the newest figure; None: undated
    undated: int  # figures without a date
    stale: bool

    def render(self) -> str:
        """A sentence for a warning.

        >>> Age(provider="oci", source="shipped", newest="2025-05-19", oldest="2025-05-19", days=90, undated=0, stale=True).render()
        'prices of oci are 90 days old (2025-05-19)'
        """  # noqa: E501
        if self.days is None:
            return f"prices of {self.provider} have no date"
        return f"prices of {self.provider} are {self.days} {'day' if self.days == 1 else 'days'} old ({self.newest})"  # noqa: E501


class Traffic(msgspec.Struct, frozen=True, kw_only=True):
    """What moving data costs. `note` says which figure was taken when the place itself has none."""

    micro_usd_per_gb: int
    estimated: bool
    source: str = ""
    as_of: str = ""
    note: str = ""


class Catalog:
    """Prices and facts. Reads files when it is made and when a provider is first needed; never the
    network."""

    def __init__(self, table: Table, overlay: Overlay | None = None) -> None:
        self._table = table
        self._overlay = overlay or Overlay()
        self._facts: Facts | None = None
        self._hazards: dict[str, HazardColumns] | None = None
        self._market: Market | None = None
        self._named: dict[str, AcceleratorFact] | None = None
        self._grids: dict[tuple[str, str], Grid] | None = None

    @classmethod
    def load(cls, user_dir: Path | None = None, *, shipped: Path = SHIPPED) -> Catalog:
        """The `shipped` table with `user_dir` (`<state>/catalog`) over it. What is wrong in the user's folder
        is left out and told in `warnings`; a shipped table that cannot be read raises ArgosyError."""
        try:
            table = Table.open(shipped)
        except (OSError, CorruptTable) as error:
            raise ArgosyError(
                "internal",
                f"the shipped prices {shipped} cannot be used: {error}",
                hint="install Argosy again: a file of it is damaged",
            ) from None
        return cls(table, load_overlay(user_dir, shapes=table) if user_dir is not None else None)

    # --- offers ---

    @property
    def built(self) -> str:
        """Date of the newest figure in the shipped table."""
        return self._table.directory.built

    @property
    def warnings(self) -> tuple[str, ...]:
        """What was left out of the user's folder, and why."""
        return tuple(self._overlay.warnings)

    @property
    def providers(self) -> tuple[str, ...]:
        """Every provider with prices, sorted."""
        return tuple(sorted({*self._table.providers, *self._overlay.providers()}))

    @property
    def market(self) -> Market:
        """All priced offers in columns, for the planner."""
        if self._market is None:
            self._market = Market(self.providers, self._block, self._Vendors(self))
        return self._market

    class _Vendors(dict[str, str]):
        """Vendor by accelerator; the facts are read when the first one is asked for."""

        def __init__(self, catalog: Catalog) -> None:
            super().__init__()
            self._catalog: Catalog | None = catalog

        def get(self, key: str, default: str | None = None) -> str | None:  # type: ignore[override]
            if self._catalog is not None:
                for fact in self._catalog.facts().accelerators:
                    self[fact.name.lower()] = fact.vendor.lower()
                self._catalog = None
            found = dict.get(self, key)
            if found is None and key.startswith("tpu-"):
                return "google"
            return default if found is None else found

    def _block(self, provider: str) -> Block:
        return self._overlay.applied(provider, self.listed_block(provider))

    def listed_block(self, provider: str) -> Block | None:
        """Public prices in use, refreshed or shipped, without private machines and discounts; None: there are
        none."""
        block = self._overlay.live_block(provider)
        if block is None and provider in self._table.providers:
            block = self._table.block(provider)
        return block

    def owned(self, now_ms: int) -> tuple[Offer, ...]:
        """Reserved and committed capacity of the user that has not run out: a finite number of nodes at a
        price."""
        today = now_ms // DAY_MS
        return tuple(offer for offer, until in self._overlay.reserved if not until or until >= today)

    def owned_price_micro_usd(self, provider: str, pool: str = "") -> int | None:
        """Per node and hour of the user's own machines, by configuration; None: nothing is said, what the
        driver quotes counts."""
        told = self._overlay.owned_prices
        return told.get(f"{provider}/{pool}", told.get(provider))

    def on_terms(self, offer: Offer) -> Offer:
        """What a driver quotes, at the user's own price."""
        if offer.capacity in (Capacity.OWNED, Capacity.QUEUED):
            told = self.owned_price_micro_usd(offer.provider, offer.region)
            return offer if told is None else msgspec.structs.replace(offer, price_micro_usd=told)
        percent = self._overlay.percent_off(offer)
        if not percent:
            return offer
        return msgspec.structs.replace(offer, price_micro_usd=less(offer.price_micro_usd, percent))

    def candidates(self, wish: Resources, num_nodes: int = 1) -> list[Offer]:
        """Every offer that can serve `wish`, and perhaps a few that cannot: all equivalent machines, not only
        the cheapest. `planning.market.rank` over `market` is the faster way when only the best are needed."""
        found: list[Offer] = []
        cap = wish.max_hourly_micro_usd
        for name in self.providers:
            if wish.infra.provider not in (None, "*", name):
                continue
            block = self.market.block(name)
            kinds = self._kinds(block, wish)
            places = {
                index
                for index, place in enumerate(block.places)
                if wish.infra.region in (None, "*", place.region)
                and (not place.zone or wish.infra.zone in (None, "*", place.zone))
            }
            for lane, columns in enumerate(block.lanes):
                if wish.use_spot is not None and wish.use_spot != (columns.capacity is Capacity.SPOT):
                    continue
                for kind in kinds:
                    for row in range(columns.start[kind], columns.start[kind + 1]):
                        if cap is not None and columns.price[row] * num_nodes > cap:
                            break
                        if columns.place[row] in places:
                            found.append(block.offer(lane, kind, row))
        return found

    @staticmethod
    def _kinds(block: Block, wish: Resources) -> Sequence[int]:
        kinds: Iterable[int] = range(len(block.instance_types))
        if wish.instance_type:
            kinds = block.of_type(wish.instance_type)
        accelerator = wish.accelerator
        if accelerator is not None:
            if accelerator.model is not None:
                of_model = set(block.of_model(accelerator.model))
                kinds = [kind for kind in kinds if kind in of_model]
            kinds = [
                kind
                for kind in kinds
                if block.accelerators_milli[kind]
                and block.device_memory_bytes[kind] >= accelerator.memory_min_bytes
                and (accelerator.is_fraction or block.accelerators_milli[kind] == accelerator.milli)
            ]
        if wish.cpus is not None:
            kinds = [kind for kind in kinds if wish.cpus.holds(block.cpus_milli[kind])]
        if wish.memory is not None:
            kinds = [kind for kind in kinds if wish.memory.holds(block.memory_bytes[kind])]
        return list(kinds)

    def prices_for(
        self,
        instance_type: str,
        *,
        provider: str | None = None,
        region: str | None = None,
        capacity: Capacity | None = None,
    ) -> list[Offer]:
        """Every price of one machine, cheapest first."""
        found = []
        for name in self.providers if provider is None else (provider,):
            if name not in self.providers:
                continue
            block = self.market.block(name)
            for lane, kind, row in _rows_of(block, block.of_type(instance_type)):
                offer = block.offer(lane, kind, row)
                if region in (None, offer.region) and capacity in (None, offer.capacity):
                    found.append(offer)
        return sorted(found, key=lambda o: (o.price_micro_usd, o.provider, o.region, o.zone))

    def source_of(self, offer: Offer) -> tuple[str, str]:
        """Where the price of an offer of this catalog is from, and the rule that computed it ("": it was
        read)."""
        block = self.market.block(offer.provider)
        for lane, columns in enumerate(block.lanes):
            if columns.capacity is not offer.capacity:
                continue
            for _, _, row in _rows_of(block, block.of_type(offer.shape.instance_type), only=lane):
                place = block.places[columns.place[row]]
                if (*place, columns.price[row]) == (offer.region, offer.zone, offer.price_micro_usd):
                    note = block.notes[columns.note[row]]
                    return note.source, note.rule
        return "", ""

    # --- facts ---

    def facts(self) -> Facts:
        if self._facts is None:
            self._facts = self._table.facts()
        return self._facts

    def accelerators(self) -> tuple[AcceleratorFact, ...]:
        """Every known model, also those that nothing offers; and models that only the user's folder has."""
        known = {fact.name for fact in self.facts().accelerators}
        more = []
        for provider in self._overlay.providers():
            block = self.market.block(provider)
            for kind, model in enumerate(block.models):
                if model and model not in known and not model.startswith("tpu-"):
                    known.add(model)
                    more.append(AcceleratorFact(name=model, memory_bytes=block.device_memory_bytes[kind]))
        return (*self.facts().accelerators, *more)

    def accelerator(self, name: str) -> AcceleratorFact | None:
        """By name or alias, any case; TPU slices (`tpu-v5p-8`) by their chip."""
        if self._named is None:
            facts = self.accelerators()
            self._named = {alias.lower(): fact for fact in reversed(facts) for alias in fact.aliases}
            self._named |= {fact.name.lower(): fact for fact in facts}
        key = name.lower()
        if key not in self._named and key.startswith("tpu-"):
            key = key.rsplit("-", 1)[0]
        return self._named.get(key)

    def regions(self, provider: str | None = None) -> tuple[RegionFact, ...]:
        facts = self.facts().regions
        mine = [fact for fact in facts if provider is None or fact.provider == provider]
        known = {(fact.provider, fact.region) for fact in mine}
        for name in self._overlay.providers() if provider is None else (provider,):
            if name in self._overlay.providers():
                for place in self.market.block(name).places:
                    if (name, place.region) not in known:
                        known.add((name, place.region))
                        mine.append(RegionFact(provider=name, region=place.region))
        return tuple(mine)

    def grids(self) -> dict[tuple[str, str], Grid]:
        """The current by provider and region: as the user says, else as `grids` knows or reckons. What is not
        there is not known."""
        from argosy.catalog.grids import USER_SOURCE, Grid, grid_of

        if self._grids is None:
            told = {name: Grid(grams, USER_SOURCE, "", False) for name, grams in self._overlay.carbon.items()}
            regions = self.regions()
            self._grids = {}
            for fact in regions:
                own = told.get(f"{fact.provider}/{fact.region}", told.get(fact.provider))
                known = own or grid_of(fact, regions)
                if known is not None:
                    self._grids[fact.provider, fact.region] = known
            for name, known in told.items():  # own machines are in no list of regions
                provider, _, region = name.partition("/")
                self._grids.setdefault((provider, region), known)
        return self._grids

    def atlas(self) -> dict[tuple[str, str], Where]:
        """Where the known regions are, and the user's own places, for residency and sites."""
        known = {
            (fact.provider, fact.region): Where(country=fact.country, continent=fact.continent)
            for fact in self.regions()
            if fact.country or fact.continent
        }
        for place, site in self._overlay.sites.items():
            shipped = known.get(place, Where())
            known[place] = msgspec.structs.replace(
                site, country=site.country or shipped.country, continent=site.continent or shipped.continent
            )
        return known

    def storage(self) -> tuple[StorageFact, ...]:
        return self.facts().storage

    def attached(self, model: str | None = None) -> tuple[AttachedFact, ...]:
        """Prices of accelerators that are attached to a host; the host is not included."""
        return tuple(fact for fact in self.facts().attached if model is None or fact.model == model)

    def hazard(self, provider: str, region: str, instance_type: str) -> HazardBand | None:
        """How often its spot machines are taken back there; None: not known."""
        if self._hazards is None:
            self._hazards = self._table.hazards()
        columns = self._hazards.get(provider)
        if columns is None or region not in columns.regions:
            return None
        index = columns.cells.get(instance_type, {}).get(columns.regions.index(region))
        return None if index is None else columns.bands[index]

    # --- traffic ---

    def egress(self, src: str, dst: str) -> Traffic:
        """What a GB costs from `src` to `dst`, both `provider[/region]`; `dst` `internet` is anywhere
        outside.

        Own machines and providers without a figure cost nothing (marked as an estimate). Free allowances are
        not counted.
        """
        provider, _, region = src.partition("/")
        to_provider, _, to_region = dst.partition("/")
        if src == dst or (provider == to_provider and (region == to_region or not to_region)):
            return Traffic(micro_usd_per_gb=0, estimated=False, note="within one region")
        own = [fact for fact in self.storage() if fact.provider == provider]
        inside = provider == to_provider

        def figure(fact: StorageFact) -> int | None:
            return fact.egress_inter_region_micro_usd_gb if inside else fact.egress_internet_micro_usd_gb

        priced = [fact for fact in own if figure(fact) is not None]
        if not priced:
            note = "own machines" if provider in OWNED else f"no figure for {provider}"
            return Traffic(micro_usd_per_gb=0, estimated=provider not in OWNED, note=note)
        here = next((fact for fact in priced if fact.region == region), None)
        fact = here or self._nearest_priced(provider, region, priced)
        amount = figure(fact)
        assert amount is not None
        return Traffic(
            micro_usd_per_gb=amount,
            estimated=fact.estimated or here is None,
            source=fact.source,
            as_of=fact.as_of,
            note="" if here else f"figure of {fact.region}",
        )

    def egress_micro_usd_per_gb(self, src: str, dst: str) -> int:
        return self.egress(src, dst).micro_usd_per_gb

    def _nearest_priced(self, provider: str, region: str, priced: Sequence[StorageFact]) -> StorageFact:
        """The row of the same continent, else the first one of the provider."""
        continents = {
            fact.region: fact.continent for fact in self.facts().regions if fact.provider == provider
        }
        mine = continents.get(region, "")
        groups = {
            "North America": "us/eu/uk regions",
            "Europe": "us/eu/uk regions",
            "Middle East": "me/africa regions",
            "Africa": "me/africa regions",
        }
        group = groups.get(mine, "apac/jp/sa regions")
        return next(
            (
                fact
                for fact in priced
                if fact.region == group or (mine and continents.get(fact.region) == mine)
            ),
            priced[0],
        )

    # --- freshness ---

    def ages(self, now_ms: int, *, stale_days: int = STALE_DAYS) -> tuple[Age, ...]:
        """How old the prices of each provider are. Undated figures are stale."""
        return tuple(self.age(name, now_ms, stale_days=stale_days) for name in self.providers)

    def age(self, provider: str, now_ms: int, *, stale_days: int = STALE_DAYS) -> Age:
        block = self.market.block(provider)
        used: dict[int, int] = {}
        for lane in block.lanes:
            for note in lane.note:
                used[note] = used.get(note, 0) + 1
        days = [block.notes[note].as_of_day for note in used]
        dated = [day for day in days if day]
        undated = sum(count for note, count in used.items() if not block.notes[note].as_of_day)
        age = now_ms // DAY_MS - max(dated) if dated else None
        return Age(
            provider=provider,
            source=self._overlay.origin(provider),
            newest=render_date(max(dated)) if dated else "",
            oldest=render_date(min(dated)) if dated else "",
            days=age,
            undated=undated,
            stale=age is None or age > stale_days,
        )

    def stale_warning(self, provider: str, now_ms: int, *, stale_days: int = STALE_DAYS) -> str:
        """The sentence to show with prices that are too old; "" when they are fresh."""
        age = self.age(provider, now_ms, stale_days=stale_days)
        if not age.stale:
            return ""
        return f"{age.render()}; `argosy catalog refresh {provider}` gets present ones"

    # --- what does not exist ---

    def unknown_accelerator(self, name: str, *, family: bool = False) -> ArgosyError | None:
        """The error for a model that nothing offers, with the nearest names and their memory; None when it is
        offered. `family`: a TPU without its size stands for all its slices.

        A known model without an offer says so.
        """
        offered = self.offered_models()
        fact = self.accelerator(name)
        if name.lower() in offered or (fact is not None and fact.name.lower() in offered):
            return None
        if family and self.models_named(name) & offered.keys():
            return None
        sizes = sorted(self._slices(fact), key=lambda each: int(each.rpartition("-")[2]))
        nearest = sizes or near_names(name, offered.values())
        shown = ", ".join(f"`{model}`{self._memory_of(model)}" for model in nearest)
        what = f"there is no accelerator `{name}`"
        if fact is not None:
            name = name if fact.name.startswith("tpu-") else fact.name  # of a TPU the size counts
            what = f"no known provider offers `{name}`{self._memory_of(name)}"
        return ArgosyError(
            "no-offer",
            what,
            hint=f"the nearest are {shown}" if nearest else "`argosy gpus` lists what exists",
        )

    def models_named(self, name: str) -> set[str]:
        """What a name may stand for, in lower case: itself, the model that it is an alias of, and for a TPU
        without its size all its slices."""
        fact = self.accelerator(name)
        meant = {name.lower(), *([fact.name.lower()] if fact is not None else ())}
        size = name.rpartition("-")[2]
        slices = self._slices(fact)
        return meant | {each.lower() for each in slices if not size.isdigit() or each.endswith(f"-{size}")}

    def _slices(self, fact: AcceleratorFact | None) -> list[str]:
        """Offered slices of a TPU, such as `tpu-v5p-8`; [] for anything else."""
        if fact is None or not fact.name.startswith("tpu-"):
            return []
        return [model for model in self.offered_models().values() if model.startswith(f"{fact.name}-")]

    def offered_models(self) -> Mapping[str, str]:
        """Accelerators that somebody offers: lower-case name -> name."""
        found: dict[str, str] = {}
        for provider in self.providers:
            for model in self.market.block(provider).models:
                if model:
                    found.setdefault(model.lower(), model)
        return found

    def _memory_of(self, model: str) -> str:
        fact = self.accelerator(model)
        if fact is None or not fact.memory_bytes:
            return ""
        chip = " a chip" if fact.name.lower() != model.lower() and model.startswith("tpu-") else ""
        return f" ({render_bytes(fact.memory_bytes)}{chip})"

    def unknown_place(
        self, provider: str | None, region: str | None, zone: str | None = None
    ) -> ArgosyError | None:
        """The error for a provider, region or zone that does not exist; None when it does (or is `*`)."""
        names = (*self.providers, *(name for name in OWNED if name not in self.providers))
        if provider not in (None, "*") and provider not in names:
            nearest = near_names(str(provider), names)
            return ArgosyError(
                "no-offer", f"there is no infrastructure `{provider}`", hint=_did_you_mean(nearest)
            )
        if provider in OWNED or region in (None, "*"):
            return None
        facts = self.regions(None if provider == "*" else provider)
        if not any(fact.region == region for fact in facts):
            nearest = near_names(str(region), {fact.region for fact in facts})
            cities = {fact.region: fact.city for fact in facts if fact.city}
            shown = [f"`{name}`" + (f" ({cities[name]})" if name in cities else "") for name in nearest]
            where = f"{provider} has no region" if provider not in (None, "*") else "there is no region"
            return ArgosyError(
                "no-offer",
                f"{where} `{region}`",
                hint=f"the nearest are {', '.join(shown)}" if shown else "`argosy regions` lists what exists",
            )
        if zone in (None, "*") or provider in (None, "*"):
            return None
        zones = {p.zone for p in self.market.block(str(provider)).places if p.region == region and p.zone}
        named_alike = any(name.startswith(str(region)) for name in zones)
        if not zones or zone in zones or (not named_alike and str(zone).startswith(str(region))):
            return None  # AWS: the table knows ids of zones (`use1-az1`), people write names (`us-east-1a`)
        return ArgosyError(
            "no-offer",
            f"{provider}/{region} has no zone `{zone}`",
            hint=f"known zones are {', '.join(f'`{each}`' for each in sorted(zones))}",
        )


def _rows_of(
    block: Block, kinds: Iterable[int], *, only: int | None = None
) -> Iterator[tuple[int, int, int]]:
    kinds = list(kinds)
    for lane, columns in enumerate(block.lanes):
        if only in (None, lane):
            for kind in kinds:
                for row in range(columns.start[kind], columns.start[kind + 1]):
                    yield lane, kind, row


def _did_you_mean(names: Sequence[str]) -> str:
    return f"did you mean {' or '.join(f'`{name}`' for name in names)}?" if names else ""

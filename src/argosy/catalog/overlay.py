"""The user's folder `<state>/catalog`, laid over the shipped prices.

    live/PROVIDER.prices   what `argosy catalog refresh` brought: replaces the shipped prices of that provider
    *.csv                  private catalogs: more machines, in the columns of `CSV_COLUMNS`
    terms.toml             discounts, savings plans, reserved capacity, prices of own machines

A file that cannot be used is left out and named in `warnings`; one bad row leaves out that row.
"""

from __future__ import annotations

from array import array
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Final

import msgspec

from argosy.catalog.table import CorruptTable, PriceRow, Table, build_block, rows_of
from argosy.model.areas import Where
from argosy.model.market import DAY_MS, Block, Lane, Note
from argosy.model.offer import Capacity, Offer, Shape
from argosy.model.units import GIB

CSV_COLUMNS: Final = (
    "provider",
    "instance_type",
    "accelerator",
    "accelerator_count",
    "accelerator_memory_gib",
    "vcpus",
    "memory_gib",
    "local_disk_gb",
    "region",
    "zone",
    "price_usd_hour",
    "spot_price_usd_hour",
    "arch",
    "as_of",
    "source",
)
_REQUIRED: Final = ("provider", "instance_type", "vcpus", "memory_gib")
_NAME: Final = "abcdefghijklmnopqrstuvwxyz0123456789-_"


class Discount(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A negotiated price: so many percent below the list, for what the patterns match (`*` and `?` as in file
    names).

    A savings plan is the same with what it commits to pay per hour, which is shown and not added to prices.
    """

    provider: str
    percent: float
    family: str = "*"  # of the instance type
    region: str = "*"
    capacity: Capacity = Capacity.ON_DEMAND
    name: str = ""
    commit_usd_hour: float = 0

    def matches(self, instance_type: str) -> bool:
        import fnmatch

        family = instance_type.split(".")[0]
        return fnmatch.fnmatchcase(instance_type, self.family) or fnmatch.fnmatchcase(family, self.family)

    def covers(self, region: str) -> bool:
        import fnmatch

        return fnmatch.fnmatchcase(region, self.region)


class Reserved(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Capacity that was paid for or promised: at most `nodes` nodes at a price."""

    provider: str
    instance_type: str
    nodes: int
    price_usd_hour: float
    region: str = ""
    zone: str = ""
    until: str = ""  # YYYY-MM-DD
    cpus: float = 0
    memory_gib: float = 0
    accelerator: str = ""
    accelerator_count: float = 0
    accelerator_memory_gib: float = 0


class Site(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What is known of a place of one's own, or better known than by the shipped facts."""

    infra: str  # `ssh/plant-3`
    country: str = ""  # ISO 3166, two letters
    continent: str = ""
    location: str = ""
    bandwidth_mbps: float = 0
    latency_ms: float = 0
    power_w: float = 0


class Terms(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    discount: tuple[Discount, ...] = ()
    savings_plan: tuple[Discount, ...] = ()
    reserved: tuple[Reserved, ...] = ()
    owned: dict[str, float] = {}  # `ssh` or `ssh/lab` -> USD per node and hour
    place: tuple[Site, ...] = ()
    carbon: dict[str, float] = {}  # `aws/eu-north-1` -> grams of CO2 per kWh


class Overlay:
    """What the user's folder says. Empty by default."""

    def __init__(self) -> None:
        self.warnings: list[str] = []
        self.discounts: tuple[Discount, ...] = ()
        self.owned_prices: dict[str, int] = {}
        self.carbon: dict[str, float] = {}
        self.sites: dict[tuple[str, str], Where] = {}
        self.reserved: tuple[tuple[Offer, int], ...] = ()  # until when, in days since 1970; 0: without an end
        self.live: dict[str, Table] = {}
        self.private: dict[str, list[PriceRow]] = {}
        self._broken: set[str] = set()

    def providers(self) -> Sequence[str]:
        return tuple(sorted({*self.live, *self.private}))

    def origin(self, provider: str) -> str:
        """shipped, refreshed or private."""
        if provider in self.live and provider not in self._broken:
            return "refreshed"
        return "private" if provider in self.private else "shipped"

    def live_block(self, provider: str) -> Block | None:
        table = self.live.get(provider)
        if table is None or provider in self._broken:
            return None
        try:
            return table.block(provider)
        except CorruptTable as error:
            self._broken.add(provider)
            self.warnings.append(_unusable(f"live/{provider}.prices", str(error), provider))
            return None

    def percent_off(self, offer: Offer) -> float:
        """The largest discount that holds for an offer; 0: none."""
        return max(
            (
                each.percent
                for each in self.discounts
                if each.provider == offer.provider
                and each.capacity is offer.capacity
                and each.covers(offer.region)
                and each.matches(offer.shape.instance_type)
            ),
            default=0,
        )

    def applied(self, provider: str, block: Block | None) -> Block:
        """`block` with private machines added and discounts taken off."""
        rows = self.private.get(provider)
        if rows or block is None:
            # A private row replaces the public ones of the same machine, place and capacity.
            mine = {(row.instance_type, row.region, row.zone, row.capacity) for row in rows or ()}
            public = (
                [
                    row
                    for row in rows_of(block)
                    if (row.instance_type, row.region, row.zone, row.capacity) not in mine
                ]
                if block is not None
                else []
            )
            block = build_block(provider, [*public, *(rows or ())])
        own = [each for each in self.discounts if each.provider == provider]
        return _discounted(block, own) if own else block


def less(micro_usd: int, percent: float) -> int:
    """A price after a discount; never free by rounding."""
    return max(1, round(micro_usd * (100 - percent) / 100)) if micro_usd else 0


def load_overlay(folder: Path, *, shapes: Table | None = None) -> Overlay:
    """Read the user's folder. `shapes` gives the shapes of reserved machines that name only an instance
    type."""
    overlay = Overlay()
    try:
        if not folder.is_dir():
            return overlay
        live, private = sorted((folder / "live").glob("*.prices")), sorted(folder.glob("*.csv"))
    except OSError as error:
        overlay.warnings.append(
            f"the catalog folder {folder} cannot be read: {error.strerror}; the shipped prices are used"
        )
        return overlay
    for path in live:
        provider = path.stem
        try:
            table = Table.open(path)
            if provider not in table.providers:
                raise CorruptTable(f"it has no prices of {provider}")
        except (OSError, CorruptTable) as error:
            overlay.warnings.append(_unusable(f"live/{path.name}", str(error), provider))
            continue
        overlay.live[provider] = table
    for path in private:
        _read_private(path, overlay)
    terms = folder / "terms.toml"
    if terms.is_file():
        _read_terms(terms, overlay, shapes)
    return overlay


def _unusable(name: str, why: str, provider: str) -> str:
    return (
        f"the catalog file {name} cannot be used: {why}; the shipped prices are used instead. "
        f"`argosy catalog refresh {provider}` makes it again"
    )


# --- private catalogs ------------------------------------------------------------------------------


def _read_private(path: Path, overlay: Overlay) -> None:
    import csv

    try:
        text = path.read_text(encoding="utf-8-sig")
        day = int(path.stat().st_mtime * 1000) // DAY_MS
    except (OSError, UnicodeDecodeError) as error:
        overlay.warnings.append(f"the private catalog {path.name} cannot be read and is left out: {error}")
        return
    reader = csv.DictReader(text.splitlines())
    columns = reader.fieldnames or []
    missing = [name for name in _REQUIRED if name not in columns]
    unknown = [name for name in columns if name not in (*CSV_COLUMNS, "derived")]
    if missing or unknown:
        what = f"it has no column {missing[0]}" if missing else f"it has an unknown column `{unknown[0]}`"
        overlay.warnings.append(f"the private catalog {path.name} is left out: {what}")
        return
    try:
        for row in reader:
            where = f"{path.name}:{reader.line_num}"
            try:
                provider, made = _private_rows(row, path.name, day)
                overlay.private.setdefault(provider, []).extend(made)
            except ValueError as error:
                overlay.warnings.append(f"{where}: {error}; the row is left out")
    except csv.Error as error:
        overlay.warnings.append(f"{path.name}:{reader.line_num}: {error}; the rest of the file is left out")


def _private_rows(row: Mapping[str, str | None], source: str, day: int) -> tuple[str, list[PriceRow]]:
    """Provider, and on-demand and spot row of one line. Raises ValueError."""
    if None in row:
        raise ValueError("more values than columns")

    def text(column: str) -> str:
        return (row.get(column) or "").strip()

    def number(column: str, *, above_zero: bool = False) -> float:
        value = text(column)
        try:
            found = float(value or 0)
        except ValueError:
            raise ValueError(f"`{value}` in column {column} is not a number") from None
        if not 0 <= found < 1e12 or (above_zero and not found):
            raise ValueError(f"{column} `{value}` must be above 0")
        return found

    provider = text("provider")
    if not provider or set(provider.lower()) - set(_NAME):
        raise ValueError(f"`{provider}` is no name of a provider")
    if not text("instance_type"):
        raise ValueError("instance_type is empty")
    model = text("accelerator")
    as_of = text("as_of")
    if as_of:
        day = _day(as_of)
    note = Note(day, text("source") or f"private catalog {source}")
    made = []
    for column, capacity in (("price_usd_hour", Capacity.ON_DEMAND), ("spot_price_usd_hour", Capacity.SPOT)):
        if not text(column):
            continue
        try:
            micro_usd = round(float(text(column)) * 1_000_000)
        except (ValueError, OverflowError):
            raise ValueError(f"`{text(column)}` in column {column} is not a number") from None
        if micro_usd <= 0:
            raise ValueError(
                f"{column} of `{text('instance_type')}` is {text(column)}: a price must be above 0"
            )
        made.append(
            PriceRow(
                instance_type=text("instance_type"),
                model=model,
                accelerators_milli=round(number("accelerator_count", above_zero=True) * 1000) if model else 0,
                device_memory_bytes=round(number("accelerator_memory_gib") * GIB),
                cpus_milli=round(number("vcpus", above_zero=True) * 1000),
                memory_bytes=round(number("memory_gib") * GIB),
                disk_bytes=round(number("local_disk_gb") * 10**9),
                arch=text("arch") or "x86_64",
                region=text("region"),
                zone=text("zone"),
                capacity=capacity,
                price_micro_usd=micro_usd,
                note=note,
            )
        )
    if not made:
        raise ValueError(f"`{text('instance_type')}` has no price")
    return provider, made


# --- terms -----------------------------------------------------------------------------------------


def _read_terms(path: Path, overlay: Overlay, shapes: Table | None) -> None:
    import tomllib

    try:
        terms = msgspec.convert(tomllib.loads(path.read_text(encoding="utf-8")), Terms)
    except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError, msgspec.ValidationError) as error:
        overlay.warnings.append(
            f"{path.name} cannot be used: {error}; list prices are shown, without discounts and reserved "
            "machines"
        )
        return
    known = {*(shapes.providers if shapes is not None else ()), *overlay.providers()}
    discounts = []
    for table, entries in (("discount", terms.discount), ("savings_plan", terms.savings_plan)):
        for index, entry in enumerate(entries):
            if not 0 < entry.percent < 100:
                overlay.warnings.append(
                    f"{path.name}: {table}[{index}]: percent {entry.percent:g} must be above 0 and below "
                    "100; "
                    "it is left out"
                )
                continue
            if entry.provider not in known:
                overlay.warnings.append(
                    f"{path.name}: {table}[{index}]: there are no prices of `{entry.provider}`; it is left "
                    "out"
                )
                continue
            discounts.append(
                entry if entry.name else msgspec.structs.replace(entry, name=table.replace("_", " "))
            )
    overlay.discounts = tuple(discounts)
    for name, usd in terms.owned.items():
        if usd < 0:
            overlay.warnings.append(f"{path.name}: owned.{name}: price {usd:g} is below 0; it is left out")
            continue
        overlay.owned_prices[name] = round(usd * 1_000_000)
    for index, site in enumerate(terms.place):
        amounts = (site.bandwidth_mbps, site.latency_ms, site.power_w)
        if not all(0 <= amount < 1e9 for amount in amounts) or (site.country and len(site.country) != 2):
            overlay.warnings.append(
                f"{path.name}: place[{index}]: a country has two letters, an amount is not below 0; it is "
                "left out"
            )
            continue
        provider, _, region = site.infra.strip("/").partition("/")
        overlay.sites[provider, region] = Where(
            country=site.country.upper(),
            continent=site.continent,
            location=site.location,
            bandwidth_kbps=round(site.bandwidth_mbps * 1000),
            latency_us=round(site.latency_ms * 1000),
            power_mw=round(site.power_w * 1000),
        )
    for name, grams in terms.carbon.items():
        if not 0 <= grams < 10_000:
            overlay.warnings.append(
                f"{path.name}: carbon.{name}: {grams:g} g/kWh makes no sense; it is left out"
            )
            continue
        overlay.carbon[name] = grams
    reserved = []
    for index, machine in enumerate(terms.reserved):
        try:
            reserved.append((_reserved_offer(machine, shapes), _day(machine.until)))
        except ValueError as error:
            overlay.warnings.append(f"{path.name}: reserved[{index}]: {error}; it is left out")
    overlay.reserved = tuple(reserved)


def _day(date: str) -> int:
    """Days since 1970; 0 without a date. Raises ValueError."""
    if not date:
        return 0
    import datetime

    try:
        return (datetime.date.fromisoformat(date) - datetime.date(1970, 1, 1)).days
    except ValueError:
        raise ValueError(f"`{date}` is not a date; write for example `2027-01-31`") from None


def _reserved_offer(entry: Reserved, shapes: Table | None) -> Offer:
    if entry.price_usd_hour < 0:
        raise ValueError(f"price {entry.price_usd_hour:g} is below 0")
    if entry.nodes <= 0:
        raise ValueError(f"nodes {entry.nodes} must be above 0")
    shape = Shape(
        instance_type=entry.instance_type,
        cpus_milli=round(entry.cpus * 1000),
        memory_bytes=round(entry.memory_gib * GIB),
        accelerator=entry.accelerator or None,
        accelerators_milli=round(entry.accelerator_count * 1000),
        accelerator_memory_bytes=round(entry.accelerator_memory_gib * GIB),
    )
    if not entry.cpus:
        block = (
            shapes.block(entry.provider)
            if shapes is not None and entry.provider in shapes.providers
            else None
        )
        kinds = block.of_type(entry.instance_type) if block is not None else []
        if block is None or not kinds:
            raise ValueError(
                f"`{entry.instance_type}` of {entry.provider} is not known; give its cpus, memory_gib and "
                "accelerator"
            )
        shape = block.shape(kinds[0])
    return Offer(
        provider=entry.provider,
        region=entry.region,
        zone=entry.zone,
        shape=shape,
        capacity=Capacity.RESERVED,
        price_micro_usd=round(entry.price_usd_hour * 1_000_000),
        nodes_max=entry.nodes,
    )


def _discounted(block: Block, discounts: Sequence[Discount]) -> Block:
    """The block at the user's own prices. Of several discounts that match, the largest counts."""
    notes = list(block.notes)
    renamed: dict[tuple[int, str], int] = {}
    lanes = []
    for lane in block.lanes:
        own = [each for each in discounts if each.capacity is lane.capacity]
        if not own:
            lanes.append(lane)
            continue
        by_place = [[each for each in own if each.covers(place.region)] for place in block.places]
        place, price, note = array("H"), array("q"), array("H")
        for kind, instance_type in enumerate(block.instance_types):
            fitting = {id(each) for each in own if each.matches(instance_type)}
            rows = []
            for row in range(lane.start[kind], lane.start[kind + 1]):
                at, micro_usd, told = lane.place[row], lane.price[row], lane.note[row]
                best = max((each for each in by_place[at] if id(each) in fitting), key=_percent, default=None)
                if best is not None:
                    micro_usd = less(micro_usd, best.percent)
                    rule = f"list price less {best.percent:g}% ({best.name})"
                    if (told, rule) not in renamed:
                        renamed[told, rule] = len(notes)
                        old = notes[told]
                        notes.append(old._replace(rule=f"{old.rule}; {rule}" if old.rule else rule))
                    told = renamed[told, rule]
                rows.append((micro_usd, at, told))
            for micro_usd, at, told in sorted(rows):
                price.append(micro_usd)
                place.append(at)
                note.append(told)
        lanes.append(Lane(lane.capacity, lane.start, place, price, note))
    return Block(
        block.provider,
        instance_types=block.instance_types,
        models=block.models,
        accelerators_milli=block.accelerators_milli,
        device_memory_bytes=block.device_memory_bytes,
        cpus_milli=block.cpus_milli,
        memory_bytes=block.memory_bytes,
        disk_bytes=block.disk_bytes,
        arch=block.arch,
        places=block.places,
        lanes=lanes,
        notes=notes,
    )


def _percent(discount: Discount) -> float:
    return discount.percent

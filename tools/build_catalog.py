"""Build the table of prices that the wheel ships, from price files in CSV.

    ARGOSY_PRICES=FOLDER python tools/build_catalog.py [--out FILE] [--check]

The folder holds one CSV per provider (columns of `COLUMNS`) and `accelerators.csv`, `regions.csv`,
`storage.csv`, `spot_hazard.csv`, `gcp_attach.csv`. Every figure keeps its date, its source and the rule that
computed it. The inputs are not part of the repository; the table that comes out is. The same inputs give the
same bytes.
"""

from __future__ import annotations

import argparse
import csv
import datetime
import os
import re
import sys
from collections.abc import Iterator
from pathlib import Path

from argosy.catalog.facts import (
    AcceleratorFact,
    AttachedFact,
    Facts,
    HazardBand,
    HazardColumns,
    RegionFact,
    StorageFact,
)
from argosy.catalog.table import PriceRow, Table, build_block, write_table
from argosy.model.market import Note
from argosy.model.offer import Capacity
from argosy.model.slices import hosts_of
from argosy.model.units import GIB

OUT = Path(__file__).resolve().parents[1] / "src" / "argosy" / "catalog" / "prices.bin"
COLUMNS = [
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
    "derived",
]
OTHER = {"accelerators", "regions", "storage", "spot_hazard", "gcp_attach"}
#: Names that the sources spell otherwise than task files do.
SPELLING = {
    "A4000": "RTXA4000",
    "A6000": "RTXA6000",
    "Gaudi HL-205": "Gaudi",
    "Radeon MI25": "MI25",
    "Radeon Pro V520": "V520",
    "Radeon Pro V710": "V710",
}
#: Rules whose result is a computed stand-in for a price that nobody read. Sums of prices that were read
#: (`host + n x attached`, `n x part`) are no estimates.
ESTIMATES = re.compile(
    r"^estimate|us-east-1 price x|Spot Advisor|typical row|linear in the rows read|x \d+/\d+ chips|from "
    r"memory"
)
#: Sources whose date is known and may be older than that of the row they stand in.
SOURCE_DATES = {"skypilot-catalog v9/": "2026-07-14"}
#: Architecture by name of the accelerator: what a build or a kernel is compiled for. First match wins.
ARCHITECTURES = (
    (r"Jetson-(AGX-)?Orin.*", "Ampere"),
    (r"K80", "Kepler"),
    (r"M60|M4000", "Maxwell"),
    (r"P4|P40|P100|P4000", "Pascal"),
    (r"V100.*", "Volta"),
    (r"T4g?|RTX6000|RTX8000", "Turing"),
    (r"RTX\d+-Ada|L4|L40S?|RTX40\d\d", "Ada Lovelace"),
    (r"A\d+.*|RTXA\d+|RTX30\d\d", "Ampere"),
    (r"H\d+.*|GH200", "Hopper"),
    (r"G?B\d00|RTXPRO\d+|RTX50\d\d", "Blackwell"),
    (r"MI25", "GCN 5"),
    (r"V520", "RDNA"),
    (r"V710", "RDNA 3"),
    (r"MI2\d\dX?", "CDNA 2"),
    (r"MI3[02]\dX", "CDNA 3"),
    (r"MI35\dX", "CDNA 4"),
    (r"Gaudi\d?", "Gaudi"),
    (r"Inferentia2?|Trainium\d?", "NeuronCore"),
    (r"tpu-.*", "TPU"),
)
UNDATED = re.compile(r"\s*\(([^()]*,\s*)?undated(,[^()]*)?\)")


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--out", type=Path, default=OUT)
    parser.add_argument(
        "--check", action="store_true", help="only say whether the shipped table is up to date"
    )
    args = parser.parse_args()
    folder = os.environ.get("ARGOSY_PRICES", "")
    if not folder or not Path(folder).is_dir():
        print("error: ARGOSY_PRICES names no folder", file=sys.stderr)
        print("hint: set it to the folder with the price files (CSV)", file=sys.stderr)
        return 2
    data = build(Path(folder))
    if args.check:
        same = args.out.is_file() and args.out.read_bytes() == data
        print("up to date" if same else f"{args.out} is not what {folder} gives", file=sys.stderr)
        return 0 if same else 1
    args.out.write_bytes(data)
    table = Table(data)
    table.check()
    print(f"{args.out.name}: {len(data):,} bytes, {sum(table.offers().values()):,} offers")
    for provider, count in table.offers().items():
        print(f"  {provider:<14}{count:>8,}")
    return 0


def build(folder: Path) -> bytes:
    """The bytes of the table. `built` is the newest date in the inputs, so that a rebuild changes nothing."""
    blocks = []
    newest = 0
    for path in sorted(folder.glob("*.csv")):
        if path.stem in OTHER:
            continue
        rows = list(price_rows(path))
        newest = max(newest, *(row.note.as_of_day for row in rows))
        blocks.append(build_block(path.stem, rows))
    facts = Facts(
        accelerators=tuple(accelerators(folder / "accelerators.csv")),
        regions=tuple(regions(folder / "regions.csv")),
        storage=tuple(storage(folder / "storage.csv")),
        attached=tuple(attached(folder / "gcp_attach.csv")),
    )
    built = (datetime.date(1970, 1, 1) + datetime.timedelta(days=newest)).isoformat()
    return write_table(built, blocks, facts, hazards(folder / "spot_hazard.csv"))


def read(path: Path) -> Iterator[dict[str, str]]:
    with path.open(newline="", encoding="utf-8") as lines:
        yield from csv.DictReader(lines)


def price_rows(path: Path) -> Iterator[PriceRow]:
    for number, row in enumerate(read(path), 2):
        if list(row) != COLUMNS:
            raise SystemExit(f"{path.name}: the columns are {', '.join(row)}")
        if row["provider"] != path.stem:
            raise SystemExit(f"{path.name}:{number}: provider {row['provider']}")
        price_rule, spot_rule = split_rule(row["derived"])
        price_source, spot_source = split_source(row["source"])
        figures = (
            (Capacity.ON_DEMAND, row["price_usd_hour"], price_rule, price_source),
            (Capacity.SPOT, row["spot_price_usd_hour"], spot_rule, spot_source),
        )
        # The files tell of a slice as a whole, and a node is one host of it.
        hosts = hosts_of(row["accelerator"])
        for capacity, usd, rule, source in figures:
            if not usd:
                continue
            yield PriceRow(
                instance_type=row["instance_type"],
                model=spelled(row["accelerator"]),
                accelerators_milli=round(float(row["accelerator_count"] or 0) * 1000),
                device_memory_bytes=round(float(row["accelerator_memory_gib"] or 0) * GIB),
                cpus_milli=round(float(row["vcpus"]) * 1000) // hosts,
                memory_bytes=round(float(row["memory_gib"] or 0) * GIB) // hosts,
                disk_bytes=round(float(row["local_disk_gb"] or 0) * 10**9),
                arch=row["arch"] or "x86_64",
                region=row["region"],
                zone=row["zone"],
                capacity=capacity,
                price_micro_usd=micro(usd) // hosts,
                note=Note(date_of(row["as_of"], rule, source), source, rule, bool(ESTIMATES.search(rule))),
            )


def split_rule(derived: str) -> tuple[str, str]:
    """What a row's rules say of the price, and of the spot price.

    >>> split_rule("price=us-east-1 price x 1.2 (family ratio of the region); spot=on-demand x (1-20%) EC2 Spot Advisor 2025-06-28")
    ('us-east-1 price x 1.2 (family ratio of the region)', 'on-demand x (1-20%) EC2 Spot Advisor 2025-06-28')
    """  # noqa: E501
    price, spot = [], []
    for part in (part.strip() for part in derived.split("; ") if part.strip()):
        if part.startswith(("spot=", "spot = ")):
            spot.append(part.removeprefix("spot").lstrip(" =") or part)
        elif part.startswith(("price=", "price = ")):
            price.append(part.removeprefix("price").lstrip(" =") or part)
        else:
            price.append(part)
            spot.append(part)
    return "; ".join(price), "; ".join(spot)


def spelled(accelerator: str) -> str:
    return SPELLING.get(accelerator, accelerator)


def micro(usd: str) -> int:
    return round(float(usd) * 1_000_000)


def day_of(date: str) -> int:
    return (datetime.date.fromisoformat(date) - datetime.date(1970, 1, 1)).days if date else 0


def split_source(text: str) -> tuple[str, str]:
    """Source of the price, and of the spot price.

    >>> split_source("prices.go 1d92 (spot: vms.csv 2c3d)"), split_source("vms.csv (undated)")
    (('prices.go 1d92', 'vms.csv 2c3d'), ('vms.csv', 'vms.csv'))
    """
    text = source_of(text)
    both = re.fullmatch(r"(.*?) \(spot: (.*)\)", text)
    return (both[1], both[2]) if both else (text, text)


def date_of(as_of: str, rule: str, source: str) -> int:
    """The day of a figure: of the oldest thing that it was computed from."""
    day = day_of(as_of)
    older = [date for known, date in SOURCE_DATES.items() if known in source]
    stated = re.search(r"Spot Advisor (\d{4}-\d\d-\d\d)", rule)
    if stated:
        older.append(stated[1])
    return min([day, *map(day_of, older)]) if day else 0


def source_of(text: str) -> str:
    """The source without the word that it has no date: the date says that."""
    return UNDATED.sub("", text)


def accelerators(path: Path) -> Iterator[AcceleratorFact]:
    for row in read(path):
        yield AcceleratorFact(
            name=spelled(row["name"]),
            aliases=tuple(part.strip() for part in row["aliases"].split(";") if part.strip()),
            vendor=row["vendor"],
            architecture=architecture_of(spelled(row["name"])),
            memory_bytes=round(float(row["memory_gib"]) * GIB),
            bandwidth_gb_s=round(float(row["memory_bandwidth_gb_s"] or 0)),
            bf16_tflops=float(row["bf16_tflops_dense"] or 0),
            fp16_tflops=float(row["fp16_tflops_dense"] or 0),
            fp8_tflops=float(row["fp8_tflops_dense"] or 0),
            fp32_tflops=float(row["fp32_tflops"] or 0),
            interconnect="" if row["interconnect"] == "none" else row["interconnect"],
            tdp_w=round(float(row["tdp_w"] or 0)),
            form=row["form"],
            year=int(row["year"] or 0),
            source=row["source"],
        )


def architecture_of(model: str) -> str:
    """
    >>> architecture_of("A100-80GB"), architecture_of("RTX6000-Ada"), architecture_of("B300"), architecture_of("GB200")
    ('Ampere', 'Ada Lovelace', 'Blackwell', 'Blackwell')
    """  # noqa: E501
    return next((name for pattern, name in ARCHITECTURES if re.fullmatch(pattern, model)), "")


def regions(path: Path) -> Iterator[RegionFact]:
    for row in read(path):
        yield RegionFact(
            provider=row["provider"],
            region=row["region"],
            city=row["city"],
            country=row["country"],
            continent=row["continent"],
            latitude=float(row["latitude"] or 0),
            longitude=float(row["longitude"] or 0),
        )


def storage(path: Path) -> Iterator[StorageFact]:
    def money(text: str) -> int | None:
        return micro(text) if text else None

    for row in read(path):
        yield StorageFact(
            provider=row["provider"],
            service=row["service"],
            storage_class=row["storage_class"],
            region=row["region"],
            gb_month_micro_usd=money(row["storage_usd_gb_month"]),
            egress_internet_micro_usd_gb=money(row["egress_internet_usd_gb"]),
            egress_free_gb_month=int(row["egress_free_gb_month"] or 0),
            egress_inter_region_micro_usd_gb=money(row["egress_inter_region_usd_gb"]),
            put_micro_usd_per_1000=money(row["put_usd_per_1000"]),
            get_micro_usd_per_1000=money(row["get_usd_per_1000"]),
            as_of=row["as_of"],
            source=row["source"],
            rule=row["derived"],
            estimated="from memory" in row["source"],
        )


def attached(path: Path) -> Iterator[AttachedFact]:
    for row in read(path):
        yield AttachedFact(
            provider=row["provider"],
            model=spelled(row["accelerator"]),
            device=row["instance_type"],
            region=row["region"],
            zone=row["zone"],
            price_micro_usd=micro(row["price_usd_hour"]),
            spot_micro_usd=micro(row["spot_price_usd_hour"] or "0"),
            as_of=row["as_of"],
            source=source_of(row["source"]),
        )


def hazards(path: Path) -> dict[str, HazardColumns]:
    bands: dict[str, dict[HazardBand, int]] = {}
    places: dict[str, dict[str, int]] = {}
    cells: dict[str, dict[str, dict[int, int]]] = {}
    for row in read(path):
        provider = row["provider"]
        band = HazardBand(
            low_pct=int(row["monthly_interruption_min_pct"]),
            high_pct=int(row["monthly_interruption_max_pct"] or 100),
            savings_pct=int(row["savings_pct"]),
            as_of=row["as_of"],
            source=row["source"],
        )
        known, at = bands.setdefault(provider, {}), places.setdefault(provider, {})
        index = at.setdefault(row["region"], len(at))
        cells.setdefault(provider, {}).setdefault(row["instance_type"], {})[index] = known.setdefault(
            band, len(known)
        )
    return {
        provider: HazardColumns(
            bands=list(bands[provider]), regions=list(places[provider]), cells=cells[provider]
        )
        for provider in cells
    }


if __name__ == "__main__":
    sys.exit(main())

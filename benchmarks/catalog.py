"""Catalog and ranking: how fast, how large, how cold. Prints a table, and JSON with every sample.

    python benchmarks/catalog.py [--runs N] [--json FILE] [--designs] [--peer PYTHON]

Runs over at least 100,000 offers: the shipped table and copies of its largest providers under other names.
`--designs` compares the file's format with SQLite (docs/decisions/0010); `--peer` runs SkyPilot, installed
for that PYTHON (`pip install 'skypilot[aws]==0.14.1'`), over the same AWS rows and tells the ratio, also of a
chain of four tasks. Nothing else needs more than Argosy.
"""

from __future__ import annotations

import argparse
import csv
import json
import os
import sqlite3
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from statistics import median

from machine import clocked, timed

from argosy.catalog import Catalog
from argosy.catalog.catalog import SHIPPED
from argosy.catalog.listing import gpu_rows
from argosy.catalog.table import Table, build_block, rows_of
from argosy.model.market import Block, Market, market_of
from argosy.model.offer import Capacity
from argosy.model.resources import Accelerator, Infra, Resources
from argosy.model.units import Bound
from argosy.planning.dag import Link, Stage, Tariff, candidates_of, plan_pipeline
from argosy.planning.market import cheapest_in_regions, rank

COLD = """
import time; start = time.perf_counter()
from argosy.catalog import Catalog
from argosy.planning.market import rank
from argosy.model.resources import Accelerator, Resources
imported = time.perf_counter()
catalog = Catalog.load()
ranking = rank([Resources(accelerator=Accelerator(model="L4", milli=1000))], 1, catalog.market)
assert ranking.plan.choices
print((time.perf_counter() - imported) * 1000)
"""
MEMORY = """
import resource
from argosy.catalog import Catalog
from argosy.planning.market import rank
from argosy.model.resources import Resources
from argosy.model.units import Bound
def resident():
    return int(open("/proc/self/statm").read().split()[1]) * resource.getpagesize()
before = resident()
catalog = Catalog.load()
rank([Resources(cpus=Bound(8000))], 1, catalog.market)
len(catalog.market), catalog.facts(), catalog.hazard("aws", "us-east-1", "p4d.24xlarge")
print((resident() - before) / 1e6)
"""


def gpu(model: str, count: float = 1, *, spot: bool | None = None) -> Resources:
    return Resources(accelerator=Accelerator(model=model, milli=round(count * 1000)), use_spot=spot)


SIX = ("L4", "A10G", "T4", "A100", "H100", "V100")
REQUESTS: dict[str, tuple[list[Resources], float, str]] = {
    "L4:1": ([gpu("L4")], 3, "140–660 ms"),
    "A100:8, spot": ([gpu("A100", 8, spot=True)], 3, "140–660 ms"),
    "cpus 8+": ([Resources(cpus=Bound(8000))], 3, "140–660 ms"),
    "cpus 8+, memory 4x, region us-east-1": (
        [Resources(cpus=Bound(8000), memory_per_cpu_bytes=4 << 30, infra=Infra(region="us-east-1"))],
        3,
        "",
    ),
    "L4:1, at most $0.50/h": (
        [Resources(accelerator=Accelerator(model="L4", milli=1000), max_hourly_micro_usd=500_000)],
        3,
        "",
    ),
    "any_of 6 GPUs x {spot, on-demand}": (
        [gpu(model, spot=spot) for model in SIX for spot in (True, False)],
        10,
        "4,700–4,900 ms",
    ),
}


#: Four stages, any of two needs each; `catalog_peer.py` asks for the same.
CHAIN = (
    (Resources(cpus=Bound(8000)), Resources(cpus=Bound(16000), memory=Bound(64 << 30))),
    (
        Resources(accelerator=Accelerator(model="L4", milli=1000)),
        Resources(accelerator=Accelerator(model="A10G", milli=1000)),
    ),
    (
        Resources(accelerator=Accelerator(model="A100", milli=8000)),
        Resources(accelerator=Accelerator(model="H100", milli=8000)),
    ),
    (
        Resources(accelerator=Accelerator(model="T4", milli=1000)),
        Resources(accelerator=Accelerator(model="L4", milli=1000)),
    ),
)


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--runs", type=int, default=30)
    parser.add_argument("--json", type=Path)
    parser.add_argument("--designs", action="store_true")
    parser.add_argument("--peer", help="a Python that has SkyPilot")
    args = parser.parse_args()

    market = large_market()
    rows: list[dict[str, object]] = []

    def row(what: str, samples: Sequence[float], unit: str, target: float | None, peer: str = "") -> None:
        rows.append({"what": what, "unit": unit, "target": target, "peer": peer, "samples": list(samples)})

    offers = len(market)
    for name, (wishes, target, peer) in REQUESTS.items():
        samples = timed(lambda wishes=wishes: rank(wishes, 1, market), args.runs)  # type: ignore[misc]
        row(f"{name}, warm, over {offers:,} offers", samples, "ms", target, peer)
    catalog = Catalog.load()
    row(
        "all machines with accelerators (`argosy gpus`), warm",
        timed(lambda: gpu_rows(catalog), 5),
        "ms",
        None,
    )
    cold_runs = max(3, args.runs // 5)
    row("load and rank L4:1, cold, in a new process", [float(run(COLD)) for _ in range(cold_runs)], "ms", 100)
    whole = [clocked(lambda: run(COLD)) for _ in range(cold_runs)]
    bare = [clocked(lambda: run("pass")) for _ in range(cold_runs)]
    row("the same, the whole process", whole, "ms", 350, "1,400–14,000 ms")
    row("a process that does nothing", bare, "ms", None)
    for what, samples, unit, aim in as_commands(max(3, args.runs // 10)):
        row(what, samples, unit, aim, "1,400–14,000 ms through its server" if aim else "")
    row("memory of everything loaded", [float(run(MEMORY)) for _ in range(3)], "MB", 60)
    row("size of the table in the wheel", [SHIPPED.stat().st_size / 1e6], "MB", 6)
    if args.designs:
        for what, samples, unit in designs(args.runs):
            row(what, samples, unit, None)

    if args.peer:
        for what, samples, unit in beside_peer(args.peer, args.runs):
            row(what, samples, unit, None)

    print("| what | median | least | target | reached | SkyPilot 0.14.1 |\n|---|---|---|---|---|---|")
    for each in rows:
        samples = each["samples"]
        target = each["target"]
        assert isinstance(samples, list)
        figure = median(samples)
        reached = "" if target is None else "yes" if figure <= float(str(target)) else "**no**"
        aim = "" if target is None else f"≤ {target} {each['unit']}"
        print(
            f"| {each['what']} | {shown(figure)} {each['unit']} | {shown(min(samples))} | {aim} | "
            f"{reached} | {each['peer']} |"
        )
    text = json.dumps({"offers": offers, "rows": rows}, indent=1)
    if args.json:
        args.json.write_text(text + "\n")
    else:
        print(text)


def shown(figure: float) -> str:
    """Three figures, without powers of ten."""
    return f"{figure:,.0f}" if figure >= 100 else f"{figure:.3g}"


def large_market() -> Market:
    """The shipped prices, and the large clouds once more under other names."""
    table = Table.open(SHIPPED)
    blocks = [table.block(name) for name in table.providers]
    for name in ("aws", "gcp"):
        blocks.append(build_block(f"{name}-more", rows_of(table.block(name))))
    vendors = {fact.name.lower(): fact.vendor.lower() for fact in table.facts().accelerators}
    return market_of(blocks, vendors)


def run(script: str) -> str:
    return subprocess.run([sys.executable, "-c", script], check=True, capture_output=True, text=True).stdout


# --- the peer --------------------------------------------------------------------------------------


def beside_peer(python: str, runs: int) -> list[tuple[str, list[float], str]]:
    """SkyPilot and Argosy over the AWS rows of the shipped table, one after the other on the same machine."""
    block = Table.open(SHIPPED).block("aws")
    market = market_of([block])
    rows = skypilot_rows(block)
    with tempfile.TemporaryDirectory() as home:
        folder = Path(home) / ".sky" / "catalogs" / "v8"
        models = sorted({model for model in block.models if model})
        write_csv(folder / "aws" / "vms.csv", SKYPILOT_COLUMNS, rows)
        write_csv(
            folder / "aws" / "images.csv", ["Tag", "Region", "OS", "OSVersion", "ImageId", "CreationDate"], []
        )
        write_csv(
            folder / "aws" / "instance_quota_mapping.csv",
            ["InstanceType", "SpotInstanceCode", "OnDemandInstanceCode"],
            [],
        )
        write_csv(
            folder / "common" / "accelerators.csv",
            ["AcceleratorName", "Clouds"],
            [[name, "['AWS']"] for name in models],
        )
        write_csv(folder / "common" / "metadata.csv", ["GPU", "MemoryGB", "Manufacturer"], [])
        environment = {
            "HOME": home,
            "PATH": os.environ.get("PATH", ""),
            "SKYPILOT_DISABLE_USAGE_COLLECTION": "1",
        }
        script = Path(__file__).with_name("catalog_peer.py")
        done = subprocess.run(
            [python, str(script), str(max(3, runs // 6))],
            env=environment,
            capture_output=True,
            text=True,
            check=False,
        )
    told = [line for line in done.stdout.splitlines() if line.startswith("PEER ")]
    if not told:
        raise SystemExit(f"SkyPilot did not answer:\n{done.stderr[-2000:]}")
    answer = json.loads(told[0].removeprefix("PEER "))
    found: list[tuple[str, list[float], str]] = []
    for name, samples in answer["samples"].items():
        if isinstance(samples, str):
            print(f"SkyPilot found nothing for {name}: {samples}", file=sys.stderr)
            continue
        if name in REQUESTS:
            wishes = REQUESTS[name][0]
            ours = timed(lambda wishes=wishes: rank(wishes, 1, market), runs)  # type: ignore[misc]
        else:
            ours = timed(lambda: chain_of_4(market), max(3, runs // 3))
        found.append((f"{name}, {len(rows):,} AWS rows: SkyPilot {answer['version']}", samples, "ms"))
        found.append((f"{name}, the same rows: Argosy", ours, "ms"))
        found.append((f"{name}: ratio of the medians", [median(samples) / median(ours)], "x"))
    return found


def chain_of_4(market: Market) -> None:
    """Ranking and the whole: the candidates of every stage in every region, 200 GB between the stages."""
    stages = [
        Stage(
            name=f"s{n}", candidates=candidates_of(cheapest_in_regions(needs, 1, market), lambda choice: 3600)
        )
        for n, needs in enumerate(CHAIN)
    ]
    links = [Link(src=f"s{n}", dst=f"s{n + 1}", size_bytes=200 << 30) for n in range(3)]
    tariff = Tariff(between_micro_usd=20_000, outside_micro_usd=90_000)
    plan_pipeline(stages, links, tariffs=lambda provider, region: tariff)


def as_commands(runs: int) -> list[tuple[str, list[float], str, float | None]]:
    """`argosy plan` beside a server that runs but never read a price, and once more."""
    found: dict[str, list[float]] = {"cold": [], "warm": []}
    for _ in range(runs):
        with tempfile.TemporaryDirectory(dir="/tmp") as home:
            environment = {
                "HOME": home,
                "ARGOSY_HOME": f"{home}/a",
                "PATH": os.environ.get("PATH", ""),
                "PYTHONPATH": os.environ.get("PYTHONPATH", ""),
            }
            (Path(home) / "train.yaml").write_text(
                "name: train\nestimated_hours: 10\nresources: {accelerators: A100:8}\nrun: python train.py\n"
            )

            def argosy(*words: str, home: str = home, environment: dict[str, str] = environment) -> None:
                command = [sys.executable, "-m", "argosy.cli", *words]
                subprocess.run(command, check=True, capture_output=True, cwd=home, env=environment)

            argosy("status")  # starts the server
            try:
                for kind in ("cold", "warm"):
                    found[kind].append(clocked(lambda: argosy("plan", "train.yaml")))
            finally:
                argosy("server", "stop")
    return [
        ("`argosy plan train.yaml` as a command, cold catalog", found["cold"], "ms", 350),
        ("`argosy plan train.yaml` as a command, again", found["warm"], "ms", None),
    ]


SKYPILOT_COLUMNS = [
    "InstanceType",
    "AcceleratorName",
    "AcceleratorCount",
    "vCPUs",
    "MemoryGiB",
    "GpuInfo",
    "Price",
    "SpotPrice",
    "Region",
    "AvailabilityZone",
    "Arch",
    "LocalDiskType",
    "NVMeSupported",
    "LocalDiskSize",
    "LocalDiskCount",
]


def skypilot_rows(block: Block) -> list[list[object]]:
    prices: dict[tuple[int, int], dict[Capacity, float]] = {}
    for lane, kind, at in block.rows():
        columns = block.lanes[lane]
        prices.setdefault((kind, columns.place[at]), {})[columns.capacity] = columns.price[at] / 1e6
    rows: list[list[object]] = []
    for (kind, place), price in sorted(prices.items()):
        region, zone = block.places[place]
        milli = block.accelerators_milli[kind]
        rows.append(
            [
                block.instance_types[kind],
                block.models[kind],
                milli / 1000 if milli else "",
                block.cpus_milli[kind] / 1000,
                block.memory_bytes[kind] / (1 << 30),
                "",
                price.get(Capacity.ON_DEMAND, ""),
                price.get(Capacity.SPOT, ""),
                region,
                zone or f"{region}a",
                block.arch[kind],
                "",
                "",
                "",
                "",
            ]
        )
    return rows


def write_csv(path: Path, head: Sequence[str], rows: Sequence[Sequence[object]]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("w", newline="") as lines:
        csv.writer(lines).writerows([head, *rows])


# --- the other design ------------------------------------------------------------------------------

SCHEMA = """
CREATE TABLE kind (id INTEGER PRIMARY KEY, provider TEXT, type TEXT, model TEXT, milli INT, device INT, cpus INT, memory INT);
CREATE TABLE price (kind INT, capacity TEXT, region TEXT, zone TEXT, micro_usd INT, note INT);
CREATE TABLE note (id INTEGER PRIMARY KEY, provider TEXT, day INT, source TEXT, rule TEXT, estimated INT);
"""  # noqa: E501
INDEXES = """
CREATE INDEX kind_model ON kind (model COLLATE NOCASE, milli);
CREATE INDEX kind_cpus ON kind (cpus, memory);
CREATE INDEX kind_type ON kind (type);
CREATE INDEX price_kind ON price (kind, capacity, micro_usd, region, zone, note);
ANALYZE;
"""
QUERIES = {
    "L4:1": "k.model = 'L4' COLLATE NOCASE AND k.milli = 1000",
    "A100:8, spot": "k.model = 'A100' COLLATE NOCASE AND k.milli = 8000 AND p.capacity = 'spot'",
    "cpus 8+": "k.cpus >= 8000",
}


def designs(runs: int) -> list[tuple[str, list[float], str]]:
    """The shipped rows in SQLite with covering indexes: size, and the 64 cheapest rows without any
    refusal."""
    found: list[tuple[str, list[float], str]] = []
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "prices.sqlite"
        fill(path)
        found.append(("SQLite: size", [path.stat().st_size / 1e6], "MB"))
        connection = sqlite3.connect(path)
        for name, where in QUERIES.items():
            query = (
                "SELECT k.*, p.* FROM kind k JOIN price p ON p.kind = k.id "
                f"WHERE {where} ORDER BY p.micro_usd, k.provider, p.region, p.zone, k.type LIMIT 64"
            )
            samples = timed(lambda query=query: connection.execute(query).fetchall(), max(3, runs // 3))  # type: ignore[misc]
            found.append((f"SQLite: {name}, rows only, no refusals", samples, "ms"))
        connection.close()
        cold = (
            "import time; start = time.perf_counter(); import sqlite3\n"
            f'sqlite3.connect({str(path)!r}).execute("SELECT k.*, p.* FROM kind k JOIN price p ON p.kind = '
            "k.id "
            "WHERE k.model = 'L4' COLLATE NOCASE AND k.milli = 1000 ORDER BY p.micro_usd LIMIT "
            '64").fetchall()\n'
            "print((time.perf_counter() - start) * 1000)"
        )
        found.append(("SQLite: import, open and L4:1, cold", [float(run(cold)) for _ in range(5)], "ms"))
    table = Table.open(SHIPPED)
    found.append(
        (
            "columns: open and unpack everything",
            timed(lambda: [table.block(p) for p in table.providers], runs),
            "ms",
        )
    )
    return found


def fill(path: Path) -> None:
    table = Table.open(SHIPPED)
    connection = sqlite3.connect(path)
    connection.executescript(SCHEMA)
    kinds = notes = 0
    for provider in table.providers:
        block = table.block(provider)
        for kind, name in enumerate(block.instance_types):
            connection.execute(
                "INSERT INTO kind VALUES (?, ?, ?, ?, ?, ?, ?, ?)",
                (
                    kinds + kind, provider, name, block.models[kind], block.accelerators_milli[kind],
                    block.device_memory_bytes[kind], block.cpus_milli[kind], block.memory_bytes[kind],
                ),
            )  # fmt: skip
        for index, note in enumerate(block.notes):
            connection.execute(
                "INSERT INTO note VALUES (?, ?, ?, ?, ?, ?)",
                (notes + index, provider, note.as_of_day, note.source, note.rule, note.estimated),
            )
        for lane, kind, at in block.rows():
            columns = block.lanes[lane]
            place = block.places[columns.place[at]]
            capacity = "spot" if columns.capacity is Capacity.SPOT else "on-demand"
            connection.execute(
                "INSERT INTO price VALUES (?, ?, ?, ?, ?, ?)",
                (kinds + kind, capacity, *place, columns.price[at], notes + columns.note[at]),
            )
        kinds += len(block.instance_types)
        notes += len(block.notes)
    connection.executescript(INDEXES)
    connection.commit()
    connection.close()


if __name__ == "__main__":
    main()

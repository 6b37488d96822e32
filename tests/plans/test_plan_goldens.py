"""What `argosy plan FILE.yaml` prints, word for word: `NAME.yaml` gives `NAME.plan.txt`, over the frozen prices beside them.

`make goldens` (`ARGOSY_UPDATE_GOLDEN=1 pytest tests/plans`) writes the answers again; read the difference before you commit it.
The server, its API, the parser and the command are real; the clock stands still and own machines are three pretend providers.
"""

from __future__ import annotations

import csv
import datetime
import os
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

import msgspec
import pytest

from argosy.catalog import Catalog
from argosy.catalog.facts import HazardBand, HazardColumns
from argosy.catalog.table import PriceRow, build_block, write_table
from argosy.cli.main import run
from argosy.cli.session import Session
from argosy.infra.provider import Capabilities, Manifest
from argosy.model.market import Note
from argosy.model.offer import Capacity, Offer, Shape
from argosy.model.units import GIB
from argosy.testing.idle_server import IdleServer, StaticProvider

HERE = Path(__file__).parent
NAMES = sorted(path.stem for path in HERE.glob("*.yaml"))
DAY = (datetime.date(2026, 1, 5) - datetime.date(1970, 1, 1)).days
NOW_MS = DAY * 86_400_000 + 7 * 86_400_000  # prices are a week old


class StoppedClock:
    def now_ms(self) -> int:
        return NOW_MS

    def monotonic_s(self) -> float:
        return 0.0


def frozen_table() -> bytes:
    """`prices.csv` as a table, with the shipped facts on regions, accelerators and traffic."""
    rows: dict[str, list[PriceRow]] = {}
    bands: list[HazardBand] = []
    lost: dict[str, HazardColumns] = {}
    with (HERE / "prices.csv").open() as lines:
        for row in csv.DictReader(lines):
            note = Note(
                DAY, "test prices", "typical offer" if row["estimated"] else "", bool(row["estimated"])
            )
            for column, capacity in (
                ("price_usd_hour", Capacity.ON_DEMAND),
                ("spot_price_usd_hour", Capacity.SPOT),
            ):
                if row[column]:
                    rows.setdefault(row["provider"], []).append(_price_row(row, column, capacity, note))
            if row["lost_pct_high"]:
                columns = lost.setdefault(row["provider"], HazardColumns(bands, [], {}))
                if row["region"] not in columns.regions:
                    columns.regions.append(row["region"])
                at = columns.regions.index(row["region"])
                columns.cells.setdefault(row["instance_type"], {})[at] = len(bands)
                bands.append(HazardBand(int(row["lost_pct_low"]), int(row["lost_pct_high"]), 0))
    blocks = [build_block(provider, mine) for provider, mine in sorted(rows.items())]
    facts = Catalog.load().facts()
    known = tuple(fact for fact in facts.regions if fact.provider in rows)
    return write_table("2026-01-05", blocks, msgspec.structs.replace(facts, regions=known), lost)


def _price_row(row: dict[str, str], column: str, capacity: Capacity, note: Note) -> PriceRow:
    return PriceRow(
        instance_type=row["instance_type"],
        model=row["accelerator"],
        accelerators_milli=int(row["accelerator_count"] or 0) * 1000,
        device_memory_bytes=int(row["accelerator_memory_gib"] or 0) * GIB,
        cpus_milli=int(row["vcpus"]) * 1000,
        memory_bytes=int(row["memory_gib"]) * GIB,
        disk_bytes=0,
        arch="x86_64",
        region=row["region"],
        zone=row["zone"],
        capacity=capacity,
        price_micro_usd=round(float(row[column]) * 1_000_000),
        note=note,
    )


def owned(
    name: str, shape: Shape, *, region: str = "", nodes: int = 1, fractions: bool = False
) -> StaticProvider:
    can = Capabilities(owned=True, stop=True, multi_node=nodes > 1, fractions=fractions)
    offer = Offer(
        provider=name, region=region, shape=shape, capacity=Capacity.OWNED, price_micro_usd=0, nodes_max=nodes
    )
    return StaticProvider(Manifest(name=name, title=name, capabilities=can), [offer])


@pytest.fixture(scope="module")
def server() -> Iterator[IdleServer]:
    folder = Path(tempfile.mkdtemp(prefix="ag", dir="/tmp"))
    (folder / "prices.bin").write_bytes(frozen_table())
    own = (
        owned("local", Shape(instance_type="", cpus_milli=8000, memory_bytes=32 * GIB)),
        owned(
            "slurm",
            Shape(
                cpus_milli=64_000, memory_bytes=512 * GIB, accelerator="L40S", accelerators_milli=4000,
                accelerator_memory_bytes=48 * GIB,
            ),
            region="campus",
            fractions=True,
        ),
        owned(
            "ssh",
            Shape(
                cpus_milli=12_000, memory_bytes=64 * GIB, accelerator="Jetson", accelerators_milli=1000,
                accelerator_memory_bytes=64 * GIB, arch="aarch64",
            ),
            region="plant-3",
        ),
    )  # fmt: skip
    with IdleServer(*own, clock=StoppedClock(), prices=folder / "prices.bin") as running:
        yield running
    shutil.rmtree(folder, ignore_errors=True)


def told(server: IdleServer, capture: pytest.CaptureFixture[str], *words: str) -> str:
    """Standard output, then what was said beside it, then the exit status unless it is 0."""
    env = {"HOME": str(server.home), "ARGOSY_SERVER": f"unix://{server.socket}", "USER": "ada"}
    capture.readouterr()
    status = run(list(words), Session(env, cwd=HERE, now_ms=lambda: NOW_MS))
    captured = capture.readouterr()
    beside = "".join(f"! {line}\n" for line in captured.err.splitlines())
    return captured.out + beside + (f"exit status {status}\n" if status else "")


@pytest.mark.parametrize("name", NAMES)
def test_plan(server: IdleServer, capsys: pytest.CaptureFixture[str], name: str) -> None:
    answer = told(server, capsys, "plan", f"{name}.yaml")
    path = HERE / f"{name}.plan.txt"
    if os.environ.get("ARGOSY_UPDATE_GOLDEN"):
        path.write_text(answer)
    assert answer == path.read_text()


def test_every_answer_has_its_question() -> None:
    assert sorted(path.name.removesuffix(".plan.txt") for path in HERE.glob("*.plan.txt")) == NAMES

"""What `argosy plan FILE.yaml` prints, word for word: `NAME.yaml` gives `NAME.plan.txt`, over the frozen
prices beside them.

`make goldens` (`ARGOSY_UPDATE_GOLDEN=1 pytest tests/plans`) writes the answers again; read the difference
before you commit it. The server, its API, the parser and the command are real; the clock stands still and own
machines are three pretend providers.
"""

from __future__ import annotations

import csv
import datetime
import os
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
    def __init__(self, now_ms: int = NOW_MS) -> None:
        self._now_ms = now_ms

    def now_ms(self) -> int:
        return self._now_ms

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
        disk_bytes=int(row["local_disk_gb"] or 0) * 10**9,
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
def folder() -> Iterator[Path]:
    with tempfile.TemporaryDirectory(prefix="ag", dir="/tmp", ignore_cleanup_errors=True) as name:
        yield Path(name)


@pytest.fixture(scope="module")
def server(folder: Path) -> Iterator[IdleServer]:
    (folder / "prices.bin").write_bytes(frozen_table())
    own = (
        owned(
            "local", Shape(instance_type="", cpus_milli=8000, memory_bytes=32 * GIB, disk_bytes=300 * 10**9)
        ),
        owned(
            "slurm",
            Shape(
                cpus_milli=64_000,
                memory_bytes=512 * GIB,
                accelerator="L40S",
                accelerators_milli=4000,
                accelerator_memory_bytes=48 * GIB,
            ),
            region="campus",
            fractions=True,
        ),
        owned(
            "ssh",
            Shape(
                cpus_milli=12_000,
                memory_bytes=64 * GIB,
                accelerator="Jetson",
                accelerators_milli=1000,
                accelerator_memory_bytes=64 * GIB,
                arch="aarch64",
            ),
            region="plant-3",
        ),
    )
    home = folder / "home"
    (home / "catalog").mkdir(parents=True)
    (home / "catalog" / "terms.toml").write_text(
        '[carbon]\n"aws/us-east-1" = 340\n"aws/eu-north-1" = 19.5\n"gcp/us-central1" = '
        '430\n"gcp/europe-north1" = 30\n'
        '"lambda/us-west-1" = 180\n'
        '[[place]]\ninfra = "ssh/plant-3"\ncountry = "KR"\nbandwidth_mbps = 100\nlatency_ms = 8\npower_w = '
        "60\n"
    )
    with IdleServer(*own, clock=StoppedClock(), prices=folder / "prices.bin", state_dir=home) as running:
        yield running


def told(server: IdleServer, capture: pytest.CaptureFixture[str], *words: str) -> str:
    """Standard output, then what was said beside it, then the exit status unless it is 0."""
    env = {"HOME": str(server.home), "ARGOSY_SERVER": f"unix://{server.socket}", "USER": "ada"}
    capture.readouterr()
    status = run(list(words), Session(env, cwd=HERE, now_ms=lambda: NOW_MS))
    captured = capture.readouterr()
    beside = "".join(f"! {line}\n" for line in captured.err.splitlines())
    return captured.out + beside + (f"exit status {status}\n" if status else "")


@pytest.fixture
def table() -> Iterator[Path]:
    with tempfile.TemporaryDirectory(prefix="ag", dir="/tmp", ignore_cleanup_errors=True) as name:
        (Path(name) / "prices.bin").write_bytes(frozen_table())
        yield Path(name) / "prices.bin"


@pytest.mark.parametrize("name", NAMES)
def test_plan(server: IdleServer, capsys: pytest.CaptureFixture[str], name: str) -> None:
    answer = told(server, capsys, "plan", f"{name}.yaml")
    path = HERE / f"{name}.plan.txt"
    if os.environ.get("ARGOSY_UPDATE_GOLDEN"):
        path.write_text(answer)
    assert answer == path.read_text()


def test_every_answer_has_its_question() -> None:
    assert sorted(path.name.removesuffix(".plan.txt") for path in HERE.glob("*.plan.txt")) == NAMES


def test_old_prices_say_how_old_they_are(table: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with IdleServer(clock=StoppedClock(NOW_MS + 90 * 86_400_000), prices=table) as late:
        answer = told(late, capsys, "plan", "single-gpu.yaml")
        offers = told(late, capsys, "offers", "single-gpu.yaml")
    old = [
        "! warning: prices of aws are 97 days old (2026-01-05); `argosy catalog refresh aws` gets present "
        "ones",
        "! warning: prices of gcp are 97 days old (2026-01-05); `argosy catalog refresh gcp` gets present "
        "ones",
    ]
    assert [line for line in answer.splitlines() if line.startswith("!")] == old
    assert [line for line in offers.splitlines() if line.startswith("!")] == old
    fresh = (HERE / "single-gpu.plan.txt").read_text()
    assert answer.partition("Not considered")[0] == fresh.partition("Not considered")[0]


def test_what_is_wrong_in_the_users_folder_is_left_out_and_said(
    table: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with IdleServer(clock=StoppedClock(), prices=table) as own:
        folder = own.home / "catalog"
        (folder / "live").mkdir(parents=True)
        (folder / "live" / "aws.prices").write_bytes(b"not a table")
        (folder / "lab.csv").write_text(
            "provider,instance_type,vcpus,memory_gib,price_usd_hour\nlab,free,8,32,0\nlab,owed,8,32,-1.5\nlab,fair,8,32,0.05\n"
        )
        (folder / "terms.toml").write_text("[[discount\n")
        answer = told(own, capsys, "plan", "single-gpu.yaml")
        lab = told(own, capsys, "plan", "--infra", "lab", "--", "x")
    assert [line for line in answer.splitlines() if line.startswith("!")] == [
        "! warning: the catalog file live/aws.prices cannot be used: it does not begin like a table of "
        "prices; the shipped prices "
        "are used instead. `argosy catalog refresh aws` makes it again",
        "! warning: lab.csv:2: price_usd_hour of `free` is 0: a price must be above 0; the row is left out",
        "! warning: lab.csv:3: price_usd_hour of `owed` is -1.5: a price must be above 0; the row is left "
        "out",
        "! warning: terms.toml cannot be used: Expected ']]' at the end of an array declaration (at line "
        "1, column 11); list "
        "prices are shown, without discounts and reserved machines",
    ]
    assert "g6.xlarge" in answer and "fair" in lab and "free" not in lab.partition("!")[0]


def test_quotas_that_nobody_knows_are_said(table: Path, capsys: pytest.CaptureFixture[str]) -> None:
    shape = Shape(
        instance_type="n1", cpus_milli=8000, memory_bytes=32 * GIB, accelerator="L4", accelerators_milli=1000
    )
    offer = Offer(
        provider="nimbus", region="east", shape=shape, capacity=Capacity.ON_DEMAND, price_micro_usd=600_000
    )
    cloud = StaticProvider(
        Manifest(name="nimbus", title="a cloud", capabilities=Capabilities(multi_node=True)), [offer]
    )
    with IdleServer(cloud, clock=StoppedClock(), prices=table) as server:
        answer = told(server, capsys, "plan", "single-gpu.yaml")
        cloud.offers = [msgspec.structs.replace(offer, nodes_max=4)]
        counted = told(server, capsys, "plan", "single-gpu.yaml")
    assert answer.endswith(
        "! warning: quotas of nimbus are not known: what your account may not have is refused at launch, "
        "and the next place "
        "is tried then\n"
    )
    assert "quotas" not in counted and "nimbus/east" in counted
    can = Capabilities(multi_node=True, quotas=True)
    knows = StaticProvider(Manifest(name="nimbus", title="a cloud", capabilities=can), [offer])
    with IdleServer(knows, clock=StoppedClock(), prices=table) as server:
        known = told(server, capsys, "plan", "single-gpu.yaml")
    assert "quotas" not in known and "nimbus/east" in known


def test_a_dry_run_shows_the_same_plan(server: IdleServer, capsys: pytest.CaptureFixture[str]) -> None:
    for name in ("single-gpu", "local", "fraction", "eu-residency"):
        plan = (HERE / f"{name}.plan.txt").read_text()
        dry = told(server, capsys, "launch", "--dryrun", f"{name}.yaml")
        if "  yes\n" in plan:
            assert dry == plan + "\nNothing was launched (--dryrun).\n"
        else:  # nothing of it can be launched yet: the same plan, then what a launch would say
            assert dry.startswith(plan) and "\n! error: no offer fits task " in dry
            assert dry.endswith("exit status 3\n")

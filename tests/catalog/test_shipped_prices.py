"""The shipped table: what it holds, how large it is, known figures, facts; against the price files where they
are."""

from __future__ import annotations

import csv
import importlib.util
import os
import re
import sys
from collections import Counter
from pathlib import Path

import pytest

from argosy.catalog import Catalog
from argosy.catalog.catalog import SHIPPED
from argosy.catalog.listing import gpu_rows, region_rows
from argosy.catalog.table import CorruptTable, Table, write_table
from argosy.model.market import DAY_MS
from argosy.model.offer import Capacity
from argosy.model.resources import Accelerator, Infra, Resources
from argosy.model.units import GIB, Bound
from argosy.planning.ability import Ability
from argosy.planning.choose import plan
from argosy.planning.market import rank
from argosy.planning.objective import Known, evaluate
from argosy.server.price_rows import offer_view

PRICES = os.environ.get("ARGOSY_PRICES", "")
needs_files = pytest.mark.skipif(
    not PRICES, reason="ARGOSY_PRICES is not set: the shipped table is not compared with its price files"
)
NOW_MS = 20_700 * DAY_MS  # 2026-09-04


@pytest.fixture(scope="module")
def catalog() -> Catalog:
    return Catalog.load()


def test_every_named_cloud_has_prices(catalog: Catalog) -> None:
    counts = {name: len(catalog.market.block(name)) for name in catalog.providers}
    assert counts == {
        "aws": 25605,
        "azure": 30009,
        "cudo": 75,
        "digitalocean": 38,
        "fluidstack": 1,
        "gcp": 13517,
        "hyperstack": 25,
        "ibm": 54,
        "lambda": 408,
        "nebius": 84,
        "oci": 4520,
        "paperspace": 19,
        "runpod": 686,
        "scp": 291,
        "vast": 60,
        "verda": 55,
    }
    assert counts == dict(Table.open(SHIPPED).offers())
    assert len(catalog.market) == 75_447
    assert {fact.provider for fact in catalog.storage()} >= {"cloudflare", "aws", "gcp", "azure", "oci"}


def test_it_is_small() -> None:
    assert SHIPPED.stat().st_size < 600_000  # 6 MB is the promise


def test_the_whole_table_is_sound() -> None:
    Table.open(SHIPPED).check()


@pytest.mark.parametrize(
    ("provider", "instance_type", "region", "capacity", "usd"),
    [
        ("aws", "p4d.24xlarge", "us-east-1", Capacity.ON_DEMAND, 21.957642),
        ("aws", "g6.xlarge", "us-east-1", Capacity.ON_DEMAND, 0.8048),
        ("gcp", "a2-highgpu-8g", "us-central1", Capacity.ON_DEMAND, 29.3870),
        ("lambda", "gpu_8x_h100_sxm5", "us-east-1", Capacity.ON_DEMAND, 31.92),
        ("oci", "VM.GPU.A10.1", "us-ashburn-1", Capacity.ON_DEMAND, 2.0),
        ("hyperstack", "n3-A100x1", "CANADA-1", Capacity.ON_DEMAND, 1.35),
        ("gcp", "tpu-v2-8", "asia-east1", Capacity.SPOT, 1.566),
        ("azure", "Standard_D128ds_v6", "australiacentral", Capacity.ON_DEMAND, 9.967),
        ("fluidstack", "H100_NVLINK_80GB::8", "FINLAND", Capacity.ON_DEMAND, 23.92),
        ("ibm", "gx2-8x64x1v100", "us-south", Capacity.ON_DEMAND, 2.497),
        ("runpod", "1x_A100-80GB_SECURE", "AU", Capacity.ON_DEMAND, 1.39),
        ("scp", "s1v1m2", "KOREA-WEST-1-SCP-B001", Capacity.ON_DEMAND, 0.05),
        ("verda", "1B300.30V", "FIN-03", Capacity.SPOT, 2.447),
        ("nebius", "cpu-d3_4vcpu-16gb", "eu-north1", Capacity.ON_DEMAND, 0.0992),
    ],
)
def test_known_figures(
    catalog: Catalog, provider: str, instance_type: str, region: str, capacity: Capacity, usd: float
) -> None:
    found = catalog.prices_for(instance_type, provider=provider, region=region, capacity=capacity)
    assert found
    assert found[0].price_micro_usd == pytest.approx(usd * 1e6, rel=1e-4)


def test_every_figure_has_a_source_and_estimates_say_how(catalog: Catalog) -> None:
    for name in catalog.providers:
        for note in catalog.market.block(name).notes:
            assert note.source
            assert note.rule or not note.estimated
            assert "undated" not in note.source
    (spot,) = catalog.prices_for("c5.12xlarge", provider="aws", region="af-south-1", capacity=Capacity.SPOT)
    assert spot.estimated
    assert catalog.source_of(spot)[1].startswith("on-demand x (1-87%) EC2 Spot Advisor")
    (listed,) = catalog.prices_for(
        "c5.12xlarge", provider="aws", region="af-south-1", capacity=Capacity.ON_DEMAND
    )
    assert not listed.estimated


def test_names_of_accelerators_are_those_of_task_files(catalog: Catalog) -> None:
    from argosy.spec.accelerators import canonical_accelerator

    odd = {
        name for name in catalog.offered_models().values() if canonical_accelerator(name) not in (name, None)
    }
    assert odd == set()
    unknown = {name for name in catalog.offered_models().values() if catalog.accelerator(name) is None}
    assert unknown == set()


def test_accelerators_have_memory_and_interconnect(catalog: Catalog) -> None:
    h100 = catalog.accelerator("h100-sxm5")
    assert h100 is not None
    assert (h100.name, h100.memory_bytes, h100.interconnect) == ("H100-SXM", 80 * GIB, "NVLink4 900 GB/s")
    chip = catalog.accelerator("tpu-v5p-8")
    assert chip is not None
    assert chip.name == "tpu-v5p"
    assert catalog.accelerator("nothing") is None
    assert all(fact.memory_bytes for fact in catalog.accelerators())
    assert [fact.name for fact in catalog.accelerators() if not fact.architecture] == []
    assert h100.architecture == "Hopper"
    assert len(catalog.accelerators()) == 81


def test_hazard_and_traffic(catalog: Catalog) -> None:
    band = catalog.hazard("aws", "af-south-1", "c5.12xlarge")
    assert band is not None
    assert (band.low_pct, band.high_pct, band.savings_pct, band.as_of) == (20, 100, 87, "2025-06-28")
    assert catalog.hazard("aws", "af-south-1", "x9.huge") is None
    assert catalog.hazard("gcp", "us-central1", "g2-standard-4") is None
    assert catalog.egress_micro_usd_per_gb("aws/us-east-1", "aws/us-east-1") == 0
    assert catalog.egress_micro_usd_per_gb("aws/us-east-1", "aws/us-west-2") == 20_000
    assert catalog.egress_micro_usd_per_gb("aws/us-east-1", "gcp/us-central1") == 90_000
    assert catalog.egress_micro_usd_per_gb("cloudflare/global", "aws/us-east-1") == 0
    assert catalog.egress("aws/eu-west-3", "internet").note == "figure of eu-west-1"
    assert catalog.egress("oci/ap-seoul-1", "internet").micro_usd_per_gb == 25_000
    unknown = catalog.egress("lambda/us-east-1", "internet")
    assert (unknown.micro_usd_per_gb, unknown.estimated) == (0, True)
    assert catalog.egress("ssh/lab", "internet").estimated is False


def test_attached_accelerators_are_priced_apart(catalog: Catalog) -> None:
    t4 = [fact for fact in catalog.attached("T4") if fact.zone == "asia-east1-a"]
    assert [(fact.price_micro_usd, fact.spot_micro_usd) for fact in t4] == [(350_000, 166_400)]
    assert len(catalog.attached()) == 92


def test_age_is_told(catalog: Catalog) -> None:
    assert catalog.stale_warning("oci", NOW_MS) == (
        "prices of oci are 473 days old (2025-05-19); `argosy catalog refresh oci` gets present ones"
    )
    assert catalog.stale_warning("digitalocean", NOW_MS) == (
        "prices of digitalocean have no date; `argosy catalog refresh digitalocean` gets present ones"
    )
    assert catalog.stale_warning("gcp", NOW_MS) == ""
    assert catalog.stale_warning("gcp", NOW_MS, stale_days=10).startswith("prices of gcp are 32 days old")
    ages = {age.provider: age for age in catalog.ages(NOW_MS)}
    assert ages["lambda"].undated == 85
    assert ages["azure"].source == "shipped"


@pytest.mark.parametrize(
    ("name", "what", "hint"),
    [
        (
            "A1000",
            "there is no accelerator `A1000`",
            "the nearest are `A100` (40 GB), `A10` (24 GB), `A100-80GB` (80 GB)",
        ),
        (
            "H1OO",
            "there is no accelerator `H1OO`",
            "the nearest are `H100` (80 GB), `H100-NVL` (94 GB), `H100-SXM` (80 GB)",
        ),
        (
            "tpu-v7",
            "no known provider offers `tpu-v7` (192 GB)",
            "the nearest are `tpu-v2-8` (16 GB a chip), `tpu-v3-8` (32 GB a chip), `tpu-v4-8` (32 GB a chip)",
        ),
        ("xyzzy", "there is no accelerator `xyzzy`", "`argosy gpus` lists what exists"),
    ],
)
def test_unknown_accelerators(catalog: Catalog, name: str, what: str, hint: str) -> None:
    error = catalog.unknown_accelerator(name)
    assert error is not None
    assert (error.code, error.what, error.hint) == ("no-offer", what, hint)
    assert catalog.unknown_accelerator("a100") is None
    assert catalog.unknown_accelerator("H100-SXM5") is None


@pytest.mark.parametrize(
    ("place", "what", "hint"),
    [
        (
            ("aws", "us-east-9", None),
            "aws has no region `us-east-9`",
            "the nearest are `us-east-1` (Northern Virginia), `us-east-2` (Ohio), `sa-east-1` (Sao Paulo)",
        ),
        (("awz", None, None), "there is no infrastructure `awz`", "did you mean `aws`?"),
        (
            ("gcp", "us-central1", "us-central1-z"),
            "gcp/us-central1 has no zone `us-central1-z`",
            "known zones are `us-central1-a`, `us-central1-b`, `us-central1-c`, `us-central1-f`",
        ),
        (
            ("nebius", "atlantis-1", None),
            "nebius has no region `atlantis-1`",
            "`argosy regions` lists what exists",
        ),
    ],
)
def test_unknown_places(
    catalog: Catalog, place: tuple[str | None, str | None, str | None], what: str, hint: str
) -> None:
    error = catalog.unknown_place(*place)
    assert error is not None
    assert (error.what, error.hint) == (what, hint)


@pytest.mark.parametrize(
    "place",
    [(None, None, None), ("aws", "us-east-1", "us-east-1a"), ("aws", "*", None), ("*", "us-east-1", None),
     ("ssh", "lab", None), ("gcp", "us-central1", "us-central1-a"), ("kubernetes", "my-context", None)],
)  # fmt: skip
def test_known_places(catalog: Catalog, place: tuple[str | None, str | None, str | None]) -> None:
    assert catalog.unknown_place(*place) is None


def test_clouds_are_for_showing(catalog: Catalog) -> None:
    wish = Resources(accelerator=Accelerator(model="L4", milli=1000))
    ranking = rank([wish], 1, catalog.market, launchable=lambda provider: False)
    assert ranking.plan.choices == ()
    assert {row.code for row in ranking.plan.rejected} >= {"not-in-use"}
    assert len(ranking.shown) == 64


@pytest.mark.parametrize(
    "wish",
    [
        Resources(accelerator=Accelerator(model="L4", milli=1000), use_spot=False),
        Resources(accelerator=Accelerator(model="A100", milli=8000), use_spot=True),
        Resources(accelerator=Accelerator(model="L4", milli=500)),
        Resources(accelerator=Accelerator(model=None, milli=8000, memory_min_bytes=140 * GIB)),
        Resources(cpus=Bound(64_000, exact=True), memory=Bound(500 * GIB), infra=Infra(region="us-east-1")),
        Resources(infra=Infra(provider="gcp", region="us-central1", zone="us-central1-a"), instance_type="n1-standard-8"),  # noqa: E501
        Resources(accelerator=Accelerator(model="H100", milli=8000), max_hourly_micro_usd=20_000_000),
    ],
)  # fmt: skip
def test_candidates_lose_nothing(catalog: Catalog, wish: Resources) -> None:
    """Planning over the candidates is planning over everything."""
    abilities = dict.fromkeys(catalog.providers, Ability(spot=True, multi_node=True))
    narrowed = plan([wish], 1, catalog.candidates(wish), abilities=abilities)
    fast = rank([wish], 1, catalog.market, limit=None)
    assert narrowed.choices == fast.plan.choices
    assert fast.fitting == len(narrowed.choices) > 0


def test_rows_for_people(catalog: Catalog) -> None:
    rows = gpu_rows(catalog, model="a100", milli=8000)
    assert {row.accelerator for row in rows} == {"A100"}
    assert {row.provider for row in rows} >= {"aws", "gcp", "lambda", "oci"}
    aws = next(row for row in rows if row.provider == "aws")
    assert aws.interconnect == "NVLink3 600 GB/s"
    assert aws.on_demand is not None
    assert len(gpu_rows(catalog, model="A100", milli=8000, cheapest=True)) <= len(
        {row.provider for row in rows}
    )
    assert all(row.spot for row in gpu_rows(catalog, spot=True))
    here = gpu_rows(catalog, model="L4", infra=Infra(provider="aws", region="us-east-1"))
    assert here
    assert all(row.regions == ("us-east-1",) for row in here)
    estimated = next(
        row
        for row in gpu_rows(catalog, infra=Infra(provider="vast"))
        if row.on_demand and row.on_demand.estimated
    )
    assert estimated.on_demand is not None
    assert estimated.on_demand.render().startswith("~$")

    wish = Resources(accelerator=Accelerator(model="L4", milli=1000), use_spot=True)
    choices = rank([wish], 2, catalog.market, limit=5).plan.choices
    shown = [offer_view(catalog, evaluate(each, 2, Known()), 1, (), ()) for each in choices]
    assert len(shown) == 5
    assert all(row.source and row.hourly_micro_usd == 2 * row.price.micro_usd for row in shown)
    assert any(row.interrupted_pct_high is not None for row in shown if row.provider == "aws")


def test_regions_and_residency(catalog: Catalog) -> None:
    eu = region_rows(catalog, area="eu")
    assert {row.country for row in eu} >= {"DE", "FR", "FI"}
    assert not {row.country for row in eu} & {"CH", "GB", "US", "NO"}
    virginia = next(row for row in region_rows(catalog, provider="aws") if row.region == "us-east-1")
    assert (virginia.country, virginia.city) == ("US", "Northern Virginia")
    assert {"A100", "L4", "Trainium"} <= set(virginia.accelerators)
    assert virginia.offers > 1000
    assert {row.country for row in region_rows(catalog, area="eea")} >= {"DE", "NO"}
    assert {row.country for row in region_rows(catalog, area="kr")} == {"KR"}
    assert {row.region for row in region_rows(catalog, provider="aws", area="ap-northeast-*")} == {
        "ap-northeast-1", "ap-northeast-2", "ap-northeast-3",
    }  # fmt: skip


def test_a_damaged_table_is_noticed() -> None:
    data = bytearray(SHIPPED.read_bytes())
    with pytest.raises(CorruptTable, match="begin"):
        Table(b"nothing")
    with pytest.raises(CorruptTable):
        Table(bytes(data[:-1000])).check()
    data[-1] ^= 1
    with pytest.raises(CorruptTable, match="damaged"):
        Table(bytes(data)).check()
    data = bytearray(SHIPPED.read_bytes())
    data[40] ^= 1
    with pytest.raises(CorruptTable, match="directory"):
        Table(bytes(data))


def test_every_changed_byte_is_noticed() -> None:
    table = Table.open(SHIPPED)
    small = write_table("2026-01-01", [table.block("fluidstack"), table.block("nebius")])
    Table(small).check()
    for at in range(0, len(small), 7):
        changed = bytearray(small)
        changed[at] ^= 0x20
        with pytest.raises(CorruptTable):
            Table(bytes(changed)).check()


def test_a_slice_is_listed_at_the_price_of_all_its_hosts(catalog: Catalog) -> None:
    (small,), (large,) = (gpu_rows(catalog, model=f"tpu-v5p-{size}") for size in (8, 128))
    assert small.on_demand and large.on_demand and small.spot and large.spot
    assert (small.hosts, large.hosts) == (1, 16)
    assert large.on_demand.micro_usd == 16 * small.on_demand.micro_usd
    assert large.spot.micro_usd == 16 * small.spot.micro_usd


def test_a_slice_over_several_hosts_is_told_by_its_hosts(catalog: Catalog) -> None:
    """Each of them is a node: prices, processors and memory are of one."""
    block = catalog.market.block("gcp")
    (small,), (large,) = block.of_type("tpu-v5p-8"), block.of_type("tpu-v5p-128")
    assert block.shape(small).memory_bytes == block.shape(large).memory_bytes
    assert block.shape(small).cpus_milli == block.shape(large).cpus_milli
    slices = Accelerator(model="tpu-v5p-128", milli=1000)
    wish = Resources(infra=Infra(provider="gcp"), accelerator=slices, use_spot=False)
    (best,) = rank([wish], 16, catalog.market, limit=1).plan.choices
    assert best.price_micro_usd == 16 * best.offer.price_micro_usd == 268_800_000
    (refused,) = [
        each
        for each in rank([wish], 4, catalog.market).plan.rejected
        if (each.provider, each.code) == ("gcp", "slice")
    ]
    assert refused.text == "tpu-v5p-128 has 16 hosts, and each is a node: asked for 4 (`num_nodes: 16`)"


# --- against the price files -----------------------------------------------------------------------


@needs_files
def test_counts_are_those_of_the_price_files(catalog: Catalog) -> None:
    text = (Path(PRICES) / "README.md").read_text(encoding="utf-8")
    told = re.findall(r"^\| (\w+)\.csv \| (\d+) \| (\d+) \| (\d+) \| (\d+) \|", text, re.MULTILINE)
    assert len(told) == 17
    for provider, rows, types, regions, spot in told:
        if provider == "gcp_attach":
            assert len(catalog.attached()) == int(rows)
            continue
        block = catalog.market.block(provider)
        capacities = Counter({lane.capacity: len(lane.price) for lane in block.lanes})
        assert capacities[Capacity.SPOT] == int(spot)
        assert len(set(block.instance_types)) == int(types)
        assert len({place.region for place in block.places}) == int(regions)
        with (Path(PRICES) / f"{provider}.csv").open(newline="") as lines:
            assert capacities[Capacity.ON_DEMAND] == sum(
                bool(row["price_usd_hour"]) for row in csv.DictReader(lines)
            )


@needs_files
def test_the_shipped_table_is_what_the_script_builds() -> None:
    path = Path(__file__).resolve().parents[2] / "tools" / "build_catalog.py"
    loader = importlib.util.spec_from_file_location("build_catalog", path)
    assert loader is not None
    assert loader.loader is not None
    script = importlib.util.module_from_spec(loader)
    sys.modules["build_catalog"] = script
    loader.loader.exec_module(script)
    fresh = Table(script.build(Path(PRICES)))
    shipped = Table.open(SHIPPED)
    assert fresh.directory.offers == shipped.directory.offers
    assert fresh.facts() == shipped.facts()
    assert fresh.hazards() == shipped.hazards()
    for provider in shipped.providers:
        one, other = fresh.block(provider), shipped.block(provider)
        assert one.lanes == other.lanes
        assert one.notes == other.notes
        assert one.instance_types == other.instance_types


@pytest.mark.parametrize(("asked", "arch"), [("", "x86_64"), ("arm64", "arm64")])
def test_processors_are_x86_64_unless_others_are_asked_for(catalog: Catalog, asked: str, arch: str) -> None:
    wish = Resources(infra=Infra(provider="aws"), cpus=Bound(4000), arch=asked)
    (best,) = rank([wish], 1, catalog.market, limit=1).plan.choices
    assert best.offer.shape.arch == arch


def test_any_processors_will_do_where_the_wish_says_so(catalog: Catalog) -> None:
    wish = Resources(infra=Infra(provider="aws"), cpus=Bound(4000), arch="any")
    (best,) = rank([wish], 1, catalog.market, limit=1).plan.choices
    assert best.offer.shape.arch == "arm64"  # the cheapest


def test_a_model_of_accelerator_has_chosen_its_processors(catalog: Catalog) -> None:
    wish = Resources(accelerator=Accelerator(model="GH200", milli=1000))
    (best, *_) = rank([wish], 1, catalog.market, limit=1).plan.choices
    assert best.offer.shape.arch == "arm64"

"""Fetchers of Verda, Hyperstack, Cudo, Fluidstack, IBM and Nebius against servers that speak their wire
formats."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from price_refreshes import FETCHERS, fetch, refresh

from argosy.catalog import Catalog
from argosy.catalog.table import PriceRow
from argosy.model.errors import ArgosyError, render_error
from argosy.model.market import DAY_MS
from argosy.model.offer import Capacity
from argosy.model.units import GIB
from argosy.providers.cudo.sample import machine_type
from argosy.providers.hyperstack.sample import flavor
from argosy.providers.ibm.sample import metric, profile, quote
from argosy.providers.nebius.sample import FakeNebius, Platform, Preset
from argosy.providers.verda.sample import verda_type
from argosy.testing.fake_prices import FakePrices

NOW_MS = 20_779 * DAY_MS  # 2026-11-22
KEYS = {key: "s3cret-key" for service in FETCHERS.values() for key in service.keys}
SPOT, ON_DEMAND = Capacity.SPOT, Capacity.ON_DEMAND


@pytest.fixture(scope="module")
def catalog() -> Catalog:
    return Catalog.load()


@pytest.fixture
def service() -> Iterator[FakePrices]:
    with FakePrices() as fake:
        yield fake


def ask(catalog: Catalog, provider: str, endpoint: str) -> tuple[list[PriceRow], int]:
    found, today = fetch(catalog, provider, environ=KEYS, now_ms=NOW_MS, endpoint=endpoint)
    assert today == "2026-11-22"
    assert all(row.note.as_of_day == 20_779 and row.note.source for row in found.rows)
    return list(found.rows), found.skipped


def usd(rows: list[PriceRow], name: str, region: str, capacity: Capacity = ON_DEMAND) -> list[float]:
    wanted = (name, region, capacity)
    return [
        row.price_micro_usd / 1e6 for row in rows if (row.instance_type, row.region, row.capacity) == wanted
    ]


def one(rows: list[PriceRow], name: str) -> PriceRow:
    return next(row for row in rows if row.instance_type == name)


def refused(catalog: Catalog, folder: Path, provider: str, endpoint: str, **options: Any) -> str:
    with pytest.raises(ArgosyError) as caught:
        refresh(
            catalog,
            folder,
            provider,
            environ=KEYS,
            now_ms=NOW_MS,
            endpoint=endpoint,
            sleep_s=lambda _: None,
            **options,
        )
    assert not (folder / "live").exists()
    return render_error(caught.value)


# -- Verda ------------------------------------------------------------------------------------------


def test_verda(catalog: Catalog, service: FakePrices) -> None:
    service["verda"].client = ("s3cret-key", "s3cret-key")
    service["verda"].types = [
        verda_type("1B300.30V", "5.50", "1.75", "B300", 1, 262),
        verda_type("9H900.30V", "1.0", None, "H900", 9, 900),
        verda_type("4X200.new", "16.0", "0", "H200", 4, 564),
        {
            **verda_type("CPU.4V.16G", "0.0279", None, "", 0, 0),
            "gpu": {"description": "", "number_of_gpus": 0},
        },
    ]
    service["verda"].stock = {
        False: [{"location_code": "FIN-01", "availabilities": ["4X200.new", "CPU.4V.16G", "1B300.30V"]}],
        True: [{"location_code": "FIN-02", "availabilities": ["1B300.30V"]}],
    }
    rows, skipped = ask(catalog, "verda", service.url)
    assert usd(rows, "1B300.30V", "FIN-03") == [5.5]  # where it was known to be sold
    assert usd(rows, "1B300.30V", "FIN-01") == [5.5]  # in stock there
    assert usd(rows, "1B300.30V", "FIN-02") == []
    assert usd(rows, "1B300.30V", "FIN-02", SPOT) == [1.75]
    new = one(rows, "4X200.new")
    assert (new.model, new.accelerators_milli, new.device_memory_bytes) == ("H200", 4000, 141 * GIB)
    assert usd(rows, "4X200.new", "FIN-01", SPOT) == []
    assert one(rows, "CPU.4V.16G").model == ""
    assert skipped == 1  # an unknown accelerator
    assert [path for _, path, _ in service.requests] == [
        "/v1/oauth2/token",
        "/v1/instance-availability?is_spot=false",
        "/v1/instance-availability?is_spot=true",
        "/v1/instance-types",
    ]


def test_verda_with_a_wrong_secret(tmp_path: Path, catalog: Catalog, service: FakePrices) -> None:
    service["verda"].client = ("s3cret-key", "another")
    assert refused(catalog, tmp_path, "verda", service.url) == (
        "error: the price service of verda does not let us in (401); the old prices are kept\n"
        "hint: check VERDA_CLIENT_ID and VERDA_CLIENT_SECRET: the service does not accept them"
    )


# -- Hyperstack -------------------------------------------------------------------------------------


def test_hyperstack(catalog: Catalog, service: FakePrices) -> None:
    service.secret = "s3cret-key"
    service["hyperstack"].pricebook = [
        {
            "id": 1,
            "name": "A100-80G-PCIe",
            "value": "1.2",
            "original_value": "1.35",
            "discount_applied": False,
        },
        {"id": 2, "name": "A100-80G-PCIe-spot", "value": "0.95"},
        {"id": 3, "name": "H200-141G-SXM5", "value": 3.5},
        {"id": 4, "name": "vCPU (cpu-only-flavors)", "value": "0.01"},
        {"id": 5, "name": "RAM (cpu-only-flavors)", "value": "0.005"},
        {"id": 6, "name": "Mystery", "value": "1"},
    ]
    service["hyperstack"].flavors = [
        {
            "gpu": "A100-80G-PCIe", "region_name": "CANADA-1",
            "flavors": [
                flavor("n3-A100x1", "CANADA-1", "A100-80G-PCIe", 1),
                flavor("n3-A100x8", "", "A100-80G-PCIe", 8),
                flavor("n3-A100x1-spot", "NORWAY-1", "A100-80G-PCIe-spot", 1),
            ],
        },
        {
            "gpu": "", "region_name": "NORWAY-1",
            "flavors": [
                flavor("n1-cpu-small", "NORWAY-1", "", 0, cpu=4, ram=4),
                flavor("n3-H200x8", "NORWAY-1", "H200-141G-SXM5", 8),
                flavor("n3-L90x1", "NORWAY-1", "L90", 1),
                flavor("n3-Mystery", "NORWAY-1", "Mystery", 1),
            ],
        },
    ]  # fmt: skip
    rows, skipped = ask(catalog, "hyperstack", service.url)
    assert usd(rows, "n3-A100x1", "CANADA-1") == [1.2]
    assert usd(rows, "n3-A100x8", "CANADA-1") == [9.6]  # the region of its group
    assert usd(rows, "n3-A100x1-spot", "NORWAY-1", SPOT) == [0.95]
    assert usd(rows, "n1-cpu-small", "NORWAY-1") == [0.06]
    h200 = one(rows, "n3-H200x8")
    assert (h200.model, h200.accelerators_milli, h200.price_micro_usd) == ("H200", 8000, 28_000_000)
    assert h200.note.rule == "8 x H200-141G-SXM5"
    assert one(rows, "n3-A100x1").model == "A100-80GB"
    assert skipped == 2


# -- Cudo -------------------------------------------------------------------------------------------


def test_cudo(catalog: Catalog, service: FakePrices) -> None:
    service["cudo"].types = [
        machine_type("ice-lake-a40-compute", "ca-montreal-3", "A40 (compute mode)", "0.30"),
        machine_type("new-h100", "se-new-1", "H100 SXM", "2.0", maxVcpuPerGpu="Infinity", minVcpuPerGpu=4),
        machine_type("mystery", "se-new-1", "M900", "1"),
        machine_type("free", "se-new-1", "H100 SXM", "0"),
    ]
    rows, skipped = ask(catalog, "cudo", service.url)
    assert usd(rows, "ice-lake-a40-compute_1x2v4gb", "ca-montreal-3") == [pytest.approx(0.30 + 0.005 + 0.016)]
    assert (
        one(rows, "ice-lake-a40-compute_1x2v4gb").note.rule
        == "2 CPUs x 0.0025 + 4 GiB x 0.004 + 1 GPUs x 0.3"
    )
    new = [row for row in rows if row.instance_type.startswith("new-h100_")]
    assert new and all(row.model == "H100-SXM" for row in new)
    assert min(row.cpus_milli / row.accelerators_milli for row in new) == 4
    assert skipped == 2


# -- Fluidstack -------------------------------------------------------------------------------------


def test_fluidstack(tmp_path: Path, catalog: Catalog, service: FakePrices) -> None:
    service.secret = "s3cret-key"
    service["fluidstack"].configurations = [
        {
            "gpu_type": "H100_NVLINK_80GB",
            "price_per_gpu_hr": "2.49",
            "gpu_counts": [1, 8],
            "regions": ["FINLAND", "norway_4_eu"],
        },
        {"gpu_type": "L40_48GB", "price_per_gpu_hr": 1.25, "gpu_counts": [1, 2], "regions": ["canada"]},
    ]
    rows, skipped = ask(catalog, "fluidstack", service.url)
    assert usd(rows, "H100_NVLINK_80GB::8", "FINLAND") == [19.92]
    assert {row.region for row in rows} == {"FINLAND", "norway_4_eu"}
    assert skipped == 3  # shapes that nobody tells
    service["fluidstack"].configurations = []
    assert refused(catalog, tmp_path, "fluidstack", service.url).startswith(
        "error: the new prices of fluidstack are refused: 0 instead of 1 before; the old ones are kept\n"
    )


# -- IBM --------------------------------------------------------------------------------------------


def ibm(service: FakePrices) -> None:
    whole = ("INSTANCE_MULTI_TENANT", "1")
    parts = (
        ("VCPU", "8"),
        ("MEMORY", "64"),
        ("GPU", "1"),
        ("GPU_CARD", "V100"),
        ("PROFILE", "gx2-8x64x1v100"),
        ("IS_STORAGE", "0"),
    )
    service["ibm"].profiles = [
        profile("gx3d-160x1792x8h100", "plan-h100", whole),
        profile("gx2-8x64x1v100", "plan-parts", *parts),
        profile("bx2-8x32", "plan-parts", ("VCPU", "8"), ("MEMORY", "32")),
        profile("gx3-48x240x2a100", "plan-gone", whole),
        profile("gx9-1x1x1mystery", "plan-h100", whole),
        {
            "id": "x",
            "name": "bx2-host-152x608",
            "metadata": {"other": {"profile": {"resource_type": "dedicated-host"}}},
        },
    ]
    hours, spot = "part-is.instance-hours-gx3d-160x1792x8h100", "part-is.spot-gx3d-160x1792x8h100"
    service["ibm"].quotes = {
        "plan-h100": [
            quote(
                "eu-de",
                "d1",
                metric("INSTANCE_HOURS_MULTI_TENANT", 99.6, hours),
                metric("SPOT_HOURS", 24.9, spot),
            ),
            quote(
                "us-east",
                "d2",
                metric("INSTANCE_HOURS_MULTI_TENANT", 85.0, hours),
                metric("RHEL_VCPU_HOURS", 1.0, "rhel"),
            ),
            quote("DEFAULT", "d3", metric("INSTANCE_HOURS_MULTI_TENANT", 1.0, hours)),
            quote("br-sao", "d4", metric("INSTANCE_HOURS_MULTI_TENANT", 1.0, hours, country="BRA")),
        ],
        "plan-parts": [
            quote(
                "us-south",
                "p1",
                metric("VCPU_HOURS", 0.2),
                metric("MEMORY_HOURS", 0.3),
                metric("V100_HOURS", 2.0),
            ),
            quote("us-south", "p2", metric("VCPU_HOURS", 0.25), metric("MEMORY_HOURS", 0.15)),
            quote("eu-gb", "p3", metric("VCPU_HOURS", 0.25)),
        ],
    }
    service["ibm"].deployments = {
        "plan-parts": [
            {"id": "p1", "name": "gx2-8x64x1v100-us-south", "kind": "deployment"},
            {"id": "p2", "name": "bx2-8x32-us-south", "kind": "deployment"},
            {"id": "p3", "name": "bx2-8x32-eu-gb", "kind": "deployment"},
        ]
    }


def test_ibm(catalog: Catalog, service: FakePrices) -> None:
    ibm(service)
    rows, skipped = ask(catalog, "ibm", service.url)
    h100 = one(rows, "gx3d-160x1792x8h100")
    assert (h100.model, h100.accelerators_milli, h100.cpus_milli, h100.memory_bytes) == (
        "H100",
        8000,
        160_000,
        1792 * GIB,
    )
    assert usd(rows, "gx3d-160x1792x8h100", "eu-de") == [99.6]
    assert usd(rows, "gx3d-160x1792x8h100", "eu-de", SPOT) == [24.9]
    assert usd(rows, "gx3d-160x1792x8h100", "us-east") == [85.0]
    assert {row.region for row in rows if row.model == "H100"} == {"eu-de", "us-east"}
    assert usd(rows, "gx2-8x64x1v100", "us-south") == [2.5]
    assert one(rows, "gx2-8x64x1v100").note.rule == "vcpu 0.2 + memory 0.3 + v100 2"
    assert usd(rows, "bx2-8x32", "us-south") == [0.4]
    assert usd(rows, "bx2-8x32", "eu-gb") == []  # a part without a price
    assert skipped == 3  # a plan that is not there, an accelerator that nobody knows, no virtual server
    pages = [path for _, path, _ in service.requests if path.startswith("/api/v1?")]
    assert len(pages) == 3


def test_ibm_in_full(tmp_path: Path, catalog: Catalog, service: FakePrices) -> None:
    ibm(service)
    assert refused(catalog, tmp_path, "ibm", service.url).startswith(
        "error: the new prices of ibm are refused: 5 instead of 54 before; the old ones are kept\n"
    )
    kept = refresh(catalog, tmp_path, "ibm", environ={}, now_ms=NOW_MS, endpoint=service.url, force=True)
    assert (kept.before, kept.after, kept.skipped) == (54, 5, 3)
    age = Catalog.load(tmp_path).age("ibm", NOW_MS)
    assert (age.source, age.days, age.undated) == ("refreshed", 0, 0)


# -- Nebius -----------------------------------------------------------------------------------------

H100 = Platform(
    name="gpu-h100-sxm", gpu_memory_gb=80,
    presets=(
        Preset(name="1gpu-16vcpu-200gb", vcpus=16, memory_gib=200, gpus=1, usd="2.95", spot_usd="1.25"),
        Preset(name="8gpu-128vcpu-1600gb", vcpus=128, memory_gib=1600, gpus=8, usd="23.6"),
    ),
)  # fmt: skip
CPU = Platform(name="cpu-d3", presets=(Preset(name="4vcpu-16gb", vcpus=4, memory_gib=16, usd="0.0992"),))
NEW = Platform(
    name="gpu-b300-sxm",
    gpu_memory_gb=288,
    presets=(Preset(name="8gpu-192vcpu-2768gb", vcpus=192, memory_gib=2768, gpus=8, usd="48"),),
)
STRANGE = Platform(
    name="gpu-x900-a", gpu_memory_gb=9, presets=(Preset(name="1gpu", vcpus=1, memory_gib=1, gpus=1),)
)


@pytest.fixture
def nebius() -> Iterator[FakeNebius]:
    pytest.importorskip("nebius", reason="the SDK is not installed (`pip install .[nebius]`)")
    with FakeNebius() as fake:
        fake.token = "s3cret-key"
        fake.regions = {"eu-north1": [H100, CPU, STRANGE], "eu-west1": [H100], "us-central1": [NEW]}
        yield fake


def test_nebius(catalog: Catalog, nebius: FakeNebius) -> None:
    rows, skipped = ask(catalog, "nebius", nebius.address)
    name = "gpu-h100-sxm_1gpu-16vcpu-200gb"
    assert usd(rows, name, "eu-north1") == usd(rows, name, "eu-west1") == [2.95]
    assert usd(rows, name, "eu-north1", SPOT) == [1.25]
    assert usd(rows, "gpu-h100-sxm_8gpu-128vcpu-1600gb", "eu-north1", SPOT) == []
    assert usd(rows, "cpu-d3_4vcpu-16gb", "eu-north1") == [0.0992]
    new = one(rows, "gpu-b300-sxm_8gpu-192vcpu-2768gb")
    assert (new.accelerators_milli, new.cpus_milli, new.memory_bytes) == (8000, 192_000, 2768 * GIB)
    assert new.model.startswith("B300")
    assert skipped == 1


def test_regions_that_nebius_was_not_asked_about_keep_their_prices(
    tmp_path: Path, catalog: Catalog, nebius: FakeNebius
) -> None:
    block = catalog.listed_block("nebius")
    assert block is not None
    elsewhere = sum(
        block.places[lane.place[row]].region == "me-west1"
        for lane in block.lanes
        for row in range(len(lane.price))
    )
    assert elsewhere
    refresh(catalog, tmp_path, "nebius", environ=KEYS, now_ms=NOW_MS, endpoint=nebius.address, force=True)
    fresh = Catalog.load(tmp_path).market.block("nebius")
    kept = [fresh.offer(*row) for row in fresh.rows()]
    assert sum(offer.region == "me-west1" for offer in kept) == elsewhere
    assert {offer.region for offer in kept} == {"eu-north1", "eu-west1", "me-west1", "us-central1"}


@pytest.mark.parametrize(
    ("failing", "token", "text"),
    [
        (
            "", "another",
            "error: the price service of nebius does not let us in (unauthenticated); the old prices are "
            "kept\n"
            "hint: check NEBIUS_IAM_TOKEN: `nebius iam get-access-token` makes a new one",
        ),
        (
            "INTERNAL", "s3cret-key",
            "error: the price service of nebius cannot be used: it answers internal; the old prices are "
            "kept\n"
            "hint: repeat `argosy catalog refresh nebius` later",
        ),
    ],
)  # fmt: skip
def test_nebius_refuses(
    tmp_path: Path, catalog: Catalog, nebius: FakeNebius, failing: str, token: str, text: str
) -> None:
    nebius.failing, nebius.token = failing, token
    assert refused(catalog, tmp_path, "nebius", nebius.address) == text

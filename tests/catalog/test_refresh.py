"""Fetchers against a server that speaks each vendor's wire format."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from price_refreshes import FETCHERS, UNPRICED, fetch, refresh

from argosy.catalog import Catalog
from argosy.catalog.refresh import Stopped, Watch
from argosy.catalog.refresh.book import Book
from argosy.catalog.table import PriceRow
from argosy.model.errors import ArgosyError, render_error
from argosy.model.market import DAY_MS
from argosy.model.offer import Capacity
from argosy.model.units import GIB
from argosy.providers.aws.sample import product
from argosy.providers.azure.sample import azure_item
from argosy.providers.gcp.sample import sku
from argosy.providers.lambda_cloud.sample import lambda_type
from argosy.providers.oci.sample import part
from argosy.testing.fake_prices import FakePrices

NOW_MS = 20_779 * DAY_MS  # 2026-11-22
KEYS = {key: "s3cret-key" for service in FETCHERS.values() for key in service.keys}


@pytest.fixture(scope="module")
def catalog() -> Catalog:
    return Catalog.load()


@pytest.fixture
def service() -> Iterator[FakePrices]:
    with FakePrices() as fake:
        yield fake


def ask(catalog: Catalog, provider: str, service: FakePrices) -> tuple[list[PriceRow], int]:
    waits: list[float] = []
    found, today = fetch(
        catalog, provider, environ=KEYS, now_ms=NOW_MS, endpoint=service.url, sleep_s=waits.append
    )
    assert today == "2026-11-22"
    assert found.provider == provider
    assert all(
        row.note.as_of_day == 20_779 and row.note.source for row in found.rows if "API" in row.note.source
    )
    return list(found.rows), found.skipped


def usd(
    rows: list[PriceRow], instance_type: str, region: str, capacity: Capacity = Capacity.ON_DEMAND
) -> list[float]:
    return [
        row.price_micro_usd / 1e6
        for row in rows
        if (row.instance_type, row.region, row.capacity) == (instance_type, region, capacity)
    ]


def test_azure(catalog: Catalog, service: FakePrices) -> None:
    service["azure"].items = [
        azure_item("Standard_NC4as_T4_v3", 0.5),
        azure_item("Standard_NC4as_T4_v3", 0.1, skuName="NC4as T4 v3 Spot", meterName="NC4as T4 v3 Spot"),
        azure_item("Standard_NC4as_T4_v3", 0.2, skuName="NC4as T4 v3 Low Priority"),
        azure_item("Standard_NC4as_T4_v3", 0.9, productName="Virtual Machines Series Windows"),
        azure_item("Standard_NC4as_T4_v3", 3000.0, type="Reservation", reservationTerm="1 Year"),
        azure_item("Standard_Unheard_v9", 7.0),
        azure_item("Standard_ND96asr_v4", 27.2, armRegionName="koreacentral"),
    ]
    rows, skipped = ask(catalog, "azure", service)
    assert usd(rows, "Standard_NC4as_T4_v3", "eastus") == [0.5]
    assert usd(rows, "Standard_NC4as_T4_v3", "eastus", Capacity.SPOT) == [0.1]
    assert usd(rows, "Standard_ND96asr_v4", "koreacentral") == [27.2]
    assert skipped == 4
    assert len(service.requests) == 4  # pages
    t4 = next(row for row in rows if row.model == "T4")
    assert (t4.accelerators_milli, t4.cpus_milli) == (1000, 4000)


def test_a_next_page_elsewhere_is_not_followed(catalog: Catalog, service: FakePrices) -> None:
    service["azure"].items = [azure_item("Standard_NC4as_T4_v3", 0.5)]
    service["azure"].page_elsewhere = True
    with pytest.raises(ArgosyError, match=r"it sends us to prices\.example\.net"):
        ask(catalog, "azure", service)


def test_lambda(catalog: Catalog, service: FakePrices) -> None:
    service.secret = "Bearer s3cret-key"
    service["lambda"].types = [
        lambda_type("gpu_1x_a10", 81, "A10 (24 GB PCIe)", 1, []),
        lambda_type("gpu_2x_new_b300", 990, "B300 (288 GB SXM6)", 2, ["us-new-1"]),
        lambda_type("gpu_1x_mystery", 10, "Mystery (1 GB)", 1, ["us-new-1"]),
        lambda_type("gpu_4x_l40s_new", 500, "L40S (48 GB)", 4, []),
    ]
    rows, skipped = ask(catalog, "lambda", service)
    known = {o.region for o in catalog.prices_for("gpu_1x_a10", provider="lambda")}
    assert {row.region for row in rows if row.instance_type == "gpu_1x_a10"} == known
    assert usd(rows, "gpu_1x_a10", "us-east-1") == [0.81]
    new = next(row for row in rows if row.region == "us-new-1")
    assert (new.model, new.accelerators_milli, new.price_micro_usd) == ("B300", 2000, 9_900_000)
    assert skipped == 2  # an unknown accelerator; a new type that is nowhere


def test_digitalocean(catalog: Catalog, service: FakePrices) -> None:
    service.secret = "Bearer s3cret-key"
    plain = {"slug": "s-4vcpu-8gb", "memory": 8192, "vcpus": 4, "disk": 160, "price_hourly": 0.08,
             "regions": ["nyc1", "fra1"], "available": True}  # fmt: skip
    gpu = {
        "slug": "gpu-h100x8-640gb",
        "memory": 1966080,
        "vcpus": 160,
        "disk": 2046,
        "price_hourly": 27.5,
        "regions": ["tor1"],
        "available": True,
        "gpu_info": {"count": 8, "vram": {"amount": 640, "unit": "gib"}, "model": "nvidia_h100"},
    }
    service["digitalocean"].sizes = [
        plain,
        gpu,
        {
            **gpu,
            "slug": "one",
            "gpu_info": {"count": 1, "vram": {"amount": 192, "unit": "gib"}, "model": "amd_mi300x"},
        },
        {**plain, "slug": "gone", "available": False},
    ]
    rows, skipped = ask(catalog, "digitalocean", service)
    assert usd(rows, "s-4vcpu-8gb", "fra1") == [0.08]
    h100 = next(row for row in rows if row.instance_type == "gpu-h100x8-640gb")
    assert (h100.model, h100.accelerators_milli, h100.device_memory_bytes) == ("H100", 8000, 80 * GIB)
    assert next(row for row in rows if row.instance_type == "one").model == "MI300X"
    assert skipped == 1
    assert len(service.requests) == 4


def test_vast(catalog: Catalog, service: FakePrices) -> None:
    offer = {
        "id": 1,
        "gpu_name": "RTX 4090",
        "num_gpus": 2,
        "gpu_ram": 24564,
        "cpu_cores": 64,
        "cpu_cores_effective": 16.0,
        "cpu_ram": 262144,
        "disk_space": 500.0,
        "dph_total": 0.8,
        "dph_base": 0.79,
        "min_bid": 0.5,
        "geolocation": "Korea, KR",
        "rentable": True,
        "rented": False,
        "verification": "verified",
    }
    service["vast"].offers = [
        offer,
        {**offer, "id": 2, "dph_total": 0.7},
        {**offer, "id": 3, "gpu_name": "A100 SXM4", "gpu_ram": 81920, "num_gpus": 8, "geolocation": None},
        {**offer, "id": 4, "gpu_name": "Strange 9000"},
        {**offer, "id": 5, "cpu_cores_effective": None},
        {**offer, "id": 6, "rented": True},
    ]
    rows, skipped = ask(catalog, "vast", service)
    assert usd(rows, "2x-RTX_4090-16-65536", "Korea, KR") == [0.7]  # the cheapest of equal machines
    assert usd(rows, "2x-RTX_4090-16-65536", "Korea, KR", Capacity.SPOT) == [0.5]
    big = next(row for row in rows if row.accelerators_milli == 8000)
    assert (big.model, big.region) == ("A100-80GB", "unknown")
    assert skipped == 3


def test_runpod(catalog: Catalog, service: FakePrices) -> None:
    service.secret = "Bearer s3cret-key"
    service["runpod"].gpu_types = [
        {
            "id": "NVIDIA A40",
            "displayName": "A40",
            "memoryInGb": 48,
            "maxGpuCount": 2,
            "secureCloud": True,
            "securePrice": 0.4,
            "secureSpotPrice": 0.2,
        },
        {
            "id": "NVIDIA L4",
            "displayName": "L4",
            "memoryInGb": 24,
            "maxGpuCount": 1,
            "secureCloud": True,
            "securePrice": 0.43,
            "secureSpotPrice": None,
        },
        {
            "id": "unknown",
            "displayName": "unknown",
            "memoryInGb": 0,
            "maxGpuCount": None,
            "secureCloud": True,
            "securePrice": 1.0,
            "secureSpotPrice": None,
        },
        {
            "id": "NVIDIA T4",
            "displayName": "T4",
            "memoryInGb": 16,
            "maxGpuCount": 1,
            "secureCloud": False,
            "securePrice": None,
            "secureSpotPrice": None,
        },
    ]
    rows, skipped = ask(catalog, "runpod", service)
    known = {o.region for o in catalog.prices_for("2x_A40_SECURE", provider="runpod")}
    assert known
    assert {row.region for row in rows if row.instance_type == "2x_A40_SECURE"} == known
    region = sorted(known)[0]
    assert usd(rows, "2x_A40_SECURE", region) == [0.8]
    assert usd(rows, "2x_A40_SECURE", region, Capacity.SPOT) == [0.4]
    assert usd(rows, "1x_L4_SECURE", "any") == [0.43]
    assert not [row for row in rows if row.instance_type.startswith("3x")]
    assert skipped == 2
    service["runpod"].error = "Unauthorized"
    with pytest.raises(ArgosyError, match="it says: Unauthorized"):
        ask(catalog, "runpod", service)


def test_oci(catalog: Catalog, service: FakePrices) -> None:
    service["oci"].parts = [
        part("B95909", "Compute - GPU - A10", "GPU Per Hour", 1.5),
        part("B93113", "Compute - Standard - E4 - OCPU", "OCPU Per Hour", 0.0, 0.02),
        part("B93114", "Compute - Standard - E4  - Memory", "Gigabytes Per Hour", 0.001),
        part("B109529", "OCI - Compute - Standard - A2 OCPU", "OCPU Per Hour", 0.01),
    ]
    rows, skipped = ask(catalog, "oci", service)
    assert usd(rows, "VM.GPU.A10.2", "us-ashburn-1") == [3.0]
    assert usd(rows, "VM.Standard.E4.Flex$_2_16", "ap-seoul-1") == [pytest.approx(0.02 + 16 * 0.001)]
    assert usd(rows, "VM.Standard.E4.Flex$_2_16", "ap-seoul-1", Capacity.SPOT) == [pytest.approx(0.018)]
    assert usd(rows, "VM.Standard.E5.Flex$_2_16", "ap-seoul-1") == []
    flexible = next(row for row in rows if row.instance_type == "VM.Standard.E4.Flex$_2_16")
    assert flexible.note.rule == "1 OCPU x 0.02 + 16 GB x 0.001"
    assert skipped > 10


def test_oci_can_be_refreshed_from_its_own_refresh(tmp_path: Path, service: FakePrices) -> None:
    """Rules name the parts, also after a refresh."""
    block = Catalog.load().market.block("oci")
    numbers = {note.rule.split("x part ")[1].split(";")[0] for note in block.notes if "x part " in note.rule}
    service["oci"].parts = [part(number, "GPU", "GPU Per Hour", 2.0) for number in sorted(numbers)]
    for family in ("E4", "E5", "E6", "A2"):
        service["oci"].parts.append(
            part(f"{family}o", f"Compute - Standard - {family} - OCPU", "OCPU Per Hour", 0.03)
        )
        service["oci"].parts.append(
            part(f"{family}m", f"Compute - Standard - {family} - Memory", "Gigabyte Per Hour", 0.002)
        )
    for _ in range(2):
        kept = refresh(
            Catalog.load(tmp_path), tmp_path, "oci", environ={}, now_ms=NOW_MS, endpoint=service.url
        )
        assert kept.skipped == 0
        assert kept.after == kept.before == 4520
    assert Catalog.load(tmp_path).age("oci", NOW_MS).days == 0


def test_gcp(catalog: Catalog, service: FakePrices) -> None:
    service.secret = "s3cret-key"
    (listed,) = {
        o.price_micro_usd
        for o in catalog.prices_for(
            "g2-standard-4", provider="gcp", region="us-central1", capacity=Capacity.ON_DEMAND
        )
    }
    assert 500_000 < listed < 900_000
    service["gcp"].skus = [
        sku("G2 Instance Core running in Americas", 0.03),
        sku("G2 Instance Ram running in Americas", 0.003, unit="GiBy.h"),
        sku("Nvidia L4 GPU running in Americas", 0.5),
        sku("Spot Preemptible G2 Instance Core running in Americas", 0.01, "Preemptible"),
        sku("Commitment v1: G2 Core in Americas for 1 Year", 0.001, "Commit1Yr"),
        sku("G2 Custom Instance Core running in Americas", 9.0),
        sku("Nvidia L4 Virtual Workstation GPU running in Americas", 9.0),
        sku("Spot Preemptible A3Plus Instance Core running in Americas", 0.02, "Preemptible"),
        sku("Spot Preemptible A3Plus Instance Ram running in Americas", 0.002, "Preemptible", unit="GiBy.h"),
        sku(
            "Nvidia H100 80GB Plus GPU attached to Spot Preemptible VMs running in Americas",
            3.0,
            "Preemptible",
        ),
        sku("N2D AMD Instance Core running in Americas", 100.0),
        sku("N2D AMD Instance Ram running in Americas", 100.0, unit="GiBy.h"),
    ]
    rows, kept = ask(catalog, "gcp", service)
    assert {round(each, 6) for each in usd(rows, "g2-standard-4", "us-central1")} == {0.668}
    new = next(row for row in rows if row.instance_type == "g2-standard-4" and row.region == "us-central1"
               and row.capacity is Capacity.ON_DEMAND)  # fmt: skip
    assert new.note.rule == "4 cores x 0.03 + 16 GiB x 0.003 + 1 L4 x 0.5"
    mega = next(row for row in rows if row.instance_type == "a3-megagpu-8g" and row.region == "us-central1"
                and row.capacity is Capacity.SPOT)  # fmt: skip
    assert mega.note.rule.endswith("+ 8 H100-MEGA x 3; local SSD not counted")
    assert mega.note.estimated
    # A sum that cannot be is not believed, and what has no part keeps its price: nothing is lost.
    block = catalog.listed_block("gcp")
    assert block is not None
    assert len(rows) == len(block)
    before = usd(list(Book("gcp", block, (), 0).rows()), "n2d-standard-8", "us-central1")
    assert usd(rows, "n2d-standard-8", "us-central1") == before
    assert 0 < kept < len(rows)


def test_aws(catalog: Catalog, service: FakePrices, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("boto3", reason="boto3 is not installed (`pip install .[aws]`)")
    for name, value in (
        ("AWS_ACCESS_KEY_ID", "AKIDEXAMPLE"),
        ("AWS_SECRET_ACCESS_KEY", "x"),
        ("AWS_EC2_METADATA_DISABLED", "true"),
    ):
        monkeypatch.setenv(name, value)
    service["aws"].products = [
        product("p4d.24xlarge", "us-east-1", "20.0000000000", gpu="8"),
        product("m9g.2xlarge", "us-east-1", "0.4"),
        product("p9.48xlarge", "us-east-1", "99.0", gpu="8"),
        product("trn9.xlarge", "us-east-1", "9.0"),
        product("m5.large", "us-east-1", "0.0000000000"),
        product("m5.large", "us-east-1", "0.5", tenancy="Dedicated"),
    ]
    service["aws"].spot = {
        "us-east-1": [
            ("p4d.24xlarge", "us-east-1a", "7.5"),
            ("p4d.24xlarge", "us-east-1b", "6.5"),
            ("x.unheard", "us-east-1a", "1"),
        ]
    }
    rows, skipped = ask(catalog, "aws", service)
    assert usd(rows, "p4d.24xlarge", "us-east-1") == [20.0]
    assert {row.zone: row.price_micro_usd for row in rows if row.capacity is Capacity.SPOT} == {
        "us-east-1a": 7_500_000, "us-east-1b": 6_500_000,
    }  # fmt: skip
    new = next(row for row in rows if row.instance_type == "m9g.2xlarge")
    assert (new.cpus_milli, new.memory_bytes, new.arch) == (8000, 32 * GIB, "arm64")
    assert skipped == 3


@pytest.mark.parametrize("provider", [name for name in FETCHERS if FETCHERS[name].keys])
def test_a_key_is_needed(tmp_path: Path, catalog: Catalog, provider: str) -> None:
    with pytest.raises(ArgosyError) as caught:
        refresh(catalog, tmp_path, provider, environ={}, now_ms=NOW_MS)
    assert render_error(caught.value) == (
        f"error: the price service of {provider} needs a key; the old prices are kept\n"
        f"hint: set {' and '.join(FETCHERS[provider].keys)}"
    )


def test_a_key_that_is_refused_is_not_shown(tmp_path: Path, catalog: Catalog, service: FakePrices) -> None:
    service.secret = "Bearer another"
    with pytest.raises(ArgosyError) as caught:
        refresh(catalog, tmp_path, "lambda", environ=KEYS, now_ms=NOW_MS, endpoint=service.url)
    assert render_error(caught.value) == (
        "error: the price service of lambda does not let us in (401); the old prices are kept\n"
        "hint: check LAMBDA_API_KEY: the service does not accept it"
    )
    assert not (tmp_path / "live").exists()


def test_a_busy_service_is_asked_again(catalog: Catalog, service: FakePrices) -> None:
    service["lambda"].types = [lambda_type("gpu_1x_a10", 81, "A10 (24 GB PCIe)", 1, [])]
    service.faults = [429, 503]
    waits: list[float] = []
    found, _ = fetch(
        catalog, "lambda", environ=KEYS, now_ms=NOW_MS, endpoint=service.url, sleep_s=waits.append
    )
    assert found.rows
    assert waits == [7.0, 2.0]


@pytest.mark.parametrize(
    ("fault", "text"),
    [
        ([500, 500, 500, 500], "it answers 500"),
        ([404], "it answers 404"),
        ("garbage", "its answer has another form than we know"),
        ("cut", "its answer was cut short"),
        ("closed", "refused"),
    ],
)
def test_a_failing_refresh_keeps_the_old_prices(
    tmp_path: Path, catalog: Catalog, service: FakePrices, fault: list[int] | str, text: str
) -> None:
    url = service.url
    service.garbage, service.cut = fault == "garbage", fault == "cut"
    service.faults = list(fault) if isinstance(fault, list) else []
    if fault == "closed":
        url = "http://127.0.0.1:9"
    waits: list[float] = []
    with pytest.raises(ArgosyError) as caught:
        refresh(catalog, tmp_path, "vast", environ={}, now_ms=NOW_MS, endpoint=url, sleep_s=waits.append)
    assert caught.value.code == "transient"
    assert caught.value.what.startswith("the price service of vast cannot be used: ")
    assert text in caught.value.what
    assert caught.value.what.endswith("; the old prices are kept")
    assert not (tmp_path / "live").exists()


def test_little_is_not_believed(tmp_path: Path, catalog: Catalog, service: FakePrices) -> None:
    service["lambda"].types = [lambda_type("gpu_1x_a10", 81, "A10 (24 GB PCIe)", 1, [])]
    with pytest.raises(ArgosyError) as caught:
        refresh(catalog, tmp_path, "lambda", environ=KEYS, now_ms=NOW_MS, endpoint=service.url)
    assert render_error(caught.value) == (
        "error: the new prices of lambda are refused: 17 instead of 408 before; the old ones are kept\n"
        "hint: repeat `argosy catalog refresh lambda` later; `--force` takes them as they are"
    )
    kept = refresh(catalog, tmp_path, "lambda", environ=KEYS, now_ms=NOW_MS, endpoint=service.url, force=True)
    assert kept.after == 17
    assert len(Catalog.load(tmp_path).market.block("lambda")) == 17


def test_a_secret_follows_no_redirect_to_another_host(
    tmp_path: Path, catalog: Catalog, service: FakePrices
) -> None:
    with FakePrices() as thief:
        service.redirect = f"{thief.url}/api/v1/instance-types"
        with pytest.raises(ArgosyError, match="it answers 302; the old prices are kept"):
            refresh(catalog, tmp_path, "lambda", environ=KEYS, now_ms=NOW_MS, endpoint=service.url)
        assert thief.requests == []


class _Leaver(Watch):
    """Looks on for some answers, then does not want it any more."""

    def __init__(self, answers: int) -> None:
        self.answers = answers
        self.told: list[str] = []

    def tell(self, text: str) -> None:
        self.told.append(text)

    def wanted(self) -> bool:
        return len(self.told) < self.answers


def test_progress_is_told_and_a_refresh_can_be_called_off(
    tmp_path: Path, catalog: Catalog, service: FakePrices
) -> None:
    service["digitalocean"].sizes = [
        {"slug": f"s-{n}", "memory": 1024, "vcpus": 1, "price_hourly": 0.01, "regions": ["fra1"]}
        for n in range(5)
    ]
    watch = _Leaver(99)
    arguments: dict[str, Any] = {"environ": KEYS, "now_ms": NOW_MS, "endpoint": service.url, "force": True}
    refresh(catalog, tmp_path, "digitalocean", watch=watch, **arguments)
    assert watch.told == ["1 answer", "2 answers", "3 answers", "4 answers", "5 answers"]
    kept = (tmp_path / "live" / "digitalocean.prices").read_bytes()
    service["digitalocean"].sizes[0]["price_hourly"] = 99.0
    for answers in (1, 3, 5):  # the last one: everything has come, nothing is written yet
        service.requests.clear()
        with pytest.raises(Stopped):
            refresh(catalog, tmp_path, "digitalocean", watch=_Leaver(answers), **arguments)
        assert len(service.requests) == answers
        assert (tmp_path / "live" / "digitalocean.prices").read_bytes() == kept


def test_a_mirror_can_be_asked_instead(tmp_path: Path, catalog: Catalog, service: FakePrices) -> None:
    service["digitalocean"].sizes = [
        {"slug": "s", "memory": 1024, "vcpus": 1, "price_hourly": 0.01, "regions": ["fra1"] * 20}
    ]
    environ = {**KEYS, "ARGOSY_PRICES_OF_DIGITALOCEAN": service.url}
    assert refresh(catalog, tmp_path, "digitalocean", environ=environ, now_ms=NOW_MS, force=True).after == 1


@pytest.mark.parametrize(
    ("provider", "text"),
    [
        (
            "scp",
            "error: there are no live prices of `scp`: its price list does not tell which machine and "
            "region a price is for; "
            "the old prices are kept\n"
            "hint: write what you know to `scp.csv` in the catalog folder that `argosy catalog show` names "
            "(docs/catalog.md, Private catalogs)",
        ),
        (
            "paperspace",
            "error: there are no live prices of `paperspace`: its public API tells which machines are "
            "available, not what they cost; "
            "the old prices are kept\n"
            "hint: write what you know to `paperspace.csv` in the catalog folder that `argosy catalog "
            "show` names "
            "(docs/catalog.md, Private catalogs)",
        ),
        ("lamda", "error: there is no infrastructure `lamda`\nhint: did you mean `lambda`?"),
    ],
)
def test_providers_without_a_service(tmp_path: Path, catalog: Catalog, provider: str, text: str) -> None:
    with pytest.raises(ArgosyError) as caught:
        refresh(catalog, tmp_path, provider, environ={}, now_ms=NOW_MS)
    assert render_error(caught.value) == text


def test_every_cloud_has_a_service_or_a_reason(catalog: Catalog) -> None:
    assert {*FETCHERS} | {*UNPRICED} == {*catalog.providers}
    assert not {*FETCHERS} & {*UNPRICED}


@pytest.mark.parametrize(
    ("text", "memory", "model"),
    [
        ("NVIDIA GeForce RTX 4090", 24, "RTX4090"),
        ("A100 (80 GB SXM4)", 0, "A100-80GB"),
        ("8x A100 (40 GB SXM4)", 0, "A100"),
        ("Tesla V100", 32, "V100-32GB"),
        ("Tesla V100", 16, "V100"),
        ("RTX A6000", 48, "RTXA6000"),
        ("H100 SXM", 80, "H100-SXM"),
        ("nvidia_rtx6000_ada", 48, "RTX6000-Ada"),
        ("amd_mi300x", 192, "MI300X"),
        ("Nvidia Tesla A100 80GB", 0, "A100-80GB"),
        ("Mystery", 12, None),
        ("A100", 999, None),
    ],
)
def test_how_services_spell_accelerators(
    catalog: Catalog, text: str, memory: float, model: str | None
) -> None:
    fact = Book("x", None, catalog.accelerators(), 0).accelerator(text, memory)
    assert (fact.name if fact else None) == model

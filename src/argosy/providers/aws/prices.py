"""AWS: Price List Query API for on-demand prices, EC2's spot price history for spot; both through boto3.

https://docs.aws.amazon.com/aws-cost-management/latest/APIReference/API_pricing_GetProducts.html
https://docs.aws.amazon.com/AWSEC2/latest/APIReference/API_DescribeSpotPriceHistory.html
"""

from __future__ import annotations

import datetime
import re
from collections.abc import Iterable, Sequence
from typing import Any

import msgspec

from argosy.catalog.keep import Fetched
from argosy.catalog.refresh.book import Book
from argosy.catalog.refresh.wire import Nobody, Watch
from argosy.catalog.table import PriceRow
from argosy.model.errors import ArgosyError
from argosy.model.offer import Capacity, Shape
from argosy.model.units import GIB

SOURCE = "AWS Price List API"
SPOT_SOURCE = "EC2 spot price history"
_FILTERS = {
    "operatingSystem": "Linux",
    "tenancy": "Shared",
    "capacitystatus": "Used",
    "preInstalledSw": "NA",
    "marketoption": "OnDemand",
}
#: Families with accelerators that the price list does not tell.
_UNTOLD = re.compile(r"^(inf|trn|dl|vt|f)\d")


class _Attributes(msgspec.Struct, frozen=True, rename="camel"):
    instance_type: str = ""
    region_code: str = ""
    vcpu: str = "0"
    memory: str = ""
    gpu: str = "0"
    physical_processor: str = ""


class _Product(msgspec.Struct, frozen=True):
    attributes: _Attributes


class _Dimension(msgspec.Struct, frozen=True, rename="camel"):
    unit: str
    price_per_unit: dict[str, str]
    begin_range: str = "0"


class _Term(msgspec.Struct, frozen=True, rename="camel"):
    price_dimensions: dict[str, _Dimension]


class _Terms(msgspec.Struct, frozen=True):
    on_demand: dict[str, _Term] = msgspec.field(default_factory=dict, name="OnDemand")


class _Entry(msgspec.Struct, frozen=True):
    product: _Product
    terms: _Terms = _Terms()


def fetch(
    book: Book,
    *,
    endpoint: str | None = None,
    regions: Sequence[str] | None = None,
    watch: Watch | None = None,
) -> Fetched:
    """Ask with the credentials that boto3 finds. `regions` limits spot prices (default: where AWS is known to
    be)."""
    watch = watch or Nobody()
    try:
        import boto3
        import botocore.exceptions
    except ImportError:
        raise ArgosyError(
            "unsupported",
            "prices of aws are asked for with boto3, which is not installed; the old prices are kept",
            hint="`pip install argosy[aws]`, then repeat `argosy catalog refresh aws`",
        ) from None
    wanted = sorted(regions if regions is not None else {r for t in book.types() for r in book.regions(t)})
    try:
        pricing = boto3.client("pricing", region_name="us-east-1", endpoint_url=endpoint)
        pages = pricing.get_paginator("get_products").paginate(
            ServiceCode="AmazonEC2",
            FormatVersion="aws_v1",
            Filters=[{"Type": "TERM_MATCH", "Field": key, "Value": value} for key, value in _FILTERS.items()],
        )
        rows, skipped = on_demand_rows(_watched(pages, watch), book)
        capacities = {Capacity.ON_DEMAND}
        covered: set[str] = set()
        for number, region in enumerate(wanted, 1):
            watch.check()
            watch.tell(f"spot prices of {region}, region {number} of {len(wanted)}")
            try:
                rows += _spot_of(boto3.client("ec2", region_name=region, endpoint_url=endpoint), region, book)
                covered.add(region)
            except botocore.exceptions.ClientError:
                continue  # a region that this account has not enabled
        if covered:
            capacities.add(Capacity.SPOT)
            if covered != set(wanted):
                # Regions that were not asked keep their old spot prices.
                rows += _old_spot(book, set(wanted) - covered)
    except (botocore.exceptions.NoCredentialsError, botocore.exceptions.PartialCredentialsError):
        raise ArgosyError(
            "unauthorized",
            "the price services of aws need credentials; the old prices are kept",
            hint="`aws configure`, or set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY",
        ) from None
    except (botocore.exceptions.BotoCoreError, botocore.exceptions.ClientError) as error:
        raise ArgosyError(
            "transient",
            f"the price services of aws cannot be used: {error}; the old prices are kept",
            hint="repeat `argosy catalog refresh aws` later",
        ) from None
    return book.fetched(rows, *capacities, skipped=skipped)


def _watched(pages: Iterable[Any], watch: Watch) -> Iterable[str]:
    """Entries of the price list, with word of how many there were."""
    count = 0
    for page in pages:
        watch.check()
        yield from page["PriceList"]
        count += len(page["PriceList"])
        watch.tell(f"{count:,} on-demand prices")


def on_demand_rows(price_list: Iterable[str], book: Book) -> tuple[list[PriceRow], int]:
    """Rows of the JSON texts of GetProducts, and how many could not be used."""
    rows: list[PriceRow] = []
    skipped = 0
    for text in price_list:
        try:
            entry = msgspec.json.decode(text, type=_Entry)
        except msgspec.MsgspecError:
            skipped += 1
            continue
        shape, usd = _shape(entry.product.attributes, book), _hourly(entry.terms)
        if shape is None or not usd or not entry.product.attributes.region_code:
            skipped += 1
            continue
        rows.append(book.row(shape, entry.product.attributes.region_code, usd, source=SOURCE))
    return rows, skipped


def _hourly(terms: _Terms) -> float:
    prices = [
        float(dimension.price_per_unit.get("USD", 0))
        for term in terms.on_demand.values()
        for dimension in term.price_dimensions.values()
        if dimension.unit == "Hrs"
    ]
    return prices[0] if len(prices) == 1 else 0


def _shape(told: _Attributes, book: Book) -> Shape | None:
    known = book.shapes(told.instance_type)
    if known:
        return known[0]
    if told.gpu not in ("", "0") or _UNTOLD.match(told.instance_type):
        return None  # which accelerator it is, the price list does not tell
    memory = re.fullmatch(r"([\d.,]+) GiB", told.memory)
    if not told.instance_type or not told.vcpu.isdigit() or memory is None:
        return None
    return Shape(
        instance_type=told.instance_type,
        cpus_milli=int(told.vcpu) * 1000,
        memory_bytes=round(float(memory[1].replace(",", "")) * GIB),
        arch="arm64" if "Graviton" in told.physical_processor else "x86_64",
    )


def _spot_of(client: Any, region: str, book: Book) -> list[PriceRow]:
    """Present spot prices of one region, by zone."""
    start = datetime.datetime(1970, 1, 1, tzinfo=datetime.UTC) + datetime.timedelta(days=book.day + 1)
    rows = []
    # A start in the future: the service answers with the price that holds now, one for each type and zone.
    pages = client.get_paginator("describe_spot_price_history").paginate(
        ProductDescriptions=["Linux/UNIX"], StartTime=start
    )
    for page in pages:
        for item in page["SpotPriceHistory"]:
            for shape in book.shapes(item["InstanceType"])[:1]:
                zone, usd = item["AvailabilityZone"], float(item["SpotPrice"])
                rows.append(book.row(shape, region, usd, zone=zone, spot=True, source=SPOT_SOURCE))
    return rows


def _old_spot(book: Book, regions: set[str]) -> list[PriceRow]:
    return [row for row in book.rows() if row.capacity is Capacity.SPOT and row.region in regions]

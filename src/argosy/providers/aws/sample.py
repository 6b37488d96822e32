"""AWS's price service as recorded, and how it answers."""

from __future__ import annotations

import json
from typing import Any, Final
from xml.sax.saxutils import escape

from argosy.catalog.refresh.recorded import Asked


def product(instance_type: str, region: str, price: str, **more: str) -> dict[str, Any]:
    attributes = {
        "instanceType": instance_type,
        "regionCode": region,
        "vcpu": "8",
        "memory": "32 GiB",
        "operatingSystem": "Linux",
        "tenancy": "Shared",
        "capacitystatus": "Used",
        "preInstalledSw": "NA",
        "marketoption": "OnDemand",
        "physicalProcessor": "AWS Graviton4 Processor",
        **more,
    }
    rate = {"unit": "Hrs", "beginRange": "0", "endRange": "Inf", "pricePerUnit": {"USD": price}}
    return {
        "product": {"productFamily": "Compute Instance", "attributes": attributes, "sku": "A"},
        "serviceCode": "AmazonEC2",
        "terms": {"OnDemand": {"A.B": {"priceDimensions": {"A.B.C": rate}, "sku": "A"}}},
    }


class Sample:
    """Price List (JSON 1.1) and EC2 (query protocol)."""

    GIVES: Final = ("p4d.24xlarge", "us-east-1", 20.5)

    def __init__(self) -> None:
        self.products = [product("p4d.24xlarge", "us-east-1", "20.5", gpu="8")]
        self.spot: dict[str, list[tuple[str, str, str]]] = {}  # region -> (type, zone, USD)

    def answer(self, asked: Asked) -> object:
        if asked.headers.get("x-amz-target", "") == "AWSPriceListService.GetProducts":
            return self._products(asked.json())
        if b"Action=DescribeSpotPriceHistory" in asked.body:
            return self._spot(asked.headers.get("authorization", ""))
        return None

    def _products(self, asked: dict[str, Any]) -> dict[str, Any]:
        filters = {each["Field"]: each["Value"] for each in asked["Filters"]}
        found = [
            product
            for product in self.products
            if all(product["product"]["attributes"].get(key) == value for key, value in filters.items())
        ]
        start = int(asked.get("NextToken") or 0)
        page = [json.dumps(each) for each in found[start : start + 1]]
        reply: dict[str, Any] = {"FormatVersion": "aws_v1", "PriceList": page}
        if start + 1 < len(found):
            reply["NextToken"] = str(start + 1)
        return reply

    def _spot(self, authorization: str) -> str:
        region = authorization.split("/")[2] if authorization.count("/") > 2 else ""
        items = "".join(
            f"<item><instanceType>{escape(kind)}</instanceType>"
            "<productDescription>Linux/UNIX</productDescription>"
            f"<spotPrice>{usd}</spotPrice><timestamp>2026-01-01T00:00:00.000Z</timestamp>"
            f"<availabilityZone>{escape(zone)}</availabilityZone></item>"
            for kind, zone, usd in self.spot.get(region, [])
        )
        return (
            '<DescribeSpotPriceHistoryResponse xmlns="http://ec2.amazonaws.com/doc/2016-11-15/">'
            f"<requestId>1</requestId><spotPriceHistorySet>{items}</spotPriceHistorySet><nextToken/>"
            "</DescribeSpotPriceHistoryResponse>"
        )

"""Azure's price service as recorded, and how it answers."""

from __future__ import annotations

from typing import Any, Final

from argosy.catalog.refresh.recorded import HERE, Asked


def azure_item(sku: str, price: float, **more: Any) -> dict[str, Any]:
    return {
        "currencyCode": "USD",
        "tierMinimumUnits": 0.0,
        "retailPrice": price,
        "unitPrice": price,
        "armRegionName": "eastus",
        "location": "US East",
        "effectiveStartDate": "2026-01-01T00:00:00Z",
        "meterName": sku.removeprefix("Standard_"),
        "skuName": sku.removeprefix("Standard_"),
        "serviceName": "Virtual Machines",
        "productName": "Virtual Machines Series",
        "unitOfMeasure": "1 Hour",
        "type": "Consumption",
        "isPrimaryMeterRegion": True,
        "armSkuName": sku,
        **more,
    }


class Sample:
    GIVES: Final = ("Standard_NC4as_T4_v3", "eastus", 0.987)

    def __init__(self) -> None:
        self.items = [azure_item("Standard_NC4as_T4_v3", 0.987)]
        self.page_size = 2
        self.page_elsewhere = False

    def answer(self, asked: Asked) -> object:
        if asked.path != "/api/retail/prices":
            return None
        start = int(asked.query.get("$skip", "0"))
        after = start + self.page_size
        page = self.items[start:after]
        link = f"{HERE}/api/retail/prices?$skip={after}" if after < len(self.items) else None
        if self.page_elsewhere:
            link = "http://prices.example.net/api/retail/prices?$skip=2"
        return {"BillingCurrency": "USD", "Items": page, "NextPageLink": link, "Count": len(page)}

"""Google Cloud's price service as recorded, and how it answers."""

from __future__ import annotations

from typing import Any, Final

from argosy.catalog.refresh.recorded import Asked


def sku(description: str, usd_hour: float, usage: str = "OnDemand", unit: str = "h") -> dict[str, Any]:
    price = {
        "currencyCode": "USD",
        "units": str(int(usd_hour)),
        "nanos": round((usd_hour - int(usd_hour)) * 1e9),
    }
    return {
        "name": "services/6F81-5844-456A/skus/X",
        "skuId": "X",
        "description": description,
        "category": {
            "serviceDisplayName": "Compute Engine",
            "resourceFamily": "Compute",
            "resourceGroup": "CPU",
            "usageType": usage,
        },
        "serviceRegions": ["us-central1"],
        "pricingInfo": [
            {
                "pricingExpression": {
                    "usageUnit": unit,
                    "tieredRates": [{"startUsageAmount": 0, "unitPrice": price}],
                }
            }
        ],
    }


class Sample:
    GIVES: Final = ("g2-standard-4", "us-central1", 0.668)

    def __init__(self) -> None:
        self.skus = [
            sku("G2 Instance Core running in Americas", 0.03),
            sku("G2 Instance Ram running in Americas", 0.003, unit="GiBy.h"),
            sku("Nvidia L4 GPU running in Americas", 0.5),
        ]

    def answer(self, asked: Asked) -> object:
        """In two pages."""
        if asked.path != "/v1/services/6F81-5844-456A/skus":
            return None
        first = asked.query.get("pageToken") != "more"
        half = (len(self.skus) + 1) // 2
        page = self.skus[:half] if first else self.skus[half:]
        return {"skus": page, "nextPageToken": "more" if first else ""}

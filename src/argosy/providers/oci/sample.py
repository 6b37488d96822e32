"""Oracle's price service as recorded, and how it answers."""

from __future__ import annotations

from typing import Any, Final

from argosy.catalog.refresh.recorded import Asked


def part(number: str, name: str, metric: str, *values: float) -> dict[str, Any]:
    prices = [{"model": "PAY_AS_YOU_GO", "value": value} for value in values]
    return {
        "partNumber": number,
        "displayName": name,
        "metricName": metric,
        "serviceCategory": "Compute",
        "currencyCodeLocalizations": [{"currencyCode": "USD", "prices": prices}],
    }


class Sample:
    GIVES: Final = ("VM.GPU.A10.2", "us-ashburn-1", 3.5)

    def __init__(self) -> None:
        self.parts = [part("B95909", "Compute - GPU - A10", "GPU Per Hour", 1.75)]

    def answer(self, asked: Asked) -> object:
        if asked.path != "/pls/apex/cetools/api/v1/products/":
            return None
        return {"lastUpdated": "2026-01-01T00:00:00Z", "items": self.parts}

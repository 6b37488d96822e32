"""Hyperstack's price service as recorded, and how it answers."""

from __future__ import annotations

from typing import Any, Final

from argosy.catalog.refresh.recorded import Asked


def flavor(name: str, region: str, gpu: str, count: int, **more: Any) -> dict[str, Any]:
    return {
        "id": 1,
        "name": name,
        "region_name": region,
        "cpu": 28,
        "ram": 120.0,
        "disk": 100,
        "ephemeral": 750,
        "gpu": gpu,
        "gpu_count": count,
        "stock_available": False,
        "features": {},
        **more,
    }


class Sample:
    GIVES: Final = ("n3-A100x1", "CANADA-1", 1.11)

    def __init__(self) -> None:
        self.pricebook: list[dict[str, Any]] = [{"name": "A100-80G-PCIe", "value": "1.11"}]
        self.flavors: list[dict[str, Any]] = [
            {"region_name": "CANADA-1", "flavors": [flavor("n3-A100x1", "", "A100-80G-PCIe", 1)]}
        ]

    def answer(self, asked: Asked) -> object:
        if asked.path == "/v1/core/flavors":
            return {"status": True, "message": "Getting flavors successful", "data": self.flavors}
        return self.pricebook if asked.path == "/v1/pricebook" else None

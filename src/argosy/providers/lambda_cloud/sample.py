"""Lambda's price service as recorded, and how it answers."""

from __future__ import annotations

from typing import Any, Final

from argosy.catalog.refresh.recorded import Asked


def lambda_type(name: str, cents: int, gpu: str, gpus: int, regions: list[str]) -> dict[str, Any]:
    return {
        "instance_type": {
            "name": name,
            "description": f"{gpus}x {gpu}",
            "gpu_description": gpu,
            "price_cents_per_hour": cents,
            "specs": {"vcpus": 30, "memory_gib": 200, "storage_gib": 512, "gpus": gpus},
        },
        "regions_with_capacity_available": [{"name": each, "description": each} for each in regions],
    }


class Sample:
    GIVES: Final = ("gpu_1x_a10", "us-east-1", 0.99)

    def __init__(self) -> None:
        self.types = [lambda_type("gpu_1x_a10", 99, "A10 (24 GB PCIe)", 1, [])]

    def answer(self, asked: Asked) -> object:
        if asked.path != "/api/v1/instance-types":
            return None
        return {"data": {each["instance_type"]["name"]: each for each in self.types}}

"""Vast.ai's price service as recorded, and how it answers."""

from __future__ import annotations

from typing import Any, Final

from argosy.catalog.refresh.recorded import Asked


class Sample:
    GIVES: Final = ("1x-RTX_4090-16-65536", "Korea, KR", 0.31)

    def __init__(self) -> None:
        self.offers: list[dict[str, Any]] = [
            {
                "gpu_name": "RTX 4090",
                "num_gpus": 1,
                "dph_total": 0.31,
                "gpu_ram": 24564,
                "cpu_cores": 16,
                "cpu_cores_effective": 16,
                "cpu_ram": 65536,
                "geolocation": "Korea, KR",
            }
        ]

    def answer(self, asked: Asked) -> object:
        return {"offers": self.offers} if asked.path == "/api/v0/bundles/" else None

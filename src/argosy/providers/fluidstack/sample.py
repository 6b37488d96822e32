"""Fluidstack's price service as recorded, and how it answers."""

from __future__ import annotations

from typing import Any, Final

from argosy.catalog.refresh.recorded import Asked


class Sample:
    GIVES: Final = ("H100_NVLINK_80GB::8", "FINLAND", 20.0)

    def __init__(self) -> None:
        self.configurations: list[dict[str, Any]] = [
            {
                "gpu_type": "H100_NVLINK_80GB",
                "price_per_gpu_hr": "2.5",
                "gpu_counts": [8],
                "regions": ["FINLAND"],
            }
        ]

    def answer(self, asked: Asked) -> object:
        return self.configurations if asked.path == "/list_available_configurations" else None

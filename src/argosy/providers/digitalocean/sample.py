"""DigitalOcean's price service as recorded, and how it answers."""

from __future__ import annotations

from typing import Any, Final

from argosy.catalog.refresh.recorded import HERE, Asked


class Sample:
    GIVES: Final = ("gpu-h100x1-80gb", "tor1", 3.21)

    def __init__(self) -> None:
        self.sizes: list[dict[str, Any]] = [
            {
                "slug": "gpu-h100x1-80gb",
                "memory": 245760,
                "vcpus": 20,
                "price_hourly": 3.21,
                "regions": ["tor1"],
                "disk": 720,
                "gpu_info": {"count": 1, "vram": {"amount": 80, "unit": "gib"}, "model": "nvidia_h100"},
            }
        ]

    def answer(self, asked: Asked) -> object:
        """Pages of one size each."""
        if asked.path != "/v2/sizes":
            return None
        page, last = int(asked.query.get("page", "1")), len(self.sizes)
        links = {"pages": {"next": f"{HERE}/v2/sizes?page={page + 1}"}} if page < last else {}
        return {"sizes": self.sizes[page - 1 : page], "links": links, "meta": {"total": last}}

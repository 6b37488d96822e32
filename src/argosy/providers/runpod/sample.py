"""RunPod's price service as recorded, and how it answers."""

from __future__ import annotations

from typing import Any, Final

from argosy.catalog.refresh.recorded import Asked


class Sample:
    GIVES: Final = ("1x_A40_SECURE", "SE", 0.41)

    def __init__(self) -> None:
        self.gpu_types: list[dict[str, Any]] = [
            {
                "id": "NVIDIA A40",
                "displayName": "A40",
                "memoryInGb": 48,
                "maxGpuCount": 1,
                "secureCloud": True,
                "securePrice": 0.41,
                "secureSpotPrice": None,
            }
        ]
        self.error = ""

    def answer(self, asked: Asked) -> object:
        if asked.path != "/graphql":
            return None
        if self.error:
            return {"errors": [{"message": self.error}], "data": None}
        count = asked.json()["variables"]["lowest"]["gpuCount"]
        told = []
        for gpu in self.gpu_types:
            lowest = {"minVcpu": 8 * count, "minMemory": 60 * count} if gpu.pop("stocked", True) else {}
            told.append({**gpu, "lowestPrice": lowest})
        return {"data": {"gpuTypes": told}}

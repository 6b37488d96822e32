"""Cudo's price service as recorded, and how it answers."""

from __future__ import annotations

from typing import Any, Final

from argosy.catalog.refresh.recorded import Asked


def machine_type(name: str, place: str, gpu: str, gpu_price: str, **more: Any) -> dict[str, Any]:
    return {
        "machineType": name,
        "dataCenterId": place,
        "cpuModel": "Icelake",
        "gpuModel": gpu,
        "gpuModelId": "nvidia",
        "minVcpuPerMemoryGib": 0.25,
        "maxVcpuPerMemoryGib": 1,
        "minVcpuPerGpu": 1,
        "maxVcpuPerGpu": 13,
        "vcpuPriceHr": {"value": "0.0025"},
        "memoryGibPriceHr": {"value": "0.0040"},
        "gpuPriceHr": {"value": gpu_price},
        "minStorageGibPriceHr": {"value": "0.0001"},
        "ipv4PriceHr": {"value": "0.005"},
        "maxVcpuFree": 76,
        "totalVcpuFree": 377,
        "renewableEnergy": False,
        **more,
    }


class Sample:
    GIVES: Final = ("ice-lake-a40-compute_1x2v4gb", "ca-montreal-3", 0.321)

    def __init__(self) -> None:
        self.types = [machine_type("ice-lake-a40-compute", "ca-montreal-3", "A40 (compute mode)", "0.30")]

    def answer(self, asked: Asked) -> object:
        return {"machineTypes": self.types} if asked.path == "/v1/vms/machine-types-2" else None

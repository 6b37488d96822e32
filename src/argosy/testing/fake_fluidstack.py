"""Fluidstack on this machine: the list of clusters of its present API, and the machines of its old platform
as its SDK 0.0.8 knows them."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any, Final

import msgspec

from argosy.testing.fake_cloud import AddKey, Answer, Ask, FakeCloud, FakeMachine, Shortage, route

KEY: Final = "fake0key0of0the0fake"
TOKEN: Final = "eyJ.fake-token-of.the-fake"
_PAGE: Final = 2
_STATUS: Final = {"starting": "pending", "ending": "terminating", "failed": "out_of_stock"}


class Order(msgspec.Struct, forbid_unknown_fields=True):
    name: str
    gpu_type: str
    ssh_key: str
    gpu_count: int = 1
    region: str = ""
    operating_system_label: str = "ubuntu_20_04_lts_nvidia"


class FakeFluidstack(FakeCloud):
    none_left = (400, "capacity", "{} is out of stock")
    over_limit = (403, "quota", "Quota exceeded: limit {}")
    missing = "there is no such instance"

    def begin(self) -> None:
        self.types = {"H100_NVLINK_80GB": ("FINLAND", "CANADA"), "RTX_A6000_48GB": ("CANADA",)}
        self.keys: list[AddKey] = []
        self.clusters: list[dict[str, Any]] = []

    def environ(self) -> dict[str, str]:
        return {
            "FLUIDSTACK_API_KEY": KEY,
            "FLUIDSTACK_TOKEN": TOKEN,
            "ARGOSY_FLUIDSTACK_URL": self.url,
            "HOME": "/nonexistent",
        }

    def knows(self, ask: Ask[Any]) -> bool:
        return ask.headers.get("api-key") == KEY or ask.headers.get("authorization") == f"Bearer {TOKEN}"

    def error(self, status: int, code: str, text: str, field: str = "") -> Answer:
        if status == 422:
            problem = {"loc": ["body", field], "msg": text, "type": "value_error"}
            return Answer(422, {"detail": [problem]})
        return Answer(status, {"message": text})

    @route("GET", "/clusters")
    def list_clusters(self, ask: Ask[None]) -> object:
        return self.clusters

    @route("GET", "/list_available_configurations")
    def configurations(self, ask: Ask[None]) -> object:
        return [
            {"gpu_type": gpu, "price_per_gpu_hr": "2.5", "gpu_counts": [1, 8], "regions": list(regions)}
            for gpu, regions in self.types.items()
        ]

    @route("POST", "/instances", body=Order)
    def create(self, ask: Ask[Order]) -> object:
        told = ask.body
        if told.gpu_type not in self.types:
            raise self.error(422, "invalid", f"unknown GPU type {told.gpu_type}", "gpu_type")
        if told.region not in self.types[told.gpu_type]:
            raise Shortage(told.gpu_type)
        if told.ssh_key not in {each.name for each in self.keys}:
            raise self.error(404, "not-found", f"there is no SSH key {told.ssh_key}")
        made = self.order(
            name=told.name, kind=f"{told.gpu_type}::{told.gpu_count}", region=told.region, user_data=b""
        )
        label = told.operating_system_label
        return {"id": made.id, "name": made.name, "gpu_type": told.gpu_type, "operating_system_label": label}

    @route("GET", "/instances", query=("page",))
    def instances(self, ask: Ask[None]) -> object:
        start = (int(ask.query.get("page") or 1) - 1) * _PAGE
        return [self._told(each) for each in self.shown()[start : start + _PAGE]]

    @route("DELETE", "/instances/{id}")
    def delete(self, ask: Ask[None]) -> object:
        machine = self.found(ask)
        if machine.state == "failed":
            machine.state = "stopped"
        self.end(machine)
        return {"message": "deleted"}

    @route("GET", "/ssh_keys")
    def ssh_keys(self, ask: Ask[None]) -> object:
        return [{"name": each.name, "public_key": each.public_key} for each in self.keys]

    @route("POST", "/ssh_keys", body=AddKey)
    def add_key(self, ask: Ask[AddKey]) -> object:
        if ask.body.name in {each.name for each in self.keys}:
            raise self.error(409, "conflict", "the name is taken")
        self.keys.append(ask.body)
        return {"name": ask.body.name, "public_key": ask.body.public_key}

    def _told(self, machine: FakeMachine) -> dict[str, Any]:
        gpu, _, count = machine.kind.partition("::")
        return {
            "id": machine.id,
            "status": _STATUS.get(machine.state, machine.state),
            "name": machine.name,
            "username": "ubuntu",
            "ssh_port": "22",
            "ssh_keys": [each.name for each in self.keys],
            "ip_address": machine.ip or None,
            "configuration": {
                "id": "1",
                "gpu_model": {"name": gpu},
                "gpu_count": int(count or 1),
                "cpu_count": 8,
                "nvme_storage_size_gb": 100,
                "memory_size_gb": 64.0,
                "region": machine.region,
            },
            "created_at": datetime.fromtimestamp(machine.created_s, UTC).isoformat(),
        }

"""The Cudo Compute API (v1) on this machine, as its client says: machines of a project by ids that their
owner chooses, which can be terminated only while nothing else is done to them."""

from __future__ import annotations

import re
from datetime import UTC, datetime
from typing import Any, Final

import msgspec

from argosy.testing.fake_cloud import Answer, Ask, FakeCloud, FakeMachine, Nothing, route

KEY, PROJECT = "key-of-the-fake", "research"
_STATE: Final = {
    "starting": "STARTING",
    "running": "ACTIVE",
    "stopping": "STOPPING",
    "stopped": "STOPPED",
    "ending": "DELETING",
    "failed": "FAILED",
}
_SHORT: Final = {
    "STARTING": "boot",
    "ACTIVE": "runn",
    "STOPPED": "poff",
    "FAILED": "fail",
    "DELETING": "dele",
}
_PRICE: Final = {"value": "0.079"}
_ID: Final = re.compile(r"[a-z]([-a-z0-9]{0,61}[a-z0-9])?")


class Disk(msgspec.Struct, forbid_unknown_fields=True, rename="camel"):
    size_gib: int
    storage_class: str = "STORAGE_CLASS_NETWORK"
    id: str = ""


class Create(msgspec.Struct, forbid_unknown_fields=True, rename="camel"):
    vm_id: str
    data_center_id: str
    machine_type: str
    boot_disk_image_id: str
    boot_disk: Disk
    vcpus: int
    memory_gib: int
    gpus: int = 0
    ssh_key_source: str = "SSH_KEY_SOURCE_PROJECT"
    custom_ssh_keys: list[str] = []
    start_script: str = ""
    metadata: dict[str, str] = {}
    ttl: str = ""


class FakeCudo(FakeCloud):
    bearer = KEY
    none_left = (400, "9", "no host available with the requested resources")
    over_limit = (429, "8", "project quota exceeded: limit of {} machines")

    def begin(self) -> None:
        self.types = {
            ("se-stockholm-1", "ice-lake-a40"): (96, 384, 8),
            ("se-stockholm-1", "sapphire-rapids"): (64, 256, 0),
            ("us-dallas-1", "ice-lake-a40"): (2, 4, 1),
        }
        self.billing_account = "ba-1"

    def environ(self) -> dict[str, str]:
        return {"CUDO_API_KEY": KEY, "CUDO_PROJECT": PROJECT, "CUDO_API_URL": self.url}

    def error(self, status: int, code: str, text: str, field: str = "") -> Answer:
        codes = {"unauthorized": 16, "forbidden": 7, "not-found": 5, "invalid": 3, "rate": 8}
        number = int(code) if code.isdigit() else codes.get(code, 2)
        return Answer(status, {"code": number, "message": text, "details": []})

    @route("POST", "/v1/projects/{project}/vm", body=Create)
    def create(self, ask: Ask[Create]) -> object:
        told = ask.body
        self._project(ask)
        if not _ID.fullmatch(told.vm_id):
            raise self.error(400, "invalid", f"invalid VM ID: {told.vm_id}")
        if (told.data_center_id, told.machine_type) not in self.types:
            raise self.error(404, "not-found", "machine type not found in data center")
        if told.boot_disk_image_id not in self._images() or told.ssh_key_source != "SSH_KEY_SOURCE_NONE":
            raise self.error(400, "invalid", "image not found")
        known = self.find(told.vm_id)
        if known is not None:
            raise self.error(409, "6", f"VM {told.vm_id} already exists")
        self._next = told.vm_id
        made = self.order(
            name=told.vm_id,
            kind=f"{told.machine_type}_{told.gpus}x{told.vcpus}v{told.memory_gib}gb",
            region=told.data_center_id,
            labels=told.metadata,
            extra={"disk": told.boot_disk.size_gib, "type": told.machine_type},
        )
        return {"id": made.id, "vm": self._told(made)}

    def new_id(self, number: int) -> str:
        id, self._next = getattr(self, "_next", ""), ""
        return id or f"web-{number}"

    @route("GET", "/v1/projects/{project}/vms", query=("networkId",))
    def list_machines(self, ask: Ask[None]) -> object:
        self._project(ask)
        return {"VMs": [self._told(each) for each in self.shown()]}

    @route("GET", "/v1/projects/{project}/vms/{id}")
    def get(self, ask: Ask[None]) -> object:
        prices = ["vcpu", "totalVcpu", "memoryGib", "totalMemory", "gpu", "totalGpu", "storageGib"]
        prices += ["totalStorage", "ipv4", "total"]
        return {"VM": self._told(self._found(ask))} | {f"{name}PriceHr": _PRICE for name in prices}

    @route("POST", "/v1/projects/{project}/vms/{id}/terminate", body=Nothing)
    def terminate(self, ask: Ask[Nothing]) -> object:
        machine = self._found(ask)
        if machine.state in ("starting", "stopping"):
            raise self.error(400, "9", f"VM cannot be terminated in state {_STATE[machine.state]}")
        self.end(machine)
        return {}

    @route("POST", "/v1/projects/{project}/vms/{id}/start", body=Nothing)
    def start(self, ask: Ask[Nothing]) -> object:
        self.wake(self._found(ask))
        return {}

    @route("GET", "/v1/projects/{project}")
    def project(self, ask: Ask[None]) -> object:
        self._project(ask)
        return {"id": PROJECT, "billingAccountId": self.billing_account, "resourceCount": 1, "createBy": "a"}

    @route("GET", "/v1/vms/public-images")
    def images(self, ask: Ask[None]) -> object:
        return {
            "images": [
                {
                    "id": each,
                    "name": each,
                    "displayName": each,
                    "description": each,
                    "platform": "linux",
                    "sizeGib": 10,
                    "installedPackages": [],
                }
                for each in self._images()
            ]
        }

    @route("GET", "/v1/vms/machine-types-2")
    def machine_types(self, ask: Ask[None]) -> object:
        return {
            "machineTypes": [
                {
                    "dataCenterId": place,
                    "machineType": kind,
                    "cpuModel": "Ice Lake",
                    "gpuModel": "NVIDIA A40" if gpus else "",
                    "gpuModelId": "nvidia-a40" if gpus else "",
                    "minVcpuPerMemoryGib": 0.25,
                    "maxVcpuPerMemoryGib": 1.0,
                    "minVcpuPerGpu": 1.0,
                    "maxVcpuPerGpu": 24.0,
                    "vcpuPriceHr": _PRICE,
                    "memoryGibPriceHr": _PRICE,
                    "gpuPriceHr": _PRICE,
                    "minStorageGibPriceHr": _PRICE,
                    "ipv4PriceHr": _PRICE,
                    "maxStorageGibFree": 10_000,
                    "totalStorageGibFree": 40_000,
                    "minVcpu": 1.0,
                    "minMemoryGib": 1.0,
                    "maxVcpuFree": cpus,
                    "totalVcpuFree": cpus * 4,
                    "maxMemoryGibFree": gib,
                    "totalMemoryGibFree": gib * 4,
                    "maxGpuFree": gpus,
                    "totalGpuFree": gpus * 4,
                    "renewableEnergy": True,
                }
                for (place, kind), (cpus, gib, gpus) in self.types.items()
            ]
        }

    def _images(self) -> tuple[str, ...]:
        return (
            "ubuntu-2204",
            "ubuntu-2404",
            "ubuntu-2204-nvidia-535-docker-v20240214",
            "ubuntu-2204-nvidia-550-docker-v20240905",
            "debian-12",
        )

    def _project(self, ask: Ask[Any]) -> None:
        if ask.parts["project"] != PROJECT:
            raise self.error(404, "not-found", f"project {ask.parts['project']} not found")

    def _found(self, ask: Ask[Any]) -> FakeMachine:
        self._project(ask)
        machine = self.find(ask.parts["id"])
        if machine is None:
            raise self.error(404, "not-found", f"VM {ask.parts['id']} not found")
        return machine

    def _told(self, machine: FakeMachine) -> dict[str, Any]:
        state = _STATE[machine.state]
        told = {
            "id": machine.id,
            "datacenterId": machine.region,
            "machineType": machine.extra.get("type", machine.kind),
            "externalIpAddress": machine.ip,
            "internalIpAddress": machine.ip,
            "memory": 16,
            "vcpus": 4,
            "gpuQuantity": 1,
            "bootDiskSizeGib": machine.extra.get("disk", 10),
            "state": state,
            "shortState": _SHORT.get(state, "prol"),
            "metadata": machine.labels,
            "createTime": datetime.fromtimestamp(machine.created_s, UTC).strftime("%Y-%m-%dT%H:%M:%SZ"),
            "nics": [],
        }
        return self.bare(machine, told, "id")

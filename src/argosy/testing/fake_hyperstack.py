"""Hyperstack's Infrahub API (v1) on this machine, as its client says: machines stand in environments of one
region, an order names a key of its environment, and what is taken back is listed no longer."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any, Final

import msgspec

from argosy.testing.fake_cloud import Answer, Ask, FakeCloud, FakeMachine, route

KEY: Final = "key-of-the-fake"
_STATUS: Final = {
    "starting": "CREATING",
    "running": "ACTIVE",
    "stopping": "HIBERNATING",
    "stopped": "HIBERNATED",
    "ending": "DELETING",
    "failed": "ERROR",
}
_PAGED: Final = ("page", "pageSize", "search")


class Rule(msgspec.Struct, forbid_unknown_fields=True):
    direction: str
    ethertype: str
    protocol: str
    remote_ip_prefix: str
    port_range_min: int | None = None
    port_range_max: int | None = None


class Create(msgspec.Struct, forbid_unknown_fields=True):
    name: str
    environment_name: str
    flavor_name: str
    key_name: str
    count: int
    image_name: str = ""
    user_data: str = ""
    labels: list[str] = []
    assign_floating_ip: bool = False
    enable_port_randomization: bool = True
    create_bootable_volume: bool = False
    enhanced_monitoring_enabled: bool = False
    security_rules: list[Rule] = []


class AddEnvironment(msgspec.Struct, forbid_unknown_fields=True):
    name: str
    region: str


class AddKey(msgspec.Struct, forbid_unknown_fields=True):
    name: str
    environment_name: str
    public_key: str


class FakeHyperstack(FakeCloud):
    none_left = (400, "not_enough_stock", "Not enough stock available for this flavor")
    over_limit = (400, "invalid", "Quota exceeded for instances: limit {}")

    def begin(self) -> None:
        self.flavors = {
            "n3-H100x1": ("H100-80G-PCIe", ("CANADA-1", "NORWAY-1")),
            "n3-H100x1-spot": ("H100-80G-PCIe-spot", ("CANADA-1",)),
            "n1-cpu-small": ("", ("CANADA-1",)),
        }
        self.environments: dict[str, str] = {f"default-{n}": "CANADA-1" for n in range(120)}
        self.keys: dict[str, AddKey] = {}
        self.empty: set[tuple[str, str]] = set()  # (flavor, region) without stock
        self.credit = 25.0

    def environ(self) -> dict[str, str]:
        return {"HYPERSTACK_API_KEY": KEY, "HYPERSTACK_API_URL": self.url}

    def new_id(self, number: int) -> str:
        return str(70_000 + number)

    def knows(self, ask: Ask[Any]) -> bool:
        return ask.headers.get("api_key") == KEY

    def error(self, status: int, code: str, text: str, field: str = "") -> Answer:
        reasons = {"invalid": "bad_request", "not-found": "not_found", "rate": "too_many_requests"}
        reason = reasons.get(code, code)
        return Answer(status, {"status": False, "error_reason": reason, "message": text})

    @route("POST", "/v1/core/virtual-machines", body=Create)
    def create(self, ask: Ask[Create]) -> object:
        told = ask.body
        if len(told.name) > 50 or told.count != 1:
            raise self.error(400, "invalid", "name: longer than maximum length 50")
        if told.flavor_name not in self.flavors:
            raise self.error(404, "not-found", f"Flavor {told.flavor_name} does not exist")
        region = self.environments.get(told.environment_name)
        key = self.keys.get(told.key_name)
        if region is None:
            raise self.error(404, "not-found", f"Environment {told.environment_name} does not exist")
        if key is None or key.environment_name != told.environment_name:
            raise self.error(404, "not-found", f"Keypair {told.key_name} does not exist")
        if told.image_name not in self._images(region) or told.enable_port_randomization:
            raise self.error(400, "invalid", f"Image {told.image_name} does not exist")
        if region not in self.flavors[told.flavor_name][1] or (told.flavor_name, region) in self.empty:
            raise self.shortage("")
        if told.name in [each.name for each in self.machines()]:
            raise self.error(409, "conflict", "A virtual machine with this name already exists")
        made = self.order(
            name=told.name,
            kind=told.flavor_name,
            region=region,
            user_data=told.user_data.encode(),
            spot=told.flavor_name.endswith("-spot"),
            extra={"labels": told.labels, "environment": told.environment_name},
        )
        return {"status": True, "message": "Creating VM", "instances": [self._told(made)]}

    @route("GET", "/v1/core/virtual-machines", query=_PAGED)
    def machines_(self, ask: Ask[None]) -> object:
        shown = [each for each in self.shown() if each.state != "preempted"]
        return self._page(ask, "instances", [self._told(each) for each in shown])

    @route("GET", "/v1/core/virtual-machines/{id}")
    def machine(self, ask: Ask[None]) -> object:
        return {"status": True, "message": "ok", "instance": self._told(self._found(ask))}

    @route("DELETE", "/v1/core/virtual-machines/{id}")
    def delete(self, ask: Ask[None]) -> object:
        self.end(self._found(ask))
        return {"status": True, "message": "Deleting VM"}

    @route("GET", "/v1/core/virtual-machines/{id}/hibernate", query=("retain_ip",))
    def hibernate(self, ask: Ask[None]) -> object:
        machine = self._found(ask)
        if machine.state != "running" or machine.kind.startswith("n1-cpu"):
            raise self.error(400, "invalid", f"VM cannot be hibernated in its state {machine.state}")
        self.rest(machine)
        return {"status": True, "message": "Hibernating VM"}

    @route("GET", "/v1/core/virtual-machines/{id}/hibernate-restore")
    def restore(self, ask: Ask[None]) -> object:
        machine = self._found(ask)
        if machine.state != "stopped" or machine.extra.get("shut"):
            raise self.error(400, "invalid", f"VM cannot be restored in its state {machine.state}")
        if (machine.kind, machine.region) in self.empty:
            raise self.shortage("")
        self.wake(machine)
        return {"status": True, "message": "Restoring VM"}

    @route("GET", "/v1/core/virtual-machines/{id}/start")
    def start(self, ask: Ask[None]) -> object:
        machine = self._found(ask)
        if not machine.extra.pop("shut", False):
            raise self.error(400, "invalid", f"VM cannot be started in its state {machine.state}")
        self.wake(machine)
        return {"status": True, "message": "Starting VM"}

    @route("GET", "/v1/core/environments", query=_PAGED)
    def list_environments(self, ask: Ask[None]) -> object:
        found = [
            {"id": at, "name": name, "region": region, "created_at": "2026-01-01T00:00:00"}
            for at, (name, region) in enumerate(self.environments.items())
        ]
        return self._page(ask, "environments", found)

    @route("POST", "/v1/core/environments", body=AddEnvironment)
    def add_environment(self, ask: Ask[AddEnvironment]) -> object:
        if ask.body.region not in {region for _, regions in self.flavors.values() for region in regions}:
            raise self.error(404, "not-found", f"Region {ask.body.region} does not exist")
        self.environments[ask.body.name] = ask.body.region
        return {"status": True, "message": "ok", "environment": {"id": 1, "name": ask.body.name}}

    @route("GET", "/v1/core/keypairs", query=_PAGED)
    def list_keys(self, ask: Ask[None]) -> object:
        found = [
            {"id": at, "name": each.name, "public_key": each.public_key, "environment": {"id": 1}}
            for at, each in enumerate(self.keys.values())
        ]
        return self._page(ask, "keypairs", found)

    @route("POST", "/v1/core/keypairs", body=AddKey)
    def add_key(self, ask: Ask[AddKey]) -> object:
        if ask.body.environment_name not in self.environments:
            raise self.error(404, "not-found", "Environment does not exist")
        self.keys[ask.body.name] = ask.body
        return {"status": True, "message": "ok", "keypair": {"id": 1, "name": ask.body.name}}

    @route("GET", "/v1/core/images", query=("region", "include_public", "search", "page", "per_page"))
    def images(self, ask: Ask[None]) -> object:
        region = ask.query.get("region", "CANADA-1")
        told = [{"id": 1, "name": name, "region_name": region} for name in self._images(region)]
        group = {"region_name": region, "type": "Ubuntu", "logo": "", "images": told}
        return {"status": True, "message": "ok", "images": [group] if told else []}

    @route("GET", "/v1/core/flavors", query=("region",))
    def list_flavors(self, ask: Ask[None]) -> object:
        return {
            "status": True,
            "message": "ok",
            "data": [
                {"gpu": gpu, "region_name": region, "flavors": [self._flavor(name, region)]}
                for name, (gpu, regions) in self.flavors.items()
                for region in regions
            ],
        }

    @route("GET", "/v1/billing/user-credit/credit")
    def get_credit(self, ask: Ask[None]) -> object:
        told = {"credit": self.credit, "threshold": 0.0, "can_create_instance": self.credit > 0}
        return {"status": True, "message": "ok", "data": told}

    def _page(self, ask: Ask[None], name: str, found: list[Any]) -> object:
        page, size = int(ask.query.get("page", 1)), int(ask.query.get("pageSize", 10))
        some = found[size * (page - 1) : size * page]
        head = {"status": True, "message": "ok", "count": len(found), "page": page, "page_size": size}
        return head | {name: some}

    def _images(self, region: str) -> list[str]:
        kinds = ("LTS", "LTS R570 CUDA 12.8 with Docker", "LTS R570 CUDA 12.8", "LTS R535 CUDA 12.2")
        return [f"Ubuntu Server 22.04 {kind}" for kind in kinds] + ["Windows Server 2022"]

    def _flavor(self, name: str, region: str) -> dict[str, object]:
        gpu = self.flavors[name][0]
        return {
            "id": 1,
            "name": name,
            "region_name": region,
            "cpu": 28,
            "ram": 180.0,
            "disk": 100,
            "ephemeral": 750,
            "gpu": gpu,
            "gpu_count": int(bool(gpu)),
            "stock_available": (name, region) not in self.empty,
            "labels": [],
        }

    def _found(self, ask: Ask[Any]) -> FakeMachine:
        machine = self.find(ask.parts["id"])
        if machine is None or machine.state == "preempted":
            raise self.error(404, "not-found", "VM does not exist")
        return machine

    def _told(self, machine: FakeMachine) -> dict[str, Any]:
        running = machine.state == "running"
        flavor = self._flavor(machine.kind, machine.region)
        flavor = {
            key: value for key, value in flavor.items() if key not in ("region_name", "stock_available")
        }
        status = "SHUTOFF" if machine.extra.get("shut") else _STATUS[machine.state]
        told = {
            "id": int(machine.id),
            "name": machine.name,
            "status": status,
            "vm_state": "active" if running else "building",
            "power_state": "RUNNING" if running else "NOSTATE",
            "environment": {
                "id": 1,
                "name": machine.extra.get("environment", "web"),
                "org_id": 1,
                "region": machine.region,
            },
            "flavor": flavor,
            "fixed_ip": machine.ip if running else None,
            "floating_ip": machine.ip if running else None,
            "floating_ip_status": "ATTACHED" if running else None,
            "labels": machine.extra.get("labels", []),
            "created_at": datetime.fromtimestamp(machine.created_s, UTC).strftime("%Y-%m-%dT%H:%M:%S"),
            "port_randomization": False,
            "security_rules": [],
            "volume_attachments": [],
        }
        return self.bare(machine, told, "id")

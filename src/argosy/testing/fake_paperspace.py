"""The Paperspace API (v1) on this machine, as its reference says: pages by cursor, machines that are never
ready when there is no room (`stuck`), and events that tell why."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any, Final

import msgspec

from argosy.testing.fake_cloud import Answer, Ask, FakeCloud, FakeMachine, route

KEY: Final = "key-of-the-fake"
_STATE: Final = {"starting": "provisioning", "running": "ready", "stopped": "off", "ending": "stopping"}
_PAGED: Final = ("after", "limit", "orderBy", "order", "name")


class Create(msgspec.Struct, forbid_unknown_fields=True, rename="camel"):
    name: str
    machine_type: str
    template_id: str
    region: str
    disk_size: int
    network_id: str | None = None
    public_ip_type: str = "none"
    startup_script_id: str | None = None
    start_on_create: bool = True
    enable_nvlink: bool = False
    auto_shutdown_enabled: bool = False
    auto_snapshot_enabled: bool = False


class AddScript(msgspec.Struct, forbid_unknown_fields=True, rename="camel"):
    name: str
    script: str
    is_run_once: bool = False


class AddNetwork(msgspec.Struct, forbid_unknown_fields=True):
    name: str
    region: str


class FakePaperspace(FakeCloud):
    bearer = KEY
    none_left = (400, "invalid", "We are currently out of capacity for the selected VM type")
    over_limit = (403, "FORBIDDEN", "Your team has reached its limit of machines of this type")
    missing = "Machine not found"

    def begin(self) -> None:
        self.types = {"H100": ("East Coast (NY2)",), "C5": ("East Coast (NY2)", "Europe (AMS1)")}
        self.scripts: dict[str, AddScript] = {}
        self.networks: dict[str, AddNetwork] = {}
        self.stuck: dict[str, str] = {}  # machine -> the error of its creation; "": none is told

    def environ(self) -> dict[str, str]:
        return {"PAPERSPACE_API_KEY": KEY, "PAPERSPACE_API_URL": self.url}

    def new_id(self, number: int) -> str:
        return f"ps{number:06x}"

    def error(self, status: int, code: str, text: str, field: str = "") -> Answer:
        codes = {
            "unauthorized": "UNAUTHORIZED",
            "not-found": "NOT_FOUND",
            "invalid": "BAD_REQUEST",
            "rate": "TOO_MANY_REQUESTS",
        }
        return Answer(status, {"code": codes.get(code, code), "message": text})

    @route("POST", "/v1/machines", body=Create)
    def create(self, ask: Ask[Create]) -> object:
        told = ask.body
        if told.machine_type not in self.types or told.region not in self.types[told.machine_type]:
            raise self.error(400, "invalid", f"Machine type {told.machine_type} is not in {told.region}")
        if told.template_id not in [each[0] for each in self._templates()]:
            raise self.error(404, "not-found", "Template not found")
        if told.disk_size not in (50, 100, 250, 500, 1000, 2000):
            raise self.error(400, "invalid", "Invalid disk size")
        if told.startup_script_id not in (None, *self.scripts) or told.network_id not in (
            None,
            *self.networks,
        ):
            raise self.error(404, "not-found", "Script or network not found")
        made = self.order(
            name=told.name,
            kind=told.machine_type,
            region=told.region,
            extra={"network": told.network_id, "disk": told.disk_size},
        )
        event = {"id": "e1", "name": "create", "state": "new", "machineId": made.id, "error": None}
        return {"event": event, "data": self._told(made)}

    @route("GET", "/v1/machines", query=_PAGED)
    def list_machines(self, ask: Ask[None]) -> object:
        return self._page(ask, [self._told(each) for each in self.shown()])

    @route("DELETE", "/v1/machines/{id}")
    def delete(self, ask: Ask[None]) -> object:
        machine = self.found(ask)
        self.stuck.pop(machine.id, None)
        self.end(machine)
        return {"event": {"id": "e2", "name": "destroy", "state": "new", "machineId": machine.id}}

    @route("PATCH", "/v1/machines/{id}/stop")
    def stop(self, ask: Ask[None]) -> object:
        machine = self.found(ask)
        if machine.state == "starting":
            raise self.error(400, "invalid", "This machine is currently starting.")
        self.rest(machine)
        return {"event": {"id": "e3"}, "data": self._told(machine)}

    @route("PATCH", "/v1/machines/{id}/start")
    def start(self, ask: Ask[None]) -> object:
        machine = self.found(ask)
        if machine.state != "stopped":
            raise self.error(400, "invalid", f"This machine is currently {_STATE[machine.state]}.")
        self.wake(machine)
        return {"event": {"id": "e4"}, "data": self._told(machine)}

    @route("GET", "/v1/machine-events", query=(*_PAGED, "machineId"))
    def events(self, ask: Ask[None]) -> object:
        machine = self.find(ask.query.get("machineId", ""))
        if machine is None:
            return self._page(ask, [])
        error = self.stuck.get(machine.id, "")
        state = "error" if error else "in progress" if self._is_stuck(machine) else "done"
        told = {
            "id": "e1",
            "name": "create",
            "state": state,
            "error": error or None,
            "machineId": machine.id,
            "dtCreated": self._when(machine),
            "dtStarted": None,
            "dtFinished": None,
        }
        return self._page(ask, [told])

    @route("GET", "/v1/startup-scripts", query=_PAGED)
    def list_scripts(self, ask: Ask[None]) -> object:
        found = [{"id": id, "name": each.name, "isEnabled": True} for id, each in self.scripts.items()]
        return self._page(
            ask, [each for each in found if each["name"] == ask.query.get("name", each["name"])]
        )

    @route("POST", "/v1/startup-scripts", body=AddScript)
    def add_script(self, ask: Ask[AddScript]) -> object:
        id = f"sc{len(self.scripts)}"
        self.scripts[id] = ask.body
        return {"id": id, "name": ask.body.name, "isEnabled": True}

    @route("GET", "/v1/private-networks", query=_PAGED)
    def list_networks(self, ask: Ask[None]) -> object:
        found = [{"id": id, "name": each.name, "region": each.region} for id, each in self.networks.items()]
        return self._page(
            ask, [each for each in found if each["name"] == ask.query.get("name", each["name"])]
        )

    @route("POST", "/v1/private-networks", body=AddNetwork)
    def add_network(self, ask: Ask[AddNetwork]) -> object:
        id = f"ne{len(self.networks)}"
        self.networks[id] = ask.body
        return {"id": id, "name": ask.body.name, "region": ask.body.region}

    @route("GET", "/v1/os-templates", query=_PAGED)
    def templates(self, ask: Ask[None]) -> object:
        return self._page(
            ask,
            [
                {
                    "id": id,
                    "name": name,
                    "agentType": "LinuxHeadless",
                    "operatingSystemLabel": system,
                    "defaultSizeGb": size,
                    "dtCreated": "2024-01-01T00:00:00.000Z",
                    "availableMachineTypes": [
                        {"machineTypeLabel": kind, "isAvailable": True} for kind in self.types
                    ],
                }
                for id, name, system, size in self._templates()
            ],
        )

    def _templates(self) -> tuple[tuple[str, str, str, int], ...]:
        return (
            ("t20", "Ubuntu 20.04", "Ubuntu 20.04", 50),
            ("t22", "Ubuntu 22.04", "Ubuntu 22.04", 50),
            ("tml", "ML-in-a-Box Ubuntu 22.04", "Ubuntu 22.04", 250),
            ("twi", "Windows 10", "Windows 10 (Server 2019)", 50),
        )

    def _page(self, ask: Ask[None], found: list[dict[str, Any]]) -> object:
        after, limit = int(ask.query.get("after", 0)), min(int(ask.query.get("limit", 20)), 3)
        some, end = found[after : after + limit], after + limit
        more = {"hasMore": True, "nextPage": str(end)} if end < len(found) else {"hasMore": False}
        return {"items": some, **more}

    def _is_stuck(self, machine: FakeMachine) -> bool:
        return machine.id in self.stuck or machine.state == "starting"

    def _when(self, machine: FakeMachine) -> str:
        return datetime.fromtimestamp(machine.created_s, UTC).strftime("%Y-%m-%dT%H:%M:%S.000Z")

    def _told(self, machine: FakeMachine) -> dict[str, Any]:
        state = "provisioning" if machine.id in self.stuck else _STATE.get(machine.state, machine.state)
        gone = machine.state == "ending"
        told = {
            "id": machine.id,
            "name": machine.name,
            "state": state,
            "os": "Ubuntu 22.04",
            "machineType": machine.kind,
            "agentType": "LinuxHeadless",
            "cpus": 20,
            "ram": "268435456000",
            "region": machine.region,
            "networkId": machine.extra.get("network") or "ndefault",
            "privateIp": machine.ip or None,
            "publicIp": machine.ip or None,
            "publicIpType": "dynamic",
            "dtCreated": self._when(machine),
            "dtDeleted": self._when(machine) if gone else None,
        }
        return self.bare(machine, told, "id")

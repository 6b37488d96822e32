"""The Automation REST API of a vCenter (7.0 U3) on this machine: folders, templates, clones as tasks,
customization specifications, power, and what VMware Tools tell."""

from __future__ import annotations

import base64
from dataclasses import dataclass
from typing import Any, Final

import msgspec

from argosy.testing.fake_cloud import Answer, Ask, FakeCloud, FakeMachine, OverQuota, Shortage, route

USER, PASSWORD = "argosy@vsphere.local", "password-of-the-fake"
_SESSION: Final = "session-of-the-fake"
_TYPES: Final = {
    "unauthorized": "UNAUTHENTICATED", "not-found": "NOT_FOUND", "invalid": "INVALID_ARGUMENT",
    "rate": "TIMED_OUT",
}  # fmt: skip


class _Strict(msgspec.Struct, forbid_unknown_fields=True):
    pass


class Placement(_Strict):
    folder: str = ""
    resource_pool: str = ""
    host: str = ""
    cluster: str = ""
    datastore: str = ""


class Named(_Strict):
    name: str


class Clone(_Strict):
    source: str
    name: str
    placement: Placement
    power_on: bool = False
    guest_customization_spec: Named | None = None


class Cloudinit(_Strict):
    metadata: str
    userdata: str = ""


class Cloud(_Strict):
    type: str
    cloudinit: Cloudinit | None = None


class Configuration(_Strict):
    cloud_config: Cloud | None = None


class Customization(_Strict):
    configuration_spec: Configuration
    global_DNS_settings: dict[str, list[str]]
    interfaces: list[dict[str, Any]]


class Specification(_Strict):
    name: str
    description: str
    spec: Customization


@dataclass
class Template:
    vm: str
    name: str
    cpus: int
    memory_mib: int


class FakeVsphere(FakeCloud):
    def begin(self) -> None:
        self.folders = {"argosy": "group-v1", "argosy-templates": "group-v2"}
        self.templates = [Template("vm-1", "ubuntu", 4, 8192), Template("vm-2", "train_A100x2", 32, 262144)]
        self.specs: dict[str, Specification] = {}
        self.tasks: dict[str, dict[str, Any]] = {}
        self.tools_s = 0.0  # so long after its start a machine's VMware Tools answer

    def environ(self) -> dict[str, str]:
        return {"VSPHERE_SERVER": self.url, "VSPHERE_USER": USER, "VSPHERE_PASSWORD": PASSWORD}

    def new_id(self, number: int) -> str:
        return f"vm-{number + 100}"

    def knows(self, ask: Ask[Any]) -> bool:
        return ask.headers.get("vmware-api-session-id") == _SESSION

    def error(self, status: int, code: str, text: str, field: str = "") -> Answer:
        told = {"id": "com.vmware.fake", "default_message": text, "args": []}
        return Answer(status, {"error_type": _TYPES.get(code, code), "messages": [told]})

    @route("POST", "/api/session", open=True)
    def session(self, ask: Ask[None]) -> object:
        wanted = base64.b64encode(f"{USER}:{PASSWORD}".encode()).decode()
        if self.expired or ask.headers.get("authorization") != f"Basic {wanted}":
            raise self.error(401, "unauthorized", "Authentication required.")
        return Answer(201, _SESSION)

    @route("GET", "/api/vcenter/folder", query=("names", "type"))
    def list_folders(self, ask: Ask[None]) -> object:
        name = ask.query.get("names", "")
        return (
            [{"folder": self.folders[name], "name": name, "type": "VIRTUAL_MACHINE"}]
            if name in self.folders
            else []
        )

    @route("GET", "/api/vcenter/vm", query=("folders", "names"))
    def list_vms(self, ask: Ask[None]) -> object:
        if ask.query.get("folders") == self.folders.get("argosy-templates"):
            return [
                {"vm": each.vm, "name": each.name, "power_state": "POWERED_OFF", "cpu_count": each.cpus,
                 "memory_size_MiB": each.memory_mib}
                for each in self.templates
            ]  # fmt: skip
        return [self._told(each) for each in self.shown()]

    def _told(self, machine: FakeMachine) -> dict[str, Any]:
        on = machine.state in ("running", "stopping")
        power = "POWERED_ON" if on else "POWERED_OFF"
        return {
            "vm": machine.id,
            "name": machine.name,
            "power_state": power,
            "cpu_count": 4,
            "memory_size_MiB": 8192,
        }

    @route("POST", "/api/vcenter/vm", body=Clone, query=("action", "vmw-task"))
    def clone(self, ask: Ask[Clone]) -> object:
        told = ask.body
        if ask.query != {"action": "clone", "vmw-task": "true"}:
            raise self.error(400, "invalid", "only clones as tasks are made here")
        source = next((each for each in self.templates if each.vm == told.source), None)
        spec = self.specs.get(told.guest_customization_spec.name) if told.guest_customization_spec else None
        if source is None or spec is None or told.placement.folder != self.folders["argosy"]:
            raise self.error(404, "not-found", "the source, the specification or the folder was not found")
        task = f"task-{len(self.tasks)}:VirtualMachine"
        self.tasks[task] = {"status": "SUCCEEDED", "operation": "clone", "cancelable": False}
        if any(each.name == told.name for each in self.shown()):
            self._fail(task, "ALREADY_EXISTS", f"{told.name} exists")
            return Answer(202, task)
        cloud = spec.spec.configuration_spec.cloud_config
        userdata = cloud.cloudinit.userdata if cloud is not None and cloud.cloudinit is not None else ""
        try:
            self.order(name=told.name, kind=source.name, user_data=userdata.encode())
        except (Shortage, OverQuota) as why:
            kind = "QUOTA_EXCEEDED" if isinstance(why, OverQuota) else "UNABLE_TO_ALLOCATE_RESOURCE"
            self._fail(task, kind, f"No host is compatible with the virtual machine ({why}).")
        return Answer(202, task)

    def _fail(self, task: str, kind: str, text: str) -> None:
        fault = {"error_type": kind, "messages": [{"id": "x", "default_message": text, "args": []}]}
        self.tasks[task] |= {"status": "FAILED", "error": fault}

    @route("GET", "/api/cis/tasks/{task}")
    def show_task(self, ask: Ask[None]) -> object:
        return self.tasks[ask.parts["task"]]

    @route("DELETE", "/api/vcenter/vm/{vm}")
    def delete(self, ask: Ask[None]) -> object:
        machine = self._vm(ask)
        if machine.state in ("running", "starting"):
            raise self.error(400, "NOT_ALLOWED_IN_CURRENT_STATE", "The virtual machine is powered on.")
        self.end(machine)
        return Answer(204)

    @route("POST", "/api/vcenter/vm/{vm}/power", query=("action",))
    def power(self, ask: Ask[None]) -> object:
        machine = self._vm(ask)
        wants_on, is_on = ask.query["action"] == "start", machine.state in ("running", "starting")
        if wants_on == is_on:
            raise self.error(400, "ALREADY_IN_DESIRED_STATE", "The virtual machine is in that state already.")
        (self.wake if wants_on else self.rest)(machine)
        return Answer(204)

    @route("POST", "/api/vcenter/vm/{vm}/guest/power", query=("action",))
    def guest_power(self, ask: Ask[None]) -> object:
        machine = self._vm(ask)
        if not self._tools_run(machine):
            raise self.error(503, "SERVICE_UNAVAILABLE", "VMware Tools do not run.")
        self.rest(machine)
        return Answer(204)

    @route("GET", "/api/vcenter/vm/{vm}/guest/identity")
    def identity(self, ask: Ask[None]) -> object:
        machine = self._vm(ask)
        if not self._tools_run(machine):
            raise self.error(503, "SERVICE_UNAVAILABLE", "VMware Tools do not run.")
        # Without hosts behind the machines the address is one that nobody has.
        address = machine.ip or "127.0.0.1:0"
        return {"name": "UBUNTU_64", "family": "LINUX", "host_name": machine.name, "ip_address": address}

    def _tools_run(self, machine: FakeMachine) -> bool:
        return machine.state == "running" and self.now() - machine.created_s >= self.tools_s

    def _vm(self, ask: Ask[Any]) -> FakeMachine:
        found = self.find(ask.parts["vm"])
        if found is None:
            raise self.error(404, "not-found", "The virtual machine was not found.")
        return found

    @route("POST", "/api/vcenter/guest/customization-specs", body=Specification)
    def make_spec(self, ask: Ask[Specification]) -> object:
        if ask.body.name in self.specs:
            raise self.error(400, "ALREADY_EXISTS", f"{ask.body.name} exists")
        self.specs[ask.body.name] = ask.body
        return Answer(201, ask.body.name)

    @route("DELETE", "/api/vcenter/guest/customization-specs/{name}")
    def drop_spec(self, ask: Ask[None]) -> object:
        if self.specs.pop(ask.parts["name"], None) is None:
            raise self.error(404, "not-found", "The specification was not found.")
        return Answer(204)

"""Machines of a vCenter: clones of templates, with cloud-init's data from a customization specification. A
name is unique in its folder, so a repeated order is the same."""

from __future__ import annotations

import asyncio
import re
from collections.abc import Mapping, Sequence
from typing import Final

import msgspec

from argosy.infra import border
from argosy.infra.http_json import How
from argosy.infra.machine_vendor import MachineOrder, Vendor, findings_of
from argosy.infra.machines import Machine, MachineState, Note, of_tagged_name, tagged_name_of
from argosy.infra.provider import Diagnostic, Setting, Want
from argosy.model.offer import Capacity, Offer, Shape
from argosy.model.rows import Claim
from argosy.model.units import MIB
from argosy.providers.vsphere import MANIFEST
from argosy.providers.vsphere.session import Session

FOLDER, TEMPLATES = "argosy", "argosy-templates"
#: A template says its GPUs in its name: `train_A100x2`.
_GPUS: Final = re.compile(r".+_([A-Za-z0-9-]+)x(\d+)")
_CLONE_S: Final = 20.0  # so long a clone is waited for; most are refused within seconds, if at all
_STEP_S: Final = 0.5
_YOUNG_S: Final = 900.0  # a machine that is off for so long after its order is on its way
_FAILS: Final = frozenset(("already_exists", "ALREADY_EXISTS"))


class _Folder(msgspec.Struct, frozen=True):
    folder: str


class _Vm(msgspec.Struct, frozen=True):
    vm: str
    name: str
    power_state: str
    cpu_count: int = 0
    memory_size_MiB: int = 0


class _Identity(msgspec.Struct, frozen=True):
    ip_address: str = ""


class _Message(msgspec.Struct, frozen=True):
    default_message: str = ""


class _Fault(msgspec.Struct, frozen=True):
    error_type: str = ""
    messages: list[_Message] = []

    @property
    def text(self) -> str:
        return "; ".join(each.default_message for each in self.messages) or self.error_type


class _Task(msgspec.Struct, frozen=True):
    status: str  # PENDING | RUNNING | BLOCKED | SUCCEEDED | FAILED
    error: _Fault | None = None


class Vsphere(Vendor):
    manifest = MANIFEST
    unique_names = True
    end_command = "govc vm.destroy {name}"

    def __init__(self, setting: Setting) -> None:
        self._clock = setting.clock
        self._session = Session(setting)
        self._names = (
            setting.environ.get("VSPHERE_FOLDER") or FOLDER,
            setting.environ.get("VSPHERE_TEMPLATES") or TEMPLATES,
        )
        self._folders: dict[str, str] = {}
        self._ordered_s: dict[str, float] = {}  # by name: when
        self._addresses: dict[str, str] = {}  # by machine

    async def check(self) -> Sequence[Diagnostic]:
        async def folders() -> str:
            for name in self._names:
                await self._folder(name)
            return f"the log-in is accepted; the folders {' and '.join(self._names)} are there"

        async def templates() -> str:
            found = await self._templates()
            if not found:
                fix = "put a template with cloud-init and VMware Tools there"
                raise border.RequestRefused("template", f"{self._names[1]} holds nothing to clone; {fix}")
            return f"can be cloned: {', '.join(sorted(found))}"

        return await findings_of(MANIFEST, folders, templates)

    async def _folder(self, name: str) -> str:
        if name not in self._folders:
            query = [("names", name), ("type", "VIRTUAL_MACHINE")]
            found = await self._session.http.call("GET", "/vcenter/folder", query=query, into=list[_Folder])
            if not found:
                fix = f"`govc folder.create /DATACENTER/vm/{name}` makes it"
                raise border.RequestRefused("folder", f"vCenter has no folder `{name}` for machines; {fix}")
            self._folders[name] = found[0].folder
        return self._folders[name]

    async def _templates(self) -> dict[str, _Vm]:
        query = [("folders", await self._folder(self._names[1]))]
        found = await self._session.http.call("GET", "/vcenter/vm", query=query, into=list[_Vm])
        return {each.name: each for each in found}

    async def quote(self, want: Want) -> Sequence[Offer]:
        """One offer for each template. What room there is, vCenter tells by its answer to an order."""
        now_ms = self._clock.now_ms()
        return [
            Offer(
                provider=MANIFEST.name,
                shape=_shape(each),
                capacity=Capacity.ON_DEMAND,
                price_micro_usd=0,
                quoted_at_ms=now_ms,
            )
            for each in (await self._templates()).values()
        ]

    def keeps(self, claim: Claim) -> Mapping[str, str]:
        return {"customization_specs": claim.id}

    async def create(self, order: MachineOrder, index: int) -> str:
        templates = await self._templates()
        if order.kind not in templates:
            known = ", ".join(sorted(templates)) or "nothing"
            raise border.RequestRefused(
                "instance_type", f"vCenter has no template {order.kind}: it has {known}"
            )
        name = tagged_name_of(order.claim.id, index, order.claim.tag)
        await self._specify(name, order.user_data)
        asked = {
            "source": templates[order.kind].vm,
            "name": name,
            "placement": {"folder": await self._folder(self._names[0])},
            "power_on": True,
            "guest_customization_spec": {"name": name},
        }
        self._ordered_s[name] = self._clock.monotonic_s()
        query = [("action", "clone"), ("vmw-task", "true")]
        try:
            task = await self._session.http.call(
                "POST", "/vcenter/vm", query=query, json=asked, into=str, scope=order.scope
            )
        except border.RequestRefused as error:
            if "ALREADY_EXISTS" not in str(error):
                raise
            return ""  # ordered before, and its answer was lost: the listing has it
        await self._outcome(task, order.scope)
        return ""

    async def _specify(self, name: str, user_data: str) -> None:
        """The specification that the clone names: cloud-init's data. It may be there already."""
        metadata = msgspec.json.encode({"instance-id": name, "local-hostname": name}).decode()
        cloud = {"type": "CLOUDINIT", "cloudinit": {"metadata": metadata, "userdata": user_data}}
        asked = {
            "name": name,
            "description": "made by Argosy for one machine, and removed with it",
            "spec": {
                "configuration_spec": {"cloud_config": cloud},
                "global_DNS_settings": {},
                "interfaces": [],
            },
        }
        path = "/vcenter/guest/customization-specs"
        try:
            await self._session.http.send("POST", path, json=asked)
        except border.RequestRefused as error:
            if "ALREADY_EXISTS" not in str(error):
                raise

    async def _outcome(self, task: str, scope: str) -> None:
        """Raises what the clone was refused for, when that is known soon."""
        waited_s = 0.0
        while waited_s <= _CLONE_S:
            told = await self._session.http.find(f"/cis/tasks/{task}", into=_Task)
            if told is None or told.status == "SUCCEEDED":
                return
            if told.status == "FAILED":
                fault = told.error or _Fault()
                if fault.error_type in _FAILS:
                    return
                if fault.error_type == "UNABLE_TO_ALLOCATE_RESOURCE":
                    raise border.OutOfCapacity(scope, f"vCenter has no room for {scope}: {fault.text}")
                if fault.error_type == "QUOTA_EXCEEDED":
                    raise border.QuotaExceeded("machines", "reached", f"vCenter says: {fault.text}")
                raise border.RequestRefused("template", f"vCenter could not clone {scope}: {fault.text}")
            await asyncio.sleep(_STEP_S)
            waited_s += _STEP_S

    async def listed(self, region: str) -> Sequence[Machine]:
        query = [("folders", await self._folder(self._names[0]))]
        found = await self._session.http.call("GET", "/vcenter/vm", query=query, into=list[_Vm])
        ours = [each for each in found if of_tagged_name(each.name)]
        unknown = [
            each for each in ours if each.power_state == "POWERED_ON" and each.vm not in self._addresses
        ]
        await asyncio.gather(*(self._look_up(each.vm) for each in unknown))
        now_s = self._clock.monotonic_s()
        machines = []
        for each in ours:
            is_young = now_s - self._ordered_s.get(each.name, -_YOUNG_S) < _YOUNG_S
            machine = _machine(each, self._addresses.get(each.vm, ""), is_young=is_young)
            if machine is not None:
                machines.append(machine)
        return machines

    async def _look_up(self, vm: str) -> None:
        """The address that VMware Tools tell, once they run."""
        http, how = self._session.http, How(fine=(404, 503))
        reply = await http.send("GET", f"/vcenter/vm/{vm}/guest/identity", how=how)
        if reply.status == 200 and (address := http.read(reply, _Identity).ip_address):
            self._addresses[vm] = address

    async def delete(self, machine: Machine) -> None:
        """A machine is off before it is removed; its disks go with it."""
        await self._power(machine, "stop")
        await self._session.http.drop(f"/vcenter/vm/{machine.id}")

    async def clear(self, note: Note) -> bool:
        """Specifications hold the machines' own host keys."""
        for index in range(note.count):
            name = tagged_name_of(note.claim_id, index, note.tag)
            await self._session.http.drop(f"/vcenter/guest/customization-specs/{name}")
            self._ordered_s.pop(name, None)
        return True

    async def stop(self, machine: Machine) -> None:
        self._addresses.pop(machine.id, None)
        self._ordered_s.pop(tagged_name_of(machine.claim_id, machine.index, machine.mark.tag), None)
        path = f"/vcenter/vm/{machine.id}/guest/power"
        try:
            await self._session.http.send("POST", path, query=[("action", "shutdown")])
        except border.Transient:  # without VMware Tools nobody says goodbye
            await self._power(machine, "stop")

    async def start(self, machine: Machine) -> None:
        await self._power(machine, "start")

    async def _power(self, machine: Machine, action: str) -> None:
        """What is on, or off, already is as good; so is what is gone."""
        path, scope = f"/vcenter/vm/{machine.id}/power", f"{machine.kind or machine.id}"
        how = How(safe=True, fine=(404,))
        try:
            await self._session.http.send("POST", path, query=[("action", action)], scope=scope, how=how)
        except border.RequestRefused as error:
            if "ALREADY_IN_DESIRED_STATE" not in str(error):
                raise

    async def close(self) -> None:
        await self._session.close()


def _shape(template: _Vm) -> Shape:
    found = _GPUS.fullmatch(template.name)
    return Shape(
        instance_type=template.name,
        cpus_milli=max(1, template.cpu_count) * 1000,
        memory_bytes=max(1, template.memory_size_MiB) * MIB,
        accelerator=found[1] if found else None,
        accelerators_milli=int(found[2]) * 1000 if found else 0,
    )


def _machine(told: _Vm, address: str, *, is_young: bool) -> Machine | None:
    mark = of_tagged_name(told.name)
    if mark is None:
        return None
    if told.power_state == "POWERED_ON":
        state = MachineState.RUNNING if address else MachineState.STARTING
    else:
        state = MachineState.STARTING if is_young else MachineState.STOPPED
    return Machine(
        id=told.vm,
        mark=mark,
        state=state,
        user="ubuntu",
        host=address,
        ip=address,
        created=told.vm.rpartition("-")[2].rjust(12, "0"),
    )

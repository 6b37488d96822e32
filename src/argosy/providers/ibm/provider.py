"""Virtual servers of IBM Cloud. A name is unique in its region, so a repeated order is the same; an address
of their own is attached after they are made, and goes with them."""

from __future__ import annotations

import asyncio
import re
from collections.abc import Collection, Mapping, Sequence
from typing import Final

import msgspec

from argosy.infra import border
from argosy.infra.http_json import How
from argosy.infra.machine_images import asked_image
from argosy.infra.machine_vendor import MachineOrder, Vendor, findings_of
from argosy.infra.machines import Machine, MachineState, Note, of_tagged_name, tagged_name_of
from argosy.infra.once import Once
from argosy.infra.provider import Diagnostic, Setting
from argosy.model.offer import Capacity
from argosy.model.rows import Claim
from argosy.model.units import GIB
from argosy.providers.ibm import MANIFEST
from argosy.providers.ibm.account import REGIONS, Account, Reason
from argosy.providers.ibm.network import Named, Network

_STATES: Final = {
    "pending": MachineState.STARTING,
    "starting": MachineState.STARTING,
    "waiting": MachineState.STARTING,
    "running": MachineState.RUNNING,
    "restarting": MachineState.RUNNING,
    "stopping": MachineState.STOPPING,
    "stopped": MachineState.STOPPED,
    "deleting": MachineState.ENDED,
    "failed": MachineState.FAILED,
}
_DISK_GB: Final = 100
_IMAGE: Final = re.compile(r"ibm-ubuntu-2[24]-04-\d+-minimal-(amd64)-\d+")


class _Interface(msgspec.Struct, frozen=True):
    id: str
    primary_ip: dict[str, str] = {}


class _Instance(msgspec.Struct, frozen=True):
    id: str
    name: str
    status: str
    zone: Named
    profile: Named
    created_at: str
    status_reasons: list[Reason] = []
    primary_network_interface: _Interface | None = None
    availability_class: str = ""


class _Address(msgspec.Struct, frozen=True):
    id: str
    name: str
    address: str


class Ibm(Vendor):
    manifest = MANIFEST
    unique_names = True
    by_region = True
    end_command = "ibmcloud is instance-delete {id}"

    def __init__(self, setting: Setting) -> None:
        self._account = Account(setting)
        self._network = Network(self._account)
        self._images: Once[str, str] = Once()

    async def check(self) -> Sequence[Diagnostic]:
        async def may() -> str:
            region = REGIONS[-1]
            found = [each async for each in self._account.rows(region, "/instances", Named)]
            return f"the key is accepted, and may list the {len(found)} machines in {region}"

        return await findings_of(MANIFEST, may)

    async def regions(self) -> Collection[str]:
        return REGIONS

    def refuse(self, claim: Claim) -> None:
        region = claim.choice.offer.region
        if region not in REGIONS:
            known = ", ".join(REGIONS)
            raise border.RequestRefused("infra", f"IBM Cloud has no region `{region}`: it has {known}")

    async def zones(self, claim: Claim) -> Sequence[str]:
        offer = claim.choice.offer
        return (offer.zone,) if offer.zone else [f"{offer.region}-{number}" for number in (1, 2, 3)]

    def keeps(self, claim: Claim) -> Mapping[str, str]:
        return {"floating_ips": claim.id}

    async def create(self, order: MachineOrder, index: int) -> str:
        place = await self._network.place(order.region, order.zone, order.opens)
        image = asked_image(order.claim) or await self._images.get(
            order.region, lambda: self._image(order.region)
        )
        asked = instance_of(order, index, group=self._account.group) | {
            "image": {"id": image},
            "vpc": {"id": place.vpc},
            "keys": [{"id": place.key}],
            "primary_network_interface": {
                "name": "eth0", "subnet": {"id": place.subnet}, "security_groups": [{"id": place.group}]
            },
        }  # fmt: skip
        try:
            made = await self._account.call(
                order.region, "POST", "/instances", json=asked, into=_Instance, scope=order.scope
            )
        except border.RequestRefused as error:
            if "already exists" not in str(error):
                self._network.forget()  # a part of it may have been removed
                raise
            return ""  # ordered before, and its answer was lost: the listing has it
        await self._give_address(order.region, made)
        return made.id

    async def _image(self, region: str) -> str:
        """The newest Ubuntu of IBM's own. It has no drivers of GPUs: an image of one's own may."""
        rows = self._account.rows(region, "/images", Named, ("visibility", "public"))
        found = sorted([(each.name, each.id) async for each in rows if _IMAGE.fullmatch(each.name)])
        if not found:
            fix = "name one in `image_id` (`ibmcloud is images` lists them)"
            raise border.RequestRefused("image_id", f"IBM Cloud has no image of Ubuntu in {region}: {fix}")
        return found[-1][1]

    async def _give_address(self, region: str, told: _Instance) -> None:
        """An address from outside, named as its machine is. There may be one of this name already."""
        if told.primary_network_interface is None:
            return
        asked = {"name": told.name, "target": {"id": told.primary_network_interface.id}}
        if self._account.group:
            asked["resource_group"] = {"id": self._account.group}
        try:
            await self._account.call(
                region, "POST", "/floating_ips", json=asked, into=_Address, scope="floating IPs"
            )
        except border.RequestRefused as error:
            if "already exists" not in str(error):
                raise

    async def listed(self, region: str) -> Sequence[Machine]:
        """Machines without an address get one here: the server may have been killed between the two."""
        rows = self._account.rows(region, "/instances", _Instance)
        ours = [each async for each in rows if of_tagged_name(each.name)]
        if not ours:
            return []
        addresses = await self._addresses(region)
        without = [
            each
            for each in ours
            if each.name not in addresses and _STATES.get(each.status) is MachineState.RUNNING
        ]
        await asyncio.gather(*(self._give_address(region, each) for each in without))
        found = (_machine(region, each, addresses) for each in ours)
        return [machine for machine in found if machine is not None]

    async def _addresses(self, region: str) -> dict[str, _Address]:
        rows = self._account.rows(region, "/floating_ips", _Address)
        return {each.name: each async for each in rows if of_tagged_name(each.name)}

    async def delete(self, machine: Machine) -> None:
        http = self._account.service(machine.region)
        await http.drop(f"/v1/instances/{machine.id}", query=self._account.query())

    async def clear(self, note: Note) -> bool:
        """Floating IPs outlive their machines, and cost."""
        found = await self._addresses(note.region)
        ours = [each for each in found.values() if each.name.startswith(f"{note.claim_id}-")]
        http = self._account.service(note.region)
        for each in ours:
            await http.drop(f"/v1/floating_ips/{each.id}", query=self._account.query())
        return True

    async def stop(self, machine: Machine) -> None:
        await self._act(machine, "stop")

    async def start(self, machine: Machine) -> None:
        await self._act(machine, "start")

    async def _act(self, machine: Machine, action: str) -> None:
        http, scope = self._account.service(machine.region), f"{machine.kind} in {machine.zone}"
        path = f"/v1/instances/{machine.id}/actions"
        how = How(safe=True)
        await http.send(
            "POST", path, query=self._account.query(), json={"type": action}, scope=scope, how=how
        )

    async def close(self) -> None:
        await self._account.close()


def instance_of(order: MachineOrder, index: int, *, group: str) -> dict[str, object]:
    """The fields of an order that follow from the claim."""
    wish = order.claim.choice.resources
    asked: dict[str, object] = {
        "name": tagged_name_of(order.claim.id, index, order.claim.tag),
        "profile": {"name": order.kind},
        "zone": {"name": order.zone},
        "user_data": order.user_data,
        "boot_volume_attachment": {
            "delete_volume_on_instance_delete": True,
            "volume": {
                "capacity": max(100, -(-wish.disk_size_bytes // GIB) or _DISK_GB),
                "profile": {
                    "name": "10iops-tier" if wish.disk_tier in ("high", "best") else "general-purpose"
                },
            },
        },
    }
    if group:
        asked["resource_group"] = {"id": group}
    if order.claim.choice.offer.capacity is Capacity.SPOT:
        asked["availability"] = {"class": "spot"}
        asked["availability_policy"] = {"preemption": "stop"}
    return asked


def _machine(region: str, told: _Instance, addresses: Mapping[str, _Address]) -> Machine | None:
    mark = of_tagged_name(told.name)
    if mark is None:
        return None
    state = _STATES.get(told.status, MachineState.STARTING)
    codes = {each.code for each in told.status_reasons}
    said = "; ".join(each.message or each.code for each in told.status_reasons)
    if "stopped_by_preemption" in codes:
        state = MachineState.PREEMPTED
    address = addresses.get(told.name)
    if state is MachineState.RUNNING and address is None:
        state = MachineState.STARTING
    zone, error = told.zone.name, None
    if state is MachineState.FAILED and any("capacity" in code or "compute" in code for code in codes):
        error = border.OutOfCapacity(zone, f"IBM Cloud has no {told.profile.name} in {zone} now: {said}")
    card = told.primary_network_interface
    return Machine(
        id=told.id,
        mark=mark,
        state=state,
        region=region,
        zone=zone,
        kind=told.profile.name,
        user="ubuntu",
        spot=told.availability_class == "spot",
        host=address.address if address is not None else "",
        ip=card.primary_ip.get("address", "") if card is not None else "",
        created=told.created_at,
        said=said,
        error=error,
    )

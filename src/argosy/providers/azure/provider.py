"""Azure's virtual machines, by the REST API of Azure Resource Manager.

Each is one resource, which its network card, its address and its disk go with, made by PUT under a name of
its own, so that a repeat makes no second one.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from typing import Final

import msgspec

from argosy.infra import border
from argosy.infra.http_json import How
from argosy.infra.machine_vendor import MachineOrder, Vendor
from argosy.infra.machines import Machine, Note
from argosy.infra.provider import Diagnostic, Setting, Want
from argosy.model.offer import Capacity, Offer
from argosy.model.rows import Claim
from argosy.providers.azure import MANIFEST
from argosy.providers.azure.arm import COMPUTE, NETWORK, Arm
from argosy.providers.azure.checking import findings
from argosy.providers.azure.errors import GONE
from argosy.providers.azure.network import Network, group_name
from argosy.providers.azure.orders import (
    SETS,
    Beside,
    availability_set,
    joins,
    machine,
    placement,
    zone_of,
    zone_wanted,
)
from argosy.providers.azure.quotas import Quotas
from argosy.providers.azure.states import (
    Address,
    Card,
    InstanceView,
    Ips,
    Vm,
    card_of,
    ips_of,
    is_running,
    machine_id,
    machine_of,
    parts_of,
)
from argosy.providers.azure.wishes import Wishes, wishes_of

_VMS: Final = "Microsoft.Compute/virtualMachines"
_JOINS: Final = "joins"  # the part of a note that tells what joins the machines of a gang
_KEY: Final = "Microsoft.Compute/diskEncryptionSets"
_RESERVED: Final = "Microsoft.Compute/capacityReservationGroups"
_IDENTITY, _IDENTITY_VERSION = "Microsoft.ManagedIdentity/userAssignedIdentities", "2023-01-31"


class Azure(Vendor):
    """`wait_s`: so long an order waits whether Azure has room, which it tells after some seconds; `check_s`:
    so long `check` waits for quotas."""

    manifest = MANIFEST
    place = "a region"
    unique_names = True
    lag_s = 60.0
    parallel = 16
    agent_options = ("--notice=azure",)
    end_command = "az vm delete --yes --resource-group argosy-{region} --name {name}"

    def __init__(self, setting: Setting, *, wait_s: float = 25.0, check_s: float = 1.5) -> None:
        self._arm, self._wait_s, self._check_s = Arm(setting), wait_s, check_s
        self._network = Network(self._arm, setting)
        self._quotas = Quotas(self._arm, setting.clock)
        self._joined: dict[str, Beside] = {}  # claim -> what joins its machines
        self._joining = asyncio.Lock()
        self._views: dict[str, InstanceView] = {}  # as they were listed last, by id
        self._ips: dict[str, Ips] = {}  # by network card; they stay as long as it does

    async def check(self) -> Sequence[Diagnostic]:
        return await findings(self._arm, self._quotas, self._check_s)

    async def quote(self, want: Want) -> Sequence[Offer]:
        """What the subscription's quotas close. Raises `CredentialsRejected`."""
        await self._arm.identity.token()
        await self._arm.subscription()
        return await self._quotas.offers()

    def refuse(self, claim: Claim) -> None:
        wishes_of(claim)

    async def zones(self, claim: Claim) -> Sequence[str]:
        """The zone that the task names; else Azure chooses, and where it finds nothing each zone is asked:
        what is kept free for orders that name a zone is had by those alone. A gang with InfiniBand stays in
        what joins it. Raises `QuotaExceeded` for a gang."""
        if claim.count > 1:
            offer = claim.choice.offer
            spot = offer.capacity is Capacity.SPOT
            kind, region = offer.shape.instance_type, offer.region
            await self._quotas.check(kind, claim.count, region, spot=spot)
        wanted, region = zone_wanted(claim), claim.choice.offer.region
        if wanted or joins(claim):
            return (wanted,)
        return ("", *(f"{region}-{each}" for each in self._quotas.zones(region)))

    async def create(self, order: MachineOrder, index: int) -> str:
        wishes = wishes_of(order.claim)
        place = await self._network.place(wishes)
        beside = await self._beside(wishes)
        if kept := joins(order.claim):
            path = f"{place.group}{kept}/{order.claim.id}"
            beside = await self._join(beside, path, order, zone=zone_of(order.zone))
        body = machine(order, index, wishes, place, beside)
        name, group = order.name(index), wishes.group or group_name(wishes.region)
        id = machine_id(group.lower(), name)
        path = f"{place.group}/providers/{_VMS}/{name}"
        try:
            # What is there is left as it is: the same name is the same machine.
            how = How(headers={"if-none-match": "*"}, fine=(412,))
            reply = await self._arm.send("PUT", path, COMPUTE, json=body, scope=order.scope, how=how)
        except border.RequestRefused as error:
            if error.field != GONE or not place.known:
                raise
            self._network.forget(wishes.region)
            text = f"what Argosy made in {wishes.region} was removed by somebody, and is made anew: {error}"
            raise border.Transient(text, 1) from None
        if reply.status == 412:
            return id
        try:
            await self._arm.ends(reply, self._wait_s, scope=order.scope)
        except border.Transient:
            raise
        except border.BorderError as error:
            try:
                await self._drop(path)  # what failed stays there as a machine, with its card and address
            except border.BorderError:
                pass  # it is listed, and goes with what is left of the claim
            raise error from None
        return id

    async def _beside(self, wishes: Wishes) -> Beside:
        """The ids of what a task names."""
        named, region = self._arm.named, wishes.region
        identity, key, reserved = wishes.identity, wishes.disk.key, wishes.reservation
        if identity:
            field = "config.azure.remote_identity"
            identity = await named(_IDENTITY, _IDENTITY_VERSION, identity, region="", field=field)
        if key:
            key = await named(_KEY, COMPUTE, key, region=region, field="config.azure.kms_key")
        if reserved:
            field = "config.azure.capacity_reservation"
            reserved = await named(_RESERVED, COMPUTE, reserved, region=region, field=field)
        return Beside(identity=identity, key=key, reservation=reserved)

    async def listed(self, region: str) -> Sequence[Machine]:
        path = await self._arm.path(f"/providers/{_VMS}")
        vms, states = await asyncio.gather(
            self._arm.listed(path, COMPUTE, Vm),
            self._arm.listed(path, COMPUTE, Vm, query=[("statusOnly", "true")]),
        )
        views = {each.id.lower(): each.properties.instance_view for each in states}
        ours = [each for each in vms if each.tags.get("argosy-claim")]
        # The two listings are not of the same moment: a machine that one of them lacks is as it was before.
        known = {each.id.lower() for each in ours}
        views = {id: view for id, view in (self._views | views).items() if id in known}
        self._views = views
        cards = {card_of(each) for each in ours} - {""}
        self._ips = {card: ips for card, ips in self._ips.items() if card in cards}
        running = [each for each in ours if is_running(views.get(each.id.lower(), InstanceView()))]
        if any(card_of(each) not in self._ips for each in running):
            await self._look_for_addresses()
        found = []
        for each in ours:
            view = views.get(each.id.lower(), InstanceView())
            made = machine_of(each, view, self._ips, self._explain)
            if made is not None:
                found.append(made)
        return found

    async def _look_for_addresses(self) -> None:
        cards, addresses = await asyncio.gather(
            self._arm.listed(
                await self._arm.path("/providers/Microsoft.Network/networkInterfaces"), NETWORK, Card
            ),
            self._arm.listed(
                await self._arm.path("/providers/Microsoft.Network/publicIPAddresses"), NETWORK, Address
            ),
        )
        self._ips |= ips_of(cards, addresses)

    def _explain(self, code: str, message: str, scope: str) -> border.BorderError:
        body = msgspec.json.encode({"error": {"code": code, "message": message}})
        return self._arm.error(body, scope)

    async def delete(self, machine: Machine) -> None:
        await self._drop(await self._path(machine))

    async def _drop(self, path: str) -> None:
        query = [("forceDeletion", "true")]
        await self._arm.send("DELETE", path, COMPUTE, query=query, how=How(fine=(404,)))

    async def stop(self, machine: Machine) -> None:
        path = f"{await self._path(machine)}/deallocate"
        await self._arm.send("POST", path, COMPUTE, how=How(safe=True))

    async def start(self, machine: Machine) -> None:
        scope = f"{machine.kind} in {machine.region}"
        path = f"{await self._path(machine)}/start"
        reply = await self._arm.send("POST", path, COMPUTE, scope=scope, how=How(safe=True))
        await self._arm.ends(reply, self._wait_s, scope=scope)

    async def _path(self, machine: Machine) -> str:
        group, name = parts_of(machine.id)
        return await self._arm.path(f"/resourceGroups/{group}/providers/{_VMS}/{name}")

    def keeps(self, claim: Claim) -> Mapping[str, str]:
        kept, wishes = joins(claim), wishes_of(claim)
        group = wishes.group or group_name(wishes.region)
        return {_JOINS: f"/resourceGroups/{group}{kept}/{claim.id}"} if kept else {}

    async def _join(self, beside: Beside, path: str, order: MachineOrder, *, zone: str) -> Beside:
        """Make what joins the machines of a gang, once."""
        async with self._joining:
            if order.claim.id not in self._joined:
                together = SETS in path
                body = availability_set(order.region) if together else placement(order.region, zone)
                await self._arm.put(path, COMPUTE, body, wait_s=self._wait_s, scope=order.scope)
                made = {"together": path} if together else {"near": path}
                self._joined[order.claim.id] = Beside(**made)
        joined = self._joined[order.claim.id]
        return msgspec.structs.replace(beside, together=joined.together, near=joined.near)

    async def clear(self, note: Note) -> bool:
        """It goes when Azure has forgotten the machines in it, some seconds after they are gone."""
        self._joined.pop(note.claim_id, None)
        path = await self._arm.path(note.keeps[_JOINS])
        reply = await self._arm.send("DELETE", path, COMPUTE, how=How(fine=(404, 409, 400)))
        return reply.status not in (409, 400)

    async def close(self) -> None:
        self._quotas.close()
        await self._arm.close()

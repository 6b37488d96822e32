"""Instances of OCI. A launch has a retry token, so that a repeated order is the same; a claim of several is
undone when one is refused; a capacity report refuses early what no domain has."""

from __future__ import annotations

import asyncio
from collections.abc import Collection, Mapping, Sequence
from typing import Any, Final

import msgspec

from argosy.infra import border
from argosy.infra.http_json import How
from argosy.infra.machine_images import asked_image
from argosy.infra.machine_vendor import MachineOrder, Vendor, findings_of
from argosy.infra.machines import Machine, MachineState, mark_in
from argosy.infra.provider import Diagnostic, Setting
from argosy.model.rows import Claim
from argosy.providers.oci import MANIFEST
from argosy.providers.oci.account import Account, once
from argosy.providers.oci.launching import Settings, launch_of, settings_of, shape_of
from argosy.providers.oci.network import Network

_STATES: Final = {
    "MOVING": MachineState.STARTING,
    "PROVISIONING": MachineState.STARTING,
    "STARTING": MachineState.STARTING,
    "RUNNING": MachineState.RUNNING,
    "CREATING_IMAGE": MachineState.RUNNING,
    "STOPPING": MachineState.STOPPING,
    "STOPPED": MachineState.STOPPED,
    "TERMINATING": MachineState.ENDED,
    "TERMINATED": MachineState.ENDED,
}


class _Region(msgspec.Struct, frozen=True, rename="camel"):
    region_name: str
    status: str = "READY"


class _Named(msgspec.Struct, frozen=True):
    name: str


class _Instance(msgspec.Struct, frozen=True, rename="camel"):
    id: str
    lifecycle_state: str
    availability_domain: str
    shape: str
    time_created: str
    freeform_tags: dict[str, str] = {}
    preemptible_instance_config: dict[str, Any] | None = None


class _Attachment(msgspec.Struct, frozen=True, rename="camel"):
    instance_id: str
    lifecycle_state: str
    vnic_id: str | None = None


class _Vnic(msgspec.Struct, frozen=True, rename="camel"):
    id: str
    private_ip: str = ""
    public_ip: str | None = None


class _Image(msgspec.Struct, frozen=True, rename="camel"):
    id: str
    display_name: str = ""


class _Availability(msgspec.Struct, frozen=True, rename="camel"):
    availability_status: str


class _Report(msgspec.Struct, frozen=True, rename="camel"):
    shape_availabilities: list[_Availability] = []


class Oci(Vendor):
    manifest = MANIFEST
    unique_names = True  # by the retry token
    by_region = True
    end_command = "oci compute instance terminate --instance-id {id} --region {region}"

    def __init__(self, setting: Setting) -> None:
        self._account = Account(setting)
        self._network = Network(self._account)
        self._regions: tuple[str, ...] = ()
        self._domains: dict[str, tuple[str, ...]] = {}
        self._vnics: dict[str, _Vnic] = {}  # by id: of what runs
        self._images: dict[tuple[str, str], _Image] = {}

    async def check(self) -> Sequence[Diagnostic]:
        async def who() -> str:
            profile = self._account.profile
            regions = await self._subscribed()
            return f"the key of {profile.user[:24]}… is accepted; {len(regions)} regions are subscribed"

        async def may() -> str:
            region = self._account.profile.region
            domains = await self._domains_of(region)
            async for _ in self._instances(region):
                break
            return f"may list machines in {region}, which has {len(domains)} availability domains"

        return await findings_of(MANIFEST, who, may)

    async def _subscribed(self) -> tuple[str, ...]:
        profile = self._account.profile
        identity = self._account.service("identity", profile.region)
        path = f"/tenancies/{profile.tenancy}/regionSubscriptions"
        found = await identity.call("GET", path, into=list[_Region])
        return tuple(each.region_name for each in found if each.status == "READY")

    async def regions(self) -> Collection[str]:
        if not self._regions:
            self._regions = await self._subscribed()
        return self._regions

    def refuse(self, claim: Claim) -> None:
        if not claim.choice.offer.region:
            raise border.RequestRefused("infra", "an order at OCI names a region")
        settings_of(claim)

    async def zones(self, claim: Claim) -> Sequence[str]:
        """Availability domains; their names begin with letters of the tenancy, which people leave out."""
        offer = claim.choice.offer
        if offer.region not in await self.regions():
            known = ", ".join(await self.regions())
            fix = f"subscribe to it in the console, or choose another ({known})"
            raise border.RequestRefused("infra", f"OCI's region {offer.region} is not subscribed: {fix}")
        domains = await self._domains_of(offer.region)
        return [each for each in domains if not offer.zone or each.endswith(offer.zone)]

    async def _domains_of(self, region: str) -> tuple[str, ...]:
        if region not in self._domains:
            query = [("compartmentId", self._account.profile.tenancy)]
            identity = self._account.service("identity", region)
            found = await identity.call("GET", "/availabilityDomains", query=query, into=list[_Named])
            self._domains[region] = tuple(each.name for each in found)
        return self._domains[region]

    async def create(self, order: MachineOrder, index: int) -> str:
        settings = settings_of(order.claim)
        compartment = settings.compartment_ocid or self._account.compartment
        if index == 0:
            await self._refuse_early(order, compartment)
        subnet = settings.vcn_subnet or await self._network.subnet(order.region, compartment)
        image = await self._image(order, settings, compartment)
        user = "opc" if "Oracle" in image.display_name else "ubuntu"
        asked = launch_of(order, index, compartment=compartment, subnet=subnet, image=image.id, user=user)
        http = self._account.service("iaas", order.region)
        try:
            made = await http.call(
                "POST",
                "/instances",
                json=asked,
                into=_Instance,
                scope=order.scope,
                how=once(f"{order.name(index)}-{order.zone[-4:]}"),
            )
        except border.CredentialsRejected:
            self._network.forget()  # it may have been removed
            raise
        return made.id

    async def _refuse_early(self, order: MachineOrder, compartment: str) -> None:
        """What the capacity report knows not to be there is not ordered. It is no promise, and needs a right
        that not every account has."""
        shape, config = shape_of(order.kind)
        wanted: dict[str, object] = {"instanceShape": shape}
        if config:
            wanted["instanceShapeConfig"] = config
        asked = {
            "compartmentId": compartment,
            "availabilityDomain": order.zone,
            "shapeAvailabilities": [wanted],
        }
        http = self._account.service("iaas", order.region)
        try:
            report = await http.call(
                "POST", "/computeCapacityReports", json=asked, into=_Report, how=How(safe=True)
            )
        except (border.CredentialsRejected, border.RequestRefused):
            return
        if any(each.availability_status == "OUT_OF_HOST_CAPACITY" for each in report.shape_availabilities):
            raise border.OutOfCapacity(
                order.zone, f"OCI has no {order.scope} now: its capacity report says so"
            )

    async def _image(self, order: MachineOrder, settings: Settings, compartment: str) -> _Image:
        asked = asked_image(order.claim)
        if asked:
            return _Image(id=asked)
        shape, _ = shape_of(order.kind)
        has_gpu = bool(order.claim.choice.offer.shape.accelerator)
        place = (order.region, shape)
        if place not in self._images:
            system = "Oracle Linux" if has_gpu else "Canonical Ubuntu"
            query = [
                ("compartmentId", compartment),
                ("operatingSystem", system),
                ("shape", shape),
                ("sortBy", "TIMECREATED"),
                ("sortOrder", "DESC"),
            ]
            found = [each async for each in self._account.pages(order.region, "/images", _Image, query)]
            wanted = [each for each in found if not has_gpu or "GPU" in each.display_name] or found
            if not wanted:
                raise border.RequestRefused(
                    "image_id",
                    f"OCI has no image of {system} for {shape} in {order.region}: name one in `image_id` "
                    f"(`oci compute image list --shape {shape}` lists them)",
                )
            self._images[place] = wanted[0]
        return self._images[place]

    def _instances(self, region: str) -> Any:
        query = [("compartmentId", self._account.compartment)]
        return self._account.pages(region, "/instances", _Instance, query)

    async def listed(self, region: str) -> Sequence[Machine]:
        ours = [each async for each in self._instances(region) if mark_in(each.freeform_tags)]
        running = {each.id for each in ours if each.lifecycle_state == "RUNNING"}
        vnics = await self._vnics_of(region, running) if running else {}
        return [machine for each in ours if (machine := _machine(region, each, vnics)) is not None]

    async def _vnics_of(self, region: str, instances: Collection[str]) -> Mapping[str, _Vnic]:
        """The network card of each instance, by its id."""
        query = [("compartmentId", self._account.compartment)]
        cards = {
            each.instance_id: each.vnic_id
            async for each in self._account.pages(region, "/vnicAttachments", _Attachment, query)
            if each.instance_id in instances and each.lifecycle_state == "ATTACHED" and each.vnic_id
        }
        http = self._account.service("iaas", region)

        async def ask(id: str) -> None:
            found = await http.find(f"/vnics/{id}", into=_Vnic)
            if found is not None:
                self._vnics[id] = found

        await asyncio.gather(*(ask(id) for id in cards.values() if id not in self._vnics))
        return {instance: self._vnics[card] for instance, card in cards.items() if card in self._vnics}

    async def delete(self, machine: Machine) -> None:
        """Its disks go with it: those that were made at its launch stay otherwise, and cost."""
        query = [("preserveBootVolume", "false"), ("preserveDataVolumesCreatedAtLaunch", "false")]
        await self._account.service("iaas", machine.region).drop(f"/instances/{machine.id}", query=query)

    async def stop(self, machine: Machine) -> None:
        await self._act(machine, "SOFTSTOP")

    async def start(self, machine: Machine) -> None:
        await self._act(machine, "START")

    async def _act(self, machine: Machine, action: str) -> None:
        self._vnics = {}  # addresses may be others after a rest
        http = self._account.service("iaas", machine.region)
        scope = f"{machine.kind} in {machine.zone}"
        query = [("action", action)]
        await http.send("POST", f"/instances/{machine.id}", query=query, scope=scope, how=How(safe=True))

    async def close(self) -> None:
        await self._account.close()


def _machine(region: str, told: _Instance, vnics: Mapping[str, _Vnic]) -> Machine | None:
    mark = mark_in(told.freeform_tags)
    if mark is None:
        return None
    spot = told.preemptible_instance_config is not None
    state = _STATES.get(told.lifecycle_state, MachineState.STARTING)
    card = vnics.get(told.id)
    if state is MachineState.RUNNING and card is None:
        state = MachineState.STARTING  # its address is not known yet
    return Machine(
        id=told.id,
        mark=mark,
        state=MachineState.PREEMPTED if spot and state is MachineState.ENDED else state,
        region=region,
        zone=told.availability_domain,
        kind=told.shape,
        user=mark.user or "ubuntu",
        spot=spot,
        host=(card.public_ip or card.private_ip) if card is not None else "",
        ip=card.private_ip if card is not None else "",
        created=told.time_created,
    )

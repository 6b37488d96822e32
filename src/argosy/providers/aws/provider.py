"""Machines of EC2, through boto3: a claim is one order of N machines in one zone, all or none.

The same order has the same client token, so that a repeated one makes nothing twice.
"""

from __future__ import annotations

import asyncio
from collections.abc import Collection, Mapping, Sequence
from typing import Any, Final

from argosy.infra import border
from argosy.infra.machine_vendor import MachineOrder, Vendor, findings_of
from argosy.infra.machines import CLAIM, Machine, Note
from argosy.infra.provider import Diagnostic, Setting, Want
from argosy.model.offer import Offer
from argosy.model.rows import Claim
from argosy.providers.aws import MANIFEST
from argosy.providers.aws.account import Account
from argosy.providers.aws.images import Images
from argosy.providers.aws.launching import group_of, order_of
from argosy.providers.aws.network import Network
from argosy.providers.aws.places import Places
from argosy.providers.aws.quotas import Quotas, named_quota
from argosy.providers.aws.states import machine_of
from argosy.providers.aws.wishes import wishes_of

_GROUP: Final = "placement_group"  # of a note: a gang may have one
_SHOWN: Final = 10
_MARKED: Final = [{"Name": "tag-key", "Values": [CLAIM]}]


class Aws(Vendor):
    """`account`: of tests."""

    manifest = MANIFEST
    place = "a region"
    unique_names = True  # by the client token
    makes_gangs = True
    by_region = True
    agent_options = ("--notice=aws",)
    end_command = "aws ec2 terminate-instances --region {region} --instance-ids {id}"

    def __init__(self, setting: Setting, account: Account | None = None) -> None:
        environ, clock = setting.environ, setting.clock
        self._private = environ.get("ARGOSY_AWS_ADDRESS") == "private"
        self._account = account or Account()
        self._network = Network(self._account, clock, environ.get("ARGOSY_AWS_SSH_FROM") or "0.0.0.0/0")
        self._images, self._quotas = Images(self._account, clock), Quotas(self._account, clock)
        self._places = Places(self._account)
        self._acts: dict[tuple[str, str], tuple[list[str], asyncio.Task[None]]] = {}

    # -- what may be had ------------------------------------------------------------------------------------

    async def check(self) -> Sequence[Diagnostic]:
        return await findings_of(
            MANIFEST,
            self._account.identity,
            self._regions,
            self._may_order,
            self._reserved,
            self._default_vpc,
        )

    async def _regions(self) -> str:
        regions = await self._account.enabled_regions()
        return f"{len(regions)} regions are enabled; {await self._account.home()} is set"

    async def _may_order(self) -> str:
        """A dry run says whether we might, and orders nothing."""
        region = await self._account.home()
        try:
            await self._account.call(
                "ec2",
                region,
                "run_instances",
                fine=("DryRunOperation",),
                DryRun=True,
                MinCount=1,
                MaxCount=1,
                InstanceType="t3.micro",
                ImageId="ami-00000000000000000",
            )
        except border.CredentialsRejected as error:
            raise border.CredentialsRejected(f"may not start machines in {region}: {error}") from None
        except border.RequestRefused:
            pass  # it got as far as to look at the image, which does not exist
        return f"may start machines in {region}"

    async def _reserved(self) -> str:
        """Capacity that is paid for already, with what of it is free."""
        region, active = await self._account.home(), [{"Name": "state", "Values": ["active"]}]
        try:
            listed = await self._account.pages(
                "ec2", region, "describe_capacity_reservations", "CapacityReservations", Filters=active
            )
        except border.CredentialsRejected:
            return ""  # who may not read reservations may start machines all the same
        told = [
            f"{each['CapacityReservationId']} ({each.get('AvailableInstanceCount', 0)} of "
            f"{each.get('TotalInstanceCount', 0)} x {each['InstanceType']} free in "
            f"{each['AvailabilityZone']})"
            for each in sorted(listed, key=lambda each: str(each["CapacityReservationId"]))
        ]
        more = f" and {len(told) - _SHOWN} more" if len(told) > _SHOWN else ""
        use = "`config: {aws: {capacity_reservation: ID}}` uses one"
        return f"reserved in {region}: {', '.join(told[:_SHOWN])}{more}; {use}" if told else ""

    async def _default_vpc(self) -> str:
        region = await self._account.home()
        if not await self._network.has_default_vpc(region):
            fix = f"`aws ec2 create-default-vpc --region {region}`, or tasks name a VPC in `networking`"
            raise border.RequestRefused("networking", f"{region} has no default VPC; {fix}")
        return f"{region} has a default VPC"

    async def quote(self, want: Want) -> Sequence[Offer]:
        """Nothing differs from the catalog, for who is known there."""
        await self._account.identity()
        return ()

    def refuse(self, claim: Claim) -> None:
        wishes_of(claim)

    def keeps(self, claim: Claim) -> Mapping[str, str]:
        return {_GROUP: group_of(claim.id)} if claim.count > 1 else {}

    async def regions(self) -> Collection[str]:
        return await self._account.enabled_regions()

    async def zones(self, claim: Claim) -> Sequence[str]:
        wishes = wishes_of(claim)
        await self._quotas.check(wishes)
        place = await self._network.find(wishes)
        await self._images.find(wishes)
        await self._places.kind(wishes)
        return await self._places.zones(wishes, place, await self._places.reservation(wishes))

    # -- orders ---------------------------------------------------------------------------------------------

    async def create_all(self, order: MachineOrder) -> Sequence[str]:
        wishes = wishes_of(order.claim)
        place, kind = await self._network.find(wishes), await self._places.kind(wishes)
        fields = order_of(
            order.claim,
            wishes,
            subnet=next(each for each in place.subnets if each.zone == order.zone),
            place=place,
            image=await self._images.find(wishes),
            user_data=order.user_data,
            kind=kind,
            reservation=await self._places.reservation(wishes),
        )
        if wishes.count > 1 and kind.clusters:
            await self._account.call(
                "ec2",
                wishes.region,
                "create_placement_group",
                fine=("InvalidPlacementGroup.Duplicate",),
                GroupName=group_of(order.claim.id),
                Strategy="cluster",
            )
        try:
            answer = await self._account.call("ec2", wishes.region, "run_instances", order.scope, **fields)
        except border.QuotaExceeded as error:
            self._quotas.forget(wishes.region)
            raise named_quota(wishes, error) from None
        except (border.RequestRefused, border.CredentialsRejected):
            self._network.forget(wishes.region)
            raise
        made = sorted(answer["Instances"], key=lambda each: int(each.get("AmiLaunchIndex", 0)))
        return [each["InstanceId"] for each in made]

    async def create(self, order: MachineOrder, index: int) -> str:
        raise border.Transient("AWS does not list all machines of the order yet", 2)

    async def clear(self, note: Note) -> bool:
        """The placement group of a gang, after its last machine."""
        try:
            await self._account.call(
                "ec2",
                note.region,
                "delete_placement_group",
                fine=("InvalidPlacementGroup.Unknown",),
                GroupName=group_of(note.claim_id),
            )
        except border.RequestRefused:
            return False  # machines that go are still in it
        return True

    # -- machines -------------------------------------------------------------------------------------------

    async def listed(self, region: str) -> Sequence[Machine]:
        pages = self._account.pages(
            "ec2", region, "describe_instances", "Reservations", Filters=_MARKED, MaxResults=1000
        )
        return [
            machine
            for order in await pages
            for each in order.get("Instances", ())
            if (machine := machine_of(region, each, order.get("ReservationId", ""), private=self._private))
        ]

    async def delete(self, machine: Machine) -> None:
        """Without the goodbye of its system: what runs there has had its grace. A request for a spot machine,
        which is for one, ends with it."""
        await self._act("terminate_instances", machine, SkipOsShutdown=True)

    async def stop(self, machine: Machine) -> None:
        await self._act("stop_instances", machine)

    async def start(self, machine: Machine) -> None:
        await self._act("start_instances", machine)

    async def _act(self, verb: str, machine: Machine, **more: Any) -> None:  # Any: fields of the call
        """Machines of a region that are asked for in the same moment share one call."""
        key = (verb, machine.region)
        if key not in self._acts:
            scope = f"{machine.kind} in {machine.zone}"
            acting = asyncio.ensure_future(self._act_on_all(key, scope, more))
            acting.add_done_callback(lambda task: task.cancelled() or task.exception())
            self._acts[key] = ([], acting)
        ids, acting = self._acts[key]
        ids.append(machine.id)
        await asyncio.shield(acting)

    async def _act_on_all(self, key: tuple[str, str], scope: str, more: Mapping[str, Any]) -> None:
        await asyncio.sleep(0)
        ids, _ = self._acts.pop(key)
        await self._account.call("ec2", key[1], key[0], scope, InstanceIds=ids, **more)

"""Ordering machines: zone by zone, until one has them all. The note is written before the call."""

from __future__ import annotations

from typing import Any, Final

import msgspec

from argosy.infra import border
from argosy.infra.machine_keys import Keys
from argosy.infra.machine_notes import Notes
from argosy.model.ids import Clock
from argosy.model.rows import Claim
from argosy.providers.aws.account import Account
from argosy.providers.aws.images import Images
from argosy.providers.aws.launching import Kind, Reservation, group_of, kind_of, order_of
from argosy.providers.aws.network import Network, Place, Subnet
from argosy.providers.aws.orders import Order
from argosy.providers.aws.quotas import Quotas, quota_of
from argosy.providers.aws.wishes import Wishes

_REASONS_MAX: Final = 6


class Ordering:
    def __init__(
        self,
        account: Account,
        network: Network,
        images: Images,
        quotas: Quotas,
        keys: Keys,
        orders: Notes[Order],
        clock: Clock,
    ) -> None:
        self._account, self._network, self._images, self._quotas = account, network, images, quotas
        self._keys, self._orders, self._clock = keys, orders, clock
        self._kinds: dict[str, Kind] = {}
        self._offered: dict[tuple[str, str], frozenset[str]] = {}

    async def order(self, claim: Claim, wishes: Wishes, before: Order | None) -> None:
        """Order all machines of a claim. `before` is the note of an order whose answer did not arrive.

        Raises a border error when nothing was made; `Transient` when that is not known.
        """
        await self._quotas.check(wishes.region, wishes.kind, wishes.cpus * wishes.count, spot=wishes.spot)
        place = await self._network.find(wishes)
        image = await self._images.find(wishes, before.image_id if before is not None else "")
        kind = await self._kind(wishes)
        reservation = await self._reservation(wishes)
        zones = await self._zones(wishes, place, reservation, before)
        group = group_of(claim.id) if wishes.count > 1 and kind.clusters else ""
        note = Order(
            claim_id=claim.id,
            region=wishes.region,
            count=claim.count,
            tag=claim.tag,
            spot=wishes.spot,
            image_id=image.id,
            group=group,
        )
        refusals: list[border.BorderError] = []
        for subnet in zones:
            fields = order_of(
                claim,
                wishes,
                subnet=subnet,
                place=place,
                image=image,
                user_data=self._keys.user_data(claim.id),
                kind=kind,
                reservation=reservation,
            )
            note = msgspec.structs.replace(note, zone=subnet.zone, asked_ms=self._clock.now_ms())
            self._orders.save(note)
            try:
                if group and not refusals:
                    await self._make_group(wishes.region, group)
                ids = await self._run(wishes, subnet, fields)
            except border.Transient:
                raise  # it may have been made: the note stays, and the same words are said again
            except border.OutOfCapacity as refusal:
                refusals.append(refusal)
                continue
            except border.BorderError as error:
                await self._undo(note)
                if isinstance(error, border.QuotaExceeded):
                    self._quotas.forget(wishes.region)
                    raise self._named_quota(wishes, error) from None
                self._network.forget(wishes.region)
                raise
            self._orders.save(msgspec.structs.replace(note, ids=ids))
            return
        await self._undo(note)
        raise _nowhere(wishes, refusals)

    async def _run(self, wishes: Wishes, subnet: Subnet, fields: dict[str, Any]) -> tuple[str, ...]:
        scope = f"{wishes.kind}{' (spot)' if wishes.spot else ''} in {subnet.zone}"
        answer = await self._account.call("ec2", wishes.region, "run_instances", scope, **fields)
        return tuple(each["InstanceId"] for each in answer["Instances"])

    async def _undo(self, note: Order) -> None:
        """Nothing was made: the note goes, and so does what was prepared."""
        if note.group:
            fine = ("InvalidPlacementGroup.Unknown", "InvalidPlacementGroup.InUse")
            await self._account.call(
                "ec2", note.region, "delete_placement_group", fine=fine, GroupName=note.group
            )
        self._orders.remove(note.claim_id)

    async def _make_group(self, region: str, name: str) -> None:
        await self._account.call(
            "ec2",
            region,
            "create_placement_group",
            fine=("InvalidPlacementGroup.Duplicate",),
            GroupName=name,
            Strategy="cluster",
        )

    async def _kind(self, wishes: Wishes) -> Kind:
        if wishes.kind not in self._kinds:
            answer = await self._account.call(
                "ec2",
                wishes.region,
                "describe_instance_types",
                fine=("InvalidInstanceType",),
                InstanceTypes=[wishes.kind],
            )
            if answer is None or not answer["InstanceTypes"]:
                raise border.OutOfCapacity(wishes.region, f"{wishes.region} has no {wishes.kind}")
            self._kinds[wishes.kind] = kind_of(answer["InstanceTypes"][0])
        return self._kinds[wishes.kind]

    async def _zones(
        self, wishes: Wishes, place: Place, reservation: Reservation | None, before: Order | None
    ) -> list[Subnet]:
        """Subnets to try, in order. Zones that do not have the type are left out."""
        zone = reservation.zone if reservation is not None else wishes.zone
        offered = await self._zones_with(wishes)
        fitting = [each for each in place.subnets if each.zone in offered and zone in ("", each.zone)]
        if not fitting:
            has = ", ".join(each.zone for each in place.subnets)
            if zone and zone not in has:
                text = f"{place.vpc} has no subnet in {zone}; it has some in {has}"
                raise border.RequestRefused("networking.subnet_name", text)
            raise border.OutOfCapacity(
                zone or wishes.region, f"there is no {wishes.kind} in {zone or has}: it is offered in "
                f"{', '.join(sorted(offered)) or 'no zone'} of {wishes.region}",
            )  # fmt: skip
        if before is not None and before.zone:
            fitting.sort(key=lambda each: each.zone != before.zone)
        return fitting

    async def _zones_with(self, wishes: Wishes) -> frozenset[str]:
        key = (wishes.region, wishes.kind)
        if key not in self._offered:
            listed = await self._account.pages(
                "ec2",
                wishes.region,
                "describe_instance_type_offerings",
                "InstanceTypeOfferings",
                LocationType="availability-zone",
                Filters=[{"Name": "instance-type", "Values": [wishes.kind]}],
            )
            self._offered[key] = frozenset(each["Location"] for each in listed)
        return self._offered[key]

    async def _reservation(self, wishes: Wishes) -> Reservation | None:
        if not wishes.reservation:
            return None
        field = "config.aws.capacity_reservation"
        answer = await self._account.call(
            "ec2",
            wishes.region,
            "describe_capacity_reservations",
            fine=("InvalidCapacityReservationId.NotFound", "InvalidCapacityReservationId.Malformed"),
            CapacityReservationIds=[wishes.reservation],
        )
        if answer is None or not answer["CapacityReservations"]:
            text = f"there is no capacity reservation {wishes.reservation} in {wishes.region}"
            raise border.RequestRefused(field, text)
        (found,) = answer["CapacityReservations"]
        if found["State"] != "active":
            text = f"the capacity reservation {wishes.reservation} is {found['State']}, not active"
            raise border.RequestRefused(field, text)
        if found["InstanceType"] != wishes.kind:
            kind = found["InstanceType"]
            text = f"the capacity reservation {wishes.reservation} is for {kind}, not {wishes.kind}"
            raise border.RequestRefused(field, text)
        if found.get("AvailableInstanceCount", wishes.count) < wishes.count:
            text = (
                f"the capacity reservation {wishes.reservation} has {found['AvailableInstanceCount']} of "
                f"{wishes.count} machines free"
            )
            raise border.OutOfCapacity(wishes.reservation, text)
        return Reservation(
            id=wishes.reservation,
            zone=found["AvailabilityZone"],
            is_block=found.get("ReservationType") == "capacity-block",
        )

    def _named_quota(self, wishes: Wishes, error: border.QuotaExceeded) -> border.QuotaExceeded:
        """AWS says only that it is too much; which quota that is follows from the type."""
        quota = quota_of(wishes.kind, spot=wishes.spot)
        if quota is None or "vCPU" not in error.what:
            return error
        needs = f"{wishes.cpus * wishes.count} more vCPUs of {wishes.kind}"
        text = (
            f"the AWS quota `{quota.name}` ({quota.code}) has no room for {needs} in {wishes.region}: {error}"
        )
        return border.QuotaExceeded(quota.name, error.limit, text)


def _nowhere(wishes: Wishes, refusals: list[border.BorderError]) -> border.OutOfCapacity:
    """Every zone with its reason."""
    what = f"{wishes.count} x {wishes.kind}{' (spot)' if wishes.spot else ''}"
    said = "; ".join(str(each) for each in refusals[:_REASONS_MAX])
    if len(refusals) == 1:
        scope = getattr(refusals[0], "scope", wishes.region)
        return border.OutOfCapacity(scope, said)
    return border.OutOfCapacity(
        wishes.region, f"no zone of {wishes.region} has {what}: {said}" if said else f"no zone has {what}"
    )

"""Which zones a type of machine can be had in, what it can do, and capacity that is paid for already."""

from __future__ import annotations

from argosy.infra import border
from argosy.infra.once import Once
from argosy.providers.aws.account import Account
from argosy.providers.aws.launching import Kind, Reservation, kind_of
from argosy.providers.aws.network import Place
from argosy.providers.aws.wishes import Wishes


class Places:
    """Of an account: types and their zones are asked for once."""

    def __init__(self, account: Account) -> None:
        self._account = account
        self._kinds: Once[str, Kind] = Once()
        self._offered: Once[tuple[str, str], frozenset[str]] = Once()

    async def kind(self, wishes: Wishes) -> Kind:
        """Raises `OutOfCapacity` for a type that the region does not have."""
        return await self._kinds.get(wishes.kind, lambda: self._kind(wishes))

    async def _kind(self, wishes: Wishes) -> Kind:
        fine = ("InvalidInstanceType",)
        answer = await self._account.call(
            "ec2", wishes.region, "describe_instance_types", fine=fine, InstanceTypes=[wishes.kind]
        )
        if answer is None or not answer["InstanceTypes"]:
            raise border.OutOfCapacity(wishes.region, f"{wishes.region} has no {wishes.kind}")
        return kind_of(answer["InstanceTypes"][0])

    async def zones(self, wishes: Wishes, place: Place, reservation: Reservation | None) -> list[str]:
        """Those to try, in order: with a subnet, and with the type."""
        zone = reservation.zone if reservation is not None else wishes.zone
        key = (wishes.region, wishes.kind)
        offered = await self._offered.get(key, lambda: self._zones_with(wishes))
        has = [each.zone for each in place.subnets]
        fitting = [each for each in has if each in offered and zone in ("", each)]
        if not fitting and zone and zone not in has:
            text = f"{place.vpc} has no subnet in {zone}; it has some in {', '.join(has)}"
            raise border.RequestRefused("networking.subnet_name", text)
        if not fitting:
            raise border.OutOfCapacity(
                zone or wishes.region,
                f"there is no {wishes.kind} in {zone or ', '.join(has)}: it is offered in "
                f"{', '.join(sorted(offered)) or 'no zone'} of {wishes.region}",
            )
        return fitting

    async def _zones_with(self, wishes: Wishes) -> frozenset[str]:
        listed = await self._account.pages(
            "ec2",
            wishes.region,
            "describe_instance_type_offerings",
            "InstanceTypeOfferings",
            LocationType="availability-zone",
            Filters=[{"Name": "instance-type", "Values": [wishes.kind]}],
        )
        return frozenset(each["Location"] for each in listed)

    async def reservation(self, wishes: Wishes) -> Reservation | None:
        """The one that a task names. Raises `RequestRefused`, and `OutOfCapacity` when it is used up."""
        if not wishes.reservation:
            return None
        name = f"the capacity reservation {wishes.reservation}"
        answer = await self._account.call(
            "ec2",
            wishes.region,
            "describe_capacity_reservations",
            fine=("InvalidCapacityReservationId.NotFound", "InvalidCapacityReservationId.Malformed"),
            CapacityReservationIds=[wishes.reservation],
        )
        found = answer["CapacityReservations"][0] if answer and answer["CapacityReservations"] else None
        wrong = ""
        if found is None:
            wrong = f"there is no capacity reservation {wishes.reservation} in {wishes.region}"
        elif found["State"] != "active":
            wrong = f"{name} is {found['State']}, not active"
        elif found["InstanceType"] != wishes.kind:
            wrong = f"{name} is for {found['InstanceType']}, not {wishes.kind}"
        if found is None or wrong:
            raise border.RequestRefused("config.aws.capacity_reservation", wrong)
        free = found.get("AvailableInstanceCount", wishes.count)
        if free < wishes.count:
            text = f"{name} has {free} of {wishes.count} machines free"
            raise border.OutOfCapacity(wishes.reservation, text)
        return Reservation(
            id=wishes.reservation,
            zone=found["AvailabilityZone"],
            is_block=found.get("ReservationType") == "capacity-block",
        )

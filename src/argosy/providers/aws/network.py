"""Where in the network machines stand: VPC, subnets by zone, security groups. Own groups last: one for each
VPC, one more for each set of open ports; a group cannot be deleted while machines of it shut down."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Final

import msgspec

from argosy.infra import border
from argosy.infra.once import Once
from argosy.model.ids import Clock
from argosy.providers.aws.account import Account
from argosy.providers.aws.wishes import Wishes

GROUP: Final = "argosy"
FRESH_S: Final = 600.0
_SSH: Final = 22


class Subnet(msgspec.Struct, frozen=True, kw_only=True):
    id: str
    zone: str
    public: bool  # machines get a public address
    free: int  # addresses


class Place(msgspec.Struct, frozen=True, kw_only=True):
    """A place in a region's network for an order."""

    vpc: str
    subnets: tuple[Subnet, ...]  # one of each zone
    groups: tuple[str, ...]


class Network:
    """Networks of an account, kept for ten minutes. `ssh_from`: from which addresses machines may be reached
    by ssh."""

    def __init__(self, account: Account, clock: Clock, ssh_from: str) -> None:
        self._account, self._ssh_from = account, ssh_from
        self._known: Once[tuple[object, ...], Place] = Once(clock, FRESH_S)

    async def find(self, wishes: Wishes) -> Place:
        """Raises `RequestRefused` for names that do not exist, and where there is no default VPC."""
        key = (wishes.region, wishes.vpc, wishes.subnets, wishes.groups, wishes.ports)
        return await self._known.get(key, lambda: self._find(wishes))

    async def _find(self, wishes: Wishes) -> Place:
        vpc = await self._vpc(wishes)
        subnets = await self._subnets(wishes, vpc)
        return Place(vpc=vpc, subnets=subnets, groups=await self._groups(wishes, vpc))

    def forget(self, region: str) -> None:
        """Something of it has changed: it is asked anew."""
        self._known.forget(lambda key: key[0] == region)

    async def has_default_vpc(self, region: str) -> bool:
        return bool(await self._list("describe_vpcs", region, "Vpcs", **{"is-default": "true"}))

    async def _list(self, verb: str, region: str, field: str, **filters: str) -> list[Any]:
        asked = [{"Name": name, "Values": [value]} for name, value in filters.items()]
        return await self._account.pages("ec2", region, verb, field, Filters=asked)

    async def _vpc(self, wishes: Wishes) -> str:
        region, name = wishes.region, wishes.vpc
        if not name:
            found = await self._list("describe_vpcs", region, "Vpcs", **{"is-default": "true"})
            if not found:
                raise border.RequestRefused(
                    "networking.vpc_name",
                    f"{region} has no default VPC: make one with `aws ec2 create-default-vpc --region "
                    f"{region}`, or name a VPC with `networking: {{vpc_name: NAME}}`",
                )
            return str(found[0]["VpcId"])
        every = await self._list("describe_vpcs", region, "Vpcs")
        found = [each for each in every if name in (each["VpcId"], _name(each))]
        if len(found) > 1:
            ids = ", ".join(each["VpcId"] for each in found)
            raise border.RequestRefused(
                "networking.vpc_name",
                f"several VPCs of {region} are named `{name}`: give one by its id ({ids})",
            )
        if not found:
            raise _unknown("networking.vpc_name", "VPC", [name], region, every, "VpcId")
        return str(found[0]["VpcId"])

    async def _subnets(self, wishes: Wishes, vpc: str) -> tuple[Subnet, ...]:
        region = wishes.region
        every = await self._list("describe_subnets", region, "Subnets", **{"vpc-id": vpc})
        asked = wishes.subnets
        found = [each for each in every if not asked or {each["SubnetId"], _name(each)} & set(asked)]
        known = {name for each in found for name in (each["SubnetId"], _name(each))}
        missing = [name for name in asked if name not in known]
        if missing:
            raise _unknown(
                "networking.subnet_name", "subnet", missing, f"{vpc} ({region})", every, "SubnetId"
            )
        if not found:
            raise border.RequestRefused(
                "networking.subnet_name", f"{vpc} in {region} has no subnets: make one, or name another VPC"
            )
        subnets = [
            Subnet(
                id=each["SubnetId"],
                zone=each["AvailabilityZone"],
                public=bool(each.get("MapPublicIpOnLaunch")),
                free=int(each.get("AvailableIpAddressCount", 0)),
            )
            for each in found
        ]
        if not asked and any(each.public for each in subnets):
            subnets = [each for each in subnets if each.public]
        best: dict[str, Subnet] = {}
        for each in sorted(subnets, key=lambda each: (-each.free, each.id)):
            best.setdefault(each.zone, each)
        return tuple(best[zone] for zone in sorted(best))

    async def _groups(self, wishes: Wishes, vpc: str) -> tuple[str, ...]:
        region, asked = wishes.region, wishes.groups
        every = await self._list("describe_security_groups", region, "SecurityGroups", **{"vpc-id": vpc})
        if asked:
            by_name = {
                name: each for each in every for name in (each["GroupId"], each["GroupName"], _name(each))
            }
            missing = [name for name in asked if name not in by_name]
            if missing:
                field = "networking.security_groups"
                raise _unknown(field, "security group", missing, f"{vpc} ({region})", every, "GroupId")
            return tuple(str(by_name[name]["GroupId"]) for name in asked)
        own = await self._own_group(region, vpc, every, GROUP, [(_SSH, _SSH, self._ssh_from)])
        if not wishes.ports:
            return (own,)
        ports = sorted(_span(each) for each in wishes.ports)
        name = (
            f"{GROUP}-ports-{'-'.join(f'{low}to{high}' if high > low else str(low) for low, high in ports)}"
        )
        rules = [(low, high, "0.0.0.0/0") for low, high in ports]
        return own, await self._own_group(region, vpc, every, name[:255], rules)

    async def _own_group(
        self,
        region: str,
        vpc: str,
        every: Sequence[Mapping[str, Any]],
        name: str,
        rules: Sequence[tuple[int, int, str]],
    ) -> str:
        """The id of an own group, made when it is missing; a rule that a crash left out is added."""
        group = next((each for each in every if each["GroupName"] == name), None)
        if group is None:
            made = await self._account.call(
                "ec2", region, "create_security_group",
                fine=("InvalidGroup.Duplicate",),
                GroupName=name,
                Description="Machines of Argosy: ssh from outside, everything among themselves",
                VpcId=vpc,
                TagSpecifications=[
                    {"ResourceType": "security-group", "Tags": [{"Key": "argosy", "Value": "group"}]}
                ],
            )  # fmt: skip
            if made is None:  # another server was faster
                group = (
                    await self._list(
                        "describe_security_groups",
                        region,
                        "SecurityGroups",
                        **{"vpc-id": vpc, "group-name": name},
                    )
                )[0]
            else:
                group = {"GroupId": made["GroupId"], "IpPermissions": [], "IpPermissionsEgress": []}
        id = str(group["GroupId"])
        wanted: list[dict[str, object]] = [
            {"IpProtocol": "tcp", "FromPort": low, "ToPort": high, "IpRanges": [{"CidrIp": cidr}]}
            for low, high, cidr in rules
        ]
        inside: dict[str, object] = {"IpProtocol": "-1", "UserIdGroupPairs": [{"GroupId": id}]}
        if name == GROUP:
            wanted.append(inside)
            if not _within(id, group.get("IpPermissionsEgress", ())):  # EFA wants it said, also outwards
                await self._allow(region, "authorize_security_group_egress", id, inside)
        missing = [each for each in wanted if not _has(group.get("IpPermissions", ()), each)]
        for each in missing:
            await self._allow(region, "authorize_security_group_ingress", id, each)
        return id

    async def _allow(self, region: str, verb: str, id: str, rule: Mapping[str, Any]) -> None:
        await self._account.call(
            "ec2", region, verb, fine=("InvalidPermission.Duplicate",), GroupId=id, IpPermissions=[rule]
        )


def _has(rules: Sequence[Mapping[str, Any]], wanted: Mapping[str, Any]) -> bool:
    if wanted["IpProtocol"] == "-1":
        return _within(wanted["UserIdGroupPairs"][0]["GroupId"], rules)
    cidr = wanted["IpRanges"][0]["CidrIp"]
    return any(
        (each.get("FromPort"), each.get("ToPort")) == (wanted["FromPort"], wanted["ToPort"])
        and any(span.get("CidrIp") == cidr for span in each.get("IpRanges", ()))
        for each in rules
    )


def _within(id: str, rules: Sequence[Mapping[str, Any]]) -> bool:
    return any(
        each.get("IpProtocol") == "-1"
        and any(pair.get("GroupId") == id for pair in each.get("UserIdGroupPairs", ()))
        for each in rules
    )


def _name(thing: Mapping[str, Any]) -> str:
    return next((tag["Value"] for tag in thing.get("Tags", ()) if tag["Key"] == "Name"), "")


def _unknown(
    field: str, what: str, missing: Sequence[str], where: str, every: Sequence[Mapping[str, Any]], id: str
) -> border.RequestRefused:
    listed = sorted(
        f"{each[id]} ({name})" if (name := each.get("GroupName") or _name(each)) else str(each[id])
        for each in every
    )
    there = ", ".join(listed[:8]) + (", ..." if len(listed) > 8 else "")
    names = ", ".join(f"`{name}`" for name in missing)
    return border.RequestRefused(
        field,
        f"there is no {what} {names} in {where}; " + (f"there are: {there}" if there else "there is none"),
    )


def _span(port: str) -> tuple[int, int]:
    """
    >>> _span("8000"), _span("9000-9010")
    ((8000, 8000), (9000, 9010))
    """
    low, _, high = port.replace(" ", "").partition("-")
    return int(low), int(high or low)

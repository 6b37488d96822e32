"""Where machines stand in a service zone of Samsung Cloud Platform: a VPC that has an internet gateway and a
public subnet (people make them), and what lets ssh in there (made once, and it stays)."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from typing import Final, TypeVar

import msgspec

from argosy.infra import border
from argosy.infra.http_json import HttpJson, Query

T = TypeVar("T")

_ALL: Final = "1-65535"
_SIZE: Final = ("size", 999)


class Place(msgspec.Struct, frozen=True, kw_only=True):
    zone_id: str
    subnet_id: str
    group_id: str  # of the security group
    key_pair_id: str


class _Zone(msgspec.Struct, frozen=True, rename="camel"):
    service_zone_id: str
    service_zone_name: str


class _Vpc(msgspec.Struct, frozen=True, rename="camel"):
    vpc_id: str
    vpc_state: str


class _Gateway(msgspec.Struct, frozen=True, rename="camel"):
    vpc_id: str
    internet_gateway_state: str


class _Subnet(msgspec.Struct, frozen=True, rename="camel"):
    subnet_id: str
    vpc_id: str
    subnet_state: str
    subnet_cidr_block: str = ""


class _Group(msgspec.Struct, frozen=True, rename="camel"):
    security_group_id: str
    security_group_name: str
    security_group_state: str


class _Firewall(msgspec.Struct, frozen=True, rename="camel"):
    firewall_id: str
    vpc_id: str


class _Rule(msgspec.Struct, frozen=True, rename="camel"):
    rule_direction: str
    source_ip_addresses: list[str] = []
    destination_ip_addresses: list[str] = []
    tcp_services: list[str] = []


class _KeyPair(msgspec.Struct, frozen=True, rename="camel"):
    key_pair_id: str


class Network:
    """Places by the names of service zones, asked for once."""

    def __init__(self, http: HttpJson, title: str) -> None:
        self._http, self._title = http, title
        self._places: dict[str, Place] = {}

    async def zones(self, project: str) -> dict[str, str]:
        """Ids by names."""
        found = await self._contents(f"/project/v3/projects/{project}/zones", _Zone)
        return {each.service_zone_name: each.service_zone_id for each in found}

    async def place(self, project: str, zone: str) -> Place:
        """Raises `RequestRefused` for what is missing and people have to make."""
        if zone not in self._places:
            zones = await self.zones(project)
            if zone not in zones:
                raise border.RequestRefused(
                    "region", f"{self._title} has no service zone `{zone}`; it has {', '.join(sorted(zones))}"
                )
            subnet = await self._subnet(zones[zone], zone)
            keys = await self._contents("/key-pair/v1/key-pairs", _KeyPair)
            if not keys:
                raise border.RequestRefused(
                    "account",
                    f"the project has no key pair at {self._title}, which an order must name; make one in "
                    "the console (its private key is not needed)",
                )
            group = await self._group(zones[zone], subnet)
            await self._open_firewall(subnet)
            self._places[zone] = Place(
                zone_id=zones[zone],
                subnet_id=subnet.subnet_id,
                group_id=group,
                key_pair_id=keys[0].key_pair_id,
            )
        return self._places[zone]

    async def _subnet(self, zone_id: str, zone: str) -> _Subnet:
        vpcs = await self._contents("/vpc/v2/vpcs", _Vpc, [("serviceZoneId", zone_id)])
        ways = await self._contents("/internet-gateway/v2/internet-gateways", _Gateway)
        subnets = await self._contents("/subnet/v2/subnets", _Subnet, [("subnetTypes", "PUBLIC")])
        open_ = {each.vpc_id for each in ways if each.internet_gateway_state == "ATTACHED"}
        open_ &= {each.vpc_id for each in vpcs if each.vpc_state == "ACTIVE"}
        for each in subnets:
            if each.vpc_id in open_ and each.subnet_state == "ACTIVE":
                return each
        raise border.RequestRefused(
            "account",
            f"the project has no VPC with an internet gateway and a public subnet in {zone}; make them in "
            f"the console of {self._title}",
        )

    async def _group(self, zone_id: str, subnet: _Subnet) -> str:
        name = f"argosy{hashlib.sha256(subnet.vpc_id.encode()).hexdigest()[:8]}"
        query: Query = [("vpcId", subnet.vpc_id), ("securityGroupName", name)]
        found = await self._contents("/security-group/v2/security-groups", _Group, query)
        group = next((each for each in found if each.security_group_name == name), None)
        if group is None:
            body = {
                "loggable": False,
                "securityGroupName": name,
                "serviceZoneId": zone_id,
                "vpcId": subnet.vpc_id,
                "securityGroupDescription": "ssh to machines of Argosy",
            }
            await self._http.call("POST", "/security-group/v3/security-groups", json=body, into=msgspec.Raw)
        if group is None or group.security_group_state != "ACTIVE":
            raise border.Transient(f"{self._title} makes a security group: that takes a moment", 5)
        path = f"/security-group/v2/security-groups/{group.security_group_id}/rules"
        rules = await self._contents(path, _Rule)
        wanted = [("IN", "0.0.0.0/0", "22"), ("OUT", "0.0.0.0/0", _ALL)]
        wanted += [("IN", subnet.subnet_cidr_block, _ALL)] if subnet.subnet_cidr_block else []
        for direction, address, ports in wanted:
            field = "sourceIpAddresses" if direction == "IN" else "destinationIpAddresses"
            if not any(_is(rule, direction, address, ports) for rule in rules):
                body = {
                    "ruleDirection": direction,
                    "services": _services(ports),
                    field: [address],
                    "ruleDescription": "argosy",
                }
                await self._http.call("POST", path, json=body, into=msgspec.Raw)
        return group.security_group_id

    async def _open_firewall(self, subnet: _Subnet) -> None:
        """The gateway's firewall, where there is one, lets ssh into the subnet and everything out."""
        walls = await self._contents("/firewall/v2/firewalls", _Firewall)
        ours = [each for each in walls if each.vpc_id == subnet.vpc_id]
        if not ours or not subnet.subnet_cidr_block:
            return
        path = f"/firewall/v2/firewalls/{ours[0].firewall_id}/rules"
        rules = await self._contents(path, _Rule)
        for direction, ports in (("IN", "22"), ("OUT", _ALL)):
            source, target = "0.0.0.0/0", subnet.subnet_cidr_block
            if direction == "OUT":
                source, target = target, source
            if any(
                rule.rule_direction == direction
                and source in rule.source_ip_addresses
                and target in rule.destination_ip_addresses
                for rule in rules
            ):
                continue
            body = {
                "sourceIpAddresses": [source],
                "destinationIpAddresses": [target],
                "services": _services(ports),
                "ruleDirection": direction,
                "ruleAction": "ALLOW",
                "isRuleEnabled": True,
                "ruleLocationType": "FIRST",
                "ruleDescription": "argosy",
            }
            await self._http.call("POST", path, json=body, into=msgspec.Raw)

    async def _contents(self, path: str, kind: type[T], query: Query = ()) -> Sequence[T]:
        into = list[kind]  # type: ignore[valid-type]
        return await self._http.call("GET", path, into=into, query=[*query, _SIZE], under="contents")


def _services(ports: str) -> list[dict[str, str]]:
    kinds = ("TCP",) if ports == "22" else ("TCP", "UDP")
    return [{"serviceType": kind, "serviceValue": ports} for kind in kinds]


def _is(rule: _Rule, direction: str, address: str, ports: str) -> bool:
    addresses = rule.source_ip_addresses if direction == "IN" else rule.destination_ip_addresses
    return rule.rule_direction == direction and address in addresses and ports in rule.tcp_services

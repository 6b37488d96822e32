"""Where machines are placed: a resource group and a network for each region, made once; or the task's own."""

from __future__ import annotations

import asyncio
import hashlib
from typing import Any, Final

import msgspec

from argosy.infra import border
from argosy.infra.provider import Setting
from argosy.providers.azure.arm import NETWORK, RESOURCES, Arm
from argosy.providers.azure.wishes import Wishes

NAME: Final = "argosy"  # of the network, its subnet and its security group
_WAIT_S: Final = 60.0
_RANGE: Final = "10.0.0.0/16"
_SUBNETS_OF_OTHERS: Final = frozenset(
    ("GatewaySubnet", "AzureBastionSubnet", "AzureFirewallSubnet", "RouteServerSubnet")
)
_NETWORKS, _SECURITY = "Microsoft.Network/virtualNetworks", "Microsoft.Network/networkSecurityGroups"


class Place(msgspec.Struct, frozen=True, kw_only=True):
    """Where the machines of one order go."""

    group: str  # id of the resource group
    subnet: str
    security: str
    public: bool
    known: bool  # Azure was not asked for any of it this time


class _Group(msgspec.Struct, frozen=True):
    id: str
    location: str = ""


class _Thing(msgspec.Struct, frozen=True):
    id: str
    name: str = ""


class _Inside(msgspec.Struct, frozen=True):
    subnets: list[_Thing] = []


class _Network(msgspec.Struct, frozen=True):
    id: str
    name: str
    location: str
    properties: _Inside = _Inside()


def group_name(region: str) -> str:
    """Of the resource group that Argosy makes in a region."""
    return f"argosy-{region}"


class Network:
    """What is there is asked for once in a process, until an order says that it is gone."""

    def __init__(self, arm: Arm, setting: Setting) -> None:
        self._arm = arm
        self._from = setting.environ.get("ARGOSY_AZURE_SSH_FROM") or "*"
        self._private = setting.environ.get("ARGOSY_AZURE_ADDRESS") == "private"
        self._made: dict[tuple[str, ...], str] = {}
        self._locks: dict[str, asyncio.Lock] = {}

    async def place(self, wishes: Wishes) -> Place:
        """Raises a border error."""
        before = len(self._made)
        async with self._locks.setdefault(wishes.region, asyncio.Lock()):
            group = await self._group(wishes.group, wishes.region)
            own = await self._group("", wishes.region) if self._needs_own(wishes) else group
            security = await self._security(wishes, own)
            subnet = await (
                self._theirs(wishes) if wishes.vnet or wishes.subnets else self._ours(wishes, own)
            )
        return Place(
            group=group,
            subnet=subnet,
            security=security,
            public=not self._private,
            known=len(self._made) == before,
        )

    def _needs_own(self, wishes: Wishes) -> bool:
        return not wishes.security or not (wishes.vnet or wishes.subnets)

    def forget(self, region: str) -> None:
        """Somebody has removed what was there: it is looked for anew."""
        self._made = {key: id for key, id in self._made.items() if region not in key}

    async def _group(self, name: str, region: str) -> str:
        key = ("group", name, region)
        if key not in self._made:
            path = await self._arm.path(f"/resourceGroups/{name or group_name(region)}")
            found = await self._arm.find(path, RESOURCES, _Group)
            if found is None and name:
                raise border.RequestRefused(
                    "config.azure.resource_group_vm",
                    f"there is no resource group `{name}`: `az group create --name {name} --location "
                    f"{region}` makes it",
                )
            if found is None:
                await self._arm.put(
                    path, RESOURCES, {"location": region, "tags": {"argosy": "group"}}, wait_s=_WAIT_S
                )
            self._made[key] = path
        return self._made[key]

    async def _security(self, wishes: Wishes, group: str) -> str:
        """The id of the security group: the task's, or ours for a set of open ports."""
        if wishes.security:
            return await self._arm.named(
                _SECURITY, NETWORK, wishes.security, region=wishes.region, field="networking.security_groups"
            )
        digest = hashlib.sha256(" ".join(sorted(set(wishes.ports))).encode()).hexdigest()[:12]
        name = f"{NAME}-ports-{digest}" if wishes.ports else NAME
        path = f"{group}/providers/{_SECURITY}/{name}"
        if ("security", path, wishes.region) not in self._made:
            body = security_group(wishes.region, self._from, wishes.ports)
            await self._arm.put(path, NETWORK, body, wait_s=_WAIT_S)
            self._made["security", path, wishes.region] = path
        return path

    async def _ours(self, wishes: Wishes, group: str) -> str:
        network = f"{group}/providers/{_NETWORKS}/{NAME}"
        path = f"{network}/subnets/{NAME}"
        if ("subnet", path, wishes.region) not in self._made:
            if await self._arm.find(path, NETWORK, _Thing) is None:
                subnet = {"name": NAME, "properties": {"addressPrefix": _RANGE}}
                inside = {"addressSpace": {"addressPrefixes": [_RANGE]}, "subnets": [subnet]}
                body = {"location": wishes.region, "properties": inside}
                await self._arm.put(network, NETWORK, body, wait_s=_WAIT_S)
            self._made["subnet", path, wishes.region] = path
        return path

    async def _theirs(self, wishes: Wishes) -> str:
        """A subnet that the task names, or the first of its network."""
        ids = [each for each in wishes.subnets if each.startswith("/")]
        if ids:
            return ids[0]
        region, name = wishes.region, wishes.vnet
        listed = await self._arm.listed(await self._arm.path(f"/providers/{_NETWORKS}"), NETWORK, _Network)
        here = [each for each in listed if each.location.lower() == region]
        fit = [each for each in here if not name or name in (each.name, each.id)]
        if not fit:
            there = ", ".join(sorted(each.name for each in here)) or "none at all"
            raise border.RequestRefused(
                "networking.vpc_name", f"there is no virtual network `{name}` in {region}: it has {there}"
            )
        for each in fit:
            for subnet in each.properties.subnets:
                usual = not wishes.subnets and subnet.name not in _SUBNETS_OF_OTHERS
                if usual or subnet.name in wishes.subnets:
                    return subnet.id
        wanted = ", ".join(wishes.subnets) or "that machines may use"
        raise border.RequestRefused(
            "networking.subnet_names", f"{fit[0].name} in {region} has no subnet {wanted}"
        )


def security_group(region: str, ssh_from: str, ports: tuple[str, ...]) -> dict[str, Any]:
    """Lets ssh and the ports of a task in. Machines of one network reach each other by a rule of Azure's own.

    >>> [each["name"] for each in security_group("eastus", "*", ("8080",))["properties"]["securityRules"]]
    ['ssh', 'ports']
    """
    rules = [_rule("ssh", 100, ssh_from, ["22"])]
    rules += [_rule("ports", 110, "*", sorted(set(ports)))] if ports else []
    return {"location": region, "properties": {"securityRules": rules}}


def _rule(name: str, priority: int, source: str, ports: list[str]) -> dict[str, Any]:
    inside = {
        "priority": priority,
        "direction": "Inbound",
        "access": "Allow",
        "protocol": "Tcp",
        "sourceAddressPrefix": source,
        "sourcePortRange": "*",
        "destinationAddressPrefix": "*",
        "destinationPortRanges": ports,
    }
    return {"name": name, "properties": inside}

"""Where machines stand: a VPC named `argosy` in each region, with a subnet in each zone, made when needed."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from typing import Final, TypeVar

import msgspec

from argosy.infra import border
from argosy.providers.ibm.account import Account

T = TypeVar("T")
NAME: Final = "argosy"
_SIZE: Final = 4096  # addresses of a subnet


class Named(msgspec.Struct, frozen=True):
    name: str
    id: str = ""


class _Vpc(msgspec.Struct, frozen=True):
    name: str
    id: str
    default_security_group: Named


class Place(msgspec.Struct, frozen=True, kw_only=True):
    """Ids of what an order names."""

    vpc: str
    subnet: str
    group: str
    key: str


class Network:
    def __init__(self, account: Account) -> None:
        self._account = account
        self._places: dict[str, Place] = {}  # by zone
        self._locks: dict[str, asyncio.Lock] = {}

    def forget(self) -> None:
        self._places.clear()

    async def place(self, region: str, zone: str, opens: str) -> Place:
        async with self._locks.setdefault(region, asyncio.Lock()):
            if zone not in self._places:
                self._places[zone] = await self._made(region, zone, opens)
            return self._places[zone]

    async def _made(self, region: str, zone: str, opens: str) -> Place:
        """Each part is looked for by its name before it is made, so that what broke off is gone on with."""
        group = {"resource_group": {"id": self._account.group}} if self._account.group else {}
        vpc = await self._ensure(region, "/vpcs", NAME, group, _Vpc)
        await self._open(region, vpc.default_security_group.id)
        name = f"{NAME}-{zone}"
        asked = group | {
            "vpc": {"id": vpc.id},
            "zone": {"name": zone},
            "total_ipv4_address_count": _SIZE,
            "ip_version": "ipv4",
        }
        subnet = await self._ensure(region, "/subnets", name, asked, Named)
        asked = group | {"public_key": opens, "type": "ed25519"}
        key = await self._ensure(region, "/keys", NAME, asked, Named)
        return Place(vpc=vpc.id, subnet=subnet.id, group=vpc.default_security_group.id, key=key.id)

    async def _ensure(
        self, region: str, path: str, name: str, asked: Mapping[str, object], into: type[T]
    ) -> T:
        async for each in self._account.rows(region, path, Named):
            if each.name == name:
                return await self._account.call(region, "GET", f"{path}/{each.id}", into=into)
        scope = path.strip("/")
        return await self._account.call(
            region, "POST", path, json={"name": name, **asked}, into=into, scope=scope
        )

    async def _open(self, region: str, group: str) -> None:
        """ssh comes in; the same rule twice is refused, and that is as good."""
        rule = {
            "direction": "inbound",
            "ip_version": "ipv4",
            "protocol": "tcp",
            "port_min": 22,
            "port_max": 22,
            "remote": {"cidr_block": "0.0.0.0/0"},
        }
        try:
            await self._account.call(
                region, "POST", f"/security_groups/{group}/rules", json=rule, into=msgspec.Raw
            )
        except border.RequestRefused as error:
            if "duplicate" not in str(error) and "exists" not in str(error):
                raise

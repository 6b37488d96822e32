"""The network of machines: one VCN named `argosy` in each region, made when it is first needed, or a subnet
that is named."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from typing import Final, TypeVar

import msgspec

from argosy.infra import border
from argosy.providers.oci.account import Account, once

T = TypeVar("T")
NAME: Final = "argosy"
_VCN, _SUBNET = "10.78.0.0/16", "10.78.0.0/20"
_ANYWHERE: Final = "0.0.0.0/0"


class Vcn(msgspec.Struct, frozen=True, rename="camel"):
    id: str
    default_route_table_id: str
    default_security_list_id: str


class _Thing(msgspec.Struct, frozen=True, rename="camel"):
    id: str
    vcn_id: str = ""


class Network:
    def __init__(self, account: Account) -> None:
        self._account = account
        self._found: dict[str, str] = {}  # region -> subnet
        self._locks: dict[str, asyncio.Lock] = {}

    async def subnet(self, region: str, compartment: str) -> str:
        """The id of the subnet for machines of a region."""
        place = f"{region} {compartment}"
        async with self._locks.setdefault(place, asyncio.Lock()):
            if place not in self._found:
                self._found[place] = await self._made(region, compartment)
            return self._found[place]

    def forget(self) -> None:
        self._found.clear()

    async def _made(self, region: str, compartment: str) -> str:
        """Each part is looked for by its name before it is made, so that what broke off is gone on with."""
        where: dict[str, object] = {"compartmentId": compartment, "displayName": NAME}
        asked = where | {"cidrBlocks": [_VCN], "dnsLabel": NAME}
        vcn = await self._found_or_made(region, "/vcns", asked, Vcn, f"vcn-{compartment}")
        asked = where | {"vcnId": vcn.id, "isEnabled": True}
        path = "/internetGateways"
        gateway = await self._found_or_made(region, path, asked, _Thing, f"gateway-{vcn.id}")
        subnet = await self._one(region, "/subnets", _Thing, compartment, vcn.id)
        if subnet is not None:
            return subnet.id
        http = self._account.service("iaas", region)
        route = {"destination": _ANYWHERE, "destinationType": "CIDR_BLOCK", "networkEntityId": gateway.id}
        await http.send("PUT", f"/routeTables/{vcn.default_route_table_id}", json={"routeRules": [route]})
        await http.send("PUT", f"/securityLists/{vcn.default_security_list_id}", json=_RULES)
        asked = where | {"vcnId": vcn.id, "cidrBlock": _SUBNET, "dnsLabel": NAME}
        return (await self._post(region, "/subnets", asked, _Thing, f"subnet-{vcn.id}")).id

    async def _found_or_made(
        self, region: str, path: str, asked: Mapping[str, object], into: type[T], token: str
    ) -> T:
        where = str(asked["compartmentId"]), str(asked.get("vcnId", ""))
        found = await self._one(region, path, into, *where)
        return found if found is not None else await self._post(region, path, asked, into, token)

    async def _one(self, region: str, path: str, into: type[T], compartment: str, vcn_id: str) -> T | None:
        query = [("compartmentId", compartment), ("displayName", NAME)]
        query += [("vcnId", vcn_id)] if vcn_id else []
        async for each in self._account.pages(region, path, into, query):
            return each
        return None

    async def _post(
        self, region: str, path: str, asked: Mapping[str, object], into: type[T], token: str
    ) -> T:
        http = self._account.service("iaas", region)
        try:
            return await http.call("POST", path, json=asked, into=into, how=once(token[-64:]))
        except border.QuotaExceeded as error:
            fix = "name a subnet in `config.oci.vcn_subnet`, or remove a VCN"
            raise border.QuotaExceeded("VCNs", error.limit, f"{error}; {fix}") from None


#: Programs of one claim reach each other, ssh comes in, everything goes out.
_RULES: Final = {
    "egressSecurityRules": [{"destination": _ANYWHERE, "protocol": "all", "isStateless": False}],
    "ingressSecurityRules": [
        {"source": _VCN, "protocol": "all", "isStateless": False},
        {
            "source": _ANYWHERE,
            "protocol": "6",
            "isStateless": False,
            "tcpOptions": {"destinationPortRange": {"min": 22, "max": 22}},
        },
    ],
}

"""Calls of the Lambda Cloud API (OpenAPI 1.10): launch, list, terminate. It knows no order for several
machines, no token and no rest; one launch in 12 seconds and one call a second are allowed."""

from __future__ import annotations

import re
from collections.abc import Collection, Sequence
from typing import Final

import msgspec

from argosy.infra import border
from argosy.infra.http_json import How, Rate
from argosy.infra.http_words import Said
from argosy.infra.machine_access import home_text
from argosy.infra.machine_vendor import MachineOrder, RestVendor, closed_offer, findings_of
from argosy.infra.machines import Machine, MachineState, mark_in
from argosy.infra.once import Once
from argosy.infra.provider import Diagnostic, Setting, Want
from argosy.model.offer import Offer
from argosy.providers.lambda_cloud import MANIFEST

URL: Final = "https://cloud.lambda.ai"
KEY_NAME: Final = "argosy"  # of the key object that every order has to name
_STATES: Final = {
    "booting": MachineState.STARTING,
    "active": MachineState.RUNNING,
    "unhealthy": MachineState.STARTING,
    "preempted": MachineState.PREEMPTED,
    "terminating": MachineState.ENDED,
    "terminated": MachineState.ENDED,
}


class _Tag(msgspec.Struct, frozen=True):
    key: str
    value: str


class _Named(msgspec.Struct, frozen=True):
    name: str


class _Instance(msgspec.Struct, frozen=True):
    id: str
    status: str
    region: _Named
    instance_type: _Named
    ip: str = ""
    private_ip: str = ""
    tags: list[_Tag] = []


class _Entry(msgspec.Struct, frozen=True):
    instance_type: _Named
    regions_with_capacity_available: list[_Named]


class Lambda(RestVendor):
    manifest = MANIFEST
    place = "a region"
    parallel = 1
    settle_s = 0.0
    fresh_s = 1.0
    lag_s = 30.0

    def __init__(self, setting: Setting, *, launch_every_s: float = 12.0, call_every_s: float = 1.0) -> None:
        super().__init__(setting, "LAMBDA_API_URL", URL, words, every_s=call_every_s, burst=5)
        self._launches = Rate(launch_every_s, 1, setting.clock)
        self._keys: Once[str, None] = Once()

    def key(self) -> str:
        environ = self._setting.environ
        text = home_text(environ, ".lambda_cloud/lambda_keys")
        found = re.search(r"^\s*api_key\s*=\s*(\S+)", text, re.MULTILINE)
        return environ.get("LAMBDA_API_KEY") or (found[1] if found else "")

    async def check(self) -> Sequence[Diagnostic]:
        async def types() -> str:
            found = await self._types()
            some = sum(bool(each.regions_with_capacity_available) for each in found)
            return f"the key is accepted; {some} of {len(found)} types of machine can be had now"

        return await findings_of(MANIFEST, types)

    async def _types(self) -> Collection[_Entry]:
        path = "/api/v1/instance-types"
        return (await self._http.call("GET", path, into=dict[str, _Entry], under="data")).values()

    async def quote(self, want: Want) -> Sequence[Offer]:
        """Types that no region has now are closed, until the next look."""
        now_ms = self._clock.now_ms()
        return [
            closed_offer(MANIFEST.name, each.instance_type.name, "no region of Lambda has one now", now_ms)
            for each in await self._types()
            if not each.regions_with_capacity_available
        ]

    async def create(self, order: MachineOrder, index: int) -> str:
        await self._keys.get(order.opens, lambda: self._make_key(order.opens))
        asked = {
            "region_name": order.region,
            "instance_type_name": order.kind,
            "ssh_key_names": [KEY_NAME],
            "name": order.name(index),
            "hostname": order.name(index),
            "user_data": order.user_data,
            "tags": [{"key": key, "value": value} for key, value in order.labels(index).items()],
        }
        path = "/api/v1/instance-operations/launch"
        how, under = How(rate=self._launches), "data.instance_ids"
        (made,) = await self._http.call(
            "POST", path, json=asked, into=list[str], scope=order.scope, how=how, under=under
        )
        return made

    async def _make_key(self, opens: str) -> None:
        """The key object that an order must name; who logs in is decided by the user data."""
        keys = await self._http.call("GET", "/api/v1/ssh-keys", into=list[_Named], under="data")
        if all(each.name != KEY_NAME for each in keys):
            body = {"name": KEY_NAME, "public_key": opens}
            await self._http.call("POST", "/api/v1/ssh-keys", json=body, into=msgspec.Raw)

    async def listed(self, region: str) -> Sequence[Machine]:
        told = await self._http.call("GET", "/api/v1/instances", into=list[_Instance], under="data")
        return [machine for each in told if (machine := _machine(each)) is not None]

    async def delete(self, machine: Machine) -> None:
        path = "/api/v1/instance-operations/terminate"
        await self._http.send(
            "POST", path, json={"instance_ids": [machine.id]}, how=How(safe=True, fine=(404,))
        )


def _machine(told: _Instance) -> Machine | None:
    mark = mark_in({each.key: each.value for each in told.tags})
    if mark is None:
        return None
    return Machine(
        id=told.id,
        mark=mark,
        state=_STATES.get(told.status, MachineState.STARTING),
        region=told.region.name,
        kind=told.instance_type.name,
        user="ubuntu",
        host=told.ip,
        ip=told.private_ip or told.ip,
    )


def words(said: Said) -> border.BorderError | None:
    """Codes of Lambda that say more than their status."""
    what = f"Lambda says: {said.words}"
    match said.code.rpartition("/")[2]:
        case "insufficient-capacity":
            return border.OutOfCapacity(said.scope, f"Lambda has no {said.scope} now")
        case "account-inactive" | "invalid-address":
            return border.CredentialsRejected(f"{what}; look at the billing page of the account")
        case "vm-has-not-launched" | "vm-action-in-progress" | "conflict":
            return border.Transient(what, 5)
        case "vm-is-terminating":
            return border.Transient(what, 2)
    return border.Transient(what, 10) if said.code.startswith("provider/") else None

"""Calls of Hyperstack's Infrahub API (v1): environments, keys and machines, which hibernate to rest."""

from __future__ import annotations

import hashlib
import re
from collections.abc import AsyncIterator, Sequence
from typing import Final, TypeVar

import msgspec

from argosy.infra import border
from argosy.infra.http_json import How, Query
from argosy.infra.http_words import Said
from argosy.infra.machine_images import asked_image, newest
from argosy.infra.machine_vendor import MachineOrder, RestVendor, closed_offer, findings_of
from argosy.infra.machines import Machine, MachineState, mark_in_tags, tags_of
from argosy.infra.once import Once
from argosy.infra.provider import Diagnostic, Setting, Want
from argosy.model.offer import Capacity, Offer
from argosy.providers.hyperstack import MANIFEST

URL: Final = "https://infrahub-api.nexgencloud.com"
_MACHINES: Final = "/v1/core/virtual-machines"
_PAGE: Final = 100
_SPOT: Final = "-spot"
_STATES: Final = {
    "ACTIVE": MachineState.RUNNING,
    "STOPPING": MachineState.STOPPING,
    "SHUTOFF": MachineState.STOPPED,
    "HIBERNATING": MachineState.STOPPING,
    "HIBERNATED": MachineState.STOPPED,
    "DELETING": MachineState.ENDED,
    "DELETED": MachineState.ENDED,
    "ERROR": MachineState.FAILED,
}  # any other word: it is being made, or started


class _Environment(msgspec.Struct, frozen=True):
    name: str
    region: str | None = None


class _Environments(msgspec.Struct, frozen=True):
    environments: list[_Environment]
    count: int = 0


class _Key(msgspec.Struct, frozen=True):
    name: str


class _Keys(msgspec.Struct, frozen=True):
    keypairs: list[_Key]
    count: int = 0


class _Flavor(msgspec.Struct, frozen=True):
    name: str
    region_name: str = ""
    gpu: str | None = None
    stock_available: bool = True


class _Flavors(msgspec.Struct, frozen=True):
    flavors: list[_Flavor]
    region_name: str = ""


class _Image(msgspec.Struct, frozen=True):
    name: str


class _Images(msgspec.Struct, frozen=True):
    images: list[_Image]
    region_name: str = ""


class _Machine(msgspec.Struct, frozen=True):
    id: int
    name: str | None = None
    status: str | None = None
    flavor: _Flavor | None = None
    environment: _Environment | None = None
    labels: list[str] | None = None
    fixed_ip: str | None = None
    floating_ip: str | None = None
    floating_ip_status: str | None = None
    created_at: str | None = None


class _Machines(msgspec.Struct, frozen=True):
    instances: list[_Machine]
    count: int = 0


class _Made(msgspec.Struct, frozen=True):
    id: int


P = TypeVar("P", _Environments, _Keys, _Machines)


class _Credit(msgspec.Struct, frozen=True):
    credit: float = 0
    can_create_instance: bool = True


class Hyperstack(RestVendor):
    manifest = MANIFEST
    header, scheme = "api_key", ""
    place = "a region: `hyperstack/CANADA-1`"
    fresh_s = 1.0

    def __init__(self, setting: Setting, *, call_every_s: float = 0.2) -> None:
        super().__init__(setting, "HYPERSTACK_API_URL", URL, words, every_s=call_every_s)
        self._ready: Once[str, None] = Once()  # regions that have our environment and our key
        self._images: Once[tuple[str, bool], str] = Once()

    def key(self) -> str:
        return self._setting.environ.get("HYPERSTACK_API_KEY", "")

    async def check(self) -> Sequence[Diagnostic]:
        async def credit() -> str:
            path = "/v1/billing/user-credit/credit"
            told = await self._http.call("GET", path, into=_Credit, under="data")
            if not told.can_create_instance:
                raise border.QuotaExceeded(
                    "credit",
                    f"{told.credit:.2f}",
                    f"the credit at Hyperstack ({told.credit:.2f} $) is too small to launch; add to it at "
                    "https://console.hyperstack.cloud/billing",
                )
            return f"the key is accepted; the credit is {told.credit:.2f} $"

        return await findings_of(MANIFEST, credit)

    async def quote(self, want: Want) -> Sequence[Offer]:
        """Flavors that are out of stock in a region are closed, until the next look."""
        now_ms = self._clock.now_ms()
        groups = await self._http.call("GET", "/v1/core/flavors", into=list[_Flavors], under="data")
        return [
            closed_offer(
                MANIFEST.name,
                each.name,
                f"Hyperstack has none in stock in {region}",
                now_ms,
                region=region,
                capacity=Capacity.SPOT if (each.gpu or "").endswith(_SPOT) else Capacity.ON_DEMAND,
            )
            for group in groups
            for each in group.flavors
            for region in (each.region_name or group.region_name,)
            if not each.stock_available
        ]

    async def prepare(self, order: MachineOrder) -> None:
        await self._ready.get(order.region, lambda: self._prepare(order))
        await self._image(order)

    async def create(self, order: MachineOrder, index: int) -> str:
        asked = {
            "name": order.name(index),
            "environment_name": _environment(order.region),
            "flavor_name": order.kind,
            "image_name": await self._image(order),
            "key_name": _key_name(order),
            "count": 1,
            "user_data": order.user_data,
            "labels": tags_of(order.claim),
            "assign_floating_ip": True,
            "enable_port_randomization": False,  # sshd stays at port 22
            "security_rules": [
                _rule("tcp", "0.0.0.0/0", 22, 22),
                _rule("tcp", "10.0.0.0/8", 1, 65535),  # the nodes among each other
                _rule("udp", "10.0.0.0/8", 1, 65535),
            ],
        }
        (made,) = await self._http.call(
            "POST", _MACHINES, json=asked, into=list[_Made], scope=order.scope, under="instances"
        )
        return str(made.id)

    async def _prepare(self, order: MachineOrder) -> None:
        """Our environment in a region, with our key: made once, free of charge."""
        name, key = _environment(order.region), _key_name(order)
        environments = self._pages("/v1/core/environments", _Environments)
        if name not in [each.name async for page in environments for each in page.environments]:
            body = {"name": name, "region": order.region}
            await self._http.call("POST", "/v1/core/environments", json=body, into=msgspec.Raw)
        keys = self._pages("/v1/core/keypairs", _Keys)
        if key not in [each.name async for page in keys for each in page.keypairs]:
            body = {"name": key, "environment_name": name, "public_key": order.opens}
            await self._http.call("POST", "/v1/core/keypairs", json=body, into=msgspec.Raw)

    async def _image(self, order: MachineOrder) -> str:
        """The task's, else the newest Ubuntu of the region, with drivers and CUDA where there are GPUs."""
        region, gpu = order.region, bool(order.claim.choice.offer.shape.accelerator)

        async def found() -> str:
            path, query = "/v1/core/images", [("region", region)]
            groups = await self._http.call("GET", path, into=list[_Images], query=query, under="images")
            names = [each.name for group in groups for each in group.images]
            fit = [name for name in names if name.startswith("Ubuntu Server") and ("CUDA" in name) == gpu]
            if not fit:
                raise border.RequestRefused("region", f"Hyperstack has no image of Ubuntu in {region}")
            return newest(fit)

        return asked_image(order.claim) or await self._images.get((region, gpu), found)

    async def listed(self, region: str) -> Sequence[Machine]:
        pages = self._pages(_MACHINES, _Machines)
        found = [_machine(each) async for page in pages for each in page.instances]
        return [each for each in found if each is not None]

    async def delete(self, machine: Machine) -> None:
        await self._http.drop(f"{_MACHINES}/{machine.id}")

    async def stop(self, machine: Machine) -> None:
        """Hibernation gives the hardware back; a machine that is only shut down is paid for."""
        await self._http.send("GET", f"{_MACHINES}/{machine.id}/hibernate")

    async def start(self, machine: Machine) -> None:
        path = f"{_MACHINES}/{machine.id}"
        told = await self._http.call("GET", path, into=_Machine, under="instance")
        act = "start" if told.status == "SHUTOFF" else "hibernate-restore"
        scope = f"{machine.kind} in {machine.region}"
        await self._http.send("GET", f"{path}/{act}", scope=scope, how=How(safe=False))

    def _pages(self, path: str, into: type[P]) -> AsyncIterator[P]:
        seen = [1]

        def following(page: P) -> Query | None:
            if seen[0] * _PAGE >= page.count:
                return None
            seen[0] += 1
            return [("page", seen[0])]

        query: Query = [("pageSize", _PAGE)]
        return self._http.pages(path, into=into, following=following, query=query)


def _key_name(order: MachineOrder) -> str:
    return f"argosy-{hashlib.sha256(order.opens.encode()).hexdigest()[:10]}-{order.region}"


def _environment(region: str) -> str:
    return f"argosy-{region}"


def _rule(protocol: str, prefix: str, low: int, high: int) -> dict[str, object]:
    return {
        "direction": "ingress",
        "ethertype": "IPv4",
        "protocol": protocol,
        "remote_ip_prefix": prefix,
        "port_range_min": low,
        "port_range_max": high,
    }


def _machine(told: _Machine) -> Machine | None:
    mark = mark_in_tags(told.name or "", told.labels or ())
    if mark is None:
        return None
    state = _STATES.get(told.status or "", MachineState.STARTING)
    if state is MachineState.RUNNING and not told.floating_ip and told.floating_ip_status != "ATTACHED":
        state = MachineState.STARTING  # its address comes later
    failed = state is MachineState.FAILED
    return Machine(
        id=str(told.id),
        mark=mark,
        state=state,
        region=(told.environment.region if told.environment is not None else "") or "",
        kind=told.flavor.name if told.flavor is not None else "",
        user="ubuntu",
        spot=told.flavor is not None and (told.flavor.gpu or "").endswith(_SPOT),
        host=told.floating_ip or "",
        ip=told.fixed_ip or "",
        created=told.created_at or "",
        said="its status is ERROR" if failed else "",
        stays=failed,
    )


def words(said: Said) -> border.BorderError | None:
    what, text = f"Hyperstack says: {said.words}", f"{said.code} {said.text}".lower()
    if re.search(r"stock|not enough (gpu|capacity|resources)", text):
        return border.OutOfCapacity(said.scope, f"Hyperstack has no {said.scope} now: {said.text}")
    if "credit" in text or "balance" in text:
        more = "https://console.hyperstack.cloud/billing"
        return border.QuotaExceeded("credit", "reached", f"{what}; add to it at {more}")
    if said.status == 409 or re.search(r"(cannot|can't|unable).*(state|status)", text):
        return border.Transient(what, 5)
    return None

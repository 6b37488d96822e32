"""Pods of RunPod, by its REST API v2; spot pods are bid for by GraphQL, which alone knows them. A gang is a
cluster: all of its pods or none, in one data center. Names are not unique and there is no token."""

from __future__ import annotations

import asyncio
import re
from collections.abc import Mapping, Sequence
from typing import Final

import msgspec

from argosy.infra import border
from argosy.infra.http_json import How
from argosy.infra.machine_access import home_text
from argosy.infra.machine_vendor import MachineOrder, RestVendor, closed_offer, findings_of
from argosy.infra.machines import Machine, Note
from argosy.infra.provider import Diagnostic, Setting, Want
from argosy.model.offer import Capacity, Offer
from argosy.model.rows import Claim
from argosy.providers.runpod import MANIFEST
from argosy.providers.runpod.orders import (
    ANYWHERE,
    Place,
    Volume,
    bid_of,
    cluster_of,
    kind_of,
    names_of,
    pod_of,
    settings_of,
)
from argosy.providers.runpod.states import Pod, Pods, machine_of
from argosy.providers.runpod.words import told, words

URL: Final = "https://api.runpod.io"
CLUSTER: Final = "cluster"  # in the note of a gang
_BID: Final = (
    "mutation Bid($input: PodRentInterruptableInput!) { podRentInterruptable(input: $input) { id } }"
)


class _Cluster(msgspec.Struct, frozen=True):
    id: str
    name: str


class _Center(msgspec.Struct, frozen=True):
    id: str
    availability: str


class _Gpu(msgspec.Struct, frozen=True):
    id: str
    name: str
    memory: int
    max_count: Mapping[str, int] = msgspec.field(name="maxCount", default_factory=dict)
    availability: str = ""
    centers: list[_Center] = msgspec.field(name="dataCenters", default_factory=list)


class _Problem(msgspec.Struct, frozen=True):
    message: str = ""


class _Graph(msgspec.Struct, frozen=True):
    data: dict[str, dict[str, str] | None] | None = None
    errors: list[_Problem] = []


class RunPod(RestVendor):
    """`patience_s`: an order of a cluster waits so long to see its pods."""

    manifest = MANIFEST
    makes_gangs = True
    lag_s = 30.0
    fresh_s = 1.0
    end_command = "runpodctl pod delete {id}"

    def __init__(self, setting: Setting, *, patience_s: float = 15.0) -> None:
        super().__init__(setting, "ARGOSY_RUNPOD_URL", URL, words)
        self._patience_s, self.http = patience_s, self._http

    def key(self) -> str:
        environ = self._setting.environ
        text = home_text(environ, ".runpod/config.toml")
        found = re.search(r"""^\s*api_key\s*=\s*["']([^"']+)""", text, re.MULTILINE)
        return environ.get("RUNPOD_API_KEY") or (found[1] if found else "")

    async def check(self) -> Sequence[Diagnostic]:
        async def stock() -> str:
            gpus = await self._gpus("POD", 1, "")
            some = sum(each.availability not in ("", "NONE") for each in gpus)
            return f"the key is accepted; {some} of {len(gpus)} types of GPU can be had now"

        return await findings_of(MANIFEST, stock)

    async def quote(self, want: Want) -> Sequence[Offer]:
        """Types of which no data center has one now are closed."""
        now_ms = self._clock.now_ms()
        return [
            closed_offer(
                MANIFEST.name,
                f"{count}x_{name}_SECURE",
                "RunPod has none in its secure cloud now",
                now_ms,
                capacity=capacity,
            )
            for gpu in await self._gpus("POD", 1, "")
            if gpu.availability == "NONE"
            for name in sorted(names_of(gpu.name, gpu.memory))
            for count in range(1, gpu.max_count.get("secure", 0) + 1)
            for capacity in (Capacity.ON_DEMAND, Capacity.SPOT)
        ]

    def refuse(self, claim: Claim) -> None:
        kind = kind_of(claim.choice.offer.shape.instance_type)
        settings = settings_of(claim)
        if claim.count > 1 and claim.choice.offer.capacity is Capacity.SPOT:
            raise border.Unsupported("spot pods of RunPod stand alone: its clusters are on demand")
        if claim.count > 1 and kind.cloud != "SECURE":
            raise border.Unsupported("clusters of RunPod are made in its secure cloud only")
        if claim.count > 1 and settings.registry:
            raise border.RequestRefused(
                "config.runpod.registry", "clusters of RunPod take no credential of a registry"
            )

    def keeps(self, claim: Claim) -> Mapping[str, str]:
        return {CLUSTER: claim.id} if claim.count > 1 else {}

    # -- orders ---------------------------------------------------------------------------------------------

    async def create(self, order: MachineOrder, index: int) -> str:
        if order.claim.count > 1:
            raise border.OutOfCapacity(order.scope, "a pod of the cluster is gone: RunPod adds none to it")
        place = await self._place(order, "POD")
        if order.claim.choice.offer.capacity is Capacity.SPOT:
            return await self._bid(order, index, place)
        made = await self.http.call(
            "POST", "/v2/pods", json=pod_of(order, index, place), into=Pod, scope=order.scope
        )
        return made.id

    async def _bid(self, order: MachineOrder, index: int, place: Place) -> str:
        asked = {"query": _BID, "variables": {"input": bid_of(order, index, place)}}
        answer = await self.http.call("POST", "/graphql", json=asked, into=_Graph, scope=order.scope)
        made = (answer.data or {}).get("podRentInterruptable")
        if answer.errors or made is None:
            text = answer.errors[0].message if answer.errors else "no instances available"
            raise told(text, order.scope)
        return made["id"]

    async def create_all(self, order: MachineOrder) -> Sequence[str]:
        if order.claim.count == 1:
            return [await self.create(order, 0)]
        found = await self._cluster(order.claim.id)
        if found is None:
            place = await self._place(order, "CLUSTER")
            body = cluster_of(order, place)
            found = await self.http.call("POST", "/v2/clusters", json=body, into=_Cluster, scope=order.scope)
        waited_s, step_s = 0.0, 0.2
        while True:
            answer = await self.http.call("GET", f"/v2/clusters/{found.id}/pods", into=Pods)
            if len(answer.pods) >= order.claim.count:
                return sorted(each.id for each in answer.pods)
            if waited_s > self._patience_s:
                raise border.Transient("the pods of the cluster are not listed yet", 3)
            await asyncio.sleep(step_s)
            waited_s, step_s = waited_s + step_s, min(step_s * 1.5, 2.0)

    async def _cluster(self, claim_id: str) -> _Cluster | None:
        known = await self.http.call("GET", "/v2/clusters", into=list[_Cluster], under="clusters")
        return next((each for each in known if each.name == claim_id), None)

    async def _gpus(self, product: str, count: int, country: str) -> list[_Gpu]:
        query: list[tuple[str, str | int]] = [
            ("include", "AVAILABILITY"),
            ("product", product),
            ("count", count),
        ]
        if country:
            query.append(("countryCodes", country))
        path = "/v2/catalog/gpus"
        return await self.http.call("GET", path, query=query, into=list[_Gpu], under="gpus")

    async def _place(self, order: MachineOrder, product: str) -> Place:
        """Raises `OutOfCapacity` where no data center has any, `RequestRefused` for an unknown GPU."""
        kind, settings = kind_of(order.kind), settings_of(order.claim)
        country = "" if order.region in ANYWHERE else order.region
        gpus = await self._gpus(product, kind.count, country)
        gpu = next((each for each in gpus if kind.gpu in names_of(each.name, each.memory)), None)
        if gpu is None:
            names = ", ".join(sorted(each.name for each in gpus))
            raise border.RequestRefused(
                "instance_type", f"RunPod has no GPU called `{kind.gpu}` in {country or 'any place'}: {names}"
            )
        centers = tuple(each.id for each in gpu.centers if each.availability != "NONE")
        if order.zone:
            centers = (order.zone,)
        elif gpu.availability == "NONE" or (country and not centers):
            raise border.OutOfCapacity(order.scope, f"RunPod has no {order.scope} now")
        volume = await self._volume(settings.network_volume) if settings.network_volume else None
        if volume is not None:
            if country and volume.data_center not in centers:
                raise border.OutOfCapacity(
                    order.scope,
                    f"RunPod has no {order.scope} in {volume.data_center}, where the volume {volume.name} is",
                )
            centers = (volume.data_center,)
        return Place(gpu.id, centers if country or order.zone or volume else (), volume)

    async def volumes(self) -> Sequence[Volume]:
        """Network volumes of the account."""
        path = "/v2/network-volumes"
        return await self.http.call("GET", path, into=list[Volume], under="networkVolumes")

    async def _volume(self, wanted: str) -> Volume:
        known = await self.volumes()
        for each in known:
            if wanted in (each.id, each.name):
                return each
        names = ", ".join(f"{each.name} ({each.id})" for each in known) or "none"
        raise border.RequestRefused(
            "config.runpod.network_volume", f"RunPod has no network volume `{wanted}` of yours: {names}"
        )

    # -- pods -----------------------------------------------------------------------------------------------

    async def listed(self, region: str) -> Sequence[Machine]:
        answer = await self.http.call("GET", "/v2/pods", query=[("includeClusterPods", "true")], into=Pods)
        members: dict[str, list[str]] = {}
        for each in answer.pods:
            if each.cluster is not None:
                members.setdefault(each.cluster.id, []).append(each.id)
        found = []
        for each in answer.pods:
            index = None
            if each.cluster is not None:
                index = sorted(members[each.cluster.id]).index(each.id)
            machine = machine_of(each, index)
            if machine is not None:
                found.append(machine)
        return found

    async def delete(self, machine: Machine) -> None:
        reply = await self.http.send("DELETE", f"/v2/pods/{machine.id}", how=How(fine=(404, 409)))
        if reply.status == 409:  # it belongs to a cluster, and goes with it
            await self._drop_cluster(machine.claim_id)

    async def _drop_cluster(self, claim_id: str) -> None:
        found = await self._cluster(claim_id)
        if found is not None:
            await self.http.drop(f"/v2/clusters/{found.id}")

    async def clear(self, note: Note) -> bool:
        """A cluster whose pods were never listed."""
        await self._drop_cluster(note.claim_id)
        return True

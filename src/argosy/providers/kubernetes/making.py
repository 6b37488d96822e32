"""What a claim is made of, made and deleted: pods, the agent's file, groups, ways to ports."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

import msgspec

from argosy.infra import border
from argosy.providers.kubernetes import beside, pods
from argosy.providers.kubernetes.api import Api
from argosy.providers.kubernetes.discovery import DEVICES, PODGROUP, REQUESTS, VOLCANO, Discovery
from argosy.providers.kubernetes.objects import Pod
from argosy.providers.kubernetes.pods import Gang, Order
from argosy.providers.kubernetes.volumes import claims_of
from argosy.providers.kubernetes.watching import Pods
from argosy.providers.kubernetes.wishes import Wishes

_GRACE_S: Final = 1  # programs have been stopped before
_RELEASE_S: Final = 60.0
_LOOK_S: Final = 5.0
_AT_ONCE: Final = 8  # pods that are made


class Making:
    """Effects of one context. Each may be repeated."""

    def __init__(self, api: Api, discovery: Discovery) -> None:
        self.api = api
        self._with_agent: dict[str, asyncio.Task[None]] = {}  # by namespace and version
        self._discovery = discovery

    async def make(self, order: Order, here: Pods, agent: Path, there: set[str]) -> None:
        space = order.wishes.namespace
        group = beside.group_of(order)
        if group is not None:
            await self._post(f"{group[0]}/namespaces/{space}/podgroups", group[1])
        if order.match.by_claim:
            path = (await self._discovery.paths())[DEVICES]
            body = beside.devices_of(order, path.rpartition("/")[2])
            await self._post(f"{path}/namespaces/{space}/{DEVICES}", body)
        if order.wishes.dws.enabled:
            template, request = beside.provisioning_of(order)
            await self._post(f"/api/v1/namespaces/{space}/podtemplates", template)
            await self._post(
                f"/apis/autoscaling.x-k8s.io/v1/namespaces/{space}/provisioningrequests", request
            )
        wanted = [pods.pod_of(order, index) for index in range(order.claim.count)]
        for claim in claims_of(order.wishes.volumes, order.claim.count):
            await self._post(f"/api/v1/namespaces/{space}/persistentvolumeclaims", claim)
        turns = asyncio.Semaphore(_AT_ONCE)

        async def make(body: Mapping[str, Any]) -> None:
            async with turns:
                made = await self.api.call("POST", here.path, into=Pod, json=body, fine=(409,))
                if made is not None:
                    here.put(made)

        missing = [each for each in wanted if each["metadata"]["name"] not in there]
        results = await asyncio.gather(
            self._bring_agent(space, order.agent, agent), *map(make, missing), return_exceptions=True
        )
        errors = [each for each in results if isinstance(each, BaseException)]
        if errors:
            raise min(errors, key=_telling)
        if order.wishes.ports:
            await self._open_ports(order, here)

    async def _open_ports(self, order: Order, here: Pods) -> None:
        first = here.find(f"{order.claim.id}-0")
        if first is not None:
            for path, body in beside.ports_of(order, first.metadata.uid):
                await self._post(path.format(f"namespaces/{order.wishes.namespace}"), body)

    async def _post(self, path: str, body: Mapping[str, Any]) -> None:
        await self.api.call("POST", path, into=msgspec.Raw, json=body, fine=(409,))

    async def _bring_agent(self, namespace: str, name: str, zipapp: Path) -> None:
        """Once for each namespace and life of this server."""
        task = self._with_agent.get(f"{namespace}/{name}")
        if task is None or (task.done() and task.exception() is not None):
            body = beside.agent_map(name, await asyncio.to_thread(zipapp.read_bytes))
            path = f"/api/v1/namespaces/{namespace}/configmaps"
            task = asyncio.get_running_loop().create_task(self._post(path, body))
            self._with_agent[f"{namespace}/{name}"] = task
        await asyncio.shield(task)

    async def remove(self, here: Pods, claim_id: str) -> None:
        """Until the API server lists no pod of it. Raises Transient."""
        others = [each.metadata.name for each in here.of(claim_id) if not each.metadata.deletion_timestamp]
        taken = [each for each in here.of(claim_id) if each.metadata.deletion_timestamp]
        here.ends(claim_id)
        grace = ("gracePeriodSeconds", str(_GRACE_S))
        query = [("labelSelector", f"{pods.CLAIM}={claim_id}"), grace]
        if taken:  # whoever ends them has given their programs some time: that is theirs
            for name in others:
                path = f"{here.path}/{name}"
                await self.api.call("DELETE", path, into=msgspec.Raw, query=[grace], fine=(404,))
        else:
            await self.api.call("DELETE", here.path, into=msgspec.Raw, query=query)
        try:
            async with asyncio.timeout(_RELEASE_S):
                while here.of(claim_id) and await self._is_left(here, query[:1]):
                    pass
        except TimeoutError:
            raise border.Transient(
                f"pods of {claim_id} are still being deleted: their node may not answer, `kubectl --context "
                f"{self.api.context.name} get pods -l {pods.CLAIM}={claim_id}` shows them",
                10,
            ) from None

    async def _is_left(self, here: Pods, query: list[tuple[str, str]]) -> bool:
        """After news, or a while without: then the API server is asked."""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(_LOOK_S):
                await here.news()
                return True
        left, _ = await self.api.items(here.path, into=Pod, query=query)
        await self._strip(here, left)
        return bool(left)

    async def _strip(self, here: Pods, left: list[Pod]) -> None:
        """Kueue keeps the pods of a group until all have ended, by a finalizer: these shall not come back."""
        patch = [{"op": "remove", "path": "/metadata/finalizers"}]
        for pod in left:
            if (
                "kueue.x-k8s.io/managed" in pod.metadata.labels
                or "kueue.x-k8s.io/queue-name" in pod.metadata.labels
            ):
                path = f"{here.path}/{pod.metadata.name}"
                kind = "application/json-patch+json"
                await self.api.call("PATCH", path, into=msgspec.Raw, json=patch, patch=kind, fine=(404, 422))

    async def remove_beside(self, namespace: str, claim_id: str) -> None:
        """What no pod owns, because it was made before them."""
        kinds = await self._discovery.paths()
        for name, path in kinds.items():
            plural = name if name in (REQUESTS, DEVICES) else "podgroups"
            await self._delete(f"{path}/namespaces/{namespace}/{plural}/{claim_id}")
        if REQUESTS in kinds:
            await self._delete(f"/api/v1/namespaces/{namespace}/podtemplates/{claim_id}")

    async def _delete(self, path: str) -> None:
        await self.api.call("DELETE", path, into=msgspec.Raw, fine=(404, 403))

    async def gang(self, wishes: Wishes, count: int) -> Gang:
        """Who starts pods together: a queue of Kueue that is named, a gang scheduler that is there, or we."""
        if wishes.queue:
            return Gang(kind="kueue")
        if count == 1:
            return Gang()
        wants = any(each.get("spec", {}).get("schedulerName") == "volcano" for each in wishes.pod_configs)
        kind = VOLCANO if wants else PODGROUP
        path = (await self._discovery.paths()).get(kind)
        return Gang(kind=kind, version=path.rpartition("/")[2]) if path else Gang()


def _telling(error: BaseException) -> int:
    """The lowest says most about why a gang is not whole."""
    kinds = (border.CredentialsRejected, border.RequestRefused, border.QuotaExceeded, border.OutOfCapacity)
    return next((i for i, kind in enumerate(kinds) if isinstance(error, kind)), len(kinds))

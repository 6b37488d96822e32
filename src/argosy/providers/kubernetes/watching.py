"""Our pods in one namespace, kept up to date by one watch."""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import Callable
from typing import Final

import msgspec

from argosy.infra import border
from argosy.providers.kubernetes.api import Api, Gone
from argosy.providers.kubernetes.objects import Change, Pod
from argosy.providers.kubernetes.pods import CLAIM
from argosy.providers.kubernetes.states import claim_of
from argosy.providers.kubernetes.words import Status

_log: Final = logging.getLogger(__name__)
_FIRST_S, _LONGEST_S = 0.2, 15.0
_LEFT_ALONE_S: Final = 600.0  # at most so long, when an API server asks for it
_FIRST_LISTING_S: Final = 30.0


class Pods:
    """All pods of claims in a namespace, by claim and name. `changed` is called when one has changed."""

    def __init__(self, api: Api, namespace: str, changed: Callable[[], None]) -> None:
        self.path = f"/api/v1/namespaces/{namespace}/pods"
        self._api, self._changed = api, changed
        self._pods: dict[str, dict[str, Pod]] = {}
        self._lost: dict[str, dict[str, Pod]] = {}  # were there, and nobody here has deleted them
        self._ending: set[str] = set()  # claims that are being released
        self._failure: border.BorderError | None = None
        self._listed = False
        self._news = asyncio.Event()
        self._task: asyncio.Task[None] | None = None

    async def ready(self) -> None:
        """Until they were listed once. Raises the border error that keeps them from being known."""
        if self._task is None or self._task.done():
            self._task = asyncio.get_running_loop().create_task(self._keep())
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(_FIRST_LISTING_S):
                while not self._listed and self._failure is None:
                    await self.news()
        if self._failure is not None:
            raise self._failure
        if not self._listed:
            raise border.Transient(f"{self._api.context.name} does not answer", 5)

    async def news(self) -> None:
        """Until something has changed."""
        await self._news.wait()

    def of(self, claim_id: str) -> list[Pod]:
        return list(self._pods.get(claim_id, {}).values())

    def lost(self, claim_id: str) -> list[Pod]:
        return list(self._lost.get(claim_id, {}).values())

    def claims(self) -> set[str]:
        return self._pods.keys() | self._lost.keys()

    def find(self, name: str) -> Pod | None:
        return next((mine[name] for mine in self._pods.values() if name in mine), None)

    def put(self, pod: Pod) -> None:
        """A pod that was just made: the watch tells it later."""
        self._pods.setdefault(claim_of(pod), {}).setdefault(pod.metadata.name, pod)

    def ends(self, claim_id: str) -> None:
        """Its pods go because we say so."""
        self._ending.add(claim_id)
        self._lost.pop(claim_id, None)

    def close(self) -> None:
        if self._task is not None:
            self._task.cancel()

    # -- the watch -------------------------------------------------------------------------------------------

    async def _keep(self) -> None:
        pause_s = _FIRST_S
        while True:
            listed_s = None
            try:
                version = await self._list()
                listed_s = asyncio.get_running_loop().time()
                while True:
                    version = await self._follow(version)
            except Gone:
                continue
            except border.BorderError as error:
                wait_s = max(pause_s, min(getattr(error, "after_s", 0.0), _LEFT_ALONE_S))
                if listed_s is None:
                    if self._failure is None:
                        _log.info("pods of %s are not known: %s", self._api.context.name, error)
                    self._failure = error
                    self._tell()
                else:  # connections break: the next listing tells whether more is wrong
                    lasted_s = asyncio.get_running_loop().time() - listed_s
                    wait_s = pause_s = _FIRST_S if lasted_s > _LONGEST_S else pause_s
                await asyncio.sleep(wait_s)
                pause_s = min(_LONGEST_S, pause_s * 2)

    async def _list(self) -> str:
        before = [pod for mine in self._pods.values() for pod in mine.values()]
        pods, version = await self._api.items(self.path, into=Pod, query=[("labelSelector", CLAIM)])
        there = {pod.metadata.name for pod in pods}
        for pod in pods:
            self._pods.setdefault(claim_of(pod), {})[pod.metadata.name] = pod
        for pod in before:  # what was made meanwhile may not be in the listing
            if pod.metadata.name not in there:
                self._gone(pod)
        self._failure, self._listed = None, True
        self._tell()
        return version

    async def _follow(self, version: str) -> str:
        """One watch to its end; the version from which the next goes on."""
        lines = self._api.watch(self.path, query=[("labelSelector", CLAIM)], version=version)
        try:
            async for line in lines:
                change = msgspec.json.decode(line, type=Change)
                if change.type == "ERROR":
                    status = msgspec.json.decode(change.object, type=Status)
                    if status.code == 410:
                        raise Gone("the watch is too old", 0)
                    raise border.Transient(f"{self._api.context.name}: {status.message}", 2)
                pod = msgspec.json.decode(change.object, type=Pod)
                version = pod.metadata.resource_version or version
                if change.type in ("ADDED", "MODIFIED"):
                    self._pods.setdefault(claim_of(pod), {})[pod.metadata.name] = pod
                elif change.type == "DELETED":
                    self._gone(pod)
                else:
                    continue  # a bookmark
                self._tell()
        except msgspec.DecodeError as error:
            raise border.Transient(f"{self._api.context.name} tells no JSON: {error}", 5) from None
        finally:
            await lines.aclose()  # type: ignore[attr-defined]  # it is a generator
        return version

    def _gone(self, pod: Pod) -> None:
        claim_id, name = claim_of(pod), pod.metadata.name
        mine = self._pods.get(claim_id, {})
        mine.pop(name, None)
        if not mine:
            self._pods.pop(claim_id, None)
        if claim_id in self._ending:
            if not mine:
                self._ending.discard(claim_id)
        else:
            self._lost.setdefault(claim_id, {})[name] = pod

    def _tell(self) -> None:
        self._news.set()
        self._news = asyncio.Event()
        self._changed()

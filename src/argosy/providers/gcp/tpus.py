"""TPU VMs: machines with chips of Google's own, which another API makes (Cloud TPU, v2).

A node of a claim is one host of a TPU; a slice of several is one order, which makes all of its hosts or none.
With `managed_instance_group` it is a queued resource, which Google keeps until it has room for all slices of
a gang; else it is made at once or refused.

https://cloud.google.com/tpu/docs/reference/rest/v2/projects.locations.nodes
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence
from typing import Any, Final

from argosy.infra import border
from argosy.infra.http_json import How, HttpJson, Service
from argosy.infra.http_words import Said, error_of
from argosy.infra.machine_vendor import MachineOrder
from argosy.infra.machines import Machine
from argosy.infra.provider import Setting
from argosy.model.slices import hosts_of
from argosy.providers.gcp import MANIFEST
from argosy.providers.gcp.account import PAGE, Account
from argosy.providers.gcp.errors import words
from argosy.providers.gcp.launching import Site
from argosy.providers.gcp.listing import Bridge
from argosy.providers.gcp.orders import Orders, Pending, pending_of
from argosy.providers.gcp.tpu_words import (
    Failure,
    Locations,
    Nodes,
    Queued,
    QueuedList,
    TpuNode,
    TpuOperation,
    first_of,
    machines_of,
    runtime_of,
    waiting,
    zone_of,
)
from argosy.providers.gcp.wire import last
from argosy.providers.gcp.wishes import Wishes

URL: Final = "https://tpu.googleapis.com"
SWEEP_S: Final = 1800.0  # who has no TPU is asked so often
LATE_S: Final = 600.0  # so long after an order one is looked for
_FIRST_LOOK_S, _LONGEST_LOOK_S = 0.2, 2.0
#: Statuses of HTTP for codes of operations (google.rpc.Code).
_STATUS: Final = {3: 400, 5: 404, 6: 409, 7: 403, 8: 429, 9: 400, 10: 409, 13: 500, 14: 503, 16: 401}


class Tpus:
    """TPUs of a project. `patience_s`: so long an order waits for Google to say that there is none."""

    def __init__(self, account: Account, setting: Setting, *, patience_s: float) -> None:
        self._account, self._clock, self._patience_s = account, setting.clock, patience_s
        self._http = HttpJson(
            setting.environ.get("ARGOSY_GCP_API_URL") or URL,
            Service(title=MANIFEST.title, sign_in=MANIFEST.how_to_sign_in, words=words),
            clock=setting.clock,
            sign=account.credentials.sign,
        )
        self._empty_s: float | None = None  # when it was seen that there is none
        self._ordered_s = -LATE_S  # when one was ordered last
        self._orders = Orders(self._ended, setting.clock)
        self._bridge = Bridge()
        self._zones: set[str] = set()  # where TPUs of ours were seen or ordered
        self._lists_all = True  # whether one call lists the queued resources of all zones
        self._queue_zones: set[str] = set()  # where some may be
        self._swept_s: float | None = None
        self._queued: set[str] = set()  # claims whose order is a queued resource

    async def _place(self, zone: str) -> str:
        return f"projects/{await self._account.credentials.project()}/locations/{zone}"

    def _begin(self, zone: str) -> None:
        """Something is ordered in a zone: what was seen there before is not all."""
        self._empty_s, self._ordered_s = None, self._clock.monotonic_s()
        self._zones.add(zone)
        self._bridge.forget(zone)

    # -- orders ---------------------------------------------------------------------------------------------

    async def create(self, order: MachineOrder, wishes: Wishes, site: Site, index: int) -> str:
        """The slice that a node is the first host of; the order of that brings the others, too."""
        name = order.name(index)
        if index != first_of(index, order.kind):
            return name
        self._begin(order.zone)
        place, hosts = await self._place(order.zone), range(index, index + hosts_of(order.kind))
        try:
            operation = await self._http.call(
                "POST",
                f"/v2/{place}/nodes",
                into=TpuOperation,
                query=[("nodeId", name)],
                json=node_of(order, wishes, site, index),
                scope=order.scope,
            )
            for each in hosts:
                self._orders.forget(order.name(each))
            if not await self._finish(operation, order.scope):
                names = [(each, order.name(each)) for each in hosts]
                self._orders.add(pending_of(order, operation.name, names))
        except border.RequestRefused as error:
            if "already exists" not in str(error):
                raise
        return name

    async def queue(self, order: MachineOrder, wishes: Wishes, site: Site) -> Sequence[str]:
        """All slices of a claim in one queued resource."""
        assert wishes.queue is not None
        self._begin(order.zone)
        self._queued.add(order.claim.id)
        self._queue_zones.add(order.zone)
        place = await self._place(order.zone)
        body: dict[str, Any] = {
            "tpu": {
                "nodeSpec": [
                    {
                        "parent": place,
                        "nodeId": order.name(index),
                        "node": node_of(order, wishes, site, index, queued=True),
                    }
                    for index in range(0, wishes.count, hosts_of(wishes.kind))
                ]
            },
            "queueingPolicy": {"validUntilDuration": f"{wishes.queue.provision_timeout}s"},
        }
        if wishes.spot:
            body["spot"] = {}
        try:
            await self._http.call(
                "POST",
                f"/v2/{place}/queuedResources",
                into=TpuOperation,
                query=[("queuedResourceId", order.claim.id)],
                json=body,
                scope=order.scope,
            )
        except border.RequestRefused as error:
            if "already exists" not in str(error):
                raise
        return [order.name(index) for index in range(wishes.count)]

    async def _ended(self, order: Pending) -> tuple[bool, border.BorderError | None]:
        now = await self._http.find(f"/v2/{order.operation}", into=TpuOperation)
        if now is None:
            return True, None
        return now.done, error_in(now.error, order.scope) if now.error is not None else None

    async def _finish(self, operation: TpuOperation, scope: str) -> bool:
        """Waits for the end of an operation, a bounded time. Whether it has ended well; False: not yet.
        Raises its error."""
        waited_s, step_s = 0.0, _FIRST_LOOK_S
        while True:
            if operation.error is not None:
                raise error_in(operation.error, scope)
            if operation.done or waited_s >= self._patience_s:
                return operation.done
            await asyncio.sleep(step_s)
            waited_s += step_s
            step_s = min(step_s * 1.5, _LONGEST_LOOK_S)
            operation = await self._http.call("GET", f"/v2/{operation.name}", into=TpuOperation)

    # -- what there is --------------------------------------------------------------------------------------

    async def listed(self) -> Sequence[Machine]:
        """All of ours, in all zones. A project in which Cloud TPU is off has none."""
        if self._empty_s is not None and self._clock.monotonic_s() - self._empty_s < SWEEP_S:
            return []
        try:
            silent: set[str] = set()
            told = [each async for node in self._nodes(silent) for each in machines_of(node)]
            nodes = self._bridge.over(told, silent, self._zones)
        except border.CredentialsRejected as error:
            _raise_unless_off(error)
            nodes = []
        try:
            queued = await self._resources()
        except border.CredentialsRejected as error:
            _raise_unless_off(error)
            queued = []
        known = {each.id for each in nodes}
        self._queued |= {each.id for each in queued}
        waits = [machine for each in queued for machine in waiting(each) if machine.id not in known]
        known |= {each.id for each in waits}
        found = nodes + waits + [each for each in await self._orders.failed() if each.id not in known]
        now_s = self._clock.monotonic_s()
        late = now_s - self._ordered_s < LATE_S
        self._empty_s = None if found or queued or late else now_s
        return found

    async def _nodes(self, silent: set[str]) -> AsyncIterator[TpuNode]:
        """`silent`: zones that did not answer are put there."""
        path = f"/v2/{await self._place('-')}/nodes"
        async for page in self._http.pages(
            path, into=Nodes, query=[("pageSize", PAGE)], following=lambda page: _next(page.next_page_token)
        ):
            silent.update({last(each) for each in page.unreachable} & self._zones)
            for node in page.nodes:
                self._zones.add(zone_of(node))
                yield node

    async def _resources(self) -> list[Queued]:
        """Queued resources of all zones; where Google lists them by zone only, of those that have some, and
        of all now and then."""
        if self._lists_all:
            try:
                return await self._queue_of("-")
            except border.RequestRefused:
                self._lists_all = False
            except border.CredentialsRejected:
                pass  # it may be allowed by zone
        now_s = self._clock.monotonic_s()
        zones = self._queue_zones
        if self._swept_s is None or now_s - self._swept_s > SWEEP_S:
            path = f"/v2/projects/{await self._account.credentials.project()}/locations"
            listed = await self._http.call("GET", path, into=Locations, query=[("pageSize", PAGE)])
            zones = zones | {each.location_id for each in listed.locations}
            self._swept_s = now_s
        every = sorted(zones)
        found = await asyncio.gather(*(self._queue_of(zone) for zone in every))
        self._queue_zones |= {zone for zone, queue in zip(every, found, strict=True) if queue}
        return [each for queue in found for each in queue]

    async def _queue_of(self, zone: str) -> list[Queued]:
        pages = self._http.pages(
            f"/v2/{await self._place(zone)}/queuedResources",
            into=QueuedList,
            query=[("pageSize", PAGE)],
            following=lambda page: _next(page.next_page_token),
        )
        return [each async for page in pages for each in page.queued_resources]

    # -- what becomes of them -------------------------------------------------------------------------------

    @property
    def is_used(self) -> bool:
        return self._empty_s is None

    async def delete(self, machine: Machine) -> None:
        self._orders.forget(machine.id)
        if machine.index != first_of(machine.index, machine.kind):
            return  # it goes with the first host of its slice
        place = await self._place(machine.zone)
        if machine.claim_id in self._queued:
            query = [("force", "true")]
            await self._http.drop(f"/v2/{place}/queuedResources/{machine.claim_id}", query=query)
        else:
            await self._http.drop(f"/v2/{place}/nodes/{machine.id}")

    async def act(self, machine: Machine, verb: str) -> None:
        """`stop` or `start`."""
        if hosts_of(machine.kind) > 1:
            raise border.Unsupported(f"a {machine.kind} has several hosts and cannot rest: it can only go")
        scope = f"{machine.kind} in {machine.zone}"
        operation = await self._http.call(
            "POST",
            f"/v2/{await self._place(machine.zone)}/nodes/{machine.id}:{verb}",
            into=TpuOperation,
            json={},
            scope=scope,
            how=_AGAIN,
        )
        await self._finish(operation, scope)

    async def close(self) -> None:
        await self._http.close()


_AGAIN: Final = How(safe=True)


def _raise_unless_off(error: border.CredentialsRejected) -> None:
    """Who may not ask for TPUs, or whose project has their API turned off, has none."""
    if "services enable" not in str(error) and "permission" not in str(error).lower():
        raise error


def _next(token: str) -> Sequence[tuple[str, str]] | None:
    return [("pageToken", token)] if token else None


def refuse(wishes: Wishes) -> None:
    """Raises for what a TPU cannot give."""
    hosts = hosts_of(wishes.kind)
    if wishes.count % hosts:
        raise border.RequestRefused(
            "num_nodes",
            f"{wishes.kind} has {hosts} hosts, and each is a node: ask for {hosts} nodes, or a multiple",
        )
    if wishes.kms_key or wishes.reservations or wishes.placement:
        raise border.RequestRefused(
            "config.gcp",
            "TPUs know no `kms_key`, `specific_reservations` or `placement_policy`: leave it out",
        )
    if wishes.image:
        raise border.RequestRefused(
            "image_id", "TPUs start from `runtime_version` in `accelerator_args`, and not from an image"
        )


def node_of(
    order: MachineOrder, wishes: Wishes, site: Site, index: int, *, queued: bool = False
) -> dict[str, Any]:
    """The words of an order for one TPU, whose first host is the node `index`. Of a queued one the resource
    says that it is spot."""
    network: dict[str, Any] = {"enableExternalIps": wishes.public}
    if site.subnets:
        network["subnetwork"] = site.subnets[0]
    else:
        network["network"] = site.network
    body: dict[str, Any] = {
        "acceleratorType": wishes.kind.removeprefix("tpu-"),
        "runtimeVersion": wishes.runtime or runtime_of(wishes.kind),
        "networkConfig": network,
        "labels": {**dict(wishes.labels), **order.labels(index, wishes.user)},
        "metadata": {"ssh-keys": f"{wishes.user}:{order.opens}", "enable-oslogin": "FALSE"},
        "tags": list(site.tags),
    }
    if wishes.spot and not queued:
        body["schedulingConfig"] = {"spot": True}
    if wishes.identity and wishes.identity != "default":
        scope = ["https://www.googleapis.com/auth/cloud-platform"]
        body["serviceAccount"] = {"email": wishes.identity, "scope": scope}
    return body


def error_in(failure: Failure, scope: str) -> border.BorderError:
    return error_of(
        Said(
            title=MANIFEST.title,
            sign_in=MANIFEST.how_to_sign_in,
            status=_STATUS.get(failure.code, 400),
            code="",
            text=failure.message,
            scope=scope,
        ),
        words,
    )

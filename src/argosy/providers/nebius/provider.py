"""Machines of Nebius, through the vendor's SDK (gRPC). Names are unique in a project, so a repeated order is
no second machine. A machine that cannot be had is refused by the operation that its order began."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Collection, Mapping, Sequence
from typing import Any, Final

import msgspec

from argosy.infra import border
from argosy.infra.machine_vendor import MachineOrder, Vendor, closed_offer, findings_of
from argosy.infra.machines import Machine, MachineState, Note
from argosy.infra.provider import Diagnostic, Setting, Want
from argosy.model.offer import Capacity, Offer
from argosy.model.rows import Claim
from argosy.providers.nebius import MANIFEST
from argosy.providers.nebius.account import LIMITS, Account
from argosy.providers.nebius.clusters import Clusters
from argosy.providers.nebius.orders import instance_of, kind_of, may_cluster, settings_of
from argosy.providers.nebius.states import machine_of, why_closed
from argosy.providers.nebius.words import code_of, error_of, whole

CLUSTER: Final = "gpu-cluster"  # in the note of a claim that has one, or may have
_PAGE: Final = 100


class Nebius(Vendor):
    """`patience_s`: an order waits so long to hear that there is no such machine."""

    manifest = MANIFEST
    place = "a region"
    unique_names = True
    by_region = True
    lag_s = 15.0
    end_command = "nebius compute instance delete --id {id}"

    def __init__(self, setting: Setting, *, patience_s: float = 20.0) -> None:
        self._clock, self._patience_s = setting.clock, patience_s
        self._account = Account(setting)
        self._clusters = Clusters(self._account, self._told)
        self._reasons: dict[tuple[str, int], border.BorderError | None] = {}  # by machine and its version

    async def check(self) -> Sequence[Diagnostic]:
        async def projects() -> str:
            found = await self._account.projects()
            if not found:
                raise border.RequestRefused(
                    "project", "the account has no project; `nebius iam project create` makes one"
                )
            regions = ", ".join(sorted({each.region for each in found}))
            return f"the credentials are accepted; projects in {regions}"

        return await findings_of(MANIFEST, projects)

    async def quote(self, want: Want) -> Sequence[Offer]:
        """What cannot be had now is closed, as far as Nebius tells."""
        open_, closed = set(), {}
        for each in await self._account.advice():
            for capacity, told in (
                (Capacity.ON_DEMAND, each.status.on_demand),
                (Capacity.SPOT, each.status.preemptible),
            ):
                spec = each.spec.compute_instance
                key = (each.spec.region, f"{spec.platform}_{spec.preset.name}", capacity)
                why = why_closed(told, each.spec.region)
                if why:
                    closed[key] = why
                else:
                    open_.add(key)
        now_ms = self._clock.now_ms()
        return [
            closed_offer(MANIFEST.name, key[1], why, now_ms, region=key[0], capacity=key[2])
            for key, why in closed.items()
            if key not in open_
        ]

    def refuse(self, claim: Claim) -> None:
        platform, preset = kind_of(claim)
        settings_of(claim)
        if claim.choice.resources.network_tier == "best" and claim.count > 1 and not may_cluster(claim):
            raise border.RequestRefused(
                "network_tier",
                "`network_tier: best` is InfiniBand between machines with eight GPUs at Nebius: "
                f"{platform}_{preset} has none",
            )

    def keeps(self, claim: Claim) -> Mapping[str, str]:
        return {CLUSTER: claim.id} if may_cluster(claim) else {}

    async def regions(self) -> Collection[str]:
        return {each.region for each in await self._account.projects()}

    # -- orders ---------------------------------------------------------------------------------------------

    async def create(self, order: MachineOrder, index: int) -> str:
        asked = settings_of(order.claim).region_configs.get(order.region)
        project = await self._account.project(order.region, asked.project_id if asked else "")
        subnet = await self._account.subnet(project, order.claim.choice.resources.networking.subnet_names)
        cluster = ""
        if may_cluster(order.claim):
            cluster = await self._clusters.of(order, project, asked.fabric if asked else "")
        from nebius.api.nebius.compute.v1 import InstanceServiceClient

        request = instance_of(order, index, project=project, subnet=subnet, cluster=cluster)
        try:
            operation = await self._account.ask(
                lambda sdk: InstanceServiceClient(sdk).create(request, **LIMITS), scope=order.scope
            )
        except border.RequestRefused:
            made = await self._named(project, order.name(index))
            if made is None:
                raise
            if made.status.state.name == "DELETING":
                raise border.Transient(f"{order.name(index)} is still going", 3) from None
            return str(made.metadata.id)
        await self._told(operation, order.scope)
        return str(operation.resource_id)

    async def _named(self, project: str, name: str) -> Any:
        """The machine of that name; None: there is none, so the order was refused for another reason."""
        from nebius.api.nebius.common.v1 import GetByNameRequest
        from nebius.api.nebius.compute.v1 import InstanceServiceClient

        request = GetByNameRequest(parent_id=project, name=name)
        try:
            return await self._account.ask(
                lambda sdk: InstanceServiceClient(sdk).get_by_name(request, **LIMITS)
            )
        except border.RequestRefused:
            return None

    async def _told(self, operation: Any, scope: str) -> None:
        """Waits a little for the end of an operation. Raises what it failed with."""
        waited_s, step_s = 0.0, 0.2
        while not operation.done() and waited_s < self._patience_s:
            await asyncio.sleep(step_s)
            waited_s, step_s = waited_s + step_s, min(step_s * 1.5, 2.0)
            await self._account.ask(lambda _: operation.update(**LIMITS), scope=scope)
        status = operation.status()
        if operation.done() and status is not None and code_of(status) != "OK":
            raise error_of(whole(status), scope)

    async def clear(self, note: Note) -> bool:
        """The GPU cluster of a gang goes after its machines."""
        return await self._clusters.clear(note.claim_id, note.region)

    # -- machines -------------------------------------------------------------------------------------------

    async def listed(self, region: str) -> Sequence[Machine]:
        found: list[Machine] = []
        for project in await self._account.projects():
            if project.region == region:
                found += await self._in_project(project.id, region)
        return found

    async def _in_project(self, project: str, region: str) -> list[Machine]:
        from nebius.api.nebius.compute.v1 import InstanceServiceClient, ListInstancesRequest

        pages = self._account.pages(
            lambda sdk, page: InstanceServiceClient(sdk).list(
                ListInstancesRequest(parent_id=project, page_size=_PAGE, page_token=page), **LIMITS
            )
        )
        found = []
        async for each in pages:
            machine = machine_of(each, region)
            if machine is not None and machine.state is MachineState.STOPPED and not each.spec.stopped:
                machine = await self._explained(machine, each.metadata.resource_version)
            if machine is not None:
                found.append(machine)
        return found

    async def _explained(self, machine: Machine, version: int) -> Machine:
        """A machine that stands still although nobody stopped it: whether its start failed, and why."""
        key = (machine.id, version)
        if key not in self._reasons:
            from nebius.api.nebius.common.v1 import ListOperationsRequest
            from nebius.api.nebius.compute.v1 import InstanceServiceClient

            request = ListOperationsRequest(resource_id=machine.id, page_size=_PAGE)
            reply = await self._account.ask(
                lambda sdk: InstanceServiceClient(sdk).operation_service().list(request, **LIMITS)
            )
            latest = max(reply.operations, key=lambda each: str(each.created_at), default=None)
            status = latest.status if latest is not None else None
            failed = status is not None and code_of(status) != "OK"
            self._reasons[key] = error_of(whole(status), machine.kind) if failed else None
        error = self._reasons[key]
        if error is None:
            return machine
        return msgspec.structs.replace(
            machine, state=MachineState.FAILED, stays=True, said=str(error), error=error
        )

    async def delete(self, machine: Machine) -> None:
        from nebius.api.nebius.compute.v1 import DeleteInstanceRequest

        request = DeleteInstanceRequest(id=machine.id)
        await self._act(lambda service: service.delete(request, **LIMITS), gone_is_fine=True)

    async def stop(self, machine: Machine) -> None:
        from nebius.api.nebius.compute.v1 import StopInstanceRequest

        request = StopInstanceRequest(id=machine.id)
        await self._act(lambda service: service.stop(request, **LIMITS))

    async def start(self, machine: Machine) -> None:
        from nebius.api.nebius.compute.v1 import StartInstanceRequest

        request = StartInstanceRequest(id=machine.id)
        operation = await self._act(lambda service: service.start(request, **LIMITS))
        await self._told(operation, f"{machine.kind} in {machine.region}")

    async def _act(self, call: Callable[[Any], Any], *, gone_is_fine: bool = False) -> Any:
        from nebius.aio.service_error import RequestError
        from nebius.api.nebius.compute.v1 import InstanceServiceClient

        async def tried(sdk: Any) -> Any:
            try:
                return await call(InstanceServiceClient(sdk))
            except RequestError as error:
                if gone_is_fine and code_of(error.status) == "NOT_FOUND":
                    return None
                raise

        return await self._account.ask(tried)

    async def close(self) -> None:
        await self._account.close()

"""Nebius on this machine: gRPC in the vendor's own messages, with projects, subnets, machines, operations,
GPU clusters and advice on capacity.

Needs the `nebius` extra. Lists are paged by two. Strict: names, labels, disks, subnets, presets and prices of
preemptible machines are checked as the API does.
"""

from __future__ import annotations

import re
import threading
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime
from typing import Any, Final, Self

import msgspec

from argosy.testing.fake_cloud import Answer, Ask, FakeCloud, FakeMachine, OverQuota, Shortage

TOKEN: Final = "fake.iam-t0ken-of-the-fake"
_PAGE: Final = 2
_NAME: Final = re.compile(r"[a-z]([-a-z0-9]{0,61}[a-z0-9])?")
_LABEL: Final = re.compile(r"[A-Za-z0-9]([-A-Za-z0-9_./]{0,61}[A-Za-z0-9])?")
_CODES: Final = {400: 3, 401: 16, 403: 7, 404: 5, 409: 6, 429: 8, 500: 13, 503: 14}
_STATES: Final = {
    "starting": "STARTING",
    "running": "RUNNING",
    "stopping": "STOPPING",
    "stopped": "STOPPED",
    "preempted": "STOPPED",
    "ending": "DELETING",
    "failed": "STOPPED",
}


class Preset(msgspec.Struct, frozen=True, kw_only=True):
    vcpus: int
    memory_gib: int
    gpus: int = 0
    fabrics: tuple[str, ...] = ()


class FakeGrpc(FakeCloud):
    """A fake cloud that is asked by gRPC: `url` is `host:port`."""

    def error(self, status: int, code: str, text: str, field: str = "") -> Answer:
        return Answer(status, {"text": text, "field": field, "detail": ""})

    def shortage(self, text: str) -> Answer:
        return Answer(429, {"text": "Not enough resources", "field": text, "detail": "not_enough_resources"})

    def over_quota(self, limit: str) -> Answer:
        return Answer(429, {"text": "Quota limit exceeded", "field": limit, "detail": "quota_failure"})

    def reset(self) -> None:
        if not self.keeps:
            self.by_key: dict[str, Any] = {}  # idempotency key -> reply
        super().reset()

    def rows(self) -> list[tuple[str, str, Any, Any]]:
        """(service, method, type of its request, handler)"""
        raise NotImplementedError

    def __enter__(self) -> Self:
        import grpc

        self._rpc = grpc.server(ThreadPoolExecutor(8))
        self._rpc.add_generic_rpc_handlers(self._services())
        self.url = f"127.0.0.1:{self._rpc.add_insecure_port('127.0.0.1:0')}"
        self._rpc.start()
        return self

    def __exit__(self, *error: object) -> None:
        self._rpc.stop(None)
        self.reset()

    def _services(self) -> tuple[Any, ...]:
        import grpc

        methods: dict[str, dict[str, Any]] = {}
        for service, name, kind, handler in self.rows():
            methods.setdefault(f"nebius.{service}", {})[name] = self._method(kind, handler)
        return tuple(grpc.method_handlers_generic_handler(name, each) for name, each in methods.items())

    def _method(self, kind: Any, handler: Any) -> Any:
        import grpc

        def act(request: Any, context: Any) -> Any:
            meta = {key: str(value) for key, value in context.invocation_metadata()}
            reply = self._reply(handler, request, meta)
            gone = threading.Event()
            context.add_callback(gone.set)
            if self.hangs() or reply is None:
                gone.wait(20 if reply is not None else 0)
                context.abort(grpc.StatusCode.UNAVAILABLE, "the connection was reset")
            if isinstance(reply, Answer):
                context.abort_with_status(_status_of(reply))
            return reply

        return grpc.unary_unary_rpc_method_handler(
            act,
            request_deserializer=kind.FromString,
            response_serializer=lambda reply: reply.SerializeToString(),
        )

    def _reply(self, handler: Any, request: Any, meta: dict[str, str]) -> Any:
        """The answer; None: it does not arrive."""
        name, key = handler.__name__, meta.get("x-idempotency-key", "")
        with self.lock:
            if self.pages > 0:
                self.pages -= 1
                return Answer(502, {"text": "Received http2 header with status: 302", "field": ""})
            try:
                if self.expired or meta.get("authorization") != f"Bearer {TOKEN}":
                    raise self.error(401, "unauthorized", "the token is not valid")
                for handled, answer in self.refusals:
                    if handled in ("", name):
                        self.refusals.remove((handled, answer))
                        raise answer
                self.calls.append((name, Ask({}, {}, meta, request)))
                reply = self.by_key.get(key) if key else None
                if reply is None:
                    reply = handler(request)
                    self.by_key[key] = reply
            except Answer as refusal:
                reply = refusal
            except Shortage as shortage:
                reply = self.shortage(str(shortage))
            except OverQuota as quota:
                reply = self.over_quota(str(quota))
            if name in self.lost:
                self.lost.remove(name)
                return None
            return reply


class FakePlaces(FakeGrpc):
    """What an account has before it orders anything."""

    def begin(self) -> None:
        self.projects = {"project-e00": ("default-project-eu-north1", "eu-north1")}
        self.presets = {
            "cpu-d3_4vcpu-16gb": Preset(vcpus=4, memory_gib=16),
            "gpu-h100-sxm_1gpu-16vcpu-200gb": Preset(vcpus=16, memory_gib=200, gpus=1),
            "gpu-h100-sxm_8gpu-128vcpu-1600gb": Preset(
                vcpus=128, memory_gib=1600, gpus=8, fabrics=("fabric-3", "fabric-4")
            ),
        }
        self.advised: dict[tuple[str, str], int] = {}  # (type, fabric) -> free

    def environ(self) -> dict[str, str]:
        return {"NEBIUS_IAM_TOKEN": TOKEN, "ARGOSY_NEBIUS_ENDPOINT": self.url, "HOME": "/nonexistent"}

    def list_tenants(self, request: Any) -> Any:
        from nebius.api.nebius.common.v1 import ResourceMetadata
        from nebius.api.nebius.iam.v2 import ListTenantsResponse, Tenant

        return ListTenantsResponse(items=[Tenant(metadata=ResourceMetadata(id="tenant-e00"))])

    def list_projects(self, request: Any) -> Any:
        from nebius.api.nebius.common.v1 import ResourceMetadata
        from nebius.api.nebius.iam.v2 import ListProjectsResponse, Project, ProjectSpec

        every = [
            Project(metadata=ResourceMetadata(id=id, name=name), spec=ProjectSpec(region=region))
            for id, (name, region) in self.projects.items()
        ]
        return _page(every, request, ListProjectsResponse)

    def list_subnets(self, request: Any) -> Any:
        from nebius.api.nebius.common.v1 import ResourceMetadata
        from nebius.api.nebius.vpc.v1 import ListSubnetsResponse, Subnet

        names = ("lab", "other", "default-subnet-abc")
        every = [Subnet(metadata=ResourceMetadata(id=f"vpcsubnet-{each}", name=each)) for each in names]
        return _page(every, request, ListSubnetsResponse)

    def advise(self, request: Any) -> Any:
        from nebius.api.nebius.capacity import v1 as capacity

        status = capacity.ResourceAdviceStatus
        levels = status.Availability.AvailabilityLevel
        items = []
        for kind, preset in self.presets.items():
            platform, _, name = kind.partition("_")
            for fabric in preset.fabrics or ("",):
                free = self.advised.get((kind, fabric), self.capacity.get((kind, ""), 4))
                level = levels.AVAILABILITY_LEVEL_HIGH if free else levels.AVAILABILITY_LEVEL_LOW
                if self.quota == 0:
                    level, free = levels.AVAILABILITY_LEVEL_LIMIT_REACHED, 0
                told = status.Availability(
                    data_state=status.Availability.DataState.DATA_STATE_FRESH,
                    available=free,
                    limit=self.quota or 0,
                    availability_level=level,
                )
                sizes = capacity.ComputeInstanceDetails.Preset.Resources(
                    vcpu_count=preset.vcpus, memory_gibibytes=preset.memory_gib, gpu_count=preset.gpus
                )
                spec = capacity.ResourceAdviceSpec(
                    region="eu-north1",
                    fabric=fabric,
                    compute_instance=capacity.ComputeInstanceDetails(
                        platform=platform,
                        preset=capacity.ComputeInstanceDetails.Preset(name=name, resources=sizes),
                    ),
                )
                items.append(
                    capacity.ResourceAdvice(spec=spec, status=status(on_demand=told, preemptible=told))
                )
        return _page(items, request, capacity.ListResourceAdviceResponse)


class FakeNebiusCloud(FakePlaces):
    """`late`: types whose shortage is told by the operation, not by the order."""

    def begin(self) -> None:
        super().begin()
        self.late: set[str] = set()
        self.clusters: dict[str, Any] = {}  # by id
        self.operations: dict[str, list[Any]] = {}  # by resource

    def rows(self) -> list[tuple[str, str, Any, Any]]:
        from nebius.api.nebius.capacity import v1 as capacity
        from nebius.api.nebius.common import v1 as common
        from nebius.api.nebius.compute import v1 as compute
        from nebius.api.nebius.iam import v2 as iam
        from nebius.api.nebius.vpc import v1 as vpc

        return [
            ("iam.v2.TenantService", "List", iam.ListTenantsRequest, self.list_tenants),
            ("iam.v2.ProjectService", "List", iam.ListProjectsRequest, self.list_projects),
            ("vpc.v1.SubnetService", "List", vpc.ListSubnetsRequest, self.list_subnets),
            ("capacity.v1.ResourceAdviceService", "List", capacity.ListResourceAdviceRequest, self.advise),
            ("compute.v1.InstanceService", "Create", compute.CreateInstanceRequest, self.create),
            ("compute.v1.InstanceService", "GetByName", common.GetByNameRequest, self.get_by_name),
            ("compute.v1.InstanceService", "List", compute.ListInstancesRequest, self.list_instances),
            ("compute.v1.InstanceService", "Delete", compute.DeleteInstanceRequest, self.delete),
            ("compute.v1.InstanceService", "Stop", compute.StopInstanceRequest, self.stop),
            ("compute.v1.InstanceService", "Start", compute.StartInstanceRequest, self.start),
            ("compute.v1.GpuClusterService", "Create", compute.CreateGpuClusterRequest, self.create_cluster),
            ("compute.v1.GpuClusterService", "GetByName", common.GetByNameRequest, self.cluster_by_name),
            ("compute.v1.GpuClusterService", "Delete", compute.DeleteGpuClusterRequest, self.delete_cluster),
            ("common.v1.OperationService", "Get", common.GetOperationRequest, self.get_operation),
            ("common.v1.OperationService", "List", common.ListOperationsRequest, self.list_operations),
        ]

    # -- machines -------------------------------------------------------------------------------------------

    def new_id(self, number: int) -> str:
        return f"computeinstance-e00{number:06x}"

    def _check(self, request: Any) -> None:
        told, spec = request.metadata, request.spec
        if told.parent_id not in self.projects:
            raise self.error(403, "forbidden", "Permission denied")
        if not _NAME.fullmatch(told.name):
            raise self.error(400, "invalid", "must be a DNS label", "metadata.name")
        for key, value in told.labels.items():
            if not _LABEL.fullmatch(key) or (value and not _LABEL.fullmatch(value)):
                raise self.error(400, "invalid", f"the label {key} is not valid", "metadata.labels")
        if f"{spec.resources.platform}_{spec.resources.preset}" not in self.presets:
            raise self.error(400, "invalid", "unknown preset", "spec.resources.preset")
        disk = spec.boot_disk.managed_disk
        if disk is None or not disk.name or not disk.spec.size_gibibytes:
            raise self.error(400, "invalid", "a boot disk is needed", "spec.boot_disk")
        step = disk.spec.size_gibibytes % 93
        if disk.spec.type.name in ("NETWORK_SSD_IO_M3", "NETWORK_SSD_NON_REPLICATED") and step:
            raise self.error(400, "invalid", "must be a multiple of 93 GiB", "spec.boot_disk.size")
        cards = spec.network_interfaces
        if len(cards) != 1 or not cards[0].subnet_id.startswith("vpcsubnet-"):
            raise self.error(400, "invalid", "one interface in a subnet", "spec.network_interfaces")
        if not cards[0].check_presence("ip_address"):
            raise self.error(400, "invalid", "is required", "spec.network_interfaces[0].ip_address")
        if len(spec.cloud_init_user_data) > 32 * 1024:
            raise self.error(400, "invalid", "longer than 32 KiB", "spec.cloud_init_user_data")
        spot = spec.check_presence("preemptible")
        if spot and not spec.resources.platform.startswith("gpu-"):
            raise self.error(400, "invalid", "the platform has no preemptible VMs", "spec.preemptible")
        if spot and spec.pricing_model is None:
            raise self.error(400, "invalid", "a preemptible VM needs one", "spec.pricing_model")
        if spec.gpu_cluster.id and spec.gpu_cluster.id not in self.clusters:
            raise self.error(404, "not-found", "there is no such GPU cluster")

    def create(self, request: Any) -> Any:
        self._check(request)
        told, spec = request.metadata, request.spec
        if self._by_name(told.parent_id, told.name) is not None:
            raise self.error(409, "exists", f"{told.name} already exists")
        kind, why = f"{spec.resources.platform}_{spec.resources.preset}", None
        saved = self.capacity.get((kind, ""))
        if kind in self.late:
            self.capacity.pop((kind, ""), None)
        made = self.order(
            name=told.name,
            kind=kind,
            region=self.projects[told.parent_id][1],
            labels=dict(told.labels),
            user_data=spec.cloud_init_user_data.encode(),
            spot=spec.check_presence("preemptible"),
            extra={"spec": spec, "parent": told.parent_id, "stopped": False},
        )
        if kind in self.late and saved is not None:
            self.capacity[(kind, "")] = saved
            if len([each for each in self.machines() if each.kind == kind]) > saved:
                why = self.shortage(kind)
                self._power_off(made)
                made.state, made.due = "failed", None
        return self._operation(made.id, why)

    def list_instances(self, request: Any) -> Any:
        from nebius.api.nebius.compute.v1 import ListInstancesResponse

        shown = [each for each in self.shown() if each.extra.get("parent") == request.parent_id]
        return _page([self._told(each) for each in shown], request, ListInstancesResponse)

    def get_by_name(self, request: Any) -> Any:
        found = self._by_name(request.parent_id, request.name)
        if found is None:
            raise self.error(404, "not-found", f"there is no {request.name}")
        return self._told(found)

    def delete(self, request: Any) -> Any:
        machine = self._found(request.id)
        if machine.state in ("preempted", "failed"):
            machine.state = "stopped"
        self.end(machine)
        for each in self.clusters.values():
            each.status.instances = [id for id in each.status.instances if id != machine.id]
        return self._operation(machine.id)

    def stop(self, request: Any) -> Any:
        machine = self._found(request.id)
        machine.extra["stopped"] = True
        self.rest(machine)
        return self._operation(machine.id)

    def start(self, request: Any) -> Any:
        machine = self._found(request.id)
        machine.extra["stopped"] = False
        self.wake(machine)
        return self._operation(machine.id)

    def _found(self, id: str) -> FakeMachine:
        machine = self.find(id)
        if machine is None:
            raise self.error(404, "not-found", f"there is no {id}")
        return machine

    def _by_name(self, parent: str, name: str) -> FakeMachine | None:
        self.settle()
        alive = [each for each in self.made.values() if each.state != "ended"]
        return next((x for x in alive if x.name == name and x.extra.get("parent") == parent), None)

    def _told(self, machine: FakeMachine) -> Any:
        from nebius.api.nebius.common.v1 import ResourceMetadata
        from nebius.api.nebius.compute import v1 as compute

        spec = compute.InstanceSpec(machine.extra.get("spec") or compute.InstanceSpec())
        spec.stopped = bool(machine.extra.get("stopped"))
        booting = machine.state == "starting"
        card = compute.NetworkInterfaceStatus(name="eth0")
        if machine.state == "running" and machine.ip:
            card.public_ip_address = compute.PublicIPAddressStatus(address=f"{machine.ip}/32")
            card.ip_address = compute.IPAddressStatus(address=f"{machine.ip}/32")
        # A fresh machine is first listed as stopped.
        state = "STOPPED" if booting and self.now() == machine.created_s else _STATES[machine.state]
        return compute.Instance(
            metadata=ResourceMetadata(
                id=machine.id,
                parent_id=str(machine.extra.get("parent", "")),
                name=machine.name,
                labels=machine.labels,
                created_at=datetime.fromtimestamp(machine.created_s, UTC),
                resource_version=1,
            ),
            spec=spec,
            status=compute.InstanceStatus(
                state=compute.InstanceStatus.InstanceState[state],
                reconciling=booting,
                network_interfaces=[card],
            ),
        )

    # -- GPU clusters, operations ---------------------------------------------------------------------------

    def create_cluster(self, request: Any) -> Any:
        from nebius.api.nebius.common.v1 import ResourceMetadata
        from nebius.api.nebius.compute.v1 import GpuCluster, GpuClusterStatus

        fabrics = {fabric for preset in self.presets.values() for fabric in preset.fabrics}
        if request.spec.infiniband_fabric not in fabrics:
            raise self.error(400, "invalid", "there is no such fabric", "spec.infiniband_fabric")
        if any(each.metadata.name == request.metadata.name for each in self.clusters.values()):
            raise self.error(409, "exists", f"{request.metadata.name} already exists")
        id = f"computegpucluster-e00{len(self.operations):04x}"
        told = request.metadata
        self.clusters[id] = GpuCluster(
            metadata=ResourceMetadata(id=id, parent_id=told.parent_id, name=told.name, labels=told.labels),
            spec=request.spec,
            status=GpuClusterStatus(),
        )
        return self._operation(id)

    def cluster_by_name(self, request: Any) -> Any:
        for each in self.clusters.values():
            if (each.metadata.parent_id, each.metadata.name) == (request.parent_id, request.name):
                self.settle()
                members = [x for x in self.made.values() if x.state != "ended" and x.extra.get("spec")]
                ids = [x.id for x in members if x.extra["spec"].gpu_cluster.id == each.metadata.id]
                each.status.instances = ids
                return each
        raise self.error(404, "not-found", f"there is no {request.name}")

    def delete_cluster(self, request: Any) -> Any:
        found = self.clusters.get(request.id)
        if found is None:
            raise self.error(404, "not-found", f"there is no {request.id}")
        if found.status.instances:
            raise self.error(400, "invalid", "the GPU cluster has instances")
        del self.clusters[request.id]
        return self._operation(request.id)

    def _operation(self, resource: str, why: Answer | None = None) -> Any:
        from nebius.api.google.rpc import Status
        from nebius.api.nebius.common.v1 import Operation

        when = datetime.fromtimestamp(self.now(), UTC)
        made = Operation(
            id=f"computeoperation-e00{sum(map(len, self.operations.values())):05x}",
            resource_id=resource,
            created_at=when,
            finished_at=when,
            status=Status(code=0) if why is None else _rpc_status(why),
        )
        self.operations.setdefault(resource, []).append(made)
        return made

    def get_operation(self, request: Any) -> Any:
        for each in (op for made in self.operations.values() for op in made):
            if each.id == request.id:
                return each
        raise self.error(404, "not-found", f"there is no {request.id}")

    def list_operations(self, request: Any) -> Any:
        from nebius.api.nebius.common.v1 import ListOperationsResponse

        return ListOperationsResponse(operations=self.operations.get(request.resource_id, []))


def _page(every: list[Any], request: Any, kind: Any) -> Any:
    start = int(request.page_token or 0)
    more = str(start + _PAGE) if start + _PAGE < len(every) else ""
    return kind(items=every[start : start + _PAGE], next_page_token=more)


def _rpc_status(answer: Answer) -> Any:
    """The vendor's status of a refusal, with its details."""
    from nebius.api.nebius.common import v1 as common
    from nebius.base._service_error import pbrpc_status_of_errors

    told: Any = answer.body
    code = 2 if "http2" in told["text"] else _CODES.get(answer.status, 2)
    error = common.ServiceError(service="compute", code=told.get("detail") or "Refused")
    match told.get("detail"):
        case "not_enough_resources":
            violation = common.NotEnoughResources.Violation(
                resource_type=told["field"], message=f"no {told['field']} left", requested="1"
            )
            error.not_enough_resources = common.NotEnoughResources(violations=[violation])
        case "quota_failure":
            broken = common.QuotaFailure.Violation(
                quota="compute.instance.count", limit=told["field"], requested="1", message=told["text"]
            )
            error.quota_failure = common.QuotaFailure(violations=[broken])
        case _ if answer.status == 429:
            error.too_many_requests = common.TooManyRequests(violation=told["text"])
        case _ if told["field"]:
            wrong = common.BadRequest.Violation(field=told["field"], message=told["text"])
            error.bad_request = common.BadRequest(violations=[wrong])
        case _:
            return pbrpc_status_of_errors(code, told["text"], [])
    return pbrpc_status_of_errors(code, told["text"], error)


def _status_of(answer: Answer) -> Any:
    from nebius.base._service_error import _Status, _status_code

    status = _rpc_status(answer)
    return _Status(
        code=_status_code(status.code),
        details=status.message,
        trailing_metadata=(("grpc-status-details-bin", status.SerializeToString()),),
    )

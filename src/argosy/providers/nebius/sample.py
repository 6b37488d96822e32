"""Nebius on one local port: tenants, projects, platforms and the billing calculator, in gRPC with the
vendor's own messages.

Needs the `nebius` extra. Lists are paged by two.
"""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from typing import Any

import msgspec

_PAGE = 2


class Preset(msgspec.Struct, frozen=True, kw_only=True):
    name: str
    vcpus: int
    memory_gib: int
    gpus: int = 0
    usd: str = "1.00"
    spot_usd: str = ""  # "": cannot be had as preemptible


class Platform(msgspec.Struct, frozen=True, kw_only=True):
    name: str
    presets: tuple[Preset, ...]
    gpu_memory_gb: int = 0


class FakeNebius:
    """`with FakeNebius() as service: ... service.address`. `regions` has the platforms of each; every region
    has one project.

    `token` is what lets in; `failing` is the name of a gRPC status that every call ends with; `asked` counts
    calls.
    """

    def __init__(self) -> None:
        self.regions: dict[str, list[Platform]] = {}
        self.token = "t0ken"
        self.failing = ""
        self.asked = 0
        self._server: Any = None
        self.address = ""

    def __enter__(self) -> FakeNebius:
        import grpc

        self._server = grpc.server(ThreadPoolExecutor(4))
        self._server.add_generic_rpc_handlers(self._handlers())
        port = self._server.add_insecure_port("127.0.0.1:0")
        self.address = f"127.0.0.1:{port}"
        self._server.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._server.stop(None).wait()

    def _handlers(self) -> tuple[Any, ...]:
        import grpc
        from nebius.api.nebius.billing.v1alpha1 import EstimateRequest
        from nebius.api.nebius.compute.v1 import ListPlatformsRequest
        from nebius.api.nebius.iam.v2 import ListProjectsRequest, ListTenantsRequest

        def served(kind: Any, answer: Any) -> Any:
            def act(request: Any, context: Any) -> Any:
                self.asked += 1
                sent = dict(context.invocation_metadata()).get("authorization")
                if sent != f"Bearer {self.token}":
                    context.abort(grpc.StatusCode.UNAUTHENTICATED, "the token is not known")
                if self.failing:
                    context.abort(grpc.StatusCode[self.failing], "as asked")
                return answer(request, context)

            return grpc.unary_unary_rpc_method_handler(
                act,
                request_deserializer=kind.FromString,
                response_serializer=lambda reply: reply.SerializeToString(),
            )

        return (
            grpc.method_handlers_generic_handler(
                "nebius.iam.v2.TenantService", {"List": served(ListTenantsRequest, self._tenants)}
            ),
            grpc.method_handlers_generic_handler(
                "nebius.iam.v2.ProjectService", {"List": served(ListProjectsRequest, self._projects)}
            ),
            grpc.method_handlers_generic_handler(
                "nebius.compute.v1.PlatformService", {"List": served(ListPlatformsRequest, self._platforms)}
            ),
            grpc.method_handlers_generic_handler(
                "nebius.billing.v1alpha1.CalculatorService",
                {"Estimate": served(EstimateRequest, self._estimate)},
            ),
        )

    def _tenants(self, request: Any, context: Any) -> Any:
        from nebius.api.nebius.common.v1 import ResourceMetadata
        from nebius.api.nebius.iam.v2 import ListTenantsResponse, Tenant

        return ListTenantsResponse(items=[Tenant(metadata=ResourceMetadata(id="tenant-1", name="us"))])

    def _projects(self, request: Any, context: Any) -> Any:
        from nebius.api.nebius.common.v1 import ResourceMetadata
        from nebius.api.nebius.iam.v2 import ListProjectsResponse, Project, ProjectSpec

        every = [
            Project(metadata=ResourceMetadata(id=f"project-{region}"), spec=ProjectSpec(region=region))
            for region in sorted(self.regions)
        ]
        items, more = _page(every if request.parent_id == "tenant-1" else [], request.page_token)
        return ListProjectsResponse(items=items, next_page_token=more)

    def _platforms(self, request: Any, context: Any) -> Any:
        from nebius.api.nebius.common.v1 import ResourceMetadata
        from nebius.api.nebius.compute.v1 import ListPlatformsResponse, PlatformSpec, PresetResources
        from nebius.api.nebius.compute.v1 import Platform as Told
        from nebius.api.nebius.compute.v1 import Preset as ToldPreset

        every = [
            Told(
                metadata=ResourceMetadata(name=platform.name),
                spec=PlatformSpec(
                    gpu_memory_gigabytes=platform.gpu_memory_gb,
                    presets=[
                        ToldPreset(
                            name=preset.name,
                            resources=PresetResources(
                                vcpu_count=preset.vcpus,
                                memory_gibibytes=preset.memory_gib,
                                gpu_count=preset.gpus,
                            ),
                        )
                        for preset in platform.presets
                    ],
                ),
            )
            for platform in self.regions[request.parent_id.removeprefix("project-")]
        ]
        items, more = _page(every, request.page_token)
        return ListPlatformsResponse(items=items, next_page_token=more)

    def _estimate(self, request: Any, context: Any) -> Any:
        import grpc
        from nebius.api.nebius.billing.v1alpha1 import (
            CostBreakdown,
            EstimateResponse,
            GeneralTotalCost,
            ResourceGroupCost,
        )

        order = request.resource_spec.compute_instance_spec
        wanted = order.spec.resources
        spot = order.spec.HasField("preemptible")
        for platform in self.regions[order.metadata.parent_id.removeprefix("project-")]:
            for preset in platform.presets:
                if (platform.name, preset.name) == (wanted.platform, wanted.preset):
                    usd = preset.spot_usd if spot else preset.usd
                    if not usd:
                        context.abort(grpc.StatusCode.INVALID_ARGUMENT, "it cannot be preemptible")
                    total = GeneralTotalCost(total=CostBreakdown(cost=usd, cost_rounded=usd))
                    return EstimateResponse(hourly_cost=ResourceGroupCost(general=total))
        context.abort(grpc.StatusCode.NOT_FOUND, "there is no such preset")
        raise AssertionError("abort raises")


def _page(every: list[Any], token: str) -> tuple[list[Any], str]:
    start = int(token or 0)
    more = start + _PAGE
    return every[start:more], str(more) if more < len(every) else ""

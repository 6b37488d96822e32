"""What the fake server answers about prices: two clouds, one of them estimated, one old."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

import msgspec

from argosy.api.planning import (
    MoveView,
    OfferView,
    PipelineReply,
    PipelineRequest,
    PlanReply,
    PlanRequest,
    StageView,
)
from argosy.api.prices import CatalogAge, GpuList, ModelView, RefreshReply, RegionList
from argosy.model.errors import ArgosyError
from argosy.model.offer import Offer, Rejection
from argosy.model.priced import CompareView, GpuView, PriceView, RegionView
from argosy.model.units import GIB

STALE: Final = "prices of aws are 125 days old (2026-07-20); `argosy catalog refresh aws` gets present ones"
_ON_DEMAND: Final = PriceView(micro_usd=21_957_640, region="us-east-2", as_of="2026-07-14")
_SPOT: Final = PriceView(
    micro_usd=5_164_300, region="ca-central-1", zone="cac1-az2", estimated=True, as_of="2026-07-14"
)
_MACHINE: Final = GpuView(
    accelerator="A100",
    accelerators_milli=8000,
    device_memory_bytes=40 * GIB,
    provider="aws",
    instance_type="p4d.24xlarge",
    cpus_milli=96_000,
    memory_bytes=1152 * GIB,
    arch="x86_64",
    vendor="NVIDIA",
    on_demand=_ON_DEMAND,
    spot=_SPOT,
    regions=("ca-central-1", "us-east-2"),
)
_MODELS: Final = (
    ModelView(
        accelerator="A100",
        device_memory_bytes=40 * GIB,
        vendor="NVIDIA",
        counts_milli=(1000, 8000),
        providers=("aws", "lambda"),
        on_demand=PriceView(micro_usd=1_990_000, provider="lambda", region="us-west-1"),
        spot=PriceView(micro_usd=645_537, provider="aws", region="ca-central-1", estimated=True),
    ),
    ModelView(accelerator="H100", device_memory_bytes=80 * GIB, counts_milli=(8000,), providers=("aws",)),
)
REGIONS: Final = RegionList(
    regions=(
        RegionView(
            provider="aws",
            region="eu-west-1",
            city="Dublin",
            country="IE",
            continent="Europe",
            areas=("eu", "eea"),
            zones=("euw1-az1", "euw1-az2"),
            accelerators=("A100", "T4"),
            offers=1200,
        ),
        RegionView(provider="aws", region="us-gov-west-1", country="US", offers=3),
    )
)
AGES: Final = (
    CatalogAge(
        provider="aws",
        offers=25_605,
        source="shipped",
        newest="2026-07-20",
        oldest="2025-03-02",
        days=125,
        stale=True,
        refreshable=True,
    ),
    CatalogAge(provider="vast", offers=312, source="refreshed", undated=12, stale=True, refreshable=True),
    CatalogAge(provider="scp", offers=40, source="private", newest="2026-11-20", oldest="2026-11-20", days=1),
)


_NOT_IN_USE = (
    "p4d.24xlarge in ca-central-1 fits at $5.16/h, but aws is not in use on this server: "
    "`argosy check aws` says what it needs"
)


def gpus(query: Mapping[str, str], own: Offer) -> GpuList:
    model = query.get("gpu", "").partition(":")[0]
    if model not in ("", "A100"):
        raise ArgosyError(
            "no-offer",
            f"there is no accelerator `{model}`",
            hint="the nearest are `H100` (80 GB), `H200` (141 GB)",
        )
    offers = () if "spot" in query or query.get("infra", "local") != "local" else (own,)
    if not model and "all" not in query and "cheapest" not in query:
        return GpuList(offers=offers, models=_MODELS, notes=(STALE,))
    return GpuList(
        offers=offers, gpus=(_MACHINE,) if query.get("infra", "aws") == "aws" else (), notes=(STALE,)
    )


def refreshing(provider: str, after: int) -> RefreshReply:
    """A refresh that is done when it was looked at twice."""
    if after < 2:
        return RefreshReply(provider=provider, state="running", progress="12 answers", step=after + 1)
    return RefreshReply(provider=provider, before=100, after=120, skipped=3, step=after + 1)


def pipeline(request: PipelineRequest) -> PipelineReply:
    """Stages alternate between two clouds; what each makes costs $0.09 a GB to hand on."""
    stages, moves = [], []
    places = [("aws", "ca-central-1"), ("lambda", "us-east-1")]
    for number, task in enumerate(request.tasks):
        provider, region = places[number % 2]
        seconds = task.estimated_s or 3600
        cost = _SPOT.micro_usd * task.num_nodes * seconds // 3600
        name = task.name or f"task {number + 1}"
        size = sum(each.size_bytes for each in task.outputs) if number + 1 < len(request.tasks) else 0
        if size:
            moves.append(
                MoveView(
                    src=name,
                    dst=request.tasks[number + 1].name or f"task {number + 2}",
                    src_place=f"{provider}/{region}",
                    dst_place="/".join(places[(number + 1) % 2]),
                    size_bytes=size,
                    cost_micro_usd=size * 90_000 // GIB,
                )
            )
        stages.append(
            StageView(
                name=name,
                offer=OfferView(
                    provider=provider,
                    region=region,
                    capacity="on-demand",
                    instance_type="p4d.24xlarge",
                    accelerator="A100",
                    accelerators_milli=8000,
                    price=_SPOT,
                    hourly_micro_usd=_SPOT.micro_usd * task.num_nodes,
                    runtime_s=seconds,
                    basis="estimate" if task.estimated_s else "assumed",
                    total_micro_usd=cost,
                ),
                num_nodes=task.num_nodes,
                cost_micro_usd=cost,
                egress_micro_usd=size * 90_000 // GIB,
            )
        )
    traffic = sum(move.cost_micro_usd for move in moves)
    total = sum(stage.cost_micro_usd for stage in stages) + traffic
    return PipelineReply(
        stages=tuple(stages),
        moves=tuple(moves),
        cost_micro_usd=total,
        egress_micro_usd=traffic,
        makespan_s=sum(stage.offer.runtime_s or 0 for stage in stages),
        alone_micro_usd=total,
        method="tree",
        reasons=("every stage is at its own cheapest place",),
        notes=(STALE,),
    )


def with_prices(reply: PlanReply, request: PlanRequest) -> PlanReply:
    """The plan with one cloud that is not in use; the runtime is what the user said."""
    seconds = request.task.estimated_s

    def total(micro_usd: int) -> int | None:
        return micro_usd * seconds // 3600 if seconds is not None else None

    own = [
        OfferView(
            provider=choice.offer.provider,
            capacity=choice.offer.capacity.value,
            instance_type=choice.offer.shape.instance_type,
            cpus_milli=choice.offer.shape.cpus_milli,
            memory_bytes=choice.offer.shape.memory_bytes,
            price=PriceView(micro_usd=0),
            runtime_s=seconds,
            total_micro_usd=total(0),
            launchable=True,
        )
        for choice in reply.plan.choices
    ]
    hourly = _SPOT.micro_usd * request.task.num_nodes
    cloud = OfferView(
        provider="aws",
        region="ca-central-1",
        zone="cac1-az2",
        capacity="spot",
        instance_type="p4d.24xlarge",
        accelerator="A100",
        accelerators_milli=8000,
        cpus_milli=96_000,
        memory_bytes=1152 * GIB,
        price=_SPOT,
        hourly_micro_usd=hourly,
        runtime_s=seconds,
        total_micro_usd=total(hourly),
        interrupted_pct_low=5,
        interrupted_pct_high=10,
        source="spot price history",
        rule="region ratio",
    )
    refused = Rejection(provider="aws", code="not-in-use", text=_NOT_IN_USE)
    compared = (
        CompareView(
            kind="owned", place="local", instance_type="this machine", num_nodes=1, price_micro_usd=0
        ),
        CompareView(
            kind="spot",
            place="aws/ca-central-1/cac1-az2",
            instance_type="p4d.24xlarge",
            num_nodes=1,
            price_micro_usd=5_164_300,
            estimated=True,
            total_micro_usd=total(5_164_300),
            losses=0.5 if seconds else None,
            against_on_demand=0.77,
        ),
    )
    plan = msgspec.structs.replace(reply.plan, rejected=(*reply.plan.rejected, refused))
    return msgspec.structs.replace(
        reply,
        plan=plan,
        offers=(*own, cloud)[: request.limit],
        fitting=len(own) + 14,
        text="local this machine (owned): $0/h; next is aws p4d.24xlarge (spot) at $5.16/h",
        compared=compared if request.compare else (),
        page="<!doctype html>\n<html></html>\n" if request.html else "",
        notes=(STALE,),
    )

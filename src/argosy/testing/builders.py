"""Valid rows and values with one word each: `a_job(phase=...)` is a job in which only what matters is written
down.

Every builder takes the fields of its type as keyword arguments and fills in the rest.
"""

from __future__ import annotations

import itertools
from typing import Any, TypeVar

import msgspec

from argosy.model.facts import Device, NodeFacts
from argosy.model.ids import make_id
from argosy.model.kinds.cluster import ClusterSpec, ClusterStatus
from argosy.model.kinds.job import JobSpec, JobStatus
from argosy.model.offer import Capacity, Choice, Offer, Placement, Shape
from argosy.model.resources import Accelerator, Resources
from argosy.model.rows import Attempt, Claim, Node, Workload
from argosy.model.task import Task
from argosy.model.units import GIB
from argosy.testing.virtual_time import EPOCH_MS

S = TypeVar("S", bound=msgspec.Struct)
_count = itertools.count(1)


def an_id(prefix: str) -> str:
    """A fresh id; rising within a process."""
    return make_id(prefix, EPOCH_MS, next(_count))


# Any below: builders pass fields on to the constructor, which is where a wrong name fails.
def changed(value: S, **fields: Any) -> S:
    """The value with other fields; those that a workload's spec or status has go there."""
    if isinstance(value, Workload):
        for part in ("spec", "status"):
            owned: msgspec.Struct = fields.pop(part, getattr(value, part))
            mine = {name: fields.pop(name) for name in owned.__struct_fields__ if name in fields}
            fields[part] = msgspec.structs.replace(owned, **mine)
    return msgspec.structs.replace(value, **fields) if fields else value


def _with(value: S, fields: dict[str, Any]) -> S:
    return changed(value, **fields)


def some_devices(count: int, model: str = "A100", memory_bytes: int = 80 * GIB) -> tuple[Device, ...]:
    return tuple(Device(index=i, model=model, memory_bytes=memory_bytes) for i in range(count))


def a_task(**fields: Any) -> Task:
    return _with(Task(run="true"), fields)


def a_job(**fields: Any) -> Workload:
    """A queued job of a cluster; `task=` and `managed=` go to its spec. Managed jobs have no cluster."""
    task = fields.pop("task", None) or a_task()
    managed = fields.pop("managed", False)
    job_id = fields.pop("id", None) or an_id("job")
    job = Workload(
        id=job_id,
        kind="job",
        name=task.name or "job",
        spec=JobSpec(task=task, managed=managed),
        number=1,
        host_id=None if managed else "clu-0",
        status=JobStatus(),
        created_ms=EPOCH_MS,
    )
    return _with(job, fields)


def a_cluster(**fields: Any) -> Workload:
    """A cluster that should run; `num_nodes=` and `resources=` go to its spec."""
    spec = ClusterSpec(
        num_nodes=fields.pop("num_nodes", 1),
        resources=fields.pop("resources", (Resources(),)),
        ordered=fields.pop("ordered", False),
    )
    cluster_id = fields.pop("id", None) or an_id("clu")
    return _with(
        Workload(
            id=cluster_id,
            kind="cluster",
            name="c",
            spec=spec,
            status=ClusterStatus(active_ms=EPOCH_MS),
            created_ms=EPOCH_MS,
        ),
        fields,
    )


def a_workload(kind: str = "job", **fields: Any) -> Workload:
    return a_cluster(**fields) if kind == "cluster" else a_job(**fields)


def a_shape(**fields: Any) -> Shape:
    return _with(Shape(cpus_milli=8000, memory_bytes=32 * GIB), fields)


def a_gpu_shape(count: int = 8, model: str = "A100", **fields: Any) -> Shape:
    shape = Shape(
        cpus_milli=64000,
        memory_bytes=512 * GIB,
        accelerator=model,
        accelerators_milli=count * 1000,
        accelerator_memory_bytes=80 * GIB,
    )
    return _with(shape, fields)


def an_offer(**fields: Any) -> Offer:
    return _with(
        Offer(
            provider="pool",
            shape=a_shape(),
            capacity=Capacity.OWNED,
            price_micro_usd=0,
            quoted_at_ms=EPOCH_MS,
        ),
        fields,
    )


def a_choice(**fields: Any) -> Choice:
    """The first satisfying of an offer: its node is granted whole unless amounts are given."""
    offer: Offer = fields.pop("offer", None) or an_offer()
    choice = Choice(
        offer=offer,
        resources=Resources(),
        cpus_milli=offer.shape.cpus_milli,
        memory_bytes=offer.shape.memory_bytes,
        accelerator=offer.shape.accelerator,
        accelerators_milli=offer.shape.accelerators_milli,
        price_micro_usd=offer.price_micro_usd,
    )
    return _with(choice, fields)


def a_claim(**fields: Any) -> Claim:
    claim_id = fields.pop("id", None) or an_id("clm")
    choice = fields.pop("choice", None) or a_choice()
    return _with(
        Claim(id=claim_id, workload_id="clu-0", choice=choice, count=1, requested_ms=EPOCH_MS), fields
    )


def a_node(**fields: Any) -> Node:
    """A node of 8 CPUs, 32 GiB; `gpus=2` gives it that many A100."""
    gpus = fields.pop("gpus", 0)
    node_id = fields.pop("id", None) or an_id("nod")
    node = Node(
        id=node_id,
        claim_id="clm-0",
        workload_id="clu-0",
        provider="pool",
        index=0,
        facts=NodeFacts(
            hostname="host", arch="x86_64", cpus_milli=8000, memory_bytes=32 * GIB, devices=some_devices(gpus)
        ),
        cpus_milli=8000,
        memory_bytes=32 * GIB,
        devices=tuple(range(gpus)),
    )
    return _with(node, fields)


def an_attempt(**fields: Any) -> Attempt:
    attempt_id = fields.pop("id", None) or an_id("att")
    return _with(
        Attempt(
            id=attempt_id,
            workload_id="job-0",
            number=1,
            placements=(Placement(rank=0, node_id="nod-0"),),
            placed_ms=EPOCH_MS,
        ),
        fields,
    )


def want_gpus(count_milli: int, model: str | None = "A100") -> Resources:
    """A wish for accelerators: `want_gpus(250)` is a quarter of an A100."""
    return Resources(accelerator=Accelerator(model=model, milli=count_milli))

"""What a Ray cluster has: kinds of nodes that are alike, what is free, and offers of them. Pure."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Final

import msgspec

from argosy.model.offer import Capacity, Offer, Shape
from argosy.providers.ray.api import ClusterStatus, RayNode
from argosy.providers.ray.settings import Growing
from argosy.spec.accelerators import canonical_accelerator

_GIB: Final = 1 << 30
_ALIKE: Final = 1.25
#: Resources that Ray itself gives to accelerators, and what one of them is called when nothing else says it.
_DEVICES: Final = {"GPU": "GPU", "TPU": "TPU", "HPU": "Gaudi", "NPU": "NPU", "neuron_cores": "Trainium"}
_TYPE: Final = "accelerator_type:"
GRAIN: Final = 0.001  # the least that Ray takes of a resource
_LABEL: Final = "ray.io/accelerator-type"


class Devices(msgspec.Struct, frozen=True, kw_only=True):
    """Accelerators of a node: the resource that Ray counts them by, and their model in the catalog's
    spelling."""

    resource: str
    model: str
    count: int
    mark: str = ""  # a resource that only nodes with this model have

    def bundle(self, count: int) -> dict[str, float]:
        """What a node of a claim asks for, to have `count` of this model and of no other."""
        return {self.resource: count, **({self.mark: GRAIN} if self.mark else {})}


class NodeKind(msgspec.Struct, frozen=True, kw_only=True):
    """Nodes that are alike."""

    devices: Devices | None
    cpus_milli: int
    memory_bytes: int
    total: int
    free: int  # of them with all that they have
    is_head: bool
    is_new: bool = False  # no node of it is there: an autoscaler can add `total`

    @property
    def type(self) -> str:
        """How offers and claims name it."""
        devices = f"{self.devices.model}:{self.devices.count}" if self.devices else "cpu"
        return f"{devices}-{self.cpus_milli // 1000}c-{round(self.memory_bytes / _GIB) or 1}g"


def devices_of(node: RayNode, named: Mapping[str, str]) -> Devices | None:
    """The accelerators of a node. Its type is what the cluster's settings call it, else what Ray found,
    else the resource's own name; a custom resource that is called as the catalog calls an accelerator
    counts as one.

    >>> a = RayNode(node_id="1", resources_total={"GPU": 8, "accelerator_type:H100": 1})
    >>> devices_of(a, {}).model, devices_of(a, {"GPU": "H200"}).model
    ('H100', 'H200')
    >>> devices_of(RayNode(node_id="1", resources_total={"CPU": 2, "L4": 2}), {}).resource
    'L4'
    """
    total = node.resources_total
    told = [name.removeprefix(_TYPE) for name in total if name.startswith(_TYPE)]
    told += [each for each in [(node.labels or {}).get(_LABEL, "")] if each]
    for resource, plain in _DEVICES.items():
        if (count := int(total.get(resource, 0))) > 0:
            word = named.get(resource) or next(iter(told), plain)
            model = named.get(word) or canonical_accelerator(word) or word
            mark = f"{_TYPE}{told[0]}" if told and f"{_TYPE}{told[0]}" in total else ""
            return Devices(resource=resource, model=model, count=count, mark=mark)
    for resource, amount in total.items():
        known = canonical_accelerator(resource) if re.search(r"\d", resource) else None
        own = named.get(resource) or known
        if own and int(amount) > 0 and ":" not in resource:
            return Devices(resource=resource, model=own, count=int(amount))
    return None


def kinds_of(nodes: Sequence[RayNode], status: ClusterStatus, named: Mapping[str, str]) -> list[NodeKind]:
    """The kinds of nodes that are alive and can hold something. A head node without CPUs holds nothing. Ray
    measures the memory of each node when it starts, so that equal machines have not quite the same: those
    whose memory differs by less than a quarter are one kind."""
    alike: dict[tuple[str, int], list[RayNode]] = {}
    for node in nodes:
        devices = devices_of(node, named)
        if node.is_alive and (node.resources_total.get("CPU", 0) >= 1 or devices):
            alike.setdefault((_text(devices), int(node.resources_total.get("CPU", 0))), []).append(node)
    groups: list[list[RayNode]] = []
    for members in alike.values():
        groups.append([])
        for node in sorted(members, key=_memory):
            if groups[-1] and _memory(node) > _ALIKE * _memory(groups[-1][0]):
                groups.append([])
            groups[-1].append(node)
    return [_kind(members, status, named) for members in groups]


def growing_kinds(growing: Sequence[Growing], kinds: Sequence[NodeKind]) -> list[NodeKind]:
    """What an autoscaler can add, as people say, of which no node is there at present.

    >>> new = growing_kinds([Growing(accelerators="H100:8", cpus=96, memory=900, nodes=4)], [])[0]
    >>> new.type, new.total, new.free
    ('H100:8-96c-900g', 4, 0)
    """
    there = {(each.devices.model if each.devices else "", each.cpus_milli // 1000) for each in kinds}
    found = []
    for each in growing:
        model, _, count = each.accelerators.partition(":")
        model = canonical_accelerator(model) or model
        if (model, each.cpus) not in there:
            devices = Devices(resource="GPU", model=model, count=int(count or 1)) if model else None
            found.append(
                NodeKind(
                    devices=devices,
                    cpus_milli=1000 * each.cpus,
                    memory_bytes=each.memory * _GIB,
                    total=each.nodes,
                    free=0,
                    is_head=False,
                    is_new=True,
                )
            )
    return found


def _kind(members: Sequence[RayNode], status: ClusterStatus, named: Mapping[str, str]) -> NodeKind:
    return NodeKind(
        devices=devices_of(members[0], named),
        cpus_milli=int(1000 * min(each.resources_total.get("CPU", 0) for each in members)),
        memory_bytes=min(_memory(each) for each in members),
        total=len(members),
        free=sum(_is_free(each, status) for each in members),
        is_head=all(each.is_head_node for each in members),
    )


def _text(devices: Devices | None) -> str:
    return f"{devices.resource}/{devices.model}:{devices.count}" if devices else ""


def _memory(node: RayNode) -> int:
    return int(node.resources_total.get("memory", 0)) or _GIB


def _is_free(node: RayNode, status: ClusterStatus) -> bool:
    used = status.load_metrics_report.usage_by_node.get(node.node_id, {})
    return all(
        in_use == 0 for name, (in_use, _) in used.items() if name not in ("objectStoreMemory", "memory")
    )


def fitting(nodes: Sequence[RayNode], bundle: Mapping[str, float], status: ClusterStatus) -> tuple[int, int]:
    """How many nodes that are alive could hold a bundle at all, and how many could now."""
    alive = [node for node in nodes if node.is_alive and _holds(node.resources_total, bundle)]
    now = 0
    for node in alive:
        used = status.load_metrics_report.usage_by_node.get(node.node_id, {})
        left = {name: total - used.get(name, (0.0, 0.0))[0] for name, total in node.resources_total.items()}
        now += _holds(left, bundle)
    return len(alive), now


def _holds(amounts: Mapping[str, float], bundle: Mapping[str, float]) -> bool:
    return all(amounts.get(name, 0) >= amount for name, amount in bundle.items())


def offers_of(
    kinds: Sequence[NodeKind], *, provider: str, cluster: str, grows: bool, now_ms: int
) -> list[Offer]:
    """One offer for each kind. A part of a node may be had. `grows`: an autoscaler may add nodes, so that
    their number is not known."""
    return [
        Offer(
            provider=provider,
            region=cluster,
            shape=Shape(
                instance_type=kind.type,
                cpus_milli=kind.cpus_milli or 1000,
                memory_bytes=kind.memory_bytes,
                accelerator=kind.devices.model if kind.devices else None,
                accelerators_milli=1000 * kind.devices.count if kind.devices else 0,
            ),
            capacity=Capacity.QUEUED,
            price_micro_usd=0,
            quoted_at_ms=now_ms,
            nodes_max=None if grows and not kind.is_new else kind.total,
            divisible=True,
            wait_s=0 if kind.free else None,
            order=int(kind.is_head) + (0 if kind.free else 2),
        )
        for kind in kinds
    ]

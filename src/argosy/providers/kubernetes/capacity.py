"""What a cluster has: its nodes and what pods ask of them, asked when somebody wants to know."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import Final

from argosy.infra import border
from argosy.model.ids import Clock
from argosy.model.offer import Capacity, Offer, Shape
from argosy.model.rows import Claim
from argosy.model.units import GIB
from argosy.providers.kubernetes.api import Api
from argosy.providers.kubernetes.devices import DeviceClass, Lot, ResourceClaim, ResourceSlice, lots_of
from argosy.providers.kubernetes.discovery import DEVICES, Discovery
from argosy.providers.kubernetes.nodes import Ask, Machine, Match, machines_of, match_of, offers_of
from argosy.providers.kubernetes.objects import ClusterNode, Load
from argosy.providers.kubernetes.wishes import ContextConfig, NodeType

_FRESH_S: Final = 2.0
_REST: Final = 30.0  # listings take at most one part in so many of the time
_GROW_S: Final = 300  # until an autoscaler has made a node
_HIDDEN: Final = NodeType(cpus=4, memory=16)


class Capacities:
    """Nodes as they were a moment ago. `None` machines: we may not list nodes."""

    def __init__(self, api: Api, config: ContextConfig, clock: Clock, discovery: Discovery) -> None:
        self._api, self._config, self._clock, self._discovery = api, config, clock, discovery
        self._machines: list[Machine] | None = []
        self._at_s, self._took_s = float("-inf"), 0.0
        self._asking = asyncio.Lock()
        self.hidden = ""  # why devices that pods claim are not known

    async def machines(self) -> list[Machine] | None:
        """Raises a border error; None: the nodes may not be listed."""
        async with self._asking:
            began_s = self._clock.monotonic_s()
            if began_s - self._at_s > max(_FRESH_S, _REST * self._took_s):
                try:
                    nodes, _ = await self._api.items("/api/v1/nodes", into=ClusterNode)
                    query = [("fieldSelector", "status.phase!=Succeeded,status.phase!=Failed")]
                    loads, _ = await self._api.items("/api/v1/pods", into=Load, query=query)
                    self._machines = machines_of(nodes, loads, await self._lots())
                except border.CredentialsRejected as error:
                    if "does not allow" not in str(error):
                        raise
                    self._machines = None
                self._at_s = self._clock.monotonic_s()
                self._took_s = self._at_s - began_s
            return self._machines

    async def _lots(self) -> list[Lot]:
        """Devices that pods claim; []: the cluster has none, or we may not list them (`hidden`)."""
        try:
            path = (await self._discovery.paths()).get(DEVICES)
            if path is None:
                return []
            slices, _ = await self._api.items(f"{path}/resourceslices", into=ResourceSlice)
            if not slices:
                return []
            classes, _ = await self._api.items(f"{path}/deviceclasses", into=DeviceClass)
            claims, _ = await self._api.items(f"{path}/resourceclaims", into=ResourceClaim)
        except border.CredentialsRejected as error:
            if "does not allow" not in str(error):
                raise
            self.hidden = str(error)
            return []
        self.hidden = ""
        return lots_of(slices, classes, claims)

    def forget(self) -> None:
        """Somebody has taken or given back something: the next question is asked anew."""
        self._at_s = min(self._at_s, self._clock.monotonic_s() - _FRESH_S)

    async def offers(self, provider: str) -> list[Offer]:
        machines, now_ms = await self.machines(), self._clock.now_ms()
        grows = _GROW_S if self._config.autoscaler or await self._discovery.grows() else 0
        name = self._api.context.name
        found = offers_of(machines or (), provider=provider, context=name, scale_s=grows, now_ms=now_ms)
        kinds = self._config.node_types or ((_HIDDEN,) if machines is None else ())
        return found + [_offer(each, provider, name, grows, now_ms) for each in kinds]

    def ask_of(self, claim: Claim) -> Ask:
        choice = claim.choice
        return Ask(
            cpus_milli=choice.cpus_milli,
            memory_bytes=choice.memory_bytes,
            model=choice.accelerator or "",
            milli=choice.accelerators_milli,
            arch=choice.offer.shape.arch,
            spot=choice.offer.capacity is Capacity.SPOT,
        )

    async def match(self, ask: Ask, count: int, autoscaler: str) -> Match:
        """Where pods of a claim go. Raises `OutOfCapacity` when so many never fit, and no autoscaler makes
        nodes; `Unsupported` for a part of an accelerator that nobody gives there."""
        machines = await self.machines()
        match = match_of(machines, ask) if machines else None
        named = next((each for each in self._config.node_types if _serves(each, ask)), None)
        name = self._api.context.name
        if match is not None and (match.most >= count or (autoscaler and named is None)):
            return match
        if ask.milli % 1000:
            raise border.Unsupported(
                f"{name} gives no part of an accelerator of this size: neither MIG instances nor shared cards"
            )
        if named is not None or (machines is None and not ask.milli):
            kind = named or _HIDDEN
            terms = (tuple((key, "In", (value,)) for key, value in sorted(kind.selector.items())),)
            units = ask.milli // 1000
            return Match(
                resource=kind.resource if units else "",
                units=units,
                terms=terms if kind.selector else (),
                most=count,
                now=0,
            )
        if match is not None:
            text = f"{name} has room for {match.most} such pods when nothing else runs, asked for {count}"
        else:
            what = f"{ask.milli // 1000} {ask.model}" if ask.milli else f"the architecture {ask.arch}"
            text = f"{name} has no node with {what} at present"
        raise border.OutOfCapacity(name, text)


def _serves(kind: NodeType, ask: Ask) -> bool:
    devices = (not ask.milli) or (kind.accelerator == ask.model and kind.count * 1000 >= ask.milli)
    room = kind.cpus * 1000 >= ask.cpus_milli and kind.memory * GIB >= ask.memory_bytes
    return devices and room and kind.arch == ask.arch and not ask.spot


def _offer(kind: NodeType, provider: str, context: str, grow_s: int, now_ms: int) -> Offer:
    size = f"{kind.cpus}c-{kind.memory}g"
    shape = Shape(
        instance_type=f"{kind.count}x{kind.accelerator}-{size}" if kind.accelerator else size,
        cpus_milli=kind.cpus * 1000,
        memory_bytes=kind.memory * GIB,
        accelerator=kind.accelerator or None,
        accelerators_milli=kind.count * 1000 if kind.accelerator else 0,
        arch=kind.arch,
    )
    return Offer(
        provider=provider,
        region=context,
        shape=shape,
        capacity=Capacity.QUEUED,
        price_micro_usd=0,
        quoted_at_ms=now_ms,
        divisible=True,
        wait_s=grow_s or None,
        order=2,
    )


def total_text(machines: Sequence[Machine]) -> list[str]:
    """What there is and what is free of it, a line for each model."""
    lines = []
    for model in sorted({each.model for each in machines if each.model}):
        mine = [each for each in machines if each.model == model and each.is_open]
        free = sum(max(0, each.free.units) for each in mine)
        lines.append(f"{model}: {free} of {sum(each.whole.units for each in mine)} free on {len(mine)} nodes")
    return lines

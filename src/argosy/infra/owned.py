"""Offers of a place that has several machines of our own."""

from __future__ import annotations

from collections.abc import Sequence

from argosy.model.device_memory import sold_memory
from argosy.model.offer import Capacity, Offer, OwnedMachine, Shape


def offers_of_machines(
    provider: str, region: str, machines: Sequence[OwnedMachine], *, price_micro_usd: int = 0, now_ms: int = 0
) -> list[Offer]:
    """One offer for each model of accelerator that the machines have (one at all where they have none). All
    of them name all machines; `shape` is the largest that is there of each amount.

    >>> offers_of_machines("ssh", "lab", ())
    []
    """
    facts = [each.facts for each in machines]
    if not facts:
        return []
    cards = [device for each in facts for device in each.devices if not device.mig_profile]
    models: list[str | None] = [*sorted({device.model for device in cards})] or [None]
    archs = sorted({each.arch for each in facts if each.arch}) or ["x86_64"]
    offers = []
    for model in models:
        counts = [
            sum(1 for one in each.devices if one.model == model and not one.mig_profile) for each in facts
        ]
        shape = Shape(
            cpus_milli=max(each.cpus_milli for each in facts),
            memory_bytes=max(each.memory_bytes for each in facts),
            accelerator=model,
            accelerators_milli=1000 * max(counts),
            accelerator_memory_bytes=max(
                (sold_memory(one.memory_bytes) for one in cards if one.model == model), default=0
            ),
            arch="x86_64" if "x86_64" in archs else archs[0],
            disk_bytes=max(each.disk_free_bytes for each in facts),
        )
        offers.append(
            Offer(
                provider=provider,
                region=region,
                shape=shape,
                capacity=Capacity.OWNED,
                price_micro_usd=price_micro_usd,
                quoted_at_ms=now_ms,
                nodes_max=len(machines),
                machines=tuple(machines),
                apart=True,
            )
        )
    return offers

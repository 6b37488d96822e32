"""What is known of one host, and how it is told."""

from __future__ import annotations

import asyncio

import msgspec

from argosy.model.facts import NodeFacts
from argosy.model.units import GIB, render_bytes, render_milli
from argosy.providers.ssh.pools import Host
from argosy.providers.ssh.reached import Look


class Known(msgspec.Struct, kw_only=True):
    """One host, as it was seen last."""

    host: Host
    facts: NodeFacts | None = None
    look: Look | None = None
    problem: str = ""  # why it takes nothing new; "": it answered, and all is well
    silent: bool = False  # it is the network or the host itself
    looked_s: float = -1e9
    probed_s: float = -1e9
    looking: asyncio.Task[None] | None = None


def facts_of(host: Host, look: Look) -> NodeFacts:
    """What the agent found, with what people wrote about the host, without what changes every minute."""
    found = look.facts or NodeFacts()
    devices = [
        msgspec.structs.replace(device, memory_used_bytes=0, utilisation_percent=-1)
        for device in found.devices
    ]
    return msgspec.structs.replace(
        found,
        hostname=host.name,
        ip=look.ip or found.ip,
        devices=tuple(devices),
        labels=(*found.labels, *host.labels),
        taints=(*found.taints, *host.taints),
        domains=host.domains or found.domains,
        load_milli=0,
        memory_used_bytes=0,
        disk_free_bytes=found.disk_free_bytes // GIB * GIB,
    )


def describe(known: Known) -> str:
    """`4 H100, 64 CPUs, 512 GB, Python 3.11.2`."""
    facts = known.facts or NodeFacts()
    cards = [device.model for device in facts.devices if not device.mig_profile]
    parts = [f"{cards.count(model)} {model}" for model in sorted(set(cards))] or ["no accelerators"]
    parts += [f"{render_milli(facts.cpus_milli)} CPUs", render_bytes(facts.memory_bytes)]
    if known.look is not None and known.look.python:
        parts.append(f"Python {known.look.python}")
    return ", ".join(parts)

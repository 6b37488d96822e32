"""What the fake server answers about hosts that people name: a pool `lab` of two, one of which is closed."""

from __future__ import annotations

from typing import Final

from argosy.model.enlisting import HostOrder, HostReport, HostState
from argosy.model.facts import Device, NodeFacts
from argosy.model.units import GIB

_FACTS: Final = NodeFacts(
    hostname="gpu1",
    arch="x86_64",
    cpus_milli=64_000,
    memory_bytes=512 * GIB,
    devices=tuple(Device(index=index, model="H100", memory_bytes=80 * GIB) for index in range(4)),
    ip="10.0.0.1",
)
HOSTS: Final = (
    HostState(
        provider="ssh",
        pool="lab",
        name="gpu1",
        address="me@gpu1",
        state="open",
        facts=_FACTS,
        python="3.10.12",
        claims=1,
    ),
    HostState(
        provider="ssh",
        pool="lab",
        name="gpu2",
        address="me@gpu2",
        state="closed",
        why="me@gpu2 refuses connections at port 22: is sshd running there, and is the port right?",
        source="/home/me/.argosy/pools.yaml:3:5",
    ),
)


def works(order: HostOrder) -> HostReport:
    """The report of a host that works."""
    return HostReport(
        provider="ssh",
        pool=order.pool,
        name=order.host,
        address=order.host,
        ok=True,
        text="4 H100, 64 CPUs, 512 GB, Python 3.10.12",
        facts=_FACTS,
        python="3.10.12",
    )

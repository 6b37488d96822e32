"""What the controller and the gateway spend on 1,000 services with 3,000 replicas.

    python benchmarks/many_services.py [--json FILE] [--services 1000] [--seconds 20]

Controller: its CPU time for each second of the world, with ten minutes of history: counters of the gateway
(read from their JSON), rates, loads and autoscaling of every service; decisions are not part of it. `busy`:
every replica answers ten requests a second. Gateway: memory of a router that has the table, and CPU time of
taking it over and of telling its counters. CPU time is the process's own: other load counts little.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import resource
import time
from pathlib import Path

import msgspec
from machine import write

from argosy.controllers.observed import Facts
from argosy.controllers.routing import Routing
from argosy.controllers.service.routes import routes_of
from argosy.gateway.routing import Router
from argosy.infra.system import SystemClock
from argosy.model.kinds.service import SERVICE, Replica, ReplicaState, Revision, ServiceSpec, ServiceStatus
from argosy.model.phases import WorkloadPhase
from argosy.model.routes import (
    LATENCY_BOUNDS_MS,
    GatewayCounters,
    ReplicaCounters,
    RevisionCounters,
    RouteTable,
    ServiceCounters,
    Wants,
)
from argosy.model.rows import Workload
from argosy.model.serving import Replicas, Serving
from argosy.model.task import Task

EACH = 3


def a_service(number: int) -> Workload:
    """One with three replicas that are ready, and an autoscaler."""
    serving = Serving(replicas=Replicas(least=1, most=8, qps_milli={"": 20_000}))
    revision = Revision(number=1, digest="d", task=Task(run="serve", service=serving))
    replicas = tuple(
        Replica(
            job_id=f"job-{number}-{each}", number=each, revision=1, port=20_000, state=ReplicaState.READY,
            address=f"10.{number >> 8}.{number & 255}.{each + 1}:8000",
        )
        for each in range(EACH)
    )  # fmt: skip
    status = ServiceStatus(replicas=replicas, serves=1, weights=((1, 1000),), made=EACH)
    return Workload(
        id=f"svc-{number}", kind=SERVICE.name, name=f"s{number}", status=status, phase=WorkloadPhase.RUNNING,
        spec=ServiceSpec(revisions=(revision,), wanted=1), created_ms=number,
    )  # fmt: skip


class Counting:
    """A gateway of which only the counters are real: JSON, as it comes over its socket."""

    def __init__(self, services: int, busy: bool) -> None:
        self.services, self.busy, self.generation, self.second = services, busy, 0, 0

    async def take(self, table: RouteTable) -> int:
        self.generation = table.generation
        return self.generation

    def make(self) -> bytes:
        """Of the next second."""
        self.second += self.busy
        count, size = self.second * 10, len(LATENCY_BOUNDS_MS) + 1
        latency = [0] * 3 + [count] + [0] * (size - 4)
        services = [
            ServiceCounters(
                id=f"svc-{number}", requests=count * EACH,
                replicas=[
                    ReplicaCounters(id=f"job-{number}-{each}", revision="1", requests=count, latency=latency)
                    for each in range(EACH)
                ],
                revisions=[
                    RevisionCounters(id="1", requests=count * EACH, latency=latency, first_byte=latency)
                ],
            )
            for number in range(self.services)
        ]  # fmt: skip
        told = GatewayCounters(generation=self.generation, since_ms=1, services=services)
        return msgspec.json.encode(told)

    async def counters(self) -> GatewayCounters:
        return msgspec.json.decode(self.told, type=GatewayCounters)

    told = b""

    async def wants(self, after: int) -> Wants:
        await asyncio.sleep(3600)
        return Wants(sequence=1)

    async def rest(self) -> None:
        """Nothing ends."""


class Moved(SystemClock):
    """A second passes when the benchmark says so."""

    def __init__(self) -> None:
        super().__init__()
        self.at_ms = 1_790_000_000_000

    def now_ms(self) -> int:
        return self.at_ms


async def controller(rows: list[Workload], seconds: int, busy: bool) -> float:
    """CPU seconds for one second of the world."""
    gateway, clock, woken = Counting(len(rows), busy), Moved(), []
    loop = asyncio.get_running_loop()
    routing = Routing(gateway=gateway, facts=Facts(), clock=clock, spawn=loop.create_task, wake=woken.append)
    routing._services = {row.id: row for row in rows}
    await routing._send(gateway)
    spent = 0.0
    for second in range(-3, seconds):
        if second == 0:  # as if it had gone on like this for ten minutes
            for load in routing._loads.values():
                load.seconds.extend([load.seconds[-1]] * 600)
            spent = 0.0
        clock.at_ms += 1000
        gateway.told = gateway.make()
        began = time.process_time()
        await routing._look(gateway)
        spent += time.process_time() - began
    return spent / seconds


async def gateway_of(rows: list[Workload]) -> dict[str, float]:
    """Memory in MiB and CPU seconds of a router with the table of all services."""
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    table = RouteTable(generation=1, services=routes_of(rows))
    encoded = msgspec.json.encode(table)
    router = Router(asyncio.get_running_loop(), lambda: 0)
    began = time.process_time()
    router.take_table(msgspec.json.decode(encoded, type=RouteTable))
    taken = time.process_time() - began
    began = time.process_time()
    msgspec.json.encode(router.tell())
    told = time.process_time() - began
    began = time.process_time()
    router.sweep()
    swept = time.process_time() - began
    grown = (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) / 1024
    return {
        "table_kb": len(encoded) / 1024,
        "take_s": taken,
        "tell_s": told,
        "sweep_s": swept,
        "grown_mib": grown,
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--json", type=Path)
    parser.add_argument("--services", type=int, default=1000)
    parser.add_argument("--seconds", type=int, default=20)
    options = parser.parse_args()
    rows = [a_service(number) for number in range(options.services)]
    found = {
        "services": options.services,
        "replicas": options.services * EACH,
        "gateway": asyncio.run(gateway_of(rows)),
        "controller_idle_share_of_core": asyncio.run(controller(rows, options.seconds, busy=False)),
        "controller_busy_share_of_core": asyncio.run(controller(rows, options.seconds, busy=True)),
    }
    print(json.dumps(found, indent=2))
    write(options.json, **found)


if __name__ == "__main__":
    main()

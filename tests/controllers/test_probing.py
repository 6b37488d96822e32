"""What is told of a replica on whose port nobody listens."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine, Mapping, Sequence
from typing import cast

from service_stage import Stage

from argosy.controllers.observed import Facts
from argosy.controllers.probing import Probing
from argosy.controllers.view import Rows
from argosy.infra.replica_port import Answer
from argosy.model.kinds.service import ReplicaState
from argosy.model.rows import Node
from argosy.model.serving import Probe
from argosy.store import Store
from argosy.testing.builders import a_node
from argosy.testing.virtual_time import SimClock, run_virtual


class DeafPorts:
    """Nobody listens where they are asked; the program of each replica listens on other ports."""

    def __init__(self, *others: int) -> None:
        self.others, self.asked = others, 0

    async def open(self, node: Node, port: int) -> str:
        return f"127.0.0.1:{port}"

    async def ask(self, address: str, probe: Probe, secrets: Mapping[str, str]) -> Answer:
        self.asked += 1
        port = address.rpartition(":")[2]
        return Answer(good=False, why=f"nothing listens on port {port}", refused=True)

    async def listening(self, node: Node, rank_id: str) -> Sequence[int]:
        return self.others

    def close(self, node_id: str, port: int) -> None:
        """Nothing is kept."""


def _told(ports: DeafPorts) -> tuple[int, str]:
    """The port that was asked, and why the replica is not ready after half a minute."""
    stage = Stage(replicas=1)
    stage.broken = {1}
    stage.beat()
    stage.put(a_node(id="node-1"))
    [replica] = stage.replicas(ReplicaState.WARMING)
    facts = Facts()

    async def story() -> None:
        tasks: list[asyncio.Task[None]] = []

        def spawn(coroutine: Coroutine[None, None, None]) -> asyncio.Task[None]:
            tasks.append(asyncio.get_running_loop().create_task(coroutine))
            return tasks[-1]

        probing = Probing(
            store=cast(Store, None),  # asked for secrets only
            ports=ports,
            facts=facts,
            clock=SimClock(),
            spawn=spawn,
            wake=lambda id: None,
        )
        probing.follow(cast(Rows, stage.rows), [stage.row])
        await asyncio.sleep(30)
        for task in tasks:
            task.cancel()

    run_virtual(story())
    stage.facts.replicas[replica.job_id] = facts.replicas[replica.job_id]
    stage.beat()
    return replica.port, stage.replicas()[0].why


def test_it_is_told_where_its_program_listens_instead() -> None:
    port, why = _told(DeafPorts(8000, 9000))
    assert why == (
        f"nothing listens on port {port}; its program listens on 8000, 9000: write `ports: 8000`, "
        "or let it read $ARGOSY_SERVICE_PORT"
    )


def test_nothing_is_added_where_it_listens_nowhere() -> None:
    port, why = _told(DeafPorts())
    assert why == f"nothing listens on port {port}"

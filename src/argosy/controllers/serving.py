"""Services in the running server: their replicas are probed, and their gateway is told of them."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from argosy.controllers.observed import Facts
from argosy.controllers.probing import Probing
from argosy.controllers.routing import Routing
from argosy.controllers.service.routes import model_keys
from argosy.controllers.view import Rows
from argosy.infra.gateway_port import GatewayPort
from argosy.infra.replica_port import ReplicaPort
from argosy.model.ids import Clock
from argosy.model.kinds.service import SERVICE
from argosy.store import Store


class Serving:
    """Keeps probes and routes in step with the rows."""

    def __init__(
        self,
        *,
        store: Store,
        replicas: ReplicaPort | None,
        gateway: GatewayPort | None,
        facts: Facts,
        clock: Clock,
        spawn: Callable[..., asyncio.Task[None]],
        wake: Callable[..., None],
    ) -> None:
        self._probing = Probing(store=store, ports=replicas, facts=facts, clock=clock, spawn=spawn, wake=wake)
        self._routing = Routing(gateway=gateway, facts=facts, clock=clock, spawn=spawn, wake=wake)

    def follow(self, rows: Rows) -> None:
        """To be called with every new snapshot."""
        services = list(rows.named(SERVICE.name))
        self._probing.follow(rows, services)
        self._routing.follow(services, model_keys(rows, services))

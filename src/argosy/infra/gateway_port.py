"""What the server asks of the gateway that carries requests to services. Tests and the simulation have
their own."""

from __future__ import annotations

from typing import Protocol

from argosy.model.routes import GatewayCounters, RouteTable, Wants


class GatewayPort(Protocol):
    """One gateway. Every method raises `border.BorderError` when it does not answer."""

    async def take(self, table: RouteTable) -> int:
        """It routes by this table from now on; the generation that it says it has taken over."""

    async def counters(self) -> GatewayCounters: ...

    async def wants(self, after: int) -> Wants:
        """Wait until other services than at sequence `after` have requests that wait for a replica, or for
        half a minute."""

    async def rest(self) -> None:
        """There is nothing to route any more: it may end when its last answers are out."""

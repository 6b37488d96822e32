"""Connections to the agents of nodes, made when first asked for. `infra.agent_port.AgentDirectory`."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Coroutine

from argosy.infra.agent_port import AgentPort, Channel, DialIn
from argosy.infra.provider import Providers
from argosy.model.rows import Node

#: Makes an agent's client from the way to reach it: `infra.agent_client.AgentClient`.
Connect = Callable[[Callable[[], Coroutine[None, None, Channel]]], AgentPort]
#: Reaches a node by its second argument, or in another way.
Elsewhere = Callable[[Node, Callable[[Node], Awaitable[Channel]]], Awaitable[Channel]]


class Agents:
    """One client for each node, kept until `drop`. A client reaches its node through the provider anew
    whenever it needs a connection, so a node that came back at another address needs no more than a
    `drop`."""

    def __init__(
        self,
        providers: Providers,
        connect: Connect,
        dialled: DialIn | None = None,
        elsewhere: Elsewhere | None = None,
    ) -> None:
        """A node that has dialled in as `<claim id>-<index>` is reached in its own connection. `elsewhere`:
        reaches a node by the means that it is given, or by those of another server."""
        self._elsewhere = elsewhere
        self._providers = providers
        self._dialled = dialled
        self._connect = connect
        self._clients: dict[str, AgentPort] = {}
        self._closing: set[asyncio.Task[None]] = set()

    async def get(self, node: Node) -> AgentPort:
        client = self._clients.get(node.id)
        if client is None:
            self._providers.get(node.provider)

            async def reach() -> Channel:
                if self._elsewhere is None:
                    return await self.reach(node)
                return await self._elsewhere(node, self.reach)

            client = self._clients[node.id] = self._connect(reach)
        return client

    async def reach(self, node: Node) -> Channel:
        """A stream to the node's agent by this server's own means. Raises `Unreachable`."""
        name = f"{node.claim_id}-{node.index}"
        if self._dialled is not None and self._dialled.has(name):
            return self._dialled.open(name)
        return await self._providers.get(node.provider).reach(node)

    def drop(self, node_id: str) -> None:
        client = self._clients.pop(node_id, None)
        if client is not None:
            task = asyncio.ensure_future(client.close())
            self._closing.add(task)
            task.add_done_callback(self._closing.discard)

    async def close(self) -> None:
        """Drop all. Agents and their ranks go on."""
        for node_id in list(self._clients):
            self.drop(node_id)
        if self._closing:
            await asyncio.wait(self._closing, timeout=2.0)

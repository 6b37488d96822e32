"""Providers whose place is the machine of a server itself: each claim is on the machine where it was ordered.

The server that decides has such a verb done by the server whose machine it is. While that one does not answer
nothing of it is taken for gone: what runs there may still run.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping, Sequence
from types import MappingProxyType
from typing import Final

from argosy.infra.agent_port import Channel
from argosy.infra.border import BorderError, Transient, Unreachable
from argosy.infra.provider import Diagnostic, Provider, Providers, Want
from argosy.model.facts import ClaimFact, ClaimState
from argosy.model.offer import Offer
from argosy.model.rows import Claim, Node
from argosy.server.peers.calls import Calls
from argosy.server.peers.membership import Membership
from argosy.server.peers.words import Drive
from argosy.store.servers import Servers

_ORDER_S: Final = 120.0


class Machines:
    """Which server's machine a claim is on, and verbs there."""

    def __init__(self, servers: Servers, membership: Membership, calls: Calls) -> None:
        self._servers, self._membership, self._calls = servers, membership, calls

    @property
    def here(self) -> str:
        return self._membership.me.id

    async def place(self, claim_id: str) -> str:
        """The server on whose machine the claim is; this one, if it was on none."""
        return await self._servers.place(claim_id, self.here)

    async def placed(self) -> Mapping[str, str]:
        return await self._servers.placed()

    async def unplace(self, claim_id: str) -> None:
        await self._servers.unplace(claim_id)

    async def drive(self, server: str, question: Drive) -> Sequence[ClaimFact]:
        """Have it done there. Raises what the provider there raises, and Transient while it is away."""
        seen = self._membership.seen(server)
        if seen is None:
            raise Transient(f"the server with the id {server}, on whose machine it is, is not known any more")
        try:
            answer, channel = await self._calls.ask(seen.peer, question, _ORDER_S)
        except Unreachable as error:
            fix = "it goes on when that server is back; if it never comes back:"
            raise Transient(
                f"it is on the machine of the server `{seen.peer.name}`: {error}; "
                f"{fix} `argosy server peers --forget {seen.peer.name}`"
            ) from None
        channel.writer.close()
        return answer.facts


class OwnMachine:
    """A provider of this machine, and of those of the other servers."""

    def __init__(self, inner: Provider, machines: Machines) -> None:
        self._inner, self._machines = inner, machines
        self.manifest = inner.manifest

    def __getattr__(self, name: str) -> object:  # what drivers have beside the six verbs
        return getattr(self._inner, name)

    async def check(self) -> Sequence[Diagnostic]:
        return await self._inner.check()

    async def quote(self, want: Want) -> Sequence[Offer]:
        return await self._inner.quote(want)

    async def reach(self, node: Node) -> Channel:
        return await self._inner.reach(node)

    async def ensure(self, claim: Claim) -> None:
        server = await self._machines.place(claim.id)
        if server == self._machines.here:
            await self._inner.ensure(claim)
            return
        await self._drive(server, Drive(provider=self.manifest.name, verb="ensure", claim=claim))

    async def release(self, claim_id: str) -> None:
        server = (await self._machines.placed()).get(claim_id, self._machines.here)
        if server == self._machines.here:
            await self._inner.release(claim_id)
        else:
            verb = Drive(provider=self.manifest.name, verb="release", claim_ids=(claim_id,))
            await self._drive(server, verb)
        await self._machines.unplace(claim_id)

    async def observe(self, claim_ids: Sequence[str]) -> Sequence[ClaimFact]:
        found = list(await self._inner.observe(claim_ids))
        there: dict[str, list[str]] = {}
        for claim_id, server in (await self._machines.placed()).items():
            if server != self._machines.here and (not claim_ids or claim_id in claim_ids):
                there.setdefault(server, []).append(claim_id)
        for server, ids in there.items():
            question = Drive(provider=self.manifest.name, verb="observe", claim_ids=tuple(ids))
            try:
                found += await self._drive(server, question)
            except BorderError:  # nobody knows: it is neither there nor gone
                found += [ClaimFact(claim_id=id, state=ClaimState.HELD) for id in ids]
        return found

    async def _drive(self, server: str, question: Drive) -> Sequence[ClaimFact]:
        return await self._machines.drive(server, question)


class SharedProviders:
    """`infra.provider.Providers` of several servers."""

    def __init__(self, inner: Providers, machines: Machines) -> None:
        self.inner, self._machines = inner, machines
        self._wrapped: dict[str, Provider] = {}

    def get(self, name: str) -> Provider:
        provider = self.inner.get(name)
        if not provider.manifest.own_machine:
            return provider
        if name not in self._wrapped:
            self._wrapped[name] = OwnMachine(provider, self._machines)
        return self._wrapped[name]

    def all(self) -> Mapping[str, Provider]:
        return MappingProxyType({name: self.get(name) for name in self.inner.all()})

    async def disconnect(self) -> None:
        """Connections that drivers keep go."""
        ends: Callable[[], Awaitable[None]] | None = getattr(self.inner, "disconnect", None)
        if ends is not None:
            await ends()

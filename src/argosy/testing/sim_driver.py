"""A real driver in the simulated world: what it rents are machines there, with that world's addresses."""

from __future__ import annotations

from collections.abc import Sequence

import msgspec

from argosy.infra.agent_port import Channel
from argosy.infra.provider import Diagnostic, Provider, Want
from argosy.model.facts import ClaimFact
from argosy.model.offer import Offer
from argosy.model.rows import Claim, Node
from argosy.testing.starts import check_claim_intent
from argosy.testing.world import World


class SimDriver:
    """`infra.provider.Provider`, before a driver whose cloud is a fake one."""

    def __init__(self, world: World, driver: Provider) -> None:
        self.world, self.driver = world, driver
        self.manifest = driver.manifest

    async def check(self) -> Sequence[Diagnostic]:
        return await self.driver.check()

    async def quote(self, want: Want) -> Sequence[Offer]:
        return await self.driver.quote(want)

    async def ensure(self, claim: Claim) -> None:
        check_claim_intent(self.world, claim)
        await self.driver.ensure(claim)

    async def observe(self, claim_ids: Sequence[str]) -> Sequence[ClaimFact]:
        facts = await self.driver.observe(claim_ids)
        return [
            msgspec.structs.replace(
                fact,
                nodes=tuple(
                    msgspec.structs.replace(node, address=f"{fact.claim_id}/{node.index}")
                    for node in fact.nodes
                ),
            )
            for fact in facts
        ]

    async def release(self, claim_id: str) -> None:
        await self.driver.release(claim_id)

    async def reach(self, node: Node) -> Channel:
        raise NotImplementedError("simulated machines are reached through SimAgentDirectory")

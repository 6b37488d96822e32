"""The six verbs of SSH pools. Nothing of ssh is loaded, and no host is asked, before there is a pool."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from argosy.infra import border
from argosy.infra.agent_port import Channel
from argosy.infra.provider import Diagnostic, Want
from argosy.model.facts import ClaimFact
from argosy.model.offer import Capacity, Offer
from argosy.model.rows import Claim, Node
from argosy.providers.ssh import MANIFEST

if TYPE_CHECKING:
    from argosy.infra.provider import Setting
    from argosy.model.enlisting import HostOrder, HostReport, HostState
    from argosy.providers.ssh.driver import Driver

#: Where hosts may be written, below the state folder and the user's home.
_WRITTEN = ("pools.yaml",)
_WRITTEN_AT_HOME = (".sky/ssh_node_pools.yaml",)


class SshProvider:
    """GPU servers by SSH."""

    manifest = MANIFEST

    def __init__(self, setting: Setting) -> None:
        self._setting = setting
        self._made: Driver | None = None

    def __repr__(self) -> str:
        return f"SshProvider({self._setting.root})"

    def _has_pools(self) -> bool:
        home = Path(self._setting.environ.get("HOME") or "/")
        places = [self._setting.home / name for name in _WRITTEN]
        places += [home / name for name in _WRITTEN_AT_HOME]
        root = self._setting.root
        return self._made is not None or any(
            place.exists() for place in (root / "pools.json", root / "claims", *places)
        )

    def driver(self) -> Driver:
        if self._made is None:
            from argosy.providers.ssh.driver import Driver

            self._made = Driver(self._setting)
        return self._made

    async def check(self) -> Sequence[Diagnostic]:
        if not self._has_pools():
            what = "there is no pool of hosts yet (`argosy pool add NAME --hosts HOST,HOST` makes one)"
            return [Diagnostic(provider=self.manifest.name, ok=True, what=what)]
        return await self.driver().check()

    async def quote(self, want: Want) -> Sequence[Offer]:
        return await self.driver().quote() if self._has_pools() else []

    async def ensure(self, claim: Claim) -> None:
        self._refuse(claim)
        await self.driver().claims.ensure(claim)

    async def observe(self, claim_ids: Sequence[str]) -> Sequence[ClaimFact]:
        return await self.driver().claims.observe(claim_ids) if self._has_pools() else []

    async def release(self, claim_id: str) -> None:
        if self._has_pools():
            await self.driver().claims.release(claim_id)

    async def reach(self, node: Node) -> Channel:
        return await self.driver().claims.reach(node)

    def _refuse(self, claim: Claim) -> None:
        offer = claim.choice.offer
        if offer.provider != self.manifest.name:
            raise border.RequestRefused("provider", f"`{offer.provider}` is no pool of hosts")
        if offer.capacity is Capacity.SPOT:
            raise border.Unsupported("hosts of our own have no spot capacity")
        if len(claim.placements) != claim.count:
            raise border.RequestRefused("placements", "a claim on hosts says which ones")

    # -- hosts that people name (`infra.enlisting.Enlists`) -------------------------------------------------

    async def examine(self, order: HostOrder) -> HostReport:
        return await self.driver().enlisting.examine(order)

    async def enlist(self, orders: Sequence[HostOrder]) -> None:
        await self.driver().enlisting.enlist(orders)

    async def enlisted(self) -> Sequence[HostState]:
        return await self.driver().enlisting.enlisted() if self._has_pools() else []

    async def close(self, hosts: Sequence[str], state: str) -> Sequence[str]:
        return await self.driver().enlisting.close(hosts, state)

    async def dismiss(self, hosts: Sequence[str], *, force: bool) -> Sequence[str]:
        return await self.driver().enlisting.dismiss(hosts, force=force)

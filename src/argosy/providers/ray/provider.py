"""The Ray provider: a claim is one submitted job that holds our agent on each of its nodes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from argosy.infra import border
from argosy.infra.agent_port import Channel
from argosy.infra.provider import Diagnostic, Want
from argosy.infra.several import Several
from argosy.model.facts import ClaimFact
from argosy.model.offer import Capacity, Offer
from argosy.model.phases import Desired
from argosy.model.rows import Claim, Node
from argosy.providers.ray import MANIFEST
from argosy.providers.ray.cluster import Cluster
from argosy.providers.ray.nodes import offers_of
from argosy.providers.ray.settings import read_options
from argosy.providers.ray.states import parse_address


class RayProvider:
    """The clusters that this server uses, by name."""

    def __init__(self, clusters: Mapping[str, Cluster]) -> None:
        self.manifest = MANIFEST
        self._clusters = clusters
        self._all = Several(MANIFEST, lambda: clusters, noun="Ray cluster")

    # -- the six verbs ---------------------------------------------------------------------------------------

    async def check(self) -> Sequence[Diagnostic]:
        if not self._clusters:
            return [
                self._finding(
                    False, "no Ray cluster is known", "set RAY_ADDRESS, or write ray.yaml (docs/ray.md)"
                )
            ]
        return await self._all.findings(self._check)

    def _finding(self, ok: bool, what: str, hint: str = "") -> Diagnostic:
        return Diagnostic(provider=self.manifest.name, ok=ok, what=what, hint=hint)

    async def _check(self, cluster: Cluster) -> list[Diagnostic]:
        def finding(ok: bool, what: str, hint: str = "") -> Diagnostic:
            return self._finding(ok, f"{cluster.name}: {what}", hint)

        try:
            version = await cluster.api.version()
            kinds = await cluster.kinds(0)
        except border.BorderError as error:
            return [
                finding(False, str(error), f"`ray status` on the head node says whether {cluster.name} works")
            ]
        findings = [finding(True, f"Ray {version} answers at {cluster.api.url}")]
        for kind in kinds:
            text = f"{kind.total} nodes {kind.type}, {kind.free} of them free"
            if kind.is_new:
                text = f"its autoscaler can add {kind.total} nodes {kind.type} (ray.yaml)"
            findings.append(finding(True, text))
        if not kinds:
            findings.append(
                finding(
                    False, "no node can hold anything", "add nodes: `ray start --address=HEAD:6379` on each"
                )
            )
        if cluster.trouble:
            findings.append(
                finding(
                    False,
                    f"its autoscaler says: {cluster.trouble}",
                    "`ray status` on the head node shows more",
                )
            )
        if not cluster.api.token() and not cluster.api.is_local:
            findings.append(
                finding(
                    False,
                    "whoever reaches its dashboard can run programs on it: it asks for no token",
                    "start it with RAY_AUTH_MODE=token, and give the token to this server (docs/ray.md)",
                )
            )
        way = await cluster.way()
        return [*findings, finding(True, f"its nodes are reached by {way.value}")]

    async def quote(self, want: Want) -> Sequence[Offer]:
        return await self._all.quote(self._offers)

    async def _offers(self, cluster: Cluster) -> list[Offer]:
        kinds = await cluster.kinds()
        return offers_of(
            kinds,
            provider=self.manifest.name,
            cluster=cluster.name,
            grows=cluster.grows,
            now_ms=cluster.now_ms(),
        )

    async def ensure(self, claim: Claim) -> None:
        cluster = self._all.home_of(claim)
        if claim.choice.offer.capacity is Capacity.SPOT:
            raise border.Unsupported("Ray has no spot capacity")
        if claim.desired is Desired.STOP:
            raise border.Unsupported("a job of Ray cannot rest: it holds its nodes or ends")
        if claim.choice.accelerators_milli % 1000:
            raise border.Unsupported("a node of a Ray cluster gives whole accelerators")
        options = read_options(claim.config, self.manifest.name)
        await self._all.alone(claim.id, cluster.ensure(claim, options))

    async def observe(self, claim_ids: Sequence[str]) -> Sequence[ClaimFact]:
        return await self._all.observe(claim_ids, lambda each: each.facts(claim_ids))

    async def release(self, claim_id: str) -> None:
        await self._all.release(claim_id, at_home=True)

    async def reach(self, node: Node) -> Channel:
        name, region = parse_address(node.address)
        cluster = self._clusters.get(region)
        if cluster is None:
            raise border.Unreachable(f"there is no Ray cluster `{region}`")
        return await cluster.reach(name)

    async def disconnect(self) -> None:
        """Connections go. A later call opens new ones."""
        for cluster in self._clusters.values():
            await cluster.close()

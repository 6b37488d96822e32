"""The Slurm provider: a claim is one job of N nodes that holds our agent on each of them."""

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
from argosy.providers.slurm import MANIFEST
from argosy.providers.slurm.cluster import Cluster
from argosy.providers.slurm.listing import render_time
from argosy.providers.slurm.offers import NodeKind
from argosy.providers.slurm.settings import read_options


class SlurmProvider:
    """The clusters that this server uses, by name."""

    def __init__(self, clusters: Mapping[str, Cluster]) -> None:
        self.manifest = MANIFEST
        self._clusters = clusters
        self._all = Several(MANIFEST, lambda: clusters, noun="Slurm cluster")

    # -- the six verbs ---------------------------------------------------------------------------------------

    async def check(self) -> Sequence[Diagnostic]:
        return await self._all.findings(self._check)

    async def _check(self, cluster: Cluster) -> list[Diagnostic]:
        def finding(ok: bool, what: str, hint: str = "") -> Diagnostic:
            return Diagnostic(provider=self.manifest.name, ok=ok, what=f"{cluster.name}: {what}", hint=hint)

        try:
            major, minor = await cluster.nodes.version()
            kinds = await cluster.nodes.kinds(fresh_s=0)
        except border.BorderError as error:
            return [
                finding(
                    False,
                    str(error),
                    f"run `sinfo` on {cluster.settings.where} to see whether Slurm works there",
                )
            ]
        findings = [finding(True, f"Slurm {major}.{minor:02} answers on {cluster.settings.where}")]
        for name in dict.fromkeys(kind.partition for kind in kinds):
            mine = [kind for kind in kinds if kind.partition == name and not kind.is_any]
            usable, total = sum(kind.usable for kind in mine), sum(kind.total for kind in mine)
            devices = sorted({kind.type for kind in mine if kind.gres})
            text = f"partition {name}: {usable} of {total} nodes up"
            text += "".join(f", {each}" for each in devices) + _limits(mine)
            ok = usable > 0 and mine[0].is_up
            findings.append(
                finding(ok, text, "" if ok else f"`sinfo -p {name} -R` says why; its jobs wait until then")
            )
        return findings + [finding(True, text) for text in await cluster.nodes.ours()]

    async def quote(self, want: Want) -> Sequence[Offer]:
        return await self._all.quote(lambda each: each.nodes.offers(self.manifest.name))

    async def ensure(self, claim: Claim) -> None:
        cluster = self._all.home_of(claim)
        if claim.choice.offer.capacity is Capacity.SPOT:
            raise border.Unsupported(
                "Slurm has no spot capacity; a partition that is preempted is named by `infra`"
            )
        if claim.choice.accelerators_milli % 1000 and not claim.choice.offer.parts:
            raise border.Unsupported(
                "Slurm gives whole accelerators to a job where nodes have no `gres/shard`"
            )
        if claim.desired is Desired.STOP:
            raise border.Unsupported("a job of Slurm cannot rest: it holds its nodes or ends")
        options = read_options(claim.config, self.manifest.name)
        await self._all.alone(claim.id, cluster.ensure(claim, options))

    async def observe(self, claim_ids: Sequence[str]) -> Sequence[ClaimFact]:
        return await self._all.observe(claim_ids, lambda each: each.jobs.facts(claim_ids))

    async def release(self, claim_id: str) -> None:
        await self._all.release(claim_id)

    async def reach(self, node: Node) -> Channel:
        name, _, rest = node.address.partition("/")
        job_id, _, host = rest.partition("/")
        cluster = self._clusters.get(name)
        if cluster is None or not job_id or not host:
            raise border.Unreachable(f"there is no Slurm node {node.address}")
        return await cluster.reach(job_id, host)


def _limits(kinds: Sequence[NodeKind]) -> str:
    """What a partition allows and what its nodes are called, as the end of a sentence."""
    first = kinds[0]
    features = sorted({feature for kind in kinds for feature in kind.features})
    parts = [
        f"a job runs at most {render_time(first.time_limit_s)}" if first.time_limit_s else "",
        f"on at most {first.nodes_max} nodes" if first.nodes_max else "",
        f"features {', '.join(features[:12])}" if features else "",
    ]
    return "".join(f"; {part}" for part in parts if part)

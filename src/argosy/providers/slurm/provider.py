"""The Slurm provider: a claim is one job of N nodes that holds our agent on each of them."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine, Mapping, Sequence
from typing import Any

from argosy.infra import border
from argosy.infra.agent_port import Channel
from argosy.infra.provider import Diagnostic, Want
from argosy.infra.several import LastTold, offers_of_all
from argosy.infra.to_its_end import ToItsEnd
from argosy.infra.tombstones import is_claim_id
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
        self._locks: dict[str, asyncio.Lock] = {}
        self._to_its_end = ToItsEnd()
        self._told = LastTold()

    # -- the six verbs ---------------------------------------------------------------------------------------

    async def check(self) -> Sequence[Diagnostic]:
        found = await asyncio.gather(*(self._check(each) for each in self._clusters.values()))
        return [each for findings in found for each in findings]

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
        """What every cluster has; one that does not answer is left out unless it is the only one."""
        name = self.manifest.name
        return await offers_of_all(list(self._clusters.values()), lambda each: each.nodes.offers(name))

    async def ensure(self, claim: Claim) -> None:
        cluster = self._refuse(claim)
        options = read_options(claim.config, self.manifest.name)
        await self._to_its_end(self._ensure(cluster.ensure(claim, options), claim.id))

    async def observe(self, claim_ids: Sequence[str]) -> Sequence[ClaimFact]:
        asked = [self._facts(cluster, claim_ids) for cluster in self._clusters.values()]
        return [fact for facts in await asyncio.gather(*asked) for fact in facts]

    async def release(self, claim_id: str) -> None:
        if is_claim_id(claim_id):
            await self._to_its_end(self._release(claim_id))

    async def reach(self, node: Node) -> Channel:
        name, _, rest = node.address.partition("/")
        job_id, _, host = rest.partition("/")
        cluster = self._clusters.get(name)
        if cluster is None or not job_id or not host:
            raise border.Unreachable(f"there is no Slurm node {node.address}")
        return await cluster.reach(job_id, host)

    # -- effects ---------------------------------------------------------------------------------------------

    def _refuse(self, claim: Claim) -> Cluster:
        offer = claim.choice.offer
        if not is_claim_id(claim.id):
            raise border.RequestRefused("claim", f"`{claim.id}` is not the id of a claim")
        if offer.provider != self.manifest.name:
            raise border.RequestRefused("provider", f"`{offer.provider}` is not Slurm")
        cluster = self._clusters.get(offer.region)
        if cluster is None:
            known = ", ".join(sorted(self._clusters)) or "none"
            raise border.RequestRefused(
                "infra", f"there is no Slurm cluster `{offer.region}`; known are: {known}"
            )
        if offer.capacity is Capacity.SPOT:
            raise border.Unsupported(
                "Slurm has no spot capacity; a partition that is preempted is named by `infra`"
            )
        if claim.desired is Desired.STOP:
            raise border.Unsupported("a job of Slurm cannot rest: it holds its nodes or ends")
        if claim.count < 1:
            raise border.RequestRefused("num_nodes", "a claim has at least one node")
        return cluster

    async def _ensure(self, work: Coroutine[Any, Any, None], claim_id: str) -> None:
        async with self._locks.setdefault(claim_id, asyncio.Lock()):
            await work

    async def _release(self, claim_id: str) -> None:
        """On every cluster: only they know which of them has it, and each has to remember that it is over."""
        async with self._locks.setdefault(claim_id, asyncio.Lock()):
            await asyncio.gather(*(cluster.release(claim_id) for cluster in self._clusters.values()))
        self._locks.pop(claim_id, None)

    async def _facts(self, cluster: Cluster, claim_ids: Sequence[str]) -> list[ClaimFact]:
        is_only = len(self._clusters) == 1
        return await self._told.facts(cluster.name, claim_ids, cluster.jobs.facts(claim_ids), is_only=is_only)


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

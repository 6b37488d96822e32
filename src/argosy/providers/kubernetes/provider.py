"""The driver of Kubernetes: the contexts that this server uses, and the six verbs over them."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Final

from argosy.infra import border
from argosy.infra.agent_port import Channel
from argosy.infra.provider import Diagnostic, Want
from argosy.infra.several import Several
from argosy.infra.tombstones import Tombstones, is_claim_id
from argosy.model.facts import ClaimFact
from argosy.model.ids import Clock
from argosy.model.offer import Offer
from argosy.model.own_volumes import OwnVolume
from argosy.model.phases import Desired
from argosy.model.resources import Infra
from argosy.model.rows import Claim, Node
from argosy.providers.kubernetes import MANIFEST, volumes
from argosy.providers.kubernetes.api import Api
from argosy.providers.kubernetes.checking import findings_of
from argosy.providers.kubernetes.cluster import Cluster
from argosy.providers.kubernetes.kubeconfig import Context, find_contexts
from argosy.providers.kubernetes.wishes import ContextConfig, read_file

CONTEXTS: Final = "ARGOSY_KUBERNETES_CONTEXTS"


class KubernetesProvider:
    """Clusters by context. Files are read when something is first asked."""

    def __init__(
        self,
        root: Path,
        *,
        environ: Mapping[str, str],
        home: Path,
        clock: Clock,
        zipapp: Callable[[], Path],
        settle_s: float = 3.0,
    ) -> None:
        self.manifest = MANIFEST
        self._root, self._environ, self._home = root, environ, home
        self._clock, self._zipapp, self._settle_s = clock, zipapp, settle_s
        self._known: dict[str, Cluster] | None = None
        self._released = Tombstones(root / ".released")
        self._all = Several(MANIFEST, self._clusters, noun="context in use called")
        self._news = asyncio.Event()

    # -- the six verbs ---------------------------------------------------------------------------------------

    async def check(self) -> Sequence[Diagnostic]:
        try:
            self._clusters()
        except border.BorderError as error:
            fact, _, fix = str(error).partition("; ")
            return [
                Diagnostic(
                    provider=self.manifest.name, ok=False, what=fact, hint=fix or "see docs/kubernetes.md"
                )
            ]
        return await self._all.findings(lambda each: findings_of(each, self.manifest.name))

    async def quote(self, want: Want) -> Sequence[Offer]:
        return await self._all.quote(lambda each: each.capacity.offers(self.manifest.name))

    async def ensure(self, claim: Claim) -> None:
        cluster = self._all.home_of(claim)
        if claim.desired is Desired.STOP:
            raise border.Unsupported("pods cannot rest: they run or go")
        await self._all.alone(claim.id, self._ensure(cluster, claim))
        if claim.desired is Desired.RUN:
            await cluster.settle(claim)

    async def observe(self, claim_ids: Sequence[str]) -> Sequence[ClaimFact]:
        async def facts(cluster: Cluster) -> Sequence[ClaimFact]:
            await cluster.ready()
            return cluster.facts(list(claim_ids))

        return await self._all.observe(claim_ids, facts)

    async def release(self, claim_id: str) -> None:
        if not is_claim_id(claim_id):
            return
        try:
            self._released.add(claim_id)
        except OSError as error:
            raise border.Transient(f"cannot note what is released: {error.strerror or error}", 10) from error
        await self._all.release(claim_id)

    async def reach(self, node: Node) -> Channel:
        context, namespace, pod = ([*node.address.rsplit("/", 2), "", ""])[:3]
        cluster = self._clusters().get(context)
        if cluster is None or not pod:
            raise border.Unreachable(f"there is no pod {node.address}")
        return await cluster.reach(namespace, pod)

    async def changed(self) -> None:
        """Until something of ours has changed."""
        await self._news.wait()

    async def disconnect(self) -> None:
        """End watches and connections."""
        await asyncio.gather(*(each.close() for each in (self._known or {}).values()))

    # -- volumes that stay -----------------------------------------------------------------------------------

    async def make_volume(self, infra: Infra, volume: OwnVolume) -> bool:
        cluster = self._cluster_called(infra)
        return await volumes.make_volume(cluster.api, cluster.namespace, volume)

    async def remove_volume(self, infra: Infra, volume: OwnVolume) -> None:
        cluster = self._cluster_called(infra)
        await volumes.remove_volume(cluster.api, cluster.namespace, volume)

    def _cluster_called(self, infra: Infra) -> Cluster:
        """The first one, where none is named."""
        known = self._clusters()
        found = known.get(infra.region or next(iter(known)))
        if found is None:
            raise border.RequestRefused(
                "infra", f"no context in use is called {infra.region}; in use: {', '.join(known)}"
            )
        return found

    # -- contexts --------------------------------------------------------------------------------------------

    def _clusters(self) -> dict[str, Cluster]:
        """Those that are in use. Raises a border error."""
        if self._known is None:
            configs = read_file(self._home)
            contexts = find_contexts(self._environ)
            text = self._environ.get(CONTEXTS, "")
            names = [part.strip() for part in text.split(",") if part.strip()] or list(configs)
            if names == ["all"] or (not names and not contexts.current):
                names = list(contexts.contexts)
            names = names or [contexts.current]
            missing = [name for name in names if name not in contexts.contexts]
            if missing:
                has = ", ".join(sorted(contexts.contexts))
                raise border.CredentialsRejected(
                    f"the kubeconfig has no context `{missing[0]}`; it has {has}: mend {CONTEXTS} or "
                    "kubernetes.yaml"
                )
            self._known = {name: self._cluster(contexts.contexts[name], configs.get(name)) for name in names}
        return self._known

    def _cluster(self, context: Context, config: ContextConfig | None) -> Cluster:
        return Cluster(
            Api(context, self._environ, self._clock),
            config or ContextConfig(),
            clock=self._clock,
            zipapp=self._zipapp,
            folder=self._root / "namespaces" / context.name.replace("/", "%"),
            changed=self._tell,
            settle_s=self._settle_s,
        )

    def _tell(self) -> None:
        self._news.set()
        self._news = asyncio.Event()

    async def _ensure(self, cluster: Cluster, claim: Claim) -> None:
        if claim.id in self._released:
            raise border.RequestRefused("claim", f"{claim.id} was released before")
        await cluster.ensure(claim)

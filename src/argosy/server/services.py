"""What features are made of, and the questions that several of them ask."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Mapping
from typing import NamedTuple

from argosy.infra.agent_port import AgentDirectory
from argosy.infra.provider import Providers
from argosy.model.access import Caller
from argosy.model.ids import Clock, Ids
from argosy.model.rows import Claim, Workload
from argosy.server.accounts import Accounts
from argosy.server.admission import Admission
from argosy.server.apps.live import LiveApps
from argosy.server.guarding import sees
from argosy.server.housekeeping import Housekeeping
from argosy.server.identity import Identity
from argosy.server.intake import Intake
from argosy.server.log_stream import LogStreams
from argosy.server.naming import cluster_called, split_name
from argosy.server.objects import Objects
from argosy.server.planner import Planner
from argosy.server.ports import Controllers
from argosy.server.pricing import Pricing
from argosy.server.refreshing import Refreshes
from argosy.server.refusals import no_cluster
from argosy.server.tenancy import Tenants
from argosy.server.writing import Writer
from argosy.storage.blobs import BlobStore
from argosy.store.snapshot import Snapshot
from argosy.store.store import Store


class Services(NamedTuple):
    store: Store
    providers: Providers
    intake: Intake
    writer: Writer
    planner: Planner
    admission: Admission
    controllers: Controllers
    agents: AgentDirectory
    streams: LogStreams
    blobs: BlobStore
    objects: Objects
    clock: Clock
    ids: Ids
    pricing: Pricing
    accounts: Accounts
    tenants: Tenants
    refreshes: Refreshes
    housekeeping: Housekeeping
    identity: Identity
    apps: LiveApps
    state_dir: str
    log_file: str
    listening: Callable[[], tuple[tuple[str, ...], str]]  # where, and TLS's certificate in words
    stop: Callable[[], None]

    async def cluster_called(self, name: str, caller: Caller, snapshot: Snapshot) -> Workload:
        """The live cluster that is meant, else the last that had the name. Raises `not-found`, `conflict`."""
        found = cluster_called(snapshot, name, caller)
        if found is None:
            plain, project = split_name(name, caller.project)
            found = await self.store.find_cluster(plain, project=project, finished=True)
        if found is None or not sees(caller, found):
            raise no_cluster(name, snapshot, caller)
        return found

    async def claims_by_owner(self, since_ms: int = 0) -> Mapping[str, list[Claim]]:
        found: defaultdict[str, list[Claim]] = defaultdict(list)
        for claim in await self.store.load_claims(since_ms=since_ms):
            found[claim.workload_id].append(claim)
        return found

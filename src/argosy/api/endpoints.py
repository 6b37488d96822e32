"""The API: every feature's endpoints, as one class that clients inherit and as one table.

The server binds a handler to every row (an unbound row fails a test); `openapi.json` and the reference page
are generated from it.
"""

from __future__ import annotations

from typing import Final

from argosy.api.audit import AuditCalls
from argosy.api.checkpoints import CheckpointCalls
from argosy.api.clusters import ClusterCalls
from argosy.api.costs import CostCalls
from argosy.api.endpoint import AnyEndpoint, endpoints_of
from argosy.api.events import EventCalls
from argosy.api.files import FileCalls
from argosy.api.folders import FolderCalls
from argosy.api.groups import GroupCalls
from argosy.api.hosts import HostCalls
from argosy.api.job_pools import JobPoolCalls
from argosy.api.jobs import JobCalls, LogCalls
from argosy.api.launching import LaunchingCalls
from argosy.api.people import PeopleCalls, SigningInCalls
from argosy.api.planning import PlanningCalls
from argosy.api.pool import PoolCalls
from argosy.api.prices import PriceCalls
from argosy.api.quota import QuotaCalls
from argosy.api.secrets import SecretCalls
from argosy.api.server import ServerCalls
from argosy.api.service_keys import ServiceKeyCalls
from argosy.api.services import ServiceCalls
from argosy.api.sessions import SessionCalls, SessionStreams, SnapshotCalls
from argosy.api.shell import ShellCalls
from argosy.api.storage import StorageCalls


class Calls(
    ServerCalls,
    PlanningCalls,
    LaunchingCalls,
    ClusterCalls,
    JobCalls,
    GroupCalls,
    JobPoolCalls,
    ServiceCalls,
    ServiceKeyCalls,
    SessionCalls,
    SnapshotCalls,
    EventCalls,
    CostCalls,
    PriceCalls,
    QuotaCalls,
    PoolCalls,
    HostCalls,
    FileCalls,
    StorageCalls,
    PeopleCalls,
    SigningInCalls,
    AuditCalls,
    SecretCalls,
    CheckpointCalls,
    FolderCalls,
):
    """Every endpoint but the streams. A new feature is one line here."""


ENDPOINTS: Final[tuple[AnyEndpoint, ...]] = endpoints_of(
    *Calls.__bases__, LogCalls, ShellCalls, SessionStreams
)

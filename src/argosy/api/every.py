"""Every feature's declarations, all loaded: what `rows.py`, documents and type checkers are made of.

Programs use `endpoints`, which loads a feature with its first call.
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
from argosy.api.volumes import VolumeCalls


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
    VolumeCalls,
):
    """Every endpoint but the streams. A new feature is one line here."""


#: Features whose endpoints are streams: clients have methods of their own for them.
STREAMS: Final = (LogCalls, ShellCalls, SessionStreams)
FEATURES: Final[tuple[type, ...]] = (*Calls.__bases__, *STREAMS)
DECLARED: Final[tuple[AnyEndpoint, ...]] = endpoints_of(*FEATURES)

"""One file for each feature of the API: what answers its endpoints. Features do not import each other."""

from __future__ import annotations

from typing import Final

from argosy.server.features.checkpoints import CheckpointFeature
from argosy.server.features.clusters import ClusterFeature
from argosy.server.features.costs import CostFeature
from argosy.server.features.events import EventFeature
from argosy.server.features.files import FileFeature
from argosy.server.features.folders import FolderFeature
from argosy.server.features.groups import GroupFeature
from argosy.server.features.hosts import HostFeature
from argosy.server.features.job_pools import JobPoolFeature
from argosy.server.features.jobs import JobFeature
from argosy.server.features.launching import LaunchingFeature
from argosy.server.features.planning import PlanningFeature
from argosy.server.features.pool import PoolFeature
from argosy.server.features.prices import PriceFeature
from argosy.server.features.quota import QuotaFeature
from argosy.server.features.server import ServerFeature
from argosy.server.features.services import ServiceFeature
from argosy.server.features.session_ways import SessionWays
from argosy.server.features.sessions import SessionFeature
from argosy.server.features.shell import ShellFeature
from argosy.server.features.storage import StorageFeature
from argosy.server.later import later

#: A new feature is one line here.
FEATURES: Final = (
    ServerFeature,
    PlanningFeature,
    LaunchingFeature,
    ClusterFeature,
    JobFeature,
    GroupFeature,
    JobPoolFeature,
    ServiceFeature,
    later("service_keys", "ServiceKeyFeature", "ServiceKeyCalls"),
    SessionFeature,
    SessionWays,
    EventFeature,
    CostFeature,
    PriceFeature,
    QuotaFeature,
    PoolFeature,
    HostFeature,
    FileFeature,
    ShellFeature,
    StorageFeature,
    later("people", "PeopleFeature", "PeopleCalls"),
    later("signing_in", "SigningInFeature", "SigningInCalls"),
    later("audit", "AuditFeature", "AuditCalls"),
    later("secrets", "SecretFeature", "SecretCalls"),
    later("snapshots", "SnapshotFeature", "SnapshotCalls"),
    CheckpointFeature,
    FolderFeature,
    later("volumes", "VolumeFeature", "VolumeCalls"),
)

"""The types of quota and pools under one name."""

from __future__ import annotations

from argosy.api.pool import AttemptView as AttemptView
from argosy.api.pool import DeviceView as DeviceView
from argosy.api.pool import ExplainReply as ExplainReply
from argosy.api.pool import GangView as GangView
from argosy.api.pool import HolderView as HolderView
from argosy.api.pool import MachineView as MachineView
from argosy.api.pool import PoolList as PoolList
from argosy.api.pool import PoolView as PoolView
from argosy.api.pool import ShareView as ShareView
from argosy.api.pool import WaitingView as WaitingView
from argosy.api.quota import QueueExplanation as QueueExplanation
from argosy.api.quota import QueueRequest as QueueRequest
from argosy.api.quota import QueueView as QueueView
from argosy.api.quota import TenancyReply as TenancyReply
from argosy.api.quota import TenancyRequest as TenancyRequest

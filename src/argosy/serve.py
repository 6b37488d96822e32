"""Services, as `argosy.serve`: replicas behind one endpoint, and the revisions that replace each other there.

import argosy as sky

name, endpoint = sky.serve.up(sky.Task.from_yaml("service.yaml"), service_name="chat")
sky.serve.update(sky.Task.from_yaml("service.yaml"), "chat", mode="canary")
"""

from __future__ import annotations

from argosy.client import serving
from argosy.client.blocking import blocking
from argosy.client.records import ReplicaStatus, ServiceStatus
from argosy.client.serving import SkyServiceSpec, UpdateMode

__all__ = [
    "ReplicaStatus",
    "ServiceStatus",
    "SkyServiceSpec",
    "UpdateMode",
    "down",
    "promote",
    "rollback",
    "scale",
    "status",
    "tail_logs",
    "up",
    "update",
]

down = blocking(serving.serve_down)
promote = blocking(serving.serve_promote)
rollback = blocking(serving.serve_rollback)
scale = blocking(serving.serve_scale)
status = blocking(serving.serve_status)
tail_logs = blocking(serving.serve_tail_logs)
up = blocking(serving.serve_up)
update = blocking(serving.serve_update)

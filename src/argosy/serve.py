"""Services, as `argosy.serve`: replicas behind one endpoint, and the revisions that replace each other there.

import argosy as sky

name, endpoint = sky.serve.up(sky.Task.from_yaml("service.yaml"), service_name="chat")
sky.serve.update(sky.Task.from_yaml("service.yaml"), "chat", mode="canary")
"""

from __future__ import annotations

from argosy.client import serving
from argosy.client.blocking import blocking

__all__ = ["down", "promote", "rollback", "scale", "status", "up", "update"]

down = blocking(serving.serve_down)
promote = blocking(serving.serve_promote)
rollback = blocking(serving.serve_rollback)
scale = blocking(serving.serve_scale)
status = blocking(serving.serve_status)
up = blocking(serving.serve_up)
update = blocking(serving.serve_update)

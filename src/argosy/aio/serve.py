"""Services for asyncio, as `argosy.aio.serve`: see `argosy.serve`."""

from __future__ import annotations

from argosy.client import serving
from argosy.client.awaiting import awaiting

__all__ = ["down", "promote", "rollback", "scale", "status", "tail_logs", "up", "update"]

down = awaiting(serving.serve_down)
promote = awaiting(serving.serve_promote)
rollback = awaiting(serving.serve_rollback)
scale = awaiting(serving.serve_scale)
status = awaiting(serving.serve_status)
tail_logs = awaiting(serving.serve_tail_logs)
up = awaiting(serving.serve_up)
update = awaiting(serving.serve_update)

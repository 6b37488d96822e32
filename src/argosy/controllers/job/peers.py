"""Tasks of a job group that start together: each waits until all have nodes, and is told their addresses.
Pure."""

from __future__ import annotations

import re
from collections.abc import Mapping

from argosy.controllers.view import Rows
from argosy.model.kinds.job import job_spec
from argosy.model.rows import Workload

_ALONE: Mapping[str, str] = {}


def peers_of(rows: Rows, job: Workload) -> Mapping[str, str] | None:
    """Variables with the addresses of the group's tasks; None while a task has no nodes yet. Empty for a job
    that starts by itself."""
    member = job_spec(job).member
    if member is None or not member.together or job.parent_id is None:
        return _ALONE
    live = rows.children_of(job.parent_id)
    over = {row.number for row in rows.ends_for(job.parent_id) if row.parent_id == job.parent_id}
    if len(over | {row.number for row in live}) < member.size:
        return None
    found: dict[str, str] = {}
    hosts: list[str] = []
    for row in live:
        attempt = rows.attempt_of(row.id)
        if attempt is None:
            if row.number in over or row.started_ms:
                continue  # it is being run again: the others have begun long ago
            return None
        ips = [rows.nodes[each.node_id].ip for each in attempt.placements if each.node_id in rows.nodes]
        label = re.sub(r"[^A-Z0-9]", "_", row.name.upper())
        found[f"ARGOSY_GROUP_{label}_IPS"] = "\n".join(ips)
        hosts += [f"{ip} {row.name}-{rank}" for rank, ip in enumerate(ips)]
    return found | {"ARGOSY_GROUP_HOSTS": "\n".join(hosts)}

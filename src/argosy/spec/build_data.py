"""From what was read to the model: what is kept of a task's data."""

from __future__ import annotations

from argosy.model.task import CheckpointRules
from argosy.spec.shapes import Section


def build_checkpoints(task: Section) -> CheckpointRules:
    section = task.get("checkpoints", Section)
    if section is None:
        return CheckpointRules()
    return CheckpointRules(
        keep_last=section.get("keep_last", int) or 1, keep_every_s=section.get("keep_every", int) or 0
    )

"""Copies of what managed jobs keep in ARGOSY_CHECKPOINT_DIR."""

from __future__ import annotations

from argosy.api.endpoint import Done, Reply, endpoint
from argosy.model.tree import Tree


class CheckpointView(Reply, frozen=True, kw_only=True):
    """One copy. `id` names it in the other calls."""

    id: str
    at_ms: int
    files: int
    size_bytes: int
    newest: bool  # the next attempt goes on from it


class CheckpointList(Reply, frozen=True, kw_only=True):
    job: str  # its id
    checkpoints: tuple[CheckpointView, ...]  # the newest first
    keep_last: int
    keep_every_s: int  # 0: only the last ones are kept


class CheckpointFiles(Reply, frozen=True, kw_only=True):
    tree: Tree


class CheckpointCalls:
    @endpoint("GET", "/jobs/{job}/checkpoints", permission="jobs.read")
    def checkpoints(self, job: str) -> CheckpointList:
        """Copies of what a managed job keeps, by its number or id. Errors: "not-found"."""

    @endpoint("GET", "/jobs/{job}/checkpoints/{checkpoint}", permission="logs.read")
    def checkpoint_files(self, job: str, checkpoint: str) -> CheckpointFiles:
        """What is in one copy; `newest` names the last one. Errors: "not-found"."""

    @endpoint("GET", "/jobs/{job}/checkpoints/{checkpoint}/chunks/{digest}", permission="logs.read")
    def checkpoint_chunk(self, job: str, checkpoint: str, digest: str) -> bytes:
        """The bytes of one chunk of it. Errors: "not-found"."""

    @endpoint("DELETE", "/jobs/{job}/checkpoints/{checkpoint}", permission="jobs.write")
    def remove_checkpoint(self, job: str, checkpoint: str) -> Done:
        """Forget one copy, or `all` of them. Errors: "not-found"."""

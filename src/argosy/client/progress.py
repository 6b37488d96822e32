"""What sending files says on its way: how far it is, and what it ends with.

Apart from `sending`, so that a client without files to send imports nothing of that.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from argosy.model.task import StorageMount, Task


class Progress(NamedTuple):
    """How far the files of a task are. `total_bytes` 0: not known yet."""

    what: str  # `workdir`, or the target of the mount
    stage: str  # scan | send | done
    files: int
    done_bytes: int
    total_bytes: int


OnProgress = Callable[[Progress], None]


class Sent(NamedTuple):
    """A task whose files the server has."""

    task: Task
    warnings: tuple[str, ...] = ()
    files: int = 0
    sent_bytes: int = 0


def is_local(source: str) -> bool:
    """Whether a mount's source is on the client's disk.

    >>> is_local("~/data"), is_local("s3://bucket/data")
    (True, False)
    """
    return "://" not in source


def is_filled_here(mount: StorageMount) -> bool:
    """Whether a bucket is filled from the client's disk before its task is launched.

    >>> from argosy.model.task import StorageMount
    >>> is_filled_here(StorageMount(target="/d", name="b", sources=("./data",)))
    True
    """
    return bool(mount.name and mount.sources) and all(map(is_local, mount.sources))


def needs_files(task: Task) -> bool:
    """Whether something of `task` has to travel from the client's disk."""
    return bool((task.workdir or task.workdir_git) and not task.workdir_tree) or any(
        mount.tree is None and is_local(mount.source) for mount in task.file_mounts
    )

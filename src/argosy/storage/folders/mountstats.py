"""What Linux counts of each NFS mount (/proc/self/mountstats): calls, bytes, and how long they take. Pure.

It counts by mount: two folders on one export are one line.
"""

from __future__ import annotations

import re
from typing import Final, NamedTuple

_DEVICE: Final = re.compile(r"device (.+) mounted on (.+) with fstype (nfs\d?)\b")
_OPERATION: Final = re.compile(r"\s+([A-Z_0-9]+): ([\d ]+)$")


class Operation(NamedTuple):
    """Calls of one kind. Times are means, in milliseconds."""

    calls: int = 0
    sent: int = 0  # also again
    timeouts: int = 0
    queue_ms: float = 0.0  # until it was sent
    rtt_ms: float = 0.0  # until it was answered


class NfsMount(NamedTuple):
    source: str  # "filer:/export"
    path: str
    read_bytes: int  # from the filer: what the cache answers is not among them
    written_bytes: int
    operations: dict[str, Operation]


def nfs_mount_of(mountstats: str, path: str) -> NfsMount | None:
    """The NFS mount that a path lies on, by the longest of the mount points; None: another file system."""
    best, found = "", None
    for block in re.split(r"(?m)^(?=device )", mountstats):
        line = block.partition("\n")[0]
        point = re.search(r" mounted on (.+) with fstype ", line)
        if point is None or len(point[1]) < len(best):
            continue
        if path == point[1] or path.startswith(point[1].rstrip("/") + "/"):
            best, found = point[1], block
    return _parsed(found) if found is not None else None


def _parsed(block: str) -> NfsMount | None:
    head = _DEVICE.match(block)
    if head is None:
        return None
    moved = re.search(r"(?m)^\s*bytes:\s+([\d ]+)$", block)
    figures = [int(each) for each in moved[1].split()] if moved is not None else []
    # normal read, write; direct read, write; server read, write; pages read, written
    read, written = (figures[4], figures[5]) if len(figures) > 5 else (0, 0)
    operations = {}
    for line in block.partition("per-op statistics")[2].splitlines():
        told = _OPERATION.match(line)
        if told is not None:
            operations[told[1]] = _operation([int(each) for each in told[2].split()])
    return NfsMount(head[1], head[2], read, written, operations)


def _operation(figures: list[int]) -> Operation:
    """Of: calls, sent, timeouts, bytes sent, bytes received, queue, round trip, whole time (ms, summed)."""
    if len(figures) < 8:
        return Operation()
    calls = figures[0]
    means = (figures[5] / calls, figures[6] / calls) if calls else (0.0, 0.0)
    return Operation(calls, figures[1], figures[2], *means)

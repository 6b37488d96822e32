"""How much goes into and out of folders: through this server since it started, and over NFS by the kernel's
own figures."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from argosy.api.folders import FolderView, IoView, NfsView, VolumeView
from argosy.model.exposition import sample
from argosy.model.ids import Clock
from argosy.storage.folders.mountstats import Operation, nfs_mount_of

_MOUNTSTATS: Final = Path("/proc/self/mountstats")


@dataclass
class Flow:
    """Of one folder."""

    reads: int = 0
    read_bytes: int = 0
    writes: int = 0
    written_bytes: int = 0


class FolderTraffic:
    def __init__(self, clock: Clock, mountstats: Path = _MOUNTSTATS) -> None:
        self._flows: dict[str, Flow] = {}  # by folder
        self._mountstats = mountstats
        self.since_ms = clock.now_ms()

    def read(self, folder_id: str, size: int) -> None:
        """One request read so much."""
        flow = self._flows.setdefault(folder_id, Flow())
        flow.reads += 1
        flow.read_bytes += size

    def wrote(self, folder_id: str, size: int) -> None:
        """One request wrote so much; what only makes, renames or removes something writes nothing."""
        flow = self._flows.setdefault(folder_id, Flow())
        flow.writes += 1
        flow.written_bytes += size

    def of(self, *folder_ids: str) -> IoView:
        """Of all of these together."""
        flows = [self._flows[each] for each in folder_ids if each in self._flows]
        return IoView(
            reads=sum(each.reads for each in flows),
            read_bytes=sum(each.read_bytes for each in flows),
            writes=sum(each.writes for each in flows),
            written_bytes=sum(each.written_bytes for each in flows),
            since_ms=self.since_ms,
        )

    async def nfs(self, path: str) -> NfsView | None:
        """What the kernel has counted of the NFS mount that a path lies on; None: it is no NFS."""

        def find() -> NfsView | None:
            try:
                text = self._mountstats.read_text()
            except OSError:
                return None
            mount = nfs_mount_of(text, path)
            if mount is None:
                return None
            nothing = Operation()
            read, write = mount.operations.get("READ", nothing), mount.operations.get("WRITE", nothing)
            every = mount.operations.values()
            return NfsView(
                server=mount.source,
                calls=sum(each.calls for each in every),
                sent_again=sum(max(0, each.sent - each.calls) for each in every),
                timeouts=sum(each.timeouts for each in every),
                read_bytes=mount.read_bytes,
                written_bytes=mount.written_bytes,
                read_ms=read.rtt_ms,
                write_ms=write.rtt_ms,
                waiting_ms=max((each.queue_ms for each in every), default=0.0),
            )

        return await asyncio.to_thread(find)


def prometheus(folders: Iterable[FolderView], volumes: Iterable[VolumeView]) -> bytes:
    """The same for Prometheus, in its text format."""
    folders, volumes = tuple(folders), tuple(volumes)
    lines = list(_table(_FOLDERS, [(_folder_labels(each), _of_folder(each)) for each in folders]))
    lines += _table(_VOLUMES, [({"volume": each.name}, _of_volume(each)) for each in volumes])
    return ("\n".join(lines) + "\n").encode()


#: Name, type, what it is; in the order of the figures.
_FOLDERS: Final = (
    ("argosy_folder_used_bytes", "gauge", "What the folder holds, when it was last counted."),
    ("argosy_folder_quota_bytes", "gauge", "What it may hold; 0: no limit."),
    ("argosy_folder_reads_total", "counter", "Requests that read from it through the server."),
    ("argosy_folder_read_bytes_total", "counter", "Bytes that they read."),
    ("argosy_folder_writes_total", "counter", "Requests that changed it through the server."),
    ("argosy_folder_written_bytes_total", "counter", "Bytes that they wrote."),
)
_VOLUMES: Final = (
    ("argosy_volume_free_bytes", "gauge", "What is free."),
    ("argosy_volume_size_bytes", "gauge", "Its size."),
    ("argosy_volume_read_bytes_total", "counter", "Bytes read through the server."),
    ("argosy_volume_written_bytes_total", "counter", "Bytes written through the server."),
    ("argosy_volume_nfs_calls_total", "counter", "Calls to the filer."),
    ("argosy_volume_nfs_sent_again_total", "counter", "Calls that were sent again."),
    ("argosy_volume_nfs_read_bytes_total", "counter", "Bytes read from the filer."),
    ("argosy_volume_nfs_written_bytes_total", "counter", "Bytes written to the filer."),
    ("argosy_volume_nfs_read_ms", "gauge", "A read's mean time on the way, in milliseconds."),
    ("argosy_volume_nfs_write_ms", "gauge", "A write's mean time on the way, in milliseconds."),
)


def _of_folder(each: FolderView) -> tuple[float | None, ...]:
    io = each.io or IoView()
    flows = (io.reads, io.read_bytes, io.writes, io.written_bytes)
    return (each.used_bytes, each.quota_bytes, *flows)


def _of_volume(each: VolumeView) -> tuple[float | None, ...]:
    io, nfs = each.io or IoView(), each.nfs
    through = (each.free_bytes, each.total_bytes, io.read_bytes, io.written_bytes)
    if nfs is None:
        return (*through, *(None,) * 6)
    figures = (nfs.calls, nfs.sent_again, nfs.read_bytes, nfs.written_bytes, nfs.read_ms, nfs.write_ms)
    return (*through, *figures)


def _table(
    names: tuple[tuple[str, str, str], ...], rows: list[tuple[dict[str, str], tuple[float | None, ...]]]
) -> Iterator[str]:
    for at, (name, kind, what) in enumerate(names):
        found = [
            sample(name, labels, figure) for labels, figures in rows if (figure := figures[at]) is not None
        ]
        if found:
            yield f"# HELP {name} {what}"
            yield f"# TYPE {name} {kind}"
            yield from found


def _folder_labels(each: FolderView) -> dict[str, str]:
    return {"folder": each.name, "id": each.id, "project": each.project, "volume": each.volume}

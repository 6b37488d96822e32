"""Facts about the machine, from /proc, cgroups and the drivers."""

from __future__ import annotations

import os
import socket
import sys

from argosy import __version__
from argosy.agent import devices
from argosy.agent.cgroups import Cgroups, Place, read_text

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator


def boot_id() -> str:
    return read_text("/proc/sys/kernel/random/boot_id").strip()


def _up(folder: str) -> Iterator[str]:
    """A cgroup's folder and those above it; limits of all of them hold."""
    while folder.startswith("/sys/fs/cgroup") and folder != "/sys/fs":
        yield folder
        folder = os.path.dirname(folder)


def cpus_milli(place: Place) -> int:
    """CPUs that we may use: affinity and quota."""
    try:
        limit = 1000 * len(os.sched_getaffinity(0))
    except OSError:
        limit = 1000 * (os.cpu_count() or 1)
    for folder in _up(place.v2[0]) if place.v2 else ():
        quota, _, period = read_text(folder + "/cpu.max").strip().partition(" ")
        if quota.isdigit() and period.isdigit():
            limit = min(limit, 1000 * int(quota) // int(period))
    for folder in _up(place.v1["cpu"][0]) if "cpu" in place.v1 else ():
        quota, period = (
            read_text(folder + "/cpu.cfs_quota_us").strip(),
            read_text(folder + "/cpu.cfs_period_us").strip(),
        )
        if quota.isdigit() and period.isdigit():
            limit = min(limit, 1000 * int(quota) // int(period))
    return max(limit, 1)


def memory_bytes(place: Place) -> tuple[int, int]:
    """Memory that we may use, and how much of it is used."""
    info = {}
    for line in read_text("/proc/meminfo").splitlines():
        name, _, value = line.partition(":")
        fields = value.split()
        info[name] = int(fields[0]) * 1024 if fields and fields[0].isdigit() else 0
    total = info.get("MemTotal", 0)
    used = total - info.get("MemAvailable", total)
    limits = []
    if place.v2:
        limits += [(f, "/memory.max", "/memory.current") for f in _up(place.v2[0])]
    if "memory" in place.v1:
        limits += [
            (f, "/memory.limit_in_bytes", "/memory.usage_in_bytes") for f in _up(place.v1["memory"][0])
        ]
    for folder, maximum, current in limits:
        text = read_text(folder + maximum).strip()
        if text.isdigit() and int(text) < total:
            total = int(text)
            now = read_text(folder + current).strip()
            used = int(now) if now.isdigit() else used
    return total, used


def own_ip() -> str:
    """The address from which this machine would talk to others; nothing is sent."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        try:
            probe.connect(("192.0.2.1", 9))
            return str(probe.getsockname()[0])
        except OSError:
            return "127.0.0.1"


class Node:
    """This node: the machine, or the part of it that `own_devices` (indices; None: all) leaves to it."""

    def __init__(self, root: str, name: str = "", own_devices: list[int] | None = None) -> None:
        self.name = name or socket.gethostname()
        self._root = root
        self._own = own_devices
        self._place = Place(read_text("/proc/self/cgroup"), read_text("/proc/self/mountinfo"))
        self._devices: list[dict[str, object]] = []
        groups = Cgroups("probe", self._place)
        self._static: dict[str, object] = {
            "hostname": self.name,
            "arch": os.uname().machine,
            "cpus_milli": cpus_milli(self._place),
            "ip": own_ip(),
            "boot_id": boot_id(),
            "agent_version": __version__,
            "python": "%d.%d.%d" % sys.version_info[:3],
            "can_limit_pids": groups.can_limit_pids,
            "can_limit_memory": groups.can_limit_memory,
        }

    def discover_devices(self) -> None:
        """May take seconds on a machine whose driver sleeps."""
        self._devices = devices.discover()

    @property
    def has_devices(self) -> bool:
        return bool(self._devices)

    def sample_devices(self) -> None:
        devices.sample(self._devices)

    def visible(self, indices: list[int]) -> str | None:
        """CUDA_VISIBLE_DEVICES for a rank with these devices; None when the machine has none to hide."""
        if not indices:
            return "" if self._devices else None
        uuids = {device["index"]: str(device.get("uuid", "")) for device in self._devices}
        return ",".join(uuids.get(index) or str(index) for index in indices)

    def facts(self) -> dict[str, object]:
        """NodeFacts."""
        facts = dict(self._static)
        total, used = memory_bytes(self._place)
        facts["memory_bytes"] = total
        facts["memory_used_bytes"] = used
        try:
            disk = os.statvfs(self._root)
            facts["disk_free_bytes"] = disk.f_bavail * disk.f_frsize
        except OSError:
            pass
        load = read_text("/proc/loadavg").split()
        facts["load_milli"] = int(float(load[0]) * 1000) if load else 0
        facts["devices"] = [
            dict(device) for device in self._devices if self._own is None or device["index"] in self._own
        ]
        return facts

"""Facts about the machine, from /proc, cgroups and the drivers."""

from __future__ import annotations

import json
import os
import socket
import sys
import threading

from argosy import __version__
from argosy.agent import devices, levels, programs
from argosy.agent.cgroups import Cgroups, Place, here, read_text
from argosy.agent.rank import warn

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator


_names: dict[int, str] = {}  # of users; where a directory service knows them, to ask takes long


def user_name() -> str:
    """Whose process this is; "" for a number without a name, as in some containers."""
    import pwd

    user = os.geteuid()
    if user not in _names:
        try:
            _names[user] = pwd.getpwuid(user).pw_name
        except KeyError:
            _names[user] = ""
    return _names[user]


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


_MPS_CAPABILITY = 7  # Volta: from here on clients have address spaces of their own
_MPS_MODES = (0, 3)  # compute modes `default` and `exclusive process`


def settings(root: str) -> dict[str, object]:
    """What people say about this node: labels, taints, domains (NodeFacts), mig ("manage": we may make and
    remove MIG instances). From ARGOSY_NODE_FILE, else `node.json` in the agent's root, else
    /etc/argosy/node.json; each single value rather from ARGOSY_NODE_LABELS=k=v,…, ARGOSY_NODE_TAINTS=a,b,
    ARGOSY_NODE_DOMAINS=block/rack/leaf, ARGOSY_MIG. What cannot be read is left out with a warning."""
    named = os.environ.get("ARGOSY_NODE_FILE")
    found: dict[str, object] = {}
    for path in [named] if named else [root + "/node.json", "/etc/argosy/node.json"]:
        text = read_text(path)
        if text:
            try:
                found = dict(json.loads(text))
            except (ValueError, TypeError) as error:
                warn("%s is not a JSON object: %s" % (path, error))
            break
    labels = found.get("labels")
    pairs = [(str(k), str(v)) for k, v in labels.items()] if isinstance(labels, dict) else []
    if "ARGOSY_NODE_LABELS" in os.environ:
        pairs = []
        for item in filter(None, os.environ["ARGOSY_NODE_LABELS"].split(",")):
            key, _, value = item.partition("=")
            pairs.append((key.strip(), value.strip()))

    def words(name: str, separator: str) -> list[str]:
        listed = found.get(name)
        given = os.environ.get("ARGOSY_NODE_" + name.upper())
        if given is not None:
            return [word.strip() for word in given.split(separator) if word.strip()]
        return [str(word) for word in listed] if isinstance(listed, list) else []

    return {
        "labels": sorted(pairs),
        "taints": words("taints", ","),
        "domains": words("domains", "/"),
        "mig": os.environ.get("ARGOSY_MIG", str(found.get("mig", ""))),
    }


class Node:
    """This node: the machine, or the part of it that `own_devices` (indices; None: all) leaves to it."""

    def __init__(self, root: str, name: str = "", own_devices: list[int] | None = None) -> None:
        self.name = name or socket.gethostname()
        self._root = root
        self._own = own_devices
        self.place = here()
        self._devices: list[dict[str, object]] = []
        self.notice: dict[str, object] | None = None  # of its own end
        self._unused: list[dict[str, str]] = []
        self._levels: tuple[list[str], dict[str, str]] | None = None
        self._looking = threading.Lock()
        #: What agents of this user share: MPS daemons, MIG instances.
        self.shares_base = os.environ.get("ARGOSY_SHARES_DIR") or "/tmp/argosy-shares-%d" % os.geteuid()
        groups = Cgroups("probe", self.place)
        told = settings(root)
        self.manages_mig = told.pop("mig") == "manage"
        self._static: dict[str, object] = {
            "hostname": self.name,
            "arch": os.uname().machine,
            "cpus_milli": cpus_milli(self.place),
            "ip": own_ip(),
            "boot_id": boot_id(),
            "agent_version": __version__,
            "user": user_name(),
            "python": "%d.%d.%d" % sys.version_info[:3],
            "can_limit_pids": groups.can_limit_pids,
            "can_limit_memory": groups.can_limit_memory,
            "leases": True,
        }
        self._static.update((name, value) for name, value in told.items() if value)

    def discover_devices(self) -> None:
        """May take seconds on a machine whose driver sleeps."""
        self._devices = devices.discover()
        self._unused = devices.unused(self._devices)

    @property
    def may_have_devices(self) -> bool:
        """Whether there is a sign of accelerators; then to discover them may take long."""
        return devices.has_signs()

    def knows_levels(self) -> bool:
        """Whether `levels` answers at once: here, or in a note of this machine, somebody has found them."""
        if self._levels is None:
            self._keep_levels(levels.remembered(self.shares_base))
        return self._levels is not None

    def _keep_levels(self, found: levels.Levels | None) -> None:
        self._levels = found
        if found is not None:
            self._static["isolation"] = found[0]
            self._static["isolation_gaps"] = sorted(found[1].items())

    def levels(self) -> tuple[list[str], dict[str, str]]:
        """How well sessions can be kept apart here, and why not better."""
        with self._looking:
            if self._levels is None:
                self._keep_levels(levels.levels(self.shares_base))
            assert self._levels is not None
            return self._levels

    @property
    def has_devices(self) -> bool:
        return bool(self._devices)

    def sample_devices(self) -> None:
        devices.sample(self._devices)

    def device(self, index: int) -> dict[str, object] | None:
        """The device with this index, also one that is not ours."""
        return next((device for device in self._devices if device["index"] == index), None)

    def instances_of(self, card: int) -> list[dict[str, object]]:
        """MIG instances of a card."""
        return [device for device in self._devices if device.get("mig_parent") == card]

    def why_not_mps(self, device: dict[str, object]) -> str:
        """Why MPS cannot share this device; "" when it can."""
        if device.get("_mig") is True:
            return "it is in MIG mode and can be used by its instances only; run `nvidia-smi -mig 0`"
        if device["vendor"] != "nvidia":
            return (
                "MPS is NVIDIA's; ask for whole devices, or for turns (`isolation: none`) where it has them"
            )
        capability = int(str(device.get("_capability", 0)))
        if capability < _MPS_CAPABILITY:
            return "MPS keeps memory apart from Volta on, and this is %s" % (device["name"] or "unknown")
        if device["_mode"] not in _MPS_MODES:
            return "its compute mode forbids it; run `nvidia-smi -c DEFAULT`"
        if not programs.find("nvidia-cuda-mps-control"):
            return "nvidia-cuda-mps-control is not installed; it comes with the driver (package nvidia-compute-utils)"  # noqa: E501
        return ""

    def made_here(self, instance: dict[str, object]) -> bool:
        """Is it a MIG instance that an agent of this user made?"""
        number = int(str(instance["index"])) % 1000 // 10
        return os.path.exists("%s/mig-%s-%d" % (self.shares_base, instance["mig_parent"], number))

    def divides(self, card: dict[str, object]) -> bool:
        """May we make instances on this card? It is in MIG mode, we are allowed to, and people have made
        none."""
        return (
            self.manages_mig
            and card.get("_mig") is True
            and all(map(self.made_here, self.instances_of(int(str(card["index"])))))
        )

    def _offered(self) -> list[dict[str, object]]:
        """Our devices. Of a card in MIG mode either the card, to be divided as needed, or the instances that
        people have made; never what agents made on the way, which is in use."""
        return [
            device
            for device in self._devices
            if (self._own is None or device["index"] in self._own or device.get("mig_parent") in self._own)
            and not ("mig_profile" in device and self.made_here(device))
            and not (device.get("_mig") is True and not self.divides(device))
        ]

    def _sharing(self, offered: list[dict[str, object]]) -> list[str]:
        """How each card can be shared; people's MIG instances are devices of their own and do not count."""
        cards = [device for device in offered if "mig_profile" not in device]
        if cards and all(map(self.divides, cards)):
            return ["mig"]
        return ["mps"] if cards and not any(map(self.why_not_mps, cards)) else []

    def visible(self, indices: list[int]) -> dict[str, str]:
        """The variables that show a rank just these devices; {} when the machine has none to hide."""
        return devices.visible(self._devices, indices)

    def facts(self) -> dict[str, object]:
        """NodeFacts."""
        facts = dict(self._static)
        total, used = memory_bytes(self.place)
        facts["memory_bytes"] = total
        facts["memory_used_bytes"] = used
        try:
            disk = os.statvfs(self._root)
            facts["disk_free_bytes"] = disk.f_bavail * disk.f_frsize
        except OSError:
            pass
        if self.notice is not None:
            facts["notice"] = self.notice
        load = read_text("/proc/loadavg").split()
        facts["load_milli"] = int(float(load[0]) * 1000) if load else 0
        offered = self._offered()
        facts["devices"] = [{k: v for k, v in device.items() if k[0] != "_"} for device in offered]
        if self._unused:
            facts["unused_devices"] = self._unused
        sharing = self._sharing(offered)
        if sharing:
            facts["sharing"] = sharing
        return facts

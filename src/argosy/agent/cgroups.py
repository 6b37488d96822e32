"""Limits on processes and memory of a rank, where the kernel lets us: cgroup v2 when it is delegated, else
v1.

We make cgroups only where they are ours to make: below our own cgroup in v2 (or beside it, when the parent is
delegated to us), and in v1 only when we are not inside somebody else's group. Slurm, Docker and others clean
up the groups that they made and would stumble over ours.
"""

from __future__ import annotations

import os
import socket
import time

_CONTROLLERS = ("pids", "memory")
_MAY_HAVE = (*_CONTROLLERS, "cpu")
_V1_FILES = {"pids": "/pids.max", "memory": "/memory.limit_in_bytes", "cpu": "/cpu.cfs_quota_us"}
_PERIOD_US = 100_000  # of a limit on processors
_YOUNG_S = 60.0  # a folder so young may wait for its first process


def read_text(path: str) -> str:
    """The file's text, or "" when it cannot be read."""
    try:
        with open(path, encoding="utf-8", errors="replace") as file:
            return file.read()
    except OSError:
        return ""


def _write(path: str, text: str) -> bool:
    try:
        with open(path, "w", encoding="ascii") as file:
            file.write(text)
        return True
    except OSError:
        return False


def _owned(folder: str) -> bool:
    return os.access(folder, os.W_OK) and os.access(folder + "/cgroup.procs", os.W_OK)


class Place:
    """Where this process stands: for each controller its own cgroup's folder, and whether it is the tree's
    top."""

    def __init__(self, self_cgroup: str, mountinfo: str) -> None:
        own = {}
        for line in self_cgroup.splitlines():
            _, controllers, where = line.split(":", 2)
            for name in controllers.split(","):
                own[name] = where
        self.v1: dict[str, tuple[str, bool]] = {}
        self.v2: tuple[str, bool] | None = None
        for line in mountinfo.splitlines():
            left, _, right = line.partition(" - ")
            fields, kind = left.split(), right.split()
            if len(fields) < 5 or not kind or kind[0] not in ("cgroup", "cgroup2"):
                continue
            root, mount = fields[3], fields[4]
            names = [""] if kind[0] == "cgroup2" else kind[-1].split(",")
            for name in names:
                if name not in own:
                    continue
                path = own[name]
                if root != "/" and path.startswith(root):
                    path = path[len(root) :]
                below = path.strip("/")
                folder = mount + "/" + below if below else mount
                if name == "":
                    self.v2 = (folder, not below)
                else:
                    self.v1[name] = (folder, not below)


_here: list[Place] = []


def here() -> Place:
    """Where this process stands, as it was seen first: by who forked it, perhaps."""
    if not _here:
        _here.append(Place(read_text("/proc/self/cgroup"), read_text("/proc/self/mountinfo")))
    return _here[0]


class Cgroups:
    """Cgroups of ranks. `tag` keeps two agents on one machine apart."""

    def __init__(self, tag: str, place: Place | None = None) -> None:
        place = place or here()
        self._tag = tag
        self._sign = _sign_of(tag)  # held as long as we live
        self._v2 = ""  # the folder in which v2 groups are made
        self._v2_ready = False
        self._v1: dict[str, str] = {}
        v2_controllers: set[str] = set()
        if place.v2 is not None:
            own, _ = place.v2
            parent = os.path.dirname(own)
            if _owned(own):
                self._v2 = own
                v2_controllers = set(read_text(own + "/cgroup.controllers").split())
            if not v2_controllers.intersection(_CONTROLLERS) and _owned(parent):
                self._v2 = parent
                v2_controllers = set(read_text(parent + "/cgroup.subtree_control").split())
        self._v2_controllers = v2_controllers
        for name in _MAY_HAVE:
            folder, at_top = place.v1.get(name, ("", False))
            if folder and at_top and name not in v2_controllers and _owned(folder):
                self._v1[name] = folder
        self.can_limit_pids = "pids" in v2_controllers or "pids" in self._v1
        self.can_limit_memory = "memory" in v2_controllers or "memory" in self._v1
        self.can_limit_cpu = "cpu" in v2_controllers or "cpu" in self._v1

    def sweep(self, used: set[str]) -> None:
        """Remove what is left of ranks that are gone: our own, and those of agents that are gone, too. The
        kernel keeps what has processes in it."""
        for parent in {self._v2, *self._v1.values()} - {""}:
            try:
                names = [name for name in os.listdir(parent) if name.startswith("argosy-")]
            except OSError:
                continue
            for name in names:
                folder, tag = parent + "/" + name, "-".join(name.split("-")[1:3])
                if folder in used or (tag != self._tag and _lives(tag, folder)):
                    continue
                remove([folder])

    def _prepare_v2(self) -> bool:
        """Switch the controllers on for our children. The kernel wants a group with children to hold no
        process itself, so we step aside first; that fails when others share our group, and then there are no
        limits."""
        if self._v2_ready:
            return True
        wanted = self._v2_controllers.intersection(_MAY_HAVE)
        control = self._v2 + "/cgroup.subtree_control"
        if not wanted.issubset(read_text(control).split()):
            text = " ".join("+" + name for name in sorted(wanted))
            if not _write(control, text):
                aside = "%s/argosy-%s-agent" % (self._v2, self._tag)
                try:
                    os.makedirs(aside, exist_ok=True)
                except OSError:
                    return False
                if not (_write(aside + "/cgroup.procs", "0") and _write(control, text)):
                    return False
        self._v2_ready = True
        return True

    def create(self, rank_id: str, pids_max: int, memory_bytes: int, cpus_milli: int = 0) -> list[str]:
        """Make the groups that these limits need (0: none) and return their folders. A limit that the kernel
        does not let us set is left out."""
        name = "argosy-%s-%s" % (self._tag, rank_id)
        wanted = {}
        if pids_max:
            wanted["pids"] = str(pids_max + 1)  # the wrapper is not the user's
        if memory_bytes:
            wanted["memory"] = str(memory_bytes)
        if cpus_milli:
            wanted["cpu"] = str(max(1, cpus_milli * _PERIOD_US // 1000))
        folders: list[str] = []
        in_v2 = {key: value for key, value in wanted.items() if key in self._v2_controllers}
        if in_v2 and self._prepare_v2():
            folder = self._v2 + "/" + name
            if self._make(folder):
                for key, value in in_v2.items():
                    amount = "%s %d" % (value, _PERIOD_US) if key == "cpu" else value
                    _write("%s/%s.max" % (folder, key), amount)
                if "memory" in in_v2:
                    _write(folder + "/memory.swap.max", "0")
                    _write(folder + "/memory.oom.group", "0")
                folders.append(folder)
        for key, value in wanted.items():
            if key in self._v1:
                folder = self._v1[key] + "/" + name
                if self._make(folder):
                    if key == "cpu":
                        _write(folder + "/cpu.cfs_period_us", str(_PERIOD_US))
                    _write(folder + _V1_FILES[key], value)
                    if key == "memory":
                        _write(folder + "/memory.memsw.limit_in_bytes", value)
                    folders.append(folder)
        return folders

    @staticmethod
    def _make(folder: str) -> bool:
        try:
            os.makedirs(folder, exist_ok=True)
            return True
        except OSError:
            return False


def _sign_of(tag: str) -> socket.socket | None:
    """A sign of life that goes with its process: None when somebody else holds it."""
    sign = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        sign.bind("\0argosy-agent-" + tag)
        return sign
    except OSError:
        sign.close()
        return None


def _lives(tag: str, folder: str) -> bool:
    """Whether the agent that made the folder is there, or may be about to be."""
    sign = _sign_of(tag)
    if sign is None:
        return True
    sign.close()
    try:
        return time.time() - os.stat(folder).st_mtime < _YOUNG_S
    except OSError:
        return True


def members(folders: list[str]) -> set[int]:
    found: set[int] = set()
    for folder in folders:
        found.update(int(line) for line in read_text(folder + "/cgroup.procs").split())
    return found


def ran_out_of_memory(folders: list[str]) -> bool:
    """Has the kernel killed a process of these groups because their memory limit was reached?"""
    for folder in folders:
        for line in (
            read_text(folder + "/memory.events") + "\n" + read_text(folder + "/memory.oom_control")
        ).splitlines():
            if line.startswith("oom_kill ") and int(line.split()[1]) > 0:
                return True
    return False


def remove(folders: list[str]) -> bool:
    """True when none is left."""
    gone = True
    for folder in folders:
        try:
            os.rmdir(folder)
        except FileNotFoundError:
            pass
        except OSError:
            gone = False
    return gone

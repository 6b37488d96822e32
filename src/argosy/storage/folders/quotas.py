"""Quotas that a file system holds itself: of a subvolume (btrfs), of a project (ext4, xfs).

There a write beyond the limit fails, whoever writes (but on ext4 root, who is above all limits: what we
write ourselves is written without that right), and what a folder holds is known without a scan. All need
root. Elsewhere a quota is counted by us.
"""

from __future__ import annotations

import ctypes
import errno
import fcntl
import os
import re
import shutil
import struct
import subprocess
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final, NamedTuple

_GET_ATTR: Final = 0x801C581F  # ioctl FS_IOC_FSGETXATTR
_SET_ATTR: Final = 0x401C5820  # ioctl FS_IOC_FSSETXATTR
_ATTR: Final = struct.Struct("=5I8x")  # flags, extent size, extents, project, size of shared extents
_INHERIT: Final = 0x200  # what is made in the folder belongs to its project
_GET_QUOTA: Final = 0x5803  # quotactl Q_XGETQUOTA
_SET_LIMIT: Final = 0x5804  # quotactl Q_XSETQLIM
_PROJECT: Final = 2  # quotactl PRJQUOTA
_QUOTACTL_FD: Final = 443  # the number of the system call, on every architecture
#: version, of what, which fields, project; hard and soft limit of blocks, of files; blocks, files; the rest.
_LIMITS: Final = struct.Struct("=bbHI6Q56x")
_LIMITS_GIVEN: Final = 0b1100  # both limits of blocks
_BLOCK: Final = 512
_CAPABILITIES: Final = 0x20080522  # the version of their sets
_ABOVE_LIMITS: Final = 1 << 24  # CAP_SYS_RESOURCE
_PROBES: Final = 64


class Mount(NamedTuple):
    """What a path lies on."""

    kind: str  # "btrfs", "ext4", "xfs", …
    source: str  # the device
    options: frozenset[str]


def mount_of(path: Path) -> Mount:
    """By the longest mount point above it; kind "" where that is not told."""
    real, best, found = os.path.realpath(path), "", Mount("", "", frozenset())
    try:
        lines = Path("/proc/self/mountinfo").read_text().splitlines()
    except OSError:
        return found
    for line in lines:
        left, _, right = line.partition(" - ")
        point = re.sub(r"\\([0-7]{3})", lambda code: chr(int(code[1], 8)), left.split()[4])
        if len(point) >= len(best) and (real == point or real.startswith(point.rstrip("/") + "/")):
            kind, source, options = right.split()[:3]
            best, found = (
                point,
                Mount(kind, source, frozenset((*left.split()[5].split(","), *options.split(",")))),
            )
    return found


def kind_of(path: Path) -> str:
    """The file system that can hold a quota of a folder there: "btrfs", "ext4", "xfs"; "": none."""
    mount = mount_of(path)
    if mount.kind == "btrfs":
        return "btrfs" if shutil.which("btrfs") is not None else ""
    if mount.kind in ("ext4", "xfs") and mount.options & {"prjquota", "pquota"}:
        return mount.kind
    return ""


def limit_folder(path: Path, quota_bytes: int) -> str:
    """Set the limit of a folder that exists; 0: none. Returns the file system that holds it, "" for none."""
    kind = kind_of(path)
    if kind == "btrfs":
        held = _limit_subvolume(path, quota_bytes)
    else:
        held = bool(kind) and _limit_project(path, quota_bytes)
    return kind if held and quota_bytes else ""


def used_bytes(path: Path) -> int | None:
    """What the file system says that a folder holds; None: it does not count."""
    kind = kind_of(path)
    if kind == "btrfs":
        done = subprocess.run(
            ("btrfs", "qgroup", "show", "--raw", "--sync", "-f", str(path)), capture_output=True, check=False
        )
        found = re.search(rb"(?m)^0/\d+\s+(\d+)", done.stdout)
        return int(found[1]) if found else None
    project = _project_of(path) if kind else 0
    try:
        return _quota(path, project) if project else None
    except OSError:
        return None


def join_folder(fd: int, folder: Path) -> None:
    """A file that lies elsewhere on the volume counts for the folder it will go to, and can be renamed into
    it. Where there are no projects, nothing is done."""
    if mount_of(folder).kind not in ("ext4", "xfs"):
        return
    project = _project_of(folder)
    if project:
        try:
            _set_project(fd, project, inherit=False)
        except OSError:
            pass  # it is copied, then, in place of renamed


@contextmanager
def as_everybody() -> Iterator[None]:
    """Writes of this thread are held to quotas, also when it is root's: without CAP_SYS_RESOURCE."""
    if os.geteuid():
        yield
        return
    libc = ctypes.CDLL(None, use_errno=True)
    head = (ctypes.c_uint32 * 2)(_CAPABILITIES, 0)
    sets = (ctypes.c_uint32 * 6)()
    if libc.capget(head, sets):
        yield
        return
    had = sets[0]
    sets[0] = had & ~_ABOVE_LIMITS
    changed = sets[0] != had and libc.capset(head, sets) == 0
    try:
        yield
    finally:
        if changed:
            sets[0] = had
            libc.capset(head, sets)


# -- subvolumes ---------------------------------------------------------------------------------------


def _limit_subvolume(path: Path, quota_bytes: int) -> bool:
    if (
        quota_bytes
        and not _ran("btrfs", "qgroup", "show", str(path))
        and not _ran("btrfs", "quota", "enable", str(path))
    ):
        return False
    return _ran("btrfs", "qgroup", "limit", str(quota_bytes) if quota_bytes else "none", str(path))


def _ran(*command: str) -> bool:
    return subprocess.run(command, capture_output=True, check=False).returncode == 0


# -- projects -----------------------------------------------------------------------------------------


def _limit_project(path: Path, quota_bytes: int) -> bool:
    try:
        project = _project_of(path) or (_begin_project(path) if quota_bytes else 0)
        if project:
            blocks = quota_bytes // _BLOCK
            limits = _LIMITS.pack(1, _PROJECT, _LIMITS_GIVEN, project, blocks, blocks, 0, 0, 0, 0)
            _quotactl(path, _SET_LIMIT, project, bytearray(limits))
        return bool(project)
    except OSError:
        return False


def _begin_project(path: Path) -> int:
    """The folder and all in it belong to a project of their own from now on. 0: its volume belongs to one
    already. Raises OSError."""
    if _attributes(path.parent)[0] & _INHERIT:
        return 0
    project = zlib.crc32(os.fsencode(path.name)) | 1 << 30
    for _ in range(_PROBES):
        if not _is_taken(path, project):
            break
        project += 1
    for folder, fd in _all_below(path):
        _set_project(fd, project, inherit=folder)
    return project


def _is_taken(path: Path, project: int) -> bool:
    try:
        limits = _LIMITS.unpack(_quotactl(path, _GET_QUOTA, project, bytearray(_LIMITS.size)))
    except FileNotFoundError:
        return False
    return any(limits[4:10])


def _quota(path: Path, project: int) -> int:
    blocks: int = _LIMITS.unpack(_quotactl(path, _GET_QUOTA, project, bytearray(_LIMITS.size)))[8]
    return blocks * _BLOCK


def _all_below(path: Path) -> Iterator[tuple[bool, int]]:
    """Whether it is a folder, and a descriptor that is good until the next one; nothing through links."""
    flags = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
    for _, _, files, at in os.fwalk(path):
        yield True, at
        for name in files:
            try:
                fd = os.open(name, flags, dir_fd=at)
            except OSError:
                continue  # a link, a socket: nothing that takes blocks
            try:
                yield False, fd
            finally:
                os.close(fd)


def _attributes(path: Path) -> tuple[int, ...]:
    fd = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    try:
        return _ATTR.unpack(fcntl.ioctl(fd, _GET_ATTR, bytes(_ATTR.size)))
    finally:
        os.close(fd)


def _project_of(path: Path) -> int:
    try:
        return _attributes(path)[3]
    except OSError:
        return 0


def _set_project(fd: int, project: int, *, inherit: bool) -> None:
    flags, extent, extents, _, shared = _ATTR.unpack(fcntl.ioctl(fd, _GET_ATTR, bytes(_ATTR.size)))
    flags |= _INHERIT if inherit else 0
    fcntl.ioctl(fd, _SET_ATTR, _ATTR.pack(flags, extent, extents, project, shared))


def _quotactl(path: Path, command: int, project: int, into: bytearray) -> bytes:
    """Raises OSError."""
    buffer = (ctypes.c_char * len(into)).from_buffer(into)
    libc = ctypes.CDLL(None, use_errno=True)
    code = ctypes.c_uint(command << 8 | _PROJECT)
    fd = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        done = libc.syscall(ctypes.c_long(_QUOTACTL_FD), fd, code, ctypes.c_uint(project), buffer)
    finally:
        os.close(fd)
    if done and ctypes.get_errno() == errno.ENOSYS:  # before Linux 5.14: by the device
        device = os.fsencode(mount_of(path).source)
        done = libc.quotactl(code, ctypes.c_char_p(device), ctypes.c_int(project), buffer)
    if done:
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number), str(path))
    return bytes(into)

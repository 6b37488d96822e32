"""The folders of one volume on its disk: made, counted, put into the trash, restored, cloned, purged.

VOLUME/ID/              a folder's files
VOLUME/.argosy/trash/ID a folder that was removed: a rename, whatever it holds
VOLUME/.argosy/upload/  what has not come whole
"""

from __future__ import annotations

import os
import re
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Final

from argosy.files.front import find_program
from argosy.model.errors import ArgosyError
from argosy.storage.folders import quotas
from argosy.storage.folders.beneath import Beneath, told
from argosy.storage.folders.uploads import Uploads

_OWN: Final = ".argosy"
_GLANCE_S: Final = 0.02


class VolumeDisk:
    """One volume. All calls may take long: they run in threads."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.uploads = Uploads(root / _OWN / "upload", self.path)

    def path(self, folder_id: str) -> Path:
        return self.root / folder_id

    def is_made(self, folder_id: str) -> bool:
        return self.path(folder_id).exists()

    def beneath(self, folder_id: str) -> Beneath:
        """Its files. Raises "not-found" when the volume does not have it."""
        return Beneath(str(self.path(folder_id)))

    def make(self, folder_id: str, quota_bytes: int = 0) -> str:
        """Safe to repeat. Returns the file system that holds the quota, "" where we do."""
        with told(folder_id):
            self.root.mkdir(mode=0o700, parents=True, exist_ok=True)
            path = self.path(folder_id)
            made = path.exists() or (_is_btrfs(self.root) and _ran("btrfs", "subvolume", "create", str(path)))
            if not made:
                path.mkdir(mode=0o770, exist_ok=True)
        return self.limit(folder_id, quota_bytes)

    def limit(self, folder_id: str, quota_bytes: int) -> str:
        """Where the file system can hold a quota, it does; its name."""
        return quotas.limit_folder(self.path(folder_id), quota_bytes)

    def trash(self, folder_id: str) -> None:
        """Safe to repeat."""
        with told(folder_id):
            (self.root / _OWN / "trash").mkdir(mode=0o700, parents=True, exist_ok=True)
            if self.path(folder_id).exists():
                self.path(folder_id).rename(self._trashed(folder_id))

    def restore(self, folder_id: str) -> None:
        """Safe to repeat."""
        with told(folder_id):
            if self._trashed(folder_id).exists():
                self._trashed(folder_id).rename(self.path(folder_id))

    def has(self, folder_id: str) -> bool:
        """Whether its bytes are here, in the trash or not; a volume that is away has none."""
        return self.path(folder_id).exists() or self._trashed(folder_id).exists()

    def purge(self, folder_id: str) -> bool:
        """For good, from the trash only. Safe to repeat. Whether nothing of it is left."""
        path = self._trashed(folder_id)
        if _is_btrfs(self.root):
            _ran("btrfs", "subvolume", "delete", str(path))
        if path.exists():
            run_gently(_command(("rm", "-rf", str(path))))
        return not path.exists()

    def clone(self, folder_id: str, new_id: str, quota_bytes: int = 0) -> None:
        """With all that it holds; shares the blocks where the file system can. Raises "disk-full"."""
        source, target = self.path(folder_id), self.path(new_id)
        if _is_btrfs(self.root) and _ran("btrfs", "subvolume", "snapshot", str(source), str(target)):
            return
        self.make(new_id, quota_bytes)  # what comes counts for it from the first byte
        if _tool(("cp", "-aT", "--reflink=auto", str(source), str(target))):
            shutil.rmtree(target, ignore_errors=True)
            raise ArgosyError("disk-full", "the clone could not be made: the volume may be full")

    def used_bytes(self, folder_id: str) -> int:
        """Counted now, in the trash too: by the file system where it does, else by a scan."""
        path = self.path(folder_id) if self.path(folder_id).exists() else self._trashed(folder_id)
        told_bytes = quotas.used_bytes(path)
        return count_bytes(path) if told_bytes is None else told_bytes

    def _trashed(self, folder_id: str) -> Path:
        return self.root / _OWN / "trash" / folder_id


def count_bytes(path: Path) -> int:
    """What files take, each once."""
    done = subprocess.run(_command(("du", "-s", "-B", "1", str(path))), capture_output=True, check=False)
    found = re.match(rb"(\d+)", done.stdout)
    return int(found[1]) if found else 0


def _command(words: Sequence[str]) -> list[str]:
    program = find_program(os.environ)
    return [program, *words] if program else [sys.executable, "-m", "argosy.files", *words]


def _tool(words: Sequence[str]) -> int:
    """One of the parallel file tools."""
    return subprocess.run(_command(words), capture_output=True, check=False).returncode


def run_gently(command: Sequence[str], share: float = 0.2) -> int:
    """Run a program with this share of one processor: whenever it has had more, it rests. Returns its
    status. When we are killed, it ends."""
    process = subprocess.Popen(
        command,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        start_new_session=True,  # nobody's group: what rests when its parent dies is ended by the kernel
    )
    had_s = 0.0
    while True:
        try:
            return process.wait(_GLANCE_S)
        except subprocess.TimeoutExpired:
            pass
        now_s = _cpu_s(process.pid)
        rest_s = (now_s - had_s) / share - _GLANCE_S
        had_s = now_s
        if rest_s > 0:
            process.send_signal(signal.SIGSTOP)
            time.sleep(rest_s)
            process.send_signal(signal.SIGCONT)


def _cpu_s(pid: int) -> float:
    """What a process has had of processors so far; 0 where that is not told."""
    try:
        fields = Path(f"/proc/{pid}/stat").read_bytes().rpartition(b")")[2].split()
    except OSError:
        return 0.0
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def _is_btrfs(path: Path) -> bool:
    return quotas.mount_of(path).kind == "btrfs" and shutil.which("btrfs") is not None


def _ran(*command: str) -> bool:
    return subprocess.run(command, capture_output=True, check=False).returncode == 0

"""Secrets as files: in the memory file system of the node, readable by the program alone (0400), gone with
its rank. A path elsewhere is a link to the file, so that nothing of a secret is ever on a disk."""

from __future__ import annotations

import errno
import os
import shutil
import stat

from argosy.agent.orders import Refused

TYPE_CHECKING = False
if TYPE_CHECKING:
    from argosy.agent.orders import Order

MEMORY = "/dev/shm"
_LINKS = ".links"
_KINDS = ("tmpfs", "ramfs")


class CannotKeep(OSError):
    """A secret cannot be a file here."""


class SecretFiles:
    """Of one agent. `tag`: what its files are known by."""

    def __init__(self, tag: str, memory: str = MEMORY) -> None:
        self._memory = memory
        self._folder = "%s/argosy-%d-%s" % (memory, os.getuid(), tag)

    def of(self, order: Order) -> dict[str, str]:
        """What the environment says of the files of this order, which are written. Raises CannotKeep, an
        OSError with what people can do."""
        if not order["secret_files"]:
            return {}
        try:
            if order["app"] is not None:
                raise Refused("secret_files", "a session has secrets in its environment only")
            return self.write(order["id"], order["secret_files"])
        except Refused as refused:
            raise CannotKeep(errno.EPERM, str(refused)) from None

    def write(self, rank_id: str, files: list[dict[str, str]]) -> dict[str, str]:
        """Write the files of a rank; where they are, by `NAME_FILE`, for its environment. Raises Refused with
        what people can do, and OSError."""
        if not is_memory(self._memory):
            raise Refused(
                "secret_files", "%s is no memory file system: secrets are not kept on disks" % self._memory
            )
        folder = self._folder + "/" + rank_id
        self.remove(rank_id)
        self._own(self._folder)
        os.mkdir(folder, 0o700)
        env = {"ARGOSY_SECRETS_DIR": folder}
        links = []
        try:
            for each in files:
                path, wanted = folder + "/" + each["name"], each["path"]
                _create(path, each["value"])
                if wanted.startswith("/"):
                    self._link(path, wanted)
                    links.append(wanted)
                    _create(folder + "/" + _LINKS, "\n".join(links))
                elif wanted and wanted != each["name"]:
                    os.rename(path, folder + "/" + wanted)
                    path = folder + "/" + wanted
                env[each["name"] + "_FILE"] = wanted if wanted.startswith("/") else path
        except BaseException:
            self.remove(rank_id)
            raise
        return env

    def remove(self, rank_id: str) -> None:
        """Safe to repeat, and for ranks that have none."""
        folder = self._folder + "/" + rank_id
        try:
            with open(folder + "/" + _LINKS) as file:
                links = file.read().split("\n")
        except OSError:
            links = []
        for link in links:
            if self._is_ours(link, folder):
                os.unlink(link)
        shutil.rmtree(folder, ignore_errors=True)
        try:
            os.rmdir(self._folder)  # the last one leaves nothing behind
        except OSError:
            pass

    def sweep(self, living: set[str]) -> None:
        """Remove what belongs to no rank that lives."""
        try:
            there = os.listdir(self._folder)
        except OSError:
            return
        for rank_id in there:
            if rank_id not in living:
                self.remove(rank_id)

    def _own(self, folder: str) -> None:
        """Make the folder of all; one that somebody else made is not taken."""
        try:
            os.mkdir(folder, 0o700)
        except FileExistsError:
            found = os.lstat(folder)
            if not stat.S_ISDIR(found.st_mode) or found.st_uid != os.getuid() or found.st_mode & 0o077:
                raise Refused("secret_files", "%s belongs to somebody else" % folder) from None

    def _link(self, path: str, wanted: str) -> None:
        try:
            os.makedirs(os.path.dirname(wanted), exist_ok=True)
            if self._is_ours(wanted, self._folder) and not os.path.exists(wanted):
                os.unlink(wanted)  # of a rank that is gone
            os.symlink(path, wanted)
        except OSError as error:
            why = (
                "something is there already" if error.errno == errno.EEXIST else os.strerror(error.errno or 0)
            )
            hint = "without a folder in its path it is in $ARGOSY_SECRETS_DIR"
            raise Refused("secret_files", "cannot put a secret at %s: %s; %s" % (wanted, why, hint)) from None

    @staticmethod
    def _is_ours(link: str, folder: str) -> bool:
        try:
            return os.readlink(link).startswith(folder + "/")
        except OSError:
            return False


def is_memory(folder: str, mounts: str = "/proc/mounts") -> bool:
    """Whether files below this folder are in memory only."""
    kind, longest = "", -1
    try:
        with open(mounts, errors="replace") as file:
            for line in file:
                place, what = line.split(" ")[1:3]
                if (folder + "/").startswith(place.rstrip("/") + "/") and len(place) >= longest:
                    kind, longest = what, len(place)
    except (OSError, ValueError):
        return False
    return kind in _KINDS


def _create(path: str, text: str) -> None:
    if os.path.lexists(path):
        os.unlink(path)
    with open(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o400), "w") as file:
        file.write(text)

"""Buckets that appear as folders: one rclone for each, which outlives the agent.

Its settings, with what opens the store, are in the environment of that process and nowhere else: not on disk,
not in arguments. Keys that end are at an address that it asks (`mount_door`). What is on disk says where it
is mounted, and which process that is.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
import shutil
import signal
import time

from argosy.agent import mount_door, processes, programs
from argosy.agent.lending import Lending
from argosy.agent.orders import Refused
from argosy.agent.outside import content_of, is_below, write_json
from argosy.agent.placing import Entry
from argosy.agent.targets import Targets

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from argosy.agent.lending import Lent
    from argosy.agent.mount_door import MountDoor

_MOUNTED_S = 30.0
_ENDED_S = 15.0
_RELEASE_S = 20.0  # so long a node that is given up waits for a store that takes nothing
_REMOTE = "argosy"
_PREFIX = "RCLONE_CONFIG_ARGOSY_"
_LINK = "link"  # the door of a folder that is reached through the server
_OPTION = re.compile(r"[a-z][a-z0-9-]{1,40}=[A-Za-z0-9.]{0,20}")
_PASSED = (
    "PATH",
    "http_proxy",
    "https_proxy",
    "no_proxy",
    "HTTP_PROXY",
    "HTTPS_PROXY",
    "NO_PROXY",
    "SSL_CERT_FILE",
)


class Mounts:
    """The mounts of one node. Calls block."""

    def __init__(
        self,
        root: str,
        home: str,
        node_name: str,
        door: MountDoor | None = None,
        lending: Lending | None = None,
    ) -> None:
        self._door = door
        self._lending = Lending() if lending is None else lending
        self._targets = Targets(root, home, node_name)
        self._folder = self._targets.root + "/mounts"
        self._node = node_name

    def mount(self, order: dict[str, Any]) -> dict[str, object]:
        """`{"target", "path": bucket and folder, "settings": of rclone's remote, "options", "cached",
        "read_only"}`, and for keys that end `"door", "fresh", "expires_s"`. The same again brings new keys to
        what is mounted; `"renews"`: it does nothing else. `{"renewed"}`: whether these keys are in use.
        Raises Refused: the field `fuse` where this machine cannot mount anything."""
        target, source = str(order["target"]), str(order["path"])
        options = [str(each) for each in order.get("options", ())]
        if not all(_OPTION.fullmatch(each) for each in options):
            raise Refused("options", "an option of a mount is `name=value`")
        rclone = self._program()
        path = self._targets.resolve(target)
        which = json.dumps([source, bool(order.get("cached")), bool(order.get("read_only")), sorted(options)])
        record = self._record(path)
        known = _read(record)
        if known and _is_alive(known) and _is_mounted(path):
            if known["which"] != which:
                what = "`%s` on %s has another bucket mounted; choose another path"
                raise Refused("target", what % (target, self._node))
            if self._renewed(known, order):
                return {"renewed": True}
            if not _is_ended(path, known):
                return {"renewed": False}  # somebody is in it: it goes on with its keys, and is asked again
        elif order.get("renews"):
            return {"renewed": False}
        self._clear(path, known)
        self._make(path, target)
        os.makedirs(self._folder, mode=0o700, exist_ok=True)
        cache = record[: -len(".json")] + ".cache"
        argv = [
            rclone, "mount", "%s:%s" % (_REMOTE, source), path, "--config=/dev/null", "--cache-dir=" + cache,
            "--vfs-cache-mode=" + ("full" if order.get("cached") else "writes"),
            "--vfs-write-back=" + ("1s" if order.get("cached") else "0s"),
            "--dir-cache-time=30s", "--log-level=NOTICE", *("--" + each for each in options),
        ]  # fmt: skip
        if order.get("read_only"):
            argv.append("--read-only")
        env = {name: os.environ[name] for name in _PASSED if name in os.environ}
        for name, value in order["settings"].items():
            env[_PREFIX + name.upper()] = str(value)
        if order.get("door") == _LINK:
            env.update(self._lending.offer(path, _PREFIX))
        elif order.get("door"):
            kind, fresh, expires_s = _keys_of(order)
            address = self._doors().offer(kind, fresh, expires_s)
            env.update(mount_door.environment(kind, address, _PREFIX))
        log = record[: -len(".json")] + ".log"
        if os.path.exists(log):
            os.unlink(log)
        pid = processes.spawn(argv, env, "/dev/null", log, append=True)
        ticks = programs.start_ticks(pid)
        write_json(record, {"path": path, "pid": pid, "ticks": ticks, "which": which, "cache": cache})
        due_s = time.monotonic() + _MOUNTED_S
        while not _is_mounted(path):
            if programs.start_ticks(pid) != ticks or time.monotonic() > due_s:
                self._clear(path, _read(record))
                raise Refused(
                    "mount", "`%s` cannot be mounted on %s: %s" % (target, self._node, _last_line(log))
                )
            time.sleep(0.02)
        return {"renewed": True}

    def _doors(self) -> MountDoor:
        if self._door is None:
            self._door = mount_door.MountDoor()
        return self._door

    def _renewed(self, known: dict[str, Any], order: dict[str, Any]) -> bool:
        """Whether what is mounted has these keys now; False: it must be mounted anew for that."""
        if order.get("door") == _LINK:
            return self.lent(str(order["target"])) is not None
        address = mount_door.address_of(known["pid"])
        if not order.get("door") or not address:
            return not order.get("renews")  # what has its keys in its environment keeps them
        try:
            self._doors().offer(*_keys_of(order), address)
        except OSError:
            return False
        return True

    def lent(self, target: str) -> Lent | None:
        """What the mount at `target` is lent; None: there is no such mount. One that an agent before us has
        made goes on."""
        path = self._targets.resolve(target)
        lent = self._lending.of(path)
        known = _read(self._record(path)) if lent is None else None
        if known and _is_alive(known) and (told := _told(known["pid"])):
            self._lending.offer(path, _PREFIX, told)
            return self._lending.of(path)
        return lent

    def settle(self, targets: list[str], patience_s: float, unmount: bool) -> dict[str, object]:
        """Wait until all that was written is in the stores; as long as something still arrives there, and at
        most `patience_s` after that. `{"left": {target: [path, ...]}}`: what is not. What is settled is
        unmounted, if wanted."""
        left = {}
        for target in targets:
            path = self._targets.resolve(target)
            known = _read(self._record(path))
            if known is None:
                continue
            waiting = _wait_for_flush(known, patience_s)
            if waiting:
                left[target] = waiting
            elif unmount:
                self._clear(path, known)
        return {"left": left}

    def release(self, patience_s: float = _RELEASE_S) -> None:
        """The node is given up: nothing stays mounted."""
        try:
            names = os.listdir(self._folder)
        except OSError:
            return
        for name in names:
            known = _read(self._folder + "/" + name) if name.endswith(".json") else None
            if known:
                _wait_for_flush(known, patience_s)
                self._clear(known["path"], known)

    def _program(self) -> str:
        rclone = programs.find("rclone")
        missing = "" if rclone else "rclone is not installed"
        if not os.access("/dev/fuse", os.R_OK | os.W_OK):
            missing = "there is no /dev/fuse that we may use"
        elif not (programs.find("fusermount3") or programs.find("fusermount")):
            missing = "fusermount (the package fuse3) is not installed"
        if missing:
            raise Refused("fuse", "%s cannot mount buckets: %s" % (self._node, missing))
        return rclone

    def _make(self, path: str, target: str) -> None:
        try:
            names = sorted(os.listdir(path))
        except FileNotFoundError:
            names = []
        except NotADirectoryError:
            raise Refused(
                "target", "`%s` on %s is a file; choose another path" % (target, self._node)
            ) from None
        if names:
            raise Refused(
                "target",
                "`%s` on %s is not empty (%s): a mount would hide that; choose another path, or empty it"
                % (target, self._node, ", ".join("`%s`" % name for name in names[:3])),
            )
        if not is_below(path, self._targets.home):
            entry = Entry({"path": "mount", "kind": "d"})
            top = path + "/" if os.path.isdir(path) else self._targets.top_to_make(path, target)
            with self._targets.outside.claimed(path, content_of([entry]), lambda: top):
                pass
        os.makedirs(path, exist_ok=True)
        record = self._targets.record_path(path)
        for name in (record, record + ".journal", record + ".shape"):  # a copy that was there is no more
            if os.path.exists(name):
                os.unlink(name)

    def _record(self, path: str) -> str:
        return "%s/%s.json" % (self._folder, hashlib.sha256(os.fsencode(path)).hexdigest()[:16])

    def _clear(self, path: str, known: dict[str, Any] | None) -> None:
        """Unmount, end its process, and remove its folder when it is empty."""
        fusermount = programs.find("fusermount3") or programs.find("fusermount")
        if _is_mounted(path) and fusermount and programs.answer_of([fusermount, "-u", path], 10.0).strip():
            programs.answer_of([fusermount, "-u", "-z", path], 10.0)  # somebody is in it
        if known is None:
            return
        if self._door is not None and (address := mount_door.address_of(known["pid"])):
            self._door.forget(address)
        self._lending.forget(path)
        due_s = time.monotonic() + _ENDED_S
        while _is_alive(known):
            if time.monotonic() > due_s:
                os.kill(known["pid"], signal.SIGKILL)
                break
            time.sleep(0.02)
        shutil.rmtree(known["cache"], ignore_errors=True)
        try:
            os.unlink(self._record(path))
            os.rmdir(path)
        except OSError:
            pass


def _keys_of(order: dict[str, Any]) -> tuple[str, dict[str, Any], float]:
    return str(order["door"]), dict(order.get("fresh", {})), float(order.get("expires_s", 0))


def _told(pid: int) -> dict[str, str]:
    """What a running tool was told of a folder of the server; {}: it has another one."""
    try:
        with open("/proc/%d/environ" % pid, encoding="utf-8", errors="surrogateescape") as file:
            lines = file.read().split("\0")
    except OSError:
        return {}
    told = dict(line.partition("=")[::2] for line in lines if line.startswith(_PREFIX))
    return told if told.get(_PREFIX + "TYPE") == "webdav" and _PREFIX + "BEARER_TOKEN" in told else {}


def _is_ended(path: str, known: dict[str, Any]) -> bool:
    """Whether it was unmounted: nobody is in it, and all that was written is in the store."""
    fusermount = programs.find("fusermount3") or programs.find("fusermount")
    if _dirty(known["cache"]) or not fusermount:
        return False
    programs.answer_of([fusermount, "-u", path], 10.0)
    return not _is_mounted(path)


def _wait_for_flush(known: dict[str, Any], patience_s: float) -> list[str]:
    """Paths that are not in the store; [] when all are."""
    waiting = _dirty(known["cache"])
    since_s = time.monotonic()
    pause_s = 0.02
    while waiting and time.monotonic() - since_s < patience_s and _is_alive(known):
        time.sleep(pause_s)
        pause_s = min(0.5, pause_s * 1.5)
        now = _dirty(known["cache"])
        if now != waiting:
            waiting, since_s = now, time.monotonic()
    return waiting


def _dirty(cache: str) -> list[str]:
    """Files that rclone holds and has not written back, by its own notes."""
    found = []
    top = cache + "/vfsMeta"
    for folder, _, names in os.walk(top):
        for name in names:
            path = os.path.join(folder, name)
            try:
                with open(path, encoding="utf-8") as file:
                    is_dirty = bool(json.load(file).get("Dirty"))
            except FileNotFoundError:
                continue
            except (OSError, ValueError):
                is_dirty = True  # its note is being written
            if is_dirty:
                found.append(os.path.relpath(path, top))
    return sorted(path.partition("/")[2] for path in found)


def _read(record: str) -> dict[str, Any] | None:
    try:
        with open(record, encoding="utf-8") as file:
            return json.load(file)  # type: ignore[no-any-return]
    except (OSError, ValueError):
        return None


def _is_alive(known: dict[str, Any]) -> bool:
    fields = programs.stat_fields(known["pid"])
    return fields is not None and fields[0] != b"Z" and programs.start_ticks(known["pid"]) == known["ticks"]


def _is_mounted(path: str) -> bool:
    escaped = path.replace("\\", "\\134").replace(" ", "\\040").replace("\t", "\\011").replace("\n", "\\012")
    with open("/proc/self/mountinfo", encoding="utf-8", errors="surrogateescape") as file:
        return any(line.split(" ")[4] == escaped for line in file)


def _last_line(log: str) -> str:
    try:
        with open(log, encoding="utf-8", errors="replace") as file:
            lines = [line.strip() for line in file.read()[-4000:].splitlines() if line.strip()]
    except OSError:
        lines = []
    return lines[-1] if lines else "rclone did not get ready in %d s" % _MOUNTED_S

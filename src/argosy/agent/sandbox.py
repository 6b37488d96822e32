"""How well sessions are kept apart on this node: which levels it can give, and the command that gives one.

`process`: nothing. `sandbox-lite`: Landlock. `sandbox`: namespaces of its own for users, processes, memory,
mounts and network, made by bubblewrap, which needs no right but user namespaces. `user`: the same, by a user
id that is its owner's alone; the agent has to be root for it. `container`: an image, by the engine of the
node (`containers`). A level that cannot be given is refused with the reason, never lowered.
"""

from __future__ import annotations

import os
import shlex
import sys

from argosy.agent import programs
from argosy.agent.cgroups import read_text

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Dict, List, Tuple

LEVELS = ("process", "sandbox-lite", "sandbox", "user", "container")
WALLED = ("sandbox", "user", "container")  # those with namespaces of their own
HOME = "/home/work"  # of every sandbox, so that what is installed there finds itself again
SOCKETS = "/run/argosy"
_AGENT = "/run/argosy-agent.pyz"
_USER, _ID = "work", 1000
#: User ids of level `user`: beyond those of people, of containers and of user namespaces.
_FIRST_ID, _IDS = 1_900_000_000, 200_000_000
_STAGE = "/run/argosy-stage"  # where what only root reaches is put, in a mount namespace of its own

#: Of the system. Links such as /bin stay links.
_SYSTEM = ("/usr", "/bin", "/sbin", "/lib", "/lib32", "/lib64", "/libx32", "/opt", "/nix/store")
#: Of /etc only what programs need: never keys, passwords or what names other users.
_ETC = (
    "alternatives", "ca-certificates", "ca-certificates.conf", "debian_version", "fonts", "glvnd", "gai.conf",
    "host.conf", "java", "java-17-openjdk", "ld.so.cache", "ld.so.conf", "ld.so.conf.d", "localtime",
    "locale.alias", "mime.types", "nsswitch.conf", "OpenCL", "os-release", "pki", "profile", "protocols",
    "python3", "R", "resolv.conf", "rstudio", "services", "ssl/certs", "ssl/openssl.cnf", "terminfo",
    "timezone", "vulkan", "X11", "bash.bashrc", "environment", "magic", "nvidia", "crypto-policies",
)  # fmt: skip
_DEVICES = ("/dev/nvidiactl", "/dev/nvidia-uvm", "/dev/nvidia-uvm-tools", "/dev/nvidia-modeset")


def levels() -> Tuple[List[str], Dict[str, str]]:
    """Levels that this node can give, the weakest first; and for each other one why not. Takes some 10 ms."""
    from argosy.agent import containers, landlock

    good, gaps = ["process"], {}
    if landlock.abi() >= 1:
        good.append("sandbox-lite")
    else:
        gaps["sandbox-lite"] = (
            "this kernel has no Landlock (Linux 5.13 or newer, with CONFIG_SECURITY_LANDLOCK)"
        )
    why = _why_no_sandbox()
    if why:
        gaps["sandbox"] = why
    else:
        good.append("sandbox")
    why = why or _why_no_user()
    if why:
        gaps["user"] = why
    else:
        good.append("user")
    if containers.engine():
        good.append("container")
    else:
        gaps["container"] = containers.why_none()
    return good, gaps


def _why_no_user() -> str:
    if os.geteuid() != 0:
        return "the agent is not root, and cannot give user ids"
    missing = [name for name in ("setpriv", "unshare") if not programs.find(name)]
    return "the program `%s` is not installed" % missing[0] if missing else ""


def id_of(owner: str) -> int:
    """The user id of a person, the same on every node."""
    import hashlib

    digest = hashlib.sha256(owner.encode("utf-8", "surrogateescape")).digest()
    return _FIRST_ID + int.from_bytes(digest[:8], "big") % _IDS


def _why_no_sandbox() -> str:
    program = programs.find("bwrap")
    if not program:
        return "bubblewrap (the program `bwrap`) is not installed"
    said = programs.answer_of(
        [
            program,
            *_NAMESPACES,
            "--ro-bind",
            "/",
            "/",
            "--proc",
            "/proc",
            "--dev",
            "/dev",
            "/bin/echo",
            "fine",
        ],
        timeout_s=10,
    )
    if said.strip() == "fine":
        return ""
    for name in ("apparmor_restrict_unprivileged_userns", "unprivileged_userns_clone"):
        value = read_text("/proc/sys/kernel/" + name).strip()
        if value == ("1" if name.startswith("apparmor") else "0"):
            return "user namespaces are forbidden here (kernel.%s=%s)" % (name, value)
    if read_text("/proc/sys/user/max_user_namespaces").strip() == "0":
        return "user namespaces are forbidden here (user.max_user_namespaces=0)"
    last = said.strip().splitlines()
    return "bwrap cannot make namespaces: %s" % (last[-1] if last else "it said nothing")


_NAMESPACES = [
    "--unshare-user", "--unshare-pid", "--unshare-ipc", "--unshare-net", "--unshare-uts",
    "--unshare-cgroup-try", "--cap-drop", "ALL", "--die-with-parent", "--new-session",
]  # fmt: skip


def python_folders() -> List[str]:
    """Folders that our own Python needs."""
    found = [sys.base_prefix, os.path.dirname(os.path.realpath(sys.executable))]
    return [path for path in dict.fromkeys(found) if not path.startswith(("/usr", "/opt"))]


class _Sources:
    """Where what a sandbox is given lies. For another user id than ours: on a stage that it may enter."""

    def __init__(self, uid: int) -> None:
        self._uid = uid
        self._staged: List[str] = []

    def of(self, path: str) -> str:
        if not self._uid or not os.path.exists(path):
            return path
        if path not in self._staged:
            self._staged.append(path)
        return "%s/%d" % (_STAGE, self._staged.index(path))

    def on_stage(self, argv: List[str], own: List[str]) -> List[str]:
        """The command that sets the stage and becomes the user. `own`: folders that belong to it."""
        if not self._uid:
            return argv
        os.makedirs(_STAGE, mode=0o711, exist_ok=True)
        lines = ["chown -R %d:%d %s" % (self._uid, self._uid, " ".join(map(shlex.quote, own)))]
        lines.append("mount -t tmpfs -o mode=0711,size=1m stage %s" % _STAGE)
        for number, path in enumerate(self._staged):
            place = "%s/%d" % (_STAGE, number)
            lines.append("mkdir %s" % place if os.path.isdir(path) else ": > %s" % place)
            lines.append("mount --bind %s %s" % (shlex.quote(path), place))
        become = 'exec setpriv --reuid %d --regid %d --clear-groups --inh-caps=-all -- "$@"'
        lines.append(become % (self._uid, self._uid))
        shell = ["/bin/sh", "-ec", "\n".join(lines), "argosy-user"]
        return [programs.find("unshare"), "-m", "--propagation", "private", "--", *shell, *argv]


def command(
    agent: str, sockets: str, home: str, name: str, devices: List[str], tools: List[str], uid: int = 0
) -> List[str]:
    """What starts `inside` in a sandbox. `sockets`, `home`: folders outside; `devices`: files of /dev;
    `tools`: folders that programs may read; `uid`: whose it is, 0: ours."""
    sources = _Sources(uid)
    argv = [programs.find("bwrap"), *_NAMESPACES, "--uid", str(_ID), "--gid", str(_ID), "--hostname", name]
    for path in _SYSTEM:
        if os.path.islink(path):
            argv += ["--symlink", os.readlink(path), path]
        elif os.path.isdir(path):
            argv += ["--ro-bind", path, path]
    for each in _ETC:
        argv += ["--ro-bind-try", "/etc/" + each, "/etc/" + each]
    own = [each for each in ("resolv.conf",) if os.path.exists(sockets + "/" + each)]
    for each in ("passwd", "group", "hosts", *own):
        argv += ["--ro-bind", sources.of(sockets) + "/" + each, "/etc/" + each]
    argv += [
        "--proc",
        "/proc",
        "--dev",
        "/dev",
        "--tmpfs",
        "/dev/shm",
        "--tmpfs",
        "/tmp",
        "--tmpfs",
        "/var/tmp",
    ]
    for path in devices:
        argv += ["--dev-bind-try", path, path]
    if devices:
        argv += ["--ro-bind-try", "/sys", "/sys"]
    for path in [*python_folders(), *tools]:
        argv += ["--ro-bind-try", sources.of(path), path]
    argv += ["--bind", sources.of(home), HOME, "--bind", sources.of(sockets), SOCKETS]
    argv += ["--ro-bind", sources.of(agent), _AGENT, "--chdir", HOME]
    python = os.path.realpath(sys.executable)
    argv += ["--", python, "-I", "-S", _AGENT, "inside", SOCKETS]
    return sources.on_stage(argv, [home, sockets])


def write_names(sockets: str, name: str) -> None:
    """The files that say who one is in there, and nothing of anybody else. Raises OSError."""
    texts = {
        "passwd": "root:x:0:0:root:/nonexistent:/usr/sbin/nologin\n%s:x:%d:%d:%s:%s:/bin/bash\n"
        "nobody:x:65534:65534:nobody:/nonexistent:/usr/sbin/nologin\n" % (_USER, _ID, _ID, _USER, HOME),
        "group": "root:x:0:\n%s:x:%d:\nnogroup:x:65534:\n" % (_USER, _ID),
        "hosts": "127.0.0.1 localhost %s\n::1 localhost\n" % name,
    }
    for file, text in texts.items():
        handle = os.open(sockets + "/" + file, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o600)
        with os.fdopen(handle, "w", encoding="ascii", errors="replace") as sink:
            sink.write(text)


def write_resolver(sockets: str, server: str) -> None:
    """Whom it asks for names, instead of whom the node asks. Raises OSError."""
    with open(sockets + "/resolv.conf", "w", encoding="ascii") as sink:
        sink.write("nameserver %s\n" % server)


def device_files(chosen: List[Dict[str, object]]) -> List[str]:
    """Files of /dev through which a program reaches these devices of ours (`Node.device`)."""
    found: List[str] = []
    for device in chosen:
        if device.get("vendor") == "nvidia":
            found.append("/dev/nvidia%d" % _minor_of(device))
            if "mig_profile" in device:
                found += _capability_files(device)
        elif device.get("vendor") == "amd":
            found += ["/dev/kfd", "/dev/dri"]
        elif device.get("vendor") == "intel":
            found += ["/dev/accel", "/dev/dri"]
    if any(path.startswith("/dev/nvidia") for path in found):
        found += _DEVICES
    return list(dict.fromkeys(found))


def _minor_of(device: Dict[str, object]) -> int:
    """The number in the name of its file, which need not be its index."""
    pci = str(device.get("pci") or "").lower()
    pci = pci[-12:] if len(pci) > 12 else pci
    for line in read_text("/proc/driver/nvidia/gpus/%s/information" % pci).splitlines():
        name, _, value = line.partition(":")
        if name == "Device Minor" and value.strip().isdigit():
            return int(value)
    return int(str(device.get("mig_parent", device["index"]) if "mig_profile" in device else device["index"]))


def _capability_files(device: Dict[str, object]) -> List[str]:
    """Of an instance of MIG: who opens these may use it, and no other one of its card."""
    from argosy.agent.devices.nvidia import parts_of_index

    gpu_instance, compute_instance = parts_of_index(int(str(device["index"])))
    top = "/proc/driver/nvidia/capabilities/gpu%d/mig/gi%d" % (_minor_of(device), gpu_instance)
    found = []
    for place in (top, "%s/ci%d" % (top, compute_instance)):
        for line in read_text(place + "/access").splitlines():
            name, _, value = line.partition(":")
            if name == "DeviceFileMinor" and value.strip().isdigit():
                found.append("/dev/nvidia-caps/nvidia-cap%d" % int(value))
    return found


def readable() -> List[str]:
    """What programs under Landlock may read."""
    return [*_SYSTEM, "/etc", "/proc", "/sys", *python_folders(), os.path.abspath(sys.argv[0])]

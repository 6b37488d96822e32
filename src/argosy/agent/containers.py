"""Sessions in containers: by the engine that this node has, from the image that the session names.

The container has files, processes, memory and network of its own, no capabilities, and the engine's filter of
system calls. `inside` runs in it, by the image's own Python, as it does in a sandbox: same folders, same way
out. What its programs find in their environment comes through its standard input, so that neither the
engine's records nor a list of processes ever show it.
"""

from __future__ import annotations

import json
import os
import re
import sys

from argosy.agent import processes, programs
from argosy.agent.cgroups import read_text
from argosy.agent.orders import INHERITED, Refused

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Dict, List


HOME, SOCKETS = "/home/work", "/run/argosy"
ENGINES = ("podman", "docker", "apptainer")
_AGENT = "/run/argosy-agent.pyz"
_IMAGE = re.compile(r"[A-Za-z0-9][A-Za-z0-9._/:@-]{0,254}")
#: What engines read; nothing of it is secret.
_OF_ENGINES = (
    "PATH", "HOME", "USER", "XDG_RUNTIME_DIR", "XDG_CONFIG_HOME", "XDG_DATA_HOME", "DBUS_SESSION_BUS_ADDRESS",
    "CONTAINERS_CONF", "CONTAINERS_STORAGE_CONF", "CONTAINERS_REGISTRIES_CONF", "REGISTRY_AUTH_FILE",
    "DOCKER_HOST", "DOCKER_CONFIG", "DOCKER_CONTEXT", "APPTAINER_CACHEDIR", "APPTAINER_TMPDIR",
)  # fmt: skip
#: Of what programs inherit from the node these hold in an image, too; the others name its files.
_ALSO_THERE = frozenset(("LANG", "LANGUAGE", "TZ"))
_NOT_THERE = (INHERITED - _ALSO_THERE) | {"HOME", "XDG_CACHE_HOME", "VIRTUAL_ENV", "ARGOSY_AGENT_COMMAND"}


class Given:
    """What a container gets: folders outside, devices of the node, and limits (0: none)."""

    def __init__(
        self, agent: str, sockets: str, home: str, devices: List[Dict[str, object]],
        memory_bytes: int = 0, cpus_milli: int = 0, pids_max: int = 0,
    ) -> None:  # fmt: skip
        self.agent, self.sockets, self.home, self.devices = agent, sockets, home, devices
        self.memory_bytes, self.cpus_milli, self.pids_max = memory_bytes, cpus_milli, pids_max


def engine() -> str:
    """The path of the engine of this node; "" where there is none that answers to us."""
    for name in ENGINES:
        path = programs.find(name)
        if path and (name != "docker" or _docker_answers()):
            return path
    return ""


def _docker_answers() -> bool:
    """Its daemon is a program of its own, which may be missing, or not for us."""
    return bool(os.environ.get("DOCKER_HOST")) or os.access("/var/run/docker.sock", os.R_OK | os.W_OK)


def why_none() -> str:
    if programs.find("docker"):
        return "the daemon of docker does not run, or this user may not use it (/var/run/docker.sock)"
    return "there is no container engine (podman, docker or apptainer)"


def checked_image(text: str) -> str:
    """The image as engines call it. Raises Refused."""
    image = text[len("docker:") :] if text.startswith("docker:") else text
    if not image:
        raise Refused("image", "isolation `container` needs an image: --image-id docker:NAME")
    if not _IMAGE.fullmatch(image):
        raise Refused("image", "`%s` is no name of an image" % image)
    return image


def name_of(key: str) -> str:
    """What the container of a rank is called."""
    import hashlib

    return "argosy-" + hashlib.sha256(key.encode("utf-8", "surrogateescape")).hexdigest()[:20]


def command(engine: str, image: str, key: str, given: Given) -> List[str]:
    """What starts `inside` in a container, with its environment to be read from its input. Raises Refused for
    what this engine cannot give."""
    folders = [(given.home, HOME, ""), (given.sockets, SOCKETS, ""), (given.agent, _AGENT, ":ro")]
    inner = ["python3", "-I", "-S", _AGENT, "inside", SOCKETS]
    kind = os.path.basename(engine)
    if kind == "apptainer":
        argv = [engine, "-q", "exec", "--containall", "--cleanenv", "--no-home", "--writable-tmpfs"]
        argv += ["--no-privs", "--net", "--network", "none", "--hostname", "session", "--pwd", HOME]
        if given.devices:
            raise Refused("devices", "apptainer shows all devices of a node: it can give none to a session")
        for outside, there, how in folders:
            argv += ["--bind", "%s:%s%s" % (outside, there, how)]
        return [*argv, "--env", "%s=%s" % (processes.MARK, key), "docker://" + image, *inner]
    argv = [engine, "run", "--rm", "--interactive", "--name", name_of(key), "--hostname", "session"]
    argv += ["--network", "none", "--cap-drop", "ALL", "--security-opt", "no-new-privileges"]
    argv += ["--workdir", HOME, "--entrypoint", inner[0], "--env", "%s=%s" % (processes.MARK, key)]
    argv += _limits(given)
    if os.geteuid() != 0:  # the files of its home stay ours
        argv += ["--userns", "keep-id"] if kind == "podman" else ["--user", _ids()]
    for outside, there, how in folders:
        argv += ["--volume", "%s:%s%s" % (outside, there, how)]
    return [*argv, *_device_flags(kind, given.devices), image, *inner[1:]]


def _ids() -> str:
    return "%d:%d" % (os.geteuid(), os.getegid())


def _limits(given: Given) -> List[str]:
    """Of the order; and of handles and processes never more than the agent has: that may be forbidden."""
    import resource

    argv: List[str] = []
    most = int(read_text("/proc/sys/kernel/pid_max") or 32768)  # podman itself has no more processes
    for name, which in (("nofile", resource.RLIMIT_NOFILE), ("nproc", resource.RLIMIT_NPROC)):
        soft, hard = resource.getrlimit(which)
        if name == "nproc":
            soft, hard = (min(most, each) if each >= 0 else most for each in (soft, hard))
        argv += ["--ulimit", "%s=%d:%d" % (name, soft, hard)]
    if given.memory_bytes:
        argv += ["--memory", str(given.memory_bytes), "--memory-swap", str(given.memory_bytes)]
    if given.cpus_milli:
        argv += ["--cpus", "%g" % (given.cpus_milli / 1000)]
    if given.pids_max:
        argv += ["--pids-limit", str(given.pids_max)]
    return argv


def _device_flags(kind: str, devices: List[Dict[str, object]]) -> List[str]:
    """Those devices, and no others, with what their driver brings."""
    nvidia = [str(each.get("uuid") or each["index"]) for each in devices if each.get("vendor") == "nvidia"]
    argv: List[str] = []
    if nvidia and kind == "docker":
        argv += ["--gpus", '"device=%s"' % ",".join(nvidia)]
    elif nvidia:
        for each in nvidia:
            argv += ["--device", "nvidia.com/gpu=" + each]
    from argosy.agent import sandbox

    for path in sandbox.device_files([each for each in devices if each.get("vendor") != "nvidia"]):
        argv += ["--device", path]
    return argv


def becoming(agent: str, argv: List[str]) -> List[str]:
    """The program that becomes the engine, by `contain`."""
    told = json.dumps({"argv": argv, "env": {n: os.environ[n] for n in _OF_ENGINES if n in os.environ}})
    return [sys.executable, "-I", "-S", agent, "contain", told]


def contain(told: str) -> int:
    """Become the engine, with the environment of the rank as its standard input. Returns only when the engine
    cannot be started."""
    plan = json.loads(told)
    passed = {name: value for name, value in os.environ.items() if name not in _NOT_THERE}
    handle = os.memfd_create("environment")
    text = "\0".join("%s=%s" % pair for pair in passed.items())
    with os.fdopen(os.dup(handle), "wb") as file:
        file.write(text.encode("utf-8", "surrogateescape"))
    os.lseek(handle, 0, os.SEEK_SET)
    os.dup2(handle, 0)
    env = dict(plan["env"])
    env[processes.MARK] = os.environ.get(processes.MARK, "")
    try:
        os.execve(plan["argv"][0], plan["argv"], env)  # noqa: S606  # this is what a shell's exec does
    except OSError as error:
        sys.stderr.write("argosy: %s cannot be started: %s\n" % (plan["argv"][0], error.strerror))
        return 126


def read_environment() -> Dict[str, str]:
    """What `contain` wrote, as the program in the container reads it."""
    with os.fdopen(os.dup(0), "rb") as file:
        text = file.read().decode("utf-8", "surrogateescape")
    os.dup2(os.open("/dev/null", os.O_RDONLY), 0)
    return dict(pair.split("=", 1) for pair in text.split("\0") if "=" in pair)


def remove(key: str) -> None:
    """Of a rank that was killed: its container goes. Takes a moment."""
    path = engine()
    if path and os.path.basename(path) != "apptainer":
        programs.answer_of([path, "rm", "--force", name_of(key)], timeout_s=30)

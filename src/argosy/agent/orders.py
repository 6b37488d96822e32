"""Orders for ranks, checked, and the environment that their programs start from."""

from __future__ import annotations

import os
import re
import shlex
import sys

from argosy.agent import venv

TYPE_CHECKING = False
_ID = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,127}")
_VARIABLE_MAX = (128 << 10) - 2  # with `=` and the end
_PROFILE = re.compile(r"[0-9a-z.+]{1,32}")  # 1g.10gb, 1c.2g.20gb, 1g.10gb+me

# What ranks inherit from the agent's environment. A list of what may pass, not of what may not: the agent of
# a user's own machine can hold any secret in its environment.
INHERITED = frozenset(
    [
        "PATH",
        "LANG",
        "LANGUAGE",
        "TZ",
        "USER",
        "LOGNAME",
        "SHELL",
        "TMPDIR",
        "MODULEPATH",
        "MODULESHOME",
        "SLURM_CONF",
        "SLURM_JOB_ID",  # not the rest: frameworks that see it take us for srun
        "SLURMD_NODENAME",
        "LD_LIBRARY_PATH",
        "LIBRARY_PATH",
        "CPATH",
        "CUDA_HOME",
        "CUDA_PATH",
        "http_proxy",
        "https_proxy",
        "no_proxy",
        "all_proxy",
        "HTTP_PROXY",
        "HTTPS_PROXY",
        "NO_PROXY",
        "ALL_PROXY",
        "SSL_CERT_FILE",
        "SSL_CERT_DIR",
        "REQUESTS_CA_BUNDLE",
        "CURL_CA_BUNDLE",
        "PIP_CERT",
        "PIP_CONFIG_FILE",
        "PIP_INDEX_URL",
        "PIP_EXTRA_INDEX_URL",
        "PIP_TRUSTED_HOST",
        "PIP_FIND_LINKS",
        "PIP_NO_INDEX",
        "UV_INDEX_URL",
        "UV_DEFAULT_INDEX",
        "UV_CACHE_DIR",
        "PIP_CACHE_DIR",
        "CONDA_EXE",
        "CONDA_PREFIX",
        "CONDA_DEFAULT_ENV",
        "PYENV_ROOT",
        "PYENV_VERSION",
        "MODULEPATH",
        "MODULESHOME",
    ]
)
_INHERITED_PREFIXES = ("LC_", "NVIDIA_", "NCCL_")


class Refused(Exception):
    """The request itself is wrong."""

    def __init__(self, field: str, text: str) -> None:
        super().__init__(text)
        self.field = field


class Busy(Exception):
    """Not now; later perhaps."""


def command() -> str:
    """How this agent is called, for a shell."""
    if sys.argv[0].endswith("__main__.py"):  # from its sources, as its tests do
        return "env PYTHONPATH=%s %s -m argosy.agent" % (
            shlex.quote(os.path.abspath(os.path.join(os.path.dirname(__file__), "..", ".."))),
            shlex.quote(sys.executable),
        )
    return "%s %s" % (shlex.quote(sys.executable), shlex.quote(os.path.abspath(sys.argv[0])))


def base_env(home: str) -> dict[str, str]:
    """What every program of this node starts from."""
    env = {
        key: value
        for key, value in os.environ.items()
        if key in INHERITED or key.startswith(_INHERITED_PREFIXES)
    }
    real_home = os.environ.get("HOME") or "/"
    path = env.get("PATH", "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin")
    env["PATH"] = venv.without_own(path)
    venv.entered(env, os.path.dirname(home) + "/venv")
    env["XDG_CACHE_HOME"] = os.environ.get("XDG_CACHE_HOME") or os.path.join(real_home, ".cache")
    env["HOME"] = home
    env["ARGOSY_AGENT_COMMAND"] = command()
    env["PYTHONUNBUFFERED"] = "1"
    return env


def find_shell() -> str:
    """bash, or what stands in for it."""
    for folder in ["/bin", "/usr/bin", *os.environ.get("PATH", "").split(":")]:
        path = os.path.join(folder, "bash")
        if os.access(path, os.X_OK):
            return path
    return "/bin/sh"


if TYPE_CHECKING:
    from typing import TypedDict

    class Share(TypedDict):
        index: int
        milli: int
        mechanism: str
        memory_bytes: int
        profile: str
        slot: int

    class Lease(TypedDict):
        boot: str  # of the machine that `sent` was read on
        sent: int  # by the agent's clock, when the server heard of it last
        ms: int

    class AppOrder(TypedDict):
        cpus_milli: int
        network: str
        owner: str
        seed: str
        name: str
        command: str
        listens: str
        port: int
        ready: str
        kernels: str
        program: str
        isolation: str
        image: str
        home: str
        env: dict[str, str]
        folder: str

    class Order(TypedDict):
        id: str
        secret_files: list[dict[str, str]]
        job: str
        attempt: int
        setup: str
        run: str
        env: dict[str, str]
        workdir: str
        devices: list[int]
        shares: list[Share]
        tenant: str
        pids_max: int
        memory_bytes: int
        run_now: bool
        lease: Lease | None
        app: AppOrder | None


def is_rank_id(text: str) -> bool:
    return bool(_ID.fullmatch(text))


def checked_order(order: dict[str, object]) -> Order:
    """A RankOrder, every field of the right type and filled in. Raises Refused; values are never repeated in
    it."""

    def text(name: str, default: str) -> str:
        value = order.get(name, default)
        if not isinstance(value, str):
            raise Refused(name, "`%s` of a rank order must be text" % name)
        return value

    def amount(name: str) -> int:
        value = order.get(name, 0)
        if not isinstance(value, int) or value < 0:
            raise Refused(name, "`%s` of a rank order must be a number, 0 or more" % name)
        return value

    if not isinstance(order, dict):
        raise Refused("orders", "a rank order must be an object")
    rank_id = text("id", "")
    if not _ID.fullmatch(rank_id):
        raise Refused("id", "%r is not a rank id" % rank_id)
    workdir = text("workdir", "workdir")
    if workdir.startswith("/") or ".." in workdir.split("/") or "\0" in workdir:
        raise Refused("workdir", "the working directory must be below the node's home: %r" % workdir)
    env = order.get("env", {})
    if not isinstance(env, dict):
        raise Refused("env", "`env` of a rank order must be an object")
    for key, value in env.items():
        if not key or "=" in key or "\0" in key:
            raise Refused("env", "%r is not a name for an environment variable" % key)
        if not isinstance(value, str) or "\0" in value:
            raise Refused("env", "the value of %s must be text without NUL" % key)
        if len(key) + len(value.encode("utf-8", "surrogateescape")) > _VARIABLE_MAX:
            raise Refused("env", "the value of %s is larger than the 128 KiB that Linux allows" % key)
    devices = order.get("devices", [])
    if not isinstance(devices, list) or not all(isinstance(index, int) for index in devices):
        raise Refused("devices", "`devices` of a rank order must be a list of indices")
    shares = order.get("shares", [])
    if not isinstance(shares, list):
        raise Refused("shares", "`shares` of a rank order must be a list")
    return {
        "id": rank_id,
        "job": text("job", ""),
        "attempt": amount("attempt"),
        "setup": text("setup", ""),
        "run": text("run", ""),
        "env": env,
        "workdir": workdir,
        "devices": devices,
        "shares": [_checked_share(share) for share in shares],
        "tenant": text("tenant", ""),
        "pids_max": amount("pids_max"),
        "memory_bytes": amount("memory_bytes"),
        "run_now": bool(order.get("run_now", False)),
        "secret_files": _checked_files(order.get("secret_files", [])),
        "lease": _checked_lease(order["lease"]) if order.get("lease") else None,
        "app": _checked_app(order["app"]) if order.get("app") else None,
    }


def _checked_files(given: object) -> list[dict[str, str]]:
    """Raises Refused."""
    if not isinstance(given, list):
        raise Refused("secret_files", "`secret_files` of a rank order must be a list")
    return [_checked_file(each) for each in given]


def _checked_file(given: object) -> dict[str, str]:
    """Raises Refused, without the value."""
    if not isinstance(given, dict) or not all(
        isinstance(given.get(key), str) for key in ("name", "path", "value")
    ):
        raise Refused("secret_files", "a file of a secret has a name, a path and a value")
    name, path = given["name"], given["path"]
    plain = not path.startswith("/")
    if not name or "/" in name or name.startswith(".") or "\0" in name + path or ".." in path.split("/"):
        raise Refused("secret_files", "%r at %r cannot be a file of a secret" % (name, path))
    if plain and ("/" in path or path.startswith(".")):
        raise Refused("secret_files", "%r is neither a name nor a whole path" % path)
    return {"name": name, "path": path, "value": given["value"]}


def _checked_app(given: object) -> AppOrder:
    """Raises Refused."""
    from argosy.agent import apps  # nodes without sessions never load it

    return apps.checked(given)


def _checked_lease(given: object) -> Lease:
    """Raises Refused."""
    lease = given if isinstance(given, dict) else {}
    boot, sent, length_ms = lease.get("boot"), lease.get("sent"), lease.get("ms")
    if not isinstance(boot, str) or not isinstance(sent, int) or not isinstance(length_ms, int):
        raise Refused("lease", "a lease needs `boot`, and numbers in `sent` and `ms`")
    if length_ms <= 0:
        raise Refused("lease", "`ms` of a lease must be more than 0")
    return {"boot": boot, "sent": sent, "ms": length_ms}


def _checked_share(share: object) -> Share:
    """A DeviceShare, filled in. Raises Refused."""
    given = share if isinstance(share, dict) else {}
    numbers = {"index": -1, "milli": -1, "memory_bytes": 0, "slot": -1}
    numbers = {name: given.get(name, otherwise) for name, otherwise in numbers.items()}
    mechanism, profile = given.get("mechanism", ""), given.get("profile", "")
    if not all(isinstance(value, int) for value in numbers.values()) or numbers["index"] < 0:
        raise Refused("shares", "a share needs an `index`, and numbers in `milli`, `memory_bytes` and `slot`")
    if not 0 < numbers["milli"] <= 1000 or numbers["memory_bytes"] < 0:
        raise Refused("shares", "`milli` of a share must be 1 to 1000, and `memory_bytes` 0 or more")
    if mechanism not in ("", "mps", "mig"):
        raise Refused("shares", "this agent shares devices by mps and mig, not by %r" % mechanism)
    if not isinstance(profile, str) or (profile and not _PROFILE.fullmatch(profile)):
        raise Refused("shares", "%r is not the name of a MIG profile" % profile)
    return {
        "index": numbers["index"],
        "milli": numbers["milli"],
        "mechanism": mechanism,
        "memory_bytes": numbers["memory_bytes"],
        "profile": profile,
        "slot": numbers["slot"],
    }

"""What people say about their Ray clusters, and what a task may say to Ray."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

import msgspec

from argosy.infra import border

_AMOUNTS: Final = {
    "provision_timeout": "write a number of seconds",
    "entrypoint_num_cpus": "write a number of CPUs",
    "entrypoint_num_gpus": "write a number of GPUs",
    "entrypoint_memory": "write a number of bytes",
}
#: Of a runtime environment: what is files, which a job that is submitted from elsewhere does not bring.
_LOCAL: Final = ("working_dir", "py_modules")


class Growing(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Nodes that an autoscaler can add. Ray does not tell of kinds of which no node is there."""

    cpus: int
    memory: int  # GiB, as Ray counts it
    nodes: int  # at most
    accelerators: str = ""  # of a node: H100:8


class ClusterSettings(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """One cluster, as `ray.yaml` writes it."""

    address: str  # of its dashboard: https://HOST[:PORT][/PATH], or HOST:PORT
    token_file: str = ""  # with the token of the cluster; "": as Ray's own tools find it
    login: str = ""  # [user@]host[:port] from which its nodes are reached by ssh, by their addresses
    key_file: str = ""  # of the log-ins; "": as ssh is set up
    ssh_config: str = ""  # a file like ~/.ssh/config that knows `login`
    node_dir: str = "/tmp"  # where nodes keep the files of claims
    grows: tuple[Growing, ...] = ()
    accelerators: Mapping[str, str] = {}  # by the names that the cluster gives to resources: `GPU: H100`

    @property
    def url(self) -> str:
        """
        >>> ClusterSettings(address="10.0.0.5:8265").url, ClusterSettings(address="https://ray.example/").url
        ('http://10.0.0.5:8265', 'https://ray.example')
        """
        address = self.address.rstrip("/")
        return address if "://" in address else f"http://{address}"


class TaskOptions(msgspec.Struct, frozen=True, kw_only=True):
    """What a task says under `config.ray`."""

    native: bool = False  # its commands are submitted as jobs of Ray: no agents
    entrypoint: str = ""  # the command of a job of Ray, as it is
    runtime_env: Mapping[str, Any] = {}  # Any: JSON that Ray understands
    entrypoint_num_cpus: float = 0
    entrypoint_num_gpus: float = 0
    entrypoint_memory: int = 0
    entrypoint_resources: Mapping[str, float] = {}
    resources: Mapping[str, float] = {}  # custom resources of Ray, for each node
    wait_s: int = 0  # so long it may wait for room; 0: as long as it takes


def read_options(text: str, name: str = "ray") -> TaskOptions:
    """What the JSON text of a task's `config` says under `name`. Raises RequestRefused with the field.

    >>> read_options('{"ray": {"resources": {"rack1": 1}}}').resources
    {'rack1': 1.0}
    """
    given: Any = msgspec.json.decode(text).get(name) if text else None
    if given is None:
        return TaskOptions()
    if not isinstance(given, dict):
        raise border.RequestRefused(f"config.{name}", f"`config.{name}` is not a map of settings")
    entrypoint = given.get("entrypoint") or ""
    if not isinstance(entrypoint, str):
        raise _wrong(name, "entrypoint", entrypoint, "write a command: `python train.py`")
    native = given.get("native", bool(entrypoint))
    if not isinstance(native, bool):
        raise _wrong(name, "native", native, "write `true` or `false`")
    amounts = {each: _amount(name, each, given.get(each)) for each in _AMOUNTS}
    return TaskOptions(
        native=native,
        entrypoint=entrypoint,
        runtime_env=_runtime_env(name, given.get("runtime_env")),
        entrypoint_num_cpus=amounts["entrypoint_num_cpus"],
        entrypoint_num_gpus=amounts["entrypoint_num_gpus"],
        entrypoint_memory=int(amounts["entrypoint_memory"]),
        entrypoint_resources=_resources(name, "entrypoint_resources", given.get("entrypoint_resources")),
        resources=_resources(name, "resources", given.get("resources")),
        wait_s=int(amounts["provision_timeout"]),
    )


def _amount(name: str, field: str, value: object) -> float:
    if value is None:
        return 0
    if not isinstance(value, int | float) or isinstance(value, bool) or value < 0:
        raise _wrong(name, field, value, _AMOUNTS[field])
    return value


def _wrong(name: str, field: str, value: object, fix: str) -> border.RequestRefused:
    return border.RequestRefused(f"config.{name}.{field}", f"`config.{name}.{field}` is {value!r}; {fix}")


def _resources(name: str, field: str, value: object) -> Mapping[str, float]:
    if value is None:
        return {}
    if not isinstance(value, dict):
        raise _wrong(name, field, value, "write a map: `{rack1: 1}`")
    for key, amount in value.items():
        if not isinstance(amount, int | float) or isinstance(amount, bool) or amount < 0:
            raise _wrong(name, f"{field}.{key}", amount, "write a number")
        if key in ("CPU", "GPU", "memory"):
            raise border.RequestRefused(
                f"config.{name}.{field}.{key}",
                f"`config.{name}.{field}.{key}` is given to Ray by Argosy itself: say it by the field for it",
            )
    return {str(key): float(amount) for key, amount in value.items()}


def _runtime_env(name: str, value: object) -> Mapping[str, Any]:
    if value is None:
        return {}
    if not isinstance(value, dict):
        raise _wrong(name, "runtime_env", value, "write a map: `{pip: [torch]}`")
    for field in _LOCAL:
        paths = value.get(field) or []
        for path in [paths] if isinstance(paths, str) else paths:
            if "://" not in str(path):
                raise _wrong(
                    name,
                    f"runtime_env.{field}",
                    path,
                    "a job that is submitted as it is brings no files of this machine: name a URL that its "
                    "nodes can read (s3://, gs://, https://…/x.zip)",
                )
    return value

"""What people say about their Ray clusters, and what a task may say to Ray."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

import msgspec

from argosy.infra import border

#: What of a runtime environment Ray takes from a job that is not submitted from the folder of its files.
_LOCAL: Final = ("working_dir", "py_modules")


class ClusterSettings(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """One cluster, as `ray.yaml` writes it."""

    address: str  # of its dashboard: https://HOST[:PORT][/PATH], or HOST:PORT
    token_file: str = ""  # with the token of the cluster; "": as Ray's own tools find it
    node_dir: str = "/tmp"  # where nodes keep the files of claims
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
    runtime_env: Mapping[str, Any] = {}  # Any: JSON that Ray understands
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
    native = given.get("native", "entrypoint" in given)
    if not isinstance(native, bool):
        raise _wrong(name, "native", native, "write `true` or `false`")
    wait_s = given.get("provision_timeout") or 0
    if not isinstance(wait_s, int) or isinstance(wait_s, bool) or wait_s < 0:
        raise _wrong(name, "provision_timeout", wait_s, "write a number of seconds")
    return TaskOptions(
        native=native,
        runtime_env=_runtime_env(name, given.get("runtime_env")),
        resources=_resources(name, given.get("resources")),
        wait_s=wait_s,
    )


def _wrong(name: str, field: str, value: object, fix: str) -> border.RequestRefused:
    return border.RequestRefused(f"config.{name}.{field}", f"`config.{name}.{field}` is {value!r}; {fix}")


def _resources(name: str, value: object) -> Mapping[str, float]:
    if value is None:
        return {}
    if not isinstance(value, dict):
        raise _wrong(name, "resources", value, "write a map: `{rack1: 1}`")
    for key, amount in value.items():
        if not isinstance(amount, int | float) or isinstance(amount, bool) or amount < 0:
            raise _wrong(name, f"resources.{key}", amount, "write a number")
        if key in ("CPU", "GPU", "memory"):
            raise border.RequestRefused(
                f"config.{name}.resources.{key}",
                f"`config.{name}.resources.{key}` is given to Ray by Argosy itself; say it under `resources`",
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

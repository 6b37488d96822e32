"""What people say about their clusters (`kubernetes.yaml`) and what a task says under `config.kubernetes`.
Pure but for the reading of the file."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

import msgspec

from argosy.infra import border
from argosy.model.own_volumes import OwnVolume
from argosy.model.rows import Claim

FILE: Final = "kubernetes.yaml"
IMAGE: Final = "python:3.12-slim"  # of tasks that name none
_SECTION: Final = "kubernetes"
_NO_ACCOUNT: Final = frozenset(("", "LOCAL_CREDENTIALS", "NO_UPLOAD"))
_PORT_MODES: Final = ("loadbalancer", "nodeport", "ingress", "podip")


class Kueue(msgspec.Struct, frozen=True, kw_only=True):
    local_queue_name: str = ""


class Metadata(msgspec.Struct, frozen=True, kw_only=True):
    labels: dict[str, str] = {}
    annotations: dict[str, str] = {}


class Dws(msgspec.Struct, frozen=True, kw_only=True):
    """Capacity that Google gives for a while, when it has it."""

    enabled: bool = False
    max_run_duration: str | int | None = None


class TaskConfig(msgspec.Struct, frozen=True, kw_only=True):
    """`config.kubernetes` of a task."""

    namespace: str = ""
    pod_config: dict[str, Any] = {}
    custom_metadata: Metadata = Metadata()
    provision_timeout: int | None = None
    kueue: Kueue = Kueue()
    dws: Dws = Dws()
    remote_identity: str | dict[str, str] = ""  # by context
    service_account: str = ""
    image_pull_secrets: tuple[str, ...] = ()
    set_pod_resource_limits: bool | float = False
    autoscaler: str = ""
    ports: str = ""
    volumes: tuple[OwnVolume, ...] = ()


class NodeType(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Nodes that we cannot see: no rights to list them, or an autoscaler makes them when they are needed."""

    accelerator: str = ""
    count: int = 0
    resource: str = "nvidia.com/gpu"
    cpus: int = 4
    memory: int = 16  # GiB
    arch: str = "x86_64"
    selector: dict[str, str] = {}


class ContextConfig(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """One context of `kubernetes.yaml`."""

    namespace: str = ""
    image: str = ""
    python_image: str = ""  # brings /argosy-python for images without python3
    local_queue: str = ""
    service_account: str = ""
    image_pull_secrets: tuple[str, ...] = ()
    pod_config: dict[str, Any] = {}
    provision_timeout: int | None = None
    autoscaler: str = ""
    ports: str = ""
    node_types: tuple[NodeType, ...] = ()


class _File(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    contexts: dict[str, ContextConfig | None] = {}


class Wishes(msgspec.Struct, frozen=True, kw_only=True):
    """All that one claim says beyond amounts."""

    namespace: str
    image: str
    python_image: str
    queue: str  # of Kueue
    service_account: str
    pull_secrets: tuple[str, ...]
    labels: dict[str, str]
    annotations: dict[str, str]
    pod_configs: tuple[dict[str, Any], ...]  # the later holds
    limits: float  # limits of CPUs and memory, in parts of what is asked for; 0: none
    timeout_s: int | None  # so long a claim may wait; -1: as long as it takes; None: see `Cluster`
    autoscaler: str
    dws: Dws
    ports: tuple[str, ...]
    port_mode: str
    volumes: tuple[OwnVolume, ...] = ()


def read_file(folder: Path) -> dict[str, ContextConfig]:
    """Settings by context. Raises `RequestRefused` for a file that cannot be used."""
    path = folder / FILE
    try:
        text = path.read_text("utf-8")
    except FileNotFoundError:
        return {}
    except (OSError, UnicodeDecodeError) as error:
        raise border.RequestRefused("infra", f"{path} cannot be read: {error}") from None
    import yaml

    try:
        given = yaml.safe_load(text) or {}
        found = msgspec.convert(given, _File).contexts
    except (yaml.YAMLError, msgspec.ValidationError) as error:
        said = " ".join(str(error).split())[:300]
        raise border.RequestRefused(
            "infra", f"{path} is not usable: {said}; write `contexts: {{NAME: {{namespace: NAME}}}}`"
        ) from None
    return {name: each or ContextConfig() for name, each in found.items()}


def task_config(text: str) -> TaskConfig:
    """
    >>> task_config('{"kubernetes": {"namespace": "ml"}}').namespace
    'ml'
    """
    sections: Mapping[str, Any] = msgspec.json.decode(text) if text else {}
    given = dict(sections.get(_SECTION) or {}) if isinstance(sections, dict) else {}
    if given.get("enable_docker"):
        raise border.RequestRefused(
            "config.kubernetes.enable_docker",
            "`config.kubernetes.enable_docker`: pods have no Docker of their own; name the image in "
            "`image_id`, "
            "`image_id`, or add a container with Docker in `pod_config`",
        )
    if isinstance(given.get("ports"), str) and given["ports"] not in _PORT_MODES:
        raise border.RequestRefused(
            "config.kubernetes.ports",
            f"`config.kubernetes.ports` is `{given['ports']}`: write {', '.join(_PORT_MODES)}",
        )
    try:
        return msgspec.convert(given, TaskConfig)
    except msgspec.ValidationError as error:
        raise border.RequestRefused(
            "config.kubernetes", f"`config.kubernetes` of the task: {error}"
        ) from None


def wishes_of(claim: Claim, context: str, own: ContextConfig, namespace: str) -> Wishes:
    """Of a claim in a context, whose settings are `own` and whose usual namespace is `namespace`. Raises
    `RequestRefused`."""
    asked, task = claim.choice.resources, task_config(claim.config or claim.choice.resources.config)
    rest = (asked.infra.region or "").removeprefix(context).strip("/")
    identity = task.remote_identity
    account = identity.get(context, identity.get("*", "")) if isinstance(identity, dict) else identity
    if account == "SERVICE_ACCOUNT":
        account = own.service_account or "argosy"
    account = task.service_account or ("" if account in _NO_ACCOUNT else account) or own.service_account
    factor = task.set_pod_resource_limits
    return Wishes(
        namespace=rest or task.namespace or own.namespace or namespace,
        image=(asked.image_id or "").removeprefix("docker:") or own.image or IMAGE,
        python_image=own.python_image,
        queue=task.kueue.local_queue_name or own.local_queue,
        service_account=account,
        pull_secrets=tuple(dict.fromkeys((*own.image_pull_secrets, *task.image_pull_secrets))),
        labels=dict(asked.labels) | task.custom_metadata.labels,
        annotations=task.custom_metadata.annotations,
        pod_configs=tuple(each for each in (own.pod_config, task.pod_config) if each),
        limits=float(factor) if not isinstance(factor, bool) else 1.0 if factor else 0.0,
        timeout_s=task.provision_timeout if task.provision_timeout is not None else own.provision_timeout,
        autoscaler=task.autoscaler or own.autoscaler,
        dws=task.dws,
        ports=asked.ports,
        port_mode=task.ports or own.ports or "loadbalancer",
        volumes=task.volumes,
    )

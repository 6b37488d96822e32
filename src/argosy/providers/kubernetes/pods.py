"""The pods of a claim, and what is made beside them: as JSON of the API. Pure."""

from __future__ import annotations

import copy
from collections.abc import Mapping
from typing import Any, Final

import msgspec

from argosy.infra import border
from argosy.model.rows import Claim
from argosy.providers.kubernetes.devices import REQUEST
from argosy.providers.kubernetes.nodes import CORES_PART, MEMORY_PART, Match
from argosy.providers.kubernetes.volumes import mount_volumes
from argosy.providers.kubernetes.wishes import Wishes

CLAIM: Final = "argosy.dev/claim"
TAG: Final = "argosy.dev/server"  # of the database that ordered it
NODE: Final = "argosy.dev/node"
NODES: Final = "argosy.dev/nodes"
AGENT: Final = "argosy.dev/agent"
CONTAINER: Final = "argosy"
KUEUE_GATE: Final = "kueue.x-k8s.io/admission"
_KUEUE: Final = "kueue.x-k8s.io"
GRACE_S: Final = 30
#: Python 3.8 or newer of the image, else the one that the init container brought.
_PYTHON: Final = (
    "for p in python3 python /usr/libexec/platform-python /argosy-py/bin/python3; do "
    "command -v $p >/dev/null 2>&1 && $p -c 'import sys; sys.exit(sys.version_info < (3, 8))' && break; "
    "p=; done"
)
_NO_PYTHON: Final = "argosy: the image has no python3 of 3.8 or newer"
_SOCKET: Final = "/argosy-root/agent.sock"
_ENDING: Final = "/argosy-root/ending"  # the pod was told to end
#: Its shell stays process 1: it takes up children that programs leave. When the pod is told to end, so is
#: every process in it, and they have the pod's grace for that; it ends with the last of them. (Where it is
#: not process 1, others are not its own.)
SERVE: Final = (
    f'{_PYTHON}; [ -n "$p" ] || {{ echo "{_NO_PYTHON}" >&2; exit 78; }}; '
    f'unset LD_PRELOAD; "$p" -I -S /argosy/agent.pyz serve --root /argosy-root --socket {_SOCKET} '
    '--name "$HOSTNAME" & a=$!; t=; '
    f"trap 't=1; : > {_ENDING}; if [ $$ = 1 ]; then kill -s TERM -- -1; else kill -s TERM $a; fi' TERM; "
    "wait $a; s=$?; "
    '[ -z "$t" ] || while [ $$ = 1 ] && kill -s 0 -- -1 2>/dev/null; do sleep 0.05; done; exit $s'
)
#: Waits for the agent, which may be starting, and carries streams to it. Into a pod that ends nobody comes:
#: who waited there would hold it up.
CONNECT: Final = (
    f"i=0; while [ ! -S {_SOCKET} ] && [ ! -e {_ENDING} ] && [ $i -lt 200 ]; "
    f"do sleep 0.05; i=$((i+1)); done; [ ! -e {_ENDING} ] || exit 1; {_PYTHON}; "
    f'unset LD_PRELOAD; exec "$p" -I -S /argosy/agent.pyz connect --mux --socket {_SOCKET}'
)
_TOLERATED: Final = (
    "nvidia.com/gpu",
    "amd.com/gpu",
    "google.com/tpu",
    "habana.ai/gaudi",
    "aws.amazon.com/neuron",
)
_SPOT_TAINTS: Final = (
    "kubernetes.azure.com/scalesetpriority",
    "cloud.google.com/gke-spot",
    "karpenter.sh/capacity-type",
)
_OURS: Final = ("restartPolicy", "hostname", "subdomain", "nodeName")


class Gang(msgspec.Struct, frozen=True, kw_only=True):
    """How the cluster is told that pods start together or not at all."""

    kind: str = ""  # kueue, podgroup, volcano; "": we see to it
    version: str = ""  # of its API


class Order(msgspec.Struct, frozen=True, kw_only=True):
    """All that pods of one claim are made of."""

    claim: Claim
    wishes: Wishes
    match: Match
    gang: Gang
    agent: str  # name of the ConfigMap that holds the agent

    @property
    def disk_bytes(self) -> int:
        return self.claim.choice.resources.disk_size_bytes


def marks_of(order: Order, index: int) -> dict[str, str]:
    """Labels by which a pod is known as ours."""
    claim = order.claim
    tag = {TAG: claim.tag} if claim.tag else {}
    return {CLAIM: claim.id, NODE: str(index), NODES: str(claim.count), **tag}


def pod_of(order: Order, index: int) -> dict[str, Any]:
    """The manifest of one node. Raises `RequestRefused` for a `pod_config` that cannot be merged."""
    claim, wishes, gang = order.claim, order.wishes, order.gang
    marks, notes = (
        marks_of(order, index),
        {"cluster-autoscaler.kubernetes.io/safe-to-evict": "false", "karpenter.sh/do-not-disrupt": "true"},
    )
    spec: dict[str, Any] = {
        "restartPolicy": "Never",
        "hostname": f"{claim.id}-{index}",
        "enableServiceLinks": False,
        "automountServiceAccountToken": bool(wishes.service_account),
        "terminationGracePeriodSeconds": GRACE_S,
        "containers": [_container(order)],
        "volumes": [
            {"name": "argosy-agent", "configMap": {"name": order.agent}},
            {"name": "argosy-root", "emptyDir": {}},
            {"name": "argosy-shm", "emptyDir": {"medium": "Memory"}},
        ],
        "tolerations": _tolerations(claim.choice.offer.capacity.value == "spot", order.match.resource),
    }
    if wishes.service_account:
        spec["serviceAccountName"] = wishes.service_account
    if wishes.pull_secrets:
        spec["imagePullSecrets"] = [{"name": name} for name in wishes.pull_secrets]
    if order.match.terms:
        spec["affinity"] = {"nodeAffinity": {"requiredDuringSchedulingIgnoredDuringExecution": _terms(order)}}
    if order.match.by_claim:
        spec["resourceClaims"] = [{"name": REQUEST, "resourceClaimTemplateName": claim.id}]
    mount_volumes(spec, wishes.volumes, claim.count)
    _bring_python(spec, wishes.python_image)
    if gang.kind == "kueue":
        _queue(order, marks, notes)
    elif gang.kind == "podgroup":
        spec["schedulingGroup"] = {"podGroupName": claim.id}
    elif gang.kind == "volcano":
        notes["scheduling.k8s.io/group-name"] = claim.id
        spec["schedulerName"] = "volcano"
    if wishes.dws.enabled:
        notes |= {
            "autoscaling.x-k8s.io/consume-provisioning-request": claim.id,
            "autoscaling.x-k8s.io/provisioning-class-name": DWS_CLASS,
        }
    pod: dict[str, Any] = {
        "metadata": {"labels": wishes.labels, "annotations": wishes.annotations},
        "spec": spec,
    }
    for each in wishes.pod_configs:
        pod = merged(pod, _checked(each), "pod_config")
    meta = pod["metadata"]
    meta |= {
        "name": f"{claim.id}-{index}",
        "labels": meta["labels"] | marks,
        "annotations": notes | meta["annotations"],
    }
    return {"apiVersion": "v1", "kind": "Pod", **pod}


def _queue(order: Order, marks: dict[str, str], notes: dict[str, str]) -> None:
    """Labels and annotations by which Kueue admits the pods of a claim together."""
    claim = order.claim
    marks[f"{_KUEUE}/queue-name"] = order.wishes.queue
    if claim.count > 1:
        marks[f"{_KUEUE}/pod-group-name"] = claim.id
        notes[f"{_KUEUE}/pod-group-total-count"] = str(claim.count)
        notes[f"{_KUEUE}/retriable-in-group"] = "false"


def _container(order: Order) -> dict[str, Any]:
    choice, match, factor = order.claim.choice, order.match, order.wishes.limits
    asked: dict[str, str] = {}
    if choice.cpus_milli:
        asked["cpu"] = f"{choice.cpus_milli}m" if choice.cpus_milli % 1000 else str(choice.cpus_milli // 1000)
    if choice.memory_bytes:
        asked["memory"] = str(choice.memory_bytes)
    if order.disk_bytes:
        asked["ephemeral-storage"] = str(order.disk_bytes)
    devices = {match.resource: str(match.units)} if match.units and not match.by_claim else {}
    claims = {"claims": [{"name": REQUEST}]} if match.by_claim else {}
    if match.percent:
        devices |= {MEMORY_PART: str(match.percent), CORES_PART: str(match.percent)}
    limits = dict(devices)
    if factor:
        limits |= {
            "cpu": f"{int(choice.cpus_milli * factor)}m",
            "memory": str(int(choice.memory_bytes * factor)),
        }
    # A container that was given no card must see none: plug-ins show all of them otherwise.
    env = [] if match.units else [{"name": "NVIDIA_VISIBLE_DEVICES", "value": "void"}]
    return {
        "name": CONTAINER,
        "image": order.wishes.image,
        "command": ["sh", "-c", SERVE],
        "env": env,
        "resources": {"requests": asked | devices, "limits": limits, **claims},
        "terminationMessagePolicy": "FallbackToLogsOnError",
        "volumeMounts": [
            {"name": "argosy-agent", "mountPath": "/argosy", "readOnly": True},
            {"name": "argosy-root", "mountPath": "/argosy-root"},
            {"name": "argosy-shm", "mountPath": "/dev/shm"},
        ],
    }


def _bring_python(spec: dict[str, Any], image: str) -> None:
    if not image:
        return
    place = {"name": "argosy-python", "mountPath": "/argosy-py"}
    spec["volumes"].append({"name": "argosy-python", "emptyDir": {}})
    spec["containers"][0]["volumeMounts"].append(place)
    command = ["sh", "-c", "cp -a /argosy-python/. /argosy-py/"]
    spec["initContainers"] = [
        {"name": "argosy-python", "image": image, "command": command, "volumeMounts": [place]}
    ]


def _tolerations(spot: bool, resource: str) -> list[dict[str, str]]:
    keys = [*(_TOLERATED if resource else ()), *(_SPOT_TAINTS if spot else ())]
    found = [{"key": key, "operator": "Exists"} for key in keys]
    return [*found, {"key": "sku", "operator": "Equal", "value": "gpu"}] if resource else found


def _terms(order: Order) -> dict[str, Any]:
    terms = [
        {
            "matchExpressions": [
                {"key": key, "operator": word, "values": list(values)} for key, word, values in term
            ]
        }
        for term in order.match.terms
    ]
    return {"nodeSelectorTerms": terms}


def _checked(config: dict[str, Any]) -> dict[str, Any]:
    """Raises `RequestRefused` for what is ours to say."""
    spec = config.get("spec") or {}
    bad = [f"spec.{name}" for name in _OURS if name in spec]
    meta = config.get("metadata") or {}
    bad += [f"metadata.{name}" for name in ("name", "namespace") if name in meta]
    bad += [
        f"metadata.labels.{name}" for name in meta.get("labels") or {} if str(name).startswith("argosy.dev/")
    ]
    mine = [each for each in spec.get("containers") or () if each.get("name") in (None, CONTAINER)]
    bad += [f"spec.containers.{name}" for each in mine for name in ("command", "args") if name in each]
    if bad:
        raise border.RequestRefused(
            f"config.kubernetes.pod_config.{bad[0]}",
            f"`{bad[0]}` in `config.kubernetes.pod_config` is given by Argosy itself; leave it out",
        )
    return config


def merged(ours: Any, theirs: Any, place: str) -> Any:  # Any: JSON
    """`theirs` over `ours`: maps field by field, lists of named things by name (a container without a name
    is ours), other lists one after the other. Raises `RequestRefused` where shapes differ.

    >>> merged({"a": {"b": 1}}, {"a": {"c": 2}}, "x")
    {'a': {'b': 1, 'c': 2}}
    """
    if isinstance(ours, dict) and isinstance(theirs, dict):
        both = dict(ours)
        for key, value in theirs.items():
            both[key] = merged(both[key], value, f"{place}.{key}") if key in both else copy.deepcopy(value)
        return both
    if isinstance(ours, list) and isinstance(theirs, list):
        return _merged_lists(ours, theirs, place)
    if type(ours) is not type(theirs) and isinstance(ours, (dict, list)):
        kind = "a map" if isinstance(ours, dict) else "a list"
        raise border.RequestRefused(
            f"config.kubernetes.{place}", f"`config.kubernetes.{place}` must be {kind}"
        )
    return theirs


def _merged_lists(ours: list[Any], theirs: list[Any], place: str) -> list[Any]:
    both = list(ours)
    for each in theirs:
        name = each.get("name") if isinstance(each, Mapping) else None
        if name is None and isinstance(each, Mapping) and place.endswith(".containers"):
            name = CONTAINER
        at = next(
            (i for i, one in enumerate(both) if name and isinstance(one, dict) and one.get("name") == name),
            -1,
        )
        if at >= 0:
            both[at] = merged(both[at], each, f"{place}.{name}")
        elif each not in both:
            both.append(copy.deepcopy(each))
    return both


DWS_CLASS: Final = "queued-provisioning.gke.io"


def owner_of(name: str, uid: str) -> list[dict[str, Any]]:
    """What is made beside pods goes with the first of them."""
    return [{"apiVersion": "v1", "kind": "Pod", "name": name, "uid": uid, "controller": False}]

"""What is made beside the pods of a claim: the agent's file, groups for gang schedulers, ways to ports.
Pure."""

from __future__ import annotations

import base64
from typing import Any

from argosy.providers.kubernetes.devices import template_of
from argosy.providers.kubernetes.pods import AGENT, CLAIM, DWS_CLASS, NODE, Order, marks_of, owner_of, pod_of

JSON = dict[str, Any]


def agent_map(name: str, zipapp: bytes) -> JSON:
    """The agent as a ConfigMap, which all pods of one version share."""
    return {
        "apiVersion": "v1",
        "kind": "ConfigMap",
        "metadata": {"name": name, "labels": {AGENT: "zipapp"}},
        "immutable": True,
        "binaryData": {"agent.pyz": base64.b64encode(zipapp).decode()},
    }


def group_of(order: Order) -> tuple[str, JSON] | None:
    """Path below the namespace's and body of the object that a gang scheduler wants; None: it wants none."""
    claim, gang = order.claim, order.gang
    meta = {"name": claim.id, "labels": _marks(order)}
    if gang.kind == "podgroup":
        spec: JSON = {"schedulingPolicy": {"gang": {"minCount": claim.count}}}
        return f"/apis/scheduling.k8s.io/{gang.version}", _object(
            "PodGroup", f"scheduling.k8s.io/{gang.version}", meta, spec
        )
    if gang.kind == "volcano":
        version = "scheduling.volcano.sh/v1beta1"
        return f"/apis/{version}", _object("PodGroup", version, meta, {"minMember": claim.count})
    return None


def devices_of(order: Order, version: str) -> JSON:
    """The template of the claims on devices that its pods have."""
    match = order.match
    return template_of(
        order.claim.id,
        _marks(order),
        version=version,
        device_class=match.resource,
        selector=match.selector,
        count=match.units,
    )


def provisioning_of(order: Order) -> tuple[JSON, JSON]:
    """A template of pods, and the request for as many nodes as they need (autoscaling.x-k8s.io)."""
    pod, claim = pod_of(order, 0), order.claim
    meta = {"name": claim.id, "labels": _marks(order)}
    template = {
        "apiVersion": "v1",
        "kind": "PodTemplate",
        "metadata": meta,
        "template": {"metadata": {}, "spec": pod["spec"]},
    }
    spec: JSON = {
        "provisioningClassName": DWS_CLASS,
        "podSets": [{"podTemplateRef": {"name": claim.id}, "count": claim.count}],
    }
    longest = order.wishes.dws.max_run_duration
    if longest is not None:
        spec["parameters"] = {"maxRunDurationSeconds": str(_seconds(longest))}
    return template, _object("ProvisioningRequest", "autoscaling.x-k8s.io/v1", meta, spec)


def ports_of(order: Order, uid: str) -> list[tuple[str, JSON]]:
    """Ways to the ports of the first node, by path below the namespace's. They go with its pod."""
    claim, wishes = order.claim, order.wishes
    numbers = [each for text in wishes.ports for each in _range(text)]
    if not numbers or wishes.port_mode == "podip":
        return []
    meta: JSON = {
        "name": claim.id,
        "labels": _marks(order),
        "ownerReferences": owner_of(f"{claim.id}-0", uid),
    }
    kinds = {"loadbalancer": "LoadBalancer", "nodeport": "NodePort", "ingress": "ClusterIP"}
    ports = [{"name": f"p{number}", "port": number, "targetPort": number} for number in numbers]
    spec: JSON = {"type": kinds[wishes.port_mode], "selector": {CLAIM: claim.id, NODE: "0"}, "ports": ports}
    made = [("/api/v1/{}/services", _object("Service", "v1", meta, spec))]
    if wishes.port_mode == "ingress":
        paths = [
            {
                "path": f"/argosy/{claim.id}/{number}",
                "pathType": "Prefix",
                "backend": {"service": {"name": claim.id, "port": {"number": number}}},
            }
            for number in numbers
        ]
        rules: JSON = {"rules": [{"http": {"paths": paths}}]}
        made.append(
            (
                "/apis/networking.k8s.io/v1/{}/ingresses",
                _object("Ingress", "networking.k8s.io/v1", meta, rules),
            )
        )
    return made


def _object(kind: str, version: str, meta: JSON, spec: JSON) -> JSON:
    return {"apiVersion": version, "kind": kind, "metadata": meta, "spec": spec}


def _marks(order: Order) -> dict[str, str]:
    return {key: value for key, value in marks_of(order, 0).items() if key != NODE}


def _range(text: str) -> range:
    first, _, last = text.partition("-")
    return range(int(first), int(last or first) + 1)


def _seconds(given: str | int) -> int:
    """`24h`, `90m`, `3600s`, or seconds."""
    text = str(given).strip()
    unit = {"h": 3600, "m": 60, "s": 1, "d": 86400}.get(text[-1:], 0)
    number = text[:-1] if unit else text
    return int(float(number) * (unit or 1)) if number.replace(".", "", 1).isdigit() else 0

"""What `argosy check` finds out about one context."""

from __future__ import annotations

import asyncio
from typing import Final

import msgspec

from argosy.infra import border
from argosy.infra.provider import Diagnostic
from argosy.model.rights import NEEDED
from argosy.providers.kubernetes.capacity import total_text
from argosy.providers.kubernetes.cluster import Cluster
from argosy.providers.kubernetes.nodes import Machine
from argosy.providers.kubernetes.objects import Quota

_SHOWN: Final = 5
_PATIENCE_S: Final = 2.7  # people wait for all places together


class _Version(msgspec.Struct, frozen=True):
    gitVersion: str = "?"


class _Allowed(msgspec.Struct, frozen=True):
    allowed: bool = False


class _Review(msgspec.Struct, frozen=True):
    status: _Allowed = _Allowed()


async def findings_of(cluster: Cluster, provider: str) -> list[Diagnostic]:
    """Whether it answers, what we may do in the namespace, what it has, and nodes whose cards nobody gets."""

    def finding(ok: bool, what: str, hint: str = "") -> Diagnostic:
        return Diagnostic(provider=provider, ok=ok, what=f"{cluster.name}: {what}", hint="" if ok else hint)

    try:
        async with asyncio.timeout(_PATIENCE_S):
            version, denied, machines = await asyncio.gather(
                cluster.api.call("GET", "/version", into=_Version),
                _denied(cluster),
                cluster.capacity.machines(),
            )
    except TimeoutError:
        what = f"{cluster.api.context.server} has not answered within {_PATIENCE_S:g} s"
        return [
            finding(False, what, f"`kubectl --context {cluster.name} version` tells whether it does at all")
        ]
    except border.BorderError as error:
        fact, _, fix = str(error).partition("; ") if "; " in str(error) else str(error).partition(": ")
        return [finding(False, fact, fix or f"`kubectl --context {cluster.name} get pods` tells more")]
    said = version.gitVersion if version is not None else "?"
    findings = [finding(True, f"Kubernetes {said} answers at {cluster.api.context.server}")]
    role = f"`argosy kubernetes manifest --namespace {cluster.namespace} --apply`"
    if denied:
        what = ", ".join(f"{verb} {kind}" for verb, kind in denied[:_SHOWN])
        findings.append(
            finding(
                False, f"may not {what} in the namespace {cluster.namespace}", f"{role} gives these rights"
            )
        )
    else:
        findings.append(finding(True, f"may run pods in the namespace {cluster.namespace}"))
    if machines is None:
        what = "may not list nodes: what is free is not known"
        hint = "`argosy kubernetes manifest --cluster-wide` lets us, or name `node_types` in kubernetes.yaml"
        return [*findings, finding(bool(cluster.config.node_types), what, hint)]
    if cluster.capacity.hidden:
        what = "may not list devices that pods claim (resource.k8s.io): they are not offered"
        fix = "`argosy kubernetes manifest --cluster-wide --apply` lets us"
        findings.append(finding(False, what, fix))
    findings += [finding(True, line) for line in total_text(machines)]
    findings += [finding(True, line) for line in await _quotas(cluster)]
    return findings + [finding(False, fact, fix) for fact, fix in _unused_cards(machines)]


async def _denied(cluster: Cluster) -> list[tuple[str, str]]:
    """Verbs and resources that the role has and that we may not use."""

    async def may(verb: str, kind: str) -> bool:
        resource, _, sub = kind.partition("/")
        about = {"namespace": cluster.namespace, "verb": verb, "resource": resource, "subresource": sub}
        body = {
            "apiVersion": "authorization.k8s.io/v1",
            "kind": "SelfSubjectAccessReview",
            "spec": {"resourceAttributes": {key: value for key, value in about.items() if value}},
        }
        path = "/apis/authorization.k8s.io/v1/selfsubjectaccessreviews"
        review = await cluster.api.call("POST", path, into=_Review, json=body)
        return review is not None and review.status.allowed

    asked = [(verb, kind) for kind, verbs in NEEDED for verb in verbs]
    answers = await asyncio.gather(*(may(verb, kind) for verb, kind in asked))
    return [each for each, allowed in zip(asked, answers, strict=True) if not allowed]


async def _quotas(cluster: Cluster) -> list[str]:
    """What quotas of the namespace say about accelerators and pods, and how much of it is in use."""
    try:
        path = f"/api/v1/namespaces/{cluster.namespace}/resourcequotas"
        quotas, _ = await cluster.api.items(path, into=Quota)
    except border.BorderError:
        return []
    return [
        f"quota {each.metadata.name}: {each.status.used.get(name, '0')} of {limit} {name} in use"
        for each in quotas
        for name, limit in sorted(each.status.hard.items())
        if name == "pods" or "/" in name or name.endswith("gpu")
    ]


def _unused_cards(machines: list[Machine]) -> list[tuple[str, str]]:
    """Nodes with cards that no pod can ask for, or whose model nobody tells."""
    found = []
    bare = [each.name for each in machines if each.has_card and not each.resource]
    nameless = [each.name for each in machines if each.resource and not each.model]
    if bare:
        what = (
            f"{_names(bare)} have accelerators and give none to pods: the device plug-in does not run there"
        )
        fix = "install it: `helm install gpu-operator nvidia/gpu-operator`, or the DaemonSet of your cloud"
        found.append((what, f"{fix}; then `kubectl describe node {bare[0]}` lists nvidia.com/gpu"))
    if nameless:
        what = f"{_names(nameless)} have accelerators whose model no label tells, so they are not offered"
        fix = f"`kubectl label node {nameless[0]} argosy.dev/accelerator=H100`"
        found.append((what, f"{fix}, or install GPU feature discovery"))
    return found


def _names(names: list[str]) -> str:
    more = f" and {len(names) - _SHOWN} more" if len(names) > _SHOWN else ""
    return ", ".join(sorted(names)[:_SHOWN]) + more

"""What the fake API server takes: fields of each kind, rules about values, rights. Pure."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from decimal import Decimal
from typing import Any, Final, NamedTuple

JSON = dict[str, Any]
ANY: Final = object()  # whatever stands there


class Kind(NamedTuple):
    name: str
    plural: str
    group: str  # `v1`, `apps/v1`
    namespaced: bool
    fields: Mapping[str, object]


class Refused(Exception):
    """An answer that is a Status."""

    def __init__(self, code: int, reason: str, message: str, field: str = "", retry_s: int = 0) -> None:
        super().__init__(message)
        self.code, self.reason, self.message = code, reason, message
        self.field, self.retry_s = field, retry_s

    def body(self) -> JSON:
        causes = (
            [{"reason": "FieldValueInvalid", "message": self.message, "field": self.field}]
            if self.field
            else []
        )
        details: JSON = {"causes": causes} if causes else {}
        if self.retry_s:
            details["retryAfterSeconds"] = self.retry_s
        return {
            **{"kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Failure"},
            **{"message": self.message, "reason": self.reason, "code": self.code, "details": details},
        }


def _keys(text: str, **deeper: object) -> dict[str, object]:
    return {**dict.fromkeys(text.split(), ANY), **deeper}


_META: Final = _keys(
    "name namespace uid labels annotations creationTimestamp deletionTimestamp resourceVersion finalizers",
    ownerReferences=[_keys("apiVersion kind name uid controller blockOwnerDeletion")],
)
_ENV: Final = [_keys("name value valueFrom")]
_CONTAINER: Final = _keys(
    "name image command args workingDir imagePullPolicy securityContext tty stdin lifecycle envFrom "
    "livenessProbe readinessProbe startupProbe terminationMessagePath terminationMessagePolicy",
    env=_ENV,
    ports=[_keys("containerPort name protocol hostPort")],
    resources=_keys("requests limits", claims=[_keys("name request")]),
    volumeMounts=[_keys("name mountPath subPath readOnly mountPropagation")],
)
_EXPRESSIONS: Final = {
    "matchExpressions": [_keys("key operator values")],
    "matchFields": [_keys("key operator values")],
}
_POD_SPEC: Final = _keys(
    "restartPolicy hostname subdomain enableServiceLinks automountServiceAccountToken nodeSelector "
    "hostNetwork hostIPC terminationGracePeriodSeconds serviceAccountName priorityClassName schedulerName "
    "securityContext shareProcessNamespace dnsPolicy runtimeClassName topologySpreadConstraints",
    containers=[_CONTAINER],
    initContainers=[_CONTAINER],
    volumes=[
        _keys("name configMap emptyDir persistentVolumeClaim secret hostPath nfs projected csi ephemeral")
    ],
    tolerations=[_keys("key operator value effect tolerationSeconds")],
    imagePullSecrets=[_keys("name")],
    affinity=_keys(
        "podAffinity podAntiAffinity",
        nodeAffinity=_keys(
            "preferredDuringSchedulingIgnoredDuringExecution",
            requiredDuringSchedulingIgnoredDuringExecution={"nodeSelectorTerms": [_EXPRESSIONS]},
        ),
    ),
    schedulingGates=[_keys("name")],
    schedulingGroup=_keys("podGroupName"),
    resourceClaims=[_keys("name resourceClaimName resourceClaimTemplateName")],
)


def _kind(name: str, plural: str, group: str, *, namespaced: bool = True, **fields: object) -> Kind:
    whole = {"apiVersion": ANY, "kind": ANY, "metadata": _META, **fields}
    return Kind(name, plural, group, namespaced, whole)


def _device_kinds(version: str) -> tuple[Kind, ...]:
    """Kinds of dynamic resource allocation; requests of v1beta1 stand one level higher."""
    group = f"resource.k8s.io/{version}"
    wanted = _keys(
        "deviceClassName allocationMode count adminAccess tolerations",
        selectors=[{"cel": _keys("expression")}],
    )
    request = (
        {"name": ANY, **wanted} if version == "v1beta1" else _keys("name firstAvailable", exactly=wanted)
    )
    spec = {"devices": _keys("constraints config", requests=[request])}
    return (
        _kind("ResourceSlice", "resourceslices", group, namespaced=False, spec=ANY),
        _kind("DeviceClass", "deviceclasses", group, namespaced=False, spec=ANY),
        _kind("ResourceClaim", "resourceclaims", group, spec=spec, status=ANY),
        _kind(
            "ResourceClaimTemplate", "resourceclaimtemplates", group, spec={"metadata": _META, "spec": spec}
        ),
    )


_PORTS: Final = [_keys("name port targetPort protocol nodePort")]
KINDS: Final = (
    _kind("Pod", "pods", "v1", spec=_POD_SPEC),
    _kind("ConfigMap", "configmaps", "v1", data=ANY, binaryData=ANY, immutable=ANY),
    _kind("Secret", "secrets", "v1", data=ANY, stringData=ANY, type=ANY),
    _kind(
        "Service",
        "services",
        "v1",
        spec=_keys("type selector clusterIP publishNotReadyAddresses", ports=_PORTS),
    ),
    _kind("PodTemplate", "podtemplates", "v1", template={"metadata": _META, "spec": _POD_SPEC}),
    _kind("Event", "events", "v1", involvedObject=ANY, reason=ANY, message=ANY, type=ANY),
    _kind("ResourceQuota", "resourcequotas", "v1", spec=_keys("hard")),
    _kind("PersistentVolumeClaim", "persistentvolumeclaims", "v1", spec=ANY),
    _kind("Namespace", "namespaces", "v1", namespaced=False),
    _kind("Node", "nodes", "v1", namespaced=False, spec=ANY, status=ANY),
    _kind(
        "Ingress",
        "ingresses",
        "networking.k8s.io/v1",
        spec=_keys("ingressClassName tls rules defaultBackend"),
    ),
    _kind(
        "PodGroup",
        "podgroups",
        "scheduling.k8s.io/v1beta1",
        spec={"schedulingPolicy": _keys("basic", gang=_keys("minCount"))},
    ),
    _kind(
        "PodGroup", "podgroups", "scheduling.volcano.sh/v1beta1", spec=_keys("minMember queue minResources")
    ),
    *(each for version in ("v1", "v1beta1") for each in _device_kinds(version)),
    _kind(
        "ProvisioningRequest",
        "provisioningrequests",
        "autoscaling.x-k8s.io/v1",
        spec=_keys(
            "provisioningClassName parameters", podSets=[_keys("count", podTemplateRef=_keys("name"))]
        ),
    ),
)
_NAME: Final = re.compile(r"[a-z0-9]([-a-z0-9.]{0,251}[a-z0-9])?")
_LABEL: Final = re.compile(r"([A-Za-z0-9]([-A-Za-z0-9_.]{0,61}[A-Za-z0-9])?)?")
_AMOUNT: Final = re.compile(r"([0-9.]+)(m|k|M|G|T|Ki|Mi|Gi|Ti)?")
_UNITS: Final = {
    **{"": Decimal(1), "m": Decimal("0.001"), "k": Decimal(10**3), "M": Decimal(10**6), "G": Decimal(10**9)},
    **{
        "T": Decimal(10**12),
        "Ki": Decimal(2**10),
        "Mi": Decimal(2**20),
        "Gi": Decimal(2**30),
        "Ti": Decimal(2**40),
    },
}


def amount(text: object, field: str = "") -> Decimal:
    """A quantity. Raises Refused."""
    found = _AMOUNT.fullmatch(str(text))
    if found is None:
        raise _invalid(field, f'quantities must match the regular expression, got "{text}"')
    return Decimal(found[1]) * _UNITS[found[2] or ""]


def _invalid(field: str, why: str) -> Refused:
    return Refused(422, "Invalid", f"{field}: Invalid value: {why}", field)


def check_fields(given: object, known: object, place: str = "") -> None:
    """Every field must be one that the kind has. Raises Refused."""
    if known is ANY or given is None:
        return
    if isinstance(known, list):
        if not isinstance(given, list):
            raise Refused(400, "BadRequest", f"cannot unmarshal into a list: {place}")
        for number, each in enumerate(given):
            check_fields(each, known[0], f"{place}[{number}]")
    elif isinstance(known, Mapping):
        if not isinstance(given, dict):
            raise Refused(400, "BadRequest", f"cannot unmarshal into an object: {place}")
        for name, value in given.items():
            if name not in known:
                raise Refused(
                    400,
                    "BadRequest",
                    f'strict decoding error: unknown field "{place}.{name}"'.replace('".', '"'),
                )
            check_fields(value, known[name], f"{place}.{name}")


def check_values(kind: Kind, body: JSON) -> None:
    """Rules that the server has about values. Raises Refused."""
    meta = body.get("metadata") or {}
    if not _NAME.fullmatch(str(meta.get("name", ""))):
        raise _invalid(
            "metadata.name", f'"{meta.get("name")}": a lowercase RFC 1123 subdomain must consist of ...'
        )
    for name, value in (meta.get("labels") or {}).items():
        if not isinstance(value, str) or not _LABEL.fullmatch(value):
            raise _invalid(
                "metadata.labels", f'"{value}" of {name}: a valid label must be an empty string or ...'
            )
    for name, value in (meta.get("annotations") or {}).items():
        if not isinstance(value, str):
            raise Refused(400, "BadRequest", f"cannot unmarshal annotation {name} into a string")
    if kind.name == "Pod":
        _check_pod(body["spec"], "spec")
    if (
        kind.name == "ConfigMap"
        and len(str(body.get("binaryData", ""))) + len(str(body.get("data", ""))) > 1 << 20
    ):
        raise Refused(422, "Invalid", "[]: Too long: may not be more than 1048576 bytes", "data")


def _check_pod(spec: JSON, place: str) -> None:
    if not spec.get("containers"):
        raise Refused(422, "Invalid", f"{place}.containers: Required value", f"{place}.containers")
    volumes = {each["name"] for each in spec.get("volumes") or ()}
    for each in (*spec.get("initContainers", ()), *spec["containers"]):
        for name in ("name", "image"):
            if not each.get(name):
                raise Refused(
                    422,
                    "Invalid",
                    f"{place}.containers[0].{name}: Required value",
                    f"{place}.containers.{name}",
                )
        for mount in each.get("volumeMounts") or ():
            if mount["name"] not in volumes:
                raise Refused(
                    422,
                    "Invalid",
                    f'volumeMounts.name: Not found: "{mount["name"]}"',
                    f"{place}.volumeMounts",
                )
        have = each.get("resources") or {}
        requests, limits = have.get("requests") or {}, have.get("limits") or {}
        for name in {*requests, *limits}:
            field = f"{place}.containers.resources.{name}"
            asked, most = amount(requests.get(name, 0), field), limits.get(name)
            if most is not None and asked > amount(most, field):
                raise _invalid(
                    field, f'"{requests[name]}": must be less than or equal to {name} limit of {most}'
                )
            if "/" in name and (most is None or (name in requests and asked != amount(most, field))):
                raise _invalid(field, "must be equal to the limit: non-overcommitable resources")
        for entry in each.get("env") or ():
            if not isinstance(entry.get("value", ""), str):
                raise Refused(
                    400, "BadRequest", f"json: cannot unmarshal env {entry.get('name')} into a string"
                )


class Right(NamedTuple):
    """A rule of a role, in one namespace or (`""`) in all."""

    namespace: str
    groups: tuple[str, ...]
    resources: tuple[str, ...]
    verbs: tuple[str, ...]


def rights_of(documents: Sequence[Mapping[str, Any]]) -> tuple[Right, ...]:
    """The rules of Roles and ClusterRoles, as `kubectl apply` would give them to their account."""
    return tuple(
        Right(
            str(each["metadata"].get("namespace", "")),
            tuple(rule["apiGroups"]),
            tuple(rule["resources"]),
            tuple(rule["verbs"]),
        )
        for each in documents
        if each["kind"] in ("Role", "ClusterRole")
        for rule in each["rules"]
    )


def may(rights: Sequence[Right] | None, verb: str, group: str, resource: str, namespace: str) -> bool:
    """None: everything is allowed."""
    return rights is None or any(
        each.namespace in ("", namespace)
        and group in each.groups
        and resource in each.resources
        and verb in each.verbs
        for each in rights
    )


def forbidden(verb: str, group: str, resource: str, namespace: str, name: str = "") -> Refused:
    where = f'in the namespace "{namespace}"' if namespace else "at the cluster scope"
    what = f'{resource} "{name}" is forbidden: ' if name else f"{resource} is forbidden: "
    who = 'User "system:serviceaccount:ml:argosy"'
    text = f'{who} cannot {verb} resource "{resource}" in API group "{group}" {where}'
    return Refused(403, "Forbidden", what + text)


def selects(text: str, labels: Mapping[str, str]) -> bool:
    """Whether a labelSelector holds: `a`, `!a`, `a=b`, `a!=b`, `a in (b,c)`."""
    for term in filter(None, (part.strip() for part in re.split(r",(?![^(]*\))", text))):
        found = re.fullmatch(r"(\S+) (in|notin) \((.*)\)", term)
        if found:
            holds = (labels.get(found[1]) in [each.strip() for each in found[3].split(",")]) == (
                found[2] == "in"
            )
        elif "!=" in term:
            key, _, value = term.partition("!=")
            holds = labels.get(key) != value
        elif "=" in term:
            key, value = re.split("==?", term, maxsplit=1)
            holds = labels.get(key) == value
        else:
            holds = term[1:] not in labels if term.startswith("!") else term in labels
        if not holds:
            return False
    return True


def field_selects(text: str, given: JSON) -> bool:
    """Whether a fieldSelector holds: `status.phase!=Failed,involvedObject.name=x`."""
    for term in filter(None, text.split(",")):
        key, sign, value = re.split(r"(!=|==?)", term, maxsplit=1)
        seen: Any = given
        for part in key.split("."):
            seen = seen.get(part, "") if isinstance(seen, dict) else ""
        if (str(seen) == value) == (sign == "!="):
            return False
    return True

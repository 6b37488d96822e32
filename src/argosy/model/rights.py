"""The Kubernetes permissions that Argosy needs in a namespace, and those that let it see the nodes. Pure."""

from __future__ import annotations

from typing import Any, Final

#: Of the core API group, without which nothing works: resource, verbs.
NEEDED: Final = (
    ("pods", ("get", "list", "watch", "create", "delete", "deletecollection")),
    ("pods/exec", ("get", "create")),
    ("configmaps", ("create",)),
)
#: What else is used where it is there: API groups, resources, verbs.
_USED: Final = (
    (("",), ("services",), ("get", "list", "create", "delete")),
    (("",), ("pods",), ("patch",)),
    (("",), ("pods/log", "events", "resourcequotas", "persistentvolumeclaims"), ("get", "list")),
    (("",), ("podtemplates",), ("create", "delete")),
    (("",), ("persistentvolumeclaims",), ("create", "delete")),  # of a task, or of `argosy volumes`
    (("scheduling.k8s.io", "scheduling.volcano.sh"), ("podgroups",), ("get", "create", "delete")),
    (("autoscaling.x-k8s.io",), ("provisioningrequests",), ("get", "create", "delete")),
    (("resource.k8s.io",), ("resourceclaimtemplates",), ("create", "delete")),
    (("networking.k8s.io",), ("ingresses",), ("get", "create", "delete")),
)
#: Of the whole cluster: what is free can only be told by who sees all pods.
_WIDE: Final = (
    (("",), ("nodes", "pods"), ("get", "list", "watch")),
    (("resource.k8s.io",), ("resourceslices", "deviceclasses", "resourceclaims"), ("list",)),
)
_RBAC: Final = "rbac.authorization.k8s.io/v1"


def role_documents(namespace: str, *, account: str, cluster_wide: bool) -> list[dict[str, Any]]:
    """A service account with a role of its own, as documents for `kubectl apply`."""
    rules = [_rule(("",), (kind,), verbs) for kind, verbs in NEEDED] + [_rule(*each) for each in _USED]
    who = [{"kind": "ServiceAccount", "name": account, "namespace": namespace}]
    place = {"name": account, "namespace": namespace}
    documents: list[dict[str, Any]] = [
        {"apiVersion": "v1", "kind": "ServiceAccount", "metadata": place},
        {"apiVersion": _RBAC, "kind": "Role", "metadata": place, "rules": rules},
        {
            "apiVersion": _RBAC,
            "kind": "RoleBinding",
            "metadata": place,
            "roleRef": _ref("Role", account),
            "subjects": who,
        },
    ]
    if cluster_wide:
        name = {"name": f"{account}-{namespace}"}
        documents += [
            {
                "apiVersion": _RBAC,
                "kind": "ClusterRole",
                "metadata": name,
                "rules": [_rule(*each) for each in _WIDE],
            },
            {
                "apiVersion": _RBAC,
                "kind": "ClusterRoleBinding",
                "metadata": name,
                "roleRef": _ref("ClusterRole", name["name"]),
                "subjects": who,
            },
        ]
    return documents


def _rule(groups: tuple[str, ...], resources: tuple[str, ...], verbs: tuple[str, ...]) -> dict[str, Any]:
    return {"apiGroups": list(groups), "resources": list(resources), "verbs": list(verbs)}


def _ref(kind: str, name: str) -> dict[str, str]:
    return {"apiGroup": "rbac.authorization.k8s.io", "kind": kind, "name": name}

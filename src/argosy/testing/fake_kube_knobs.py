"""What tests do to the fake cluster behind everybody's back."""

from __future__ import annotations

from typing import Any

from argosy.testing.fake_kube_pods import Kubelets
from argosy.testing.fake_kube_rules import JSON
from argosy.testing.fake_kube_store import Store, kind_of


class Knobs:
    """Things that happen in clusters."""

    def __init__(self, store: Store, pods: Kubelets) -> None:
        self.store, self.pods = store, pods

    def put(self, plural: str, body: JSON, *, namespace: str = "", group: str = "v1") -> None:
        """An object that is there, whatever the rules say."""
        self.store.add(known_kind(group, plural), namespace, body)

    def pod(self, name: str, namespace: str = "default") -> JSON | None:
        return self.store.objects.get(("v1", "pods", namespace, name))

    def pods_of(self, claim_id: str) -> list[JSON]:
        every = (pod for _, pod in self.store.of("pods"))
        return [
            pod for pod in every if (pod["metadata"].get("labels") or {}).get("argosy.dev/claim") == claim_id
        ]

    def preempt(
        self,
        name: str,
        namespace: str = "default",
        reason: str = "PreemptionByScheduler",
        *,
        grace_s: float = 0.1,
    ) -> None:
        """The pod is taken away, as the scheduler, a drain or a taint does it."""
        key = ("v1", "pods", namespace, name)
        condition = {"type": "DisruptionTarget", "status": "True", "reason": reason, "message": "for another"}
        others = self.store.objects[key]["status"].get("conditions") or []
        self.store.change(key, conditions=[*others, condition])
        self.pods.delete(key, grace_s)

    def fail(
        self,
        name: str,
        namespace: str = "default",
        *,
        reason: str = "",
        message: str = "",
        exit_code: int = 137,
        why: str = "OOMKilled",
    ) -> None:
        """Its container ends; `reason`: of the pod, as `Evicted`."""
        key = ("v1", "pods", namespace, name)
        first = self.store.objects[key]["spec"]["containers"][0]
        state = {"terminated": {"exitCode": exit_code, "reason": why, "message": message}}
        told = {"name": first["name"], "image": first["image"], "state": state}
        self.store.change(key, phase="Failed", reason=reason, message=message, containerStatuses=[told])

    def kill_node(self, name: str) -> None:
        """Its kubelet says nothing more: the node and its pods are not ready."""
        self.pods.quiet.add(name)
        self.store.change(("v1", "nodes", "", name), conditions=[{"type": "Ready", "status": "Unknown"}])
        for key, pod in self.store.of("pods"):
            if pod["spec"].get("nodeName") == name:
                others = [each for each in pod["status"].get("conditions") or () if each["type"] != "Ready"]
                self.store.change(
                    key, conditions=[*others, {"type": "Ready", "status": "False", "reason": "NodeLost"}]
                )


def known_kind(group: str, plural: str) -> Any:
    kind = kind_of(group, plural)
    assert kind is not None, f"{group} {plural}"
    return kind

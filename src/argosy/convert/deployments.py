"""Deployments and StatefulSets of Kubernetes as services, with what stands beside them in the file: their
autoscalers, Services and Ingresses."""

from __future__ import annotations

from typing import Final

from argosy.convert.draft import Document, Draft
from argosy.convert.keda import convert_scaled_object
from argosy.convert.pods import Configured, Pod, finish
from argosy.convert.reading import Fields, text_of
from argosy.spec.findings import excerpt
from argosy.spec.source import Node

#: Kinds that say how others reach a service, which the gateway does here.
REACHED_BY: Final = ("Service", "Ingress", "HTTPRoute", "Gateway")
_DROPPED: Final = {
    "strategy": "a new revision comes by `argosy serve update`, rolling or as a canary",
    "updateStrategy": "a new revision comes by `argosy serve update`, rolling or as a canary",
    "minReadySeconds": "a replica serves when its probe answers",
    "progressDeadlineSeconds": "a revision that does not get ready is rolled back",
    "podManagementPolicy": "replicas start as they can",
    "persistentVolumeClaimRetentionPolicy": "volumes stay",
    "volumeClaimTemplates": "say `volumes: {PATH: NAME}`",
}


def read_deployment(spec: Fields, draft: Draft, configured: Configured) -> None:
    """The pods are replicas; without a port they are programs that nobody asks."""
    count = spec.whole("replicas")
    replicas = 1 if count is None else count
    if not 0 <= replicas <= 10_000:
        raise spec.wrong(f"`{spec.at('replicas')}` must be 0 to 10000")
    spec.ignore("selector", "revisionHistoryLimit", "serviceName", "paused", "ordinals")
    for name, why in _DROPPED.items():
        spec.drop(name, why)
    pod = Pod(draft, configured)
    pod.serves = True
    pod.template(spec.section("template"))
    finish(draft, pod)
    probe, port = _probe(pod, draft)
    ports = draft.resources.get("ports")
    opened = [each for each in ports if isinstance(each, int)] if isinstance(ports, list) else []
    port = port or (opened[0] if opened else None)
    if port is None:
        draft.note("name", "it opens no port, so it is no service: `argosy jobs launch` runs it")
        if replicas > 1:
            draft.note(
                "name", f"there were {replicas} of it: say `--num-jobs {replicas}` to `argosy jobs launch`"
            )
        return
    if probe is None:
        draft.note("service", "the file says no probe: write the path that answers when a replica is ready")
    draft.fields["service"] = {"readiness_probe": probe or "/", "replicas": replicas, "ports": port}


def _probe(pod: Pod, draft: Draft) -> tuple[object, int | None]:
    """What `service.readiness_probe` says, and the port that is asked."""
    if pod.probe is None:
        return None, None
    fields = Fields(pod.probe, "readinessProbe", draft.lose)
    request = fields.section("httpGet")
    path = request.text("path")
    port = request.text("port")
    request.ignore("scheme")
    found: Document = {"path": path or "/"}
    for name, ours in (
        ("initialDelaySeconds", "initial_delay_seconds"),
        ("timeoutSeconds", "timeout_seconds"),
    ):
        seconds = fields.whole(name)
        if seconds:
            found[ours] = seconds
    seconds = fields.whole("periodSeconds")
    if seconds:
        found["endpoint_probe_interval_seconds"] = seconds
    fields.ignore("failureThreshold", "successThreshold")
    request.close("probes are requests for a path")
    fields.close("probes are requests for a path")
    if path is None:
        return None, None
    number = int(port) if port and port.isdigit() else None
    return (found["path"] if len(found) == 1 else found), number


def join_scalers(drafts: list[Draft], nodes: list[Node]) -> list[Node]:
    """Autoscalers of the file into the services that they scale; those that scale none of them are left."""
    left: list[Node] = []
    for node in nodes:
        scaler = convert_scaled_object(node) if _kind(node) == "ScaledObject" else _pod_scaler(node)
        target = next(
            (each for each in drafts if each.name == scaler.name and "service" in each.fields), None
        )
        service, policy = target and target.fields["service"], scaler.fields["service"]
        if target is None or not isinstance(service, dict) or not isinstance(policy, dict):
            left.append(node)
            continue
        service.pop("replicas", None)
        service["replica_policy"] = policy["replica_policy"]
        target.lost += [line for line in scaler.lost if line not in target.lost]
    return left


def _kind(node: Node) -> str:
    fields = Fields(node, "", lambda *_: None)
    return fields.text("kind") or ""


def _pod_scaler(node: Node) -> Draft:
    """A HorizontalPodAutoscaler: the processor's load is a trigger, other metrics are told."""
    draft = Draft()
    fields = Fields(node, "", draft.lose)
    fields.ignore("apiVersion", "kind", "status")
    fields.section("metadata").ignore("name", "namespace", "labels", "annotations")
    spec = fields.section("spec")
    target = spec.section("scaleTargetRef")
    draft.set_name(target.text("name"))
    target.ignore("apiVersion", "kind")
    most = spec.whole("maxReplicas") or 1
    policy: Document = {"min_replicas": spec.whole("minReplicas") or 1, "max_replicas": most}
    triggers: list[Document] = []
    plain = spec.text("targetCPUUtilizationPercentage")
    if plain:
        triggers.append(_load(plain))
    for metric in spec.sections("metrics"):
        resource = metric.section("resource")
        value = resource.section("target")
        if resource.text("name") == "cpu" and (load := value.text("averageUtilization")):
            triggers.append(_load(load))
            value.ignore("type")
        metric.ignore("type")
        metric.close(
            "`argosy explain` tells why so many replicas are wanted; write a trigger of KEDA's kinds"
        )
    if triggers:
        policy |= {"triggers": triggers, "rule": "hpa"}
    spec.drop("behavior", "say `upscale_delay_seconds` and `downscale_delay_seconds`")
    draft.fields["service"] = {"replica_policy": policy}
    fields.close()
    return draft


def _load(value: str) -> Document:
    return {"type": "cpu", "metadata": {"type": "Utilization", "value": value}}


def read_train_job(spec: Fields, draft: Draft, configured: Configured) -> None:
    """`TrainJob` of Kubeflow's trainer: what the file says of its nodes. The runtime is kept elsewhere."""
    runtime = spec.section("runtimeRef")
    name = runtime.text("name")
    runtime.ignore("apiGroup", "kind")
    trainer = spec.section("trainer")
    nodes = trainer.whole("numNodes") or 1
    if not 0 < nodes <= 100_000:
        raise trainer.wrong(f"`{trainer.at('numNodes')}` must be 1 to 100000")
    draft.fields["num_nodes"] = nodes
    per_node = trainer.text("numProcPerNode") or ""
    if "image" not in trainer and name:
        draft.lose("spec.runtimeRef.name", name, "its image is not in the file: say `image_id`")
    pod = Pod(draft, configured)
    pod.read_container(trainer, resources="resourcesPerNode")
    finish(draft, pod, torch=True)
    if per_node.isdigit():
        draft.prelude = [line for line in draft.prelude if not line.startswith("export PET_NPROC_PER_NODE=")]
        draft.prelude.append(f"export PET_NPROC_PER_NODE={per_node}")
    for each in ("initializer", "podTemplateOverrides", "podSpecOverrides"):
        spec.drop(each, "say it in the task itself")
    spec.drop("suspend", "launch it when it should start")
    spec.drop("managedBy", "Argosy places the nodes")
    for key, value in spec.pairs("labels"):
        draft.label(key, text_of(value, f"labels.{key}"))
    spec.drop("annotations", "annotations are for Kubernetes")
    if name and "torch" not in name:
        draft.note("run", f"the runtime {excerpt(name)} started it; here each node runs the command once")


__all__ = ["REACHED_BY", "join_scalers", "read_deployment", "read_train_job"]

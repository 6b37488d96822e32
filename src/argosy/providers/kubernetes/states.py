"""What became of a claim, as its pods tell it: states, reasons in sentences, refusals. Pure."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from argosy.infra import border
from argosy.model.facts import ClaimFact, ClaimState, NodeSighting
from argosy.providers.kubernetes.objects import ContainerStatus, Pod
from argosy.providers.kubernetes.pods import CLAIM, CONTAINER, KUEUE_GATE, NODE, NODES, TAG

_TAKEN: Final = {
    "PreemptionByScheduler": "the scheduler made room for a pod of higher priority",
    "DeletionByTaintManager": "its node was tainted so that it may not stay",
    "EvictionByEvictionAPI": "it was evicted, as when a node is drained or an autoscaler shrinks",
    "TerminationByKubelet": "its node shuts down or runs short",
}
_BAD_IMAGE: Final = frozenset(
    ("ImagePullBackOff", "InvalidImageName", "ErrImageNeverPull", "ImageInspectError")
)
_BAD_POD: Final = frozenset(("CreateContainerConfigError", "CreateContainerError", "RunContainerError"))
_OOM: Final = 137
_NO_PYTHON: Final = 78


def claim_of(pod: Pod) -> str:
    return pod.metadata.labels.get(CLAIM, "")


def index_of(pod: Pod) -> int:
    text = pod.metadata.labels.get(NODE, "")
    return int(text) if text.isdigit() else -1


def count_of(pod: Pod) -> int:
    text = pod.metadata.labels.get(NODES, "")
    return int(text) if text.isdigit() else 1


def fact_of(context: str, pods: Sequence[Pod], lost: Sequence[Pod], hint: str = "") -> ClaimFact:
    """Of one claim. `lost`: pods of it that were there and that nobody here has deleted."""
    ordered = sorted((*pods, *lost), key=index_of)
    first = ordered[0]
    claim_id, tag = claim_of(first), first.metadata.labels.get(TAG, "")
    ends = [end for pod in ordered if (end := end_of(pod)) is not None]
    ends += [(ClaimState.GONE, f"the pod {each.metadata.name} was deleted by somebody else") for each in lost]
    if ends:
        state, detail = min(ends, key=lambda end: end[0] is not ClaimState.PREEMPTED)
        return ClaimFact(claim_id=claim_id, state=state, tag=tag, detail=detail)
    nodes = tuple(
        NodeSighting(
            index=index_of(pod),
            address=f"{context}/{pod.metadata.namespace}/{pod.metadata.name}",
            ip=pod.status.pod_ip or "127.0.0.1",
            alive=is_alive(pod),
        )
        for pod in ordered
    )
    whole = len(nodes) >= count_of(first) and all(pod.status.phase == "Running" for pod in ordered)
    state = ClaimState.HELD if whole else ClaimState.PENDING
    detail = "" if whole else next((text for pod in ordered if (text := waiting_text(pod))), "") + hint
    return ClaimFact(claim_id=claim_id, state=state, nodes=nodes, tag=tag, detail=detail)


def is_alive(pod: Pod) -> bool:
    """Whether its container runs on a node that answers."""
    silent = any(
        each.type == "Ready" and each.status in ("False", "Unknown") for each in pod.status.conditions
    )
    return pod.status.phase == "Running" and not silent


def end_of(pod: Pod) -> tuple[ClaimState, str] | None:
    """How and why a pod ended or is about to; None: it did not."""
    status, name = pod.status, f"the pod {pod.metadata.name}"
    where = f" on {pod.spec.node_name}" if pod.spec.node_name else ""
    for each in status.conditions:
        said = f": {each.message}" if each.message else ""
        if each.type == "TerminationTarget" and each.status == "True":
            return ClaimState.PREEMPTED, f"Kueue took {name}{where} back{said}"
        if each.type == "DisruptionTarget" and each.status == "True":
            why = _TAKEN.get(each.reason)
            if why is not None:
                return ClaimState.PREEMPTED, f"{name}{where} was taken away: {why} ({each.reason}{said})"
            return ClaimState.GONE, f"{name}{where} is lost ({each.reason}{said})"
    if status.reason in (
        "Evicted",
        "NodeLost",
        "NodeShutdown",
        "NodeAffinity",
        "UnexpectedAdmissionError",
        "Shutdown",
    ):
        return ClaimState.GONE, f"{name}{where} ended as {status.reason}: {status.message}".rstrip(": ")
    for one in (*status.init_container_statuses, *status.container_statuses):
        ended = one.state.terminated
        if ended is None or (ended.exit_code == 0 and one.name != CONTAINER):
            continue
        if ended.reason == "OOMKilled" or ended.exit_code == _OOM:
            return (
                ClaimState.GONE,
                f"{name}{where} ran out of memory and was killed ({ended.reason or 'exit code 137'})",
            )
        return ClaimState.GONE, _ended_text(name, where, one)
    if status.phase in ("Failed", "Succeeded"):
        return ClaimState.GONE, f"{name}{where} ended as {status.phase}: {status.message}".rstrip(": ")
    if pod.metadata.deletion_timestamp:
        return ClaimState.GONE, f"{name}{where} is being deleted by somebody else"
    return None


def _ended_text(name: str, where: str, one: ContainerStatus) -> str:
    ended = one.state.terminated
    assert ended is not None
    said = " ".join(ended.message.split())[-300:]
    what = "its agent" if one.name == CONTAINER else f"its container `{one.name}`"
    return f"{name}{where}: {what} ended with exit code {ended.exit_code}" + (f": {said}" if said else "")


def waiting_text(pod: Pod) -> str:
    """What a pod that does not run yet waits for; "" when it is not known."""
    status = pod.status
    if status.phase == "Running":
        return ""
    if any(gate.name == KUEUE_GATE for gate in pod.spec.scheduling_gates):
        return "waits in its queue until Kueue admits it"
    if pod.spec.scheduling_gates:
        return f"waits for the gate {pod.spec.scheduling_gates[0].name}"
    for one in (*status.init_container_statuses, *status.container_statuses):
        wait = one.state.waiting
        if wait is not None and wait.reason not in ("", "ContainerCreating", "PodInitializing"):
            return f"{wait.reason}: {wait.message}".rstrip(": ")
    unschedulable = unschedulable_text(pod)
    if unschedulable:
        return unschedulable
    return f"{pod.spec.node_name} prepares its container" if pod.spec.node_name else "waits for the scheduler"


def unschedulable_text(pod: Pod) -> str:
    """Why the scheduler finds no node; "": it does, or has not looked."""
    for each in pod.status.conditions:
        waits = each.type in ("PodScheduled", "PodGroupInitiallyScheduled") and each.status == "False"
        if waits and each.reason != "SchedulingGated":
            return each.message or each.reason
    return ""


def refusal_of(pods: Sequence[Pod]) -> border.BorderError | None:
    """Why waiting for pods does not help; None: it may."""
    for pod in pods:
        for one in (*pod.status.init_container_statuses, *pod.status.container_statuses):
            wait, ended = one.state.waiting, one.state.terminated
            if wait is not None and wait.reason in _BAD_IMAGE:
                return border.RequestRefused(
                    "image_id",
                    f"the image `{one.image}` cannot be had ({wait.reason}: {wait.message}); look for a "
                    "typing error, or name a secret for it in `config.kubernetes.image_pull_secrets`",
                )
            if wait is not None and wait.reason in _BAD_POD:
                return border.RequestRefused(
                    "config.kubernetes.pod_config",
                    f"the node cannot make the container ({wait.reason}: {wait.message})",
                )
            if ended is not None and one.name == CONTAINER and ended.exit_code == _NO_PYTHON:
                return border.RequestRefused(
                    "image_id",
                    f"the image `{one.image}` has no python3 of 3.8 or newer, which the agent needs: take "
                    "another, or set `python_image` of the context in `kubernetes.yaml`",
                )
    return None

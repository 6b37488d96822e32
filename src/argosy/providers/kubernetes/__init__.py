"""Kubernetes clusters: a claim is a gang of pods that hold our agent."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from argosy.infra.provider import Capabilities, Manifest

if TYPE_CHECKING:
    from argosy.infra.provider import Setting
    from argosy.providers.kubernetes.provider import KubernetesProvider

MANIFEST: Final = Manifest(
    name="kubernetes",
    title="Kubernetes",
    capabilities=Capabilities(spot=True, multi_node=True, fractions=True, ports=True, images=True),
    aliases=("k8s",),
    class_name="Kubernetes",
    region_is_rest=True,
    own=True,
    extra="kubernetes",
    settings=("ARGOSY_KUBERNETES_CONTEXTS",),
    credentials=("KUBECONFIG", "~/.kube/config", "KUBERNETES_SERVICE_HOST", "~/.argosy/kubernetes.yaml"),
    sign_in="kubectl config use-context NAME",
    task_fields=(
        *("pod_config", "custom_metadata", "provision_timeout", "dws", "kueue", "quota", "remote_identity"),
        *("enable_docker", "set_pod_resource_limits", "namespace", "autoscaler", "ports"),
        *("service_account", "image_pull_secrets"),
    ),
    reads_task_fields=True,
    volume_types=("k8s-pvc", "k8s-hostpath"),
    watches=True,
    tested="a strict fake of its API; pods that are real processes",
    observe_s=60.0,
)


def create(setting: Setting) -> KubernetesProvider:
    """The driver for the contexts that are known: those that `kubernetes.yaml` of the state folder or
    ARGOSY_KUBERNETES_CONTEXTS names (`all`: every one), else the current one of the kubeconfig, else the
    cluster that this server runs in. Nothing is read before it is needed."""
    from argosy.infra.boot import agent_zipapp
    from argosy.providers.kubernetes.provider import KubernetesProvider

    return KubernetesProvider(
        setting.root,
        environ=setting.environ,
        home=setting.home,
        clock=setting.clock,
        zipapp=lambda: agent_zipapp(setting.root / "agent"),
    )

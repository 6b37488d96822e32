"""Kubernetes' own client: its models know every field that we send, and it speaks to the fake.

Nightly, and skipped where the package `kubernetes` is not installed.
"""

from __future__ import annotations

import importlib
import json
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner
from kube_cluster import a_kube, configured, with_cluster

from argosy.cli.main import cli
from argosy.model.resources import Resources
from argosy.model.rights import role_documents
from argosy.providers.kubernetes.devices import template_of
from argosy.providers.kubernetes.provider import KubernetesProvider
from argosy.testing.fake_kube import FakeKube, KubeThread, why_no_pods
from argosy.testing.fake_kube_devices import a_class, a_slice

pytestmark = pytest.mark.nightly
#: What the server puts into objects by itself.
_SERVERS = ("uid", "creationTimestamp", "resourceVersion", "namespace")


def the_client() -> Any:
    """The package, which has no types of ours."""
    try:
        return importlib.import_module("kubernetes")
    except ImportError:
        pytest.skip("kubernetes IS NOT INSTALLED: what we send is not checked against its models")


def is_known(client: Any, body: dict[str, Any]) -> None:
    """The model of its kind reads the object and writes the same again: no field is lost."""
    group, kind = body["apiVersion"].rpartition("/")[2].capitalize(), body["kind"]
    api = client.ApiClient()
    read = api.deserialize(json.dumps(body), f"{group}{kind}", "application/json")
    assert api.sanitize_for_serialization(read) == body


def test_its_models_know_all_that_is_sent(tmp_path: Path) -> None:
    client = the_client().client

    async def act(kube: FakeKube, provider: KubernetesProvider) -> None:
        kube.groups.add("scheduling.k8s.io/v1beta1")
        config = {
            "ports": "ingress",
            "service_account": "trainer",
            "image_pull_secrets": ["registry"],
            "set_pod_resource_limits": True,
            "pod_config": {"spec": {"priorityClassName": "batch"}},
        }
        claim = configured(config, count=2, gpus=1, resources=Resources(ports=("8080",)))
        await provider.ensure(claim)
        kinds = set()
        for key, given in kube.store.objects.items():
            if key[1] in ("pods", "configmaps", "services", "ingresses", "podgroups"):
                meta = {name: value for name, value in given["metadata"].items() if name not in _SERVERS}
                body = {name: value for name, value in given.items() if name != "status"}
                is_known(client, {**body, "metadata": meta})
                kinds.add(key[1])
        assert len(kinds) == 5

    with_cluster(tmp_path, act)


@pytest.mark.parametrize("version", ["v1", "v1beta1"])
def test_its_models_know_claims_on_devices(version: str) -> None:
    client = the_client().client
    labels = {"argosy.dev/claim": "clm-0"}
    body = template_of(
        "clm-0", labels, version=version, device_class="gpu.nvidia.com", selector="true", count=2
    )
    is_known(client, body)
    listed = {"apiVersion": f"resource.k8s.io/{version}", "kind": "ResourceSlice"}
    is_known(client, {**listed, **a_slice("gpu1", "NVIDIA H100 80GB HBM3", 2, version=version)})
    is_known(client, {**listed, "kind": "DeviceClass", **a_class("gpu.nvidia.com", "gpu")})


def test_its_models_know_what_the_commands_print(tmp_path: Path) -> None:
    client = the_client().client
    for body in role_documents("ml", account="argosy", cluster_wide=True):
        is_known(client, body)
    task = tmp_path / "task.yaml"
    task.write_text("run: 'true'\n")
    for words in (["install"], ["install", "--task", str(task)]):
        said = CliRunner().invoke(cli, ["kubernetes", *words, "--json"])
        assert said.exit_code == 0, said.output
        for body in json.loads(said.stdout):
            is_known(client, body)


@pytest.mark.skipif(bool(why_no_pods()), reason=f"NO POD WAS RUN: {why_no_pods()}")
def test_it_speaks_to_the_fake(tmp_path: Path) -> None:
    package = the_client()
    with KubeThread(a_kube(tmp_path, real=True, rights=None)) as cluster:
        setting = package.client.Configuration(host=cluster.kube.url)
        setting.api_key = {"authorization": f"Bearer {cluster.kube.token}"}
        core = package.client.CoreV1Api(package.client.ApiClient(setting))
        container = {"name": "a", "image": "b", "command": ["sh", "-c", "sleep 60"]}
        core.create_namespaced_pod("ml", {"metadata": {"name": "p"}, "spec": {"containers": [container]}})
        watch = importlib.import_module("kubernetes.watch").Watch()
        for event in watch.stream(core.list_namespaced_pod, "ml", timeout_seconds=20):
            if event["object"].status.phase == "Running":
                watch.stop()
        assert [each.metadata.name for each in core.list_namespaced_pod("ml", limit=1).items] == ["p"]
        core = package.client.CoreV1Api(package.client.ApiClient(setting))
        exec_ = importlib.import_module("kubernetes.stream").stream
        said = exec_(
            core.connect_get_namespaced_pod_exec,
            "p",
            "ml",
            command=["sh", "-c", "echo from $$"],
            **dict.fromkeys(("stdout", "stderr"), True),
            stdin=False,
            tty=False,
        )
        assert said.startswith("from ")
        core.delete_namespaced_pod("p", "ml", grace_period_seconds=0)

"""The product on a strict fake of Kubernetes whose pods are real processes: launch, exec, loss, down."""

from __future__ import annotations

import re
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from e2e_house import House

from argosy.testing.fake_kube import KubeThread, why_no_pods

sys.path.insert(0, str(Path(__file__).parents[1] / "providers"))
from kube_cluster import a_kube

MISSING = why_no_pods()
pytestmark = pytest.mark.skipif(bool(MISSING), reason=f"NOTHING WAS RUN IN PODS: {MISSING}")


class KubeHouse(House):
    """A server whose kubeconfig knows one cluster, `lab`."""

    def __init__(self, kube: KubeThread) -> None:
        super().__init__()
        self.kube = kube
        config = kube.kube.kubeconfig(self.root / "config", namespace="ml")
        self.env |= {"HOME": str(self.root), "ARGOSY_INFRA": "kubernetes", "KUBECONFIG": str(config)}

    def pods(self) -> list[str]:
        return self.kube.do(lambda kube: [key[3] for key, _ in kube.store.of("pods")])


@pytest.fixture(scope="module")
def house(tmp_path_factory: pytest.TempPathFactory) -> Iterator[KubeHouse]:
    with KubeThread(a_kube(tmp_path_factory.mktemp("kube"), real=True)) as kube:
        made = KubeHouse(kube)
        yield made
        made.close()


def test_a_gang_of_pods_runs_and_goes_with_its_cluster(house: KubeHouse) -> None:
    task = house.file(
        "gang.yaml",
        "num_nodes: 2\n"
        "resources: {infra: k8s/lab/ml, cpus: 2, memory: 1, image_id: 'docker:team/trainer:7'}\n"
        "config: {kubernetes: {pod_config: {metadata: {labels: {team: blue}}}}}\n"
        "run: echo rank $ARGOSY_NODE_RANK of $ARGOSY_NUM_NODES\n",
    )
    said = house.run("launch", "-y", "-c", "gang", task).stdout
    assert sorted(re.findall(r"rank (\d) of 2", said)) == ["0", "1"]
    (first, second) = sorted(house.pods())
    pod = house.kube.do(lambda kube: kube.pod(first, "ml"))
    assert pod is not None
    assert pod["metadata"]["labels"]["team"] == "blue"
    assert pod["spec"]["containers"][0]["image"] == "team/trainer:7"
    assert second.endswith("-1")
    assert "again" in house.run("exec", "gang", "--", "echo again").stdout
    assert "again" in house.log("gang", "2")
    house.run("down", "-y", "gang")
    house.wait("its pods are gone", lambda: not house.pods())


def test_a_pod_that_is_taken_away_is_told_at_once_with_its_reason(house: KubeHouse) -> None:
    up, saved = house.root / "up", house.root / "saved"
    program = f"trap 'sleep 0.2; touch {saved}; exit 0' TERM; touch {up}; while :; do sleep 0.1; done"
    house.run("launch", "-y", "-d", "-c", "taken", "--infra", "k8s", "--", program)
    house.wait("its program listens to signals", up.exists)
    (name,) = house.pods()
    house.kube.do(lambda kube: kube.preempt(name, "ml", grace_s=600))
    house.wait("its end is told", lambda: "PreemptionByScheduler" in house.run("events").stdout)
    house.wait("its program had the time to save", saved.exists)
    house.wait("it ended with its last program, long before its grace", lambda: not house.pods())


@pytest.mark.nightly
def test_an_image_that_cannot_be_pulled_ends_the_launch_with_the_reason(house: KubeHouse) -> None:
    said = house.run(
        "launch", "-y", "--infra", "k8s", "--image-id", "docker:missing:1", "--", "true", ok=False
    )
    assert "the image `missing:1` cannot be had (ImagePullBackOff" in said.stdout + said.stderr
    house.wait("its pods are gone", lambda: not house.pods())


@pytest.mark.nightly
@pytest.mark.parametrize("pause_s", [0.0, 0.05, 0.2, 0.5, 1.0])
def test_a_server_that_is_killed_while_it_orders_pods_leaves_one_gang(
    house: KubeHouse, pause_s: float
) -> None:
    """At several moments of a launch and of a down: afterwards there are the pods of one cluster, or none."""
    name = house.name("k")
    place = ("--infra", "k8s", "--num-nodes", "2")
    child = house.spawn("launch", "-y", "-d", "-c", name, *place, "--", "sleep 600")
    house.wait("the claim is ordered", lambda: house.cluster(name))
    time.sleep(pause_s)
    house.kill_server()
    child.wait(60)
    house.run("status")
    house.wait_job(name, 1, "running")
    assert len(house.pods()) == 2
    house.run("down", "-y", name)
    time.sleep(pause_s / 4)
    house.kill_server()
    house.run("status")
    house.wait("nothing is left", lambda: not house.pods())
    house.wait("nobody waits for it", lambda: house.cluster(name) is None)

"""The product on a Ray cluster whose dashboard is a fake and whose jobs really run: a gang, and jobs of
Ray's own."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from e2e_house import House

from argosy.testing.fake_ray import FakeRay

pytestmark = pytest.mark.nightly


class RayHouse(House):
    """A server that knows one cluster, `lab`, of two nodes."""

    def __init__(self) -> None:
        self.ray = FakeRay({"CPU": 8.0}, {"CPU": 8.0})
        super().__init__()
        self.env |= {"HOME": str(self.root), "ARGOSY_INFRA": "ray"}
        for name in ("RAY_ADDRESS", "RAY_API_SERVER_ADDRESS"):
            self.env.pop(name, None)
        self.state.mkdir(parents=True)
        (self.state / "ray.yaml").write_text(
            f"clusters: {{lab: {{address: '{self.ray.address}', node_dir: {self.ray.folder}}}}}\n"
        )

    def close(self) -> None:
        try:
            super().close()
        finally:
            self.ray.close()


@pytest.fixture(scope="module")
def lab() -> Iterator[RayHouse]:
    made = RayHouse()
    yield made
    made.close()


def test_a_gang_runs_on_ray_and_goes_with_its_cluster(lab: RayHouse) -> None:
    task = lab.file(
        "gang.yaml",
        "num_nodes: 2\nresources: {infra: ray/lab, cpus: 2}\n"
        "run: echo rank $ARGOSY_NODE_RANK of $ARGOSY_NUM_NODES\n",
    )
    said = lab.run("launch", "-y", "-c", "gang", task).stdout
    assert "rank 0 of 2" in said
    assert "rank 1 of 2" in said
    assert "again" in lab.run("exec", "gang", "--", "echo again").stdout
    lab.run("down", "-y", "gang")
    lab.wait("the job is over", lambda: not lab.ray.running())
    lab.wait("files of nodes are gone", lambda: not list(lab.ray.folder.glob("argosy-clm-*")))


def test_where_only_the_dashboard_is_reached_everything_goes_through_it(lab: RayHouse) -> None:
    addresses = [node.ip for node in lab.ray.nodes]
    for node in lab.ray.nodes:
        node.ip = "203.0.113.7"
    try:
        task = lab.file(
            "far.yaml",
            "num_nodes: 2\nresources: {infra: ray/lab, cpus: 2}\nrun: echo rank $ARGOSY_NODE_RANK is there\n",
        )
        said = lab.run("launch", "-y", "-c", "far", task).stdout
        assert "rank 0 is there" in said
        assert "rank 1 is there" in said
        assert lab.run("ssh", "far", "--node", "1", "--", "echo $((6 * 7))").stdout.strip() == "42"
        data = lab.root / "data"
        data.write_bytes(bytes(range(256)) * 12_000)
        lab.run("cp", data, "far:")
        lab.run("cp", "far:data", lab.root / "back")
        assert (lab.root / "back").read_bytes() == data.read_bytes()
        found = lab.run("check", "ray").stdout
        assert "its nodes are reached by the dashboard alone" in found
        lab.run("down", "-y", "far")
        lab.wait("the job is over", lambda: not lab.ray.running())
        lab.wait(
            "nothing of it stays among Ray's logs", lambda: not list(lab.ray.folder.glob("argosy-post-*"))
        )
    finally:
        for node, ip in zip(lab.ray.nodes, addresses, strict=True):
            node.ip = ip


def test_a_job_of_rays_own_is_listed_logged_and_stopped(lab: RayHouse) -> None:
    task = lab.file(
        "own.yaml", 'ray:\n  entrypoint: echo "as $WHO"; exit 4\n  runtime_env: {env_vars: {WHO: it is}}\n'
    )
    said = lab.run("launch", "-y", "-c", "own", task, ok=False)
    assert "as it is" in said.stdout
    assert said.returncode != 0
    assert [each.asked["entrypoint"] for each in lab.ray.jobs.values() if each.id.startswith("att-")] == [
        'echo "as $WHO"; exit 4'
    ]
    long = lab.file("long.yaml", "ray: {entrypoint: exec sleep 600}\n")
    lab.run("launch", "-y", "-d", "-c", "long", long)
    lab.wait_job("long", 1, "running")
    lab.run("cancel", "-y", "long", "1")
    lab.wait("Ray has stopped it", lambda: not lab.ray.running())
    lab.run("down", "-y", "own", "long")

"""Tasks as articles about the field show them, in our own words: each YAML parses, each program runs to its
plan.

Programs talk to a fake server over the environment, as users' programs do.
"""

from __future__ import annotations

import json
import runpy
import tempfile
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from argosy.convert import convert
from argosy.model.errors import ArgosyError, render_error
from argosy.model.offer import Plan
from argosy.spec import parse_task, render_task
from argosy.testing.fake_server import FakeServer

HERE = Path(__file__).parent
TASKS = sorted(path for path in HERE.glob("*.yaml") if not path.name.startswith("foreign-"))
FOREIGN = sorted(HERE.glob("foreign-*.yaml"))
PROGRAMS = sorted(path for path in HERE.glob("*.py") if not path.name.startswith("test_"))

#: What may be named as accepted and not executed. A field that is executed one day is no longer named: that
#: is fine.
MAY_WARN = {
    "edge.yaml": {"location", "edge_config"},
    "multimodal.yaml": {"file_mounts /data/pictures", "file_mounts /data/words"},
    "quantum.yaml": {"quantum_backend", "resources.quantum_backend"},
    "secure.yaml": {"networking", "file_mounts /data/sealed"},
    "serve.yaml": {"service"},
    "sync.yaml": {"sync", "file_mounts /data/train", "file_mounts /data/test"},
}


@pytest.mark.parametrize("path", TASKS, ids=lambda path: path.name)
def test_task_parses(path: Path) -> None:
    parsed = parse_task(path.read_text(), source=path.name)
    (task,) = parsed.tasks
    named = {name for one in parsed.warnings for name in one.ignored}
    assert named <= MAY_WARN.get(path.name, set())
    for one in parsed.warnings:
        assert one.where.startswith(f"{path.name}:")
        assert one.what.startswith("not supported yet, ignored: ")
    again = parse_task(render_task(task)).tasks[0]
    assert render_task(again) == render_task(task)


def one(name: str) -> Any:
    return parse_task((HERE / name).read_text(), source=name).tasks[0]


def test_fields_arrive_where_they_belong() -> None:
    llama = one("llama.yaml")
    assert (llama.num_nodes, llama.resources[0].accelerator.render(), llama.resources[0].use_spot) == (
        4,
        "A100:8",
        True,
    )
    assert (llama.resources[0].infra.provider, llama.resources[0].infra.region) == ("aws", "us-west-2")
    assert one("share-gpu.yaml").resources[0].accelerator.milli == 250
    memory = one("tuned.yaml").resources[0].memory
    assert (memory.amount, memory.exact) == (500 << 30, False)
    memory = one("multimodal.yaml").resources[0].memory
    assert (memory.amount, memory.exact) == (256 << 30, True)
    assert one("serve.yaml").resources[0].ports == ("8000",)
    assert one("spot.yaml").resources[0].recovery.strategy is None  # `auto` is the default
    assert one("edge.yaml").resources[0].accelerator.model == "Jetson"
    assert "EOT" in one("monitored.yaml").setup
    sync = one("sync.yaml")
    assert {mount.target for mount in sync.storage_mounts} == {"/data/train", "/data/test"}
    assert [mount.target for mount in sync.file_mounts] == ["/models"]


def test_nothing_of_the_special_fields_is_lost() -> None:
    for name, words in {
        "edge.yaml": ("site-7", "100Mbps", "<50ms", "300W"),
        "quantum.yaml": ("example_quantum",),
        "secure.yaml": ("lab-private", "lab-inner", "sg-lab", "AES256", "arn:aws:kms"),
        "sync.yaml": ("*.pt", "*.tmp", "incremental"),
    }.items():
        told = render_task(one(name))
        assert [word for word in words if word not in told] == [], name


@pytest.mark.parametrize("path", FOREIGN, ids=lambda path: path.name)
def test_what_is_no_task_is_told_what_it_is(path: Path) -> None:
    with pytest.raises(ArgosyError) as caught:
        parse_task(path.read_text(), source=path.name)
    said = render_error(caught.value)
    kind = "CI workflow" if path.name == "foreign-ci.yaml" else "Kubernetes manifest"
    assert said.startswith(f"{path.name}:") and kind in said


def test_the_launcher_converts_with_its_files() -> None:
    converted = convert((HERE / "foreign-launcher.yaml").read_text(), source="foreign-launcher.yaml")
    task = parse_task(converted.yaml).tasks[0]
    assert task.run == "argosy launch /config/task.yaml"
    assert "cat > /config/task.yaml <<'END'\nresources:\n  accelerators: A100:4\n" in task.setup
    scaled = parse_task(convert((HERE / "foreign-autoscaler.yaml").read_text()).yaml).tasks[0].service
    assert scaled is not None and scaled.replicas.most == 20
    assert [trigger.kind for trigger in scaled.replicas.triggers] == ["aws-sqs-queue"]


# Programs --------------------------------------------------------------------------------------------------------  # noqa: E501


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Iterator[FakeServer]:
    with (
        tempfile.TemporaryDirectory(prefix="ag", dir="/tmp", ignore_cleanup_errors=True) as folder,
        FakeServer(Path(folder) / "s.sock") as fake,
    ):
        monkeypatch.setenv("ARGOSY_HOME", f"{folder}/home")
        monkeypatch.setenv("ARGOSY_SERVER", f"unix://{fake.socket}")
        yield fake


def ran(name: str) -> dict[str, Any]:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # what is accepted and not executed yet
        return runpy.run_path(str(HERE / name))


def test_every_program_is_run_here() -> None:
    assert [path.name for path in PROGRAMS] == [
        "buckets.py",
        "by_deadline.py",
        "chain.py",
        "cheapest.py",
        "distributed.py",
        "managed_training.py",
        "phases.py",
        "regions.py",
        "tracking.py",
    ]


def test_distributed(server: FakeServer) -> None:
    job_id, handle = ran("distributed.py")["launched"]
    assert (job_id, handle.cluster_name) == (1, "many")
    request = json.loads(server.seen("launch")[0].body)
    assert "A100" in json.dumps(request)
    resources = ran("distributed.py")["task"].build().resources[0]
    assert resources.use_spot and resources.disk_size_bytes == 1000 << 30
    assert (resources.memory.amount, resources.memory.exact) == (500 << 30, False)


def test_cheapest(server: FakeServer) -> None:
    made = ran("cheapest.py")
    assert isinstance(made["plan"], Plan)
    assert [one.infra.provider for one in made["task"].build().resources] == ["aws", "gcp", "azure"]


def test_buckets(server: FakeServer) -> None:
    task = ran("buckets.py")["task"]
    mounts = {mount.target: mount.sources[0] for mount in task.build().storage_mounts}
    assert mounts == {
        "/data/first": "s3://example-first",
        "/data/second": "gs://example-second",
        "/data/third": "azblob://example-third",
    }
    task.set_file_mounts({"/local": "./x", **mounts}).set_storage_mounts({"/only": "s3://one"})
    assert [mount.target for mount in task.build().storage_mounts] == ["/only"]
    assert [mount.target for mount in task.build().file_mounts] == ["/local"]
    assert not task.set_storage_mounts(None).build().storage_mounts


def test_regions(server: FakeServer) -> None:
    made = ran("regions.py")
    assert [handle.cluster_name for _, handle in made["launched"]] == [
        "prod-us-west-2",
        "prod-us-east-1",
        "prod-eu-west-1",
    ]
    assert len(server.seen("launch")) == 3


def test_by_deadline(server: FakeServer) -> None:
    assert all(isinstance(plan, Plan) for plan in ran("by_deadline.py")["plans"])
    asked = [seen.body.decode() for seen in server.seen("plan")]
    assert [("V100" in body, "A100" in body) for body in asked] == [
        (True, False),
        (False, True),
        (False, True),
    ]


def test_tracking(server: FakeServer) -> None:
    assert "mlflow_run_name" in ran("tracking.py")["task"].build().run
    assert server.requests == []  # building asks no server


def test_phases(server: FakeServer) -> None:
    assert len(ran("phases.py")["plans"]) == 6
    assert server.seen("launch") == []


def test_managed_training(server: FakeServer) -> None:
    first, second, third = (task.build() for task in ran("managed_training.py")["tasks"])
    assert (first.num_nodes, first.resources[0].instance_type) == (4, "p4d.24xlarge")
    assert second.envs == {"EPOCHS": "10", "BATCH_SIZE": "32", "LEARNING_RATE": "0.001"}
    assert third.resources[0].autostop.idle_s == 120 and third.resources[0].autostop.down


def test_chain(server: FakeServer) -> None:
    made = ran("chain.py")
    assert len(made["dag"]) == 2 and len(made["dag"].edges) == 1
    assert isinstance(made["plan"], Plan)

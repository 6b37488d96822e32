"""Programs that were written for SkyPilot run when one line of them is changed: `import argosy as sky`."""

from __future__ import annotations

import doctest
import importlib
import io

import pytest

import argosy as sky
from argosy.client.records import ServiceRecord
from argosy.exceptions import ClusterDoesNotExist
from argosy.model.errors import ArgosyError
from argosy.testing.fake_server import FakeServer

pytestmark = pytest.mark.usefixtures("environment")


@pytest.mark.parametrize(
    "module",
    [
        "client.bucket_mounts", "client.errors", "client.log_lines", "client.managed", "client.serving",
        "client.task_fields", "clouds",
    ],
)  # fmt: skip
def test_examples_in_docstrings_run(module: str) -> None:
    result = doctest.testmod(importlib.import_module(f"argosy.{module}"))
    assert result.attempted > 0 and result.failed == 0


def test_commands_may_be_lists_of_lines() -> None:
    task = sky.Task(setup=["echo a", "echo b"], run=["cd /tmp", "pwd"]).build()
    assert (task.setup, task.run) == ("echo a\necho b", "cd /tmp\npwd")


def test_resources_are_looked_at_by_name() -> None:
    text = "run: x\nresources: {ports: 8080, any_of: [{accelerators: 'L4:1'}, {accelerators: 'T4:1'}]}\n"
    found = sky.Task.from_yaml_str(text).resources
    assert {(str(one.fields["ports"]), one.accelerators) for one in found} == {  # type: ignore[attr-defined]
        ("8080", "L4:1"),
        ("8080", "T4:1"),
    }
    (one,) = sky.Task(run="x", resources=sky.Resources(cpus=2, use_spot=True)).resources
    assert one.to_yaml_config() == {"cpus": 2, "use_spot": True}
    assert one.region is None  # type: ignore[attr-defined]
    with pytest.raises(AttributeError, match="has no `gpu`"):
        one.gpu  # type: ignore[attr-defined]  # noqa: B018


def test_a_service_and_volumes_are_said_in_python() -> None:
    task = sky.Task(run="serve", volumes={"/data": "corpus"})
    task.set_service(sky.SkyServiceSpec("/health", 30, min_replicas=2))
    built = task.build()
    assert built.service is not None and built.volumes[0].target == "/data"
    later = sky.Task.from_yaml_str("run: serve").set_service({"readiness_probe": "/", "replicas": 1}).build()
    assert later.service is not None


def test_the_order_of_a_dag_in_the_words_of_skypilot() -> None:
    with sky.Dag() as dag:
        for name in "abc":
            sky.Task(name, run="x")
    dag.set_execution(sky.DagExecution.SERIAL)
    assert dag.positions() == ((0, 1), (1, 2))
    dag.set_execution("parallel")
    assert dag.positions() == ()
    with pytest.raises(ArgosyError, match="serial or parallel"):
        dag.set_execution("random")


def test_arguments_that_skypilot_has_are_taken(server: FakeServer) -> None:
    job_id, handle = sky.get(sky.launch(sky.Task("t", run="echo a; echo b"), "dev", retry_until_up=True))
    assert handle.launched_resources.cloud == "local"
    (cluster,) = sky.status(refresh="AUTO", all_users=False)
    assert cluster["handle"].launched_resources.cloud == "local"
    assert [job["job_id"] for job in sky.queue("dev", skip_finished=False, all_users=True)] == [job_id]
    assert sky.stream_and_get(sky.down("dev", purge=True), output_stream=io.StringIO()).names == ("dev",)


def test_a_log_is_read_line_by_line(server: FakeServer) -> None:
    job_id, _ = sky.launch(sky.Task(run="echo hello"), "dev")
    assert list(sky.tail_logs("dev", job_id, preload_content=False)) == ["hello\n"]
    with pytest.raises(ClusterDoesNotExist):
        list(sky.tail_logs("nope", preload_content=False))


def test_managed_jobs_in_the_shapes_of_skypilot(server: FakeServer) -> None:
    job_ids, handle = sky.jobs.launch(sky.Task("first", run="echo hi"))
    assert job_ids[0] == job_ids == 1 and list(job_ids) == [1] and handle.cluster_name is None
    sky.jobs.launch(sky.Task("second", run="echo hi"))
    jobs, total, counts, every = sky.jobs.queue_v2(refresh=False, all_users=True, job_ids=[1], fields=None)
    (job,) = jobs
    assert (job["job_name"], job.job_id, total, every) == ("first", 1, 1, 2)  # type: ignore[attr-defined]
    assert counts == {job["status"].name: 1} and sky.jobs.ManagedJobStatus.STARTING == "starting"


def test_a_service_in_the_words_of_skypilot() -> None:
    record = ServiceRecord(id="svc-1", name="chat", status="no-replica", endpoint="http://h/s/chat")
    assert record["status"] == sky.serve.ServiceStatus.NO_REPLICA
    assert record["endpoint"] == "http://h/s/chat" and record["replica_info"] == []


@pytest.mark.parametrize(
    ("call", "name"),
    [
        (lambda: sky.queue("nope"), "ClusterDoesNotExist"),
        (lambda: sky.down("nope"), "ClusterDoesNotExist"),
        (lambda: sky.Task(run="x", num_nodes=0), "InvalidTask"),
        (lambda: sky.Task(run=print), "NotSupportedError"),  # type: ignore[arg-type]
    ],
)
def test_errors_have_the_names_that_programs_catch(server: FakeServer, call: object, name: str) -> None:
    assert callable(call)
    with pytest.raises(getattr(sky.exceptions, name)) as error:
        call()
    assert isinstance(error.value, sky.ArgosyError) and error.value.hint


def test_clouds_are_found_by_name() -> None:
    assert sky.clouds.CLOUD_REGISTRY.from_str("GCP") == sky.GCP() == sky.clouds.GCP()
    with pytest.raises(ArgosyError, match="no cloud `gcpp`"):
        sky.clouds.CLOUD_REGISTRY.from_str("gcpp")

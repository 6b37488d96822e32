"""What programs write: Task, Resources, Dag, launch and the others; blocking and async."""

from __future__ import annotations

import asyncio
import doctest
import importlib
import inspect
import io
import subprocess
import sys
import warnings
from pathlib import Path

import msgspec
import pytest

import argosy as sky
from argosy import aio
from argosy.api.planning import PipelineReply, PipelineRequest, PlanReply
from argosy.client import facade, managed, sdk
from argosy.client.saving import save_logs
from argosy.model.errors import ArgosyError
from argosy.model.offer import Plan
from argosy.model.resources import Autostop
from argosy.testing.fake_memory import FakeLog, Line
from argosy.testing.fake_server import FakeServer

pytestmark = pytest.mark.usefixtures("environment")


@pytest.mark.parametrize(
    "module",
    [
        "api.location", "cli.task_options", "client", "client.async_client", "client.client",
        "client.clouds", "client.facade", "client.frames", "client.ignore", "client.progress",
        "client.records", "client.tasks", "client.telling", "client.wire",
    ],
)  # fmt: skip
def test_examples_in_docstrings_run(module: str) -> None:
    result = doctest.testmod(importlib.import_module(f"argosy.{module}"))
    assert result.attempted > 0 and result.failed == 0


def test_the_program_of_the_documentation(
    server: FakeServer, capfdbinary: pytest.CaptureFixture[bytes]
) -> None:
    task = sky.Task(run="echo hello", name="hi")
    job_id, handle = sky.stream_and_get(sky.launch(task, cluster_name="dev"))
    assert (job_id, handle.cluster_name) == (1, "dev")
    out = io.BytesIO()
    assert sky.tail_logs("dev", job_id, output_stream=out) == 0
    assert out.getvalue() == b"hello\n"
    again, _ = sky.get(sky.exec(sky.Task(run="exit 2"), cluster_name="dev"))
    assert sky.tail_logs("dev", output_stream=out) == 1
    assert sky.job_status("dev", [1, again, 9]) == {1: "succeeded", 2: "failed", 9: None}
    assert sky.job_status("dev") == {2: "failed"}
    assert [job.number for job in sky.queue("dev")] == [2, 1]
    assert sky.queue("dev", skip_finished=True) == []
    assert [cluster.name for cluster in sky.status()] == ["dev"]
    assert sky.status(["other"]) == []
    sky.autostop("dev", 5, down=True)
    assert sky.status("dev")[0].autostop == Autostop(idle_s=300, down=True)
    sky.stop("dev")
    assert sky.status("dev")[0].status == "stopped"
    sky.start("dev", idle_minutes_to_autostop=-1)
    assert sky.status("dev")[0].autostop == Autostop()
    sky.down("dev")
    assert sky.status() == []
    with pytest.raises(sky.ArgosyError) as error:
        sky.down("dev")
    assert error.value.code == "not-found"


def test_launch_options(server: FakeServer, tmp_path: Path) -> None:
    (tmp_path / "a.py").write_text("")
    task = sky.Task(run="x", workdir=tmp_path, file_mounts={"/data": str(tmp_path / "a.py")})
    launched = sky.launch(task, "dev", idle_minutes_to_autostop=3, down=True, fast=True)
    assert launched.cluster == "dev" and launched.handle.created
    import msgspec

    from argosy.api.launching import LaunchRequest

    request = msgspec.json.decode(server.seen("launch")[0].body, type=LaunchRequest)
    assert request.autostop == Autostop(idle_s=180, down=True) and not request.setup and not request.down
    assert request.user == "ada"
    assert request.task.workdir_tree in server.trees and request.task.file_mounts[0].is_file
    dry = sky.launch(task, dryrun=True)
    assert dry.job_id is None and dry.handle.plan is not None and dry.handle.plan.choices
    assert len(server.seen("launch")) == 1
    assert sky.optimize(task).choices
    offers = sky.estimate(task, limit=2).offers
    assert [(offer.provider, offer.launchable) for offer in offers] == [("local", True), ("aws", False)]


def test_a_dag_is_planned_as_a_whole(server: FakeServer) -> None:
    with sky.Dag() as dag:
        first, second, third = (sky.Task(name=name, run="x") for name in "abc")
        first >> third
        second >> third
    reply = sky.estimate(dag)
    assert isinstance(reply, PipelineReply) and [stage.name for stage in reply.stages] == ["a", "b", "c"]
    assert sky.optimize(dag) == reply
    request = msgspec.json.decode(server.seen("plan_pipeline")[0].body, type=PipelineRequest)
    assert request.edges == ((0, 2), (1, 2))
    with sky.Dag() as single:
        sky.Task(run="x")
    assert isinstance(sky.optimize(single), Plan) and isinstance(sky.estimate(single), PlanReply)

    async def main() -> None:
        assert await aio.estimate(dag) == await aio.optimize(dag) == reply
        assert isinstance(await aio.optimize(single), Plan)
        await aio.current_client().close()

    asyncio.run(main())


CLOUDS = {
    "AWS": "aws",
    "Azure": "azure",
    "Cudo": "cudo",
    "DO": "digitalocean",
    "Fluidstack": "fluidstack",
    "GCP": "gcp",
    "IBM": "ibm",
    "Kubernetes": "kubernetes",
    "Lambda": "lambda",
    "Local": "local",
    "Nebius": "nebius",
    "OCI": "oci",
    "Paperspace": "paperspace",
    "RunPod": "runpod",
    "SCP": "scp",
    "SSH": "ssh",
    "Slurm": "slurm",
    "Vast": "vast",
    "Vsphere": "vsphere",
    "Hyperbolic": "hyperbolic",
    "Hyperstack": "hyperstack",
    "Mithril": "mithril",
    "PrimeIntellect": "primeintellect",
    "Seeweb": "seeweb",
    "Shadeform": "shadeform",
    "Verda": "verda",
    "Yotta": "yotta",
}


@pytest.mark.parametrize(("name", "provider"), CLOUDS.items())
def test_every_cloud_has_a_class(name: str, provider: str) -> None:
    cloud = getattr(sky, name)
    for given in (cloud(), cloud, provider):
        task = sky.Task(run="x").set_resources(sky.Resources(cloud=given))
        assert task.build().resources[0].infra.provider == provider
    assert cloud() == cloud() and str(cloud()) == provider


def test_what_plans_need_can_be_said_in_python(server: FakeServer) -> None:
    task = sky.Task(
        "train",
        run="x",
        deadline="36h",
        estimated_hours=10,
        progress="40%",
        objective="time",
        inputs={"s3://in": 5},
    )
    task.set_resources(
        sky.Resources(
            accelerators="A100:8",
            regions=["eu", "KR"],
            exclude=["gcp", {"infra": "aws", "instance_type": "p3.*"}],
            location="plant-3",
            edge_config={"latency_requirements": "<20ms"},
            max_hourly_cost=40,
        )
    ).set_outputs("gs://out", 7).set_time_estimator("6h")
    model = task.build()
    assert (model.deadline_s, model.estimated_s, model.progress_milli, model.objective) == (
        129_600,
        21_600,
        400,
        "time",
    )
    assert [size.url for size in (*model.inputs, *model.outputs)] == ["s3://in", "gs://out"]
    (wish,) = model.resources
    assert wish.areas == ("eu", "KR") and [each.render() for each in wish.excluded] == ["gcp", "aws p3.*"]
    assert (wish.location, wish.edge.latency_us) == ("plant-3", 20_000)
    copied = sky.Resources(exclude="gcp").copy(cpus="4+")
    assert copied.fields == {"cpus": "4+", "not": "gcp"}
    with pytest.warns(UserWarning, match="not supported yet, ignored: inputs, outputs"):
        sky.optimize(task, minimize=sky.OptimizeTarget.CARBON)
    assert b'"objective":"carbon"' in server.seen("plan")[-1].body
    with pytest.raises(sky.ArgosyError, match="cannot be a function"):
        task.set_time_estimator(lambda resources: 5)


def test_cancel_and_download(server: FakeServer, tmp_path: Path) -> None:
    server.add_cluster("dev")
    for _ in range(3):
        server.next_log = FakeLog([Line(b"a\n", 0), Line(b"b\n", 1)], held=True)
        sky.exec(sky.Task(run="x", num_nodes=2), "dev")
    assert sky.cancel("dev").names == ("3",)
    assert sky.cancel("dev", job_ids=[1]).names == ("1",)
    assert sky.cancel("dev", all=True).names == ("2",)
    folders = sky.download_logs("dev", [2], local_dir=tmp_path)
    assert (Path(folders["2"]) / "rank-1.log").read_bytes() == b"b\n"
    out = io.BytesIO()
    sky.tail_logs("dev", 2, follow=False, output_stream=out)
    assert out.getvalue() == b"(job-2, rank=0) a\n(job-2, rank=1) b\n"


def test_managed_jobs(server: FakeServer) -> None:
    job_id, handle = sky.jobs.launch(sky.Task(run="echo hi"), name="sweep")
    assert (job_id, handle.cluster_name) == (1, None)
    out = io.BytesIO()
    assert sky.jobs.tail_logs(name="sweep", output_stream=out) == 0
    assert sky.jobs.tail_logs(job_id=1, output_stream=out) == 0
    assert out.getvalue() == b"hi\nhi\n"
    server.next_log = FakeLog(held=True)
    sky.jobs.launch(sky.Task("long", run="x"))
    assert [job.name for job in sky.jobs.queue()] == ["long", "sweep"]
    assert [job.name for job in sky.jobs.queue(skip_finished=True)] == ["long"]
    assert sky.jobs.cancel(name="long").names == ("2",)
    with pytest.raises(ArgosyError, match="nothing to cancel"):
        sky.jobs.cancel(name="long")
    with pytest.raises(ArgosyError, match="no managed job `none`"):
        sky.jobs.tail_logs(name="none")


def test_the_rest(server: FakeServer) -> None:
    server.add_cluster("dev")
    assert [finding.provider for finding in sky.check(["local"])] == ["local"]
    assert sky.cost_report(7)[0].name == "dev"
    assert sky.list_accelerators("A100")[0].shape.accelerator == "A100"
    assert sky.events() == []
    assert sky.api_info().version


# Task, Resources, Dag ---------------------------------------------------------------------------------------------  # noqa: E501


def test_a_task_of_yaml(tmp_path: Path) -> None:
    path = tmp_path / "t.yaml"
    path.write_text("name: t\nenvs: {N: null}\nrun: echo $N\nresources: {cpus: 2}\n")
    task = sky.Task.from_yaml(path)
    with pytest.raises(ArgosyError, match="`N` has no value") as error:
        task.build()
    assert error.value.where.startswith(str(path)) or str(path) in str(error.value.details)
    task.update_envs({"N": 3}).set_resources(sky.Resources(cpus="4+", memory="8+"))
    task.num_nodes = 2
    task.name = "other"
    model = task.build()
    assert (model.name, model.num_nodes, model.envs) == ("other", 2, {"N": "3"})
    assert model.resources[0].render() == "4+ CPUs, 8 GB+"
    assert model.run == "echo $N"
    with pytest.raises(ArgosyError) as error:
        sky.Task.from_yaml(tmp_path / "none.yaml")
    assert error.value.code == "spec-unreadable"


def test_a_task_of_values() -> None:
    task = sky.Task(
        "t", setup="pip list", run="python x.py", envs={"A": 1}, secrets={"KEY": "hunter2"}, num_nodes=2,
        resources={sky.Resources(cloud=sky.Local(), cpus=1), sky.Resources(cloud=sky.AWS, cpus=1)},
    )  # fmt: skip
    assert "hunter2" not in repr(task) and "hunter2" not in repr(task.build())
    assert "hunter2" not in str(task.to_yaml_config())
    assert {one.infra.provider for one in task.build().resources} == {"local", "aws"}
    assert not task.build().ordered
    task.set_resources([sky.Resources(infra="aws"), sky.Resources(infra="local")])
    assert [one.infra.provider for one in task.build().resources] == ["aws", "local"] and task.build().ordered
    task.update_secrets({"MORE": "x"}).update_file_mounts({"/a": "./a"}).update_file_mounts({"/b": "./b"})
    assert task.build().secrets == {"KEY": "hunter2", "MORE": "x"}
    assert [mount.target for mount in task.build().file_mounts] == ["/a", "/b"]
    assert (task.name, task.setup, task.run, task.num_nodes, task.envs) == (
        "t",
        "pip list",
        "python x.py",
        2,
        {"A": "1"},
    )


@pytest.mark.parametrize(
    ("make", "code"),
    [
        (lambda: sky.Resources(cpus="lots"), "spec-invalid"),
        (lambda: sky.Resources(accelerators="A100:-1"), "spec-invalid"),
        (lambda: sky.Resources(local_disk="nvme:none"), "spec-invalid"),
        (lambda: sky.Task(run="x", num_nodes=0), "spec-invalid"),
        (lambda: sky.Task(run=lambda rank, ips: "x"), "unsupported"),
        (lambda: sky.Task.from_yaml_config({"rum": "x"}), "spec-invalid"),
        (lambda: sky.Task(run="x").set_resources({"gpus": 3}), "spec-invalid"),
        (lambda: sky.Task().build(), "spec-invalid"),
        (lambda: sky.launch("task.yaml"), "usage"),
        (lambda: sky.launch(sky.Dag()), "usage"),
        (lambda: sky.exec(sky.Task(run="x"), "dev", down=True), "unsupported"),
    ],
)
def test_what_is_wrong_is_said_at_once(make: object, code: str) -> None:
    with pytest.raises(ArgosyError) as error:
        make()  # type: ignore[operator]
    assert error.value.code == code and error.value.hint


def test_a_dag_of_one_task_is_launched_and_of_two_is_not(server: FakeServer) -> None:
    with sky.Dag() as dag:
        first = sky.Task(run="echo 1")
    assert sky.launch(dag, cluster_name="dev").job_id == 1
    with sky.Dag() as dag:
        first = sky.Task(run="echo 1")
        second = sky.Task(run="echo 2")
        assert (first >> second) is second
    assert (len(dag), dag.edges) == (2, [(first, second)])
    with pytest.raises(ArgosyError, match="2 tasks") as error:
        sky.launch(dag)
    assert error.value.code == "unsupported"
    dag.remove(second)
    assert dag.single() is first and dag.edges == []


def test_what_is_not_executed_becomes_a_warning(server: FakeServer) -> None:
    task = sky.Task.from_yaml_config({"run": "x", "event_callback": "notify.sh"})
    with pytest.warns(UserWarning, match="not supported yet, ignored: event_callback"):
        sky.launch(task, cluster_name="dev")
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        sky.launch(sky.Task(run="x"), cluster_name="dev")


# What notebooks and SkyPilot programs do -------------------------------------------------------------


class Notebook(io.TextIOBase):
    """Standard output as a notebook has it: text, and no `buffer`."""

    def __init__(self) -> None:
        self.text = ""

    def write(self, text: str) -> int:
        if not isinstance(text, str):
            raise TypeError(f"write() argument must be str, not {type(text)}")
        self.text += text
        return len(text)


@pytest.mark.parametrize("out", [io.StringIO(), Notebook()])
def test_logs_go_where_text_goes(
    server: FakeServer, out: io.StringIO | Notebook, monkeypatch: pytest.MonkeyPatch
) -> None:
    server.add_cluster("dev")
    server.next_log = FakeLog([Line("grü".encode()[:-1]), Line("grü\n".encode()[3:])])  # cut inside a letter
    sky.exec(sky.Task(run="x"), "dev")
    monkeypatch.setattr(sys, "stdout", out)
    assert sky.tail_logs("dev") == 0

    async def main() -> None:
        assert await aio.tail_logs("dev") == 0
        assert await aio.tail_logs("dev", output_stream=io.StringIO()) == 0
        await aio.current_client().close()

    asyncio.run(main())
    shown = out.text if isinstance(out, Notebook) else out.getvalue()
    assert shown == "grü\n" * 2


def test_a_list_in_the_place_of_all_cancels_nothing(server: FakeServer) -> None:
    server.add_cluster("dev")
    server.next_log = FakeLog(held=True)
    sky.exec(sky.Task(run="x"), "dev")
    for act in (lambda: sky.cancel("dev", [1]), lambda: sky.jobs.cancel(None, None, [1])):
        with pytest.raises(ArgosyError, match=r"`all` is True or False, not \[1\]") as error:
            act()
        assert "job_ids" in error.value.hint
    assert not server.seen("cancel")
    assert sky.cancel("dev").names == ("1",)
    with pytest.raises(ArgosyError, match="no job of `dev` is live"):
        sky.cancel("dev")


def test_a_name_that_nothing_has_is_told(server: FakeServer) -> None:
    with pytest.warns(UserWarning, match="there is no cluster `nope`") as said:
        assert sky.status("nope") == []
    assert said[0].filename == __file__  # at the line that asked


def test_hints_speak_of_python(server: FakeServer) -> None:
    with pytest.raises(ArgosyError) as error:
        sky.Task.from_yaml_text("run: x\nenvs: {N: null}").build()
    assert "--env" not in f"{error.value.hint}{error.value.details}"
    assert "update_envs({'N': ...})" in f"{error.value.hint}{error.value.details}"
    server.failures["status"] = [ArgosyError("usage", "no", hint="say `--all`, or `--name NAME`")]
    with pytest.raises(ArgosyError) as error:
        sky.status()
    assert error.value.hint == "say `all=True`, or `name=...`"


def test_records_answer_to_names_that_skypilot_has(server: FakeServer) -> None:
    server.add_cluster("dev", autostop=Autostop(idle_s=600, down=True))
    sky.exec(sky.Task("t", run="exit 3"), "dev")
    (cluster,) = sky.status("dev")
    assert (cluster["name"], cluster["status"], cluster.status) == ("dev", sky.ClusterStatus.UP, "running")
    assert (cluster["autostop"], cluster["to_down"], cluster["handle"].name) == (10, True, "dev")
    sky.stop("dev")
    assert sky.status("dev")[0]["status"] is sky.ClusterStatus.STOPPED
    (job,) = sky.queue("dev")
    assert (job["job_id"], job["job_name"], job["status"]) == (1, "t", sky.JobStatus.FAILED)
    assert job["end_at"] > job["start_at"] and job.get("none") is None
    with pytest.raises(KeyError):
        job["none"]
    assert sky.job_status("dev") == {1: sky.JobStatus.FAILED} and sky.JobStatus.FAILED.is_terminal()
    assert sky.api_status() == sky.api_cancel() == [] and sky.api_start().version
    with pytest.raises(ArgosyError, match="nothing to log in to"):
        sky.api_login("http://box:7421")
    sky.api_stop()
    assert server.seen("server_stop")


def test_a_storage_is_kept_with_what_it_says() -> None:
    bucket = sky.Storage(name="b", source="s3://b", mode=sky.StorageMode.COPY, persistent=False)
    task = sky.Task(run="x").set_storage_mounts({"/data": bucket})
    model, said = task.build_and_warn()
    mount = model.storage_mounts[0]
    assert (mount.sources, mount.mode, mount.persistent, mount.name) == (("s3://b",), "COPY", False, "b")
    assert not said, "all of it is done"
    mount = sky.Task(run="x").set_storage_mounts({"/d": sky.Storage("b", stores=["S3"])}).build()
    assert mount.storage_mounts[0].store == "s3"
    with pytest.raises(ArgosyError, match="`stores` names 2"):
        sky.Storage(name="b", stores=[sky.StoreType.S3, sky.StoreType.GCS])


# Async ------------------------------------------------------------------------------------------------------------  # noqa: E501


def test_the_async_facade(server: FakeServer, tmp_path: Path) -> None:
    (tmp_path / "a.py").write_text("")

    async def main() -> None:
        task = sky.Task(run="echo hi", workdir=str(tmp_path))
        job_id, handle = await aio.launch(task, cluster_name="dev")
        out = io.BytesIO()
        assert await aio.tail_logs("dev", job_id, output_stream=out) == 0
        assert out.getvalue() == b"hi\n"
        await asyncio.gather(*(aio.exec(sky.Task(run="exit 1"), "dev") for _ in range(5)))
        assert len(await aio.queue("dev")) == 6
        assert (await aio.job_status("dev", 6)) == {6: "failed"}
        assert (await aio.status())[0].name == handle.cluster_name
        await aio.autostop("dev", 1)
        server.next_log = FakeLog(held=True)
        await aio.exec(sky.Task(run="x"), "dev")
        assert (await aio.cancel("dev")).names == ("7",)
        assert (await aio.jobs.launch(sky.Task(run="echo m"), name="m")).job_id == 1
        assert await aio.jobs.tail_logs("m", output_stream=out) == 0
        assert [job.name for job in await aio.jobs.queue()] == ["m"]
        assert (await aio.optimize(task)).choices
        assert len((await aio.estimate(task)).offers) == 2
        assert await aio.check() and await aio.cost_report()
        await aio.stop("dev")
        await aio.start("dev")
        await aio.down("dev")
        with pytest.raises(ArgosyError):
            await aio.down("dev")
        await aio.current_client().close()

    asyncio.run(main())


def test_every_flow_is_in_both_faces() -> None:
    """They cannot differ: each is the same flow. So it is enough that none was forgotten."""
    flows = {
        flow
        for name, flow in (vars(facade) | vars(managed)).items()
        if inspect.iscoroutinefunction(flow) and name[0] != "_"
    }
    flows -= {save_logs, facade.all_jobs, facade.find_job, facade.show_log}
    for faces in ((sdk, sky.jobs), (aio, aio.jobs)):
        shown = {getattr(getattr(face, name), "__wrapped__", None) for face in faces for name in face.__all__}
        assert flows <= shown
    for name in ("plan", "optimize", "exec", "launch", "estimate"):
        if name in sdk.__all__:
            assert inspect.signature(getattr(sky, name)) == inspect.signature(getattr(aio, name))
    assert inspect.iscoroutinefunction(aio.exec) and not inspect.iscoroutinefunction(sky.exec)


def test_pools_reasons_and_wishes_of_sharing(server: FakeServer) -> None:
    server.add_cluster("dev")
    resources = sky.Resources(preset="small", priority_class="interactive")
    task = sky.Task(run="echo x", resources=resources, scheduling={"queue": "acme", "spread": "rack"})
    job_id, _ = sky.launch(task, cluster_name="dev")
    sent = server.tasks[next(iter(server.tasks))]
    assert (sent.scheduling.queue, sent.scheduling.spread, sent.resources[0].preset) == (
        "acme",
        "rack",
        "small",
    )
    assert sky.explain("dev", job_id).title == "job 1 of `dev`"
    assert sky.explain("dev").title == "cluster `dev`"
    assert [pool.name for pool in sky.pools()] == ["dgx"]

    async def the_same() -> None:
        assert await aio.explain("dev", job_id) == sky.explain("dev", job_id)
        assert await aio.explain("dev") == sky.explain("dev")
        assert await aio.pools() == sky.pools()
        await aio.current_client().close()

    asyncio.run(the_same())


# Imports ----------------------------------------------------------------------------------------------------------  # noqa: E501

HEAVY = (
    "litestar",
    "sqlalchemy",
    "numpy",
    "rich",
    "asyncio",
    "yaml",
    "pathspec",
    "subprocess",
    "ssl",
    "http",
    "websockets",
)


@pytest.mark.parametrize(
    ("statement", "more"),
    [
        ("import argosy", ("msgspec", "click")),
        ("import argosy.client", ("msgspec", "click")),
        ("import argosy.jobs", ("click", "argosy.spec")),
        ("import argosy.cli.main as m; m.run(['--help'])", ("msgspec", "argosy.model", "argosy.client")),
        ("import argosy.cli.main as m; m.run(['--version'])", ("msgspec", "argosy.model", "argosy.client")),
        ("import argosy.cli.main as m; m.run(['status'])", ("argosy.spec", "argosy.client.files")),
        ("import argosy.cli.main as m; m.run(['launch', '-c', 'dev', '--', 'echo'])", ("argosy.client.files", "argosy.spec.parse")),  # noqa: E501
        ("import argosy.cli.main as m; m.run(['logs', 'dev'])", ("argosy.spec",)),
        ("import argosy as sky; sky.status()", ("click",)),
    ],
)  # fmt: skip
def test_what_is_imported(server: FakeServer, statement: str, more: tuple[str, ...]) -> None:
    server.add_cluster("dev")
    server.add_job(sky.Task(run="echo").build(), "dev")
    code = f"import sys\n{statement}\nsys.stderr.write(' '.join(sys.modules))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    loaded = set(done.stderr.splitlines()[-1].split())
    assert {"argosy"} <= loaded
    assert sorted(loaded & {*HEAVY, *more}) == []

"""Every command against a fake server: what it prints when piped, as JSON, and how it ends."""

from __future__ import annotations

import json
import os
import shlex
import subprocess
import sys
from pathlib import Path

import msgspec
import pytest
from command_line import CommandLine

from argosy.api.clusters import NodeView, StatusReply
from argosy.api.costs import CostReply
from argosy.api.endpoint import Done
from argosy.api.events import EventList, EventView
from argosy.api.jobs import JobList, JobView
from argosy.api.launching import LaunchReply, LaunchRequest
from argosy.api.planning import PlanReply
from argosy.api.prices import CheckReply, OfferList
from argosy.api.server import ServerStatus
from argosy.cli.main import COMMANDS, SECTIONS, cli
from argosy.cli.task_options import command_of
from argosy.model.errors import ArgosyError
from argosy.model.facts import Device
from argosy.model.offer import Plan, Rejection
from argosy.model.resources import Autostop
from argosy.model.task import Task
from argosy.spec import task_from_mapping
from argosy.testing.fake_memory import FakeLog, Line
from argosy.testing.fake_server import FakeServer
from argosy.testing.shared_answers import STARTED_MS

TASK = """\
name: train
workdir: .
num_nodes: 2
envs: {EPOCHS: 3, LR: null}
setup: pip list
run: echo $EPOCHS
resources: {cpus: 2+, memory: 4}
"""


# launch -----------------------------------------------------------------------------------------------------------  # noqa: E501


def test_launch_shows_the_plan_the_log_and_the_end(argosy: CommandLine) -> None:
    done = argosy("launch", "-c", "dev", "--", "echo", "hello")
    assert done.out == "hello\n"  # nothing but the job's output
    assert done.err == (
        "INFRA  INSTANCE      NODES               CPUS                 MEMORY  KIND   $/H  CHOSEN\n"
        "local  this machine      1  any (8 available)  any (32 GB available)  owned   $0  yes\n"
        "cluster `dev` is being made; job 1 is queued\n"
        "job 1 of `dev` succeeded\n"
    )
    assert done.status == 0


def test_launch_of_a_file(argosy: CommandLine, server: FakeServer) -> None:
    (argosy.folder / "train.yaml").write_text(TASK)
    (argosy.folder / "train.py").write_text("print()")
    done = argosy("launch", "-c", "dev", "train.yaml", "--env", "LR=0.1", "--env", "EPOCHS=7", "-d")
    assert done.status == 0, done
    assert done.out == "job 1 is queued on `dev`\n"
    assert "files: 2 entries, " in done.err
    (request,) = server.seen("launch")
    sent = msgspec.json.decode(request.body, type=LaunchRequest)
    assert sent.task.envs == {"EPOCHS": "7", "LR": "0.1"}
    assert (sent.task.name, sent.task.num_nodes, sent.user) == ("train", 2, "ada")
    assert sent.task.workdir_tree in server.trees
    assert sent.key


def test_launch_flags_say_it_all(argosy: CommandLine, server: FakeServer) -> None:
    (argosy.folder / "env").write_text("A=1\nB=two words\n")
    (argosy.folder / "secret").write_text("TOKEN=s3cr3t\n")
    argosy.good(
        "launch",
        "--cluster-name",
        "dev",
        "-n",
        "t",
        "--num-nodes",
        "2",
        "--gpus",
        "A100:1",
        "--cpus",
        "2+",
        "--memory",
        "4+",
        "--infra",
        "local",
        "--use-spot",
        "--env-file",
        "env",
        "--env",
        "B=x",
        "--env",
        "MINE",
        "--secret-file",
        "secret",
        "--secret",
        "KEY=k",
        "-i",
        "10",
        "--down",
        "--fast",
        "-y",
        "-d",
        "--max-hourly-cost",
        "3",
        "--",
        "echo",
        "hi",
    )
    sent = msgspec.json.decode(server.seen("launch")[0].body, type=LaunchRequest)
    (wish,) = sent.task.resources
    assert sent.task.envs == {"A": "1", "B": "x", "MINE": "me"}
    assert sent.task.secrets == {"TOKEN": "s3cr3t", "KEY": "k"}
    assert (sent.task.name, sent.task.num_nodes, sent.task.run) == ("t", 2, "echo hi")
    assert wish.render() == "A100:1, 2+ CPUs, 4 GB+, spot"
    assert (wish.infra.provider, wish.max_hourly_micro_usd) == ("local", 3_000_000)
    assert sent.autostop == Autostop(idle_s=600, down=True) and not sent.down
    assert not sent.setup


@pytest.mark.parametrize("words", [("echo hi",), ("echo", "a b"), ("python", "-c", "print(1)")])
def test_a_bare_command_is_what_the_parser_makes_of_it(
    argosy: CommandLine, server: FakeServer, words: tuple[str, ...]
) -> None:
    argosy("launch", "-c", "dev", "-d", "--", *words)
    sent = msgspec.json.decode(server.seen("launch")[0].body, type=LaunchRequest)
    assert sent.task == task_from_mapping({"run": command_of(words)}).tasks[0]


def test_words_after_dashes_reach_the_program_as_they_are(argosy: CommandLine) -> None:
    words = ("printf", "%s|", "a b", "$HOME", "it's")
    shell = subprocess.run(["sh", "-c", command_of(words)], capture_output=True, text=True, check=True)
    assert shell.stdout == "a b|$HOME|it's|"
    assert shlex.split(command_of(words)) == list(words)


def test_launch_down_without_idle_time(argosy: CommandLine, server: FakeServer) -> None:
    argosy.good("launch", "-c", "dev", "--down", "-d", "--", "true")
    sent = msgspec.json.decode(server.seen("launch")[0].body, type=LaunchRequest)
    assert sent.down and sent.autostop is None


def test_launch_on_an_existing_cluster_plans_nothing(argosy: CommandLine, server: FakeServer) -> None:
    server.add_cluster("dev")
    done = argosy("launch", "-c", "dev", "--", "echo", "hi")
    assert (done.status, done.out) == (0, "hi\n")
    assert server.seen("plan") == []
    assert "cluster `dev`: job 1 is queued" in done.err


def test_launch_without_a_program_makes_the_cluster(argosy: CommandLine) -> None:
    assert argosy.good("launch", "-c", "dev", "--num-nodes", "2") == "cluster `dev` is running\n"
    assert argosy.good("launch", "-c", "dev2", "-d") == "cluster `dev2` is being made\n"


def test_a_job_that_fails_is_status_1(argosy: CommandLine) -> None:
    done = argosy("launch", "-c", "dev", "--", "exit 3")
    assert done.status == 1
    assert done.err.endswith("job 1 of `dev` failed: exit status 3\n")


def test_launch_json(argosy: CommandLine) -> None:
    reply = msgspec.json.decode(
        argosy.good("launch", "-c", "dev", "-d", "--json", "--", "x"), type=LaunchReply
    )
    assert (reply.cluster, reply.created) == ("dev", True)
    done = argosy("exec", "dev", "--json", "exit 3")
    job = msgspec.json.decode(done.out, type=JobView)
    assert (done.status, job.status, job.exit_codes) == (1, "failed", (3,))


def test_dryrun_changes_nothing(argosy: CommandLine, server: FakeServer) -> None:
    assert argosy.good("launch", "--dryrun", "--cpus", "2+", "--", "x") == (
        "INFRA                      INSTANCE      CPUS  MEMORY  ACCELERATORS  KIND      $/H  CHOSEN\n"
        "local                      this machine     8   32 GB                owned      $0  yes\n"
        "aws/ca-central-1/cac1-az2  p4d.24xlarge    96  1.1 TB  A100:8        spot   ~$5.16  not in use\n"
        "and 13 more offers fit (--top shows more)\n"
        "\n"
        "local this machine (owned): $0/h; next is aws p4d.24xlarge (spot) at $5.16/h\n"
        "\n"
        "Not considered:\n"
        "  credentials  aws: no credentials\n"
        "\n"
        "Nothing was launched (--dryrun).\n"
    )
    plan = msgspec.json.decode(argosy.good("launch", "--dryrun", "--json", "--", "x"), type=PlanReply).plan
    assert plan.choices[0].offer.provider == "local"
    assert {request.endpoint for request in server.requests} == {"health", "plan"}


@pytest.mark.parametrize("words", [("launch",), ("launch", "--dryrun"), ("jobs", "launch")])
def test_nothing_fits(argosy: CommandLine, server: FakeServer, words: tuple[str, ...]) -> None:
    done = argosy(*words, "--infra", "aws", "--gpus", "A100:8", "--", "x")
    assert done.status == 3
    before, error, said = done.err.partition("error: ")
    assert error + said == (
        "error: no offer fits the task (A100:8)\n"
        "  aws  –  credentials  no credentials\n"
        "hint: `argosy check` says what is wrong with an infrastructure\n"
    )
    assert not before or "--dryrun" in words  # which shows the plan first, with what `plan` warns of
    assert not server.clusters and not server.jobs


@pytest.mark.parametrize("words", [("launch", "-c", "dev"), ("jobs", "launch")])
def test_a_launch_is_one_request_and_shows_the_plan_that_was_used(
    argosy: CommandLine, server: FakeServer, words: tuple[str, ...]
) -> None:
    done = argosy(*words, "-y", "-d", "--", "x")
    assert done.status == 0
    name = "_".join(word for word in words if word in ("jobs", "launch"))
    assert [request.endpoint for request in server.requests if request.endpoint != "health"] == [name]
    assert "INFRA  INSTANCE" in done.err and "local" in done.err


def test_files_are_not_sent_for_what_cannot_start(argosy: CommandLine, server: FakeServer) -> None:
    (argosy.folder / "a.py").write_text("print()")
    done = argosy("launch", "-y", "--workdir", ".", "--infra", "aws", "--gpus", "A100:8", "--", "x")
    assert done.status == 3 and "no offer fits the task (A100:8)" in done.err
    assert not server.seen("missing_chunks") and not server.seen("launch")


def test_a_missing_workdir_is_noticed_by_plans(argosy: CommandLine) -> None:
    text = f"workdir `{argosy.folder / 'gone'}` does not exist"
    planned = argosy("plan", "--workdir", "gone", "--", "x")
    dry = argosy("launch", "--dryrun", "--workdir", "gone", "--", "x")
    for done in (planned, dry):
        assert done.status == 0 and f"warning: {text}; a launch will be refused" in done.err
    assert dry.out == planned.out + "\nNothing was launched (--dryrun).\n"
    refused = argosy("launch", "--workdir", "gone", "--", "x")
    assert refused.status == 2 and f"error: {text}" in refused.err


@pytest.mark.parametrize("words", [("launch",), ("launch", "--dryrun")])
def test_capacity_in_use_is_waited_for(
    argosy: CommandLine, server: FakeServer, words: tuple[str, ...]
) -> None:
    text = "waits for 1 A100: 2 of 2 in use by train"
    busy = Plan(num_nodes=1, rejected=(Rejection(provider="local", code="busy", text=text),))
    server.plan_of = lambda task: PlanReply(plan=busy)
    done = argosy(*words, "-y", "-c", "dev", "--gpus", "A100:1", "--", "x")
    assert done.status == 0
    assert text in done.err + done.out


def test_what_is_not_executed_yet_is_said(argosy: CommandLine) -> None:
    (argosy.folder / "t.yaml").write_text("run: echo hi\nresources: {ports: 8080}\npool: {workers: 2}\n")
    done = argosy("launch", "-c", "dev", "t.yaml")
    assert done.status == 0
    assert done.err.count("warning:") == 1
    assert "warning: t.yaml:3:1: not supported yet, ignored: pool" in done.err


def test_the_server_does_not_repeat_what_the_file_said(argosy: CommandLine, server: FakeServer) -> None:
    said = ("not supported yet, ignored: pool", "something else")
    plan_of = server.plan_of
    server.plan_of = lambda task: msgspec.structs.replace(plan_of(task), warnings=said)
    (argosy.folder / "t.yaml").write_text("run: echo hi\npool: {workers: 2}\ninputs: {s3://b: 5}\n")
    done = argosy("plan", "t.yaml")
    assert [line for line in done.err.splitlines() if "warning:" in line][:2] == [
        "warning: t.yaml:2:1: not supported yet, ignored: inputs, pool (`argosy jobs pool apply NAME FILE` "
        "makes it)",
        "warning: something else",
    ]
    assert done.err.count("not supported yet") == 1


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (("exec", "dev", "a.yaml", "b.yaml"), "2 files are named, and one can be launched at a time"),
        (("launch", "a.yaml", "extra"), "`a.yaml` is a task file, and nothing can follow it (got `extra`)"),
        (("jobs", "launch", "a.yaml", "b.yml", "c.yaml"), "3 files are named"),
        (("plan", "a.yaml", "x"), "nothing can follow it"),
    ],
)
def test_a_file_and_something_after_it_is_no_shell_text(
    argosy: CommandLine, server: FakeServer, words: tuple[str, ...], told: str
) -> None:
    (argosy.folder / "a.yaml").write_text("run: echo hi\n")
    done = argosy(*words)
    assert (done.status, done.out) == (2, "") and told in done.err, done
    assert not server.seen("launch") and not server.seen("exec")


def test_without_a_command_the_help_is_shown(argosy: CommandLine) -> None:
    assert argosy() == argosy("--help")


def test_the_end_of_a_job_stands_on_a_line_of_its_own(argosy: CommandLine, server: FakeServer) -> None:
    server.next_log = FakeLog([Line(b"no newline at the end")])
    child = argosy.process("launch", "-c", "dev", "--", "x", stderr=subprocess.STDOUT)
    out, _ = child.communicate(timeout=60)
    assert out.endswith("no newline at the end\njob 1 of `dev` succeeded\n"), out
    server.next_log = FakeLog([Line(b"no newline at the end")])
    done = argosy("launch", "-c", "dev2", "--", "x")
    assert done.out == "no newline at the end"  # a file gets what the job wrote


# What is wrong with the input -------------------------------------------------------------------------------------  # noqa: E501


@pytest.mark.parametrize(
    ("words", "status", "text"),
    [
        (("launch", "none.yaml"), 2, "error: `none.yaml` does not exist"),
        (("launch", "bad.yaml"), 2, "bad.yaml:2:1: unknown field `rum`"),
        (("launch", "broken.yaml"), 2, "broken.yaml:"),
        (("launch", "binary.yaml"), 2, "`binary.yaml` is not UTF-8"),
        (("launch", "two.yaml"), 2, "`two.yaml` describes 2 jobs, and this launches one task"),
        (("launch", "lost.yaml"), 2, "does not exist"),
        (("launch", "null.yaml"), 2, "the variable `K` has no value"),
        (("launch", "-c", "No Good", "--", "x"), 2, "cannot name a cluster"),
        (("launch", "--env", "1A=2", "--", "x"), 2, "is no name of a variable"),
        (("launch", "--env", "ABSENT", "--", "x"), 2, "`ABSENT` is not set in your shell"),
        (("launch", "--env-file", "none", "--", "x"), 2, "`none` does not exist"),
        (("launch", "--cpus", "lots", "--", "x"), 2, "--cpus"),
        (("launch", "--gpu", "A100", "--", "x"), 2, "no such option"),
        (("launch", "--num-nodes", "x"), 2, "x is not a number of nodes: write 4, or a range such as 2-8"),
        (("exec",), 2, "name a cluster"),
        (("exec", "dev"), 2, "there is nothing to run"),
        (("exec", "nope", "--", "x"), 4, "there is no cluster `nope`"),
        (("lanch",), 2, "did you mean `argosy launch`?"),
        (("xyzzy",), 2, "`argosy --help` lists the commands"),
        (("jobs", "xyzzy"), 2, "no such command"),
        (("down",), 2, "name a cluster, or give --all"),
        (("down", "-a", "dev"), 2, "not both"),
        (("cancel", "dev"), 2, "name jobs by number, or give --all"),
        (("logs", "nope"), 4, "there is no cluster `nope`"),
        (("status", "nope"), 4, "there is no cluster `nope`"),
        (("jobs", "logs"), 4, "there is no job among managed jobs"),
        (("jobs", "logs", "x"), 2, "job must be a number, got x"),
        (("autostop", "dev", "--cancel", "-i", "3"), 2, "--cancel takes neither"),
        (("check", "mars"), 2, "Argosy cannot run on mars yet; available: aws, local"),
    ],
)
def test_bad_input(argosy: CommandLine, words: tuple[str, ...], status: int, text: str) -> None:
    for name, content in {
        "bad.yaml": b"name: x\nrum: echo\n",
        "broken.yaml": b"run: [1,\n",
        "binary.yaml": b"run: \xff\xfe\n",
        "two.yaml": b"run: a\n---\nrun: b\n",
        "lost.yaml": b"workdir: ./nowhere\nrun: x\n",
        "null.yaml": b"envs: {K: null}\nrun: x\n",
    }.items():
        (argosy.folder / name).write_bytes(content)
    done = argosy(*words)
    assert done.status == status, done
    assert text in done.err, done.err
    assert "hint: " in done.err
    assert "Traceback" not in done.err
    as_json = argosy(*words[:1], "--json", *words[1:]) if words[0] in ("launch", "exec", "status") else None
    if as_json is not None:
        problem = json.loads(as_json.err.splitlines()[-1])
        assert problem["code"] and problem["what"] and problem["hint"]


def test_secrets_are_never_shown(argosy: CommandLine, server: FakeServer) -> None:
    done = argosy("launch", "-c", "dev", "--secret", "1BAD=hunter2", "--", "x")
    assert done.status == 2 and "hunter2" not in done.err
    done = argosy("launch", "-c", "dev", "--secret", "hunter2!", "--", "x")
    assert done.status == 2 and "hunter2" not in done.err
    done = argosy("launch", "-c", "dev", "--secret", "KEY=hunter2", "--", "echo", "hi")
    assert done.status == 0 and "hunter2" not in done.err + done.out


@pytest.mark.parametrize(
    ("error", "status"),
    [
        (ArgosyError("unauthorized", "the token is wrong"), 6),
        (ArgosyError("too-large", "too much"), 2),
        (ArgosyError("wrong-state", "it rests"), 5),
        (ArgosyError("disk-full", "no space left"), 8),
        (ArgosyError("internal", "oops"), 70),
    ],
)
def test_errors_of_the_server(
    argosy: CommandLine, server: FakeServer, error: ArgosyError, status: int
) -> None:
    server.failures["status"] = [error]
    done = argosy("status")
    assert (done.status, done.out) == (status, "")
    assert done.err == f"error: {error.what}\nhint: {error.hint}\n"


def test_wrong_token(argosy: CommandLine, server: FakeServer) -> None:
    server.token = "right"
    argosy.env["ARGOSY_TOKEN"] = "wrong-one"
    done = argosy("status")
    assert done.status == 6 and "ARGOSY_TOKEN" in done.err and "wrong-one" not in done.err
    argosy.env["ARGOSY_TOKEN"] = "right"
    argosy.good("status")


def test_no_server(argosy: CommandLine, server: FakeServer) -> None:
    server.stop()
    done = argosy("status")
    assert done.status == 7
    assert f"no Argosy server answers at {server.socket}" in done.err
    argosy.env["ARGOSY_SERVER"] = "ftp://x"
    assert argosy("status").status == 2


# Clusters ---------------------------------------------------------------------------------------------------------  # noqa: E501


def test_status_of_nothing(argosy: CommandLine) -> None:
    assert argosy.good("status").startswith("No clusters and no live managed jobs.")


def test_status(argosy: CommandLine, server: FakeServer) -> None:
    server.add_cluster("dev", autostop=Autostop(idle_s=600, down=True), jobs_running=2, jobs_queued=1)
    server.add_cluster(
        "big",
        status="degraded",
        num_nodes=16,
        resources="A100:8",
        price_micro_usd=32_000_000,
        detail="node 3 is dead",
    )
    server.next_log = FakeLog(held=True)
    server.add_job(Task(name="sweep", run="x"), None)
    assert argosy.good("status") == (
        "NAME  STATUS    INFRA  RESOURCES  NODES  JOBS                 AUTOSTOP       $/H  AGE\n"
        "dev   running   local  default        1  2 running, 1 queued  10m (down)      $0   1h\n"
        "big   degraded  local  A100:8        16                                   $32.00   1h\n"
        "big: node 3 is dead\n"
        "\n"
        "Managed jobs\n"
        "ID  NAME   STATUS   RESOURCES  SUBMITTED     TOOK\n"
        " 1  sweep  running  default       1h ago  59m 59s\n"
    )
    assert argosy.good("status", "de*").splitlines()[1].startswith("dev")
    assert "big" not in argosy.good("status", "dev")
    argosy.good("status", "-r")
    assert server.requests[-1].query == {"refresh": "true"}


def test_status_says_why_a_cluster_is_not_idle_and_when_it_stops(
    argosy: CommandLine, server: FakeServer
) -> None:
    soon = STARTED_MS + 3_600_000 + 12 * 60_000
    server.add_cluster("a", autostop=Autostop(idle_s=600), in_use="2 jobs, GPUs at work")
    server.add_cluster("b", autostop=Autostop(idle_s=1800, down=True), stops_at_ms=soon)
    server.add_cluster("c", autostop=Autostop(max_s=3600), in_use="1 job", stops_at_ms=soon)
    said = argosy.good("status").splitlines()[4:]
    assert said[0] == "a: not idle: 2 jobs, GPUs at work"
    assert said[1:3] == [
        "b: idle; is deleted in 12m unless it is used",
        "c: not idle: 1 job; it stops in 12m in any case",
    ]


def test_status_shows_nodes(argosy: CommandLine, server: FakeServer) -> None:
    node = NodeView(
        id="nod-1", index=0, phase="ready", ip="10.0.0.1", cpus_milli=8000, memory_bytes=32 << 30,
        devices=(Device(index=0, model="A100"), Device(index=1, model="A100")), load_milli=1500,
    )  # fmt: skip
    server.clusters["dev"] = msgspec.structs.replace(server.add_cluster("dev"), nodes=(node,))
    assert argosy.good("status", "-v").splitlines()[2:] == [
        "",
        "Nodes of dev",
        "NODE  STATUS  IP        CPUS  MEMORY  ACCELERATORS  LOAD",
        "0     ready   10.0.0.1     8   32 GB  A100:2        1.50",
    ]
    assert argosy.good("status", "--ip", "dev") == "10.0.0.1\n"
    assert argosy.good("status", "--endpoint", "8080", "dev") == "10.0.0.1:8080\n"


def test_json_is_the_api_type(argosy: CommandLine, server: FakeServer) -> None:
    server.add_cluster("dev")
    server.add_job(Task(run="echo"), "dev")
    server.add_job(Task(run="echo"), None)
    for words, kind in {
        ("status",): StatusReply,
        ("queue", "dev"): JobList,
        ("queue",): JobList,
        ("jobs", "queue"): JobList,
        ("logs", "dev", "1"): JobView,
        ("check",): CheckReply,
        ("gpus",): OfferList,
        ("cost-report",): CostReply,
        ("events",): EventList,
        ("cancel", "dev", "1"): Done,
        ("server", "status"): ServerStatus,
    }.items():
        msgspec.json.decode(argosy.good(*words, "--json"), type=kind)


def test_stop_start_down(argosy: CommandLine, server: FakeServer) -> None:
    for name in ("a1", "a2", "b"):
        server.add_cluster(name)
    assert argosy.good("stop", "a*") == (
        "a1: stopping; `argosy start a1` brings it back\na2: stopping; `argosy start a2` brings it back\n"
    )
    assert argosy.good("start", "a1", "-i", "5") == "a1: starting\n"
    assert server.clusters["a1"].autostop == Autostop(idle_s=300)
    done = argosy("down", "a1", "nope", "b")
    assert done.status == 4
    assert done.out == "a1: going down\nb: going down\n"
    assert "there is no cluster `nope`" in done.err
    assert argosy.good("down", "-a", "-y") == "a2: going down\n"
    assert argosy.good("down", "--all", "--yes") == "There are no clusters.\n"


def test_autostop(argosy: CommandLine, server: FakeServer) -> None:
    server.add_cluster("dev")
    assert argosy.good("autostop", "dev", "-i", "90", "--down") == "dev will be deleted after 1h 30m idle\n"
    assert server.clusters["dev"].autostop == Autostop(idle_s=5400, down=True)
    assert (
        argosy.good("autostop", "dev", "--max-duration", "8h") == "dev will be stopped 8h after its start\n"
    )
    assert server.clusters["dev"].autostop == Autostop(max_s=28_800)
    assert argosy.good("autostop", "dev", "-i", "5", "--max-duration", "60") == (
        "dev will be stopped after 5m idle or 1h after its start\n"
    )
    assert argosy.good("autostop", "dev") == "dev will be stopped after 5m idle\n"
    assert argosy.good("autostop", "dev", "-i", "10m") == "dev will be stopped after 10m idle\n"
    assert server.clusters["dev"].autostop.idle_s == 600
    assert argosy.good("autostop", "dev", "--cancel") == "autostop is off for dev\n"
    assert server.clusters["dev"].autostop.idle_s is None


# Jobs -------------------------------------------------------------------------------------------------------------  # noqa: E501


def test_exec_and_queue(argosy: CommandLine, server: FakeServer) -> None:
    server.add_cluster("dev")
    assert argosy.good("exec", "dev", "-n", "first", "--", "echo", "one") == "one\n"
    assert argosy.good("exec", "-c", "dev", "echo two") == "two\n"
    done = argosy("exec", "dev", "-d", "--", "echo", "three")
    assert done.out == "job 3 is queued on `dev`\n"
    assert "argosy logs dev 3" in done.err and "argosy cancel dev 3" in done.err
    server.next_log = FakeLog(held=True)
    waiting = server.add_job(Task(run="x"), "dev")
    server.jobs[waiting.id] = msgspec.structs.replace(
        waiting,
        status="queued",
        phase="queued",
        started_ms=0,
        detail="waits for 1 A100: 2 of 2 in use by job 3",
    )
    assert argosy.good("queue", "dev") == (
        "ID  NAME   STATUS     RESOURCES  SUBMITTED  TOOK  DETAIL\n"
        " 4         queued     default       1h ago        waits for 1 A100: 2 of 2 in use by job 3\n"
        " 3         succeeded  default       1h ago    3s\n"
        " 2         succeeded  default       1h ago    3s\n"
        " 1  first  succeeded  default       1h ago    3s\n"
    )
    assert len(argosy.good("queue", "--live").splitlines()) == 2
    assert "older ones are not shown" in argosy("queue", "dev", "-n", "2").err


def test_logs(argosy: CommandLine, server: FakeServer) -> None:
    server.add_cluster("dev")
    lines = [Line(b"%d\n" % number) for number in range(5)]
    server.next_log = FakeLog(lines)
    server.add_job(Task(run="x"), "dev")
    server.next_log = FakeLog(
        [Line(b"a\n", 0), Line(b"b\n", 1), Line(b"half", 1)], status="failed", exit_code=2
    )
    server.add_job(Task(name="gang", num_nodes=2, run="x"), "dev")
    assert argosy.good("logs", "dev", "1") == "0\n1\n2\n3\n4\n"
    assert argosy.good("logs", "dev", "1", "--tail", "2") == "3\n4\n"
    done = argosy("logs", "dev")
    assert done.status == 1
    assert done.out == "(gang, rank=0) a\n(gang, rank=1) b\n(gang, rank=1) half\n"
    assert argosy("logs", "dev", "2", "--rank", "1", "--no-follow").out == "b\nhalf"
    assert argosy("logs", "dev", "2", "--status").out == "job 2: failed\n"
    assert argosy("logs", "dev", "7").status == 4
    out = Path(argosy("logs", "dev", "2", "-s").out.strip())
    assert (out / "rank-0.log").read_bytes() == b"a\n"
    assert (out / "rank-1.log").read_bytes() == b"b\nhalf"


def test_logs_are_bytes(server: FakeServer, argosy: CommandLine) -> None:
    server.next_log = FakeLog([Line(bytes(range(256)))])
    server.add_cluster("dev")
    server.add_job(Task(run="x"), "dev")
    process = argosy.process("logs", "dev", text=False)
    out, _ = process.communicate(timeout=60)
    assert out == bytes(range(256))


def test_what_a_job_waits_for_is_said_once(argosy: CommandLine, server: FakeServer) -> None:
    server.add_cluster("dev")
    notes = [Line(b"", note="waits for job 1"), Line(b"", note="waits for job 1"), Line(b"go\n")]
    server.next_log = FakeLog(notes)
    done = argosy("exec", "dev", "--", "x")
    assert (done.out, done.err.count("waits for job 1")) == ("go\n", 1)


def test_cancel(argosy: CommandLine, server: FakeServer) -> None:
    server.add_cluster("dev")
    for _ in range(3):
        server.next_log = FakeLog(held=True)
        server.add_job(Task(run="x"), "dev")
    assert argosy.good("cancel", "dev", "2") == "job 2: cancelling\n"
    assert argosy.good("cancel", "dev", "-a", "-y") == "job 1: cancelling\njob 3: cancelling\n"
    assert argosy.good("cancel", "dev", "-a") == "Nothing to cancel.\n"
    assert argosy("cancel", "dev", "9").status == 4


def test_managed_jobs(argosy: CommandLine, server: FakeServer) -> None:
    assert argosy.good("jobs", "queue").startswith("No managed jobs.")
    done = argosy("jobs", "launch", "-n", "sweep", "--", "echo", "hi")
    assert (done.status, done.out) == (0, "hi\n")
    assert "job 1 succeeded" in done.err
    server.next_log = FakeLog([Line(b"x\n")], held=True)
    assert (
        argosy.good("jobs", "launch", "-n", "long", "-d", "-y", "x.sh")
        == "job 2 is queued as a managed job\n"
    )
    done = argosy("queue")
    assert (done.out, done.err) == (
        "No clusters.\n",
        "1 managed job is live: `argosy jobs queue` lists them\n",
    )
    assert [line.split()[:3] for line in argosy.good("jobs", "queue").splitlines()[1:]] == [
        ["2", "long", "running"],
        ["1", "sweep", "succeeded"],
    ]
    assert argosy.good("jobs", "logs", "1") == "hi\n"
    assert argosy.good("jobs", "logs", "-n", "sweep") == "hi\n"
    assert argosy.good("jobs", "logs", "--no-follow") == "x\n"
    assert argosy.good("jobs", "cancel", "-n", "long") == "job 2: cancelling\n"
    assert argosy.good("jobs", "cancel", "-a", "-y") == "Nothing to cancel.\n"


# The rest ---------------------------------------------------------------------------------------------------------  # noqa: E501


def test_check(argosy: CommandLine) -> None:
    assert argosy.good("check") == (
        "no  aws    no credentials\n           hint: run `aws configure`\n"
        "ok  local  this machine: 2 CPUs, 4 GB\n"
    )
    assert argosy("check", "aws").status == 1 and argosy("check", "local").status == 0
    assert argosy("check", "local", "aws").status == 1  # with names, all of them are meant
    assert "`argosy check --all` also shows what is not in use" in argosy("check").err


def test_cost_report_and_events(argosy: CommandLine, server: FakeServer) -> None:
    assert argosy.good("cost-report") == "Nothing was held, so nothing was spent.\n"
    server.add_cluster("dev")
    server.events = [EventView(seq=1, at_ms=STARTED_MS, subject="dev", code="launched", text="as asked")]
    assert argosy.good("cost-report", "--days", "3") == (
        "NAME  KIND     STATUS   INFRA  RESOURCES  NODES  HELD    $/H   COST\n"
        "dev   cluster  running  local  default        1    1h  $1.20  $1.20\n"
        "Total: $1.20\n"
    )
    assert argosy.good("events", "dev") == (
        "NUMBER  AGE  SUBJECT  EVENT     TEXT\n     1   1h  dev      launched  as asked\n"
    )


def test_version_and_server_status(argosy: CommandLine, server: FakeServer) -> None:
    assert argosy.good("version").splitlines()[0].startswith("client  ")
    assert "memory      64 MB" in argosy.good("server", "status")
    server.stop()
    assert "not running" in argosy.good("version")
    assert argosy("server", "status").status == 7
    assert argosy("server", "start").status == 2  # ARGOSY_SERVER names another one


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_completion_scripts(argosy: CommandLine, shell: str) -> None:
    if shell == "bash":
        pytest.importorskip("click.shell_completion")
    assert "_ARGOSY_COMPLETE" in argosy.good("completion", shell)


def complete(argosy: CommandLine, *words: str) -> list[str]:
    env = {
        **os.environ,
        **argosy.env,
        "_ARGOSY_COMPLETE": "bash_complete",
        "COMP_WORDS": shlex.join(words),
        "COMP_CWORD": str(len(words) - 1),
    }
    done = subprocess.run(
        [sys.executable, "-m", "argosy.cli"], env=env, capture_output=True, text=True, check=True
    )
    return [line.partition(",")[2] for line in done.stdout.splitlines() if line]


def test_tab_completes_commands_options_and_clusters(argosy: CommandLine, server: FakeServer) -> None:
    server.add_cluster("dev")
    server.add_cluster("deep")
    server.add_cluster("other")
    assert complete(argosy, "argosy", "la") == ["launch"]
    assert complete(argosy, "argosy", "logs", "de") == ["dev", "deep"]
    assert complete(argosy, "argosy", "launch", "-c", "o") == ["other"]
    assert "--gpus" in complete(argosy, "argosy", "launch", "--g")
    server.stop()
    assert complete(argosy, "argosy", "down", "de") == []  # and it starts no server


def test_ssh_runs_a_command(argosy: CommandLine, server: FakeServer) -> None:
    server.add_cluster("dev")
    process = argosy.process("ssh", "dev", "--", "exit 7")
    out, err = process.communicate(timeout=60)
    assert (process.returncode, out, err) == (7, "ran: exit 7 24x80\n", "")
    assert server.seen("shell")[0].query["node"] == "0"


def test_ssh_passes_what_is_typed(argosy: CommandLine, server: FakeServer) -> None:
    server.add_cluster("dev")
    process = argosy.process("ssh", "dev", "--node", "1", stdin=subprocess.PIPE)
    out, _ = process.communicate("ls\nexit 5\n", timeout=60)
    assert process.returncode == 5
    assert out.startswith("ls\nexit 5\n")
    assert server.seen("shell")[0].query["node"] == "1"


def test_ssh_errors(argosy: CommandLine, server: FakeServer) -> None:
    assert argosy("ssh", "nope").status == 4
    server.add_cluster("dev")
    server.failures["shell"] = [ArgosyError("node-unreachable", "node 0 does not answer")]
    done = argosy("ssh", "dev")
    assert (done.status, "node 0 does not answer" in done.err) == (7, True)


def test_help_of_every_command_is_complete() -> None:
    import click

    context = click.Context(cli, info_name="argosy")
    for name in COMMANDS:
        command = cli.get_command(context, name)
        assert command is not None
        text = command.get_help(click.Context(command, info_name=name, parent=context))
        assert "Example" in text
    for section in SECTIONS.values():
        for name, entry in section.items():
            command = cli.get_command(context, name)
            assert command is not None and (not entry.about or command.help), name


def test_checkpoints_are_listed_fetched_and_removed(argosy: CommandLine, server: FakeServer) -> None:
    server.add_job(Task(name="m", run="echo hi"), None)
    said = argosy("checkpoints", "ls", "1")
    assert "9f2c1a000000" in said.out
    assert "the next attempt goes on from it" in said.out
    said = argosy("checkpoints", "get", "1", "saved")
    assert said.err.endswith("Fetched 2 files.\n")
    assert (argosy.folder / "saved/latest/step").read_bytes() == b"7"
    assert not (argosy.folder / "saved/out").is_symlink()  # it would lead out of the folder
    assert "Removed 1 checkpoint." in argosy("checkpoints", "rm", "1", "9f2c", "-y").err
    assert argosy("checkpoints", "rm", "1", "0000", "-y").status == 4
    assert "name checkpoints, or give --all" in argosy("checkpoints", "rm", "1").err

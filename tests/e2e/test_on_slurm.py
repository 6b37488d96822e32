"""The product on a real Slurm, through a login node by ssh: launch, exec, settings of tasks, killed
servers, down."""

from __future__ import annotations

import os
import re
import signal
from collections.abc import Iterator
from functools import partial
from pathlib import Path

import pytest
from e2e_house import House

from argosy.testing.slurm_cluster import LoginNode, SlurmCluster, what_is_missing

MISSING = what_is_missing() or (
    "" if Path("/usr/sbin/sshd").exists() else "no /usr/sbin/sshd (openssh-server)"
)
pytestmark = pytest.mark.skipif(bool(MISSING), reason=f"NOTHING WAS RUN ON SLURM: {MISSING}")


class SlurmHouse(House):
    """A server that knows one cluster, `far`, through its login node."""

    def __init__(self) -> None:
        self.slurm = SlurmCluster(nodes=2)
        super().__init__()
        self.login = LoginNode(self.slurm)
        self.env |= {"HOME": str(self.root), "ARGOSY_INFRA": "slurm"}
        self.env.pop("SLURM_CONF", None)
        self.state.mkdir(parents=True)
        (self.state / "slurm.yaml").write_text(
            f"clusters:\n  far:\n    login: login\n    ssh_config: {self.login.config_file}\n"
            f"    node_dir: {self.root}\n"
        )

    def close(self) -> None:
        try:
            super().close()
        finally:
            self.login.stop()
            self.slurm.stop()


@pytest.fixture(scope="module")
def far() -> Iterator[SlurmHouse]:
    made = SlurmHouse()
    yield made
    made.close()


def test_a_gang_runs_on_slurm_and_goes_with_its_cluster(far: SlurmHouse) -> None:
    task = far.file(
        "gang.yaml",
        "num_nodes: 2\n"
        "resources: {infra: slurm/far/low, cpus: 2, memory: 0.2}\n"
        "config: {slurm: {constraint: ib, time: 30, sbatch_options: {nice: 7}}}\n"
        "run: echo rank $ARGOSY_NODE_RANK of $ARGOSY_NUM_NODES in job $SLURM_JOB_ID, token [$ARGOSY_TOKEN]\n",
    )
    said = far.run("launch", "-y", "-c", "gang", task, env={"ARGOSY_TOKEN": ""}).stdout
    jobs = far.slurm.jobs()
    assert len(jobs) == 1
    (number,) = jobs.values()
    lines = sorted(re.findall(r"rank (\d) of 2 in job (\d+), token \[\]", said))
    assert lines == [("0", number), ("1", number)], said
    told = far.slurm.run("squeue", "-h", "-j", number, "-o", "%f|%l|%D|%c|%m|%P|%k").strip()
    assert re.fullmatch(r"ib\|30:00\|2\|2\|2..M\|low\|argosy:sto-\w+", told), told
    assert "Nice=7" in far.slurm.run("scontrol", "show", "job", number)
    assert "again" in far.run("exec", "gang", "--", "echo again").stdout
    far.run("down", "-y", "gang")
    far.wait("the job is over", lambda: not far.slurm.jobs())
    far.wait("nothing of it runs", lambda: not far.slurm.nodes_with(number))
    far.wait("files of nodes go with their job", lambda: not list(far.root.glob("argosy-*/*")))


@pytest.mark.parametrize(
    "pause_s", [0.1, *(pytest.param(each, marks=pytest.mark.nightly) for each in (0.0, 0.05, 0.2, 0.4, 0.8))]
)
def test_a_server_that_is_killed_while_it_submits_leaves_one_job(far: SlurmHouse, pause_s: float) -> None:
    """At several moments of a launch and of a down: afterwards there is one job for the cluster, or none."""
    name = far.name("k")
    child = far.spawn("launch", "-y", "-d", "-c", name, "--infra", "slurm/far/low", "--", "sleep 600")
    far.wait("the claim is ordered", partial(far.cluster, name))
    far.slurm.run("sleep", str(pause_s))
    far.kill_server()
    child.wait(60)
    far.run("status")
    far.wait_job(name, 1, "running")
    assert len(far.slurm.jobs()) == 1
    far.run("down", "-y", name)
    far.slurm.run("sleep", str(pause_s / 4))
    pid = far.server_pid()
    os.kill(pid, signal.SIGKILL)
    far.wait("it is gone", lambda: far.run("status", ok=False).returncode == 0)
    far.wait("nothing is left", lambda: not far.slurm.jobs())
    far.wait("nobody waits for it", lambda each=name: far.cluster(each) is None)


@pytest.mark.nightly
def test_what_nothing_wants_is_given_back_and_others_jobs_are_left_alone(far: SlurmHouse) -> None:
    name = far.name("o")
    far.run("launch", "-y", "-d", "-c", name, "--infra", "slurm/far/low", "--", "sleep 600")
    far.wait_job(name, 1, "running")
    (number,) = far.slurm.jobs().values()
    tag = far.slurm.run("squeue", "-h", "-j", number, "-o", "%k").strip()
    lost, theirs = "clm-0000000000000000000lost", "clm-00000000000000000theirs"
    for claim, comment in ((lost, tag), (theirs, "argosy:sto-of-somebody-else")):
        words = (f"--job-name={claim}", f"--comment={comment}", "--mem=10", "-o/dev/null")
        far.slurm.run("sbatch", *words, "--wrap", "sleep 600")
    far.wait("the lost one is released", lambda: lost not in far.slurm.jobs())
    assert theirs in far.slurm.jobs()
    assert f"slurm has {lost}, which nothing wants: releasing it" in far.server_log()
    far.run("down", "-y", name)
    far.slurm.run("scancel", f"--name={theirs}")
    far.wait("all is over", lambda: not far.slurm.jobs())


def test_native_mode_runs_commands_as_batch_jobs(far: SlurmHouse) -> None:
    task = far.file(
        "native.yaml",
        "resources: {infra: slurm/far/low, accelerators: 'H100:2', cpus: 2, memory: 0.2}\n"
        "config: {slurm: {native: true}}\n"
        "run: echo devices $CUDA_VISIBLE_DEVICES in $SLURM_JOB_NAME\n",
    )
    said = far.run("launch", "-y", "-c", "plain", task).stdout
    assert re.search(r"devices \d,\d in clm-\w+:att-\w+", said), said
    failed = far.run("exec", "plain", "--", "exit 5", ok=False)
    assert "the program exited with code 5" in failed.stderr
    far.run("exec", "-d", "plain", "--", "sleep 600")
    far.wait_job("plain", 3, "running")
    far.run("cancel", "-y", "plain", "3")
    far.wait_job("plain", 3, "cancelled")
    far.wait("its job is over", lambda: not far.slurm.jobs())
    far.run("down", "-y", "plain")
    far.wait("the note is gone", lambda: not list(far.slurm.home.glob(".argosy/slurm/native/*")))


@pytest.mark.nightly
def test_an_array_in_native_mode_is_one_job_array(far: SlurmHouse) -> None:
    """Slurm itself keeps to `--parallel`; logs, ends, cancel and retry are those of each task."""
    mark = far.root / "good"
    task = far.file(
        "array.yaml",
        "resources: {infra: slurm/far/low, cpus: 1, memory: 0.1}\nconfig: {slurm: {native: true}}\n"
        "run: |\n  echo task $ARGOSY_ARRAY_INDEX is $SLURM_ARRAY_TASK_ID of $SLURM_ARRAY_TASK_COUNT\n"
        f"  [ $ARGOSY_ARRAY_INDEX -lt 2 ] && exit 0\n  [ -e {mark} ] && exit 0\n"
        "  [ $ARGOSY_ARRAY_INDEX = 2 ] && exit 7\n  sleep 600\n",
    )
    words = ("-y", "-d", "-n", "sweep", "--num-jobs", "5", "--parallel", "2", task)
    far.run("jobs", "launch", *words)
    number = far.json("jobs", "queue")["jobs"][0]["number"]

    def statuses() -> list[str]:
        return [each["status"] for each in far.json("jobs", "queue", "--tasks", str(number))["tasks"]]

    far.wait("two run, one waits", lambda: statuses() == ["succeeded"] * 2 + ["failed", "running", "running"])
    listed = far.slurm.run("squeue", "-h", "-r", "--states=all", "-o", "%j %F %K").splitlines()
    tasks = [line.split() for line in listed if line.startswith("grp-")]
    assert {each[1] for each in tasks} == {tasks[0][1]}, "one job array"
    assert sorted(each[2] for each in tasks) == list("01234")
    assert "task 1 is 1 of 5" in far.run("jobs", "logs", f"{number}/1").stdout
    far.run("jobs", "cancel", "-y", f"{number}/3")
    far.wait("one is left", lambda: far.slurm.run("squeue", "-h", "-r", "-o", "%K").split() == ["4"])
    mark.touch()
    far.run("jobs", "retry", f"{number}/2")
    far.wait("the second try", lambda: statuses() == ["succeeded"] * 3 + ["cancelled", "running"])
    far.run("jobs", "cancel", "-y", str(number))
    far.wait("nothing is left", lambda: not far.slurm.jobs())
    far.wait("the notes are gone", lambda: not list(far.slurm.home.glob(".argosy/slurm/native/clm-*")))


@pytest.mark.nightly
@pytest.mark.parametrize("pause_s", [0.0, 0.3, 0.8, 1.3, 2.0])
def test_a_server_that_is_killed_while_it_submits_an_array_runs_each_task_once(
    far: SlurmHouse, pause_s: float
) -> None:
    ledger = far.root / far.name("ledger")
    task = far.file(
        "once.yaml",
        "resources: {infra: slurm/far/low, cpus: 1, memory: 0.1}\nconfig: {slurm: {native: true}}\n"
        f"run: echo $ARGOSY_ARRAY_INDEX >>{ledger}\n",
    )
    far.run("jobs", "launch", "-y", "-d", "--num-jobs", "6", task)
    far.slurm.run("sleep", str(pause_s))
    far.kill_server()
    far.wait("all have ended", lambda: all(job["phase"] == "finished" for job in far.jobs()))
    assert far.jobs()[0]["status"] == "succeeded"
    assert sorted(ledger.read_text().split()) == list("012345")


def test_what_slurm_refuses_is_told_with_its_words(far: SlurmHouse) -> None:
    config = far.file(
        "wrong.yaml",
        "resources: {infra: slurm/far/low}\nconfig: {slurm: {constraint: nofeature}}\nrun: 'true'\n",
    )
    said = far.run("launch", "-y", "-c", "wrong", config, ok=False)
    assert "Slurm: Invalid feature specification" in said.stdout + said.stderr
    said = far.run("launch", "-y", "--infra", "slurm/far/low", "--num-nodes", "3", "--", "true", ok=False)
    assert "has 1 node at present, asked for 3" in said.stdout + said.stderr
    assert not far.slurm.jobs()

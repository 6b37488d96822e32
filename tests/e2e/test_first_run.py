"""From nothing to a finished job, by the commands that people type."""

from __future__ import annotations

import json
import os
import subprocess
from pathlib import Path

import pytest
from e2e_house import PATIENCE_S, House, read_until

EXAMPLES = Path(__file__).resolve().parents[2] / "examples"


def test_the_first_command_starts_the_server(fresh_house: House) -> None:
    done = fresh_house.run("status")
    assert "Traceback" not in done.stderr
    pid = fresh_house.server_pid()
    found = fresh_house.json("server", "status")["health"]["pid"]
    assert found == pid, "the next command finds it again"
    assert oct(fresh_house.state.stat().st_mode & 0o777) == "0o700", "the state folder is its owner's only"


def test_launch_streams_and_ends_with_the_jobs_status(house: House) -> None:
    name = house.name()
    done = house.run("launch", "-y", "-c", name, EXAMPLES / "hello" / "hello.yaml")
    assert "Hello from rank 0 of 1." in done.stdout
    assert house.job(name, 1)["status"] == "succeeded"
    cluster = house.cluster(name)
    assert cluster is not None
    assert cluster["status"] == "running"
    assert cluster["num_nodes"] == 1
    failed = house.run("exec", name, "--", "sh", "-c", "echo before; exit 3", ok=False)
    assert failed.returncode != 0
    assert "before" in failed.stdout
    job = house.job(name, 2)
    assert (job["status"], job["reason"], job["exit_codes"]) == ("failed", "user-code-failed", [3])


def test_logs_are_still_there_after_down(house: House) -> None:
    name = house.name()
    house.run("launch", "-y", "-c", name, "--", "echo", "kept for ever")
    house.run("down", "-y", name)
    house.wait("the cluster is gone", lambda: house.cluster(name) is None)
    assert "kept for ever" in house.log(name, "1")


def test_dryrun_changes_nothing(house: House) -> None:
    name = house.name()
    house.wait(
        "clusters of other tests come and go no more",
        lambda: not any(each["status"] in ("starting", "stopping") for each in house.clusters()),
    )
    before = len(house.json("status")["clusters"])
    done = house.run("launch", "--dryrun", "-c", name, "--cpus", "1+", "--", "true")
    assert "local" in done.stdout
    assert len(house.json("status")["clusters"]) == before


def test_what_cannot_be_had_says_what_there_is(house: House) -> None:
    done = house.run("launch", "-y", "-c", house.name(), "--cpus", "4000", "--", "true", ok=False)
    assert done.returncode == 3
    assert "hint:" in done.stderr
    assert "local" in done.stderr
    assert "Traceback" not in done.stderr


def test_an_unknown_field_names_its_place(house: House) -> None:
    path = house.file("bad.yaml", "name: x\nresources:\n  acelerators: A100\nrun: true\n")
    done = house.run("launch", "-y", path, ok=False)
    assert done.returncode == 2
    assert "bad.yaml:3:3" in done.stderr
    assert "did you mean `accelerators`" in done.stderr


def test_an_unknown_cluster_is_not_found(house: House) -> None:
    done = house.run("exec", "no-such-cluster", "--", "true", ok=False)
    assert done.returncode == 4
    assert "no-such-cluster" in done.stderr
    assert "hint:" in done.stderr


def test_detached_jobs_are_watched_later(house: House) -> None:
    name = house.name()
    house.run("launch", "-y", "-d", "-c", name, "--", "sh", "-c", "echo one; sleep 0.3; echo two")
    text = house.log(name, "1")
    assert text.index("one") < text.index("two"), "logs follows until the job ends"


def test_ctrl_c_only_stops_watching(house: House) -> None:
    name = house.name()
    flag = house.root / "go-on"
    child = house.spawn(
        "launch",
        "-y",
        "-c",
        name,
        "--",
        "sh",
        "-c",
        f"echo star''ted; while [ ! -e {flag} ]; do sleep 0.05; done; echo en''ded",
    )
    try:
        read_until(child, "started")
        os.killpg(child.pid, 2)
        rest, _ = child.communicate(timeout=PATIENCE_S)
    finally:
        child.kill()
    assert b"argosy logs" in rest, "it says how to come back"
    assert b"Traceback" not in rest
    assert house.job(name, 1)["status"] == "running"
    flag.touch()
    house.wait_job(name, 1, "succeeded")
    assert "ended" in house.log(name, "1")


def test_piped_output_is_for_machines(house: House) -> None:
    """No colours, no cursor movements; JSON is one value and nothing else."""
    name = house.name()
    done = house.run("launch", "-y", "-c", name, "--", "echo", "plain", env={"NO_COLOR": ""})
    assert "\x1b" not in done.stdout + done.stderr
    assert "\r" not in done.stdout
    for words in (
        ("status",),
        ("queue", name),
        ("jobs", "queue"),
        ("cost-report",),
        ("check",),
        ("server", "status"),
    ):
        json.loads(house.run(*words, "--json").stdout)


def test_ssh_runs_a_command_on_the_node(house: House) -> None:
    name = house.name()
    house.run("launch", "-y", "-c", name, "--", "sh", "-c", "echo here > ~/mark")
    done = house.run("ssh", name, "--", "cat ~/mark")
    assert "here" in done.stdout


def test_skypilot_spellings_work(house: House) -> None:
    name = house.name()
    done = house.run(
        "launch",
        "-y",
        "--cluster-name",
        name,
        "--num-nodes",
        "1",
        "echo $SKYPILOT_NODE_RANK of $SKYPILOT_NUM_NODES",
    )
    assert "0 of 1" in done.stdout
    assert house.run("show-gpus").returncode == 0


@pytest.mark.slow
def test_digits_trains_a_real_model(house: House) -> None:
    pytest.importorskip("sklearn", reason="scikit-learn is not installed (`.[dev]`)")
    name = house.name()
    done = house.run("launch", "-y", "-c", name, "--env", "EPOCHS=12", EXAMPLES / "digits" / "train.yaml")
    assert "epoch  12/12" in done.stdout
    assert "accuracy 0.9" in done.stdout
    shown = house.run("exec", name, "--", "cat", "result.json").stdout
    assert '"accuracy": 0.9' in shown


@pytest.mark.slow
def test_the_demo_is_what_make_runs() -> None:
    """`make -n demo` in a clone: a private environment, then the launch of the example; no other command."""
    done = subprocess.run(
        ["make", "--dry-run", "demo", "VENV=/tmp/argosy-no-such-environment"],
        cwd=EXAMPLES.parent,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert "examples/digits/train.yaml" in done.stdout
    assert "-m venv" in done.stdout


def test_a_long_setup_is_told(house: House) -> None:
    go = house.root / "setup-may-end"
    task = house.file("setup.yaml", f"setup: until [ -e {go} ]; do sleep 0.05; done\nrun: echo ran\n")
    child = house.spawn("launch", "-y", "-c", house.name(), task)
    try:
        read_until(child, "setup runs")
        go.touch()
        rest, _ = child.communicate(timeout=PATIENCE_S)
    finally:
        child.kill()
    assert b"ran" in rest

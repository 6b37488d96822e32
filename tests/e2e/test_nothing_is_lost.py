"""Killed servers, killed nodes, stopped clusters: work goes on, logs are whole, nothing runs twice."""

from __future__ import annotations

import os
import re
import signal
from pathlib import Path

from e2e_house import House

EXAMPLES = Path(__file__).resolve().parents[2] / "examples"


def test_killing_the_server_loses_nothing(fresh_house: House) -> None:
    house = fresh_house
    house.run("launch", "-y", "-c", "box", "--", "true")
    count = house.file("count.yaml", "run: for i in $(seq 1 40); do echo line $i.; sleep 0.1; done\n")
    cpus = len(os.sched_getaffinity(0))
    after = house.file("after.yaml", f"resources:\n  cpus: {cpus}\nrun: echo queued one ran\n")
    go = house.root / "go"
    wait = f"until [ -e {go} ]; do sleep 0.05; done"
    hold = house.file("hold.yaml", f"resources:\n  cpus: {cpus}\nrun: {wait}\n")
    house.run("exec", "-d", "box", count)
    house.run("exec", "-d", "box", hold)
    house.run("exec", "-d", "box", after)
    house.wait("it counts", lambda: "line 1." in house.log("box", "2", "--no-follow"))
    house.wait_job("box", 3, "running")
    for _ in range(2):
        house.kill_server()
        house.run("status")
    go.touch()
    for number in (2, 3, 4):
        house.wait_job("box", number, "succeeded")
    lines = re.findall(r"line (\d+)\.", house.log("box", "2"))
    assert lines == [str(i) for i in range(1, 41)], "each line once, in order"
    assert "queued one ran" in house.log("box", "4")


def test_a_rank_that_ends_while_no_server_runs_is_recorded(fresh_house: House) -> None:
    house = fresh_house
    go = house.root / "go"
    program = f"until [ -e {go} ]; do sleep 0.05; done; echo ended alone; touch {house.root}/ended; exit 5"
    house.run("launch", "-y", "-d", "-c", "box", "--", program)
    house.wait_job("box", 1, "running")
    house.kill_server()
    go.touch()
    house.wait("the rank ends", (house.root / "ended").exists)
    house.run("status")
    job = house.wait_job("box", 1, "failed")
    assert job["exit_codes"] == [5]
    assert "ended alone" in house.log("box", "1")


def test_an_orderly_stop_of_the_server_leaves_ranks_alone(fresh_house: House) -> None:
    house = fresh_house
    go = house.root / "go"
    house.run(
        "launch", "-y", "-d", "-c", "box", "--", f"while [ ! -e {go} ]; do sleep 0.05; done; echo went on"
    )
    house.wait_job("box", 1, "running")
    house.run("server", "stop")
    go.touch()
    house.run("status")
    house.wait_job("box", 1, "succeeded")
    assert "went on" in house.log("box", "1")


def test_a_stop_with_all_says_what_still_runs_and_ends_it(fresh_house: House) -> None:
    house = fresh_house
    house.run("launch", "-y", "-d", "-c", "box", "--cpus", "0.5", "--", "sleep 601")
    house.run("jobs", "launch", "-y", "-d", "--cpus", "0.1", "--", "sleep 601")
    house.wait_job("box", 1, "running")
    house.wait_job(None, 1, "running")
    said = house.run("server", "stop", "--all", "-y").stdout.splitlines()
    assert said[:2] == ["1 cluster: box", "1 managed job: 1"]
    house.wait("nothing of it is left", lambda: not house.processes("sleep\x00601"))
    house.wait("nor an agent", lambda: not house.processes(".pyz"))


def test_stop_keeps_files_and_start_brings_them_back(house: House) -> None:
    name = house.name()
    house.run("launch", "-y", "-c", name, "--", "echo kept > ~/file")
    house.run("stop", "-y", name)
    house.wait("it rests", lambda: (house.cluster(name) or {}).get("status") == "stopped")
    house.run("exec", "-d", name, "--", "echo ran after the rest")
    assert f"argosy start {name}" in house.wait(
        "a job that waits says for what", lambda: house.job(name, 2)["detail"]
    )
    house.run("start", "-y", name)
    house.wait("it is back", lambda: (house.cluster(name) or {}).get("status") == "running")
    house.wait_job(name, 2, "succeeded")
    assert "kept" in house.run("exec", name, "--", "cat ~/file").stdout


def test_down_leaves_no_process_and_no_folder(fresh_house: House) -> None:
    house = fresh_house
    house.run("launch", "-y", "-d", "-c", "box", "--", "sleep 600")
    house.wait_job("box", 1, "running")
    house.wait("it runs", lambda: house.processes("sleep\x00600"))
    house.run("down", "-y", "box")
    house.wait("its processes are gone", lambda: not house.processes("sleep\x00600"))
    server = house.server_pid()
    house.wait("the agent is gone", lambda: [pid for pid in house.processes(".pyz") if pid != server] == [])


def test_a_managed_job_recovers_with_its_checkpoints(fresh_house: House) -> None:
    """The node is lost in the middle: every process of it is killed at once, agent first."""
    house = fresh_house
    house.run(
        "jobs",
        "launch",
        "-y",
        "-d",
        "--env",
        "STEPS=30",
        "--env",
        "STEP_S=0.1",
        EXAMPLES / "recover" / "recover.yaml",
    )
    house.wait_job(None, 1, "running")
    first = house.job(None, 1)

    house.wait("some steps are done", lambda: "step 5 of 30" in house.text_of(first))
    ranks = house.processes(f"ARGOSY_TASK_ID={first['task_id']}")
    agents = [pid for pid in house.processes(".pyz") if pid != house.server_pid()]
    assert ranks
    assert agents
    for pid in [*agents, *ranks]:
        try:
            os.kill(pid, signal.SIGKILL)
        except ProcessLookupError:
            continue
    job = house.wait_job(None, 1, "succeeded")
    assert job["recoveries"] >= 1
    assert job["task_id"] == first["task_id"]
    whole = house.run("jobs", "logs", "1", "--no-follow", ok=False).stdout
    starts = [int(step) for step in re.findall(r"starts at step (\d+)", whole)]
    assert starts[-1] >= 5, f"it went on from its checkpoint: {starts}"
    assert "done" in whole


def test_a_managed_job_retries_errors_as_told(house: House) -> None:
    task = house.file(
        "flaky.yaml",
        "name: flaky\nresources:\n  job_recovery: {max_restarts_on_errors: 2}\n"
        "run: |\n  n=$(cat $ARGOSY_CHECKPOINT_DIR/n 2>/dev/null || echo 0); echo $((n+1)) > "
        "$ARGOSY_CHECKPOINT_DIR/n\n"
        "  echo try $n; [ $n -ge 2 ]\n",
    )
    house.run("jobs", "launch", "-y", "-d", task)
    number = max(job["number"] for job in house.jobs(None))
    job = house.wait_job(None, number, "succeeded")
    assert job["errors"] == 2
    house.wait(
        "its node is released",
        lambda: not [j for j in house.jobs(None) if j["number"] == number and j["phase"] != "finished"],
    )


def test_max_duration_ends_a_job(house: House) -> None:
    name = house.name()
    task = house.file(f"{name}.yaml", "max_duration: 1s\nrun: sleep 600\n")
    house.run("launch", "-y", "-d", "-c", name, task)
    job = house.wait_job(name, 1, "failed")
    assert job["reason"] == "max-duration"

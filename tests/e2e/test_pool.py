"""Machines of our own that several people want: who makes room, who waits for what, and that nobody is
lost."""

from __future__ import annotations

import re
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
from e2e_house import House

STUB = Path(__file__).resolve().parents[1] / "agent" / "nvml_stub.c"
POLICY = "policy: {min_runtime: 0s}\n"


@pytest.fixture(scope="module")
def shared_house() -> Iterator[House]:
    """A house whose driver reports eight H100, where running jobs are not protected for long."""
    compiler = shutil.which("gcc") or shutil.which("cc")
    if compiler is None:
        pytest.skip("no C compiler: the pretend NVML of this test cannot be built")
    made = House()
    library = made.root / "libnvidia-ml.so.1"
    subprocess.run([compiler, "-O1", "-shared", "-fPIC", "-o", library, STUB], check=True)
    made.env["ARGOSY_NVML_LIBRARY"] = str(library)
    made.run("quota", "apply", "-y", made.file("policy.yaml", POLICY))
    yield made
    made.close()


def patient(house: House, name: str, gpus: str, gate: Path) -> Path:
    """A job that may be ended, counts how often it started in its checkpoint, and runs until `gate` is
    there."""
    return house.file(
        f"{name}.yaml",
        f"""name: {name}
resources: {{accelerators: "H100:{gpus}", cpus: 0.5, priority_class: opportunistic}}
scheduling: {{preemptible: true, checkpoint: true}}
run: |
  trap 'echo leaves; exit 0' TERM
  mkdir -p $ARGOSY_CHECKPOINT_DIR
  echo x >> $ARGOSY_CHECKPOINT_DIR/starts
  echo start $(wc -l < $ARGOSY_CHECKPOINT_DIR/starts) of $ARGOSY_TASK_ID
  while [ ! -e {gate} ]; do sleep 0.05; done
""",
    )


def urgent(house: House, name: str, gpus: str) -> Path:
    return house.file(
        f"{name}.yaml",
        f"""name: {name}
resources: {{accelerators: "H100:{gpus}", cpus: 0.5, priority_class: interactive}}
run: echo urgent has $CUDA_VISIBLE_DEVICES
""",
    )


def number_of(house: House, name: str) -> int:
    return max(job["number"] for job in house.jobs() if job["name"] == name)


def test_an_urgent_managed_job_is_made_room_for_and_who_left_goes_on(shared_house: House) -> None:
    house = shared_house
    gate = house.root / "gate-managed"
    house.run("jobs", "launch", "-y", "-d", patient(house, "patient", "8", gate))
    low = number_of(house, "patient")
    house.wait_job(None, low, "running")
    house.wait(
        "it says so", lambda: "start 1 of" in house.run("jobs", "logs", str(low), "--no-follow").stdout
    )
    house.run("jobs", "launch", "-y", "-d", urgent(house, "urgent", "8"))
    high = number_of(house, "urgent")
    house.wait_job(None, high, "succeeded")
    house.wait_job(None, low, "running")
    gate.touch()
    house.wait_job(None, low, "succeeded")
    log = house.run("jobs", "logs", str(low), ok=False).stdout
    ids = re.findall(r"start 2 of (\S+)", log)
    assert ids, log
    story = house.run("explain", str(low)).stdout
    assert "made room for" in story and "more urgent" in story, story
    events = house.run("events").stdout
    assert "made room for" in events


def test_a_killed_server_forgets_neither_side_of_an_eviction(shared_house: House) -> None:
    house = shared_house
    gate = house.root / "gate-killed"
    house.run("jobs", "launch", "-y", "-d", patient(house, "stays", "8", gate))
    low = number_of(house, "stays")
    house.wait_job(None, low, "running")
    house.run("jobs", "launch", "-y", "-d", urgent(house, "hurry", "4"))
    high = number_of(house, "hurry")
    house.kill_server()
    house.wait_job(None, high, "succeeded")
    gate.touch()
    house.wait_job(None, low, "succeeded")


def test_jobs_of_a_cluster_make_room_too(shared_house: House) -> None:
    house = shared_house
    name, gate = house.name("g"), house.root / "gate-cluster"
    house.run("launch", "-y", "-c", name, "--gpus", "H100:2", "--", "true")
    house.run("exec", "-d", name, patient(house, "inner", "1.0", gate))
    house.run("exec", "-d", name, patient(house, "inner", "1", gate))
    for number in (2, 3):
        house.wait(
            "it has counted its start",
            lambda n=str(number): "start 1 of" in house.log(name, n, "--no-follow"),
        )
    house.run("exec", "-d", name, urgent(house, "quick", "1"))
    house.wait_job(name, 4, "succeeded")
    for number in (2, 3):
        house.wait_job(name, number, "running")
    gate.touch()
    for number in (2, 3):
        house.wait_job(name, number, "succeeded")
    starts = [len(re.findall(r"start (\d)", house.log(name, str(number)))) for number in (2, 3)]
    assert sum(starts) >= 3, "one of them started twice"
    house.run("down", "-y", name)


def test_a_limit_is_waited_for_and_told(shared_house: House) -> None:
    house = shared_house
    gate = house.root / "gate-limit"
    house.run("quota", "set", "default", "--limit", "gpus=2", "-y")
    for _ in range(2):
        house.run("jobs", "launch", "-y", "-d", patient(house, "limited", "2", gate))
    second = number_of(house, "limited")
    house.wait_job(None, second - 1, "running")
    waiting = house.wait_job(None, second, "queued")
    assert "queue default" in waiting["detail"].lower() and "over by 2" in waiting["detail"]
    assert "over by 2" in house.run("explain", str(second)).stdout
    house.run("quota", "set", "default", "--limit", "gpus=4", "-y")
    house.wait_job(None, second, "running")
    gate.touch()
    house.wait_job(None, second, "succeeded")


def test_what_can_never_fit_on_a_cluster_is_refused_with_the_nearest_node(shared_house: House) -> None:
    house = shared_house
    name = house.name("n")
    house.run("launch", "-y", "-c", name, "--gpus", "H100:1", "--", "true")
    task = house.file(f"{name}.yaml", "scheduling: {labels: {disk: nvme}}\nrun: 'true'\n")
    done = house.run("exec", name, task, ok=False)
    assert done.returncode != 0
    assert "never" in done.stderr and "node 0 comes nearest" in done.stderr, done.stderr
    house.run("down", "-y", name)

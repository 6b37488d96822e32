"""Jobs of one cluster: side by side as far as they fit, else in line with a reason; cancel, gangs,
devices."""

from __future__ import annotations

import os
import re
from pathlib import Path

import pytest
from e2e_house import House, is_alive

from argosy.testing.ports import free_port

EXAMPLES = Path(__file__).resolve().parents[2] / "examples"


def test_jobs_run_side_by_side(house: House) -> None:
    """Each waits for the other's file: one after the other they would never end."""
    name = house.name()
    house.run("launch", "-y", "-c", name, "--", "true")
    meet = house.root / name
    meet.mkdir()
    for mine, other in (("a", "b"), ("b", "a")):
        house.run(
            "exec",
            "-d",
            name,
            "--",
            f"touch {meet}/{mine}; while [ ! -e {meet}/{other} ]; do sleep 0.05; done",
        )
    house.wait_job(name, 2, "succeeded")
    house.wait_job(name, 3, "succeeded")


def test_what_does_not_fit_waits_in_line_and_says_for_what(house: House) -> None:
    name = house.name()
    cpus = len(os.sched_getaffinity(0))
    house.run("launch", "-y", "-c", name, "--", "true")
    gate = house.root / f"{name}-gate"
    hold = house.file(
        f"{name}-hold.yaml", f"resources:\n  cpus: {cpus}\nrun: while [ ! -e {gate} ]; do sleep 0.05; done\n"
    )
    for _ in range(2):
        house.run("exec", "-d", name, hold)
    house.wait_job(name, 2, "running")
    waiting = house.wait_job(name, 3, "queued")
    assert waiting["detail"] == f"waits for {cpus} CPUs: {cpus} of {cpus} in use by job 2"
    assert waiting["detail"] in house.run("queue", name).stdout
    gate.touch()
    house.wait_job(name, 3, "succeeded")
    first, second = house.job(name, 2), house.job(name, 3)
    assert second["started_ms"] >= first["started_ms"]


def test_cancel_gives_grace_and_reaches_the_whole_group(house: House) -> None:
    name = house.name()
    house.run("launch", "-y", "-c", name, "--", "true")
    child = house.root / f"{name}-child"
    house.run(
        "exec",
        "-d",
        name,
        "--",
        f"trap 'echo good''bye; exit 0' TERM; sh -c 'echo $$ > {child}; exec sleep 600' & while :; do "
        "sleep 0.05; done",
    )
    house.wait_job(name, 2, "running")
    house.wait("the child runs", child.exists)
    pid = int(house.wait("the child's id", child.read_text))
    house.run("cancel", "-y", name, "2")
    house.wait_job(name, 2, "cancelled")
    assert "goodbye" in house.log(name, "2")
    house.wait("the grandchild is gone", lambda: not is_alive(pid))


def test_a_queued_job_is_cancelled_before_it_starts(house: House) -> None:
    name = house.name()
    cpus = len(os.sched_getaffinity(0))
    house.run("launch", "-y", "-c", name, "--", "true")
    hold = house.file(f"{name}.yaml", f"resources:\n  cpus: {cpus}\nrun: sleep 600\n")
    for _ in range(2):
        house.run("exec", "-d", name, hold)
    house.wait_job(name, 2, "running")
    house.run("cancel", "-y", name, "3")
    job = house.wait_job(name, 3, "cancelled")
    assert job["started_ms"] == 0, "it never ran"
    house.run("cancel", "-y", name, "--all")
    house.wait_job(name, 2, "cancelled")


def test_a_gang_has_ranks_prefixes_and_homes_of_its_own(house: House) -> None:
    name = house.name()
    task = house.file(
        f"{name}.yaml",
        'num_nodes: 2\nrun: |\n  echo "rank $ARGOSY_NODE_RANK of $ARGOSY_NUM_NODES in $HOME"\n  echo "ips '
        '$(echo $ARGOSY_NODE_IPS | wc -w)"\n',
    )
    text = house.run("launch", "-y", "-c", name, task).stdout
    homes = set(re.findall(r"rank \d of 2 in (\S+)", text))
    assert len(homes) == 2, text
    assert len(re.findall(r"ips 2", text)) == 2
    assert re.search(r"rank=0\).*rank 0 of 2", text)
    assert re.search(r"rank=1\).*rank 1 of 2", text)
    only = house.run("logs", name, "1", "--rank", "1").stdout
    assert "rank 1 of 2" in only
    assert "rank 0 of 2" not in only


def test_the_first_failing_rank_ends_the_gang(house: House) -> None:
    name = house.name()
    task = house.file(
        f"{name}.yaml", "num_nodes: 2\nrun: |\n  [ $ARGOSY_NODE_RANK = 1 ] && exit 7\n  sleep 600\n"
    )
    done = house.run("launch", "-y", "-c", name, task, ok=False)
    assert done.returncode != 0
    job = house.job(name, 1)
    assert job["status"] == "failed"
    assert job["exit_codes"][1] == 7


def test_output_that_is_not_text_passes_unharmed(house: House) -> None:
    name = house.name()
    done = house.run("launch", "-y", "-c", name, "--", r"printf 'a\377b\n'; printf 'no newline at the end'")
    assert "a�b" in done.stdout
    assert "no newline at the end" in done.stdout


@pytest.mark.slow
def test_ddp_on_two_nodes(house: House) -> None:
    torch = pytest.importorskip("torch", reason="PyTorch is not installed (`make torch`)")
    port = free_port()
    name = house.name()
    done = house.run(
        "launch",
        "-y",
        "-c",
        name,
        "--env",
        f"MASTER_PORT={port}",
        "--env",
        "STEPS=20",
        "--env",  # programs do not see the environment that Argosy runs in, and PyTorch is there
        f"PYTHONPATH={Path(torch.__file__).parents[1]}",
        EXAMPLES / "ddp" / "ddp.yaml",
    )
    assert "gradients are equal on all 2 ranks" in done.stdout
    assert "final weights are equal on all 2 ranks" in done.stdout
    assert "rank 1 of 2 on node 1" in done.stdout


def test_setup_and_run_have_the_same_limits_and_print_nothing_of_their_own(house: House) -> None:
    name = house.name()
    task = house.file(
        f"{name}.yaml",
        "setup: grep -c argosy /proc/self/cgroup || true\nrun: grep -c argosy /proc/self/cgroup || true\n",
    )
    lines = house.run("launch", "-y", "-c", name, task).stdout.split()
    assert len(lines) == 2, lines
    assert lines[0] == lines[1]

"""What happens on a node: its agent dies and comes back, its devices are shared by fractions."""

from __future__ import annotations

import os
import re
import shutil
import signal
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
from e2e_house import House

STUB = Path(__file__).resolve().parents[1] / "agent" / "nvml_stub.c"


@pytest.fixture
def gpu_house() -> Iterator[House]:
    """A house whose driver reports eight H100."""
    compiler = shutil.which("gcc") or shutil.which("cc")
    if compiler is None:
        pytest.skip("no C compiler: the pretend NVML of this test cannot be built")
    made = House()
    library = made.root / "libnvidia-ml.so.1"
    subprocess.run([compiler, "-O1", "-shared", "-fPIC", "-o", library, STUB], check=True)
    made.env["ARGOSY_NVML_LIBRARY"] = str(library)
    yield made
    made.close()


def test_a_dead_agent_is_healed_and_its_job_goes_on(fresh_house: House) -> None:
    house = fresh_house
    go = house.root / "go"
    count = "for i in $(seq 1 20); do echo line $i; sleep 0.1; done"
    again = "for i in $(seq 21 40); do echo line $i; sleep 0.1; done"
    program = f"{count}; until [ -e {go} ]; do sleep 0.05; done; {again}"
    house.run("launch", "-y", "-d", "-c", "box", "--", program)
    house.wait_job("box", 1, "running")
    server = house.server_pid()
    agents = [pid for pid in house.processes(".pyz") if pid != server]
    for pid in agents:
        command = Path(f"/proc/{pid}/cmdline").read_bytes().split(b"\0")
        if b"serve" in command:
            os.kill(pid, signal.SIGKILL)
    go.touch()
    house.wait_job("box", 1, "succeeded")
    lines = re.findall(r"^line (\d+)$", house.log("box", "1"), re.MULTILINE)
    assert lines == [str(n) for n in range(1, 41)]
    house.wait("the node is ready", lambda: (house.cluster("box") or {}).get("status") == "running")


def test_fractions_share_devices_and_whole_ones_wait(gpu_house: House) -> None:
    house = gpu_house
    assert house.json("gpus")
    seen = house.run(
        "launch", "-y", "-c", "g", "--gpus", "H100:2", "--", "echo got $CUDA_VISIBLE_DEVICES"
    ).stdout
    assert len(seen.split("got ")[1].split(",")) == 2
    show = "echo mine $CUDA_VISIBLE_DEVICES; sleep 600"
    for share in ("0.5", "0.25", "1", "1"):
        house.run("exec", "-d", "--gpus", f"H100:{share}", "g", "--", show)
    for number in (2, 3, 4):
        house.wait_job("g", number, "running")
    waits = house.job("g", 5)["detail"]
    assert waits == "waits for 1 H100: 1.75 of 2 in use by job 2, job 3, job 4"
    devices = {
        number: house.wait(
            "it says", lambda n=number: re.findall(r"mine (\S+)", house.log("g", str(n), "--no-follow"))
        )
        for number in (2, 3, 4)
    }
    assert devices[2] == devices[3] != devices[4]
    house.run("cancel", "-y", "g", "4")
    house.wait_job("g", 5, "running")
    assert house.job("g", 4)["status"] == "cancelled"


def test_nodes_of_one_machine_have_devices_of_their_own(gpu_house: House) -> None:
    house = gpu_house
    out = house.run(
        "launch", "-y", "-c", "pair", "--num-nodes", "2", "--gpus", "H100:3", "--",
        "echo rank $ARGOSY_NODE_RANK has $CUDA_VISIBLE_DEVICES of $ARGOSY_NUM_GPUS_PER_NODE",
    ).stdout  # fmt: skip
    found = dict(re.findall(r"rank (\d) has (\S+) of 3", out))
    sets = [set(found[rank].split(",")) for rank in ("0", "1")]
    assert [len(each) for each in sets] == [3, 3]
    assert not sets[0] & sets[1]
    full = house.run("launch", "-y", "-d", "-c", "late", "--gpus", "H100:4", "--", "true")
    assert "waits for 4 H100: 6 of 8 in use by pair" in full.stderr + full.stdout
    house.run("down", "-y", "pair")
    house.wait_job("late", 1, "succeeded")
    none = house.run("launch", "-y", "--gpus", "H100:9", "--", "true", ok=False)
    assert none.returncode == 3
    assert "has 8 H100, asked for 9" in none.stderr

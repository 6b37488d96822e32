"""What a type checker says of a user's program: right calls pass, wrong ones do not."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

pytest.importorskip("mypy")

RIGHT = """
import asyncio

import argosy as sky
import argosy.jobs as jobs
from argosy import aio
from argosy.aio import launch
from argosy.aio.jobs import launch as launch_job


def main() -> int:
    task = sky.Task("t", run="echo hi").set_resources(sky.Resources(accelerators="A100:1"))
    number, handle = sky.launch(task, cluster_name="dev", idle_minutes_to_autostop=5)
    if number is None or handle.cluster_name is None:
        return 1
    names: list[str] = [cluster.name for cluster in sky.status(handle.cluster_name)]
    up: bool = sky.status()[0]["status"] == sky.ClusterStatus.UP
    code: int = sky.tail_logs("dev", number)
    price: int = sky.optimize(task).choices[0].price_micro_usd
    queued: str = jobs.queue(skip_finished=True)[0].name
    with sky.Client() as client:
        reply = client.plan(task.build(), prices=True)
        text: str = reply.offers[0].provider
    return code + price + len(names) + len(queued) + len(text) + up


async def later() -> None:
    task = sky.Task(run="x")
    launched = await launch(task, dryrun=True)
    print(launched.handle.plan, (await launch_job(task)).job_id, (await aio.status())[0].name)
    async with sky.AsyncClient() as client:
        print((await client.status(all=True)).clusters)


asyncio.run(later())
"""

WRONG = """
import argosy as sky
from argosy import aio

task = sky.Task(run="x")
sky.lunch(task)  # E: attr-defined
sky.launch(task, cluster="dev")  # E: call-arg
sky.launch("task.yaml")  # E: arg-type
number: str = sky.launch(task).job_id  # E: assignment
sky.status()[0].nam  # E: attr-defined
sky.jobs.cancel(jobs=[1])  # E: call-arg
sky.Client().queue(5)  # E: arg-type
sky.Client().explain_queue()  # E: call-arg
sky.optimize(task).stages  # E: attr-defined


async def main() -> None:
    aio.status()[0]  # E: index
    (await sky.AsyncClient().plan(task.build())).plans  # E: attr-defined
"""


def _check(tmp_path: Path, program: str) -> str:
    path = tmp_path / "program.py"
    path.write_text(program)
    command = [sys.executable, "-m", "mypy", "--strict", "--no-error-summary", "--hide-error-context"]
    # The shared cache makes this a matter of seconds.
    done = subprocess.run([*command, str(path)], capture_output=True, text=True, cwd=tmp_path, check=False)
    assert done.stderr == ""
    return done.stdout


def test_a_right_program_has_types(tmp_path: Path) -> None:
    assert _check(tmp_path, RIGHT) == ""


def test_a_wrong_program_is_told(tmp_path: Path) -> None:
    expected = {
        (number, line.rpartition("# E: ")[2])
        for number, line in enumerate(WRONG.splitlines(), 1)
        if "# E: " in line
    }
    found = set()
    for line in _check(tmp_path, WRONG).splitlines():
        where, _, text = line.partition(": error: ")
        if text:
            found.add((int(where.split(":")[1]), text.rpartition("[")[2].rstrip("]")))
    assert found == expected

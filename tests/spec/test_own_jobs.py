"""Jobs that an infrastructure takes as they are, in a task file."""

from __future__ import annotations

import msgspec
import pytest

from argosy.model.errors import ArgosyError, render_error
from argosy.model.task import Task
from argosy.spec import parse_task, render_task


def parsed(text: str) -> Task:
    return parse_task(text, source="task.yaml").tasks[0]


def refused(text: str) -> str:
    with pytest.raises(ArgosyError) as caught:
        parse_task(text, source="task.yaml")
    return render_error(caught.value)


def test_it_stands_for_run_config_and_place() -> None:
    task = parsed("ray:\n  entrypoint: python train.py\n  runtime_env: {pip: [torch]}\n")
    assert task.run == "python train.py"
    assert msgspec.json.decode(task.config) == {
        "ray": {"entrypoint": "python train.py", "runtime_env": {"pip": ["torch"]}}
    }
    (wish,) = task.resources
    assert (wish.infra.provider, wish.infra.region) == ("ray", None)
    assert wish.config == task.config
    assert task.extra == ""
    assert parsed(render_task(task)) == task


def test_a_place_that_is_named_holds() -> None:
    task = parsed("resources: {infra: ray/lab}\nconfig: {ray: {entrypoint: python x.py}}\n")
    assert (task.run, task.resources[0].infra.region) == ("python x.py", "lab")


def test_an_address_may_hold_slashes() -> None:
    task = parsed("resources: {infra: 'ray/https://ray.example:8265/lab'}\nrun: x\n")
    assert task.resources[0].infra.region == "https://ray.example:8265/lab"


def test_two_commands_are_refused() -> None:
    said = refused("run: other\nray: {entrypoint: python x.py}\n")
    assert "`ray.entrypoint` and `run` are both commands, and a task has one" in said


def test_a_job_without_a_command_is_refused() -> None:
    assert "`ray` has no `entrypoint`" in refused("run: x\nray: {runtime_env: {}}\n")
    assert "ray.entrypoint" in refused("ray: {entrypoint: [a, b]}\n")

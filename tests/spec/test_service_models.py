"""`service.models`: one file, several services behind one endpoint."""

from __future__ import annotations

import pytest

from argosy.model.errors import ArgosyError, render_error
from argosy.spec import parse_task, render_task

FILE = """
name: chat
service:
  readiness_probe: /health
  replicas: 3
  models:
    small: {weight: 90, envs: {MODEL: org/small}}
    org/Small-v2: {weight: 10, envs: {MODEL: org/small-v2}, replicas: 1, resources: {cpus: 2}}
envs: {MODEL: none, LEVEL: info}
resources: {cpus: 1, memory: 2}
run: serve $MODEL
"""


def test_each_model_is_a_task_of_its_own_with_its_share() -> None:
    small, second = parse_task(FILE).tasks
    assert (small.name, second.name) == ("chat-small", "chat-small-v2")
    assert small.envs == {"MODEL": "org/small", "LEVEL": "info"}
    for task, models, share, replicas in ((small, ("small",), 900, 3), (second, ("org/Small-v2",), 100, 1)):
        assert task.service is not None
        told = (task.service.endpoint, task.service.models, task.service.share_milli)
        assert told == ("chat", models, share)
        assert task.service.replicas.least == replicas and task.service.probe.path == "/health"
    assert second.resources[0].cpus is not None and second.resources[0].cpus.amount == 2000
    assert second.resources[0].memory == small.resources[0].memory
    assert parse_task(render_task(second)).tasks[0] == second


def test_without_weights_they_are_equal() -> None:
    tasks = parse_task("name: m\nrun: x\nservice: {models: {a: , b: , c: , d: }}").tasks
    assert [task.service and task.service.share_milli for task in tasks] == [250] * 4


@pytest.mark.parametrize(
    ("models", "said"),
    [
        ("{a: {weight: 80}, b: {weight: 10}}", "the weights of `models` sum to 90, not to 100"),
        ("{a: {wieght: 80}}", "unknown field `wieght` in `models.a`\nhint: did you mean `weight`?"),
        ("{a: {weight: many}}", "the weight of `a` is not a number from 0"),
        ("{a: 3}", "`models.a` is not a mapping"),
        ("{}", "`models` names none"),
    ],
)
def test_what_is_wrong_with_models_is_said_with_its_place(models: str, said: str) -> None:
    with pytest.raises(ArgosyError) as caught:
        parse_task(f"name: m\nrun: x\nservice:\n  models: {models}", source="m.yaml")
    assert said in render_error(caught.value) and "m.yaml:4:" in render_error(caught.value)

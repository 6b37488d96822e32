"""Task definitions of AWS ECS become services."""

from __future__ import annotations

import json

import pytest

from argosy.convert import convert
from argosy.model.errors import ArgosyError
from argosy.spec.parse import parse_task

SEED = """
{
'family': 'ai-inference-task',
'networkMode': 'awsvpc',
'requiresCompatibilities': ['FARGATE'],
'cpu': '4096',
'memory': '16384',
'containerDefinitions':
[
{
'name': 'inference-container',
'image': '123456789.dkr.ecr.us-east-1.amazonaws.com/my-model:latest',
'portMappings': [{ 'containerPort': 8080 }],
'environment': [{ 'name': 'MODEL_PATH', 'value': '/opt/ml/model' }],
},
],
}
"""
WHOLE = {
    "family": "digits",
    "cpu": "1 vCPU",
    "memory": "2 GB",
    "executionRoleArn": "arn:aws:iam::1:role/x",
    "ephemeralStorage": {"sizeInGiB": 40},
    "containerDefinitions": [
        {"name": "proxy", "image": "envoy", "essential": False},
        {
            "name": "app",
            "image": "repo/app:1",
            "entryPoint": ["python", "-m"],
            "command": ["serve", "--name", "a b"],
            "portMappings": [{"containerPort": 9000, "protocol": "tcp"}, {"containerPort": 9001}],
            "secrets": [{"name": "API_TOKEN", "valueFrom": "arn:aws:secretsmanager:1"}],
            "healthCheck": {"command": ["CMD-SHELL", "curl -f http://localhost:9000/healthz || exit 1"]},
            "resourceRequirements": [{"type": "GPU", "value": "1"}],
            "stopTimeout": 90,
            "logConfiguration": {"logDriver": "awslogs"},
        },
    ],
}


def test_the_task_definition_of_a_textbook_is_a_service() -> None:
    found = convert(SEED, source="task.json")
    (task,) = parse_task(found.yaml).tasks
    assert found.kind == "ecs" and task.name == "ai-inference-task"
    [wish] = task.resources
    assert wish.cpus is not None and wish.cpus.amount == 4000
    assert wish.memory is not None and wish.memory.amount == 16 << 30
    assert wish.image_id == "docker:123456789.dkr.ecr.us-east-1.amazonaws.com/my-model:latest"
    assert task.service is not None and task.service.port == 8080 and task.service.replicas.least == 1
    assert task.envs == {"MODEL_PATH": "/opt/ml/model"}
    assert any("the entry point of" in line for line in found.not_carried)
    assert any("the file says no path" in note for note in found.notes)


def test_a_whole_one_runs_as_it_is() -> None:
    found = convert(json.dumps({"taskDefinition": WHOLE}), source="task.json")
    assert found.secrets == ("API_TOKEN",)
    (task,) = parse_task(found.yaml, env={"API_TOKEN": "x"}).tasks
    assert task.service is not None and task.service.probe.path == "/healthz" and task.service.port == 9000
    assert task.run.strip() == "python -m serve --name 'a b'" and task.grace_s == 90
    [wish] = task.resources
    assert wish.disk_size_bytes == 40 << 30 and wish.accelerator is not None
    lost = "\n".join(found.not_carried)
    for said in ("proxy", "9001", "executionRoleArn", "logConfiguration"):
        assert said in lost


def test_without_a_port_it_is_a_task() -> None:
    text = json.dumps(
        {"family": "job", "containerDefinitions": [{"image": "a", "command": ["python", "x.py"]}]}
    )
    (task,) = parse_task(convert(text).yaml).tasks
    assert task.service is None and task.run.strip() == "python x.py"


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"cpu": "many"}, "`cpu` is no number of CPUs: `many`"),
        ({"memory": "lots"}, "`memory` is no amount of memory: `lots`"),
        ({"containerDefinitions": []}, "there is no container in `containerDefinitions`"),
    ],
)
def test_what_is_wrong_in_one(change: dict[str, object], said: str) -> None:
    with pytest.raises(ArgosyError) as raised:
        convert(json.dumps(WHOLE | change))
    assert said in str(raised.value.what)

"""Flags over YAML, names, and `K=V`."""

from __future__ import annotations

from typing import Any

import pytest

from argosy.model.errors import ArgosyError, render_error
from argosy.model.resources import Accelerator, LocalDisk
from argosy.model.task import GitSource, Task
from argosy.model.units import GIB, Bound
from argosy.spec import (
    Overrides,
    check_name,
    parse_assignments,
    parse_env_text,
    parse_task,
    task_from_mapping,
)

TEXT = """
name: x
workdir: .
resources:
  infra: aws/us-east-1
  accelerators: [A100:8, H100:8]
  cpus: 4+
run: echo
"""


def task_with(text: str = TEXT, **flags: Any) -> Task:  # Any: whatever the field of Overrides holds
    return parse_task(text, source="t.yaml", overrides=Overrides(**flags)).tasks[0]


def test_flags_win_over_yaml() -> None:
    task = task_with(
        name="y",
        num_nodes=3,
        workdir="/w",
        infra="local",
        gpus="l4:2",
        cpus="8",
        memory="16+",
        use_spot=False,
        disk_size="50",
        ports=("80", "90-91"),
        image_id="docker:x",
        instance_type="m",
        priority=5,
        local_disk="nvme:500+",
        max_hourly_cost=2.5,
        labels={"a": "b"},
        job_recovery="failover",
        max_duration="2h",
    )
    (resources,) = task.resources
    assert (task.name, task.num_nodes, task.workdir, task.ordered) == ("y", 3, "/w", False)
    assert task.max_duration_s == 7200
    assert (resources.infra.provider, resources.infra.region) == ("local", None)
    assert resources.accelerator == Accelerator(model="L4", milli=2000)
    assert (resources.cpus, resources.memory) == (Bound(8000, exact=True), Bound(16 * GIB))
    assert (resources.use_spot, resources.disk_size_bytes, resources.ports) == (
        False,
        50 * GIB,
        ("80", "90-91"),
    )
    assert (resources.image_id, resources.instance_type, resources.priority) == ("docker:x", "m", 5)
    assert (resources.max_hourly_micro_usd, resources.labels) == (2_500_000, (("a", "b"),))
    assert resources.node_disk == LocalDisk(kind="nvme", bound=Bound(500 * 10**9))
    assert resources.recovery.strategy == "FAILOVER"


def test_no_flags_change_nothing() -> None:
    assert task_with() == parse_task(TEXT).tasks[0]
    assert len(task_with().resources) == 2


def test_a_flag_counts_in_every_candidate() -> None:
    task = task_with(
        "resources: {any_of: [{cpus: 2}, {memory: 4}, {region: r}]}", cpus="1", cloud="gcp", region="s"
    )
    assert {one.cpus for one in task.resources} == {Bound(1000, exact=True)}
    assert {one.infra.provider for one in task.resources} == {"gcp"}
    assert len(task.resources) == 2  # two became equal


@pytest.mark.parametrize(
    ("flags", "said"),
    [
        (
            {"gpus": "AA100"},
            "--gpus: `accelerators`: there is no accelerator `AA100`\nhint: did you mean `A100`?",
        ),
        ({"num_nodes": 0}, "--num-nodes: `num_nodes` must be a whole number from 1, found the number `0`"),
        ({"cpus": "many"}, "--cpus: `cpus` must be a number (got many)"),
        ({"memory": "4 parsecs"}, "--memory: `memory`: `4 parsecs` is not a size"),
        ({"infra": "a/b/c/d"}, "--infra: `infra`: `a/b/c/d` is no place"),
        ({"name": "a b"}, "--name: `name`: `a b` cannot name a task"),
        ({"ports": ("x",)}, "--ports: `ports[0]`: x is not a valid port"),
        ({"workdir": ""}, "--workdir: `workdir`: the path is empty"),
        ({"git_ref": "main"}, "--git-ref: `--git-ref` needs `--git-url`"),
        ({"envs": {"SKYPILOT_X": "1"}}, "--env: `SKYPILOT_X` is set by Argosy itself"),
        ({"secrets": {"hunter2=": "1"}}, "--secret: a name that cannot be used"),
    ],
)
def test_errors_name_the_flag(flags: dict[str, Any], said: str) -> None:
    with pytest.raises(ArgosyError) as caught:
        task_with(**flags)
    assert render_error(caught.value).startswith(said)
    assert "hunter2" not in render_error(caught.value)


def test_a_name_of_digits_is_a_name() -> None:
    assert task_with(name="123").name == "123"


def test_a_repository_by_flag_replaces_the_folder() -> None:
    task = task_with(git_url="https://x/y.git", git_ref="v1")
    assert (task.workdir, task.workdir_git) == (None, GitSource(url="https://x/y.git", ref="v1"))


def test_the_name_of_several_tasks_is_the_name_of_the_whole() -> None:
    text = "name: a\nrun: x\n---\nname: b\nrun: y\n"
    parsed = parse_task(text, overrides=Overrides(name="all"))
    assert (parsed.name, [task.name for task in parsed.tasks]) == ("all", ["a", "b"])


def test_secrets_by_flag_and_never_in_repr() -> None:
    flags = Overrides(secrets={"T": "hunter2"}, envs={"A": "1"})
    task = parse_task("secrets: [T]\nenvs: {A: null}\nrun: x", overrides=flags).tasks[0]
    assert (task.secrets, task.envs) == ({"T": "hunter2"}, {"A": "1"})
    assert repr(flags) == "Overrides(envs={'A': '1'}, secrets={'T': '***'})"
    for shown in (repr(task), str(task), repr((task,)), repr(parse_task("secrets: {T: hunter2}"))):
        assert "hunter2" not in shown


def test_a_command_alone_is_a_task() -> None:
    parsed = task_from_mapping({"run": "echo hi"}, where="command line", overrides=Overrides(gpus="L4"))
    assert parsed.tasks[0].run == "echo hi"
    assert parsed.warnings == ()


@pytest.mark.parametrize("name", ["a", "my-cluster", "a.b_c-1", "0x", "a" * 63])
def test_names_that_may_be(name: str) -> None:
    assert check_name("cluster", name) == name


@pytest.mark.parametrize(
    ("kind", "name", "suggestion"),
    [
        ("cluster", "My Cluster!", "my-cluster"),
        ("cluster", "-x", "x"),
        ("cluster", "", "my-cluster"),
        ("cluster", "ä", "my-cluster"),
        ("cluster", "Train", "train"),
        ("cluster", "a/b", "a-b"),
        ("cluster", "a" * 64, "a" * 63),
        ("job", "a b", "a-b"),
        ("cluster", "a\nb", "a-b"),
    ],
)
def test_names_that_may_not_be(kind: str, name: str, suggestion: str) -> None:
    with pytest.raises(ArgosyError) as caught:
        check_name(kind, name)
    assert caught.value.code == "usage"
    assert caught.value.hint == f"for example `{suggestion}`"
    assert check_name(kind, suggestion)


def test_jobs_may_have_capitals() -> None:
    assert check_name("job", "Train_7") == "Train_7"


def test_assignments() -> None:
    given = parse_assignments(["A=1", "B", "C=x=y", "D="], flag="--env", environ={"B": "2"})
    assert given == {"A": "1", "B": "2", "C": "x=y", "D": ""}


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("hunter2 is no name", "number 1 is no `NAME=VALUE`"),
        ("1A=hunter2", "`1A` is no name of a variable"),
        ("MISSING", "`MISSING` is not set in your shell"),
        ("ARGOSY_X=hunter2", "`ARGOSY_X` is set by Argosy itself"),
    ],
)
def test_wrong_assignments_do_not_echo_values(text: str, said: str) -> None:
    with pytest.raises(ArgosyError) as caught:
        parse_assignments([text], flag="--secret", environ={})
    assert (caught.value.where, caught.value.what) == ("--secret", said)
    assert "hunter2" not in render_error(caught.value)


def test_env_files() -> None:
    text = """
    # a comment
    A=1
    export B = two words   # a comment
    C='single # quoted $x'
    D="double \\"quoted\\"\\n"  # a comment
    E=
    """
    assert parse_env_text(text, source=".env") == {
        "A": "1",
        "B": "two words",
        "C": "single # quoted $x",
        "D": 'double "quoted"\n',
        "E": "",
    }
    for wrong, where in (
        ("A=1\nhunter2", ".env:2:1"),
        ("1A=hunter2", ".env:1:1"),
        ("A='hunter2", ".env:1:1"),
    ):
        with pytest.raises(ArgosyError) as caught:
            parse_env_text(wrong, source=".env")
        assert caught.value.where == where
        assert "hunter2" not in render_error(caught.value)

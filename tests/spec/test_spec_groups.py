"""Files that describe several jobs: sweeps, chains, job groups, graphs."""

from __future__ import annotations

import pytest

from argosy.model.errors import ArgosyError
from argosy.model.group import Layout, When
from argosy.spec import parse_task


def layout(text: str) -> Layout:
    found = parse_task(text).layout
    assert found is not None
    return found


def refused(text: str) -> str:
    with pytest.raises(ArgosyError) as found:
        parse_task(text, source="t.yaml")
    error = found.value
    return f"{error.where}: {error} | {error.hint} | {'; '.join(error.details)}"


def test_a_matrix_is_every_combination() -> None:
    parsed = parse_task(
        """
name: tune
parallel: 2
fail_fast: true
matrix:
  LR: [0.1, 010]
  model: [small, large]
  exclude: [{LR: 0.1, model: large}]
  include: [{LR: 5, model: huge}, {model: small, extra: x}]
run: train --lr {{matrix.LR}}
"""
    )
    assert len(parsed.tasks) == 1 and parsed.layout is not None
    assert [each.values for each in parsed.layout.members] == [
        {"LR": "0.1", "model": "small", "extra": "x"},
        {"LR": "010", "model": "small", "extra": "x"},
        {"LR": "010", "model": "large"},
        {"LR": "5", "model": "huge"},
    ]
    assert (parsed.layout.parallel, parsed.layout.fail_fast) == (2, True)


def test_what_differs_beyond_commands_makes_tasks_of_its_own() -> None:
    parsed = parse_task(
        "name: 't-{{matrix.n}}'\nmatrix: {n: [1, 2]}\nnum_nodes: '{{matrix.n}}'\n"
        "envs: {N: '{{matrix.n}}'}\nrun: x"
    )
    assert [(task.name, task.num_nodes, task.envs) for task in parsed.tasks] == [
        ("t-1", 1, {"N": "1", "n": "1"}),
        ("t-2", 2, {"N": "2", "n": "2"}),
    ]
    assert parsed.layout is not None and [each.task for each in parsed.layout.members] == [0, 1]
    by_env = parse_task("matrix: {G: [1, 2]}\nenvs: {G: 0}\nresources: {cpus: '${G}'}\nrun: x")
    amounts = [task.resources[0].cpus for task in by_env.tasks]  # other fields read the variable
    assert [each.amount for each in amounts if each is not None] == [1000, 2000]


def test_a_large_matrix_is_one_task() -> None:
    values = ", ".join(map(str, range(100)))
    parsed = parse_task(f"matrix: {{A: [{values}], B: [{values}]}}\nrun: x {{{{matrix.A}}}}")
    assert len(parsed.tasks) == 1 and parsed.layout is not None and parsed.layout.size == 10_000


def test_documents_in_order_are_a_chain() -> None:
    found = layout("name: n\n---\nname: a\nrun: x\n---\nname: b\nrun: x\nwhen: always\n---\nname: c\nrun: x")
    assert [(each.name, each.after, each.when) for each in found.members] == [
        ("a", (), When.SUCCEEDED),
        ("b", (0,), When.ALWAYS),
        ("c", (1,), When.SUCCEEDED),
    ]


def test_after_makes_a_graph_over_all_jobs_of_a_sweep() -> None:
    found = layout(
        "name: a\nrun: x\n---\nname: b\nafter: a\nmatrix: {v: [1, 2]}\nrun: x\n---\n"
        "name: c\ndepends_on: [a, b]\nrun: x\n---\nname: d\nrun: x"
    )
    assert [each.after for each in found.members] == [(), (0,), (0,), (0, 1, 2), ()]
    assert [each.name for each in found.members] == ["a", "b-0", "b-1", "c", "d"]


def test_a_job_group_runs_at_once_and_ends_with_its_primary_tasks() -> None:
    found = layout(
        "name: g\nexecution: parallel\nprimary_tasks: [a]\ntermination_delay: {default: 5s, c: 1m}\n---\n"
        "name: a\nrun: x\n---\nname: b\nrun: x\n---\nname: c\nrun: x"
    )
    assert found.together and found.primary == (0,) and found.delays_s == (5, 5, 60)
    assert all(not each.after for each in found.members)


def test_one_task_is_no_group() -> None:
    parsed = parse_task("run: x\nparallel: 3\nfail_fast: true")
    assert parsed.layout is None and (parsed.parallel, parsed.fail_fast) == (3, True)


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("matrix: {A: [1]}\nrun: '{{matrix.B}}'", "t.yaml:2:6: `{{matrix.B}}` is no value of the matrix"),
        ("matrix: {LR: [1]}\nrun: '{{matrix.lr}}'", "did you mean `LR`?"),
        ("matrix: {A: []}\nrun: x", "`A` has no value"),
        ("matrix: {A: [{b: 1}]}\nrun: x", "`A` lists values, not mappings"),
        ("matrix: {A: [1], exclude: [1]}\nrun: x", "`exclude` lists mappings"),
        ("matrix: {A: [1], exclude: [{A: 1}]}\nrun: x", "the matrix has no combination"),
        ("matrix: {ARGOSY_X: [1]}\nrun: x", "ARGOSY_X"),
        ("name: a\nrun: x\nafter: [b]", "`after` names other tasks of this file, and there are none"),
        ("name: a\nrun: x\n---\nname: b\nafter: [aa]\nrun: x", "did you mean `a`?"),
        (
            "name: a\nrun: x\nafter: b\n---\nname: b\nafter: a\nrun: x",
            "tasks wait for each other: `a` -> `b` -> `a`",
        ),
        ("name: a\nrun: x\n---\nname: b\nwhen: later\nrun: x", "`when` must be one of"),
    ],
)
def test_what_is_wrong_is_told_with_its_place(text: str, told: str) -> None:
    assert told in refused(text)

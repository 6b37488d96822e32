"""How many nodes: a number, or a range for a gang that makes do with fewer."""

from __future__ import annotations

import pytest

from argosy.model.errors import ArgosyError
from argosy.spec import Overrides, parse_task, task_from_mapping
from argosy.spec.render import task_document


def test_a_range_is_an_elastic_gang_and_reads_back() -> None:
    task = parse_task("run: x\nnum_nodes: 2-8\n").tasks[0]
    assert (task.min_nodes, task.num_nodes) == (2, 8)
    assert task_document(task)["num_nodes"] == "2-8"
    fixed = task_from_mapping({"run": "x", "num_nodes": "2-8"}, overrides=Overrides(num_nodes=3)).tasks[0]
    assert (fixed.min_nodes, fixed.num_nodes) == (0, 3)
    assert task_document(fixed)["num_nodes"] == 3


@pytest.mark.parametrize(
    ("text", "what"),
    [
        ("8-2", "`8-2` is no range of nodes; write the smaller number first, as in `2-8`"),
        ("0-4", "`0-4` is no range of nodes; write the smaller number first, as in `2-8`"),
        ("many", "`many` is no number of nodes; write a number such as 4, or a range such as `2-8`"),
    ],
)
def test_what_is_no_range_is_said(text: str, what: str) -> None:
    with pytest.raises(ArgosyError) as caught:
        parse_task(f"run: x\nnum_nodes: {text}\n")
    assert f"{caught.value.what}; {caught.value.hint}" == f"`num_nodes`: {what}"


def test_a_deadline_needs_a_number() -> None:
    with pytest.raises(ArgosyError) as caught:
        parse_task("run: x\nnum_nodes: 2-8\ndeadline: 2h\n")
    assert "a task with a `deadline` has a fixed number of nodes" in caught.value.what


@pytest.mark.parametrize(
    ("resources", "asked", "nodes"),
    [
        ("{accelerators: tpu-v5p-32}", "1", (0, 4)),
        ("{accelerators: tpu-v5e-16}", "2-3", (8, 12)),
        ("{accelerators: tpu-v6e-8}", "2", (0, 2)),
        ("{any_of: [{accelerators: tpu-v5p-32}, {accelerators: tpu-v6e-16}]}", "1", (0, 4)),
        ("{any_of: [{accelerators: tpu-v5p-32}, {accelerators: A100}]}", "4", (0, 4)),
    ],
)
def test_of_slices_over_several_hosts_the_number_counts_slices(
    resources: str, asked: str, nodes: tuple[int, int]
) -> None:
    task = parse_task(f"run: x\nresources: {resources}\nnum_nodes: {asked}\n").tasks[0]
    assert (task.min_nodes, task.num_nodes) == nodes
    again = task_from_mapping(task_document(task)).tasks[0]
    assert (again.min_nodes, again.num_nodes) == nodes

"""Task files of other versions of SkyPilot, and files that are of another kind: what is told about them."""

from __future__ import annotations

import pytest

from argosy.model.errors import ArgosyError
from argosy.spec import parse_task


def test_a_list_of_mappings_is_as_a_list_or_a_mapping() -> None:
    text = "run: x\nresources:\n  accelerators:\n    - T4: 1\n    - {L4: 2, A10: 1}\n    - A100:4\n"
    (task,) = parse_task(text).tasks
    assert [one.render() for one in task.resources] == ["T4:1", "L4:2", "A10:1", "A100:4"]


def test_booleans_of_accelerators_arguments_need_no_quotes() -> None:
    text = "run: x\nresources: {accelerators: tpu-v2-8, accelerator_args: {tpu_vm: True}}\n"
    assert parse_task(text).warnings == ()


@pytest.mark.parametrize(
    ("text", "hint"),
    [
        ("service: {readiness_probe: /, https: {key: a, cert: b}}", "write `tls: "),
        ("resources: {termination_hook: {command: x}}", "write `hooks:` at the top"),
        ("resources: {job_recovery: {min_nodes: 2}}", "such as `num_nodes: 2-8`"),
        ("resources: {job_recovery: {strategy: DYNAMIC_NODE_SET}}", "leave the strategy out"),
        ("type: k8s-pvc", "`argosy volumes apply FILE`"),
        ("workerPoolSpecs: []", "`argosy convert FILE`"),
        ("apiVersion: v1", "`argosy convert FILE`"),
    ],
)
def test_what_to_write_instead_is_said(text: str, hint: str) -> None:
    with pytest.raises(ArgosyError) as error:
        parse_task(f"run: x\n{text}\n")
    assert hint in error.value.hint

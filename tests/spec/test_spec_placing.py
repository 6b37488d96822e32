"""Fields that say where and by when: residency, exclusions, deadlines, sizes of data."""

from __future__ import annotations

import pytest

from argosy.model.errors import ArgosyError, render_error
from argosy.model.resources import Exclusion
from argosy.model.task import DataSize, Task
from argosy.model.units import GIB
from argosy.spec import parse_task, render_task


def parsed(text: str) -> Task:
    return parse_task(text, source="task.yaml").tasks[0]


def refused(text: str) -> str:
    with pytest.raises(ArgosyError) as caught:
        parse_task(text, source="task.yaml")
    return render_error(caught.value)


def test_areas_and_exclusions_are_typed_and_written_back() -> None:
    text = """\
resources:
  regions: [eu, us-west-2]
  not:
  - gcp
  - {infra: aws, regions: [us-east-1, us-gov-*]}
  - {infra: aws, instance_type: p3.*}
  - {accelerators: T4}
run: "true"
"""
    task = parsed(text)
    (wish,) = task.resources
    assert wish.areas == ("eu", "us-west-2")
    assert wish.excluded == (
        Exclusion(area="gcp"),
        Exclusion(area="aws/us-east-1"),
        Exclusion(area="aws/us-gov-*"),
        Exclusion(area="aws", instance_type="p3.*"),
        Exclusion(accelerator="T4"),
    )
    assert task.not_executed == ()
    assert parsed(render_task(task)) == task


def test_a_machine_in_one_region_is_not_an_exclusion() -> None:
    assert refused("resources:\n  not: {infra: aws/us-east-1, accelerators: T4}\nrun: x\n") == (
        "task.yaml:2:8: an entry of `not` names a machine and a region\n"
        "hint: write two entries, or name the infrastructure only: `{infra: aws, accelerators: T4}`"
    )


@pytest.mark.parametrize(
    ("written", "after_s", "at_ms"),
    [
        ("36h", 129_600, None),
        ("1h30m", 5400, None),
        ("2030-01-31 18:00", None, 1_896_112_800_000),
        ("2030-01-31T18:00+09:00", None, 1_896_080_400_000),
        ("2030-01-31", None, 1_896_048_000_000),
    ],
)
def test_deadlines(written: str, after_s: int | None, at_ms: int | None) -> None:
    task = parsed(f"deadline: {written}\nestimated_hours: 1.5\nrun: x\n")
    assert (task.deadline_s, task.deadline_at_ms, task.estimated_s) == (after_s, at_ms, 5400)
    assert task.not_executed == ()
    assert parsed(render_task(task)) == task


@pytest.mark.parametrize(
    ("written", "error"),
    [
        ("soon", "`soon` is not a duration"),
        ("12", "`12` needs a unit"),
        ("2030-02-31", "`2030-02-31` is no time"),
        ("0h", "`0h` must be above 0"),
    ],
)  # fmt: skip
def test_deadlines_that_are_none(written: str, error: str) -> None:
    assert refused(f"deadline: {written}\nrun: x\n").splitlines()[0] == f"task.yaml:1:11: `deadline`: {error}"


@pytest.mark.parametrize(
    ("line", "error"),
    [
        ("estimated_hours: 0", "`estimated_hours`: `0` is no number of hours above 0"),
        ("estimated_hours: -1", "`estimated_hours`: `-1` is no number of hours above 0"),
        ("estimated_hours: nan", "`estimated_hours`: `nan` is no number of hours above 0"),
        ("estimated_hours: long", "`estimated_hours`: `long` is not a duration"),
        ("progress: 101%", "`progress`: `101%` is no part of a whole"),
        ("progress: half", "`progress`: `half` is no part of a whole"),
        ("objective: fame", "`objective` must be one of `cost`, `time`, `carbon`, found the text `fame`"),
    ],
)  # fmt: skip
def test_what_cannot_be_weighed_is_refused(line: str, error: str) -> None:
    place = "1:" + str(line.index(":") + 3)
    assert refused(f"{line}\nrun: x\n").splitlines()[0] == f"task.yaml:{place}: {error}"


def test_progress_and_objective_are_read_and_written() -> None:
    task = parsed("deadline: 12h\nestimated_hours: 90m\nprogress: 37.5%\nobjective: TIME\nrun: x\n")
    assert (task.estimated_s, task.progress_milli, task.objective) == (5400, 375, "time")
    assert parsed(render_task(task)) == task


def test_sizes_of_data() -> None:
    task = parsed("inputs: {s3://corpus: 120}\noutputs: {gs://out: 0.5}\nrun: x\n")
    assert task.inputs == (DataSize(url="s3://corpus", size_bytes=120 * GIB),)
    assert task.outputs == (DataSize(url="gs://out", size_bytes=GIB // 2),)

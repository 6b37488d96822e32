"""The job of one task of a group: its row, as it is made when its turn comes. Pure."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Final

import msgspec

from argosy.controllers.group.standing import Standings
from argosy.model.group import Member, Membership
from argosy.model.kinds.group import GroupSpec, group_spec
from argosy.model.kinds.job import JOB, JobSpec, JobStatus, task_id
from argosy.model.places import ARRAY_FIELDS
from argosy.model.rows import Workload
from argosy.model.task import Task

_PLACE: Final = re.compile(r"\{\{\s*matrix\.([A-Za-z_][A-Za-z0-9_-]*)\s*\}\}")


def member_name(group: Workload, index: int) -> str:
    """How the task is called: by its own name, else by that of the group."""
    spec = group_spec(group)
    member = spec.layout.member(index)
    return member.name or spec.tasks[member.task].name or group.name


def member_task(group: Workload, index: int) -> Task:
    """The program of one task, with the values of the sweep put in."""
    spec = group_spec(group)
    member = spec.layout.member(index)
    task = spec.tasks[member.task]
    if len(spec.tasks) == 1 and task.notify:
        task = msgspec.structs.replace(task, notify=())  # the group tells of all of them together
    if not member.values:
        return task
    values = member.values
    return msgspec.structs.replace(
        task,
        envs={name: fill(text, values) for name, text in task.envs.items()}
        | {name: value for name, value in values.items() if name.isidentifier()},
        run=fill(task.run, values),
        setup=fill(task.setup, values),
    )


def waits_in_place(spec: GroupSpec) -> bool:
    """Whether the jobs wait in the queue of the place that the task names, which takes them as one array and
    itself limits how many run at once."""
    if not _is_array(spec) or not spec.tasks[0].config:
        return False
    task = spec.tasks[0]
    names = {each.infra.provider for each in task.resources}
    if len(names) != 1 or not names <= ARRAY_FIELDS.keys():
        return False
    (name,) = names
    config = msgspec.json.decode(task.config).get(name)
    return isinstance(config, dict) and config.get(ARRAY_FIELDS[name or ""]) is True


def _is_array(spec: GroupSpec) -> bool:
    return len(spec.tasks) == 1 and spec.layout.size > 1 and not spec.layout.together and not spec.pool_id


def fill(text: str, values: Mapping[str, str]) -> str:
    """
    >>> fill("train --lr {{matrix.lr}} {{ matrix.x }}", {"lr": "0.1"})
    'train --lr 0.1 {{ matrix.x }}'
    """
    if "{{" not in text:
        return text
    return _PLACE.sub(lambda match: values.get(match[1], match[0]), text)


def make_member(
    group: Workload, index: int, job_id: str, standings: Standings, host_id: str | None = None
) -> Workload:
    """The row of the job. It counts as submitted when its group was. `host_id`: the worker that it runs on;
    None: it has nodes of its own."""
    spec = group_spec(group)
    member = spec.layout.member(index)
    keep = spec.confirmed[member.task] if spec.confirmed else None
    membership = Membership(
        group=group.number,
        size=spec.layout.size,
        envs=_envs(group, index, member, standings),
        program=member.task,
        together=spec.layout.together,
    )
    return Workload(
        id=job_id,
        kind=JOB.name,
        name=member_name(group, index),
        spec=JobSpec(
            task=member_task(group, index),
            managed=host_id is None,
            run_setup=host_id is None,
            confirmed=keep,
            member=membership,
        ),
        status=JobStatus(),
        user=group.user,
        project=group.project,
        queue=spec.queues[member.task] if spec.queues else group.queue,
        number=index,
        host_id=host_id,
        parent_id=group.id,
        created_ms=group.created_ms,
    )


def _envs(group: Workload, index: int, member: Member, standings: Standings) -> dict[str, str]:
    """What the program learns of its group."""
    layout = group_spec(group).layout
    shared = {"JOB_RANK": str(index), "NUM_JOBS": str(layout.size), "MANAGED_JOB_ID": str(group.number)}
    envs = {f"{prefix}_{name}": value for name, value in shared.items() for prefix in ("ARGOSY", "SKYPILOT")}
    envs |= {"ARGOSY_ARRAY_INDEX": str(index), "ARGOSY_GROUP_ID": group.id, "ARGOSY_GROUP_NAME": group.name}
    if _is_array(group_spec(group)):
        envs["ARGOSY_ARRAY_SIZE"] = str(layout.size)
    if layout.parallel and waits_in_place(group_spec(group)):
        envs["ARGOSY_ARRAY_PARALLEL"] = str(layout.parallel)
    if layout.together:
        envs["SKYPILOT_JOBGROUP_NAME"] = group.name
    before = [(each, standings.jobs[each]) for each in member.after if each in standings.jobs]
    if before:
        envs["ARGOSY_AFTER_TASK_IDS"] = "\n".join(task_id(job) for _, job in before)
    for each, job in before:
        label = re.sub(r"[^A-Z0-9]", "_", (layout.member(each).name or str(each)).upper())
        envs[f"ARGOSY_AFTER_{label}_TASK_ID"] = task_id(job)
        outcome = job.outcome.value if job.outcome is not None else ""
        envs[f"ARGOSY_AFTER_{label}_OUTCOME"] = outcome
    return envs

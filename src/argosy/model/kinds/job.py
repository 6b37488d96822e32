"""Jobs: a task that runs to its end, on the nodes of a cluster or, managed, on nodes of its own."""

from __future__ import annotations

from typing import Final

import msgspec

from argosy.model.apps import App, Isolation, Network
from argosy.model.group import Membership
from argosy.model.kinds.kind import Checkpoint, Gang, Kind, spec_of, status_of
from argosy.model.notify import Told
from argosy.model.offer import Confirmed
from argosy.model.rows import KindSpec, KindStatus, Workload
from argosy.model.task import Task


class Sitting(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """What a job that is the body of a session knows of it."""

    session: str  # id: the files of the session are kept under it, whichever job has them
    app: App
    isolation: Isolation = Isolation.SANDBOX
    network: Network = Network.DEFAULT
    image: str = ""  # of its container
    seed: str = ""  # a folder on the node with the files that its home begins with


class ReplicaOf(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """What a job that is a replica of a service is told of that. Its number is that of the replica."""

    service: str  # its name
    revision: int
    port: int  # on which its program is to listen
    written_port: int = 0  # on which it listens as it was written; 0: on `port`


class JobSpec(KindSpec, frozen=True, kw_only=True, omit_defaults=True, tag="job", tag_field="kind"):
    """A task that runs to its end. Bound to a cluster, or managed (owns its claims and recovers)."""

    task: Task
    managed: bool = False
    run_setup: bool = True  # `exec` skips setup
    confirmed: Confirmed | None = None  # what its launch was told to keep to
    member: Membership | None = None  # of a group; `number` is then its position there
    sitting: Sitting | None = None  # of a session: its app is what runs
    replica: ReplicaOf | None = None  # of a service; `number` is then that of the replica


class JobStatus(KindStatus, frozen=True, kw_only=True, omit_defaults=True, tag="job", tag_field="kind"):
    """How far a job is."""

    attempts: int = 0  # made so far
    attempt_id: str | None = None  # the present or last one
    errors: int = 0  # restarts spent on errors of the program
    recoveries: int = 0  # restarts after losses
    evictions: int = 0  # times that it made room for others
    kept_s: int = 0  # run time of ended attempts whose work was kept
    attained: int = 0  # milli-GPU x ms (without GPU: milli-CPU x ms) of its ended attempts
    checkpoint: Checkpoint | None = None  # the last copy
    older: tuple[Checkpoint, ...] = ()  # copies before that one, the newest first
    ran_in: tuple[str, ...] = ()  # provider, region and zone of the last attempt that ran
    size: int = 0  # nodes that it asks places for in this round, of an elastic gang; 0: all
    ran_on: str = ""  # the claim that an attempt ran on last: what it keeps lies there


#: The spec of a row that is a job.
job_spec: Final = spec_of(JobSpec)
#: The status of a row that is a job.
job_state: Final = status_of(JobStatus)


def job_task(row: Workload) -> Task:
    """The task of a row that is a job."""
    return job_spec(row).task


def task_id(row: Workload) -> str:
    """Stable across recoveries: the key for checkpoints and experiment trackers."""
    return f"argosy-{row.id}"


def job_label(row: Workload) -> str:
    """The number of a job; of one that belongs to a group, the group's number and its own: `7/3`. Of a
    replica the name of the service and its number: `chat/3`; of the body of a session, the session's name."""
    if job_spec(row).sitting is not None:
        return row.name
    member, replica = job_spec(row).member, job_spec(row).replica
    if replica is not None:
        return f"{replica.service}/{row.number}"
    return f"{member.group}/{row.number}" if member is not None else str(row.number)


def kept_as(row: Workload) -> str:
    """Under which id the files are kept that a job wants to find again."""
    sitting = job_spec(row).sitting
    return sitting.session if sitting is not None else row.id


def _title(row: Workload) -> str:
    if job_spec(row).sitting is not None:
        return f"session `{row.name}`"
    return f"{'job' if job_spec(row).replica is None else 'replica'} {job_label(row)}"


def _gangs(row: Workload) -> tuple[Gang, ...]:
    spec, status = job_spec(row), job_state(row)
    task = spec.task
    return (
        Gang(
            num_nodes=task.num_nodes,
            min_nodes=task.min_nodes,
            size=status.size,
            resources=task.resources,
            ordered=task.ordered,
            scheduling=task.scheduling,
            task=task,
            attained=status.attained,
            evictions=status.evictions,
            recoveries=status.recoveries,
            checkpoint=status.checkpoint,
            older=status.older,
            ran_on=status.ran_on,
            ran_in=status.ran_in,
            confirmed=spec.confirmed,
            config=task.config,
        ),
    )


def _told(row: Workload) -> Told:
    member = job_spec(row).member
    if member is None or row.parent_id is None:
        return Told(row.id, "0", job_task(row).notify)
    return Told(row.parent_id, str(member.program), job_task(row).notify)


JOB: Final = Kind(
    name="job",
    decided_by="argosy.controllers.job.decide",
    prefix="job",
    spec=JobSpec,
    status=JobStatus,
    gangs=_gangs,
    title=_title,
    label=job_label,
    runs=True,
    told=_told,
    numbered=True,
)

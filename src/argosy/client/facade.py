"""The calls that SkyPilot programs make, synchronous: each returns its answer, so `get` has nothing to wait
for.

They talk to the server that the environment names (see `argosy.api.location`), and start the local one when
needed.

    import argosy as sky

    task = sky.Task(run="echo hello")
    job_id, handle = sky.get(sky.launch(task, cluster_name="dev"))
    sky.tail_logs("dev", job_id)
    sky.down("dev")
"""

from __future__ import annotations

import os
import sys
import warnings
from collections.abc import Iterable, Sequence
from enum import StrEnum
from pathlib import Path
from typing import BinaryIO, Final, NamedTuple, TypeVar, overload

from argosy.api import types as t
from argosy.api.location import Location, locate
from argosy.api.sharing import ExplainReply, PoolView
from argosy.client import login
from argosy.client.client import Client
from argosy.client.tasks import Dag, Launchable, Task, model_of
from argosy.model.errors import ArgosyError
from argosy.model.offer import Offer, Plan
from argosy.model.resources import Autostop
from argosy.model.task import Task as ModelTask

T = TypeVar("T")
_LIVE: Final = frozenset({"queued", "starting", "running", "recovering", "stopping"})
_clients: Final[dict[Location, Client]] = {}


def current_client() -> Client:
    """The client of the server that the environment names now; kept, so that connections are reused."""
    location = locate(os.environ)
    client = _clients.get(location)
    if client is None:
        client = _clients.setdefault(location, Client(location))
    return client


class Handle(NamedTuple):
    """The cluster of a launch. `cluster_name` None: a managed job, which has nodes of its own."""

    cluster_name: str | None
    cluster_id: str | None = None
    created: bool = False
    plan: Plan | None = None


class Launched(NamedTuple):
    """What was launched: unpacks as `job_id, handle`. `job_id` is the job's number, None when nothing
    runs."""

    job_id: int | None
    handle: Handle
    # A tuple of two, so that programs written for SkyPilot can unpack it.

    @property
    def cluster(self) -> str | None:
        return self.handle.cluster_name


def get(result: T) -> T:
    """The result itself: calls return answers, not requests. Here for programs that wait for requests.

    >>> get(5)
    5
    """
    return result


def stream_and_get(result: T) -> T:
    """As `get`."""
    return result


def prepared(launchable: Launchable) -> ModelTask:
    """The task to send; its warnings become Python warnings."""
    task, said = model_of(launchable)
    for warning in said:
        warnings.warn(warning, stacklevel=3)
    return task


def user_name() -> str:
    return login.user_name(os.environ)


def idle_policy(idle_minutes: int | None, down: bool, wait_for: str | None = None) -> Autostop | None:
    """The policy of `idle_minutes`: negative means never, as in SkyPilot.

    >>> idle_policy(10, True)
    Autostop(idle_s=600, down=True, wait_for='jobs_and_ssh')
    """
    if idle_minutes is None:
        return None
    return Autostop(
        idle_s=None if idle_minutes < 0 else idle_minutes * 60, down=down, wait_for=wait_for or "jobs_and_ssh"
    )


def launched_of(reply: t.LaunchReply) -> Launched:
    for warning in reply.warnings:
        warnings.warn(warning, stacklevel=3)
    handle = Handle(reply.cluster, reply.cluster_id, reply.created, reply.plan)
    return Launched(reply.job.number if reply.job else None, handle)


def queued_of(reply: t.JobsReply, cluster_name: str | None) -> Launched:
    for warning in reply.warnings:
        warnings.warn(warning, stacklevel=3)
    return Launched(reply.jobs[0].number, Handle(cluster_name))


# Launching ----------------------------------------------------------------------------------------------------  # noqa: E501


def launch(
    task: Launchable,
    cluster_name: str | None = None,
    retry_until_up: bool = False,
    idle_minutes_to_autostop: int | None = None,
    dryrun: bool = False,
    down: bool = False,
    *,
    wait_for: str | None = None,
    no_setup: bool = False,
    fast: bool = False,
) -> Launched:
    """Make or reuse a cluster and run `task` on it; returns when it is queued.

    `dryrun` only plans: the plan is in `handle.plan`. `down` ends the cluster when its jobs are done, or when
    it was idle for `idle_minutes_to_autostop`. `retry_until_up` is always so. Errors: "no-offer",
    "workdir-missing", …

        job_id, handle = launch(Task(run="echo hi"), cluster_name="dev")
    """
    client = current_client()
    model = prepared(task)
    if dryrun:
        return Launched(None, Handle(cluster_name, plan=client.plan(model, managed=False).plan))
    model = client.send_files(model).task
    policy = idle_policy(idle_minutes_to_autostop, down, wait_for)
    return launched_of(
        client.launch(
            model,
            cluster=cluster_name,
            autostop=policy,
            down=down and policy is None,
            setup=not (no_setup or fast),
            user=user_name(),
        )
    )


def exec(task: Launchable, cluster_name: str, dryrun: bool = False, down: bool = False) -> Launched:
    """Queue `task` on an existing cluster, without setup. Errors: "not-found", "wrong-state".

    job_id, handle = exec(Task(run="nvidia-smi"), cluster_name="dev")
    """
    if down:
        raise ArgosyError(
            "unsupported", "`exec` cannot end the cluster", hint="use `autostop(NAME, 0, down=True)` after it"
        )
    client = current_client()
    model = prepared(task)
    if dryrun:
        return Launched(None, Handle(cluster_name, plan=client.plan(model, managed=False).plan))
    model = client.send_files(model, cluster=cluster_name).task
    return queued_of(client.exec(cluster_name, [model], user=user_name()), cluster_name)


class OptimizeTarget(StrEnum):
    """What `optimize` makes least."""

    COST = "cost"
    TIME = "time"
    CARBON = "carbon"


@overload
def optimize(task: Task | ModelTask, minimize: OptimizeTarget | str = "") -> Plan: ...
@overload
def optimize(task: Dag, minimize: OptimizeTarget | str = "") -> Plan | t.PipelineReply: ...
def optimize(task: Launchable, minimize: OptimizeTarget | str = "") -> Plan | t.PipelineReply:
    """Where a task would run, at what price, and why not elsewhere: also on clouds that cannot be launched on
    yet.

    A Dag with several tasks is planned as a whole, as by `estimate`. `minimize` is cost, time or (for one
    task) carbon; by default the `objective` of the task. Errors: "no-offer" for an accelerator or a place
    that does not exist, or a deadline that cannot be met.
    """
    objective = str(minimize)
    if isinstance(task, Dag):
        found = estimate(task, limit=1, objective=objective)
        return found.plan if isinstance(found, t.PlanReply) else found
    return estimate(task, limit=1, objective=objective).plan


@overload
def estimate(task: Task | ModelTask, *, limit: int = 20, objective: str = "") -> t.PlanReply: ...
@overload
def estimate(task: Dag, *, limit: int = 20, objective: str = "") -> t.PlanReply | t.PipelineReply: ...
def estimate(task: Launchable, *, limit: int = 20, objective: str = "") -> t.PlanReply | t.PipelineReply:
    """What a task would cost, best first: `offers` with prices per hour and, when the runtime is known, in
    total.

    A Dag with several tasks: the best places of all of them together, in `stages`, with the traffic between
    them, in `moves`. `objective` is cost, time or (for one task) carbon; by default that of the task. Errors:
    "no-offer" for what does not exist or a deadline that cannot be met.

        for offer in sky.estimate(task).offers:
            print(offer.provider, offer.instance_type, offer.hourly_micro_usd / 1e6)
    """
    if isinstance(task, Dag) and len(task) > 1:
        tasks = [prepared(one) for one in task.tasks]
        return current_client().plan_pipeline(tasks, edges=task.positions(), objective=objective or "cost")
    return current_client().plan(prepared(task), prices=True, limit=limit, distinct=True, objective=objective)


def validate(task: Launchable) -> None:
    """Raises "spec-invalid" when something is wrong with the task. Asks no server.

    >>> from argosy.client.tasks import Task
    >>> validate(Task(run="echo hi"))
    """
    model_of(task)


# Clusters -----------------------------------------------------------------------------------------------------  # noqa: E501


def status(
    cluster_names: Sequence[str] | str | None = None, refresh: bool = False, all: bool = False
) -> list[t.ClusterView]:
    """Clusters, by default all live ones. `refresh` asks the infrastructure first."""
    names = [cluster_names] if isinstance(cluster_names, str) else cluster_names
    reply = current_client().status(refresh=refresh, all=all)
    return [cluster for cluster in reply.clusters if names is None or cluster.name in names]


def start(cluster_name: str, idle_minutes_to_autostop: int | None = None, down: bool = False) -> t.Done:
    """Bring a cluster back from rest."""
    done = current_client().start(cluster_name)
    policy = idle_policy(idle_minutes_to_autostop, down)
    return done if policy is None else current_client().autostop(cluster_name, policy)


def stop(cluster_name: str) -> t.Done:
    """Let a cluster rest, keeping its disks."""
    return current_client().stop(cluster_name)


def down(cluster_name: str) -> t.Done:
    """End a cluster and its jobs."""
    return current_client().down(cluster_name)


def autostop(
    cluster_name: str, idle_minutes: int = 5, down: bool = False, *, wait_for: str | None = None
) -> t.Done:
    """Rest (or end, with `down`) after so many idle minutes; negative: never."""
    policy = idle_policy(idle_minutes, down, wait_for)
    return current_client().autostop(cluster_name, policy or Autostop())


# Jobs ---------------------------------------------------------------------------------------------------------  # noqa: E501


def queue(cluster_name: str, skip_finished: bool = False) -> list[t.JobView]:
    """Jobs of a cluster, newest first."""
    return all_jobs(current_client(), cluster_name, skip_finished)


def all_jobs(client: Client, cluster: str | None, live: bool = False) -> list[t.JobView]:
    """Every page of the queue."""
    jobs: list[t.JobView] = []
    after: str | None = None
    while True:
        page = client.queue(cluster, live=live, after=after)
        jobs += page.jobs
        after = page.next
        if after is None:
            return jobs


def cancel(cluster_name: str, all: bool = False, job_ids: Iterable[int] | int | None = None) -> t.Done:
    """Cancel jobs of a cluster: `all`, or by number; neither: the newest live one."""
    client = current_client()
    return client.cancel(cluster_name, chosen_jobs(cluster_name, all, job_ids, client), all=all)


def chosen_jobs(
    cluster: str | None, all: bool, job_ids: Iterable[int] | int | None, client: Client
) -> list[str]:
    if all:
        return []
    if job_ids is None:
        newest = client.queue(cluster, live=True, limit=1).jobs
        return [str(job.number) for job in newest]
    return [str(job_ids)] if isinstance(job_ids, int) else [str(one) for one in job_ids]


def job_status(cluster_name: str, job_ids: Sequence[int] | int | None = None) -> dict[int, str | None]:
    """Status by number: queued, running, succeeded, failed, cancelled, …; None for one that does not exist.

    Without numbers: of the newest job.
    """
    wanted = [job_ids] if isinstance(job_ids, int) else job_ids
    client = current_client()
    if wanted is None:
        return {job.number: job.status for job in client.queue(cluster_name, limit=1).jobs}
    known = {job.number: job.status for job in all_jobs(client, cluster_name)}
    return {number: known.get(number) for number in wanted}


def find_job(client: Client, cluster: str | None, number: int | None) -> t.JobView:
    """A job by number, or the newest. Errors: "not-found"."""
    jobs = client.queue(cluster, limit=1).jobs if number is None else all_jobs(client, cluster)
    for job in jobs:
        if number is None or job.number == number:
            return job
    place = f"on `{cluster}`" if cluster else "among managed jobs"
    raise ArgosyError("not-found", f"there is no job{'' if number is None else f' {number}'} {place}")


def explain(cluster_name: str | None = None, job_id: int | None = None) -> ExplainReply:
    """Why a job waits, when it probably starts and what would help; or why it is where it is, and its
    history.

    Without a cluster: of a managed job. Without a job: of the cluster, or of the newest managed job. Errors:
    "not-found".
    """
    client = current_client()
    if cluster_name is not None and job_id is None:
        return client.explain(client.cluster(cluster_name).id)
    return client.explain(find_job(client, cluster_name, job_id).id)


def pools() -> list[PoolView]:
    """Shared machines: who holds which part of them, who waits, the largest gangs that fit."""
    return list(current_client().pools().pools)


def tail_logs(
    cluster_name: str,
    job_id: int | None = None,
    follow: bool = True,
    tail: int = 0,
    output_stream: BinaryIO | None = None,
) -> int:
    """Print a job's log until it ends; 0 when it succeeded (or is not followed to its end), else 1.

    `output_stream` takes bytes; by default they go to standard output. `tail` 0: from the beginning.
    """
    client = current_client()
    return show_log(client, find_job(client, cluster_name, job_id), follow, tail, output_stream)


def show_log(client: Client, job: t.JobView, follow: bool, tail: int, output_stream: BinaryIO | None) -> int:
    from argosy.client.frames import Prefixer

    out = output_stream or sys.stdout.buffer
    prefixer = Prefixer(job.name or f"job-{job.number}") if job.num_nodes > 1 else None
    for piece in client.logs(job.id, follow=follow, tail=tail or None):
        if piece.data:
            out.write(prefixer.add(piece.frame.rank, piece.data) if prefixer else piece.data)
            out.flush()
        if piece.frame.end:
            if prefixer:
                out.write(prefixer.rest())
                out.flush()
            return exit_status(piece.frame.status)
    return 0


def exit_status(status: str) -> int:
    return 0 if status == "succeeded" or status in _LIVE or not status else 1


def download_logs(
    cluster_name: str, job_ids: Sequence[int] | None = None, local_dir: str | os.PathLike[str] = "argosy-logs"
) -> dict[str, str]:
    """Save logs as `local_dir/CLUSTER-NUMBER/rank-N.log`. Returns the folder of each job number."""
    from argosy.client.saving import save_logs

    client = current_client()
    jobs = (
        [find_job(client, cluster_name, None)]
        if job_ids is None
        else [find_job(client, cluster_name, number) for number in job_ids]
    )
    folders: dict[str, str] = {}
    for job in jobs:
        folder = Path(local_dir) / f"{cluster_name}-{job.number}"
        save_logs(client, job.id, folder)
        folders[str(job.number)] = str(folder)
    return folders


# The rest -----------------------------------------------------------------------------------------------------  # noqa: E501


def cost_report(days: int | None = None) -> list[t.CostView]:
    """What claims cost, of the last `days` or ever."""
    return list(current_client().costs(days).costs)


def check(infra_list: Sequence[str] | None = None) -> list[t.DiagnosticView]:
    """Which infrastructure works, and what to do about the rest."""
    findings = current_client().check().findings
    return [finding for finding in findings if infra_list is None or finding.provider in infra_list]


def list_accelerators(name_filter: str | None = None) -> list[Offer]:
    """Offers with accelerators, all or of one model."""
    return [offer for offer in current_client().offers(name_filter).offers if offer.shape.accelerator]


def events(
    subject: str | None = None, after: int | None = None, limit: int | None = None
) -> list[t.EventView]:
    """What happened, to everything or to one id or name."""
    return list(current_client().events(subject, after=after, limit=limit).events)


def api_info() -> t.Health:
    """Which server answers."""
    return current_client().health()

"""The calls that SkyPilot programs make, each written once, as a flow (see `flow`).

`argosy` has them blocking, `argosy.aio` as coroutines. Each returns its answer, so `get` has nothing to wait
for. They talk to the server that the environment names (see `argosy.api.location`), and start the local one
when needed.

    import argosy as sky

    task = sky.Task(run="echo hello")
    job_id, handle = sky.get(sky.launch(task, cluster_name="dev"))
    sky.tail_logs("dev", job_id)
    sky.down("dev")
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Sequence
from enum import StrEnum
from pathlib import Path
from typing import Final, NamedTuple, TypeVar, overload

from argosy.api.clusters import ClusterCalls
from argosy.api.costs import CostCalls, CostView
from argosy.api.endpoint import Done
from argosy.api.events import EventCalls, EventView
from argosy.api.groups import GroupCalls
from argosy.api.jobs import JobCalls, JobView
from argosy.api.launching import LaunchingCalls
from argosy.api.planning import PipelineReply, PlanningCalls, PlanReply
from argosy.api.pool import ExplainReply, PoolCalls, PoolView
from argosy.api.prices import DiagnosticView, PriceCalls
from argosy.api.server import Health, ServerCalls
from argosy.client import login
from argosy.client.dags import Dag
from argosy.client.flow import ReadLog
from argosy.client.printing import Out, Printer
from argosy.client.progress import is_filled_here, needs_files
from argosy.client.records import (
    ClusterRecord,
    JobRecord,
    JobStatus,
    LaunchedResources,
    as_cluster,
    as_job,
    job_state,
    launched_on,
)
from argosy.client.saving import save_logs
from argosy.client.shared import SharedClient
from argosy.client.tasks import Launchable, Task, model_of
from argosy.client.telling import tell
from argosy.model.errors import ArgosyError
from argosy.model.offer import Offer, Plan
from argosy.model.resources import Autostop
from argosy.model.task import Task as ModelTask

T = TypeVar("T")
_WAIT_S: Final = 20  # for news of a group, in one call
_LIVE: Final = frozenset({"queued", "starting", "running", "recovering", "stopping"})


class Handle(NamedTuple):
    """The cluster of a launch. `cluster_name` None: a managed job, which has nodes of its own."""

    cluster_name: str | None
    cluster_id: str | None = None
    created: bool = False
    plan: Plan | None = None

    @property
    def launched_resources(self) -> LaunchedResources:
        """Where it was planned to run; fields are None where that is not known."""
        offer = self.plan.choices[0].offer if self.plan is not None and self.plan.choices else None
        return LaunchedResources() if offer is None else launched_on(offer)


class Launched(NamedTuple):
    """What was launched: unpacks as `job_id, handle`. `job_id` is the job's number, None when nothing
    runs."""

    job_id: int | None
    handle: Handle
    # A tuple of two, so that programs written for SkyPilot can unpack it.

    @property
    def cluster(self) -> str | None:
        return self.handle.cluster_name


def get(request_id: T) -> T:
    """The result itself: calls return answers, not requests. Here for programs that wait for requests.

    >>> get(5)
    5
    """
    return request_id


def stream_and_get(
    request_id: T,
    log_path: str | None = None,
    tail: int | None = None,
    follow: bool = True,
    output_stream: Out | None = None,
) -> T:
    """As `get`. What else it takes in SkyPilot changes nothing: there is no log of a request."""
    return request_id


# Launching ----------------------------------------------------------------------------------------------


async def launch(
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
    model = prepared(task)
    if dryrun:
        return await _planned(model, cluster_name)
    sent = await SharedClient.send_files(model)
    tell(sent.warnings)
    policy = _idle_policy(idle_minutes_to_autostop, down, wait_for)
    reply = await LaunchingCalls.launch(
        sent.task,
        cluster=cluster_name,
        autostop=policy,
        down=down and policy is None,
        setup=not (no_setup or fast),
        user=login.user_name(os.environ),
    )
    tell(reply.warnings, of_reply=True)
    handle = Handle(reply.cluster, reply.cluster_id, reply.created, reply.plan)
    return Launched(reply.job.number if reply.job else None, handle)


async def exec(task: Launchable, cluster_name: str, dryrun: bool = False, down: bool = False) -> Launched:
    """Queue `task` on an existing cluster, without setup. Errors: "not-found", "wrong-state".

    job_id, handle = exec(Task(run="nvidia-smi"), cluster_name="dev")
    """
    if down:
        raise ArgosyError(
            "unsupported", "`exec` cannot end the cluster", hint="use `autostop(NAME, 0, down=True)` after it"
        )
    model = prepared(task)
    if dryrun:
        return await _planned(model, cluster_name)
    if needs_files(model) or any(map(is_filled_here, model.storage_mounts)):
        await ClusterCalls.cluster(cluster_name)  # nothing is sent to a cluster that is not there
    sent = await SharedClient.send_files(model)
    tell(sent.warnings)
    user = login.user_name(os.environ)
    reply = await LaunchingCalls.exec(cluster_name, [sent.task], user=user)
    tell(reply.warnings, of_reply=True)
    return Launched(reply.jobs[0].number, Handle(cluster_name))


async def _planned(model: ModelTask, cluster_name: str | None) -> Launched:
    reply = await PlanningCalls.plan(model, managed=False)
    return Launched(None, Handle(cluster_name, plan=reply.plan))


class OptimizeTarget(StrEnum):
    """What `optimize` makes least."""

    COST = "cost"
    TIME = "time"
    CARBON = "carbon"


@overload
async def optimize(task: Task | ModelTask, minimize: OptimizeTarget | str = "") -> Plan: ...
@overload
async def optimize(task: Dag, minimize: OptimizeTarget | str = "") -> Plan | PipelineReply: ...
async def optimize(task: Launchable, minimize: OptimizeTarget | str = "") -> Plan | PipelineReply:
    """Where a task would run, at what price, and why not elsewhere: also on clouds that cannot be launched on
    yet.

    A Dag with several tasks is planned as a whole, as by `estimate`. `minimize` is cost, time or (for one
    task) carbon; by default the `objective` of the task. Errors: "no-offer" for an accelerator or a place
    that does not exist, or a deadline that cannot be met.
    """
    found = await _estimated(task, 1, str(minimize))
    return found.plan if isinstance(found, PlanReply) else found


@overload
async def estimate(task: Task | ModelTask, *, limit: int = 20, objective: str = "") -> PlanReply: ...
@overload
async def estimate(task: Dag, *, limit: int = 20, objective: str = "") -> PlanReply | PipelineReply: ...
async def estimate(task: Launchable, *, limit: int = 20, objective: str = "") -> PlanReply | PipelineReply:
    """What a task would cost, best first: `offers` with prices per hour and, when the runtime is known, in
    total.

    A Dag with several tasks: the best places of all of them together, in `stages`, with the traffic between
    them, in `moves`. `objective` is cost, time or (for one task) carbon; by default that of the task. Errors:
    "no-offer" for what does not exist or a deadline that cannot be met.

        for offer in sky.estimate(task).offers:
            print(offer.provider, offer.instance_type, offer.hourly_micro_usd / 1e6)
    """
    return await _estimated(task, limit, objective)


async def _estimated(task: Launchable, limit: int, objective: str) -> PlanReply | PipelineReply:
    if isinstance(task, Dag) and len(task) > 1:
        tasks = [prepared(one) for one in task.tasks]
        edges = task.positions()
        return await PlanningCalls.plan_pipeline(tasks, edges=edges, objective=objective or "cost")
    model = prepared(task)
    return await PlanningCalls.plan(model, prices=True, limit=limit, distinct=True, objective=objective)


def validate(task: Launchable) -> None:
    """Raises "spec-invalid" when something is wrong with the task. Asks no server.

    >>> from argosy.client.tasks import Task
    >>> validate(Task(run="echo hi"))
    """
    model_of(task)


# Clusters -----------------------------------------------------------------------------------------------


async def status(
    cluster_names: Sequence[str] | str | None = None,
    refresh: bool | str = False,
    all: bool = False,
    all_users: bool = True,
) -> list[ClusterRecord]:
    """Clusters, by default all live ones. `refresh` asks the infrastructure first (SkyPilot's `AUTO`, `FORCE`
    and `NONE` will do, too); `all_users=False` leaves out those of others.

    A name that no cluster has is told in a warning.
    """
    names = [cluster_names] if isinstance(cluster_names, str) else cluster_names
    reply = await ClusterCalls.status(refresh=_refreshes(refresh), all=all)
    if names is None:
        me = login.user_name(os.environ)
        shown = [each for each in reply.clusters if all_users or each.user == me]
        return [as_cluster(cluster) for cluster in shown]
    known = {cluster.name for cluster in reply.clusters}
    tell([f"there is no cluster `{name}`" for name in names if name not in known])
    return [as_cluster(cluster) for cluster in reply.clusters if cluster.name in names]


async def start(cluster_name: str, idle_minutes_to_autostop: int | None = None, down: bool = False) -> Done:
    """Start a stopped cluster again."""
    done = await ClusterCalls.start(cluster_name)
    policy = _idle_policy(idle_minutes_to_autostop, down)
    return done if policy is None else await ClusterCalls.autostop(cluster_name, policy)


async def stop(cluster_name: str, purge: bool = False) -> Done:
    """Stop a cluster, keeping its disks. `purge` changes nothing: what cannot be reached is tried again."""
    return await ClusterCalls.stop(cluster_name)


async def down(cluster_name: str, purge: bool = False) -> Done:
    """End a cluster and its jobs. `purge` changes nothing: what cannot be reached is tried again."""
    return await ClusterCalls.down(cluster_name)


async def autostop(
    cluster_name: str, idle_minutes: int = 5, down: bool = False, *, wait_for: str | None = None
) -> Done:
    """Stop (or end, with `down`) after so many idle minutes; negative: never."""
    policy = _idle_policy(idle_minutes, down, wait_for)
    return await ClusterCalls.autostop(cluster_name, policy or Autostop())


class Endpoints(dict[int, str]):
    """Addresses by port; any port of the machine can be asked for.

    >>> Endpoints("10.0.0.7")[8080]
    '10.0.0.7:8080'
    """

    def __init__(self, address: str, *ports: int) -> None:
        super().__init__({port: f"{address}:{port}" for port in ports})
        self._address = address

    def __missing__(self, port: int) -> str:
        return f"{self._address}:{port}"


async def endpoints(cluster: str, port: int | str | None = None) -> Endpoints:
    """Where a port of a cluster's first node answers, by port.

    Errors: "not-found", "wrong-state" while it has no node.
    """
    view = await ClusterCalls.cluster(cluster)
    if not view.nodes or not view.nodes[0].ip:
        raise ArgosyError("wrong-state", f"cluster `{cluster}` has no node yet", hint="wait until it runs")
    return Endpoints(view.nodes[0].ip, *([] if port is None else [int(port)]))


# Jobs of clusters ---------------------------------------------------------------------------------------


async def queue(cluster_name: str, skip_finished: bool = False, all_users: bool = True) -> list[JobRecord]:
    """Jobs of a cluster, newest first. `all_users=False`: only your own."""
    me = login.user_name(os.environ)
    jobs = await all_jobs(cluster_name, skip_finished)
    return [as_job(job) for job in jobs if all_users or job.user == me]


async def cancel(cluster_name: str, all: bool = False, job_ids: Iterable[int] | int | None = None) -> Done:
    """Cancel jobs of a cluster: `all`, or by number; neither: the newest live one."""
    check_flag("all", all)
    numbers = numbers_of(job_ids)
    if not all and job_ids is None:
        page = await JobCalls.queue(cluster_name, live=True, limit=1)
        numbers = [str(job.number) for job in page.jobs]
        if not numbers:
            raise ArgosyError(
                "not-found",
                f"no job of `{cluster_name}` is live: there is nothing to cancel",
                hint=f"`queue({cluster_name!r})` has all of them",
            )
    return await JobCalls.cancel(cluster_name, [] if all else numbers, all=all)


async def job_status(
    cluster_name: str, job_ids: Sequence[int] | int | None = None
) -> dict[int, JobStatus | None]:
    """Status by number: queued, running, succeeded, failed, cancelled, …; None for one that does not exist.

    Without numbers: of the newest job.
    """
    wanted = [job_ids] if isinstance(job_ids, int) else job_ids
    if wanted is None:
        newest = await JobCalls.queue(cluster_name, limit=1)
        return {job.number: job_state(job.status) for job in newest.jobs}
    known = {job.number: job_state(job.status) for job in await all_jobs(cluster_name)}
    return {number: known.get(number) for number in wanted}


async def explain(cluster_name: str | None = None, job_id: int | None = None) -> ExplainReply:
    """Why a job waits, when it probably starts and what would help; or why it is where it is, and its
    history.

    Without a cluster: of a managed job. Without a job: of the cluster, or of the newest managed job. Errors:
    "not-found".
    """
    if cluster_name is not None and job_id is None:
        return await PoolCalls.explain((await ClusterCalls.cluster(cluster_name)).id)
    return await PoolCalls.explain((await find_job(cluster_name, job_id)).id)


async def tail_logs(
    cluster_name: str,
    job_id: int | None = None,
    follow: bool = True,
    tail: int = 0,
    output_stream: Out | None = None,
) -> int:
    """Print a job's log until it ends; 0 when it succeeded (or is not followed to its end), else 1.

    `output_stream` takes bytes or text; by default it is standard output. `tail` 0: from the beginning.
    """
    return await show_log(await find_job(cluster_name, job_id), follow, tail, output_stream)


async def download_logs(
    cluster_name: str, job_ids: Sequence[int] | None = None, local_dir: str | os.PathLike[str] = "argosy-logs"
) -> dict[str, str]:
    """Save logs as `local_dir/CLUSTER-NUMBER/rank-N.log`. Returns the folder of each job number."""
    folders: dict[str, str] = {}
    for number in [None] if job_ids is None else job_ids:
        job = await find_job(cluster_name, number)
        folder = Path(local_dir) / f"{cluster_name}-{job.number}"
        await save_logs(job.id, folder)
        folders[str(job.number)] = str(folder)
    return folders


# The rest -----------------------------------------------------------------------------------------------


async def pools() -> list[PoolView]:
    """Return the pools: allocations, pending workloads, the largest gangs that fit."""
    return list((await PoolCalls.pools()).pools)


async def cost_report(days: int | None = None) -> list[CostView]:
    """What claims cost, of the last `days` or ever."""
    return list((await CostCalls.costs(days)).costs)


async def check(infra_list: Sequence[str] | None = None) -> list[DiagnosticView]:
    """Which infrastructure works, and what to do about the rest."""
    findings = (await PriceCalls.check(",".join(infra_list) if infra_list else None)).findings
    return [finding for finding in findings if infra_list is None or finding.provider in infra_list]


async def list_accelerators(name_filter: str | None = None) -> list[Offer]:
    """Offers with accelerators, all or of one model."""
    return [offer for offer in (await PriceCalls.offers(name_filter)).offers if offer.shape.accelerator]


async def events(
    subject: str | None = None, after: int | None = None, limit: int | None = None
) -> list[EventView]:
    """What happened, to everything or to one id or name."""
    return list((await EventCalls.events(subject, after=after, limit=limit)).events)


async def api_info() -> Health:
    """Which server answers."""
    return await ServerCalls.health()


async def api_start() -> Health:
    """Start the local server unless it runs."""
    return await ServerCalls.health()


async def api_stop() -> Done:
    """Stop the server; ranks go on, and the next call starts it again."""
    return await ServerCalls.server_stop()


def api_status() -> list[str]:
    """Requests under way: none, as every call returns its answer."""
    return []


def api_cancel(request_ids: object = None) -> list[str]:
    """The requests that were cancelled: none, as every call returns its answer."""
    return []


def api_login(endpoint: str | None = None) -> None:
    """Errors: "unsupported": the server is named by the environment."""
    where = endpoint or "http://HOST:PORT"
    raise ArgosyError(
        "unsupported",
        "there is nothing to log in to: the environment names the server",
        hint=f"set ARGOSY_SERVER={where} and ARGOSY_TOKEN before the program starts",
    )


# Parts --------------------------------------------------------------------------------------------------


def prepared(launchable: Launchable) -> ModelTask:
    """The task to send; its warnings become Python warnings."""
    task, said = model_of(launchable)
    tell(said)
    return task


def _idle_policy(idle_minutes: int | None, down: bool, wait_for: str | None = None) -> Autostop | None:
    """The policy of `idle_minutes`: negative means never, as in SkyPilot.

    >>> _idle_policy(10, True)
    Autostop(idle_s=600, down=True, wait_for='jobs_and_ssh', max_s=None)
    """
    if idle_minutes is None:
        return None
    return Autostop(
        idle_s=None if idle_minutes < 0 else idle_minutes * 60, down=down, wait_for=wait_for or "jobs_and_ssh"
    )


def _refreshes(refresh: bool | str) -> bool:
    """
    >>> _refreshes("AUTO"), _refreshes("StatusRefreshMode.NONE"), _refreshes(True)
    (True, False, True)
    """
    if isinstance(refresh, bool):
        return refresh
    return str(refresh).rpartition(".")[2].upper() != "NONE"


def check_flag(name: str, value: object) -> None:
    """A list of numbers in the place of a flag would otherwise mean "all of them"."""
    if not isinstance(value, bool):
        raise ArgosyError(
            "usage", f"`{name}` is True or False, not {value!r}", hint="numbers of jobs go into `job_ids=[1]`"
        )


def numbers_of(job_ids: Iterable[int] | int | None) -> list[str]:
    if job_ids is None:
        return []
    return [str(job_ids)] if isinstance(job_ids, int) else [str(one) for one in job_ids]


async def all_jobs(cluster: str | None, live: bool = False) -> list[JobView]:
    """Every page of the queue."""
    jobs: list[JobView] = []
    after: str | None = None
    while True:
        page = await JobCalls.queue(cluster, live=live, after=after)
        jobs += page.jobs
        after = page.next
        if after is None:
            return jobs


async def find_job(cluster: str | None, number: int | None) -> JobView:
    """A job by number, or the newest. Errors: "not-found"."""
    if number is None:
        jobs = list((await JobCalls.queue(cluster, limit=1)).jobs)
    else:
        jobs = await all_jobs(cluster)
    for job in jobs:
        if number is None or job.number == number:
            return job
    place = f"on `{cluster}`" if cluster else "among managed jobs"
    raise ArgosyError("not-found", f"there is no job{'' if number is None else f' {number}'} {place}")


async def show_log(job: JobView, follow: bool, tail: int, output_stream: Out | None) -> int:
    if job.tasks is not None:
        return await _show_logs(job, follow, tail, output_stream)
    label = (job.name or f"job-{job.number}") if job.num_nodes > 1 else ""
    printer = Printer(output_stream, label)
    await ReadLog(job.id, printer.show, follow=follow, tail=tail or None)
    return 0 if printer.status in ("", "succeeded") or printer.status in _LIVE else 1


async def _show_logs(group: JobView, follow: bool, tail: int, output_stream: Out | None) -> int:
    """The logs of a group's tasks, one after the other; to its end with `follow`."""
    shown: set[str] = set()
    reply = await GroupCalls.group(group.id)
    while True:
        ready = [task.job for task in reply.tasks if task.job is not None and task.job.id not in shown]
        for job in ready:
            shown.add(job.id)
            await show_log(job, follow, tail, output_stream)
        if not follow or (reply.group.outcome is not None and not ready):
            return 0 if reply.group.status in ("succeeded", *_LIVE) else 1
        reply = await GroupCalls.group(group.id, seen=reply.version, wait_s=0 if ready else _WAIT_S)

"""Launching: clusters with their jobs, and managed jobs."""

from __future__ import annotations

from collections.abc import Sequence

from argosy.api.endpoint import Reply, Request, endpoint
from argosy.model.offer import Plan
from argosy.model.resources import Autostop
from argosy.model.task import Task


class LaunchRequest(Request, frozen=True, kw_only=True, omit_defaults=True):
    """Make or reuse cluster `cluster` and run `task` on it. Without `run` only the cluster is made."""

    task: Task
    cluster: str | None = None  # None: the server gives a name
    user: str = ""
    autostop: Autostop | None = None
    down: bool = False  # the cluster goes when its jobs are done
    setup: bool = True
    project: str = ""  # "": that of the client's header, else `default`
    plan: str = ""  # the id of the plan that was confirmed; "": as the server finds it
    max_hourly_micro_usd: int | None = None  # of all nodes: nothing dearer is ordered, now or later
    key: str = ""  # idempotency: the same key gives the same answer


class ExecRequest(Request, frozen=True, kw_only=True, omit_defaults=True):
    """Queue jobs on an existing cluster: one commit for all of them."""

    cluster: str
    tasks: tuple[Task, ...]
    user: str = ""
    project: str = ""  # "": the cluster's
    key: str = ""


class JobsLaunchRequest(Request, frozen=True, kw_only=True, omit_defaults=True):
    """Queue managed jobs: each owns its nodes and recovers."""

    tasks: tuple[Task, ...]
    user: str = ""
    project: str = ""
    plan: str = ""  # the id of the plan that was confirmed, of equal tasks; "": as the server finds it
    max_hourly_micro_usd: int | None = None  # of all nodes: nothing dearer is ordered, now or later
    key: str = ""


class JobRef(Reply, frozen=True, kw_only=True, omit_defaults=True):
    id: str
    number: int
    name: str = ""


class LaunchReply(Reply, frozen=True, kw_only=True, omit_defaults=True):
    cluster: str
    cluster_id: str
    created: bool
    job: JobRef | None
    plan: Plan | None = None  # of a new cluster
    warnings: tuple[str, ...] = ()
    deadline: str = ""  # what was chosen to meet the deadline, and why


class JobsReply(Reply, frozen=True, kw_only=True, omit_defaults=True):
    jobs: tuple[JobRef, ...]
    warnings: tuple[str, ...] = ()
    plan: Plan | None = None  # of managed jobs that are planned alike
    deadline: str = ""  # what was chosen to meet the deadline, and why


class LaunchingCalls:
    """`key`: the same key gives the same answer; each call has its own by default. Files must have been sent:
    see `client.sending`."""

    @endpoint("POST", "/launch", LaunchRequest, permission="clusters.write")
    def launch(
        self,
        task: Task,
        *,
        cluster: str | None = None,
        autostop: Autostop | None = None,
        down: bool = False,
        setup: bool = True,
        user: str = "",
        project: str = "",
        plan: str = "",
        max_hourly_micro_usd: int | None = None,
        key: str = "",
    ) -> LaunchReply:
        """Make or reuse a cluster; run a task on it.

        `plan`: the id of a plan of this task. It is what is ordered: when it cannot be had any more the
        answer is `conflict`, and nothing dearer is ordered later. Without it the task is planned now, up to
        `max_hourly_micro_usd` for all nodes if that is given.
        `project`: whose cluster it is and whose budget and quota it counts in; "": that of ARGOSY_PROJECT,
        else `default`.
        """

    @endpoint("POST", "/exec", ExecRequest, permission="jobs.write")
    def exec(
        self, cluster: str, tasks: Sequence[Task], *, user: str = "", project: str = "", key: str = ""
    ) -> JobsReply:
        """Queue jobs on a cluster, all or none.

        `project` "": they count in the cluster's.
        """

    @endpoint("POST", "/jobs", JobsLaunchRequest, permission="jobs.write")
    def jobs_launch(
        self,
        tasks: Sequence[Task],
        *,
        user: str = "",
        project: str = "",
        plan: str = "",
        max_hourly_micro_usd: int | None = None,
        key: str = "",
    ) -> JobsReply:
        """Queue managed jobs, all or none: each owns its nodes and recovers.

        `plan` and `max_hourly_micro_usd` as of `launch`; a plan is of one task, or of several that are
        planned alike.
        """

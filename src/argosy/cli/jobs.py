"""queue, logs and cancel, for the jobs of clusters and for managed jobs."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

import click

from argosy.cli.clusters import job_table
from argosy.cli.job_pools import job_pool
from argosy.cli.launching import jobs_launch
from argosy.cli.session import (
    Session,
    answering,
    complete_cluster,
    examples,
    json_option,
    options,
    pass_session,
    yes_option,
)

if TYPE_CHECKING:
    from argosy.api.jobs import JobList, JobView

#: Of commands that show a log. Their functions hand them to `_show_or_save`.
_log_options: Final = options(
    click.option(
        "-f", "--follow/--no-follow", default=True, help="Go on until the job ends. [default: follow]"
    ),
    click.option("--tail", type=click.IntRange(min=0), help="Only the last N lines."),
    click.option("--rank", type=click.IntRange(min=0), help="Only this rank."),
    click.option("--attempt", type=click.IntRange(min=1), help="Of this earlier attempt."),
    click.option("--status", is_flag=True, help="Only show the status of the job."),
    click.option("-s", "--sync-down", is_flag=True, help="Save the logs of all ranks in a folder instead."),
    json_option,
)


@click.command(
    epilog="""\b
Examples:
  argosy queue dev
  argosy queue --live --json
  argosy queue --tree

`--tree` shows the tenants instead: see `argosy quota get`.
"""
)
@click.argument("clusters", nargs=-1, shell_complete=complete_cluster)
@click.option("-s", "--live", "--skip-finished", "live", is_flag=True, help="Only unfinished jobs.")
@click.option(
    "-n", "--limit", type=click.IntRange(min=1), default=100, show_default=True, help="At most this many."
)
@click.option("-u", "--all-users", is_flag=True, hidden=True)
@click.option("--tree", is_flag=True, help="The queues of tenants instead: who uses how much of what.")
@answering
def queue(
    session: Session, clusters: tuple[str, ...], live: bool, limit: int, all_users: bool, tree: bool
) -> None:
    """Show jobs, newest first, what they wait for, their place in the order and when they probably start.

    Without a name: those of every cluster. Managed jobs have a list of their own: `argosy jobs queue`.
    """
    from argosy.api.jobs import JobList

    if tree:
        from argosy.cli.quota import queue_tree

        reply = session.client.tenancy()
        if not session.screen.told(reply):
            queue_tree(session, reply.queues)
        return
    names, managed = clusters, 0
    if not clusters:
        status = session.client.status()
        names, managed = tuple(map(session.called, status.clusters)), len(status.jobs)
    pages = [session.client.queue(name, live=live, limit=limit) for name in names]
    jobs = tuple(job for page in pages for job in page.jobs)
    if session.screen.told(pages[0] if len(pages) == 1 else JobList(jobs=jobs)):
        return
    if not jobs:
        session.screen.print("No jobs." if names else "No clusters.")
    else:
        job_table(session, jobs, with_cluster=len(names) > 1)
        _say_more(session, pages, limit)
    if managed:
        what = "1 managed job is" if managed == 1 else f"{managed} managed jobs are"
        session.screen.say(f"{what} live: `argosy jobs queue` lists them")


def _say_more(session: Session, pages: list[JobList], limit: int) -> None:
    if any(page.next for page in pages):
        session.screen.say(f"older ones are not shown (--limit {limit})", "dim")


def find_job(session: Session, cluster: str | None, wanted: str | None, name: str | None = None) -> JobView:
    """A job by number or id, or by name; the newest when neither is given. Errors: "not-found", "usage"."""
    from argosy.model.errors import ArgosyError
    from argosy.model.kinds import kind_of_id

    client = session.client
    if cluster is None and wanted is not None and "/" in wanted:
        from argosy.cli.groups import find_task

        return find_task(session, wanted)
    if wanted is not None and (kind := kind_of_id(wanted)) is not None and kind.numbered:
        return client.job(wanted)
    if wanted is not None and not wanted.isdigit():
        raise ArgosyError(
            "usage", f"job must be a number, got {wanted}", hint="`argosy queue` shows the numbers"
        )
    after: str | None = None
    newest = wanted is None and name is None
    while True:
        page = client.queue(cluster, limit=1 if newest else 1000, after=after)
        for job in page.jobs:
            if newest or (wanted is not None and job.number == int(wanted)) or (name and job.name == name):
                return job
        after = page.next
        if newest or after is None:
            break
    place = f"on `{cluster}`" if cluster else "among managed jobs"
    what = f"job {wanted}" if wanted else f"job called `{name}`" if name else "job"
    listing = f"argosy queue {cluster}" if cluster else "argosy jobs queue"
    raise ArgosyError("not-found", f"there is no {what} {place}", hint=f"`{listing}` lists them")


def _show_or_save(session: Session, job: JobView, *, sync_down: bool, **how: Any) -> None:
    if sync_down:
        _save_log(session, job)
    else:
        _show_log(session, job, **how)


def _show_log(
    session: Session,
    job: JobView,
    *,
    follow: bool,
    tail: int | None,
    rank: int | None,
    attempt: int | None,
    status: bool,
) -> None:
    from argosy.cli.following import JOB_FAILED, Followed
    from argosy.cli.following import follow as follow_log

    if session.screen.for_programs or status:
        detail = f": {job.detail}" if job.detail else ""
        session.screen.answer(job, f"job {job.number}: {job.status}{detail}")
        raise click.exceptions.Exit(0 if job.outcome in (None, "succeeded") else JOB_FAILED)
    if job.tasks is not None:
        from argosy.cli.groups import show_group_logs

        raise click.exceptions.Exit(show_group_logs(session, job, follow=follow, tail=tail))
    followed = Followed(job.id, job.number, job.name, job.cluster, job.num_nodes, job.group)
    raise click.exceptions.Exit(
        follow_log(session, followed, follow=follow, tail=tail, rank=rank, attempt=attempt, quiet=not follow)
    )


@click.command(
    epilog="""\b
Examples:
  argosy logs dev
  argosy logs dev 3 --tail 100
  argosy logs dev 3 --no-follow --rank 1 > rank1.txt

Ends with 0 when the job succeeded or was not followed to its end, 1 when it did not succeed."""
)
@click.argument("cluster", shell_complete=complete_cluster)
@click.argument("job", required=False)
@_log_options
@pass_session
def logs(session: Session, /, cluster: str, job: str | None, **how: Any) -> None:
    """Show the log of a job of a cluster, by default the newest. Also of clusters that are gone."""
    _show_or_save(session, find_job(session, cluster, job), **how)


def _save_log(session: Session, job: JobView) -> None:
    from argosy.client.saving import save_logs

    folder = session.cwd / "argosy-logs" / _folder(job)
    with session.on_interrupt(lambda: f"The log in {folder} is not complete."):
        if job.tasks is None:
            session.client.run(save_logs(job.id, folder))
        else:
            for task in session.client.group(job.id).tasks:
                if task.job is not None:
                    session.client.run(save_logs(task.job.id, folder / str(task.index)))
    session.screen.print(str(folder))


def _folder(job: JobView) -> str:
    number = f"{job.number}" if job.group is None else f"{job.group}-{job.number}"
    return f"{job.cluster or 'managed'}-{number}"


@click.command(epilog=examples("argosy cancel dev 3 4", "argosy cancel dev -a -y"))
@click.argument("cluster", shell_complete=complete_cluster)
@click.argument("jobs", nargs=-1)
@click.option("-a", "--all", "every", is_flag=True, help="All unfinished jobs of the cluster.")
@yes_option
@answering
def cancel(session: Session, cluster: str, jobs: tuple[str, ...], every: bool, yes: bool) -> None:
    """Cancel jobs of a cluster by number."""
    _cancel(session, cluster, jobs, every, yes)


def _cancel(session: Session, cluster: str | None, jobs: tuple[str, ...], every: bool, yes: bool) -> None:
    if every == bool(jobs):
        raise click.UsageError("name jobs by number, or give --all")
    where = f" of `{cluster}`" if cluster else ""
    what = f"all jobs{where}" if every else f"job{'s' if len(jobs) > 1 else ''} {', '.join(jobs)}{where}"
    session.screen.confirm(f"Cancel {what}?", yes=yes)
    done = session.client.cancel(cluster, jobs, all=every)
    if session.screen.told(done):
        return
    if not done.names:
        session.screen.print("Nothing to cancel.")
    else:
        for name in done.names:
            numbered = name.replace("/", "").isdigit()
            session.screen.print(f"{f'job {name}' if numbered else name}: cancelling")


@click.group(
    epilog=examples(
        "argosy jobs launch task.yaml", "argosy jobs queue", "argosy jobs logs 3", "argosy jobs cancel 3"
    )
)
def jobs() -> None:
    """Managed jobs: each owns its nodes and recovers when it loses them."""


@click.command(
    name="queue",
    epilog="""\b
Examples:
  argosy jobs queue
  argosy jobs queue -s --json
  argosy jobs queue --tasks 7

A group of jobs is one line; `--all` shows its tasks below it, `--tasks` one group alone.""",
)
@click.option("-s", "--live", "--skip-finished", "live", is_flag=True, help="Only unfinished jobs.")
@click.option(
    "-n", "--limit", type=click.IntRange(min=1), default=100, show_default=True, help="At most this many."
)
@click.option("-r", "--refresh", is_flag=True, hidden=True)
@click.option("-a", "--all", "every", is_flag=True, help="The tasks of groups, too.")
@click.option("--tasks", metavar="JOB", help="Only the tasks of this group.")
@click.option("-u", "--all-users", is_flag=True, hidden=True)
@answering
def jobs_queue(
    session: Session, live: bool, limit: int, refresh: bool, every: bool, tasks: str | None, all_users: bool
) -> None:
    """Show managed jobs and groups of them, newest first."""
    if tasks is not None:
        from argosy.cli.groups import show_tasks

        reply = session.client.group(tasks.partition("/")[0])
        if not session.screen.told(reply):
            show_tasks(session, reply)
        return
    page = session.client.queue(None, live=live, limit=limit)
    if session.screen.told(page):
        return
    if not page.jobs:
        session.screen.print("No managed jobs. Queue one: argosy jobs launch -- COMMAND")
    else:
        if every and any(job.tasks is not None for job in page.jobs):
            from argosy.cli.groups import show_folded_out

            show_folded_out(session, page.jobs)
        else:
            job_table(session, page.jobs)
        _say_more(session, [page], limit)


@click.command(
    name="logs",
    epilog=examples(
        "argosy jobs logs",
        "argosy jobs logs 3 --no-follow",
        "argosy jobs logs 7/12",
        "argosy jobs logs -n train --attempt 1",
    ),
)
@click.argument("job", required=False)
@click.option("-n", "--name", help="The newest job of this name.")
@click.option(
    "--task", metavar="TASK", help="Of a group: this task, by number or name; `JOB/TASK` means the same."
)
@_log_options
@pass_session
def jobs_logs(session: Session, /, job: str | None, name: str | None, task: str | None, **how: Any) -> None:
    """Show the log of a managed job, by default the newest."""
    found = find_job(session, None, job, name)
    if task is not None and found.tasks is not None:
        found = find_job(session, None, f"{found.number}/{task}")
    _show_or_save(session, found, **how)


@click.command(
    name="cancel",
    epilog=examples("argosy jobs cancel 3", "argosy jobs cancel 7/12", "argosy jobs cancel -a -y"),
)
@click.argument("jobs", nargs=-1)
@click.option("-n", "--name", help="The newest job of this name.")
@click.option("-a", "--all", "every", is_flag=True, help="All unfinished managed jobs.")
@yes_option
@answering
def jobs_cancel(session: Session, jobs: tuple[str, ...], name: str | None, every: bool, yes: bool) -> None:
    """Cancel managed jobs by number."""
    if name is not None:
        jobs = (*jobs, find_job(session, None, None, name).id)
    _cancel(session, None, jobs, every, yes)


@click.command(name="graph", epilog=examples("argosy jobs graph 7"))
@click.argument("job")
@answering
def jobs_graph(session: Session, job: str) -> None:
    """Draw the tasks of a group: which waits for which, and how each is."""
    from argosy.cli.group_drawing import draw_group

    reply = session.client.group(job)
    session.screen.answer(reply, *draw_group(reply.tasks))


@click.command(name="retry", epilog=examples("argosy jobs retry 7/3"))
@click.argument("task", metavar="JOB/TASK")
@answering
def jobs_retry(session: Session, task: str) -> None:
    """Run one task of a group once more, while the group lives."""
    done = session.client.retry(task)
    session.screen.answer(done, *(f"job {name}: runs once more" for name in done.names))


for _command in (jobs_launch, jobs_queue, jobs_logs, jobs_cancel, jobs_retry, jobs_graph, job_pool):
    jobs.add_command(_command)

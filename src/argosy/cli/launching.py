"""launch, exec and jobs launch: plan, ask, send files, submit, follow."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import click

from argosy.cli.group_options import GroupWish, group_options, parse_group
from argosy.cli.session import Minutes, Session, answering, complete_cluster, project_option, yes_option
from argosy.cli.task_options import parse_described, task_options, weighing_options
from argosy.client.progress import needs_files
from argosy.model.units import many, render_bytes, render_milli, render_price

if TYPE_CHECKING:
    from argosy.api.launching import LaunchReply
    from argosy.cli.following import Followed
    from argosy.cli.group_options import DescribedGroup
    from argosy.client.progress import Progress
    from argosy.model.offer import Choice, Plan
    from argosy.model.resources import Autostop
    from argosy.model.task import Task


@click.command(
    epilog="""\b
Examples:
  argosy launch -c dev task.yaml
  argosy launch -c dev --gpus A100:1 --workdir . -- python train.py
  argosy launch --dryrun task.yaml
  argosy launch -c dev -d -i 30 --down task.yaml

FILE ends with .yaml or .yml. Anything else is the command: one word is shell text, several are its words.
Ends with 0 when the job succeeded, 1 when it did not, 130 on Ctrl-C, which only stops watching."""
)
@click.argument("words", nargs=-1, metavar="[FILE.yaml | -- COMMAND...]")
@click.option(
    "-c",
    "--cluster",
    "--cluster-name",
    help="Name of the cluster, new or existing.",
    shell_complete=complete_cluster,
)
@task_options
@weighing_options
@click.option("-d", "--detach-run", "--detach", "detach", is_flag=True, help="Return when the job is queued.")
@click.option(
    "--dryrun", "--dry-run", is_flag=True, help="Only show where it would run, and why not elsewhere."
)
@yes_option
@click.option("--down", is_flag=True, help="End the cluster when its jobs are done; with -i: when idle.")
@click.option(
    "-i",
    "--idle-minutes-to-autostop",
    "idle",
    type=Minutes(),
    metavar="MIN",
    help="Stop it after this many idle minutes (also 30m, 2h).",
)
@click.option("--wait-for", type=click.Choice(["jobs_and_ssh", "jobs", "gpu", "none"]), hidden=True)
@click.option("--no-setup", "--fast", "no_setup", is_flag=True, help="Skip `setup`.")
@click.option("-r", "--retry-until-up", is_flag=True, hidden=True)
@click.option("--detach-setup", is_flag=True, hidden=True)
@project_option
@answering
def launch(
    session: Session,
    /,
    words: tuple[str, ...],
    cluster: str | None,
    detach: bool,
    dryrun: bool,
    yes: bool,
    down: bool,
    idle: int | None,
    wait_for: str | None,
    no_setup: bool,
    retry_until_up: bool,
    detach_setup: bool,
    project: str | None,
    **flags: Any,
) -> None:
    """Make or reuse a cluster and run a task on it.

    Without a command or `run:` only the cluster is made.
    """
    from argosy.cli.clusters import autostop_policy

    if cluster is not None:
        from argosy.spec.names import check_name

        check_name("cluster", cluster)
    described = parse_described(session, words, flags, needs_run=False)
    screen = session.screen
    stage = ["Nothing was launched."]
    with session.on_interrupt(lambda: stage[0]):
        screen.warn(described.warnings)
        if dryrun:
            _dryrun(session, described.task)
            return
        first, named = _ask_first(session, described.task, cluster, project, yes=yes)
        stage[0] = "Nothing was launched. What was sent is kept: the same command goes on from there."
        task = send_files(session, described.task)
        stage[0] = "It may have been launched: `argosy status` shows it."
        policy: Autostop | None = None if idle is None else autostop_policy(idle, down, wait_for)
        reply = session.client.launch(
            task,
            cluster=cluster,
            autostop=policy,
            down=down and idle is None,
            setup=not no_setup,
            user=session.user,
            project=project or "",
            plan=named,
        )
    if reply.plan is not None and not first:
        _tell_plan(session, reply.plan, reply.deadline)
    screen.warn(reply.warnings)
    if project is not None and project != session.project:  # what is told to type next must find it
        import msgspec

        reply = msgspec.structs.replace(reply, cluster=f"{project}/{reply.cluster}")
    if (detach or reply.job is None) and screen.told(reply):
        return
    if reply.job is None:
        _wait_for_cluster(session, reply, detach)
        return
    job = _followed(reply.job.id, reply.job.number, reply.job.name, reply.cluster, task)
    made = "cluster `{}` is being made; " if reply.created else "cluster `{}`: "
    screen.say(f"{made.format(reply.cluster)}job {job.number} is queued", "dim")
    _follow(session, job, detach=detach, says_next=True)


@click.command(
    name="exec",
    epilog="""\b
Examples:
  argosy exec dev -- nvidia-smi
  argosy exec dev task.yaml --env EPOCHS=3
  argosy exec -d dev --gpus A100:0.5 'python eval.py > out.txt'

Ends with 0 when the job succeeded, 1 when it did not, 130 on Ctrl-C, which only stops watching.""",
)
@click.argument(
    "words", nargs=-1, metavar="CLUSTER [FILE.yaml | -- COMMAND...]", shell_complete=complete_cluster
)
@click.option(
    "-c", "--cluster", "--cluster-name", help="The cluster.", hidden=True, shell_complete=complete_cluster
)
@task_options
@click.option("-d", "--detach-run", "--detach", "detach", is_flag=True, help="Return when the job is queued.")
@project_option
@answering
def exec_(
    session: Session,
    /,
    words: tuple[str, ...],
    cluster: str | None,
    detach: bool,
    project: str | None,
    **flags: Any,
) -> None:
    """Run a task on an existing cluster, without setup."""

    if cluster is None:
        if not words:
            raise click.UsageError("name a cluster, then what to run on it")
        cluster, words = words[0], words[1:]
    described = parse_described(session, words, flags)
    screen = session.screen
    stage = ["Nothing was queued."]
    with session.on_interrupt(lambda: stage[0]):
        screen.warn(described.warnings)
        task = send_files(session, described.task, "" if project else cluster)
        stage[0] = f"It may have been queued: `argosy queue {cluster}` shows it."
        reply = session.client.exec(cluster, [task], user=session.user, project=project or "")
    screen.warn(reply.warnings)
    if detach and screen.told(reply):
        return
    ref = reply.jobs[0]
    job = _followed(ref.id, ref.number, ref.name, cluster, task)
    _follow(session, job, detach=detach)


@click.command(
    name="launch",
    epilog="""\b
Examples:
  argosy jobs launch task.yaml
  argosy jobs launch -n sweep-1 --use-spot --gpus A100:8 -- python train.py
  argosy jobs launch -d task.yaml
  argosy jobs launch --num-jobs 100 --parallel 8 task.yaml
  argosy jobs launch --after 12 -- python evaluate.py

Ends with 0 when the job succeeded, 1 when it did not, 130 on Ctrl-C, which only stops watching.""",
)
@click.argument("words", nargs=-1, metavar="[FILE.yaml | -- COMMAND...]")
@task_options
@weighing_options
@group_options
@click.option("--job-recovery", metavar="STRATEGY", help="How to recover from lost nodes.")
@click.option("-d", "--detach-run", "--detach", "detach", is_flag=True, help="Return when the job is queued.")
@yes_option
@project_option
@answering
def jobs_launch(
    session: Session,
    /,
    words: tuple[str, ...],
    job_recovery: str | None,
    detach: bool,
    yes: bool,
    project: str | None,
    **flags: Any,
) -> None:
    """Queue a managed job: it owns its nodes, and recovers when it loses them.

    Several tasks in one file, a `matrix:`, `--num-jobs` and `--after` make a group of jobs.
    """

    wish = GroupWish(*(flags.pop(name) for name in GroupWish._fields))
    group = parse_group(session, words, flags, wish, job_recovery=job_recovery)
    if group is not None:
        _launch_group(session, group, yes=yes, project=project, detach=detach)
        return
    described = parse_described(session, words, flags, job_recovery=job_recovery)
    screen = session.screen
    stage = ["Nothing was queued."]
    with session.on_interrupt(lambda: stage[0]):
        screen.warn(described.warnings)
        first = (screen.is_terminal() and not yes) or needs_files(described.task)
        named = _show_plan(session, described.task, None, yes=yes, managed=True) if first else ""
        task = send_files(session, described.task)
        stage[0] = "It may have been queued: `argosy jobs queue` shows it."
        reply = session.client.jobs_launch([task], user=session.user, project=project or "", plan=named)
    if reply.plan is not None and not first:
        _tell_plan(session, reply.plan, reply.deadline)
    screen.warn(reply.warnings)
    if detach and screen.told(reply):
        return
    ref = reply.jobs[0]
    job = _followed(ref.id, ref.number, ref.name, None, task)
    screen.say(f"managed job {job.number} is queued", "dim")
    _follow(session, job, detach=detach)


def _launch_group(
    session: Session, group: DescribedGroup, *, yes: bool, project: str | None, detach: bool
) -> None:
    from argosy.cli.groups import followed_to_end

    screen, layout = session.screen, group.layout
    stage = ["Nothing was queued."]
    with session.on_interrupt(lambda: stage[0]):
        screen.warn(group.warnings)
        if screen.is_terminal() and not yes:
            for task in () if group.pool else group.tasks[:1] if len(group.tasks) > 3 else group.tasks:
                _show_plan(session, task, None, yes=True, managed=True)
            screen.confirm(f"Queue {many(layout.size, 'job')} as one group?", yes=yes)
        tasks = [send_files(session, task) for task in group.tasks]
        stage[0] = "It may have been queued: `argosy jobs queue` shows it."
        reply = session.client.launch_group(
            tasks,
            layout,
            name=group.name,
            after=group.after,
            when=group.when,
            notify=group.notify,
            pool=group.pool,
            user=session.user,
            project=project or "",
        )
    screen.warn(reply.warnings)
    if detach and screen.told(reply):
        return
    number = reply.jobs[0].number
    what = "managed job" if layout.size == 1 else f"group of {layout.size} managed jobs"
    said = f"job {number} is queued" if layout.size == 1 else f"job {number} is queued, a {what}"
    if detach:
        screen.print(said)
        screen.say(
            f"  watch it:  argosy jobs queue --tasks {number}\n  cancel it: argosy jobs cancel {number}"
        )
        return
    screen.say(said, "dim")
    followed_to_end(session, number)


# --- steps -----------------------------------------------------------------------------------------


def _ask_first(
    session: Session, task: Task, cluster: str | None, project: str | None, *, yes: bool
) -> tuple[bool, str]:
    """Whether the plan was looked at before the launch, and the id of the one that was confirmed."""
    asks = session.screen.is_terminal() and not yes
    if not asks and not needs_files(task):  # no files are sent for what cannot start
        return False, ""
    if cluster is None or not _exists(session, cluster, project):
        return True, _show_plan(session, task, cluster, yes=yes)
    session.screen.confirm(f"Run {_called(task)} on the existing cluster `{cluster}`?", yes=yes)
    return True, ""


def _exists(session: Session, cluster: str, project: str | None) -> bool:
    """Whether the project has a live cluster of this name: one of another project is not reused."""
    from argosy.model.errors import ArgosyError

    own = project or session.project
    try:
        view = session.client.cluster(f"{project}/{cluster}" if project else cluster)
        return view.status != "finished" and view.project in ("", own)
    except ArgosyError as error:
        if error.code not in ("not-found", "conflict"):  # several others are called so, none of ours
            raise
        return False


def _dryrun(session: Session, task: Task) -> None:
    """The plan of a launch, as `argosy plan` shows it. Errors: what would refuse the launch."""
    from argosy.api.plans import no_offer
    from argosy.cli.planning import show_plan, warn_of_files
    from argosy.model.errors import ArgosyError
    from argosy.model.offer import waits_for

    screen = session.screen
    short = reply = session.client.plan(task, managed=False, user=session.user)
    fits = bool(short.plan.choices or waits_for(short.plan))
    try:
        reply = session.client.plan(
            task, prices=True, limit=10, distinct=True, managed=False, user=session.user
        )
    except ArgosyError:
        if fits:
            raise
    screen.told(reply)
    screen.warn(reply.warnings)
    warn_of_files(session, task)
    if not screen.for_programs and (fits or reply.offers):
        screen.warn(reply.notes)
        show_plan(session, task, reply)
        for line in reply.folders:
            screen.print(line)
    if not fits:
        raise no_offer(task, short.plan)
    if not screen.for_programs:
        screen.print("\nNothing was launched (--dryrun).")


def _show_plan(session: Session, task: Task, cluster: str | None, *, yes: bool, managed: bool = False) -> str:
    """Where it will run and for how much; asks on a terminal. The id of the plan when it was confirmed, else
    "". Errors: "no-offer"."""
    from argosy.api.plans import no_offer
    from argosy.model.offer import waits_for

    reply = session.client.plan(task, managed=managed, user=session.user)
    screen = session.screen
    screen.warn(reply.warnings)
    if not reply.plan.choices and not waits_for(reply.plan):
        raise no_offer(task, reply.plan)
    _tell_plan(session, reply.plan, reply.deadline)
    screen.warn(reply.notes)
    for line in reply.folders:
        screen.say(line)
    if yes or not screen.is_terminal():
        return ""
    limit = reply.max_hourly_micro_usd
    if limit is not None and any(each.price_micro_usd < limit for each in reply.plan.choices[:1]):
        screen.say(f"Other places are tried when the first refuses, up to {render_price(limit)}/h.")
    if managed:
        question = f"Queue {_called(task)} as a managed job?"
    else:
        question = f"Launch {_called(task)} on a new cluster{f' `{cluster}`' if cluster else ''}?"
    screen.confirm(question, yes=yes)
    return reply.id


def _tell_plan(session: Session, plan: Plan, deadline: str) -> None:
    from argosy.model.offer import waits_for

    screen = session.screen
    screen.end_progress()
    if waits := waits_for(plan):
        screen.say(waits)
    elif plan.choices:
        _plan_table(session, plan, most=5, stream_out=False)
    if deadline:
        screen.say(deadline)


def _plan_table(session: Session, plan: Plan, *, most: int, stream_out: bool) -> None:
    screen = session.screen
    choices = plan.choices[:most]
    screen.table(
        ("INFRA", "INSTANCE", "NODES", "CPUS", "MEMORY", "ACCELERATORS", "KIND", "$/H", "CHOSEN"),
        [_choice_row(choice, plan.num_nodes, index == 0) for index, choice in enumerate(choices)],
        stream=screen.out if stream_out else screen.err,
        right=("NODES", "CPUS", "MEMORY", "$/H"),
        spare=("MEMORY", "CPUS", "NODES", "CHOSEN", "INSTANCE"),
    )
    if len(plan.choices) > most:
        (screen.print if stream_out else screen.say)(f"and {len(plan.choices) - most} more")


def _choice_row(choice: Choice, num_nodes: int, chosen: bool) -> list[str]:
    offer, shape = choice.offer, choice.offer.shape
    accelerators = (
        f"{choice.accelerator or 'any'}:{render_milli(choice.accelerators_milli)}"
        if choice.accelerators_milli
        else ""
    )
    return [
        "/".join(part for part in (offer.provider, offer.region, offer.zone) if part),
        shape.instance_type,
        str(num_nodes),
        render_milli(choice.cpus_milli)
        if choice.cpus_milli
        else f"any ({render_milli(shape.cpus_milli)} available)",
        render_bytes(choice.memory_bytes)
        if choice.memory_bytes
        else f"any ({render_bytes(shape.memory_bytes)} available)",
        accelerators,
        offer.capacity.value,
        render_price(choice.price_micro_usd) + ("~" if offer.estimated else ""),
        "yes" if chosen else "",
    ]


def _called(task: Task) -> str:
    return f"task `{task.name}`" if task.name else "the task"


def send_files(session: Session, task: Task, cluster: str = "") -> Task:
    def show(progress: Progress) -> None:
        if progress.stage == "scan":
            hashed = f", {render_bytes(progress.done_bytes)} read" if progress.done_bytes else ""
            session.screen.progress(f"{progress.what}: {many(progress.files, 'file')}{hashed}")
        elif progress.stage == "send":
            part = 100 * progress.done_bytes // max(1, progress.total_bytes)
            session.screen.progress(
                f"{progress.what}: sent {render_bytes(progress.done_bytes)} of "
                f"{render_bytes(progress.total_bytes)} ({part} %)"
            )

    sent = session.client.send_files(task, cwd=session.cwd, on_progress=show, cluster=cluster)
    screen = session.screen
    screen.warn(sent.warnings)
    if sent.files:
        what = render_bytes(sent.sent_bytes) + " sent" if sent.sent_bytes else "nothing new to send"
        screen.say(f"files: {many(sent.files, 'entry')}, {what}", "dim")
    return sent.task


def _followed(job_id: str, number: int, name: str, cluster: str | None, task: Task) -> Followed:
    from argosy.cli.following import Followed

    return Followed(job_id, number, name or task.name or "", cluster, task.num_nodes)


def _follow(session: Session, job: Followed, *, detach: bool, says_next: bool = False) -> None:
    """Show the log to the end of the job, or how to. Raises Exit with the status of the job."""
    from argosy.cli.following import follow

    if detach:
        _say_detached(session, job)
        return
    status = follow(session, job, silent=session.screen.for_programs)
    if session.screen.for_programs:
        session.screen.json(session.client.job(job.job_id))
    elif says_next:
        _say_next(session, job)
    raise click.exceptions.Exit(status)


def _say_detached(session: Session, job: Followed) -> None:
    session.note_clusters()
    where = f"on `{job.cluster}`" if job.cluster else "as a managed job"
    session.screen.print(f"job {job.number} is queued {where}")
    session.screen.say(f"  watch it:  {job.logs_command}\n  cancel it: {job.cancel_command}")


def _say_next(session: Session, job: Followed) -> None:
    if session.screen.is_terminal():
        session.screen.say(
            f"  log again: {job.logs_command}\n"
            f"  run more:  argosy exec {job.cluster} -- COMMAND\n"
            f"  end it:    argosy down {job.cluster}",
            "dim",
        )


def _wait_for_cluster(session: Session, reply: LaunchReply, detach: bool) -> None:
    """A launch without a program: wait until the cluster can be used."""
    import time

    from argosy.model.errors import ArgosyError

    screen = session.screen
    if detach:
        screen.print(f"cluster `{reply.cluster}` is being made")
        return
    with session.on_interrupt(
        lambda: f"The cluster goes on without you: `argosy status {reply.cluster}` shows it."
    ):
        wait_s = 0.05
        while True:
            view = session.client.cluster(reply.cluster)
            if view.status in ("running", "degraded"):
                session.note_clusters()
                screen.print(f"cluster `{reply.cluster}` is running")
                return
            if view.status in ("finished", "stopped", "stopping"):
                raise ArgosyError(
                    "wrong-state",
                    f"cluster `{reply.cluster}` is {view.status}: {view.detail or 'it did not start'}",
                )
            screen.progress(f"cluster `{reply.cluster}` is {view.status} {view.detail}".rstrip())
            time.sleep(wait_s)
            wait_s = min(wait_s * 1.5, 1.0)

"""status, stop, start, down, autostop: what is there, and what shall be."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

import click

from argosy.cli.session import (
    Minutes,
    Session,
    answering,
    complete_cluster,
    examples,
    pass_session,
    resolve_names,
    yes_option,
)
from argosy.model.units import render_bytes, render_duration, render_milli, render_price

if TYPE_CHECKING:
    from argosy.api.clusters import ClusterView, NodeView, StatusReply
    from argosy.api.jobs import JobView, TaskCounts
    from argosy.model.resources import Autostop


def _asked(session: Session, *, refresh: bool, every: bool) -> StatusReply:
    reply = session.client.status(refresh=refresh, all=every)
    session.note_clusters(reply.clusters)
    return reply


@click.command(
    epilog=examples(
        "argosy status",
        "argosy status -r dev",
        "curl $(argosy status --endpoint 8080 dev)",
        "argosy status --json | jq '.clusters[].name'",
    )
)
@click.argument("clusters", nargs=-1, shell_complete=complete_cluster)
@click.option("-r", "--refresh", is_flag=True, help="Ask the infrastructure first.")
@click.option("-a", "--all", "every", is_flag=True, help="Also finished clusters.")
@click.option("-v", "--verbose", is_flag=True, help="Also their nodes.")
@click.option("--ip", is_flag=True, help="Print only the address of the first node.")
@click.option("--endpoint", type=click.IntRange(1, 65535), metavar="PORT", help="The same, with this port.")
@answering
def status(
    session: Session,
    clusters: tuple[str, ...],
    refresh: bool,
    every: bool,
    verbose: bool,
    ip: bool,
    endpoint: int | None,
) -> None:
    """Show clusters and live managed jobs."""
    import msgspec

    from argosy.model.errors import ArgosyError

    reply = _asked(session, refresh=refresh, every=every)
    if clusters:
        from fnmatch import fnmatchcase

        def is_meant(one: ClusterView, name: str) -> bool:
            return fnmatchcase(one.name, name) or fnmatchcase(session.called(one), name)

        for name in clusters:
            if not any(is_meant(one, name) for one in reply.clusters):
                raise ArgosyError("not-found", f"there is no cluster `{name}`")
        chosen = tuple(one for one in reply.clusters if any(is_meant(one, name) for name in clusters))
        reply = msgspec.structs.replace(reply, clusters=chosen, jobs=())
    screen = session.screen
    if screen.told(reply):
        return
    if ip or endpoint:
        for cluster in reply.clusters:
            if cluster.nodes:
                screen.print(cluster.nodes[0].ip + (f":{endpoint}" if endpoint else ""))
        return
    now_ms = session.now_ms()
    if reply.as_of_ms:
        known = age(reply.as_of_ms, now_ms)
        screen.warn([f"the server's database does not answer: this is what was known {known} ago"])
    if not reply.clusters and not reply.jobs:
        screen.print("No clusters and no live managed jobs. Make one: argosy launch -c NAME -- COMMAND")
        return
    if reply.clusters:
        _cluster_table(session, reply.clusters, now_ms)
    if verbose:
        for cluster in reply.clusters:
            if cluster.nodes:
                screen.print(f"\nNodes of {cluster.name}")
                screen.table(
                    ("NODE", "STATUS", "IP", "CPUS", "MEMORY", "ACCELERATORS", "LOAD"),
                    [_node_row(node) for node in cluster.nodes],
                    right=("CPUS", "MEMORY", "LOAD"),
                    spare=("LOAD", "IP", "MEMORY"),
                )
    for cluster in reply.clusters:
        for line in filter(None, (cluster.detail, _rest_line(cluster, now_ms))):
            screen.print(f"{session.called(cluster)}: {line}")
    if reply.jobs:
        screen.print("\nManaged jobs" if reply.clusters else "Managed jobs")
        job_table(session, reply.jobs)


def _cluster_table(session: Session, clusters: tuple[ClusterView, ...], now_ms: int) -> None:
    session.screen.table(
        ("NAME", "STATUS", "INFRA", "RESOURCES", "NODES", "JOBS", "AUTOSTOP", "$/H", "AGE"),
        [_cluster_row(session, cluster, now_ms) for cluster in clusters],
        right=("NODES", "$/H", "AGE"),
        spare=("RESOURCES", "AGE", "NODES", "AUTOSTOP", "$/H", "INFRA"),
    )


def _rest_line(cluster: ClusterView, now_ms: int) -> str:
    """When it stops by itself, or what keeps it from that."""
    what = "is deleted" if cluster.autostop.down else "stops"
    when = f"{what} in {render_duration(max(0, cluster.stops_at_ms - now_ms) / 1000)}"
    if cluster.in_use:
        at_last = f"; it {when} in any case" if cluster.stops_at_ms and cluster.autostop.max_s else ""
        return f"not idle: {cluster.in_use}{at_last}"
    return f"idle; {when} unless it is used" if cluster.stops_at_ms else ""


def _cluster_row(session: Session, cluster: ClusterView, now_ms: int) -> list[str]:
    jobs = ", ".join(
        f"{count} {what}"
        for count, what in ((cluster.jobs_running, "running"), (cluster.jobs_queued, "queued"))
        if count
    )
    return [
        session.called(cluster),
        cluster.status,
        cluster.infra,
        cluster.resources,
        str(cluster.num_nodes),
        jobs,
        render_autostop(cluster.autostop, cluster.down_when_done),
        render_price(cluster.price_micro_usd),
        age(cluster.created_ms, now_ms),
    ]


def _node_row(node: NodeView) -> list[str]:
    models: dict[str, int] = {}
    for device in node.devices:
        models[device.model] = models.get(device.model, 0) + 1
    return [
        str(node.index),
        node.phase,
        node.ip,
        render_milli(node.cpus_milli) if node.cpus_milli else "",
        render_bytes(node.memory_bytes) if node.memory_bytes else "",
        ", ".join(f"{model}:{count}" for model, count in models.items()),
        f"{node.load_milli / 1000:.2f}",
    ]


def render_autostop(policy: Autostop, down_when_done: bool = False) -> str:
    """The idle policy in a table's cell."""
    if down_when_done:
        return "down when done"
    if policy.idle_s is None:
        return ""
    return render_duration(policy.idle_s) + (" (down)" if policy.down else "")


def age(since_ms: int, now_ms: int) -> str:
    """How long ago. A clock that was set back shows as 0s."""
    return render_duration(max(0, now_ms - since_ms) / 1000) if since_ms else ""


def job_table(session: Session, jobs: tuple[JobView, ...], *, with_cluster: bool = False) -> None:
    """Jobs with what they wait for or why they ended."""
    from argosy.pages.pool_text import starts_in

    now_ms = session.now_ms()
    columns = (
        "ID",
        "NAME",
        "CLUSTER",
        "STATUS",
        "RESOURCES",
        "NODES",
        "TASKS",
        "SUBMITTED",
        "POSITION",
        "STARTS",
        "TOOK",
        "RECOVERIES",
        "CHECKPOINT",
        "DETAIL",
    )
    rows = [
        [
            str(job.number) if job.group is None else f"{job.group}/{job.number}",
            job.name,
            (job.cluster or "") if with_cluster else "",
            job.status,
            job.resources,
            str(job.num_nodes) if job.num_nodes > 1 else "",
            tasks_cell(job.tasks) if job.tasks is not None else "",
            f"{age(job.created_ms, now_ms)} ago" if job.created_ms else "",
            str(job.position or ""),
            "" if job.starts_at_ms is None else starts_in(job.starts_at_ms, now_ms),
            render_duration(max(0, (job.ended_ms or now_ms) - job.started_ms) / 1000)
            if job.started_ms
            else "",
            str(job.recoveries) if job.recoveries else "",
            f"{render_bytes(job.checkpoint_bytes)}, {age(job.checkpoint_ms, now_ms)} ago"
            if job.checkpoint_ms
            else "",
            job.detail,
        ]
        for job in jobs
    ]
    session.screen.table(
        columns,
        rows,
        right=("ID", "NODES", "SUBMITTED", "POSITION", "STARTS", "TOOK", "RECOVERIES"),
        spare=(
            "CHECKPOINT",
            "RECOVERIES",
            "SUBMITTED",
            "POSITION",
            "NODES",
            "RESOURCES",
            "TOOK",
            "STARTS",
            "NAME",
        ),
    )


def tasks_cell(counts: TaskCounts) -> str:
    """
    >>> from argosy.api.jobs import TaskCounts
    >>> tasks_cell(TaskCounts(total=1000, waiting=880, running=100, succeeded=18, failed=2))
    '20/1000 done: 100 running, 2 failed'
    """
    done = counts.succeeded + counts.failed + counts.cancelled + counts.skipped
    parts = [
        f"{getattr(counts, name)} {name}"
        for name in ("running", "failed", "cancelled", "skipped")
        if getattr(counts, name)
    ]
    return f"{done}/{counts.total} done" + (f": {', '.join(parts)}" if parts else "")


def _each(session: Session, names: list[str], act: Callable[[str], object], done: str) -> None:
    """Do it to each; one that fails does not keep the others from it. Raises the first error at the end."""
    from argosy.model.errors import ArgosyError

    first: ArgosyError | None = None
    for name in names:
        try:
            act(name)
        except ArgosyError as error:
            if first is not None:
                session.screen.say_error(first)
            first = error
            continue
        session.screen.print(done.format(name=name))
    if first is not None:
        raise first


@click.command(epilog=examples("argosy stop dev", "argosy stop 'train-*' -y"))
@click.argument("clusters", nargs=-1, shell_complete=complete_cluster)
@click.option("-a", "--all", "every", is_flag=True, help="All clusters.")
@yes_option
@pass_session
def stop(session: Session, clusters: tuple[str, ...], every: bool, yes: bool) -> None:
    """Stop clusters, keeping their disks. `argosy start CLUSTER` brings them back."""
    names = resolve_names(session, clusters, every)
    if names:
        session.screen.confirm(f"Stop {_listing(names)}? Running jobs end.", yes=yes)
    _each(session, names, session.client.stop, "{name}: stopping; `argosy start {name}` brings it back")


@click.command(epilog=examples("argosy start dev", "argosy start dev -i 30"))
@click.argument("clusters", nargs=-1, shell_complete=complete_cluster)
@click.option("-a", "--all", "every", is_flag=True, help="All clusters.")
@click.option(
    "-i",
    "--idle-minutes-to-autostop",
    "idle",
    type=Minutes(),
    metavar="MIN",
    help="Also set its autostop: idle minutes.",
)
@click.option("--down", is_flag=True, help="With -i: delete it instead of stopping it.")
@yes_option
@pass_session
def start(
    session: Session, clusters: tuple[str, ...], every: bool, idle: int | None, down: bool, yes: bool
) -> None:
    """Start stopped clusters again, or replace their dead nodes."""
    names = resolve_names(session, clusters, every)

    def act(name: str) -> None:
        session.client.start(name)
        if idle is not None:
            session.client.autostop(name, autostop_policy(idle, down))

    _each(session, names, act, "{name}: starting")


@click.command(epilog=examples("argosy down dev", "argosy down -a -y"))
@click.argument("clusters", nargs=-1, shell_complete=complete_cluster)
@click.option("-a", "--all", "every", is_flag=True, help="All clusters.")
@yes_option
@click.option("-p", "--purge", is_flag=True, hidden=True)
@pass_session
def down(session: Session, clusters: tuple[str, ...], every: bool, yes: bool, purge: bool) -> None:
    """End clusters and their jobs. Logs are kept."""
    names = resolve_names(session, clusters, every)
    if every and not names:
        session.screen.print("There are no clusters.")
    if names:
        session.screen.confirm(f"End {_listing(names)}? Their disks go too.", yes=yes)
    _each(session, names, session.client.down, "{name}: going down")
    session.note_clusters()


def _listing(names: list[str]) -> str:
    shown = ", ".join(f"`{name}`" for name in names[:5])
    return shown + (f" and {len(names) - 5} more" if len(names) > 5 else "")


def autostop_policy(
    idle_minutes: int, down: bool, wait_for: str | None = None, max_minutes: int | None = None
) -> Autostop:
    """The policy of `-i MIN`: a negative number means never, as in SkyPilot."""
    from argosy.model.resources import Autostop

    return Autostop(
        idle_s=None if idle_minutes < 0 else idle_minutes * 60,
        down=down,
        wait_for=wait_for or "jobs_and_ssh",
        max_s=None if max_minutes is None else max_minutes * 60,
    )


@click.command(
    epilog=examples(
        "argosy autostop dev -i 30",
        "argosy autostop dev -i 30 --down --max-duration 8h",
        "argosy autostop dev --cancel",
    )
)
@click.argument("clusters", nargs=-1, shell_complete=complete_cluster)
@click.option("-a", "--all", "every", is_flag=True, help="All clusters.")
@click.option(
    "-i",
    "--idle-minutes",
    "--idle-minutes-to-autostop",
    "idle",
    type=Minutes(),
    metavar="MIN",
    help="Idle minutes, or a duration such as 2h. [default: 5]",
)
@click.option("--down", is_flag=True, help="Delete it instead of stopping it.")
@click.option("--cancel", is_flag=True, help="Turn autostop off.")
@click.option(
    "--wait-for",
    type=click.Choice(["jobs_and_ssh", "jobs", "gpu", "none"]),
    help="What counts as not idle. [default: jobs_and_ssh]",
)
@click.option(
    "--max-duration", "longest", type=Minutes(), metavar="MIN", help="Also after this long, idle or not."
)
@yes_option
@pass_session
def autostop(
    session: Session,
    clusters: tuple[str, ...],
    every: bool,
    idle: int | None,
    down: bool,
    cancel: bool,
    wait_for: str | None,
    longest: int | None,
    yes: bool,
) -> None:
    """Set after how much idle time a cluster is stopped or deleted."""
    if cancel and (idle is not None or down or longest is not None):
        raise click.UsageError("--cancel takes neither -i, --max-duration nor --down")
    minutes = idle if idle is not None else -1 if cancel or longest is not None else 5
    policy = autostop_policy(minutes, down, wait_for, longest)
    whens = [f"after {render_duration(policy.idle_s)} idle"] if policy.idle_s is not None else []
    if policy.max_s is not None:
        whens.append(f"{render_duration(policy.max_s)} after its start")
    what = "deleted" if down else "stopped"
    done = f"{{name}} will be {what} {' or '.join(whens)}" if whens else "autostop is off for {name}"
    names = resolve_names(session, clusters, every)
    _each(session, names, lambda name: session.client.autostop(name, policy), done)

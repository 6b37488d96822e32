"""pool and explain: the machines, who holds which part of them, and why something waits."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import zip_longest
from pathlib import Path
from typing import TYPE_CHECKING, Final

import click

from argosy.cli import hosts as host_commands
from argosy.cli.clusters import age
from argosy.cli.session import Session, answering, complete_cluster, examples, json_option
from argosy.model.units import do, many, many_do, render_bytes, render_duration, render_milli

if TYPE_CHECKING:
    from argosy.api.pool import ExplainReply, PoolView
    from argosy.api.quota import QueueView
    from argosy.model.tenancy import Tenancy

_WAITING_SHOWN: Final = 10


@click.group(
    invoke_without_command=True,
    epilog=examples(
        "argosy pool",
        "argosy pool map",
        "argosy pool map --html map.html",
        "argosy pool add lab --hosts gpu1,gpu2 --user me",
        "argosy pool hosts",
    ),
)
@json_option
@click.pass_context
def pool(context: click.Context) -> None:
    """Shared machines: free capacity, allocations, pending workloads. Without a command: `top`."""
    if context.invoked_subcommand is None:
        context.invoke(top)


for _command in host_commands.COMMANDS:
    pool.add_command(_command)


def _chosen(session: Session, names: tuple[str, ...]) -> tuple[PoolView, ...]:
    """The pools that are meant; all when none is named. Errors: "not-found"."""
    from argosy.model.errors import ArgosyError, suggest

    pools = session.client.pools().pools
    for name in names:
        if not any(name in (pool.name, pool.id) for pool in pools):
            hint = suggest(name, (pool.name for pool in pools), otherwise="`argosy pool` lists them")
            raise ArgosyError("not-found", f"there is no pool `{name}`", hint=hint)
    return tuple(pool for pool in pools if not names or pool.name in names or pool.id in names)


@pool.command(epilog=examples("argosy pool top", "argosy pool top dgx --json"))
@click.argument("pools", nargs=-1)
@answering
def top(session: Session, pools: tuple[str, ...] = ()) -> None:
    """Show each pool: GPUs used and free by model, by user and queue, nodes, pending workloads, and the
    largest gang that fits."""
    from argosy.api.pool import PoolList

    chosen = _chosen(session, pools)
    if session.screen.told(PoolList(pools=chosen)):
        return
    if not chosen:
        session.screen.print(
            "No pools: there are no owned machines and no running clusters. `argosy check` says more."
        )
        return
    for number, each in enumerate(chosen):
        if number:
            session.screen.print()
        _show_pool(session, each)


def _show_pool(session: Session, pool: PoolView) -> None:
    from argosy.pages.pool_text import headline

    screen = session.screen
    screen.print(f"{screen.paint(pool.name, 'bold', screen.out)}: {headline(pool)}")
    screen.warn(pool.warnings)
    if any(machine.devices for machine in pool.machines):
        _model_table(session, pool)
    if pool.holders:
        _people_table(session, pool)
    if pool.machines:
        _machine_table(session, pool)
    if pool.waiting:
        _waiting_table(session, pool)


def _model_table(session: Session, pool: PoolView) -> None:
    from argosy.pages.pool_text import used_milli

    models: dict[str, list[int]] = {}
    for machine in pool.machines:
        for device in machine.devices:
            row = models.setdefault(device.device.model, [0, 0, 0])
            row[0] += 1000
            row[1] += used_milli(device)
            row[2] += max(0, 1000 - used_milli(device)) if machine.open else 0
    rows = []
    for model in sorted(models):
        total, used, free = models[model]
        gangs = [gang for gang in pool.gangs if gang.model == model]
        gangs = [  # what a larger size says, too, is left out
            gang
            for gang in gangs
            if not any(o.gpus > gang.gpus and o.num_nodes >= gang.num_nodes for o in gangs)
        ]
        rows.append(
            [
                model,
                render_milli(total),
                render_milli(used),
                render_milli(free),
                ", ".join(f"{many(gang.num_nodes, 'node')} with {gang.gpus}" for gang in gangs)
                or "no whole GPU is free",
            ]
        )
    session.screen.print()
    session.screen.table(
        ("GPUS", "ALL", "USED", "FREE", "LARGEST GANGS THAT FIT NOW"), rows, right=("ALL", "USED", "FREE")
    )


def _people_table(session: Session, pool: PoolView) -> None:
    """By user and queue, with those who only wait."""
    gpus: dict[tuple[str, str], int] = {}
    runs: dict[tuple[str, str], int] = {}
    waits: dict[tuple[str, str], int] = {}
    keys = [(holder.user, holder.queue) for holder in pool.holders]
    for key in keys:
        runs[key] = runs.get(key, 0) + 1
    for machine in pool.machines:
        for device in machine.devices:
            for share in device.shares:
                gpus[keys[share.holder]] = gpus.get(keys[share.holder], 0) + share.milli
    for each in pool.waiting:
        key = (each.user, each.queue)
        waits[key] = waits.get(key, 0) + 1
    order = sorted({*runs, *waits}, key=lambda key: (-gpus.get(key, 0), key))
    session.screen.print()
    session.screen.table(
        ("USER", "QUEUE", "GPUS", "RUNNING", "WAITING"),
        [
            [
                user or "-",
                queue,
                render_milli(gpus.get((user, queue), 0)),
                str(runs.get((user, queue), "")),
                str(waits.get((user, queue), "")),
            ]
            for user, queue in order
        ],
        right=("GPUS", "RUNNING", "WAITING"),
    )


def _machine_table(session: Session, pool: PoolView) -> None:
    from argosy.pages.pool_text import used_milli

    rows = []
    for machine in pool.machines:
        used = sum(map(used_milli, machine.devices))
        models = sorted({device.device.model for device in machine.devices})
        rows.append(
            [
                machine.name,
                "open" if machine.open else machine.closed or "closed",
                "/".join(models),
                f"{render_milli(used)}/{len(machine.devices)}" if machine.devices else "",
                f"{render_milli(machine.cpus_used_milli)}/{render_milli(machine.cpus_milli)}",
                f"{render_bytes(machine.memory_used_bytes)} of {render_bytes(machine.memory_bytes)}",
                ", ".join(machine.groups),
                "/".join(machine.domains),
                str(len(machine.holders) or ""),
            ]
        )
    session.screen.print()
    session.screen.table(
        ("NODE", "STATE", "MODEL", "GPUS", "CPUS", "MEMORY", "GROUPS", "DOMAIN", "HOLDERS"),
        rows,
        right=("GPUS", "CPUS", "MEMORY", "HOLDERS"),
        spare=("DOMAIN", "GROUPS", "MEMORY", "MODEL", "HOLDERS"),
    )


def _waiting_table(session: Session, pool: PoolView) -> None:
    from argosy.model.kinds import is_named
    from argosy.pages.pool_text import starts_in, wish_of

    now_ms = session.now_ms()
    session.screen.print()
    session.screen.table(
        ("WAITS", "JOB", "USER", "QUEUE", "ASKS FOR", "STARTS", "WHY"),
        [
            [
                str(each.position or ""),
                f"cluster {each.name}"
                if is_named(each.kind)
                else f"{each.label or each.number} {each.name}".strip(),
                each.user,
                each.queue,
                wish_of(each),
                "" if each.starts_at_ms is None else starts_in(each.starts_at_ms, now_ms),
                each.text,
            ]
            for each in pool.waiting[:_WAITING_SHOWN]
        ],
        right=("WAITS",),
    )
    if len(pool.waiting) > _WAITING_SHOWN:
        session.screen.say(f"and {len(pool.waiting) - _WAITING_SHOWN} more wait", "dim")


@pool.command(
    name="map",
    epilog="""\b
Examples:
  argosy pool map
  argosy pool map dgx --html map.html
  argosy pool map --svg map.svg

A block for each GPU in the colour of who holds it; parts of a GPU are as wide as they are large. Without colours: `AA` holds
a whole GPU, `a` a part, `··` is free, `--` takes nothing new.""",  # noqa: E501
)
@click.argument("pools", nargs=-1)
@click.option("--html", metavar="FILE", help="Write an HTML page instead, with tooltips.")
@click.option("--svg", metavar="FILE", help="Write an SVG drawing instead, with tooltips.")
@answering
def map_(session: Session, pools: tuple[str, ...], html: str | None, svg: str | None) -> None:
    """Draw nodes and GPUs as blocks, coloured by who holds them."""
    from argosy.api.pool import PoolList
    from argosy.pages.pool_map import render_html, render_svg

    chosen = _chosen(session, pools)
    if session.screen.told(PoolList(pools=chosen)):
        return
    now_ms = session.now_ms()
    if html is not None:
        _write(session, html, render_html(chosen, now_ms=now_ms))
    if svg is not None:
        _write(session, svg, render_svg(chosen, now_ms=now_ms))
    if html is None and svg is None:
        for number, each in enumerate(chosen):
            if number:
                session.screen.print()
            _draw(session, each)
        if not chosen:
            session.screen.print("No pools: there are no owned machines and no running clusters.")


def _write(session: Session, name: str, text: str) -> None:
    from argosy.model.errors import ArgosyError

    try:
        (session.cwd / Path(name).expanduser()).write_text(text, encoding="utf-8")
    except OSError as error:
        raise ArgosyError("usage", f"`{name}` cannot be written: {error.strerror}") from None
    session.screen.say(f"written: {name}")


def _draw(session: Session, pool: PoolView) -> None:
    from argosy.cli.pool_drawing import BETWEEN, Row, columns_of, draw_rows
    from argosy.pages.pool_text import free_milli, headline, legend_of, people_of

    screen = session.screen
    coloured = screen.has_colours(screen.out)
    screen.print(f"{screen.paint(pool.name, 'bold', screen.out)}: {headline(pool)}")
    screen.warn(pool.warnings)
    rows = draw_rows(pool, width=screen.columns(), coloured=coloured)
    block = max((row.width for row in rows), default=0)

    def drawn(row: Row) -> str:
        blocks = "".join(screen.shade(cell.text, cell.shade, cell.ground) for cell in row.cells)
        return f"{row.name}  {blocks} {row.note}" + " " * (block - row.width)

    for line in zip_longest(*columns_of(rows, pool, screen.columns())):
        screen.print(BETWEEN.join(drawn(row) for row in line if row is not None).rstrip())
    legend = []
    for person, text in legend_of(people_of(pool).values(), coloured=coloured):
        mark = screen.shade("██", person.shade) if coloured else person.letter
        legend.append((f"{mark} {text}", len(text) + (3 if coloured else 2)))
    if free := free_milli(pool):
        text = f"·· free ({many(render_milli(free), 'GPU')})"
        legend.append((text, len(text)))
    if any(machine.devices and not machine.open for machine in pool.machines):
        legend.append(("-- takes nothing new", 20))
    told, at = "", 0
    for text, wide in legend:
        if at and at + wide > screen.columns():
            screen.print(told.rstrip())
            told, at = "", 0
        told += text + BETWEEN
        at += wide + len(BETWEEN)
    screen.print(told.rstrip() if told else "nobody holds anything")


@pool.command(epilog=examples("argosy pool groups", "argosy pool groups --json"))
@answering
def groups(session: Session) -> None:
    """Show groups of nodes: which nodes, for which kinds of work, for which queues."""
    tenancy: Tenancy = session.client.tenancy().tenancy
    if session.screen.told(tenancy.groups):
        return
    if not tenancy.groups:
        session.screen.print("No groups: every node is open to everybody. `argosy quota apply` sets them.")
        return
    pools = session.client.pools().pools
    rows = []
    for group in tenancy.groups:
        mine = {
            machine.id: machine for pool in pools for machine in pool.machines if group.name in machine.groups
        }
        rows.append(
            [
                group.name,
                ", ".join(group.nodes),
                str(len(mine)),
                str(sum(len(machine.devices) for machine in mine.values()) or ""),
                ", ".join(group.kinds) or "all",
                ", ".join(group.queues) or "all",
            ]
        )
    session.screen.table(("GROUP", "NODES", "NOW", "GPUS", "KINDS", "QUEUES"), rows, right=("NOW", "GPUS"))


@pool.command(epilog=examples("argosy pool presets", "argosy launch --preset small -- python train.py"))
@answering
def presets(session: Session) -> None:
    """Show resources by name, for `--preset`."""
    tenancy: Tenancy = session.client.tenancy().tenancy
    rows = [[preset.name, preset.resources.render()] for preset in tenancy.presets]
    session.screen.listed(
        tenancy.presets, ("PRESET", "RESOURCES"), rows, none="No presets. `argosy quota apply` sets them."
    )


# -- explain ----------------------------------------------------------------------------------------


@click.command(
    epilog="""\b
Examples:
  argosy explain dev 3
  argosy explain 12
  argosy explain dev
  argosy explain chat
  argosy explain jupyter

A number alone is a managed job, a name alone a cluster, a session or a service. Ends with 0 also when the
job waits."""
)
@click.argument(
    "words", nargs=-1, metavar="[CLUSTER] JOB | CLUSTER | SESSION | SERVICE", shell_complete=complete_cluster
)
@answering
def explain(session: Session, words: tuple[str, ...]) -> None:
    """Explain why a job or cluster waits, when it will probably start and what would help; for one that
    runs, why it was placed there; for a session, when it is put to rest and by which rule."""
    from argosy.cli.jobs import find_job
    from argosy.model.kinds import kind_of_id

    if not 1 <= len(words) <= 2:
        raise click.UsageError("name a managed job, a cluster, a session, a service, or a cluster and a job")
    client = session.client
    if len(words) == 2:
        workload_id = find_job(session, words[0], words[1]).id
    elif kind_of_id(words[0]) is not None:
        workload_id = words[0]
    elif words[0].replace("/", "", 1).isdigit():
        workload_id = find_job(session, None, words[0]).id
    else:
        workload_id = _named(session, words[0])
    reply = client.explain(workload_id)
    if not session.screen.told(reply):
        _show_explanation(session, reply)


def _named(session: Session, name: str) -> str:
    """The id of a cluster, or else of a session or service, of this name. Errors: "not-found"."""
    from argosy.model.errors import ArgosyError

    try:
        return session.client.cluster(name).id
    except ArgosyError as error:
        if error.code != "not-found":
            raise
        sessions = session.client.sessions().sessions
        found = next((each.id for each in sessions if each.name == name), "")
        services = session.client.services().services if not found else ()
        found = found or next((each.id for each in services if each.name == name), "")
        if not found:
            raise
        return found


def _show_explanation(session: Session, reply: ExplainReply) -> None:
    screen = session.screen
    now_ms = session.now_ms()
    screen.print(f"{reply.title}: {screen.status(reply.status, screen.out)}")
    for line in reply.lines:
        screen.print(f"- {line}")
    if reply.queue is not None:
        screen.print(f"- {_queue_line(reply.queue)}")
    if reply.attempts:
        screen.print()
        screen.table(
            ("ATTEMPT", "STATUS", "PLACED", "RAN", "WHERE", "WHY"),
            [
                [
                    str(each.number),
                    each.status,
                    f"{age(each.placed_ms, now_ms)} ago" if each.placed_ms else "",
                    render_duration(max(0, (each.ended_ms or now_ms) - each.running_ms) / 1000)
                    if each.running_ms
                    else "",
                    _shortened(each.where),
                    "; ".join(part for part in (each.why, each.detail) if part),
                ]
                for each in reply.attempts
            ],
            right=("ATTEMPT", "PLACED", "RAN"),
            spare=("RAN", "PLACED", "WHERE"),
        )
    if reply.events:
        screen.print()
        for event in reply.events:
            screen.print(f"{age(event.at_ms, now_ms).rjust(8)} ago  {event.text}")


def _shortened(where: Sequence[str]) -> str:
    return f"{where[0]}; and {many(len(where) - 1, 'more node')}" if len(where) > 1 else "".join(where)


def _queue_line(queue: QueueView) -> str:
    """`its queue `acme/vision` uses 5 GPUs and 40 CPUs, deserves 4 GPUs, may have 8 GPUs; 1 job runs, 2
    wait`."""
    uses = [said(name, queue.used[name]) for name in ("gpus", "cpus", "memory") if queue.used.get(name)]
    told = " and ".join([", ".join(uses[:-1]), uses[-1]] if uses[1:] else uses)
    if not told and not queue.running:
        told = "nothing"
    parts = [f"its queue `{queue.path}`" + (f" uses {told}" if told else "")]
    for word, amounts in (("deserves", queue.deserved), ("may have", queue.limit)):
        if amounts:
            parts.append(
                f"{word} {', '.join(said(name, amount) for name, amount in sorted(amounts.items()))}"
            )
    return f"{', '.join(parts)}; {many_do(queue.running, 'job', 'run')}, {do(queue.waiting, 'wait')}"


def said(name: str, amount: int) -> str:
    """An amount of a queue with its unit.

    >>> said("gpus/A100", 1500), said("memory", 1 << 39), said("jobs", 1), said("cpus", 2000)
    ('1.5 A100', '512 GB of memory', '1 job', '2 CPUs')
    """
    kind, _, model = name.partition("/")
    if kind == "memory":
        return f"{render_bytes(amount)} of memory"
    count = str(amount) if kind == "jobs" else render_milli(amount)
    unit = model or {"jobs": "job", "cpus": "CPU", "gpus": "GPU"}.get(kind, kind)
    return f"{count} {model}" if model else many(count, unit)

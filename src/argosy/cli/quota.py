"""quota: who may have how much of the pool, and who has."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Final

import click

from argosy.cli.session import Amount, Session, answering, completing, examples, yes_option
from argosy.model.units import many

if TYPE_CHECKING:
    from argosy.api.quota import QueueView, TenancyReply
    from argosy.model.tenancy import Tenancy

_BAR: Final = 20  # characters
_BAR_MIN: Final = 6
_EIGHTHS: Final = " ▏▎▍▌▋▊▉"


@click.group(
    epilog=examples(
        "argosy quota get",
        "argosy quota set acme/vision --deserved gpus=16 --limit gpus=32,memory=512GB",
        "argosy quota explain acme/vision --request A100:8",
        "argosy quota export > quotas.yaml",
        "argosy quota apply quotas.yaml",
    )
)
def quota() -> None:
    """Quotas of shared machines: a tree of queues for organisations, projects and people.

    A queue has a guaranteed amount, a deserved amount (lent to others while it is idle) and a limit that it
    never exceeds.
    """


#: Paths of queues.
complete_queue = completing(lambda client: (queue.path for queue in client.tenancy().queues))


@quota.command(
    name="get",
    epilog="""\b
Examples:
  argosy quota get
  argosy quota get acme/vision --of memory
  argosy quota get --json

The bar: █ what is used within what the queue deserves, ▒ what it borrows, ░ what it deserves and does not use, · up to
its limit.""",  # noqa: E501
)
@click.argument("queue", required=False, shell_complete=complete_queue)
@click.option("--of", "name", metavar="gpus", help="What to show: gpus, gpus/MODEL, cpus, memory or jobs.")
@answering
def get(session: Session, queue: str | None, name: str | None) -> None:
    """Show queues as a tree: what is used, guaranteed, deserved and at most allowed."""
    import msgspec

    reply = session.client.tenancy()
    if queue is not None:
        chosen = _below(reply, queue)
        reply = msgspec.structs.replace(reply, queues=chosen)
    if not session.screen.told(reply):
        queue_tree(session, reply.queues, name)


def _below(reply: TenancyReply, path: str) -> tuple[QueueView, ...]:
    from argosy.model.errors import ArgosyError, suggest

    path = path.strip("/")
    chosen = tuple(each for each in reply.queues if each.path == path or each.path.startswith(f"{path}/"))
    if not chosen:
        known = (each.path for each in reply.queues)
        hint = suggest(path, known, otherwise="`argosy quota get` lists them")
        raise ArgosyError("not-found", f"there is no queue `{path}`", hint=hint)
    return chosen


def queue_tree(session: Session, queues: Sequence[QueueView], name: str | None = None) -> None:
    """The tenants with a bar each, indented below their parents."""
    from argosy.spec.fields_scheduling import parse_amount_name
    from argosy.spec.tenancy import render_amount

    screen = session.screen
    if not queues:
        screen.print(
            "No queues: everybody shares alike. Set one: argosy quota set TEAM --deserved gpus=8 --limit "
            "gpus=16"
        )
        return
    if name is None:
        name = _main_amount(queues)
    else:
        try:
            name = parse_amount_name(name)
        except ValueError as error:
            raise click.UsageError(str(error)) from None
    base = min(queue.path.count("/") for queue in queues)
    scale = max((max(_amounts_of(queue, name)) for queue in queues), default=0)
    columns = (
        "QUEUE", name.upper(), "GUARANTEED", "DESERVED", "LIMIT", "", "JOBS", "WAIT", "WEIGHT", "NOTE",
    )  # fmt: skip
    rows = []
    for queue in queues:
        indent = "  " * (queue.path.count("/") - base)
        part = queue.path if not indent else queue.path.rpartition("/")[2]
        cells = [
            render_amount(name, amounts[name]) if name in amounts else ""
            for amounts in (queue.guaranteed, queue.deserved, queue.limit)
        ]
        rows.append(
            [
                indent + part,
                render_amount(name, queue.used.get(name, 0)),
                *cells,
                "",
                str(queue.running or ""),
                str(queue.waiting or ""),
                "" if queue.weight_milli == 1000 else render_amount("cpus", queue.weight_milli),
                _note(queue, name),
            ]
        )
    room = _room(screen.columns(), columns, rows)
    if not room:  # a bar says more than weights do
        rows = [[*row[:8], "", row[9]] for row in rows]
        room = _room(screen.columns(), columns, rows)
    bars = _Bars(fancy=_is_utf8(session), scale=scale, width=room)
    for row, queue in zip(rows, queues, strict=True):
        row[5] = bars.draw(queue, name)
    screen.table(columns, rows, right=(*columns[1:5], "JOBS", "WAIT", "WEIGHT"))


def _room(width: int, columns: Sequence[str], rows: Sequence[Sequence[str]]) -> int:
    """Characters that are left for the bars; 0 when they are too few to say anything."""
    shown = [index for index in range(len(columns)) if index == 0 or any(row[index] for row in rows)]
    taken = sum(2 + max(len(row[index]) for row in (columns, *rows)) for index in shown)
    return min(_BAR, width - taken - 2) if width - taken - 2 >= _BAR_MIN else 0


def _main_amount(queues: Sequence[QueueView]) -> str:
    """GPUs where there are any; else what the queues name, else CPUs."""
    for name in ("gpus", "cpus", "memory", "jobs"):
        if any(
            name in amounts
            for queue in queues
            for amounts in (queue.used, queue.guaranteed, queue.deserved, queue.limit)
        ):
            return name
    return "cpus"


def _amounts_of(queue: QueueView, name: str) -> tuple[int, int, int]:
    owned = max(queue.deserved.get(name, 0), queue.guaranteed.get(name, 0))
    return queue.used.get(name, 0), owned, queue.limit.get(name, 0)


def _note(queue: QueueView, name: str) -> str:
    from argosy.spec.tenancy import render_amount

    notes = []
    if queue.borrows.get(name):
        notes.append(f"borrows {render_amount(name, queue.borrows[name])}")
    if queue.lends.get(name):
        notes.append(f"lends {render_amount(name, queue.lends[name])}")
    if name in queue.limit and queue.used.get(name, 0) >= queue.limit[name]:
        notes.append("at its limit")
    return ", ".join(notes)


class _Bars:
    """Bars of one scale: the largest number of all queues fills one."""

    def __init__(self, *, fancy: bool, scale: int, width: int) -> None:
        self._fancy = fancy
        self._scale = scale
        self._width = width

    def draw(self, queue: QueueView, name: str) -> str:
        used, owned, limit = _amounts_of(queue, name)
        if not self._scale or not self._width:
            return ""
        within = min(used, owned) if owned else used
        full, borrowed, idle = ("█", "▒", "░") if self._fancy else ("#", "+", "-")
        at, text = 0, ""
        for amount, mark in (
            (within, full),
            (used, borrowed),
            (owned, idle),
            (limit, "·" if self._fancy else "."),
        ):
            end = round(amount * self._width / self._scale)
            if mark == full and self._fancy and used <= within:  # the last piece in eighths
                eighths = amount * self._width * 8 // self._scale
                end, rest = divmod(eighths, 8)
                text += mark * end + (_EIGHTHS[rest] if rest else "")
                at = end + bool(rest)
                continue
            text += mark * max(0, end - at)
            at = max(at, end)
        return text


def _is_utf8(session: Session) -> bool:
    return (getattr(session.screen.out, "encoding", "") or "").lower().replace("-", "") == "utf8"


@quota.command(
    name="set",
    epilog="""\b
Examples:
  argosy quota set acme/vision --guaranteed gpus=8 --deserved gpus=16 --limit gpus=32,gpus/A100=16,jobs=20
  argosy quota set acme/vision --limit gpus=none
  argosy quota set acme/vision --weight 2 --lend-limit gpus=4 --max-pending 100 --over-limit refuse
  argosy quota set acme/vision --remove -y

Amounts: cpus, memory, gpus, gpus/MODEL, jobs; `none` takes one away. What is not named stays as it is.""",
)
@click.argument("queue", shell_complete=complete_queue)
@click.option("--guaranteed", metavar="AMOUNTS", help="Always available to the queue; never lent.")
@click.option("--deserved", metavar="AMOUNTS", help="Lent to others while idle, taken back by preemption.")
@click.option("--limit", metavar="AMOUNTS", help="Never more than this.")
@click.option("--lend-limit", metavar="AMOUNTS", help="How much of what it deserves may be lent at most.")
@click.option(
    "--weight", type=Amount(), help="Share of unassigned capacity relative to sibling queues. [default: 1]"
)
@click.option("--max-pending", metavar="N", help="How many jobs may wait; `none`: any number.")
@click.option(
    "--over-limit",
    type=click.Choice(["wait", "refuse"]),
    help="What happens to a new job that would exceed the limit, together with all that runs and waits.",
)
@click.option("--remove", is_flag=True, help="Remove the queue; its users then share equally with others.")
@yes_option
@answering
def set_(
    session: Session,
    queue: str,
    guaranteed: str | None,
    deserved: str | None,
    limit: str | None,
    lend_limit: str | None,
    weight: float | None,
    max_pending: str | None,
    over_limit: str | None,
    remove: bool,
    yes: bool,
) -> None:
    """Make or change a queue. Needs a token of scope `admin`, or the server's own machine."""
    from argosy.api.quota import QueueRequest
    from argosy.spec.tenancy import parse_amounts

    given = (guaranteed, deserved, limit, lend_limit, weight, max_pending, over_limit)
    if remove == any(value is not None for value in given):
        raise click.UsageError(
            "give either --remove or amounts"
            if remove
            else "nothing is given: for example `--limit gpus=8`, or --remove"
        )

    def amounts(text: str | None, flag: str) -> dict[str, int | None]:
        return {} if text is None else parse_amounts(text, flag=flag)

    if weight is not None and not 0.001 <= weight <= 1_000_000:
        raise click.UsageError(f"--weight is above 0, not {weight:g}")
    if max_pending is not None and max_pending != "none" and not max_pending.isdigit():
        raise click.UsageError(f"--max-pending is a whole number or `none`, not `{max_pending}`")
    request = QueueRequest(
        path=queue,
        guaranteed=amounts(guaranteed, "--guaranteed"),
        deserved=amounts(deserved, "--deserved"),
        limit=amounts(limit, "--limit"),
        lend_limit=amounts(lend_limit, "--lend-limit"),
        weight_milli=None if weight is None else round(weight * 1000),
        max_pending=None if max_pending is None else -1 if max_pending == "none" else int(max_pending),
        refuse_over_limit=None if over_limit is None else over_limit == "refuse",
        remove=remove,
    )
    if remove:
        session.screen.confirm(f"Remove queue `{queue.strip('/')}`?", yes=yes)
    reply = session.client.set_queue(request)
    if session.screen.told(reply):
        return
    path = queue.strip("/")
    if remove:
        session.screen.print(f"queue `{path}` is removed")
        return
    chosen = next((each for each in reply.queues if each.path == path), None)
    names = [name for amounts in _named(request) for name in amounts]
    queue_tree(session, (chosen,) if chosen is not None else (), names[0] if names else None)


def _named(request: object) -> list[dict[str, int | None]]:
    return [
        getattr(request, field)
        for field in ("limit", "deserved", "guaranteed", "lend_limit")
        if getattr(request, field)
    ]


@quota.command(
    name="explain",
    epilog=examples(
        "argosy quota explain acme/vision",
        "argosy quota explain acme/vision --request A100:8 --num-nodes 2",
        "argosy quota explain acme/vision --request gpus=8,cpus=64",
    ),
)
@click.argument("queue", shell_complete=complete_queue)
@click.option(
    "--request",
    metavar="A100:8",
    help="Also how a request of this size per node would fare: accelerators, or amounts as in `set`.",
)
@click.option("--num-nodes", type=click.IntRange(min=1), default=1, help="Number of nodes of the request.")
@answering
def explain(session: Session, queue: str, request: str | None, num_nodes: int) -> None:
    """Say in words what a queue has, borrows and lends, and who could take it back."""
    reply = session.client.explain_queue(queue, request=request, nodes=num_nodes if num_nodes > 1 else None)
    session.screen.answer(reply, *(f"- {line}" for line in reply.lines))


@quota.command(
    name="apply",
    epilog=examples(
        "argosy quota export > quotas.yaml",
        "argosy quota apply quotas.yaml",
        "argosy quota apply --check quotas.yaml",
    ),
)
@click.argument("file", metavar="FILE.yaml")
@click.option("--check", "check_only", is_flag=True, help="Only check the file; nothing is set.")
@yes_option
@answering
def apply(session: Session, file: str, check_only: bool, yes: bool) -> None:
    """Set all queues, groups, presets and the policy from a file. What the file does not name is removed."""
    from argosy.cli.task_options import read_text
    from argosy.spec.tenancy import parse_tenancy

    parsed = parse_tenancy(read_text(session, file), source=file)
    session.screen.warn(warning.render() for warning in parsed.warnings)
    tenancy = parsed.tenancy
    if check_only:
        session.client.set_tenancy(tenancy, check=True)
        session.screen.print(f"{file} is right: {_counted(tenancy)}")
        return
    before = session.client.tenancy()
    gone = sorted({queue.path for queue in before.tenancy.queues} - {queue.path for queue in tenancy.queues})
    if gone:
        session.screen.confirm(f"Remove {', '.join(f'`{path}`' for path in gone)}?", yes=yes)
    reply = session.client.set_tenancy(tenancy, rev=before.tenancy.rev)
    session.screen.answer(reply, f"set: {_counted(tenancy)}")


def _counted(tenancy: Tenancy) -> str:
    counts = (("queue", tenancy.queues), ("group", tenancy.groups), ("preset", tenancy.presets))
    return ", ".join(many(len(each), name) for name, each in counts)


@quota.command(name="export", epilog=examples("argosy quota export > quotas.yaml"))
@answering
def export(session: Session) -> None:
    """Print queues, groups, presets and policy as YAML that `apply` reads."""
    reply = session.client.tenancy()
    if session.screen.told(reply.tenancy):
        return
    if reply.text:
        session.screen.print(reply.text.removesuffix("\n"))
    else:
        session.screen.say("There are no queues, groups or presets yet.", "dim")

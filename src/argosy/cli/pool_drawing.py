"""Pools as drawings: blocks in a terminal, SVG, and a page of its own. Pure: replies in, text out.

One cell for each GPU, in the colour of who holds it. Parts of a GPU are as large as they are: wide in a
terminal, high elsewhere. Light and dark follow the reader's system; nothing is loaded from anywhere.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from html import escape
from typing import TYPE_CHECKING, Final, NamedTuple

from argosy.model.kinds import is_named
from argosy.model.units import do, many, render_bytes, render_duration, render_milli

if TYPE_CHECKING:
    from argosy.api.pool import DeviceView, HolderView, MachineView, PoolView, WaitingView

WHOLE_MILLI: Final = 1000
_LEFT: Final = " ▏▎▍▌▋▊▉"  # so many eighths of a character
_ROWS_MIN: Final = 8  # of a column, where there are several
BETWEEN: Final = "   "  # columns
_LETTERS: Final = "ABCDEFGHIJKLMNOPQRSTUVWXYZ"
#: For up to twelve users: apart in hue and in lightness, readable on white and on black. (terminal, light
#: page, dark page)
_COLOURS: Final = (
    (33, "#2f74d0", "#5b9bf0"),
    (208, "#d9730d", "#f29b47"),
    (35, "#1f8a5b", "#43b584"),
    (170, "#a846b0", "#cd7bd4"),
    (178, "#b08800", "#dcb53c"),
    (45, "#0b8c9e", "#3fbccd"),
    (161, "#c2325f", "#ea6f94"),
    (107, "#6a8f1f", "#9cc250"),
    (99, "#6253c7", "#9587ee"),
    (173, "#9c5b33", "#c98b63"),
    (31, "#3b6a94", "#7aa7cf"),
    (132, "#8a4a6f", "#c084a4"),
)
_OTHERS: Final = (245, "#8a94a3", "#8a94a3")  # whoever comes after those


class Person(NamedTuple):
    """A user of the pool, with a colour and a letter."""

    user: str
    rank: int  # among the others: chooses colour and letter
    gpu_milli: int
    workloads: int

    @property
    def letter(self) -> str:
        return _LETTERS[self.rank] if self.rank < len(_LETTERS) else "*"

    @property
    def shade(self) -> int:
        """Of 256 colours."""
        return self.colours[0]

    @property
    def has_colour(self) -> bool:
        """A colour of its own; the others share a grey."""
        return self.rank < len(_COLOURS)

    @property
    def colours(self) -> tuple[int, str, str]:
        return _COLOURS[self.rank] if self.has_colour else _OTHERS


def people_of(pool: PoolView) -> dict[str, Person]:
    """Who holds something, by name; those with most GPUs first, then by name."""
    milli: dict[str, int] = {}
    count: dict[str, int] = {}
    for holder in pool.holders:
        milli.setdefault(holder.user, 0)
        count[holder.user] = count.get(holder.user, 0) + 1
    for machine in pool.machines:
        for device in machine.devices:
            for share in device.shares:
                milli[pool.holders[share.holder].user] += share.milli
    ranked = sorted(milli, key=lambda user: (-milli[user], user))
    return {user: Person(user, rank, milli[user], count[user]) for rank, user in enumerate(ranked)}


def used_milli(device: DeviceView) -> int:
    return sum(share.milli for share in device.shares)


# -- terminal ---------------------------------------------------------------------------------------


class Cell(NamedTuple):
    """Characters of one colour on the ground of another; None: no colour."""

    text: str
    shade: int | None = None
    ground: int | None = None


class Row(NamedTuple):
    """One line of the drawing: a machine, or the next line of one with many devices (`name` is then
    blank)."""

    name: str
    cells: tuple[Cell, ...]
    note: str  # what its CPUs do

    @property
    def width(self) -> int:
        return len(self.name) + 2 + sum(len(cell.text) for cell in self.cells) + 1 + len(self.note)


def headline(pool: PoolView) -> str:
    """`40 nodes, 259 of 320 GPUs used, 12 of 640 CPUs used, 1 waits`."""
    devices = [device for machine in pool.machines for device in machine.devices]
    cpus = sum(machine.cpus_milli for machine in pool.machines)
    cpus_used = sum(machine.cpus_used_milli for machine in pool.machines)
    parts = [many(len(pool.machines), "node")]
    if devices:
        used = sum(map(used_milli, devices))
        parts.append(f"{render_milli(used)} of {many(len(devices), 'GPU')} used")
    parts.append(f"{render_milli(cpus_used)} of {many(render_milli(cpus), 'CPU')} used")
    closed = sum(not machine.open for machine in pool.machines)
    if closed:
        parts.append(f"{do(closed, 'take')} nothing new")
    parts.append(waits_of(pool))
    return ", ".join(parts)


def waits_of(pool: PoolView) -> str:
    return do(len(pool.waiting), "wait")


def draw_rows(pool: PoolView, *, width: int, coloured: bool) -> list[Row]:
    """The machines, cells wrapped so that no line is wider than `width`.

    Without colours, letters stand for people: `AA` holds a whole GPU, `a` a part, `··` is free.
    """
    people = people_of(pool)
    rows: list[Row] = []
    longest = max((len(machine.name) for machine in pool.machines), default=0)
    name_width = max(4, min(longest, max(8, width // 3)))
    most = max((len(machine.devices) for machine in pool.machines), default=0)
    cpus_width = max((len(_cpus(machine)) for machine in pool.machines), default=0)
    room = width - name_width - 2
    with_cpus = room >= 3 * most + cpus_width + 1
    wide = room >= 3 * most
    per_line = max(1, room // (3 if wide else 1))
    for machine in pool.machines:
        cells = [
            _cell(device, machine, pool, people, coloured=coloured, wide=wide) for device in machine.devices
        ]
        lines = [cells[at : at + per_line] for at in range(0, len(cells), per_line)] or [[]]
        for number, line in enumerate(lines):
            spaced = [each for cell in line for each in (*cell, *((Cell(" "),) if wide else ()))]
            missing = most - len(line) if len(lines) == 1 else 0
            spaced.append(Cell((" " * (3 if wide else 1)) * missing))
            note = (_cpus(machine).rjust(cpus_width) if with_cpus else "") if number == 0 else ""
            if number == 0 and not machine.open:
                note = f"{note} closed".lstrip() if not with_cpus else f"{note} closed"
            name = _shortened(machine.name, name_width) if number == 0 else ""
            rows.append(Row(name.ljust(name_width), tuple(spaced), note))
    return rows


def columns_of(rows: Sequence[Row], pool: PoolView, width: int) -> list[list[Row]]:
    """Rows side by side, top to bottom and then to the right, where there are many and the line has room for
    them."""
    if len(rows) != len(pool.machines) or len(rows) < 2 * _ROWS_MIN:
        return [list(rows)]
    block = max(row.width for row in rows) + len(BETWEEN)
    count = max(1, min((width + len(BETWEEN)) // block, len(rows) // _ROWS_MIN))
    tall = -(-len(rows) // count)
    return [list(rows[at : at + tall]) for at in range(0, len(rows), tall)]


def legend_of(people: Iterable[Person], *, coloured: bool) -> list[tuple[Person, str]]:
    """Who is who: each with a colour or letter of its own, then the others together."""
    known = sorted(people, key=lambda person: person.rank)
    own = [each for each in known if (each.has_colour if coloured else each.rank < len(_LETTERS))]
    lines = [(each, f"{each.user or 'somebody'} ({_holds(each.gpu_milli, each.workloads)})") for each in own]
    others = known[len(own) :]
    if others:
        holds = _holds(sum(each.gpu_milli for each in others), sum(each.workloads for each in others))
        lines.append((others[0], f"{many(len(others), 'other')} ({holds})"))
    return lines


def _holds(gpu_milli: int, workloads: int) -> str:
    if not gpu_milli:
        return f"{workloads} running"
    return many(render_milli(gpu_milli), "GPU")


def free_milli(pool: PoolView) -> int:
    """What is free of devices of machines that take something new."""
    return sum(
        max(0, WHOLE_MILLI - used_milli(device))
        for machine in pool.machines
        if machine.open
        for device in machine.devices
    )


def _shortened(name: str, width: int) -> str:
    """Names of machines differ at their ends.

    >>> _shortened("dgx-a100-07", 8)
    'dgx…0-07'
    """
    if len(name) <= width:
        return name
    front = (width - 1) // 2
    return f"{name[:front]}…{name[len(name) - (width - 1 - front) :]}"


def _cpus(machine: MachineView) -> str:
    return f"{render_milli(machine.cpus_used_milli)}/{render_milli(machine.cpus_milli)} CPUs"


def _cell(
    device: DeviceView,
    machine: MachineView,
    pool: PoolView,
    people: dict[str, Person],
    *,
    coloured: bool,
    wide: bool,
) -> tuple[Cell, ...]:
    """Two characters, or one where it is narrow."""
    holders = sorted(device.shares, key=lambda share: (-share.milli, share.holder))
    size = 2 if wide else 1
    if not holders:
        return (Cell(("··" if machine.open else "--")[:size]),)
    persons = [people[pool.holders[share.holder].user] for share in holders]
    if coloured:
        return _bar(
            [(person.shade, share.milli) for person, share in zip(persons, holders, strict=True)], size
        )
    if len(holders) == 1 and holders[0].milli >= WHOLE_MILLI:
        return (Cell(persons[0].letter * size),)
    letters = [person.letter.lower() for person in persons]
    if size == 1:
        return (Cell(letters[0]),)
    second = "·" if len(letters) == 1 else letters[1] if len(letters) == 2 else "+"
    return (Cell(letters[0] + second),)


def _bar(parts: Sequence[tuple[int, int]], size: int) -> tuple[Cell, ...]:
    """A device of `size` characters, filled from the left by (shade, milli). A character can show two
    colours: of more, the first and the largest of the others.

    >>> _bar([(33, 500), (208, 250), (35, 250)], 2)
    (Cell(text='█', shade=33, ground=None), Cell(text='▌', shade=208, ground=35))
    """
    eighths = 8 * size
    ends: list[tuple[int, int]] = []  # (shade, where its part ends), in eighths
    milli = at = 0
    for shade, part in parts:
        milli += part
        at = min(eighths, max(at + 1, milli * eighths // WHOLE_MILLI))
        ends.append((shade, at))
    cells: list[Cell] = []
    for start in range(0, eighths, 8):
        pieces: list[tuple[int | None, int]] = []
        begin = 0
        for shade, end in ends:
            inside = min(end, start + 8) - max(begin, start)
            if inside > 0:
                pieces.append((shade, inside))
            begin = end
        free = start + 8 - max(start, begin)
        if free > 0:
            pieces.append((None, free))
        (first, length), rest = pieces[0], pieces[1:]
        if first is None:
            cells.append(Cell("·"))
        elif not rest:
            cells.append(Cell("█", first))
        else:
            cells.append(Cell(_LEFT[length], first, max(rest, key=lambda piece: piece[1])[0]))
    return tuple(cells)


# -- SVG and HTML -----------------------------------------------------------------------------------

_CELL: Final = 22
_GAP: Final = 4
_NAME_MAX: Final = 26  # characters
_MARGIN: Final = 16
_LINE: Final = _CELL + 8
_PER_LINE: Final = 16
_TALL: Final = 16  # machines of a column
_ACROSS: Final = 3  # columns, at most

_STYLE: Final = """
  .map { --bg: #ffffff; --fg: #1c2430; --soft: #667085; --free: #e8ecf2; --edge: #c7d0dc; --shut: #f6d9d5; %(light)s }
  @media (prefers-color-scheme: dark) {
    .map { --bg: #12161c; --fg: #e7ebf0; --soft: #98a2b3; --free: #232a34; --edge: #3a4452; --shut: #4a2623; %(dark)s }
  }
  .map { background: var(--bg); color: var(--fg); font-family: system-ui, sans-serif; }
  .map text { fill: var(--fg); font-size: 13px; } .map .soft { fill: var(--soft); font-size: 12px; }
  .map .head { font-size: 15px; font-weight: 600; }
  .map .free { fill: var(--free); stroke: var(--edge); } .map .shut { fill: var(--shut); stroke: var(--edge); }
  .map .part:hover, .map .free:hover { stroke: var(--fg); stroke-width: 1.5; }
"""  # noqa: E501


def render_svg(pools: Sequence[PoolView], *, now_ms: int) -> str:
    """All pools as one drawing that needs nothing else. Tooltips say who holds what."""
    body: list[str] = []
    y, width = _MARGIN, 460
    people = _everybody(pools)
    for pool in pools:
        lines, y, wide = _draw_pool(pool, people, y, now_ms)
        body += lines
        width = max(width, wide)
    legend, y, wide = _draw_legend(pools, people, y, max(width, 760))
    body += legend
    width = max(width, wide)
    return "\n".join(
        [
            f'<svg xmlns="http://www.w3.org/2000/svg" class="map" viewBox="0 0 {width} {y}" '
            f'width="{width}" height="{y}" '
            'role="img" aria-label="Who holds which GPU">',
            f"<style>{_style(people)}</style>",
            f'<rect width="{width}" height="{y}" fill="var(--bg)"/>',
            *body,
            "</svg>",
            "",
        ]
    )


def render_html(pools: Sequence[PoolView], *, now_ms: int) -> str:
    """A page of its own with the drawing, and who waits below it."""
    drawing = render_svg(pools, now_ms=now_ms)
    warned = "".join(f"<p>warning: {escape(text)}</p>\n" for pool in pools for text in pool.warnings)
    waiting = warned + "".join(_waiting_table(pool, now_ms) for pool in pools if pool.waiting)
    return (
        '<!doctype html>\n<html lang="en"><head><meta charset="utf-8"><meta name="viewport" '
        'content="width=device-width, initial-scale=1"><title>Argosy pool</title>\n<style>\n'
        "  :root { color-scheme: light dark; }\n"
        "  body { margin: 0; padding: 16px; background: #ffffff; color: #1c2430; font-family: system-ui, "
        "sans-serif; }\n"
        "  @media (prefers-color-scheme: dark) { body { background: #12161c; color: #e7ebf0; } }\n"
        "  .scroll { overflow-x: auto; } p { margin: 8px 16px; } h2 { font-size: 15px; margin: 20px 16px "
        "6px; }\n"
        "  table { border-collapse: collapse; margin: 0 16px; font-size: 13px; }\n"
        "  th, td { text-align: left; padding: 4px 14px 4px 0; border-bottom: 1px solid #8884;"
        " vertical-align: top; }\n  td.number { text-align: right; }\n"
        "</style></head>\n<body>\n"
        f'<div class="scroll">\n{drawing}</div>\n{waiting}</body></html>\n'
    )


def _everybody(pools: Sequence[PoolView]) -> dict[str, Person]:
    """Of all pools: one colour for each."""
    milli: dict[str, int] = {}
    count: dict[str, int] = {}
    for pool in pools:
        for person in people_of(pool).values():
            milli[person.user] = milli.get(person.user, 0) + person.gpu_milli
            count[person.user] = count.get(person.user, 0) + person.workloads
    ranked = sorted(milli, key=lambda user: (-milli[user], user))
    return {user: Person(user, rank, milli[user], count[user]) for rank, user in enumerate(ranked)}


def _style(people: dict[str, Person]) -> str:
    def colours(which: int) -> str:
        return " ".join(f"--u{person.rank}: {person.colours[which]};" for person in people.values())

    rules = " ".join(f".map .u{person.rank} {{ fill: var(--u{person.rank}); }}" for person in people.values())
    return _STYLE % {"light": colours(1), "dark": colours(2)} + f"  {rules}\n"


def _draw_pool(pool: PoolView, people: dict[str, Person], y: int, now_ms: int) -> tuple[list[str], int, int]:
    lines = [
        f'<text class="head" x="{_MARGIN}" y="{y + 14}">{escape(pool.name)}'
        f'<tspan class="soft" dx="10" font-weight="400">{escape(headline(pool))}</tspan></text>'
    ]
    y += 28
    top = bottom = y
    tall = max(_TALL, -(-len(pool.machines) // _ACROSS))
    most = max((len(machine.devices) for machine in pool.machines), default=0)
    cells = min(most, _PER_LINE)
    left = _MARGIN + 20 + 7 * max((min(len(each.name), _NAME_MAX) for each in pool.machines), default=0)
    right = left + cells * (_CELL + _GAP) + 10
    across = right + 96 + 7 * max((len(_cpus(each)) for each in pool.machines), default=0) - _MARGIN
    for number, machine in enumerate(pool.machines):
        if number % tall == 0 and number:
            y = top
        shift = across * (number // tall)
        closed = "" if machine.open else " (takes nothing new)"
        tip = escape(_machine_tip(machine) + closed)
        name = _shortened(machine.name, _NAME_MAX)
        lines.append(f'<text x="{_MARGIN + shift}" y="{y + 16}">{escape(name)}<title>{tip}</title></text>')
        for at, device in enumerate(machine.devices):
            x = left + shift + (at % _PER_LINE) * (_CELL + _GAP)
            above = y + (at // _PER_LINE) * (_CELL + _GAP)
            lines += _draw_device(pool, machine, device, people, x, above, now_ms)
        lines += _draw_cpus(pool, machine, people, right + shift, y, now_ms)
        rows = max(1, -(-len(machine.devices) // _PER_LINE))
        y += rows * (_CELL + _GAP) + _LINE - _CELL - _GAP
        bottom = max(bottom, y)
    columns = max(1, -(-len(pool.machines) // tall))
    return lines, bottom + 12, _MARGIN + across * columns


def _draw_device(
    pool: PoolView,
    machine: MachineView,
    device: DeviceView,
    people: dict[str, Person],
    x: int,
    y: int,
    now_ms: int,
) -> list[str]:
    what = f"GPU {device.device.index} {device.device.model} of {machine.name}"
    free = max(0, WHOLE_MILLI - used_milli(device))
    kind = "free" if machine.open else "shut"
    state = f"{render_milli(free)} free" if machine.open else "the node takes nothing new"
    lines = [
        f'<rect class="{kind}" x="{x}" y="{y}" width="{_CELL}" height="{_CELL}" rx="4">'
        f"<title>{escape(f'{what}: {state}')}</title></rect>"
    ]
    bottom = float(y + _CELL)
    for share in device.shares:
        holder = pool.holders[share.holder]
        height = _CELL * min(share.milli, WHOLE_MILLI) / WHOLE_MILLI
        bottom -= height
        by = f" by {share.mechanism}" if share.mechanism else ""
        part = "all" if share.milli >= WHOLE_MILLI else f"{render_milli(share.milli)}{by}"
        tip = f"{what}: {part} held by {holder_line(holder, now_ms)}"
        lines.append(
            f'<rect class="part u{people[holder.user].rank}" x="{x}" y="{max(float(y), bottom):g}" '
            f'width="{_CELL}" '
            f'height="{height:g}" '
            f'rx="{4 if share.milli >= WHOLE_MILLI else 2}"><title>{escape(tip)}</title></rect>'
        )
    return lines


def _draw_cpus(
    pool: PoolView, machine: MachineView, people: dict[str, Person], x: int, y: int, now_ms: int
) -> list[str]:
    """A narrow bar of the CPUs."""
    width = 60
    part = min(1.0, machine.cpus_used_milli / machine.cpus_milli) if machine.cpus_milli else 0
    owners = [pool.holders[index] for index in machine.holders]
    tip = escape(_machine_tip(machine) + "".join(f"\n{holder_line(each, now_ms)}" for each in owners))
    shade = f"u{people[owners[0].user].rank}" if len({each.user for each in owners}) == 1 else ""
    fill = f'class="part {shade}"' if shade else 'fill="var(--soft)"'
    return [
        f'<rect class="free" x="{x}" y="{y + 7}" width="{width}" height="8" '
        f'rx="4"><title>{tip}</title></rect>',
        f'<rect {fill} x="{x}" y="{y + 7}" width="{width * part:g}" height="8" '
        f'rx="4"><title>{tip}</title></rect>',
        f'<text class="soft" x="{x + width + 8}" '
        f'y="{y + 15}">{escape(_cpus(machine))}<title>{tip}</title></text>',
    ]


def _machine_tip(machine: MachineView) -> str:
    parts = [
        machine.name,
        _cpus(machine) + " used",
        f"{render_bytes(machine.memory_used_bytes)} of {render_bytes(machine.memory_bytes)} used",
    ]
    if machine.groups:
        parts.append("groups: " + ", ".join(machine.groups))
    if machine.domains:
        parts.append("in " + "/".join(machine.domains))
    if machine.taints:
        parts.append("taints: " + ", ".join(machine.taints))
    return "; ".join(parts)


def holder_line(holder: HolderView, now_ms: int) -> str:
    """Who it is and for how long: `ann's job 12 (train), 2h 5m, preemptible`."""
    what = f"cluster {holder.name}" if is_named(holder.kind) else f"job {holder.number}"
    named = f" ({holder.name})" if not is_named(holder.kind) and holder.name else ""
    parts = [f"{holder.user or 'somebody'}'s {what}{named}"]
    if holder.queue:
        parts.append(f"queue {holder.queue}")
    if holder.started_ms:
        parts.append(f"for {render_duration(max(0, now_ms - holder.started_ms) / 1000)}")
    if holder.ends_at_ms is not None and holder.ends_at_ms > now_ms:
        parts.append(f"about {render_duration((holder.ends_at_ms - now_ms) / 1000)} left")
    if holder.preemptible:
        parts.append("preemptible")
    if holder.leaving:
        parts.append("being ended")
    return ", ".join(parts)


def _draw_legend(
    pools: Sequence[PoolView], people: dict[str, Person], y: int, width: int
) -> tuple[list[str], int, int]:
    lines: list[str] = []
    x, right = _MARGIN, 0
    entries = [(f"u{person.rank}", text) for person, text in legend_of(people.values(), coloured=True)]
    if free := sum(map(free_milli, pools)):
        entries.append(("free", f"free ({many(render_milli(free), 'GPU')})"))
    if any(machine.devices and not machine.open for pool in pools for machine in pool.machines):
        entries.append(("shut", "takes nothing new"))
    for shade, text in entries:
        wide = 24 + 7 * len(text) + 18
        if x > _MARGIN and x + wide > width:
            x, y = _MARGIN, y + 22
        lines.append(f'<rect class="{shade}" x="{x}" y="{y}" width="14" height="14" rx="3"/>')
        lines.append(f'<text class="soft" x="{x + 20}" y="{y + 11}">{escape(text)}</text>')
        x += wide
        right = max(right, x)
    if not entries:
        lines.append(f'<text class="soft" x="{_MARGIN}" y="{y + 11}">nobody holds anything</text>')
    return lines, y + 22 + _MARGIN, right + _MARGIN


def _waiting_table(pool: PoolView, now_ms: int) -> str:
    rows = []
    for each in pool.waiting:
        starts = "" if each.starts_at_ms is None else starts_in(each.starts_at_ms, now_ms)
        what = f"cluster {each.name}" if is_named(each.kind) else f"{each.number} {each.name}".strip()
        rows.append(
            "<tr>"
            + f'<td class="number">{each.position}</td>'
            + "".join(
                f"<td>{escape(cell)}</td>"
                for cell in (what, each.user, each.queue, wish_of(each), starts, each.text)
            )
            + "</tr>"
        )
    head = "".join(
        f"<th>{name}</th>" for name in ("", "job", "user", "queue", "asks for", "starts", "why it waits")
    )
    return (
        f"<h2>{escape(pool.name)}: {waits_of(pool)}</h2>\n<table><tr>{head}</tr>\n{''.join(rows)}</table>\n"
    )


def starts_in(starts_at_ms: int, now_ms: int) -> str:
    """
    >>> starts_in(90_000, 0), starts_in(0, 5)
    ('~1m 30s', 'soon')
    """
    left_s = (starts_at_ms - now_ms) / 1000
    return f"~{render_duration(left_s)}" if left_s >= 1 else "soon"


def wish_of(each: WaitingView) -> str:
    """What each of its nodes needs: `A100|H100:8 x2`, `4 CPUs`."""
    if each.gpu_milli:
        wish = f"{'|'.join(each.models) or 'GPU'}:{render_milli(each.gpu_milli)}"
    elif each.cpus_milli:
        wish = many(render_milli(each.cpus_milli), "CPU")
    else:
        wish = "any node"
    return wish + (f" x{each.num_nodes}" if each.num_nodes > 1 else "")

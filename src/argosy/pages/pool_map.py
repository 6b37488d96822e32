"""Pools as a picture and as a page: SVG and HTML. Pure: replies in, text out.

One cell for each GPU, in the colour of who holds it; parts of a GPU are as high as they are large. Light and
dark follow the reader's system; nothing is loaded from anywhere.
"""

from __future__ import annotations

from collections.abc import Sequence
from html import escape
from typing import TYPE_CHECKING, Final

from argosy.model.kinds import is_named
from argosy.model.units import many, render_bytes, render_milli
from argosy.pages.pool_text import (
    WHOLE_MILLI,
    Person,
    cpus_text,
    free_milli,
    headline,
    holder_line,
    legend_of,
    people_of,
    shortened,
    starts_in,
    used_milli,
    waits_of,
    wish_of,
)

if TYPE_CHECKING:
    from argosy.api.pool import DeviceView, MachineView, PoolView

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
    """Render an HTML page with the drawing, and pending workloads below it."""
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
    across = right + 96 + 7 * max((len(cpus_text(each)) for each in pool.machines), default=0) - _MARGIN
    for number, machine in enumerate(pool.machines):
        if number % tall == 0 and number:
            y = top
        shift = across * (number // tall)
        closed = "" if machine.open else f" ({machine.closed or 'takes nothing new'})"
        tip = escape(_machine_tip(machine) + closed)
        name = shortened(machine.name, _NAME_MAX)
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
        f'y="{y + 15}">{escape(cpus_text(machine))}<title>{tip}</title></text>',
    ]


def _machine_tip(machine: MachineView) -> str:
    parts = [
        machine.name,
        cpus_text(machine) + " used",
        f"{render_bytes(machine.memory_used_bytes)} of {render_bytes(machine.memory_bytes)} used",
    ]
    if machine.groups:
        parts.append("groups: " + ", ".join(machine.groups))
    if machine.domains:
        parts.append("in " + "/".join(machine.domains))
    if machine.taints:
        parts.append("taints: " + ", ".join(machine.taints))
    return "; ".join(parts)


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
        what = (
            f"cluster {each.name}"
            if is_named(each.kind)
            else f"{each.label or each.number} {each.name}".strip()
        )
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

"""Spot, on-demand and owned side by side: rows for `argosy plan --compare`, and one page with a chart."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from html import escape
from typing import Final

import msgspec

from argosy.model.offer import Capacity, Choice
from argosy.model.units import render_duration, render_price
from argosy.planning.outlook import DeadlineAsk, Policy, plan_deadline, render_chance

_KINDS: Final = (
    (Capacity.OWNED, "owned"),
    (Capacity.RESERVED, "reserved"),
    (Capacity.SPOT, "spot"),
    (Capacity.ON_DEMAND, "on-demand"),
    (Capacity.QUEUED, "queued"),
)
_COLOURS: Final = {
    "owned": "#2e7d32",
    "reserved": "#00838f",
    "spot": "#ef6c00",
    "on-demand": "#1565c0",
    "queued": "#6a1b9a",
}


class CompareRow(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """The best of one capacity. None: not known, as no runtime was given."""

    kind: str  # owned, reserved, spot, on-demand, queued
    place: str  # provider/region/zone
    instance_type: str
    num_nodes: int
    price_micro_usd: int  # per hour, of all nodes
    estimated: bool = False  # the price is an estimate
    total_micro_usd: int | None = None  # expected, with what losses cost
    finish_s: int | None = None  # expected, from now
    losses: float | None = None  # expected number
    in_time: float | None = None  # chance of meeting the deadline
    against_on_demand: float | None = None  # 0.6: costs 60 % less than on-demand
    note: str = ""


def compare(
    choices: Sequence[Choice],
    *,
    num_nodes: int = 1,
    ask: DeadlineAsk | None = None,
    hazard: Callable[[Choice], float | None] | None = None,
    durations: Callable[[Choice], int] | None = None,
    deadline_given: bool = True,
) -> tuple[CompareRow, ...]:
    """One row for each capacity that is there, cheapest first.

    Without `ask` the best of a capacity has the lowest price per hour; with it, the lowest expected total.
    `deadline_given` False: the deadline in `ask` is only a horizon, no chance is told.
    """
    rows: list[CompareRow] = []
    for capacity, kind in _KINDS:
        mine = [choice for choice in choices if choice.offer.capacity is capacity]
        if not mine:
            continue
        if ask is None:
            rows.append(_row(kind, min(mine, key=lambda c: c.price_micro_usd), num_nodes))
            continue
        policy = Policy.SPOT if capacity is Capacity.SPOT else Policy.ON_DEMAND
        plan = plan_deadline(mine, ask, hazard=hazard, durations=durations)
        best = next(each for each in plan.outlooks if each.policy is policy)
        rows.append(
            msgspec.structs.replace(
                _row(kind, best.choice, num_nodes),
                total_micro_usd=best.cost_micro_usd,
                finish_s=best.finish_s,
                losses=best.losses,
                in_time=best.probability if deadline_given else None,
            )
        )

    def money(row: CompareRow) -> int:
        return row.price_micro_usd if row.total_micro_usd is None else row.total_micro_usd

    usual = next((money(row) for row in rows if row.kind == "on-demand"), None)
    if usual:
        rows = [msgspec.structs.replace(row, against_on_demand=1 - money(row) / usual) for row in rows]
    return tuple(sorted(rows, key=money))


def _row(kind: str, choice: Choice, num_nodes: int) -> CompareRow:
    offer = choice.offer
    return CompareRow(
        kind=kind,
        place="/".join(part for part in (offer.provider, offer.region, offer.zone) if part),
        instance_type=offer.shape.instance_type,
        num_nodes=num_nodes,
        price_micro_usd=choice.price_micro_usd,
        estimated=offer.estimated,
        note="its price is set by your configuration" if offer.capacity is Capacity.OWNED else "",
    )


HEADINGS: Final = (
    "CAPACITY", "PLACE", "MACHINE", "NODES", "$/H", "TOTAL", "DONE IN", "LOSSES", "IN TIME", "SAVES",
)  # fmt: skip


def render_cells(row: CompareRow) -> tuple[str, ...]:
    """The row as texts under `HEADINGS`; `-` is what is not known."""
    return (
        row.kind,
        row.place,
        row.instance_type or "-",
        str(row.num_nodes),
        ("~" if row.estimated else "") + render_price(row.price_micro_usd),
        "-" if row.total_micro_usd is None else render_price(row.total_micro_usd),
        "-" if row.finish_s is None else render_duration(row.finish_s),
        "-" if row.losses is None else f"{row.losses:.1f}",
        "-" if row.in_time is None else render_chance(row.in_time),
        "-" if row.against_on_demand is None or row.kind == "on-demand" else f"{row.against_on_demand:.0%}",
    )


def render_compare_html(
    rows: Sequence[CompareRow], *, title: str = "Where to run it", said: Sequence[str] = ()
) -> str:
    """One page without anything from elsewhere: why (`said`), a bar chart (SVG) and the table. Every text is
    escaped."""
    total = any(row.total_micro_usd is not None for row in rows)
    what = "Expected cost of the whole task" if total else "Price per hour"
    several = any(row.num_nodes > 1 for row in rows)
    shown = [at for at, name in enumerate(HEADINGS) if name != "NODES" or several]
    head = "".join(f"<th{_side(at)}>{escape(HEADINGS[at].capitalize())}</th>" for at in shown)
    body = "".join(_row_html(row, shown) for row in rows)
    table = f"<table><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table>"
    if not rows:
        table = "<p>Nothing fits.</p>"
    why = "".join(f"<p>{escape(text)}</p>" for text in said if text)
    return (
        '<!doctype html>\n<html lang="en"><head><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        f"<title>{escape(title)}</title><style>{_STYLE}</style></head><body>"
        f"<h1>{escape(title)}</h1>{why}<h2>{what}</h2>{_chart(rows, total=total)}"
        f'<div class="wide">{table}</div></body></html>\n'
    )


def _side(at: int) -> str:
    return ' class="n"' if at >= _FIRST_NUMBER else ""


def _row_html(row: CompareRow, shown: Sequence[int]) -> str:
    cells = render_cells(row)
    text = "".join(f"<td{_side(at)}>{escape(cells[at])}</td>" for at in shown)
    note = f'<tr class="note"><td colspan="{len(shown)}">{escape(row.note)}</td></tr>' if row.note else ""
    return f"<tr>{text}</tr>{note}"


_FIRST_NUMBER: Final = 3  # column of `HEADINGS` from which on there are numbers
_STYLE: Final = (
    "body{font:15px/1.5 system-ui,sans-serif;max-width:62rem;margin:2rem auto;padding:0 "
    "1rem;color:#222;background:#fff}"
    "h1{font-size:1.4rem}h2{font-size:1rem;font-weight:600}.wide{overflow-x:auto}"
    "table{border-collapse:collapse;width:100%;margin-top:1rem}"
    "th,td{text-align:left;padding:.35rem .6rem;border-top:1px solid #ddd;white-space:nowrap}th{border:0}"
    ".n{text-align:right;font-variant-numeric:tabular-nums}.note "
    "td{border:0;padding-top:0;font-size:13px;opacity:.7}"
    "svg{width:100%;height:auto}svg text{font:14px system-ui,sans-serif;fill:#222}svg "
    ".place{font-size:12px;opacity:.7}"
    "@media(prefers-color-scheme:dark){body{background:#161616;color:#eee}svg "
    "text{fill:#eee}th,td{border-color:#444}}"
)
_LEFT, _WIDTH, _STEP = 250, 420, 48
_LABEL_MAX: Final = 38  # characters of a place that fit to the left of the bars


def _chart(rows: Sequence[CompareRow], *, total: bool) -> str:
    amounts = [
        row.total_micro_usd if total and row.total_micro_usd is not None else row.price_micro_usd
        for row in rows
    ]
    most = max(amounts, default=0) or 1
    height = _STEP * max(1, len(rows))
    label = escape("; ".join(f"{r.kind} {render_price(a)}" for r, a in zip(rows, amounts, strict=True)))
    bars = []
    for index, (row, amount) in enumerate(zip(rows, amounts, strict=True)):
        y = index * _STEP
        width = max(2, round(_WIDTH * amount / most))
        place = row.place if len(row.place) <= _LABEL_MAX else row.place[: _LABEL_MAX - 1] + "…"
        bars.append(
            f'<text x="{_LEFT - 12}" y="{y + 21}" text-anchor="end">{escape(row.kind)}</text>'
            f'<text class="place" x="{_LEFT - 12}" y="{y + 37}" text-anchor="end">{escape(place)}</text>'
            f'<rect x="{_LEFT}" y="{y + 8}" width="{width}" height="{_STEP - 16}" rx="3" '
            f'fill="{_COLOURS.get(row.kind, "#555")}"/>'
            f'<text x="{_LEFT + width + 8}" y="{y + _STEP // 2 + 5}">{escape(render_price(amount))}</text>'
        )
    return (
        f'<svg viewBox="0 0 {_LEFT + _WIDTH + 120} {height}" role="img" aria-label="{label}" '
        f'xmlns="http://www.w3.org/2000/svg">{"".join(bars)}</svg>'
    )

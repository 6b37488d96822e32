"""Where a task could run, side by side: the cells of a table, and one page with a chart. Pure: replies in,
text out."""

from __future__ import annotations

from collections.abc import Sequence
from html import escape
from typing import Final

from argosy.model.priced import CompareView
from argosy.model.units import render_chance, render_duration, render_price

_COLOURS: Final = {
    "owned": "#2e7d32",
    "reserved": "#00838f",
    "spot": "#ef6c00",
    "on-demand": "#1565c0",
    "queued": "#6a1b9a",
}

HEADINGS: Final = (
    "CAPACITY", "PLACE", "MACHINE", "NODES", "$/H", "TOTAL", "DONE IN", "LOSSES", "IN TIME", "SAVES",
)  # fmt: skip


def render_cells(row: CompareView) -> tuple[str, ...]:
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


def render_comparison(
    rows: Sequence[CompareView], *, title: str = "Where to run it", said: Sequence[str] = ()
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


def _row_html(row: CompareView, shown: Sequence[int]) -> str:
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


def _chart(rows: Sequence[CompareView], *, total: bool) -> str:
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

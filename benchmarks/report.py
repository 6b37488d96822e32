"""Results of a run: to JSON with every sample, and to a markdown table."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass, field
from pathlib import Path
from statistics import median

from machine import head, write


@dataclass
class Figure:
    """One row of the table. `at_most`: the target is an upper bound, else a lower one."""

    key: str
    what: str
    unit: str
    target: float
    at_most: bool = True
    peers: str = ""
    samples: list[float] = field(default_factory=list)
    note: str = ""

    @property
    def value(self) -> float | None:
        return median(self.samples) if self.samples else None

    @property
    def reached(self) -> bool | None:
        if self.value is None:
            return None
        return self.value <= self.target if self.at_most else self.value >= self.target

    def render(self) -> str:
        value = "–" if self.value is None else render_amount(self.value, self.unit)
        spread = ""
        if len(self.samples) > 1:
            low, high = min(self.samples), max(self.samples)
            spread = f"{render_amount(low, '')}–{render_amount(high, '')}"
        mark = {True: "yes", False: "**no**", None: "not measured"}[self.reached]
        target = ("≤ " if self.at_most else "≥ ") + render_amount(self.target, self.unit)
        note = f" ({self.note})" if self.note else ""
        return f"| {self.what}{note} | **{value}** | {spread} | {len(self.samples)} | {target} | {mark} | {self.peers} |"  # noqa: E501


def render_amount(value: float, unit: str) -> str:
    text = f"{value:,.0f}" if value >= 100 else f"{value:.1f}" if value >= 10 else f"{value:.3g}"
    return f"{text} {unit}".strip()


HEAD = "| what | median | range | runs | target | reached | peers |\n|---|---|---|---|---|---|---|"


def render_table(figures: list[Figure]) -> str:
    return "\n".join([HEAD, *(figure.render() for figure in figures)])


def save(folder: Path, name: str, machine: dict[str, object], figures: list[Figure]) -> Path:
    """The figures with all samples, in a file that is named after today."""
    path = folder / f"{head()['date']}-{name}.json"
    rows = [{**asdict(figure), "median": figure.value, "reached": figure.reached} for figure in figures]
    write(path, machine=machine, figures=rows)
    return path


def _sum_of_status(figures: list[Figure]) -> str:
    """The stricter reading of that target, as a clause."""
    both = [figure.value for figure in figures if figure.key in ("status-wall", "status-cpu")]
    known = [value for value in both if value is not None]
    return f"their sum was {sum(known):.2f} s" if len(known) == 2 else "their sum was not measured"


def render_page(result: Path) -> str:
    """docs/benchmarks.md from one result file."""
    data = json.loads(result.read_text())
    names = set(Figure.__dataclass_fields__)
    figures = [
        Figure(**{key: value for key, value in row.items() if key in names}) for row in data["figures"]
    ]
    machine = data["machine"]
    return f"""# Benchmarks

Written by `make bench` from `benchmarks/results/{result.name}`, which keeps every sample. Argosy {data["argosy"]}, {data["date"]};
{machine["cpu"]}, {machine["cores"]} cores, {machine["memory_gib"]} GiB, Linux {machine["kernel"]}, Python {machine["python"]}; load {machine["load_1m"]}
when it began.

{render_table(figures)}

How each row is measured: medians of whole runs, from outside, with a wall clock. *First line* is from starting the command until the
first byte of the job's own output comes out of it. The 0.20 s of `status` is held to wall
time and to processor time each; {_sum_of_status(figures)}. Memory is resident memory of the server's process, and of one agent. *Bulk* is one request with 1,000 jobs on one cluster, each running
`true`; the second figure divides by the time from the request until the last has succeeded. *Requests a second* come from a client in a process
of its own with 4 connections over the unix socket, on the same two cores as the server. *Log throughput* is 300 MB from the job's
start until a client has read the last byte through the API.

Peers were measured on the same kind of machine, see [How it compares](comparison.md).
"""  # noqa: E501

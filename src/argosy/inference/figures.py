"""Figures of one model for Prometheus: requests by outcome, rows, runs, and how long they wait and run."""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Iterable

SECONDS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0)
ROWS = (1.0, 2.0, 4.0, 8.0, 16.0, 32.0, 64.0, 128.0)


class Histogram:
    """Counts of values up to each border, and their sum."""

    __slots__ = ("borders", "counts", "total")

    def __init__(self, borders: tuple[float, ...]) -> None:
        self.borders = borders
        self.counts = [0] * (len(borders) + 1)
        self.total = 0.0

    def add(self, value: float) -> None:
        self.counts[bisect_left(self.borders, value)] += 1
        self.total += value

    def lines(self, name: str, labels: str) -> Iterable[str]:
        count = 0
        for border, more in zip((*map(str, self.borders), "+Inf"), self.counts):
            count += more
            yield f'{name}_bucket{{{labels},le="{border}"}} {count}'
        yield f"{name}_sum{{{labels}}} {self.total:.6f}"
        yield f"{name}_count{{{labels}}} {count}"


class Figures:
    """Of one version of one model."""

    def __init__(self, model: str, version: str) -> None:
        self.labels = f'model="{model}",version="{version}"'
        self.answers: dict[int, int] = {}
        self.histograms = {
            "queue_seconds": Histogram(SECONDS),
            "run_seconds": Histogram(SECONDS),
            "batch_rows": Histogram(ROWS),
        }

    def answered(self, status: int) -> None:
        self.answers[status] = self.answers.get(status, 0) + 1

    def waited(self, seconds: float) -> None:
        self.histograms["queue_seconds"].add(seconds)

    def ran(self, seconds: float, rows: int) -> None:
        self.histograms["run_seconds"].add(seconds)
        self.histograms["batch_rows"].add(rows)


def render(figures: Iterable[Figures]) -> str:
    """All of them as text for Prometheus."""
    known = list(figures)
    lines = ["# TYPE inference_requests_total counter"]
    for each in known:
        lines += [
            f'inference_requests_total{{{each.labels},status="{status}"}} {count}'
            for status, count in sorted(each.answers.items())
        ]
    for name in ("queue_seconds", "run_seconds", "batch_rows"):
        lines.append(f"# TYPE inference_{name} histogram")
        for each in known:
            lines += each.histograms[name].lines(f"inference_{name}", each.labels)
    return "\n".join(lines) + "\n"

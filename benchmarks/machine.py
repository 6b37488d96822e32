"""What the machine is, without its name; and what its processes use, read from /proc."""

from __future__ import annotations

import datetime
import json
import os
import platform
import time
from collections.abc import Callable
from pathlib import Path

import argosy


def describe() -> dict[str, object]:
    """CPU, memory, kernel, Python: nothing that tells one machine of a kind from another."""
    model = next(
        (line.partition(":")[2].strip() for line in _lines("/proc/cpuinfo") if line.startswith("model name")),
        platform.machine(),
    )
    memory_kib = next(
        (int(line.split()[1]) for line in _lines("/proc/meminfo") if line.startswith("MemTotal")), 0
    )
    return {
        "cpu": model,
        "cores": len(os.sched_getaffinity(0)),
        "memory_gib": round(memory_kib / (1 << 20), 1),
        "kernel": platform.release().split("-")[0],
        "python": platform.python_version(),
        "load_1m": round(os.getloadavg()[0], 2),
    }


def write(path: Path | str | None, *, machine: dict[str, object] | None = None, **figures: object) -> None:
    """A result as JSON: the day, the version of Argosy, the machine (as `describe` told when it began; None:
    now) and the figures. Nothing without a path."""
    if path:
        told = {**head(machine), **figures}
        Path(path).write_text(json.dumps(told, indent=1) + "\n")


def head(machine: dict[str, object] | None = None) -> dict[str, object]:
    """What every result begins with."""
    day = datetime.datetime.now(datetime.UTC).date().isoformat()
    return {"date": day, "argosy": argosy.__version__, "machine": machine or describe()}


def timed(work: Callable[[], object], runs: int) -> list[float]:
    """Milliseconds of each run, after one that makes what is made once."""
    work()
    return [clocked(work) for _ in range(runs)]


def clocked(work: Callable[[], object]) -> float:
    """Milliseconds of the clock."""
    start = time.perf_counter()
    work()
    return (time.perf_counter() - start) * 1000


def environ() -> dict[str, str]:
    """That of this process, for programs whose modules are compiled once, as they are where pip installs
    them."""
    return {key: value for key, value in os.environ.items() if key != "PYTHONDONTWRITEBYTECODE"}


def before_others(priority: int = 1) -> None:
    """This process and what it starts run before all other work of the machine; needs root."""
    os.sched_setscheduler(0, os.SCHED_RR, os.sched_param(priority))


def _lines(path: str) -> list[str]:
    try:
        return Path(path).read_text().splitlines()
    except OSError:
        return []


def resident_bytes(pid: int) -> int:
    """VmRSS; 0 when the process is gone."""
    return next(
        (int(line.split()[1]) << 10 for line in _lines(f"/proc/{pid}/status") if line.startswith("VmRSS")), 0
    )


def cpu_s(pid: int, *, with_ended: bool = False) -> float:
    """User and system time of a process so far; `with_ended`: and of its children that have ended."""
    try:
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return 0.0
    return sum(map(int, fields[11 : 15 if with_ended else 13])) / os.sysconf("SC_CLK_TCK")


def tree_cpu_s(pid: int) -> float:
    """Of a process, all that it started and all that has ended of them."""
    total, ticks = 0.0, os.sysconf("SC_CLK_TCK")
    for stat in Path("/proc").glob("[0-9]*/stat"):
        try:
            fields = stat.read_text().rpartition(")")[2].split()
        except OSError:
            continue
        parents = {int(stat.parent.name): int(fields[1])}
        found = int(stat.parent.name)
        while found > 1 and found != pid:
            try:
                text = Path(f"/proc/{found}/stat").read_text()
            except OSError:
                break
            found = parents.get(found) or int(text.rpartition(")")[2].split()[1])
        if found == pid:
            total += sum(map(int, fields[11:15])) / ticks
    return total


def processes_with(text: str) -> dict[int, str]:
    """Command lines that contain `text`, by process id; never this process."""
    found = {}
    for entry in Path("/proc").iterdir():
        if not entry.name.isdigit() or int(entry.name) == os.getpid():
            continue
        try:
            command = (entry / "cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace").strip()
        except OSError:
            continue
        if text in command:
            found[int(entry.name)] = command
    return found

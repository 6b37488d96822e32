"""What the machine is, without its name; and what its processes use, read from /proc."""

from __future__ import annotations

import os
import platform
from pathlib import Path


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


def cpu_s(pid: int) -> float:
    """User and system time of a process so far."""
    try:
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return 0.0
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


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

"""What drivers of infrastructures cost a server that uses none of them: import, start, memory, `check`.

    python benchmarks/drivers.py [--runs 5] [--name NAME]

Import: processor time of making one driver in a process that has loaded what a server loads, with bytecode,
the median of several processes, for each driver; the row is the dearest. Start (also as processor time, which
a busy machine does not change much), memory and `check`: the real server and command line in an empty home
without any credentials, with `ARGOSY_INFRA` naming every driver there is, beside the same with the local one
alone. Nothing outside this machine is asked: addresses of APIs that a driver would call do not resolve or are
not reached, and the time until that is known is what `check` takes.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from statistics import median

import machine
from report import Figure, render_table, save

from argosy.providers import find_providers, is_launchable

MB = 1_000_000
_REST_S = 3.0
_MAKE = """
import sys, time, pathlib
import argosy.server.run, argosy.server.application, argosy.controllers.shell, argosy.infra.quotes
import argosy.providers.local.provider
from argosy.infra.provider import Setting
from argosy.infra.system import SystemClock, SystemIds
from argosy.providers import find_providers
module = find_providers(with_driver=True)[sys.argv[1]]
root = pathlib.Path(sys.argv[2])
setting = Setting(root=root, clock=SystemClock(), ids=SystemIds(), environ={"HOME": str(root)}, home=root)
begun = time.process_time()
module.create(setting)
print((time.process_time() - begun) * 1000)
"""


def drivers() -> list[str]:
    return sorted(name for name, each in find_providers(with_driver=True).items() if is_launchable(each))


def making_ms(name: str, folder: Path) -> float:
    command = [sys.executable, "-c", _MAKE, name, str(folder)]
    done = subprocess.run(command, check=True, capture_output=True, text=True, env=machine.environ())
    return float(done.stdout)


class Home:
    """An empty home with a server of its own."""

    def __init__(self, folder: Path, infra: str) -> None:
        self.folder = folder
        kept = {name: value for name, value in os.environ.items() if name in ("PATH", "LANG", "VIRTUAL_ENV")}
        state = folder / "state"
        self.environ = kept | {"HOME": str(folder), "ARGOSY_HOME": str(state), "ARGOSY_INFRA": infra}

    def argosy(self, *words: str) -> float:
        """Seconds that the command took."""
        begun = time.perf_counter()
        subprocess.run(
            [sys.executable, "-m", "argosy.cli", *words], env=self.environ, capture_output=True, check=False
        )
        return time.perf_counter() - begun

    def _pid(self) -> int:
        found = machine.processes_with("argosy.server")
        (pid,) = [pid for pid in found if str(self.folder) in _environ(pid)]
        return pid

    def memory_mb(self) -> float:
        return machine.resident_bytes(self._pid()) / MB

    def processor_s(self) -> float:
        """Of the server since it began."""
        return machine.cpu_s(self._pid())


def _environ(pid: int) -> str:
    try:
        return Path(f"/proc/{pid}/environ").read_text(errors="replace")
    except OSError:
        return ""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--runs", type=int, default=5)
    parser.add_argument("--name", default="drivers")
    options = parser.parse_args()
    names = drivers()
    started = Figure("start-all", "server with all drivers, no credentials: start", "s", 1.2)
    worked = Figure("start-all-cpu", "the same: processor time of the server until it answers", "CPU-s", 1.2)
    memory = Figure("memory-all", "the same: memory at rest", "MB", 90)
    alone = Figure("start-local", "server with the local driver alone: start", "s", 1.2)
    after = Figure(
        "memory-checked", "the same after `argosy check`, which loads what SDKs there are", "MB", 200
    )
    checked = Figure("check-all", "`argosy check` with all drivers, no credentials", "s", 3.0)
    with tempfile.TemporaryDirectory() as folder:
        dearest = _imports(names, Path(folder), options.runs)
        for run in range(options.runs):
            for infra, figure in ((",".join(names), started), ("local", alone)):
                home = Home(Path(folder) / f"{run}-{figure.key}", infra)
                home.folder.mkdir()
                figure.samples.append(home.argosy("server", "start"))
                if figure is started:
                    worked.samples.append(home.processor_s())
                    time.sleep(_REST_S)
                    memory.samples.append(home.memory_mb())
                    checked.samples.append(home.argosy("check"))
                    after.samples.append(home.memory_mb())
                home.argosy("server", "stop")
    figures = [dearest, started, worked, alone, memory, after, checked]
    print(f"{len(names)} drivers: {', '.join(names)}\n")
    print(render_table(figures))
    results = Path(__file__).parent / "results"
    print(save(results, options.name, machine.describe(), figures).name)


def _imports(names: list[str], folder: Path, runs: int) -> Figure:
    for name in names:
        making_ms(name, folder)  # writes bytecode
    rows = {name: [making_ms(name, folder) for _ in range(runs)] for name in names}
    for name, samples in sorted(rows.items(), key=lambda row: -median(row[1])):
        print(f"{name:14} {median(samples):6.1f} ms ({min(samples):.1f}–{max(samples):.1f})")
    worst = max(rows, key=lambda name: median(rows[name]))
    text = f"the dearest driver to import and make: {worst}"
    return Figure("import-driver", text, "ms", 50, samples=rows[worst])


if __name__ == "__main__":
    main()

"""What editors and notebooks on this machine wait for: ssh, remote kernels, the start page. Prints a table,
keeps every sample.

python benchmarks/editors.py [--only ssh,kernel,web] [--jupyter PYTHON] [--first]      about two minutes
`--jupyter`: a Python that has jupyter_client. `--first`: our processes come before others of this machine
(needs root): figures are then those of a machine that nobody else uses.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

from machine import describe
from report import Figure, render_table, save
from sessions import House

from argosy.model.apps import Isolation

RUNS = 10
_SSHD = Path("/usr/sbin/sshd")


def _run(house: House, *words: str | Path) -> subprocess.CompletedProcess[str]:
    done = subprocess.run(list(map(str, words)), env=house.env, capture_output=True, text=True, check=False)
    if done.returncode:
        raise SystemExit(f"{words[0]} ended with {done.returncode}: {done.stderr[-500:]}")
    return done


def _argosy(house: House, *words: str) -> subprocess.CompletedProcess[str]:
    return _run(house, sys.executable, "-m", "argosy.cli", *words)


def ssh(house: House, given: argparse.Namespace) -> list[Figure]:
    """Log-ins to a session and a cluster, and beside them what OpenSSH alone takes on this machine."""
    figures = {
        "session": Figure("ssh-session", "`ssh SESSION.argosy true`", "s", 0.6),
        "cluster": Figure("ssh-cluster", "`ssh CLUSTER true`", "s", 0.6),
        "again": Figure("ssh-again", "the same, multiplexed", "s", 0.1),
        "bare": Figure("ssh-bare", "for comparison: `sshd -i` on this machine, without Argosy", "s", 0.6),
    }
    if not shutil.which("ssh") or not _SSHD.exists():
        raise SystemExit("OpenSSH is not installed")
    with house.session("ssh") as (view, _):
        launch = ("launch", "-c", "dev", "--cpus", "0.5", "--yes", "--", "true")
        _argosy(house, *launch)
        _argosy(house, "ssh-config", "--yes")
        alone = ["ssh", "-F", house.folder / ".ssh" / "config", "-o", "BatchMode=yes"]
        single = [*alone, "-o", "ControlMaster=no", "-o", "ControlPath=none"]
        shared = [*alone, "-o", "ControlMaster=auto", "-o", f"ControlPath={house.folder}/c"]
        host = f"{view.name}.argosy"
        commands: dict[str, list[str | Path]] = {
            "session": [*single, host, "true"],
            "cluster": [*single, "dev", "true"],
            "again": [*shared, host, "true"],
            "bare": _bare(house),
        }
        _run(house, *commands["cluster"])  # its sshd has settings now
        commands["bare"] = _bare(house)
        subprocess.run([*map(str, shared), "-MNf", host], env=house.env, check=True)
        for _ in range(RUNS):
            for name, words in commands.items():
                begun = time.perf_counter()
                _run(house, *words)
                figures[name].samples.append(time.perf_counter() - begun)
        subprocess.run(
            [*map(str, shared), "-O", "exit", host], env=house.env, check=False, capture_output=True
        )
        _argosy(house, "down", "dev", "--yes")
    return list(figures.values())


def _bare(house: House) -> list[str | Path]:
    """ssh to the very sshd of a node, through a pipe."""
    state = house.folder / "state"
    found = sorted(state.glob("providers/local/*/*/ssh/config-*"))
    config = found[0] if found else "/dev/null"
    return [
        "ssh", "-F", "/dev/null", "-i", state / "ssh" / "id_ed25519", "-o", "BatchMode=yes",
        "-o", "LogLevel=ERROR", "-o", "StrictHostKeyChecking=no", "-o", "UserKnownHostsFile=/dev/null",
        "-o", f"ProxyCommand={_SSHD} -i -f {config}", "node", "true",
    ]  # fmt: skip


_NOTEBOOK = """
import asyncio, json, sys, time
from jupyter_client.manager import AsyncKernelManager

async def main():
    found = {"ready": [], "cell": [], "interrupt": [], "restart": []}
    for run in range(int(sys.argv[1])):
        begun = time.perf_counter()
        manager = AsyncKernelManager(kernel_name="argosy")
        await manager.start_kernel()
        client = manager.client()
        client.start_channels()
        await client.wait_for_ready(timeout=120)
        found["ready"].append(time.perf_counter() - begun)
        async def cell(code):
            told = []
            hook = lambda one: told.append(one["content"].get("text") or one["content"].get("ename") or "")
            await client.execute_interactive(code, timeout=60, output_hook=hook)
            return "".join(told).strip()
        assert await cell("print(6 * 7)") == "42"
        for _ in range(20):
            begun = time.perf_counter()
            assert await cell("print(1)") == "1"
            found["cell"].append((time.perf_counter() - begun) * 1000)
        sleeping = asyncio.ensure_future(cell("import time; print('in', flush=True); time.sleep(30)"))
        await asyncio.sleep(1)
        begun = time.perf_counter()
        await manager.interrupt_kernel()
        assert "KeyboardInterrupt" in await sleeping
        found["interrupt"].append(time.perf_counter() - begun)
        if run == 0:
            begun = time.perf_counter()
            await manager.restart_kernel()
            await client.wait_for_ready(timeout=120)
            found["restart"].append(time.perf_counter() - begun)
            assert await cell("print(6 * 7)") == "42"
        client.stop_channels()
        await manager.shutdown_kernel()
    print(json.dumps(found))

asyncio.run(main())
"""


def kernel(house: House, given: argparse.Namespace) -> list[Figure]:
    """A kernel in a session of its own, by jupyter_client, as JupyterLab, VS Code and nbclient start it."""
    figures = {
        "ready": Figure("kernel-ready", "a kernel in a session of its own is ready, warm node", "s", 3.0),
        "cell": Figure("kernel-cell", "a cell, from its run to its end", "ms", 30),
        "interrupt": Figure("kernel-interrupt", "interrupt of a cell", "s", 0.5),
        "restart": Figure("kernel-restart", "restart, with a new session", "s", 5.0),
    }
    if not given.jupyter:
        raise SystemExit("--jupyter names a Python that has jupyter_client")
    house.env["JUPYTER_DATA_DIR"] = str(house.folder / "jupyter")
    _argosy(house, "kernel", "install")
    with house.session("kernel"):
        pass  # its packages are installed
    done = _run(house, given.jupyter, "-c", _NOTEBOOK, "5")
    for name, samples in json.loads(done.stdout.splitlines()[-1]).items():
        figures[name].samples += samples
    return list(figures.values())


def web(house: House, given: argparse.Namespace) -> list[Figure]:
    """`argosy web` until the page in a browser has answered who it is; the browser runs already."""
    figure = Figure("web", "`argosy web` until the page is there, signed in", "s", 1.5)
    from playwright.sync_api import sync_playwright

    program = shutil.which("chromium") or shutil.which("chromium-browser")
    words = [sys.executable, "-m", "argosy.cli", "web", "--no-browser", "--user", "admin"]
    with sync_playwright() as driver:
        browser = driver.chromium.launch(executable_path=program, args=["--no-sandbox"])
        for _ in range(RUNS + 1):
            page = browser.new_context().new_page()
            begun = time.perf_counter()
            with subprocess.Popen(words, env=house.env, stdout=subprocess.PIPE, text=True) as process:
                assert process.stdout is not None
                page.goto(process.stdout.readline().strip())
                page.get_by_role("heading", name="Start a session").wait_for()
                figure.samples.append(time.perf_counter() - begun)
                process.terminate()
            page.context.close()
        browser.close()
    figure.samples.pop(0)  # the browser's first page
    return [figure]


PARTS: dict[str, Callable[[House, argparse.Namespace], list[Figure]]] = {
    "ssh": ssh,
    "kernel": kernel,
    "web": web,
}


def _come_first(house: House) -> None:
    """Every process of ours, those of the server too, gets real-time priority; so has what they start."""
    for entry in Path("/proc").iterdir():
        try:
            mine = entry.name.isdigit() and os.fsencode(str(house.folder)) in (entry / "environ").read_bytes()
        except OSError:
            continue
        if mine or entry.name == str(os.getpid()):
            subprocess.run(["chrt", "-a", "-f", "-p", "1", entry.name], check=False, capture_output=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--only", default=",".join(PARTS))
    parser.add_argument("--name", default="editors")
    parser.add_argument("--jupyter", default="")
    parser.add_argument("--first", action="store_true")
    given = parser.parse_args()
    machine, figures = describe(), list[Figure]()
    machine["priority"] = "real-time, others use the machine" if given.first else "usual"
    with tempfile.TemporaryDirectory(prefix="ae-", ignore_cleanup_errors=True) as folder:
        house = House(Path(folder))
        with house.session("terminal", Isolation.PROCESS):
            pass  # the node is warm
        subprocess.run(
            [sys.executable, "-m", "argosy.cli", "user", "add", "admin"],
            env=house.env,
            check=False,
            capture_output=True,
        )
        if given.first:
            _come_first(house)
        try:
            for part in given.only.split(","):
                figures += PARTS[part](house, given)
                print(render_table(figures), flush=True)
        finally:
            stop = [sys.executable, "-m", "argosy.cli", "server", "stop"]
            subprocess.run(stop, env=house.env, check=False, capture_output=True)
    print(save(Path(__file__).parent / "results", given.name, machine, figures))


if __name__ == "__main__":
    main()

"""Functions: how soon a fresh process answers, what a warm one adds, and how many events a core does.

    python benchmarks/functions.py [--json FILE] [--rounds 30] [--real-time]

The program that replicas run is started with a handler that has imported numpy. Cold: an event for which a
process has to be forked (its CPU time is that of the fork server, the process and the front together), beside
a plain interpreter that imports the same. Warm: the Invoke API, over Python's http.client, to a process that
is there, beside an event that goes to the worker without HTTP. Events per second of CPU time of all processes
of the function, with eight connections to the Invoke API. With `--real-time` (root) all of it is scheduled
before whatever else the machine does, so that wall times are those of an idle one.
"""

from __future__ import annotations

import argparse
import http.client
import os
import socket
import struct
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable
from pathlib import Path
from statistics import median

from machine import tree_cpu_s, write

from argosy.functions import worker

HANDLER = "import numpy\n\ndef handler(event, context):\n    return {'n': event.get('n', 0) + 1}\n"
PATH = "/2015-03-31/functions/f/invocations"
EVENTS = 6000
CONNECTIONS = 8


class Function:
    """The program with one handler."""

    def __init__(self, folder: Path, *options: str) -> None:
        (folder / "app.py").write_text(HANDLER)
        command = [
            sys.executable,
            "-m",
            "argosy.functions",
            "--handler",
            "app.handler",
            "--root",
            str(folder),
        ]
        self.process = subprocess.Popen(
            [*command, "--name", "f", "--port", "0", *options], stdout=subprocess.PIPE, text=True
        )
        assert self.process.stdout is not None
        self.port = int(self.process.stdout.readline().rpartition(":")[2])

    def connect(self) -> http.client.HTTPConnection:
        connection = http.client.HTTPConnection("127.0.0.1", self.port)
        connection.connect()
        return connection

    def close(self) -> None:
        self.process.terminate()
        self.process.wait()


def ask(connection: http.client.HTTPConnection) -> None:
    connection.request("POST", PATH, b'{"n": 1}', {"Content-Type": "application/octet-stream"})
    answer = connection.getresponse()
    assert (answer.status, answer.read()) == (200, b'{"n": 2}')


def timed(what: Callable[[], None], rounds: int) -> list[float]:
    """Milliseconds."""
    found = []
    for _ in range(rounds):
        began = time.perf_counter()
        what()
        found.append(1000 * (time.perf_counter() - began))
    return sorted(found)


def cold(folder: Path, rounds: int) -> dict[str, float]:
    """Each event finds no process: those before are still answering."""
    function = Function(folder, "--concurrency", "1000", "--idle", "0")
    connection = function.connect()
    ask(connection)
    samples, before = [], tree_cpu_s(function.process.pid)
    for _ in range(rounds):
        time.sleep(1.3)  # the sweep ends what is idle
        samples.extend(timed(lambda: ask(connection), 1))
    spent = tree_cpu_s(function.process.pid) - before
    function.close()
    code = "import numpy, json; print(json.dumps({'n': 2}))"
    plain = timed(
        lambda: subprocess.run(
            [sys.executable, "-c", code], check=True, stdout=subprocess.DEVNULL
        ).check_returncode(),
        rounds,
    )
    samples.sort()
    return {
        "cold_ms": median(samples),
        "cold_min_ms": samples[0],
        "cold_cpu_ms": 1000 * spent / rounds,
        "plain_ms": median(plain),
        "plain_min_ms": plain[0],
    }


def forked(folder: Path, rounds: int) -> dict[str, float]:
    """The fork server alone: from the order of a process until its answer, with the event sent along. What
    the process waited for a CPU is told beside it."""
    ours, theirs = socket.socketpair()
    command = [sys.executable, "-m", "argosy.functions", "--zygote", str(theirs.fileno()), "app.handler"]
    server = subprocess.Popen([*command, str(folder), "0"], pass_fds=[theirs.fileno()], cwd=folder)
    theirs.close()
    ours.recv(9)
    about = {"id": "1", "arn": "x", "deadline_ms": 0}
    spent, cpu, waited = [], [], []
    for _ in range(4 * rounds):
        events, other = socket.socketpair()
        reading, writing = os.pipe()
        began = time.perf_counter()
        events.sendall(worker.pack_event(about, b'{"n": 1}'))
        socket.send_fds(ours, [b"f"], [other.fileno(), writing])
        kinds = [(worker.read_message(events) or (b"", b""))[0] for _ in range(2)]
        spent.append(1000 * (time.perf_counter() - began))
        assert kinds == [worker.READY, worker.RESULT]
        pid = struct.unpack("!cIi", ours.recv(9))[1]
        ran, idle, _ = Path(f"/proc/{pid}/schedstat").read_text().split()
        cpu.append(int(ran) / 1e6)
        waited.append(int(idle) / 1e6)
        events.close(), other.close(), os.close(reading), os.close(writing)
        ours.recv(9)
        time.sleep(0.05)
    ours.close()
    server.wait()
    return {
        "forked_ms": median(spent),
        "forked_min_ms": min(spent),
        "forked_cpu_ms": median(cpu),
        "forked_cpu_min_ms": min(cpu),
        "forked_waited_ms": median(waited),
    }


def warm(folder: Path, rounds: int) -> dict[str, float]:
    function = Function(folder, "--concurrency", "1")
    connection = function.connect()
    for _ in range(50):
        ask(connection)
    samples = timed(lambda: ask(connection), 20 * rounds)
    function.close()
    return {"warm_ms": median(samples), "warm_min_ms": samples[0]}


def throughput(folder: Path) -> dict[str, float]:
    function = Function(folder, "--concurrency", str(CONNECTIONS), "--provisioned", str(CONNECTIONS))
    best = 0.0
    for _ in range(3):
        before, began = tree_cpu_s(function.process.pid), time.perf_counter()

        def many() -> None:
            connection = function.connect()
            for _ in range(EVENTS // CONNECTIONS):
                ask(connection)

        threads = [threading.Thread(target=many) for _ in range(CONNECTIONS)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        spent = tree_cpu_s(function.process.pid) - before
        best = max(best, EVENTS / spent)
        print(f"{EVENTS / spent:.0f} events per CPU second, {EVENTS / (time.perf_counter() - began):.0f}/s")
    function.close()
    return {"events_per_cpu_s": best}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--json", type=Path)
    parser.add_argument("--rounds", type=int, default=30)
    parser.add_argument("--real-time", action="store_true", help="neighbours wait (SCHED_FIFO)")
    given = parser.parse_args()
    if given.real_time:
        os.sched_setscheduler(0, os.SCHED_FIFO, os.sched_param(1))  # what it starts inherits it
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        figures = {
            **throughput(folder),
            **warm(folder, given.rounds),
            **forked(folder, given.rounds),
            **cold(folder, given.rounds),
        }
    for key, value in figures.items():
        print(f"{key:18} {value:10.2f}")
    write(given.json, real_time=given.real_time, figures=figures)


if __name__ == "__main__":
    main()

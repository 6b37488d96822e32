"""Sessions, measured from outside: start, terminal, sandbox, relay. Prints a table, keeps every sample.

python benchmarks/sessions.py [--only terminal,relay] [--name laptop]      some minutes; installs JupyterLab
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from statistics import median

from machine import describe, resident_bytes
from report import Figure, render_table, save

from argosy import __version__
from argosy.api.sessions import SessionStreams, SessionView
from argosy.client.client import Client
from argosy.client.node_stream import NodeStream, open_web_socket
from argosy.client.shell import Shell
from argosy.model.apps import Isolation

RUNS = 5
SOCKETS = 500
_POUR = (
    "python3 -c 'import socketserver\n"
    "class H(socketserver.BaseRequestHandler):\n"
    " def handle(self):\n"
    "  first = self.request.recv(1)\n"
    '  if first == b"p":\n'
    "   data = bytes(1 << 20)\n"
    "   for _ in range(512): self.request.sendall(data)\n"
    '  if first == b"s":\n'
    "   while self.request.recv(1 << 20): pass\n"
    '   return self.request.sendall(b"k")\n'
    "  while first: self.request.sendall(first); first = self.request.recv(4096)\n"
    "class S(socketserver.ThreadingTCPServer): request_queue_size = 600; daemon_threads = True\n"
    'S(("127.0.0.1", 9000), H).serve_forever()\''
)


class House:
    """A server of its own, and sessions in it."""

    def __init__(self, folder: Path) -> None:
        self.env = {**os.environ, "ARGOSY_HOME": str(folder / "state"), "HOME": str(folder)}
        self.env["XDG_CACHE_HOME"] = str(Path.home() / ".cache")
        self.env["PATH"] = f"{Path(sys.executable).parent}:{self.env['PATH']}"
        self.env.pop("ARGOSY_SERVER", None)
        self.folder = folder
        self.client = Client(env=self.env)
        self.client.status()
        self.server = int((folder / "state" / "server.pid").read_text().split()[0])
        self._count = 0

    def start(self, app: str, isolation: Isolation = Isolation.SANDBOX) -> tuple[SessionView, float]:
        """A session that is up, and the seconds from the request."""
        self._count += 1
        begun = time.perf_counter()
        view = self.client.start_session(app, name=f"{app}-{self._count}", isolation=isolation)
        while not (view.up_ms and view.status == "running"):
            view = self.client.session(view.name, wait_s=20)
            if view.status in ("failed", "resting", "lost"):
                raise SystemExit(f"{app} did not start: {view.detail}")
        return view, time.perf_counter() - begun

    @contextmanager
    def session(
        self, app: str, isolation: Isolation = Isolation.SANDBOX
    ) -> Iterator[tuple[SessionView, float]]:
        view, seconds = self.start(app, isolation)
        try:
            yield view, seconds
        finally:
            self.client.end_session(view.name)

    def stream(self, name: str, port: int) -> NodeStream:
        return NodeStream(self.client.location, SessionStreams.session_forward(name, port=port).target)

    def shell(self, name: str, command: str = "") -> Shell:
        target = SessionStreams.session_shell(name, command=command or None).target
        return Shell(open_web_socket(self.client.location, target))


def jupyter(house: House) -> list[Figure]:
    up = Figure("jupyter-up", "`session start jupyter` until it can be used, warm node", "s", 3.0)
    byte = Figure("jupyter-byte", "from the request until the first byte of JupyterLab", "s", 2.0)
    with house.session("jupyter"):
        pass  # its packages are installed
    for _ in range(RUNS):
        begun = time.perf_counter()
        with house.session("jupyter") as (view, seconds), house.stream(view.name, 0) as stream:
            stream.write(b"GET /lab HTTP/1.0\r\nHost: localhost\r\n\r\n")
            assert stream.read().startswith(b"HTTP/1.")
            byte.samples.append(time.perf_counter() - begun)
            up.samples.append(seconds)
    return [up, byte]


def terminal(house: House) -> list[Figure]:
    up = Figure("terminal-up", "`session start terminal` until it can be used", "s", 0.5)
    prompt = Figure("prompt", "first byte of a terminal in a session", "s", 0.5)
    lines = Figure("lines", "200,000 lines in a terminal", "s", 0.5)
    for _ in range(RUNS):
        with house.session("terminal") as (view, seconds):
            up.samples.append(seconds)
            begun = time.perf_counter()
            with house.shell(view.name) as shell:
                next(shell.read())
                prompt.samples.append(time.perf_counter() - begun)
            begun = time.perf_counter()
            with house.shell(view.name, "seq 200000") as shell:
                size = sum(len(data) for data in shell.read())
            assert size == 1_488_895, size  # each line ends with a carriage return too
            lines.samples.append(time.perf_counter() - begun)
    return [up, prompt, lines]


def sandbox(house: House) -> list[Figure]:
    figure = Figure("sandbox", "what `sandbox` adds to a start, pairs of starts", "ms", 20)
    for _ in range(2 * RUNS):
        with house.session("terminal", Isolation.PROCESS) as (_, plain):
            pass
        with house.session("terminal") as (_, walled):
            figure.samples.append((walled - plain) * 1000)
    return [figure]


def relay(house: House) -> list[Figure]:
    speed = Figure("relay-down", "relay from a port of a session, one stream", "MB/s", 150, at_most=False)
    up = Figure("relay-up", "relay of 1 GiB to a port of a session, one stream", "MB/s", 150, at_most=False)
    trip = Figure("relay-trip", "round trip of one byte to a sandbox and back, p50", "ms", 1.0)
    flat = Figure("relay-memory", "what 1 GiB up adds to the server's memory", "MB", 16)
    sockets = Figure("relay-sockets", f"what {SOCKETS} idle streams add to the server's memory", "MB", 40)
    with house.session("terminal") as (view, _), house.shell(view.name, _POUR):
        _until(lambda: house.stream(view.name, 9000).close())
        for _ in range(3):
            speed.samples.append(_pour(house, view.name))
        before = resident_bytes(house.server)
        up.samples.append(_send(house, view.name))
        flat.samples.append((resident_bytes(house.server) - before) / 1e6)
        with house.stream(view.name, 9000) as stream:
            trips = []
            for _ in range(500):
                begun = time.perf_counter()
                stream.write(b"x")
                stream.read()
                trips.append(time.perf_counter() - begun)
            trip.samples.append(median(trips) * 1000)
        before = resident_bytes(house.server)
        opened = [house.stream(view.name, 9000) for _ in range(SOCKETS)]
        sockets.samples.append((resident_bytes(house.server) - before) / 1e6)
        for one in opened:
            one.write(b"")
            one.end()
    return [speed, up, trip, flat, sockets]


def _pour(house: House, name: str) -> float:
    with house.stream(name, 9000) as stream:
        begun, size = time.perf_counter(), 0
        stream.write(b"p")
        while size < 512 << 20:
            size += len(stream.read())
        return size / 1e6 / (time.perf_counter() - begun)


def _send(house: House, name: str) -> float:
    data = bytes(256 << 10)
    with house.stream(name, 9000) as stream:
        begun = time.perf_counter()
        stream.write(b"s")
        for _ in range(4096):
            stream.write(data)
        stream.end()
        assert stream.read() == b"k"
        return (1 << 30) / 1e6 / (time.perf_counter() - begun)


def _until(act: Callable[[], None]) -> None:
    from argosy.model.errors import ArgosyError

    for _ in range(400):
        try:
            return act()
        except ArgosyError:
            time.sleep(0.02)
    raise SystemExit("nothing listens in the session")


PARTS = {"jupyter": jupyter, "terminal": terminal, "sandbox": sandbox, "relay": relay}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--only", default=",".join(PARTS))
    parser.add_argument("--name", default="sessions")
    given = parser.parse_args()
    machine, figures = describe(), []
    with tempfile.TemporaryDirectory(prefix="as-", ignore_cleanup_errors=True) as folder:
        house = House(Path(folder))
        try:
            for part in given.only.split(","):
                figures += PARTS[part](house)
                print(render_table(figures), flush=True)
        finally:
            stop = [sys.executable, "-m", "argosy.cli", "server", "stop"]
            subprocess.run(stop, env=house.env, check=False, capture_output=True)
    date = datetime.now(UTC).date().isoformat()
    print(save(Path(__file__).parent / "results", given.name, date, machine, __version__, figures))


if __name__ == "__main__":
    main()

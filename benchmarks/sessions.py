"""Sessions, measured from outside: start, terminal, sandbox, relay. Prints a table, keeps every sample.

python benchmarks/sessions.py [--only terminal,relay,proxy] [--name laptop]   minutes; installs JupyterLab
"""

from __future__ import annotations

import argparse
import os
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from statistics import median

from machine import cpu_s, describe, resident_bytes
from report import Figure, render_table, save

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


#: An app of somebody's own: parts of a file of 1 GiB, uploads, and a WebSocket that pours or echoes.
_APP = """cat >app.py <<'END'
import http.server, socketserver
class H(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    def do_GET(self):
        if self.headers.get("upgrade"): return self.talk()
        first, _, last = self.headers.get("range", "bytes=0-0").partition("=")[2].partition("-")
        left = int(last) - int(first) + 1
        self.send_response(206)
        self.send_header("content-range", f"bytes {first}-{last}/{1 << 30}")
        self.send_header("content-length", str(left))
        self.end_headers()
        data = bytes(1 << 20)
        while left: left -= self.connection.send(data[:left])
    def do_PUT(self):
        left = int(self.headers["content-length"])
        while left: left -= len(self.rfile.read1(min(left, 1 << 20)))
        self.send_response(204)
        self.end_headers()
    def talk(self):
        self.close_connection = True
        self.wfile.write(b"HTTP/1.1 101 Yes\\r\\nupgrade: websocket\\r\\nconnection: upgrade\\r\\n\\r\\n")
        if self.path == "/pour":
            frame = b"\\x82\\x7f" + (1 << 20).to_bytes(8, "big") + bytes(1 << 20)
            for _ in range(512): self.connection.sendall(frame)
        while data := self.connection.recv(4096): self.connection.sendall(data)
class S(socketserver.ThreadingTCPServer):
    request_queue_size, daemon_threads, allow_reuse_address = 600, True, True
S(("127.0.0.1", 8080), H).serve_forever()
END
exec python3 app.py 2>/dev/null"""


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

    def worked(self) -> dict[int, float]:
        """Processor time so far of each process that lives in this house, and of this client."""
        mark, found, children = str(self.folder).encode(), set[int](), dict[int, list[int]]()
        for entry in Path("/proc").iterdir():
            try:
                if entry.name.isdigit():
                    parent = int((entry / "stat").read_text().rpartition(")")[2].split()[1])
                    children.setdefault(parent, []).append(int(entry.name))
                    if mark in (entry / "environ").read_bytes():
                        found.add(int(entry.name))
            except OSError:
                continue
        grown = list(found)  # what is in a sandbox shows no environment of ours
        while grown:
            new = [pid for pid in children.get(grown.pop(), ()) if pid not in found]
            found.update(new)
            grown += new
        return {os.getpid(): time.process_time(), **{pid: cpu_s(pid) for pid in found - {os.getpid()}}}

    def spent(self, before: dict[int, float]) -> float:
        """Processor time since then; what has ended meanwhile does not count."""
        return sum(value - before.get(pid, 0.0) for pid, value in self.worked().items())

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
    work = Figure("jupyter-cpu", "the same in processor time of all that take part", "s", 2.0)
    with house.session("jupyter"):
        pass  # its packages are installed
    for _ in range(RUNS):
        begun, before = time.perf_counter(), house.worked()
        with house.session("jupyter") as (view, seconds), house.stream(view.name, 0) as stream:
            stream.write(b"GET /lab HTTP/1.0\r\nHost: localhost\r\n\r\n")
            assert stream.read().startswith(b"HTTP/1.")
            byte.samples.append(time.perf_counter() - begun)
            work.samples.append(house.spent(before))
            up.samples.append(seconds)
    return [up, byte, work]


def terminal(house: House) -> list[Figure]:
    up = Figure("terminal-up", "`session start terminal` until it can be used", "s", 0.5)
    work = Figure("terminal-cpu", "the same in processor time of all that take part", "s", 0.5)
    prompt = Figure("prompt", "first byte of a terminal in a session", "s", 0.5)
    lines = Figure("lines", "200,000 lines in a terminal", "s", 0.5)
    for _ in range(RUNS):
        before = house.worked()
        with house.session("terminal") as (view, seconds):
            work.samples.append(house.spent(before))
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
    return [up, work, prompt, lines]


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
    # 150 MB/s for 1 GiB on two processors: what all parties together may take of them.
    down_work = Figure("relay-down-cpu", "processor time of all parties for 1 GiB down", "s", 14)
    up_work = Figure("relay-up-cpu", "processor time of all parties for 1 GiB up", "s", 14)
    trip = Figure("relay-trip", "round trip of one byte to a sandbox and back, p50", "ms", 1.0)
    flat = Figure("relay-memory", "what 1 GiB up adds to the server's memory", "MB", 16)
    sockets = Figure("relay-sockets", f"what {SOCKETS} idle streams add to the server's memory", "MB", 40)
    with house.session("terminal") as (view, _), house.shell(view.name, _POUR):
        _until(lambda: house.stream(view.name, 9000).close())
        for _ in range(3):
            worked = house.worked()
            speed.samples.append(_pour(house, view.name))
            down_work.samples.append(2 * house.spent(worked))
        before, worked = resident_bytes(house.server), house.worked()
        up.samples.append(_send(house, view.name))
        up_work.samples.append(house.spent(worked))
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
    return [speed, up, down_work, up_work, trip, flat, sockets]


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


class Browser:
    """Goes to an app as a browser does: by a port of this machine that `argosy session open` leads there."""

    def __init__(self, house: House, name: str) -> None:
        words = [sys.executable, "-m", "argosy.cli", "session", "open", name, "--no-browser"]
        self._bridge = subprocess.Popen(
            words, env=house.env, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL
        )
        assert self._bridge.stdout is not None
        address = self._bridge.stdout.readline().decode().strip()
        self.host = address.split("/")[2]
        self.pid, self._cookie = self._bridge.pid, ""
        code = address.partition("code=")[2]
        told = self.ask("POST", "/.argosy/enter", f"content-length: {5 + len(code)}\r\n", f"code={code}")[1]
        self._cookie = told.partition(b"set-cookie: ")[2].partition(b";")[0].decode()

    def ask(self, method: str, path: str, fields: str, body: str = "") -> tuple[socket.socket, bytes]:
        """A connection whose answer has begun, and the head of that."""
        line = socket.create_connection(("127.0.0.1", int(self.host.rpartition(":")[2])))
        line.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        own = f"host: {self.host}\r\norigin: http://{self.host}\r\ncookie: {self._cookie}\r\n"
        line.sendall(f"{method} {path} HTTP/1.1\r\n{own}{fields}\r\n{body}".encode())
        head = b""
        while method != "PUT" and not head.endswith(b"\r\n\r\n"):
            piece = line.recv(1)
            if not piece:
                break
            head += piece
        return line, head

    def web_socket(self, path: str = "/") -> socket.socket:
        fields = "upgrade: websocket\r\nconnection: upgrade\r\nsec-websocket-key: eA==\r\n"
        line, head = self.ask("GET", path, fields)
        assert head.startswith(b"HTTP/1.1 101"), head
        return line

    def close(self) -> None:
        self._bridge.terminate()
        self._bridge.wait()


_FRAME = b"\x81\xe4" + bytes(4) + b"x" * 100  # 100 bytes of text, masked with zeros


def _read(line: socket.socket, size: int) -> None:
    buffer = bytearray(1 << 20)
    while size > 0:
        got = line.recv_into(buffer)
        assert got, "it ended early"
        size -= got


def proxy(house: House) -> list[Figure]:
    down = Figure("proxy-down", "1 GiB of an app in 4 ranges, as a browser goes", "MB/s", 150, at_most=False)
    up = Figure("proxy-up", "1 GiB uploaded to an app, as a browser goes", "MB/s", 150, at_most=False)
    pour = Figure("proxy-socket", "a WebSocket of an app, one stream down", "MB/s", 150, at_most=False)
    trip = Figure("proxy-trip", "round trip of 100 bytes on a WebSocket of an app, p50", "ms", 1.0)
    down_work = Figure("proxy-down-cpu", "processor time of all parties for 1 GiB down", "s", 14)
    up_work = Figure("proxy-up-cpu", "processor time of all parties for 1 GiB up", "s", 14)
    flat = Figure("proxy-memory", "what 1 GiB down and 1 GiB up add to the server's memory", "MB", 16)
    sockets = Figure("proxy-sockets", f"what {SOCKETS} idle WebSockets add to the server's memory", "MB", 40)
    with house.session("port") as (view, _), house.shell(view.name, _APP):
        browser = Browser(house, view.name)
        try:
            _until(lambda: house.stream(view.name, 8080).close())
            _read(browser.ask("GET", "/", "range: bytes=0-1048575\r\n")[0], 1 << 20)
            before = resident_bytes(house.server)
            worked, begun = house.worked(), time.perf_counter()
            for part in range(4):
                first, size = part << 28, 1 << 28
                line, head = browser.ask("GET", "/", f"range: bytes={first}-{first + size - 1}\r\n")
                assert head.startswith(b"HTTP/1.1 206"), head
                _read(line, size)
            down.samples.append((1 << 30) / 1e6 / (time.perf_counter() - begun))
            down_work.samples.append(house.spent(worked))
            worked, begun = house.worked(), time.perf_counter()
            line, _ = browser.ask("PUT", "/", f"content-length: {1 << 30}\r\n")
            for _ in range(1 << 10):
                line.sendall(bytes(1 << 20))
            assert line.recv(12) == b"HTTP/1.1 204"
            up.samples.append((1 << 30) / 1e6 / (time.perf_counter() - begun))
            up_work.samples.append(house.spent(worked))
            flat.samples.append((resident_bytes(house.server) - before) / 1e6)
            line, begun = browser.web_socket("/pour"), time.perf_counter()
            _read(line, 512 << 20)
            pour.samples.append((512 << 20) / 1e6 / (time.perf_counter() - begun))
            line, trips = browser.web_socket(), list[float]()
            for _ in range(500):
                begun = time.perf_counter()
                line.sendall(_FRAME)
                _read(line, len(_FRAME))
                trips.append(time.perf_counter() - begun)
            trip.samples.append(median(trips) * 1000)
            before = resident_bytes(house.server)
            opened = [browser.web_socket() for _ in range(SOCKETS)]
            sockets.samples.append((resident_bytes(house.server) - before) / 1e6)
            for one in opened:
                one.close()
        finally:
            browser.close()
    return [down, up, pour, trip, down_work, up_work, flat, sockets]


def _until(act: Callable[[], None]) -> None:
    from argosy.model.errors import ArgosyError

    for _ in range(400):
        try:
            return act()
        except ArgosyError:
            time.sleep(0.02)
    raise SystemExit("nothing listens in the session")


PARTS = {"jupyter": jupyter, "terminal": terminal, "sandbox": sandbox, "relay": relay, "proxy": proxy}


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
    print(save(Path(__file__).parent / "results", given.name, machine, figures))


if __name__ == "__main__":
    main()

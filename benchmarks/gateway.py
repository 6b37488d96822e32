"""The gateway's data plane beside HAProxy and an aiohttp proxy, in one run.

    python benchmarks/gateway.py [--seconds 4] [--rounds 3] [--only requests,latency,streams,memory]

Requests per second of processor time of the proxy (not of the clock: other load does not count), the
time of one request, chunks of server-sent events, memory and start. The backend is nginx, the load is wrk
a small asyncio client; what is not installed is left out and said.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import http.client
import importlib.util
import os
import re
import shutil
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from statistics import median
from typing import cast

from machine import cpu_s, write

from argosy.model.routes import ReplicaRoute, RevisionRoute, RouteTable, ServiceRoute

BACKEND, STREAMS = 29400, 29401
ANSWER = '{"id":"x","object":"chat.completion","choices":[{"index":0,"message":{"content":"hello!"}}]}'
NGINX = f"""daemon off; worker_processes 1; pid nginx.pid; error_log /dev/null;
events {{ worker_connections 4096; }}
http {{ access_log off; keepalive_requests 100000000; keepalive_timeout 600s; client_body_temp_path b;
 proxy_temp_path p; fastcgi_temp_path f; uwsgi_temp_path u; scgi_temp_path s;
 server {{ listen 127.0.0.1:{BACKEND} backlog=4096;
  location / {{ default_type application/json; return 200 '{ANSWER}'; }} }} }}
"""
HAPROXY = """global
 nbthread 1
 maxconn 8000
defaults
 mode http
 timeout connect 5s
 timeout client 600s
 timeout server 600s
 option http-keep-alive
 option http-no-delay
 http-reuse safe
frontend f
 bind 127.0.0.1:{port}
 option forwardfor
 use_backend s if {{ path_beg /s/stream }}
 default_backend b
backend b
 server s 127.0.0.1:{backend}
backend s
 server s 127.0.0.1:{streams}
"""
POST = 'wrk.method="POST"; wrk.headers["Content-Type"]="application/json"; wrk.body=string.rep("x",1024)'
AIOHTTP = """
import sys, uvloop
from aiohttp import ClientSession, ClientTimeout, TCPConnector, web
HOP = {"connection", "keep-alive", "transfer-encoding", "te", "trailer", "upgrade", "host"}
async def app():
    a = web.Application(client_max_size=0)
    async def start(a):
        timeout = ClientTimeout(total=None)
        a["s"] = ClientSession(connector=TCPConnector(limit=0), auto_decompress=False, timeout=timeout)
    async def handle(req):
        port = sys.argv[3] if req.path.startswith("/s/stream") else sys.argv[2]
        fields = [(k, v) for k, v in req.headers.items() if k.lower() not in HOP]
        body = req.content if req.can_read_body else None
        url = f"http://127.0.0.1:{port}{req.raw_path}"
        async with a["s"].request(req.method, url, headers=fields, data=body, allow_redirects=False) as r:
            told = [(k, v) for k, v in r.headers.items() if k.lower() not in HOP]
            out = web.StreamResponse(status=r.status, headers=told)
            await out.prepare(req)
            async for piece in r.content.iter_any():
                await out.write(piece)
            await out.write_eof()
            return out
    a.router.add_route("*", "/{t:.*}", handle)
    a.on_startup.append(start)
    return a
uvloop.install()
web.run_app(app(), host="127.0.0.1", port=int(sys.argv[1]), access_log=None, print=None)
"""
CHUNKS, STREAM_COUNT, GAP_S = 75, 100, 0.04


@dataclass
class Proxy:
    """One that is measured; `port` 0 is the backend itself."""

    name: str
    port: int
    command: Callable[[Path], Sequence[str]]
    ready: Callable[[Path, int], None] = lambda folder, port: None


@dataclass
class Sample:
    proxy: str
    what: str
    unit: str
    values: list[float] = field(default_factory=list)


def gateway_command(folder: Path) -> Sequence[str]:
    control = str(folder / "control.sock")
    return [sys.executable, "-m", "argosy.gateway", "--control", control, "--listen", "127.0.0.1:29410"]


def push_table(folder: Path, port: int) -> None:
    """One service for requests and one for streams."""
    import msgspec

    def service(name: str, backend: int, keep: bool) -> ServiceRoute:
        replica = ReplicaRoute(id=f"r-{name}", address=f"127.0.0.1:{backend}")
        return ServiceRoute(
            id=f"svc-{name}", name=name, prefix=f"/s/{name}", keep_prefix=keep, public=True,
            revisions=(RevisionRoute(id="v1", replicas=(replica,)),),
        )  # fmt: skip

    table = RouteTable(
        generation=1, services=(service("web", BACKEND, False), service("stream", STREAMS, True))
    )
    deadline = time.monotonic() + 10
    while True:
        connection = http.client.HTTPConnection("gateway")
        connection.sock = socket.socket(socket.AF_UNIX)
        try:
            connection.sock.connect(str(folder / "control.sock"))
            break
        except OSError:
            assert time.monotonic() < deadline
            time.sleep(0.02)
    connection.request("PUT", "/table", msgspec.json.encode(table))
    assert connection.getresponse().status == 200


def haproxy_command(folder: Path) -> Sequence[str]:
    text = HAPROXY.format(port=29411, backend=BACKEND, streams=STREAMS)
    (folder / "haproxy.cfg").write_text(text)
    return ["haproxy", "-db", "-f", str(folder / "haproxy.cfg")]


def aiohttp_command(folder: Path) -> Sequence[str]:
    (folder / "aio.py").write_text(AIOHTTP)
    return [sys.executable, str(folder / "aio.py"), "29412", str(BACKEND), str(STREAMS)]


def proxies() -> list[Proxy]:
    found = [Proxy("gateway", 29410, gateway_command, push_table)]
    if shutil.which("haproxy"):
        found.append(Proxy("haproxy", 29411, haproxy_command))
    if importlib.util.find_spec("aiohttp"):
        found.append(Proxy("aiohttp", 29412, aiohttp_command))
    return found


@contextlib.contextmanager
def running(command: Sequence[str], port: int, cwd: Path) -> Iterator[subprocess.Popen[bytes]]:
    process = subprocess.Popen(command, cwd=cwd, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        deadline = time.monotonic() + 20
        while True:
            with socket.socket() as probe:
                if not probe.connect_ex(("127.0.0.1", port)):
                    break
            assert time.monotonic() < deadline and process.poll() is None, f"{command[0]} does not start"
            time.sleep(0.02)
        yield process
    finally:
        process.terminate()
        try:
            process.wait(5)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


# --- streams -----------------------------------------------------------------------------------------


class Stream(asyncio.Protocol):
    """A replica that sends an event each GAP_S, with the time at which it was sent."""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = cast(asyncio.Transport, transport)

    def data_received(self, data: bytes) -> None:
        self.going = asyncio.ensure_future(self.go())

    async def go(self) -> None:
        self.transport.write(
            b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n\r\n"
        )
        for _ in range(CHUNKS):
            event = b'data: {"t":%.6f,"choices":[{"index":0,"delta":{"content":"token"}}]}\n\n' % time.time()
            self.transport.write(b"%x\r\n%b\r\n" % (len(event), event))
            await asyncio.sleep(GAP_S)
        self.transport.write(b"0\r\n\r\n")


async def read_streams(port: int) -> list[float]:
    """Seconds from an event's sending to its arrival, of all events of all streams, sorted."""
    taken: list[float] = []

    async def one(number: int) -> None:
        await asyncio.sleep(number * GAP_S / STREAM_COUNT)
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        writer.write(b"GET /s/stream/x HTTP/1.1\r\nHost: a\r\nAccept: text/event-stream\r\n\r\n")
        rest, got = b"", 0
        while got < CHUNKS:
            data = await reader.read(65536)
            assert data, "a stream was cut"
            now = time.time()
            rest += data
            for told in re.findall(rb'"t":([\d.]+),', rest):
                taken.append(now - float(told))
                got += 1
            rest = rest[rest.rfind(b"\n\n") + 2 :] if b"\n\n" in rest else rest
        writer.close()

    await asyncio.gather(*(one(number) for number in range(STREAM_COUNT)))
    return sorted(taken)


def serve_streams() -> None:
    import uvloop

    async def main() -> None:
        server = await asyncio.get_running_loop().create_server(Stream, "127.0.0.1", STREAMS, backlog=1024)
        await server.serve_forever()

    uvloop.run(main())


# --- what is measured --------------------------------------------------------------------------------


def wrk(port: int, path: str, seconds: int, connections: int, script: Path | None) -> tuple[int, float]:
    """Requests, and the median time of one in milliseconds."""
    more, url = ["-s", str(script)] if script else [], f"http://127.0.0.1:{port}{path}"
    told = subprocess.run(
        ["wrk", "--timeout", "30s", "-t1", f"-c{connections}", f"-d{seconds}", "--latency", *more, url],
        capture_output=True, text=True, check=True,
    ).stdout  # fmt: skip
    assert "Non-2xx" not in told and "Socket errors" not in told, told
    found, unit = re.search(r"50%\s+([\d.]+)(us|ms|s)", told).groups()  # type: ignore[union-attr]
    scale = {"us": 1e-3, "ms": 1.0, "s": 1e3}[unit]
    return int(re.search(r"(\d+) requests in", told)[1]), float(found) * scale  # type: ignore[index]


def pss_mib(pid: int) -> float:
    text = Path(f"/proc/{pid}/smaps_rollup").read_text()
    return int(re.search(r"Pss:\s+(\d+)", text)[1]) / 1024  # type: ignore[index]


class Bench:
    def __init__(self, folder: Path, seconds: int, rounds: int, only: set[str]) -> None:
        self.folder, self.seconds, self.rounds, self.only = folder, seconds, rounds, only
        self.half = max(1, seconds // 2)
        self.samples: dict[tuple[str, str], Sample] = {}

    def note(self, proxy: str, what: str, unit: str, value: float) -> None:
        self.samples.setdefault((proxy, what), Sample(proxy, what, unit)).values.append(round(value, 4))
        print(f"{proxy:9} {what:24} {value:10.3f} {unit}", flush=True)

    def run(self) -> None:
        script = self.folder / "post.lua"
        script.write_text(POST)
        (self.folder / "nginx.conf").write_text(NGINX)
        nginx = ["nginx", "-p", str(self.folder), "-c", "nginx.conf"]
        streams = [sys.executable, __file__, "--serve-streams"]
        with running(nginx, BACKEND, self.folder), running(streams, STREAMS, self.folder):
            for _ in range(self.rounds):
                if "latency" in self.only:
                    self.note("direct", "one request", "ms", wrk(BACKEND, "/s/web/x", self.half, 1, None)[1])
                if "streams" in self.only:
                    self.note_streams("direct", STREAMS, 0)
                for proxy in proxies():
                    self.measure(proxy, script)

    def measure(self, proxy: Proxy, script: Path) -> None:
        with running(proxy.command(self.folder), proxy.port, self.folder) as process:
            proxy.ready(self.folder, proxy.port)
            if "memory" in self.only:
                self.note(proxy.name, "start", "CPU s", cpu_s(process.pid))
            if "requests" in self.only:
                for what, more in (("GET", None), ("POST 1 kB", script)):
                    wrk(proxy.port, "/s/web/x", 1, 16, more)
                    before = cpu_s(process.pid)
                    count, _ = wrk(proxy.port, "/s/web/x", self.seconds, 32, more)
                    self.note(proxy.name, what, "requests/CPU s", count / (cpu_s(process.pid) - before))
            if "latency" in self.only:
                self.note(proxy.name, "one request", "ms", wrk(proxy.port, "/s/web/x", self.half, 1, None)[1])
            if "streams" in self.only:
                self.note_streams(proxy.name, proxy.port, process.pid)
            if "memory" in self.only:
                self.note(proxy.name, "memory", "MiB", pss_mib(process.pid))

    def note_streams(self, name: str, port: int, pid: int) -> None:
        before = cpu_s(pid) if pid else 0.0
        taken = asyncio.run(read_streams(port))
        if pid:
            self.note(name, "event", "us of CPU", (cpu_s(pid) - before) * 1e6 / len(taken))
        self.note(name, "event p50", "ms", taken[len(taken) // 2] * 1e3)
        self.note(name, "event p99", "ms", taken[len(taken) * 99 // 100] * 1e3)

    def table(self) -> str:
        names = ["direct", *(proxy.name for proxy in proxies())]
        lines = [f"| what | {' | '.join(names)} | gateway : haproxy |", "|" + "---|" * (len(names) + 2)]
        for what in dict.fromkeys(what for _, what in self.samples):
            values = {
                name: median(sample.values) for (name, of), sample in self.samples.items() if of == what
            }
            unit = next(sample.unit for (_, of), sample in self.samples.items() if of == what)
            cells = [f"{values[name]:,.4g}" if name in values else "" for name in names]
            both = "gateway" in values and "haproxy" in values and values["haproxy"]
            ratio = f"{values['gateway'] / values['haproxy']:.2f}" if both else ""
            lines.append(f"| {what} ({unit}) | {' | '.join(cells)} | {ratio} |")
        return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--seconds", type=int, default=4)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--only", default="requests,latency,streams,memory")
    parser.add_argument("--json", type=Path)
    parser.add_argument("--serve-streams", action="store_true", help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.serve_streams:
        serve_streams()
        return
    missing = [name for name in ("nginx", "wrk") if not shutil.which(name)]
    if missing:
        raise SystemExit(f"not installed: {', '.join(missing)}")
    os.environ.pop("ARGOSY_GATEWAY_WORKERS", None)
    with tempfile.TemporaryDirectory() as folder:
        bench = Bench(Path(folder), given.seconds, given.rounds, set(given.only.split(",")))
        bench.run()
    print("\n" + bench.table())
    write(given.json, samples=[asdict(sample) for sample in bench.samples.values()])


if __name__ == "__main__":
    main()

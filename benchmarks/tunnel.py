"""A tunnel beside `forward_remote_port` of asyncssh, in one run.

    python benchmarks/tunnel.py [--peer /tmp/venv/bin/python] [--seconds 4] [--rounds 3] [--json FILE]

Small requests and a large body through one connection from behind a firewall: requests, and MB, per second
of processor time of each end (not of the clock: other load does not count). Then the time of small requests
while 1 GB passes through the same tunnel. The backend is nginx, the load is wrk and curl. `--peer` is a
Python that has asyncssh.
"""

from __future__ import annotations

import argparse
import asyncio
import re
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from pathlib import Path
from statistics import median

from machine import cpu_s, write

from argosy.gateway.own_certificate import ensure_certificate
from argosy.gateway.tunnel_greeting import sha256_of

BACKEND, MUX, WEB, SSH, FORWARDED = 29500, 29510, 29511, 29520, 29521
NAMES = ("direct", "tunnel", "asyncssh")
BIG_MB = 64
NGINX = f"""daemon off; worker_processes 1; pid nginx.pid; error_log /dev/null;
events {{ worker_connections 4096; }}
http {{ access_log off; sendfile on; keepalive_requests 100000000; keepalive_timeout 600s;
 client_body_temp_path b; proxy_temp_path p; fastcgi_temp_path f; uwsgi_temp_path u; scgi_temp_path s;
 server {{ listen 127.0.0.1:{BACKEND} backlog=4096;
  location /big {{ root .; try_files /big.bin =404; }}
  location / {{ default_type text/plain; return 200 'hello from behind the firewall'; }} }} }}
"""
PEER = """
import asyncio, sys, asyncssh
try:
    import uvloop
    uvloop.install()
except ImportError:
    pass
FAST = ["aes128-gcm@openssh.com"]
class Server(asyncssh.SSHServer):
    def begin_auth(self, user): return True
    def public_key_auth_supported(self): return True
    def validate_public_key(self, user, key): return True
    def server_requested(self, host, port): return True
async def outside(port):
    await asyncssh.listen("127.0.0.1", int(port), server_host_keys=["key"], server_factory=Server,
                          encryption_algs=FAST)
    await asyncio.Event().wait()
async def inside(port, public, target):
    connection = await asyncssh.connect("127.0.0.1", int(port), client_keys=["key"], known_hosts=None,
                                        username="a", encryption_algs=FAST)
    listener = await connection.forward_remote_port("127.0.0.1", int(public), "127.0.0.1", int(target))
    await listener.wait_closed()
if sys.argv[1] == "key":
    asyncssh.generate_private_key("ssh-ed25519").write_private_key("key")
else:
    asyncio.run({"outside": outside, "inside": inside}[sys.argv[1]](*sys.argv[2:]))
"""


@dataclass
class Sample:
    tunnel: str
    what: str
    unit: str
    values: list[float] = field(default_factory=list)


@dataclass
class Tunnel:
    name: str
    port: int
    outside: list[str]
    inside: list[str]


def tunnels(folder: Path, peer: str) -> list[Tunnel]:
    certificate, key = ensure_certificate(folder / "tls", (), time.time())
    token = "benchmark"
    (folder / "token").write_text(token)
    (folder / "tokens").write_text(f"web {sha256_of(token)}\n")
    own = [sys.executable, "-m", "argosy.gateway.tunnel"]
    found = [
        Tunnel(
            "tunnel", WEB,
            [*own, "accept", "--listen", f"127.0.0.1:{MUX}", "--certificate", str(certificate), str(key),
             "--tokens", "tokens", "--sockets", "sockets", "--publish", f"web=127.0.0.1:{WEB}"],
            [*own, "open", "web", f"127.0.0.1:{BACKEND}", "--to", f"127.0.0.1:{MUX}", "--token-file", "token",
             "--authority", str(certificate), "--spread", "0.5"],
        )
    ]  # fmt: skip
    if peer:
        (folder / "peer.py").write_text(PEER)
        subprocess.run([peer, "peer.py", "key"], cwd=folder, check=True)
        found.append(
            Tunnel(
                "asyncssh", FORWARDED, [peer, "peer.py", "outside", str(SSH)],
                [peer, "peer.py", "inside", str(SSH), str(FORWARDED), str(BACKEND)],
            )
        )  # fmt: skip
    return found


@contextmanager
def running(folder: Path, tunnel: Tunnel) -> Iterator[tuple[int, int]]:
    """The processes outside and inside."""
    outside = subprocess.Popen(tunnel.outside, cwd=folder, stdout=subprocess.DEVNULL)
    inside: subprocess.Popen[bytes] | None = None
    try:
        wait_for(int(tunnel.outside[-1]) if tunnel.name == "asyncssh" else MUX, lambda port: True)
        inside = subprocess.Popen(tunnel.inside, cwd=folder, stdout=subprocess.DEVNULL)
        wait_for(tunnel.port, lambda port: bool(get(port, "/")))
        yield outside.pid, inside.pid
    finally:
        for process in (inside, outside):
            if process is not None:
                process.kill()
                process.wait()


def wait_for(port: int, good: Callable[[int], bool]) -> None:
    deadline = time.monotonic() + 20
    while True:
        try:
            socket.create_connection(("127.0.0.1", port), 1).close()
            if good(port):
                return
        except OSError:
            pass
        if time.monotonic() > deadline:
            raise SystemExit(f"nothing serves at port {port}")
        time.sleep(0.05)


def get(port: int, path: str) -> int:
    """Bytes of the answer; 0 when it broke off."""
    total, last = 0, b""
    with socket.create_connection(("127.0.0.1", port), 30) as sock:
        sock.sendall(f"GET {path} HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n".encode())
        while data := sock.recv(1 << 20):
            total, last = total + len(data), data
    return total if last else 0


def wrk(port: int, seconds: int, connections: int) -> tuple[int, float]:
    """Requests, and the median time of one in milliseconds."""
    command = ["wrk", "-t1", f"-c{connections}", f"-d{seconds}", "--latency", f"http://127.0.0.1:{port}/"]
    said = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    found = re.search(r"(\d+) requests in", said)
    middle = re.search(r"50%\s+([\d.]+)(us|ms|s)", said)
    assert found and middle and "Non-2xx" not in said, said
    return int(found[1]), float(middle[1]) * {"us": 1e-3, "ms": 1.0, "s": 1e3}[middle[2]]


async def beside_bulk(port: int, bulk_mb: int) -> list[float]:
    """Times of small requests, one after the other, in milliseconds, sorted: while `bulk_mb` pass."""
    taken: list[float] = []
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    urls = [f"http://127.0.0.1:{port}/big"] * (bulk_mb // BIG_MB)
    bulk = subprocess.Popen(["curl", "-s", *urls], stdout=subprocess.DEVNULL)
    while bulk.poll() is None:
        begun = time.perf_counter()
        writer.write(b"GET / HTTP/1.1\r\nHost: a\r\n\r\n")
        head = await reader.readuntil(b"\r\n\r\n")
        length = re.search(rb"Content-Length: (\d+)", head)
        assert length
        await reader.readexactly(int(length[1]))
        taken.append((time.perf_counter() - begun) * 1e3)
        await asyncio.sleep(0.002)
    writer.close()
    assert bulk.returncode == 0
    return sorted(taken)


class Bench:
    def __init__(self, folder: Path, seconds: int, bulk_mb: int) -> None:
        self.folder, self.seconds, self.bulk_mb = folder, seconds, bulk_mb
        self.samples: dict[tuple[str, str], Sample] = {}

    def note(self, tunnel: str, what: str, unit: str, value: float) -> None:
        self.samples.setdefault((tunnel, what), Sample(tunnel, what, unit)).values.append(round(value, 4))
        print(f"  {tunnel:9s} {what}: {value:,.4g} {unit}", flush=True)

    def measure(self, tunnel: Tunnel) -> None:
        with running(self.folder, tunnel) as pids:
            for connections in (1, 32):
                before = [cpu_s(pid) for pid in pids]
                count, middle = wrk(tunnel.port, self.seconds, connections)
                spent = [cpu_s(pid) - past for pid, past in zip(pids, before, strict=True)]
                for end, each in zip(("outside", "inside"), spent, strict=True):
                    what = f"{connections} connections, {end}"
                    self.note(tunnel.name, what, "requests/CPU s", count / each)
                if connections == 1:
                    self.note(tunnel.name, "one request", "ms", middle)
            before = [cpu_s(pid) for pid in pids]
            size = sum(get(tunnel.port, "/big") for _ in range(4)) / 1e6
            spent = [cpu_s(pid) - past for pid, past in zip(pids, before, strict=True)]
            for end, each in zip(("outside", "inside"), spent, strict=True):
                self.note(tunnel.name, f"large body, {end}", "MB/CPU s", size / each)
            self.note_beside(tunnel.name, tunnel.port)

    def note_beside(self, name: str, port: int) -> None:
        taken = asyncio.run(beside_bulk(port, self.bulk_mb))
        for part in (50, 99):
            self.note(name, f"beside {self.bulk_mb} MB, p{part}", "ms", taken[len(taken) * part // 100])

    def table(self) -> str:
        lines = ["| what | direct | tunnel | asyncssh | tunnel : asyncssh |", "|---|---|---|---|---|"]
        for what in dict.fromkeys(what for _, what in self.samples):
            values = {name: median(one.values) for (name, of), one in self.samples.items() if of == what}
            unit = self.samples["tunnel", what].unit
            cells = [f"{values[name]:,.4g}" if name in values else "" for name in NAMES]
            ratio = f"{values['tunnel'] / values['asyncssh']:.2f}" if values.get("asyncssh") else ""
            lines.append(f"| {what} ({unit}) | {' | '.join(cells)} | {ratio} |")
        return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--peer", default="", metavar="PYTHON")
    parser.add_argument("--seconds", type=int, default=4)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--bulk-mb", type=int, default=1024)
    parser.add_argument("--json", type=Path)
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        folder.chmod(0o755)  # nginx's worker reads the large file
        (folder / "nginx.conf").write_text(NGINX)
        (folder / "big.bin").write_bytes(bytes(BIG_MB * 1_000_000))
        backend = subprocess.Popen(["nginx", "-p", ".", "-c", "nginx.conf"], cwd=folder)
        try:
            wait_for(BACKEND, lambda port: True)
            bench = Bench(folder, given.seconds, given.bulk_mb)
            bench.note("direct", "one request", "ms", wrk(BACKEND, given.seconds, 1)[1])
            for _ in range(given.rounds):
                bench.note_beside("direct", BACKEND)
            for _ in range(given.rounds):
                for tunnel in tunnels(folder, given.peer):
                    bench.measure(tunnel)
        finally:
            backend.terminate()
            backend.wait()
    print("\n" + bench.table())
    write(given.json, samples=[asdict(sample) for sample in bench.samples.values()])


if __name__ == "__main__":
    main()

"""Two real servers over one real PostgreSQL, behind a balancer that takes them in turns."""

from __future__ import annotations

import contextlib
import itertools
import os
import select
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from e2e_house import PATIENCE_S

from argosy.client.client import Client
from argosy.model.errors import ArgosyError
from argosy.testing.ports import free_port
from argosy.testing.postgres_server import PostgresServer

_PIECE_BYTES = 64 << 10


class Balancer:
    """Round robin over TCP. A server that does not answer is passed over."""

    def __init__(self, ports: list[int], address: str = "127.0.0.1") -> None:
        self._turns = itertools.cycle(ports)
        self._count = len(ports)
        self._listener = socket.create_server((address, 0))
        self.port: int = self._listener.getsockname()[1]
        self._pairs: set[socket.socket] = set()
        threading.Thread(target=self._accept, daemon=True).start()

    def _accept(self) -> None:
        while True:
            try:
                client, _ = self._listener.accept()
            except OSError:
                return
            for port in itertools.islice(self._turns, self._count):
                with contextlib.suppress(OSError):
                    server = socket.create_connection(("127.0.0.1", port), timeout=5)
                    server.settimeout(None)
                    threading.Thread(target=self._carry, args=(client, server), daemon=True).start()
                    break
            else:
                client.close()

    def _carry(self, client: socket.socket, server: socket.socket) -> None:
        ways = {client: server, server: client}
        self._pairs.update(ways)
        try:
            while ways:
                for readable in select.select(list(ways), [], [])[0]:
                    data = readable.recv(_PIECE_BYTES)
                    if data:
                        ways[readable].sendall(data)
                    else:
                        other = ways.pop(readable)
                        other.shutdown(socket.SHUT_WR)
        except (OSError, ValueError):
            pass
        for each in (client, server):
            each.close()
            self._pairs.discard(each)

    def close(self) -> None:
        self._listener.close()
        for each in list(self._pairs):
            with contextlib.suppress(OSError):
                each.shutdown(socket.SHUT_RDWR)


class Server:
    """One of them: a process of its own with a state folder of its own."""

    def __init__(self, root: Path, name: str, env: dict[str, str]) -> None:
        self.state, self.name = root / name, name
        self.env = env | {"ARGOSY_HOME": str(self.state)}
        self.words: tuple[str, ...] = ()
        self.process: subprocess.Popen[bytes] | None = None
        self.port = free_port()
        self.env["ARGOSY_PEER"] = f"127.0.0.1:{free_port()}"  # the others reach it over TCP

    def start(self) -> None:
        command = [sys.executable, "-m", "argosy.server", "run", "--listen", f"127.0.0.1:{self.port}"]
        command += self.words
        with (self.state.parent / f"{self.name}.out").open("ab") as out:
            self.process = subprocess.Popen(
                command,
                env=self.env,
                stdin=subprocess.DEVNULL,
                stdout=out,
                stderr=out,
                start_new_session=True,
            )
        wait(f"server {self.name} answers", self._answers, self.log)

    def _answers(self) -> bool:
        assert self.process is not None
        assert self.process.poll() is None, self.log()
        with contextlib.suppress(ArgosyError), self.client() as client:
            return client.health().pid == self.process.pid
        return False

    def client(self) -> Client:
        """Over its own unix socket: as its owner."""
        return Client(env=self.env, start=False)

    def send(self, number: int) -> None:
        assert self.process is not None
        os.kill(self.process.pid, number)
        if number == signal.SIGKILL:
            self.process.wait()

    def stop(self) -> None:
        if self.process is not None and self.process.poll() is None:
            self.process.send_signal(signal.SIGCONT)
            self.process.terminate()
            self.process.wait(PATIENCE_S)

    def log(self) -> str:
        files = [self.state / "server.log", self.state.parent / f"{self.name}.out"]
        return "\n".join(f"{path}:\n{path.read_text()[-4000:]}" for path in files if path.exists())


class Pair:
    """Two servers `a` and `b`, with `a` first to decide, and the balancer in front of them. `older`: where
    the sources of an older release lie, which `a` runs; `b` is not started then. `certificate`: a file with
    certificate and key of `address`, where nodes dial in through the balancer."""

    def __init__(
        self, postgres: PostgresServer, older: str = "", address: str = "127.0.0.1", certificate: str = ""
    ) -> None:
        self._folder = tempfile.TemporaryDirectory(
            prefix="argosy-2s-", dir="/tmp", ignore_cleanup_errors=True
        )
        self.root = Path(self._folder.name)
        keys = self.root / "secrets.key"
        self.postgres, self.database = postgres, postgres.make_database()
        env = {
            name: value
            for name, value in os.environ.items()
            if not name.startswith(("ARGOSY_", "SKYPILOT_", "PYTEST_"))
        } | {
            "ARGOSY_STORE": postgres.url(self.database),
            "ARGOSY_KEY_FILE": str(keys),
            "NO_COLOR": "1",
            "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}",
            "OMP_NUM_THREADS": "1",
        }
        self.a, self.b = (Server(self.root, name, env) for name in "ab")
        self.balancer = Balancer([self.a.port, self.b.port], address)
        for server in self.servers:
            if certificate:
                server.words = ("--tls-cert", certificate, "--tls-key", certificate)
                server.env["ARGOSY_PUBLIC_URL"] = f"https://{address}:{self.balancer.port}"
                server.env["HOME"] = str(self.root)
        if older:
            self.a.env["PYTHONPATH"] = older
        for server in (self.a, self.b):
            server.state.mkdir()
            if not older or server is self.a:
                server.start()
        self.url = f"http://127.0.0.1:{self.balancer.port}"
        done = subprocess.run(
            [sys.executable, "-m", "argosy.server", "token", "--scope", "admin"],
            env=self.a.env, check=True, capture_output=True, text=True,
        )  # fmt: skip
        self.token = done.stdout.strip()
        self.env = {
            **env,
            "ARGOSY_HOME": str(self.root / "laptop"),
            "HOME": str(self.root / "laptop"),
            "ARGOSY_SERVER": self.url,
        }
        self.env |= {
            "ARGOSY_TOKEN": self.token,
            "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}",
        }

    @property
    def servers(self) -> Iterator[Server]:
        yield from (self.a, self.b)

    def client(self) -> Client:
        """Through the balancer."""
        return Client(env=self.env, start=False)

    def run(self, *words: str, ok: bool = True) -> subprocess.CompletedProcess[str]:
        """A command line, through the balancer."""
        return run(self.env, *words, ok=ok, log=self.logs)

    def decider(self) -> Server | None:
        """Who decides, as the database says."""
        now = "(extract(epoch FROM clock_timestamp()) * 1000)::bigint"
        query = f"SELECT holder FROM term WHERE name = 'deciding' AND until_ms > {now}"
        holders = [row[0] for row in self.postgres.execute(query, self.database)]
        ids = {(each.state / "server.id").read_text().strip(): each for each in self.servers}
        return next((ids[each] for each in holders), None)

    def logs(self) -> str:
        return self.a.log() + "\n" + self.b.log()

    def close(self) -> None:
        try:
            for server in self.servers:
                if server.process is not None and server.process.poll() is None:
                    server.send(signal.SIGCONT)
                    with contextlib.suppress(ArgosyError, AssertionError), server.client() as client:
                        names = [each.name for each in client.status().clusters]
                        if names:
                            client.down(names)
                            wait("all is down", lambda: not client.status().clusters, self.logs)
                    break
        finally:
            self.balancer.close()
            for server in self.servers:
                server.stop()
            self._kill_rest()
            self._folder.cleanup()

    def _kill_rest(self) -> None:
        for entry in Path("/proc").iterdir():
            if entry.name.isdigit() and int(entry.name) != os.getpid():
                with contextlib.suppress(OSError):
                    text = (entry / "environ").read_bytes() + (entry / "cmdline").read_bytes()
                    if str(self.root).encode() in text:
                        os.kill(int(entry.name), signal.SIGKILL)


def run(
    env: dict[str, str], *words: str, ok: bool = True, log: Callable[[], str] = str
) -> subprocess.CompletedProcess[str]:
    """One command to its end."""
    program = Path(sys.executable).parent / "argosy"
    done = subprocess.run(
        [str(program), *words], env=env, stdin=subprocess.DEVNULL, capture_output=True, text=True,
        timeout=2 * PATIENCE_S, check=False,
    )  # fmt: skip
    assert not ok or done.returncode == 0, (words, done.stdout, done.stderr, log())
    return done


def wait(what: str, seen: Callable[[], Any], log: Callable[[], str] = str) -> Any:
    """Until `seen()` is true; its value."""
    deadline = time.monotonic() + PATIENCE_S
    while time.monotonic() < deadline:
        if value := seen():
            return value
        time.sleep(0.05)
    raise AssertionError(f"waited in vain: {what}\n{log()}")

"""A server that speaks the API and runs nothing: what clients are tested against. Standard library only.

It keeps clusters, jobs, chunks and trees in memory. `echo TEXT` prints TEXT, `exit N` ends with status N;
anything else prints `ran: …`. Logs can be scripted, connections cut, endpoints made to fail or to wait.

    with FakeServer(Path("/tmp/x/server.sock")) as server:
        client = Client(Location(socket=server.socket))

`python -m argosy.testing.fake_server run --state-dir DIR` serves like the real one (for tests of starting
it).
"""

from __future__ import annotations

import os
import sys
import threading
import time
from collections.abc import Sequence
from pathlib import Path
from types import TracebackType
from typing import NamedTuple, Self
from urllib.parse import parse_qsl, unquote, urlsplit

import msgspec

from argosy import __version__
from argosy.api.endpoint import API_VERSION, PREFIX, AnyEndpoint, Done
from argosy.api.endpoints import ENDPOINTS
from argosy.api.jobs import JobView, LogFrame
from argosy.api.location import socket_path
from argosy.api.server import Health, ServerStatus
from argosy.model.access import OPEN
from argosy.model.errors import ArgosyError
from argosy.testing.bucket_answers import MOUNT
from argosy.testing.fake_answers import FakeAnswers
from argosy.testing.fake_http import Listener, Peer, Terminal
from argosy.testing.folder_answers import RAW
from argosy.testing.shared_answers import STARTED_MS


class Seen(NamedTuple):
    """A request that arrived."""

    endpoint: str
    target: str
    query: dict[str, str]
    headers: dict[str, str]
    body: bytes


class FakeServer(FakeAnswers):
    """Serves on a unix socket, or on a TCP port of the loopback when no socket is given.

    Fields to script it: `failures[endpoint]` are raised one after another; `waits[endpoint]` holds requests
    back until the event is set; `cut_logs_after` closes each log connection after so many frames; `next_log`
    is the log of the next job; `raw_failures[endpoint]` are (HTTP status, body) replies. An endpoint that
    nothing is known of is answered with the smallest value of its reply.
    """

    def __init__(
        self,
        socket: Path | None = None,
        *,
        token: str = "",
        api: int = API_VERSION,
        endpoints: Sequence[AnyEndpoint] = ENDPOINTS,
    ) -> None:
        super().__init__()
        self.endpoints = endpoints
        self.socket = socket
        self.port = 0
        self.token = token
        self.api = api
        self.version = __version__
        self.requests: list[Seen] = []
        self.failures: dict[str, list[ArgosyError]] = {}
        self.raw_failures: dict[str, list[tuple[int, bytes]]] = {}
        self.waits: dict[str, threading.Event] = {}
        self.cut_logs_after: int | None = None
        self.cut_inside_frame = False
        self.body_limit_bytes = 64 << 20
        self.stopped = threading.Event()
        self._listener: Listener | None = None
        self.opened: set[Peer] = set()

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()

    def start(self) -> None:
        """Listen. May be called again after `stop`: everything is still known, as after a restart."""
        self.stopped.clear()
        if self.socket is not None:
            self.socket.parent.mkdir(parents=True, exist_ok=True)
            self.socket.unlink(missing_ok=True)
        self._listener = Listener(self)
        self._listener.start()

    def stop(self) -> None:
        self.stopped.set()
        listener, self._listener = self._listener, None
        if listener is not None:
            listener.close()
        if self.socket is not None:
            self.socket.unlink(missing_ok=True)
        self.cut()

    def cut(self) -> None:
        """Drop every open connection."""
        with self.lock:
            peers, self.opened = self.opened, set()
        for peer in peers:
            peer.close()

    def seen(self, endpoint: str) -> list[Seen]:
        return [request for request in self.requests if request.endpoint == endpoint]

    def answer(
        self, endpoint: AnyEndpoint, path: dict[str, str], query: dict[str, str], body: bytes
    ) -> object:
        """Also of the endpoints that are about the server itself."""
        health = Health(version=self.version, api=self.api, pid=os.getpid(), started_ms=STARTED_MS)
        match endpoint.name:
            case "health":
                return msgspec.structs.replace(health, state_dir="/fake")
            case "server_status":
                return ServerStatus(
                    health=health,
                    memory_bytes=64 << 20,
                    listening=(str(self.socket),),
                    clusters=len(self.clusters),
                    jobs_live=0,
                    log_file="/fake/server.log",
                )
            case "server_stop":
                threading.Timer(0.05, self.stop).start()
                return Done()
        return super().answer(endpoint, path, query, body)

    def handle(self, peer: Peer, method: str, target: str, headers: dict[str, str], body: bytes) -> bool:
        """Answer one request. Whether the connection may go on."""
        parts = urlsplit(target)
        found = _route(self.endpoints, method, parts.path, "websocket" in headers.get("upgrade", "").lower())
        query = dict(parse_qsl(parts.query))
        if found is None and parts.path.startswith(MOUNT):
            peer.send(self.buckets.answer(method, target, headers, body))
            return True
        if found is None:
            return peer.reply(404, b'{"detail":"Not Found"}')
        endpoint, path = found
        with self.lock:
            self.requests.append(Seen(endpoint.name, target, query, headers, body))
        if (
            self.token
            and endpoint.permission != OPEN
            and headers.get("authorization") != f"Bearer {self.token}"
        ):
            return peer.problem(ArgosyError("unauthorized", "the token is missing or wrong"))
        wait = self.waits.get(endpoint.name)
        while wait is not None and not wait.wait(0.05):
            if self.stopped.is_set():
                return False
        if self.raw_failures.get(endpoint.name):
            return peer.reply(*self.raw_failures[endpoint.name].pop(0))
        if self.failures.get(endpoint.name):
            return peer.problem(self.failures[endpoint.name].pop(0))
        try:
            if endpoint.name == "logs":
                return self._stream_log(peer, self._job(path["job"]), query)
            if endpoint.name == "shell":
                self._cluster(path["cluster"])
                Terminal(peer, self).serve(headers, query)
                return False
            if endpoint.name == "checkpoint_chunk":
                return peer.reply(200, self.checkpoints.chunk(path["digest"]))
            if endpoint.name in RAW:
                peer.send(self.folders.raw(endpoint.name, path, query, headers, body))
                return True
            with self.lock:
                reply = self.answer(endpoint, path, query, body)
        except ArgosyError as error:
            return peer.problem(error)
        return peer.reply(200, msgspec.json.encode(reply))

    def _stream_log(self, peer: Peer, job: JobView, query: dict[str, str]) -> bool:
        log = self.logs[job.id]
        follow = query.get("follow") == "true"
        rank = int(query["rank"]) if "rank" in query else None
        at = int(query["cursor"]) if "cursor" in query else 0
        if "tail" in query and "cursor" not in query:
            at = max(0, len(log.lines) - int(query["tail"]))
        peer.start_chunks()
        sent = 0
        while True:
            while at < len(log.lines):
                line = log.lines[at]
                at += 1
                if rank is not None and line.rank != rank:
                    continue
                frame = LogFrame(rank=line.rank, size=len(line.data), cursor=str(at), note=line.note)
                payload = msgspec.json.encode(frame) + b"\n" + line.data
                if self.cut_logs_after is not None and sent >= self.cut_logs_after:
                    if self.cut_inside_frame:
                        peer.chunk(payload[: len(payload) - len(line.data) // 2 - 1])
                    return False
                peer.chunk(payload)
                sent += 1
            if not follow or log.released.wait(0.02):
                if at < len(log.lines):
                    continue
                break
            if self.stopped.is_set():
                return False
        ended = log.released.is_set()
        end = LogFrame(
            end=True,
            cursor=str(at),
            status=log.status if ended else "running",
            exit_code=log.exit_code if ended else None,
            detail=log.detail if ended else "",
        )
        peer.chunk(msgspec.json.encode(end) + b"\n")
        peer.chunk(b"")
        return True


def _route(
    endpoints: Sequence[AnyEndpoint], method: str, path: str, upgrade: bool
) -> tuple[AnyEndpoint, dict[str, str]] | None:
    if not path.startswith(PREFIX + "/"):
        return None
    given = path[len(PREFIX) :].split("/")
    for endpoint in endpoints:
        wanted = endpoint.path.split("/")
        if len(wanted) != len(given) or endpoint.method != ("WS" if upgrade else method):
            continue
        names: dict[str, str] = {}
        for pattern, part in zip(wanted, given, strict=True):
            if pattern.startswith("{"):
                names[pattern[1:-1]] = unquote(part)
            elif pattern != part:
                break
        else:
            return endpoint, names
    return None


def main(arguments: list[str]) -> int:
    """Serve `--state-dir` until stopped. FAKE_SERVER_FAILS: print its value and end with 3."""
    home = Path(arguments[arguments.index("--state-dir") + 1])
    if "FAKE_SERVER_FAILS" in os.environ:
        sys.stderr.write(f"starting in {home}\n{os.environ['FAKE_SERVER_FAILS']}\n")
        return 3
    time.sleep(float(os.environ.get("FAKE_SERVER_STARTS_AFTER_S", "0")))
    path = socket_path(home)
    path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    try:
        lock = os.open(home / "lock", os.O_CREAT | os.O_EXCL)
    except FileExistsError:
        return 5  # server-running
    os.close(lock)
    server = FakeServer(path)
    server.start()
    (home / "pid").write_text(str(os.getpid()))
    server.stopped.wait(60)
    (home / "lock").unlink()
    return 0


if __name__ == "__main__":
    raise SystemExit(main(sys.argv[1:]))

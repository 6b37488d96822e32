"""A Ray cluster that is none: the REST API of its dashboard, strict, with jobs that really run.

A job is a process of this machine, whose `import ray` finds `fake_ray_library`. Nodes are entries of a
list: their amounts are counted, their devices given out, and what a claim starts "on" them runs here. What
Ray would refuse is refused, with its words: fields and queries that it does not know, an id that was used,
a token that is missing. `tests/live/test_ray.py` runs the same tests on a real Ray, so that both say the
same.
"""

from __future__ import annotations

import base64
import hashlib
import itertools
import shutil
import struct
import threading
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final
from urllib.parse import parse_qsl, unquote, urlsplit

import msgspec

from argosy.testing.fake_http import Listener, Peer
from argosy.testing.fake_ray_cluster import FakeJob, FakeRayCluster

_FIELDS: Final[Mapping[str, type | tuple[type, ...]]] = {
    "entrypoint": str,
    "submission_id": str,
    "runtime_env": dict,
    "metadata": dict,
    "entrypoint_num_cpus": (int, float),
    "entrypoint_num_gpus": (int, float),
    "entrypoint_memory": int,
    "entrypoint_resources": dict,
    "entrypoint_label_selector": dict,
}
_ALREADY: Final = (
    "Traceback (most recent call last):\n"
    '  File "job_manager.py", line 525, in submit_job\n    raise ValueError(\n'
    "ValueError: Job with submission_id {} already exists. Please use a different submission_id.\n.\n"
)
_PAGE: Final = b"<!doctype html><html><head><title>Sign in</title></head></html>"
Reply = tuple[int, bytes]


class FakeRay(FakeRayCluster):
    """A cluster behind a port of the loopback. Knobs are plain attributes."""

    def __init__(self, *resources: Mapping[str, float], ip: str = "127.0.0.1", token: str = "") -> None:
        super().__init__(*resources, ip=ip)
        self.socket: Path | None = None
        self.port = 0
        self.opened: set[Peer] = set()
        self.body_limit_bytes = 64 << 20
        self.token, self.version, self.is_page = token, "2.60.0", False
        self.loses_replies = False  # what is asked happens, and the answer is lost
        self.dies_after: int | None = None  # calls; then each finds its connection cut off, before and after
        self.refuses: dict[str, Reply] = {}  # by "METHOD /path": this instead of an answer
        self.retry_after_s = 0  # it wants to be left alone so long: every call is refused
        self.autoscaler: dict[str, Any] | None = None  # its report
        self.trouble: str | None = None  # what the autoscaler says went wrong
        self.cuts_streams_after: int | None = None  # bytes
        self.puts_bytes_before = False  # of each piece of a stream, as older versions do
        self.asked: list[str] = []  # "METHOD /path" of every call
        self._listener = Listener(self)
        self._listener.start()

    @property
    def address(self) -> str:
        return f"127.0.0.1:{self.port}"

    @property
    def _bearer(self) -> str:
        return f"Bearer {self.token}" if self.token else ""

    def close(self) -> None:
        self.clear()
        self._listener.close()
        for peer in list(self.opened):
            peer.close()
        shutil.rmtree(self.folder, ignore_errors=True)

    def handle(self, peer: Peer, method: str, target: str, headers: dict[str, str], body: bytes) -> bool:
        url = urlsplit(target)
        path = unquote(url.path)
        if path.startswith("/library/") and headers.get("authorization") == self._pass:
            with self._lock:
                return peer.reply(
                    200, msgspec.json.encode(self._library(path[9:], msgspec.json.decode(body)))
                )
        self.asked.append(f"{method} {path}")
        if self.dies_after is not None:
            self.dies_after -= 1
            if self.dies_after < 0:
                return False
        if "upgrade" in headers and path.endswith("/logs/tail"):
            self._tail(peer, path.split("/")[3], headers)
            return False
        if path == "/api/v0/logs/stream" and headers.get("authorization", "") == self._bearer:
            return self._stream(peer, dict(parse_qsl(url.query)))
        status, answer = self._answer(method, path, parse_qsl(url.query), headers, body)
        if self.loses_replies and method != "GET":
            return False
        more = f"retry-after: {self.retry_after_s}\r\n" if self.retry_after_s else ""
        return peer.reply(status, answer, more)

    def _answer(
        self, method: str, path: str, query: list[tuple[str, str]], headers: dict[str, str], body: bytes
    ) -> Reply:
        if self.is_page:
            return 200, _PAGE
        if self.retry_after_s:
            return 429, b"too many requests"
        if self.token and (given := headers.get("authorization", "")) != f"Bearer {self.token}":
            return (403, b"Forbidden: Invalid authentication token") if given else (
                401, b"Unauthorized: Missing authentication token"
            )  # fmt: skip
        if (refusal := self.refuses.get(f"{method} {path}")) is not None:
            return refusal
        parts = path.strip("/").split("/")
        with self._lock:
            if path == "/api/version":
                found = {
                    "version": "4",
                    "ray_version": self.version,
                    "ray_commit": "x",
                    "session_name": "session_x",
                }
                return 200, msgspec.json.encode(found)
            if parts[:2] == ["api", "packages"] and len(parts) == 4:
                return self._package(method, f"{parts[2]}://{parts[3]}", body)
            if parts[:2] == ["api", "v0"] and len(parts) == 3:
                return self._states(parts[2], query)
            if path == "/api/cluster_status":
                return 200, msgspec.json.encode(self._status())
            if path == "/api/jobs/":
                return self._submit(body) if method == "POST" else self._list()
            if parts[:2] == ["api", "jobs"] and len(parts) in (3, 4):
                return self._job(method, parts[2], "/".join(parts[3:]))
        return 404, b"404: Not Found"

    def _stream(self, peer: Peer, query: dict[str, str]) -> bool:
        """A file of the folder of logs as it grows, until who reads it goes."""
        path = self.folder / query["filename"]
        if query["node_id"] not in [each.id for each in self.nodes if each.is_alive] or not path.is_file():
            return peer.reply(500, f"A file is not found at: {path}".encode())
        if query["lines"] != "-1":
            return peer.reply(400, b"the fake gives whole files only")
        with path.open("rb") as file:
            peer.start_chunks()
            left = self.cuts_streams_after
            while left is None or left > 0:
                if data := file.read(64 << 10):
                    data = (b"1" if self.puts_bytes_before else b"") + data[:left]
                    left = left if left is None else left - len(data)
                    peer.chunk(data)
                else:
                    time.sleep(float(query["interval"]))
        return False

    def _tail(self, peer: Peer, job_id: str, headers: dict[str, str]) -> None:
        """The log of a job from its beginning on, ten lines at a time, until the job is over."""
        magic = headers["sec-websocket-key"] + "258EAFA5-E914-47DA-95CA-C5AB0DC85B11"
        accept = base64.b64encode(hashlib.sha1(magic.encode()).digest()).decode()
        peer.send(
            "HTTP/1.1 101 Switching Protocols\r\nupgrade: websocket\r\nconnection: Upgrade\r\n"
            f"sec-websocket-accept: {accept}\r\n\r\n".encode()
        )
        job, path = self.jobs[job_id], self.folder / f"{job_id}.log"
        while not path.exists() and not job.is_over:
            time.sleep(0.02)
        if path.exists():
            with path.open(encoding="utf-8") as file:
                while True:
                    was_over = job.is_over
                    while lines := list(itertools.islice(file, 10)):
                        self._frame(peer, 1, "".join(lines).encode())
                    if was_over:
                        break
                    time.sleep(0.02)
        self._frame(peer, 8, struct.pack(">H", 1000))

    def _frame(self, peer: Peer, kind: int, data: bytes) -> None:
        size = bytes([len(data)]) if len(data) < 126 else b"\x7e" + struct.pack(">H", len(data))
        if len(data) > 0xFFFF:
            size = b"\x7f" + struct.pack(">Q", len(data))
        peer.send(bytes([0x80 | kind]) + size + data)

    def _package(self, method: str, uri: str, body: bytes) -> Reply:
        if method == "PUT":
            self.kept[uri] = body
            return 200, b""
        return (200, b"") if uri in self.kept else (404, f"Package {uri} does not exist".encode())

    def _list(self) -> Reply:
        return 200, msgspec.json.encode([each.details() for each in self.jobs.values()])

    def _states(self, kind: str, query: list[tuple[str, str]]) -> Reply:
        known = {"detail", "limit", "timeout", "filter_keys", "filter_predicates", "filter_values"}
        if unknown := {name for name, _ in query} - known:
            return 400, f"the fake knows no {sorted(unknown)}".encode()
        given = dict(query)
        if kind == "nodes":
            rows = [
                {
                    "node_id": node.id,
                    "node_ip": node.ip,
                    "is_head_node": node.is_head,
                    "state": "ALIVE" if node.is_alive else "DEAD",
                    "state_message": node.message,
                    "node_name": node.ip,
                    "resources_total": node.total,
                    "labels": {"ray.io/node-id": node.id, **node.labels},
                }
                for node in self.nodes
            ]
        elif kind == "actors":
            rows = [
                {
                    "actor_id": f"{number:032x}",
                    "class_name": each["class_name"],
                    "state": each["state"],
                    "job_id": "01000000",
                    "name": each["name"],
                    "node_id": each["node"] if each["state"] != "DEPENDENCIES_UNREADY" else None,
                    "pid": each.get("pid", 0),
                    "ray_namespace": "",
                }
                for number, each in enumerate(self.actors.values())
            ]
        else:
            return 404, b"404: Not Found"
        if "filter_keys" in given:
            rows = [each for each in rows if str(each.get(given["filter_keys"])) == given["filter_values"]]
        rows = rows[: int(given.get("limit", "100"))]
        listed = {
            "total": len(rows),
            "num_after_truncation": len(rows),
            "num_filtered": len(rows),
            "result": rows,
        }
        return 200, msgspec.json.encode({"result": True, "msg": "", "data": {"result": listed}})

    def _status(self) -> dict[str, Any]:
        usage = {
            node.id: {name: [node.used.get(name, 0.0), total] for name, total in node.total.items()}
            for node in self.nodes
            if node.is_alive
        }
        report = self.autoscaler or {"activeNodes": {f"node{node.id}": 1 for node in self.nodes}}
        status = {"loadMetricsReport": {"usageByNode": usage, "pgDemand": []}, "autoscalerReport": report}
        return {
            "result": True,
            "msg": "Got cluster status.",
            "data": {"autoscalingStatus": None, "autoscalingError": self.trouble, "clusterStatus": status},
        }

    def _submit(self, body: bytes) -> Reply:
        asked = {name: value for name, value in msgspec.json.decode(body).items() if value is not None}
        for name, value in asked.items():
            if name not in _FIELDS:
                said = f"TypeError: JobSubmitRequest.__init__() got an unexpected keyword argument '{name}'"
                return 400, f"Traceback (most recent call last):\n{said}\n".encode()
            if not isinstance(value, _FIELDS[name]):
                return 400, f"Traceback (most recent call last):\nTypeError: {name} is {value!r}\n".encode()
        for name, value in asked.get("metadata", {}).items():
            if not isinstance(value, str):
                return (
                    400,
                    f"TypeError: metadata values must be strings, got {type(value)} ({name})\n".encode(),
                )
        if asked["submission_id"] in self.jobs:
            return 500, _ALREADY.format(asked["submission_id"]).encode()
        job = self.jobs[asked["submission_id"]] = FakeJob(asked)
        threading.Thread(target=self._run, args=(job,), daemon=True).start()
        return 200, msgspec.json.encode({"job_id": job.id, "submission_id": job.id})

    def _job(self, method: str, job_id: str, verb: str) -> Reply:
        job = self.jobs.get(job_id)
        if job is None:
            return 404, f"Job {job_id} does not exist".encode()
        if method == "POST" and verb == "stop":
            was_on = not job.is_over
            threading.Thread(target=self._end, args=(job,), daemon=True).start()
            return 200, msgspec.json.encode({"stopped": was_on})
        if method == "DELETE":
            if not job.is_over:
                return 500, b"RuntimeError: Attempted to delete job, but it is in a non-terminal state"
            del self.jobs[job_id]
            return 200, msgspec.json.encode({"deleted": True})
        if verb == "logs":
            log = self.folder / f"{job_id}.log"
            text = log.read_text("utf-8", "replace") if log.exists() else ""
            return 200, msgspec.json.encode({"logs": text})
        return 200, msgspec.json.encode(job.details())

"""A Ray cluster that is none: the REST API of its dashboard, strict, with jobs that really run.

A job is a process of this machine, whose `import ray` finds `fake_ray_library`. Nodes are entries of a
list: their amounts are counted, their devices given out, and what a claim starts "on" them runs here. What
Ray would refuse is refused, with its words: fields and queries that it does not know, an id that was used,
a token that is missing. `tests/live/test_ray.py` runs the same tests on a real Ray, so that both say the
same.
"""

from __future__ import annotations

import os
import secrets
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
import time
import zipfile
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Final
from urllib.parse import parse_qsl, unquote, urlsplit

import msgspec

from argosy.testing.fake_http import Listener, Peer

_GIB: Final = 1 << 30
_STOP_S: Final = 3.0
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


class FakeJob:
    """One submission."""

    def __init__(self, asked: dict[str, Any]) -> None:
        self.asked = asked
        self.status, self.message, self.error_type = "PENDING", "Job has not started yet.", None
        self.code: int | None = None
        self.started_ms, self.ended_ms = int(time.time() * 1000), None
        self.process: subprocess.Popen[bytes] | None = None
        self.stops = threading.Event()
        self.log = b""

    @property
    def id(self) -> str:
        return str(self.asked["submission_id"])

    @property
    def is_over(self) -> bool:
        return self.status in ("STOPPED", "SUCCEEDED", "FAILED")

    def details(self) -> dict[str, Any]:
        return {
            "type": "SUBMISSION",
            "job_id": None,
            "submission_id": self.id,
            "driver_info": None,
            "status": self.status,
            "entrypoint": self.asked["entrypoint"],
            "message": self.message,
            "error_type": self.error_type,
            "start_time": self.started_ms,
            "end_time": self.ended_ms,
            "metadata": self.asked.get("metadata") or {},
            "runtime_env": self.asked.get("runtime_env") or {},
            "driver_agent_http_address": None,
            "driver_node_id": None,
            "driver_exit_code": self.code,
        }


class FakeNode:
    """A machine of the cluster."""

    def __init__(
        self, number: int, resources: Mapping[str, float], ip: str, labels: Mapping[str, str]
    ) -> None:
        self.id = f"{number:056x}"
        self.total: dict[str, float] = {"CPU": 4.0, "memory": 8.0 * _GIB, f"node:{ip}": 1.0, **resources}
        self.used: dict[str, float] = {}
        self.devices: set[int] = set(range(int(self.total.get("GPU", 0))))  # free
        self.ip, self.labels, self.is_head = ip, labels, number == 0
        self.message: str | None = None
        self.is_alive = True

    def holds(self, bundle: Mapping[str, float]) -> bool:
        return self.is_alive and all(
            self.total.get(name, 0) - self.used.get(name, 0) >= amount for name, amount in bundle.items()
        )

    def take(self, bundle: Mapping[str, float], sign: int = 1) -> None:
        for name, amount in bundle.items():
            self.used[name] = self.used.get(name, 0) + sign * amount


class FakeRay:
    """A cluster behind a port of the loopback. Knobs are plain attributes."""

    def __init__(self, *resources: Mapping[str, float], ip: str = "127.0.0.1", token: str = "") -> None:
        self.socket: Path | None = None
        self.port = 0
        self.opened: set[Peer] = set()
        self.body_limit_bytes = 64 << 20
        self.folder = Path(tempfile.mkdtemp(prefix="fake-ray-"))
        self.token, self.version, self.is_page = token, "2.60.0", False
        self.loses_replies = False  # what is asked happens, and the answer is lost
        self.refuses: dict[str, Reply] = {}  # by "METHOD /path": this instead of an answer
        self.autoscaler: dict[str, Any] | None = None  # its report
        self.trouble: str | None = None  # what the autoscaler says went wrong
        self.asked: list[str] = []  # "METHOD /path" of every call
        self.nodes = [FakeNode(n, each, ip, {}) for n, each in enumerate(resources or ({}, {}))]
        self.jobs: dict[str, FakeJob] = {}
        self.actors: dict[str, dict[str, Any]] = {}
        self.groups: dict[str, dict[str, Any]] = {}
        self.kept: dict[str, bytes] = {}  # packages and mail, by URI
        self._pass = secrets.token_hex(8)
        self._lock = threading.RLock()
        library = self.folder / "lib/ray"
        library.mkdir(parents=True)
        shutil.copy(Path(__file__).with_name("fake_ray_library.py"), library / "__init__.py")
        self._listener = Listener(self)
        self._listener.start()

    @property
    def address(self) -> str:
        return f"127.0.0.1:{self.port}"

    def close(self) -> None:
        self.clear()
        self._listener.close()
        for peer in list(self.opened):
            peer.close()
        shutil.rmtree(self.folder, ignore_errors=True)

    def clear(self) -> None:
        """Every job ends now."""
        for job in list(self.jobs.values()):
            self._end(job)
        until = time.monotonic() + 10
        while any(not each.is_over for each in self.jobs.values()) and time.monotonic() < until:
            time.sleep(0.01)
        self.jobs.clear()

    def running(self) -> set[str]:
        """Ids of jobs that are not over."""
        with self._lock:
            return {each.id for each in self.jobs.values() if not each.is_over}

    def lose_node(self, index: int, message: str = "Unexpected termination: health check failed") -> None:
        node = self.nodes[index]
        node.is_alive, node.message = False, message
        for actor in self.actors.values():
            if actor["node"] == node.id and actor["state"] != "DEAD":
                self._kill(actor)

    def preempt(self, claim_id: str) -> None:
        """The nodes of a claim are taken by whoever lent them."""
        held = {each["node"] for name, each in self.actors.items() if name.startswith(claim_id)}
        for index, node in enumerate(self.nodes):
            if node.id in held:
                self.lose_node(index, "Terminated due to preemption")

    # -- HTTP ------------------------------------------------------------------------------------------------

    def handle(self, peer: Peer, method: str, target: str, headers: dict[str, str], body: bytes) -> bool:
        url = urlsplit(target)
        path = unquote(url.path)
        if path.startswith("/library/") and headers.get("authorization") == self._pass:
            with self._lock:
                return peer.reply(
                    200, msgspec.json.encode(self._library(path[9:], msgspec.json.decode(body)))
                )
        self.asked.append(f"{method} {path}")
        status, answer = self._answer(method, path, parse_qsl(url.query), headers, body)
        if self.loses_replies and method != "GET":
            return False
        return peer.reply(status, answer)

    def _answer(
        self, method: str, path: str, query: list[tuple[str, str]], headers: dict[str, str], body: bytes
    ) -> Reply:
        if self.is_page:
            return 200, _PAGE
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

    # -- jobs ------------------------------------------------------------------------------------------------

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

    def _run(self, job: FakeJob) -> None:
        """As the supervisor of a job does: in the folder of its package, with a shell."""
        environment = job.asked.get("runtime_env") or {}
        where = self.folder / "work" / job.id
        where.mkdir(parents=True, exist_ok=True)
        uri = environment.get("working_dir", "")
        if uri:
            if uri not in self.kept:
                self._over(job, "FAILED", f"Failed to download {uri}", "RUNTIME_ENV_SETUP_FAILURE")
                return
            package = where / "package.zip"
            package.write_bytes(self.kept[uri])
            with zipfile.ZipFile(package) as archive:
                archive.extractall(where)
        log = self.folder / f"{job.id}.log"
        with self._lock:
            if job.stops.is_set():
                self._over(job, "STOPPED", "Job was intentionally stopped.")
                return
            with log.open("ab") as output:
                output.write(f"Running entrypoint for job {job.id}: {job.asked['entrypoint']}\n".encode())
                output.flush()
                job.process = subprocess.Popen(
                    job.asked["entrypoint"],
                    shell=True,
                    cwd=where,
                    stdout=output,
                    stderr=subprocess.STDOUT,
                    stdin=subprocess.DEVNULL,
                    start_new_session=True,
                    env=self._environ(job, environment),
                )
            job.status, job.message = "RUNNING", "Job is currently running."
        job.code = job.process.wait()
        self._leave(job)
        if job.stops.is_set():
            self._over(job, "STOPPED", "Job was intentionally stopped.")
        elif job.code == 0:
            self._over(job, "SUCCEEDED", "Job finished successfully.")
        else:
            tail = "".join(log.read_text("utf-8", "replace").splitlines(keepends=True)[-10:])
            said = f"Job entrypoint command failed with exit code {job.code}, last available logs:\n{tail}"
            self._over(job, "FAILED", said, "JOB_ENTRYPOINT_COMMAND_ERROR")

    def _environ(self, job: FakeJob, environment: Mapping[str, Any]) -> dict[str, str]:
        own = {name: value for name, value in os.environ.items() if not name.startswith(("ARGOSY", "RAY_"))}
        config = {"runtime_env": environment, "metadata": job.asked.get("metadata") or {}}
        return {
            **own,
            **environment.get("env_vars", {}),
            "PATH": f"{Path(sys.executable).parent}{os.pathsep}{own.get('PATH', '')}",
            "PYTHONPATH": str(self.folder / "lib"),
            "PYTHONUNBUFFERED": "1",
            "RAY_ADDRESS": f"http://{self.address}",
            "RAY_JOB_CONFIG_JSON_ENV_VAR": msgspec.json.encode(config).decode(),
            "FAKE_RAY_JOB": job.id,
            "FAKE_RAY_PASS": self._pass,
            "FAKE_RAY_GCS": "127.0.0.1:6379",
        }

    def _over(self, job: FakeJob, status: str, message: str, error: str | None = None) -> None:
        with self._lock:
            job.status, job.message, job.error_type = status, message, error  # type: ignore[assignment]
            job.ended_ms = int(time.time() * 1000)  # type: ignore[assignment]

    def _end(self, job: FakeJob) -> None:
        with self._lock:
            job.stops.set()
            process = job.process
        if process is None or job.is_over:
            return
        for number in (signal.SIGTERM, signal.SIGKILL):
            try:
                os.killpg(process.pid, number)
                process.wait(_STOP_S)
                return
            except (ProcessLookupError, subprocess.TimeoutExpired):
                continue

    def _leave(self, job: FakeJob) -> None:
        """What the job held is free, and its actors end with it."""
        with self._lock:
            for actor in self.actors.values():
                if actor["job"] == job.id and actor["state"] != "DEAD":
                    self._kill(actor)
            for group in [each for each, found in self.groups.items() if found["job"] == job.id]:
                self._free(group)

    def _kill(self, actor: dict[str, Any]) -> None:
        actor["state"] = "DEAD"
        if actor.get("pid"):
            try:
                os.kill(actor["pid"], signal.SIGKILL)
            except ProcessLookupError:
                pass  # it ended by itself

    # -- what the library asks -------------------------------------------------------------------------------

    def _library(self, what: str, given: dict[str, Any]) -> Any:
        calls: dict[str, Callable[[], Any]] = {
            "init": lambda: given["job"] in self.jobs,
            "group": lambda: self._group(given),
            "placed": lambda: self._placed(given["group"]),
            "ungroup": lambda: self._free(given["group"]),
            "actor": lambda: self._actor(given),
            "state": lambda: self._state(given),
            "kv": lambda: self.kept[given["key"]].decode("latin-1") if given["key"] in self.kept else None,
            "unkv": lambda: self.kept.pop(given["key"], None) is not None,
        }
        return calls[what]()

    def _group(self, given: dict[str, Any]) -> str:
        name = f"pg-{len(self.groups)}"
        self.groups[name] = {**given, "placed": None}
        return name

    def _placed(self, name: str) -> list[dict[str, Any]] | None:
        group = self.groups[name]
        if group["placed"] is None:
            group["placed"] = self._place(group["bundles"], apart=group["strategy"] == "STRICT_SPREAD")
        return group["placed"]  # type: ignore[no-any-return]

    def _place(self, bundles: list[dict[str, float]], *, apart: bool) -> list[dict[str, Any]] | None:
        placed: list[tuple[FakeNode, dict[str, float]]] = []
        for bundle in bundles:
            free = [each for each in self.nodes if each.holds(bundle)]
            free = [each for each in free if not apart or each not in [node for node, _ in placed]]
            if not free:
                for node, taken in placed:
                    node.take(taken, -1)
                return None
            free[0].take(bundle)
            placed.append((free[0], bundle))
        found = []
        for node, bundle in placed:
            devices = [node.devices.pop() for _ in range(int(bundle.get("GPU", 0)))]
            found.append({"node": node.id, "amounts": bundle, "devices": sorted(devices)})
        return found

    def _free(self, name: str) -> None:
        for bundle in self.groups.pop(name, {}).get("placed") or ():
            node = next(each for each in self.nodes if each.id == bundle["node"])
            node.take(bundle["amounts"], -1)
            node.devices.update(bundle["devices"])

    def _actor(self, given: dict[str, Any]) -> None:
        self.actors[given["name"]] = {**given, "state": "DEPENDENCIES_UNREADY"}

    def _state(self, given: dict[str, Any]) -> None:
        actor = self.actors[given["name"]]
        if actor["state"] != "DEAD":
            actor.update(state=given["state"], pid=given["pid"])
        else:
            self._kill({**actor, "pid": given["pid"]})

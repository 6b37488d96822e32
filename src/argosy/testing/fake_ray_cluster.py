"""What runs in a fake Ray cluster: jobs are processes of this machine, nodes are entries of a list, whose
amounts are counted and whose devices are given out."""

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

import msgspec

_GIB: Final = 1 << 30
_STOP_S: Final = 3.0


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


class FakeRayCluster:
    """Jobs, nodes, placement groups and actors. `fake_ray.FakeRay` is its dashboard."""

    def __init__(self, *resources: Mapping[str, float], ip: str) -> None:
        self.folder = Path(tempfile.mkdtemp(prefix="fake-ray-"))
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

    @property
    def address(self) -> str:
        """Of the dashboard."""
        raise NotImplementedError

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

    def pid_of(self, claim_id: str, what: str) -> int:
        """Of the driver of a claim, or of the actor that is its first node."""
        process = self.jobs[claim_id].process
        assert process is not None
        return process.pid if what == "driver" else int(self.actors[f"{claim_id}-0"]["pid"])

    def preempt(self, claim_id: str) -> None:
        """The nodes of a claim are taken by whoever lent them."""
        held = {each["node"] for name, each in self.actors.items() if name.startswith(claim_id)}
        for index, node in enumerate(self.nodes):
            if node.id in held:
                self.lose_node(index, "Terminated due to preemption")

    # -- jobs ------------------------------------------------------------------------------------------------

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
            actor.update(state=given["state"], pid=given["pid"] or actor.get("pid", 0))
        else:
            self._kill({**actor, "pid": given["pid"]})

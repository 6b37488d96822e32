"""The REST API of a Ray cluster's dashboard: jobs, packages, and the state of nodes and actors.

Everything goes through one port. What Ray answers is read into types; its refusals become errors of the
border.
"""

from __future__ import annotations

import re
from collections.abc import AsyncGenerator, AsyncIterator, Mapping, Sequence
from pathlib import Path
from typing import Final, Generic, TypeVar
from urllib.parse import urlsplit

import msgspec

from argosy.infra import border
from argosy.infra.http_json import Ask, How, HttpJson, Service
from argosy.infra.http_words import Said
from argosy.model.addresses import is_loopback
from argosy.model.ids import Clock
from argosy.providers.ray.settings import ClusterSettings

T = TypeVar("T")
OLDEST: Final = (2, 9)  # older ones list no nodes with their resources in this form
_LIST_MAX: Final = 10_000  # Ray gives no more in one answer
_OWN_TYPE: Final = re.compile(r"node_?[0-9A-Fa-f]{40,}")
_DEFAULT_TOKEN: Final = "~/.ray/auth_token"  # noqa: S105  a path
_SIGN_IN: Final = (
    "give the server the cluster's token: RAY_AUTH_TOKEN, a file named by RAY_AUTH_TOKEN_PATH, "
    "~/.ray/auth_token, or `token_file` in ray.yaml (`ray get-auth-token` prints it on the head node)"
)


class Version(msgspec.Struct, frozen=True, kw_only=True):
    ray_version: str


class Job(msgspec.Struct, frozen=True, kw_only=True):
    """A job, as Ray lists it. `submission_id` is None for one that was not submitted."""

    submission_id: str | None = None
    status: str
    message: str | None = None
    error_type: str | None = None
    metadata: dict[str, str] | None = None
    start_time: int | None = None
    end_time: int | None = None
    driver_exit_code: int | None = None
    driver_node_id: str | None = None

    @property
    def is_over(self) -> bool:
        return self.status in ("STOPPED", "SUCCEEDED", "FAILED")


class RayNode(msgspec.Struct, frozen=True, kw_only=True):
    node_id: str
    node_ip: str = ""
    state: str = "ALIVE"  # or DEAD
    state_message: str | None = None
    is_head_node: bool = False
    resources_total: dict[str, float] = {}
    labels: dict[str, str] | None = None

    @property
    def is_alive(self) -> bool:
        return self.state == "ALIVE"


class Actor(msgspec.Struct, frozen=True, kw_only=True):
    name: str = ""
    state: str = ""  # DEPENDENCIES_UNREADY, PENDING_CREATION, ALIVE, RESTARTING, DEAD
    node_id: str | None = None


class _Listed(msgspec.Struct, Generic[T], frozen=True):
    result: list[T] = []
    total: int = 0


class _Data(msgspec.Struct, Generic[T], frozen=True):
    result: _Listed[T] = _Listed()


class _State(msgspec.Struct, Generic[T], frozen=True):
    """Around what the API of states lists."""

    data: _Data[T]
    result: bool = True
    msg: str = ""


class Load(msgspec.Struct, frozen=True, kw_only=True, rename="camel"):
    usage_by_node: dict[str, dict[str, tuple[float, float]]] = {}  # used and total of resources


class Autoscaler(msgspec.Struct, frozen=True, kw_only=True, rename="camel"):
    """What the autoscaler, if there is one, does. Ray gives these lists in several forms: only whether
    they are empty is read."""

    active_nodes: dict[str, int] | None = None  # by the type of node
    pending_nodes: list[msgspec.Raw] | None = None
    pending_launches: dict[str, int] | None = None


class ClusterStatus(msgspec.Struct, frozen=True, kw_only=True, rename="camel"):
    load_metrics_report: Load = Load()
    autoscaler_report: Autoscaler | None = None

    @property
    def has_autoscaler(self) -> bool:
        """Whether something may add nodes. Without one Ray names types of nodes by the nodes' own ids."""
        report = self.autoscaler_report or Autoscaler()
        kinds = [*(report.active_nodes or {}), *(report.pending_launches or {})]
        return any(not _OWN_TYPE.fullmatch(kind) for kind in kinds)

    @property
    def coming(self) -> int:
        """Nodes that the autoscaler starts."""
        report = self.autoscaler_report or Autoscaler()
        return len(report.pending_nodes or ()) + sum((report.pending_launches or {}).values())


class _StatusData(msgspec.Struct, frozen=True, kw_only=True, rename="camel"):
    cluster_status: ClusterStatus | None = None
    autoscaling_error: str | None = None


class _Status(msgspec.Struct, frozen=True, kw_only=True):
    data: _StatusData


class _Stopped(msgspec.Struct, frozen=True, kw_only=True):
    stopped: bool


class _Logs(msgspec.Struct, frozen=True, kw_only=True):
    logs: str | None = ""


class Submission(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """A job to submit. Its id may be used once."""

    entrypoint: str
    submission_id: str
    runtime_env: Mapping[str, object] = {}
    metadata: Mapping[str, str] = {}
    entrypoint_num_cpus: float = 0
    entrypoint_num_gpus: float = 0
    entrypoint_memory: int = 0
    entrypoint_resources: Mapping[str, float] = {}


class RayApi:
    """One cluster's dashboard."""

    def __init__(self, settings: ClusterSettings, *, clock: Clock, environ: Mapping[str, str]) -> None:
        self.url = settings.url
        self._settings, self._environ = settings, environ
        service = Service(title=f"Ray at {self.url}", sign_in=_SIGN_IN, words=_words)
        self._http = HttpJson(self.url, service, clock=clock, sign=self._sign)

    @property
    def is_local(self) -> bool:
        """Whether its address is one of this machine alone."""
        return is_loopback(urlsplit(self.url).hostname or "")

    async def _sign(self, ask: Ask) -> Mapping[str, str]:
        token = self.token()
        return {"authorization": f"Bearer {token}"} if token else {}

    def token(self) -> str:
        """As Ray's own tools find it; "": there is none. Raises CredentialsRejected for a file that is
        named and cannot be read."""
        named = self._settings.token_file or self._environ.get("RAY_AUTH_TOKEN_PATH", "")
        if not self._settings.token_file and (text := self._environ.get("RAY_AUTH_TOKEN", "").strip()):
            return text
        home = Path(self._environ.get("HOME") or "/nonexistent")
        path = named or _DEFAULT_TOKEN
        try:
            return (home / path[2:] if path.startswith("~/") else Path(path)).read_text("utf-8").strip()
        except (OSError, UnicodeDecodeError) as error:
            if not named:
                return ""
            said = getattr(error, "strerror", None) or "it is no text"
            raise border.CredentialsRejected(f"the token file {path} cannot be read: {said}") from None

    async def version(self) -> str:
        """Of Ray. Raises RequestRefused for one that is too old, Transient where no Ray answers."""
        found = await self._http.find("/api/version", into=Version)
        if found is None:
            raise border.RequestRefused(
                "address",
                f"{self.url} is no dashboard of Ray: it knows no /api/version; look at the address and port",
            )
        numbers = found.ray_version.split(".")[:2]
        known = tuple(int(each) for each in numbers if each.isdigit())
        if len(known) == 2 and known < OLDEST:
            oldest = ".".join(map(str, OLDEST))
            raise border.RequestRefused(
                "version",
                f"Ray at {self.url} is {found.ray_version}, and {oldest} or newer is needed: "
                "upgrade the cluster",
            )
        return found.ray_version

    async def nodes(self) -> list[RayNode]:
        return await self._states("nodes", RayNode, [("detail", "true"), ("limit", _LIST_MAX)])

    async def actors(self, class_name: str) -> list[Actor]:
        """Of all jobs, also those that have ended."""
        query = [("filter_keys", "class_name"), ("filter_predicates", "="), ("filter_values", class_name)]
        return await self._states("actors", Actor, [*query, ("limit", _LIST_MAX)])

    async def _states(self, kind: str, of: type[T], query: Sequence[tuple[str, str | int]]) -> list[T]:
        into = _State[of]  # type: ignore[valid-type]
        answer: _State[T] = await self._http.call("GET", f"/api/v0/{kind}", query=query, into=into)
        if not answer.result:
            raise border.Transient(f"Ray at {self.url} cannot list its {kind}: {answer.msg}", 5)
        return answer.data.result.result

    async def status(self) -> tuple[ClusterStatus, str]:
        """What is in use, and what the autoscaler says went wrong."""
        answer = await self._http.call("GET", "/api/cluster_status", into=_Status)
        return answer.data.cluster_status or ClusterStatus(), answer.data.autoscaling_error or ""

    async def jobs(self) -> list[Job]:
        return await self._http.call("GET", "/api/jobs/", into=list[Job])

    async def job(self, submission_id: str) -> Job | None:
        return await self._http.find(f"/api/jobs/{submission_id}", into=Job)

    async def submit(self, job: Submission) -> bool:
        """False: a job with this id is there, or was."""
        reply = await self._http.send("POST", "/api/jobs/", json=job, how=How(safe=True, fine=(400, 500)))
        if reply.status < 300:
            return True
        text = reply.body.decode("utf-8", "replace").strip()
        if "already exists" in text:
            return False
        last = text.splitlines()[-1][:400] if text else "it gives no reason"
        if reply.status == 400:
            raise border.RequestRefused("job", f"Ray at {self.url} refuses the job: {last}")
        if "No available agent" in text:
            last = (
                "its agent on the head node is not up yet, or could not start (another Ray there may hold "
                "its port; `dashboard_agent.log` in Ray's folder of logs says why)"
            )
        raise border.Transient(f"Ray at {self.url} cannot take the job at present: {last}", 5)

    async def stop(self, submission_id: str) -> bool:
        """False: there is no such job, or it was not running."""
        reply = await self._http.send(
            "POST", f"/api/jobs/{submission_id}/stop", how=How(safe=True, fine=(404,))
        )
        return reply.status != 404 and self._http.read(reply, _Stopped).stopped

    async def delete(self, submission_id: str) -> None:
        """Of a job that is over, the record and its id. One that is not over stays."""
        await self._http.send("DELETE", f"/api/jobs/{submission_id}", how=How(fine=(404, 500)))

    async def logs(self, submission_id: str) -> str:
        """All of its output; "" when there is none, or no such job."""
        found = await self._http.find(f"/api/jobs/{submission_id}/logs", into=_Logs)
        return (found.logs or "") if found is not None else ""

    async def tail(self, submission_id: str) -> AsyncIterator[str]:
        """Its output from the beginning on, as it comes, until the job is over. Raises a border error."""
        async for text in self._http.texts(f"/api/jobs/{submission_id}/logs/tail"):
            yield text

    async def follow(self, node_id: str, file: str, interval_s: float) -> AsyncGenerator[bytes, None]:
        """A file in a node's folder of logs, from its beginning on and as it grows, without an end. Raises a
        border error, `Transient` while there is no such file."""
        query: list[tuple[str, str | int]] = [
            ("node_id", node_id),
            ("filename", file),
            ("lines", -1),
            ("interval", str(interval_s)),
            ("format", "text"),  # versions that know it would put a byte before each piece
        ]
        async for piece in self._http.pieces("/api/v0/logs/stream", query=query):
            yield piece

    async def has_package(self, name: str) -> bool:
        """Whether it is there; then it stays for at least ten minutes."""
        reply = await self._http.send("GET", f"/api/packages/gcs/{name}", how=How(fine=(404,)))
        return reply.status != 404

    async def put_package(self, name: str, data: bytes) -> None:
        how = How(headers={"content-type": "application/octet-stream"}, timeout_s=120)
        await self._http.send("PUT", f"/api/packages/gcs/{name}", json=msgspec.Raw(data), how=how)

    async def close(self) -> None:
        await self._http.close()


def _words(said: Said) -> border.BorderError | None:
    if said.status == 403:
        return border.CredentialsRejected(
            f"{said.title} does not accept the token: {said.words}; {said.sign_in}"
        )
    if said.status == 404:
        return border.RequestRefused(
            "address",
            f"{said.title} does not know what was asked for: is it the dashboard of Ray, 2.9 or newer?",
        )
    if said.status == 500:  # a traceback; its last line says it
        return border.Transient(f"{said.title} failed: {said.words.splitlines()[-1]}", 5)
    return None

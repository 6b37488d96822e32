"""Requests to a door without a network: as a caller of the test's choice, with rows of three people."""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from typing import Any

from msgspec.structs import replace

from argosy.api.endpoint import AnyEndpoint
from argosy.model.access import Caller
from argosy.model.apps import App
from argosy.model.entry import Entry
from argosy.model.folders import Folder, FolderGrant, Invitation, Volume
from argosy.model.kinds.group import GroupSpec, GroupStatus
from argosy.model.kinds.job import job_state
from argosy.model.kinds.kind import Checkpoint
from argosy.model.kinds.service import Revision, ServiceSpec, ServiceStatus
from argosy.model.kinds.session import SessionSpec, SessionStatus
from argosy.model.kinds.snapshot import SnapshotSpec, SnapshotStatus
from argosy.model.kinds.workers import WorkersSpec, WorkersStatus
from argosy.model.named_volumes import NamedVolume
from argosy.model.people import OwnRole, Project, Secret, User
from argosy.model.rows import Workload
from argosy.model.service_keys import AccessKey, ModelKey
from argosy.model.serving import Serving
from argosy.testing.builders import a_cluster, a_job, a_task, an_id
from argosy.testing.idle_server import IdleServer
from argosy.testing.virtual_time import EPOCH_MS

#: whose things: the caller's own, those of a colleague in the same project, those of another project
PEOPLE = {"own": ("vision", "ann"), "same": ("vision", "bob"), "other": ("speech", "cid")}


@dataclass
class Door:
    """The TCP door of a server, for which `caller` is whoever holds any token."""

    server: IdleServer
    caller: Caller = field(default_factory=Caller)
    count: int = 0

    def __post_init__(self) -> None:
        front = self.server.application.front
        front.keeper.identify = self.identify  # type: ignore[method-assign]
        front.keeper.is_good = self.is_good  # type: ignore[method-assign]

    async def identify(self, scope: Any) -> Caller:
        return self.caller

    async def is_good(self, caller: Caller) -> bool:
        return True

    def things(self, count: int = 1, *, entries: bool = False) -> list[dict[str, dict[str, Workload]]]:
        """Fresh rows, so many times: a cluster, a job, a group and so on for each of `PEOPLE`. With
        `entries` also, under the name of their cluster, a secret, a folder with the file `x`, a volume,
        keys, a person, a role."""
        made = [self._things() for _ in range(count)]
        rows = [row for each in made for some in each.values() for row in some.values()]
        more = [entry for row in rows if entries and row.kind == "cluster" for entry in _entries(row)]
        for entry in more:
            if isinstance(entry, Folder):
                place = self.server.home / "folders" / entry.id
                place.mkdir(parents=True)
                (place / "x").write_text("x")
        self.server.do(self.server.store.commit([*rows, *more]))
        return made

    def _things(self) -> dict[str, dict[str, Workload]]:
        found: dict[str, dict[str, Workload]] = {}
        for whose, (project, user) in PEOPLE.items():
            self.count += 1
            mine: dict[str, Any] = {"project": project, "user": user, "number": self.count}
            task = a_task(name="t")
            found[whose] = {
                "cluster": a_cluster(name=f"c{self.count}", **{**mine, "number": 0}),
                "job": _with_copy(a_job(managed=True, task=task, **mine)),
                "group": _group(self.count + 5000, project, user),
                "service": _service(f"s{self.count}", project, user),
                "session": _session(f"i{self.count}", project, user),
                "snapshot": _snapshot(f"n{self.count}", project, user),
                "pool": _pool(f"w{self.count}", project, user),
            }
        return found

    def ask(
        self, method: str, path: str, body: Any = None, project: str = "", query: str = ""
    ) -> tuple[int, Any]:
        """(status, JSON)."""
        return self.server.do(self._ask(method, "/v1" + path, body, project, query))

    async def _ask(self, method: str, path: str, body: Any, project: str, query: str) -> tuple[int, Any]:
        data = b"" if body is None else json.dumps(body).encode()
        headers = [(b"authorization", b"Bearer any")]
        headers += [(b"x-argosy-project", project.encode())] if project else []
        return await self.over_tcp(method, path, headers, data, query)

    async def over_tcp(
        self, method: str, path: str, headers: list[tuple[bytes, bytes]], data: bytes, query: str = ""
    ) -> tuple[int, Any]:
        """What the front answers to exactly this request: (status, JSON). 101: nothing yet."""
        sent: list[dict[str, Any]] = []
        messages = [{"type": "http.request", "body": data}]

        async def receive() -> dict[str, Any]:
            return messages.pop(0) if messages else {"type": "http.disconnect"}

        async def send(message: Any) -> None:
            sent.append(message)

        scope = {
            "type": "websocket" if method == "WS" else "http",
            "method": method,
            "path": path,
            "raw_path": path.encode(),
            "query_string": query.encode(),
            "headers": headers,
            "extensions": {"websocket.http.response": {}},
        }
        await self.server.application.front.over_tcp(scope, receive, send)
        start = next((each for each in sent if each["type"].endswith("response.start")), None)
        if start is None:
            return 101, None
        text = b"".join(each.get("body", b"") for each in sent)
        return start["status"], json.loads(text) if text.startswith((b"{", b"[")) else text


def _group(number: int, project: str, user: str) -> Workload:
    task = a_task(name="g")
    from argosy.model.group import Layout

    return Workload(
        id=an_id("grp"),
        kind="group",
        name="g",
        spec=GroupSpec(tasks=(task,), layout=Layout(size=1), queues=("q",)),
        status=GroupStatus(),
        project=project,
        user=user,
        number=number,
        created_ms=EPOCH_MS,
    )


def _pool(name: str, project: str, user: str) -> Workload:
    return Workload(
        id=an_id("wrk"),
        kind="workers",
        name=name,
        spec=WorkersSpec(task=a_task(), size=1),
        status=WorkersStatus(),
        project=project,
        user=user,
        created_ms=EPOCH_MS,
    )


def _service(name: str, project: str, user: str) -> Workload:
    revision = Revision(number=1, digest="d", task=a_task(service=Serving()))
    return Workload(
        id=an_id("svc"),
        kind="service",
        name=name,
        spec=ServiceSpec(
            revisions=(revision,), wanted=1, keys=(AccessKey(name=f"c{name[1:]}", sha256="0" * 64),)
        ),
        status=ServiceStatus(),
        project=project,
        user=user,
        created_ms=EPOCH_MS,
    )


def _session(name: str, project: str, user: str) -> Workload:
    return Workload(
        id=an_id("ses"),
        kind="session",
        name=name,
        spec=SessionSpec(app=App(name="terminal"), task=a_task()),
        status=SessionStatus(),
        project=project,
        user=user,
        created_ms=EPOCH_MS,
    )


def _with_copy(job: Workload) -> Workload:
    return replace(job, status=replace(job_state(job), checkpoint=COPY))


COPY = Checkpoint(tree="c" * 64, at_ms=EPOCH_MS, size_bytes=1)


def _snapshot(name: str, project: str, user: str) -> Workload:
    return Workload(
        id=an_id("snp"),
        kind="snapshot",
        name=name,
        spec=SnapshotSpec(app="terminal", session="s", copy=COPY),
        status=SnapshotStatus(),
        project=project,
        user=user,
        created_ms=EPOCH_MS,
    )


def _entries(cluster: Workload) -> list[Entry]:
    """What is no workload, under the cluster's name. People, roles and places belong to nobody."""
    name, project, user = cluster.name, cluster.project, cluster.user
    made: dict[str, Any] = {"created_ms": EPOCH_MS}
    grants = (FolderGrant(to="zoe", level="ro"),)
    invited = (Invitation(to="ann", level="ro", by=user, until_ms=1 << 49),)
    key = AccessKey(name=name, sha256="1" * 64)
    return [
        Folder(id=an_id("fld"), name=name, project=project, owner=user, grants=grants, **made),
        Folder(
            id=an_id("fld"), name=f"{name}-for-ann", project=project, owner="zoe", invitations=invited, **made
        ),
        Secret(id=an_id("sec"), name=name, project=project, set_ms=EPOCH_MS, **made),
        NamedVolume(id=an_id("vol"), name=f"{name}-v", project=project, owner=user, type="k8s-pvc", **made),
        ModelKey(id=an_id("mky"), project=project, key=key, **made),
        Volume(id=an_id("vol"), name=f"{name}-v", path=f"/none/{name}", **made),
        User(id=an_id("usr"), name=name, **made),
        Project(id=an_id("prj"), name=name, **made),
        OwnRole(id=an_id("rol"), name=name, permissions=("jobs.read",), **made),
    ]


_TASK = {"run": "true"}
_SERVED = {"run": "true", "service": {}}
#: Bodies of endpoints that name what they act on there, and bodies that reach the place of the decision.
_BODIES: dict[str, Any] = {
    "open_port": lambda things, project: {"port": 80},
    "launch": lambda t, p: {"task": _TASK, "cluster": f"{p}/{t['cluster'].name}", "user": "x", "project": p},
    "exec": lambda t, p: {"tasks": [_TASK], "cluster": t["cluster"].id, "user": "x", "project": p},
    "jobs_launch": lambda t, p: {"tasks": [_TASK], "user": "x", "project": p},
    "cancel": lambda t, p: {"jobs": [t["job"].id]},
    "launch_group": lambda t, p: {"tasks": [_TASK], "layout": {"size": 1}, "user": "x", "project": p},
    "retry": lambda t, p: {"task": f"{t['group'].number}/0"},
    "apply_job_pool": lambda t, p: {"name": t["pool"].name, "task": _TASK, "workers": 1, "project": p},
    "apply_service": lambda t, p: {"name": t["service"].name, "task": _SERVED, "project": p},
    "set_service_access": lambda t, p: {"public": False},
    "make_service_key": lambda t, p: {"name": "ann"},
    "set_service_prices": lambda t, p: {"prices": {}},
    "make_model_key": lambda t, p: {"name": "ann"},
    "set_session_idle": lambda t, p: {"idle": {}},
    "share_session": lambda t, p: {"who": "ben", "seconds": 60},
    "start_session": lambda t, p: {"name": "new", "app": "terminal", "task": _TASK, "project": p},
    "set_budget": lambda t, p: {"project": p, "monthly_micro_usd": 5},
    "autostop": lambda t, p: {"autostop": {"idle_s": 60}},
    "change_files": lambda t, p: {"path": "made"},
    "change_folder": lambda t, p: {"use": "data"},
    "share_folder": lambda t, p: {"to": t["cluster"].name},
    "change_user": lambda t, p: {"full_name": "X"},
    "put_tree": lambda t, p: {"entries": []},
    "missing_chunks": lambda t, p: {"digests": [], "trees": []},
}
_QUERIES = {"forward": "port=80", "remove_files": "path=x", "file_content": "path=x"}
#: What stands for a part of a path.
_PARTS: dict[str, Any] = {
    "cluster": lambda t: t["cluster"].id,
    "job": lambda t: t["job"].id,
    "group": lambda t: t["group"].id,
    "pool": lambda t: t["pool"].name,
    "workload": lambda t: t["job"].id,
    "service": lambda t: t["service"].id,
    "session": lambda t: t["session"].id,
    "snapshot": lambda t: t["snapshot"].name,
    "checkpoint": lambda t: COPY.tree,
    "key": lambda t: t["cluster"].name,
    **dict.fromkeys(("user", "project", "role", "secret", "folder"), lambda t: t["cluster"].name),
    "volume": lambda t: f"{t['cluster'].name}-v",
    "to": lambda t: "zoe",
    "token": lambda t: "none-such",
}


#: Parts of a path whose things are no workloads.
ENTRIES = {"key", "user", "project", "role", "secret", "folder", "volume", "to"}


def untold(endpoint: AnyEndpoint) -> list[str]:
    """Parts of the path that nothing here stands for."""
    return [name for name in endpoint.path_names if name not in _PARTS]


def ask_about(door: Door, endpoint: AnyEndpoint, things: dict[str, Workload]) -> tuple[int, Any]:
    """Ask one endpoint about these things."""
    project = things["cluster"].project
    path = endpoint.path
    for name in endpoint.path_names:
        part = _PARTS[name](things) if name in _PARTS else "none-such"
        path = path.replace(f"{{{name}}}", part)
    make = _BODIES.get(endpoint.name)
    body = make(things, project) if make is not None else {} if endpoint.request is not None else None
    if endpoint.name == "answer_invitation":
        path = path.replace("/answer", "-for-ann/answer")
    return door.ask(endpoint.method, path, body, project, _QUERIES.get(endpoint.name, ""))

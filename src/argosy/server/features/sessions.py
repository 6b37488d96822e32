"""Sessions: made, shown, put to rest, brought back, ended, and the ways into them."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Final

import msgspec

from argosy.api.endpoint import Done
from argosy.api.sessions import (
    AppList,
    IdleRequest,
    OpenPortRequest,
    OpenReply,
    OpenRequest,
    SessionList,
    SessionRequest,
    SessionShareRequest,
    SessionView,
    SnoozeRequest,
)
from argosy.apps.files import find_app, known_apps
from argosy.controllers.session.idle import SNOOZES_MAX
from argosy.model.access import Caller
from argosy.model.apps import App, Idle, Isolation
from argosy.model.errors import ArgosyError
from argosy.model.kinds.session import (
    SESSION,
    SessionSpec,
    SessionStatus,
    is_session,
    session_spec,
    session_state,
)
from argosy.model.kinds.snapshot import snapshot_spec
from argosy.model.phases import Desired, WorkloadPhase
from argosy.model.reasons import Reason
from argosy.model.rows import Event, Workload
from argosy.model.task import Task
from argosy.model.units import many, render_duration
from argosy.server.exchange import Exchange, encode
from argosy.server.guarding import key_of, made_by, project_of, require_new, require_over, sees
from argosy.server.kept_plans import subject_of
from argosy.server.services import Services
from argosy.server.session_shares import find_shared, is_shared, shared_sessions, with_share
from argosy.server.session_views import view_session
from argosy.server.sessions import (
    find_session,
    free_name,
    label_of,
    live_session,
    name_in_host,
    no_session,
    place_of,
    seen_sessions,
)
from argosy.server.snapshots import find_snapshot
from argosy.server.terminal import node_asked
from argosy.store.snapshot import Snapshot

_WAIT_MAX_S: Final = 30
_SNOOZE_MAX_MINUTES: Final = 24 * 60


class SessionFeature:
    """Every method raises ArgosyError; making one is safe to repeat with the same `key`."""

    def __init__(self, services: Services) -> None:
        self._services, self._store, self._writer = services, services.store, services.writer

    @property
    def _own_apps(self) -> Path:
        return Path(self._services.state_dir) / "apps"

    async def apps(self, exchange: Exchange) -> AppList:
        return AppList(apps=tuple(known_apps(self._own_apps).values()))

    # -- made ---------------------------------------------------------------------------------------

    async def start_session(self, exchange: Exchange) -> bytes:
        from argosy.spec.names import check_name

        request, caller = await exchange.decode(SessionRequest), exchange.caller
        app = find_app(self._own_apps, request.app)
        if request.name:
            check_name("cluster", request.name)
        _check_idle(request.idle)
        if request.task.num_nodes != 1:
            raise ArgosyError("unsupported", "a session runs on one node")
        asked, image = msgspec.structs.replace(request.task, run=app.command or app.name), ""
        if request.isolation is Isolation.CONTAINER:
            asked, image = _without_image(asked)
        owner = made_by(caller, request.user)
        task = await self._services.intake.task(
            asked, caller, with_files=True, owner=owner, links=request.isolation is Isolation.PROCESS
        )
        project = project_of(caller, request.project)
        require_new(caller, project)
        user = made_by(caller, request.user)
        request = msgspec.structs.replace(request, project=project, task=task, user=user)

        async def act() -> bytes:
            return await self._make(request, app, image, caller)

        return await self._writer.once(key_of(caller, request.key), act)

    async def _make(self, request: SessionRequest, app: App, image: str, caller: Caller) -> bytes:
        services, task = self._services, request.task
        rows = await self._store.snapshot()
        if request.name and rows.find_named(SESSION.name, request.name, request.project) is not None:
            raise ArgosyError(
                "conflict",
                f"there is a session `{request.name}` already",
                hint=f"`argosy session open {request.name}` opens it; choose another --name for a new one",
            )
        seated = services.tenants.seat(rows, (task,), project=request.project, user=request.user)
        plans = await services.admission.planned(
            (task,), request.project, named=request.plan, limit_micro_usd=request.max_hourly_micro_usd
        )
        services.admission.check_jobs(seated, request.project, None)
        row = Workload(
            id=services.ids.new(SESSION.prefix),
            kind=SESSION.name,
            name=request.name or free_name(rows, app.name, request.project),
            spec=SessionSpec(
                app=app,
                task=msgspec.structs.replace(seated.tasks[0], secrets=dict.fromkeys(task.secrets, "")),
                isolation=request.isolation,
                network=request.network,
                image=image,
                idle=request.idle,
                begins_with=self._seed(rows, request.snapshot, caller),
                confirmed=plans[subject_of(task)][1],
            ),
            status=SessionStatus(),
            user=request.user,
            project=request.project,
            queue=seated.queues[0],
            created_ms=services.clock.now_ms(),
        )
        told = self._writer.event(row.id, "started", f"{app.title or app.name} was asked for")
        secrets = {row.id: dict(task.secrets)} if task.secrets else {}
        body = encode(view_session(row, rows, services.controllers.observed))
        key = (key_of(caller, request.key), body) if request.key else None
        await self._store.commit([row], events=[told], secrets=secrets, key=key, expect=seated.expect)
        services.controllers.wake(row.id)
        return body

    def _seed(self, rows: Snapshot, name: str, caller: Caller) -> str:
        """The tree of the snapshot that it begins with. Raises `not-found`, `forbidden`."""
        if not name:
            return ""
        found = find_snapshot(rows, name, caller)
        require_over(caller, found)
        return snapshot_spec(found).copy.tree

    # -- shown --------------------------------------------------------------------------------------

    async def sessions(self, exchange: Exchange) -> SessionList:
        rows, caller = await self._store.snapshot(), exchange.caller
        found = seen_sessions(rows, caller)
        seen = {row.id for row in found}
        found += [row for row in shared_sessions(rows, caller, self._now_ms()) if row.id not in seen]
        if exchange.flag("all"):
            ended = [row for row in await self._store.load_named(SESSION.name) if not row.is_live]
            found += [row for row in ended if sees(caller, row)]
        return SessionList(sessions=tuple([await self._view(row, rows) for row in found]))

    async def session(self, exchange: Exchange) -> SessionView:
        name, caller = exchange.path["session"], exchange.caller
        wait_s = min(max(exchange.number("wait_s") or 0, 0), _WAIT_MAX_S)
        rows = await self._store.snapshot()
        row = await self._named(rows, name, caller)
        if wait_s and _is_coming(row):
            rows, row = await self._settled(row, wait_s, caller)
        return await self._view(row, rows)

    async def _settled(self, row: Workload, wait_s: int, caller: Caller) -> tuple[Snapshot, Workload]:
        """Rows in which the session is up, rests or has ended, or those of `wait_s` later."""
        news = asyncio.Event()
        streams = self._services.streams
        streams.commits.join(news)
        rows = await self._store.snapshot()
        try:
            async with asyncio.timeout(wait_s):
                while True:
                    news.clear()
                    rows = await self._store.snapshot()
                    live = rows.workloads.get(row.id)
                    if live is None or not _is_coming(live) or streams.stopping.is_set():
                        break
                    row = live
                    await news.wait()
        except TimeoutError:
            pass
        finally:
            streams.commits.leave(news)
        return rows, rows.workloads.get(row.id) or await self._named(rows, row.id, caller)

    async def _named(self, rows: Snapshot, name: str, caller: Caller) -> Workload:
        """Live ones first, then the last that had the name. Raises `not-found`."""
        found: object = find_session(rows, name, caller)
        if found is None and (shared := find_shared(rows, name, caller, self._now_ms())) is not None:
            return shared
        if found is None:
            found = await self._store.load(name)
        if found is None:
            project = project_of(caller)
            found = await self._store.find_named(SESSION.name, name, project=project, finished=True)
        if not isinstance(found, Workload) or not is_session(found) or not sees(caller, found):
            raise no_session(name, rows, caller)
        return found

    async def _view(self, row: Workload, rows: Snapshot) -> SessionView:
        bodies = rows.children_of(row.id)
        job = ""
        pending = None
        if bodies:
            pending = (await self._services.tenants.pending(rows, bodies)).get(bodies[0].id)
        else:
            jobs = await self._store.load_children(row.id)
            job = jobs[-1].id if jobs else ""
        return view_session(row, rows, self._services.controllers.observed, job=job, pending=pending)

    # -- changed ------------------------------------------------------------------------------------

    async def rest_session(self, exchange: Exchange) -> Done:
        return await self._wish(exchange, Desired.STOP, "stopping", "asked to rest")

    async def resume_session(self, exchange: Exchange) -> Done:
        return await self._wish(exchange, Desired.RUN, "starting", "asked to start again")

    async def end_session(self, exchange: Exchange) -> Done:
        return await self._wish(exchange, Desired.END, "ending", "asked to end")

    async def _wish(self, exchange: Exchange, desired: Desired, code: str, text: str) -> Done:
        async def act() -> Done:
            session = await live_session(self._store, exchange)
            if session.desired is Desired.END and desired is not Desired.END:
                raise ArgosyError("wrong-state", f"session `{session.name}` is being ended")
            reason = {Desired.STOP: Reason.STOPPED_BY_USER, Desired.END: Reason.CANCELLED_BY_USER}.get(
                desired
            )
            wished = msgspec.structs.replace(session, desired=desired, reason=reason, detail="")
            return await self._put(session, wished, self._writer.event(session.id, code, text))

        return await self._writer.retried(act)

    async def set_session_idle(self, exchange: Exchange) -> Done:
        request = await exchange.decode(IdleRequest)
        _check_idle(request.idle)

        async def act() -> Done:
            session = await live_session(self._store, exchange)
            spec = msgspec.structs.replace(session_spec(session), idle=request.idle)
            return await self._put(session, msgspec.structs.replace(session, spec=spec))

        return await self._writer.retried(act)

    async def snooze_session(self, exchange: Exchange) -> Done:
        request = await exchange.decode(SnoozeRequest)
        if not 0 < request.minutes <= _SNOOZE_MAX_MINUTES:
            raise ArgosyError(
                "usage", f"{many(request.minutes, 'minute')}: 1 to {_SNOOZE_MAX_MINUTES} can be asked for"
            )

        async def act() -> Done:
            session = await live_session(self._store, exchange)
            state = session_state(session)
            if state.snoozes >= SNOOZES_MAX:
                raise ArgosyError(
                    "wrong-state",
                    f"session `{session.name}` had more time {SNOOZES_MAX} times, and nobody has used it",
                    hint="use it, or change its limits: `argosy session idle`",
                )
            until_ms = self._services.clock.now_ms() + request.minutes * 60_000
            wished = session.with_status(
                snoozed_ms=max(until_ms, state.snoozed_ms), snoozes=state.snoozes + 1, warned_ms=0
            )
            told = self._writer.event(session.id, "snoozed", f"it has {request.minutes} more minutes")
            return await self._put(session, wished, told)

        return await self._writer.retried(act)

    async def share_session(self, exchange: Exchange) -> Done:
        request = await exchange.decode(SessionShareRequest)

        async def act() -> Done:
            session = await live_session(self._store, exchange)
            wished = with_share(session, request.who, request.seconds, self._now_ms(), watch=request.watch)
            verb = "watch" if request.watch else "open"
            text = f"{request.who} may no longer open or watch it"
            if request.seconds:
                text = f"{request.who} may {verb} it for {render_duration(request.seconds)}"
            return await self._put(session, wished, self._writer.event(session.id, "shared", text))

        return await self._writer.retried(act)

    def _now_ms(self) -> int:
        return self._services.clock.now_ms()

    async def _put(self, session: Workload, wished: Workload, *told: Event) -> Done:
        if wished != session:
            await self._store.commit([wished], events=told)
        self._services.controllers.wake(session.id)
        return Done(names=(session.name,))

    # -- ways in ------------------------------------------------------------------------------------

    async def open_session(self, exchange: Exchange) -> OpenReply:
        request = await exchange.decode(OpenRequest)
        if not 0 <= request.port < 65536:
            raise ArgosyError("usage", f"there is no port {request.port}", hint="ports are 1 to 65535")
        session, apps = await self._opened(exchange, request.port), self._services.apps
        app = session_spec(session).app
        if not request.port and not app.is_proxied:
            raise ArgosyError(
                "unsupported",
                f"{app.title or app.name} has no page for a browser",
                hint=f"`argosy session open {session.name}` opens it as a terminal",
            )
        place_of(await self._store.snapshot(), session)
        face = str(request.port or app.name)
        code = await apps.issue(exchange.caller, session.id, face)
        return apps.reply(label_of(face, name_in_host(session)), code, self._services.listening()[0])

    async def open_port(self, exchange: Exchange) -> OpenReply:
        request, apps = await exchange.decode(OpenPortRequest), self._services.apps
        if not 0 < request.port < 65536:
            raise ArgosyError("usage", f"there is no port {request.port}", hint="ports are 1 to 65535")
        node = await node_asked(exchange, self._store)
        rows = await self._store.snapshot()
        cluster = rows.workloads[node.workload_id]
        is_taken = rows.find_named(SESSION.name, cluster.name) is not None
        code = await apps.issue(exchange.caller, cluster.id, str(request.port))
        label = label_of(str(request.port), cluster.id if is_taken else name_in_host(cluster))
        return apps.reply(label, code, self._services.listening()[0])

    async def _opened(self, exchange: Exchange, port: int) -> Workload:
        """As `_live`, and for their apps also sessions that are shared with the caller."""
        if port:
            return await live_session(self._store, exchange)
        rows = await self._store.snapshot()
        shared = find_shared(rows, exchange.path["session"], exchange.caller, self._now_ms())
        own = find_session(rows, exchange.path["session"], exchange.caller)
        if (
            shared is not None
            and own in (None, shared)
            and is_shared(shared, exchange.caller, self._now_ms())
        ):
            return shared
        return await live_session(self._store, exchange)


def _without_image(task: Task) -> tuple[Task, str]:
    """The image of its container, and the task on whatever machine. Raises `spec-invalid`."""
    found = {wish.image_id for wish in task.resources if wish.image_id}
    if len(found) != 1 or any(wish.machine_image for wish in task.resources):
        raise ArgosyError(
            "spec-invalid",
            "isolation `container` needs one image of a container",
            hint="write --image NAME, or `image_id: docker:NAME`",
            where="image_id",
        )
    plain = tuple(msgspec.structs.replace(wish, image_id=None) for wish in task.resources)
    return msgspec.structs.replace(task, resources=plain), found.pop()


def _is_coming(row: Workload) -> bool:
    """Whether it is on its way to where it was asked to be."""
    if not row.is_live:
        return False
    if row.desired is Desired.RUN:
        return row.phase is not WorkloadPhase.RUNNING
    return row.desired is Desired.END or row.phase is not WorkloadPhase.STOPPED


def _check_idle(idle: Idle) -> None:
    """Raises `spec-invalid`."""
    for name in ("after_s", "gpu_after_s", "max_s"):
        value = getattr(idle, name)
        if value is not None and value < 0:
            raise ArgosyError(
                "spec-invalid", f"{name} is {value}: at least 1 second, or 0 for never", where="idle"
            )
    if idle.then not in ("rest", "end") or idle.warn_s < 0:
        raise ArgosyError("spec-invalid", "`then` is rest or end, `warn_s` is 0 or more", where="idle")

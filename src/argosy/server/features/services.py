"""Services: creation, new revisions, scaling, rollback, views, end."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterable
from pathlib import Path
from typing import Final

import msgspec

from argosy.api.endpoint import Done
from argosy.api.services import (
    AccessRequest,
    DownRequest,
    RevisionRequest,
    ScaleRequest,
    ServeRequest,
    ServiceList,
    ServiceReply,
    ServiceView,
)
from argosy.model.access import Caller
from argosy.model.errors import ArgosyError
from argosy.model.kinds.job import job_state
from argosy.model.kinds.service import (
    KEPT,
    SERVICE,
    ReplicaState,
    Revision,
    ServiceSpec,
    ServiceStatus,
    revision_of,
    service_spec,
    service_state,
    wanted_revision,
)
from argosy.model.offer import Confirmed
from argosy.model.phases import Desired
from argosy.model.reasons import Reason
from argosy.model.routes import Listening
from argosy.model.rows import Workload
from argosy.model.serving import Replicas, Serving
from argosy.model.task import Task
from argosy.model.units import many
from argosy.server.domains import about_domains, drop_own, keep_own
from argosy.server.exchange import Exchange
from argosy.server.gateway_process import read_listening
from argosy.server.guarding import made_by, project_of, require_new, require_over, scopes
from argosy.server.intake import check_fixed
from argosy.server.kept_plans import subject_of
from argosy.server.listeners import server_url
from argosy.server.service_changes import Act, change, change_all, check_alive
from argosy.server.service_views import find_service, view_service
from argosy.server.services import Services
from argosy.store.snapshot import Snapshot

_REPLICAS_MAX: Final = 10_000
_LINES: Final = 5
_ON_THE_WAY: Final = (ReplicaState.STARTING, ReplicaState.WARMING)


class ServiceFeature:
    """Every method raises ArgosyError and is safe to repeat."""

    def __init__(self, services: Services) -> None:
        self._services, self._store, self._writer = services, services.store, services.writer

    # -- making and changing ------------------------------------------------------------------------

    async def apply_service(self, exchange: Exchange) -> ServiceReply:
        from argosy.spec.names import check_name

        request, caller = await exchange.decode(ServeRequest), exchange.caller
        check_name("service", request.name)
        task = await self._services.intake.task(
            request.task, caller, with_files=True, project=request.project
        )
        check_fixed(task)
        check_serving(task)
        project = project_of(caller, request.project)
        require_new(caller, project)
        user = made_by(caller, request.user)
        asked = msgspec.structs.replace(request, task=task, project=project, user=user)
        return await self._writer.retried(lambda: self._apply(asked, caller))

    async def _apply(self, request: ServeRequest, caller: Caller) -> ServiceReply:
        services, rows = self._services, await self._store.snapshot()
        old = rows.find_named(SERVICE.name, request.name, request.project)
        if old is not None:
            require_over(caller, old)
        _check_there(old, request, rows, caller)
        check_hosts(request.task, old, rows.named(SERVICE.name))
        check_shared(request, old, rows.named(SERVICE.name))
        seated = services.tenants.seat(rows, (request.task,), project=request.project, user=request.user)
        plans = await services.admission.planned(
            (request.task,), request.project, named="", limit_micro_usd=None
        )
        confirmed = plans[subject_of(request.task)][1]
        if old is None:
            row = self._first(request, confirmed, seated.queues[0])
            said = f"service `{row.name}` starts with revision 1"
        else:
            row, said = self._next(old, request, confirmed)
        serving = request.task.service or Serving()
        if request.certificate is not None:
            now_ms = services.clock.now_ms()
            keep_own(self._gateways, row.id, request.certificate, serving.hosts, now_ms)
        secrets = {row.id: request.task.secrets} if request.task.secrets else None
        told = self._writer.event(row.id, "applied", said)
        await self._store.commit([row], events=[told], secrets=secrets, expect=seated.expect)
        services.controllers.wake(row.id)
        rows = await self._store.snapshot()
        return ServiceReply(
            service=await self._view(rows.workloads.get(row.id, row), rows),
            said=said,
            warnings=(
                *seated.warnings,
                *await about_domains(serving.hosts, self._listening()),
                *_about_prefill(row, serving, rows),
            ),
        )

    def _first(self, request: ServeRequest, confirmed: Confirmed | None, queue: str) -> Workload:
        now_ms = self._services.clock.now_ms()
        return Workload(
            id=self._services.ids.new(SERVICE.prefix),
            kind=SERVICE.name,
            name=request.name,
            spec=ServiceSpec(revisions=(_revision(1, request, confirmed, now_ms),), wanted=1),
            status=ServiceStatus(),
            user=request.user,
            project=request.project,
            queue=queue,
            created_ms=now_ms,
        )

    def _next(
        self, old: Workload, request: ServeRequest, confirmed: Confirmed | None
    ) -> tuple[Workload, str]:
        spec, state = service_spec(old), service_state(old)
        last = spec.revisions[-1].number
        new = _revision(last + 1, request, confirmed, self._services.clock.now_ms())
        if new.digest in state.bad and not request.force:
            raise ArgosyError(
                "wrong-state",
                f"this revision of `{old.name}` was rolled back before",
                hint="change it, or say --force to try it once more",
            )
        present = wanted_revision(old)
        if present.digest == new.digest and not request.force:
            same = msgspec.structs.replace(new, number=present.number, made_ms=present.made_ms)
            revisions = tuple(same if each.number == same.number else each for each in spec.revisions)
            changed = msgspec.structs.replace(spec, revisions=revisions, fixed=None)
            said = f"revision {present.number} of `{old.name}` stays: its program is the same"
            return msgspec.structs.replace(old, spec=changed), said
        status = state
        if request.force and new.digest in state.bad:
            bad = tuple(each for each in state.bad if each != new.digest)
            status = msgspec.structs.replace(state, bad=bad)
        used = {each.revision for each in state.replicas} | {state.serves, spec.wanted}
        kept = list(spec.revisions[-(KEPT - 1) :])
        kept += [each for each in spec.revisions[: -(KEPT - 1)] if each.number in used]
        revisions = tuple(sorted((*kept, new), key=lambda each: each.number))
        changed = msgspec.structs.replace(spec, revisions=revisions, wanted=new.number, promote=0)
        said = f"revision {new.number} of `{old.name}` is on its way ({new.strategy.name})"
        return msgspec.structs.replace(old, spec=changed, status=status), said

    async def scale_service(self, exchange: Exchange) -> ServiceReply:
        request = await exchange.decode(ScaleRequest)
        if request.replicas is not None and not 0 <= request.replicas <= _REPLICAS_MAX:
            raise ArgosyError(
                "spec-invalid", f"a service has 0 to {_REPLICAS_MAX:,} replicas, not {request.replicas}"
            )

        def act(row: Workload) -> tuple[Workload, str]:
            spec = msgspec.structs.replace(service_spec(row), fixed=request.replicas)
            number = "what its file says" if request.replicas is None else many(request.replicas, "replica")
            return msgspec.structs.replace(row, spec=spec), f"`{row.name}` is to have {number}"

        return await self._change(exchange, "scaled", act)

    async def promote_service(self, exchange: Exchange) -> ServiceReply:
        request = await exchange.decode(RevisionRequest)

        def act(row: Workload) -> tuple[Workload, str]:
            rollout = service_state(row).rollout
            if rollout is None or rollout.is_over or request.revision not in (0, rollout.new):
                raise ArgosyError(
                    "wrong-state",
                    f"no new revision of `{row.name}` is on its way",
                    hint=f"`argosy serve update {row.name} FILE.yaml --canary 10` sends one",
                )
            spec = msgspec.structs.replace(service_spec(row), promote=rollout.new)
            return msgspec.structs.replace(row, spec=spec), f"revision {rollout.new} is to take over"

        return await self._change(exchange, "promoted", act)

    async def rollback_service(self, exchange: Exchange) -> ServiceReply:
        request = await exchange.decode(RevisionRequest)

        def act(row: Workload) -> tuple[Workload, str]:
            number = _back_to(row, request.revision)
            spec = msgspec.structs.replace(service_spec(row), wanted=number, promote=0)
            return msgspec.structs.replace(row, spec=spec), f"`{row.name}` goes back to revision {number}"

        return await self._change(exchange, "rolled-back", act)

    # -- who may send requests ----------------------------------------------------------------------

    async def set_service_access(self, exchange: Exchange) -> ServiceReply:
        request = await exchange.decode(AccessRequest)

        def act(row: Workload) -> tuple[Workload, str]:
            spec = msgspec.structs.replace(service_spec(row), public=request.public)
            what = "public" if request.public else "no longer public"
            return msgspec.structs.replace(row, spec=spec), f"`{row.name}` is {what}"

        name = exchange.path["service"]
        row, said = (await change_all(self._services, name, exchange.caller, "access-changed", act))[0]
        rows = await self._store.snapshot()
        return ServiceReply(service=await self._view(rows.workloads.get(row.id, row), rows), said=said)

    async def _change(self, exchange: Exchange, code: str, act: Act) -> ServiceReply:
        row, said = await change(self._services, exchange.path["service"], exchange.caller, code, act)
        rows = await self._store.snapshot()
        return ServiceReply(service=await self._view(rows.workloads.get(row.id, row), rows), said=said)

    async def down_service(self, exchange: Exchange) -> Done:
        request = await exchange.decode(DownRequest)
        name, caller = exchange.path["service"], exchange.caller

        async def act() -> Done:
            rows = await self._store.snapshot()
            row = find_service(rows, name, caller)
            ended = [msgspec.structs.replace(row, desired=Desired.END, reason=Reason.CANCELLED_BY_USER)]
            if request.now:
                ended += [
                    msgspec.structs.replace(each, desired=Desired.END, reason=Reason.CANCELLED_BY_USER)
                    for each in rows.children_of(row.id)
                    if each.desired is not Desired.END
                ]
            told = self._writer.event(row.id, "ending", "asked to end, with its replicas")
            await self._store.commit(ended, events=[told])
            drop_own(self._gateways, row.id)
            self._services.controllers.wake(row.id)
            return Done(names=(row.name,))

        return await self._writer.retried(act)

    # -- showing ------------------------------------------------------------------------------------

    async def services(self, exchange: Exchange) -> ServiceList:
        rows = await self._store.snapshot()
        seen = scopes(exchange.caller)
        mine = [row for row in rows.named(SERVICE.name) if seen.holds(row.project, row.user)]
        listening = self._listening()
        return ServiceList(services=tuple([await self._view(row, rows, listening) for row in mine]))

    async def service(self, exchange: Exchange) -> ServiceView:
        rows = await self._store.snapshot()
        return await self._view(find_service(rows, exchange.path["service"], exchange.caller), rows)

    async def _lines_of_failed(self, row: Workload, rows: Snapshot) -> tuple[str, ...]:
        """What the replica printed last that ended by itself last."""
        job_id = service_state(row).failed[-1].job_id
        found = [each for each in rows.ends_for(row.id) if each.id == job_id]
        job = found[0] if found else await self._store.load(job_id)
        attempt_id = job_state(job).attempt_id if isinstance(job, Workload) else None
        return await self._services.streams.last_lines(attempt_id, _LINES) if attempt_id else ()

    @property
    def _gateways(self) -> Path:
        return Path(self._services.state_dir) / "gateway"

    def _listening(self) -> Listening:
        return read_listening(self._gateways)

    async def _view(self, row: Workload, rows: Snapshot, listening: Listening | None = None) -> ServiceView:
        state = service_state(row)
        waits: dict[str, str] = {}
        lines: dict[str, tuple[str, ...]] = {}
        for replica in state.replicas:
            job = rows.workloads.get(replica.job_id)
            if job is None or replica.state not in _ON_THE_WAY:
                continue
            pending = self._services.controllers.picture.pending(rows, job, self._services.clock.now_ms())
            waits[job.id] = pending.text if pending is not None else ""
            attempt_id = job_state(job).attempt_id
            if attempt_id is not None:
                lines[job.id] = await self._services.streams.last_lines(attempt_id, _LINES)
        if state.failed and not any(each.state is ReplicaState.READY for each in state.replicas):
            lines[""] = await self._lines_of_failed(row, rows)
        served = self._services.controllers.observed.served(row.id)
        listening = listening or self._listening()
        return view_service(
            row,
            rows,
            listening=listening,
            served=served,
            waits=waits,
            lines=lines,
            server_url=server_url(self._services.listening()[0], os.environ.get("ARGOSY_PUBLIC_URL", "")),
        )


def check_serving(task: Task) -> None:
    """What a client of ours never sends. Raises `spec-invalid`."""
    serving = task.service
    if serving is None:
        raise ArgosyError(
            "spec-invalid",
            "the task has no `service`",
            hint="add `service: {readiness_probe: /health, replicas: 2}`",
        )
    probe, replicas = serving.probe, serving.replicas
    wrong = ""
    if not probe.path.startswith("/"):
        wrong = f"the probe path `{probe.path}` does not begin with `/`"
    elif replicas.most < replicas.least:
        wrong = f"`max_replicas: {replicas.most}` is below `min_replicas: {replicas.least}`"
    elif not 0 <= replicas.least <= replicas.most <= _REPLICAS_MAX:
        wrong = f"a service has 0 to {_REPLICAS_MAX:,} replicas"
    elif not task.run.strip():
        wrong = "the task has nothing to `run`: a service runs a program that listens on a port"
    elif task.num_nodes > 1:
        wrong = "a replica runs on one node"
    if wrong:
        raise ArgosyError("spec-invalid", wrong)


def _check_there(old: Workload | None, request: ServeRequest, rows: Snapshot, caller: Caller) -> None:
    if old is None and request.update:
        find_service(rows, request.name, msgspec.structs.replace(caller, project=request.project))
    if old is not None and not request.update:
        raise ArgosyError(
            "conflict",
            f"there is a service `{request.name}` already",
            hint=f"`argosy serve update {request.name} FILE.yaml` gives it a new revision",
        )
    if old is not None:
        check_alive(old)


def _about_prefill(row: Workload, serving: Serving, rows: Snapshot) -> list[str]:
    """That nobody reads its prompts yet."""
    if not serving.prefill or rows.find_named(SERVICE.name, serving.prefill, row.project) is not None:
        return []
    without = (
        f"requests to `{row.name}` are refused"
        if serving.bootstrap_port
        else f"`{row.name}` reads prompts itself"
    )
    return [f"there is no service `{serving.prefill}` yet: until it is there, {without}"]


def check_hosts(task: Task, old: Workload | None, services: Iterable[Workload]) -> None:
    """No host of it belongs to another service. Raises `conflict`."""
    serving = task.service or Serving()
    hosts = set(serving.hosts)
    if not hosts:
        return
    for row in services:
        if old is None or row.id != old.id:
            theirs = {
                host
                for each in service_spec(row).revisions
                for host in each.serving.hosts
                if not serving.endpoint or each.serving.endpoint != serving.endpoint
            }
            for host in sorted(hosts & theirs):
                raise ArgosyError(
                    "conflict",
                    f"the domain `{host}` belongs to another service already",
                    hint="give this one another `domain`, or take that service down first",
                )


def check_shared(request: ServeRequest, old: Workload | None, services: Iterable[Workload]) -> None:
    """No service and no shared endpoint have one name, and what services share they share out. Raises
    `conflict`, "spec-invalid"."""
    serving = request.task.service or Serving()
    if not 0 <= serving.share_milli <= 1000:
        raise ArgosyError("spec-invalid", f"a share of {serving.share_milli / 10:g} % is not 0 to 100 %")
    for row in services:
        if row.project != request.project or (old is not None and row.id == old.id):
            continue
        shared = {each.serving.endpoint for each in service_spec(row).revisions}
        if serving.endpoint == row.name or request.name in shared:
            name = serving.endpoint if serving.endpoint == row.name else request.name
            raise ArgosyError(
                "conflict",
                f"`{name}` would be a service and the endpoint of several",
                hint="give one of them another name",
            )


def _back_to(row: Workload, asked: int) -> int:
    spec, state = service_spec(row), service_state(row)
    rollout = state.rollout
    number = asked
    if not number and rollout is not None:
        number = rollout.old
    if number and revision_of(row, number) is not None and number != spec.wanted:
        return number
    if number and number == spec.wanted:
        raise ArgosyError("wrong-state", f"revision {number} of `{row.name}` is wanted already")
    known = ", ".join(str(each.number) for each in spec.revisions)
    raise ArgosyError(
        "wrong-state",
        f"there is no revision of `{row.name}` to go back to"
        if not asked
        else f"revision {asked} is not kept",
        hint=f"it has the revisions {known}",
    )


def _revision(number: int, request: ServeRequest, confirmed: Confirmed | None, now_ms: int) -> Revision:
    task = msgspec.structs.replace(
        request.task, secrets=dict.fromkeys(request.task.secrets, ""), extra="", not_executed=()
    )
    return Revision(
        number=number,
        digest=digest_of(task),
        task=task,
        confirmed=confirmed,
        strategy=request.strategy,
        made_ms=now_ms,
        note=request.note,
    )


def digest_of(task: Task) -> str:
    """Of what makes a replica what it is: not of how many there are, nor of how requests are shared out."""
    serving = task.service or Serving()
    same = msgspec.structs.replace(
        serving, replicas=Replicas(), balance="", models=(), endpoint="", share_milli=0
    )
    plain = msgspec.structs.replace(task, name=None, service=same)
    return hashlib.sha256(msgspec.json.encode(plain, order="deterministic")).hexdigest()[:32]

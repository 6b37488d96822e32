"""Services from Python: SkyPilot's names and arguments, as coroutines; `argosy.serve` has them blocking."""

from __future__ import annotations

import os
from collections.abc import Iterable

import msgspec

from argosy.api.endpoint import Done
from argosy.api.services import ServiceCalls, ServiceView
from argosy.client import login
from argosy.client.shared import SharedClient
from argosy.client.tasks import Launchable, model_of
from argosy.client.telling import tell
from argosy.model.errors import ArgosyError
from argosy.model.serving import ROLLING, Strategy, canary_steps
from argosy.model.task import Task as ModelTask

_MODES = ("rolling", "blue_green", "canary", "shadow")


async def serve_up(task: Launchable, service_name: str | None = None) -> tuple[str, str]:
    """Make a service; returns its name, and where it answers ("" until its first replica is there).

        name, endpoint = sky.serve.up(sky.Task.from_yaml("service.yaml"), service_name="chat")

    Errors: "spec-invalid" for a task without `service`, "conflict" for a name that is taken, "no-offer".
    """
    model = await _sent(task)
    name = service_name or model.name or "service"
    reply = await ServiceCalls.apply_service(name, model, user=login.user_name(os.environ))
    tell(reply.warnings)
    return reply.service.name, reply.service.endpoint


async def serve_update(
    task: Launchable, service_name: str, mode: str = "rolling", *, canary: int = 10, force: bool = False
) -> ServiceView:
    """Give a service a new revision. `mode`: rolling, blue_green, canary (`canary` per cent at first) or
    shadow.
    Errors: "not-found", "usage", "wrong-state" for a revision that was rolled back before."""
    strategy = ROLLING
    if mode not in _MODES:
        raise ArgosyError("usage", f"`mode` is {', '.join(_MODES)}, not {mode!r}")
    if mode == "canary":
        strategy = Strategy(name="canary", steps=canary_steps(canary), bake_requests=10)
    elif mode != "rolling":
        strategy = Strategy(name=mode.replace("_", "-"))
    reply = await ServiceCalls.apply_service(
        service_name,
        await _sent(task),
        update=True,
        strategy=strategy,
        force=force,
        user=login.user_name(os.environ),
    )
    tell(reply.warnings)
    return reply.service


async def serve_status(service_names: Iterable[str] | str | None = None) -> list[ServiceView]:
    """Live services with their replicas: all, or those that are named. Errors: "not-found"."""
    if service_names is None:
        return list((await ServiceCalls.services()).services)
    names = [service_names] if isinstance(service_names, str) else list(service_names)
    return [await ServiceCalls.service(name) for name in names]


async def serve_scale(service_name: str, replicas: int | None) -> ServiceView:
    """Another number of replicas; None: as the file says."""
    return (await ServiceCalls.scale_service(service_name, replicas)).service


async def serve_promote(service_name: str) -> ServiceView:
    """Let the new revision take over now. Errors: "wrong-state" when there is none."""
    return (await ServiceCalls.promote_service(service_name)).service


async def serve_rollback(service_name: str, revision: int = 0) -> ServiceView:
    """Go back to the revision before, or to this one."""
    return (await ServiceCalls.rollback_service(service_name, revision)).service


async def serve_down(
    service_names: Iterable[str] | str | None = None, all: bool = False, purge: bool = False
) -> Done:
    """End services after the requests that are under way; `purge`: at once. Errors: "usage", "not-found"."""
    names = [service_names] if isinstance(service_names, str) else list(service_names or ())
    if all:
        names = [each.name for each in (await ServiceCalls.services()).services]
    if not names and not all:
        raise ArgosyError("usage", "no service is named", hint="give `service_names`, or all=True")
    for name in names:
        await ServiceCalls.down_service(name, now=purge)
    return Done(names=tuple(names))


async def _sent(task: Launchable) -> ModelTask:
    """With its files on the server."""
    model, warnings = model_of(task)
    tell(warnings)
    if model.service is None:
        raise ArgosyError(
            "spec-invalid",
            "the task has no `service`",
            hint="write `service: {readiness_probe: /health, replicas: 2}` in a file; use Task.from_yaml",
        )
    sent = await SharedClient.send_files(model)
    tell(sent.warnings)
    return msgspec.structs.replace(sent.task, extra="")

"""Services from Python: SkyPilot's names and arguments, as coroutines; `argosy.serve` has them blocking."""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping
from enum import StrEnum

import msgspec

from argosy.api.endpoint import Done
from argosy.api.jobs import JobCalls
from argosy.api.services import ServiceCalls, ServiceView
from argosy.client import login
from argosy.client.facade import show_log
from argosy.client.printing import Out
from argosy.client.records import ServiceRecord, as_service
from argosy.client.shared import SharedClient
from argosy.client.tasks import Launchable, model_of
from argosy.client.telling import tell
from argosy.model.errors import ArgosyError
from argosy.model.serving import ROLLING, Strategy, canary_steps
from argosy.model.task import Task as ModelTask


class UpdateMode(StrEnum):
    """How a service gets a new revision."""

    ROLLING = "rolling"
    BLUE_GREEN = "blue_green"
    CANARY = "canary"
    SHADOW = "shadow"


class SkyServiceSpec(dict[str, object]):
    """SkyPilot's constructor of `service:`; a mapping with the fields of the YAML.

    >>> SkyServiceSpec("/health", min_replicas=1, max_replicas=3)["replica_policy"]
    {'min_replicas': 1, 'max_replicas': 3}
    """

    def __init__(
        self,
        readiness_path: str = "/",
        initial_delay_seconds: int | None = None,
        min_replicas: int = 1,
        max_replicas: int | None = None,
        *,
        readiness_timeout_seconds: int | None = None,
        post_data: Mapping[str, object] | str | None = None,
        ports: int | str | None = None,
        **policy: object,  # `readiness_headers`, and the rest of `replica_policy`
    ) -> None:
        probe = {
            "path": readiness_path,
            "initial_delay_seconds": initial_delay_seconds,
            "timeout_seconds": readiness_timeout_seconds,
            "post_data": post_data,
            "headers": policy.pop("readiness_headers", None),
        }
        given: dict[str, object] = {"readiness_probe": {k: v for k, v in probe.items() if v is not None}}
        if max_replicas is None and not policy:
            given["replicas"] = min_replicas
        else:
            counts = {"min_replicas": min_replicas, "max_replicas": max_replicas or min_replicas}
            given["replica_policy"] = {k: v for k, v in {**counts, **policy}.items() if v is not None}
        if ports is not None:
            given["ports"] = ports
        super().__init__(given)


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
    task: Launchable,
    service_name: str,
    mode: UpdateMode | str = "rolling",
    *,
    canary: int = 10,
    force: bool = False,
) -> ServiceView:
    """Give a service a new revision. `mode`: rolling, blue_green, canary (`canary` per cent at first) or
    shadow.
    Errors: "not-found", "usage", "wrong-state" for a revision that was rolled back before."""
    strategy = ROLLING
    mode = str(mode).lower()
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


async def serve_status(service_names: Iterable[str] | str | None = None) -> list[ServiceRecord]:
    """Live services with their replicas: all, or those that are named and there."""
    every = [as_service(each) for each in (await ServiceCalls.services()).services]
    if service_names is None:
        return every
    names = [service_names] if isinstance(service_names, str) else list(service_names)
    known = {each.name for each in every}
    tell([f"there is no service `{name}`" for name in names if name not in known])
    return [each for each in every if each.name in names]


async def serve_tail_logs(
    service_name: str,
    target: str = "replica",
    replica_id: int | None = None,
    follow: bool = True,
    tail: int = 0,
    output_stream: Out | None = None,
) -> int:
    """Print a replica's log, of the one with the lowest number when none is named. Errors: "not-found",
    "usage" for another `target`: what a controller does is in `argosy events`."""
    if str(target).rpartition(".")[2].lower() != "replica":
        raise ArgosyError("usage", f"`target` is replica, not {target!r}", hint="see `argosy events NAME`")
    view = await ServiceCalls.service(service_name)
    for each in sorted(view.replicas, key=lambda one: one.number):
        if replica_id in (None, each.number):
            return await show_log(await JobCalls.job(each.job), follow, tail, output_stream)
    raise ArgosyError("not-found", f"`{service_name}` has no replica {replica_id or 'yet'}")


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

"""Keys of services and of all language models of a project; prices by which their budgets are spent."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import msgspec

from argosy.api.endpoint import Done
from argosy.api.service_keys import (
    PricesReply,
    PricesRequest,
    ServiceKeyList,
    ServiceKeyReply,
    ServiceKeyRequest,
)
from argosy.controllers.service.routes import guards_models, prefix_of
from argosy.identity.credentials import REQUESTS, digest, make_token
from argosy.model.access import Caller, Target
from argosy.model.errors import ArgosyError
from argosy.model.kinds.service import SERVICE, service_spec
from argosy.model.rows import Workload
from argosy.model.service_keys import KeyUse, ModelKey
from argosy.server.exchange import Exchange
from argosy.server.gateway_process import read_listening
from argosy.server.guarding import project_of, require
from argosy.server.service_changes import change_all
from argosy.server.service_keys import (
    access_key,
    added_uses,
    check_paid,
    model_key_uses,
    view_keys,
    with_key,
    with_prices,
    without_key,
)
from argosy.server.service_views import find_service, members_of, shared_at
from argosy.server.services import Services
from argosy.store.snapshot import Snapshot


class ServiceKeyFeature:
    """Every method raises ArgosyError and is safe to repeat."""

    def __init__(self, services: Services) -> None:
        self._services, self._store = services, services.store

    async def service_keys(self, exchange: Exchange) -> ServiceKeyList:
        rows = await self._store.snapshot()
        names = members_of(rows, exchange.path["service"], exchange.caller)
        members = [find_service(rows, name, exchange.caller) for name in names]
        spec = service_spec(members[0])
        uses = added_uses(self._uses(members))
        return ServiceKeyList(keys=view_keys(spec.keys, uses), prices=spec.prices)

    async def make_service_key(self, exchange: Exchange) -> ServiceKeyReply:
        request, name = await exchange.decode(ServiceKeyRequest), exchange.path["service"]
        secret, now_ms = make_token(REQUESTS), self._services.clock.now_ms()

        def act(row: Workload) -> tuple[Workload, str]:
            changed = with_key(row, request, digest(secret), now_ms)
            return changed, f"key `{request.name.strip()}` lets requests in"

        row = (await change_all(self._services, name, exchange.caller, "key-made", act))[0][0]
        return ServiceKeyReply(name=request.name.strip(), secret=secret, endpoint=self._endpoint(row, name))

    def _uses(self, members: list[Workload]) -> list[Mapping[str, KeyUse]]:
        told = [self._services.controllers.observed.served(row.id) for row in members]
        return [each.keys for each in told if each is not None]

    def _endpoint(self, row: Workload, name: str) -> str:
        """Of the service, or that of the name which it shares with others."""
        listening = read_listening(Path(self._services.state_dir) / "gateway")
        if not listening.urls:
            return ""
        shared = "" if row.name == name or row.id == name else shared_at(row, name, listening)
        return shared or f"{listening.urls[0]}{prefix_of(row)}"

    async def remove_service_key(self, exchange: Exchange) -> Done:
        key, name = exchange.path["key"], exchange.path["service"]

        def act(row: Workload) -> tuple[Workload, str]:
            return without_key(row, key), f"key `{key}` lets nobody in any longer"

        await change_all(self._services, name, exchange.caller, "key-removed", act)
        return Done(names=(key,))

    async def set_service_prices(self, exchange: Exchange) -> PricesReply:
        request, name = await exchange.decode(PricesRequest), exchange.path["service"]

        def act(row: Workload) -> tuple[Workload, str]:
            return with_prices(row, request.prices), f"requests to `{row.name}` have prices"

        said = (await change_all(self._services, name, exchange.caller, "priced", act))[0][1]
        return PricesReply(prices=request.prices, said=said)

    # -- of all language models of a project ----------------------------------------------------------

    async def model_keys(self, exchange: Exchange) -> ServiceKeyList:
        project = _project(exchange.caller)
        rows = await self._store.snapshot()
        uses = model_key_uses(self._uses(_models(rows, project)))
        keys = tuple(sorted((each.key for each in _keys(rows, project)), key=lambda key: key.name))
        return ServiceKeyList(keys=view_keys(keys, uses))

    async def make_model_key(self, exchange: Exchange) -> ServiceKeyReply:
        request = await exchange.decode(ServiceKeyRequest)
        project, secret = _project(exchange.caller), make_token(REQUESTS)
        now_ms = self._services.clock.now_ms()
        key = access_key(request, digest(secret), now_ms)

        async def act() -> None:
            rows = await self._store.snapshot()
            models = _models(rows, project)
            if models and not any(service_spec(row).prices for row in models):
                check_paid(key, models[0])
            old = rows.entry_called(f"model-key:{project}:{key.name}")
            entry = (
                msgspec.structs.replace(old, key=key)
                if isinstance(old, ModelKey)
                else ModelKey(id=self._services.ids.new("mky"), created_ms=now_ms, project=project, key=key)
            )
            await self._store.commit([entry])
            self._wake(models)

        await self._services.writer.retried(act)
        listening = read_listening(Path(self._services.state_dir) / "gateway")
        endpoint = f"{listening.urls[0]}/v1" if listening.urls else ""
        return ServiceKeyReply(name=key.name, secret=secret, endpoint=endpoint)

    async def remove_model_key(self, exchange: Exchange) -> Done:
        project, name = _project(exchange.caller), exchange.path["key"]

        async def act() -> None:
            rows = await self._store.snapshot()
            entry = rows.entry_called(f"model-key:{project}:{name}")
            if entry is None:
                raise ArgosyError(
                    "not-found",
                    f"the models of project `{project}` have no key `{name}`",
                    hint="`argosy serve key --models` lists their keys",
                )
            removed_ms = self._services.clock.now_ms()
            await self._store.commit([msgspec.structs.replace(entry, removed_ms=removed_ms)])
            self._wake(_models(rows, project))

        await self._services.writer.retried(act)
        return Done(names=(name,))

    def _wake(self, models: list[Workload]) -> None:
        for row in models[:1]:  # one look at the rows tells the gateway of all
            self._services.controllers.wake(row.id)


def _project(caller: Caller) -> str:
    """In which the caller may. Raises `forbidden`."""
    project = project_of(caller)
    require(caller, Target(project))
    return project


def _models(rows: Snapshot, project: str) -> list[Workload]:
    return [row for row in rows.named(SERVICE.name) if row.project == project and guards_models(row)]


def _keys(rows: Snapshot, project: str) -> list[ModelKey]:
    return [each for each in rows.entries_of(f"model-keys:{project}") if isinstance(each, ModelKey)]

"""Secrets of projects."""

from __future__ import annotations

from argosy.api.endpoint import Done
from argosy.api.secrets import SecretList, SecretRequest, SecretView
from argosy.model.access import Target
from argosy.model.people import Secret
from argosy.server.exchange import Exchange
from argosy.server.guarding import project_of, require, scopes
from argosy.server.recording import who_is
from argosy.server.services import Services


class SecretFeature:
    def __init__(self, services: Services) -> None:
        self._store, self._secrets = services.store, services.identity.secrets

    async def secrets(self, exchange: Exchange) -> SecretList:
        rows, seen, project = await self._store.snapshot(), scopes(exchange.caller), exchange.text("project")
        found = [
            each
            for each in rows.people.values()
            if isinstance(each, Secret) and seen.holds(each.project) and project in ("", each.project)
        ]
        found.sort(key=lambda each: (each.project, each.name))
        return SecretList(
            secrets=tuple(
                SecretView(name=each.name, project=each.project, set_ms=each.set_ms, set_by=each.set_by)
                for each in found
            )
        )

    async def set_secret(self, exchange: Exchange) -> Done:
        from argosy.spec.names import check_name

        request, caller = await exchange.decode(SecretRequest), exchange.caller
        project = project_of(caller, request.project)
        require(caller, Target(project))
        name = check_name("secret", request.name)
        await self._secrets.set(project, name, request.value, by=who_is(caller))
        return Done(names=(name,))

    async def remove_secret(self, exchange: Exchange) -> Done:
        project = project_of(exchange.caller, exchange.text("project"))
        require(exchange.caller, Target(project))
        gone = await self._secrets.remove(project, exchange.path["secret"])
        return Done(names=(gone.name,))

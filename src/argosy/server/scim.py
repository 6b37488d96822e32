"""SCIM 2.0 below `/scim/v2`, loaded with the first request of an identity provider."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Final

from argosy.server.exchange import Receive, Scope, Send
from argosy.server.front import Mounted
from argosy.server.services import Services

if TYPE_CHECKING:
    from argosy.facades.scim.app import Scim

ROOT: Final = "/scim/v2"
PERMISSION: Final = "people.provision"


def mounted_scim(services: Services) -> Mapping[str, Mounted]:
    """What the front mounts."""
    return {"/scim": Mounted(_Door(services).answer, PERMISSION, PERMISSION)}


class _Door:
    def __init__(self, services: Services) -> None:
        self._services = services
        self._made: Scim | None = None

    async def answer(self, scope: Scope, receive: Receive, send: Send) -> None:
        """One request; what it changes is in the audit log with who asked."""
        from argosy.model.audit import Act
        from argosy.server.recording import who_is
        from argosy.store.acting import ACTING, Acting

        services = self._services
        if self._made is None:
            from argosy.facades.scim.app import Scim
            from argosy.server.provisioning import Provisioned

            self._made = Scim(Provisioned(services.store, services.clock, services.ids), ROOT)
        caller = scope["argosy.caller"]
        act = Act(
            at_ms=services.clock.now_ms(),
            who=who_is(caller),
            via=caller.via,
            credential=caller.credential,
            address=caller.address,
            action="scim",
            target=str(scope["path"])[:200],
            request=services.ids.new("req"),
        )
        token = ACTING.set(Acting(act))
        try:
            await self._made(scope, receive, send)
        finally:
            ACTING.reset(token)

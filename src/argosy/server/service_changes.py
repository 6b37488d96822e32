"""A change of one service, or of all that share an endpoint: read, checked, committed, told."""

from __future__ import annotations

from collections.abc import Callable

from argosy.model.access import Caller
from argosy.model.errors import ArgosyError
from argosy.model.phases import Desired
from argosy.model.rows import Workload
from argosy.server.service_views import find_service, members_of
from argosy.server.services import Services

#: The changed row, and what was done in words.
Act = Callable[[Workload], tuple[Workload, str]]


def check_alive(row: Workload) -> None:
    """Raises `wrong-state`."""
    if row.desired is Desired.END:
        raise ArgosyError(
            "wrong-state",
            f"service `{row.name}` is being taken down",
            hint="wait until `argosy serve status` does not list it",
        )


async def change(services: Services, name: str, caller: Caller, code: str, act: Act) -> tuple[Workload, str]:
    """The service after it, and what was done. Raises `not-found`, `wrong-state`, what `act` does."""

    async def once() -> tuple[Workload, str]:
        row = find_service(await services.store.snapshot(), name, caller)
        check_alive(row)
        changed, said = act(row)
        await services.store.commit([changed], events=[services.writer.event(row.id, code, said)])
        services.controllers.wake(row.id)
        return changed, said

    return await services.writer.retried(once)


async def change_all(
    services: Services, name: str, caller: Caller, code: str, act: Act
) -> list[tuple[Workload, str]]:
    """Likewise the service of this name, or all that share an endpoint of it."""
    names = members_of(await services.store.snapshot(), name, caller)
    return [await change(services, each, caller, code, act) for each in names]

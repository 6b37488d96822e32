"""Orders that Google has taken and not finished: what becomes of them is looked up while machines are
listed."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

import msgspec

from argosy.infra import border
from argosy.infra.machines import Machine, MachineState
from argosy.model.ids import Clock
from argosy.providers.gcp.account import Account
from argosy.providers.gcp.errors import error_in
from argosy.providers.gcp.wire import region_of

_LOOKS_MAX: Final = 20  # operations that one listing asks for
_KEPT_S: Final = 3600.0


class Pending(msgspec.Struct, frozen=True, kw_only=True):
    """One operation, and the machines that it makes."""

    operation: str
    zone: str
    scope: str
    claim_id: str
    count: int
    names: tuple[tuple[int, str], ...]  # (index, name)


class Orders:
    """Of this process: after a restart an order that fails is known by its machines' absence alone."""

    def __init__(self, account: Account, clock: Clock) -> None:
        self._account, self._clock = account, clock
        self._pending: dict[str, Pending] = {}
        self._failed: dict[str, tuple[float, Machine]] = {}  # by name

    def add(self, pending: Pending) -> None:
        self._pending[pending.operation] = pending

    def forget(self, name: str) -> None:
        """A machine goes, or is ordered anew."""
        self._failed.pop(name, None)
        self._pending = {
            id: each for id, each in self._pending.items() if all(name != made for _, made in each.names)
        }

    async def failed(self) -> Sequence[Machine]:
        """Machines that were not made, with the reason."""
        for each in list(self._pending.values())[:_LOOKS_MAX]:
            try:
                now = await self._account.look(f"zones/{each.zone}", each.operation)
            except border.BorderError:
                continue
            if now is not None and not now.is_done:
                continue
            self._pending.pop(each.operation, None)
            error = error_in(now, each.scope) if now is not None else None
            if error is not None:
                for index, name in each.names:
                    self._failed[name] = (self._clock.monotonic_s(), _failed(each, index, name, error))
        oldest_s = self._clock.monotonic_s() - _KEPT_S
        self._failed = {name: kept for name, kept in self._failed.items() if kept[0] >= oldest_s}
        return [machine for _, machine in self._failed.values()]


def _failed(order: Pending, index: int, name: str, error: border.BorderError) -> Machine:
    return Machine(
        id=name,
        claim_id=order.claim_id,
        index=index,
        count=order.count,
        state=MachineState.FAILED,
        region=region_of(order.zone),
        zone=order.zone,
        said=str(error),
        error=error,
    )

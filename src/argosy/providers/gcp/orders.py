"""Orders that Google has taken and not finished: what becomes of them is looked up while machines are
listed."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from typing import Final

import msgspec

from argosy.infra import border
from argosy.infra.machine_vendor import MachineOrder
from argosy.infra.machines import Machine, MachineState, Mark
from argosy.model.ids import Clock
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


#: Whether an operation has ended, and its error.
Look = Callable[[Pending], Awaitable[tuple[bool, border.BorderError | None]]]


class Orders:
    """Of this process: after a restart an order that fails is known by its machines' absence alone."""

    def __init__(self, look: Look, clock: Clock) -> None:
        self._look, self._clock = look, clock
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
                done, error = await self._look(each)
            except border.BorderError:
                continue
            if not done:
                continue
            self._pending.pop(each.operation, None)
            if error is not None:
                for index, name in each.names:
                    self._failed[name] = (self._clock.monotonic_s(), _failed(each, index, name, error))
        oldest_s = self._clock.monotonic_s() - _KEPT_S
        self._failed = {name: kept for name, kept in self._failed.items() if kept[0] >= oldest_s}
        return [machine for _, machine in self._failed.values()]


def pending_of(order: MachineOrder, operation: str, names: Sequence[tuple[int, str]]) -> Pending:
    return Pending(
        operation=operation,
        zone=order.zone,
        scope=order.scope,
        claim_id=order.claim.id,
        count=order.claim.count,
        names=tuple(names),
    )


def _failed(order: Pending, index: int, name: str, error: border.BorderError) -> Machine:
    return Machine(
        id=name,
        mark=Mark(claim_id=order.claim_id, index=index, count=order.count),
        state=MachineState.FAILED,
        region=region_of(order.zone),
        zone=order.zone,
        said=str(error),
        error=error,
    )

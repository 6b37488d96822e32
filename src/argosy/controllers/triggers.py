"""Keeps the values of services' triggers: each is fetched every few seconds, in a thread, one at a time.

A value that could not be fetched three times in a row is no value any more; the autoscaler then keeps what
there is.
"""

from __future__ import annotations

import asyncio
import logging
from collections import deque
from collections.abc import Callable, Coroutine, Mapping, Sequence
from typing import Any, Final

from argosy.infra.trigger_values import TriggerError, Value, fetch_value
from argosy.model.scaling import Trigger

_log = logging.getLogger(__name__)

EVERY_MS: Final = 15_000
FAILURES: Final = 3
KEPT: Final = 600

Fetch = Callable[[Trigger], Value]


class _One:
    """One trigger of one service."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.value: float | None = None
        self.values: deque[float] = deque(maxlen=KEPT)  # one for each look at the service
        self.asked_ms = 0
        self.asking = False
        self.failures = 0
        self.why = ""  # it has no value, or what is odd about it


class TriggerValues:
    """Of all services. `spawn` runs a task that nobody waits for."""

    def __init__(
        self, spawn: Callable[[Coroutine[Any, Any, None]], object], fetch: Fetch = fetch_value
    ) -> None:
        self._spawn, self._fetch = spawn, fetch
        self._known: dict[tuple[str, str], _One] = {}

    def signals(
        self, service: str, triggers: Sequence[Trigger], now_ms: int
    ) -> Mapping[str, Sequence[float]]:
        """Values by name, the newest last; what is due is asked for. Call it once a second."""
        found: dict[str, Sequence[float]] = {}
        for trigger in triggers:
            one = self._known.setdefault((service, _key(trigger)), _One(trigger.name))
            if not one.asking and now_ms - one.asked_ms >= EVERY_MS:
                one.asking, one.asked_ms = True, now_ms
                self._spawn(self._ask(trigger, one))
            if one.value is not None:
                one.values.append(one.value)
                found[trigger.name] = list(one.values)
        return found

    def troubles(self, service: str) -> tuple[str, ...]:
        """What is wrong with triggers of a service now, a sentence each, without its full stop."""
        return tuple(
            f"its trigger `{one.name}` {'has no value' if one.failures else f'is {one.value:g}'}: {one.why}"
            for (owner, _), one in self._known.items()
            if owner == service and one.why
        )

    def forget(self, service: str) -> None:
        """The service is gone."""
        for key in [key for key in self._known if key[0] == service]:
            del self._known[key]

    async def _ask(self, trigger: Trigger, one: _One) -> None:
        try:
            one.value, one.why = await asyncio.to_thread(self._fetch, trigger)
            one.failures = 0
        except TriggerError as error:
            one.failures += 1
            if str(error) != one.why:
                one.why = str(error)
                _log.warning("a trigger has no value: %s", one.why)
            if one.failures >= FAILURES:
                one.value = None
                one.values.clear()
        finally:
            one.asking = False


def _key(trigger: Trigger) -> str:
    return repr(trigger)

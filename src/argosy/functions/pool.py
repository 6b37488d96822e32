"""The environments of one function: which one takes an event, when a new one starts, when idle ones go."""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import signal
from collections.abc import Callable

from argosy.functions.environments import Environment, Forked, Json, Outcome, Zygote
from argosy.functions.runtime_api import Spoken
from argosy.functions.settings import Settings

BETWEEN_S = 1.0  # so long an environment may take to ask for its next event


class Busy(Exception):
    """All environments that there may be have an event."""


class Pool:
    """An event goes to a free environment; where there is none, a new one starts at once."""

    def __init__(self, settings: Settings, now_s: Callable[[], float]) -> None:
        self.settings = settings
        self.environments: list[Environment] = []  # the one that was used last is the last
        self.colds = 0
        self._numbers = itertools.count(1)
        self._now_s = now_s
        self._zygote: Zygote | None = None
        self._closing = False

    async def begin(self) -> None:
        """The fork server, and the environments that are to be there before any event."""
        if not self.settings.command:
            await self._forks()
        await self._provision()

    async def _forks(self) -> Zygote:
        if self._zygote is None or not self._zygote.is_up:
            self._zygote = Zygote(self.settings)
            self._zygote.begin()
        await self._zygote.ready
        return self._zygote

    async def _provision(self) -> None:
        for _ in range(self.settings.provisioned - len(self.environments)):
            environment = await self._start("")
            await environment.ready
            if environment.failed is not None:
                return

    async def invoke(self, about: Json, body: bytes) -> tuple[Outcome, Environment]:
        """Raises Busy."""
        tenant = about.get("tenant_id") or ""
        while True:
            environment = self._free(tenant)
            if environment is None and await self._comes_back(tenant):
                continue
            if environment is None:
                if len(self.environments) >= self.settings.concurrency and not self._make_room(tenant):
                    raise Busy
                environment = await self._start(tenant)
                self.colds += 1
                if isinstance(environment, Spoken):
                    await environment.ready
                    if environment.failed is None and not environment.is_free:
                        continue  # another event was quicker
                if environment.failed is not None or environment.gone.is_set():
                    environment.kill()
                    return environment.ended_early(about["id"]), environment
            outcome = await environment.invoke(about, body)
            environment.used_s = self._now_s()
            return outcome, environment

    def _free(self, tenant: str) -> Environment | None:
        """The one that was used last, so that the others become idle; tenants have their own."""
        for at in range(len(self.environments) - 1, -1, -1):
            environment = self.environments[at]
            if environment.tenant == tenant and environment.is_free:
                if at != len(self.environments) - 1:
                    self.environments.append(self.environments.pop(at))
                return environment
        return None

    async def _comes_back(self, tenant: str) -> bool:
        """Whether one that has just answered asks for its next event now."""
        for environment in self.environments:
            if environment.tenant == tenant and isinstance(environment, Spoken) and environment.is_between:
                with contextlib.suppress(asyncio.TimeoutError):
                    await asyncio.wait_for(environment.turn.wait(), BETWEEN_S)
                    return environment.is_free
        return False

    def _make_room(self, tenant: str) -> bool:
        """An idle environment of another tenant makes room."""
        for environment in self.environments:
            if environment.tenant != tenant and environment.is_free:
                self.environments.remove(environment)
                environment.kill()
                return True
        return False

    async def _start(self, tenant: str) -> Environment:
        number = next(self._numbers)
        if self.settings.command:
            spoken = Spoken(self.settings, number, tenant)
            self._add(spoken)
            await spoken.begin()
            return spoken
        forked = Forked(self.settings, number, tenant)
        self._add(forked)
        try:
            await forked.begin(await self._forks())
        except OSError:
            forked.has_ended(signal.SIGKILL)
        return forked

    def _add(self, environment: Environment) -> None:
        environment.on_gone = self._gone
        environment.used_s = self._now_s()
        self.environments.append(environment)

    def _gone(self, environment: Environment) -> None:
        if environment in self.environments:
            self.environments.remove(environment)

    def sweep(self) -> None:
        """Ends what has been idle for long, but never what was asked to be there. Call it each second."""
        border_s = self._now_s() - self.settings.idle_s
        spare = len(self.environments) - self.settings.provisioned
        for environment in list(self.environments):
            if spare > 0 and environment.is_free and environment.used_s <= border_s:
                self.environments.remove(environment)
                environment.signal(signal.SIGTERM)
                spare -= 1
        if spare < 0 and not self._closing:
            asyncio.ensure_future(self._provision())

    async def close(self) -> None:
        """Every environment is told, and killed when it does not end."""
        self._closing = True
        await asyncio.gather(*(environment.stop() for environment in list(self.environments)))
        if self._zygote is not None:
            self._zygote.end()

"""Refreshes of prices: each in a thread of its own, watched and called off through the API.

A refresh may take longer than anybody waits for one answer. So it is started by one request and looked at by
others, which are answered when something happens. It writes its prices in one step at its end: who calls it
off before leaves the old ones as they were, and so does a server that stops.
"""

from __future__ import annotations

import asyncio
import logging
import threading
from collections.abc import Callable
from typing import Final

import msgspec

from argosy.api.prices import RefreshReply
from argosy.model.errors import ArgosyError

_log: Final = logging.getLogger(__name__)
_WAIT_S: Final = 20.0  # how long a look waits for something to happen


class Run:
    """One refresh. It is the `catalog.refresh.Watch` of its thread; the rest belongs to the event loop."""

    def __init__(self, provider: str, loop: asyncio.AbstractEventLoop) -> None:
        self.reply = RefreshReply(provider=provider, state="running", step=1)
        self.error: ArgosyError | None = None
        self._loop = loop
        self._changed = asyncio.Event()
        self._deciding = threading.Lock()
        self._off = self._sealed = False

    # -- in the thread ------------------------------------------------------------------------------

    def tell(self, text: str) -> None:
        self.post(lambda: self.change(progress=text))

    def wanted(self) -> bool:
        return not self._off

    def check(self) -> None:
        from argosy.catalog.refresh import Stopped

        if self._off:
            raise Stopped

    def seal(self) -> bool:
        with self._deciding:
            self._sealed = not self._off
            return self._sealed

    def post(self, act: Callable[[], None]) -> None:
        """Do this in the event loop; nothing when it has ended."""
        try:
            self._loop.call_soon_threadsafe(act)
        except RuntimeError:
            return

    # -- in the event loop --------------------------------------------------------------------------

    @property
    def running(self) -> bool:
        return self.reply.state == "running"

    def change(self, **fields: object) -> None:
        """Nothing is said any more once it has ended."""
        if self.running:
            self.reply = msgspec.structs.replace(self.reply, step=self.reply.step + 1, **fields)
            self.wake()

    def fail(self, error: ArgosyError) -> None:
        if self.running:
            self.error = error
            self.change(state="failed")

    def call_off(self) -> None:
        """Too late when the prices are being written."""
        with self._deciding:
            if self._sealed:
                return
            self._off = True
        self.change(state="cancelled", progress="")

    def wake(self) -> None:
        self._changed.set()
        self._changed = asyncio.Event()

    async def changed(self, limit_s: float) -> None:
        try:
            async with asyncio.timeout(limit_s):
                await self._changed.wait()
        except TimeoutError:
            return


class Refreshes:
    """The last refresh of every provider. `act` does one: it blocks, and raises ArgosyError or `Stopped`."""

    def __init__(self, act: Callable[[str, bool, Run], RefreshReply]) -> None:
        self._act = act
        self._runs: dict[str, Run] = {}
        self._closed = False

    def start(self, provider: str, *, force: bool) -> RefreshReply:
        """Begin, or join the one that is under way."""
        run = self._runs.get(provider)
        if run is None or not run.running:
            run = self._runs[provider] = Run(provider, asyncio.get_running_loop())
            # Not of the loop's pool: a server that stops does not wait for it.
            threading.Thread(
                target=self._work, args=(run, provider, force), name=f"refresh-{provider}", daemon=True
            ).start()
        return run.reply

    def call_off(self, provider: str) -> RefreshReply:
        run = self._run(provider)
        run.call_off()
        return run.reply

    async def look(self, provider: str, after: int, limit_s: float = _WAIT_S) -> RefreshReply:
        """How it is, as soon as its step is beyond `after`, or a while later. Raises what it failed with."""
        run = self._run(provider)
        if run.running and run.reply.step <= after and not self._closed:
            await run.changed(limit_s)
        if run.error is not None:
            raise run.error
        return run.reply

    def close(self) -> None:
        """The server stops: nobody waits any more, and nothing is kept of what is under way."""
        self._closed = True
        for run in self._runs.values():
            run.call_off()
            run.wake()

    def _run(self, provider: str) -> Run:
        run = self._runs.get(provider)
        if run is None:
            raise ArgosyError(
                "not-found",
                f"the prices of `{provider}` are not being refreshed",
                hint=f"`argosy catalog refresh {provider}` starts it",
            )
        return run

    def _work(self, run: Run, provider: str, force: bool) -> None:
        from argosy.catalog.refresh import Stopped

        try:
            done = self._act(provider, force, run)
        except Stopped:
            return  # whoever called it off has said so
        except ArgosyError as error:
            failed = error
            run.post(lambda: run.fail(failed))
        except Exception:  # noqa: BLE001 — a bug must not leave the run as it is for ever
            _log.exception("the refresh of %s failed", provider)
            bug = ArgosyError("internal", f"the refresh of {provider} failed; the old prices are kept")
            run.post(lambda: run.fail(bug))
        else:
            run.post(
                lambda: run.change(
                    state="done", progress="", before=done.before, after=done.after, skipped=done.skipped
                )
            )

"""Several streams to an agent over a single channel."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Coroutine
from typing import Any, Final

from argosy.agent.mux import GREETING, Broken, Mux
from argosy.infra import border
from argosy.infra.agent_port import Channel

_GREETING_S: Final = 15.0


class Carrier:
    """Streams over one channel, which is made when a stream is first asked for, and anew when it was lost.

    `connect` makes a channel to an agent's `connect --mux`, however it is reached. Closing the last stream
    leaves the channel open.
    """

    def __init__(self, connect: Callable[[], Awaitable[Channel]]) -> None:
        self._connect = connect
        self._mux: Mux | None = None
        self._running: asyncio.Task[None] | None = None
        self._opening = asyncio.Lock()

    async def open(self) -> Channel:
        """A new stream to the agent. Raises `Unreachable`."""
        async with self._opening:
            if self._mux is None or self._mux.is_over:
                channel = await self._connect()
                try:
                    await _greeted(channel)
                except BaseException:
                    channel.writer.close()
                    raise
                self._mux = Mux(channel.reader, channel.writer)
                self._running = asyncio.ensure_future(carry(self._mux))
        return self._mux.open()

    async def close(self) -> None:
        """End the channel and all streams."""
        if self._mux is not None and self._running is not None:
            self._mux.close()
            await asyncio.wait({self._running}, timeout=1.0)
            self._running.cancel()


class Acceptor:
    """The other end of `Carrier`s: `accept` is started for each stream that they open."""

    def __init__(
        self, accept: Callable[[asyncio.StreamReader, asyncio.StreamWriter], Coroutine[Any, Any, None]]
    ) -> None:  # Any: as asyncio has it
        self._accept = accept
        self._muxes: set[Mux] = set()

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """One channel, until it ends."""
        writer.write(GREETING)
        mux = Mux(reader, writer, accept=self._accept)
        self._muxes.add(mux)
        try:
            await carry(mux)
        finally:
            self._muxes.discard(mux)

    def close(self) -> None:
        """End all of them."""
        for mux in list(self._muxes):
            mux.close()


async def carry(mux: Mux) -> None:
    """Run a mux to its end. What is no frame ends it, too."""
    try:
        await mux.run()
    except Broken:
        return


async def _greeted(channel: Channel) -> None:
    try:
        async with asyncio.timeout(_GREETING_S):
            word = await channel.reader.readline()
    except TimeoutError:
        raise border.Unreachable(f"the agent's `connect` did not answer within {_GREETING_S:.0f} s") from None
    except (OSError, ValueError):
        word = b""
    if word != GREETING:
        said = word.decode("utf-8", "replace").strip()[:200]
        raise border.Unreachable("no agent listens there" + (f": {said}" if said else ""))

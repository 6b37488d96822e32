"""The calls about what programs keep (`kept`), which is loaded when they come."""

from __future__ import annotations

import asyncio

from argosy.agent.orders import Refused

TYPE_CHECKING = False
if TYPE_CHECKING:
    from argosy.agent.kept import Kept


class KeptCalls:
    """Answers them, one at a time. `upgraded`: what begins a stream."""

    def __init__(self, home: str, loop: asyncio.AbstractEventLoop, upgraded: bytes) -> None:
        self._home, self._loop, self._upgraded = home, loop, upgraded
        self._lock = asyncio.Lock()
        self._made: Kept | None = None

    @property
    def _kept(self) -> Kept:
        if self._made is None:
            from argosy.agent.kept import Kept

            self._made = Kept(self._home)
        return self._made

    async def scan(self, arguments: dict[str, object]) -> dict[str, object]:
        """`{"target", "settled_s"}` -> what `Kept.scan` finds."""
        target, settled_s = arguments.get("target"), arguments.get("settled_s", 0)
        if not isinstance(target, str) or not isinstance(settled_s, (int, float)):
            raise Refused("target", "`target` must be text and `settled_s` a number")
        async with self._lock:
            return await self._loop.run_in_executor(None, self._kept.scan, target, float(settled_s))

    async def send(
        self, arguments: dict[str, object], reader: asyncio.StreamReader, writer: asyncio.StreamWriter
    ) -> None:
        """`{"digests"}` -> each chunk after a line with its digest and size, which is -1 when it is gone."""
        digests = arguments.get("digests")
        if not isinstance(digests, list) or not all(isinstance(digest, str) for digest in digests):
            raise Refused("digests", "`digests` must be a list")
        writer.write(self._upgraded)
        for digest in digests:
            async with self._lock:
                data = await self._loop.run_in_executor(None, self._kept.read, digest)
            writer.write(b"%s %d\n" % (digest.encode(), -1 if data is None else len(data)))
            writer.write(data or b"")
            await writer.drain()

"""The calls about what programs keep (`kept`), which is loaded when they come."""

from __future__ import annotations

import asyncio

from argosy.agent.orders import Refused

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

    from argosy.agent.kept import Kept

_RANK = "rank:"


class KeptCalls:
    """Answers them, one at a time. `upgraded`: what begins a stream; `home_of`: where the files of the app
    of a rank lie."""

    def __init__(
        self, home: str, loop: asyncio.AbstractEventLoop, upgraded: bytes, home_of: Callable[[str], str]
    ) -> None:
        self._home, self._loop, self._upgraded, self._home_of = home, loop, upgraded, home_of
        self._lock = asyncio.Lock()
        self._made: Kept | None = None

    @property
    def _kept(self) -> Kept:
        if self._made is None:
            from argosy.agent.kept import Kept

            self._made = Kept(self._home)
        return self._made

    async def scan(self, arguments: dict[str, object]) -> dict[str, object]:
        """`{"target", "settled_s"}` -> what `Kept.scan` finds. A target `rank:ID`: the files of its app,
        wherever they lie."""
        target, settled_s = arguments.get("target"), arguments.get("settled_s", 0)
        if not isinstance(target, str) or not isinstance(settled_s, (int, float)):
            raise Refused("target", "`target` must be text and `settled_s` a number")
        top = self._home_of(target[len(_RANK) :]) if target.startswith(_RANK) else ""
        async with self._lock:
            return await self._loop.run_in_executor(None, self._kept.scan, target, float(settled_s), top)

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

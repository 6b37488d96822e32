"""Several connections that bring the chunks of one tree: a connection has a window, which a far sender fills
in no time and then waits. Each brings every n-th block; the first one brings the order as well."""

from __future__ import annotations

import asyncio

from argosy.agent.orders import Busy, Refused

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence

_PATIENCE_S = 60.0


class Lane:
    """`taken`: somebody reads it; `done`: nobody does any more."""

    def __init__(self, reader: asyncio.StreamReader, length: int) -> None:
        loop = asyncio.get_event_loop()
        self.reader, self.length = reader, length
        self.taken: asyncio.Future[None] = loop.create_future()
        self.done: asyncio.Future[None] = loop.create_future()


class Lanes:
    """Lanes by the token of their tree, from when they come, or somebody waits for them."""

    def __init__(self) -> None:
        self._lanes: dict[tuple[str, int], asyncio.Future[Lane]] = {}

    def _of(self, token: str, number: int) -> asyncio.Future[Lane]:
        if (token, number) not in self._lanes:
            self._lanes[token, number] = asyncio.get_event_loop().create_future()
        return self._lanes[token, number]

    async def bring(self, token: str, number: int, lane: Lane) -> None:
        """Returns when it was read. Raises Busy when nobody does, Refused when it is there already."""
        coming = self._of(token, number)
        if coming.done():
            raise Refused("lane", "lane %d of this tree is here already" % number)
        coming.set_result(lane)
        try:
            await asyncio.wait([lane.taken], timeout=_PATIENCE_S)
        finally:
            self._lanes.pop((token, number), None)
        if not lane.taken.done():
            raise Busy("nobody waits for this part of a tree")
        await lane.done

    async def take(self, token: str, lengths: Sequence[int]) -> list[Lane]:
        """All lanes but the first one, of these lengths; who takes them says when they are `done`. Raises
        Busy when one does not come."""
        coming = [self._of(token, number) for number in range(1, len(lengths) + 1)]
        if coming:
            await asyncio.wait(coming, timeout=_PATIENCE_S)
        lanes = [each.result() for each in coming if each.done()]
        for lane in lanes:
            lane.taken.set_result(None)
        if len(lanes) < len(coming) or [lane.length for lane in lanes] != list(lengths):
            for number in range(1, len(lengths) + 1):
                self._lanes.pop((token, number), None)
            for lane in lanes:
                lane.done.set_result(None)
            raise Busy("a part of a tree did not come")
        return lanes

"""The calls that bring files of tasks: chunks, and trees of them. One at a time."""

from __future__ import annotations

import asyncio
import json
import weakref

from argosy.agent import wire
from argosy.agent.lanes import Lane, Lanes
from argosy.agent.orders import Refused

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable
    from typing import Tuple

    from argosy.agent.tree_changes import TreeChanges
    from argosy.agent.trees import NewChunk, Trees

    Answer = dict[str, object]


class TreeCalls:
    """`make` is called when files are placed here for the first time."""

    def __init__(self, make: Callable[[], Trees], loop: asyncio.AbstractEventLoop) -> None:
        self._make, self._loop = make, loop
        self._trees: Trees | None = None
        self._changes: TreeChanges | None = None
        self._lock = asyncio.Lock()
        self._ahead: asyncio.Future[None] | None = None
        self.calls: dict[tuple[str, str], Callable[[Answer], Awaitable[Answer]]] = {
            ("POST", "/chunks/missing"): self._missing,
            ("POST", "/tree"): self._place,
            ("POST", "/tree/held"): self._held,
            ("POST", "/tree/ahead"): self._look_ahead,
        }
        self.packs: dict[tuple[str, str], Callable[[int, asyncio.StreamReader], Awaitable[Answer]]] = {
            ("PUT", "/chunks"): self._put_chunks,
            ("PUT", "/tree/change"): self._change,
            ("PUT", "/tree"): self._place_arriving,
            ("PUT", "/tree/lane"): self._lane,
        }
        self._lanes = Lanes()
        #: By target. Who holds one may then wait for `_lock`, never the other way round.
        self._targets: weakref.WeakValueDictionary[str, asyncio.Lock] = weakref.WeakValueDictionary()

    def _known(self) -> tuple[Trees, TreeChanges]:
        if self._trees is None or self._changes is None:
            from argosy.agent.tree_changes import TreeChanges  # large, and not needed where no files are

            self._trees = self._make()
            self._changes = TreeChanges(self._trees, self._trees.targets)
        return self._trees, self._changes

    def _of(self, target: str) -> asyncio.Lock:
        return self._targets.setdefault(target, asyncio.Lock())

    async def _missing(self, arguments: Answer) -> Answer:
        digests = arguments.get("digests")
        if not isinstance(digests, list):
            raise Refused("digests", "`digests` must be a list")
        async with self._lock:
            return {"missing": await self._loop.run_in_executor(None, self._known()[0].missing, digests)}

    async def _place(self, arguments: Answer) -> Answer:
        target, tree, digest = _tree_order(arguments)
        async with self._of(target), self._lock:
            await self._loop.run_in_executor(None, self._known()[0].place, tree, target, digest)
        return {}

    async def _place_arriving(self, length: int, reader: asyncio.StreamReader) -> Answer:
        """As `_place`, with the chunks that are missing here, in the order in which files need them. A slow
        line keeps nobody else from placing."""
        from concurrent.futures import ThreadPoolExecutor

        from argosy.agent.arriving import Arriving

        order, left = await _read_order(length, reader)
        target, tree, digest = _tree_order(order)
        token, count, size = order.get("token"), order.get("lanes"), order.get("size")
        if not isinstance(token, str) or not isinstance(size, int) or not isinstance(count, int):
            raise Refused("tree", "`token` must be text, `size` and `lanes` numbers")
        if not size >= 0 or not 1 <= count <= wire.LANES_MAX or left != wire.lane_sizes(size, count)[0]:
            raise Refused("tree", "`size` and `lanes` are not those of this request")
        lanes = await self._lanes.take(token, wire.lane_sizes(size, count)[1:])
        arriving = Arriving(size, self._loop)
        thread = ThreadPoolExecutor(1)
        try:
            async with self._of(target):
                placing = self._loop.run_in_executor(
                    thread, self._known()[0].place, tree, target, digest, arriving.tree
                )
                placing.add_done_callback(lambda _: arriving.end())
                try:
                    await arriving.carry([reader, *(lane.reader for lane in lanes)])
                finally:
                    await asyncio.wait([placing])
                placing.result()
        finally:
            thread.shutdown(wait=False)
            for lane in lanes:
                lane.done.set_result(None)
        return {}

    async def _lane(self, length: int, reader: asyncio.StreamReader) -> Answer:
        order, left = await _read_order(length, reader)
        token, number = order.get("token"), order.get("lane")
        if not isinstance(token, str) or not isinstance(number, int):
            raise Refused("lane", "`token` must be text and `lane` a number")
        await self._lanes.bring(token, number, Lane(reader, left))
        return {}

    async def _held(self, arguments: Answer) -> Answer:
        """What lies there is told in any case: a change of it may follow, for which we look ahead."""
        target, digest = arguments.get("target"), arguments.get("digest")
        if not isinstance(target, str) or not isinstance(digest, str):
            raise Refused("target", "`target` and `digest` must be text")
        trees, changes = self._known()
        async with self._lock:
            if await self._loop.run_in_executor(None, trees.holds, target, digest):
                return {"held": True, "lying": digest, "takes": True}
            lying = await self._loop.run_in_executor(None, changes.lying, target)
            bare = not lying and trees.is_bare()
        if lying == digest:  # of which something is gone
            lying = ""
        if lying:
            self._start_look(target)
        return {"held": False, "lying": lying, "takes": True, "bare": bare}

    async def _look_ahead(self, arguments: Answer) -> Answer:
        target = arguments.get("target")
        if not isinstance(target, str):
            raise Refused("target", "`target` must be text")
        self._start_look(target)
        return {}

    def _start_look(self, target: str) -> None:
        if self._ahead is None or self._ahead.done():
            self._ahead = asyncio.ensure_future(self._looked_ahead(target))

    async def _looked_ahead(self, target: str) -> None:
        changes = self._known()[1]
        async with self._lock:
            await self._loop.run_in_executor(None, changes.look_ahead, target)
        self._forget_later(changes)

    def _forget_later(self, changes: TreeChanges) -> None:
        from argosy.agent.tree_changes import LOOK_S

        self._loop.call_later(LOOK_S + 1.0, changes.forget)

    # ---- packs: bodies that are taken as they come

    async def _put_chunks(self, length: int, reader: asyncio.StreamReader) -> Answer:
        if length > wire.PACK_LIMIT_BYTES:
            raise Refused("request", "a pack of chunks holds at most %d bytes" % wire.PACK_LIMIT_BYTES)
        await _take_pack(length, reader, self._known()[0].new_chunk)
        return {}

    async def _change(self, length: int, reader: asyncio.StreamReader) -> Answer:
        """An order (`_read_order`), and a pack of the chunks that it needs."""
        if length > wire.BODY_LIMIT_BYTES:
            raise Refused("request", "the body is larger than %d bytes" % wire.BODY_LIMIT_BYTES)
        trees, changes = self._known()
        order, left = await _read_order(length, reader)
        await _take_pack(left, reader, trees.new_chunk)
        here = self._of(str(order.get("target")))
        await here.acquire()
        write_down = None
        try:
            await self._lock.acquire()
            try:
                write_down = await self._loop.run_in_executor(None, changes.change, order)
            finally:
                if write_down is None:
                    self._lock.release()
        finally:
            if write_down is None:
                here.release()
        if write_down is None:
            return {"changed": False}
        # The answer does not wait for the notes: without them the tree is told as a whole the next time.
        writing = self._loop.run_in_executor(None, write_down)
        writing.add_done_callback(lambda _: self._lock.release())
        writing.add_done_callback(lambda _: here.release())
        writing.add_done_callback(lambda _: self._forget_later(changes))
        return {"changed": True}


def _tree_order(order: Answer) -> Tuple[str, Answer, str]:
    target, tree, digest = order.get("target"), order.get("tree"), order.get("digest", "")
    if not isinstance(target, str) or not isinstance(tree, dict) or not isinstance(digest, str):
        raise Refused("tree", "`target` and `digest` must be text and `tree` an object")
    return target, tree, digest


async def _read_order(length: int, reader: asyncio.StreamReader) -> Tuple[Answer, int]:
    """What comes before a pack: a line `{"order": how many bytes}`, and JSON of so many. Returns it, and how
    many bytes follow."""
    try:
        line = await reader.readline()
        size = json.loads(line)["order"]
        if not isinstance(size, int) or not 0 <= size <= min(length - len(line), wire.BODY_LIMIT_BYTES):
            raise ValueError("it does not fit")
        order = json.loads(await reader.readexactly(size))
        if not isinstance(order, dict):
            raise ValueError("not an object")
    except (ValueError, KeyError, TypeError) as error:
        raise Refused("body", "not an order: %s" % error) from None
    return order, length - len(line) - size


async def _take_pack(
    left: int, reader: asyncio.StreamReader, new_chunk: Callable[[str, int], NewChunk]
) -> None:
    while left > 0:
        try:
            line = await reader.readline()
        except ValueError:  # longer than the reader's limit
            line = b""
        left -= len(line)
        fields = line.split()
        if not line.endswith(b"\n") or len(fields) != 2 or not fields[1].isdigit():
            raise Refused("chunks", "a pack of chunks must hold lines `<sha256> <size>` and their bytes")
        size = int(fields[1])
        left -= size
        if left < 0:
            raise Refused("chunks", "a chunk is longer than its pack")
        with new_chunk(fields[0].decode("ascii", "replace"), size) as chunk:
            while size > 0:
                data = await reader.readexactly(min(size, 256 << 10))
                chunk.write(data)
                size -= len(data)

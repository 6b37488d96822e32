"""Chunks that are written into the files of a tree as they come: none is stored first, and the tree is placed
while the rest of it is under way.

The connection is read by the agent's loop, files are written by a thread; a few blocks lie between them.
"""

from __future__ import annotations

import asyncio
import hashlib
import queue

from argosy.agent.orders import Refused
from argosy.agent.placing import Placing, write_all
from argosy.agent.wire import CHUNK_LIMIT_BYTES, LANE_BLOCK_BYTES

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from typing import Optional

    from argosy.agent.placing import Entry
    from argosy.agent.targets import Known
    from argosy.agent.trees import Trees

    Blocks = queue.Queue[Optional[bytes]]

_BLOCKS = 16
_LINE_MAX = 128


class Arriving:
    """A pack of chunks as it comes: `carry` is called in the loop, `next` and `take` in the thread."""

    def __init__(self, length: int, loop: asyncio.AbstractEventLoop) -> None:
        self._length, self._loop = length, loop
        self._blocks: Blocks = queue.Queue()
        self._room = asyncio.Event()
        self._ended = False
        self._data, self._at = b"", 0
        self._next = "", 0

    def tree(self, trees: Trees, known: Known, target: str) -> ArrivingTree:
        return ArrivingTree(trees, known, target, self)

    async def carry(self, lanes: Sequence[asyncio.StreamReader]) -> None:
        """Read all of it, block by block from each lane in turns, at the pace of the thread. Raises what
        reading raises."""
        left, turn = self._length, 0
        try:
            while left > 0:
                block = await lanes[turn].readexactly(min(left, LANE_BLOCK_BYTES))
                turn = (turn + 1) % len(lanes)
                left -= len(block)
                if not self._ended:
                    self._blocks.put(block)
                while self._blocks.qsize() >= _BLOCKS and not self._ended:
                    self._room.clear()
                    await self._room.wait()
        finally:
            self._blocks.put(None)

    def end(self) -> None:
        """The thread takes no more: the rest is thrown away as it comes. Called in the loop."""
        self._ended = True
        self._room.set()

    # ---- the thread

    def next(self) -> str:
        """The digest of the chunk that comes next; "": none does. Raises Refused."""
        if not self._next[0]:
            end = self._data.find(b"\n", self._at)
            while end < 0 and len(self._data) - self._at < _LINE_MAX and self._more():
                end = self._data.find(b"\n", self._at)
            line = self._data[self._at : end] if end >= 0 else self._data[self._at :]
            if line or end >= 0:
                name, _, size = line.partition(b" ")
                if end < 0 or not size.isdigit():
                    text = "a pack of chunks must hold lines `<sha256> <size>` and their bytes"
                    raise Refused("chunks", text)
                self._at = end + 1
                self._next = name.decode("ascii", "replace"), int(size)
        return self._next[0]

    def take(self, write: Callable[[bytes], None]) -> int:
        """That chunk. Raises Refused when its bytes are not what its name says."""
        digest, size = self._next
        if size > CHUNK_LIMIT_BYTES:
            raise Refused("chunks", "a chunk has at most %d bytes" % CHUNK_LIMIT_BYTES)
        self._next = "", 0
        data = self._data[self._at : self._at + size]
        self._at += len(data)
        found = hashlib.sha256(data)
        write(data)
        left = size - len(data)
        while left > 0:
            if not self._more():
                raise Refused("chunks", "a chunk is longer than its pack")
            data = self._data[:left]
            self._at = len(data)
            left -= len(data)
            found.update(data)
            write(data)
        if found.hexdigest() != digest:
            raise Refused("chunks", "the bytes of chunk %s are not what it says" % digest)
        return size

    def _more(self) -> bool:
        """One block more; what was not used stays before it."""
        block = self._blocks.get()
        if block is None:
            self._blocks.put(None)
            return False
        if self._blocks.qsize() == _BLOCKS - 1:
            self._loop.call_soon_threadsafe(self._room.set)
        self._data, self._at = self._data[self._at :] + block, 0
        return True


class ArrivingTree(Placing):
    """Places a tree whose missing chunks arrive in the order in which its files need them."""

    def __init__(self, trees: Trees, known: Known, target: str, arriving: Arriving) -> None:
        super().__init__(trees, known, target)
        self._store = trees
        self._arriving = arriving
        self._again: set[str] = set()  # chunks that are needed more than once, and come once

    def place(self, base: str, entries: list[Entry], removes: bool) -> None:
        seen: set[str] = set()
        for entry in entries:
            for digest in entry.chunks:
                (self._again if digest in seen else seen).add(digest)
        super().place(base, entries, removes)
        if self._arriving.next():
            raise Refused("chunks", "more chunks came than the tree needs")

    def copy_chunk(self, digest: str, sink: int) -> int:
        if self._arriving.next() != digest:
            return super().copy_chunk(digest, sink)
        if digest not in self._again:
            return self._arriving.take(lambda data: write_all(sink, data))
        with self._store.new_chunk(digest, 0) as chunk:
            self._arriving.take(chunk.write)
        return super().copy_chunk(digest, sink)

"""Reading from a stream with a timeout: a dead connection sends nothing, so its silence has to be noticed.

One timer for each stream, whatever comes on it: a heartbeat costs the reader no timer of its own.
"""

from __future__ import annotations

import asyncio
from typing import Final

_PIECE_BYTES: Final = 64 << 10
_SECOND_LOOK_S: Final = 0.25  # what had come while this process was busy is read first


class Ear:
    """Reads from `reader`. When nothing has come for `limit_s` while somebody waits for it, the read raises
    ConnectionError and `is_silent` is true. The time that the reader itself needs for what came does not
    count; any byte does, so that a slow line is not taken for a dead one."""

    def __init__(self, reader: asyncio.StreamReader, limit_s: float) -> None:
        self.limit_s = limit_s
        self.is_silent = False
        self._reader = reader
        self._loop = asyncio.get_running_loop()
        self._since_s = 0.0  # when somebody began to wait, or the last bytes came
        self._waits = False
        self._looked = False
        self._timer = self._loop.call_later(limit_s, self._look)

    async def read(self, size: int) -> bytes:
        """Exactly `size` bytes. Raises IncompleteReadError at the end of the stream, ConnectionError."""
        self._waits, self._looked, self._since_s = True, False, self._loop.time()
        try:
            if size <= _PIECE_BYTES:
                return await self._reader.readexactly(size)
            pieces = []
            left = size
            while left > 0:
                pieces.append(await self._reader.readexactly(min(left, _PIECE_BYTES)))
                left -= len(pieces[-1])
                self._looked, self._since_s = False, self._loop.time()
            return b"".join(pieces)
        finally:
            self._waits = False

    def expect(self, limit_s: float) -> None:
        """From now on something is to come at least so often."""
        if limit_s < self.limit_s:
            self._timer.cancel()
            self._timer = self._loop.call_later(limit_s, self._look)
        self.limit_s = limit_s

    def close(self) -> None:
        self._timer.cancel()

    def _look(self) -> None:
        left_s = self._since_s + self.limit_s - self._loop.time() if self._waits else self.limit_s
        if left_s > 0:
            self._timer = self._loop.call_later(left_s, self._look)
        elif not self._looked:
            self._looked = True
            self._timer = self._loop.call_later(_SECOND_LOOK_S, self._look)
        else:
            self.is_silent = True
            self._reader.set_exception(ConnectionError("nothing was heard"))

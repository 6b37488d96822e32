"""Files that are read once: what a scan has read is sent while it reads the next ones."""

from __future__ import annotations

import queue
import threading
from collections.abc import Callable, Iterator, Sequence
from typing import Final

from argosy.client.files import Hear, Scanned, Take

FIRST_BYTES: Final = 4 << 20  # of a pack: sending begins soon
PACK_BYTES: Final = 16 << 20  # three of them are in memory
_LOOK_S: Final = 0.2

Pack = Sequence[tuple[str, bytes]]  # chunks


class _Left(Exception):
    """Nobody wants the scan any more."""


class ReadAhead:
    """A scan in a thread of its own, as a context. `packs` gives the chunks that it reads, each once, and
    `scanned` what it found."""

    def __init__(self, scan: Callable[[Take, Hear], Scanned]) -> None:
        self._scan = scan
        self._packs: queue.Queue[Pack | None] = queue.Queue(1)
        self._pack: list[tuple[str, bytes]] = []
        self._bytes, self._limit_bytes = 0, FIRST_BYTES
        self.given: set[str] = set()
        self._found: Scanned | BaseException | None = None
        self._left = False
        self.seen = 0, 0  # entries, and bytes that were read
        self._thread = threading.Thread(target=self._run, name="scan", daemon=True)

    def __enter__(self) -> ReadAhead:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._left = True
        while self._thread.is_alive():
            self._next(0.01)  # it may wait to give something
        self._thread.join()

    def packs(self) -> Iterator[Pack]:
        """Empty ones now and then while nothing has come. Afterwards `scanned` is there."""
        while (pack := self._next(_LOOK_S)) is not None:
            yield pack

    def scanned(self) -> Scanned:
        """Raises what the scan raised."""
        self._thread.join()
        if isinstance(self._found, BaseException):
            raise self._found
        assert self._found is not None
        return self._found

    def _next(self, patience_s: float) -> Pack | None:
        try:
            return self._packs.get(timeout=patience_s)
        except queue.Empty:
            return ()

    # ---- the thread

    def _run(self) -> None:
        try:
            self._found = self._scan(self._take, self._hear)
            if self._pack:
                self._give()
        except BaseException as error:  # noqa: BLE001  `scanned` raises it
            self._found = error
        self._packs.put(None)

    def _hear(self, files: int, hashed_bytes: int) -> None:
        """What the scan tells now and then."""
        if self._left:
            raise _Left
        self.seen = files, hashed_bytes

    def _take(self, digest: str, data: bytes) -> None:
        if self._left:
            raise _Left
        if digest in self.given:
            return
        if self._pack and self._bytes + len(data) > self._limit_bytes:
            self._give()
        self.given.add(digest)
        self._pack.append((digest, data))
        self._bytes += len(data)

    def _give(self) -> None:
        self._packs.put(self._pack)
        self._pack, self._bytes = [], 0
        self._limit_bytes = min(PACK_BYTES, 2 * self._limit_bytes)

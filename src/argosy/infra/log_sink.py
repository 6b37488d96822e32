"""Where ranks' output goes on the server's side. The real one is `data.logs`; tests have one in memory."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

from argosy.model.facts import LogChunk


class LogSink(Protocol):
    """Append-only bytes per rank. Everything that `stored` counts survives a crash of the server."""

    def stored(self, rank_id: str) -> int:
        """Bytes kept so far: where a new `watch` of the agent should go on."""

    def mask(self, rank_id: str, secrets: Sequence[str]) -> None:
        """From now on, overwrite each of these strings with `*` of the same length, also across chunks."""

    async def write(self, chunk: LogChunk) -> None:
        """Append. Bytes below what is stored are dropped; a gap is refused with ValueError."""

    async def finish(self, rank_id: str) -> None:
        """The rank has ended and everything was written: flush; wake readers for the last time."""

"""`infra.log_sink.LogSink` in memory, with the same laws as the real one."""

from __future__ import annotations

from collections.abc import Sequence

from argosy.model.facts import LogChunk


class MemoryLogSink:
    """Keeps bytes per rank. `finished` names the ranks that were closed."""

    def __init__(self) -> None:
        self._raw: dict[str, bytearray] = {}
        self._secrets: dict[str, tuple[bytes, ...]] = {}
        self.finished: set[str] = set()

    def stored(self, rank_id: str) -> int:
        return len(self._raw.get(rank_id, b""))

    def mask(self, rank_id: str, secrets: Sequence[str]) -> None:
        self._secrets[rank_id] = tuple(sorted({s.encode() for s in secrets if s}, key=len, reverse=True))

    async def write(self, chunk: LogChunk) -> None:
        kept = self._raw.setdefault(chunk.rank_id, bytearray())
        if chunk.offset > len(kept):
            raise ValueError(
                f"gap in the log of {chunk.rank_id}: have {len(kept)} bytes, got offset {chunk.offset}"
            )
        kept += chunk.data[len(kept) - chunk.offset :]

    async def finish(self, rank_id: str) -> None:
        self.finished.add(rank_id)

    def read(self, rank_id: str) -> bytes:
        """What a reader sees: secrets are overwritten."""
        data = bytes(self._raw.get(rank_id, b""))
        for secret in self._secrets.get(rank_id, ()):
            data = data.replace(secret, b"*" * len(secret))
        return data

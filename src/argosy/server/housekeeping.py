"""Daily work: the backup, and the removal of what is old, too much, or belongs to nobody. And the checks that
run all the time."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Mapping
from typing import Final

import msgspec

from argosy.api.server import PruneReply
from argosy.model.errors import ArgosyError
from argosy.model.ids import Clock
from argosy.model.kinds import gangs, kind_of, programs_of
from argosy.model.units import parse_size
from argosy.storage.blobs import BlobStore
from argosy.storage.logs import LogStore
from argosy.store.store import Store

_log: Final = logging.getLogger(__name__)
_DAY_MS: Final = 86_400_000
_DAY_S: Final = 86_400.0
_BLOBS_KEPT_S: Final = 7 * _DAY_S


class Retention(msgspec.Struct, frozen=True, kw_only=True):
    """How much is kept of what ended. Of a number or a size nothing goes that is younger than a week."""

    days: int = 90
    jobs: int = 500_000
    events: int = 5_000_000
    log_bytes: int = 100 << 30
    spare_days: int = 7
    audit_days: int = 400


def parse_retention(env: Mapping[str, str]) -> Retention:
    """ARGOSY_KEEP_DAYS, _JOBS, _EVENTS, _AUDIT_DAYS, _LOGS. Raises ArgosyError `usage`."""
    numbers = {
        name: _count(f"ARGOSY_KEEP_{name.upper()}", env) for name in ("days", "jobs", "events", "audit_days")
    }
    given = {name: value for name, value in numbers.items() if value is not None}
    text = env.get("ARGOSY_KEEP_LOGS", "")
    if text:
        try:
            given["log_bytes"] = parse_size(text)
        except ValueError as error:
            raise ArgosyError("usage", f"ARGOSY_KEEP_LOGS: {error}") from None
    return Retention(**given)


def _count(name: str, env: Mapping[str, str]) -> int | None:
    text = env.get(name, "")
    if not text:
        return None
    if not text.isascii() or not text.isdigit() or not 1 <= int(text) <= 10**12:
        raise ArgosyError("usage", f"{name} is `{text}`: a whole number from 1 on")
    return int(text)


class Housekeeping:
    """One at a time: who asks while it runs waits for the end of it."""

    def __init__(
        self,
        store: Store,
        blobs: BlobStore,
        logs: LogStore,
        clock: Clock,
        retention: Retention | None = None,
        sweep: Callable[[], Awaitable[int]] | None = None,
    ) -> None:
        self._often = list[Callable[[], Awaitable[None]]]()
        self._more = [sweep] if sweep is not None else []  # sweeps of other files: how many went
        self._store, self._blobs, self._logs, self._clock = store, blobs, logs, clock
        self.retention = retention or Retention()
        self._lock = asyncio.Lock()

    def also(self, sweep: Callable[[], Awaitable[int]]) -> None:
        """Do this too, once a day. It returns how many it removed."""
        self._more.append(sweep)

    def often(self, look: Callable[[], Awaitable[None]]) -> None:
        """Do this every few seconds; it knows by itself what is due."""
        self._often.append(look)

    async def look(self) -> None:
        """What is done often, once."""
        for look in self._often:
            await look()

    async def prune(self, *, days: int = 0, dry_run: bool = False) -> PruneReply:
        """Forget what is old. `days`: another age than the usual, for this time. `dry_run`: only count."""
        async with self._lock:
            return await self._prune(days or self.retention.days, dry_run=dry_run)

    async def _prune(self, days: int, *, dry_run: bool) -> PruneReply:
        now_ms, keep = self._clock.now_ms(), self.retention
        now_s, spare_s = now_ms / 1000, min(days, keep.spare_days) * _DAY_S
        cut = await self._store.find_cut(
            before_ms=now_ms - days * _DAY_MS,
            spare_ms=now_ms - int(spare_s * 1000),
            jobs=keep.jobs,
            events=keep.events,
        )
        found = await self._store.count_old(cut)
        rows = 0 if dry_run else await self._store.prune_to(cut)
        live = set((await self._store.snapshot()).attempts)
        logs, log_bytes = await asyncio.to_thread(
            self._logs.sweep,
            live,
            older_than_s=days * _DAY_S,
            now_s=now_s,
            keep_bytes=keep.log_bytes,
            spare_s=spare_s,
            dry_run=dry_run,
        )
        trees = await self._trees_in_use()
        files = await asyncio.to_thread(
            self._blobs.sweep, trees, older_than_s=_BLOBS_KEPT_S, now_s=now_s, dry_run=dry_run
        )
        for sweep in () if dry_run else self._more:
            files += await sweep()
        if not dry_run:
            await self._store.forget_acts(now_ms - keep.audit_days * _DAY_MS)
        freed = 0 if dry_run else await self._store.shrink()
        if rows or logs or files:
            _log.info("swept %d rows, the logs of %d attempts and %d uploaded files", rows, logs, files)
        return PruneReply(
            workloads=found.workloads,
            events=found.events,
            logs=logs,
            log_bytes=log_bytes,
            files=files,
            freed_bytes=freed,
            before_ms=cut.before_ms,
            dry_run=dry_run,
        )

    async def _trees_in_use(self) -> set[str]:
        keep: set[str] = set()
        for row in (await self._store.snapshot()).workloads.values():
            for task in programs_of(row):
                trees = (task.workdir_tree, *(mount.tree for mount in task.file_mounts))
                keep.update(digest for digest in trees if digest)
            keep.update(copy.tree for copy in kind_of(row).keeps(row))
            for gang in gangs(row):
                copies = (*gang.older, *((gang.checkpoint,) if gang.checkpoint is not None else ()))
                keep.update(copy.tree for copy in copies)
        return keep

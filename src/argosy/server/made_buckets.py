"""Buckets that are made for a task, and removed after its end when it does not keep them.

A bucket is removed only when a row says that this server made it for that. The row is written before the
bucket is made, and says that it goes before it goes: a server that is killed in between is followed by one
that knows. Who names the bucket without `persistent: false` meanwhile keeps it for good.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from typing import Final

import msgspec

from argosy.infra.buckets import BY_ITSELF, BucketError, BucketInUse, Encryption, OpensBuckets
from argosy.model.errors import ArgosyError
from argosy.model.ids import Clock, Ids
from argosy.model.kinds import programs_of
from argosy.model.made_buckets import OF, MadeBucket, called
from argosy.model.mounts import url_of
from argosy.model.object_urls import split_url
from argosy.model.rows import Event, Workload
from argosy.server.keeping import Elsewhere
from argosy.storage.bucket_life import is_there, release_bucket
from argosy.store import Conflict, Store
from argosy.store.snapshot import Snapshot

_log: Final = logging.getLogger(__name__)
LAUNCHED_MS: Final = 60_000  # a launch that has just asked for it is a workload by then
UNUSED_MS: Final = 3600_000  # a bucket that was filled, and that nobody launched anything with


class MadeBuckets:
    def __init__(self, store: Store, stores: Callable[[], OpensBuckets], clock: Clock, ids: Ids) -> None:
        self._store, self._stores, self._clock, self._ids = store, stores, clock, ids

    async def ensure(self, url: str, encryption: Encryption = BY_ITSELF, *, passing: bool) -> bool:
        """Make the bucket of a URL when it is missing; whether it was made. `passing`: it goes after the end
        of those that use it. Raises BucketError, and ArgosyError `conflict` while it is being removed."""
        bucket = self._stores().open(url, encryption).bucket
        row = await self._row(bucket.url)
        if row is not None and row.is_going:
            raise ArgosyError(
                "conflict", f"the bucket {bucket.url} is being removed", hint="repeat it in a minute"
            )
        there = await asyncio.to_thread(is_there, bucket)
        if there and row is not None and not passing:
            await self._change(row, removed_ms=self._clock.now_ms())  # it stays: somebody keeps it
        elif there and row is not None:
            await self._change(row, created_ms=self._clock.now_ms(), is_made=True)
        if there:
            return False
        if passing and row is None:
            new = MadeBucket(id=self._ids.new("mbk"), created_ms=self._clock.now_ms(), url=bucket.url)
            [written] = await self._store.commit([new])
            assert isinstance(written, MadeBucket)
            row = written
        try:
            await asyncio.to_thread(bucket.make)
        except BucketError:
            if row is not None:
                await self._change(row, removed_ms=self._clock.now_ms())
            raise
        while row is not None and await self._change(row, is_made=True) is None:
            row = await self._row(bucket.url)
        return True

    async def look(self) -> None:
        """Remove what nobody uses any longer. What fails is tried again by the next look."""
        rows = await self._store.snapshot()
        for entry in rows.entries_of(OF):
            if not isinstance(entry, MadeBucket):
                continue
            users, keepers = _users(rows, entry.url)
            if keepers:
                await self._change(entry, removed_ms=self._clock.now_ms())
                continue
            seen = tuple(sorted({*entry.users, *users}))
            if seen != entry.users:
                entry = await self._change(entry, users=seen) or entry
            live = any((row := rows.workloads.get(user)) is not None and row.is_live for user in seen)
            is_young = self._clock.now_ms() - entry.created_ms < (LAUNCHED_MS if seen else UNUSED_MS)
            if not live and not is_young:
                await self._release(entry)

    async def _release(self, entry: MadeBucket) -> None:
        if not entry.is_going:
            changed = await self._change(entry, is_going=True)  # a launch that names it now is told
            if changed is None:
                return
            entry = changed
        try:
            bucket = self._stores().open(f"{entry.url}/").bucket
        except Elsewhere:
            return  # whoever has it removes it
        try:
            if entry.is_made:
                await asyncio.to_thread(release_bucket, bucket)
            else:
                await asyncio.to_thread(bucket.drop)
        except BucketInUse as error:
            if entry.is_made:  # somebody writes to it: it is emptied again
                _log.info("%s is not removed now: %s", entry.url, error)
                return
            # Whether it is ours was never known, and it is not empty: it stays.
        except (BucketError, OSError) as error:
            _log.info("%s is not removed now: %s", entry.url, error)
            if entry.told != str(error):
                await self._change(entry, told=str(error))
                await self._say(entry, f"the bucket {entry.url} is not removed yet: {error}")
            return
        await self._change(entry, removed_ms=self._clock.now_ms())
        await self._say(entry, f"the bucket {entry.url}, which was made for it, is removed")

    async def _say(self, entry: MadeBucket, text: str) -> None:
        now_ms = self._clock.now_ms()
        events = [Event(at_ms=now_ms, subject=user, code="data", text=text) for user in entry.users]
        await self._store.commit([], events=events)

    async def _row(self, url: str) -> MadeBucket | None:
        found = (await self._store.snapshot()).entry_called(called(url))
        return found if isinstance(found, MadeBucket) else None

    async def _change(self, row: MadeBucket, **fields: object) -> MadeBucket | None:
        """None: another server has changed it meanwhile."""
        try:
            [written] = await self._store.commit([msgspec.structs.replace(row, **fields)])
        except Conflict:
            return None
        assert isinstance(written, MadeBucket)
        return written


def _users(rows: Snapshot, url: str) -> tuple[set[str], bool]:
    """Live workloads that have something of this bucket mounted (a cluster for those that live on it), and
    whether one of them keeps it."""
    users: set[str] = set()
    keepers = False
    for row in rows.workloads.values():
        if not row.is_live:
            continue
        for task in programs_of(row):
            for mount in task.storage_mounts:
                split = split_url(url_of(mount))
                if split is not None and split[0] == url:
                    users.add(_owner(row))
                    keepers = keepers or (mount.persistent and bool(mount.name))
    return users, keepers


def _owner(row: Workload) -> str:
    return row.host_id or row.parent_id or row.id

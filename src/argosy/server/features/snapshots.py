"""Snapshots: made of sessions, shown, removed."""

from __future__ import annotations

import msgspec

from argosy.api.endpoint import Done
from argosy.api.sessions import SnapshotList, SnapshotRequest, SnapshotView
from argosy.server.exchange import Exchange
from argosy.server.guarding import require_over
from argosy.server.services import Services
from argosy.server.sessions import live_session
from argosy.server.snapshots import find_snapshot, free_snapshot_name, removed, seen_snapshots, take, view_of


class SnapshotFeature:
    """Every method raises ArgosyError."""

    def __init__(self, services: Services) -> None:
        self._services, self._store, self._writer = services, services.store, services.writer

    async def snapshot_session(self, exchange: Exchange) -> SnapshotView:
        from argosy.spec.names import check_name

        request = await exchange.decode(SnapshotRequest)
        if request.name:
            check_name("cluster", request.name)
        session = await live_session(self._store, exchange)
        free_snapshot_name(await self._store.snapshot(), session, request.name)
        made = await take(self._services, session, request.name, exchange.caller)

        async def act() -> SnapshotView:
            rows = await self._store.snapshot()
            row = msgspec.structs.replace(made, name=free_snapshot_name(rows, session, request.name))
            told = self._writer.event(session.id, "snapshot", f"its files are kept as `{row.name}`")
            await self._store.commit([row], events=[told])
            return view_of(row)

        return await self._writer.retried(act)

    async def snapshots(self, exchange: Exchange) -> SnapshotList:
        found = seen_snapshots(await self._store.snapshot(), exchange.caller)
        return SnapshotList(snapshots=tuple(map(view_of, sorted(found, key=lambda row: row.name))))

    async def remove_snapshot(self, exchange: Exchange) -> Done:
        async def act() -> Done:
            rows = await self._store.snapshot()
            row = find_snapshot(rows, exchange.path["snapshot"], exchange.caller)
            require_over(exchange.caller, row)
            await self._store.commit([removed(row, self._services.clock.now_ms())])
            return Done(names=(row.name,))

        return await self._writer.retried(act)

"""Events: what happened."""

from __future__ import annotations

from typing import Final

from argosy.api.events import EventList, EventView
from argosy.model.rows import Row, Workload
from argosy.server.exchange import Exchange
from argosy.server.naming import cluster_called, split_name
from argosy.server.services import Services

_LIST_MAX: Final = 10_000


class EventFeature:
    def __init__(self, services: Services) -> None:
        self._store = services.store

    async def events(self, exchange: Exchange) -> EventList:
        subject = exchange.text("subject") or None
        if subject is not None and await self._store.load(subject) is None:  # a name, or nothing at all
            rows, project = await self._store.snapshot(), exchange.caller.project
            cluster = cluster_called(rows, subject, project)
            if cluster is None:
                plain, project = split_name(subject, project)
                cluster = await self._store.find_cluster(plain, project=project, finished=True)
            subject = cluster.id if cluster is not None else subject
        found = await self._store.load_events(
            subject=subject,
            after=exchange.number("after"),
            limit=min(max(exchange.number("limit") or 1000, 1), _LIST_MAX),
        )
        names = {one.subject: "" for one in found}
        for subject_id in names:
            names[subject_id] = await self._name(await self._store.load(subject_id))
        views = (
            EventView(
                seq=one.seq,
                at_ms=one.at_ms,
                subject=one.subject,
                code=one.code,
                text=one.text,
                name=names[one.subject],
            )
            for one in found
        )
        return EventList(events=tuple(views))

    async def _name(self, row: Row | None) -> str:
        """As people write it: a cluster by name, its job by number, a managed job by name."""
        if not isinstance(row, Workload):
            return ""
        host = await self._store.load(row.host_id) if row.host_id is not None else None
        return f"{host.name}/{row.number}" if isinstance(host, Workload) else row.name

"""Events: what happened."""

from __future__ import annotations

import asyncio
from typing import Final

from argosy.api.events import EventList, EventView
from argosy.identity.deciding import Scopes
from argosy.model.rows import Event, Row, Workload
from argosy.server.exchange import Exchange
from argosy.server.guarding import scopes
from argosy.server.naming import cluster_called, split_name
from argosy.server.services import Services

_LIST_MAX: Final = 10_000
_WAIT_MAX_S: Final = 30


class EventFeature:
    def __init__(self, services: Services) -> None:
        self._store, self._streams = services.store, services.streams

    async def events(self, exchange: Exchange) -> EventList:
        subject = exchange.text("subject") or None
        if subject is not None and await self._store.load(subject) is None:  # a name, or nothing at all
            rows, caller = await self._store.snapshot(), exchange.caller
            cluster = cluster_called(rows, subject, caller)
            if cluster is None:
                plain, project = split_name(subject, caller.project)
                cluster = await self._store.find_cluster(plain, project=project, finished=True)
            subject = cluster.id if cluster is not None else subject
        limit = min(max(exchange.number("limit") or 1000, 1), _LIST_MAX)
        after, seen = exchange.number("after"), scopes(exchange.caller)
        wait_s = min(max(exchange.number("wait_s") or 0, 0), _WAIT_MAX_S) if after is not None else 0
        found = await self._news(subject, after, limit, seen, wait_s)
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

    async def _news(
        self, subject: str | None, after: int | None, limit: int, seen: Scopes, wait_s: int
    ) -> list[Event]:
        """A page, or the first that there is within `wait_s` seconds."""
        news = asyncio.Event()
        self._streams.commits.join(news)
        found: list[Event] = []
        try:
            async with asyncio.timeout(wait_s or None):
                while True:
                    news.clear()
                    found = await self._seen(subject, after, limit, seen)
                    if found or not wait_s or self._streams.stopping.is_set():
                        return found
                    await news.wait()
        except TimeoutError:
            return found
        finally:
            self._streams.commits.leave(news)

    async def _seen(self, subject: str | None, after: int | None, limit: int, seen: Scopes) -> list[Event]:
        """A page of what the caller may see. Who sees little reads on behind what is hidden."""
        found: list[Event] = []
        known: dict[str, bool] = {}
        while True:
            page = await self._store.load_events(subject=subject, after=after, limit=limit)
            for one in page:
                if not seen.is_everything and one.subject not in known:
                    known[one.subject] = await self._is_seen(one.subject, seen)
            found += [one for one in page if seen.is_everything or known[one.subject]]
            if after is None or len(page) < limit or len(found) >= limit:
                return found[:limit]
            after = page[-1].seq

    async def _is_seen(self, subject: str, seen: Scopes) -> bool:
        row = await self._store.load(subject)
        if row is not None and not isinstance(row, Workload):
            row = await self._store.load(row.workload_id)
        if isinstance(row, Workload):
            return seen.holds(row.project, row.user)
        return seen.holds(subject)  # what befalls a project as a whole, such as its budget

    async def _name(self, row: Row | None) -> str:
        """As people write it: a cluster by name, its job by number, a managed job by name."""
        if not isinstance(row, Workload):
            return ""
        host = await self._store.load(row.host_id) if row.host_id is not None else None
        return f"{host.name}/{row.number}" if isinstance(host, Workload) else row.name

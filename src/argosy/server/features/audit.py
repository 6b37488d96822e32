"""The audit log: reading and verification."""

from __future__ import annotations

import asyncio
from typing import Final

from argosy.api.audit import AuditPage, AuditVerdict
from argosy.model.audit import first_break
from argosy.server.exchange import Exchange
from argosy.server.services import Services

_LIST_MAX: Final = 10_000
_PAGE: Final = 2000
_END: Final = 1 << 62


class AuditFeature:
    def __init__(self, services: Services) -> None:
        self._store = services.store

    async def audit(self, exchange: Exchange) -> AuditPage:
        limit = min(max(exchange.number("limit") or 100, 1), _LIST_MAX)
        names = ("who", "action", "outcome")
        equal = {name: exchange.text(name) for name in names if exchange.text(name)}
        after = exchange.number("after")
        if after is not None:
            found = await self._store.load_acts(after=after, limit=limit + 1, equal=equal)
            return AuditPage(records=tuple(found[:limit]), more=len(found) > limit)
        before = exchange.number("before") or _END
        found = await self._store.load_acts(before=before, limit=limit + 1, equal=equal)
        return AuditPage(records=tuple(found[-limit:]), more=len(found) > limit)

    async def verify_audit(self, exchange: Exchange) -> AuditVerdict:
        """In pages, between which others write; what they add is proved, too."""
        (seq, prev), _ = await self._store.audit_ends()
        first, rows, broken = seq + 1, 0, ""
        while not broken:
            page = await self._store.load_acts(after=seq, limit=_PAGE)
            if not page:
                break
            broken = await asyncio.to_thread(first_break, page, seq=seq, prev=prev)
            rows += len(page)
            seq, prev = page[-1].seq, page[-1].hash
        return AuditVerdict(rows=rows, first=first, last=seq, head=prev, broken=broken)

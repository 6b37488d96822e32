"""Events: what happened."""

from __future__ import annotations

from typing import Annotated

from argosy.api.endpoint import Reply, endpoint


class EventView(Reply, frozen=True, kw_only=True, omit_defaults=True):
    seq: int
    at_ms: int
    subject: str
    code: str
    text: str


class EventList(Reply, frozen=True, kw_only=True, omit_defaults=True):
    events: tuple[EventView, ...]


class EventCalls:
    @endpoint("GET", "/events")
    def events(
        self,
        subject: Annotated[str | None, "only of this id or name"] = None,
        *,
        after: Annotated[int | None, "only later ones"] = None,
        limit: Annotated[int | None, "at most"] = None,
    ) -> EventList:
        """What happened."""

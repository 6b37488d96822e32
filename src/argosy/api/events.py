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
    name: str = ""  # of the subject: `dev`, or `dev/3` for a job of a cluster; "": as the id


class EventList(Reply, frozen=True, kw_only=True, omit_defaults=True):
    events: tuple[EventView, ...]


class EventCalls:
    @endpoint("GET", "/events", permission="events.read")
    def events(
        self,
        subject: Annotated[str | None, "only of this id or name"] = None,
        *,
        after: Annotated[int | None, "only later ones, oldest first; left out: the newest"] = None,
        limit: Annotated[int | None, "at most so many (default 1000)"] = None,
        wait_s: Annotated[int | None, "with `after`: until there is one, up to 30"] = None,
    ) -> EventList:
        """What happened, in the order in which it did. Whoever asks again with `after` and `wait_s` has a
        stream of news and polls nothing."""

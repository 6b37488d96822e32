"""Audit entries of requests that change no row or are denied; changes of rows record themselves.

While a request runs, `store.acting.ACTING` says who acts: every commit of the request writes the record of
its rows in the same transaction.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import TYPE_CHECKING, Final

import msgspec

from argosy.api.endpoint import AnyEndpoint
from argosy.model.access import OPEN, PERMISSIONS, SIGNED_IN, Caller
from argosy.model.ids import Clock, Ids
from argosy.server.exchange import Send
from argosy.store.acting import ACTING, Acting
from argosy.store.store import Store

if TYPE_CHECKING:
    from argosy.model.audit import Act

#: Uploads mean nothing until a launch names them.
_QUIET: Final = frozenset(("files.write", OPEN))


def who_is(caller: Caller) -> str:
    """As the audit log calls them."""
    if caller.name:
        return caller.name
    return {"socket": "owner", "token": f"token {caller.credential}"}.get(caller.via, "nobody")


class Recorder:
    """Writes acts of requests."""

    def __init__(self, store: Store, clock: Clock, ids: Ids) -> None:
        self._store, self._clock, self._ids = store, clock, ids

    def act(self, caller: Caller, endpoint: AnyEndpoint, target: str = "", outcome: str = "done") -> Act:
        from argosy.model.audit import Act  # not before somebody changes something

        return Act(
            at_ms=self._clock.now_ms(),
            who=who_is(caller),
            via=caller.via,
            credential=caller.credential,
            address=caller.address,
            action=endpoint.name,
            target=target,
            outcome=outcome,
            request=self._ids.new("req"),
        )

    @contextlib.contextmanager
    def acting(self, caller: Caller, endpoint: AnyEndpoint) -> Iterator[Acting | None]:
        """While it lasts, commits of this task record `caller`; None: the endpoint only reads."""
        if endpoint.method == "GET" or is_reading(endpoint):
            yield None
            return
        acting = Acting(self.act(caller, endpoint))
        token = ACTING.set(acting)
        try:
            yield acting
        finally:
            ACTING.reset(token)

    async def done(self, acting: Acting, endpoint: AnyEndpoint, path: dict[str, str]) -> None:
        """What changed something outside of the database."""
        if acting.written or endpoint.permission in _QUIET:
            return
        await self._store.commit(acts=[msgspec.structs.replace(acting.act, target=_words(path))])

    async def denied(self, caller: Caller, endpoint: AnyEndpoint, path: dict[str, str]) -> None:
        await self._store.commit(acts=[self.act(caller, endpoint, _words(path), "denied")])

    def opening(self, caller: Caller, endpoint: AnyEndpoint, path: dict[str, str], send: Send) -> Send:
        """`send` that writes down a WebSocket before it is accepted: no record, no terminal."""

        async def recorded(message: dict[str, object]) -> None:
            if message["type"] == "websocket.accept":
                await self._store.commit(acts=[self.act(caller, endpoint, _words(path))])
            await send(message)

        return recorded  # type: ignore[return-value]  # a message is a dict


def is_reading(endpoint: AnyEndpoint) -> bool:
    if endpoint.permission in (OPEN, SIGNED_IN):
        return False
    return endpoint.permission in PERMISSIONS and endpoint.permission.endswith(".read")


def _words(path: dict[str, str]) -> str:
    return ", ".join(path.values())

"""HTTP challenges of a certificate authority: kept in the database, so that whichever server is asked can
answer; and the plain HTTP beside TLS, which answers nothing else."""

from __future__ import annotations

from typing import Final

import msgspec

from argosy.identity.credentials import digest
from argosy.infra.acme import HTTP_PATH, Proof
from argosy.model.ids import Clock, Ids
from argosy.model.people import OneTime
from argosy.server.exchange import Receive, Scope, Send
from argosy.store.store import Store

_KEPT_MS: Final = 10 * 60_000  # a proof is asked for at once, or not at all
_PURPOSE: Final = "acme"


class StoredProofs:
    """Proofs over plain HTTP (`infra.acme.Solver`), which all servers of a database answer."""

    kind = "http-01"

    def __init__(self, store: Store, clock: Clock, ids: Ids) -> None:
        self._store, self._clock, self._ids = store, clock, ids

    async def show(self, proof: Proof) -> None:
        now_ms = self._clock.now_ms()
        entry = OneTime(
            id=self._ids.new("cod"),
            created_ms=now_ms,
            purpose=_PURPOSE,
            sha256=digest(proof.token),
            expires_ms=now_ms + _KEPT_MS,
            told={"text": proof.text},
        )
        await self._store.commit([entry])

    async def hide(self, proof: Proof) -> None:
        found = await self._find(proof.token)
        if found is not None:
            await self._store.commit([msgspec.structs.replace(found, removed_ms=self._clock.now_ms())])

    async def answer(self, path: str) -> str | None:
        """What a GET of `path` is answered; None: it is no proof that is asked for now."""
        found = await self._find(path.removeprefix(HTTP_PATH)) if path.startswith(HTTP_PATH) else None
        return found.told["text"] if found is not None else None

    async def _find(self, token: str) -> OneTime | None:
        entry = (await self._store.recent(0)).entry_called(f"code:{digest(token)}")
        return entry if isinstance(entry, OneTime) and entry.purpose == _PURPOSE else None


class PlainHttp:
    """An ASGI application: proofs, and everybody else is sent to `home`."""

    def __init__(self, proofs: StoredProofs, home: str) -> None:
        self._proofs, self._home = proofs, home

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            return
        text = await self._proofs.answer(scope["path"])
        body = (text or f"{self._home}\n").encode()
        headers = [(b"content-type", b"text/plain"), (b"content-length", str(len(body)).encode())]
        if text is None:
            headers.append((b"location", self._home.encode()))
        status = 308 if text is None else 200
        await send({"type": "http.response.start", "status": status, "headers": headers})
        await send({"type": "http.response.body", "body": body})

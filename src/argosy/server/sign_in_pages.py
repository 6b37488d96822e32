"""`/login/sso`: to the identity provider and back. The only pages that a browser opens by itself.

GET /login/sso                    to the provider; `?port=&proof=` for a command line that waits here
GET /login/sso/callback           back from it: a cookie, or a code for that command line
"""

from __future__ import annotations

import logging
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Final
from urllib.parse import parse_qsl, urlencode

from argosy.identity.id_tokens import Refused
from argosy.identity.oidc import Answer, RelyingParty, Settings
from argosy.identity.single_sign_on import STARTED_MS, SingleSignOn
from argosy.infra.web_asking import ask
from argosy.model.access import NOBODY
from argosy.model.audit import Act
from argosy.model.errors import ArgosyError
from argosy.model.ids import Clock, Ids
from argosy.model.people import SignIn
from argosy.server.door_rules import set_cookie
from argosy.server.exchange import Scope, Send
from argosy.server.identity import Identity
from argosy.store.acting import ACTING, Acting
from argosy.store.store import Store

_log: Final = logging.getLogger(__name__)
PATH: Final = "/login/sso"
_COOKIE: Final = "__Host-argosy-sso"
_PORT: Final = re.compile(r"[1-9][0-9]{3,4}")
_PROOF: Final = re.compile(r"[0-9a-f]{64}")


class SignInPages:
    """Answers below `PATH`; without a provider it says that there is none."""

    def __init__(
        self, settings: Settings | None, store: Store, clock: Clock, ids: Ids, identity: Identity
    ) -> None:
        self._store, self._clock, self._ids = store, clock, ids
        self._sso: SingleSignOn | None = None
        if settings is not None:
            party = RelyingParty(settings, fetch)
            self._sso = SingleSignOn(party, store, clock, ids, identity.credentials)

    async def answer(self, scope: Scope, send: Send) -> None:
        """One request of a browser. The door has looked at its host and method already."""
        path, query = scope["path"], dict(parse_qsl(scope["query_string"].decode("latin-1")))
        token = ACTING.set(Acting(self._act(scope)))
        try:
            if self._sso is None:
                raise Refused("none", "this server has no identity provider")
            if path == PATH and scope["method"] == "GET":
                await self._begin(self._sso, query, send)
            elif path == f"{PATH}/callback" and scope["method"] == "GET":
                await self._finish(self._sso, scope, query, send)
            else:
                raise Refused("no-page", "there is no such page")
        except Refused as refused:
            _log.warning("a sign-in was refused: %s (%s)", refused.what, refused.code)
            act = self._act(scope, outcome="denied", target=refused.code)
            await self._store.commit(acts=[act])
            text = f"Signing in did not work: {refused.what}.\n"
            await _reply(
                send, 403, [(b"content-type", b"text/plain; charset=utf-8"), _forget()], text.encode()
            )
        finally:
            ACTING.reset(token)

    async def _begin(self, sso: SingleSignOn, query: Mapping[str, str], send: Send) -> None:
        port, proof = query.get("port", ""), query.get("proof", "")
        if port and not (_PORT.fullmatch(port) and int(port) < 65536 and _PROOF.fullmatch(proof)):
            raise Refused("bad-request", "the command line sent an invalid request")
        secret, address = await sso.begin(port=int(port or 0), proof=proof)
        kept = f"{_COOKIE}={secret}; Path=/; Secure; HttpOnly; SameSite=Lax; Max-Age={STARTED_MS // 1000}"
        await _reply(send, 302, [(b"location", address.encode()), (b"set-cookie", kept.encode())])

    async def _finish(self, sso: SingleSignOn, scope: Scope, query: Mapping[str, str], send: Send) -> None:
        secret = _cookie(scope)
        if not secret:
            raise Refused("cookie-missing", "this browser did not begin the sign-in, or took too long")
        came = await sso.finish(
            secret, query, address=str(scope.get("argosy.address", "")), agent=_header(scope, b"user-agent")
        )
        if came.made is None:  # only ever to this machine's loopback: a port is a number
            place = f"http://127.0.0.1:{came.port}/?{urlencode({'code': came.code})}"
            await _reply(send, 303, [(b"location", place.encode()), _forget()])
            return
        assert isinstance(came.made.entry, SignIn)
        left_s = (came.made.entry.expires_ms - self._clock.now_ms()) // 1000
        cookie = (b"set-cookie", set_cookie(came.made.secret, left_s))
        await _reply(send, 303, [(b"location", b"/"), _forget(), cookie])

    def _act(self, scope: Scope, outcome: str = "done", target: str = "") -> Act:
        return Act(
            at_ms=self._clock.now_ms(),
            who="nobody",
            via=NOBODY.via,
            address=str(scope.get("argosy.address", "")),
            action="login_sso",
            target=target,
            outcome=outcome,
            request=self._ids.new("req"),
        )


async def fetch(url: str, *, form: Mapping[str, str] | None = None, bearer: str = "", limit: int) -> Answer:
    """`identity.oidc.Fetch` over the network."""
    headers = {"accept": "application/json"} | ({"authorization": f"Bearer {bearer}"} if bearer else {})
    body = urlencode(form).encode() if form is not None else None
    heard = await ask("GET" if body is None else "POST", url, headers=headers, body=body, limit=limit)
    return Answer(heard.status, heard.body)


def parse_provider(environ: Mapping[str, str]) -> Settings | None:
    """From ARGOSY_OIDC_ISSUER, _CLIENT_ID, _CLIENT_SECRET_FILE, _SCOPES, _GROUPS_CLAIM, _LINK_EMAIL and
    ARGOSY_PUBLIC_URL. Raises ArgosyError `usage`."""
    issuer = environ.get("ARGOSY_OIDC_ISSUER", "")
    if not issuer:
        return None
    public, client_id = (
        environ.get("ARGOSY_PUBLIC_URL", "").rstrip("/"),
        environ.get("ARGOSY_OIDC_CLIENT_ID", ""),
    )
    if not public or not client_id:
        raise ArgosyError(
            "usage",
            "ARGOSY_OIDC_ISSUER needs ARGOSY_OIDC_CLIENT_ID and ARGOSY_PUBLIC_URL",
            hint="set both; the provider sends browsers back to the public address",
        )
    file, secret = environ.get("ARGOSY_OIDC_CLIENT_SECRET_FILE", ""), ""
    if file:
        try:
            secret = Path(file).read_text().strip()
        except OSError as error:
            raise ArgosyError("usage", f"cannot read {file}: {error.strerror}") from None
    defaults = Settings(issuer=issuer, client_id=client_id)
    return Settings(
        issuer=issuer,
        client_id=client_id,
        client_secret=secret,
        redirect_uri=f"{public}{PATH}/callback",
        scopes=environ.get("ARGOSY_OIDC_SCOPES", "") or defaults.scopes,
        groups_claim=environ.get("ARGOSY_OIDC_GROUPS_CLAIM", "") or defaults.groups_claim,
        link_email=environ.get("ARGOSY_OIDC_LINK_EMAIL", "") == "1",
    )


async def _reply(send: Send, status: int, headers: list[tuple[bytes, bytes]], body: bytes = b"") -> None:
    headers = [*headers, (b"content-length", str(len(body)).encode())]
    await send({"type": "http.response.start", "status": status, "headers": headers})
    await send({"type": "http.response.body", "body": body})


def _forget() -> tuple[bytes, bytes]:
    return (b"set-cookie", f"{_COOKIE}=; Path=/; Secure; HttpOnly; SameSite=Lax; Max-Age=0".encode())


def _header(scope: Scope, name: bytes) -> str:
    found = next((value for key, value in scope["headers"] if key == name), b"")
    return bytes(found).decode("latin-1")


def _cookie(scope: Scope) -> str:
    parts = (part.strip().partition("=") for part in _header(scope, b"cookie").split(";"))
    found = [value for name, _, value in parts if name == _COOKIE]
    return found[0] if len(found) == 1 else ""

"""Signing in, and the credentials that come of it."""

from __future__ import annotations

from typing import Final

from argosy.api.endpoint import Done
from argosy.api.people import (
    CodeReply,
    CodeRequest,
    CodeWish,
    DeviceAnswer,
    DeviceConfirm,
    DeviceReply,
    DeviceRequest,
    DeviceWait,
    LoginReply,
    LoginRequest,
    SignInView,
    TokenList,
    TokenReply,
    TokenRequest,
    TokenView,
    WaitingDevice,
)
from argosy.identity.tokens import Made, sign_ins_of, tokens_of
from argosy.model.access import Caller
from argosy.model.errors import ArgosyError
from argosy.model.people import AccessToken, SignIn, User
from argosy.server.door_rules import set_cookie
from argosy.server.exchange import Exchange
from argosy.server.services import Services

_AGENT: Final = b"user-agent"


class SigningInFeature:
    def __init__(self, services: Services) -> None:
        self._store, self._clock = services.store, services.clock
        self._identity, self._credentials = services.identity, services.identity.credentials

    # -- tokens -------------------------------------------------------------------------------------

    async def tokens(self, exchange: Exchange) -> TokenList:
        rows, caller = await self._store.snapshot(), exchange.caller
        owner = self._credentials.owner(rows, caller, exchange.text("user"))
        tokens, sign_ins = tokens_of(rows, owner), sign_ins_of(rows, owner)
        used = await self._identity.uses.of([each.id for each in (*tokens, *sign_ins)])
        directory, now_ms = self._identity.directory, self._clock.now_ms()
        return TokenList(
            tokens=tuple(
                _view_token(
                    each, owner, used.get(each.id, 0), directory.user_of(rows, each, now_ms) is not None
                )
                for each in tokens
            ),
            sign_ins=tuple(
                _view_sign_in(each, owner, used.get(each.id, 0), caller)
                for each in sign_ins
                if directory.user_of(rows, each, now_ms) is not None
            ),
        )

    async def add_token(self, exchange: Exchange) -> TokenReply:
        from argosy.spec.names import check_name

        request, caller = await exchange.decode(TokenRequest), exchange.caller
        made = await self._credentials.add_token(
            caller,
            name=check_name("token", request.name),
            user=request.user,
            days=request.days,
            permissions=request.permissions,
            projects=tuple(check_name("project", each) for each in request.projects),
        )
        assert isinstance(made.entry, AccessToken)
        owner = self._credentials.owner(await self._store.snapshot(), caller, request.user)
        return TokenReply(token=_view_token(made.entry, owner, 0, True), secret=made.secret)

    async def remove_token(self, exchange: Exchange) -> Done:
        name, user = exchange.path["token"], exchange.text("user")
        rows = await self._store.snapshot()
        if name == "all" or isinstance(rows.people.get(name), SignIn):
            await self._credentials.end_sign_in(exchange.caller, "" if name == "all" else name, user)
            return Done(names=(name,))
        gone = await self._credentials.remove_token(exchange.caller, name, user)
        return Done(names=(gone.name,))

    # -- signing in ---------------------------------------------------------------------------------

    async def login(self, exchange: Exchange) -> LoginReply:
        request = await exchange.decode(LoginRequest)
        user, made = await self._identity.signing_in.by_password(
            request.user,
            request.password,
            request.code,
            client=_client(request.client),
            address=exchange.caller.address,
            agent=_agent(exchange),
        )
        return self._signed_in(exchange, user, made)

    async def logout(self, exchange: Exchange) -> Done:
        caller = exchange.caller
        if caller.via == "session":
            await self._credentials.end_sign_in(caller, caller.credential)
        exchange.headers.append((b"set-cookie", set_cookie("", 0)))
        return Done(names=(caller.name,) if caller.name else ())

    async def login_device(self, exchange: Exchange) -> DeviceReply:
        request = await exchange.decode(DeviceRequest)
        device = await self._identity.signing_in.begin_device(
            host=request.host, address=exchange.caller.address
        )
        return DeviceReply(secret=device.secret, code=device.short, expires_ms=device.expires_ms)

    async def login_device_wait(self, exchange: Exchange) -> DeviceAnswer:
        request = await exchange.decode(DeviceWait)
        done = await self._identity.signing_in.finish_device(
            request.secret, address=exchange.caller.address, agent=_agent(exchange)
        )
        return DeviceAnswer(login=None if done is None else self._signed_in(exchange, *done))

    async def login_device_confirm(self, exchange: Exchange) -> WaitingDevice:
        request, signing_in = await exchange.decode(DeviceConfirm), self._identity.signing_in
        act = signing_in.waiting_device if request.look else signing_in.confirm_device
        entry = await act(exchange.caller, request.code)
        return WaitingDevice(
            host=entry.told.get("host", ""),
            address=entry.told.get("address", ""),
            confirmed=bool(entry.user_id),
        )

    async def login_code(self, exchange: Exchange) -> LoginReply:
        request = await exchange.decode(CodeRequest)
        user, made = await self._identity.signing_in.by_code(
            request.code,
            purpose="loopback" if request.proof else "code",
            proof=request.proof,
            client=_client(request.client),
            address=exchange.caller.address,
            agent=_agent(exchange),
        )
        return self._signed_in(exchange, user, made)

    async def make_login_code(self, exchange: Exchange) -> CodeReply:
        request = await exchange.decode(CodeWish)
        return CodeReply(code=await self._identity.signing_in.begin_local(exchange.caller, request.user))

    def _signed_in(self, exchange: Exchange, user: User, made: Made) -> LoginReply:
        """A cookie for a browser, the token for a command line."""
        assert isinstance(made.entry, SignIn)
        is_browser = made.entry.client == "browser"
        if is_browser:
            left_s = (made.entry.expires_ms - self._clock.now_ms()) // 1000
            exchange.headers.append((b"set-cookie", set_cookie(made.secret, left_s)))
        return LoginReply(
            user=user.name,
            expires_ms=made.entry.expires_ms,
            token="" if is_browser else made.secret,
            must_change_password=user.must_change,
        )


def _client(said: str) -> str:
    if said not in ("browser", "cli"):
        raise ArgosyError("usage", f"`client` is `browser` or `cli`, not `{said[:20]}`")
    return said


def _agent(exchange: Exchange) -> str:
    found = next((value for name, value in exchange.scope["headers"] if name == _AGENT), b"")
    return bytes(found).decode("latin-1")


def _view_token(token: AccessToken, owner: User, used_ms: int, is_good: bool) -> TokenView:
    return TokenView(
        id=token.id,
        name=token.name,
        user=owner.name,
        permissions=token.permissions,
        projects=token.projects,
        created_ms=token.created_ms,
        expires_ms=token.expires_ms,
        used_ms=used_ms,
        is_good=is_good,
    )


def _view_sign_in(entry: SignIn, owner: User, used_ms: int, caller: Caller) -> SignInView:
    return SignInView(
        id=entry.id,
        user=owner.name,
        client=entry.client,
        method=entry.method,
        address=entry.address,
        agent=entry.agent,
        created_ms=entry.created_ms,
        expires_ms=entry.expires_ms,
        used_ms=used_ms,
        is_this=entry.id == caller.credential,
    )

"""Accounts, projects, roles and tokens; and signing in."""

from __future__ import annotations

import os
from collections.abc import Iterable
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
    DeviceView,
    DeviceWait,
    LoginReply,
    LoginRequest,
    MemberList,
    MemberRequest,
    PasswordRequest,
    ProjectList,
    ProjectRequest,
    ProjectView,
    RoleHeld,
    RoleList,
    RoleRequest,
    RoleView,
    SecondFactorReply,
    SecondFactorRequest,
    SignInView,
    TokenList,
    TokenReply,
    TokenRequest,
    TokenView,
    UserChange,
    UserList,
    UserRequest,
    UserView,
    WhoReply,
)
from argosy.identity.deciding import may, visible
from argosy.identity.directory import bindings_of, user_called
from argosy.identity.one_time_codes import address_of
from argosy.identity.rights import check_not_above
from argosy.identity.roles import BUILT_IN
from argosy.identity.tokens import Made, sign_ins_of, tokens_of
from argosy.model.access import PERMISSIONS, Caller, Target
from argosy.model.errors import ArgosyError
from argosy.model.people import AccessToken, Binding, Organisation, OwnRole, Project, SignIn, User
from argosy.server.door_rules import set_cookie
from argosy.server.exchange import Exchange
from argosy.server.recording import who_is
from argosy.server.services import Services
from argosy.store.snapshot import Snapshot

_AGENT: Final = b"user-agent"


class PeopleFeature:
    def __init__(self, services: Services) -> None:
        self._store, self._clock = services.store, services.clock
        self._identity = services.identity
        self._people, self._credentials = services.identity.people, services.identity.credentials

    async def whoami(self, exchange: Exchange) -> WhoReply:
        caller, rows = exchange.caller, await self._store.snapshot()
        user = rows.people.get(caller.id)
        held = tuple(_held(rows, bindings_of(rows, user))) if isinstance(user, User) else ()
        return WhoReply(
            name=who_is(caller),
            via=caller.via,
            user_id=caller.id,
            full_name=user.full_name if isinstance(user, User) else "",
            roles=held,
            permissions=tuple(name for name in PERMISSIONS if visible(caller, name)),
            projects=tuple(sorted({each.project for each in held if each.project})),
            credential=caller.credential,
            must_change_password=isinstance(user, User) and user.must_change,
        )

    # -- accounts -----------------------------------------------------------------------------------

    async def users(self, exchange: Exchange) -> UserList:
        rows = await self._store.snapshot()
        found = [each for each in rows.people.values() if isinstance(each, User)]
        found.sort(key=lambda each: each.name)
        return UserList(users=tuple(_view_user(rows, each, exchange.caller) for each in found))

    async def add_user(self, exchange: Exchange) -> UserView:
        from argosy.spec.names import check_name

        request = await exchange.decode(UserRequest)
        user = await self._people.add_user(
            exchange.caller,
            name=check_name("user", request.name),
            full_name=request.full_name,
            email=request.email,
            is_service=request.is_service,
            password=request.password,
        )
        return _view_user(await self._store.snapshot(), user, exchange.caller)

    async def change_user(self, exchange: Exchange) -> UserView:
        request, caller = await exchange.decode(UserChange), exchange.caller
        name = exchange.path["user"]
        user = await self._people.change_user(
            caller, name, full_name=request.full_name, email=request.email, is_disabled=request.is_disabled
        )
        rows = await self._store.snapshot()
        if request.drop_second_factor and user.second_factor:
            check_not_above(self._identity.directory, rows, caller, user)
            user = await self._identity.signing_in.drop_second_factor(user)
        return _view_user(rows, user, caller)

    async def remove_user(self, exchange: Exchange) -> Done:
        user = await self._people.remove_user(exchange.caller, exchange.path["user"])
        return Done(names=(user.name,))

    async def set_password(self, exchange: Exchange) -> Done:
        request = await exchange.decode(PasswordRequest)
        caller = exchange.caller
        if not request.user and not caller.id:
            raise ArgosyError("usage", "whose password? You have no account here", hint="name a user")
        key = f"password of {caller.id}"
        attempts, now_ms = self._identity.signing_in.attempts, self._clock.now_ms()
        attempts.check(key, "", now_ms)
        try:
            user = await self._people.set_password(caller, request.user, request.password, old=request.old)
        except ArgosyError as error:
            if error.code == "unauthorized":
                attempts.note_wrong(key, "", now_ms)
            raise
        return Done(names=(user.name,))

    async def second_factor(self, exchange: Exchange) -> SecondFactorReply:
        request, signing_in = await exchange.decode(SecondFactorRequest), self._identity.signing_in
        if request.code:
            await signing_in.confirm_second_factor(exchange.caller, request.code)
            return SecondFactorReply(is_on=True)
        user, key = await signing_in.begin_second_factor(exchange.caller, os.urandom(20))
        return SecondFactorReply(key=key, address=address_of(key, user.name), is_on=bool(user.second_factor))

    # -- projects and roles -------------------------------------------------------------------------

    async def projects(self, exchange: Exchange) -> ProjectList:
        """Those in which the caller may see something."""
        rows, seen = await self._store.snapshot(), visible(exchange.caller, "clusters.read")
        entries = list(rows.people.values())
        mine = [
            each
            for each in entries
            if isinstance(each, Project)
            and (seen.holds(each.name) or (seen.own is not None and each.name in seen.own))
        ]
        views = [
            ProjectView(
                name=each.name, organisation=each.organisation, about=each.about, created_ms=each.created_ms
            )
            for each in sorted(mine, key=lambda each: (each.organisation, each.name))
        ]
        named = {each.organisation for each in mine}
        organisations = [
            each.name
            for each in entries
            if isinstance(each, Organisation) and (seen.is_everything or each.name in named)
        ]
        return ProjectList(projects=tuple(views), organisations=tuple(sorted(organisations)))

    async def add_project(self, exchange: Exchange) -> Done:
        from argosy.spec.names import check_name

        request = await exchange.decode(ProjectRequest)
        name = check_name("project", request.name)
        if request.is_organisation:
            await self._people.add_organisation(exchange.caller, name=name, about=request.about)
        else:
            await self._people.add_project(
                exchange.caller, name=name, organisation=request.organisation, about=request.about
            )
        return Done(names=(name,))

    async def remove_project(self, exchange: Exchange) -> Done:
        gone = await self._people.remove_project(exchange.caller, exchange.path["project"])
        return Done(names=(gone.name,))

    async def roles(self, exchange: Exchange) -> RoleList:
        rows = await self._store.snapshot()
        built_in = [
            RoleView(
                name=role.name,
                about=role.about,
                permissions=tuple(sorted(role.permissions)),
                own=tuple(sorted(role.own)),
                is_built_in=True,
            )
            for role in BUILT_IN.values()
        ]
        own = [_view_role(each) for each in rows.people.values() if isinstance(each, OwnRole)]
        return RoleList(roles=(*built_in, *sorted(own, key=lambda each: each.name)))

    async def add_role(self, exchange: Exchange) -> RoleView:
        from argosy.spec.names import check_name

        request = await exchange.decode(RoleRequest)
        role = await self._people.add_role(
            exchange.caller,
            name=check_name("role", request.name),
            permissions=request.permissions,
            own=request.own,
            about=request.about,
        )
        return _view_role(role)

    async def remove_role(self, exchange: Exchange) -> Done:
        gone = await self._people.remove_role(exchange.caller, exchange.path["role"])
        return Done(names=(gone.name,))

    async def members(self, exchange: Exchange) -> MemberList:
        rows, project = await self._store.snapshot(), exchange.text("project")
        seen = visible(exchange.caller, "members.read")
        found = [
            each
            for each in rows.people.values()
            if isinstance(each, Binding)
            and (seen.is_everything or (each.project and seen.holds(each.project)))
            and project in ("", each.project)
        ]
        held = sorted(_held(rows, found), key=lambda each: (each.project, each.user, each.role))
        return MemberList(members=tuple(held))

    async def set_member(self, exchange: Exchange) -> Done:
        request = await exchange.decode(MemberRequest)
        change = self._people.take_role if request.remove else self._people.give_role
        await change(
            exchange.caller,
            subject=request.user,
            role=request.role,
            project=request.project,
            organisation=request.organisation,
        )
        return Done(names=(request.user,))

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

    async def login_device_confirm(self, exchange: Exchange) -> DeviceView:
        request, signing_in = await exchange.decode(DeviceConfirm), self._identity.signing_in
        act = signing_in.waiting_device if request.look else signing_in.confirm_device
        entry = await act(exchange.caller, request.code)
        return DeviceView(
            host=entry.told.get("host", ""),
            address=entry.told.get("address", ""),
            confirmed=bool(entry.user_id),
        )

    async def login_code(self, exchange: Exchange) -> LoginReply:
        request = await exchange.decode(CodeRequest)
        user, made = await self._identity.signing_in.by_code(
            request.code,
            purpose="local",
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


def _held(rows: Snapshot, bindings: Iterable[Binding]) -> Iterable[RoleHeld]:
    for each in bindings:
        user = user_called(rows, each.subject)
        yield RoleHeld(
            role=each.role,
            project=each.project,
            organisation=each.organisation,
            user=user.name if user is not None else each.subject,
        )


def _view_user(rows: Snapshot, user: User, caller: Caller) -> UserView:
    """Names for everybody; more for who administers accounts."""
    if not may(caller, "users.write", Target()) and caller.id != user.id:
        return UserView(id=user.id, name=user.name, full_name=user.full_name, is_service=user.is_service)
    return UserView(
        id=user.id,
        name=user.name,
        full_name=user.full_name,
        email=user.email,
        is_service=user.is_service,
        is_disabled=user.is_disabled,
        has_password=bool(user.password),
        has_second_factor=bool(user.second_factor),
        created_ms=user.created_ms,
        roles=tuple(_held(rows, bindings_of(rows, user))),
    )


def _view_role(role: OwnRole) -> RoleView:
    return RoleView(name=role.name, about=role.about, permissions=role.permissions, own=role.own)


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

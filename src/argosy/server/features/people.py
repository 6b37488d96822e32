"""Accounts, projects, roles and tokens; and signing in."""

from __future__ import annotations

from collections.abc import Iterable

from argosy.api.endpoint import Done
from argosy.api.people import (
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
from argosy.infra.system import random_bytes
from argosy.model.access import PERMISSIONS, Caller, Target
from argosy.model.errors import ArgosyError
from argosy.model.people import Binding, Organisation, OwnRole, Project, User
from argosy.server.exchange import Exchange
from argosy.server.recording import who_is
from argosy.server.services import Services
from argosy.store.snapshot import Snapshot


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
        with attempts.one(await self._store.snapshot(), key, "", now_ms):
            try:
                user = await self._people.set_password(
                    caller, request.user, request.password, old=request.old
                )
            except ArgosyError as error:
                if error.code == "unauthorized":
                    await attempts.note_wrong(key, "", now_ms)
                raise
        return Done(names=(user.name,))

    async def second_factor(self, exchange: Exchange) -> SecondFactorReply:
        request, signing_in = await exchange.decode(SecondFactorRequest), self._identity.signing_in
        if request.code:
            await signing_in.confirm_second_factor(exchange.caller, request.code)
            return SecondFactorReply(is_on=True)
        user, key = await signing_in.begin_second_factor(exchange.caller, random_bytes(20))
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

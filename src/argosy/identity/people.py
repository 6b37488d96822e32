"""Accounts, organisations, projects and roles: changes, each as one commit.

Every method takes who asks, and raises `forbidden`, `not-found`, `conflict` or `usage`.
"""

from __future__ import annotations

from typing import Final, TypeVar

import msgspec

from argosy.identity.directory import GROUP, Directory, user_called
from argosy.identity.passwords import Passwords, check_password
from argosy.identity.rights import (
    beyond,
    check_binding,
    check_last_owner,
    check_new_role,
    check_not_above,
    require,
)
from argosy.identity.roles import expand
from argosy.model.access import Caller, Grant
from argosy.model.errors import ArgosyError
from argosy.model.ids import Clock, Ids
from argosy.model.people import AnyEntry, Binding, Organisation, OwnRole, Project, User
from argosy.store.errors import Conflict
from argosy.store.snapshot import Snapshot
from argosy.store.store import Store

E = TypeVar("E", bound=AnyEntry)

DEFAULT: Final = "default"  # a project that is always there


class People:
    """What is done to accounts, projects and roles."""

    def __init__(
        self, store: Store, clock: Clock, ids: Ids, directory: Directory, passwords: Passwords
    ) -> None:
        self._store, self._clock, self._ids = store, clock, ids
        self._directory, self._passwords = directory, passwords

    # -- accounts -----------------------------------------------------------------------------------

    async def add_user(
        self,
        caller: Caller,
        *,
        name: str,
        full_name: str = "",
        email: str = "",
        is_service: bool = False,
        password: str = "",
    ) -> User:
        """A new account; without a password it cannot sign in by one."""
        require(caller, "users.write")
        rows = await self._store.snapshot()
        if rows.entry_called(f"user:{name}") is not None or name in ("owner", "root"):
            raise _taken("user", name)
        if password:
            check_password(password, name)
        kept = await self._passwords.hashed(password) if password and not is_service else ""
        user = User(
            id=self._ids.new("sva" if is_service else "usr"),
            created_ms=self._clock.now_ms(),
            name=name,
            full_name=full_name,
            email=email,
            is_service=is_service,
            password=kept,
            must_change=bool(kept),
        )
        return await self._add(user, "user", name)

    async def change_user(
        self,
        caller: Caller,
        name: str,
        *,
        full_name: str | None = None,
        email: str | None = None,
        is_disabled: bool | None = None,
    ) -> User:
        """Disabling ends every credential of the account at once."""
        require(caller, "users.write")
        rows = await self._store.snapshot()
        user = self._user(rows, name)
        check_not_above(self._directory, rows, caller, user)
        changes: dict[str, object] = {}
        if full_name is not None:
            changes["full_name"] = full_name
        if email is not None:
            changes["email"] = email
        if is_disabled is not None and is_disabled != user.is_disabled:
            check_last_owner(rows, user, leaves=is_disabled)
            changes |= {"is_disabled": is_disabled, "generation": user.generation + 1}
        if not changes:
            return user
        [changed] = await self._store.commit([msgspec.structs.replace(user, **changes)])
        return changed

    async def remove_user(self, caller: Caller, name: str) -> User:
        """With roles, tokens and sign-ins. The name is never given again: what they made stays theirs."""
        require(caller, "users.write")
        rows = await self._store.snapshot()
        user = self._user(rows, name)
        check_not_above(self._directory, rows, caller, user)
        check_last_owner(rows, user, leaves=True)
        await self._store.commit(self._all_removed(user, *rows.entries_of(user.id)))
        return user

    async def set_password(self, caller: Caller, name: str, password: str, *, old: str = "") -> User:
        """One's own with the old one; somebody else's as who may. Ends every credential of the account."""
        rows = await self._store.snapshot()
        user = self._user(rows, name or caller.name)
        if user.is_service:
            raise ArgosyError("usage", f"`{user.name}` is a service account: it has tokens, no password")
        is_own = bool(caller.id) and user.id == caller.id
        if is_own and user.password:
            if not await self._passwords.matches(user.password, old):
                raise ArgosyError("unauthorized", "the present password is wrong", hint="try again")
        elif not is_own:
            require(caller, "users.write")
            check_not_above(self._directory, rows, caller, user)
        check_password(password, user.name)
        kept = await self._passwords.hashed(password)
        changed = msgspec.structs.replace(
            user, password=kept, must_change=not is_own, generation=user.generation + 1
        )
        [user] = await self._store.commit([changed])
        return user

    # -- organisations and projects -----------------------------------------------------------------

    async def add_project(
        self, caller: Caller, *, name: str, organisation: str = "", about: str = ""
    ) -> Project:
        require(caller, "projects.write")
        rows = await self._store.snapshot()
        if organisation and rows.entry_called(f"organisation:{organisation}") is None:
            raise _missing(
                "organisation", organisation, "`argosy project create --help` shows how to make one"
            )
        if rows.entry_called(f"project:{name}") is not None or name == DEFAULT:
            raise _taken("project", name)
        made = Project(
            id=self._ids.new("prj"),
            created_ms=self._clock.now_ms(),
            name=name,
            organisation=organisation,
            about=about,
        )
        return await self._add(made, "project", name)

    async def add_organisation(self, caller: Caller, *, name: str, about: str = "") -> Organisation:
        require(caller, "projects.write")
        made = Organisation(id=self._ids.new("org"), created_ms=self._clock.now_ms(), name=name, about=about)
        return await self._add(made, "organisation", name)

    async def remove_project(self, caller: Caller, name: str) -> Project:
        """Refused while something runs in it. Roles in it go with it."""
        require(caller, "projects.write")
        rows = await self._store.snapshot()
        found = rows.entry_called(f"project:{name}")
        if not isinstance(found, Project):
            raise _missing("project", name, "`argosy project ls` lists the projects")
        live = [row for row in rows.workloads.values() if row.project == name]
        if live:
            raise ArgosyError(
                "conflict",
                f"project `{name}` has {len(live)} live clusters and jobs, such as `{live[0].name}`",
                hint="end them first: `argosy status` and `argosy jobs queue` list them",
            )
        bound = [each for each in rows.people.values() if isinstance(each, Binding) and each.project == name]
        await self._store.commit(self._all_removed(found, *bound))
        return found

    # -- roles --------------------------------------------------------------------------------------

    async def add_role(
        self,
        caller: Caller,
        *,
        name: str,
        permissions: tuple[str, ...],
        own: tuple[str, ...] = (),
        about: str = "",
    ) -> OwnRole:
        """A role of permissions that the caller has over everything."""
        require(caller, "roles.write")
        rows = await self._store.snapshot()
        check_new_role(name, ())
        wanted = expand(permissions) if permissions else frozenset()
        mine = expand(own) if own else frozenset()
        if not wanted and not mine:
            raise ArgosyError("usage", "a role has at least one permission", hint="such as `jobs.read`")
        lacking = beyond(caller, Grant(permissions=wanted, own=mine))
        if lacking:
            raise ArgosyError(
                "forbidden",
                f"the role has `{min(lacking)}`, which you do not have: nobody gives more than they have",
                hint="leave it out, or ask somebody who has it",
            )
        if rows.entry_called(f"role:{name}") is not None:
            raise _taken("role", name)
        made = OwnRole(
            id=self._ids.new("rol"),
            created_ms=self._clock.now_ms(),
            name=name,
            about=about,
            permissions=permissions,
            own=own,
        )
        return await self._add(made, "role", name)

    async def remove_role(self, caller: Caller, name: str) -> OwnRole:
        """It is taken from everybody who has it."""
        require(caller, "roles.write")
        rows = await self._store.snapshot()
        found = rows.entry_called(f"role:{name}")
        if not isinstance(found, OwnRole):
            raise _missing("role", name, "built-in roles stay; `argosy role ls` lists all")
        bound = [each for each in rows.people.values() if isinstance(each, Binding) and each.role == name]
        await self._store.commit(self._all_removed(found, *bound))
        return found

    async def give_role(
        self, caller: Caller, *, subject: str, role: str, project: str = "", organisation: str = ""
    ) -> Binding:
        """`subject`: a user's name, or `group:NAME` of an identity provider. With neither project nor
        organisation: over everything. Given twice is given once."""
        rows = await self._store.snapshot()
        binding = self._binding(rows, subject, role, project, organisation)
        check_binding(rows, caller, binding)
        if project and project != DEFAULT and rows.entry_called(f"project:{project}") is None:
            raise _missing("project", project, f"`argosy project create {project}` makes it")
        if organisation and rows.entry_called(f"organisation:{organisation}") is None:
            raise _missing("organisation", organisation, "`argosy project ls` lists them")
        there = rows.entry_called(binding.unique)
        if isinstance(there, Binding):
            return there
        return await self._add(binding, "role", role)

    async def take_role(
        self, caller: Caller, *, subject: str, role: str, project: str = "", organisation: str = ""
    ) -> Binding:
        rows = await self._store.snapshot()
        wanted = self._binding(rows, subject, role, project, organisation)
        check_binding(rows, caller, wanted)
        found = rows.entry_called(wanted.unique)
        if not isinstance(found, Binding):
            raise ArgosyError(
                "not-found", f"`{subject}` has no role `{role}` there", hint="`argosy role members` lists who"
            )
        user = rows.people.get(found.subject)
        if isinstance(user, User) and role == "owner" and not (project or organisation):
            check_last_owner(rows, user, leaves=True)
        await self._store.commit([self._removed(found)])
        return found

    def _binding(self, rows: Snapshot, subject: str, role: str, project: str, organisation: str) -> Binding:
        if not subject.startswith(GROUP):
            subject = self._user(rows, subject).id
        return Binding(
            id=self._ids.new("bnd"),
            created_ms=self._clock.now_ms(),
            subject=subject,
            role=role,
            project=project,
            organisation=organisation,
        )

    # -- what they share ----------------------------------------------------------------------------

    def _user(self, rows: Snapshot, name: str) -> User:
        user = user_called(rows, name)
        if user is None:
            raise _missing("user", name, "`argosy user ls` lists who has an account")
        return user

    def _removed(self, entry: AnyEntry) -> AnyEntry:
        return msgspec.structs.replace(entry, removed_ms=self._clock.now_ms())

    def _all_removed(self, *entries: AnyEntry) -> list[AnyEntry]:
        return [self._removed(each) for each in entries]

    async def _add(self, entry: E, what: str, name: str) -> E:
        try:
            [made] = await self._store.commit([entry])
        except Conflict:
            raise _taken(what, name) from None
        return made


def _taken(what: str, name: str) -> ArgosyError:
    return ArgosyError("conflict", f"there is a {what} `{name}` already", hint="choose another name")


def _missing(what: str, name: str, hint: str) -> ArgosyError:
    return ArgosyError("not-found", f"there is no {what} `{name}`", hint=hint)

"""Accounts and groups that an identity provider makes here: `facades.scim.ports.Provisioning` over the rows.

Accounts that people made here are not seen and not touched, so that a provider locks nobody out. Roles are
given to groups by who administers the server; the provider says who is in them.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

import msgspec

from argosy.facades.scim.ports import Account, Group, Member, Refused, Taken
from argosy.identity.directory import GROUP
from argosy.identity.rights import check_last_owner
from argosy.identity.single_sign_on import NAME_TRIES, free_name
from argosy.model import people
from argosy.model.errors import ArgosyError
from argosy.model.ids import Clock, Ids
from argosy.model.people import AnyEntry, Binding, User
from argosy.store.errors import Conflict
from argosy.store.snapshot import Snapshot
from argosy.store.store import Store

_TRIES: Final = 5


class Provisioned:
    """Implements `Provisioning`. Every change is one commit."""

    def __init__(self, store: Store, clock: Clock, ids: Ids) -> None:
        self._store, self._clock, self._ids = store, clock, ids

    # -- accounts --------------------------------------------------------------------------------------

    async def accounts(self) -> Sequence[Account]:
        rows = await self._store.recent(0)
        groups = _groups(rows)
        return [_account(each, groups) for each in _users(rows)]

    async def account(self, id: str) -> Account | None:
        rows = await self._store.recent(0)
        found = _user(rows, id)
        return None if found is None else _account(found, _groups(rows))

    async def put_account(self, account: Account) -> Account | None:
        """An account that is made not active, or becomes so, has no credential that is good from now on."""
        for skip in range(NAME_TRIES):
            rows = await self._store.recent(0)
            there = _user(rows, account.id) if account.id else None
            if account.id and there is None:
                return None
            wanted = self._wanted(rows, account, there, skip)
            if wanted == there:
                return _account(wanted, _groups(rows))
            try:
                [made] = await self._store.commit([wanted])
            except Conflict:
                continue  # somebody else wrote it, or the name was one that is not given again
            return _account(made, _groups(rows))
        raise Refused("the account keeps changing: ask again")

    def _wanted(self, rows: Snapshot, account: Account, there: User | None, skip: int) -> User:
        same = account.user_name.lower()
        if any(each is not there and each.user_name.lower() == same for each in _users(rows)):
            raise Taken(f"there is an account `{account.user_name}` already")
        changes: dict[str, object] = {
            "user_name": account.user_name,
            "external_id": account.external_id,
            "full_name": account.full_name,
            "email": account.email,
            "is_disabled": not account.is_active,
        }
        if there is None:
            name, now_ms = free_name(rows, account.user_name, skip), self._clock.now_ms()
            return User(id=self._ids.new("usr"), created_ms=now_ms, name=name, **changes)  # type: ignore[arg-type]
        if there.is_disabled == account.is_active:
            self._check_last(rows, there, leaves=not account.is_active)
            changes["generation"] = there.generation + 1
        return msgspec.structs.replace(there, **changes)

    async def remove_account(self, id: str) -> bool:
        rows = await self._store.recent(0)
        found = _user(rows, id)
        if found is None:
            return False
        self._check_last(rows, found, leaves=True)
        await self._store.commit(self._all_removed(found, *rows.entries_of(found.id)))
        return True

    @staticmethod
    def _check_last(rows: Snapshot, user: User, *, leaves: bool) -> None:
        try:
            check_last_owner(rows, user, leaves=leaves)
        except ArgosyError as error:
            raise Refused(error.what) from None

    # -- groups ----------------------------------------------------------------------------------------

    async def groups(self) -> Sequence[Group]:
        rows = await self._store.recent(0)
        users = _users(rows)
        return [_group(each, users) for each in _groups(rows)]

    async def group(self, id: str) -> Group | None:
        rows = await self._store.recent(0)
        found = _group_entry(rows, id)
        return None if found is None else _group(found, _users(rows))

    async def put_group(self, group: Group) -> Group | None:
        """Members that are not there are refused. Roles of a group follow its new name."""
        for _ in range(_TRIES):
            rows = await self._store.recent(0)
            old = _group_entry(rows, group.id) if group.id else None
            if group.id and old is None:
                return None
            known = rows.entry_called(f"group:{group.name}")
            if known is not None and (old is None or known.id != old.id):
                raise Taken(f"there is a group `{group.name}` already")
            wanted = self._wanted_group(group, old)
            changes: list[AnyEntry] = [*([] if wanted == old else [wanted]), *_moved(rows, group, old)]
            try:
                made = await self._store.commit(changes) if changes else []
            except Conflict:
                continue
            kept = made[0] if made and isinstance(made[0], people.Group) else wanted
            return _group(kept, _users(await self._store.recent(0)))
        raise Refused("the group keeps changing: ask again")

    def _wanted_group(self, group: Group, old: people.Group | None) -> people.Group:
        if old is not None:
            return msgspec.structs.replace(old, name=group.name, external_id=group.external_id)
        return people.Group(
            id=self._ids.new("grp"),
            created_ms=self._clock.now_ms(),
            name=group.name,
            external_id=group.external_id,
        )

    async def remove_group(self, id: str) -> bool:
        """Who was in it loses its roles; the roles stay, for a group that is called so again."""
        rows = await self._store.recent(0)
        found = _group_entry(rows, id)
        if found is None:
            return False
        left = [_without(each, found.name) for each in _users(rows) if found.name in each.groups]
        await self._store.commit([*self._all_removed(found), *left])
        return True

    def _all_removed(self, *entries: AnyEntry) -> list[AnyEntry]:
        return [msgspec.structs.replace(each, removed_ms=self._clock.now_ms()) for each in entries]


def _users(rows: Snapshot) -> list[User]:
    """Accounts that an identity provider made, by age."""
    found = [
        each for each in rows.people.values() if isinstance(each, User) and each.user_name and each.is_live
    ]
    return sorted(found, key=lambda each: each.id)


def _user(rows: Snapshot, id: str) -> User | None:
    found = rows.people.get(id)
    return found if isinstance(found, User) and found.user_name and found.is_live else None


def _group_entry(rows: Snapshot, id: str) -> people.Group | None:
    found = rows.people.get(id)
    return found if isinstance(found, people.Group) and found.is_live else None


def _groups(rows: Snapshot) -> list[people.Group]:
    found = [each for each in rows.people.values() if isinstance(each, people.Group) and each.is_live]
    return sorted(found, key=lambda each: each.id)


def _account(user: User, groups: Sequence[people.Group]) -> Account:
    return Account(
        id=user.id,
        user_name=user.user_name,
        external_id=user.external_id,
        full_name=user.full_name,
        email=user.email,
        is_active=not user.is_disabled,
        groups=tuple(Member(id=each.id, shown=each.name) for each in groups if each.name in user.groups),
        created_ms=user.created_ms,
    )


def _group(group: people.Group, users: Sequence[User]) -> Group:
    inside = [each for each in users if group.name in each.groups]
    return Group(
        id=group.id,
        name=group.name,
        external_id=group.external_id,
        members=tuple(Member(id=each.id, shown=each.user_name) for each in inside),
        created_ms=group.created_ms,
    )


def _moved(rows: Snapshot, group: Group, old: people.Group | None) -> list[AnyEntry]:
    """Accounts that come, go or see the new name; and the roles that follow it."""
    wanted, before = {each.id for each in group.members}, old.name if old is not None else ""
    users = _users(rows)
    strangers = wanted - {each.id for each in users}
    if strangers:
        raise Refused(f"there is no account `{min(strangers)[:100]}` of this identity provider")
    changed: list[AnyEntry] = []
    for user in users:
        names = [each for each in user.groups if each not in (before, group.name)]
        names += [group.name] if user.id in wanted else []
        if sorted(names) != sorted(user.groups):
            changed.append(msgspec.structs.replace(user, groups=tuple(names)))
    if before and before != group.name:
        held = [each for each in rows.entries_of(f"{GROUP}{before}") if isinstance(each, Binding)]
        changed += [msgspec.structs.replace(each, subject=f"{GROUP}{group.name}") for each in held]
    return changed


def _without(user: User, group: str) -> User:
    return msgspec.structs.replace(user, groups=tuple(each for each in user.groups if each != group))

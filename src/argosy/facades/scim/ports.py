"""What the façade needs of the server: accounts and groups of an identity provider."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

import msgspec


class Member(msgspec.Struct, frozen=True, kw_only=True):
    """An account in a group, or a group of an account."""

    id: str
    shown: str


class Account(msgspec.Struct, frozen=True, kw_only=True):
    """As the identity provider knows it. `id` "": it is to be made."""

    id: str = ""
    user_name: str
    external_id: str = ""
    full_name: str = ""
    email: str = ""
    is_active: bool = True
    groups: tuple[Member, ...] = ()  # follow from the groups
    created_ms: int = 0


class Group(msgspec.Struct, frozen=True, kw_only=True):
    id: str = ""
    name: str
    external_id: str = ""
    members: tuple[Member, ...] = ()  # by id, when it is written
    created_ms: int = 0


class Taken(Exception):
    """Another one is called so."""


class Refused(Exception):
    """Not allowed, or not possible; the text is for people."""


class Provisioning(Protocol):
    """Accounts and groups that the identity provider made here. What is not there: None, False."""

    async def accounts(self) -> Sequence[Account]:
        """By age."""

    async def account(self, id: str) -> Account | None: ...

    async def put_account(self, account: Account) -> Account | None:
        """Make or change. Raises `Taken`, `Refused`."""

    async def remove_account(self, id: str) -> bool:
        """Raises `Refused`."""

    async def groups(self) -> Sequence[Group]: ...

    async def group(self, id: str) -> Group | None: ...

    async def put_group(self, group: Group) -> Group | None:
        """Make or change, with its members. Raises `Taken`, `Refused`."""

    async def remove_group(self, id: str) -> bool: ...

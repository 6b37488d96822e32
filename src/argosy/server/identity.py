"""The parts of identity that one server has, each made with its first use: nothing of it is loaded before
somebody comes over TCP, signs in or names a secret."""

from __future__ import annotations

from functools import cached_property
from typing import TYPE_CHECKING

from argosy.model.ids import Clock, Ids
from argosy.store.store import Store

if TYPE_CHECKING:
    from argosy.identity.directory import Directory
    from argosy.identity.passwords import Passwords
    from argosy.identity.people import People
    from argosy.identity.project_secrets import ProjectSecrets
    from argosy.identity.signing_in import SigningIn
    from argosy.identity.tokens import Credentials, Uses


class Identity:
    def __init__(self, store: Store, clock: Clock, ids: Ids) -> None:
        self._store, self._clock, self._ids = store, clock, ids

    @cached_property
    def directory(self) -> Directory:
        from argosy.identity.directory import Directory

        return Directory()

    @cached_property
    def passwords(self) -> Passwords:
        from argosy.identity.passwords import Passwords

        return Passwords()

    @cached_property
    def credentials(self) -> Credentials:
        from argosy.identity.tokens import Credentials

        return Credentials(self._store, self._clock, self._ids, self.directory)

    @cached_property
    def people(self) -> People:
        from argosy.identity.people import People

        return People(self._store, self._clock, self._ids, self.directory, self.passwords)

    @cached_property
    def signing_in(self) -> SigningIn:
        from argosy.identity.signing_in import SigningIn

        return SigningIn(self._store, self._clock, self._ids, self.credentials, self.passwords)

    @cached_property
    def uses(self) -> Uses:
        from argosy.identity.tokens import Uses

        return Uses(self._store, self._clock)

    @cached_property
    def secrets(self) -> ProjectSecrets:
        from argosy.identity.project_secrets import ProjectSecrets

        return ProjectSecrets(self._store, self._clock, self._ids)

    async def note_uses(self) -> None:
        """Write down when credentials were used, if any was."""
        if "uses" in self.__dict__:
            await self.uses.write()

"""The parts of identity that one server has, made together."""

from __future__ import annotations

from typing import NamedTuple

from argosy.identity.directory import Directory
from argosy.identity.passwords import Passwords
from argosy.identity.people import People
from argosy.identity.project_secrets import ProjectSecrets
from argosy.identity.signing_in import SigningIn
from argosy.identity.tokens import Credentials, Uses
from argosy.model.ids import Clock, Ids
from argosy.store.store import Store


class Identity(NamedTuple):
    directory: Directory
    people: People
    credentials: Credentials
    signing_in: SigningIn
    uses: Uses
    passwords: Passwords
    secrets: ProjectSecrets

    @classmethod
    def over(cls, store: Store, clock: Clock, ids: Ids) -> Identity:
        directory, passwords = Directory(), Passwords()
        credentials = Credentials(store, clock, ids, directory)
        return cls(
            directory=directory,
            people=People(store, clock, ids, directory, passwords),
            credentials=credentials,
            signing_in=SigningIn(store, clock, ids, credentials, passwords),
            uses=Uses(store, clock),
            passwords=passwords,
            secrets=ProjectSecrets(store, clock, ids),
        )

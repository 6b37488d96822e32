"""Rows about people: organisations, projects, accounts, roles, who has which, credentials, browsers.

All of them are entries of one table, `directory`. An entry that was removed stays, for the audit log to name.
Secrets are never kept: of a token or a cookie only its SHA-256, of a password what argon2 makes of it.
"""

from __future__ import annotations

from argosy.model.entry import Entry as Entry
from argosy.model.folders import Folder, Volume
from argosy.model.made_buckets import MadeBucket
from argosy.model.named_volumes import NamedVolume
from argosy.model.service_keys import ModelKey


class Organisation(Entry, frozen=True, kw_only=True, omit_defaults=True, tag="organisation"):
    name: str
    about: str = ""

    @property
    def unique(self) -> str:
        return f"organisation:{self.name}" if self.is_live else ""


class Project(Entry, frozen=True, kw_only=True, omit_defaults=True, tag="project"):
    name: str
    organisation: str = ""  # its name; "": none
    about: str = ""

    @property
    def unique(self) -> str:
        return f"project:{self.name}" if self.is_live else ""


class User(Entry, frozen=True, kw_only=True, omit_defaults=True, tag="user"):
    """A person, or a service account. Names are never given twice: what somebody made stays theirs."""

    name: str
    full_name: str = ""
    email: str = ""
    is_service: bool = False
    is_disabled: bool = False
    password: str = ""  # as argon2 writes it; "": none, such as for who signs in elsewhere
    must_change: bool = False  # the password was chosen by somebody else
    second_factor: str = ""  # the key of its one-time codes, sealed; "": none
    second_factor_step: int = 0  # of the last code that was taken: none is taken twice
    issuer: str = ""  # of an identity provider, with `subject` the identity there
    subject: str = ""
    groups: tuple[str, ...] = ()  # as an identity provider says
    user_name: str = ""  # as a provider that makes accounts (SCIM) calls them; "": it did not make this one
    external_id: str = ""  # its own id for them
    generation: int = 0  # credentials of an earlier one are dead

    @property
    def unique(self) -> str:
        return f"user:{self.name}"

    @property
    def of(self) -> str:
        """The identity at a provider, so that it is found."""
        return f"identity:{self.issuer} {self.subject}" if self.issuer else ""


class Group(Entry, frozen=True, kw_only=True, omit_defaults=True, tag="group"):
    """A group that an identity provider made here (SCIM). Who is in it stands in the accounts."""

    name: str
    external_id: str = ""

    @property
    def unique(self) -> str:
        return f"group:{self.name}" if self.is_live else ""


class OwnRole(Entry, frozen=True, kw_only=True, omit_defaults=True, tag="role"):
    """A role that somebody made."""

    name: str
    about: str = ""
    permissions: tuple[str, ...]  # as written: `jobs.*`
    own: tuple[str, ...] = ()  # only over what the holder made

    @property
    def unique(self) -> str:
        return f"role:{self.name}" if self.is_live else ""


class Binding(Entry, frozen=True, kw_only=True, omit_defaults=True, tag="binding"):
    """Somebody has a role somewhere."""

    subject: str  # id of a user, or `group:NAME` of an identity provider
    role: str  # its name
    project: str = ""  # with both empty: over everything
    organisation: str = ""

    @property
    def unique(self) -> str:
        if not self.is_live:
            return ""
        return f"binding:{self.subject}:{self.role}:{self.project}:{self.organisation}"

    @property
    def of(self) -> str:
        return self.subject


class AccessToken(Entry, frozen=True, kw_only=True, omit_defaults=True, tag="token"):
    """A personal token, or one of a service account."""

    user_id: str
    name: str
    sha256: str
    expires_ms: int
    permissions: tuple[str, ...] = ("*",)  # at most these of what its user may
    projects: tuple[str, ...] = ()  # at most there; (): wherever its user may
    generation: int = 0  # of the user when it was made; a change of the password ends only sign-ins

    @property
    def unique(self) -> str:
        return f"token:{self.sha256}"

    @property
    def of(self) -> str:
        return self.user_id


class SignIn(Entry, frozen=True, kw_only=True, omit_defaults=True, tag="sign-in"):
    """A browser or a command line that somebody signed in with."""

    user_id: str
    sha256: str
    expires_ms: int
    idle_ms: int  # without a request for so long it is over
    seen_ms: int
    generation: int  # of the user
    method: str  # password | device | loopback | oidc | code
    client: str = "browser"  # browser | cli
    address: str = ""
    agent: str = ""

    @property
    def unique(self) -> str:
        return f"sign-in:{self.sha256}"

    @property
    def of(self) -> str:
        return self.user_id


class OneTime(Entry, frozen=True, kw_only=True, omit_defaults=True, tag="code"):
    """A code that is good once, soon: of a device that signs in, of a browser on this machine, of a sign-in
    that an identity provider is to confirm."""

    purpose: str  # device | code | loopback | oidc
    sha256: str  # of what its holder shows
    expires_ms: int
    short: str = ""  # device: SHA-256 of the code that a person types
    tries: int = 0  # wrong ones
    user_id: str = ""  # who confirmed it
    told: dict[str, str] = {}  # noqa: RUF012  every row gets its own

    @property
    def unique(self) -> str:
        return f"code:{self.sha256}" if self.is_live else ""

    @property
    def of(self) -> str:
        return f"short:{self.short}" if self.short else ""


class WrongAttempts(Entry, frozen=True, kw_only=True, omit_defaults=True, tag="wrong"):
    """Wrong attempts to sign in: one of a fixed number of rows, of all whose key falls here."""

    seen: dict[str, tuple[int, int]] = {}  # noqa: RUF012  key (a hash): number, time of the last in ms

    @property
    def is_quiet(self) -> bool:
        return True


class Secret(Entry, frozen=True, kw_only=True, omit_defaults=True, tag="secret"):
    """A value that a project's tasks may be given. The value is sealed elsewhere, under the id."""

    project: str
    name: str
    set_ms: int
    set_by: str = ""

    @property
    def unique(self) -> str:
        return f"secret:{self.project}:{self.name}" if self.is_live else ""

    @property
    def of(self) -> str:
        return f"secrets:{self.project}"


AnyEntry = (
    Organisation
    | Project
    | User
    | Group
    | OwnRole
    | Binding
    | AccessToken
    | SignIn
    | OneTime
    | WrongAttempts
    | Secret
    | Folder
    | Volume
    | NamedVolume
    | MadeBucket
    | ModelKey
)

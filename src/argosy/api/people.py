"""People: accounts, projects, roles, tokens, and signing in."""

from __future__ import annotations

from typing import Annotated

from argosy.api.endpoint import Done, Reply, Request, endpoint


class RoleHeld(Reply, frozen=True, kw_only=True, omit_defaults=True):
    """Somebody has a role somewhere; with neither project nor organisation: over everything."""

    role: str
    project: str = ""
    organisation: str = ""
    user: str = ""  # name, or `group:NAME`


class WhoReply(Reply, frozen=True, kw_only=True, omit_defaults=True):
    name: str
    via: str  # socket | token | session
    user_id: str = ""
    full_name: str = ""
    roles: tuple[RoleHeld, ...] = ()
    permissions: tuple[str, ...] = ()  # that the credential has somewhere
    projects: tuple[str, ...] = ()  # that are named in roles; (): everything, or none
    credential: str = ""  # its id
    must_change_password: bool = False


class UserView(Reply, frozen=True, kw_only=True, omit_defaults=True):
    id: str
    name: str
    full_name: str = ""
    email: str = ""
    is_service: bool = False
    is_disabled: bool = False
    has_password: bool = False
    has_second_factor: bool = False
    created_ms: int = 0
    roles: tuple[RoleHeld, ...] = ()  # of those that the caller may see


class UserList(Reply, frozen=True, kw_only=True):
    users: tuple[UserView, ...]


class UserRequest(Request, frozen=True, kw_only=True, omit_defaults=True):
    name: str
    full_name: str = ""
    email: str = ""
    is_service: bool = False
    password: str = ""  # the first one, which the person is to change; "": none

    def __repr__(self) -> str:
        return f"UserRequest(name={self.name!r})"


class UserChange(Request, frozen=True, kw_only=True, omit_defaults=True):
    """What is given changes."""

    full_name: str | None = None
    email: str | None = None
    is_disabled: bool | None = None
    drop_second_factor: bool = False


class PasswordRequest(Request, frozen=True, kw_only=True, omit_defaults=True):
    password: str
    old: str = ""  # of one's own account
    user: str = ""  # "": one's own

    def __repr__(self) -> str:
        return f"PasswordRequest(user={self.user!r})"


class ProjectView(Reply, frozen=True, kw_only=True, omit_defaults=True):
    name: str
    organisation: str = ""
    about: str = ""
    created_ms: int = 0


class ProjectList(Reply, frozen=True, kw_only=True, omit_defaults=True):
    projects: tuple[ProjectView, ...]
    organisations: tuple[str, ...] = ()


class ProjectRequest(Request, frozen=True, kw_only=True, omit_defaults=True):
    name: str
    organisation: str = ""
    about: str = ""
    is_organisation: bool = False  # it is an organisation that is to be made


class RoleView(Reply, frozen=True, kw_only=True, omit_defaults=True):
    name: str
    about: str = ""
    permissions: tuple[str, ...] = ()
    own: tuple[str, ...] = ()  # only over what the holder made
    is_built_in: bool = False


class RoleList(Reply, frozen=True, kw_only=True):
    roles: tuple[RoleView, ...]


class RoleRequest(Request, frozen=True, kw_only=True, omit_defaults=True):
    name: str
    permissions: tuple[str, ...] = ()  # such as `jobs.*`
    own: tuple[str, ...] = ()
    about: str = ""


class MemberRequest(Request, frozen=True, kw_only=True, omit_defaults=True):
    """Give a role, or take it away."""

    user: str  # name, or `group:NAME` of an identity provider
    role: str
    project: str = ""
    organisation: str = ""
    remove: bool = False


class MemberList(Reply, frozen=True, kw_only=True):
    members: tuple[RoleHeld, ...]


class TokenView(Reply, frozen=True, kw_only=True, omit_defaults=True):
    id: str
    name: str
    user: str
    permissions: tuple[str, ...] = ()
    projects: tuple[str, ...] = ()
    created_ms: int = 0
    expires_ms: int = 0
    used_ms: int = 0  # by the minute; 0: never
    is_good: bool = True


class SignInView(Reply, frozen=True, kw_only=True, omit_defaults=True):
    id: str
    user: str
    client: str  # browser | cli
    method: str
    address: str = ""
    agent: str = ""
    created_ms: int = 0
    expires_ms: int = 0
    used_ms: int = 0
    is_this: bool = False  # the one that asks


class TokenList(Reply, frozen=True, kw_only=True, omit_defaults=True):
    tokens: tuple[TokenView, ...]
    sign_ins: tuple[SignInView, ...] = ()


class TokenRequest(Request, frozen=True, kw_only=True, omit_defaults=True):
    name: str
    days: int = 90
    permissions: tuple[str, ...] = ("*",)
    projects: tuple[str, ...] = ()
    user: str = ""  # a service account; "": oneself


class TokenReply(Reply, frozen=True, kw_only=True):
    token: TokenView
    secret: str  # shown once

    def __repr__(self) -> str:
        return f"TokenReply(token={self.token!r})"


class LoginRequest(Request, frozen=True, kw_only=True, omit_defaults=True):
    user: str
    password: str
    code: str = ""  # of an authenticator app
    client: str = "browser"  # browser: the answer sets a cookie; cli: it has a token

    def __repr__(self) -> str:
        return f"LoginRequest(user={self.user!r})"


class LoginReply(Reply, frozen=True, kw_only=True, omit_defaults=True):
    user: str
    expires_ms: int
    token: str = ""  # for a command line
    must_change_password: bool = False

    def __repr__(self) -> str:
        return f"LoginReply(user={self.user!r})"


class DeviceRequest(Request, frozen=True, kw_only=True, omit_defaults=True):
    host: str = ""  # as its person knows it


class DeviceReply(Reply, frozen=True, kw_only=True):
    secret: str  # the device's own
    code: str  # what its person types elsewhere
    expires_ms: int
    interval_s: int = 2

    def __repr__(self) -> str:
        return "DeviceReply(...)"


class DeviceWait(Request, frozen=True, kw_only=True):
    secret: str

    def __repr__(self) -> str:
        return "DeviceWait(...)"


class DeviceAnswer(Reply, frozen=True, kw_only=True, omit_defaults=True):
    login: LoginReply | None = None  # None: its person has not said yet


class DeviceConfirm(Request, frozen=True, kw_only=True, omit_defaults=True):
    code: str
    look: bool = False  # only say what waits

    def __repr__(self) -> str:
        return "DeviceConfirm(...)"


class WaitingDevice(Reply, frozen=True, kw_only=True, omit_defaults=True):
    host: str = ""
    address: str = ""
    confirmed: bool = False


class CodeRequest(Request, frozen=True, kw_only=True, omit_defaults=True):
    code: str
    client: str = "browser"
    proof: str = ""  # of a command line that began a sign-in: what the hash that it told is of

    def __repr__(self) -> str:
        return "CodeRequest(...)"


class CodeReply(Reply, frozen=True, kw_only=True):
    code: str  # good for a minute, once

    def __repr__(self) -> str:
        return "CodeReply(...)"


class CodeWish(Request, frozen=True, kw_only=True, omit_defaults=True):
    user: str = ""  # whose; "": one's own


class SecondFactorRequest(Request, frozen=True, kw_only=True, omit_defaults=True):
    code: str = ""  # "": begin; else: of the app, to confirm it

    def __repr__(self) -> str:
        return "SecondFactorRequest(...)"


class SecondFactorReply(Reply, frozen=True, kw_only=True, omit_defaults=True):
    key: str = ""  # for the app
    address: str = ""  # `otpauth://...`, as a picture for the app says it
    is_on: bool = False

    def __repr__(self) -> str:
        return f"SecondFactorReply(is_on={self.is_on})"


class PeopleCalls:
    @endpoint("GET", "/whoami", permission="any")
    def whoami(self) -> WhoReply:
        """Who asks, and what they may."""

    @endpoint("GET", "/users", permission="users.read")
    def users(self) -> UserList:
        """Accounts of people and services."""

    @endpoint("POST", "/users", UserRequest, permission="users.write")
    def add_user(
        self, name: str, full_name: str = "", email: str = "", is_service: bool = False, password: str = ""
    ) -> UserView:
        """Make an account. Names are never given twice. Errors: "conflict"."""

    @endpoint("POST", "/users/{user}", UserChange, permission="users.write")
    def change_user(
        self,
        user: str,
        *,
        full_name: str | None = None,
        email: str | None = None,
        is_disabled: bool | None = None,
        drop_second_factor: bool = False,
    ) -> UserView:
        """Change an account; disabling it ends its credentials at once. Errors: "not-found", "conflict" for
        the last owner."""

    @endpoint("DELETE", "/users/{user}", permission="users.write")
    def remove_user(self, user: str) -> Done:
        """Remove an account with its roles and credentials. Errors: "not-found", "conflict" for the last
        owner."""

    @endpoint("POST", "/password", PasswordRequest, permission="any")
    def set_password(self, password: str, *, old: str = "", user: str = "") -> Done:
        """Set a password: one's own with the old one, or somebody's whom one administers. Every credential of
        the account ends. Errors: "unauthorized", "forbidden", "usage"."""

    @endpoint("POST", "/second-factor", SecondFactorRequest, permission="any")
    def second_factor(self, code: str = "") -> SecondFactorReply:
        """Begin with an authenticator app, or confirm it with its first code. Errors: "unauthorized"."""

    @endpoint("GET", "/projects", permission="projects.read")
    def projects(self) -> ProjectList:
        """Projects, and organisations."""

    @endpoint("POST", "/projects", ProjectRequest, permission="projects.write")
    def add_project(
        self, name: str, organisation: str = "", about: str = "", is_organisation: bool = False
    ) -> Done:
        """Make a project, or an organisation of projects. Errors: "conflict", "not-found"."""

    @endpoint("DELETE", "/projects/{project}", permission="projects.write")
    def remove_project(self, project: str) -> Done:
        """Remove a project in which nothing runs. Errors: "not-found", "conflict"."""

    @endpoint("GET", "/roles", permission="roles.read")
    def roles(self) -> RoleList:
        """Roles, and what they may."""

    @endpoint("POST", "/roles", RoleRequest, permission="roles.write")
    def add_role(
        self, name: str, permissions: tuple[str, ...] = (), own: tuple[str, ...] = (), about: str = ""
    ) -> RoleView:
        """Make a role of permissions that one has. Errors: "forbidden", "conflict", "usage"."""

    @endpoint("DELETE", "/roles/{role}", permission="roles.write")
    def remove_role(self, role: str) -> Done:
        """Remove a role, from everybody who has it. Errors: "not-found"."""

    @endpoint("GET", "/members", permission="members.read")
    def members(self, *, project: Annotated[str, "only of this project"] = "") -> MemberList:
        """Who has which role where."""

    @endpoint("POST", "/members", MemberRequest, permission="members.write")
    def set_member(
        self, user: str, role: str, project: str = "", organisation: str = "", remove: bool = False
    ) -> Done:
        """Give a role, or take it away. Nobody gives more than they have. Errors: "forbidden", "not-found",
        "conflict" for the last owner."""


class SigningInCalls:
    @endpoint("GET", "/tokens", permission="any")
    def tokens(self, *, user: Annotated[str, "whose; one's own when left out"] = "") -> TokenList:
        """Tokens and sign-ins of an account."""

    @endpoint("POST", "/tokens", TokenRequest, permission="any")
    def add_token(
        self,
        name: str,
        days: int = 90,
        permissions: tuple[str, ...] = ("*",),
        projects: tuple[str, ...] = (),
        user: str = "",
    ) -> TokenReply:
        """Make a token. It is shown once. Errors: "conflict", "usage", "forbidden"."""

    @endpoint("DELETE", "/tokens/{token}", permission="any")
    def remove_token(
        self, token: str, *, user: Annotated[str, "whose; one's own when left out"] = ""
    ) -> Done:
        """Take a token back, or end a sign-in (`all`: every sign-in): at once. Errors: "not-found"."""

    @endpoint("POST", "/login", LoginRequest, permission="open")
    def login(self, user: str, password: str, code: str = "", client: str = "browser") -> LoginReply:
        """Sign in by password. Errors: "unauthorized", "second-factor", "too-often"."""

    @endpoint("POST", "/logout", permission="any")
    def logout(self) -> Done:
        """End the sign-in that asks."""

    @endpoint("POST", "/login/device", DeviceRequest, permission="open")
    def login_device(self, host: str = "") -> DeviceReply:
        """Begin to sign in on a machine without a browser: its person types the code elsewhere."""

    @endpoint("POST", "/login/device/wait", DeviceWait, permission="open")
    def login_device_wait(self, secret: str) -> DeviceAnswer:
        """Whether its person has let it in. Errors: "unauthorized" when the code is over."""

    @endpoint("POST", "/login/device/confirm", DeviceConfirm, permission="any")
    def login_device_confirm(self, code: str, *, look: bool = False) -> WaitingDevice:
        """Let a device in as oneself. Errors: "not-found", "too-often"."""

    @endpoint("POST", "/login/code", CodeRequest, permission="open")
    def login_code(self, code: str, *, client: str = "browser", proof: str = "") -> LoginReply:
        """Sign in with a one-time code. Errors: "unauthorized"."""

    @endpoint("POST", "/login/codes", CodeWish, permission="any")
    def make_login_code(self, user: str = "") -> CodeReply:
        """A one-time code, such as to open a browser that is signed in."""

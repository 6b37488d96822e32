"""Sessions: apps that people use, how they are, and the ways into them."""

from __future__ import annotations

from typing import Annotated

from argosy.api.endpoint import Done, Reply, Request, endpoint
from argosy.model.apps import App, Idle, Isolation, Network
from argosy.model.kinds.session import Share
from argosy.model.task import Task


class SessionRequest(Request, frozen=True, kw_only=True, omit_defaults=True):
    """Make a session: `task` says on what it runs; its `run` is not used."""

    app: str
    name: str = ""  # "": that of the app, with a number where it is taken
    task: Task = Task()
    idle: Idle = Idle()
    isolation: Isolation = Isolation.SANDBOX
    network: Network = Network.DEFAULT
    user: str = ""
    project: str = ""
    snapshot: str = ""  # its home begins with the files of this one
    plan: str = ""  # the id of the plan that was confirmed
    max_hourly_micro_usd: int | None = None
    key: str = ""


class IdleView(Reply, frozen=True, kw_only=True, omit_defaults=True):
    """What decides whether a session is put to rest. Times are in ms, 0: not known."""

    used_ms: int = 0  # when it was last used
    used_by: str = ""  # by what: requests, kernels, cpu, terminal, start, snooze
    gpu_used_ms: int = 0
    rests_at_ms: int = 0  # when it is put to rest if nothing happens; 0: never
    why: str = ""  # by which of its limits, and whose rule that is
    ends: bool = False  # it does not rest then, but ends
    warned_ms: int = 0  # when people were told
    snoozes_left: int = 0


class SessionView(Reply, frozen=True, kw_only=True, omit_defaults=True):
    id: str
    name: str
    app: str
    title: str = ""  # of the app
    status: str  # the phase; when finished, the outcome
    detail: str = ""  # why it waits or how it ended, and what to do
    user: str = ""
    project: str = ""
    isolation: Isolation = Isolation.SANDBOX
    network: Network = Network.DEFAULT
    image: str = ""  # of its container
    resources: str = ""
    infra: str = ""
    is_proxied: bool = False  # it has a face for a browser
    created_ms: int = 0
    started_ms: int = 0  # when it could first be used
    up_ms: int = 0  # since when it can be used, this time; 0: it cannot
    ended_ms: int = 0
    job: str = ""  # id of the job that has its log
    idle: Idle = Idle()
    use: IdleView = IdleView()
    shares: tuple[Share, ...] = ()  # who else may open its app; those whose time is over too


class SessionList(Reply, frozen=True, kw_only=True, omit_defaults=True):
    sessions: tuple[SessionView, ...]


class AppList(Reply, frozen=True, kw_only=True, omit_defaults=True):
    apps: tuple[App, ...]


class IdleRequest(Request, frozen=True, kw_only=True, omit_defaults=True):
    idle: Idle


class SnoozeRequest(Request, frozen=True, kw_only=True, omit_defaults=True):
    """More time before an unused session is put to rest."""

    minutes: int = 60


class SessionShareRequest(Request, frozen=True, kw_only=True, omit_defaults=True):
    """Let somebody else open the app of a session, for a while."""

    who: str  # the name of a user, or project:NAME for whoever has a role there
    seconds: int = 8 * 3600  # 0: no longer
    watch: bool = False  # not its app: they may watch its terminals, and type nothing


class SnapshotRequest(Request, frozen=True, kw_only=True, omit_defaults=True):
    """Keep the files of a session as they are now."""

    name: str = ""  # "": that of the session, with a number where it is taken


class SnapshotView(Reply, frozen=True, kw_only=True, omit_defaults=True):
    id: str
    name: str
    app: str  # that ran in the session
    session: str  # its name then
    at_ms: int
    size_bytes: int
    user: str = ""
    project: str = ""


class SnapshotList(Reply, frozen=True, kw_only=True, omit_defaults=True):
    snapshots: tuple[SnapshotView, ...]


class OpenRequest(Request, frozen=True, kw_only=True, omit_defaults=True):
    """Which face of a session is opened: its app, or a port of its own network."""

    port: int = 0  # 0: its app


class OpenPortRequest(Request, frozen=True, kw_only=True, omit_defaults=True):
    """A page that a program of a cluster serves."""

    port: int  # of the loopback of its first node


class OpenReply(Reply, frozen=True, kw_only=True, omit_defaults=True):
    """How a browser gets in: `code` is sent as a form to `/.argosy/enter` of the host `LABEL.SUFFIX`, once
    and within half a minute. A page there takes it from the part of the address behind `#`."""

    label: str
    code: str
    suffixes: tuple[str, ...] = ()
    urls: tuple[str, ...] = ()  # where this server answers for that host by itself

    def __repr__(self) -> str:
        return f"OpenReply(label={self.label!r})"


class SessionCalls:
    @endpoint("GET", "/apps", permission="sessions.read")
    def apps(self) -> AppList:
        """What sessions can run."""

    @endpoint("POST", "/sessions", SessionRequest, permission="sessions.write")
    def start_session(
        self,
        app: str,
        *,
        name: str = "",
        task: Task = Task(),  # noqa: B008  it is frozen
        idle: Idle = Idle(),  # noqa: B008
        isolation: Isolation = Isolation.SANDBOX,
        network: Network = Network.DEFAULT,
        snapshot: str = "",
        user: str = "",
        project: str = "",
        plan: str = "",
        max_hourly_micro_usd: int | None = None,
        key: str = "",
    ) -> SessionView:
        """Make a session and start it. Errors: "not-found" for an app, "conflict" for a name, "no-offer"."""

    @endpoint("GET", "/sessions", permission="sessions.read")
    def sessions(self, *, all: Annotated[bool, "also finished ones"] = False) -> SessionList:
        """Sessions, by name."""

    @endpoint("GET", "/sessions/{session}", permission="sessions.read")
    def session(
        self,
        session: str,
        *,
        wait_s: Annotated[int | None, "until it is up, rests or has ended, up to 30"] = None,
    ) -> SessionView:
        """One session, by name or id; of a name that is no longer used, the last that had it."""

    @endpoint("POST", "/sessions/{session}/stop", permission="sessions.write")
    def rest_session(self, session: str) -> Done:
        """Put a session to rest: its programs end, its files stay."""

    @endpoint("POST", "/sessions/{session}/start", permission="sessions.write")
    def resume_session(self, session: str) -> Done:
        """Start a session again that rests."""

    @endpoint("DELETE", "/sessions/{session}", permission="sessions.write")
    def end_session(self, session: str) -> Done:
        """End a session for good."""

    @endpoint("POST", "/sessions/{session}/idle", IdleRequest, permission="sessions.write")
    def set_session_idle(self, session: str, idle: Idle) -> Done:
        """Set when a session that nobody uses is put to rest."""

    @endpoint("POST", "/sessions/{session}/snooze", SnoozeRequest, permission="sessions.write")
    def snooze_session(self, session: str, minutes: int = 60) -> Done:
        """Give an unused session more time. Errors: "wrong-state" when it was done too often."""

    @endpoint("POST", "/sessions/{session}/share", SessionShareRequest, permission="sessions.write")
    def share_session(self, session: str, who: str, seconds: int = 8 * 3600, watch: bool = False) -> Done:
        """Let a user or a project open the app of a session, or watch its terminals; `seconds` 0 takes both
        back."""

    @endpoint("POST", "/clusters/{cluster}/open", OpenPortRequest, permission="clusters.enter")
    def open_port(self, cluster: str, port: int) -> OpenReply:
        """A code by which a browser opens a port of a cluster's first node, as the app of a session."""

    @endpoint("POST", "/sessions/{session}/open", OpenRequest, permission="sessions.enter")
    def open_session(self, session: str, port: int = 0) -> OpenReply:
        """Let the caller's browser into the app of a session. Errors: "wrong-state" for one that is not
        up."""


class SnapshotCalls:
    @endpoint("POST", "/sessions/{session}/snapshot", SnapshotRequest, permission="sessions.write")
    def snapshot_session(self, session: str, name: str = "") -> SnapshotView:
        """Keep the files of a session as they are now, under a name, for new sessions to begin with. Errors:
        "conflict" for the name, "wrong-state", "too-large"."""

    @endpoint("GET", "/snapshots", permission="sessions.read")
    def snapshots(self) -> SnapshotList:
        """Snapshots of sessions, by name."""

    @endpoint("DELETE", "/snapshots/{snapshot}", permission="sessions.write")
    def remove_snapshot(self, snapshot: str) -> Done:
        """Remove a snapshot. Sessions that have begun with it keep their files."""


class SessionStreams:
    """Streams: each client speaks them in its own way."""

    @endpoint("WS", "/sessions/{session}/forward", permission="sessions.enter")
    def session_forward(
        self, session: str, *, port: Annotated[int, "of the session's loopback; 0: its app"] = 0
    ) -> bytes:
        """WebSocket: a connection to the app of a session, or to a port in it. Binary frames are its bytes;
        the text frame {"end": true} says that this side sends no more."""

    @endpoint("WS", "/apps/door", permission="any")
    def apps_door(self) -> bytes:
        """WebSocket: a connection to this server as a browser would make it, who signs in like any other:
        the bytes are HTTP, the host names those of apps below `localhost`, and `argosy.localhost` for the
        start page. Frames as in `session_forward`."""

    @endpoint("WS", "/sessions/{session}/shell", permission="sessions.enter")
    def session_shell(
        self,
        session: str,
        *,
        id: Annotated[str, "of a terminal that goes on; empty: a new one"] = "",
        seen: Annotated[int, "bytes of its output that the reader has; -1: what is still known"] = -1,
        acks: Annotated[bool, "the reader says {seen} from time to time: what has arrived"] = False,
        watch: Annotated[bool, "only look: nothing can be typed; no id: the one opened last"] = False,
        command: Annotated[str | None, "instead of a login shell"] = None,
        rows: Annotated[int, "of the terminal"] = 24,
        columns: Annotated[int, "of the terminal"] = 80,
    ) -> bytes:
        """WebSocket: a terminal in a session, which goes on when the line is cut. The first text frame is
        JSON {id, from}: how it is found again, and which byte of its output comes next; then as in
        `shell`. With `acks` the text frame {"seen": N} says that N bytes of its output have arrived: then
        none is lost however much was under way when a line is cut."""

    @endpoint("WS", "/sessions/{session}/ssh", permission="sessions.enter")
    def session_ssh(self, session: str, *, key: Annotated[str, "the public key that may log in"]) -> bytes:
        """WebSocket: an ssh server in the session, for one connection. The first line is JSON {host_key};
        what follows is ssh's own protocol. Frames as in `session_forward`."""

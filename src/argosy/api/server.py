"""The server itself: whether it is there, how it is, and how it goes."""

from __future__ import annotations

from argosy.api.endpoint import Done, Reply, Request, endpoint


class Health(Reply, frozen=True, kw_only=True, omit_defaults=True):
    version: str
    api: int  # raised when old clients can no longer talk to the server
    pid: int
    started_ms: int
    state_dir: str = ""  # only told over the local socket
    store: str = ""


class ServerStatus(Reply, frozen=True, kw_only=True, omit_defaults=True):
    health: Health
    memory_bytes: int
    listening: tuple[str, ...]
    clusters: int
    jobs_live: int
    log_file: str = ""
    certificate: str = ""  # of TLS: its hosts, until when, and what is wrong with the next one


class PruneRequest(Request, frozen=True, kw_only=True, omit_defaults=True):
    days: int = 0  # what ended earlier goes; 0: as the server is set
    dry_run: bool = False  # only count


class PruneReply(Reply, frozen=True, kw_only=True, omit_defaults=True):
    workloads: int  # with their attempts, claims and nodes
    events: int
    logs: int  # of attempts
    log_bytes: int
    files: int  # uploaded ones
    freed_bytes: int  # of the database, given back to the disk
    before_ms: int  # what ended earlier went
    dry_run: bool = False


class ServerCalls:
    @endpoint("GET", "/health", permission="open", any_version=True)
    def health(self) -> Health:
        """Is the server there, and which version?"""

    @endpoint("GET", "/server", permission="server.read")
    def server_status(self) -> ServerStatus:
        """How the server is."""

    @endpoint("POST", "/server/prune", PruneRequest, permission="server.write")
    def server_prune(self, days: int = 0, dry_run: bool = False) -> PruneReply:
        """Forget old finished work, events, logs and files now. The server does it once a day by itself."""

    @endpoint("POST", "/server/stop", permission="server.write", any_version=True)
    def server_stop(self) -> Done:
        """Stop the server; ranks go on.

        Also one of another version: that is how to get rid of it.
        """

"""Apps: what runs in a session and is reached through the proxy; and the levels of isolation on its node."""

from __future__ import annotations

from enum import StrEnum
from fnmatch import fnmatchcase

import msgspec


class Isolation(StrEnum):
    """How well a session is kept apart from others on its node; see docs/sessions.md for what each means."""

    PROCESS = "process"  # programs of one user: for a machine of one's own
    SANDBOX = "sandbox"  # namespaces of its own: files, processes, memory, network
    SANDBOX_LITE = "sandbox-lite"  # Landlock alone, where namespaces are forbidden
    USER = "user"  # a sandbox, and a user id of its own for each person: where the agent is root
    CONTAINER = "container"  # an image in a container engine


class Network(StrEnum):
    """What the programs of a session reach."""

    DEFAULT = ""  # outbound in a sandbox, else host
    NONE = "none"  # nothing but themselves
    OUTBOUND = "outbound"  # other machines, through a proxy of the node; never the node itself
    NAT = "nat"  # as outbound, by every protocol: where the node has pasta
    HOST = "host"  # as programs of the node do: no sandbox has that


class App(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """One program with a face. `command` is shell text; in it stand `$ARGOSY_APP_SOCKET` or
    `$ARGOSY_APP_PORT`, `$ARGOSY_APP_DIR` (its own settings) and `$HOME` (the session's files).

    Without a command it is a port that the user's own program opens, or, where it listens to nothing either,
    the terminal and ssh that every session has.
    """

    name: str
    title: str = ""
    about: str = ""
    command: str = ""
    listens: str = ""  # socket | port; "": to nothing, so nothing is proxied
    port: int = 0  # in the session's own network; 0: any that is free
    ready: str = "/"  # a path that answers below 500 when the app can be used; "": it can be at once
    quiet: tuple[
        str, ...
    ] = ()  # patterns of paths whose requests are no activity: a page that looks by itself
    kernels: str = ""  # a path that lists Jupyter kernels with their `execution_state`
    needs: tuple[str, ...] = ()  # Python packages that are installed once on each node, and kept
    program: str = ""  # that must be there, when `needs` does not bring it: "this one | these two"
    env: dict[str, str] = {}

    @property
    def is_proxied(self) -> bool:
        return bool(self.listens)

    def is_quiet(self, path: str) -> bool:
        """
        >>> App(name="x", quiet=("/api/status", "/data/*")).is_quiet("/data/runs?x=1")
        True
        """
        path = path.partition("?")[0]
        return any(fnmatchcase(path, pattern) for pattern in self.quiet)


class Idle(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """When a session that nobody uses is put to rest or ended. Of times 0 is never, and None as its queue or
    its pool says, which is never where they say nothing."""

    after_s: int | None = None  # nothing happened for so long
    gpu_after_s: int | None = None  # its GPUs did nothing for so long, though somebody types
    max_s: int | None = None  # since it started, whatever happens
    then: str = "rest"  # rest: what it keeps stays, `start` brings it back; end: it is over
    warn_s: int = 600  # so long before that people are warned, at most half of the time itself

    def warns_s(self, limit_s: int) -> int:
        """
        >>> Idle().warns_s(1800), Idle().warns_s(60)
        (600, 30)
        """
        return min(self.warn_s, limit_s // 2)

"""What both clients share: settings, headers, retries, and methods that take several calls."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from argosy import __version__
from argosy.api.endpoint import Call
from argosy.api.endpoints import Calls
from argosy.api.location import Location, locate
from argosy.client.connection import CONNECT_TIMEOUT_S, REPLY_TIMEOUT_S, Broken, unreachable
from argosy.client.flow import Aside, FlowMethod
from argosy.client.frames import LogPiece
from argosy.client.progress import OnProgress, Sent, is_filled_here, needs_files
from argosy.client.sign_ins import signed_in
from argosy.model.errors import ArgosyError

if TYPE_CHECKING:
    from argosy.api.prices import RefreshReply
    from argosy.model.task import Task

RECONNECT_FOR_S: Final = 120.0  # how long a followed log waits for a server that went away
STARTING_FOR_S: Final = 90.0  # how long a call waits for a server that listens and is not ready
BACKOFF_FIRST_S: Final = 0.05
_BACKOFF_MOST_S: Final = 2.0


def new_key() -> str:
    """An idempotency key."""
    return os.urandom(12).hex()


class SharedClient(Calls):
    """Settings of a client, and the methods that both have. Every endpoint is a method too: see `api`."""

    def __init__(
        self,
        location: Location | None = None,
        *,
        env: Mapping[str, str] | None = None,
        start: bool = True,
        connect_timeout_s: float = CONNECT_TIMEOUT_S,
        reply_timeout_s: float = REPLY_TIMEOUT_S,
        on_start: Callable[[], None] | None = None,
    ) -> None:
        self.env: Mapping[str, str] = os.environ if env is None else env
        self.location = signed_in(locate(self.env)) if location is None else location
        self._start = start and self.location.is_default
        self._on_start = on_start  # told before the local server is started
        self._connect_timeout_s = connect_timeout_s
        self._reply_timeout_s = reply_timeout_s
        self._shaken_hands = False

    def _headers(self, call: Call[Any]) -> list[tuple[str, str]]:
        headers = [("user-agent", f"argosy/{__version__}"), ("accept", "*/*")]
        if call.parts:
            headers.append(("content-type", call.media_type))
        if self.location.token:
            headers.append(("authorization", f"Bearer {self.location.token}"))
        if self.location.project:
            headers.append(("x-argosy-project", self.location.project))
        return headers

    def _refused(self, error: OSError, *, may_start: bool) -> ArgosyError | None:
        """Why no connection could be opened; None: there is no server, and it may be started."""
        if isinstance(error, TimeoutError):
            return unreachable(self.location, f"no answer within {self._connect_timeout_s:g} s")
        if may_start and isinstance(error, FileNotFoundError | ConnectionRefusedError):
            if self._start:
                return None
            if self.location.socket:
                return unreachable(self.location, "it is not running")
        return unreachable(self.location, error.strerror or str(error))

    @FlowMethod
    async def send_files(
        self, task: Task, *, cwd: Path | None = None, on_progress: OnProgress | None = None, cluster: str = ""
    ) -> Sent:
        """Send workdir and local mounts of `task`, only what the server lacks, and fill the buckets that it
        fills from here. Paths are relative to `cwd`.
        `cluster`: what they are for; nothing is sent when it does not exist.

        Errors: "workdir-missing", "spec-unreadable", "conflict"; see `files.scan`. "not-found".
        """
        filled = any(is_filled_here(mount) for mount in task.storage_mounts)
        if not (needs_files(task) or filled):
            return Sent(task)
        if cluster:
            from argosy.api.clusters import ClusterCalls

            await ClusterCalls.cluster(cluster)
        files, sent_bytes = 0, 0
        if filled:
            from argosy.api.server import ServerCalls
            from argosy.client.client import Client
            from argosy.client.filling import fill_buckets

            await ServerCalls.health()  # starts it when need be
            with Client(self.location, env=self.env, start=False) as client:
                files, sent_bytes = await Aside(
                    fill_buckets(task, client, cwd=cwd or Path.cwd(), on_progress=on_progress)
                )
        from argosy.client.sending import send_files

        sent: Sent = await Aside(
            send_files(
                task,
                cwd=cwd or Path.cwd(),
                env=self.env,
                home=self.location.home,
                now_ns=time.time_ns(),
                on_progress=on_progress,
            )
        )
        return sent._replace(files=sent.files + files, sent_bytes=sent.sent_bytes + sent_bytes)

    @FlowMethod
    async def refresh_prices(
        self, provider: str, *, force: bool = False, tell: Callable[[str], None] | None = None
    ) -> RefreshReply:
        """Get a provider's present prices from its own service; returns when it is done, and calls it off
        when it is interrupted.

        `tell` gets words on how far it is. Errors: "transient", "unauthorized", "unsupported", "conflict"
        (somebody else called it off).
        """
        from argosy.api.prices import PriceCalls

        reply = await PriceCalls.catalog_refresh(provider, force=force)
        try:
            while reply.state == "running":
                if tell is not None:
                    tell(reply.progress)
                reply = await PriceCalls.catalog_refreshing(provider, reply.step)
        except ArgosyError:
            raise
        except BaseException:  # interrupted, or cancelled
            try:
                await PriceCalls.catalog_refresh(provider, cancel=True)
            except (ArgosyError, KeyboardInterrupt):
                pass
            raise
        if reply.state != "done":
            raise ArgosyError(
                "conflict",
                f"the refresh of {provider} was cancelled; the old prices are kept",
                hint=f"`argosy catalog refresh {provider}` starts it again",
            )
        return reply


class Resumed:
    """Where a log goes on after a lost connection: after the last whole frame, so that nothing is lost and
    nothing comes twice. After `for_s` without an answer it gives up."""

    def __init__(self, location: Location, for_s: float, **wanted: Any) -> None:
        self._location, self._for_s, self._wanted = location, for_s, wanted
        self._lost_at: float | None = None
        self._begun = False
        self._wait_s = BACKOFF_FIRST_S

    def call(self) -> Call[bytes]:
        """What to ask for now."""
        if self._wanted.get("cursor") is not None:
            self._wanted["tail"] = None
        from argosy.api.jobs import LogCalls

        return LogCalls.logs(**self._wanted)

    def seen(self, piece: LogPiece) -> bool:
        """Whether it was the last piece."""
        self._begun, self._lost_at, self._wait_s = True, None, BACKOFF_FIRST_S
        self._wanted["cursor"] = piece.frame.cursor or self._wanted["cursor"]
        return piece.frame.end

    def lost(self, error: Exception | None, now_s: float) -> float:
        """How long to wait before trying again (error None: the stream ended early). Raises what cannot be
        mended."""
        if isinstance(error, ArgosyError):
            if error.code not in ("server-unreachable", "server-starting") or not self._begun:
                raise error
            why = error.what
        elif isinstance(error, Broken) or error is None:
            self._begun, why = True, "the stream ended early" if error is None else str(error)
        else:
            raise error
        self._lost_at = now_s if self._lost_at is None else self._lost_at
        if now_s - self._lost_at >= self._for_s:
            raise unreachable(self._location, why)
        wait_s, self._wait_s = self._wait_s, min(self._wait_s * 2, _BACKOFF_MOST_S)
        return wait_s

"""The blocking client: one method per endpoint of the API, and streams of logs."""

from __future__ import annotations

import contextlib
import os
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Final, Self, TypeVar

from argosy import __version__
from argosy.api import sharing as s
from argosy.api import types as t
from argosy.api.location import Location, locate
from argosy.client import calls
from argosy.client.calls import Call
from argosy.client.connection import CONNECT_TIMEOUT_S, REPLY_TIMEOUT_S, Broken, Connection, unreachable
from argosy.client.frames import FrameDecoder, LogPiece
from argosy.client.progress import Flow, OnProgress, Sent, needs_files
from argosy.client.wire import ReplyParser
from argosy.model.errors import ArgosyError
from argosy.model.resources import Autostop
from argosy.model.task import Task
from argosy.model.tenancy import Tenancy
from argosy.model.tree import Tree

T = TypeVar("T")

RECONNECT_FOR_S: Final = 120.0  # how long a followed log waits for a server that went away
STARTING_FOR_S: Final = 30.0  # how long a call waits for a server that listens and is not ready
_BACKOFF_FIRST_S: Final = 0.05
_BACKOFF_MOST_S: Final = 2.0


def new_key() -> str:
    """An idempotency key."""
    return os.urandom(12).hex()


def headers_of(call_media_type: str, has_body: bool, token: str, project: str = "") -> list[tuple[str, str]]:
    headers = [("user-agent", f"argosy/{__version__}"), ("accept", "*/*")]
    if has_body:
        headers.append(("content-type", call_media_type))
    if token:
        headers.append(("authorization", f"Bearer {token}"))
    if project:
        headers.append(("x-argosy-project", project))
    return headers


class Client:
    """Talks to one server. Safe to share between threads.

    `location` None: as the environment says. `start` lets the first call start the local server when there is
    none. Every method raises ArgosyError: "server-unreachable", "unauthorized", "version-mismatch", and what
    its endpoint says.

    >>> client = Client(env={"HOME": "/nonexistent"}, start=False)
    >>> client.status()
    Traceback (most recent call last):
    ...
    argosy.model.errors.ArgosyError: no Argosy server answers at /nonexistent/.argosy/run/server.sock: it is
    not running
    """

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
        self.location = locate(self.env) if location is None else location
        self._start = start and self.location.is_default
        self._on_start = on_start  # told before the local server is started
        self._connect_timeout_s = connect_timeout_s
        self._reply_timeout_s = reply_timeout_s
        self._idle: list[Connection] = []
        self._pid = os.getpid()
        self._shaken_hands = False

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Drop idle connections; the next call opens a new one."""
        while self._idle:
            self._idle.pop().close()

    # Carrying out calls --------------------------------------------------------------------------------------  # noqa: E501

    def send(self, call: Call[T]) -> T:
        """Carry out one call. A request that a dying connection swallowed is repeated once: each is
        idempotent."""
        deadline = time.monotonic() + STARTING_FOR_S
        while True:
            try:
                self._shake_hands()
                return self._exchange(call)
            except ArgosyError as error:
                if error.code != "server-starting" or time.monotonic() > deadline:
                    raise
                time.sleep(_BACKOFF_FIRST_S)

    def run(self, flow: Flow[T]) -> T:
        """Carry out a flow of calls (see `sending`) to its end."""
        try:
            call = next(flow)
            while True:
                call = flow.send(self.send(call))
        except StopIteration as end:
            result: T = end.value
            return result

    def send_files(
        self, task: Task, *, cwd: Path | None = None, on_progress: OnProgress | None = None
    ) -> Sent:
        """Send workdir and local mounts of `task`, only what the server lacks. Paths are relative to `cwd`.

        Errors: "workdir-missing", "path-escapes", "spec-unreadable", "conflict"; see `files.scan`.
        """
        if not needs_files(task):
            return Sent(task)
        from argosy.client.sending import send_files

        return self.run(
            send_files(
                task,
                cwd=cwd or Path.cwd(),
                env=self.env,
                home=self.location.home,
                now_ns=time.time_ns(),
                on_progress=on_progress,
            )
        )

    def _shake_hands(self) -> None:
        if not self._shaken_hands:
            calls.check_version(self._exchange(calls.health()), __version__)
            self._shaken_hands = True

    def _exchange(self, call: Call[T]) -> T:
        for last in (False, True):
            connection = self._take()
            parser = ReplyParser()
            try:
                self._request(connection, call)
                body = b"".join(connection.read(parser, self._reply_timeout_s))
            except Broken as error:
                connection.close()
                if last or error.answered:
                    raise unreachable(self.location, str(error)) from None
                continue
            except BaseException:
                connection.close()  # a reply may still come: this connection is out of step
                raise
            self._give(connection, parser)
            return call.decode(parser.status, body)
        raise AssertionError("unreachable")

    def _request(self, connection: Connection, call: Call[T]) -> None:
        location = self.location
        headers = headers_of(call.media_type, bool(call.body), location.token, location.project)
        target = self.location.prefix + call.target
        connection.send(call.endpoint.method, target, headers, call.body, self._reply_timeout_s)

    def _take(self) -> Connection:
        if os.getpid() != self._pid:  # forked: the parent's connections are not ours to use or to close
            self._idle, self._pid = [], os.getpid()
        while self._idle:
            connection = self._idle.pop()
            if connection.is_usable():
                return connection
            connection.close()
        try:
            return Connection(self.location, self._connect_timeout_s)
        except TimeoutError:
            raise unreachable(self.location, f"no answer within {self._connect_timeout_s:g} s") from None
        except (FileNotFoundError, ConnectionRefusedError) as error:
            if not self._start:
                why = "it is not running" if self.location.socket else error.strerror or str(error)
                raise unreachable(self.location, why) from None
        except OSError as error:
            raise unreachable(self.location, error.strerror or str(error)) from None
        from argosy.client.local_server import ensure_running

        if self._on_start is not None:
            self._on_start()
        ensure_running(self.location, self.env)
        try:
            return Connection(self.location, self._connect_timeout_s)
        except OSError as error:
            raise unreachable(self.location, error.strerror or str(error)) from None

    def _give(self, connection: Connection, parser: ReplyParser) -> None:
        if parser.keep_alive and len(self._idle) < 8:
            self._idle.append(connection)
        else:
            connection.close()

    # Endpoints -----------------------------------------------------------------------------------------------  # noqa: E501

    def health(self) -> t.Health:
        """Whether the server is there, and its version."""
        return self._exchange(calls.health())

    def plan(
        self,
        task: Task,
        *,
        prices: bool = False,
        limit: int = 20,
        distinct: bool = False,
        objective: str = "",
        managed: bool = True,
        compare: bool = False,
        html: bool = False,
    ) -> t.PlanReply:
        """Where a task would run, at what price, and why not elsewhere. Changes nothing.

        `prices`: also what all known clouds would take; `limit`, `objective` (cost, time, carbon; "": that of
        the task), `compare` and `html` belong to it. `managed`: as a managed job, which may meet a deadline
        with spot machines; else as a cluster.
        """
        call = calls.plan(
            task,
            prices=prices,
            limit=limit,
            distinct=distinct,
            objective=objective,
            managed=managed,
            compare=compare,
            html=html,
        )
        return self.send(call)

    def plan_pipeline(
        self,
        tasks: Sequence[Task],
        *,
        edges: Sequence[tuple[int, int]] | None = None,
        objective: str = "cost",
    ) -> t.PipelineReply:
        """Where all tasks of a pipeline would run, with the traffic between them. Changes nothing.

        `edges`: pairs of positions in `tasks`; None: each after the one before. `objective`: cost or time.
        """
        return self.send(calls.plan_pipeline(tasks, edges=edges, objective=objective))

    def launch(
        self,
        task: Task,
        *,
        cluster: str | None = None,
        autostop: Autostop | None = None,
        down: bool = False,
        setup: bool = True,
        user: str = "",
        project: str = "",
        key: str = "",
    ) -> t.LaunchReply:
        """Make or reuse a cluster and run `task` on it. Files must have been sent: see `files.send_files`.

        `project`: whose cluster it is and whose budget and quota it counts in; "": that of ARGOSY_PROJECT,
        else `default`.
        """
        return self.send(
            calls.launch(
                t.LaunchRequest(
                    task=task,
                    cluster=cluster,
                    user=user,
                    autostop=autostop,
                    down=down,
                    setup=setup,
                    project=project,
                    key=key or new_key(),
                )
            )
        )

    def exec(
        self, cluster: str, tasks: Sequence[Task], *, user: str = "", project: str = "", key: str = ""
    ) -> t.JobsReply:
        """Queue jobs on an existing cluster, all or none. `project` "": they count in the cluster's."""
        request = t.ExecRequest(
            cluster=cluster, tasks=tuple(tasks), user=user, project=project, key=key or new_key()
        )
        return self.send(calls.exec_(request))

    def jobs_launch(
        self, tasks: Sequence[Task], *, user: str = "", project: str = "", key: str = ""
    ) -> t.JobsReply:
        """Queue managed jobs, all or none: each owns its nodes and recovers."""
        request = t.JobsLaunchRequest(tasks=tuple(tasks), user=user, project=project, key=key or new_key())
        return self.send(calls.jobs_launch(request))

    def status(self, *, refresh: bool = False, all: bool = False) -> t.StatusReply:
        """Clusters and live managed jobs."""
        return self.send(calls.status(refresh=refresh, all=all))

    def cluster(self, name: str) -> t.ClusterView:
        """One cluster. Errors: "not-found"."""
        return self.send(calls.cluster(name))

    def stop(self, name: str) -> t.Done:
        """Let a cluster rest, keeping its disks."""
        return self.send(calls.stop(name))

    def start(self, name: str) -> t.Done:
        """Bring a cluster back, or replace its dead nodes."""
        return self.send(calls.start(name))

    def down(self, name: str) -> t.Done:
        """End a cluster and its jobs."""
        return self.send(calls.down(name))

    def autostop(self, name: str, policy: Autostop) -> t.Done:
        """Set when an idle cluster rests or goes."""
        return self.send(calls.autostop(name, policy))

    def queue(
        self,
        cluster: str | None = None,
        *,
        live: bool = False,
        limit: int | None = None,
        after: str | None = None,
    ) -> t.JobList:
        """Jobs of a cluster, or managed jobs: one page."""
        return self.send(calls.queue(cluster, live=live, limit=limit, after=after))

    def job(self, job_id: str) -> t.JobView:
        """One job, by id."""
        return self.send(calls.job(job_id))

    def cancel(self, cluster: str | None, jobs: Sequence[str] = (), *, all: bool = False) -> t.Done:
        """Cancel jobs of a cluster, or managed jobs, by number or id."""
        return self.send(calls.cancel(cluster, jobs, all=all))

    def events(
        self, subject: str | None = None, *, after: int | None = None, limit: int | None = None
    ) -> t.EventList:
        """What happened."""
        return self.send(calls.events(subject, after=after, limit=limit))

    def costs(
        self, days: int | None = None, *, by: str | None = None, against: str | None = None
    ) -> t.CostReply:
        """What claims cost, in micro-USD; `by` user, project, task, infra or day also in groups; `against` a
        cloud."""
        return self.send(calls.costs(days, by=by, against=against))

    def check(self) -> t.CheckReply:
        """Which infrastructure works, and what to do about the rest."""
        return self.send(calls.check())

    def offers(self, gpu: str | None = None) -> t.OfferList:
        """What can be had."""
        return self.send(calls.offers(gpu))

    def gpus(
        self,
        gpu: str | None = None,
        *,
        infra: str | None = None,
        spot: bool = False,
        cheapest: bool = False,
        all: bool = False,
    ) -> t.GpuList:
        """Accelerators that can be had or are priced: `A100`, `A100:8`, or all models."""
        return self.send(calls.gpus(gpu, infra=infra, spot=spot, cheapest=cheapest, all=all))

    def regions(self, provider: str | None = None, *, area: str | None = None) -> t.RegionList:
        """Regions of providers, and what they have; `area`: eu, eea, a country or a continent."""
        return self.send(calls.regions(provider, area=area))

    def catalog(self) -> t.CatalogReply:
        """How old the known prices are."""
        return self.send(calls.catalog())

    def catalog_refresh(
        self, provider: str, *, force: bool = False, tell: Callable[[str], None] | None = None
    ) -> t.RefreshReply:
        """Get a provider's present prices from its own service; returns when it is done, and calls it off
        when it is interrupted.

        `tell` gets words on how far it is. Errors: "transient", "unauthorized", "unsupported", "conflict"
        (somebody else called it off).
        """
        reply = self.send(calls.catalog_refresh(provider, force=force))
        try:
            while reply.state == "running":
                if tell is not None:
                    tell(reply.progress)
                reply = self.send(calls.catalog_refreshing(provider, reply.step))
        except KeyboardInterrupt:
            with contextlib.suppress(ArgosyError, KeyboardInterrupt):
                self.send(calls.catalog_refresh(provider, cancel=True))
            raise
        if reply.state != "done":
            raise calls.called_off(provider)
        return reply

    def catalog_refreshing(self, provider: str, after: int = 0) -> t.RefreshReply:
        """How a refresh is; waits for a step beyond `after`. Errors: what it failed with; "not-found"."""
        return self.send(calls.catalog_refreshing(provider, after))

    def budgets(self) -> t.BudgetList:
        """Budgets of projects, and what is spent this month."""
        return self.send(calls.budgets())

    def set_budget(self, request: t.BudgetRequest) -> t.BudgetList:
        """Set the budget of a project; 0 removes it."""
        return self.send(calls.set_budget(request))

    def tenancy(self) -> s.TenancyReply:
        """Who shares what: queues with their usage, groups, presets, policy."""
        return self.send(calls.tenancy())

    def set_tenancy(self, tenancy: Tenancy, *, rev: int | None = None, check: bool = False) -> s.TenancyReply:
        """Set all of it anew; `rev`: only if nobody has written since. `check`: only say what is wrong in it.

        Errors: "spec-invalid", "conflict", "forbidden"."""
        return self.send(calls.set_tenancy(s.TenancyRequest(tenancy=tenancy, rev=rev, check=check)))

    def set_queue(self, request: s.QueueRequest) -> s.TenancyReply:
        """Change, make or remove one queue. Errors: "spec-invalid", "not-found", "forbidden"."""
        return self.send(calls.set_queue(request))

    def explain_queue(
        self, queue: str, *, request: str | None = None, nodes: int | None = None
    ) -> s.QueueExplanation:
        """A queue in words; `request`: also what `A100:8` (on so many nodes) would meet. Errors: "not-found",
        "usage"."""
        return self.send(calls.explain_queue(queue, request=request, nodes=nodes))

    def pools(self) -> s.PoolList:
        """Machines, who holds which part of them, who waits."""
        return self.send(calls.pools())

    def explain(self, workload_id: str) -> s.ExplainReply:
        """Why a job or cluster waits, or is where it is; and its history. Errors: "not-found"."""
        return self.send(calls.explain(workload_id))

    def missing_chunks(self, digests: Sequence[str]) -> t.ChunksReply:
        """Which chunks the server does not have."""
        return self.send(calls.missing_chunks(digests))

    def put_chunks(self, chunks: Sequence[tuple[str, bytes]]) -> t.Done:
        """Send a pack of chunks: (hex SHA-256, bytes) each; at most 64 MiB in all."""
        return self.send(calls.put_chunks(chunks))

    def put_tree(self, tree: Tree) -> t.TreeReply:
        """Store a tree whose chunks the server has."""
        return self.send(calls.put_tree(tree))

    def server_status(self) -> t.ServerStatus:
        """How the server is."""
        return self.send(calls.server_status())

    def server_stop(self) -> t.Done:
        """Stop the server; ranks go on. Also one of another version: that is how to get rid of it."""
        return self._exchange(calls.server_stop())

    # Logs ----------------------------------------------------------------------------------------------------  # noqa: E501

    def logs(
        self,
        job_id: str,
        *,
        follow: bool = True,
        tail: int | None = None,
        rank: int | None = None,
        cursor: str | None = None,
        attempt: int | None = None,
        reconnect_for_s: float = RECONNECT_FOR_S,
    ) -> Iterator[LogPiece]:
        """The frames of a job's log, the last one with `end`.

        When the connection is lost or the server restarts, it goes on after the last whole frame: nothing is
        lost and nothing comes twice. After `reconnect_for_s` without an answer it raises
        "server-unreachable".
        """
        self._shake_hands()
        lost_at: float | None = None
        begun = False
        wait_s = _BACKOFF_FIRST_S
        while True:
            call = calls.logs(job_id, follow=follow, tail=tail, rank=rank, cursor=cursor, attempt=attempt)
            try:
                for piece in self._stream(call):
                    begun, lost_at, wait_s = True, None, _BACKOFF_FIRST_S
                    cursor = piece.frame.cursor or cursor
                    yield piece
                    if piece.frame.end:
                        return
                begun, why = True, "the stream ended early"
            except Broken as error:
                begun, why = True, str(error)
            except ArgosyError as error:
                if error.code not in ("server-unreachable", "server-starting") or not begun:
                    raise
                why = error.what
            now = time.monotonic()
            lost_at = now if lost_at is None else lost_at
            if now - lost_at >= reconnect_for_s:
                raise unreachable(self.location, why)
            time.sleep(wait_s)
            wait_s = min(wait_s * 2, _BACKOFF_MOST_S)

    def _stream(self, call: Call[bytes]) -> Iterator[LogPiece]:
        connection = self._take()
        parser, decoder = ReplyParser(), FrameDecoder()
        refused: list[bytes] = []
        try:
            self._request(connection, call)
            for data in connection.read(parser, None):
                if parser.status >= 400:
                    refused.append(data)
                else:
                    yield from decoder.feed(data)
        finally:
            connection.close()
        if parser.status >= 400:
            raise calls.error_of(parser.status, b"".join(refused))

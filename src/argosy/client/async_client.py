"""The async client: the same methods as `client.Client`, on asyncio streams."""

from __future__ import annotations

import asyncio
import contextlib
import os
import time
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Self, TypeVar

from argosy import __version__
from argosy.api import sharing as s
from argosy.api import types as t
from argosy.api.location import Location, locate
from argosy.client import calls
from argosy.client.calls import Call
from argosy.client.client import RECONNECT_FOR_S, STARTING_FOR_S, headers_of, new_key
from argosy.client.connection import (
    CONNECT_TIMEOUT_S,
    READ_BYTES,
    REPLY_TIMEOUT_S,
    Broken,
    check_owner,
    host_of,
    unreachable,
)
from argosy.client.frames import FrameDecoder, LogPiece
from argosy.client.progress import Flow, OnProgress, Sent, needs_files
from argosy.client.wire import ReplyParser, WireError, render_head
from argosy.model.errors import ArgosyError
from argosy.model.resources import Autostop
from argosy.model.task import Task
from argosy.model.tenancy import Tenancy
from argosy.model.tree import Tree

T = TypeVar("T")

_BACKOFF_FIRST_S = 0.05
_BACKOFF_MOST_S = 2.0


class _Stream:
    """One connection, one request at a time."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.reader = reader
        self.writer = writer

    def is_usable(self) -> bool:
        return not (self.writer.is_closing() or self.reader.at_eof())

    def close(self) -> None:
        self.writer.close()

    async def send(
        self, location: Location, call: Call[T], headers: Sequence[tuple[str, str]], timeout_s: float
    ) -> None:
        """Raises Broken."""
        target = location.prefix + call.target
        size = sum(map(len, call.body))
        try:
            async with asyncio.timeout(timeout_s):
                self.writer.write(render_head(call.endpoint.method, target, host_of(location), headers, size))
                for part in call.body:
                    self.writer.write(part)
                    await self.writer.drain()
        except TimeoutError as error:
            raise Broken(f"the server took nothing for {timeout_s:.0f} s") from error
        except (BrokenPipeError, ConnectionResetError):
            return  # it may have answered before it closed
        except OSError as error:
            raise Broken(error.strerror or str(error)) from error

    async def read(self, parser: ReplyParser, timeout_s: float | None) -> AsyncIterator[bytes]:
        """Pieces of the body. Raises Broken."""
        answered = False
        while not parser.done:
            try:
                async with asyncio.timeout(timeout_s):
                    data = await self.reader.read(READ_BYTES)
            except TimeoutError as error:
                raise Broken(f"no answer within {timeout_s or 0:.0f} s", answered=answered) from error
            except OSError as error:
                raise Broken(error.strerror or str(error), answered=answered) from error
            answered = answered or bool(data)
            try:
                if data:
                    pieces = parser.feed(data)
                else:
                    parser.feed_end()
                    pieces = []
            except WireError as error:
                raise Broken(str(error), answered=answered) from error
            for piece in pieces:
                yield piece


class AsyncClient:
    """Talks to one server from one event loop. See `Client` for arguments and errors.

    >>> async def main() -> None:
    ...     async with AsyncClient(env={"HOME": "/nonexistent"}, start=False) as client:
    ...         try:
    ...             await client.status()
    ...         except ArgosyError as error:
    ...             print(error.code)
    >>> asyncio.run(main())
    server-unreachable
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
        self._on_start = on_start
        self._connect_timeout_s = connect_timeout_s
        self._reply_timeout_s = reply_timeout_s
        self._idle: list[_Stream] = []
        self._shaken_hands = False

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.close()

    async def close(self) -> None:
        """Drop idle connections; the next call opens a new one."""
        while self._idle:
            stream = self._idle.pop()
            stream.close()
            try:
                await stream.writer.wait_closed()
            except OSError:
                pass

    # Carrying out calls --------------------------------------------------------------------------------------  # noqa: E501

    async def send(self, call: Call[T]) -> T:
        """Carry out one call. A request that a dying connection swallowed is repeated once: each is
        idempotent."""
        deadline = time.monotonic() + STARTING_FOR_S
        while True:
            try:
                await self._shake_hands()
                return await self._exchange(call)
            except ArgosyError as error:
                if error.code != "server-starting" or time.monotonic() > deadline:
                    raise
                await asyncio.sleep(_BACKOFF_FIRST_S)

    async def run(self, flow: Flow[T]) -> T:
        """Carry out a flow of calls (see `sending`) to its end; its own work happens in a thread."""

        def step(answer: object) -> tuple[calls.AnyCall | None, T | None]:
            try:
                return (next(flow) if answer is None else flow.send(answer)), None
            except StopIteration as end:
                return None, end.value

        call, result = await asyncio.to_thread(step, None)
        while call is not None:
            call, result = await asyncio.to_thread(step, await self.send(call))
        return result  # type: ignore[return-value]  # a flow that ended has a result

    async def send_files(
        self, task: Task, *, cwd: Path | None = None, on_progress: OnProgress | None = None
    ) -> Sent:
        """Send workdir and local mounts of `task`, only what the server lacks. Paths are relative to
        `cwd`."""
        if not needs_files(task):
            return Sent(task)
        from argosy.client.sending import send_files

        return await self.run(
            send_files(
                task,
                cwd=cwd or Path.cwd(),
                env=self.env,
                home=self.location.home,
                now_ns=time.time_ns(),
                on_progress=on_progress,
            )
        )

    async def _shake_hands(self) -> None:
        if not self._shaken_hands:
            calls.check_version(await self._exchange(calls.health()), __version__)
            self._shaken_hands = True

    async def _exchange(self, call: Call[T]) -> T:
        for last in (False, True):
            stream = await self._take()
            parser = ReplyParser()
            try:
                await stream.send(self.location, call, self._headers(call), self._reply_timeout_s)
                body = b"".join([piece async for piece in stream.read(parser, self._reply_timeout_s)])
            except Broken as error:
                stream.close()
                if last or error.answered:
                    raise unreachable(self.location, str(error)) from None
                continue
            except BaseException:
                stream.close()  # cancelled: a reply may still come
                raise
            if parser.keep_alive and len(self._idle) < 64:
                self._idle.append(stream)
            else:
                stream.close()
            return call.decode(parser.status, body)
        raise AssertionError("unreachable")

    def _headers(self, call: Call[T]) -> list[tuple[str, str]]:
        location = self.location
        return headers_of(call.media_type, bool(call.body), location.token, location.project)

    async def _take(self) -> _Stream:
        while self._idle:
            stream = self._idle.pop()
            if stream.is_usable():
                return stream
            stream.close()
        try:
            return await self._open()
        except (FileNotFoundError, ConnectionRefusedError) as error:
            if not self._start:
                why = "it is not running" if self.location.socket else error.strerror or str(error)
                raise unreachable(self.location, why) from None
        except TimeoutError:
            raise unreachable(self.location, f"no answer within {self._connect_timeout_s:g} s") from None
        except OSError as error:
            raise unreachable(self.location, error.strerror or str(error)) from None
        from argosy.client.local_server import ensure_running

        if self._on_start is not None:
            self._on_start()
        await asyncio.to_thread(ensure_running, self.location, self.env)
        try:
            return await self._open()
        except OSError as error:
            raise unreachable(self.location, error.strerror or str(error)) from None

    async def _open(self) -> _Stream:
        location = self.location
        async with asyncio.timeout(self._connect_timeout_s):
            if location.socket is not None:
                check_owner(location)
                return _Stream(*await asyncio.open_unix_connection(location.socket, limit=READ_BYTES))
            return _Stream(
                *await asyncio.open_connection(
                    location.host, location.port, ssl=location.tls or None, limit=READ_BYTES
                )
            )

    # Endpoints -----------------------------------------------------------------------------------------------  # noqa: E501

    async def health(self) -> t.Health:
        """Whether the server is there, and its version."""
        return await self._exchange(calls.health())

    async def plan(
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
        return await self.send(call)

    async def plan_pipeline(
        self,
        tasks: Sequence[Task],
        *,
        edges: Sequence[tuple[int, int]] | None = None,
        objective: str = "cost",
    ) -> t.PipelineReply:
        """Where all tasks of a pipeline would run, with the traffic between them. Changes nothing.

        `edges`: pairs of positions in `tasks`; None: each after the one before. `objective`: cost or time.
        """
        return await self.send(calls.plan_pipeline(tasks, edges=edges, objective=objective))

    async def launch(
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
        return await self.send(
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

    async def exec(
        self, cluster: str, tasks: Sequence[Task], *, user: str = "", project: str = "", key: str = ""
    ) -> t.JobsReply:
        """Queue jobs on an existing cluster, all or none. `project` "": they count in the cluster's."""
        request = t.ExecRequest(
            cluster=cluster, tasks=tuple(tasks), user=user, project=project, key=key or new_key()
        )
        return await self.send(calls.exec_(request))

    async def jobs_launch(
        self, tasks: Sequence[Task], *, user: str = "", project: str = "", key: str = ""
    ) -> t.JobsReply:
        """Queue managed jobs, all or none: each owns its nodes and recovers."""
        request = t.JobsLaunchRequest(tasks=tuple(tasks), user=user, project=project, key=key or new_key())
        return await self.send(calls.jobs_launch(request))

    async def status(self, *, refresh: bool = False, all: bool = False) -> t.StatusReply:
        """Clusters and live managed jobs."""
        return await self.send(calls.status(refresh=refresh, all=all))

    async def cluster(self, name: str) -> t.ClusterView:
        """One cluster. Errors: "not-found"."""
        return await self.send(calls.cluster(name))

    async def stop(self, name: str) -> t.Done:
        """Let a cluster rest, keeping its disks."""
        return await self.send(calls.stop(name))

    async def start(self, name: str) -> t.Done:
        """Bring a cluster back, or replace its dead nodes."""
        return await self.send(calls.start(name))

    async def down(self, name: str) -> t.Done:
        """End a cluster and its jobs."""
        return await self.send(calls.down(name))

    async def autostop(self, name: str, policy: Autostop) -> t.Done:
        """Set when an idle cluster rests or goes."""
        return await self.send(calls.autostop(name, policy))

    async def queue(
        self,
        cluster: str | None = None,
        *,
        live: bool = False,
        limit: int | None = None,
        after: str | None = None,
    ) -> t.JobList:
        """Jobs of a cluster, or managed jobs: one page."""
        return await self.send(calls.queue(cluster, live=live, limit=limit, after=after))

    async def job(self, job_id: str) -> t.JobView:
        """One job, by id."""
        return await self.send(calls.job(job_id))

    async def cancel(self, cluster: str | None, jobs: Sequence[str] = (), *, all: bool = False) -> t.Done:
        """Cancel jobs of a cluster, or managed jobs, by number or id."""
        return await self.send(calls.cancel(cluster, jobs, all=all))

    async def events(
        self, subject: str | None = None, *, after: int | None = None, limit: int | None = None
    ) -> t.EventList:
        """What happened."""
        return await self.send(calls.events(subject, after=after, limit=limit))

    async def costs(
        self, days: int | None = None, *, by: str | None = None, against: str | None = None
    ) -> t.CostReply:
        """What claims cost, in micro-USD; `by` user, project, task, infra or day also in groups; `against` a
        cloud."""
        return await self.send(calls.costs(days, by=by, against=against))

    async def check(self) -> t.CheckReply:
        """Which infrastructure works, and what to do about the rest."""
        return await self.send(calls.check())

    async def offers(self, gpu: str | None = None) -> t.OfferList:
        """What can be had."""
        return await self.send(calls.offers(gpu))

    async def gpus(
        self,
        gpu: str | None = None,
        *,
        infra: str | None = None,
        spot: bool = False,
        cheapest: bool = False,
        all: bool = False,
    ) -> t.GpuList:
        """Accelerators that can be had or are priced: `A100`, `A100:8`, or all models."""
        return await self.send(calls.gpus(gpu, infra=infra, spot=spot, cheapest=cheapest, all=all))

    async def regions(self, provider: str | None = None, *, area: str | None = None) -> t.RegionList:
        """Regions of providers, and what they have; `area`: eu, eea, a country or a continent."""
        return await self.send(calls.regions(provider, area=area))

    async def catalog(self) -> t.CatalogReply:
        """How old the known prices are."""
        return await self.send(calls.catalog())

    async def catalog_refresh(
        self, provider: str, *, force: bool = False, tell: Callable[[str], None] | None = None
    ) -> t.RefreshReply:
        """Get a provider's present prices from its own service; returns when it is done, and calls it off
        when it is cancelled.

        `tell` gets words on how far it is. Errors: "transient", "unauthorized", "unsupported", "conflict"
        (somebody else called it off).
        """
        reply = await self.send(calls.catalog_refresh(provider, force=force))
        try:
            while reply.state == "running":
                if tell is not None:
                    tell(reply.progress)
                reply = await self.send(calls.catalog_refreshing(provider, reply.step))
        except asyncio.CancelledError:
            with contextlib.suppress(ArgosyError):
                await self.send(calls.catalog_refresh(provider, cancel=True))
            raise
        if reply.state != "done":
            raise calls.called_off(provider)
        return reply

    async def catalog_refreshing(self, provider: str, after: int = 0) -> t.RefreshReply:
        """How a refresh is; waits for a step beyond `after`. Errors: what it failed with; "not-found"."""
        return await self.send(calls.catalog_refreshing(provider, after))

    async def budgets(self) -> t.BudgetList:
        """Budgets of projects, and what is spent this month."""
        return await self.send(calls.budgets())

    async def set_budget(self, request: t.BudgetRequest) -> t.BudgetList:
        """Set the budget of a project; 0 removes it."""
        return await self.send(calls.set_budget(request))

    async def tenancy(self) -> s.TenancyReply:
        """Who shares what: queues with their usage, groups, presets, policy."""
        return await self.send(calls.tenancy())

    async def set_tenancy(
        self, tenancy: Tenancy, *, rev: int | None = None, check: bool = False
    ) -> s.TenancyReply:
        """Set all of it anew; `rev`: only if nobody has written since. `check`: only say what is wrong in it.

        Errors: "spec-invalid", "conflict", "forbidden"."""
        return await self.send(calls.set_tenancy(s.TenancyRequest(tenancy=tenancy, rev=rev, check=check)))

    async def set_queue(self, request: s.QueueRequest) -> s.TenancyReply:
        """Change, make or remove one queue. Errors: "spec-invalid", "not-found", "forbidden"."""
        return await self.send(calls.set_queue(request))

    async def explain_queue(
        self, queue: str, *, request: str | None = None, nodes: int | None = None
    ) -> s.QueueExplanation:
        """A queue in words; `request`: also what `A100:8` (on so many nodes) would meet. Errors: "not-found",
        "usage"."""
        return await self.send(calls.explain_queue(queue, request=request, nodes=nodes))

    async def pools(self) -> s.PoolList:
        """Machines, who holds which part of them, who waits."""
        return await self.send(calls.pools())

    async def explain(self, workload_id: str) -> s.ExplainReply:
        """Why a job or cluster waits, or is where it is; and its history. Errors: "not-found"."""
        return await self.send(calls.explain(workload_id))

    async def missing_chunks(self, digests: Sequence[str]) -> t.ChunksReply:
        """Which chunks the server does not have."""
        return await self.send(calls.missing_chunks(digests))

    async def put_chunks(self, chunks: Sequence[tuple[str, bytes]]) -> t.Done:
        """Send a pack of chunks: (hex SHA-256, bytes) each; at most 64 MiB in all."""
        return await self.send(calls.put_chunks(chunks))

    async def put_tree(self, tree: Tree) -> t.TreeReply:
        """Store a tree whose chunks the server has."""
        return await self.send(calls.put_tree(tree))

    async def server_status(self) -> t.ServerStatus:
        """How the server is."""
        return await self.send(calls.server_status())

    async def server_stop(self) -> t.Done:
        """Stop the server; ranks go on. Also one of another version: that is how to get rid of it."""
        return await self._exchange(calls.server_stop())

    # Logs ----------------------------------------------------------------------------------------------------  # noqa: E501

    async def logs(
        self,
        job_id: str,
        *,
        follow: bool = True,
        tail: int | None = None,
        rank: int | None = None,
        cursor: str | None = None,
        attempt: int | None = None,
        reconnect_for_s: float = RECONNECT_FOR_S,
    ) -> AsyncIterator[LogPiece]:
        """The frames of a job's log, the last one with `end`; resumes after lost connections as
        `Client.logs`."""
        await self._shake_hands()
        lost_at: float | None = None
        begun = False
        wait_s = _BACKOFF_FIRST_S
        while True:
            call = calls.logs(job_id, follow=follow, tail=tail, rank=rank, cursor=cursor, attempt=attempt)
            try:
                async for piece in self._stream(call):
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
            await asyncio.sleep(wait_s)
            wait_s = min(wait_s * 2, _BACKOFF_MOST_S)

    async def _stream(self, call: Call[bytes]) -> AsyncIterator[LogPiece]:
        stream = await self._take()
        parser, decoder = ReplyParser(), FrameDecoder()
        refused: list[bytes] = []
        try:
            await stream.send(self.location, call, self._headers(call), self._reply_timeout_s)
            async for data in stream.read(parser, None):
                if parser.status >= 400:
                    refused.append(data)
                    continue
                for piece in decoder.feed(data):
                    yield piece
        finally:
            stream.close()
        if parser.status >= 400:
            raise calls.error_of(parser.status, b"".join(refused))

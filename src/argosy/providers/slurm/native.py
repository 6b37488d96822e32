"""Native mode: for sites that forbid resident agents. A claim holds nothing; each attempt of a job on it is
submitted as a batch job of its own, with the user's own commands.

`Speaker` stands where a node's agent would: it speaks the agent's wire on a stream within this process, and
turns
`prepare`, `run`, `stop` and `watch` into `sbatch`, `scancel`, `squeue` and reading of output files. Trees,
terminals and ports are refused with the reason.
"""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Awaitable, Callable, Sequence
from typing import Any, Final

import msgspec

from argosy.agent import wire
from argosy.infra import border
from argosy.infra.agent_client import StreamChannel
from argosy.infra.agent_port import Channel, RankOrder
from argosy.model.facts import ClaimState, Device, NodeFacts, RankFact, RankPhase
from argosy.providers.slurm import native_script
from argosy.providers.slurm.listing import SEPARATOR
from argosy.providers.slurm.native_script import NativeClaim
from argosy.providers.slurm.runner import Runner
from argosy.providers.slurm.words import claim_state, end_text, pending_text, refusal

_FIRST_LOOK_S: Final = 0.3
_LAST_LOOK_S: Final = 4.0
_NOT_HERE: Final = "commands run as batch jobs of Slurm here (native mode): {}"


class _Look(msgspec.Struct):
    """What one look at a claim found."""

    jobs: dict[str, tuple[str, str]] = {}  # attempt -> state, reason
    ranks: dict[tuple[str, int], tuple[int, int | None, int]] = {}  # -> bytes, exit code, changed at (s)
    logs: list[tuple[str, int, int, bytes]] = []  # attempt, rank, offset, bytes


class NativeNode:
    """The attempts of one claim, for all of its nodes."""

    def __init__(self, claim: NativeClaim, runner: Runner) -> None:
        self.claim = claim
        self._runner = runner
        self._orders: dict[
            str, RankOrder
        ] = {}  # prepared and not yet submitted: in memory, as agents have them
        self._released: set[str] = set()  # ranks that were told to run
        self._stopped: set[str] = set()
        self._forgotten: set[str] = set()
        self._submitting = asyncio.Lock()
        self._going: set[asyncio.Task[None]] = set()

    def facts(self) -> NodeFacts:
        claim = self.claim
        model = claim.accelerator or ""
        return NodeFacts(
            hostname=claim.claim_id,
            cpus_milli=claim.cpus_milli,
            memory_bytes=claim.memory_bytes,
            devices=tuple(Device(index=index, model=model) for index in range(claim.devices)),
        )

    async def prepare(self, orders: Sequence[RankOrder]) -> None:
        for order in orders:
            if order.id not in self._stopped | self._forgotten:
                self._orders.setdefault(order.id, order)
        await self.run([order.id for order in orders if order.run_now])

    async def run(self, rank_ids: Sequence[str]) -> None:
        """Submits each attempt all of whose ranks are to run."""
        self._released.update(rank_ids)
        async with self._submitting:
            for attempt in {rank_id.rpartition(".")[0] for rank_id in rank_ids}:
                ranks = [self._orders[each] for each in self._orders if each.rpartition(".")[0] == attempt]
                ranks.sort(key=lambda each: int(each.id.rpartition(".")[2]))
                wanted = int(ranks[0].env.get("ARGOSY_NUM_NODES", "1")) if ranks else 0
                if ranks and len(ranks) == wanted and all(each.id in self._released for each in ranks):
                    await self._submit(attempt, ranks)
                    for each in ranks:
                        del self._orders[each.id]

    async def _submit(self, attempt: str, ranks: Sequence[RankOrder]) -> None:
        text = native_script.submit_script(self.claim, attempt, ranks)
        ran = await self._runner.run(text, data=native_script.submit_data(ranks), timeout_s=60)
        if ran.status:
            raise refusal(ran.err, self.claim.order.partition)

    async def stop(self, rank_ids: Sequence[str], grace_s: float) -> None:
        self._stopped.update(rank_ids)
        for rank_id in rank_ids:
            self._orders.pop(rank_id, None)
        for attempt in {rank_id.rpartition(".")[0] for rank_id in rank_ids}:
            text = native_script.stop_script(self.claim.claim_id, attempt, grace_s)
            task = asyncio.create_task(self._quietly(text, 60 + grace_s))
            self._going.add(task)
            task.add_done_callback(self._going.discard)

    async def _quietly(self, script: str, timeout_s: float) -> None:
        try:
            await self._runner.run(script, timeout_s=timeout_s)
        except border.BorderError:
            return  # whoever wants it stopped says it again

    async def forget(self, rank_ids: Sequence[str]) -> None:
        self._forgotten.update(rank_ids)
        pairs = [(attempt, int(rank)) for attempt, _, rank in (each.rpartition(".") for each in rank_ids)]
        await self._runner.run(native_script.forget_script(self.claim.claim_id, pairs))

    async def look(self, cursors: dict[str, int]) -> tuple[list[RankFact], list[tuple[str, int, bytes]]]:
        """Facts of every rank, and bytes of logs after `cursors`. An end is told with or after the last
        byte."""
        keys = {" ".join(each.rpartition(".")[::2]): offset for each, offset in cursors.items()}
        ran = await self._runner.run(native_script.look_script(self.claim.claim_id, keys), timeout_s=60)
        if ran.status:
            raise refusal(ran.err, self.claim.order.partition)
        seen = _parse_look(ran.out, self.claim.claim_id)
        logs = [(f"{attempt}.{rank}", offset, data) for attempt, rank, offset, data in seen.logs]
        read = {rank_id: offset + len(data) for rank_id, offset, data in logs}
        facts = [
            self._fact(rank_id, seen, read.get(rank_id, cursors.get(rank_id, 0)))
            for rank_id in self._known(seen)
        ]
        return facts, logs

    def _known(self, seen: _Look) -> list[str]:
        of_jobs = [f"{attempt}.0" for attempt in seen.jobs]
        on_disk = [f"{attempt}.{rank}" for attempt, rank in seen.ranks]
        every = dict.fromkeys((*self._orders, *of_jobs, *on_disk, *self._stopped))
        return [each for each in every if each not in self._forgotten]

    def _fact(self, rank_id: str, seen: _Look, read_bytes: int) -> RankFact:
        attempt, _, rank = rank_id.rpartition(".")
        size, code, changed_s = seen.ranks.get((attempt, int(rank)), (0, None, 0))
        state, reason = seen.jobs.get(attempt, ("", ""))
        is_on = claim_state(state) in (ClaimState.PENDING, ClaimState.HELD) if state else False

        def fact(phase: RankPhase, **more: Any) -> RankFact:  # Any: fields of the fact
            return RankFact(id=rank_id, phase=phase, log_bytes=size, **more)

        if code is not None:
            if read_bytes < size:
                return fact(RankPhase.RUNNING, started_ms=changed_s * 1000)
            return fact(RankPhase.EXITED, exit_code=code, ended_ms=changed_s * 1000)
        if rank_id in self._orders:
            return fact(RankPhase.READY)
        if is_on and state == "PENDING":
            return fact(RankPhase.READY, detail=pending_text(reason, ""))
        if is_on:
            return fact(RankPhase.RUNNING, started_ms=changed_s * 1000)
        if rank_id in self._stopped:
            return fact(RankPhase.EXITED, exit_code=143)
        return fact(
            RankPhase.VANISHED, detail=end_text(state, reason) if state else "its job is not known any more"
        )


def _parse_look(out: bytes, claim_id: str) -> _Look:
    seen = _Look(jobs={}, ranks={}, logs=[])
    rest = out
    while rest:
        line, _, rest = rest.partition(b"\n")
        words = line.decode("utf-8", "replace").split(SEPARATOR)
        if words[0] == "job" and len(words) == 5:
            seen.jobs[words[2].removeprefix(claim_id + ":")] = (words[3], words[4])
        elif words[0] == "rank" and len(words) == 6 and words[2].isdigit():
            code = int(words[4]) if words[4].strip().isdigit() else None
            seen.ranks[words[1], int(words[2])] = (int(words[3] or 0), code, int(words[5] or 0))
        elif words[0] == "log" and len(words) == 5:
            size = int(words[4])
            seen.logs.append((words[1], int(words[2]), int(words[3]), rest[:size]))
            rest = rest[size:]
    return seen


# -- the agent's wire ----------------------------------------------------------------------------------------


class Speaker:
    """The other end of streams to a native node."""

    def __init__(self, node: NativeNode) -> None:
        self._node = node
        self._tasks: set[asyncio.Task[None]] = set()

    async def open(self) -> Channel:
        ours, theirs = socket.socketpair()
        reader, writer = await asyncio.open_connection(sock=ours, limit=wire.BODY_LIMIT_BYTES)
        task = asyncio.create_task(self._serve(reader, writer))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        return StreamChannel(*await asyncio.open_connection(sock=theirs, limit=wire.BODY_LIMIT_BYTES))

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            while await self._one(reader, writer):
                pass
        except (OSError, EOFError, asyncio.LimitOverrunError):
            pass
        finally:
            writer.close()

    async def _one(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> bool:
        """True when another request may follow."""
        head = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1").split("\r\n")
        path = head[0].split(" ")[1].removeprefix(wire.PREFIX)
        lengths = [line.partition(":")[2] for line in head if line.lower().startswith("content-length:")]
        body = await reader.readexactly(int(lengths[0]) if lengths else 0)
        status, answer = 200, b"{}"
        try:
            if path == "/watch":
                await self._watch(msgspec.json.decode(body, type=_Cursors).cursors, reader, writer)
                return False
            answer = await self._call(path, body)
        except border.RequestRefused as error:
            status, answer = 400, _failure("refused", error.field, str(error))
        except border.BorderError as error:
            status, answer = 503, _failure("transient", "", str(error))
        writer.write(b"HTTP/1.1 %d -\r\nContent-Length: %d\r\n\r\n" % (status, len(answer)) + answer)
        await writer.drain()
        return status != 400

    async def _call(self, path: str, body: bytes) -> bytes:
        node = self._node
        calls: dict[str, Callable[[], Awaitable[None]]] = {
            "/prepare": lambda: node.prepare(msgspec.json.decode(body, type=_Orders).orders),
            "/run": lambda: node.run(msgspec.json.decode(body, type=_Ids).ids),
            "/stop": lambda: node.stop(*msgspec.structs.astuple(msgspec.json.decode(body, type=_Stop))),
            "/forget": lambda: node.forget(msgspec.json.decode(body, type=_Ids).ids),
        }
        if path == "/node":
            return msgspec.json.encode(node.facts())
        if path == "/shutdown":
            return b"{}"
        if path not in calls:
            what = "files are not brought there; keep them on the cluster's file system"
            if path in ("/shell", "/forward"):
                what = "there is no agent that opens terminals and ports"
            raise border.RequestRefused("slurm.native", _NOT_HERE.format(what))
        await calls[path]()
        return b"{}"

    async def _watch(
        self, cursors: dict[str, int], reader: asyncio.StreamReader, writer: asyncio.StreamWriter
    ) -> None:
        writer.write(b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: argosy\r\n\r\n")
        told: dict[str, RankFact] = {}
        first, pause_s = True, _FIRST_LOOK_S
        gone = asyncio.ensure_future(reader.read())
        try:
            while not gone.done():
                facts, logs = await self._node.look(cursors)
                for rank_id, offset, data in logs:
                    cursors[rank_id] = offset + len(data)
                for fact in facts:
                    cursors.setdefault(fact.id, 0)
                news = [fact for fact in facts if told.get(fact.id) != fact]
                told.update({fact.id: fact for fact in news})
                writer.writelines(_frame(news, logs, complete=first))
                await writer.drain()
                busy = bool(news or logs) or first
                first, pause_s = False, _FIRST_LOOK_S if busy else min(_LAST_LOOK_S, pause_s * 1.5)
                await asyncio.wait({gone}, timeout=pause_s)
        except border.BorderError:
            return  # the stream ends; whoever reads opens it anew
        finally:
            gone.cancel()


class _Orders(msgspec.Struct):
    orders: list[RankOrder]


class _Ids(msgspec.Struct):
    ids: list[str]


class _Stop(msgspec.Struct):
    ids: list[str]
    grace_s: float = 10.0


class _Cursors(msgspec.Struct):
    cursors: dict[str, int] = {}


def _frame(
    facts: Sequence[RankFact], logs: Sequence[tuple[str, int, bytes]], *, complete: bool
) -> list[bytes]:
    head = {
        "complete": complete,
        "ranks": facts,
        "logs": [(rank_id, offset, len(data)) for rank_id, offset, data in logs],
    }
    text = msgspec.json.encode(head)
    size = sum(len(data) for _, _, data in logs)
    return [wire.FRAME.pack(len(text), size), text, *(data for _, _, data in logs)]


def _failure(error: str, field: str, text: str) -> bytes:
    return msgspec.json.encode({"error": error, "field": field, "text": text})

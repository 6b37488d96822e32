"""`infra.agent_port.AgentPort` on the simulated world: faithful to its docstrings, and as unreliable as
drawn."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Mapping, Sequence
from typing import Final

import msgspec

from argosy.infra import border
from argosy.infra.agent_port import (
    AgentPort,
    Answer,
    DataSink,
    DataSource,
    Duplex,
    Enter,
    Fetched,
    FetchOrder,
    HeldTree,
    Kept,
    MountOrder,
    Pack,
    PlacedChange,
    RankOrder,
    Report,
    SendOrder,
    silence_s,
)
from argosy.model.facts import LogChunk, NodeFacts, RankFact, RankPhase
from argosy.model.rows import Node
from argosy.model.tree import Tree, TreeChange, changed
from argosy.testing.machines import Machine
from argosy.testing.sim_leases import renew
from argosy.testing.world import World

_TIMEOUT_S: Final = 10.0  # how long a caller waits for a node that does not answer
_BATCH_BYTES: Final = 1 << 20
_PIECE_BYTES: Final = 256 << 10  # of one log at a time, so that a loud rank does not silence the others


class SimAgent:
    """A connection to the agent of the machine at `address`."""

    def __init__(self, world: World, address: str) -> None:
        self.world = world
        self.address = address

    async def _call(self, verb: str) -> Machine:
        world = self.world
        await world.call(f"agent.{verb}", world.faults.agent_error)
        machine = world.machines.get(self.address)
        if machine is None or machine.state != "up" or not machine.agent_alive:
            raise border.Unreachable(f"no agent answers at {self.address}")
        if machine.is_partitioned:
            await asyncio.sleep(_TIMEOUT_S)
            raise border.Unreachable(f"{self.address} did not answer within {_TIMEOUT_S:.0f} s")
        return machine

    def _reach(self, machine: Machine) -> None:
        """The agent may have been killed by what it was just told to do."""
        if not machine.agent_alive:
            raise border.Unreachable(f"{self.address} closed the connection")

    async def _answer(self, verb: str, machine: Machine) -> None:
        self._reach(machine)
        await self.world.answer(f"agent.{verb}", self.world.faults.agent_lost_reply)

    def _times(self) -> int:
        return 2 if self.world.chance("duplicates", self.world.faults.duplicate) else 1

    async def node(self) -> NodeFacts:
        machine = await self._call("node")
        return machine.facts

    async def prepare(self, orders: Sequence[RankOrder]) -> None:
        machine = await self._call("prepare")
        for _ in range(self._times()):
            for order in orders:
                self._reach(machine)
                if _cannot_share(machine.facts, order):
                    order = msgspec.structs.replace(order, setup="sim exit=1")
                self.world.prepare_rank(machine, order)
        await self._answer("prepare", machine)

    async def run(self, rank_ids: Sequence[str]) -> None:
        machine = await self._call("run")
        for _ in range(self._times()):
            for rank_id in rank_ids:
                self._reach(machine)
                self.world.run_rank(machine, rank_id)
        await self._answer("run", machine)

    async def stop(self, rank_ids: Sequence[str], grace_s: float, why: str = "") -> None:
        machine = await self._call("stop")
        for _ in range(self._times()):
            for rank_id in rank_ids:
                self._reach(machine)
                self.world.stop_rank(machine, rank_id, grace_s)
        await self._answer("stop", machine)

    async def forget(self, rank_ids: Sequence[str]) -> None:
        machine = await self._call("forget")
        for _ in range(self._times()):
            for rank_id in rank_ids:
                self._reach(machine)
                self.world.forget_rank(machine, rank_id)
        await self._answer("forget", machine)

    async def listening(self, rank_ids: Sequence[str]) -> Sequence[int]:
        await self._call("listening")
        return ()

    async def watch(
        self, cursors: Mapping[str, int], answer: Answer = lambda report: None
    ) -> AsyncIterator[Report]:
        world, beat_s = self.world, Report(complete=True).beat_s
        machine = await self._call("watch")
        sent: dict[str, RankFact] = {}
        sent_bytes = dict(cursors)
        changed = asyncio.Event()
        machine.watchers[changed] = None
        is_first = True
        told: NodeFacts | None = None
        try:
            while True:
                changed.clear()
                node = None if machine.facts is told else machine.facts
                told = machine.facts
                ranks, logs = self._news(machine, sent, sent_bytes, changed, is_first)
                report = Report(
                    complete=is_first,
                    node=node,
                    ranks=_dated(ranks, machine.wall_off_ms),
                    logs=logs,
                    beat_s=beat_s,
                    sent=machine.clock_ms(world.now_s),
                    wall_ms=world.clock.now_ms() + machine.wall_off_ms,
                )
                for _ in range(2 if world.chance("watch", world.faults.watch_repeat) else 1):
                    if world.chance("watch", world.faults.watch_cut * beat_s / 5):
                        if world.dice("watch").random() < 0.5:
                            return
                        raise border.Unreachable("the stream was cut")
                    world.check_alive()
                    ack = answer(report)
                    if ack is not None:
                        beat_s = ack.beat
                        renew(world, machine, ack.leases, ack.sent)
                    yield report
                is_first, said_s = False, world.now_s
                if not changed.is_set():  # else something happened while the reader was busy
                    await _until_set(changed, beat_s)
                while machine.is_partitioned:  # silence: nobody says that the line is dead
                    limit_s = silence_s(beat_s)
                    if world.now_s >= said_s + limit_s:
                        raise border.Silent(f"{self.address} said nothing for {limit_s:.0f} s", limit_s)
                    changed.clear()
                    await _until_set(changed, said_s + limit_s - world.now_s)
                if not machine.answers:
                    raise border.Unreachable(f"{self.address} closed the connection")
        finally:
            machine.watchers.pop(changed, None)

    def _news(
        self,
        machine: Machine,
        sent: dict[str, RankFact],
        sent_bytes: dict[str, int],
        changed: asyncio.Event,
        is_first: bool,
    ) -> tuple[tuple[RankFact, ...], tuple[LogChunk, ...]]:
        """Law: a rank's end is told with or after the last byte of its log, never before."""
        facts, logs, room = [], [], _BATCH_BYTES
        for rank_id, rank in machine.ranks.items():
            offset = sent_bytes.get(rank_id, 0)
            if room > 0 and offset < len(rank.log):
                data = bytes(rank.log[offset : offset + min(room, _PIECE_BYTES)])
                logs.append(LogChunk(rank_id=rank_id, offset=offset, data=data))
                offset += len(data)
                sent_bytes[rank_id] = offset
                room -= len(data)
            is_read = offset >= len(rank.log)
            if not is_read:
                changed.set()  # more is waiting
            fact = rank.fact
            if fact.phase in (RankPhase.EXITED, RankPhase.VANISHED) and not is_read:
                if not is_first:
                    continue
                fact = RankFact(id=rank_id, phase=RankPhase.RUNNING, log_bytes=len(rank.log))
            if sent.get(rank_id) != fact:
                facts.append(fact)
                sent[rank_id] = fact
        return tuple(facts), tuple(logs)

    async def missing_chunks(self, digests: Sequence[str]) -> Sequence[str]:
        machine = await self._call("missing_chunks")
        return [digest for digest in digests if digest not in machine.chunks]

    async def put_chunks(self, chunks: AsyncIterator[tuple[str, bytes]]) -> None:
        machine = await self._call("put_chunks")
        async for digest, _ in chunks:
            machine.chunks.add(digest)
        await self._answer("put_chunks", machine)

    async def held_tree(self, target: str, digest: str) -> HeldTree:
        machine = await self._call("held_tree")
        return HeldTree(machine.placed.get(target, ""), takes=True)

    async def look_ahead(self, target: str) -> None:
        await self._call("look_ahead")

    async def change_tree(self, change: PlacedChange, chunks: Sequence[tuple[str, bytes]]) -> bool:
        machine = await self._call("change_tree")
        machine.chunks.update(digest for digest, _ in chunks)
        if not change.since or machine.placed.get(change.target) != change.since:
            return False
        if not machine.chunks.issuperset(chunk for entry in change.entries for chunk in entry.chunks):
            raise border.Transient("a chunk is not here")
        old = msgspec.json.decode(machine.trees[change.target], type=Tree)
        told = TreeChange(since=change.since, entries=change.entries, removed=change.removed)
        machine.trees[change.target] = msgspec.json.encode(changed(old, told), order="deterministic")
        machine.placed[change.target] = change.digest
        await self._answer("change_tree", machine)
        return True

    async def place_tree(self, tree_json: bytes, target: str, digest: str = "") -> None:
        machine = await self._call("place_tree")
        if ".." in target.split("/"):
            raise border.RequestRefused("target", f"`{target}` leaves the home of the node")
        machine.trees[target] = tree_json
        machine.placed[target] = digest
        await self._answer("place_tree", machine)

    async def send_tree(
        self, tree_json: bytes, target: str, digest: str, chunks: Mapping[str, int], packed: Pack
    ) -> None:
        machine = await self._call("put_chunks")
        async for _ in packed:
            pass
        machine.chunks.update(chunks)
        await self._answer("put_chunks", machine)
        await self.place_tree(tree_json, target, digest)

    async def kept(self, target: str, settled_s: float) -> Kept:
        await self._call("kept")
        return Kept()

    async def kept_chunks(self, digests: Sequence[str]) -> AsyncIterator[tuple[str, bytes]]:
        await self._call("kept_chunks")
        for digest in digests:
            raise border.Transient(f"simulated nodes have no files: {digest}")
            yield digest, b""

    def expecting(self, target: str) -> contextlib.AbstractAsyncContextManager[None]:
        return contextlib.nullcontext()

    async def fetch(self, order: FetchOrder, source: DataSource) -> Fetched:
        machine = await self._call("fetch")
        total = sum(each.size for each in order.files)
        source.told(len(order.files), total, len(order.files), total)
        machine.data[order.target] = tuple(each.path for each in order.files)
        await self._answer("fetch", machine)
        return Fetched(files=len(order.files), bytes=total)

    async def mount(self, order: MountOrder) -> bool:
        machine = await self._call("mount")
        if order.renews:
            machine.keys[order.target] = order.expires_s
            return order.target in machine.mounted
        if not machine.has_fuse:
            raise border.RequestRefused("fuse", f"{self.address} cannot mount buckets: there is no /dev/fuse")
        machine.mounted[order.target] = order.path
        machine.keys[order.target] = order.expires_s
        await self._answer("mount", machine)
        return True

    async def settle(
        self, targets: Sequence[str], patience_s: float, *, unmount: bool
    ) -> Mapping[str, Sequence[str]]:
        machine = await self._call("settle")
        for target in targets if unmount else ():
            machine.mounted.pop(target, None)
        await self._answer("settle", machine)
        return {}

    async def lend(self, target: str) -> Duplex:
        raise border.RequestRefused("lent", "simulated nodes have no mounting tools")

    async def send(self, order: SendOrder, sink: DataSink) -> int:
        machine = await self._call("send")
        for path in machine.written:
            if sink.wants(path, 1):
                sink.write(path, 1, iter((b"x",)))
                sink.sent(path, 1)
        await self._answer("send", machine)
        return len(machine.written)

    async def shell(self, command: str, rows: int, columns: int, env: Mapping[str, str]) -> Duplex:
        raise border.Unsupported("simulated nodes have no shell")

    async def ssh(self, public_key: str) -> Duplex:
        raise border.Unsupported("simulated nodes have no shell")

    async def enter(self, rank_id: str, enter: Enter) -> Duplex:
        raise border.Unsupported("simulated nodes have no sessions")

    async def copy(self, path: str, name: str, *, read: bool) -> Duplex:
        raise border.Unsupported("simulated nodes have no files")

    async def forward(self, port: int) -> Duplex:
        raise border.Unsupported("simulated nodes have no ports")

    async def shutdown(self) -> None:
        machine = await self._call("shutdown")
        for rank_id in list(machine.ranks):
            self.world.stop_rank(machine, rank_id, 0)
        self.world.kill_agent(machine)
        await self.world.answer("agent.shutdown", self.world.faults.agent_lost_reply)

    async def close(self) -> None:
        return None


def _dated(ranks: tuple[RankFact, ...], off_ms: int) -> tuple[RankFact, ...]:
    """Ranks as a wall clock that is so far off dates them."""
    if not off_ms:
        return ranks
    return tuple(
        msgspec.structs.replace(
            rank,
            started_ms=rank.started_ms and rank.started_ms + off_ms,
            ended_ms=rank.ended_ms and rank.ended_ms + off_ms,
        )
        for rank in ranks
    )


async def _until_set(event: asyncio.Event, limit_s: float) -> None:
    """Wait for the event, which is set after `limit_s` in any case: cheaper than to wait with a timeout."""
    timer = asyncio.get_running_loop().call_later(limit_s, event.set)
    try:
        await event.wait()
    finally:
        timer.cancel()


def _cannot_share(facts: NodeFacts, order: RankOrder) -> bool:
    """As the real agent: a share that it cannot keep apart ends the rank before it ran. MIG instances are
    devices."""
    instances = {device.index for device in facts.devices if device.mig_profile}
    return any(
        share.mechanism and share.mechanism not in facts.sharing and share.index not in instances
        for share in order.shares
    )


class SimAgentDirectory:
    """Which connection leads to a node: the world's stand-in for the server's directory."""

    def __init__(self, world: World) -> None:
        self.world = world

    async def get(self, node: Node) -> AgentPort:
        self.world.maybe_crash("before agent.connect")
        return SimAgent(self.world, node.address)

    def drop(self, node_id: str) -> None:
        return None

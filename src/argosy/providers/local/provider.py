"""The local provider: a claim is a folder, a node is a folder in it with an agent's process.

    <root>/<claim id>/claim.json          intent: written before anything is started
    <root>/<claim id>/<index>/            a node: its agent's files, the home of its ranks, agent.json (who
    runs) <root>/.released/<claim id>           claims that must not come back

The disk and the process table are the only memory, read anew by every call: a server that was killed, and its
successor, see the same. Law: what runs is below a folder that `observe` lists, at every moment.
"""

from __future__ import annotations

import asyncio
import hashlib
import os
import shutil
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Final, Literal, Protocol

import msgspec

from argosy.infra import border
from argosy.infra.agent_client import unix_channel
from argosy.infra.agent_port import Channel
from argosy.infra.allotment import allot_devices, allot_placed, free_milli
from argosy.infra.claim_checks import check_claim
from argosy.infra.provider import Diagnostic, Want
from argosy.infra.to_its_end import ToItsEnd
from argosy.infra.tombstones import Tombstones, is_claim_id
from argosy.model.device_memory import sold_memory
from argosy.model.facts import ClaimFact, ClaimState, NodeFacts, NodeSighting
from argosy.model.ids import Clock
from argosy.model.offer import Capacity, Offer, Shape
from argosy.model.phases import Desired
from argosy.model.rows import Claim, Node
from argosy.model.units import GIB, render_bytes
from argosy.providers.local import MANIFEST, NODES_MAX, processes

READY_LIMIT_S: Final = 20.0
_POLL_S: Final = 0.005
_FACTS_FRESH_S: Final = 600.0
_DISK_WANTED_BYTES: Final = GIB


class Agents(Protocol):
    """How agents are started here."""

    def start(self, home: Path, socket: Path, devices: Sequence[int], name: str) -> processes.Process:
        """A detached agent that serves `socket` and may use `devices`. Raises OSError."""

    def release(self, home: Path) -> None:
        """What the node in `home` put outside of it goes, unless others use it too. Raises OSError."""

    async def probe(self) -> NodeFacts:
        """What this machine is. Raises OSError."""


class Record(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """claim.json."""

    claim_id: str
    count: int
    state: Literal["run", "stop", "preempted"]
    devices: tuple[tuple[tuple[int, int], ...], ...] = ()  # per node: (device, thousandths)
    made_ms: int = 0
    tag: str = ""  # of the database whose server ordered it


def _accelerators(facts: NodeFacts) -> list[str]:
    """What programs can use, and what is plugged in and cannot be used."""
    models = sorted({device.model for device in facts.devices})
    text = ", ".join(f"{sum(d.model == model for d in facts.devices)} {model}" for model in models)
    unused = [f"not usable: {each.name} at {each.pci}: {each.reason}" for each in facts.unused_devices]
    return [f"accelerators: {text or 'none (no driver answers)'}", *unused]


class LocalProvider:
    """This machine. `agents` is called once, when the first agent or probe is needed."""

    def __init__(
        self, root: Path, *, clock: Clock, agents: Callable[[], Agents], price_micro_usd: int = 0
    ) -> None:
        self._root = root.absolute()
        self.manifest = msgspec.structs.replace(MANIFEST, shared_dir=str(self._root / "shared"))
        self._released = Tombstones(self._root / ".released")
        self._clock = clock
        self._make_agents = agents
        self._agents: Agents | None = None
        self._price_micro_usd = price_micro_usd
        self._locks: dict[str, asyncio.Lock] = {}
        self._to_its_end = ToItsEnd()
        self._facts: NodeFacts | None = None
        self._facts_s = 0.0
        self._facts_lock = asyncio.Lock()

    # -- the six verbs --------------------------------------------------------------------------------------

    async def check(self) -> Sequence[Diagnostic]:
        def finding(ok: bool, what: str, hint: str = "") -> Diagnostic:
            return Diagnostic(provider=self.manifest.name, ok=ok, what=what, hint="" if ok else hint)

        findings = []
        try:
            self._root.mkdir(mode=0o700, parents=True, exist_ok=True)
            free = shutil.disk_usage(self._root).free
            findings.append(
                finding(
                    free >= _DISK_WANTED_BYTES,
                    f"{render_bytes(free)} of disk are free for nodes",
                    f"free some space on the disk of {self._root}",
                )
            )
        except OSError as error:
            hint = "make it writable, or set ARGOSY_HOME to another folder"
            findings.append(finding(False, f"the folder {self._root} cannot be used: {error.strerror}", hint))
        has_bash = os.access("/bin/bash", os.X_OK)
        findings.append(
            finding(
                has_bash,
                "/bin/bash " + ("is there" if has_bash else "is missing"),
                "install bash: tasks need it",
            )
        )
        version = ".".join(map(str, sys.version_info[:3]))
        findings.append(finding(True, f"Python {version} runs the agents"))
        try:
            facts = await self._machine()
        except border.BorderError as error:
            findings.append(finding(False, str(error), "run `argosy server status` and read the log"))
        else:
            findings += [finding(True, text) for text in _accelerators(facts)]
        return findings

    async def quote(self, want: Want) -> Sequence[Offer]:
        """The whole machine, once for each model of accelerator. What claims hold is for the planner to
        subtract."""
        facts = await self._machine()
        cards = [device for device in facts.devices if not device.mig_profile]
        models: list[str | None] = [*sorted({device.model for device in cards})] or [None]
        offers = []
        for model in models:
            devices = [device for device in cards if device.model == model]
            shape = Shape(
                cpus_milli=facts.cpus_milli,
                memory_bytes=facts.memory_bytes,
                accelerator=model,
                accelerators_milli=1000 * len(devices),
                accelerator_memory_bytes=min((sold_memory(each.memory_bytes) for each in devices), default=0),
                arch=facts.arch or "x86_64",
                disk_bytes=facts.disk_free_bytes,
            )
            offers.append(
                Offer(
                    provider=self.manifest.name,
                    shape=shape,
                    capacity=Capacity.OWNED,
                    price_micro_usd=self._price_micro_usd,
                    quoted_at_ms=self._clock.now_ms(),
                    facts=facts,
                )
            )
        return offers

    async def ensure(self, claim: Claim) -> None:
        self._refuse(claim)
        await self._to_its_end(self._ensure(claim))

    async def observe(self, claim_ids: Sequence[str]) -> Sequence[ClaimFact]:
        names = claim_ids or self._listed()
        return [fact for name in names if (fact := self._fact(name)) is not None]

    async def release(self, claim_id: str) -> None:
        if not is_claim_id(claim_id):
            return
        await self._to_its_end(self._release(claim_id))

    async def reach(self, node: Node) -> Channel:
        claim_id, _, index = node.address.partition("/")
        if not is_claim_id(claim_id) or not index.isdigit() or not self._home(claim_id, int(index)).is_dir():
            raise border.Unreachable(f"there is no local node {node.address}")
        return await unix_channel(str(self._socket(claim_id, int(index))))

    # -- for tests -----------------------------------------------------------------------------------------

    async def simulate_preemption(self, claim_id: str) -> None:
        """Takes the nodes of a claim away, as a cloud does with spot nodes: agents and ranks get SIGKILL, and
        `observe` says `preempted` until the claim is released."""
        await self._to_its_end(self._preempt(claim_id))

    # -- effects --------------------------------------------------------------------------------------------

    def _lock(self, claim_id: str) -> asyncio.Lock:
        return self._locks.setdefault(claim_id, asyncio.Lock())

    def _refuse(self, claim: Claim) -> None:
        offer = claim.choice.offer
        check_claim(claim, self.manifest.name, self.manifest.title)
        if offer.capacity is Capacity.SPOT:
            raise border.Unsupported("this machine has no spot capacity")
        if claim.count > NODES_MAX:
            raise border.OutOfCapacity(
                "this machine", f"this machine gives at most {NODES_MAX} nodes at once"
            )

    async def _ensure(self, claim: Claim) -> None:
        async with self._lock(claim.id):
            if claim.id in self._released:
                raise border.RequestRefused("claim", f"{claim.id} was released before")
            machine = await self._machine()
            record = self._load(claim.id)
            if record is not None and record.state == "preempted":
                return
            is_new = record is None
            try:
                if claim.desired is Desired.STOP:
                    await self._rest(claim, record)
                elif record is None or record.state == "stop":
                    # Nothing is awaited between looking at what others hold and writing down what this one
                    # takes.
                    record = self._allot(claim, machine)
                    self._save(record)
                    await self._start(record)
                else:
                    await self._start(record)
            except (OSError, border.Transient) as error:
                if is_new:
                    await asyncio.to_thread(self._end, claim.id)
                    await asyncio.to_thread(_remove_tree, self._root / claim.id)
                if isinstance(error, border.Transient):
                    raise
                raise border.Transient(f"cannot make local nodes: {error.strerror or error}", 10) from error

    def _allot(self, claim: Claim, machine: NodeFacts) -> Record:
        model, milli = claim.choice.accelerator, claim.choice.accelerators_milli
        fitting = [device.index for device in machine.devices if model is None or device.model == model]
        taken = [
            share
            for name in self._listed()
            if name != claim.id and (record := self._load(name)) is not None and record.state == "run"
            for node in record.devices
            for share in node
        ]
        free = free_milli(fitting, taken)
        if claim.placements:
            shares = allot_placed(free, claim.placements)
        else:
            shares = allot_devices(free, milli, claim.count)
        if shares is None:
            wanted = f"{claim.count} x {milli / 1000:g} {model or 'accelerators'}"
            raise border.OutOfCapacity("this machine", f"{wanted} are not free on this machine")
        return Record(
            claim_id=claim.id,
            count=claim.count,
            state="run",
            devices=tuple(shares),
            made_ms=self._clock.now_ms(),
            tag=claim.tag,
        )

    async def _start(self, record: Record) -> None:
        """Starts the agents that do not run, all at once, and waits until every one answers."""
        agents = self._started_agents()
        started: dict[int, processes.Process] = {}
        for index in range(record.count):
            running = self._process(record.claim_id, index)
            if running is not None and running.is_alive:
                continue
            home = self._home(record.claim_id, index)
            home.mkdir(mode=0o700, exist_ok=True)
            orphan = processes.agent_of(home)
            if orphan is not None:
                # A server was killed after it had started it and before it wrote that down.
                _write(home / "agent.json", msgspec.json.encode(orphan))
                started[index] = orphan
                continue
            devices = [device for device, _ in record.devices[index]] if record.devices else []
            name = f"{record.claim_id}/{index}"
            process = agents.start(home, self._socket(record.claim_id, index), devices, name)
            _write(home / "agent.json", msgspec.json.encode(process))
            started[index] = process
        waiting = dict(started)
        deadline_s = self._clock.monotonic_s() + READY_LIMIT_S
        while waiting:
            for index, process in list(waiting.items()):
                if await _answers(self._socket(record.claim_id, index)):
                    del waiting[index]
                elif not process.is_alive or self._clock.monotonic_s() > deadline_s:
                    text = _last_line(self._home(record.claim_id, index) / "agent.log")
                    raise border.Transient(f"the agent of node {index} did not start: {text}", 5)
            if waiting:
                await asyncio.sleep(_POLL_S)

    async def _rest(self, claim: Claim, record: Record | None) -> None:
        if record is None:
            record = Record(
                claim_id=claim.id,
                count=claim.count,
                state="stop",
                made_ms=self._clock.now_ms(),
                tag=claim.tag,
            )
            for index in range(claim.count):
                self._home(claim.id, index).mkdir(mode=0o700, parents=True, exist_ok=True)
        else:
            await asyncio.to_thread(self._end, claim.id)
        self._save(msgspec.structs.replace(record, state="stop", devices=()))

    async def _release(self, claim_id: str) -> None:
        async with self._lock(claim_id):
            folder = self._root / claim_id
            try:
                if folder.is_dir():
                    await asyncio.to_thread(self._end, claim_id)
                    agents = self._started_agents()
                    for index in self._indices(claim_id):
                        await asyncio.to_thread(agents.release, self._home(claim_id, index))
                    await asyncio.to_thread(_remove_tree, folder)
                self._released.add(claim_id)
            except OSError as error:
                raise border.Transient(f"cannot release {claim_id}: {error.strerror or error}", 10) from error
        self._locks.pop(claim_id, None)

    async def _preempt(self, claim_id: str) -> None:
        async with self._lock(claim_id):
            record = self._load(claim_id)
            if record is None:
                raise border.RequestRefused("claim", f"there is no local claim {claim_id}")
            self._save(msgspec.structs.replace(record, state="preempted", devices=()))
            await asyncio.to_thread(self._end, claim_id)

    def _end(self, claim_id: str) -> None:
        """Kills everything of a claim. Blocks. Raises OSError when something cannot be killed."""
        indices = self._indices(claim_id)
        known = [process for index in indices if (process := self._process(claim_id, index)) is not None]
        processes.end_all([self._home(claim_id, index) for index in indices], known)
        for index in indices:
            processes.remove_cgroups(self._home(claim_id, index))
            (self._home(claim_id, index) / "agent.json").unlink(missing_ok=True)
            self._socket(claim_id, index).unlink(missing_ok=True)

    # -- what is on the disk --------------------------------------------------------------------------------

    def _listed(self) -> list[str]:
        try:
            folders = sorted(self._root.iterdir())
        except OSError:
            return []
        return [folder.name for folder in folders if is_claim_id(folder.name) and folder.is_dir()]

    def _indices(self, claim_id: str) -> list[int]:
        try:
            return sorted(int(one.name) for one in (self._root / claim_id).iterdir() if one.name.isdigit())
        except OSError:
            return []

    def _home(self, claim_id: str, index: int) -> Path:
        return self._root / claim_id / str(index)

    def _load(self, claim_id: str) -> Record | None:
        """None also for a record that a crash cut off: the claim is then made anew, or released."""
        try:
            return msgspec.json.decode((self._root / claim_id / "claim.json").read_bytes(), type=Record)
        except (OSError, msgspec.MsgspecError):
            return None

    def _save(self, record: Record) -> None:
        folder = self._root / record.claim_id
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        _write(folder / "claim.json", msgspec.json.encode(record))

    def _process(self, claim_id: str, index: int) -> processes.Process | None:
        try:
            data = (self._home(claim_id, index) / "agent.json").read_bytes()
            return msgspec.json.decode(data, type=processes.Process)
        except (OSError, msgspec.MsgspecError):
            return None

    def _fact(self, claim_id: str) -> ClaimFact | None:
        if not is_claim_id(claim_id) or not (self._root / claim_id).is_dir():
            return None
        record = self._load(claim_id)
        if record is None:
            return ClaimFact(claim_id=claim_id, state=ClaimState.PENDING, detail="half made")
        if record.state == "preempted":
            text = "this machine took the nodes away"
            return ClaimFact(claim_id=claim_id, state=ClaimState.PREEMPTED, detail=text, tag=record.tag)
        running = [self._process(claim_id, index) for index in range(record.count)]
        if record.state == "run" and any(process is None for process in running):
            return ClaimFact(claim_id=claim_id, state=ClaimState.PENDING, tag=record.tag)
        nodes = tuple(
            NodeSighting(
                index=index,
                address=f"{claim_id}/{index}",
                ip=node_ip(index),
                alive=process is not None and process.is_alive,
                facts=self._facts_of_node(record, index),
            )
            for index, process in enumerate(running)
        )
        state = ClaimState.HELD if record.state == "run" else ClaimState.STOPPED
        return ClaimFact(claim_id=claim_id, state=state, nodes=nodes, tag=record.tag)

    def _facts_of_node(self, record: Record, index: int) -> NodeFacts | None:
        if self._facts is None or not record.devices:
            return self._facts
        mine = {device for device, _ in record.devices[index]}
        devices = tuple(device for device in self._facts.devices if device.index in mine)
        return msgspec.structs.replace(self._facts, devices=devices)

    # -- the machine ----------------------------------------------------------------------------------------

    def _started_agents(self) -> Agents:
        if self._agents is None:
            self._agents = self._make_agents()
        return self._agents

    async def _machine(self) -> NodeFacts:
        """What the agent's probe says, not older than ten minutes."""
        async with self._facts_lock:
            if self._facts is None or self._clock.monotonic_s() - self._facts_s > _FACTS_FRESH_S:
                try:
                    self._facts = await self._started_agents().probe()
                except OSError as error:
                    raise border.Transient(
                        f"cannot look at this machine: {error.strerror or error}", 5
                    ) from error
                self._facts_s = self._clock.monotonic_s()
            return self._facts

    def _socket(self, claim_id: str, index: int) -> Path:
        """In the node's folder, which is ours alone. The path may be longer than a unix address:
        `unix_channel` and the agent reach it through a handle of its folder."""
        socket = self._home(claim_id, index) / "agent.sock"
        if not socket.exists():  # an agent that an older version started
            name = hashlib.sha256(f"{self._root}\0{claim_id}\0{index}".encode()).hexdigest()[:24]
            old = Path(f"/tmp/argosy-{os.geteuid()}/{name}.sock")
            if old.exists() and old.stat().st_uid == os.geteuid():
                return old
        return socket


def node_ip(index: int) -> str:
    """Each node has an address of its own where the loopback network has many, so that programs that tell
    nodes by their address, or listen on a fixed port of it, do not collide."""
    return f"127.0.0.{index + 1}" if sys.platform == "linux" else "127.0.0.1"


def parse_price(text: str) -> int:
    """Micro-USD per hour of dollars per hour; 0 for nothing or nonsense.

    >>> parse_price("1.25"), parse_price("")
    (1250000, 0)
    """
    try:
        return max(0, round(float(text) * 1_000_000))
    except (ValueError, OverflowError):
        return 0


def _write(path: Path, data: bytes) -> None:
    """All or nothing, also when the power goes out in between."""
    new = path.with_name(path.name + ".new")
    new.write_bytes(data)
    new.replace(path)


async def _answers(socket: Path) -> bool:
    try:
        channel = await unix_channel(socket)
    except border.Unreachable:
        return False
    channel.writer.close()
    return True


def _last_line(log: Path) -> str:
    try:
        with log.open("rb") as file:
            file.seek(max(0, os.fstat(file.fileno()).st_size - 2000))
            lines = file.read().decode("utf-8", "replace").strip().splitlines()
    except OSError:
        return "it left no log"
    return lines[-1][:300] if lines else "it said nothing"


def _remove_tree(folder: Path) -> None:
    """Removes a folder with whatever modes its owner has given to things in it; claim.json goes last.

    A link is removed, never followed. Raises OSError when something stays.
    """
    for child in sorted(folder.iterdir(), key=lambda one: one.name == "claim.json"):
        if child.is_dir() and not child.is_symlink():
            _open_up(child)
            shutil.rmtree(child)
        else:
            child.unlink()
    folder.rmdir()


def _open_up(folder: Path) -> None:
    """Lets the owner into folders that a program has locked."""
    pending = [folder]
    while pending:
        one = pending.pop()
        if one.lstat().st_mode & 0o700 != 0o700:
            one.chmod(0o700)
        with os.scandir(one) as entries:
            pending += [Path(entry.path) for entry in entries if entry.is_dir(follow_symlinks=False)]

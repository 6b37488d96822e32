"""Claims on hosts: written down here first, then on each of their hosts, then made; and the way back.

    <root>/claims/<claim id>.json      what was ordered, on which hosts, where its agents are
    <root>/.released/<claim id>        claims that must not come back
    <root>/tags.json                   whose claims are ours: databases whose servers used this folder

Law: whatever of ours may exist on a host stands here, at every moment, and goes last. So a server that was
killed, and its successor, know where to look, also while a host does not answer.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal, Protocol

import msgspec

from argosy.infra import border
from argosy.infra.agent_port import Channel, DialOrder
from argosy.infra.bootstrap import AgentPlan
from argosy.infra.ssh import Ssh
from argosy.infra.to_its_end import ToItsEnd
from argosy.infra.tombstones import Tombstones, is_claim_id
from argosy.model.facts import ClaimFact, ClaimState, NodeFacts, NodeSighting, Notice
from argosy.model.ids import Clock
from argosy.model.phases import Desired
from argosy.model.rows import Claim, Node
from argosy.providers.ssh.reached import HeldClaim, Part, Reached


class Spot(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """One node of a claim."""

    index: int
    host: str  # id: `lab/gpu1`
    devices: tuple[tuple[int, int], ...] = ()  # (device, thousandths)
    home: str = ""  # its folder there, once it is known
    socket: str = ""  # of its agent, once it runs
    ip: str = ""
    facts: NodeFacts | None = None


class Record(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """One claim. `ready`: all of its nodes have been started."""

    claim_id: str
    tag: str
    state: Literal["run", "stop", "release"]
    spots: tuple[Spot, ...]
    ready: bool = False
    made_ms: int = 0


class Hosts(Protocol):
    """What claims need of the hosts (`driver.Driver`)."""

    ssh: Ssh
    owner: str

    @property
    def zipapp(self) -> Path: ...

    def dial(self, node: str) -> DialOrder | None:
        """For an agent that is to keep a connection to this server; None: this server has no public
        address."""

    def reached(self, host_id: str) -> Reached | None:
        """None: the host is in no pool (any more)."""

    def seen(self, host_id: str) -> Mapping[str, HeldClaim]:
        """What the host said last of claims that it holds, by id."""

    def listed(self) -> Iterable[tuple[str, HeldClaim]]:
        """All of that of all hosts, with their ids."""

    def silent(self, host_id: str, error: border.BorderError) -> None:
        """The host did not answer just now."""

    def answers(self, host_id: str) -> None:
        """It did."""

    def notices(self) -> Mapping[str, Notice]:
        """What programs on some hosts are told about their end."""


class Claims:
    """`root` is the provider's folder."""

    def __init__(self, root: Path, hosts: Hosts, clock: Clock) -> None:
        self._folder = root / "claims"
        self._tags_file = root / "tags.json"
        self._hosts, self._clock = hosts, clock
        self._released = Tombstones(root / ".released")
        self._locks: dict[str, asyncio.Lock] = {}
        self._to_its_end = ToItsEnd()
        self._records: dict[str, Record] = {}
        self._tags: tuple[str, ...] = ()
        self._load()

    @property
    def tags(self) -> tuple[str, ...]:
        return self._tags

    def records(self) -> Mapping[str, Record]:
        return self._records

    # -- verbs ----------------------------------------------------------------------------------------------

    async def ensure(self, claim: Claim) -> None:
        if not is_claim_id(claim.id):
            raise border.RequestRefused("claim", f"`{claim.id}` is not the id of a claim")
        await self._to_its_end(self._ensure(claim))

    async def release(self, claim_id: str) -> None:
        if is_claim_id(claim_id):
            await self._to_its_end(self._release(claim_id))

    async def observe(self, claim_ids: Sequence[str]) -> Sequence[ClaimFact]:
        wanted = set(claim_ids)
        notices = self._hosts.notices()
        records = [each for id, each in sorted(self._records.items()) if not wanted or id in wanted]
        facts = [self._fact(record, notices) for record in records]
        for host_id, held in self._hosts.listed():  # of a server that lost its folder, or another one of ours
            unknown = held.claim not in self._records and held.claim not in self._released
            if unknown and held.tag in self._tags and (not wanted or held.claim in wanted):
                text = f"{host_id} holds it"
                facts.append(
                    ClaimFact(claim_id=held.claim, state=ClaimState.PENDING, tag=held.tag, detail=text)
                )
        return facts

    async def reach(self, node: Node) -> Channel:
        rest, _, index = node.address.rpartition("/")
        claim_id = rest.rpartition("/")[2]
        record = self._records.get(claim_id)
        spot = next((each for each in record.spots if str(each.index) == index), None) if record else None
        reached = self._hosts.reached(spot.host) if spot is not None else None
        if spot is None or reached is None or not spot.socket:
            raise border.Unreachable(f"there is no node {node.address}")
        try:
            return await reached.open(spot.socket)
        except border.Unreachable as error:
            raise border.Unreachable(str(error)) from None
        except border.RequestRefused as error:  # another host key, a name that does not resolve
            raise border.Unreachable(str(error), 10) from error

    # -- making ---------------------------------------------------------------------------------------------

    async def _ensure(self, claim: Claim) -> None:
        async with self._lock(claim.id):
            old = self._records.get(claim.id)
            if claim.id in self._released or (old is not None and old.state == "release"):
                raise border.RequestRefused("claim", f"{claim.id} was released before")
            self._know_tag(claim.tag)
            record = self._ordered(claim, old)
            self._save(record)
            if record.state == "stop":
                await self._on_all(record, self._rest)
                self._save(msgspec.structs.replace(record, ready=True))
                return
            try:
                spots = await self._on_all(record, self._start)
            except border.BorderError as error:
                if old is not None and old.ready:
                    raise  # it is healed later; what runs goes on
                await self._undo(record)
                if _is_of_a_host(error):  # another place may do: neither wait for this one, nor give up
                    raise border.OutOfCapacity("host", str(error)) from error
                raise
            self._save(msgspec.structs.replace(record, spots=tuple(spots), ready=True))

    def _ordered(self, claim: Claim, old: Record | None) -> Record:
        known = {spot.index: spot for spot in old.spots} if old is not None else {}
        spots = []
        for place in sorted(claim.placements, key=lambda each: each.rank):
            host = place.node_id.partition("/")[2].replace("#", "/")
            if self._hosts.reached(host) is None:
                raise border.OutOfCapacity(host, f"there is no host {host} in any pool")
            devices = tuple((share.index, share.milli) for share in place.devices)
            before = known.get(place.rank)
            if before is not None and before.host == host:
                spots.append(msgspec.structs.replace(before, devices=devices))
            else:
                spots.append(Spot(index=place.rank, host=host, devices=devices))
        return Record(
            claim_id=claim.id,
            tag=claim.tag,
            state="stop" if claim.desired is Desired.STOP else "run",
            spots=tuple(spots),
            ready=old is not None and old.ready,
            made_ms=old.made_ms if old is not None else self._clock.now_ms(),
        )

    async def _on_all(self, record: Record, act: Any) -> list[Spot]:  # Any: `_start` or `_rest`
        """Act on every host of a claim at once, and wait for all. Raises the most telling error."""
        hosts: dict[str, list[Spot]] = {}
        for spot in record.spots:
            hosts.setdefault(spot.host, []).append(spot)
        done = await asyncio.gather(
            *(act(record, host_id, spots) for host_id, spots in sorted(hosts.items())), return_exceptions=True
        )
        errors = [each for each in done if isinstance(each, BaseException)]
        if errors:
            raise min(errors, key=_weight)
        found = [spot for each in done if isinstance(each, list) for spot in each]
        return sorted(found, key=lambda spot: spot.index)

    def _part(self, record: Record, spots: Sequence[Spot]) -> Part:
        return Part(
            claim_id=record.claim_id,
            tag=record.tag,
            tags=self._tags,
            owner=self._hosts.owner,
            state="stop" if record.state == "stop" else "run",
            nodes={str(spot.index): spot.devices for spot in spots},
            now_ms=record.made_ms,
        )

    async def _start(self, record: Record, host_id: str, spots: Sequence[Spot]) -> list[Spot]:
        """What the claim has on a host is written down there and its agents are started: of one node, as is
        usual, in one session."""
        reached, part = self._host(host_id), self._part(record, spots)
        try:
            if len(spots) == 1:
                started = [await self._agent(record, reached, spots[0], part=part)]
            else:
                homes = await reached.take(part)
                started = list(
                    await asyncio.gather(
                        *(self._agent(record, reached, spot, home=homes[str(spot.index)]) for spot in spots)
                    )
                )
        except border.Unreachable as error:
            self._hosts.silent(host_id, error)
            raise
        self._hosts.answers(host_id)
        return started

    async def _agent(
        self, record: Record, reached: Reached, spot: Spot, *, home: str = "", part: Part | None = None
    ) -> Spot:
        nodes = Path(home).parent.parent
        plan = AgentPlan(
            name=f"{record.claim_id}-{spot.index}",
            root=home,
            devices=tuple(device for device, _ in spot.devices),
            environ={"ARGOSY_PLACED_DIR": f"{nodes}/.placed", "ARGOSY_NODES_DIR": str(nodes)} if home else {},
            options=(f"--name={reached.host.name}",),
            folder=f"{reached.host.folder}/agent",
            dial=self._hosts.dial(f"{record.claim_id}-{spot.index}"),
        )
        place = await reached.start(plan, part)
        ip = place.facts.ip if place.facts.ip != "127.0.0.1" else reached.host.address
        return msgspec.structs.replace(spot, home=place.root, socket=place.socket, ip=ip, facts=place.facts)

    async def _rest(self, record: Record, host_id: str, spots: Sequence[Spot]) -> list[Spot]:
        await self._host(host_id).take(self._part(record, spots))
        return list(spots)

    def _host(self, host_id: str) -> Reached:
        reached = self._hosts.reached(host_id)
        if reached is None:
            raise border.OutOfCapacity(host_id, f"there is no host {host_id} in any pool")
        return reached

    async def _undo(self, record: Record) -> None:
        """Nothing is left of an order that was refused somewhere. Where that cannot be done now, its record
        stays: it is repeated, or released."""
        hosts = sorted({spot.host for spot in record.spots})
        if not any(await asyncio.gather(*(self._give(record.claim_id, id, forget=True) for id in hosts))):
            self._forget(record.claim_id)

    # -- releasing ------------------------------------------------------------------------------------------

    async def _release(self, claim_id: str) -> None:
        async with self._lock(claim_id):
            record = self._records.get(claim_id)
            hosts = {spot.host for spot in record.spots} if record is not None else set[str]()
            hosts |= {
                id for id, held in self._hosts.listed() if held.claim == claim_id and held.tag in self._tags
            }
            if record is not None and record.state != "release":
                self._save(msgspec.structs.replace(record, state="release"))
            answers = await asyncio.gather(*(self._give(claim_id, host_id) for host_id in sorted(hosts)))
            problems = [text for text in answers if text]
            if problems:
                raise border.Transient(f"not given back yet: {'; '.join(problems)}", 5)
            self._released.add(claim_id)
            self._forget(claim_id)
        self._locks.pop(claim_id, None)

    async def _give(self, claim_id: str, host_id: str, *, forget: bool = False) -> str:
        """Why a host may still have something of a claim; "" when it has nothing."""
        reached = self._hosts.reached(host_id)
        if reached is None:
            return ""  # people took the host out of its pool, and what was there with it
        try:
            await reached.give(claim_id, self._tags, forget=forget)
        except border.BorderError as error:
            if isinstance(error, border.Unreachable):
                self._hosts.silent(host_id, error)
            return f"{reached.host.name}: {error}"
        return ""

    # -- what there is --------------------------------------------------------------------------------------

    def _fact(self, record: Record, notices: Mapping[str, Notice]) -> ClaimFact:
        nodes = tuple(
            NodeSighting(
                index=spot.index,
                address=f"{spot.host}/{record.claim_id}/{spot.index}",
                ip=spot.ip or "127.0.0.1",
                alive=self._is_alive(record, spot),
                facts=_with_notice(spot.facts, notices.get(spot.host)),
            )
            for spot in record.spots
        )
        if record.state == "stop" and record.ready:
            state = ClaimState.STOPPED
        elif record.state == "run" and record.ready:
            state = ClaimState.HELD
        else:
            return ClaimFact(claim_id=record.claim_id, state=ClaimState.PENDING, tag=record.tag)
        return ClaimFact(claim_id=record.claim_id, state=state, nodes=nodes, tag=record.tag)

    def _is_alive(self, record: Record, spot: Spot) -> bool:
        """By what its host said last; what was just started lives."""
        if record.state != "run" or not spot.socket:
            return False
        held = self._hosts.seen(spot.host).get(record.claim_id)
        return held is None or all(alive for index, alive in held.alive if index == spot.index)

    # -- the folder -----------------------------------------------------------------------------------------

    def _load(self) -> None:
        try:
            self._tags = tuple(msgspec.json.decode(self._tags_file.read_bytes(), type=list[str]))
        except (OSError, msgspec.MsgspecError):
            self._tags = ()
        try:
            files = sorted(self._folder.glob("clm-*.json"))
        except OSError:
            return
        for file in files:
            try:
                record = msgspec.json.decode(file.read_bytes(), type=Record)
            except (OSError, msgspec.MsgspecError):
                continue
            self._records[record.claim_id] = record

    def _know_tag(self, tag: str) -> None:
        if tag not in self._tags:
            self._tags = (*self._tags, tag)
            _write(self._tags_file, msgspec.json.encode(self._tags))

    def _save(self, record: Record) -> None:
        if self._records.get(record.claim_id) != record:
            self._records[record.claim_id] = record
            _write(self._folder / f"{record.claim_id}.json", msgspec.json.encode(record))

    def _forget(self, claim_id: str) -> None:
        self._records.pop(claim_id, None)
        (self._folder / f"{claim_id}.json").unlink(missing_ok=True)

    def _lock(self, claim_id: str) -> asyncio.Lock:
        return self._locks.setdefault(claim_id, asyncio.Lock())


def _with_notice(facts: NodeFacts | None, notice: Notice | None) -> NodeFacts | None:
    return facts if notice is None else msgspec.structs.replace(facts or NodeFacts(), notice=notice)


def _is_of_a_host(error: border.BorderError) -> bool:
    """Whether a host is in the way, not what was asked for."""
    if isinstance(error, border.RequestRefused):
        return error.field in ("host", "host_key", "shell")
    return isinstance(error, border.Unreachable)


def _weight(error: BaseException) -> int:
    """What tells most comes first."""
    kinds = (border.CredentialsRejected, border.RequestRefused, border.OutOfCapacity, border.BorderError)
    return next((number for number, kind in enumerate(kinds) if isinstance(error, kind)), -1)


def _write(path: Path, data: bytes) -> None:
    """All or nothing, also when the power goes out in between. Raises `Transient` on a full disk."""
    try:
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        new = path.with_name(path.name + ".new")
        new.write_bytes(data)
        new.replace(path)
    except OSError as error:
        raise border.Transient(f"cannot write {path}: {error.strerror or error}", 10) from error

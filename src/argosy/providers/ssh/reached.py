"""One host, from here: orders to it, and in words what is wrong with it and what mends that."""

from __future__ import annotations

import asyncio
import hashlib
import shlex
from collections.abc import Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import Any, Final

import msgspec

from argosy.infra import border
from argosy.infra.agent_port import Channel
from argosy.infra.bootstrap import AgentPlace, AgentPlan, Errand, ErrandRefused, place_of, start_agent
from argosy.infra.ssh import Ssh
from argosy.infra.starter import Starter, StarterGone
from argosy.model.facts import NodeFacts
from argosy.providers.ssh.pools import Host

AT_ONCE: Final = 4
_ORDER_S: Final = 60.0  # a slow disk, or drivers that wake up
_OLD: Final = '{"error": "old-python", "text": "%d.%d.%d"}'


class HeldClaim(msgspec.Struct, frozen=True, kw_only=True):
    """A claim that has something on a host."""

    claim: str
    tag: str = ""
    owner: str = ""  # who its server is, in words
    state: str = ""
    alive: tuple[tuple[int, bool], ...] = ()  # nodes of it that are there, and whether their agents live
    since_ms: int = 0


class Look(msgspec.Struct, frozen=True, kw_only=True):
    """What a host said of itself. `facts` only when it was asked for."""

    hostname: str = ""
    python: str = ""
    user: str = ""
    ip: str = ""
    bash: bool = True
    facts: NodeFacts | None = None
    claims: tuple[HeldClaim, ...] = ()


class _Answer(Look, frozen=True, kw_only=True):
    need: bool = False
    error: str = ""
    path: str = ""
    text: str = ""
    refused: str = ""
    claim: str = ""
    owner: str = ""
    device: int = -1
    homes: Mapping[str, str] = {}


class _Order(msgspec.Struct, frozen=True, kw_only=True):
    verb: str
    folder: str
    agent: str
    size: int = 0
    probe: bool = False
    claim: str = ""
    tag: str = ""
    tags: Sequence[str] = ()
    owner: str = ""
    state: str = ""
    nodes: Mapping[str, Sequence[tuple[int, int]]] = {}
    now_ms: int = 0
    forget: bool = False


class Part(msgspec.Struct, frozen=True, kw_only=True):
    """What a claim has on one host."""

    claim_id: str
    tag: str
    tags: Sequence[str]  # all that are ours
    owner: str
    state: str  # run | stop
    nodes: Mapping[str, Sequence[tuple[int, int]]]  # by index: devices and thousandths of them
    now_ms: int


@cache
def _program() -> bytes:
    return Path(__file__).with_name("on_host.py").read_bytes()


@cache
def _name(zipapp: Path) -> str:
    """Of the agent on hosts: by its content."""
    return f"agent-{hashlib.sha256(zipapp.read_bytes()).hexdigest()[:16]}.pyz"


@cache
def _starter_name(zipapp: Path, folder: str, dials: bool) -> str:
    """Of the process that stays on hosts: by all that is loaded in it."""
    parts = (_program(), _name(zipapp).encode(), folder.encode(), b"dials" if dials else b"")
    return hashlib.sha256(b"\0".join(parts)).hexdigest()[:12]


def _fields(part: Part) -> dict[str, Any]:  # Any: as in `Part`
    return {
        "claim": part.claim_id,
        "tag": part.tag,
        "tags": part.tags,
        "owner": part.owner,
        "state": part.state,
        "nodes": part.nodes,
        "now_ms": part.now_ms,
    }


class Ways:
    """What all calls to one host share."""

    def __init__(self) -> None:
        self.places = asyncio.Semaphore(AT_ONCE)  # of orders: sshd allows few sessions at once
        #: Of claims that are given back: a host with hundreds of orders before it gets rid of what has ended.
        self.leaving = asyncio.Semaphore(AT_ONCE // 2)
        self.starter = Starter()


class Reached:
    """A host and the way to it. Every call raises border errors whose text says what mends it."""

    def __init__(self, ssh: Ssh, host: Host, zipapp: Path, ways: Ways | None = None) -> None:
        self.ssh, self.host, self.to = ssh, host, host.target()
        self._zipapp = zipapp
        ways = ways or Ways()
        self._places, self._leaving, self._starter = ways.places, ways.leaving, ways.starter

    async def look(self, *, probe: bool) -> Look:
        order = self._order("look", probe=probe)
        answer = await self._ask(order)
        if answer.need:
            data = self._zipapp.read_bytes()
            answer = await self._ask(msgspec.structs.replace(order, size=len(data)), data)
        return answer

    async def take(self, part: Part) -> Mapping[str, str]:
        """Write down what a claim holds there, before anything is started; safe to repeat. Returns the
        folders of its nodes by index. Raises `OutOfCapacity` when somebody else has it."""
        answer = await self._ask(self._order("take", **_fields(part)))
        self._raise_refusal(answer)
        return answer.homes

    async def start(self, plan: AgentPlan, part: Part | None = None) -> AgentPlace:
        """Start an agent; with `part`, in the same session write down first what its claim holds."""
        if part is None:
            async with self._places:
                return await start_agent(self.ssh, self.to, self._zipapp, plan)
        order = msgspec.Raw(msgspec.json.encode(self._order("take", **_fields(part))))
        name = _starter_name(self._zipapp, self.host.folder, plan.dial is not None)
        plan = msgspec.structs.replace(plan, starter=name)
        try:
            async with self._places:
                return await self._start(plan, order)
        except ErrandRefused as refused:
            answer = msgspec.json.decode(refused.answer, type=_Answer)
            self._raise_refusal(answer)
            raise _problem(self.host, answer) from None

    async def _start(self, plan: AgentPlan, order: msgspec.Raw) -> AgentPlace:
        """By the process that stays on the host, else in a session, which leaves one there."""
        place = await self._start_by_starter(plan, order)
        if place is not None:
            return place
        starter = self._starter
        errand = Errand(program=_program().decode(), order=order)
        if not starter.may_come:
            return await start_agent(self.ssh, self.to, self._zipapp, plan, errand)
        async with starter.coming:
            place = await self._start_by_starter(plan, order)
            if place is None:
                place = await start_agent(self.ssh, self.to, self._zipapp, plan, errand)
                starter.socket, starter.may_come = place.starter, bool(place.starter)
        return place

    async def _start_by_starter(self, plan: AgentPlan, order: msgspec.Raw) -> AgentPlace | None:
        """None: there is none, or it was of no use."""
        if f"/starter-{plan.starter}-" not in self._starter.socket:
            return None
        try:
            return place_of(await self._starter.start(self.ssh, self.to, order, plan), self.to, plan)
        except StarterGone:
            return None

    async def open(self, socket: str) -> Channel:
        """A stream to an agent of the host."""
        try:
            return await self._starter.through(self.ssh, self.to, socket)
        except StarterGone:
            return await self.ssh.open(self.to, socket)

    async def give(self, claim_id: str, tags: Sequence[str], *, forget: bool = False) -> None:
        """Nothing of a claim is left there. `forget`: its order was undone, it may come back."""
        order = self._order("give", claim=claim_id, tags=tags, forget=forget)
        try:
            raw = msgspec.Raw(msgspec.json.encode(order))
            async with self._leaving:
                said = await self._starter.errand(self.ssh, self.to, raw)
            answer = msgspec.json.decode(said, type=_Answer)
        except (StarterGone, msgspec.MsgspecError):
            answer = await self._ask(order)
        if answer.error:
            raise _problem(self.host, answer)
        self._raise_refusal(answer)

    def _raise_refusal(self, answer: _Answer) -> None:
        name = self.host.name
        if answer.refused == "released":
            raise border.RequestRefused("claim", f"{answer.claim or 'the claim'} was released before")
        if answer.refused == "busy":
            raise border.OutOfCapacity(name, f"device {answer.device} of {name} is in use")
        if answer.refused == "other":
            raise border.OutOfCapacity(name, f"{name} {in_use_by_other(answer.owner)}")

    def _order(self, verb: str, **more: Any) -> _Order:  # Any: the fields of an order
        return _Order(verb=verb, folder=self.host.folder, agent=_name(self._zipapp), **more)

    async def _ask(self, order: _Order, data: bytes = b"") -> _Answer:
        program = _program()
        body = program + msgspec.json.encode(order) + b"\n" + data
        async with self._places:
            ran = await self.ssh.run(self.to, _command(len(program)), data=body, timeout_s=_ORDER_S)
        try:
            answer = msgspec.json.decode(ran.out, type=_Answer)
        except msgspec.MsgspecError:
            said = (ran.err or ran.out.decode("utf-8", "replace")).strip().splitlines()
            last = said[-1][:300] if said else "it said nothing"
            raise border.Transient(f"{self.host.name} does not do what it is told: {last}", 10) from None
        if answer.error:
            raise _problem(self.host, answer)
        return answer


def _command(size: int) -> str:
    code = (
        f"import sys; old = sys.version_info < (3, 8); print({_OLD!r} % tuple(sys.version_info[:3])) if old "
        f"else exec(compile(sys.stdin.buffer.read({size}), 'argosy', 'exec'))"
    )
    missing = shlex.quote('{"error": "no-python"}')
    return (
        f"command -v python3 >/dev/null 2>&1 || {{ echo {missing}; exit 0; }}; "
        f"exec python3 -I -S -c {shlex.quote(code)}"
    )


def in_use_by_other(owner: str) -> str:
    """As the end of a sentence about a host: two servers cannot keep books of one host."""
    return (
        f"is in use by another Argosy server ({owner or 'which does not say who it is'}): "
        "take the host out of one of the two with `argosy pool remove`; if that server is gone for good, "
        "delete ~/.argosy/nodes on the host"
    )


def _problem(host: Host, answer: _Answer) -> border.BorderError:
    """The fact, then what mends it."""
    name, path = host.name, answer.path
    elsewhere = "or name another folder: `folder:` of the pool, `--folder` of `argosy pool add`"
    texts = {
        "no-python": f"{name} has no python3: install Python 3.8 or newer there",
        "old-python": f"python3 of {name} is {answer.text}, too old: install Python 3.8 or newer there",
        "no-space": f"the disk of {path} on {name} is full: make room there, {elsewhere}",
        "read-only": f"{path} on {name} is read-only: mount it with `rw`, {elsewhere}",
        "no-exec": f"{path} on {name} is mounted noexec, so that no program can be started from it: mount it "
        f"with `exec`, {elsewhere}",
        "denied": f"{path} on {name} cannot be written ({answer.text}): give it to the user, {elsewhere}",
    }
    if answer.error in texts:
        return border.RequestRefused("host", texts[answer.error])
    return border.Transient(f"{name} cannot do it: {answer.text} ({path})", 10)

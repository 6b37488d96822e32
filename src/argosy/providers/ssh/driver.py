"""What is known of the hosts: which there are, what they said last, and why some of them are closed.

Each host is looked at now and then, all at once, in one session of its connection. Nobody who asks for offers
waits for a host that does not answer: it stands there as it was seen last, closed, with the reason.
"""

from __future__ import annotations

import asyncio
import getpass
import os
import socket
from collections.abc import Iterable, Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import Final

import msgspec

from argosy.infra import border
from argosy.infra.agent_port import DialOrder
from argosy.infra.boot import agent_zipapp
from argosy.infra.owned import offers_of_machines
from argosy.infra.provider import Diagnostic, Setting
from argosy.infra.ssh import Ssh
from argosy.model.facts import NodeFacts, Notice
from argosy.model.offer import Offer, OwnedMachine
from argosy.providers.ssh import MANIFEST
from argosy.providers.ssh.claims import Claims
from argosy.providers.ssh.enlisting import Enlisting
from argosy.providers.ssh.known import Known, describe, facts_of
from argosy.providers.ssh.pools import Closed, PoolFiles, Pools
from argosy.providers.ssh.reached import HeldClaim, Reached, Ways, in_use_by_other

LOOK_EVERY_S: Final = 20.0
SILENT_EVERY_S: Final = 5.0  # one that does not answer
_EACH_HOST_S: Final = 0.25  # of a large pool no more than four hosts are looked at in a second
PROBE_EVERY_S: Final = 600.0
_MANY_HOSTS: Final = 50
_LOOKS_AT_ONCE: Final = 32
_CHECK_WAITS_S: Final = 15.0  # longer than ssh waits for a host that is switched off
_QUOTE_WAITS_S: Final = 1.5
_FACTS_FILE: Final = "facts.json"


class Driver:
    """All pools of one server."""

    def __init__(self, setting: Setting) -> None:
        self._root, self._clock, self._ids = setting.root, setting.clock, setting.ids
        self._environ = setting.environ
        self._dialled = setting.dialled
        home = Path(setting.environ.get("HOME") or "/")
        self.files = PoolFiles(setting.home, setting.root, home)
        self.ssh = Ssh(setting.root / "ssh", setting.ids, setting.environ)
        self.owner = f"{_user()}@{socket.gethostname()}, state folder {setting.home}"
        self._known: dict[str, Known] = {}
        self._looks = asyncio.Semaphore(_LOOKS_AT_ONCE)
        self._ways: dict[str, Ways] = {}
        self._pools: Pools | None = None
        self._facts: dict[str, NodeFacts] = self._load_facts()
        self.claims = Claims(setting.root, self, setting.clock)
        self.enlisting = Enlisting(self, setting)

    @cached_property
    def zipapp(self) -> Path:
        return agent_zipapp(self._root / "agent")

    def dial(self, node: str) -> DialOrder | None:
        dialled = self._dialled
        return dialled.order(node) if dialled is not None and dialled.is_offered else None

    # -- hosts ----------------------------------------------------------------------------------------------

    def pools(self) -> Pools:
        """What is written now. Raises `Transient` for our own file."""
        try:
            pools = self.files.read()
        except OSError as error:
            raise border.Transient(str(error), 30) from error
        if pools is not self._pools:
            self._pools = pools
            for id in self._known.keys() - pools.hosts.keys():
                del self._known[id]
            for id, host in pools.hosts.items():
                known = self._known.get(id)
                if known is None or known.host != host:
                    self._known[id] = Known(host=host, facts=self._facts.get(id))
        return pools

    def known(self, host_id: str) -> Known | None:
        self.pools()
        return self._known.get(host_id)

    def now_ms(self) -> int:
        return self._clock.now_ms()

    def know(self, known: Known) -> None:
        """A host was looked at just now, before it was in any pool."""
        known.looked_s = known.probed_s = self._clock.monotonic_s()
        self._known[known.host.id] = known
        if known.facts is not None:
            self._keep_facts(known.host.id, known.facts)

    def reached(self, host_id: str) -> Reached | None:
        known = self.known(host_id)
        if known is None:
            return None
        ways = self._ways.get(host_id)
        if ways is None:
            ways = self._ways[host_id] = Ways()
        return Reached(self.ssh, known.host, self.zipapp, ways)

    def seen(self, host_id: str) -> Mapping[str, HeldClaim]:
        known = self._known.get(host_id)
        if known is None or known.look is None:
            return {}
        return {held.claim: held for held in known.look.claims}

    def listed(self) -> Iterable[tuple[str, HeldClaim]]:
        return [
            (id, held)
            for id, known in self._known.items()
            if known.look is not None
            for held in known.look.claims
        ]

    def silent(self, host_id: str, error: border.BorderError) -> None:
        known = self._known.get(host_id)
        if known is not None:
            known.problem, known.silent = str(error), True

    def answers(self, host_id: str) -> None:
        known = self._known.get(host_id)
        if known is not None and known.silent:
            known.problem, known.silent, known.looked_s = "", False, -1e9

    def notices(self) -> Mapping[str, Notice]:
        """What programs on hosts are told about their end, by host: who drains one wants it empty."""
        return {
            id: Notice(code="maintenance", at_ms=each.since_ms, text=f"{id} is drained")
            for id, each in self.files.closed().items()
            if each.state == "drained"
        }

    # -- looking --------------------------------------------------------------------------------------------

    def look_again(self) -> list[asyncio.Task[None]]:
        """Begin to look at every host that was not looked at lately; the looks that are under way."""
        now_s = self._clock.monotonic_s()
        every_s = max(LOOK_EVERY_S, _EACH_HOST_S * len(self.pools().hosts))
        tasks = []
        for known in self._known.values():
            due_s = SILENT_EVERY_S if known.silent else every_s
            if known.looking is None and now_s - known.looked_s >= due_s:
                known.looking = asyncio.get_running_loop().create_task(self._look(known))
            if known.looking is not None:
                tasks.append(known.looking)
        return tasks

    async def _look(self, known: Known) -> None:
        now_s = self._clock.monotonic_s()
        probe = known.facts is None or known.silent or now_s - known.probed_s >= PROBE_EVERY_S
        try:
            zipapp = await asyncio.to_thread(lambda: self.zipapp)
            async with self._looks:
                known.look = await Reached(self.ssh, known.host, zipapp).look(probe=probe)
            known.problem, known.silent = "", False
            if known.look.facts is not None:
                known.facts, known.probed_s = facts_of(known.host, known.look), now_s
                self._keep_facts(known.host.id, known.facts)
        except border.BorderError as error:
            known.problem, known.silent = str(error), isinstance(error, border.Unreachable)
        except OSError as error:
            known.problem, known.silent = f"cannot be looked at: {error.strerror or error}", False
        finally:
            known.looked_s, known.looking = self._clock.monotonic_s(), None

    async def look_at_all(self) -> None:
        """Until every host has answered or failed, for some seconds."""
        self.pools()
        for known in self._known.values():
            known.looked_s = -1e9
        if tasks := self.look_again():
            await asyncio.wait(tasks, timeout=_CHECK_WAITS_S)

    # -- verbs ----------------------------------------------------------------------------------------------

    async def quote(self) -> Sequence[Offer]:
        pools = self.pools()
        if tasks := self.look_again():
            await asyncio.wait(tasks, timeout=_QUOTE_WAITS_S)
        now_ms, closed = self._clock.now_ms(), self.files.closed()
        offers: list[Offer] = []
        for pool in pools.names:
            known = [self._known[host.id] for host in pools.of(pool)]
            machines = [
                OwnedMachine(name=each.host.name, facts=each.facts, closed=self.closed(each, closed))
                for each in known
                if each.facts is not None
            ]
            offers += offers_of_machines(MANIFEST.name, pool, machines, now_ms=now_ms)
        problems = [known for known in self._known.values() if known.problem]
        if not offers and problems:
            raise border.Unreachable(f"{problems[0].host.id}: {problems[0].problem}", 10)
        if not offers and pools.hosts:
            raise border.Unreachable(
                "its hosts are being looked at for the first time; try again in a moment", 2
            )
        return offers

    def closed(self, known: Known, closed: Mapping[str, Closed]) -> str:
        """Why a host takes nothing new, as the end of a sentence; "": it does."""
        if known.host.id in closed:
            return f"is {closed[known.host.id].state}"
        if known.silent:
            return "does not answer"
        if known.problem:
            return f"cannot be used: {known.problem}"
        if known.look is None:
            return "has not answered yet"
        other = next((held for held in known.look.claims if held.tag not in self.claims.tags), None)
        return in_use_by_other(other.owner) if other is not None else ""

    async def check(self) -> Sequence[Diagnostic]:
        def finding(ok: bool, what: str, hint: str = "") -> Diagnostic:
            return Diagnostic(provider=MANIFEST.name, ok=ok, what=what, hint="" if ok else hint)

        await self.look_at_all()
        pools, closed = self.pools(), self.files.closed()
        findings = []
        problem = self.files.problem
        if problem is not None:
            where = f"{problem.where}: " if problem.where else ""
            findings.append(finding(False, f"{where}{problem.what}", problem.hint or "correct the file"))
        findings += [finding(True, warning) for warning in pools.warnings]
        for id, known in self._known.items():
            if known.problem:
                fact, _, fix = known.problem.partition(": ")
                findings.append(finding(False, f"{id}: {fact}", fix or "look at the host, then try again"))
                continue
            words = f"{id}: {describe(known)}"
            if reason := self.closed(known, closed):
                fix = reason.partition(": ")[2] or "wait a moment, then look again"
                hint = f"`argosy pool uncordon {id}` opens it" if id in closed else fix
                findings.append(finding(id in closed, f"{words}; it {reason.partition(': ')[0]}", hint))
            else:
                findings.append(finding(True, words))
        if len(self._known) > _MANY_HOSTS and self._dialled is not None and not self._dialled.is_offered:
            words = f"while they work, {len(self._known)} hosts cost this server an ssh process each; with "
            findings.append(finding(True, words + "ARGOSY_PUBLIC_URL set, their agents dial in instead"))
        return findings or [
            finding(False, "no file names a host", "`argosy pool add NAME --hosts HOST,HOST`")
        ]

    # -- facts of hosts, kept for the time when they do not answer -----------------------------------------

    def _load_facts(self) -> dict[str, NodeFacts]:
        try:
            return msgspec.json.decode((self._root / _FACTS_FILE).read_bytes(), type=dict[str, NodeFacts])
        except (OSError, msgspec.MsgspecError):
            return {}

    def _keep_facts(self, host_id: str, facts: NodeFacts) -> None:
        if self._facts.get(host_id) == facts:
            return
        self._facts[host_id] = facts
        kept = {id: each for id, each in self._facts.items() if id in self._known}
        path = self._root / _FACTS_FILE
        try:
            path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
            new = path.with_name(path.name + ".new")
            new.write_bytes(msgspec.json.encode(kept))
            new.replace(path)
        except OSError:
            return  # only a convenience: the next look tells them again


def _user() -> str:
    try:
        return getpass.getuser()
    except (KeyError, OSError):
        return str(os.getuid())

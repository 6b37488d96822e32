"""Pools of hosts on real hosts in namespaces: the suite for every provider, and what is special here."""

from __future__ import annotations

import asyncio
import fcntl
import os
import shutil
import tempfile
from collections.abc import Awaitable, Callable, Iterator
from pathlib import Path
from typing import ClassVar

import msgspec
import pytest

from argosy.infra import border
from argosy.infra.provider import Setting
from argosy.infra.system import SystemClock, SystemIds
from argosy.model.offer import DeviceShare, Placement
from argosy.model.rows import Claim
from argosy.providers.ssh.provider import SshProvider
from argosy.testing.builders import a_choice, a_claim, an_offer
from argosy.testing.conformance.provider import CASES, Case, NotApplicable, case_name, hold
from argosy.testing.hosts import HostLab

_SECRET = "s3cr3t-token-of-the-server"
_POOL = """\
lab:
  user: root
  identity_file: {lab.key_file}
  ssh_config: {lab.config_file}
  hosts: [{names}]
"""


@pytest.fixture
def home() -> Iterator[Path]:
    made = Path(tempfile.mkdtemp(prefix="pool-"))  # short: control sockets live in it
    yield made
    shutil.rmtree(made)


class Subject:
    gaps: ClassVar[dict[str, str]] = {
        "preemption_becomes_a_fact": "nobody takes hosts of our own away: they vanish and come back"
    }
    secrets = (_SECRET,)

    def __init__(self, home: Path, lab: HostLab) -> None:
        self.home, self.lab = home, lab
        self.names = [host.name for host in lab.hosts]
        (home / "pools.yaml").write_text(_POOL.format(lab=lab, names=", ".join(self.names)))
        self.provider = self.a_server()
        self._next = 0

    def a_server(self, state: str = "") -> SshProvider:
        """As after a restart, or (`state`) another one with a folder of its own."""
        environ = {**os.environ, "HOME": str(self.home), "ARGOSY_TOKEN": _SECRET}
        home = self.home / state if state else self.home
        if state:
            home.mkdir(exist_ok=True)
            shutil.copy(self.home / "pools.yaml", home)
        root = home / "providers" / "ssh"
        return SshProvider(
            Setting(root=root, clock=SystemClock(), ids=SystemIds(), environ=environ, home=home)
        )

    async def end(self) -> None:
        """Nothing of it is left on the hosts, which other tests use after this."""
        for fact in await self.provider.observe(()):
            await self.provider.release(fact.claim_id)
        if self.provider._made is not None:
            await self.provider._made.ssh.close()

    def claim(self, count: int = 1, milli: int = 0) -> Claim:
        """On the hosts one after the other; `milli` of device 0 of each."""
        first, self._next = self._next, self._next + 1
        hosts = [self.names[(first + rank) % len(self.names)] for rank in range(count)]
        devices = (DeviceShare(index=0, milli=milli),) if milli else ()
        places = tuple(
            Placement(rank=rank, node_id=f"ssh/lab#{host}", devices=devices)
            for rank, host in enumerate(hosts)
        )
        choice = a_choice(
            offer=an_offer(provider="ssh", region="lab", apart=True),
            cpus_milli=0,
            memory_bytes=0,
            accelerators_milli=milli,
        )
        return a_claim(count=count, choice=choice, placements=places)

    def too_large(self) -> Claim:
        """One of its nodes wants a device twice."""
        claim = self.claim(count=2, milli=1000)
        first, second = claim.placements
        twice = msgspec.structs.replace(second, devices=(*second.devices, *second.devices))
        return msgspec.structs.replace(claim, placements=(first, twice))

    async def pass_time(self, seconds: float) -> None:
        await asyncio.sleep(min(seconds, 0.05))

    def _claims(self) -> list[Path]:
        return [path for host in self.lab.hosts for path in host.path("/root/.argosy/nodes").glob("*/clm-*")]

    def truth(self) -> set[str]:
        return {path.name for path in self._claims()}

    def machines(self, claim_id: str) -> int:
        homes = [home for path in self._claims() if path.name == claim_id for home in path.glob("[0-9]*")]
        return sum(map(has_agent, homes))

    async def lose_reply_of(self, call: Callable[[], Awaitable[None]]) -> None:
        lost = asyncio.ensure_future(call())
        await asyncio.sleep(0)
        lost.cancel()
        await asyncio.gather(lost, return_exceptions=True)

    async def preempt(self, claim_id: str) -> None:
        raise NotApplicable("nobody takes them away")

    async def make_foreign(self) -> None:
        self.lab.hosts[0].run("mkdir -p /root/.argosy/nodes/$(hostname)/notes /root/.argosy/other")


def has_agent(home: Path) -> bool:
    """Whether an agent holds the lock of a node's folder."""
    try:
        with (home / "agent.lock").open("rb") as file:
            fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except FileNotFoundError:
        return False
    except BlockingIOError:
        return True
    return False


@pytest.fixture(scope="module")
def running() -> Iterator[asyncio.Runner]:
    """One event loop for all: log-ins are kept, as a server keeps them."""
    with asyncio.Runner() as runner:
        yield runner


@pytest.fixture(scope="module")
def subject(hosts: HostLab, running: asyncio.Runner) -> Iterator[Subject]:
    home = Path(tempfile.mkdtemp(prefix="pool-"))
    subject = Subject(home, hosts)
    yield subject
    running.run(subject.end())
    shutil.rmtree(home)


@pytest.mark.parametrize("case", CASES, ids=case_name)
def test_conformance(case: Case, subject: Subject, running: asyncio.Runner) -> None:
    try:
        running.run(hold(case, subject))
    except NotApplicable as why:
        pytest.skip(str(why))


def test_a_host_that_cannot_run_an_agent_is_no_reason_to_give_up_the_work(home: Path, hosts: HostLab) -> None:
    async def body() -> None:
        subject = Subject(home, hosts)
        hosts.hosts[0].python("missing")
        try:
            with pytest.raises(border.OutOfCapacity, match="has no `python3`: install Python 3"):
                await subject.provider.ensure(subject.claim())
            await subject.provider.ensure(subject.claim())  # on the next host
        finally:
            hosts.hosts[0].python("present")
            await subject.end()

    asyncio.run(body())

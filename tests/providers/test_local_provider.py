"""The local provider with real agents and real processes: the suite for every provider, and what is special
here."""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import sys
from collections.abc import Awaitable, Callable, Iterator
from pathlib import Path
from typing import ClassVar

import msgspec
import pytest

from argosy.infra import border
from argosy.infra.agent_client import AgentClient
from argosy.infra.agent_port import RankOrder
from argosy.infra.boot import agent_zipapp
from argosy.infra.provider import Want
from argosy.infra.system import SystemClock
from argosy.model.facts import ClaimState, NodeFacts, RankPhase
from argosy.model.offer import Capacity
from argosy.model.phases import Desired
from argosy.model.rows import Claim
from argosy.providers.local.agents import ZipappAgents
from argosy.providers.local.processes import Process, of_nodes
from argosy.providers.local.provider import LocalProvider, node_ip
from argosy.testing.builders import a_choice, a_claim, a_node, an_offer, some_devices
from argosy.testing.conformance.provider import CASES, Case, NotApplicable, case_name, gone, hold, settled

_SECRET = "s3cr3t-token-of-the-server"


class TwoGpuAgents(ZipappAgents):
    """The real agents of a machine whose probe says that it has two accelerators."""

    async def probe(self) -> NodeFacts:
        return NodeFacts(cpus_milli=4000, memory_bytes=8 << 30, arch="x86_64", devices=some_devices(2))


class LocalSubject:
    gaps: ClassVar[dict[str, str]] = {}
    secrets = (_SECRET,)

    def __init__(self, root: Path, zipapp: Path, kind: type[ZipappAgents] = TwoGpuAgents) -> None:
        self.root = root
        environ = {**os.environ, "ARGOSY_TOKEN": _SECRET}
        self.provider = LocalProvider(root, clock=SystemClock(), agents=lambda: kind(zipapp, environ))

    def claim(self, count: int = 1, milli: int = 0) -> Claim:
        choice = a_choice(
            offer=an_offer(provider="local"),
            cpus_milli=0,
            memory_bytes=0,
            accelerator="A100" if milli else None,
            accelerators_milli=milli,
        )
        return a_claim(count=count, choice=choice)

    def too_large(self) -> Claim:
        return self.claim(count=3, milli=1000)

    async def pass_time(self, seconds: float) -> None:
        await asyncio.sleep(min(seconds, 0.05))

    def truth(self) -> set[str]:
        return {folder.name for folder in self.root.glob("clm-*")}

    def machines(self, claim_id: str) -> int:
        homes = [home for home in self.root.glob(f"{claim_id}/*") if home.is_dir()]
        return sum(1 for home in homes if of_nodes([home]))

    async def lose_reply_of(self, call: Callable[[], Awaitable[None]]) -> None:
        lost = asyncio.ensure_future(call())
        await asyncio.sleep(0)
        lost.cancel()
        await asyncio.gather(lost, return_exceptions=True)

    async def preempt(self, claim_id: str) -> None:
        await self.provider.simulate_preemption(claim_id)

    async def make_foreign(self) -> None:
        (self.root / "shared").mkdir(parents=True)
        (self.root / "notes.txt").write_text("not ours")


@pytest.fixture(scope="session")
def zipapp(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return agent_zipapp(tmp_path_factory.mktemp("agent"))


@pytest.fixture
def subject(tmp_path: Path, zipapp: Path) -> Iterator[LocalSubject]:
    made = LocalSubject(tmp_path / "nodes", zipapp)
    yield made
    for claim_id in made.truth():
        asyncio.run(made.provider.release(claim_id))


@pytest.mark.parametrize("case", CASES, ids=case_name)
def test_conformance(case: Case, subject: LocalSubject) -> None:
    try:
        asyncio.run(hold(case, subject))  # type: ignore[arg-type]
    except NotApplicable as reason:
        pytest.skip(str(reason))


def _client(subject: LocalSubject, claim: Claim, index: int = 0) -> AgentClient:
    node = a_node(claim_id=claim.id, provider="local", address=f"{claim.id}/{index}", index=index)
    return AgentClient(lambda: subject.provider.reach(node))


async def _run_rank(
    client: AgentClient, rank_id: str, run: str, until: RankPhase = RankPhase.RUNNING
) -> bytes:
    """Starts a rank and returns its output when it has reached a phase."""
    await client.prepare([RankOrder(id=rank_id, run=run, run_now=True)])
    out = b""
    async for report in client.watch({}):
        out += b"".join(chunk.data for chunk in report.logs if chunk.rank_id == rank_id)
        if any(rank.id == rank_id and rank.phase is until for rank in report.ranks):
            return out
    raise AssertionError("the agent hung up")


def test_gang_nodes_have_disjoint_devices_and_own_addresses(subject: LocalSubject) -> None:
    async def main() -> None:
        claim = subject.claim(count=2, milli=1000)
        await subject.provider.ensure(claim)
        fact = await settled(subject, claim.id)  # type: ignore[arg-type]
        assert [node.ip for node in fact.nodes] == ["127.0.0.1", "127.0.0.2"] == [node_ip(0), node_ip(1)]
        devices = [[d.index for d in node.facts.devices] for node in fact.nodes if node.facts]
        assert devices == [[0], [1]]
        with pytest.raises(border.OutOfCapacity):
            await subject.provider.ensure(subject.claim(milli=1000))
        with pytest.raises(border.OutOfCapacity):
            await subject.provider.ensure(subject.claim(milli=250))
        await subject.provider.release(claim.id)
        await subject.provider.ensure(subject.claim(milli=1000))

    asyncio.run(main())


def test_what_this_machine_has_not_is_refused_and_leaves_nothing(subject: LocalSubject) -> None:
    def refused(claim: Claim, kind: type[border.BorderError]) -> str:
        with pytest.raises(kind) as caught:
            asyncio.run(subject.provider.ensure(claim))
        assert subject.truth() == set()
        return str(caught.value)

    def of_model(model: str) -> Claim:
        claim = subject.claim(milli=1000)
        return msgspec.structs.replace(claim, choice=msgspec.structs.replace(claim.choice, accelerator=model))

    def at(**fields: object) -> Claim:
        claim = subject.claim()
        offer = msgspec.structs.replace(claim.choice.offer, **fields)
        return msgspec.structs.replace(claim, choice=msgspec.structs.replace(claim.choice, offer=offer))

    assert (
        refused(subject.claim(count=3, milli=1000), border.OutOfCapacity)
        == "3 x 1 A100 are not free on this machine"
    )
    assert refused(of_model("H100"), border.OutOfCapacity) == "1 x 1 H100 are not free on this machine"
    assert refused(at(capacity=Capacity.SPOT), border.Unsupported) == "this machine has no spot capacity"
    assert refused(at(provider="aws"), border.RequestRefused) == "`aws` is not this machine"


def test_shares_of_one_device_go_together(subject: LocalSubject) -> None:
    async def main() -> None:
        shares = [subject.claim(milli=500) for _ in range(2)]
        whole = subject.claim(milli=1000)
        for claim in (*shares, whole):
            await subject.provider.ensure(claim)
        seen = {
            fact.claim_id: [d.index for d in fact.nodes[0].facts.devices]
            for fact in await subject.provider.observe([])
            if fact.nodes[0].facts
        }
        assert [seen[claim.id] for claim in (*shares, whole)] == [[0], [0], [1]]
        assert {node.name for node in subject.root.glob("clm-*")} == {claim.id for claim in (*shares, whole)}

    asyncio.run(main())


def test_nodes_at_rest_hold_no_devices_and_keep_their_files(subject: LocalSubject) -> None:
    async def main() -> None:
        claim = subject.claim(milli=2000)
        await subject.provider.ensure(claim)
        kept = subject.root / claim.id / "0" / "home" / "kept"
        kept.parent.mkdir(parents=True, exist_ok=True)  # the agent may just be making it
        kept.write_text("x")
        resting = msgspec.structs.replace(claim, desired=Desired.STOP)
        await subject.provider.ensure(resting)
        other = subject.claim(milli=1000)
        await subject.provider.ensure(other)
        with pytest.raises(border.OutOfCapacity):
            await subject.provider.ensure(claim)
        assert [f.state for f in await subject.provider.observe([claim.id])] == ["stopped"]
        await subject.provider.release(other.id)
        await subject.provider.ensure(claim)
        assert kept.read_text() == "x"

    asyncio.run(main())


def test_a_claim_that_was_never_started_can_rest(subject: LocalSubject) -> None:
    async def main() -> None:
        claim = subject.claim(count=2)
        await subject.provider.ensure(msgspec.structs.replace(claim, desired=Desired.STOP))
        assert [f.state for f in await subject.provider.observe([])] == ["stopped"]
        assert subject.machines(claim.id) == 0
        await subject.provider.ensure(claim)
        assert subject.machines(claim.id) == 2

    asyncio.run(main())


def test_ranks_run_and_release_ends_them_all(subject: LocalSubject) -> None:
    async def main() -> None:
        claim = subject.claim()
        await subject.provider.ensure(claim)
        client = _client(subject, claim)
        run = "sleep 1000 & setsid sh -c 'sleep 1001 & sleep 1002' & echo started; wait"
        await _run_rank(client, "att-1.0", run)
        home = subject.root / claim.id / "0"
        await _until(lambda: len(of_nodes([home])) >= 6)
        pids = of_nodes([home])
        await client.close()
        await subject.provider.release(claim.id)
        assert not [pid for pid in pids if _is_alive(pid)]
        assert not home.exists()

    asyncio.run(main())


def test_release_finds_ranks_whose_agent_is_dead(subject: LocalSubject) -> None:
    async def main() -> None:
        claim = subject.claim()
        await subject.provider.ensure(claim)
        client = _client(subject, claim)
        await _run_rank(client, "att-1.0", "sleep 1000")
        await client.close()
        home = subject.root / claim.id / "0"
        os.kill(_agent_pid(home), signal.SIGKILL)
        await _until(lambda: not _is_alive(_agent_pid(home)))
        left = of_nodes([home])
        assert left, "ranks survive their agent"
        facts = await subject.provider.observe([claim.id])
        assert [(fact.state, fact.nodes[0].alive) for fact in facts] == [("held", False)]
        await subject.provider.release(claim.id)
        assert not [pid for pid in left if _is_alive(pid)]

    asyncio.run(main())


def test_ensure_restarts_a_dead_agent_and_its_ranks_go_on(subject: LocalSubject) -> None:
    async def main() -> None:
        claim = subject.claim()
        await subject.provider.ensure(claim)
        client = _client(subject, claim)
        await _run_rank(client, "att-1.0", "while [ ! -e go ]; do sleep 0.02; done; exit 7")
        await client.close()
        home = subject.root / claim.id / "0"
        dead = _agent_pid(home)
        os.kill(dead, signal.SIGKILL)
        await _until(lambda: not _is_alive(dead))
        await subject.provider.ensure(claim)
        (home / "home" / "workdir" / "go").touch()
        client = _client(subject, claim)
        async for report in client.watch({}):
            codes = [rank.exit_code for rank in report.ranks if rank.phase is RankPhase.EXITED]
            if codes:
                break
        assert codes == [7]
        await client.close()

    asyncio.run(main())


def test_agents_outlive_the_server_and_its_successor_finds_them(subject: LocalSubject, zipapp: Path) -> None:
    claim = subject.claim()
    script = f"""
import asyncio, os, signal, msgspec
from pathlib import Path
from argosy.infra.system import SystemClock
from argosy.model.rows import Claim
from argosy.providers.local.agents import ZipappAgents
from argosy.providers.local.provider import LocalProvider
claim = msgspec.json.decode({msgspec.json.encode(claim).decode()!r}, type=Claim)
provider = LocalProvider(Path({str(subject.root)!r}), clock=SystemClock(),
                         agents=lambda: ZipappAgents(Path({str(zipapp)!r}), dict(os.environ)))
asyncio.run(provider.ensure(claim))
os.kill(os.getpid(), signal.SIGKILL)
"""
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, timeout=60)
    assert done.returncode == -signal.SIGKILL, done.stderr

    async def main() -> None:
        fact = await settled(subject, claim.id)  # type: ignore[arg-type]
        assert fact.state == "held"
        client = _client(subject, claim)
        assert (await client.node()).hostname
        await client.close()

    asyncio.run(main())


def test_an_agent_that_nobody_wrote_down_is_adopted(subject: LocalSubject) -> None:
    """The server was killed between starting the agent and writing agent.json: its successor removed the live
    agent's socket and started another one, which said for ever that the first serves the folder."""

    async def body() -> None:
        claim = subject.claim()
        await subject.provider.ensure(claim)
        note = subject.root / claim.id / "0" / "agent.json"
        written = note.read_bytes()
        note.unlink()
        (fact,) = await subject.provider.observe([claim.id])
        assert fact.state is ClaimState.PENDING
        await subject.provider.ensure(claim)
        assert note.read_bytes() == written
        assert subject.machines(claim.id) == 1
        client = _client(subject, claim)
        assert (await client.node()).hostname
        await client.close()
        note.unlink()
        await subject.provider.release(claim.id)
        assert subject.machines(claim.id) == 0

    asyncio.run(body())


def test_preemption_kills_ranks_and_ensure_does_not_bring_them_back(subject: LocalSubject) -> None:
    async def main() -> None:
        claim = subject.claim()
        await subject.provider.ensure(claim)
        client = _client(subject, claim)
        await _run_rank(client, "att-1.0", "trap '' TERM; sleep 1000")
        await client.close()
        await subject.provider.simulate_preemption(claim.id)
        assert subject.machines(claim.id) == 0
        await subject.provider.ensure(claim)
        assert subject.machines(claim.id) == 0
        assert [f.state for f in await subject.provider.observe([])] == ["preempted"]
        await subject.provider.release(claim.id)
        await gone(subject, claim.id)  # type: ignore[arg-type]

    asyncio.run(main())


@pytest.mark.parametrize(
    "half", ["an empty folder", "a cut off record", "a record and no nodes", "an unknown node"]
)
def test_half_made_claims_are_listed_and_released(subject: LocalSubject, half: str) -> None:
    async def main() -> None:
        claim = subject.claim()
        folder = subject.root / claim.id
        folder.mkdir(parents=True)
        if half == "a cut off record":
            (folder / "claim.json").write_text('{"claim_id": "clm')
        elif half == "a record and no nodes":
            (folder / "claim.json").write_text(f'{{"claim_id": "{claim.id}", "count": 2, "state": "run"}}')
        elif half == "an unknown node":
            (folder / "7" / "home").mkdir(parents=True)
        assert [f.state for f in await subject.provider.observe([])] == ["pending"]
        await subject.provider.release(claim.id)
        assert not folder.exists()

    asyncio.run(main())


def test_release_removes_what_programs_locked_and_follows_no_link(
    subject: LocalSubject, tmp_path: Path
) -> None:
    outside = tmp_path / "outside"
    outside.mkdir()
    (outside / "precious").write_text("x")

    async def main() -> None:
        claim = subject.claim()
        await subject.provider.ensure(claim)
        home = subject.root / claim.id / "0" / "home"
        (home / "locked" / "deep").mkdir(parents=True)
        (home / "locked" / "deep" / "file").write_text("x")
        (home / "locked" / "deep").chmod(0)
        (home / "locked").chmod(0o500)
        (home / "link").symlink_to(outside)
        await subject.provider.release(claim.id)
        assert not (subject.root / claim.id).exists()

    asyncio.run(main())
    assert (outside / "precious").read_text() == "x"


def test_an_agent_that_does_not_start_leaves_nothing(tmp_path: Path) -> None:
    class BrokenAgents(TwoGpuAgents):
        def start(self, home: Path, socket: Path, devices: object, name: str) -> Process:
            from argosy.providers.local.processes import spawn

            return spawn(["/bin/sh", "-c", "echo the battery is empty; exit 1"], {}, home / "agent.log")

    subject = LocalSubject(tmp_path / "nodes", tmp_path / "none", BrokenAgents)

    async def main() -> None:
        with pytest.raises(border.Transient, match="the battery is empty"):
            await subject.provider.ensure(subject.claim(count=2))
        assert subject.truth() == set()

    asyncio.run(main())


def test_a_lost_socket_comes_back_and_no_name_in_tmp_can_be_taken(
    tmp_path: Path, zipapp: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Also where the path is longer than a unix address."""
    subject = LocalSubject(tmp_path / ("long" * 40) / "nodes", zipapp, ZipappAgents)
    monkeypatch.setattr(os, "geteuid", lambda: 2**31 - 7)  # whose folder in /tmp nobody has made

    async def main() -> None:
        claim = subject.claim()
        await subject.provider.ensure(claim)
        socket = subject.root / claim.id / "0" / "agent.sock"
        assert socket.is_socket() and socket.parent.stat().st_mode & 0o077 == 0
        socket.unlink()
        await _until(socket.is_socket)
        client = _client(subject, claim)
        assert (await client.node()).cpus_milli
        await client.close()
        await subject.provider.release(claim.id)

    asyncio.run(main())


def test_the_real_probe_quotes_this_machine(tmp_path: Path, zipapp: Path) -> None:
    subject = LocalSubject(tmp_path / "nodes", zipapp, ZipappAgents)

    async def main() -> None:
        offers = await subject.provider.quote(Want())
        assert offers[0].shape.cpus_milli >= 1000
        assert offers[0].shape.memory_bytes > 100 << 20
        findings = await subject.provider.check()
        assert any("bash" in finding.what for finding in findings)

    asyncio.run(main())


def test_the_agent_does_not_inherit_the_servers_secrets(subject: LocalSubject) -> None:
    async def main() -> None:
        claim = subject.claim()
        await subject.provider.ensure(claim)
        environ = Path(f"/proc/{_agent_pid(subject.root / claim.id / '0')}/environ").read_bytes()
        assert _SECRET.encode() not in environ

    asyncio.run(main())


def _agent_pid(home: Path) -> int:
    return msgspec.json.decode((home / "agent.json").read_bytes(), type=Process).pid


def _is_alive(pid: int) -> bool:
    try:
        state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except OSError:
        return False
    return state not in "ZX"


async def _until(condition: Callable[[], bool]) -> None:
    for _ in range(1000):
        if condition():
            return
        await asyncio.sleep(0.01)
    raise AssertionError("it did not happen")

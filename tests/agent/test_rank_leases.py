"""A rank with a lease ends when its server is not heard: with its agent, without it, and not too soon."""

from __future__ import annotations

import asyncio
import os
import time
from collections.abc import Callable
from pathlib import Path

from agent_process import AgentProcess, Seen, gone, wait_for, watch_until

from argosy.agent import leases, processes, programs
from argosy.infra.agent_client import AgentClient
from argosy.infra.agent_port import Ack, Lease, RankOrder, Report
from argosy.model.facts import RankFact, RankPhase
from argosy.providers.ssh import on_host

#: Long enough for an order to come in time on a machine that is busy.
LEASE_MS = 5000


def _order(pid_file: Path, lease: Lease, id: str = "a.0") -> RankOrder:
    return RankOrder(id=id, run=f"echo $$ >{pid_file}; sleep 600", run_now=True, lease=lease)


async def _lease(client: AgentClient, ms: int, ago_ms: int = 0) -> Lease:
    """As the server makes it: from the last report."""
    boot = (await client.node()).boot_id
    report = await anext(client.watch({}))
    return Lease(boot=boot, sent=report.sent - ago_ms, ms=ms)


async def _end_of(client: AgentClient, rank_id: str = "a.0") -> RankFact:
    return (await watch_until(client, lambda seen: seen.ended(rank_id))).facts[rank_id]


def _runs(seen: Seen) -> bool:
    return "a.0" in seen.facts and seen.facts["a.0"].phase is RankPhase.RUNNING


def _pid(path: Path) -> int:
    wait_for(lambda: path.exists() and path.read_text().strip())
    return int(path.read_text())


def test_a_rank_whose_server_is_not_heard_ends_and_is_no_failure(agent: AgentProcess, folder: Path) -> None:
    async def scenario(client: AgentClient) -> None:
        await client.prepare([_order(folder / "pid", await _lease(client, LEASE_MS))])
        fact = await _end_of(client)  # it is watched, and nobody answers
        assert (fact.phase, fact.exit_code) == (RankPhase.VANISHED, None)
        assert "its lease ended" in fact.detail

    agent.use(scenario)
    assert gone(_pid(folder / "pid"))


def test_answers_renew_the_leases_that_they_name(agent: AgentProcess, folder: Path) -> None:
    async def scenario(client: AgentClient) -> None:
        lease = await _lease(client, LEASE_MS)
        orders = [_order(folder / "a", lease), _order(folder / "b", lease, "b.0")]
        await client.prepare(orders)
        began_s = time.monotonic()

        def answer(report: Report) -> Ack:
            return Ack(sent=report.sent, beat=0.2, leases=("a",))

        ended: set[str] = set()
        async for report in client.watch({}, answer):
            ended.update(fact.id for fact in report.ranks if fact.phase is RankPhase.VANISHED)
            if "b.0" in ended and time.monotonic() - began_s > LEASE_MS / 400:
                break
        assert ended == {"b.0"}
        assert not gone(_pid(folder / "a"))
        assert (await _end_of(client)).phase is RankPhase.VANISHED  # nobody answers any more

    agent.use(scenario)


def test_an_order_that_was_on_its_way_for_long_never_runs(agent: AgentProcess, folder: Path) -> None:
    async def scenario(client: AgentClient) -> None:
        late = await _lease(client, 60_000, ago_ms=60_001)
        await client.prepare([_order(folder / "a", late)])
        assert (await _end_of(client)).phase is RankPhase.VANISHED
        other_boot = Lease(boot="another", sent=10**12, ms=60_000)
        await client.prepare([_order(folder / "b", other_boot, "b.0")])
        assert (await _end_of(client, "b.0")).phase is RankPhase.VANISHED

    agent.use(scenario)
    assert not (folder / "a").exists()
    assert not (folder / "b").exists()


def test_without_its_agent_a_rank_ends_with_its_lease(
    make_agent: Callable[..., AgentProcess], folder: Path
) -> None:
    """The nodes of a machine share a guard."""
    agent = make_agent(root=folder / "clm-1" / "0")
    agent.environ["ARGOSY_NODES_DIR"] = str(folder)
    agent.start()
    agent.use(lambda client: _begin(client, folder))
    assert not (agent.root / "guard.lock").exists()
    pid = _pid(folder / "pid")
    agent.end()
    assert not gone(pid)
    wait_for(lambda: gone(pid))
    agent.start()
    assert agent.use(_end_of).phase is RankPhase.VANISHED


def test_a_guard_looks_after_a_node_or_all_of_a_machine(tmp_path: Path) -> None:
    for path in ("clm-1/0/ranks", "clm-1/1/ranks", "clm-2/0", "clm-2/notes", ".released/0", "one/ranks"):
        (tmp_path / path).mkdir(parents=True)
    root = str(tmp_path)
    assert leases.nodes_in(root + "/one") == [root + "/one"]
    assert sorted(leases.nodes_in(root)) == [root + "/clm-1/0", root + "/clm-1/1", root + "/clm-2/0"]


def _guards(folder: str) -> list[list[bytes]]:
    """Fields of /proc/PID/stat of the guards of this folder, from the state on."""
    pids = [int(name) for name in os.listdir("/proc") if name.isdigit()]
    asked = f"guard\0--root\0{folder}\0".encode()
    fields = [programs.stat_fields(pid) for pid in pids if processes.command_of(pid).endswith(asked)]
    return [each for each in fields if each is not None]


def test_who_ends_all_of_a_claim_leaves_the_guard_to_the_others(
    make_agent: Callable[..., AgentProcess], folder: Path
) -> None:
    place = on_host.Place(str(folder))
    place.make()
    agent = make_agent(root=Path(place.claim("clm-1")) / "0")
    agent.environ["ARGOSY_NODES_DIR"] = place.nodes
    agent.start()

    async def begin(client: AgentClient) -> None:
        lease = await _lease(client, 60_000)
        run = f"setsid sleep 600 & echo $! >{folder}/away; (sleep 600 & echo $! >{folder}/below; wait)"
        await client.prepare([RankOrder(id="a.0", run=run, run_now=True, lease=lease)])
        await watch_until(client, _runs)

    agent.use(begin)
    pids = [_pid(folder / "away"), _pid(folder / "below"), agent.pid]
    parents = {str(agent.pid).encode()}
    wait_for(lambda: (found := _guards(place.nodes)) and not parents & {each[1] for each in found})
    on_host.end(place, "clm-1")
    assert all(map(gone, pids))
    assert len(_guards(place.nodes)) == 1


async def _begin(client: AgentClient, folder: Path) -> None:
    await client.prepare([_order(folder / "pid", await _lease(client, LEASE_MS))])
    guard = folder / "guard.lock"
    while not guard.exists():
        await asyncio.sleep(0.02)
    await watch_until(client, _runs)


def test_the_next_agent_keeps_the_lease_of_what_it_finds(
    make_agent: Callable[..., AgentProcess], folder: Path
) -> None:
    agent = make_agent()
    agent.start()

    async def begin(client: AgentClient) -> None:
        await client.prepare([_order(folder / "pid", await _lease(client, LEASE_MS))])
        await watch_until(client, _runs)

    agent.use(begin)
    agent.end()
    agent.start()

    async def renew(client: AgentClient) -> None:
        began_s = time.monotonic()

        async for _ in client.watch({}, lambda report: Ack(sent=report.sent, beat=0.3, leases=("a",))):
            if time.monotonic() - began_s > LEASE_MS / 700:
                break
        assert not gone(_pid(folder / "pid"))
        assert "its lease ended" in (await _end_of(client)).detail

    agent.use(renew)

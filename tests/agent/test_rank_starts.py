"""A rank never starts twice, whenever the agent is killed and however late an order comes."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
from agent_process import AgentProcess, gone, wait_for, watch_until

from argosy.infra import border
from argosy.infra.agent_client import AgentClient
from argosy.infra.agent_port import RankOrder
from argosy.model.facts import RankPhase

POINTS = ("spawned", "saved", "noted", "flushed", "opened")
STARTS_AND_STAYS = 'echo $$ >>"$STARTS"; sleep 600'


def _order(starts: Path) -> RankOrder:
    return RankOrder(id="a.0", run=STARTS_AND_STAYS, env={"STARTS": str(starts)}, run_now=True)


@pytest.mark.parametrize("point", POINTS)
def test_an_agent_killed_while_it_starts_a_rank_never_starts_it_twice(
    make_agent: Callable[..., AgentProcess], folder: Path, point: str
) -> None:
    starts = folder / "starts"
    agent = make_agent()
    agent.environ["_AGENT_DIES_AT"] = point
    agent.start()

    async def order(client: AgentClient) -> None:
        with pytest.raises((border.Unreachable, OSError)):
            await client.prepare([_order(starts)])
            await client.run(["a.0"])
            while True:  # the agent is about to die
                await anext(client.watch({}))

    agent.use(order)
    assert agent.process is not None and agent.process.wait(20) == -9
    ran = point == "opened"  # the gate was open: its program runs, and is found again
    if ran:
        wait_for(lambda: starts.exists() and starts.read_text().strip())
    del agent.environ["_AGENT_DIES_AT"]
    agent.start()

    async def again(client: AgentClient) -> None:
        known = await watch_until(client, lambda seen: True)
        assert ("a.0" in known.facts) == ran
        assert starts.exists() == ran
        await client.prepare([_order(starts)])  # as the server does for what is not known, and repeats
        await client.prepare([_order(starts)])
        await watch_until(client, lambda s: "a.0" in s.facts and s.facts["a.0"].phase is RankPhase.RUNNING)
        wait_for(lambda: starts.exists() and starts.read_text().strip())
        await client.stop(["a.0"], 0.0)
        await watch_until(client, lambda seen: seen.ended("a.0"))

    agent.use(again)
    pids = [int(line) for line in starts.read_text().split()]
    assert len(pids) == 1 and gone(pids[0])


def test_a_rank_stopped_at_its_gate_never_runs(agent: AgentProcess, folder: Path) -> None:
    async def scenario(client: AgentClient) -> None:
        for turn in range(20):
            rank_id = f"a{turn}.0"
            order = RankOrder(id=rank_id, run=f"echo x >{folder}/ran-{turn}; sleep 600", run_now=True)
            await client.prepare([order])
            await client.stop([rank_id], 0.0)
            seen = await watch_until(client, lambda seen, rank_id=rank_id: seen.ended(rank_id))
            assert seen.facts[rank_id].exit_code in (137, 143)

    agent.use(scenario)


def test_a_start_that_the_disk_lost_is_known_from_the_journal(
    make_agent: Callable[..., AgentProcess], folder: Path
) -> None:
    """The power went after the start was noted and before its state had reached the disk."""
    agent = make_agent()
    agent.root.mkdir()
    (agent.root / "started").write_text("s a.0\ns b.0\nf b.0\ns c.")
    agent.start()

    async def scenario(client: AgentClient) -> None:
        seen = await watch_until(client, lambda seen: True)
        assert {rank_id: fact.phase for rank_id, fact in seen.facts.items()} == {"a.0": RankPhase.VANISHED}
        orders = [RankOrder(id=name, run="echo ran", run_now=True) for name in ("a.0", "b.0", "c.0")]
        await client.prepare(orders)
        seen = await watch_until(client, lambda seen: seen.ended("c.0"))
        assert seen.facts["a.0"].phase is RankPhase.VANISHED and "b.0" not in seen.facts

    agent.use(scenario)


def test_an_order_that_comes_after_the_stop_never_runs(
    make_agent: Callable[..., AgentProcess], folder: Path
) -> None:
    agent = make_agent().start()
    order = RankOrder(id="late.0", run=f"echo ran >{folder}/ran", run_now=True)

    async def stop(client: AgentClient) -> None:
        await client.stop(["late.0"], 5.0)
        seen = await watch_until(client, lambda seen: True)
        assert (seen.facts["late.0"].phase, seen.facts["late.0"].exit_code) == (RankPhase.EXITED, 143)

    async def late(client: AgentClient) -> None:
        await client.prepare([order])
        await client.run(["late.0"])
        assert (await client.node()).cpus_milli

    async def forget(client: AgentClient) -> None:
        await client.forget(["late.0"])
        await client.prepare([order])
        seen = await watch_until(client, lambda seen: True)
        assert seen.facts == {}

    agent.use(stop)
    agent.use(late)
    agent.end()
    agent.start().use(late)  # remembered on disk
    agent.use(forget)
    agent.end()
    agent.start().use(forget)
    assert not (folder / "ran").exists()


def test_an_order_of_an_older_attempt_than_the_newest_never_runs(agent: AgentProcess) -> None:
    async def scenario(client: AgentClient) -> None:
        await client.prepare([RankOrder(id="n2.0", job="job-1", attempt=2, run="true", run_now=True)])
        await client.prepare(
            [
                RankOrder(id="n1.0", job="job-1", attempt=1, run="echo ran", run_now=True),
                RankOrder(id="o1.0", job="job-2", attempt=1, run="echo ran", run_now=True),
            ]
        )
        seen = await watch_until(client, lambda seen: seen.ended("o1.0"))
        assert (seen.facts["n1.0"].exit_code, bytes(seen.logs["n1.0"])) == (143, b"")
        assert bytes(seen.logs["o1.0"]) == b"ran\n"

    agent.use(scenario)

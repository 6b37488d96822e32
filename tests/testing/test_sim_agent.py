"""The simulated agent keeps the promises of `AgentPort`; the world notices who breaks the laws."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable

import msgspec
import pytest

from argosy.infra import border
from argosy.infra.agent_port import RankOrder, Report
from argosy.model.facts import NodeFacts, RankPhase
from argosy.model.offer import DeviceShare, Placement
from argosy.model.phases import AttemptPhase
from argosy.testing.builders import an_attempt
from argosy.testing.faults import NONE, Faults, SimCrash
from argosy.testing.machines import Machine
from argosy.testing.sim_agent import SimAgent
from argosy.testing.virtual_time import run_virtual
from argosy.testing.world import INCARNATION, Incarnation, World

Body = Callable[[World, Machine, SimAgent], Awaitable[None]]


def _on_a_machine(body: Body, faults: Faults = NONE) -> World:
    async def main() -> World:
        world = World(7)
        machine = Machine("pool", "clm-1", 0, NodeFacts(cpus_milli=8000))
        world.add_machine(machine, 1.0)
        await asyncio.sleep(2)
        world.faults = faults
        await body(world, machine, SimAgent(world, machine.address))
        return world

    return run_virtual(main())


async def _until(agent: SimAgent, rank_id: str, phase: RankPhase) -> Report:
    async for report in agent.watch({}):
        if any(rank.id == rank_id and rank.phase is phase for rank in report.ranks):
            return report
    raise AssertionError("the stream ended")


def _order(rank_id: str = "att-1.0", run: str = "sim work_s=60", **fields: object) -> RankOrder:
    return RankOrder(id=rank_id, run=run, **fields)  # type: ignore[arg-type]


def test_prepare_and_run_are_idempotent_and_the_exit_is_told() -> None:
    async def body(world: World, machine: Machine, agent: SimAgent) -> None:
        order = _order(run="sim work_s=60 exit=3", setup="sim work_s=5")
        await agent.prepare([order])
        with pytest.raises(border.Transient):
            await agent.run(["att-8.0"])
        await agent.prepare([order])
        await _until(agent, "att-1.0", RankPhase.READY)
        await agent.run(["att-1.0"])
        await agent.run(["att-1.0"])
        await _until(agent, "att-1.0", RankPhase.EXITED)
        await agent.run(["att-1.0"])
        report = await _until(agent, "att-1.0", RankPhase.EXITED)
        assert report.complete
        assert report.ranks[0].exit_code == 3
        assert b"".join(chunk.data for chunk in report.logs) == bytes(machine.ranks["att-1.0"].log)
        assert world.starts == {"att-1.0": 1}
        assert 66 < world.now_s < 75

    assert _on_a_machine(body).violations == []


def test_run_while_preparing_is_remembered() -> None:
    async def body(world: World, machine: Machine, agent: SimAgent) -> None:
        await agent.prepare([_order(setup="sim work_s=5")])
        await agent.run(["att-1.0"])
        await _until(agent, "att-1.0", RankPhase.EXITED)

    _on_a_machine(body)


def test_run_now_needs_no_second_call() -> None:
    async def body(world: World, machine: Machine, agent: SimAgent) -> None:
        await agent.prepare([_order(run_now=True)])
        await _until(agent, "att-1.0", RankPhase.EXITED)

    _on_a_machine(body)


def test_failing_setup_ends_the_rank() -> None:
    async def body(world: World, machine: Machine, agent: SimAgent) -> None:
        await agent.prepare([_order(setup="sim work_s=2 exit=9", run_now=True)])
        report = await _until(agent, "att-1.0", RankPhase.EXITED)
        assert (report.ranks[0].exit_code, report.ranks[0].stage) == (9, "setup")
        assert world.starts == {}

    _on_a_machine(body)


@pytest.mark.parametrize(
    ("program", "code"), [("sim work_s=999", 143), ("sim work_s=999 ignores_term=1", 137)]
)
def test_stop_is_term_then_kill(program: str, code: int) -> None:
    async def body(world: World, machine: Machine, agent: SimAgent) -> None:
        await agent.prepare([_order(run=program, run_now=True)])
        await agent.stop(["att-1.0"], 30)
        report = await _until(agent, "att-1.0", RankPhase.EXITED)
        assert report.ranks[-1].exit_code == code

    _on_a_machine(body)


def test_stop_before_run_means_it_never_runs() -> None:
    async def body(world: World, machine: Machine, agent: SimAgent) -> None:
        await agent.prepare([_order()])
        await agent.stop(["att-1.0"], 30)
        await agent.run(["att-1.0"])
        assert machine.ranks["att-1.0"].fact.exit_code == 143
        assert world.starts == {}

    _on_a_machine(body)


def test_watch_goes_on_at_the_cursor() -> None:
    async def body(world: World, machine: Machine, agent: SimAgent) -> None:
        await agent.prepare([_order(run="sim log_bytes=3000000", run_now=True)])
        await asyncio.sleep(1)
        log = bytes(machine.ranks["att-1.0"].log)
        got, cursor = b"", 17
        async for report in agent.watch({"att-1.0": cursor}):
            for chunk in report.logs:
                assert chunk.offset == cursor
                assert len(chunk.data) <= 1 << 20
                got += chunk.data
                cursor += len(chunk.data)
            if cursor >= len(log):
                break
        assert got == log[17:]

    _on_a_machine(body)


def test_silence_is_broken_by_heartbeats() -> None:
    async def body(world: World, machine: Machine, agent: SimAgent) -> None:
        count = 0
        async for report in agent.watch({}):
            assert report.ranks == ()
            count += 1
            if count == 10:
                break
        assert 40 < world.now_s < 60

    _on_a_machine(body)


def test_an_agent_restart_keeps_running_ranks_and_loses_prepared_ones() -> None:
    async def body(world: World, machine: Machine, agent: SimAgent) -> None:
        await agent.prepare([_order("att-1.0", run_now=True), _order("att-2.0")])
        world.kill_agent(machine)
        with pytest.raises(border.Unreachable):
            await agent.node()
        await asyncio.sleep(100)
        world.start_agent(machine)
        report = await _until(agent, "att-1.0", RankPhase.EXITED)
        assert {rank.id: rank.phase for rank in report.ranks} == {"att-1.0": RankPhase.EXITED}
        await agent.prepare([_order("att-2.0", run_now=True)])
        await _until(agent, "att-2.0", RankPhase.EXITED)

    assert _on_a_machine(body).violations == []


def test_a_partition_is_silence_and_then_news() -> None:
    async def body(world: World, machine: Machine, agent: SimAgent) -> None:
        await agent.prepare([_order(run_now=True)])
        seen: list[RankPhase] = []

        async def follow() -> None:
            async for report in agent.watch({}):
                seen.extend(rank.phase for rank in report.ranks)

        follower = asyncio.create_task(follow())
        await asyncio.sleep(1)
        machine.is_partitioned = True
        with pytest.raises(border.Unreachable):
            await agent.node()
        await asyncio.sleep(2)
        assert seen == [RankPhase.RUNNING]
        world.heal(machine)
        await asyncio.sleep(200)
        assert seen == [RankPhase.RUNNING, RankPhase.EXITED]
        machine.is_partitioned = True
        began_s = world.now_s
        with pytest.raises(border.Silent, match="said nothing for 15 s"):
            await follower
        assert 10 <= world.now_s - began_s <= 15

    _on_a_machine(body)


def test_checkpoints_shorten_the_second_attempt() -> None:
    async def body(world: World, machine: Machine, agent: SimAgent) -> None:
        env = {"ARGOSY_TASK_ID": "task-1"}
        program = "sim work_s=100 checkpoint_s=10"
        await agent.prepare([_order("att-1.0", program, env=env, run_now=True)])
        await asyncio.sleep(75)
        await agent.stop(["att-1.0"], 0)
        await asyncio.sleep(1)
        assert world.progress_s == {"task-1": 70}
        began = world.now_s
        await agent.prepare([_order("att-2.0", program, env=env, run_now=True)])
        await _until(agent, "att-2.0", RankPhase.EXITED)
        assert 29 < world.now_s - began < 32

    _on_a_machine(body)


def test_first_attempts_can_be_told_to_fail() -> None:
    async def body(world: World, machine: Machine, agent: SimAgent) -> None:
        env = {"ARGOSY_TASK_ID": "task-1"}
        for number, code in ((1, 5), (2, 5), (3, 0)):
            order = _order(f"att-{number}.0", "sim fails=2 fail_code=5", env=env, run_now=True)
            await agent.prepare([order])
            report = await _until(agent, order.id, RankPhase.EXITED)
            assert report.ranks[-1].exit_code == code

    _on_a_machine(body)


def test_lost_replies_have_their_effect() -> None:
    async def body(world: World, machine: Machine, agent: SimAgent) -> None:
        with pytest.raises(border.Unreachable):
            await agent.prepare([_order()])
        assert list(machine.ranks) == ["att-1.0"]

    _on_a_machine(body, Faults(agent_lost_reply=1.0))


def test_laws_are_checked_when_they_are_broken() -> None:
    async def body(world: World, machine: Machine, agent: SimAgent) -> None:
        world.knows_rows = True
        await agent.prepare([_order("att-9.0")])  # no such row
        gang = an_attempt(
            id="att-1",
            placements=(Placement(rank=0, node_id="nod-0"), Placement(rank=1, node_id="nod-1")),
            phase=AttemptPhase.PREPARING,
        )
        world.rows = {"att-1": gang}
        await agent.prepare([_order("att-1.0")])
        await agent.run(["att-1.0"])  # its other rank is not prepared
        second = an_attempt(id="att-2", phase=AttemptPhase.PREPARING, workload_id=gang.workload_id)
        world.rows["att-2"] = second
        await agent.prepare([_order("att-2.0", run_now=True)])  # the first attempt still runs
        await asyncio.sleep(200)
        await agent.forget(["att-1.0"])  # nobody kept its exit

    checkers = [violation.checker for violation in _on_a_machine(body).violations]
    assert checkers[0] == "intent-first"
    assert "gang-together" in checkers
    assert "one-attempt" in checkers
    assert "exit-kept" in checkers


def test_the_dead_do_nothing() -> None:
    async def body(world: World, machine: Machine, agent: SimAgent) -> None:
        life = Incarnation("server-1")
        life.crash_at = "after agent.prepare"

        async def server() -> None:
            INCARNATION.set(life)
            with pytest.raises(SimCrash):
                await agent.prepare([_order()])
            with pytest.raises(SimCrash):
                await agent.prepare([_order("att-2.0")])

        await asyncio.create_task(server())
        assert list(machine.ranks) == ["att-1.0"]
        await agent.prepare([_order("att-3.0")])  # others live

    assert _on_a_machine(body).crashes == 1


def test_a_share_that_the_machine_cannot_keep_apart_ends_the_rank() -> None:
    async def body(world: World, machine: Machine, agent: SimAgent) -> None:
        share = DeviceShare(index=0, milli=250, mechanism="mps", memory_bytes=1 << 30)
        await agent.prepare([_order("att-1.0", shares=(share,), run_now=True)])
        report = await _until(agent, "att-1.0", RankPhase.EXITED)
        assert [(fact.exit_code, fact.stage) for fact in report.ranks] == [(1, "setup")]
        machine.facts = msgspec.structs.replace(machine.facts, sharing=("mps",))
        await agent.prepare([_order("att-2.0", shares=(share,))])
        await _until(agent, "att-2.0", RankPhase.READY)

    _on_a_machine(body)

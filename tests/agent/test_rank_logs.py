from __future__ import annotations

import asyncio
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from agent_process import AgentProcess, wait_for, watch_until

from argosy.infra.agent_client import AgentClient
from argosy.infra.agent_port import RankOrder
from argosy.model.facts import RankPhase

MIB = 1 << 20


def test_200_mb_neither_block_the_program_nor_grow_the_agent(agent: AgentProcess) -> None:
    async def unread(client: AgentClient) -> None:
        # Nobody reads while it is written.
        await client.prepare(
            [RankOrder(id="a.0", run="head -c 200000000 /dev/zero | tr '\\0' x", run_now=True)]
        )
        while (fact := (await anext(client.watch({"a.0": 10**12}))).ranks[0]).phase != RankPhase.EXITED:
            await asyncio.sleep(0.05)
        assert (fact.exit_code, fact.log_bytes) == (0, 200_000_000)

    async def read(client: AgentClient) -> None:
        half = await watch_until(client, lambda s: len(s.logs.get("a.0", b"")) > 100_000_000)
        assert half.facts["a.0"].phase == RankPhase.RUNNING, "its end is told after its last byte"
        cursor = len(half.logs["a.0"])
        rest = await watch_until(client, lambda s: s.ended("a.0"), {"a.0": cursor})
        assert rest.starts["a.0"] == cursor
        assert cursor + len(rest.logs["a.0"]) == 200_000_000
        assert set(half.logs["a.0"] + rest.logs["a.0"]) == {ord("x")}

    agent.use(unread)
    agent.use(read)
    assert agent.memory_kib("VmHWM") < 30 * 1024


def test_a_reader_that_does_not_read_costs_no_memory(agent: AgentProcess) -> None:
    async def scenario(client: AgentClient) -> None:
        watch = client.watch({})
        await anext(watch)
        await client.prepare([RankOrder(id="a.0", run="head -c 100000000 /dev/zero", run_now=True)])
        other = await watch_until(client, lambda s: s.ended("a.0"))  # another reader is not held up
        assert len(other.logs["a.0"]) == 100_000_000

    agent.use(scenario)
    assert agent.memory_kib("VmHWM") < 30 * 1024


def test_a_quiet_rank_is_heard_beside_a_loud_one(agent: AgentProcess) -> None:
    async def scenario(client: AgentClient) -> None:
        await client.prepare([RankOrder(id="loud.0", run="cat /dev/zero | head -c 2000000000", run_now=True)])
        await watch_until(client, lambda s: len(s.logs.get("loud.0", b"")) > MIB)
        await client.prepare([RankOrder(id="quiet.0", run="echo psst", run_now=True)])
        seen = await watch_until(client, lambda s: s.ended("quiet.0"))
        assert seen.logs["quiet.0"] == b"psst\n"
        await client.stop(["loud.0"], 0.0)

    agent.use(scenario)


def test_many_short_ranks_at_once(agent: AgentProcess) -> None:
    async def scenario(client: AgentClient) -> None:
        ids = [f"n{n}.0" for n in range(200)]
        await client.prepare([RankOrder(id=i, run=f"echo {i}", run_now=True) for i in ids])
        seen = await watch_until(client, lambda s: all(map(s.ended, ids)))
        assert {bytes(seen.logs[i]) for i in ids} == {f"{i}\n".encode() for i in ids}
        assert {seen.facts[i].exit_code for i in ids} == {0}
        await client.forget(ids)
        assert list((agent.root / "ranks").iterdir()) == []

    agent.use(scenario)


def test_a_program_that_truncates_its_log_loses_nothing_that_was_read(agent: AgentProcess) -> None:
    async def scenario(client: AgentClient) -> None:
        script = "echo before-before-before; until [ -e go ]; do sleep 0.01; done; echo cut > /dev/stderr; echo after"  # noqa: E501
        await client.prepare([RankOrder(id="a.0", run=script, run_now=True)])
        seen = await watch_until(client, lambda s: s.logs.get("a.0", b"").endswith(b"\n"))
        read = len(seen.logs["a.0"])
        (agent.root / "home/workdir/go").touch()
        rest = await watch_until(client, lambda s: s.ended("a.0"), {"a.0": read})
        assert rest.logs["a.0"] == b"cut\nafter\n"
        assert rest.facts["a.0"].log_bytes == read + 10

    agent.use(scenario)


def test_a_cursor_beyond_the_end_gets_the_end_only(agent: AgentProcess) -> None:
    async def scenario(client: AgentClient) -> None:
        await client.prepare([RankOrder(id="a.0", run="echo hello", run_now=True)])
        seen = await watch_until(client, lambda s: s.ended("a.0"), {"a.0": 1000})
        assert seen.logs["a.0"] == b""

    agent.use(scenario)


@pytest.fixture
def small_disk(folder: Path) -> Iterator[Path]:
    mount = folder / "disk"
    mount.mkdir()
    done = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=2m", "none", mount], capture_output=True, text=True
    )
    if done.returncode != 0:
        pytest.skip(f"cannot mount a small tmpfs here, so a full disk cannot be tried: {done.stderr.strip()}")
    yield mount
    subprocess.run(["umount", "-l", mount], check=True)


def test_a_full_disk_ends_the_program_with_a_clear_text_and_not_the_agent(
    make_agent: Callable[..., AgentProcess], small_disk: Path
) -> None:
    agent = make_agent(root=small_disk / "root").start()

    async def fill(client: AgentClient) -> None:
        await client.prepare(
            [RankOrder(id="before.0", run="until [ -e go ]; do sleep 0.02; done; exit 6", run_now=True)]
        )
        script = "head -c 4000000 /dev/zero | tr '\\0' x"
        await client.prepare([RankOrder(id="a.0", run="set -o pipefail; " + script, run_now=True)])
        seen = await watch_until(client, lambda s: s.ended("a.0"))
        fact = seen.facts["a.0"]
        assert fact.exit_code not in (0, None)
        assert fact.detail == f"disk full on node-7 while logging: {fact.log_bytes} bytes kept"
        assert len(seen.logs["a.0"]) == fact.log_bytes > MIB

        await client.prepare([RankOrder(id="more.0", run="true", run_now=True)])
        fact = (await watch_until(client, lambda s: s.ended("more.0"))).facts["more.0"]
        assert (fact.phase, fact.exit_code) == (RankPhase.VANISHED, None)  # it never ran: another node may do
        assert "node-7" in fact.detail
        await client.stop(["before.0"], 0.0)
        assert (await watch_until(client, lambda s: s.ended("before.0"))).facts["before.0"].exit_code in (
            137,
            143,
        )

    async def recover(client: AgentClient) -> None:
        seen = await watch_until(client, lambda s: s.ended("before.0"))
        assert seen.facts["before.0"].exit_code in (137, 143), "the exit code found its place on a full disk"
        await client.forget(["a.0", "more.0"])
        await client.prepare([RankOrder(id="b.0", run="echo again", run_now=True)])
        assert (await watch_until(client, lambda s: s.ended("b.0"))).logs["b.0"] == b"again\n"

    agent.use(fill)
    agent.end()
    agent.start().use(recover)


def test_a_program_whose_log_has_no_room_left_is_ended(
    make_agent: Callable[..., AgentProcess], small_disk: Path
) -> None:
    agent = make_agent(root=small_disk / "root").start()
    script = "yes 0123456789abcdef | head -c 4000000; while :; do sleep 1; done"

    async def scenario(client: AgentClient) -> None:
        await client.prepare([RankOrder(id="a.0", run=script, run_now=True)])
        seen = await watch_until(client, lambda seen: seen.ended("a.0"))
        assert "disk full on node-7 while logging" in seen.facts["a.0"].detail
        assert seen.facts["a.0"].exit_code != 0

    agent.use(scenario)


@pytest.mark.parametrize("ends_first", [False, True])
def test_a_log_truncated_while_no_agent_looked_goes_on_after_what_was_read(
    make_agent: Callable[..., AgentProcess], folder: Path, ends_first: bool
) -> None:
    """Also when the program has ended before the next reader comes."""
    agent = make_agent().start()
    script = (
        f"echo first part; while [ ! -e {folder}/go ]; do sleep 0.02; done; echo new >/dev/stdout; "
        f"touch {folder}/done; while [ ! -e {folder}/end ]; do sleep 0.02; done; echo end"
    )

    async def begin(client: AgentClient) -> int:
        await client.prepare([RankOrder(id="a.0", run=script, run_now=True)])
        seen = await watch_until(client, lambda seen: seen.logs.get("a.0") == b"first part\n")
        return len(seen.logs["a.0"])

    cursor = agent.use(begin)
    agent.end()
    (folder / "go").touch()
    wait_for((folder / "done").exists)
    agent.start()

    async def again(client: AgentClient) -> None:
        (folder / "end").touch()
        if ends_first:
            await asyncio.sleep(0.5)
        seen = await watch_until(client, lambda seen: seen.ended("a.0"), {"a.0": cursor})
        assert seen.logs["a.0"] == b"new\nend\n"

    agent.use(again)

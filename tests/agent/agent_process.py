"""A real agent, as a process of its own, for every test that asks for one."""

from __future__ import annotations

import asyncio
import itertools
import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Awaitable, Callable, Iterator, Sequence
from pathlib import Path
from typing import TypeVar

import pytest

from argosy.infra.agent_client import AgentClient, unix_channel
from argosy.infra.agent_port import RankOrder, Report
from argosy.infra.boot import agent_command, agent_zipapp
from argosy.model.facts import RankFact, RankPhase

T = TypeVar("T")
ENDED = (RankPhase.EXITED, RankPhase.VANISHED)


_numbers = itertools.count(1)


class AgentProcess:
    """The daemon on a socket below /tmp (short enough for a unix address)."""

    def __init__(self, pyz: Path, folder: Path, root: Path | None = None) -> None:
        self.pyz = pyz
        self.folder = folder
        self.root = root or folder / "root"
        self.socket = folder / "s"
        self.environ = {**os.environ, "ARGOSY_PLACED_DIR": str(folder / "machine")}
        self.devices: Sequence[int] | None = None
        self.process: subprocess.Popen[str] | None = None

    def start(self) -> AgentProcess:
        command = agent_command(
            self.pyz, self.root, self.socket, devices=self.devices, name="node-7", python=sys.executable
        )
        with (self.folder / "stderr").open("a") as errors:
            self.process = subprocess.Popen(
                command, stdout=subprocess.PIPE, stderr=errors, env=self.environ, text=True
            )
        assert self.process.stdout is not None
        line = self.process.stdout.readline()
        assert "listening" in line, (self.folder / "stderr").read_text()
        return self

    @property
    def pid(self) -> int:
        assert self.process is not None
        return self.process.pid

    def end(self, number: int = signal.SIGKILL) -> None:
        assert self.process is not None
        self.process.send_signal(number)
        self.process.wait(20)

    def client(self) -> AgentClient:
        return AgentClient(lambda: unix_channel(self.socket))

    def use(self, scenario: Callable[[AgentClient], Awaitable[T]]) -> T:
        """Run a scenario with a client of its own."""

        async def with_client() -> T:
            client = self.client()
            try:
                async with asyncio.timeout(100):
                    return await scenario(client)
            finally:
                await client.close()

        return asyncio.run(with_client())

    def run_one(self, script: str, **order: object) -> tuple[RankFact, bytes]:
        """Run one rank to its end; its last fact and its log. A new id each time: a forgotten one never runs
        again."""
        rank_id = f"one{next(_numbers)}.0"

        async def scenario(client: AgentClient) -> tuple[RankFact, bytes]:
            await client.prepare([RankOrder(id=rank_id, run=script, run_now=True, **order)])  # type: ignore[arg-type]
            seen = await watch_until(client, lambda seen: seen.ended(rank_id))
            await client.forget([rank_id])
            return seen.facts[rank_id], bytes(seen.logs[rank_id])

        return self.use(scenario)

    def memory_kib(self, field: str = "VmRSS") -> int:
        text = Path(f"/proc/{self.pid}/status").read_text()
        return next(int(line.split()[1]) for line in text.splitlines() if line.startswith(field + ":"))


class Seen:
    """What a watch has told so far, with its laws checked on the way."""

    def __init__(self) -> None:
        self.facts: dict[str, RankFact] = {}
        self.phases: dict[str, list[str]] = {}
        self.logs: dict[str, bytearray] = {}
        self.starts: dict[str, int] = {}
        self.reports = 0

    def take(self, report: Report) -> None:
        assert report.complete == (self.reports == 0), "only the first report is complete"
        self.reports += 1
        assert sum(len(chunk.data) for chunk in report.logs) <= 1 << 20
        already_ended = {rank_id for rank_id in self.facts if self.ended(rank_id)}
        for chunk in report.logs:
            assert chunk.rank_id not in already_ended, "bytes after the end was told"
            start = self.starts.setdefault(chunk.rank_id, chunk.offset)
            assert chunk.offset == start + len(self.logs.setdefault(chunk.rank_id, bytearray())), "a gap"
            self.logs[chunk.rank_id] += chunk.data
        for fact in report.ranks:
            self.facts[fact.id] = fact
            self.logs.setdefault(fact.id, bytearray())
            phases = self.phases.setdefault(fact.id, [])
            if not phases or phases[-1] != fact.phase:
                phases.append(str(fact.phase))

    def ended(self, rank_id: str) -> bool:
        return rank_id in self.facts and self.facts[rank_id].phase in ENDED


async def watch_until(
    client: AgentClient, enough: Callable[[Seen], bool], cursors: dict[str, int] | None = None
) -> Seen:
    seen = Seen()
    watch = client.watch(cursors or {})
    try:
        while not enough(seen) or not seen.reports:
            seen.take(await anext(watch))
    finally:
        await watch.aclose()  # type: ignore[attr-defined]
    return seen


def gone(pid: int) -> bool:
    """Not there, or only a zombie that nobody has reaped."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] in "ZX"
    except OSError:
        return True


def wait_for(condition: Callable[[], object], patience_s: float = 90.0) -> None:
    """Give the world time to come true; how long it takes is not judged."""
    due = time.monotonic() + patience_s
    while not condition():
        assert time.monotonic() < due, "it did not come true"
        time.sleep(0.01)


@pytest.fixture(scope="session")
def pyz(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return agent_zipapp(tmp_path_factory.mktemp("zipapp"))


@pytest.fixture
def folder() -> Iterator[Path]:
    with tempfile.TemporaryDirectory(dir="/tmp", prefix="argosy-", ignore_cleanup_errors=True) as path:
        yield Path(path)


@pytest.fixture
def make_agent(pyz: Path, folder: Path) -> Iterator[Callable[..., AgentProcess]]:
    made: list[AgentProcess] = []

    def make(**options: object) -> AgentProcess:
        agent = AgentProcess(pyz, folder, **options)  # type: ignore[arg-type]
        made.append(agent)
        return agent

    yield make
    for agent in made:
        if agent.process is not None and agent.process.poll() is None:
            _end_all(agent)
        if agent.process is not None and agent.process.stdout is not None:
            agent.process.stdout.close()


def _end_all(agent: AgentProcess) -> None:
    """Nothing of a test may live on."""

    async def shut(client: AgentClient) -> None:
        live = [fact.id for fact in (await anext(client.watch({}))).ranks if fact.phase not in ENDED]
        await client.stop(live, 0.0)
        await client.shutdown()

    try:
        agent.use(shut)
    except Exception:
        pass
    try:
        assert agent.process is not None
        agent.process.wait(10)
    except subprocess.TimeoutExpired:
        agent.end()


@pytest.fixture
def agent(make_agent: Callable[..., AgentProcess]) -> AgentProcess:
    return make_agent().start()


@pytest.fixture
def probe(pyz: Path) -> Callable[..., dict[str, object]]:
    def ask(*arguments: str, **environ: str) -> dict[str, object]:
        output = subprocess.run(
            [sys.executable, "-I", "-S", str(pyz), "probe", *arguments],
            env={**os.environ, **environ},
            check=True,
            capture_output=True,
        ).stdout
        return dict(json.loads(output))

    return ask


@pytest.fixture(scope="session")
def nvml(tmp_path_factory: pytest.TempPathFactory) -> str:
    """A pretend driver library; what it reports comes from the environment (`nvml_stub.c`)."""
    compiler = shutil.which("gcc") or shutil.which("cc")
    if compiler is None:
        pytest.skip("no C compiler: the pretend NVML of these tests cannot be built")
    library = tmp_path_factory.mktemp("nvml") / "libnvidia-ml.so.1"
    source = Path(__file__).with_name("nvml_stub.c")
    subprocess.run(
        [compiler, "-O1", "-Wall", "-Werror", "-shared", "-fPIC", "-o", library, source], check=True
    )
    return str(library)

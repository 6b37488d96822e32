"""The process that stays on a host: it does orders by fork, carries connections to agents, and may die."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import subprocess
import sys
from collections.abc import Awaitable, Callable, Iterator
from pathlib import Path
from typing import cast

import msgspec
import pytest
from agent_process import gone, wait_for

from argosy.infra import border
from argosy.infra.agent_client import AgentClient, StreamChannel, unix_channel
from argosy.infra.agent_port import RankOrder
from argosy.infra.bootstrap import AgentPlan, Errand, receiver_input
from argosy.infra.ssh import Ssh, SshTarget
from argosy.infra.starter import Starter, StarterGone

_PROGRAM = """\
import os
def load():
    pass
def obey(order):
    if "root" in order:
        os.makedirs(order["root"], exist_ok=True)
        return {"root": order["root"], "environ": {"ARGOSY_NODE_LABELS": "rack=7"}}
    return {"parent": os.getppid(), "me": os.getpid()}
"""
_TO = SshTarget(host="here")


class Near:
    """Instead of ssh: sockets of this machine."""

    async def open(self, to: SshTarget, socket: str) -> StreamChannel:
        return await unix_channel(socket)


class Host:
    """This machine, with an agent that was started in a session, and what the session has left behind."""

    def __init__(self, folder: Path, zipapp: Path) -> None:
        plan = AgentPlan(
            name="n-1", starter=f"t{os.getpid():x}", socket="", folder=str(zipapp.parent), devices=()
        )
        errand = Errand(program=_PROGRAM, order=self.raw({"root": str(folder / "n-1")}))
        script, given = receiver_input(zipapp.name, 0, plan, errand)
        done = subprocess.run(
            [sys.executable, "-I", "-S", "-c", script], input=given, capture_output=True, check=True
        )
        self.answer = json.loads(done.stdout.splitlines()[-1])
        self.folder, self.plan = folder, plan
        self.ssh = cast("Ssh", Near())
        self.starter = Starter()
        self.starter.socket = self.answer["starter"]

    @staticmethod
    def raw(order: dict[str, str]) -> msgspec.Raw:
        return msgspec.Raw(msgspec.json.encode(order))

    async def pids(self) -> dict[str, int]:
        return dict(json.loads(await self.starter.errand(self.ssh, _TO, self.raw({}))))

    def end(self) -> None:
        for lock in self.folder.glob("*/agent.lock"):
            os.kill(int(lock.read_text()), signal.SIGKILL)


@pytest.fixture
def host(tmp_path: Path, pyz: Path) -> Iterator[Host]:
    made = Host(tmp_path, pyz)
    yield made
    made.end()


def _run(body: Callable[[], Awaitable[None]]) -> None:
    async def whole() -> None:
        await body()

    asyncio.run(whole())


def test_orders_are_done_by_processes_of_their_own_and_agents_outlive_the_starter(host: Host) -> None:
    async def scenario() -> None:
        first, second = await host.pids(), await host.pids()
        assert first["parent"] == second["parent"]
        assert first["me"] != second["me"]
        plan = msgspec.structs.replace(host.plan, name="n-2")
        order = host.raw({"root": str(host.folder / "n-2")})
        answer = await host.starter.start(host.ssh, _TO, order, plan)
        assert (answer.root, answer.started) == (str(host.folder / "n-2"), True)
        assert answer.facts.labels == (("rack", "7"),)
        again = await host.starter.start(host.ssh, _TO, order, plan)
        assert (again.socket, again.started) == (answer.socket, False)

        client = AgentClient(lambda: host.starter.through(host.ssh, _TO, answer.socket))
        await client.prepare([RankOrder(id="a.0", run="exit 7", run_now=True)])
        reports = client.watch({})
        async for report in reports:
            if [rank.exit_code for rank in report.ranks] == [7]:
                break
        os.kill(first["parent"], signal.SIGKILL)
        wait_for(lambda: gone(first["parent"]))
        with pytest.raises(StarterGone):
            await host.pids()
        assert host.starter.socket == ""  # nobody asks it again
        assert (await AgentClient(lambda: unix_channel(answer.socket)).node()).labels == (("rack", "7"),)

    _run(scenario)


def test_a_node_without_an_agent_is_told_from_a_starter_that_is_gone(host: Host) -> None:
    async def scenario() -> None:
        with pytest.raises(
            border.Unreachable, match=r"no agent answers at .*x of .*: no agent listens there"
        ):
            await host.starter.through(host.ssh, _TO, host.answer["socket"] + "x")
        with pytest.raises(StarterGone):  # of another folder it knows nothing
            await host.starter.through(host.ssh, _TO, "/run/other.s")
        assert host.starter.socket
        pids = await host.pids()
        os.kill(pids["parent"], signal.SIGKILL)

    _run(scenario)

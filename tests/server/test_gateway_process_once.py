"""The server's own gateway is one process, whoever asks for it and when."""

from __future__ import annotations

import asyncio
import logging
import os
import signal
from pathlib import Path

import pytest

from argosy.server.gateway_process import GatewayProcess, read_place


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return tmp_path / "gateway"


async def _ended(pid: int) -> None:
    async with asyncio.timeout(90):
        while not await asyncio.to_thread(_is_over, pid):
            await asyncio.sleep(0.02)


def _is_over(pid: int) -> bool:
    """A child of ours is waited for, so that its number is not held by a zombie."""
    try:
        return os.waitpid(pid, os.WNOHANG)[0] == pid
    except ChildProcessError:
        return True


def test_two_who_ask_at_once_start_one(folder: Path, caplog: pytest.LogCaptureFixture) -> None:
    """A second one found the control socket taken and ended, but its number was the one kept: the first was
    never told to end."""
    caplog.set_level(logging.INFO, "argosy.server.gateway_process")

    async def story() -> None:
        gateway = GatewayProcess(folder)
        await asyncio.gather(gateway.ensure(), gateway.ensure(), gateway.counters())
        assert len([each for each in caplog.messages if "the gateway listens on" in each]) == 1
        pid = read_place(folder).pid
        os.kill(pid, 0)
        await gateway.rest()
        await _ended(pid)
        assert not await gateway._socket.is_up()

    asyncio.run(story())


def test_its_port_is_none_that_kernels_give_to_connections(folder: Path) -> None:
    """Endpoints keep their port when a gateway is started again, also while many connections are open."""

    async def story() -> None:
        for _ in range(2):
            gateway = GatewayProcess(folder)
            await gateway.ensure()
            first = read_place(folder)
            assert 32_000 <= int(first.listen.rpartition(":")[2]) < 32_768
            await gateway.rest()
            await _ended(first.pid)

    asyncio.run(story())


def test_a_server_that_comes_back_ends_the_one_that_it_finds(folder: Path) -> None:
    async def story() -> None:
        await GatewayProcess(folder).ensure()
        pid = read_place(folder).pid
        await GatewayProcess(folder).rest()
        await _ended(pid)

    asyncio.run(story())


def test_one_whose_number_was_not_kept_is_ended_too(folder: Path) -> None:
    """The server may be killed between the start and the note of it."""

    async def story() -> None:
        await GatewayProcess(folder).ensure()
        pid = read_place(folder).pid
        (folder / "place.json").unlink()
        try:
            await GatewayProcess(folder).rest()
            await _ended(pid)
        finally:
            if not _is_over(pid):
                os.kill(pid, signal.SIGKILL)

    asyncio.run(story())

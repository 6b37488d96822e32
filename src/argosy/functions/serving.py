"""Serves one function: its flags, the listening socket, and the end."""

from __future__ import annotations

import argparse
import asyncio
import os
import shlex
import signal
import time
import uuid

from argosy.functions.front import Front
from argosy.functions.pool import Pool
from argosy.functions.settings import SYNC_BYTES, Settings
from argosy.functions.wire import Connection

GRACE_S = 10.0  # for events that have begun


def run(arguments: list[str]) -> int:
    """Until it is told to stop; the exit code."""
    given = parser().parse_args(arguments)
    settings = Settings(
        given.handler,
        root=given.root,
        name=given.name,
        command=tuple(shlex.split(given.command)),
        timeout_s=given.timeout,
        concurrency=given.concurrency,
        provisioned=min(given.provisioned, given.concurrency),
        idle_s=given.idle,
        memory_mb=given.memory,
        preload=given.preload,
        stream=given.stream,
        version=given.version,
        aliases=tuple(given.alias),
        failures=given.failures,
    )
    asyncio.run(serve(settings, given.host, given.port))
    return 0


def parser() -> argparse.ArgumentParser:
    about = "Serves one function until it is told to stop."
    found = argparse.ArgumentParser(prog="argosy-function", description=about)
    found.add_argument("--handler", default="", help="module.function")
    found.add_argument("--command", default="", help="a program that speaks the runtime API itself")
    found.add_argument("--root", default=".", help="folder of the code")
    found.add_argument("--name", default=os.environ.get("ARGOSY_SERVICE_NAME", "function"))
    found.add_argument("--host", default="127.0.0.1")
    found.add_argument("--port", type=int, default=int(os.environ.get("ARGOSY_SERVICE_PORT", "9000")))
    found.add_argument("--timeout", type=float, default=3.0, help="seconds of one event")
    found.add_argument("--concurrency", type=int, default=10, help="events at once")
    found.add_argument("--provisioned", type=int, default=0, help="environments that are always there")
    found.add_argument("--idle", type=float, default=300.0, help="seconds until an idle environment ends")
    found.add_argument("--memory", type=int, default=128, help="MiB, as handlers are told")
    found.add_argument("--preload", action="store_true", help="import the handler once for all environments")
    found.add_argument("--stream", action="store_true", help="the URL streams answers")
    found.add_argument("--version", default=os.environ.get("ARGOSY_SERVICE_REVISION", "$LATEST"))
    found.add_argument("--alias", action="append", default=[], help="another name of the version")
    found.add_argument("--failures", default="", help="file for events that failed for good")
    return found


async def serve(settings: Settings, host: str, port: int) -> None:
    """Until SIGTERM or SIGINT: then nothing new is accepted, and events that have begun go on for a while."""
    loop = asyncio.get_running_loop()
    stopping = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stopping.set)
    pool = Pool(settings, time.time)
    front = Front(pool, time.time, lambda: str(uuid.uuid4()))
    await pool.begin()
    server = await loop.create_server(
        lambda: Connection(front.answer, SYNC_BYTES + 65536), host, port, backlog=1024
    )
    place = server.sockets[0].getsockname()
    print("%s serves on %s:%d" % (settings.name, place[0], place[1]), flush=True)
    sweeping = loop.create_task(_sweep(pool))
    await stopping.wait()
    server.close()
    border_s = time.time() + GRACE_S
    while any(environment.events for environment in pool.environments) and time.time() < border_s:
        await asyncio.sleep(0.02)
    sweeping.cancel()
    await pool.close()


async def _sweep(pool: Pool) -> None:
    while True:
        await asyncio.sleep(1.0)
        pool.sweep()

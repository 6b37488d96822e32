"""A service with everything real: server, gateway, replicas, and clients that must not notice what
happens."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from e2e_house import House

from argosy.testing.service_load import Load

PROGRAM = """
import os, sys, time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
who = os.environ["ARGOSY_SERVICE_REVISION"].encode()
class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    def do_GET(self):
        stream = self.path.startswith("/stream")
        self.send_response(200)
        self.send_header("Transfer-Encoding" if stream else "Content-Length", "chunked" if stream else "1")
        self.end_headers()
        for _ in range(10 if stream else 0):
            self.wfile.write(b"1\\r\\n" + who + b"\\r\\n")
            time.sleep(0.2)
        self.wfile.write(b"0\\r\\n\\r\\n" if stream else who)
    def log_message(self, *_):
        pass
ThreadingHTTPServer(("127.0.0.1", int(os.environ["PORT"])), Handler).serve_forever()
"""
YAML = """
name: web
service:
  readiness_probe: {path: /health, endpoint_probe_interval_seconds: 1}
  replicas: 2
resources: {cpus: 0.1}
run: exec %s %s
"""


def service(house: House) -> dict[str, Any]:
    return dict(house._look(lambda client: client.services(), "serve", "status")["services"][0])


async def until(house: House, what: str, good: Callable[[dict[str, Any]], bool]) -> None:
    await asyncio.to_thread(house.wait, what, lambda: good(service(house)))


def power_off(house: House, replica: int) -> int:
    """The node of a replica is gone: its agent and all that it runs. How many processes that were."""
    environ = Path(f"/proc/{replica}/environ").read_bytes().split(b"\0")
    [home] = [each[5:].decode() for each in environ if each.startswith(b"HOME=")]
    found = house.processes(str(Path(home).parent))
    for pid in found:
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)
    return len(found)


def test_nobody_notices_an_update_a_smaller_number_nor_that_the_server_is_killed(fresh_house: House) -> None:
    asyncio.run(_story(fresh_house))


@pytest.mark.nightly
@pytest.mark.parametrize("turn", range(20))
def test_nobody_notices_twenty_times(fresh_house: House, turn: int) -> None:
    asyncio.run(_story(fresh_house))


def test_nobody_notices_a_canary_nor_blue_green(fresh_house: House) -> None:
    asyncio.run(_strategies(fresh_house))


@pytest.mark.nightly
@pytest.mark.parametrize("turn", range(20))
def test_nobody_notices_a_canary_nor_blue_green_twenty_times(fresh_house: House, turn: int) -> None:
    asyncio.run(_strategies(fresh_house))


def test_the_last_lines_of_a_replica_that_ends_at_once_are_shown(fresh_house: House) -> None:
    program = fresh_house.file("broken.py", 'print("no model at /models"); raise SystemExit(3)')
    task = fresh_house.file("broken.yaml", YAML % (sys.executable, program))
    done = fresh_house.run("serve", "up", task, ok=False)
    said = done.stdout + done.stderr
    assert done.returncode == 1 and "service `web` does not become ready" in said
    assert "exited with code 3" in said and "  no model at /models" in said
    explained = fresh_house.run("explain", "web").stdout
    assert "0 replicas of it are ready; its file asks for 2." in explained
    assert "exited with code 3" in explained
    fresh_house.run("serve", "down", "web", "-y")


async def _strategies(house: House) -> None:
    def run(*words: str) -> str:
        return house.run(*words).stdout

    def only(revision: int) -> Callable[[dict[str, Any]], bool]:
        return lambda each: (
            each["revision"] == revision and {one["revision"] for one in each["replicas"]} == {revision}
        )

    program = house.file("serve.py", PROGRAM)
    task = str(house.file("web.yaml", YAML % (sys.executable, program)))
    await asyncio.to_thread(run, "serve", "up", task)
    url = run("serve", "endpoint", "web").strip()
    await until(house, "both replicas are ready", lambda each: each["ready"] == 2)
    update = ("serve", "update", "web", task)
    async with Load(url, paths=("/",) * 9 + ("/stream",), per_s=30) as load:
        await asyncio.to_thread(run, *update, "--env", "TURN=two", "--canary", "50", "--bake", "1")
        await until(house, "the canary serves alone", only(2))
        whole = load.bodies()
        began = len(load.outcomes)
        await asyncio.to_thread(run, *update, "--env", "TURN=three", "--blue-green")
        await until(house, "blue-green has switched", lambda each: each["rollout"]["phase"] == "baking")
        await asyncio.to_thread(run, "serve", "promote", "web")
        await until(house, "the new ones serve alone", only(3))
        switched = len(load.outcomes)
        await asyncio.sleep(1.0)
    assert load.bad == [], load.bad[:3]
    assert whole[b"1"] and whole[b"2"], "both had their share of the requests"
    later = {each.body for each in load.outcomes[began:] if each.path.endswith("/")}
    assert later <= {b"2", b"3"}, "no answer of a revision that was replaced before"
    last = {each.body for each in load.outcomes[switched + 20 :] if each.path.endswith("/")}
    assert last <= {b"3"}
    await asyncio.to_thread(run, "serve", "down", "web", "-y")
    await asyncio.to_thread(house.wait, "all is gone", lambda: not house.processes("serve.py"))


async def _story(house: House) -> None:
    def run(*words: str) -> str:
        return house.run(*words).stdout

    program = house.file("serve.py", PROGRAM)
    task = str(house.file("web.yaml", YAML % (sys.executable, program)))
    said = await asyncio.to_thread(run, "serve", "up", task)
    assert "service `web` answers at http://127.0.0.1:" in said
    url = run("serve", "endpoint", "web").strip()
    await until(house, "both replicas are ready", lambda each: each["ready"] == 2)
    async with Load(url, paths=("/",) * 9 + ("/stream",), per_s=30) as load:
        await asyncio.to_thread(run, "serve", "update", "web", task, "--env", "TURN=two")
        await asyncio.to_thread(house.kill_server)
        await until(house, "the new revision serves", lambda each: each["revision"] == 2)
        await until(
            house, "the old one is gone", lambda each: {one["revision"] for one in each["replicas"]} == {2}
        )
        promoted = len(load.outcomes)
        await asyncio.to_thread(run, "serve", "scale", "web", "1")
        await until(house, "one is left", lambda each: len(each["replicas"]) == 1)
    assert load.bad == [], load.bad[:3]
    late = {each.body for each in load.outcomes[promoted + 20 :] if each.path.endswith("/")}
    assert late == {b"2"}, "no answer of the old revision after the new one serves"
    await asyncio.to_thread(run, "serve", "scale", "web", "2")
    await until(house, "two again", lambda each: each["ready"] == 2)
    async with Load(url, per_s=30) as load:
        os.kill(house.processes("serve.py")[-1], signal.SIGKILL)
        await until(house, "it is noticed", lambda each: each["ready"] < 2)
        await until(house, "two again", lambda each: each["ready"] == 2)
    assert len(load.bad) <= 2, "only what was under way on the one that was killed"
    async with Load(url, per_s=30) as load:
        assert power_off(house, house.processes("serve.py")[-1]) >= 2
        await until(house, "it is noticed", lambda each: each["ready"] < 2)
        await until(house, "two again", lambda each: each["ready"] == 2)
    assert len(load.bad) <= 2, "only what was under way on the node that was killed"
    assert "going down" in await asyncio.to_thread(run, "serve", "down", "web", "-y")
    await asyncio.to_thread(
        house.wait,
        "all is gone",
        lambda: not house.processes("serve.py") and not house.processes("argosy.gateway"),
    )

"""Services under load while they change: what clients notice of it.

    python benchmarks/live_updates.py [--json FILE] [--rounds 20] [--per-s 100]    three minutes a round

A server, a gateway and three replicas on this machine; requests at a steady pace, each tenth a stream of 20
seconds, so that about 200 streams run over every switch. One round: a rolling update, a canary, blue-green,
and a smaller number of replicas; in each the server is killed (SIGKILL) at a moment drawn by chance, and
started again. At last one replica is killed. Counted are requests without a whole answer of status 200
(failed: no byte came; cut: it ended in the middle), and answers of another revision to requests that were
sent after the new one was promoted.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import json
import os
import random
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

from machine import processes_with, write

from argosy.api.services import ServiceView
from argosy.client.client import Client
from argosy.model.errors import ArgosyError
from argosy.testing.service_load import Load, Outcome

STREAM_S = 20
PATHS = ("/",) * 9 + ("/stream",)
PATIENCE_S = 120.0
SETTLED_S = 0.2  # the word that it was promoted may be as old as this: a look, and its answer
PROGRAM = f"""
import asyncio, os
who = os.environ["ARGOSY_SERVICE_REVISION"].encode()

async def answer(reader, writer):
    try:
        while head := await reader.readuntil(b"\\r\\n\\r\\n"):
            if head.split(b" ", 2)[1].startswith(b"/stream"):
                writer.write(b"HTTP/1.1 200 OK\\r\\nTransfer-Encoding: chunked\\r\\n\\r\\n")
                for _ in range({STREAM_S}):
                    writer.write(b"1\\r\\n" + who + b"\\r\\n")
                    await writer.drain()
                    await asyncio.sleep(1)
                writer.write(b"0\\r\\n\\r\\n")
            else:
                await asyncio.sleep(0.02)
                writer.write(b"HTTP/1.1 200 OK\\r\\nContent-Length: 1\\r\\n\\r\\n" + who)
            await writer.drain()
    except (EOFError, ConnectionError):
        pass
    finally:
        writer.close()

async def main():
    server = await asyncio.start_server(answer, "127.0.0.1", int(os.environ["PORT"]))
    await server.serve_forever()

asyncio.run(main())
"""
YAML = """
name: web
service:
  readiness_probe: {path: /health, endpoint_probe_interval_seconds: 1}
  replicas: 3
resources: {cpus: 0.1}
run: exec %s %s
"""


class House:
    """A state folder with a server, and what a person would type."""

    def __init__(self, folder: Path) -> None:
        self._state = folder / "state"
        self.program = folder / "program.py"
        self.program.write_text(PROGRAM)
        self.task = folder / "web.yaml"
        self.task.write_text(YAML % (sys.executable, self.program))
        self._env = {key: value for key, value in os.environ.items() if not key.startswith("ARGOSY_")}
        self._env |= {"ARGOSY_HOME": str(self._state), "HOME": str(folder), "NO_COLOR": "1"}
        self._argosy = str(Path(sys.executable).parent / "argosy")

    async def run(self, *words: str | Path) -> str:
        def typed() -> str:
            done = subprocess.run(
                [self._argosy, *map(str, words)],
                env=self._env,
                stdin=subprocess.DEVNULL,
                capture_output=True,
                text=True,
                check=False,
            )
            if done.returncode:
                raise SystemExit(f"argosy {' '.join(map(str, words))}:\n{done.stdout}{done.stderr}")
            return done.stdout

        return await asyncio.to_thread(typed)

    def seen(self) -> ServiceView:
        """Starts the server where none runs."""
        with Client(env=self._env) as client:
            return client.service("web")

    async def until(self, what: str, good: Callable[[ServiceView], bool]) -> float:
        """The time on the loop's clock when it was seen."""
        loop = asyncio.get_running_loop()
        limit_s = loop.time() + PATIENCE_S
        while loop.time() < limit_s:
            with contextlib.suppress(ArgosyError):
                if good(await asyncio.to_thread(self.seen)):
                    return loop.time()
            await asyncio.sleep(0.1)
        raise SystemExit(f"waited in vain: {what}\n{await asyncio.to_thread(self.seen)}")

    async def kill_server(self, after_s: float) -> None:
        """SIGKILL; the next look starts another one."""
        await asyncio.sleep(after_s)
        with contextlib.suppress(OSError, ValueError):  # the one before has not begun, or is gone
            os.kill(int((self._state / "server.pid").read_text().split()[0]), signal.SIGKILL)

    def replicas(self) -> list[int]:
        return sorted(processes_with(str(self.program)))

    async def close(self) -> None:
        await self.run("serve", "down", "web", "--now", "--yes")
        await self.run("server", "stop")
        for pid in processes_with(str(self._state)):
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGTERM)


def _only(revision: int, count: int) -> Callable[[ServiceView], bool]:
    return lambda each: (
        each.revision == revision
        and [one.revision for one in each.replicas] == [revision] * count
        and each.ready == count
    )


def _counted(outcomes: list[Outcome], promoted_s: float, revision: int) -> dict[str, int]:
    later = [each for each in outcomes if each.is_good and each.began_s > promoted_s + SETTLED_S]
    body = str(revision).encode()
    streams = [each for each in outcomes if each.path.endswith("/stream")]
    return {
        "requests": len(outcomes),
        "streams": len(streams),
        "failed": sum(not each.status for each in outcomes),
        "refused": sum(each.status not in (0, 200) for each in outcomes),
        "cut": sum(each.status == 200 and not each.is_whole for each in outcomes),
        "short": sum(each.is_good and len(each.body) != STREAM_S for each in streams),
        "mixed": sum(len(set(each.body)) > 1 for each in outcomes if each.is_good),
        "after_promotion": len(later),
        "wrong_revision": sum(set(each.body) != set(body) for each in later),
    }


class Story:
    """One round on one service."""

    def __init__(self, house: House, url: str, per_s: float, dice: random.Random) -> None:
        self._house, self._url, self._per_s, self._dice = house, url, per_s, dice
        self.wanted = 1  # revision
        self.counts: dict[str, dict[str, int]] = {}
        self.bad: list[str] = []

    def _load(self) -> Load:
        return Load(self._url, paths=PATHS, per_s=self._per_s)

    def _keep(self, name: str, load: Load, promoted_s: float) -> None:
        self.counts[name] = _counted(load.outcomes, promoted_s, self.wanted)
        self.bad += [f"{name}: {each.path} {each.status} {each.why}" for each in load.bad[:5]]

    async def update(self, name: str, *words: str, takes_s: float) -> None:
        """To another revision, with the server killed on the way."""
        house = self._house
        self.wanted += 1
        async with self._load() as load:
            await asyncio.sleep(2.0)  # streams run
            typed = ("serve", "update", "web", house.task, "--env", f"TURN={self.wanted}", *words)
            await house.run(*typed)
            killing = asyncio.create_task(house.kill_server(self._dice.uniform(0, takes_s)))
            if name == "blue-green":
                await house.until(
                    "switched", lambda each: bool(each.rollout and each.rollout.phase == "baking")
                )
                await house.run("serve", "promote", "web")
            promoted_s = await house.until("promoted", lambda each: each.revision == self.wanted)
            await killing
            await house.until("the old ones are gone", _only(self.wanted, 3))
            await asyncio.sleep(1.0)
        self._keep(name, load, promoted_s)

    async def shrink(self) -> None:
        house = self._house
        async with self._load() as load:
            await asyncio.sleep(2.0)
            await house.run("serve", "scale", "web", "1")
            await house.kill_server(self._dice.uniform(0, 3))
            await house.until("one is left", _only(self.wanted, 1))
        self._keep("scale-down", load, 0.0)
        await house.run("serve", "scale", "web", "3")
        await house.until("three again", _only(self.wanted, 3))

    async def lose(self) -> None:
        """A replica is killed: those that had a byte of it are cut, nobody else notices."""
        house = self._house
        async with self._load() as load:
            await asyncio.sleep(4.0)
            killed_s = asyncio.get_running_loop().time()
            os.kill(self._dice.choice(house.replicas()), signal.SIGKILL)
            await asyncio.sleep(2.0)
            await house.until("three again", _only(self.wanted, 3))
        self._keep("replica-killed", load, 0.0)
        counts = self.counts["replica-killed"]
        late = [each for each in load.bad if each.began_s > killed_s]
        counts["begun_after_the_kill_and_bad"] = len(late)
        counts["bad_short_requests"] = sum(each.path.endswith("/") for each in load.bad)


async def one_round(per_s: float, seed: int) -> dict[str, object]:
    with tempfile.TemporaryDirectory(prefix="argosy-live-", dir="/tmp", ignore_cleanup_errors=True) as name:
        house = House(Path(name))
        began_s = time.monotonic()
        await house.run("serve", "up", house.task)
        story = Story(
            house, (await house.run("serve", "endpoint", "web")).strip(), per_s, random.Random(seed)
        )
        try:
            await house.until("three are ready", _only(1, 3))
            await story.update("rolling", takes_s=6)
            await story.update("canary", "--canary", "10", "--bake", "3", takes_s=12)
            await story.update("blue-green", "--blue-green", takes_s=6)
            await story.shrink()
            await story.lose()
        finally:
            await house.close()
        spent_s = round(time.monotonic() - began_s)
        return {"seed": seed, "spent_s": spent_s, "counts": story.counts, "bad": story.bad}


def _sum(rounds: list[dict[str, object]]) -> dict[str, dict[str, int]]:
    total: dict[str, dict[str, int]] = {}
    for each in rounds:
        counts = each["counts"]
        assert isinstance(counts, dict)
        for name, figures in counts.items():
            mine = total.setdefault(name, {})
            for key, value in figures.items():
                mine[key] = mine.get(key, 0) + value
    return total


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--json", type=Path)
    parser.add_argument("--rounds", type=int, default=20)
    parser.add_argument("--per-s", type=float, default=100)
    parser.add_argument("--seed", type=int, default=1)
    given = parser.parse_args()
    rounds: list[dict[str, object]] = []
    for seed in range(given.seed, given.seed + given.rounds):
        rounds.append(asyncio.run(one_round(given.per_s, seed)))
        print(json.dumps(rounds[-1]), flush=True)
        write(given.json, rounds=len(rounds), total=_sum(rounds), each=rounds)
    for name, figures in _sum(rounds).items():
        print(name, figures)


if __name__ == "__main__":
    main()

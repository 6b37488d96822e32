"""What tests of walls between sessions share: an order, a victim, an attacker, and how they are watched."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Callable
from pathlib import Path

from agent_process import watch_until

from argosy.infra.agent_client import AgentClient
from argosy.infra.agent_port import AppOrder, Duplex, Enter, RankOrder
from argosy.model.facts import RankFact, RankPhase
from argosy.testing.ports import free_port

PORT = free_port()
MARK = f"victim-of-argosy-{os.getpid()}"

#: The victim's program: a file, a variable, a port, two sockets. It prints its pid as the machine sees it.
VICTIM = r"""
exec python3 -c '
import os, socket, sys, time
home = os.environ["HOME"]
with open(os.open(home + "/secret", os.O_CREAT | os.O_WRONLY, 0o600), "w") as file: file.write("s3cret")
a = socket.socket(); a.bind(("127.0.0.1", @PORT@)); a.listen()
b = socket.socket(socket.AF_UNIX); b.bind(home + "/u"); b.listen()
c = socket.socket(socket.AF_UNIX); c.bind("\0@MARK@"); c.listen()
open(os.environ.get("TMPDIR", "/tmp") + "/@MARK@", "w").write("mine")
open(home + "/ready", "w").write("x")
time.sleep(600)' @MARK@
""".replace("@PORT@", str(PORT)).replace("@MARK@", MARK)

#: Nine ways to reach it; prints those that work.
ATTACK = r"""
import ctypes, os, socket, sys
pid, home, found = int(sys.argv[1]), sys.argv[2], []
def tries(name, act):
    try: act(); found.append(name)
    except Exception: pass
def connect(kind, to):
    one = socket.socket(kind); one.settimeout(2); one.connect(to)
def ptrace():
    library = ctypes.CDLL(None, use_errno=True)
    if library.ptrace(16, pid, 0, 0) < 0: raise OSError
    library.ptrace(17, pid, 0, 0)
tries("file", lambda: open(home + "/secret").read())
tries("environ", lambda: open("/proc/%d/environ" % pid).read(1) or 1 / 0)
tries("pid", lambda: b"@MARK@" in open("/proc/%d/cmdline" % pid, "rb").read() or 1 / 0)
tries("signal", lambda: os.kill(pid, 0))
tries("tcp", lambda: connect(socket.AF_INET, ("127.0.0.1", @PORT@)))
tries("unix", lambda: connect(socket.AF_UNIX, home + "/u"))
tries("abstract", lambda: connect(socket.AF_UNIX, "\0@MARK@"))
tries("ptrace", ptrace)
tries("tmp", lambda: open("/tmp/@MARK@").read())
print("reached:", " ".join(found))
""".replace("@PORT@", str(PORT)).replace("@MARK@", MARK)
NINE = {"file", "environ", "pid", "signal", "tcp", "unix", "abstract", "ptrace", "tmp"}


def order(rank: str, level: str, command: str = "", **app: object) -> RankOrder:
    return RankOrder(
        id=rank, job=rank, run="app", run_now=True,
        app=AppOrder(command=command, isolation=level, home=f"~/{rank}", **app),  # type: ignore[arg-type]
    )  # fmt: skip


async def wait_for_rank(client: AgentClient, rank: str, enough: Callable[[RankFact], bool]) -> RankFact:
    seen = await watch_until(client, lambda seen: rank in seen.facts and enough(seen.facts[rank]))
    return seen.facts[rank]


async def ready(client: AgentClient, rank: str) -> None:
    fact = await wait_for_rank(client, rank, lambda fact: bool(fact.ready_ms) or fact.phase in ENDED)
    if not fact.ready_ms:
        raise AssertionError(f"{fact}: {await log_of(client, rank)}")


async def log_of(client: AgentClient, rank: str) -> str:
    seen = await watch_until(client, lambda seen: seen.ended(rank))
    return bytes(seen.logs.get(rank, b"")).decode()


async def appears(path: Path) -> None:
    async with asyncio.timeout(90):
        while not path.exists():
            await asyncio.sleep(0.01)


ENDED = (RankPhase.EXITED, RankPhase.VANISHED)


async def said_by(stream: Duplex) -> bytes:
    """All that a terminal prints, after its first line."""
    await stream.read()
    data = b""
    while piece := await stream.read():
        data += piece
    return data


async def run_in(client: AgentClient, rank: str, command: str) -> tuple[int | None, str]:
    stream = await client.enter(rank, Enter(what="shell", command=command))
    text = (await said_by(stream)).decode()
    return await stream.close(), text


def pid_of(mark: str) -> int:
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            words = path.read_bytes().split(b"\0")
        except OSError:
            continue
        if mark.encode() in words and b"-c" in words:
            return int(path.parent.name)
    raise AssertionError(f"nobody is called {mark}")

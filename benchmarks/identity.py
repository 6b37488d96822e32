"""What identity costs: at start, for each request, under an attack; the proof of the audit log; signing in.

    python benchmarks/identity.py [--json FILE] [--only WORD] [--provider node_modules] [--rounds 21]

Start: processor time and memory of the modules of identity that a server loads before anybody signs in (a
test holds which those are). All of the server is loaded first, then these modules again, and beside them all
of the server: both in one run, so that the share says something on a busy machine, too. `status`: processor
time of the command with the types of people, audit and secrets, and without. Attack: a real server over TCP;
the time of a signed-in request while a process of its own sends wrong passwords, in turns with the same
without it. From one address (which is slowed down) and from many, as behind a proxy that is trusted.
Provider: `oidc-provider` for Node, from the click to the cookie, the provider's own pages included.
"""

from __future__ import annotations

import argparse
import asyncio
import http.client
import os
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from statistics import median
from typing import Any

from machine import describe, write

from argosy.identity.credentials import make_token
from argosy.identity.deciding import may, visible
from argosy.identity.roles import BUILT_IN
from argosy.infra.system import SystemClock, SystemIds
from argosy.model.access import OWNER, Caller, Target
from argosy.model.audit import Act
from argosy.server.doorkeeper import Doorkeeper
from argosy.server.identity import Identity
from argosy.store import Store

_ROUNDS = 20_000
PASSWORD = "correct horse battery"
Row = dict[str, Any]


def row(what: str, unit: str, value: float, target: float | None = None, **more: Any) -> Row:
    reached = None if target is None else value <= target
    return {
        "what": what,
        "unit": unit,
        "value": round(value, 3),
        "at_most": target,
        "reached": reached,
        **more,
    }


# -- start ------------------------------------------------------------------------------------------

_AGAIN = """
import gc, importlib, sys, time, tracemalloc
import argosy.server.run, argosy.server.application
if sys.argv[1] == "listens":
    import argosy.server.door_rules
if sys.argv[1] == "comes":
    import argosy.server.doorkeeper, argosy.server.visitors, argosy.server.door_rules
if sys.argv[1] == "changes":
    import argosy.store.audit
parts = ("argosy.identity", "argosy.model.access", "argosy.model.audit", "argosy.model.entry",
         "argosy.model.people", "argosy.server.door_rules", "argosy.server.doorkeeper",
         "argosy.server.guarding", "argosy.server.identity", "argosy.server.recording", "argosy.server.scim",
         "argosy.server.tokens", "argosy.server.visitors", "argosy.store.acting", "argosy.store.audit")
mine = [name for name in sys.modules if name.startswith(parts)]
every = [name for name in sys.modules if name.partition(".")[0] == "argosy"]
def again(names):
    kept = {name: sys.modules.pop(name) for name in names}
    gc.collect(); gc.disable()
    begun = time.process_time()
    for name in names:
        importlib.import_module(name)
    spent = time.process_time() - begun
    gc.enable(); sys.modules.update(kept)
    return spent
spent = min(again(mine) for _ in range(5)), min(again(every) for _ in range(3))
tracemalloc.start()
before = tracemalloc.get_traced_memory()[0]
kept = {name: sys.modules.pop(name) for name in mine}
for name in mine:
    importlib.import_module(name)
print(*spent, tracemalloc.get_traced_memory()[0] - before, len(mine))
"""


def at_start(rounds: int) -> list[Row]:
    """Milliseconds and bytes that identity adds to a server until somebody signs in. Byte code is there, as
    after every installation."""
    with tempfile.TemporaryDirectory(dir="/tmp") as folder:
        env = {name: value for name, value in os.environ.items() if name != "PYTHONDONTWRITEBYTECODE"}
        env["PYTHONPYCACHEPREFIX"] = folder

        def run(what: str) -> list[float]:
            line = [sys.executable, "-c", _AGAIN, what]
            return [float(each) for each in subprocess.check_output(line, text=True, env=env).split()]

        run("comes"), run("changes")  # compiled
        found = {each: [run(each) for _ in range(rounds)] for each in ("", "listens", "comes", "changes")}
        plain = min(_cpu_of([sys.executable, "-c", "pass"], env) for _ in range(rounds)) * 1e3
    best = {each: min(one[0] for one in some) * 1e3 for each, some in found.items()}
    every = min(one[1] for one in found[""]) * 1e3
    share = median(one[0] / one[1] for one in found[""])
    _, _, memory, modules = found[""][0]
    name = "identity at the start of a server"
    return [
        row(name, "ms of CPU", best[""], 5, of_all_modules_ms=round(every, 1), modules=int(modules)),
        row("the same, of what all modules of the server cost", "%", 100 * share),
        row("memory of identity until somebody signs in", "KiB", memory / 1024, 1024),
        row(f"{name} that listens on the network", "ms of CPU", best["listens"], 5),
        row("the same with the first request over TCP", "ms of CPU", best["comes"]),
        row("identity at the start, and with the first change its record", "ms of CPU", best["changes"]),
        row("an empty Python on this machine, to compare", "ms of CPU", plain),
    ]


def _cpu_of(line: list[str], env: dict[str, str] | None = None) -> float:
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    subprocess.run(line, check=True, stdout=subprocess.DEVNULL, env=env)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    return after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime


def commands(rounds: int) -> list[Row]:
    """`argosy status` as it is, and with what it loaded before: the types of every feature."""
    from argosy.testing.fake_server import FakeServer

    code = "import sys; sys.argv[:] = ['argosy', 'status']\nfrom argosy.cli.main import main\n"
    eager = "import argosy.api.people, argosy.api.audit, argosy.api.secrets\n"
    found: dict[str, list[float]] = {"plain": [], "identity": [], "every": []}
    with tempfile.TemporaryDirectory(dir="/tmp") as folder, FakeServer(Path(folder) / "s.sock") as server:
        env = {"ARGOSY_SERVER": f"unix:{server.socket}", "HOME": folder, "PATH": os.environ["PATH"]}
        for _ in range(rounds):
            found["plain"].append(_cpu_of([sys.executable, "-c", code + "main()"], env))
            found["identity"].append(_cpu_of([sys.executable, "-c", code + eager + "main()"], env))
            found["every"].append(
                _cpu_of([sys.executable, "-c", code + "import argosy.api.every\n" + "main()"], env)
            )
    plain, people, every = (min(each) * 1e3 for each in found.values())
    return [
        row("argosy status", "ms of CPU", plain),
        row("what types of people, audit and secrets would add to it", "ms of CPU", people - plain),
        row("argosy status that loads every feature, beside it", "times", every / plain),
    ]


# -- a request --------------------------------------------------------------------------------------


def micros(work: Callable[[], object], rounds: int = _ROUNDS) -> float:
    """The best of five turns: processor time of one."""
    best = 1e9
    for _ in range(5):
        begun = time.process_time()
        for _ in range(rounds // 5):
            work()
        best = min(best, (time.process_time() - begun) / (rounds // 5) * 1e6)
    return best


async def authorisation() -> list[Row]:
    """Microseconds from the headers of a request with a personal token to who it is, and what they may."""
    clock, ids = SystemClock(), SystemIds()
    store = await Store.open("sqlite://", ids=ids, clock=clock, inline=True)
    identity = Identity(store, clock, ids)
    for number in range(200):
        await identity.people.add_user(OWNER, name=f"u{number}")
        await identity.people.give_role(OWNER, subject=f"u{number}", role="member", project="default")
    made = await identity.credentials.add_token(OWNER, name="t", user="u7")
    keeper = Doorkeeper(store, clock, identity)
    headers = [(b"host", b"127.0.0.1:1"), (b"authorization", f"Bearer {made.secret}".encode())]
    scope = {"type": "http", "method": "GET", "headers": headers, "client": ("127.0.0.1", 1)}
    samples = []
    for _ in range(_ROUNDS):
        begun = time.perf_counter()
        caller = await keeper.identify(scope)
        assert caller is not None and visible(caller, "jobs.read")
        decided = may(caller, "jobs.write", Target("default", "u7"))
        samples.append((time.perf_counter() - begun) * 1e6)
        assert decided
    await store.close()
    member = Caller(name="ann", grants=tuple(BUILT_IN["member"].over(frozenset({f"p{n}"})) for n in range(5)))
    return [
        row("authorisation of a request, p50", "us", median(samples), 20),
        row("may, five roles", "us of CPU", micros(lambda: may(member, "jobs.write", Target("p4", "ann")))),
        row("visible, five roles", "us of CPU", micros(lambda: visible(member, "jobs.read"))),
        row("make a token", "us of CPU", micros(lambda: make_token("argosy_pat_"), 2000)),
    ]


async def proof(rows: int) -> list[Row]:
    """Seconds to prove so many rows of a database: read and hashed, as `argosy audit --verify` does."""
    from argosy.server.features.audit import AuditFeature

    class Services:
        def __init__(self, store: Store) -> None:
            self.store = store

    with tempfile.TemporaryDirectory() as folder:
        url = f"sqlite:///{Path(folder) / 'argosy.db'}"
        store = await Store.open(url, ids=SystemIds(), clock=SystemClock())
        act = Act(at_ms=1, who="ann", via="token", action="down", target="clu-1 (dev)", changes='{"a":[1,2]}')
        for _ in range(rows // 1000):
            await store.commit(acts=[act] * 1000)
        feature = AuditFeature(Services(store))  # type: ignore[arg-type]
        begun, wall = time.process_time(), time.monotonic()
        verdict = await feature.verify_audit(None)  # type: ignore[arg-type]
        spent, wall = time.process_time() - begun, time.monotonic() - wall
        assert verdict.rows == rows and not verdict.broken
        await store.close()
    return [row(f"prove {rows:,} rows of the audit log", "s of CPU", spent, 2, wall_s=round(wall, 2))]


# -- an attack --------------------------------------------------------------------------------------

_ATTACKER = """
import http.client, json, sys, threading, time
port, per_second = int(sys.argv[1]), float(sys.argv[2])
many, seconds = sys.argv[3] == "many", float(sys.argv[4])
begun, sent, lock = time.monotonic(), 0, threading.Lock()
def work():
    global sent
    while time.monotonic() - begun < seconds:
        with lock:
            sent += 1
            number = sent
        time.sleep(max(0.0, begun + number / per_second - time.monotonic()))
        body = json.dumps({"user": f"user-{number}", "password": "wrong horse battery", "client": "cli"})
        fields = {"content-type": "application/json"}
        if many:
            fields["x-forwarded-for"] = f"10.{number >> 16 & 255}.{number >> 8 & 255}.{number & 255}"
        try:
            connection = http.client.HTTPConnection("127.0.0.1", port, timeout=60)
            connection.request("POST", "/v1/login", body, fields)
            connection.getresponse().read()
            connection.close()
        except OSError:
            pass
for thread in [threading.Thread(target=work, daemon=True) for _ in range(100)]:
    thread.start()
time.sleep(seconds)
print(sent)
"""


@contextmanager
def server(folder: Path) -> Iterator[tuple[int, str]]:
    """(port, a token of somebody who signed in) of a real server that believes who comes from here."""
    from argosy.client.client import Client

    env = {name: value for name, value in os.environ.items() if not name.startswith("ARGOSY_")}
    env |= {"ARGOSY_TRUSTED_PROXIES": "127.0.0.1/32", "HOME": str(folder)}
    line = [
        sys.executable,
        "-m",
        "argosy.server",
        "run",
        "--state-dir",
        str(folder),
        "--listen",
        "127.0.0.1:0",
    ]
    process = subprocess.Popen(line, env=env, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        local = {"ARGOSY_SERVER": f"unix:{folder / 'run' / 'server.sock'}", "HOME": str(folder)}
        with Client(env=local, start=False) as client:
            for _ in range(600):
                try:
                    listening = client.server_status().listening
                    break
                except Exception:
                    time.sleep(0.1)
            client.add_user("ann", password=PASSWORD)
            client.set_member("ann", "owner")
            secret = client.add_token("bench", user="ann").secret
        yield int(listening[1].rpartition(":")[2]), secret
    finally:
        process.terminate()
        process.wait(30)


def attack(seconds: float, turns: int) -> list[Row]:
    rows = []
    with (
        tempfile.TemporaryDirectory(dir="/tmp", prefix="idb-") as folder,
        server(Path(folder)) as (port, token),
    ):
        for what, many in (("one address", False), ("many addresses", True)):
            calm: list[float] = []
            busy: list[float] = []
            sent = 0
            for _ in range(turns):
                calm += _requests(port, token, seconds)
                line = [sys.executable, "-c", _ATTACKER, str(port), "100", "many" if many else "one"]
                attacker = subprocess.Popen([*line, str(seconds + 1)], stdout=subprocess.PIPE, text=True)
                time.sleep(0.5)
                busy += _requests(port, token, seconds)
                said, _ = attacker.communicate()
                sent += int(said)
            before, under = _p95(calm), _p95(busy)
            per_s = round(sent / turns / (seconds + 1))
            more = {"p95_before_ms": round(before, 2), "p95_under_ms": round(under, 2), "sent_per_s": per_s}
            rows.append(
                row(f"p95 of requests under an attack from {what}", "times", under / before, 2, **more)
            )
    return rows


def _requests(port: int, token: str, seconds: float) -> list[float]:
    """Milliseconds of each of 50 requests a second with one connection."""
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=60)
    found, begun = [], time.monotonic()
    while time.monotonic() - begun < seconds:
        start = time.perf_counter()
        connection.request("GET", "/v1/status", headers={"authorization": f"Bearer {token}"})
        connection.getresponse().read()
        found.append((time.perf_counter() - start) * 1e3)
        time.sleep(0.02)
    connection.close()
    return found


def _p95(samples: list[float]) -> float:
    return sorted(samples)[int(len(samples) * 0.95)]


# -- a provider -------------------------------------------------------------------------------------


def provider(modules: Path, rounds: int) -> list[Row]:
    """Seconds from the click to the cookie."""
    sys.path.insert(0, str(Path(__file__).parents[1] / "tests" / "identity"))
    from site_of_people import Site
    from test_real_provider import open_pages, settings_of, sign_in
    from test_sign_in_pages import allow

    from argosy.server.sign_in_pages import PATH
    from argosy.testing.real_identity_provider import RealIdentityProvider

    samples = []
    with Site() as site:
        site.clock.advance(time.time() - site.clock.now_ms() / 1000)
        with RealIdentityProvider(modules, f"{site.address}{PATH}/callback") as running:
            open_pages(site, settings_of(running))
            allow(site)
            for number in range(rounds):
                begun = time.monotonic()
                assert sign_in(site, running, f"p{number}").status == 303
                samples.append(time.monotonic() - begun)
    kept = [round(each, 3) for each in samples]
    return [row("sign-in through an identity provider, p50", "s", median(samples), 1, samples=kept)]


def main() -> None:
    parser = argparse.ArgumentParser(description="what identity costs")
    parser.add_argument("--json", type=Path)
    parser.add_argument("--only", default="", help="start, command, request, proof, attack or provider")
    parser.add_argument("--rounds", type=int, default=21)
    parser.add_argument("--seconds", type=float, default=8.0)
    parser.add_argument("--provider", type=Path, help="the folder node_modules with oidc-provider")
    wish = parser.parse_args()
    parts: dict[str, Callable[[], list[Row]]] = {
        "start": lambda: at_start(wish.rounds),
        "command": lambda: commands(wish.rounds),
        "request": lambda: asyncio.run(authorisation()),
        "proof": lambda: asyncio.run(proof(100_000)),
        "attack": lambda: attack(wish.seconds, 3),
    }
    if wish.provider:
        parts["provider"] = lambda: provider(wish.provider, 10)
    machine, rows = describe(), []
    for name, work in parts.items():
        if wish.only in name:
            for each in work():
                rows.append({"part": name, **each})
                mark = {True: "yes", False: "NO", None: ""}[each["reached"]]
                print(f"{each['what']:60} {each['value']:10.2f} {each['unit']:10} {mark}", flush=True)
    write(wish.json, machine=machine, rows=rows)


if __name__ == "__main__":
    main()

"""What keeps sessions apart: real sandboxes of a real agent, and an attacker in one of them."""

from __future__ import annotations

import ast
import asyncio
import contextlib
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
from pathlib import Path

import msgspec
import pytest
from agent_process import AgentProcess
from walls import ATTACK, ENDED, MARK, NINE, VICTIM, appears, order, pid_of, ready, run_in, wait_for_rank

from argosy.agent import nat, sandbox
from argosy.infra import border
from argosy.infra.agent_client import AgentClient
from argosy.infra.agent_port import Enter
from argosy.testing.hosts import HostLab, why_no_hosts

GOOD, GAPS = sandbox.levels()
needs_sandbox = pytest.mark.skipif("sandbox" not in GOOD, reason=GAPS.get("sandbox", ""))
needs_user = pytest.mark.skipif("user" not in GOOD, reason=GAPS.get("user", ""))
needs_pasta = pytest.mark.skipif(bool(nat.why_not()), reason=nat.why_not())
needs_lite = pytest.mark.skipif("sandbox-lite" not in GOOD, reason=GAPS.get("sandbox-lite", ""))


@pytest.mark.parametrize(
    ("level", "reached"),
    [
        ("process", NINE),
        pytest.param("sandbox-lite", {"pid", "tcp", "unix"}, marks=needs_lite),
        pytest.param("sandbox", set(), marks=needs_sandbox),
        pytest.param("sandbox nat", set(), marks=[needs_sandbox, needs_pasta]),
        pytest.param("user", set(), marks=needs_user),
    ],
)
def test_nine_ways_to_another_session(agent: AgentProcess, level: str, reached: set[str]) -> None:
    """What each level lets through, as docs/sessions.md tells it."""
    level, _, network = level.partition(" ")

    async def scenario(client: AgentClient) -> None:
        orders = (
            order("victim.0", level, VICTIM, network=network),
            order("attacker.0", level, network=network),
        )
        await client.prepare(orders)
        await ready(client, "victim.0")
        await ready(client, "attacker.0")
        home = agent.root / "home" / "victim.0"
        await appears(home / "ready")
        pid = pid_of(MARK)
        (agent.root / "home" / "attacker.0" / "attack.py").write_text(ATTACK)
        _, text = await run_in(client, "attacker.0", f"python3 ~/attack.py {pid} {home}")
        assert "reached:" in text, text
        found = set(text.partition("reached:")[2].split())
        assert found <= reached, f"{level} lets through {sorted(found - reached)}"
        if level == "process":
            assert found == NINE  # the probes themselves work
        await client.stop(["victim.0", "attacker.0"], 1.0)
        async with asyncio.timeout(90):
            while list(agent.root.glob("nat-*")):
                await asyncio.sleep(0.01)

    agent.use(scenario)


@needs_sandbox
def test_what_a_sandbox_is_like_inside(agent: AgentProcess) -> None:
    async def scenario(client: AgentClient) -> None:
        await client.prepare([order("a.0", "sandbox")])
        await ready(client, "a.0")
        code, text = await run_in(
            client, "a.0",
            "id -un; pwd; ls /home /root /proc/1/fd 2>/dev/null | tr '\\n' ' '; echo; cat /etc/shadow; "
            "touch /usr/x; ls /sys/class/net; mount | grep -c ' / '; exit 7",
        )  # fmt: skip
        assert code == 7
        lines = text.replace("\r", "").splitlines()
        assert lines[:2] == ["work", "/home/work"]
        assert "cat: /etc/shadow: No such file or directory" in text and "Read-only file system" in text
        await client.stop(["a.0"], 1.0)

    agent.use(scenario)


@needs_user
def test_at_level_user_files_belong_to_people_and_not_to_the_agent(agent: AgentProcess) -> None:
    """One user id for all sessions of a person, on every node; another one for everybody else."""

    async def scenario(client: AgentClient) -> None:
        for rank, owner in (("a.0", "ann"), ("b.0", "ben"), ("c.0", "ann")):
            await client.prepare([order(rank, "user", owner=owner)])
            await ready(client, rank)
            code, text = await run_in(client, rank, "touch ~/mine && id -u && touch /usr/x; ls /root /tmp")
            assert "1000" in text and "Read-only file system" in text, (code, text)
        ids = [(agent.root / "home" / rank / "mine").stat().st_uid for rank in ("a.0", "b.0", "c.0")]
        assert ids == [sandbox.id_of("ann"), sandbox.id_of("ben"), sandbox.id_of("ann")]
        assert len({0, *ids}) == 3
        await client.stop(["a.0", "b.0", "c.0"], 1.0)

    agent.use(scenario)


#: What a program in there finds: the way out, and whether it leads to the node.
REACH = """
import os, socket, urllib.request
def ask(url):
    try: return urllib.request.urlopen(url, timeout=90).status
    except urllib.error.HTTPError as error: return error.read().decode()
    except OSError as error: return type(error).__name__
def straight(address):
    try: socket.create_connection(address, 5); return "open"
    except OSError: return "shut"
print(repr([ask("http://127.0.0.2:@PORT@/"), ask("http://@OWN@:@PORT@/"), straight(("@OWN@", @PORT@))]))
"""


@needs_sandbox
@pytest.mark.parametrize("network", ["none", "outbound"])
def test_a_sandbox_does_not_reach_its_node(agent: AgentProcess, network: str) -> None:
    own = own_address()

    async def scenario(client: AgentClient) -> None:
        server = await asyncio.start_server(lambda *_: None, "0.0.0.0", 0)
        port = server.sockets[0].getsockname()[1]
        await client.prepare([order("a.0", "sandbox", network=network)])
        await ready(client, "a.0")
        text = REACH.replace("@PORT@", str(port)).replace("@OWN@", own)
        (agent.root / "home" / "a.0" / "reach.py").write_text(text)
        _, said = await run_in(client, "a.0", "python3 ~/reach.py")
        if network == "none":
            assert said.strip() == "['URLError', 'URLError', 'shut']", said
        else:
            first, second, third = ast.literal_eval(said.strip())
            assert first == "argosy: sessions do not reach 127.0.0.2\n"
            assert second == f"argosy: sessions do not reach {own}: it is this machine\n" and third == "shut"
        server.close()
        await client.stop(["a.0"], 1.0)

    agent.use(scenario)


def own_address() -> str:
    """Of this machine, and not its loopback."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        try:
            probe.connect(("192.0.2.1", 9))  # nothing is sent
        except OSError:
            pytest.skip("this machine has no address but its loopback")
        return str(probe.getsockname()[0])


@pytest.mark.parametrize(
    ("level", "network", "told"),
    [
        pytest.param(
            "sandbox", "host", "network `host` is not to be had at level `sandbox`", marks=needs_sandbox
        ),
        (
            "process",
            "none",
            "network `none` is not to be had at level `process`, which shares the network of node-7",
        ),
        ("process", "outbound", "network `outbound` is not to be had at level `process`"),
    ],
)
def test_a_network_that_a_level_cannot_have_is_refused(
    agent: AgentProcess, level: str, network: str, told: str
) -> None:
    async def scenario(client: AgentClient) -> None:
        await client.prepare([order("a.0", level, network=network)])
        fact = await wait_for_rank(client, "a.0", lambda fact: fact.phase in ENDED)
        assert fact.detail.startswith(told), fact.detail

    agent.use(scenario)


@needs_sandbox
def test_an_app_ends_with_its_time_and_its_code(agent: AgentProcess) -> None:
    async def scenario(client: AgentClient) -> None:
        patient = "trap 'echo saved > ~/saved; exit 5' TERM; touch ~/up; while :; do sleep 0.05; done"
        await client.prepare([order("a.0", "sandbox", patient)])
        home = agent.root / "home" / "a.0"
        await appears(home / "up")
        await client.stop(["a.0"], 10.0)
        fact = await wait_for_rank(client, "a.0", lambda fact: fact.phase in ENDED)
        assert (fact.exit_code, (home / "saved").read_text()) == (5, "saved\n")

    agent.use(scenario)


@pytest.mark.parametrize("level", ["process", pytest.param("sandbox", marks=needs_sandbox)])
@pytest.mark.parametrize("listens", ["socket", "port"])
def test_an_app_is_reached_when_it_answers(agent: AgentProcess, level: str, listens: str) -> None:
    """On a socket of its own or on a port of its own network: the bytes are the app's."""
    serve = (
        "import http.server, os, socketserver, time\n"
        "class H(http.server.BaseHTTPRequestHandler):\n"
        "    def do_GET(self): self.send_response(200); self.end_headers(); self.wfile.write(b'hello ' + "
        "self.path.encode())\n"
        "    def address_string(self): return 'x'\n"
        "time.sleep(0.2)\n"
        "path = os.environ.get('ARGOSY_APP_SOCKET')\n"
        "(socketserver.UnixStreamServer(path, H) if path else http.server.HTTPServer(('127.0.0.1', "
        "int(os.environ['ARGOSY_APP_PORT'])), H)).serve_forever()\n"
    )

    async def scenario(client: AgentClient) -> None:
        home = agent.root / "home" / "a.0"
        home.mkdir(parents=True)
        (home / "app.py").write_text(serve)
        await client.prepare([order("a.0", level, "exec python3 app.py", listens=listens, ready="/ok")])
        await ready(client, "a.0")
        stream = await client.enter("a.0", Enter(what="app"))
        await stream.write(b"GET /x HTTP/1.0\r\n\r\n")
        data = b""
        while piece := await stream.read():
            data += piece
        assert data.endswith(b"hello /x")
        await stream.close()
        with pytest.raises(border.Transient, match="nothing answers on port 9"):
            await client.enter("a.0", Enter(what="port", port=9))
        await client.stop(["a.0"], 1.0)

    agent.use(scenario)


def test_a_level_that_is_not_to_be_had_is_refused(agent: AgentProcess) -> None:
    async def scenario(client: AgentClient) -> None:
        await client.prepare([order("a.0", "vm"), order("b.0", "process", "x", program="no-such")])
        fact = await wait_for_rank(client, "a.0", lambda fact: fact.phase in ENDED)
        assert fact.exit_code == 1
        assert fact.detail.startswith("isolation `vm` is not to be had on node-7: there is no such level")
        assert fact.detail.endswith(f"it can give {', '.join(GOOD)}")
        other = await wait_for_rank(client, "b.0", lambda fact: fact.phase in ENDED)
        assert other.detail == "the program `no-such` is not installed on node-7"
        facts = await client.node()
        ways = {"c.0": "no-such | neither sh", "d.0": "no-such | sh cat"}
        await client.prepare([order(each, "process", "exit 7", program=way) for each, way in ways.items()])
        other = await wait_for_rank(client, "c.0", lambda fact: fact.phase in ENDED)
        assert other.detail == "the program `no-such | neither sh` is not installed on node-7"
        other = await wait_for_rank(client, "d.0", lambda fact: fact.phase in ENDED)
        assert other.exit_code == 7, "one of the ways is enough"
        assert facts.isolation == tuple(GOOD) and dict(facts.isolation_gaps) == GAPS

    agent.use(scenario)


def test_a_terminal_goes_on_when_its_line_is_cut(agent: AgentProcess) -> None:
    """The same shell, no byte lost and none twice, however often the line breaks."""

    async def scenario(client: AgentClient) -> None:
        await client.prepare([order("a.0", "process")])
        await ready(client, "a.0")
        command = "echo $$; read go; seq 1 60000; echo end"
        stream = await client.enter("a.0", Enter(what="shell", id="t", command=command))
        first = json.loads(await stream.read())
        assert first == {"id": "t", "from": 0}
        data = await stream.read()
        await stream.write(b"\n")
        for _ in range(3):
            data += await stream.read()
            await stream.close()  # as when the line is cut: nobody says farewell
            stream = await client.enter("a.0", Enter(what="shell", id="t", seen=len(data)))
            assert json.loads(await stream.read()) == {"id": "t", "from": len(data)}
        while piece := await stream.read():
            data += piece
        assert await stream.close() == 0
        numbers = data.replace(b"\r", b"").splitlines()
        assert numbers[-60001:] == [*(b"%d" % each for each in range(1, 60001)), b"end"]
        await client.stop(["a.0"], 1.0)

    agent.use(scenario)


def test_a_home_begins_with_the_files_that_it_is_given_once(agent: AgentProcess) -> None:
    async def scenario(client: AgentClient) -> None:
        seed = agent.root / "home" / "it's a seed"
        (seed / ".local" / "bin").mkdir(parents=True)
        (seed / "work.txt").write_text("first")
        (seed / ".local" / "bin" / "tool").symlink_to("../../work.txt")
        given = {"seed": "~/it's a seed", "home": "~/home of it"}
        told = order("a.0", "process")
        assert told.app is not None
        await client.prepare([msgspec.structs.replace(told, app=msgspec.structs.replace(told.app, **given))])
        await ready(client, "a.0")
        home = agent.root / "home" / "home of it"
        assert (home / ".local" / "bin" / "tool").read_text() == "first"
        (home / "work.txt").write_text("mine")
        kept = await client.kept("rank:a.0", 0.0)
        assert {"work.txt", ".local/bin/tool"} <= {entry.path for entry in kept.entries}
        with pytest.raises(border.RequestRefused, match="no app runs as 'b"):
            await client.kept("rank:b.0", 0.0)
        await client.stop(["a.0"], 1.0)
        again = msgspec.structs.replace(told, id="c.0", job="c.0")
        await client.prepare([msgspec.structs.replace(again, app=msgspec.structs.replace(told.app, **given))])
        await ready(client, "c.0")
        assert (home / "work.txt").read_text() == "mine"
        await client.stop(["c.0"], 1.0)

    agent.use(scenario)


def test_more_is_on_the_way_than_a_terminal_keeps_and_none_is_lost(agent: AgentProcess) -> None:
    """A reader that says what has arrived loses nothing, though its line swallowed more than sockets hold;
    and the shell's end waits for it."""

    async def scenario(client: AgentClient) -> None:
        await client.prepare([order("a.0", "process")])
        await ready(client, "a.0")
        data, seen = b"", -1
        for is_cut in (True, False):
            enter = Enter(what="shell", id="t", command="seq 1 350000; exit 3", seen=seen, acks=True)
            stream = await client.enter("a.0", enter)
            assert json.loads(await stream.read()) == {"id": "t", "from": len(data)}
            until = len(data) + (500 << 10) if is_cut else 1 << 30
            while len(data) < until and (piece := await stream.read()):
                data += piece
                await stream.acknowledge(len(data))  # type: ignore[attr-defined]
            under_way = 0
            while is_cut and under_way < 1700 << 10:  # what comes now never arrives
                under_way += len(await stream.read())
            code, seen = await stream.close(), len(data)
        assert code == 3
        assert data.split() == [b"%d" % each for each in range(1, 350_001)]
        with pytest.raises(border.RequestRefused, match="terminal `t` has ended"):
            async with asyncio.timeout(90):
                while True:  # until it has heard that its reader is gone
                    await (await client.enter("a.0", Enter(what="shell", id="t", seen=seen))).close()
        await client.stop(["a.0"], 1.0)

    agent.use(scenario)


def test_who_watches_sees_the_same_bytes_and_types_nothing(agent: AgentProcess) -> None:
    async def scenario(client: AgentClient) -> None:
        await client.prepare([order("a.0", "process")])
        await ready(client, "a.0")
        with pytest.raises(border.RequestRefused, match="there is no terminal to watch"):
            await client.enter("a.0", Enter(what="shell", watch=True, command="touch ~/made"))
        with pytest.raises(border.RequestRefused, match="there is no terminal `x` to watch"):
            await client.enter("a.0", Enter(what="shell", id="x", watch=True))
        command = "stty -echo; echo go; read x; echo $x"
        typist = await client.enter("a.0", Enter(what="shell", id="t", command=command))
        await typist.read()
        assert await typist.read() == b"go\r\n"
        watcher = await client.enter("a.0", Enter(what="shell", watch=True, rows=5, columns=9))
        assert json.loads(await watcher.read()) == {"id": "t", "from": 0}
        await watcher.write(b"evil\n")
        await watcher.resize(7, 7)
        await client.enter("a.0", Enter(what="shell", id="t", watch=True))  # another, who never reads
        await typist.write(b"good\n")
        told, shown = b"go\r\n", b""
        while piece := await typist.read():
            told += piece
        while piece := await watcher.read():
            shown += piece
        assert told == shown == b"go\r\ngood\r\n"
        assert (await typist.close(), await watcher.close()) == (0, 0)
        assert not (agent.root / "home" / "a.0" / "made").exists()
        await client.stop(["a.0"], 1.0)

    agent.use(scenario)


def test_the_next_agent_finds_the_app(agent: AgentProcess) -> None:
    level = [each for each in GOOD if each != "container"][-1]

    async def begin(client: AgentClient) -> None:
        await client.prepare([order("a.0", level)])
        await ready(client, "a.0")

    async def go_on(client: AgentClient) -> None:
        await ready(client, "a.0")
        assert (await run_in(client, "a.0", "exit 3"))[0] == 3
        await client.stop(["a.0"], 1.0)
        await wait_for_rank(client, "a.0", lambda fact: fact.phase in ENDED)

    agent.use(begin)
    agent.end()
    agent.start()
    agent.use(go_on)


def test_kernels_that_compute_are_seen() -> None:
    from argosy.agent.activity import _is_busy

    assert _is_busy(b'[{"id": "a", "execution_state": "idle"}, {"id": "b", "execution_state": "busy"}]')
    assert not _is_busy(b'[{"execution_state": "idle"}]') and not _is_busy(b"<html>") and not _is_busy(b"[3]")


def test_the_last_use_is_told_when_it_is_over() -> None:
    """Looks every 10 s, somebody types for 45 s: few words, and the last one says when it ended."""
    from argosy.agent.activity import News

    news, told = News(), [0]
    for at_s in range(100, 200, 10):
        typed_ms = min(at_s * 1000 - 300, 143_700)
        if news.take((typed_ms, "terminal"), told[-1]):
            told.append(news.last[0])
    assert told == [0, 99_700, 129_700, 143_700]
    assert not news.take((0, ""), told[-1])
    assert not news.take((200_000, "cpu"), 195_000) and news.take((0, ""), 195_000)


#: What a program in there finds by itself, without a proxy.
STRAIGHT = """
import socket
def by_tcp(host):
    try: socket.create_connection((host, 22), 30).close(); return "open"
    except OSError as error: return error.strerror or "timed out"
def by_udp(host):
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as asking:
        asking.settimeout(1)
        for _ in range(30):
            try: asking.sendto(b"hello", (host, 9009)); return asking.recv(100).decode()
            except TimeoutError: pass
print([line.split()[0] for line in open("/proc/net/route")][1], open("/etc/resolv.conf").read().split()[1])
shut = [by_tcp(host) for host in ("127.0.0.1", "@OWN@", "@BRIDGE@", "169.254.169.254")]
print([by_tcp("@THERE@"), by_udp("@THERE@"), *shut])
"""
ECHO = """
import socket
with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as echo:
    echo.bind(("", 9009))
    while True:
        data, who = echo.recvfrom(100)
        echo.sendto(data.upper(), who)
"""


@needs_sandbox
@needs_pasta
@pytest.mark.skipif(bool(why_no_hosts()), reason=why_no_hosts() or "hosts can be made")
def test_nat_leads_out_by_every_protocol_and_never_to_the_node(agent: AgentProcess) -> None:
    """Another machine is reached by TCP and UDP; this one by no address, nor that of clouds' credentials."""

    async def scenario(client: AgentClient) -> None:
        await client.prepare([order("a.0", "sandbox", network="nat")])
        await ready(client, "a.0")
        text = STRAIGHT.replace("@THERE@", lab.hosts[0].ip).replace("@OWN@", own_address())
        text = text.replace("@BRIDGE@", f"{lab.subnet}.1")
        (agent.root / "home" / "a.0" / "reach.py").write_text(text)
        _, said = await run_in(client, "a.0", "python3 ~/reach.py")
        first, second = said.replace("\r", "").splitlines()
        assert first == f"eth0 {nat.DNS}"
        shut = ["Connection refused"] * 2 + ["Invalid argument"] * 2
        assert ast.literal_eval(second) == ["open", "HELLO", *shut]
        pid = (agent.root / "nat-a.0").read_text().strip()
        agent.end()
        os.kill(sandbox_of(agent), signal.SIGKILL)
        agent.start()
        async with asyncio.timeout(90):  # the next agent has found that its session has ended
            while Path(f"/proc/{pid}").exists():
                await asyncio.sleep(0.01)

    with HostLab(1) as lab:
        space = ["ip", "netns", "exec", lab.hosts[0].space]
        echo = subprocess.Popen([*space, sys.executable, "-c", ECHO])
        try:
            agent.use(scenario)
        finally:
            echo.kill()
            echo.wait()


def sandbox_of(agent: AgentProcess) -> int:
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        with contextlib.suppress(OSError):
            words = path.read_bytes().split(b"\0")
            if words[0].endswith(b"bwrap") and any(str(agent.root).encode() in word for word in words):
                return int(path.parent.name)
    raise AssertionError("there is no sandbox")


@pytest.mark.parametrize(
    ("level", "told"),
    [
        pytest.param(
            "sandbox",
            "network `nat` is not to be had on node-7: the program `pasta` is not installed (package passt); "
            "`outbound` goes through a proxy there",
            marks=needs_sandbox,
        ),
        ("process", "network `nat` is not to be had at level `process`; ask for isolation `sandbox`"),
    ],
)
def test_nat_that_cannot_be_had_is_refused(
    agent: AgentProcess, tmp_path: Path, level: str, told: str
) -> None:
    agent.end()
    for name in ("bwrap", "sh", "bash"):
        (tmp_path / name).symlink_to(shutil.which(name) or "/bin/" + name)
    agent.environ["PATH"] = str(tmp_path)
    agent.start()

    async def scenario(client: AgentClient) -> None:
        await client.prepare([order("a.0", level, network="nat")])
        fact = await wait_for_rank(client, "a.0", lambda fact: fact.phase in ENDED)
        assert fact.detail == told

    agent.use(scenario)

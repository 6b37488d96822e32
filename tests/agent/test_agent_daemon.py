from __future__ import annotations

import ast
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import zipfile
from collections.abc import Callable
from pathlib import Path

import pytest
from agent_process import AgentProcess, gone, wait_for, watch_until

import argosy.agent
from argosy.agent import daemon
from argosy.infra.agent_client import AgentClient
from argosy.infra.agent_port import Ack, RankOrder
from argosy.infra.boot import agent_command, agent_zipapp

_WITH_DOCSTRINGS = (ast.Module, ast.ClassDef, ast.FunctionDef, ast.AsyncFunctionDef)
SOURCES = sorted(Path(argosy.agent.__file__).parent.glob("*.py"))


# ---- size and form


def test_the_zipapp_is_small_and_the_same_on_every_build(
    pyz: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert pyz.stat().st_size <= 300 << 10
    for code in range(256):  # whatever else the process has done meanwhile
        sys.intern(chr(code))
    monkeypatch.setattr(sys, "pycache_prefix", str(tmp_path / "bytecode"))  # nothing is kept there yet
    again = agent_zipapp(tmp_path / "one")
    assert (again.name, again.read_bytes()) == (pyz.name, pyz.read_bytes())
    assert [path.name for path in (tmp_path / "one").iterdir()] == [pyz.name]


def test_sources_in_the_zipapp_say_the_same_without_their_docstrings(pyz: Path) -> None:
    """For a Python that did not build it: every statement is on its line, so tracebacks are right."""

    def told(source: str) -> list[tuple[int, str]]:
        tree = ast.parse(source)
        for node in ast.walk(tree):
            first = node.body[0] if isinstance(node, _WITH_DOCSTRINGS) and node.body else None
            if isinstance(first, ast.Expr) and isinstance(first.value, ast.Constant):
                first.value.value = ""
        return [(each.lineno, ast.dump(each)) for each in tree.body]

    folder = Path(argosy.agent.__file__).parent
    with zipfile.ZipFile(pyz) as archive:
        for path in folder.rglob("*.py"):
            packed = archive.read(f"argosy/agent/{path.relative_to(folder).as_posix()}").decode()
            assert told(packed) == told(path.read_text("utf-8")), path


def test_the_zipapp_is_built_once_for_all_folders(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "pycache_prefix", str(tmp_path / "bytecode"))
    monkeypatch.setattr(sys, "dont_write_bytecode", False)
    first = agent_zipapp(tmp_path / "one")
    (kept,) = (tmp_path / "bytecode").rglob("*.pyz")
    assert kept.read_bytes() == first.read_bytes()
    kept.write_bytes(b"what was kept")
    (kept.parent / kept.name.replace(first.stem.removeprefix("agent-"), "0" * 16)).write_bytes(b"older")
    assert agent_zipapp(tmp_path / "two").read_bytes() == b"what was kept"
    kept.unlink()
    assert agent_zipapp(tmp_path / "three").read_bytes() == first.read_bytes()
    assert list(kept.parent.glob("*.pyz")) == [kept], "those of older versions go"


@pytest.mark.parametrize("barrier", ["a folder that cannot be made", "no bytecode is wanted"])
def test_the_zipapp_is_there_also_where_nothing_can_be_kept(
    barrier: str, pyz: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    bytecode = tmp_path / "bytecode"
    monkeypatch.setattr(sys, "pycache_prefix", str(bytecode))
    monkeypatch.setattr(sys, "dont_write_bytecode", barrier == "no bytecode is wanted")
    if barrier == "a folder that cannot be made":
        bytecode.write_bytes(b"a file")
    assert agent_zipapp(tmp_path / "one").read_bytes() == pyz.read_bytes()
    assert not bytecode.is_dir()


def test_the_idle_agent_is_small(agent: AgentProcess) -> None:
    async def scenario(client: AgentClient) -> None:
        await client.node()
        await anext(client.watch({}))

    agent.use(scenario)
    assert agent.memory_kib() <= 22 * 1024


def test_the_bytecode_in_the_zipapp_is_used(pyz: Path, tmp_path: Path) -> None:
    # With every source replaced by nonsense it must still run on the Python that built it.
    broken = tmp_path / "broken.pyz"
    with zipfile.ZipFile(pyz) as source, zipfile.ZipFile(broken, "w") as sink:
        for name in source.namelist():
            sink.writestr(name, b"this is not Python" if name.endswith(".py") else source.read(name))
    output = subprocess.run(
        [sys.executable, "-I", "-S", str(broken), "probe"], check=True, capture_output=True
    ).stdout
    assert json.loads(output)["python"] == ".".join(map(str, sys.version_info[:3]))


def test_the_reader_of_a_watch_sets_the_pace(agent: AgentProcess) -> None:
    """And what it says that the agent does not understand does no harm."""

    async def scenario(client: AgentClient) -> None:
        watch = client.watch({}, lambda report: Ack(sent=report.sent, beat=0.2))
        reports = [await anext(watch) for _ in range(6)]
        assert [report.beat_s for report in reports[:1]] == [5.0]
        assert {report.beat_s for report in reports[2:]} == {0.2}
        sent = [report.sent for report in reports]
        assert sent == sorted(sent)
        await watch.aclose()  # type: ignore[attr-defined]

    agent.use(scenario)


@pytest.mark.parametrize("path", SOURCES, ids=lambda path: path.name)
def test_sources_are_python_3_8_and_standard_library(path: Path) -> None:
    tree = ast.parse(path.read_text(), feature_version=(3, 8))
    assert "from __future__ import annotations" in path.read_text() or path.name == "__init__.py"
    for node in ast.walk(tree):
        names = [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
        names += [node.module or ""] if isinstance(node, ast.ImportFrom) else []
        for name in names:
            top = name.partition(".")[0]
            assert top in sys.stdlib_module_names or name == "argosy" or name.startswith("argosy.agent"), name


def other_pythons() -> list[str]:
    found = []
    for version in ("3.8", "3.9", "3.10", "3.12", "3.13", "3.14"):
        path = shutil.which("python" + version)
        if path and subprocess.run([path, "-c", ""], capture_output=True).returncode == 0:
            found.append(path)
        found += [str(p) for p in Path.home().glob(f".pyenv/versions/{version}.*/bin/python{version}")]
    return found


def test_it_runs_on_other_pythons(pyz: Path, folder: Path) -> None:
    pythons = other_pythons()
    if not pythons:
        pytest.skip("no other Python than the one of the tests is installed here")
    for python in pythons:
        here = folder / Path(python).name
        here.mkdir(exist_ok=True)
        agent = AgentProcess(pyz, here)
        agent.process = subprocess.Popen(
            agent_command(pyz, agent.root, agent.socket, python=python), stdout=subprocess.PIPE, text=True
        )
        try:
            assert agent.process.stdout is not None
            assert "listening" in agent.process.stdout.readline(), python
            fact, log = agent.run_one("echo up; exit 3", setup="true")
            assert (fact.exit_code, log) == (3, b"up\n"), python
        finally:
            agent.end()
            agent.process.stdout.close()
        shutil.rmtree(here)


# ---- one agent per root and socket


def test_a_second_agent_on_the_same_root_is_refused(agent: AgentProcess, pyz: Path, folder: Path) -> None:
    second = subprocess.run(
        agent_command(pyz, agent.root, folder / "other", python=sys.executable),
        capture_output=True,
        text=True,
    )
    assert second.returncode == 3
    assert f"another agent (pid {agent.pid}) already serves {agent.root}" in second.stderr


def test_a_second_agent_on_the_same_socket_is_refused(agent: AgentProcess, pyz: Path, folder: Path) -> None:
    command = agent_command(pyz, folder / "other", agent.socket, python=sys.executable)
    second = subprocess.run(command, capture_output=True, text=True)
    assert second.returncode == 3
    assert f"another agent already listens on {agent.socket}" in second.stderr
    assert agent.run_one("true")[0].exit_code == 0


def test_a_socket_left_by_a_killed_agent_is_replaced(agent: AgentProcess) -> None:
    agent.end(signal.SIGKILL)
    assert agent.socket.exists()
    agent.start()
    assert agent.run_one("true")[0].exit_code == 0


def test_a_file_in_place_of_the_socket_is_left_alone(pyz: Path, folder: Path) -> None:
    (folder / "s").write_text("mine")
    done = subprocess.run(
        agent_command(pyz, folder / "root", folder / "s", python=sys.executable),
        capture_output=True,
        text=True,
    )
    assert done.returncode == 4
    assert "exists and is not a socket" in done.stderr
    assert (folder / "s").read_text() == "mine"


def test_only_the_owner_can_reach_it(agent: AgentProcess) -> None:
    assert agent.socket.stat().st_mode & 0o777 == 0o600
    assert agent.root.stat().st_mode & 0o777 == 0o700


def test_a_socket_that_goes_while_the_agent_starts_is_not_taken_for_ours(tmp_path: Path) -> None:
    path = str(tmp_path / "s")
    with daemon._listen(path) as listener:
        os.unlink(path)
        door = daemon._Door(path, listener)
        assert not door.is_ours(), "nothing is there, so that the next look makes it anew"


def test_a_socket_path_longer_than_an_address(make_agent: Callable[..., AgentProcess], folder: Path) -> None:
    deep = folder / ("d" * 90) / ("e" * 90)
    deep.mkdir(parents=True)
    agent = make_agent()
    agent.socket = deep / "socket"
    agent.start()
    assert agent.run_one("true")[0].exit_code == 0


def test_arguments_that_are_wrong_get_usage(pyz: Path) -> None:
    for arguments in (
        [],
        ["fly"],
        ["serve"],
        ["serve", "--root"],
        ["serve", "--colour", "red"],
        ["probe", "--devices=x"],
    ):
        done = subprocess.run([sys.executable, str(pyz), *arguments], capture_output=True, text=True)
        assert done.returncode == 2, arguments
        assert "Traceback" not in done.stderr


# ---- ends


def test_sigterm_ends_the_agent_and_not_its_ranks(agent: AgentProcess) -> None:
    async def start(client: AgentClient) -> int:
        await client.prepare([RankOrder(id="a.0", run="echo $$; sleep 300", run_now=True)])
        seen = await watch_until(client, lambda s: b"\n" in s.logs.get("a.0", b""))
        return int(seen.logs["a.0"])

    pid = agent.use(start)
    agent.end(signal.SIGTERM)
    assert not agent.socket.exists()
    assert not gone(pid)
    agent.start()


def test_shutdown_ends_ranks_and_agent(agent: AgentProcess) -> None:
    async def scenario(client: AgentClient) -> int:
        await client.prepare(
            [RankOrder(id="a.0", run="echo $$; sleep 300", run_now=True), RankOrder(id="b.0", run="x")]
        )
        seen = await watch_until(client, lambda s: b"\n" in s.logs.get("a.0", b""))
        await client.shutdown()
        return int(seen.logs["a.0"])

    pid = agent.use(scenario)
    assert agent.process is not None
    assert agent.process.wait(20) == 0
    assert gone(pid)
    assert not agent.socket.exists()


# ---- what is not the protocol


GARBAGE = [
    b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + os.urandom(64) + b"\r\n\r\n",
    b"GET\r\n\r\n",
    b"GET /v1/node HTTP/1.1\r\nno colon here\r\n\r\n",
    b"GET /v1/node FTP/9\r\n\r\n",
    b"POST /v1/run HTTP/1.1\r\nContent-Length: -5\r\n\r\n",
    b"POST /v1/run HTTP/1.1\r\nContent-Length: 99999999999999999999\r\n\r\n",
    b"POST /v1/run HTTP/1.1\r\nContent-Length: 999999999999\r\n\r\n",
    b"POST /v1/run HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
    b"POST /v1/run HTTP/1.1\r\nContent-Length: 5\r\n\r\n{bad}",
    b"POST /v1/run HTTP/1.1\r\nContent-Length: 2\r\n\r\n[]",
    b"POST /v1/run HTTP/1.1\r\nContent-Length: 4\r\n\r\n\xff\xfe\xfd\xfc",
    b'POST /v1/run HTTP/1.1\r\nContent-Length: 10\r\n\r\n{"ids": 5}',
    b'POST /v1/prepare HTTP/1.1\r\nContent-Length: 15\r\n\r\n{"orders": [1]}',
    b'POST /v1/stop HTTP/1.1\r\nContent-Length: 32\r\n\r\n{"ids": ["a"], "grace_s": "now"}',
    b'POST /v1/watch HTTP/1.1\r\nContent-Length: 18\r\n\r\n{"cursors": [1,2]}',
    b'POST /v1/forward HTTP/1.1\r\nContent-Length: 14\r\n\r\n{"port": "80"}',
    b'POST /v1/shell HTTP/1.1\r\nContent-Length: 14\r\n\r\n{"rows": -100}',
    b"PUT /v1/chunks HTTP/1.1\r\nContent-Length: 11\r\n\r\nhello world",
    b"PUT /v1/chunks HTTP/1.1\r\nContent-Length: 70\r\n\r\n" + b"0" * 64 + b" 9999\n",
    b"GET /v2/node HTTP/1.1\r\n\r\n",
    b"DELETE /v1/node HTTP/1.1\r\n\r\n",
    b"x" * 300_000 + b"\r\n\r\n",
    b"POST /v1/run HTTP/1.1\r\nContent-Length: 200000\r\n\r\n" + b"[" * 200_000,
]


def exchange(path: Path, data: bytes) -> bytes:
    with socket.socket(socket.AF_UNIX) as stream:
        stream.settimeout(90)
        stream.connect(str(path))
        try:
            stream.sendall(data)
            stream.shutdown(socket.SHUT_WR)
        except (BrokenPipeError, ConnectionResetError):
            pass
        answer = b""
        try:
            while piece := stream.recv(65536):
                answer += piece
        except ConnectionResetError:
            pass
        return answer


def test_garbage_is_answered_and_harms_nobody(agent: AgentProcess) -> None:
    for data in GARBAGE:
        answer = exchange(agent.socket, data)
        if answer:  # a reset may outrun the answer when more was sent than was read
            head, _, body = answer.partition(b"\r\n\r\n")
            assert head.split()[1] in (b"400", b"404"), data[:80]
            assert json.loads(body)["error"] == "refused", data[:80]
            assert json.loads(body)["text"], data[:80]
    for data in (
        b"",
        b"GET /v1/no",
        b"POST /v1/run HTTP/1.1\r\nContent-Length: 50\r\n\r\n{",
        os.urandom(4096),
    ):
        exchange(agent.socket, data)
    assert agent.run_one("echo fine")[1] == b"fine\n"


def test_people_can_ask_with_plain_http(agent: AgentProcess) -> None:
    answer = exchange(agent.socket, b"GET /v1/node HTTP/1.1\r\nHost: x\r\n\r\n" * 2)
    assert answer.count(b"HTTP/1.1 200 OK") == 2, "connections are kept alive"
    assert json.loads(answer.rpartition(b"\r\n\r\n")[2])["hostname"] == "node-7"


# ---- facts


def test_probe_and_node_tell_the_same_machine(
    agent: AgentProcess, probe: Callable[..., dict[str, object]]
) -> None:
    async def scenario(client: AgentClient) -> None:
        facts = await client.node()
        told = probe("--name", "node-7", "--root", str(agent.root))
        assert facts.hostname == told["hostname"] == "node-7"
        assert facts.cpus_milli == told["cpus_milli"] == 1000 * len(os.sched_getaffinity(0))
        assert facts.memory_bytes == told["memory_bytes"] > 0
        assert 0 < facts.memory_used_bytes <= facts.memory_bytes
        assert facts.boot_id == Path("/proc/sys/kernel/random/boot_id").read_text().strip()
        assert facts.arch == os.uname().machine
        assert facts.disk_free_bytes > 0
        assert facts.agent_version == argosy.__version__
        watch = client.watch({})
        assert (await anext(watch)).node is not None

    agent.use(scenario)


def test_a_socket_that_somebody_removed_comes_back(agent: AgentProcess) -> None:
    async def scenario(client: AgentClient) -> None:
        assert (await client.node()).cpus_milli

    agent.socket.unlink()
    wait_for(agent.socket.is_socket)
    agent.use(scenario)
    assert agent.process is not None and agent.process.poll() is None


@pytest.mark.parametrize("what", ["removed", "replaced", "unlocked"])
def test_an_agent_whose_root_is_not_its_own_ends_its_ranks_and_itself(agent: AgentProcess, what: str) -> None:
    async def scenario(client: AgentClient) -> int:
        await client.prepare([RankOrder(id="a.0", run="echo $$; exec sleep 600", run_now=True)])
        seen = await watch_until(client, lambda seen: bool(seen.logs.get("a.0")))
        return int(seen.logs["a.0"])

    pid = agent.use(scenario)
    if what == "unlocked":
        (agent.root / "agent.lock").unlink()
    else:
        agent.root.rename(agent.folder / "elsewhere")
        if what == "replaced":
            agent.root.mkdir()
    assert agent.process is not None and agent.process.wait(30) == 0
    wait_for(lambda: gone(pid))

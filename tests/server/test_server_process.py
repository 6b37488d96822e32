"""The real process: starting, stopping, being killed, and what keeps it from starting."""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from types import MappingProxyType

import pytest
from raw_requests import Raw

from argosy.client.local_server import holder_pid
from argosy.model.errors import ArgosyError
from argosy.server.listeners import bind_tcp
from argosy.testing.listening import beyond_loopback, listening

TASK = {"run": "true"}


class Process:
    """One run of the server on `home`."""

    def __init__(
        self, home: Path, *more: str, wait: bool = True, env: Mapping[str, str] = MappingProxyType({})
    ) -> None:
        self.home = home
        self.socket = home / "run" / "server.sock"
        environ = {k: v for k, v in os.environ.items() if not k.startswith("ARGOSY_")} | dict(env)
        self.popen = subprocess.Popen(
            [sys.executable, "-m", "argosy.server", "run", "--state-dir", str(home), *more],
            cwd="/",
            env=environ,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
        )
        self.raw = Raw(self.socket)
        if wait:
            self.wait_until_ready()

    def wait_for(self, condition: Callable[[], bool]) -> None:
        deadline = time.monotonic() + 60
        while not condition():
            assert self.popen.poll() is None, self.popen.communicate()
            assert time.monotonic() < deadline
            time.sleep(0.05)

    def wait_until_ready(self) -> None:
        deadline = time.monotonic() + 60
        while True:
            assert self.popen.poll() is None, self.popen.communicate()
            with contextlib.suppress(OSError):
                assert self.raw.get("/health").json["pid"] == self.popen.pid
                return
            assert time.monotonic() < deadline
            time.sleep(0.01)

    def ended(self) -> tuple[int, str]:
        _, said = self.popen.communicate(timeout=60)
        return self.popen.returncode, said.decode()

    def kill(self) -> None:
        self.popen.kill()
        self.popen.communicate()

    def stop(self) -> int:
        self.popen.terminate()
        return self.ended()[0]


@pytest.fixture
def home() -> Iterator[Path]:
    with tempfile.TemporaryDirectory(dir="/tmp", prefix="srv-", ignore_cleanup_errors=True) as name:
        folder = Path(name)
        yield folder
        deadline = time.monotonic() + 90
        while _end_all(folder):
            assert time.monotonic() < deadline
            time.sleep(0.1)


def _end_all(folder: Path) -> int:
    """Ends what a failed test left running in this folder, agents included: they are ours. How many were
    there."""
    found = 0
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit() and int(entry.name) != os.getpid():
            with contextlib.suppress(OSError):
                # Empty when it has ended. What a program starts is known by its environment alone.
                if any(
                    str(folder).encode() in (entry / file).read_bytes() for file in ("cmdline", "environ")
                ):
                    os.kill(int(entry.name), signal.SIGKILL)
                    found += 1
    return found


def test_it_starts_answers_and_stops(home: Path) -> None:
    server = Process(home)
    status = server.raw.get("/server").json
    assert status["listening"] == [str(server.socket)]
    assert status["health"]["state_dir"] == str(home)
    assert status["memory_bytes"] < 150 << 20
    assert listening([server.popen.pid]) == set(), "nobody asked for TCP"
    assert server.stop() == 0
    assert not server.socket.exists()
    log = (home / "server.log").read_text()
    assert "listens on" in log
    assert "stops; ranks go on" in log
    assert "ERROR" not in log
    assert oct((home / "server.log").stat().st_mode)[-3:] == "600"


def test_it_listens_where_it_is_told(home: Path) -> None:
    server = Process(home, "--listen", "127.0.0.1:0", "--s3", "127.0.0.1:0", "--gateway", "127.0.0.1:0")
    assert len(listening([server.popen.pid])) == 2 and beyond_loopback([server.popen.pid]) == set()
    assert server.stop() == 0
    with socket.create_server(("0.0.0.0", 0)):
        assert len(beyond_loopback([os.getpid()])) == 1, "this test would see it"


def test_it_stops_when_asked_over_the_api(home: Path) -> None:
    server = Process(home)
    assert server.raw.post("/server/stop").json == {"names": ["server"]}
    assert server.ended() == (0, "")
    again = Process(home)
    assert again.stop() == 0


def test_a_kill_loses_nothing(home: Path) -> None:
    server = Process(home)
    made = server.raw.post("/launch", {"task": {}, "cluster": "kept", "key": "k"}).body
    jobs = []
    for i in range(20):
        answer = server.raw.post("/exec", {"cluster": "kept", "tasks": [{"run": f"sleep 100{i}"}]})
        jobs.append(answer.json["jobs"][0]["id"])
    server.kill()
    assert server.socket.exists()  # nobody could tidy up
    again = Process(home)
    listed = {job["id"] for job in again.raw.get("/jobs?cluster=kept").json["jobs"]}
    assert listed == set(jobs)
    assert again.raw.post("/launch", {"task": {}, "cluster": "kept", "key": "k"}).body == made
    again.raw.ask("DELETE", "/clusters/kept")
    deadline = time.monotonic() + 60
    while again.raw.get("/status").json["clusters"]:
        assert time.monotonic() < deadline
        time.sleep(0.05)
    assert again.stop() == 0


def test_two_servers_on_one_folder(home: Path) -> None:
    first = Process(home)
    code, said = Process(home, wait=False).ended()
    assert code == 5
    assert f"another server (process {first.popen.pid}) uses the state folder {home}" in said
    assert "hint:" in said
    assert first.raw.get("/health").status == 200
    assert first.stop() == 0


def test_a_server_that_leaves_is_waited_for(home: Path) -> None:
    first = Process(home)
    first.popen.send_signal(signal.SIGTERM)
    second = Process(home, wait=False)
    assert first.ended()[0] == 0
    second.wait_until_ready()
    assert second.stop() == 0


def test_a_port_that_is_taken(home: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        code, said = Process(home, "--listen", f"127.0.0.1:{port}", wait=False).ended()
    assert code == 5
    assert f"error: port {port} of `127.0.0.1` is in use" in said
    assert "hint: choose another with `--listen HOST:PORT`" in said
    assert not (home / "argosy.db").exists()  # nothing had started


def test_a_taken_port_has_a_code_of_its_own() -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken, pytest.raises(ArgosyError) as error:
        bind_tcp(f"127.0.0.1:{taken.getsockname()[1]}")
    assert error.value.code == "port-taken"


@pytest.mark.parametrize("listen", ["7421", "nowhere.invalid:1", "127.0.0.1:99999", "127.0.0.1:x"])
def test_an_address_that_is_none(home: Path, listen: str) -> None:
    code, said = Process(home, "--listen", listen, wait=False).ended()
    assert code == 2
    assert "hint:" in said
    assert "Traceback" not in said


def test_tcp_with_a_token_made_while_it_runs(home: Path) -> None:
    server = Process(home, "--listen", "127.0.0.1:0")
    address = server.raw.get("/server").json["listening"][1]
    command = [sys.executable, "-m", "argosy.server", "token", "--state-dir", str(home)]
    secret = subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()
    remote = Raw(address)
    assert remote.get("/status").status == 401
    assert remote.get("/status", Authorization=f"Bearer {secret}").status == 200
    listed = subprocess.run([*command, "--list"], capture_output=True, text=True, check=True).stdout
    assert listed == "default\n"
    subprocess.run([*command, "--remove"], check=True)
    assert remote.get("/status", Authorization=f"Bearer {secret}").status == 401
    assert server.stop() == 0
    assert secret not in (home / "server.log").read_text()


def test_a_corrupt_database(home: Path) -> None:
    server = Process(home)
    server.raw.post("/jobs", {"tasks": [TASK]})
    server.kill()
    for path in home.glob("argosy.db*"):
        path.unlink() if path.suffix != ".db" else path.write_bytes(b"this is no database" * 1000)
    code, said = Process(home, wait=False).ended()
    assert code == 8
    assert "argosy.db" in said
    assert "hint:" in said
    assert "Traceback" not in said
    assert not server.socket.exists() or not _answers(server.socket)


def _answers(path: Path) -> bool:
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as sock:
        return sock.connect_ex(str(path)) == 0


def test_a_path_too_long_for_a_socket(home: Path) -> None:
    from argosy.api.location import socket_path

    long = home / ("x" * 120)
    server = Process(long, wait=False)
    server.socket = socket_path(long)
    server.raw = Raw(server.socket)
    server.wait_until_ready()
    assert oct(server.socket.parent.stat().st_mode)[-3:] == "700"
    assert server.stop() == 0


@pytest.fixture
def small_disk(home: Path) -> Iterator[Path]:
    folder = home / "disk"
    folder.mkdir()
    mounted = (
        os.getuid() == 0
        and not subprocess.run(
            ["mount", "-t", "tmpfs", "-o", "size=12m", "tmpfs", str(folder)], capture_output=True, check=False
        ).returncode
    )
    if not mounted:
        pytest.skip("FULL DISK NOT TESTED: mounting a tmpfs needs root")
    yield folder
    subprocess.run(["umount", "-l", str(folder)], check=True)


def test_a_full_disk_is_said_and_survived(small_disk: Path) -> None:
    server = Process(small_disk)
    server.raw.post("/jobs", {"tasks": [TASK]})
    ballast = small_disk / "ballast"
    with contextlib.suppress(OSError), ballast.open("wb") as file:
        while True:
            file.write(b"x" * 65536)
            file.flush()
    codes = set()
    for _ in range(30):
        answer = server.raw.post("/jobs", {"tasks": [{"run": "x" * 60_000}]})
        if answer.status != 200:
            codes.add(answer.json["code"])
    assert codes == {"disk-full"}
    chunk = server.raw.ask("PUT", "/chunks", b"0" * 64 + b" 5\nhello")
    assert chunk.json["code"] in ("disk-full", "conflict")
    assert server.raw.get("/status").status == 200  # reading goes on
    ballast.unlink()
    assert server.raw.post("/jobs", {"tasks": [TASK]}).status == 200
    assert server.stop() == 0


def test_a_server_whose_folder_was_deleted_leaves_the_next_one_alone(home: Path) -> None:
    """It stops by itself, and neither ends what the next one has nor removes its socket."""
    first = Process(home)
    made = {"task": {"run": "sleep 1001"}, "cluster": "d1", "key": "a"}
    assert first.raw.post("/launch", made).status == 200
    shutil.rmtree(home, ignore_errors=True)
    second = Process(home)
    assert second.raw.post("/launch", {**made, "cluster": "d3", "key": "b"}).status == 200
    assert first.ended()[0] == 0
    assert second.socket.exists()
    deadline = time.monotonic() + 60
    while second.raw.get("/clusters/d3").json["status"] != "running":
        assert time.monotonic() < deadline
        time.sleep(0.05)
    assert second.raw.get("/jobs?cluster=d3").json["jobs"][0]["status"] in ("running", "starting")
    assert second.stop() == 0


def test_a_socket_that_was_removed_is_made_anew(home: Path) -> None:
    server = Process(home)
    server.socket.unlink()
    server.wait_until_ready()
    assert server.raw.get("/status").status == 200
    assert server.raw.post("/server/stop").status == 200
    assert server.ended() == (0, "")
    assert not server.socket.exists()


def test_a_server_without_a_socket_is_found_by_its_lock(home: Path) -> None:
    assert holder_pid(home) is None
    server = Process(home)
    assert holder_pid(home) == server.popen.pid
    server.popen.send_signal(signal.SIGSTOP)  # so that it does not make the socket anew
    server.socket.unlink()
    environ = {**os.environ, "ARGOSY_HOME": str(home), "ARGOSY_SERVER": ""}
    stop = subprocess.Popen(
        [sys.executable, "-m", "argosy.cli", "server", "stop"], env=environ, stdout=subprocess.PIPE, text=True
    )
    while "SigPnd:\t0000000000000000" in _status(server) and "ShdPnd:\t0000000000000000" in _status(server):
        assert stop.poll() is None
        time.sleep(0.01)
    server.popen.send_signal(signal.SIGCONT)
    assert server.ended()[0] == 0
    assert stop.communicate()[0] == f"The server (process {server.popen.pid}) has stopped.\n"
    assert holder_pid(home) is None


def _status(server: Process) -> str:
    return Path(f"/proc/{server.popen.pid}/status").read_text()

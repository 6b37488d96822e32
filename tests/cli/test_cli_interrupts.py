"""Ctrl-C at every stage, terminals, pipes that close, and how a local server is started."""

from __future__ import annotations

import os
import pty
import select
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from command_line import CommandLine

from argosy.model.task import Task
from argosy.testing.fake_memory import FakeLog, Line
from argosy.testing.fake_server import FakeServer

DEADLINE_S = 90.0


def wait_for(condition: object, what: str) -> None:
    deadline = time.monotonic() + DEADLINE_S
    while not condition():  # type: ignore[operator]
        assert time.monotonic() < deadline, f"waited in vain for {what}"
        time.sleep(0.01)


def press_ctrl_c(process: subprocess.Popen[str]) -> None:
    """As people do: again when nothing happens. (Python may miss a signal just before it blocks in a
    read.)"""
    for patience_s in (3, 6, 12, DEADLINE_S):
        process.send_signal(signal.SIGINT)
        deadline = time.monotonic() + patience_s
        while time.monotonic() < deadline:
            if process.poll() is not None:
                return
            time.sleep(0.01)
    raise AssertionError("Ctrl-C does nothing")


def interrupt(process: subprocess.Popen[str]) -> tuple[str, str]:
    press_ctrl_c(process)
    return process.communicate(timeout=DEADLINE_S)


@pytest.mark.parametrize(
    ("stage", "words", "said"),
    [
        ("plan", ("launch", "-c", "dev", "--workdir", ".", "--", "x"), "Nothing was launched."),
        ("cluster", ("launch", "-c", "dev", "--workdir", ".", "--", "x"), "Nothing was launched."),
        ("missing_chunks", ("launch", "-c", "dev", "--workdir", ".", "--", "x"), "the same command goes on"),
        ("put_chunks", ("launch", "-c", "dev", "--workdir", ".", "--", "x"), "the same command goes on"),
        ("put_tree", ("launch", "-c", "dev", "--workdir", ".", "--", "x"), "the same command goes on"),
        ("launch", ("launch", "-c", "dev", "--", "x"), "`argosy status` shows it"),
        ("exec", ("exec", "dev", "--", "x"), "`argosy queue dev` shows it"),
        ("plan", ("jobs", "launch", "--workdir", ".", "--", "x"), "Nothing was queued."),
        ("jobs_launch", ("jobs", "launch", "--", "x"), "`argosy jobs queue` shows it"),
        ("status", ("status",), ""),
    ],
)
def test_ctrl_c_before_the_job_runs(
    argosy: CommandLine, server: FakeServer, stage: str, words: tuple[str, ...], said: str
) -> None:
    (argosy.folder / "a.py").write_text("print()")
    gate = server.waits[stage] = threading.Event()
    process = argosy.process(*words)
    wait_for(lambda: server.seen(stage), stage)
    out, err = interrupt(process)
    assert process.returncode == 130, err
    assert said in err and "Traceback" not in err
    assert out == ""
    gate.set()
    if stage not in ("launch", "exec", "jobs_launch"):
        assert server.jobs == {}


def test_ctrl_c_detaches_from_the_log_and_cancels_nothing(argosy: CommandLine, server: FakeServer) -> None:
    server.next_log = FakeLog([Line(b"step 1\n")], held=True)
    process = argosy.process("launch", "-c", "dev", "--", "x")
    assert process.stdout is not None
    assert process.stdout.readline() == "step 1\n"
    _, err = interrupt(process)
    assert process.returncode == 130
    assert "Detached; job 1 of `dev` goes on." in err
    assert "argosy logs dev 1" in err and "argosy cancel dev 1" in err
    assert not server.seen("cancel")


def test_ctrl_c_while_the_cluster_is_made(argosy: CommandLine, server: FakeServer) -> None:
    server.add_cluster("dev", status="starting")
    process = argosy.process("launch", "-c", "dev")
    wait_for(lambda: len(server.seen("cluster")) > 2, "the client to look")
    _, err = interrupt(process)
    assert process.returncode == 130
    assert "argosy status dev" in err


def test_a_restart_of_the_server_is_not_seen(argosy: CommandLine, server: FakeServer) -> None:
    log = FakeLog([Line(b"one\n")], held=True)
    server.add_cluster("dev")
    server.next_log = log
    server.add_job(Task(run="x"), "dev")
    process = argosy.process("logs", "dev")
    assert process.stdout is not None
    assert process.stdout.readline() == "one\n"
    server.stop()
    log.lines.append(Line(b"two\n"))
    log.release()
    server.start()
    out, _ = process.communicate(timeout=DEADLINE_S)
    assert (process.returncode, out) == (0, "two\n")


def test_a_reader_that_has_seen_enough(argosy: CommandLine, server: FakeServer) -> None:
    server.add_cluster("dev")
    server.next_log = FakeLog([Line(b"x" * 100_000 + b"\n")] * 50)
    server.add_job(Task(run="x"), "dev")
    process = argosy.process("logs", "dev")
    assert process.stdout is not None and process.stderr is not None
    process.stdout.read(10)
    process.stdout.close()
    assert process.stderr.read() == ""
    assert process.wait(DEADLINE_S) == 0


# Terminals --------------------------------------------------------------------------------------------------------  # noqa: E501


class Terminal:
    """A process whose standard streams are one terminal."""

    def __init__(self, argosy: CommandLine, *words: str, **env: str) -> None:
        self.master, slave = pty.openpty()
        self.process = argosy.process(
            *words,
            stdin=slave,
            stdout=slave,
            stderr=slave,
            start_new_session=True,
            env={**os.environ, **argosy.env, "TERM": "xterm", "COLUMNS": "100", **env},
        )
        os.close(slave)
        self.seen = ""

    def until(self, text: str) -> str:
        deadline = time.monotonic() + DEADLINE_S
        while text not in self.seen:
            assert time.monotonic() < deadline, f"waited in vain for {text!r}; saw {self.seen!r}"
            if select.select([self.master], [], [], 0.1)[0] and not self._read():
                break
        assert text in self.seen, self.seen
        return self.seen

    def look(self, wait_s: float) -> None:
        if select.select([self.master], [], [], wait_s)[0]:
            self._read()

    def type(self, text: str) -> None:
        os.write(self.master, text.encode())

    def end(self) -> tuple[int, str]:
        while self._read():
            pass
        status = self.process.wait(DEADLINE_S)
        os.close(self.master)
        return status, self.seen

    def _read(self) -> bool:
        try:
            data = os.read(self.master, 65536)
        except OSError:  # the terminal's other end is closed
            return False
        self.seen += data.decode("utf-8", "replace")
        return bool(data)


def test_a_terminal_is_asked_before_a_launch(argosy: CommandLine, server: FakeServer) -> None:
    terminal = Terminal(argosy, "launch", "-c", "dev", "--", "echo", "hello")
    terminal.until("new cluster `dev`? [Y/n]")
    assert "this machine" in terminal.seen
    terminal.type("y\n")
    status, seen = terminal.end()
    assert status == 0
    assert "hello" in seen and "\x1b[32msucceeded\x1b[0m" in seen
    assert "argosy down dev" in seen


def test_no_is_no(argosy: CommandLine, server: FakeServer) -> None:
    terminal = Terminal(argosy, "launch", "-c", "dev", "--", "x")
    terminal.until("[Y/n]")
    terminal.type("n\n")
    status, seen = terminal.end()
    assert (status, "Nothing was launched." in seen, server.jobs) == (130, True, {})


def test_ctrl_c_at_the_question(argosy: CommandLine, server: FakeServer) -> None:
    terminal = Terminal(argosy, "down", "-a")
    status, _ = terminal.end()
    assert status == 0
    server.add_cluster("dev")
    terminal = Terminal(argosy, "down", "dev")
    terminal.until("[Y/n]")
    press_ctrl_c(terminal.process)
    status, seen = terminal.end()
    assert (status, "Traceback" in seen, list(server.clusters)) == (130, False, ["dev"])


@pytest.mark.parametrize("env", [{"NO_COLOR": "1"}, {"TERM": "dumb"}])
def test_colours_only_when_wanted(argosy: CommandLine, server: FakeServer, env: dict[str, str]) -> None:
    server.add_cluster("dev")
    assert "\x1b[3" in Terminal(argosy, "status").end()[1]
    seen = Terminal(argosy, "status", **env).end()[1]
    assert "\x1b[3" not in seen and "running" in seen
    assert "\x1b[31merror:" in Terminal(argosy, "status", "nope").end()[1]
    assert "\x1b[31m" not in Terminal(argosy, "status", "nope", NO_COLOR="1").end()[1]


def test_ssh_on_a_terminal(argosy: CommandLine, server: FakeServer) -> None:
    server.add_cluster("dev")
    terminal = Terminal(argosy, "ssh", "dev")
    wait_for(lambda: server.seen("shell"), "the shell")
    # Ctrl-C goes to the node, it does not end the command here. What is typed before the terminal is raw is
    # lost.
    while "\x03" not in terminal.seen:
        terminal.type("\x03")
        terminal.look(0.2)
    terminal.type("exit 4\n")
    status, _ = terminal.end()
    assert status == 4


# Starting the local server ------------------------------------------------------------------------------------------  # noqa: E501


@pytest.fixture
def local(argosy: CommandLine, server: FakeServer, short_dir: Path) -> Iterator[CommandLine]:
    """The command line with a local server that is to be started: the fake one."""
    server.stop()
    del argosy.env["ARGOSY_SERVER"]
    argosy.env["ARGOSY_HOME"] = str(short_dir / "home")
    argosy.env["ARGOSY_SERVER_COMMAND"] = f"{sys.executable} -m argosy.testing.fake_server"
    yield argosy
    argosy("server", "stop")


def pid_of(local: CommandLine) -> int:
    return int((Path(local.env["ARGOSY_HOME"]) / "pid").read_text())


def test_the_first_command_starts_the_server(local: CommandLine) -> None:
    assert local.good("server", "stop") == "No server is running.\n"
    assert local.good("launch", "-c", "dev", "--", "echo", "hi") == "hi\n"
    pid = pid_of(local)
    assert local.good("status").splitlines()[1].startswith("dev")
    assert pid_of(local) == pid
    assert os.getsid(pid) == pid  # Ctrl-C on our terminal does not reach it
    assert local.good("server", "start") == f"The server was already running (process {pid}).\n"
    assert local("server", "start", "--listen", "127.0.0.1:0").status == 5
    assert local.good("server", "stop") == f"The server (process {pid}) has stopped.\n"
    assert local("server", "status").status == 7
    assert not Path(local.env["ARGOSY_HOME"], "pid").exists() or pid_of(local) == pid
    assert local.good("server", "start").startswith("The server is running (process ")


def test_a_home_with_a_long_path(local: CommandLine, tmp_path: Path) -> None:
    local.env["ARGOSY_HOME"] = str(tmp_path / ("x" * 100) / "home")
    assert local.good("launch", "-c", "dev", "--", "echo", "hi") == "hi\n"


def test_two_that_start_it_at_once_find_one_server(local: CommandLine) -> None:
    local.env["FAKE_SERVER_STARTS_AFTER_S"] = "0.2"
    processes = [local.process("launch", "-c", f"c{index}", "-d", "--", "x") for index in range(4)]
    for process in processes:
        _, err = process.communicate(timeout=DEADLINE_S)
        assert process.returncode == 0, err
    assert len(local.good("status").splitlines()) == 5


def test_a_server_that_does_not_start_shows_its_log(local: CommandLine) -> None:
    local.env["FAKE_SERVER_FAILS"] = "database disk image is malformed"
    done = local("status")
    assert done.status == 7
    assert "the local server did not start: it ended with status 3" in done.err
    assert "  database disk image is malformed" in done.err
    assert str(Path(local.env["ARGOSY_HOME"]) / "server.log") in done.err


def test_a_server_program_that_is_not_there(local: CommandLine) -> None:
    local.env["ARGOSY_SERVER_COMMAND"] = "/nonexistent/argosy-server"
    done = local("status")
    assert done.status == 7 and "/nonexistent/argosy-server" in done.err


def test_the_environment_of_the_server_names_no_other(local: CommandLine) -> None:
    local.env["ARGOSY_TOKEN"] = "not-for-the-server"
    local.good("status")
    environ = Path(f"/proc/{pid_of(local)}/environ")
    if environ.exists():
        assert b"not-for-the-server" not in environ.read_bytes()


def test_an_older_server_is_named(local: CommandLine, server: FakeServer) -> None:
    server.api = 0
    server.start()
    local.env["ARGOSY_SERVER"] = f"unix://{server.socket}"
    done = local("status")
    assert done.status == 7
    assert "argosy server stop" in done.err
    assert local("server", "stop").status == 0
    del local.env["ARGOSY_SERVER"]


def test_a_bug_is_one_line(argosy: CommandLine) -> None:
    code = (
        "import sys, argosy.cli.main as m\n"
        "m.COMMANDS['status'] = m._Entry('clusters', 'no_such_thing', 'x')\n"
        "sys.argv = ['argosy', 'status']\n"
        "m.main()\n"
    )
    for debug in ("", "1"):
        done = subprocess.run(
            [sys.executable, "-c", code],
            env={**os.environ, **argosy.env, "ARGOSY_DEBUG": debug},
            capture_output=True,
            text=True,
            check=False,
        )
        assert ("Traceback" in done.stderr) == bool(debug)
        if not debug:
            assert done.returncode == 70
            assert done.stderr.startswith("error: a bug in Argosy: AttributeError: ")
            assert "ARGOSY_DEBUG=1" in done.stderr

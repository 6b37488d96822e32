"""`argosy session`: what it asks for, and what it says when something goes wrong."""

from __future__ import annotations

import json
import socket

import msgspec
import pytest
from command_line import CommandLine

from argosy.api.sessions import SessionRequest
from argosy.model.apps import App, Idle, Isolation
from argosy.model.task import Task
from argosy.testing.fake_memory import FakeLog, Line
from argosy.testing.fake_server import FakeServer
from argosy.testing.session_answers import SESSION

APPS = ("jupyter", "vscode", "terminal", "tensorboard", "marimo", "rstudio", "desktop", "ssh")


def asked(server: FakeServer) -> SessionRequest:
    """The last session that was asked for."""
    body = next(seen.body for seen in reversed(server.requests) if seen.endpoint == "start_session")
    return msgspec.json.decode(body, type=SessionRequest)


@pytest.mark.parametrize("app", APPS)
def test_every_app_starts_by_its_name(argosy: CommandLine, server: FakeServer, app: str) -> None:
    assert argosy.good("session", "start", app) == "session `lab` is running\n"
    assert asked(server).app == app and asked(server).isolation is Isolation.SANDBOX


def test_what_was_asked_for_is_what_the_server_gets(argosy: CommandLine, server: FakeServer) -> None:
    rules = ("--idle", "30m", "--gpu-idle", "never", "--end")
    argosy.good("session", "start", "jupyter", "--gpus", "A100:0.5", *rules, "-d")
    wish = asked(server)
    assert wish.idle == Idle(after_s=1800, gpu_after_s=0, then="end")
    accelerator = wish.task.resources[0].accelerator
    assert accelerator is not None and (accelerator.model, accelerator.milli) == ("A100", 500)
    argosy.good("session", "start", "jupyter", "--image", "lab/notebook:1", "-d")
    assert (asked(server).isolation, asked(server).task.resources[0].image_id) == (
        Isolation.CONTAINER, "docker:lab/notebook:1",
    )  # fmt: skip


def test_an_app_that_does_not_start_shows_its_last_lines(argosy: CommandLine, server: FakeServer) -> None:
    lines = [Line(f"line {number}\n".encode()) for number in range(20)]
    server.next_log = FakeLog([*lines, Line(b"jupyter: not found\n")], status="failed", exit_code=127)
    job = server.add_job(Task(run="x"), None)
    failed = msgspec.structs.replace(
        SESSION, status="failed", up_ms=0, job=job.id, detail="its app ended with exit code 127"
    )
    server.of_sessions["start_session"] = server.of_sessions["session"] = failed
    done = argosy("session", "start", "jupyter")
    assert done.status != 0
    assert done.err.splitlines()[:2] == [
        "error: session `lab` did not start: its app ended with exit code 127",
        "  | line 9",
    ]
    assert "  | jupyter: not found" in done.err and "line 8" not in done.err


def test_a_port_of_this_machine_that_is_taken_is_told(argosy: CommandLine) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        done = argosy("session", "open", "lab", "--port", str(port), "--no-browser")
    assert done.status != 0
    assert done.err.splitlines()[:2] == [
        f"error: cannot listen on 127.0.0.1:{port}: Address already in use",
        "hint: choose another, such as `0:PORT` for any that is free",
    ]


def test_a_share_says_for_whom_and_how_long(argosy: CommandLine, server: FakeServer) -> None:
    may = "may {} session `lab` for"
    for words, told, seconds in (
        (("ben",), f"`ben` {may.format('open')} 8h\n", 28_800),
        (("project:vision", "--for", "2h"), f"`project:vision` {may.format('open')} 2h\n", 7200),
        (("ben", "--watch"), f"`ben` {may.format('watch')} 8h\n", 28_800),
        (("ben", "--remove"), "`ben` may no longer open or watch session `lab`\n", 0),
    ):
        assert argosy.good("session", "share", "lab", *words) == told
        sent = json.loads(server.requests[-1].body)
        assert (sent["who"], sent["seconds"]) == (words[0], seconds)
        assert sent.get("watch", False) is ("--watch" in words)
    assert "a share ends some time" in argosy("session", "share", "lab", "ben", "--for", "never").err


def test_the_countdown_is_shown_with_its_mark(argosy: CommandLine, server: FakeServer) -> None:
    from argosy.api.sessions import SessionList

    hour_on = SESSION.up_ms + 3_600_000
    use = msgspec.structs.replace(SESSION.use, rests_at_ms=hour_on + 240_000, warned_ms=hour_on)
    server.of_sessions["sessions"] = SessionList(sessions=(msgspec.structs.replace(SESSION, use=use),))
    assert "in 4m (!)" in argosy.good("session", "ls")


def test_apps_are_listed_with_what_they_are(argosy: CommandLine, server: FakeServer) -> None:
    from argosy.api.sessions import AppList

    server.of_sessions["apps"] = AppList(apps=(App(name="board", about="Mine."),))
    assert argosy.good("session", "apps") == "APP    WHAT IT IS\nboard  Mine.\n"

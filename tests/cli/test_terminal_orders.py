"""No name, error, status or log line gives the user's terminal an order, whatever a server answers."""

from __future__ import annotations

import io
import re
import shutil
import sys
from typing import Any

import msgspec
import pytest
from command_line import CommandLine
from test_json_shapes import COMMANDS, filled  # noqa: F401

from argosy.cli.main import run
from argosy.cli.session import Session
from argosy.client.tasks import Task
from argosy.model.errors import ArgosyError
from argosy.testing.fake_memory import Line
from argosy.testing.fake_server import FakeServer
from argosy.testing.shared_answers import STARTED_MS

#: Sets the title, writes the clipboard, asks for an answer, goes up and erases, turns the text around.
EVIL = "\x1b]0;evil\x07\x1b]52;c;cm0=\x1b\\\x1b[6n\x1b[1A\x1b[2K\x9b5n\r\u202e"
#: What a terminal must not be sent: everything but colours of ours, and the line that progress overwrites.
_OURS = re.compile("\x1b\\[(?:[0-2]|3[1-6]|38;5;[0-9]+(?:;48;5;[0-9]+)?)m|\r\x1b\\[K")
_ORDERS = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\u202a-\u202e\u2066-\u2069]")
#: Fields that are read by the client itself.
_MEANT = frozenset(
    ("kind", "status", "phase", "digest", "id", "version", "sha256", "desired", "url", "endpoint", "chunks")
)


class Terminal(io.TextIOWrapper):
    def __init__(self) -> None:
        super().__init__(io.BytesIO(), encoding="utf-8", newline="", write_through=True)

    def isatty(self) -> bool:
        return True

    @property
    def text(self) -> str:
        self.flush()
        return str(self.buffer.getvalue(), "utf-8", "replace")  # type: ignore[attr-defined]


def _spoilt(value: Any, key: str = "") -> Any:
    if isinstance(value, dict):
        return {name: _spoilt(each, name) for name, each in value.items()}
    if isinstance(value, list | tuple):
        return [_spoilt(each, key) for each in value]
    return value + EVIL if isinstance(value, str) and value and key not in _MEANT else value


def on_terminal(argosy: CommandLine, patch: pytest.MonkeyPatch, *words: str) -> tuple[int, str]:
    """(exit status, everything that the terminal was sent)."""
    terminal = Terminal()
    with patch.context() as patched:
        patched.setattr(sys, "stdout", terminal)
        patched.setattr(sys, "stderr", terminal)
        session = Session(
            {**argosy.env, "TERM": "xterm"}, cwd=argosy.folder, now_ms=lambda: STARTED_MS + 3_600_000
        )
        status = run(list(words), session)
    return status, terminal.text


#: Of this machine only; the rest asks the server.
_OWN = frozenset(("files build", "catalog refresh", "gateway status", "convert"))


def test_no_command_passes_an_order_on(
    filled: CommandLine,  # noqa: F811
    server: FakeServer,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    answer = server.answer
    monkeypatch.setattr(server, "answer", lambda *asked: _spoilt(msgspec.to_builtins(answer(*asked))))
    shown = 0
    for name in [each for each in COMMANDS if each not in _OWN]:
        for there in filled.folder.glob("got*"):
            shutil.rmtree(there) if there.is_dir() else there.unlink()
        _, text = on_terminal(filled, monkeypatch, *COMMANDS[name])
        assert not _ORDERS.search(_OURS.sub("", text)), (name, text)
        shown += "\\u001b]0;evil" in text
    assert shown > len(COMMANDS) // 3, "they are shown, as what they are"


def test_no_error_and_no_log_passes_one_on(
    argosy: CommandLine, server: FakeServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    server.add_cluster("dev")
    log = server.logs[server.add_job(Task("t", run="x").build(), "dev").id]
    log.lines.append(Line(b"step \x1b[32m1\x1b[0m" + EVIL.encode() + b"\n"))
    status, text = on_terminal(argosy, monkeypatch, "logs", "dev", "1", "--no-follow")
    assert "step \x1b[32m1\x1b[0m\x1b[1A\x1b[2K\r" in text and "evil" not in text, "colours and progress stay"
    assert not re.search("[\x00-\x08\x0b-\x1f\x7f-\x9f]", re.sub("\x1b\\[[0-9]*[mAK]|\r", "", text))
    piped = argosy.good("logs", "dev", "1", "--no-follow")
    assert EVIL in piped, "a file gets what the program printed"

    server.failures["status"] = [ArgosyError("conflict", f"no {EVIL}", hint=f"try {EVIL}", where=EVIL)]
    status, text = on_terminal(argosy, monkeypatch, "status")
    assert status == 5 and "no \\u001b]0;evil\\u0007" in text
    assert not _ORDERS.search(_OURS.sub("", text))
    status, text = on_terminal(argosy, monkeypatch, "logs", EVIL, "1")
    assert status and not _ORDERS.search(_OURS.sub("", text))

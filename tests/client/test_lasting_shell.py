"""A terminal of a session whose line is cut: the same shell, no byte lost or twice; what is typed follows."""

from __future__ import annotations

import json
from collections.abc import Callable

import pytest

from argosy.client.shell import LastingShell, Size
from argosy.model.errors import ArgosyError

CUT = ConnectionResetError("cut")


class Line:
    """One WebSocket: what it will say, an exception where it breaks, and what was said to it."""

    def __init__(self, *says: bytes | dict[str, object] | OSError, on_end: Callable[[], None] | None = None):
        self._says, self.heard, self._on_end = list(says), list[bytes | str](), on_end
        self.is_open = True

    def recv(self) -> bytes | str:
        if not self._says:
            raise CUT
        said = self._says.pop(0)
        if isinstance(said, OSError):
            self.is_open = False
            if self._on_end:
                self._on_end()
            raise said
        return said if isinstance(said, bytes) else json.dumps(said)

    def send(self, message: bytes | str) -> None:
        if not self.is_open:
            raise CUT
        self.heard.append(message)

    def close(self) -> None:
        self.is_open = False


class Server:
    """Opens the lines that it was given, one after the other."""

    def __init__(self, *lines: Line | ArgosyError) -> None:
        self._lines, self.asked = list(lines), list[tuple[str, int]]()

    def open(self, id: str, seen: int) -> Line:
        self.asked.append((id, seen))
        line = self._lines.pop(0)
        if isinstance(line, ArgosyError):
            raise line
        return line


def shell_of(server: Server, patience_s: float = 90.0) -> LastingShell:
    now = [0.0]

    def sleep(seconds: float) -> None:
        now[0] += seconds

    return LastingShell(server.open, patience_s=patience_s, clock=lambda: now[0], sleep=sleep)  # type: ignore[arg-type]


AWAY = ArgosyError("server-unreachable", "nobody answers")


def test_it_goes_on_where_it_was() -> None:
    first = Line({"id": "t", "from": 0}, b"one ", b"two ", CUT)
    second = Line({"id": "t", "from": 8}, b"three", {"exit_code": 4}, CUT)
    server = Server(first, AWAY, AWAY, second)
    shell = shell_of(server)
    assert b"".join(shell.read()) == b"one two three"
    assert (shell.exit_code, shell.lost_bytes) == (4, 0)
    assert server.asked == [("", -1), ("t", 8), ("t", 8), ("t", 8)]


def test_a_node_out_of_reach_is_a_line_that_is_cut() -> None:
    away = ArgosyError("node-unreachable", "no agent listens")
    first = Line({"id": "t", "from": 0}, b"one ", {"exit_code": None})
    server = Server(first, away, Line({"id": "t", "from": 4}, b"two", {"exit_code": 0}))
    shell = shell_of(server)
    assert b"".join(shell.read()) == b"one two" and shell.exit_code == 0 and not first.is_open


def test_what_is_typed_meanwhile_follows_and_the_size_too() -> None:
    second = Line({"id": "t", "from": 0}, {"exit_code": 0})
    first = Line({"id": "t", "from": 0}, CUT, on_end=lambda: shell.write(b"ls\n"))
    shell = shell_of(Server(first, second))
    shell.resize(Size(50, 100))
    assert list(shell.read()) == []
    assert second.heard == ['{"rows":50,"columns":100}', b"ls\n"]


def test_it_says_what_has_arrived_and_counts_what_is_lost() -> None:
    first = Line({"id": "t", "from": 100}, bytes(300 << 10), CUT)
    second = Line({"id": "t", "from": (300 << 10) + 107}, b"x", {"exit_code": 0})
    shell = shell_of(Server(first, second))
    list(shell.read())
    assert first.heard == [f'{{"seen":{(300 << 10) + 100}}}'] and shell.lost_bytes == 7


@pytest.mark.parametrize(
    ("error", "tries"), [(ArgosyError("unsupported", "terminal `t` has ended"), 1), (AWAY, 5)]
)
def test_it_gives_up_when_there_is_nothing_to_come_back_to(error: ArgosyError, tries: int) -> None:
    server = Server(Line({"id": "t", "from": 0}, CUT), *[error] * 50)
    shell = shell_of(server, patience_s=0.7)
    assert list(shell.read()) == [] and shell.exit_code is None
    assert len(server.asked) == 1 + tries


def test_a_line_that_cannot_be_opened_at_first_is_an_error() -> None:
    with pytest.raises(ArgosyError, match="nobody answers"):
        shell_of(Server(AWAY))

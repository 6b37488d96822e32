"""What a terminal is shown of what others wrote: no order to it gets through, whatever it is hidden in."""

from __future__ import annotations

import io
import re
import sys

import pytest
from hypothesis import given
from hypothesis import strategies as st

from argosy.api.jobs import LogFrame
from argosy.client.escapes import LogFilter, shown, shown_in_line
from argosy.client.frames import LogPiece
from argosy.client.printing import Printer

#: Orders to a terminal, each with what it would do.
ORDERS = {
    "set the title": b"\x1b]0;evil\x07",
    "set the title, ended by a string terminator": b"\x1b]2;evil\x1b\\",
    "write the clipboard": b"\x1b]52;c;cm0gLXJm\x07",
    "ask for the clipboard": b"\x1b]52;c;?\x07",
    "a link to elsewhere": b"\x1b]8;;https://evil.example\x1b\\",
    "run something at a later answer": b"\x1bP+q544e\x1b\\",
    "define keys": b"\x1bP1;1|17/72\x1b\\",
    "a private message": b"\x1b^evil\x1b\\",
    "an application's command": b"\x1b_evil\x1b\\",
    "a start of string": b"\x1bXevil\x1b\\",
    "report where the cursor is": b"\x1b[6n",
    "report what the terminal is": b"\x1b[c",
    "report its version": b"\x1b[>q",
    "report its title": b"\x1b[21t",
    "make it smaller": b"\x1b[8;1;1t",
    "the other screen": b"\x1b[?1049h",
    "mouse reports": b"\x1b[?1000h",
    "bracketed paste off": b"\x1b[?2004l",
    "go to the first line": b"\x1b[1;1H",
    "clear the screen": b"\x1b[2J",
    "clear what was scrolled away": b"\x1b[3J",
    "repeat a character": b"x\x1b[99999999b",
    "scroll a part only": b"\x1b[1;2r",
    "reset": b"\x1bc",
    "soft reset": b"\x1b[!p",
    "line drawing characters": b"\x1b(0",
    "shift out": b"\x0e",
    "answer back": b"\x05",
    "title by an 8-bit control": b"\xc2\x9d0;evil\x07",
    "a sequence by an 8-bit control": b"\xc2\x9b6n",
    "a device's string by an 8-bit control": b"\xc2\x90q544e\xc2\x9c",
    "delete": b"\x7f",
    "nul": b"\x00",
}
#: What programs print for people.
GOOD = (
    b"\x1b[1;31mred\x1b[0m and \x1b[38;2;1;2;3mtrue\x1b[m",
    b" 10%|#   |\r 20%|##  |\x1b[K\n",
    b"\x1b[1A\x1b[2Kline again\x1b[1B\x1b[3G",
    b"\x1b[?25lspinner \b\b|\x1b[?25h",
    "schön ÷ \N{NO-BREAK SPACE}§ 日本 🚀\ttab".encode(),
    b"bytes that are no text: \xff\xfe\x80",
)


@pytest.mark.parametrize("what", ORDERS)
def test_a_log_orders_nothing(what: str) -> None:
    order = ORDERS[what]
    once = LogFilter().add(b"before " + order + b"after\n")
    assert b"\x1b" not in once and b"evil" not in once and not re.search(rb"[\x00-\x08\x0e-\x1f\x7f]", once)
    assert once.startswith(b"before ") and once.endswith(b"after\n"), "what is around it is shown"
    pieces = LogFilter()
    data = b"before " + order + b"after\n"
    assert b"".join(pieces.add(bytes([each])) for each in data) == once, "also in pieces"


@pytest.mark.parametrize("text", GOOD)
def test_a_log_keeps_colours_and_progress(text: bytes) -> None:
    assert LogFilter().add(text) == text
    pieces = LogFilter()
    assert b"".join(pieces.add(bytes([each])) for each in text) == text


def test_a_program_that_prints_a_log_is_as_careful(monkeypatch: pytest.MonkeyPatch) -> None:
    for is_terminal in (True, False):
        out = _Out(is_terminal)
        with monkeypatch.context() as patched:
            patched.setattr(sys, "stdout", out)
            Printer(None).show(LogPiece(LogFrame(cursor="1", size=9), b"a\x1b]0;evil\x07b\n"))
        assert out.held.getvalue() == (b"ab\n" if is_terminal else b"a\x1b]0;evil\x07b\n")


class _Out(io.TextIOWrapper):
    def __init__(self, is_terminal: bool) -> None:
        self.held, self._is_terminal = io.BytesIO(), is_terminal
        super().__init__(self.held)

    def isatty(self) -> bool:
        return self._is_terminal


def test_what_never_ends_hides_no_more_than_its_line() -> None:
    log = LogFilter()
    assert log.add(b"a\x1b]52;c;AAAA") == b"a"
    assert log.add(b"BBBB\nnext line\n") == b"\nnext line\n"
    assert b"\x1b" not in log.add(b"\x1b[" + b"1;" * 4000), "one that is too long is text"
    assert log.add(b"m and on\n") == b"m and on\n"


_PARTS = st.one_of(
    st.sampled_from([*ORDERS.values(), *GOOD, b"\x1b", b"\x1b[", b"\x1b]", b"\xc2", b"\x9b", b"\n", b"0;1m"]),
    st.binary(max_size=6),
)
_ALLOWED = re.compile(rb"\x1b\[(?:[0-9;:]*m|[0-2]?K|0?J|[0-9]*[A-G]|\?25[hl])")


@given(st.lists(_PARTS, max_size=12), st.lists(st.integers(0, 60), max_size=6))
def test_however_a_log_is_cut_nothing_gets_through(parts: list[bytes], cuts: list[int]) -> None:
    data = b"".join(parts)
    once = LogFilter().add(data)
    pieces, out, last = LogFilter(), b"", 0
    for cut in sorted(cuts):
        out += pieces.add(data[last:cut])
        last = max(last, cut)
    out += pieces.add(data[last:])
    assert out == once
    left = _ALLOWED.sub(b"", once)
    assert not re.search(rb"[\x00-\x07\x0b\x0c\x0e-\x1f\x7f]|\xc2[\x80-\x9f]", left)


@pytest.mark.parametrize("what", ORDERS)
def test_a_name_orders_nothing_and_shows_that_it_tried(what: str) -> None:
    text = ORDERS[what].decode()
    for made in (shown(text), shown(text, painted=True), shown_in_line(text)):
        assert made.isprintable() and "\\u00" in made


def test_text_that_turns_around_is_seen() -> None:
    assert shown("invoice\u202efdp.exe") == "invoice\\u202efdp.exe"
    assert shown("schön 日本") == "schön 日本" and shown("two\nlines\tand a tab") == "two\nlines\tand a tab"
    assert shown_in_line("two\nlines") == "two\\u000alines"
    assert shown("\x1b[32mours\x1b[0m", painted=True) == "\x1b[32mours\x1b[0m"
    assert shown("\x1b[8mhidden", painted=True) == "\\u001b[8mhidden"

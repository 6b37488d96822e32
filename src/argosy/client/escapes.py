"""What a terminal is shown of what others wrote: names, errors and logs.

A terminal obeys escape sequences. They set its title, write the clipboard, hide or replace what stands on the
screen, or make the terminal type an answer, which the shell then runs. In names and errors nothing is obeyed:
such characters are shown as `\\u001b`. In logs colours and the moves of progress bars pass, and no more.
"""

from __future__ import annotations

import re
from typing import Final

#: What no name or error needs: control characters, and those that turn the direction of text around.
_CONTROLS: Final = "\x00-\x08\x0b-\x1f\x7f-\x9f\u061c\u200e\u200f\u202a-\u202e\u2028\u2029\u2066-\u2069"
#: Colours as `cli.screen` writes them.
_OUR_COLOUR: Final = r"\x1b\[(?:[0-2]|3[1-6]|38;5;\d{1,3}(?:;48;5;\d{1,3})?)m"
_PAINTED: Final = re.compile(f"({_OUR_COLOUR})|[{_CONTROLS}]")
_PLAIN: Final = re.compile(f"[{_CONTROLS}]")
_CELL: Final = re.compile(f"[{_CONTROLS}\t\n]")

#: Bytes that stand for themselves: all but controls. `\r`, `\b`, tabs and new lines are what logs need.
_SAFE: Final = re.compile(rb"(?:[^\x00-\x07\x0b\x0c\x0e-\x1f\x7f\xc2]|\xc2[\xa0-\xbf])+")
#: A whole sequence that passes: colours, erasing what is behind the cursor or in its line, moves by some
#: lines or columns, hiding the cursor.
_PASSES: Final = re.compile(rb"\x1b\[(?:[0-9;:]{0,64}m|[0-2]?K|0?J|[0-9]{0,3}[A-G]|\?25[hl])")
#: What does not: sequences, and what they begin with when no end follows.
_DROPPED: Final = re.compile(
    rb"(?:\x1b\[|\xc2\x9b)[0-?]{0,64}[ -/]{0,8}[@-~]?|\x1b[ -/]{1,8}[0-~]?|\x1b[0-Z\\`-~]|\xc2[\x80-\x9f]"
)
_UNFINISHED: Final = re.compile(rb"(?:\x1b\[|\xc2\x9b)[0-?]{0,64}[ -/]{0,8}|\x1b[ -/]{0,8}|\xc2")
#: Where a text that is meant for the terminal begins (title, clipboard, answers), and where it ends.
_TEXT: Final = re.compile(rb"\x1b[\]PX^_]|\xc2[\x90\x98\x9d-\x9f]")
_TEXT_ENDS: Final = re.compile(rb"\x07|\x1b\\|\xc2\x9c|[\x18\x1a]|(?=\n)")
_HALF: Final = 0xC2  # the first byte of 8-bit controls
_NO_TEXT: Final = "\N{REPLACEMENT CHARACTER}".encode()


def shown(text: str, *, painted: bool = False) -> str:
    """`text` as a terminal may be sent it; `painted`: with colours of ours in it. Lines stay lines.

    >>> shown("a\\x1b]0;title\\x07b")
    'a\\\\u001b]0;title\\\\u0007b'
    """
    if text.isprintable():
        return text
    return (_PAINTED if painted else _PLAIN).sub(_visible, text)


def shown_in_line(text: str) -> str:
    """As `shown`, for what must stay one line, such as a cell of a table."""
    return text if text.isprintable() else _CELL.sub(_visible, text)


def _visible(found: re.Match[str]) -> str:
    text = found.group()
    return text if len(text) > 1 else f"\\u{ord(text):04x}"


class LogFilter:
    """Pieces of a log as a terminal may be sent them, wherever one ends and the next begins."""

    def __init__(self) -> None:
        self._rest = b""  # of a sequence whose end has not come
        self._in_text = False  # meant for the terminal: nothing of it is shown

    def add(self, piece: bytes) -> bytes:
        """What of everything so far can be shown now."""
        data, self._rest = self._rest + piece, b""
        out: list[bytes] = []
        at = 0
        while at < len(data):
            if self._in_text:
                at = self._skip(data, at)
                continue
            unfinished = _UNFINISHED.match(data, at)
            if unfinished is not None and unfinished.end() == len(data):
                self._rest = data[at:]
                break
            passes = _SAFE.match(data, at) or _PASSES.match(data, at)
            if passes is not None:
                out.append(passes.group())
                at = passes.end()
            elif begins := _TEXT.match(data, at):
                self._in_text, at = True, begins.end()
            elif dropped := _DROPPED.match(data, at):
                at = dropped.end()
            else:  # a control; or half a character, which is not to become one with what follows
                out += [_NO_TEXT] if data[at] == _HALF else []
                at += 1
        return b"".join(out)

    def _skip(self, data: bytes, at: int) -> int:
        """Where what is meant for the terminal ends, or so much of it as is there."""
        found = _TEXT_ENDS.search(data, at)
        if found is not None:
            self._in_text = False
            return found.end()
        if data.endswith((b"\x1b", b"\xc2")):
            self._rest = data[-1:]
        return len(data)

"""JSON whose long strings are taken out before it is read, and put back where somebody wants them.

The prompt is most of what a long request to a language model says. The end of a string is found in a
twentieth of the time that a parser takes for it; the parser then reads what is left, some hundred bytes.
What stands in a string that was taken out is not checked: that is the replica's work.
"""

from __future__ import annotations

from typing import Final

import msgspec

#: Shorter strings are left where they are, shorter texts as they are.
LONG: Final = 1024
TEXT: Final = 4096
#: So many strings are looked at: a text with many of them is read as fast by the parser.
_MOST: Final = 48
#: They are taken out where they are so much of the text.
_WORTH: Final = 0.75
_QUOTE: Final = 0x22
_BACKSLASH: Final = 0x5C
_RUN: Final = 64


class Shortened:
    """A text without its long strings."""

    __slots__ = ("_gaps", "_whole", "text")

    def __init__(self, whole: bytes) -> None:
        r"""
        >>> short = Shortened(b'{"prompt": "%b", "n": 1}' % (b"word " * 2000))
        >>> short.text
        b'{"prompt": "\\u00000", "n": 1}'
        >>> len(short.restored(msgspec.Raw(rb'"\u00000"')))
        10002
        """
        self._whole = whole
        self._gaps: list[tuple[int, int]] = []  # where in `text`, and how many bytes are missing up to there
        kept: list[bytes] = []
        done = length = 0  # of the whole text; of what is kept
        for number, (begin, end) in enumerate(_long_strings(whole)):
            name = b"\\u0000%d" % number  # stands for the string, so that places can be told apart
            kept += (whole[done:begin], name)
            length += begin - done + len(name)
            self._gaps.append((length, end - length))
            done = end
        if self._gaps and self._gaps[-1][1] >= len(whole) * _WORTH:
            self.text = b"".join((*kept, whole[done:]))
        else:
            self.text, self._gaps = whole, []

    @property
    def is_whole(self) -> bool:
        """Nothing was taken out."""
        return not self._gaps

    def restored(self, part: msgspec.Raw) -> memoryview:
        """A part of `text` as it was: the first place that reads the same. Who writes two of them, with the
        name of a gap, only misleads the choice of a replica for his own request."""
        begin = self.text.find(memoryview(part))
        end = begin + len(part)
        first = last = 0
        for at, missing in self._gaps:
            if at <= begin:
                first = missing
            if at < end:
                last = missing
        return memoryview(self._whole)[begin + first : end + last]


def _long_strings(whole: bytes) -> list[tuple[int, int]]:
    """Where their contents begin and end, as far as they are found quickly."""
    found: list[tuple[int, int]] = []
    begin, at = 0, -1  # where the string began, 0 between strings
    for _ in range(_MOST):
        at = whole.find(_QUOTE, at + 1)
        if at < 0:
            break
        if not begin:
            begin = at + 1
            continue
        run = _backslashes(whole, begin, at)
        if run == _RUN:
            break  # whether the string ends here is too much to find out
        if run % 2 == 0:
            if at - begin >= LONG:
                found.append((begin, at))
            begin = 0
    return found


def _backslashes(whole: bytes, begin: int, at: int) -> int:
    """How many stand before a quote in a string: an odd number says that it belongs to the string."""
    if whole[at - 1] != _BACKSLASH:
        return 0
    before = whole[max(begin, at - _RUN) : at]
    return len(before) - len(before.rstrip(b"\\"))

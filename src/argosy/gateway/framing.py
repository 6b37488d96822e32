"""Where bodies and WebSocket messages end: counters over bytes that pass by unchanged.

`feed(data, start)` returns where the bytes that belong to the body end in `data`; `done` tells that the
body is complete. Nothing is copied or kept but the beginning of a line that is not complete yet.
"""

from __future__ import annotations

import re
from typing import Final, Protocol

from argosy.gateway.heads import CHUNKED, UNTIL_CLOSE

_LINE_MAX: Final = 4096
_TRAILERS_MAX: Final = 16 * 1024
_STRICT_SIZE: Final = re.compile(rb"([0-9A-Fa-f]{1,15})\r\n")
_SIZE: Final = re.compile(rb"([0-9A-Fa-f]{1,15})[ \t]*(?:;[^\x00-\x08\x0a-\x1f\x7f]*)?\r\n")
_TRAILER: Final = re.compile(rb"[!#$%&'*+.^_`|~0-9A-Za-z-]+:[^\x00-\x08\x0a-\x1f\x7f]*\r\n")


class BadBody(Exception):
    """The framing of a body is not what the standard says."""


class Body(Protocol):
    """Counts one body."""

    done: bool

    def feed(self, data: bytes, start: int) -> int: ...

    def passes(self, data: bytes) -> bool:
        """Whether all of `data` belongs to the body, which goes on after it, as is seen at first sight; then
        it is counted. False: `feed` has to look."""


class Counted:
    """A body of a known length, at least one byte."""

    __slots__ = ("_left", "done")

    def __init__(self, length: int) -> None:
        self._left = length
        self.done = False

    def feed(self, data: bytes, start: int) -> int:
        there = len(data) - start
        if there < self._left:
            self._left -= there
            return len(data)
        end = start + self._left
        self._left = 0
        self.done = True
        return end

    def passes(self, data: bytes) -> bool:
        size = len(data)
        if size >= self._left:
            return False
        self._left -= size
        return True


class UntilClose:
    """A body that ends with its connection."""

    __slots__ = ("done",)

    def __init__(self) -> None:
        self.done = False

    def feed(self, data: bytes, start: int) -> int:
        return len(data)

    def passes(self, data: bytes) -> bool:
        return True


class Chunked:
    """A body in chunks. `strict` (requests) refuses extensions of chunks and trailers: nobody sends them, and
    programs differ in how they read them."""

    __slots__ = ("_left", "_line", "_phase", "_size", "_strict", "_trailers", "done")

    _AT_SIZE, _IN_DATA, _AT_END, _AT_TRAILER = range(4)

    def __init__(self, *, strict: bool) -> None:
        self._strict = strict
        self._size = _STRICT_SIZE if strict else _SIZE
        self._phase = self._AT_SIZE
        self._left = 0
        self._line = b""
        self._trailers = 0
        self.done = False

    def passes(self, data: bytes) -> bool:
        """One whole chunk: most events of streams are."""
        if self._phase or self._line:
            return False
        match = self._size.match(data)
        if match is None:
            return False
        size = int(match[1], 16)
        return size > 0 and match.end() + size + 2 == len(data) and data.endswith(b"\r\n")

    def feed(self, data: bytes, start: int) -> int:
        """Raises BadBody."""
        at, length = start, len(data)
        while at < length:
            if self._phase == self._AT_SIZE and not self._line:
                at = self._whole_chunks(data, at)
                if at >= length:
                    break
            if self._phase == self._IN_DATA:
                step = min(self._left, length - at)
                self._left -= step
                at += step
                if self._left == 0:
                    self._phase = self._AT_END
                continue
            if self._phase == self._AT_END and not self._line and data.startswith(b"\r\n", at):
                self._phase = self._AT_SIZE
                at += 2
                continue
            end = data.find(b"\n", at)
            if end < 0:
                self._line += data[at:]
                self._check_begun()
                return length
            line = self._line + data[at : end + 1]
            self._line = b""
            at = end + 1
            self._take_line(line)
            if self.done:
                return at
        return length

    def _whole_chunks(self, data: bytes, at: int) -> int:
        """Pass over chunks that are complete in `data`: most are. Returns where they end."""
        match = self._size.match(data, at)
        while match is not None:
            size = int(match[1], 16)
            end = match.end() + size
            if not size or not data.startswith(b"\r\n", end):
                break
            at = end + 2
            match = self._size.match(data, at)
        return at

    def _check_begun(self) -> None:
        limit = 2 if self._phase == self._AT_END else _LINE_MAX
        if len(self._line) > limit:
            raise BadBody("a line between chunks is too long")

    def _take_line(self, line: bytes) -> None:
        if self._phase == self._AT_END:
            if line != b"\r\n":
                raise BadBody("a chunk is longer than it says")
            self._phase = self._AT_SIZE
        elif self._phase == self._AT_SIZE:
            match = self._size.fullmatch(line)
            if match is None or len(line) > _LINE_MAX:
                raise BadBody("the size of a chunk is not a number")
            self._left = int(match[1], 16)
            self._phase = self._IN_DATA if self._left else self._AT_TRAILER
        elif line == b"\r\n":
            self.done = True
        else:
            self._trailers += len(line)
            if self._strict or self._trailers > _TRAILERS_MAX or _TRAILER.fullmatch(line) is None:
                raise BadBody("fields after the body are not taken")


def body_of(length: int, *, strict: bool) -> Body | None:
    """What counts a body of this length; None: there is none."""
    if length == 0:
        return None
    if length == CHUNKED:
        return Chunked(strict=strict)
    if length == UNTIL_CLOSE:
        return UntilClose()
    return Counted(length)


class Frames:
    """Counts WebSocket frames of one direction: `at_border` tells that the next byte begins a frame."""

    __slots__ = ("_head", "_left")

    def __init__(self) -> None:
        self._head = b""
        self._left = 0

    @property
    def at_border(self) -> bool:
        return not self._left and not self._head

    def feed(self, data: bytes) -> int:
        """Returns the last border in `data`: where its last complete frame ends; -1: there is none."""
        at, length, border = 0, len(data), -1
        while at < length:
            if self._left:
                step = min(self._left, length - at)
                self._left -= step
                at += step
            else:
                need = _frame_head(self._head)
                step = min(need - len(self._head), length - at)
                self._head += data[at : at + step]
                at += step
                if len(self._head) < _frame_head(self._head):
                    continue
                self._left = _frame_length(self._head)
                self._head = b""
            if not self._left and not self._head:
                border = at
        return border


def _frame_head(begun: bytes) -> int:
    """Bytes of a frame's head, as far as it can be told."""
    if len(begun) < 2:
        return 2
    kind = begun[1] & 127
    return 2 + {126: 2, 127: 8}.get(kind, 0) + (4 if begun[1] & 128 else 0)


def _frame_length(head: bytes) -> int:
    kind = head[1] & 127
    if kind == 126:
        return int.from_bytes(head[2:4], "big")
    return int.from_bytes(head[2:10], "big") if kind == 127 else kind

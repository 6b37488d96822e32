"""Where logs go in Python: streams of bytes, and streams of text such as a notebook's or a StringIO."""

from __future__ import annotations

import codecs
import sys
from typing import TYPE_CHECKING, Any, Protocol

from argosy.client.frames import LogPiece, Prefixer

if TYPE_CHECKING:
    from argosy.client.escapes import LogFilter


class Out(Protocol):
    """A stream that takes bytes or text."""

    def write(self, data: Any, /) -> object: ...  # Any: bytes or str, whichever it takes

    def flush(self) -> object: ...


class Printer:
    """Shows pieces of a log. `label` stands before each line of a gang's ranks; "": one rank."""

    def __init__(self, out: Out | None, label: str = "") -> None:
        self._out: Out = sys.stdout if out is None else out
        self._filter: LogFilter | None = None  # of what a terminal is shown
        if out is None and sys.stdout.isatty():
            from argosy.client.escapes import LogFilter

            self._filter = LogFilter()
        if out is None and hasattr(self._out, "buffer"):
            self._out.flush()  # what the program printed before
            self._out = self._out.buffer
        self._prefixer = Prefixer(label) if label else None
        self._decoder: codecs.IncrementalDecoder | None = None  # of a stream of text
        self.status = ""  # of the job, at the end

    def show(self, piece: LogPiece) -> None:
        if piece.data:
            prefixer = self._prefixer
            self._write(prefixer.add(piece.frame.rank, piece.data) if prefixer else piece.data)
        if piece.frame.end:
            self._write(self._prefixer.rest() if self._prefixer else b"", final=True)
            self.status = piece.frame.status

    def _write(self, data: bytes, *, final: bool = False) -> None:
        if self._filter is not None:
            data = self._filter.add(data)
        if self._decoder is None:
            try:
                self._out.write(data)
            except TypeError:  # it takes text
                self._decoder = codecs.getincrementaldecoder("utf-8")("replace")
        if self._decoder is not None and (text := self._decoder.decode(data, final)):
            self._out.write(text)
        self._out.flush()

"""What people see: tables, colours, progress. Plain aligned text when piped; API types as JSON for programs.

Data goes to standard output; what is said about it (plans, progress, ends, warnings) to standard error, so
that `argosy exec dev -- cat x > x` keeps a clean file. What others wrote gives a terminal no orders: see
`client.escapes`; files and programs get it as it is.
"""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Iterable, Mapping, Sequence
from itertools import zip_longest
from typing import TYPE_CHECKING, Final, TextIO

import click

if TYPE_CHECKING:
    from argosy.client.escapes import LogFilter
    from argosy.model.errors import ArgosyError

_COLOURS: Final = {"red": "31", "green": "32", "yellow": "33", "cyan": "36", "dim": "2", "bold": "1"}
_OF_STATUS: Final = {
    "running": "green",
    "succeeded": "green",
    "queued": "yellow",
    "starting": "yellow",
    "recovering": "yellow",
    "stopping": "yellow",
    "degraded": "red",
    "failed": "red",
    "lost": "red",
    "preempted": "red",
    "stopped": "dim",
    "finished": "dim",
    "cancelled": "dim",
}
_PROGRESS_EVERY_S: Final = 0.1
_SENTENCE: Final = 24  # characters of a line of text in a narrow table


class Screen:
    """One terminal, or the files that stand for it. `env` decides about colours (NO_COLOR)."""

    def __init__(self, env: Mapping[str, str]) -> None:
        self._env = env
        self.for_programs = False  # whether the command was asked with `--json`
        self._progress_shown = False
        self._progress_at_s = 0.0
        self._warned: set[str] = set()
        self._line_open = False  # what was shown last ended without a newline
        self._log: LogFilter | None = None  # of a log on a terminal

    @property
    def out(self) -> TextIO:
        return sys.stdout

    @property
    def err(self) -> TextIO:
        return sys.stderr

    def is_terminal(self) -> bool:
        """Whether somebody looks and can be asked."""
        return sys.stdin.isatty() and sys.stderr.isatty()

    def paint(self, text: str, colour: str, stream: TextIO | None = None) -> str:
        """`text` in a colour, on terminals that want any."""
        stream = self.err if stream is None else stream
        if not colour or self._env.get("NO_COLOR") or self._env.get("TERM") == "dumb" or not stream.isatty():
            return text
        return f"\x1b[{_COLOURS[colour]}m{text}\x1b[0m"

    def has_colours(self, stream: TextIO) -> bool:
        return not self._env.get("NO_COLOR") and self._env.get("TERM") != "dumb" and stream.isatty()

    def shade(self, text: str, number: int | None, ground: int | None = None) -> str:
        """`text` in one of 256 colours, on the ground of another, on standard output that has them; None: as
        it is."""
        if number is None or not self.has_colours(self.out):
            return text
        below = "" if ground is None else f";48;5;{ground}"
        return f"\x1b[38;5;{number}{below}m{text}\x1b[0m"

    def columns(self) -> int:
        """Characters of a line of standard output; 100 where nobody looks."""
        if not self.out.isatty() and not self._env.get("COLUMNS", "").isdigit():
            return 100
        return max(20, _columns(self._env))

    def status(self, status: str, stream: TextIO | None = None) -> str:
        return self.paint(status, _OF_STATUS.get(status, ""), stream)

    # Saying --------------------------------------------------------------------------------------------------  # noqa: E501

    def print(self, text: str = "") -> None:
        """Data, or an answer, to standard output."""
        self.out.write(_painted(text, self.out) + "\n")

    def paragraph(self, text: str) -> None:
        """Sentences to standard output: broken between words on a terminal, as they are elsewhere."""
        if self.out.isatty():
            import textwrap

            text = textwrap.fill(
                text, max(40, _columns(self._env)), break_long_words=False, break_on_hyphens=False
            )
        self.print(text)

    def say(self, text: str, colour: str = "") -> None:
        """Something about the data, to standard error."""
        self.end_progress()
        self.out.flush()
        if self._line_open and _same_place(self.out, self.err):
            self.err.write("\n")  # after a log without a final newline; a file keeps what the job wrote
        self._line_open = False
        self.err.write(self.paint(_painted(text, self.err), colour) + "\n")
        self.err.flush()

    def warn(self, warnings: Iterable[str]) -> None:
        """Each once: client and server may say the same. What is not supported yet is told by who read the
        task first, for all of its fields."""
        for warning in warnings:
            from argosy.model.task import IGNORED  # not loaded by a run that warns of nothing

            key = IGNORED if IGNORED in warning else warning
            if key in self._warned:
                continue
            self._warned.add(key)
            self.say(f"{self.paint('warning:', 'yellow')} {warning}")

    def say_error(self, error: ArgosyError) -> None:
        """An error after which the command goes on."""
        from argosy.model.errors import render_error

        self.say(render_error(error))

    def json(self, value: object) -> None:
        """API types as JSON, indented, with every field (see `shapes`)."""
        import msgspec

        from argosy.cli.shapes import complete

        self.print(msgspec.json.format(msgspec.json.encode(complete(value)), indent=2).decode())

    def told(self, value: object) -> bool:
        """Whether a program asked; then it has the value as JSON now."""
        if self.for_programs:
            self.json(value)
        return self.for_programs

    def answer(self, value: object, *lines: str) -> None:
        """The value for a program, the lines for people."""
        if not self.told(value):
            for line in lines:
                self.print(line)

    def remark(self, value: object, text: str) -> None:
        """The value for a program; for people the text, to standard error."""
        if not self.told(value):
            self.say(text)

    def listed(
        self,
        value: object,
        columns: Sequence[str],
        rows: Sequence[Sequence[str]],
        *,
        none: str = "",
        right: Sequence[str] = (),
        spare: Sequence[str] = (),
    ) -> None:
        """The value for a program, a table for people; `none`: what they read in place of an empty one."""
        if self.told(value):
            return
        if none and not rows:
            self.print(none)
        else:
            self.table(columns, rows, right=right, spare=spare)

    def bytes(self, data: bytes) -> None:
        """Output of a job, as it is: it need not be UTF-8. A terminal gets its colours and progress."""
        if self._progress_shown:
            self.end_progress()
        if self.out.isatty():
            if self._log is None:
                from argosy.client.escapes import LogFilter

                self._log = LogFilter()
            data = self._log.add(data)
        buffer = self.out.buffer
        buffer.write(data)
        buffer.flush()
        if data:
            self._line_open = not data.endswith(b"\n")

    def confirm(self, question: str, *, yes: bool) -> None:
        """Ask on a terminal; go on without asking elsewhere. Raises Abort on no."""
        if not yes and self.is_terminal():
            self.end_progress()
            click.confirm(_plain(question, self.err), default=True, abort=True, err=True)

    def progress(self, text: str) -> None:
        """One line that overwrites itself; nothing when nobody looks."""
        if not self.err.isatty():
            return
        now = time.monotonic()
        if now - self._progress_at_s < _PROGRESS_EVERY_S:
            return
        self._progress_at_s = now
        self._progress_shown = True
        width, text = _columns(self._env) - 1, _plain(text, self.err)
        self.err.write(f"\r\x1b[K{self.paint('⚙', 'cyan')} {text[: width - 2]}")
        self.err.flush()

    def on_bytes(self, done: int, total: int) -> None:
        """What a copy calls with the bytes that are done, and all of them."""
        if not self.for_programs:
            from argosy.model.units import render_bytes

            self.progress(f"{render_bytes(done)} of {render_bytes(total)}")

    def end_progress(self) -> None:
        if self._progress_shown:
            self.err.write("\r\x1b[K")
            self.err.flush()
            self._progress_shown = False

    # Tables --------------------------------------------------------------------------------------------------  # noqa: E501

    def table(
        self,
        columns: Sequence[str],
        rows: Sequence[Sequence[str]],
        *,
        stream: TextIO | None = None,
        right: Sequence[str] = (),
        spare: Sequence[str] = (),
    ) -> None:
        """Aligned columns; one that is empty in every row is left out.

        Args:
            right: columns of numbers.
            spare: columns that a terminal too narrow for all of them does without, the first of them first;
                after them the last columns go.
        """
        stream = self.out if stream is None else stream
        rows = [[_plain(cell, stream) for cell in row] for row in rows]
        keep = [
            index
            for index, name in enumerate(columns)
            if index == 0 or not rows or any(row[index] for row in rows)
        ]
        for_people = stream.isatty() and self._env.get("TERM") != "dumb"
        if for_people:
            keep, widths = _fitting(columns, rows, keep, spare, _columns(self._env))
        else:
            widths = {index: _widest(columns, rows, index) for index in keep}
        for number, row in enumerate([columns, *rows]):
            lines = [_wrapped(row[index], widths[index], first=index == 0) for index in keep]
            colour = "" if not for_people else "bold" if number == 0 else None
            for line in zip_longest(*lines, fillvalue=""):
                cells = []
                for index, text in zip(keep, line, strict=True):
                    cell = text.rjust(widths[index]) if columns[index] in right else text.ljust(widths[index])
                    found = _OF_STATUS.get(row[index], "") if colour is None else colour
                    cells.append(self.paint(cell, found, stream) if found else cell)
                stream.write("  ".join(cells).rstrip() + "\n")


def _painted(text: str, stream: TextIO) -> str:
    """Lines as this stream may have them: on a terminal nothing is obeyed but our own colours."""
    if text.isprintable() or not stream.isatty():
        return text
    from argosy.client.escapes import shown

    return shown(text, painted=True)


def _plain(text: str, stream: TextIO) -> str:
    """As `_painted`, for one line without colours."""
    if text.isprintable() or not stream.isatty():
        return text
    from argosy.client.escapes import shown_in_line

    return shown_in_line(text)


def _widest(columns: Sequence[str], rows: Sequence[Sequence[str]], index: int) -> int:
    return max(len(row[index]) for row in [columns, *rows])


def _fitting(
    columns: Sequence[str], rows: Sequence[Sequence[str]], keep: list[int], spare: Sequence[str], width: int
) -> tuple[list[int], dict[int, int]]:
    """The columns that a terminal of this width has room for, and their widths.

    Sentences are wrapped between words. If that is not enough, columns go: first those of `spare`, in order,
    then from the right. The first stays, and is never cut: a name must be readable to be copied.
    """
    natural = {index: _widest(columns, rows, index) for index in keep}
    least = {index: natural[index] for index in keep}
    for index in keep[1:]:
        if natural[index] > _SENTENCE and any(" " in row[index] for row in rows):
            least[index] = _SENTENCE
    known = [columns.index(name) for name in spare]
    for index in [
        *(one for one in known if one in keep),
        *(one for one in reversed(keep) if one not in known),
    ]:
        if sum(least[one] + 2 for one in keep) - 2 <= width or len(keep) == 1:
            break
        if index != keep[0]:
            keep = [one for one in keep if one != index]
    room = width + 2 - sum(least[one] + 2 for one in keep)
    widths = {}
    for index in keep:
        more = max(0, min(natural[index] - least[index], room))
        widths[index], room = least[index] + more, room - more
    return keep, widths


def _wrapped(text: str, width: int, *, first: bool) -> list[str]:
    """Lines of a cell, broken between words; a word that is too long is shortened, never cut in two."""
    if first or len(text) <= width:
        return [text]
    import textwrap

    lines = textwrap.wrap(text, width, break_long_words=False, break_on_hyphens=False)
    return [line if len(line) <= width else line[: width - 1] + "…" for line in lines]


def _same_place(out: TextIO, err: TextIO) -> bool:
    """Whether both end in one terminal, pipe or file."""
    try:
        return os.path.sameopenfile(out.fileno(), err.fileno()) or (out.isatty() and err.isatty())
    except (OSError, ValueError):
        return False


def _columns(env: Mapping[str, str]) -> int:
    try:
        return int(env["COLUMNS"]) if env.get("COLUMNS", "").isdigit() else os.get_terminal_size(2).columns
    except OSError:
        return 80

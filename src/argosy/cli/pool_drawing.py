"""Pools as blocks in a terminal. Pure: replies in, text out.

One cell for each GPU, in the colour of who holds it; parts of a GPU are as wide as they are large.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Final, NamedTuple

from argosy.pages.pool_text import WHOLE_MILLI, Person, cpus_text, people_of, shortened

if TYPE_CHECKING:
    from argosy.api.pool import DeviceView, MachineView, PoolView

_LEFT: Final = " ▏▎▍▌▋▊▉"  # so many eighths of a character
_ROWS_MIN: Final = 8  # of a column, where there are several
BETWEEN: Final = "   "  # columns


class Cell(NamedTuple):
    """Characters of one colour on the ground of another; None: no colour."""

    text: str
    shade: int | None = None
    ground: int | None = None


class Row(NamedTuple):
    """One line of the drawing: a machine, or the next line of one with many devices (`name` is then
    blank)."""

    name: str
    cells: tuple[Cell, ...]
    note: str  # what its CPUs do

    @property
    def width(self) -> int:
        return len(self.name) + 2 + sum(len(cell.text) for cell in self.cells) + 1 + len(self.note)


def draw_rows(pool: PoolView, *, width: int, coloured: bool) -> list[Row]:
    """The machines, cells wrapped so that no line is wider than `width`.

    Without colours, letters stand for people: `AA` holds a whole GPU, `a` a part, `··` is free.
    """
    people = people_of(pool)
    rows: list[Row] = []
    longest = max((len(machine.name) for machine in pool.machines), default=0)
    name_width = max(4, min(longest, max(8, width // 3)))
    most = max((len(machine.devices) for machine in pool.machines), default=0)
    cpus_width = max((len(cpus_text(machine)) for machine in pool.machines), default=0)
    room = width - name_width - 2
    with_cpus = room >= 3 * most + cpus_width + 1
    wide = room >= 3 * most
    per_line = max(1, room // (3 if wide else 1))
    for machine in pool.machines:
        cells = [
            _cell(device, machine, pool, people, coloured=coloured, wide=wide) for device in machine.devices
        ]
        lines = [cells[at : at + per_line] for at in range(0, len(cells), per_line)] or [[]]
        for number, line in enumerate(lines):
            spaced = [each for cell in line for each in (*cell, *((Cell(" "),) if wide else ()))]
            missing = most - len(line) if len(lines) == 1 else 0
            spaced.append(Cell((" " * (3 if wide else 1)) * missing))
            note = (cpus_text(machine).rjust(cpus_width) if with_cpus else "") if number == 0 else ""
            if number == 0 and not machine.open:
                note = f"{note} closed".lstrip() if not with_cpus else f"{note} closed"
            name = shortened(machine.name, name_width) if number == 0 else ""
            rows.append(Row(name.ljust(name_width), tuple(spaced), note))
    return rows


def columns_of(rows: Sequence[Row], pool: PoolView, width: int) -> list[list[Row]]:
    """Rows side by side, top to bottom and then to the right, where there are many and the line has room for
    them."""
    if len(rows) != len(pool.machines) or len(rows) < 2 * _ROWS_MIN:
        return [list(rows)]
    block = max(row.width for row in rows) + len(BETWEEN)
    count = max(1, min((width + len(BETWEEN)) // block, len(rows) // _ROWS_MIN))
    tall = -(-len(rows) // count)
    return [list(rows[at : at + tall]) for at in range(0, len(rows), tall)]


def _cell(
    device: DeviceView,
    machine: MachineView,
    pool: PoolView,
    people: dict[str, Person],
    *,
    coloured: bool,
    wide: bool,
) -> tuple[Cell, ...]:
    """Two characters, or one where it is narrow."""
    holders = sorted(device.shares, key=lambda share: (-share.milli, share.holder))
    size = 2 if wide else 1
    if not holders:
        return (Cell(("··" if machine.open else "--")[:size]),)
    persons = [people[pool.holders[share.holder].user] for share in holders]
    if coloured:
        return _bar(
            [(person.shade, share.milli) for person, share in zip(persons, holders, strict=True)], size
        )
    if len(holders) == 1 and holders[0].milli >= WHOLE_MILLI:
        return (Cell(persons[0].letter * size),)
    letters = [person.letter.lower() for person in persons]
    if size == 1:
        return (Cell(letters[0]),)
    second = "·" if len(letters) == 1 else letters[1] if len(letters) == 2 else "+"
    return (Cell(letters[0] + second),)


def _bar(parts: Sequence[tuple[int, int]], size: int) -> tuple[Cell, ...]:
    """A device of `size` characters, filled from the left by (shade, milli). A character can show two
    colours: of more, the first and the largest of the others.

    >>> _bar([(33, 500), (208, 250), (35, 250)], 2)
    (Cell(text='█', shade=33, ground=None), Cell(text='▌', shade=208, ground=35))
    """
    eighths = 8 * size
    ends: list[tuple[int, int]] = []  # (shade, where its part ends), in eighths
    milli = at = 0
    for shade, part in parts:
        milli += part
        at = min(eighths, max(at + 1, milli * eighths // WHOLE_MILLI))
        ends.append((shade, at))
    cells: list[Cell] = []
    for start in range(0, eighths, 8):
        pieces: list[tuple[int | None, int]] = []
        begin = 0
        for shade, end in ends:
            inside = min(end, start + 8) - max(begin, start)
            if inside > 0:
                pieces.append((shade, inside))
            begin = end
        free = start + 8 - max(start, begin)
        if free > 0:
            pieces.append((None, free))
        (first, length), rest = pieces[0], pieces[1:]
        if first is None:
            cells.append(Cell("·"))
        elif not rest:
            cells.append(Cell("█", first))
        else:
            cells.append(Cell(_LEFT[length], first, max(rest, key=lambda piece: piece[1])[0]))
    return tuple(cells)

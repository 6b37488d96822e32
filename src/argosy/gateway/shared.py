"""Numbers that the workers of one gateway share: limits of keys, and how much is in flight at each replica.

A `Board` is memory that all of them map. A row belongs to a name (a key, a replica, another gateway); it
holds the level and time of two token buckets, what was spent in one period (its number, micro-USD, and the
pico-USD that are left over), one count of requests in flight for each worker, so that the counts of a worker
that died can be taken back, and one for all other gateways; for each worker the micro-USD that its requests
in flight may cost; and, as in flight, what replicas still have to read of prompts. The process that steers
the workers gives out the rows, with each table.
"""

from __future__ import annotations

import fcntl
from collections.abc import Callable, Mapping
from typing import Final, Protocol, TypeVar

from argosy.model.service_keys import PICO

T = TypeVar("T")
_BUCKETS: Final = 4  # two levels, two times
_SPENT: Final = _BUCKETS  # period, micro-USD, pico-USD
_FLIGHT: Final = _SPENT + 3
_NEVER: Final = 0.0
_NO_WORK: Final[Mapping[str, float]] = {}
_KEYS: Final = "key/"


#: Level and time of two buckets.
Buckets = tuple[float, float, float, float]
#: The period, micro-USD, pico-USD.
Spent = tuple[float, float, float]


class Cells(Protocol):
    """Memory as numbers: a list, or a view of doubles."""

    def __len__(self) -> int: ...

    def __getitem__(self, at: int, /) -> float: ...

    def __setitem__(self, at: int, value: float, /) -> None: ...


class Board:
    """The shared numbers as one worker sees them."""

    def __init__(
        self, cells: Cells | None = None, *, workers: int = 1, worker: int = 0, lock_fd: int = -1
    ) -> None:
        self._width = width_of(workers)
        self._workers = workers
        self._worker = worker
        self._work = _FLIGHT + 2 * workers + 1
        self._lock = _Lock(lock_fd)
        self._own: list[float] = []
        self._cells: Cells = self._own if cells is None else cells
        self._rows: dict[str, int] = {}
        self._adopted: dict[str, Buckets] = {}  # of names without a row yet
        self._adopted_spent: dict[str, Spent] = {}  # likewise
        self._heard: set[str] = set()  # rows that other gateways have requests in

    def row(self, name: str) -> int:
        """Where the numbers of a name stand."""
        row = self._rows.get(name)
        if row is None:
            row = self._rows[name] = len(self._rows)
            if self._cells is self._own:
                self._own.extend([_NEVER] * ((row + 1) * self._width - len(self._own)))
            self._begin_row(name, row)
        if self._cells is not self._own and (row + 1) * self._width > len(self._cells):
            row = len(self._cells) // self._width - 1  # the last one is everybody's who came too late
        return row * self._width

    def know(self, rows: dict[str, int]) -> None:
        """The rows that the steering process has given out."""
        waits = self._adopted or self._adopted_spent
        new = [name for name in rows if name not in self._rows] if waits else []
        self._rows.update(rows)
        for name in new:
            self._begin_row(name, rows[name])

    def _begin_row(self, name: str, row: int) -> None:
        buckets, spent = self._adopted.pop(name, None), self._adopted_spent.pop(name, None)
        if (row + 1) * self._width <= len(self._cells):
            if buckets is not None:
                self._take_over(row * self._width, buckets)
            if spent is not None:
                self._take_spent(row * self._width, spent)

    def lock(self) -> _Lock:
        """Nobody else changes a number meanwhile."""
        return self._lock

    # --- token buckets: hold the lock ----------------------------------------------------------------

    def missing_s(self, row: int, column: int, limit: int, amount: int, now_s: float) -> float:
        """Fill a bucket of `limit` per minute up to now. For how many seconds `amount` is not in it yet;
        0: it is."""
        cells = self._cells
        level, since_s = cells[row + column], cells[row + column + 1]
        level = (
            float(limit) if since_s == _NEVER else min(float(limit), level + (now_s - since_s) * limit / 60.0)
        )
        cells[row + column], cells[row + column + 1] = level, now_s
        return 0.0 if level >= amount else (amount - level) * 60.0 / limit

    def take(self, row: int, column: int, amount: int) -> None:
        self._cells[row + column] -= amount

    def level(self, row: int, column: int) -> float:
        return self._cells[row + column]

    # --- money: hold the lock to change it -----------------------------------------------------------

    def spent(self, row: int, period: int) -> int:
        """Micro-USD in a period; a begun one counts as whole."""
        cells = self._cells
        if cells[row + _SPENT] != period:
            return 0
        return int(cells[row + _SPENT + 1]) + bool(cells[row + _SPENT + 2])

    def spend(self, row: int, period: int, pico_usd: int) -> None:
        """So much more in a period, which may have begun just now."""
        cells = self._cells
        if cells[row + _SPENT] != period:
            cells[row + _SPENT], cells[row + _SPENT + 1], cells[row + _SPENT + 2] = float(period), 0.0, 0.0
        micro, rest = divmod(int(cells[row + _SPENT + 2]) + pico_usd, PICO)
        cells[row + _SPENT + 1] += micro
        cells[row + _SPENT + 2] = rest

    def held_back(self, row: int) -> int:
        """Micro-USD that the requests in flight of all workers may cost."""
        first = row + _FLIGHT + self._workers + 1
        return int(sum(self._cells[at] for at in range(first, first + self._workers)))

    def hold_back(self, row: int, micro_usd: int) -> None:
        """A request may cost so much; below 0: it is over."""
        self._cells[row + _FLIGHT + self._workers + 1 + self._worker] += micro_usd

    # --- requests in flight --------------------------------------------------------------------------

    def begin(self, row: int) -> None:
        self._cells[row + _FLIGHT + self._worker] += 1

    def end(self, row: int) -> None:
        self._cells[row + _FLIGHT + self._worker] -= 1

    def in_flight(self, row: int) -> int:
        """Of all workers and gateways together."""
        if self._workers == 1:
            return int(self._cells[row + _FLIGHT] + self._cells[row + _FLIGHT + 1])
        first = row + _FLIGHT
        return int(sum(self._cells[at] for at in range(first, first + self._workers + 1)))

    def elsewhere(self, row: int) -> int:
        """Of the other workers and gateways."""
        return self.in_flight(row) - int(self._cells[row + _FLIGHT + self._worker])

    # --- what is to be read --------------------------------------------------------------------------

    def note_work(self, row: int, units: float) -> None:
        """A replica has still to read so much of what this worker has sent there."""
        self._cells[row + self._work + self._worker] = units

    def work_elsewhere(self, row: int) -> float:
        """So much of what the other workers and gateways have sent there."""
        first = row + self._work
        if self._workers == 1:
            return self._cells[first + 1]
        whole = sum(self._cells[at] for at in range(first, first + self._workers + 1))
        return whole - self._cells[first + self._worker]

    def forget_worker(self, worker: int) -> None:
        """A worker has died: nothing of it is in flight any more."""
        for row in range(0, len(self._cells) - self._width + 1, self._width):
            self._cells[row + _FLIGHT + worker] = 0.0
            self._cells[row + _FLIGHT + self._workers + 1 + worker] = 0.0
            self._cells[row + self._work + worker] = 0.0

    # --- other gateways ------------------------------------------------------------------------------

    def own_in_flight(self) -> dict[str, int]:
        """By name, where this gateway has any."""
        found = {}
        for name, row in self._rows.items():
            first = row * self._width + _FLIGHT
            if first + self._workers < len(self._cells):
                count = int(sum(self._cells[at] for at in range(first, first + self._workers)))
                if count:
                    found[name] = count
        return found

    def own_work(self) -> dict[str, float]:
        """By name, where this gateway has any."""
        found = {}
        for name, row in self._rows.items():
            first = row * self._width + self._work
            if first + self._workers < len(self._cells):
                units = sum(self._cells[at] for at in range(first, first + self._workers))
                if units > 0:
                    found[name] = round(units, 1)
        return found

    def buckets(self) -> dict[str, Buckets]:
        """Levels and times of those that were ever used, by name."""
        found = {}
        for name, row in self._rows.items():
            at = row * self._width
            if name.startswith(_KEYS) and at + _BUCKETS <= len(self._cells):
                first, since_s, second, then_s = (self._cells[at + place] for place in range(_BUCKETS))
                if since_s or then_s:
                    found[name] = (first, since_s, second, then_s)
        return found

    def spendings(self) -> dict[str, Spent]:
        """What was spent of which budget, by name."""
        found = {}
        for name, row in self._rows.items():
            at = row * self._width + _SPENT
            if name.startswith(_KEYS) and at + 3 <= len(self._cells) and self._cells[at]:
                found[name] = (self._cells[at], self._cells[at + 1], self._cells[at + 2])
        return found

    def adopt_spendings(self, spendings: Mapping[str, Spent]) -> None:
        """Go on from these where they are later, or more, than what is here."""
        self._adopt(spendings, self._adopted_spent, self._take_spent)

    def _adopt(self, told: Mapping[str, T], kept: dict[str, T], take: Callable[[int, T], None]) -> None:
        """`take` what has a row, at its first cell; keep the rest until it has one."""
        with self.lock():
            for name, one in told.items():
                row = self._rows.get(name)
                if row is None:
                    kept[name] = one
                elif (row + 1) * self._width <= len(self._cells):
                    take(row * self._width, one)

    def _take_spent(self, row: int, told: Spent) -> None:
        here = tuple(self._cells[at] for at in range(row + _SPENT, row + _FLIGHT))
        if told > here:
            for place, value in enumerate(told):
                self._cells[row + _SPENT + place] = value

    def adopt_buckets(self, buckets: Mapping[str, Buckets]) -> None:
        """Go on from these where they are younger than what is here."""
        self._adopt(buckets, self._adopted, self._take_over)

    def _take_over(self, row: int, told: Buckets) -> None:
        for column in (0, 2):
            if told[column + 1] > self._cells[row + column + 1]:
                self._cells[row + column], self._cells[row + column + 1] = told[column : column + 2]

    def note_heard(self, name: str, now_s: float) -> None:
        """Another gateway was heard of."""
        self._cells[self.row(name)] = now_s

    def note_peers(self, in_flight: Mapping[str, int], work: Mapping[str, float] = _NO_WORK) -> None:
        """What all other gateways have in flight, by name, and what of it is to be read."""
        names = {name for name in in_flight if name in self._rows}
        for name in names | self._heard:
            row = self._rows[name] * self._width
            if row + self._width <= len(self._cells):
                self._cells[row + _FLIGHT + self._workers] = float(in_flight.get(name, 0))
                self._cells[row + self._work + self._workers] = work.get(name, 0.0)
        self._heard = names


class _Lock:
    """A lock that processes share; nothing where there is one process."""

    __slots__ = ("_fd",)

    def __init__(self, fd: int) -> None:
        self._fd = fd

    def __enter__(self) -> None:
        if self._fd >= 0:
            fcntl.lockf(self._fd, fcntl.LOCK_EX)

    def __exit__(self, *of_what: object) -> None:
        if self._fd >= 0:
            fcntl.lockf(self._fd, fcntl.LOCK_UN)


def width_of(workers: int) -> int:
    """Numbers in a row."""
    return _FLIGHT + 3 * workers + 2

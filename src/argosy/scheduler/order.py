"""The order of the pending requests: total, and changed by every start.

    priority class (a job that has waited for `aging_s` counts one class higher, never as `system`)
      what its queues keep for themselves goes before what is borrowed
      down the tree: of siblings the one whose share is smallest with its candidate started (`Quotas.key`);
      equal: as in a leaf
        in a leaf: priority, attained service, submit time, number, id

Attained service (2D-LAS of Tiresias, NSDI 2019) has buckets that grow by eights: less than 1, 8, 64, 512 …
device hours. (With three buckets jobs of ten hours and of a month stand in one line; on the Philly trace more
buckets save a quarter of the mean completion time.) It counts for jobs of the classes `batch` and
`opportunistic` that go on from a checkpoint, when the policy says so. A job that was evicted or recovers
comes back with its submit time and number, so it has its place again.

Attained service alone lets a long job wait for ever while shorter ones come. So a job that has waited, all
its waits together, for `OVERDUE` x `aging_s`, or was evicted `EVICTIONS_MAX` times, is overdue: it comes
before all buckets of its priority, overdue jobs by submit time, and keeps what it gets (`preempt`).

One pass over those who wait is `heads.Heads`.

Costs: `add` and `remove` O(log) and a move of memory; `waiting` of one queue O(leaves x classes in a leaf).
"""

from __future__ import annotations

from bisect import bisect_left, insort
from collections.abc import Collection, Iterator
from heapq import heappop, heappush
from typing import Final, NamedTuple

import msgspec

from argosy.model.tenancy import Amounts, SharePolicy
from argosy.scheduler.ask import Ask, Need
from argosy.scheduler.estimate import expected_s
from argosy.scheduler.heads import Heads
from argosy.scheduler.quota import Quotas, amounts_of
from argosy.scheduler.whatif import rate_of

_HOUR: Final = 1000 * 3_600_000  # milli-device x ms
_LEAST_URGENT_FOR_SERVICE: Final = 3  # batch
_HIGHEST_AGED: Final = 1  # nothing grows into `system`
OVERDUE: Final = 20  # x `aging_s` of waiting: then attained service does not keep a job back any more,
EVICTIONS_MAX: Final = 32  # nor after so many evictions
OVERDUE_BUCKET: Final = -1
FOREVER_S: Final = 1 << 40  # the length of what is not expected to end

Place = tuple[int, int, int, int, str]  # in a leaf: -priority, bucket, submitted_ms, number, id
Spot = tuple[int, int, int, int, str, int]  # a place, and the class of asks (`Order.shape`)


class Shape(NamedTuple):
    """What makes asks equal for the pool."""

    needs: tuple[Need, ...]
    num_nodes: int
    required: str
    preferred: str
    spread: str


def shape_of(ask: Ask) -> Shape:
    return Shape(ask.needs, ask.num_nodes, ask.required, ask.preferred, ask.spread)


def bucket_of(attained: int) -> int:
    """0, 1, 2, 3 … for less than 1, 8, 64, 512 … device hours of attained service (milli-device x ms)."""
    bucket, below = 0, _HOUR
    while attained >= below:
        bucket, below = bucket + 1, below * 8
    return bucket


def next_bucket(attained: int) -> int:
    """How much more service moves it to the next bucket."""
    below = _HOUR
    while attained >= below:
        below *= 8
    return below - attained


def class_of(ask: Ask, policy: SharePolicy, now_ms: int) -> int:
    """Its priority class, with what waiting has earned it: one class after `aging_s` at most."""
    if ask.urgency > _HIGHEST_AGED and now_ms - ask.submitted_ms >= policy.aging_s * 1000:
        return ask.urgency - 1
    return ask.urgency


def is_served(ask: Ask, policy: SharePolicy) -> bool:
    """Whether attained service counts in its place."""
    return policy.attained_service and ask.checkpoint and ask.urgency >= _LEAST_URGENT_FOR_SERVICE


def overdue_ms(ask: Ask, policy: SharePolicy) -> int:
    """From when on a waiting job whose attained service counts is overdue. What it has run is no wait."""
    if ask.evictions >= EVICTIONS_MAX:
        return ask.submitted_ms
    ran_ms = ask.attained // max(1, rate_of(ask.needs[0], ask.num_nodes))
    return ask.submitted_ms + ran_ms + OVERDUE * policy.aging_s * 1000


def service_bucket(ask: Ask, policy: SharePolicy, now_ms: int, *, attained: int | None = None) -> int:
    """The bucket of a job whose attained service counts, at the time when it waits or started. `attained`:
    what it has had by now, if that is more."""
    if overdue_ms(ask, policy) <= now_ms:
        return OVERDUE_BUCKET
    return bucket_of(ask.attained if attained is None else attained)


def place_of(ask: Ask, policy: SharePolicy, now_ms: int) -> Place:
    """Its place among those of its class in its leaf."""
    bucket = service_bucket(ask, policy, now_ms) if is_served(ask, policy) else 0
    return (-ask.priority, bucket, ask.submitted_ms, ask.number, ask.id)


class _Entry(msgspec.Struct, frozen=True, gc=False):
    """Where a waiting ask stands in the books."""

    ask: Ask
    urgency: int  # with ageing
    spot: Spot

    @property
    def shape(self) -> int:
        return self.spot[5]


class Line:
    """Who waits in one leaf with one priority class: per class of asks a sorted list, and the first of each,
    sorted."""

    __slots__ = ("fronts", "path", "rows")

    def __init__(self, path: str) -> None:
        self.path = path
        self.rows: dict[int, list[Spot]] = {}
        self.fronts: list[Spot] = []

    def add(self, spot: Spot) -> None:
        row = self.rows.setdefault(spot[5], [])
        first = row[0] if row else None
        insort(row, spot)
        if row[0] is spot:
            if first is not None:
                del self.fronts[bisect_left(self.fronts, first)]
            insort(self.fronts, spot)

    def remove(self, spot: Spot) -> None:
        row = self.rows[spot[5]]
        # Mostly the first of a class goes, and mostly the first of all: then nothing is searched for.
        if row[0] is not spot:
            del row[bisect_left(row, spot)]
            return
        del row[0]
        fronts = self.fronts
        at = 0 if fronts[0] is spot else bisect_left(fronts, spot)
        del fronts[at]
        if row:
            insort(fronts, row[0], lo=at)
        else:
            del self.rows[spot[5]]


class _Lengths:
    """The expected lengths of the waiting asks of one class, in seconds: where the shortest is too long, all
    are."""

    __slots__ = ("counts", "heap")

    def __init__(self) -> None:
        self.counts: dict[int, int] = {}
        self.heap: list[int] = []  # each once; those without a count are over

    def add(self, length_s: int) -> None:
        if length_s not in self.counts:
            heappush(self.heap, length_s)
        self.counts[length_s] = self.counts.get(length_s, 0) + 1

    def remove(self, length_s: int) -> None:
        self.counts[length_s] -= 1

    def shortest(self) -> int:
        while self.heap:
            if self.counts[self.heap[0]]:
                return self.heap[0]
            del self.counts[heappop(self.heap)]
        return FOREVER_S


def _length_s(ask: Ask) -> int:
    length_s = expected_s(ask)
    return FOREVER_S if length_s is None else length_s


class Order:
    """The waiting asks. Every one has a queue (`Ask.queue`, the path of its leaf)."""

    def __init__(self) -> None:
        self._entries: dict[str, _Entry] = {}
        self._later: list[tuple[int, str]] = []  # not before: (time, id)
        self._asleep: dict[str, Ask] = {}
        self._aging: list[tuple[int, str]] = []  # rises a class, or becomes overdue: (time, id)
        self._lines: dict[int, dict[str, Line]] = {}  # by class and path of the leaf
        self._shapes: dict[Shape, int] = {}
        self._of_shape: list[Ask] = []  # an example
        self._counts: list[int] = []  # waiting asks of a shape
        self._lengths: list[_Lengths] = []  # by shape, of those who wait for their time, too
        self._policy = SharePolicy()
        self._now_ms = 0

    def __len__(self) -> int:
        return len(self._entries) + len(self._asleep)

    def __contains__(self, ask_id: str) -> bool:
        return ask_id in self._entries or ask_id in self._asleep

    def get(self, ask_id: str) -> Ask | None:
        entry = self._entries.get(ask_id)
        return entry.ask if entry else self._asleep.get(ask_id)

    def asks(self) -> Iterator[Ask]:
        """All that wait, in no particular order; those with a `not_before_ms` to come, too."""
        for entry in self._entries.values():
            yield entry.ask
        yield from self._asleep.values()

    def place(self, ask_id: str) -> int:
        """Its place among those of its queue that may start now, from 1; 0 for others. O(classes x log)."""
        entry = self._entries.get(ask_id)
        if entry is None:
            return 0
        before = 0
        for urgency, lines in self._lines.items():
            line = lines.get(entry.ask.queue) if urgency <= entry.urgency else None
            for row in line.rows.values() if line is not None else ():
                before += len(row) if urgency < entry.urgency else bisect_left(row, entry.spot)
        return before + 1

    def waiting(self, path: str = "") -> int:
        """How many wait in a queue and below it; "" is all."""
        if not path:
            return len(self)
        below = f"{path}/"
        inside = sum(1 for ask in self._asleep.values() if f"{ask.queue}/".startswith(below))
        for lines in self._lines.values():
            for leaf, line in lines.items():
                if f"{leaf}/".startswith(below):
                    inside += sum(map(len, line.rows.values()))
        return inside

    def shape(self, ask: Ask) -> int:
        """The number of the class of asks that are equal to this one for the pool."""
        entry = self._entries.get(ask.id)
        if entry is not None and entry.ask is ask:
            return entry.shape
        key = shape_of(ask)
        number = self._shapes.get(key)
        if number is None:
            number = self._shapes[key] = len(self._of_shape)
            self._of_shape.append(ask)
            self._counts.append(0)
            self._lengths.append(_Lengths())
        return number

    def shortest_s(self, shape: int) -> int:
        """The expected length of the shortest waiting ask of a class; `FOREVER_S` when none is expected to
        end."""
        return self._lengths[shape].shortest()

    def classes(self) -> Iterator[tuple[int, Ask, int]]:
        """Classes of asks that wait: number, an example, how many."""
        for number, count in enumerate(self._counts):
            if count:
                yield number, self._of_shape[number], count

    def add(self, ask: Ask) -> None:
        """It waits from now on; one that waits already is replaced."""
        self.remove(ask.id)
        shape = self.shape(ask)
        self._lengths[shape].add(_length_s(ask))
        if ask.not_before_ms > self._now_ms:
            self._asleep[ask.id] = ask
            heappush(self._later, (ask.not_before_ms, ask.id))
        else:
            self._enter(ask, shape)

    def remove(self, ask_id: str) -> None:
        """It does not wait any more; absent is fine."""
        entry = self._entries.get(ask_id)
        if entry is not None:
            self._leave(entry)
            self._lengths[entry.shape].remove(_length_s(entry.ask))
            return
        asleep = self._asleep.pop(ask_id, None)
        if asleep is not None:
            self._lengths[self.shape(asleep)].remove(_length_s(asleep))

    def _enter(self, ask: Ask, shape: int) -> None:
        urgency = class_of(ask, self._policy, self._now_ms)
        spot = (*place_of(ask, self._policy, self._now_ms), shape)
        self._entries[ask.id] = _Entry(ask, urgency, spot)
        self._counts[shape] += 1
        lines = self._lines.setdefault(urgency, {})
        line = lines.get(ask.queue)
        if line is None:
            line = lines[ask.queue] = Line(ask.queue)
        line.add(spot)
        if urgency == ask.urgency and urgency > _HIGHEST_AGED:
            heappush(self._aging, (ask.submitted_ms + self._policy.aging_s * 1000, ask.id))
        if is_served(ask, self._policy) and spot[1] != OVERDUE_BUCKET:
            heappush(self._aging, (overdue_ms(ask, self._policy), ask.id))

    def _leave(self, entry: _Entry) -> None:
        ask = entry.ask
        del self._entries[ask.id]
        self._counts[entry.spot[5]] -= 1
        lines = self._lines[entry.urgency]
        line = lines[ask.queue]
        line.remove(entry.spot)
        if not line.rows:
            del lines[ask.queue]

    def wanted(self) -> dict[str, Amounts]:
        """What waits, by path of its leaf; of asks with several candidates the first. Those that may not
        start yet do not count."""
        result: dict[str, Amounts] = {}
        for lines in self._lines.values():
            for path, line in lines.items():
                total = result.setdefault(path, {})
                for shape, row in line.rows.items():
                    example = self._of_shape[shape]
                    for name, amount in amounts_of(example.needs[0], example.num_nodes).items():
                        total[name] = total.get(name, 0) + amount * len(row)
        return result

    def next_ms(self) -> int | None:
        """When the order changes by itself: somebody may start from then on, or rises a class."""
        times = [heap[0][0] for heap in (self._later, self._aging) if heap]
        return min(times) if times else None

    def advance(self, policy: SharePolicy, now_ms: int) -> None:
        """Let time pass: who may start now, who rises; everything anew under another policy."""
        changed = (policy.attained_service, policy.aging_s) != (
            self._policy.attained_service,
            self._policy.aging_s,
        )
        back = now_ms < self._now_ms
        self._policy, self._now_ms = policy, now_ms
        if changed or back:
            asks = list(self.asks())
            self._entries, self._asleep, self._lines = {}, {}, {}
            self._later, self._aging = [], []
            self._counts = [0] * len(self._counts)
            self._lengths = [_Lengths() for _ in self._counts]
            for ask in asks:
                self.add(ask)
        while self._later and self._later[0][0] <= now_ms:
            at, ask_id = heappop(self._later)
            asleep = self._asleep.get(ask_id)
            if asleep is not None and asleep.not_before_ms == at:
                del self._asleep[ask_id]
                self._enter(asleep, self.shape(asleep))
        while self._aging and self._aging[0][0] <= now_ms:
            _, ask_id = heappop(self._aging)
            entry = self._entries.get(ask_id)
            if entry is None:
                continue
            is_as_before = entry.spot[:5] == place_of(entry.ask, policy, now_ms)
            if class_of(entry.ask, policy, now_ms) != entry.urgency or not is_as_before:
                self._leave(entry)
                self._enter(entry.ask, entry.shape)

    def heads(
        self, quotas: Quotas, policy: SharePolicy, now_ms: int, *, blocked: Collection[int] = ()
    ) -> Heads:
        """One pass over those who wait, best first. `blocked`: classes of asks (`shape`) that cannot start
        now; they are skipped when their turn comes, so that it changes nothing for the others who knows
        it."""
        self.advance(policy, now_ms)
        quotas.advance(now_ms)
        return Heads(self, quotas, blocked)

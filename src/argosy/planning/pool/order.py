"""Who is next among those who wait: a total order that changes with every start.

    priority class (a job that has waited for `aging_s` counts one class higher, never as `system`)
      what its queues keep for themselves goes before what is borrowed
      down the tree: of siblings the one whose share is smallest with its candidate started (`Quotas.key`); equal: as in a leaf
        in a leaf: priority, attained service, submit time, number, id

Attained service (2D-LAS of Tiresias, NSDI 2019) has buckets that grow by eights: less than 1, 8, 64, 512 … device hours. (With three
buckets jobs of ten hours and of a month stand in one line; on the Philly trace more buckets save a quarter of the mean
completion time.) It counts for jobs of the classes `batch` and `opportunistic` that go on from a checkpoint, when the policy says so. A job that was evicted
or recovers comes back with its submit time and number, so it has its place again.

Asks with equal needs are one class of asks: where one does not fit, none does. `Heads` is told so once and never offers another.

Costs, with L leaves that wait, C classes in a leaf and D levels: `add` and `remove` O(log) and a move of memory; a pass begins with
O(L x (C + D)); each answer costs O(D log L + C). A class that is blocked costs its leaves one look each when they come up, however many
asks it has. `waiting` of one queue costs O(L x C).
"""

from __future__ import annotations

from bisect import bisect_left, insort
from collections.abc import Collection, Iterator
from heapq import heapify, heappop, heappush, heapreplace
from typing import Final, NamedTuple

import msgspec

from argosy.model.tenancy import Amounts, SharePolicy
from argosy.planning.pool.ask import Ask, Need
from argosy.planning.pool.estimate import expected_s
from argosy.planning.pool.queues import Node, Pairs
from argosy.planning.pool.quota import Quotas, amounts_of

_HOUR: Final = 1000 * 3_600_000  # milli-device x ms
_LEAST_URGENT_FOR_SERVICE: Final = 3  # batch
_HIGHEST_AGED: Final = 1  # nothing grows into `system`
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


def place_of(ask: Ask, policy: SharePolicy) -> Place:
    """Its place among those of its class in its leaf."""
    bucket = bucket_of(ask.attained) if is_served(ask, policy) else 0
    return (-ask.priority, bucket, ask.submitted_ms, ask.number, ask.id)


class _Entry(msgspec.Struct, frozen=True, gc=False):
    """Where a waiting ask stands in the books."""

    ask: Ask
    urgency: int  # with ageing
    spot: Spot

    @property
    def shape(self) -> int:
        return self.spot[5]


class _Line:
    """Who waits in one leaf with one priority class: per class of asks a sorted list, and the first of each, sorted."""

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
    """The expected lengths of the waiting asks of one class, in seconds: where the shortest is too long, all are."""

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
        self._aging: list[tuple[int, str]] = []  # rises a class: (time, id)
        self._lines: dict[int, dict[str, _Line]] = {}  # by class and path of the leaf
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
        """The expected length of the shortest waiting ask of a class; `FOREVER_S` when none is expected to end."""
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
        spot = (*place_of(ask, self._policy), shape)
        self._entries[ask.id] = _Entry(ask, urgency, spot)
        self._counts[shape] += 1
        lines = self._lines.setdefault(urgency, {})
        line = lines.get(ask.queue)
        if line is None:
            line = lines[ask.queue] = _Line(ask.queue)
        line.add(spot)
        if urgency == ask.urgency and urgency > _HIGHEST_AGED:
            heappush(self._aging, (ask.submitted_ms + self._policy.aging_s * 1000, ask.id))

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
        """What waits, by path of its leaf; of asks with several candidates the first. Those that may not start yet do not count."""
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

    def _turn(self, policy: SharePolicy, now_ms: int) -> None:
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
            if entry is not None and class_of(entry.ask, policy, now_ms) != entry.urgency:
                self._leave(entry)
                self._enter(entry.ask, entry.shape)

    def heads(
        self, quotas: Quotas, policy: SharePolicy, now_ms: int, *, blocked: Collection[int] = ()
    ) -> Heads:
        """One pass over those who wait, best first. `blocked`: classes of asks (`shape`) that cannot start now; they are
        skipped when their turn comes, so that it changes nothing for the others who knows it."""
        self._turn(policy, now_ms)
        quotas.advance(now_ms)
        return Heads(self, quotas, blocked)


class _Contest:
    """A queue in the tournament of one pass: the leaf whose candidate stands for it, and the heap of its children's."""

    __slots__ = (
        "above",
        "alone",
        "at",
        "best",
        "candidate",
        "entry",
        "heap",
        "kept",
        "line",
        "node",
        "passed",
        "skipped",
    )

    def __init__(self, node: Node, above: _Contest | None) -> None:
        self.node = node
        self.above = above
        self.alone = False  # no sibling takes part: nobody asks for its share
        self.heap: list[_Rank] = []
        self.entry: _Rank | None = None  # as it stands in the heap above; others there are void
        self.best: _Contest | None = None  # of a leaf itself; None: it has no candidate
        # Of leaves only:
        self.line: _Line | None = None
        self.candidate: Spot | None = None
        self.kept = False  # the candidate stays within what its queues keep
        self.passed: dict[int, int] | None = None  # asks of a class that were passed over
        self.at = 0  # the fronts of the line before this one are blocked,
        self.skipped: Spot | None = None  # as long as this is the last of them


_Rank = tuple[bool, int, Spot, "_Contest"]  # borrows, share, place


class Heads(Iterator[Ask]):
    """One pass: iterate, and say after each ask what became of it. Nothing said: it was passed over.

    Shares are taken anew whenever the books of `quotas` change, also by refunds. Asks added during a pass come in the next.
    """

    def __init__(self, order: Order, quotas: Quotas, blocked: Collection[int]) -> None:
        self._order = order
        self._quotas = quotas
        self._known = blocked
        self._blocked: set[int] = set()  # classes
        self._blocked_here: dict[str, set[int]] = {}  # by leaf
        self._spared: dict[int, frozenset[str]] = {}  # leaves in which a class is not blocked
        self._sparing: set[str] = set()  # all leaves of `_spared`
        self._closed: set[str] = set()
        self._vectors: dict[int, tuple[int, ...]] = {}
        self._pairs: dict[int, Pairs] = {}
        self._classes = sorted(order._lines)
        self._root: _Contest | None = None
        self._leaves: dict[Node, _Contest] = {}
        self._last: tuple[_Contest, int, Ask] | None = None
        self._changed: set[_Contest] = set()  # leaves whose candidate is to be found anew
        self._offering: dict[int, set[_Contest]] = {}  # leaves by the class of their candidate

    # --- answers of the caller

    def started(self, ask: Ask) -> None:
        """It has started and was charged: it waits no more."""
        self._order.remove(ask.id)
        self._again(ask)

    def skip_class(self, ask: Ask, *, but: Collection[str] = ()) -> None:
        """Nothing with these needs can start in this pass, in any queue. `but`: other leaves whose first of this class is to be looked
        at all the same."""
        shape = self._order.shape(ask)
        self._spared[shape] = frozenset(but) - {ask.queue}
        self._sparing |= self._spared[shape]
        self._block(shape)
        self._again(ask)

    def skip_here(self, ask: Ask) -> None:
        """Nothing with these needs can start in this pass out of this queue."""
        self._blocked_here.setdefault(ask.queue, set()).add(self._order.shape(ask))
        self._again(ask)

    def close(self, ask: Ask) -> None:
        """Nothing at all can start in this pass out of this queue: strict order."""
        self._closed.add(ask.queue)
        self._again(ask)

    def _block(self, shape: int) -> None:
        self._blocked.add(shape)
        offering = self._offering.pop(shape, set())
        but = self._spared.get(shape)
        if but:
            spared = {leaf for leaf in offering if leaf.line is not None and leaf.line.path in but}
            self._offering[shape] = spared
            offering -= spared
        self._changed |= offering

    def _again(self, ask: Ask) -> None:
        if self._last is not None and self._last[2].id == ask.id:
            self._changed.add(self._last[0])
            self._last = None

    # --- the tournament

    def __next__(self) -> Ask:
        if self._last is not None:
            self._pass_over()
        for node in self._quotas.drain_touched():
            touched = self._leaves.get(node)
            if touched is not None:
                self._changed.add(touched)
        while True:
            if self._changed:
                self._renew()
            if self._root is None:
                if not self._classes:
                    raise StopIteration
                self._begin(self._classes.pop(0))
            assert self._root is not None
            leaf = self._root.best
            if leaf is None:  # nobody is left in this class
                self._root = None
                continue
            assert leaf.candidate is not None
            ask_id, shape = leaf.candidate[4:]
            if shape in self._known:
                self._block(shape)
                continue
            ask = self._order._entries[ask_id].ask
            self._last = (leaf, shape, ask)
            return ask

    def _begin(self, urgency: int) -> None:
        """The tournament of one priority class, from the leaves up."""
        self._quotas.drain_touched()
        self._root = _Contest(self._quotas.tree.root, None)
        self._leaves = {}
        self._offering = {}
        self._changed.clear()
        contests: dict[str, _Contest] = {"": self._root}
        tree = self._quotas.tree
        lines = self._order._lines.get(urgency, {})
        for path in lines:
            tree.leaf(path)  # first let all grow: one of them may get children by another
        for path, line in lines.items():
            contest = self._contest(contests, tree.leaf(path))
            contest.line = line
            self._leaves[contest.node] = contest
            self._choose(contest)
        below: dict[_Contest, list[_Contest]] = {}
        for contest in sorted(contests.values(), key=lambda each: -each.node.depth):
            if contest.line is None:
                children = below.get(contest, [])
                for child in children:
                    child.alone = len(children) == 1
                    if child.best is not None:
                        child.entry = self._rank(child)
                        contest.heap.append(child.entry)
                heapify(contest.heap)
                contest.best = contest.heap[0][3].best if contest.heap else None
            if contest.above is not None:
                below.setdefault(contest.above, []).append(contest)

    def _contest(self, contests: dict[str, _Contest], node: Node) -> _Contest:
        found = contests.get(node.path)
        if found is None:
            assert node.parent is not None
            found = contests[node.path] = _Contest(node, self._contest(contests, node.parent))
        return found

    def _rank(self, contest: _Contest) -> _Rank:
        best = contest.best
        assert best is not None and best.candidate is not None
        spot = best.candidate
        share = 0 if contest.alone else self._quotas.key_at(contest.node, self._vectors[spot[5]])
        return (not best.kept, share, spot, contest)

    def _know(self, shape: int) -> None:
        """What an ask of a class counts."""
        if shape not in self._vectors:
            example = self._order._of_shape[shape]
            amounts = amounts_of(example.needs[0], example.num_nodes)
            self._pairs[shape] = self._quotas.tree.pairs(amounts)
            self._vectors[shape] = self._quotas.tree.vector(amounts)

    def _choose(self, leaf: _Contest) -> None:
        """The candidate of a leaf: the first whose class is not blocked."""
        before, found = leaf.candidate, self._first(leaf)
        leaf.candidate = found
        leaf.best = leaf if found is not None else None
        if before is not None and (found is None or found[5] != before[5]):
            offering = self._offering.get(before[5])
            if offering is not None:
                offering.discard(leaf)
        if found is not None:
            shape = found[5]
            if before is None or before[5] != shape:
                self._offering.setdefault(shape, set()).add(leaf)
                self._know(shape)
            if self._quotas.tree.promises:
                leaf.kept = self._quotas.keeps(leaf.node, self._pairs[shape], None)

    def _first(self, leaf: _Contest) -> Spot | None:
        line = leaf.line
        assert line is not None
        if line.path in self._closed:
            return None
        blocked, here = self._blocked, self._blocked_here.get(line.path, ())
        if leaf.passed or line.path in self._sparing:
            return self._first_of(leaf, line)
        # What is blocked stays so: the search goes on where it ended.
        fronts, at = line.fronts, leaf.at
        if at > len(fronts) or (at and fronts[at - 1] is not leaf.skipped):
            at = 0
        while at < len(fronts):
            shape = fronts[at][5]
            if shape not in blocked and shape not in here:
                break
            at += 1
        leaf.at, leaf.skipped = at, fronts[at - 1] if at else None
        return fronts[at] if at < len(fronts) else None

    def _first_of(self, leaf: _Contest, line: _Line) -> Spot | None:
        """The same where asks were passed over, or a class is blocked in other leaves only."""
        here, passed, found = self._blocked_here.get(line.path, ()), leaf.passed, None
        for front in line.fronts:
            shape = front[5]
            if shape in here or (shape in self._blocked and line.path not in self._spared.get(shape, ())):
                continue
            if not passed:
                return front
            if shape in passed:
                row, skip = line.rows[shape], passed[shape]
                if skip >= len(row):
                    continue
                front = row[skip]
            if found is None or front < found:
                found = front
        return found

    def _renew(self) -> None:
        """The candidates or shares of some leaves have changed: their ranks anew, and those above them, each once."""
        leaves, self._changed = self._changed, set()
        for leaf in leaves:
            self._choose(leaf)
        if len(leaves) == 1:
            each = leaf
            while each.above is not None:
                self._set_rank(each, each.above)
                each = each.above
            return
        waiting: dict[int, set[_Contest]] = {}
        for leaf in leaves:
            waiting.setdefault(leaf.node.depth, set()).add(leaf)
        for depth in range(max(waiting), 0, -1):
            above: set[_Contest] = waiting.setdefault(depth - 1, set())
            for each in waiting.get(depth, ()):
                assert each.above is not None
                self._set_rank(each, each.above)
                above.add(each.above)

    def _set_rank(self, contest: _Contest, above: _Contest) -> None:
        """Its entry in the heap above anew, and who is first there."""
        heap, before = above.heap, contest.entry
        rank = self._rank(contest) if contest.best is not None else None
        if rank != before:
            contest.entry = rank
            if rank is None:
                pass
            elif before is not None and heap[0] is before:  # mostly it has just won
                heapreplace(heap, rank)
            else:
                heappush(heap, rank)
        while heap and heap[0][3].entry is not heap[0]:
            heappop(heap)
        above.best = heap[0][3].best if heap else None

    def _pass_over(self) -> None:
        """Nothing was said about the last: others of its class may do better in this pass."""
        assert self._last is not None
        contest, shape, ask = self._last
        self._last = None
        if ask.id in self._order:
            if contest.passed is None:
                contest.passed = {}
            contest.passed[shape] = contest.passed.get(shape, 0) + 1
        self._changed.add(contest)

"""One pass over the pending requests, best first: a tournament down the tree of queues that is updated after
every start.

Each leaf has a candidate, the first of those whose class of asks is not blocked; each queue above it is stood
for by the best of its children (`order` says who that is), in a heap. After a start only the way from its
leaf to the root is worked out anew.

Asks with equal needs are one class of asks: where one does not fit, none does. `Heads` is told so once and
never offers another.

Costs, with L leaves that wait, C classes in a leaf and D levels: a pass begins with O(L x (C + D)); each
answer costs O(D log L + C). A class that is blocked costs its leaves one look each when they come up, however
many asks it has.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping
from heapq import heapify, heappop, heappush, heapreplace
from typing import TYPE_CHECKING

from argosy.scheduler.ask import Ask
from argosy.scheduler.queues import Node, Pairs
from argosy.scheduler.quota import Quotas, amounts_of

if TYPE_CHECKING:
    from argosy.scheduler.order import Line, Order, Spot


class _Contest:
    """A queue in the tournament of one pass: the leaf whose candidate stands for it, and the heap of its
    children's."""

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
        self.line: Line | None = None
        self.candidate: Spot | None = None
        self.kept = False  # the candidate stays within what its queues keep
        self.passed: dict[int, int] | None = None  # asks of a class that were passed over
        self.at = 0  # the fronts of the line before this one are blocked,
        self.skipped: Spot | None = None  # as long as this is the last of them


_Rank = tuple[bool, int, "Spot", "_Contest"]  # borrows, share, place


class Heads(Iterator[Ask]):
    """One pass: iterate, and say after each ask what became of it. Nothing said: it was passed over.

    Shares are taken anew whenever the books of `quotas` change, also by refunds. Asks added during a pass
    come in the next.
    """

    def __init__(self, order: Order, quotas: Quotas, blocked: Collection[int]) -> None:
        self._order = order
        self._quotas = quotas
        self._known = blocked
        self._blocked: set[int] = set()  # classes
        self._blocked_here: dict[str, set[int]] = {}  # by leaf
        self._spared: dict[int, frozenset[str]] = {}  # leaves in which a class is not blocked
        self._sparing: set[str] = set()  # all leaves of `_spared`
        self._over = False  # only in leaves of `_sparing` is anybody left
        self._closed: set[str] = set()
        self._vectors: dict[int, tuple[int, ...]] = {}
        self._pairs: dict[int, Pairs] = {}
        self._classes = sorted(order._lines)
        self._root: _Contest | None = None
        self._leaves: dict[Node, _Contest] = {}
        self._last: tuple[_Contest, int, Ask] | None = None
        self._changed: set[_Contest] = set()  # leaves whose candidate is to be found anew
        self._offering: dict[int, set[_Contest]] = {}  # leaves by the class of their candidate
        self._gaps: dict[
            Node, list[int]
        ] = {}  # what queues keep for those below them and is not used, as it was seen last
        self._below: dict[Node, list[_Contest]] = {}  # leaves below such a queue

    # --- answers of the caller

    def started(self, ask: Ask) -> None:
        """It has started and was charged, so it is not pending any more."""
        self._order.remove(ask.id)
        self._again(ask)

    def skip_class(self, ask: Ask, *, but: Collection[str] = ()) -> None:
        """Nothing with these needs can start in this pass, in any queue. `but`: other leaves whose first of
        this class is to be looked at all the same."""
        self._block(self._order.shape(ask), frozenset(but) - {ask.queue})
        self._again(ask)

    def skip_classes(self, classes: Mapping[int, Collection[str]]) -> None:
        """`skip_class` for many at once, each with the leaves in which it is looked at all the same. Where
        that leaves nothing else to look at, the pass is nearly over."""
        for shape, but in classes.items():
            self._block(shape, frozenset(but))
        self._over = all(shape in self._blocked for shape, _, _ in self._order.classes())

    def is_blocked(self, shape: int) -> bool:
        """Whether a class has been skipped in all queues, those that were spared aside."""
        return shape in self._blocked

    def skip_here(self, ask: Ask) -> None:
        """Nothing with these needs can start from this queue in this pass."""
        self._blocked_here.setdefault(ask.queue, set()).add(self._order.shape(ask))
        self._again(ask)

    def close(self, ask: Ask) -> None:
        """Nothing more can start from this queue in this pass, because its order is strict."""
        self._closed.add(ask.queue)
        self._again(ask)

    def _block(self, shape: int, but: frozenset[str] = frozenset()) -> None:
        self._blocked.add(shape)
        self._spared[shape] = but
        self._sparing |= but
        offering = self._offering.pop(shape, set())
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
            self._touch(node)
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

    def _touch(self, node: Node) -> None:
        """The books of a leaf have changed: its share, and what the queues above it still keep for all that
        are below them."""
        touched = self._leaves.get(node)
        if touched is not None:
            self._changed.add(touched)
        if not self._quotas.tree.promises:
            return
        keeper, at = None, node
        while at.parent is not None:
            if any(at.kept):
                gaps = [
                    kept - used if kept > used else 0 for kept, used in zip(at.kept, at.sums, strict=True)
                ]
                if self._gaps.get(at) != gaps:
                    self._gaps[at] = gaps
                    keeper = at
            at = at.parent
        if keeper is None or keeper is node:
            return
        below = self._below.get(keeper)
        if below is None:
            path = f"{keeper.path}/"
            below = self._below[keeper] = [
                leaf for other, leaf in self._leaves.items() if other.path.startswith(path)
            ]
        for leaf in below:
            if leaf.candidate is not None and leaf.kept != self._keeps(leaf, leaf.candidate):
                self._changed.add(leaf)

    def _keeps(self, leaf: _Contest, spot: Spot) -> bool:
        return self._quotas.keeps(leaf.node, self._pairs[spot[5]], None)

    def _begin(self, urgency: int) -> None:
        """The tournament of one priority class, from the leaves up."""
        self._quotas.drain_touched()
        self._root = _Contest(self._quotas.tree.root, None)
        self._leaves = {}
        self._offering, self._gaps, self._below = {}, {}, {}
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
                leaf.kept = self._keeps(leaf, found)

    def _first(self, leaf: _Contest) -> Spot | None:
        line = leaf.line
        assert line is not None
        if line.path in self._closed or (self._over and line.path not in self._sparing):
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

    def _first_of(self, leaf: _Contest, line: Line) -> Spot | None:
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
        """The candidates or shares of some leaves have changed: their ranks anew, and those above them, each
        once."""
        leaves, self._changed = self._changed, set()
        if len(leaves) == 1:
            each = leaves.pop()
            self._choose(each)
            while each.above is not None:
                self._set_rank(each, each.above)
                self._settle(each.above)
                each = each.above
            return
        deepest = max(leaf.node.depth for leaf in leaves)
        waiting: list[set[_Contest]] = [set() for _ in range(deepest + 1)]  # by depth
        for leaf in leaves:
            assert leaf.line is not None and leaf.above is not None
            if self._over and leaf.line.path not in self._sparing:
                leaf.candidate = leaf.best = leaf.entry = None
                waiting[leaf.node.depth - 1].add(leaf.above)
            else:
                self._choose(leaf)
                waiting[leaf.node.depth].add(leaf)
        for depth in range(deepest, -1, -1):
            for each in waiting[depth]:
                if each.line is None:
                    self._settle(each)
                if each.above is not None:
                    self._set_rank(each, each.above)
                    waiting[depth - 1].add(each.above)

    def _set_rank(self, contest: _Contest, above: _Contest) -> None:
        """Its entry in the heap above anew."""
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

    def _settle(self, contest: _Contest) -> None:
        """Who is first among its children."""
        heap = contest.heap
        while heap and heap[0][3].entry is not heap[0]:
            heappop(heap)
        contest.best = heap[0][3].best if heap else None

    def _pass_over(self) -> None:
        """Nothing was reported about the last one: others of its class may still start in this pass."""
        assert self._last is not None
        contest, shape, ask = self._last
        self._last = None
        if ask.id in self._order:
            if contest.passed is None:
                contest.passed = {}
            contest.passed[shape] = contest.passed.get(shape, 0) + 1
        self._changed.add(contest)

"""The tree of queues: what each uses, what may start in it, which comes first, and which must give back.

    root = everything the pool has
      acme            deserved 64 GPUs
        acme/vision     guaranteed 8, deserved 32, limit 48
          acme/vision/ann   nobody wrote about her: a leaf of weight 1 that deserves nothing and may borrow

Four questions, asked in this order before something starts:

    over(leaf, amounts)   would a `limit` on the way up be passed?
    lack(leaf, amounts)   is it within what the queues on the way up own, or do others lend it?
    key(path, amounts)    how much does a queue borrow afterwards? The smallest goes first
    may_reclaim(…)        may a running job of that queue be ended for it?

**Lending.** A queue keeps to itself `guaranteed`, or `deserved` less `lend_limit` where that is more. In the
account of its parent it takes up the larger of what it keeps and what its subtree takes up; something may
start when the account of the root stays within the capacity. So what a queue keeps is there for it at any
moment, whatever others do, and the rest is lent whole.

**Share.** What a queue uses above `deserved`, divided by what its parent has to lend and by its weight; of
several resources the largest (dominant resource fairness: Ghodsi et al., NSDI 2011; in trees: Bhattacharya et
al., SoCC 2013; with lending: Kueue's fair sharing). Siblings have one common denominator, so shares are
compared as integers and nothing is rounded.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from fractions import Fraction

import msgspec

from argosy.model.tenancy import Amounts, QueueUsage, Tenancy
from argosy.scheduler.ask import Need
from argosy.scheduler.fair import fair_shares
from argosy.scheduler.queue_history import Span, decay, fade, recall, ticks_at
from argosy.scheduler.queues import GPUS, OWN, UNIT_MILLI, Node, Pairs, QueueTree
from argosy.scheduler.tenancy_check import check_tenancy, leaf_of, render_named, say_amount

__all__ = ["Lack", "Over", "Quotas", "Span", "amounts_of", "check_tenancy", "leaf_of"]


class Held(msgspec.Struct, frozen=True, gc=False):
    """What one holder uses, and where."""

    leaf: Node
    amounts: Amounts
    pairs: Pairs


def amounts_of(need: Need, num_nodes: int, model: str | Mapping[str, int] = "") -> Amounts:
    """What a gang counts: all its ranks together, and one job.

    `model`: of the devices that it got; of several models milli-GPU for each. Before it has a place only a
    need with a single model counts for that model.
    """
    amounts: Amounts = {"jobs": 1}
    if need.cpus_milli:
        amounts["cpus"] = need.cpus_milli * num_nodes
    if need.memory_bytes:
        amounts["memory"] = need.memory_bytes * num_nodes
    if need.gpu_milli:
        amounts["gpus"] = gpus = need.gpu_milli * num_nodes
        known = model or (need.models[0] if len(need.models) == 1 else "")
        if isinstance(known, str):
            known = {known: gpus} if known else {}
        for each, milli in known.items():
            amounts[f"gpus/{each}"] = milli
    return amounts


class Over(msgspec.Struct, frozen=True, kw_only=True):
    """A limit that would be passed."""

    path: str
    name: str
    used: int
    asked: int
    limit: int

    @property
    def by(self) -> int:
        return self.used + self.asked - self.limit

    def render(self) -> str:
        """
        >>> Over(path="acme/vision", name="gpus", used=28000, asked=8000, limit=32000).render()
        'queue acme/vision: 28 + 8 > 32 GPUs, over by 4'
        """
        used, asked, by = (render_named(self.name, amount) for amount in (self.used, self.asked, self.by))
        return f"queue {self.path}: {used} + {asked} > {say_amount(self.name, self.limit)}, over by {by}"


class Lack(msgspec.Struct, frozen=True, kw_only=True):
    """What nobody lends. `free`: what could still be had of it, at `path` or beyond; `kept`: what other
    queues keep unused."""

    path: str  # of the queue that asks
    name: str
    asked: int
    free: int
    kept: int

    def render(self) -> str:
        """
        >>> Lack(path="acme/nlp", name="gpus", asked=8000, free=2000, kept=6000).render()
        'queue acme/nlp asks for 8 GPUs, 2 can be had; 6 more are kept for other queues'
        """
        free, kept = (render_named(self.name, amount) for amount in (self.free, self.kept))
        text = f"queue {self.path} asks for {say_amount(self.name, self.asked)}, {free} can be had"
        verb = "is" if self.kept == 1000 else "are"
        return f"{text}; {kept} more {verb} kept for other queues" if self.kept else text


class Quotas:
    """Books of one pool. Every charge and refund is exact and can be taken back as a whole (`mark`,
    `rollback`).

    `owner`: as in `QueueTree`. A charge takes O(depth x names), a question as much.
    """

    def __init__(self, tenancy: Tenancy, capacity: Amounts, *, owner: str = "") -> None:
        self.tenancy = tenancy
        self.tree = QueueTree(tenancy, capacity, owner=owner)
        self._held: dict[str, Held] = {}
        self._journal: list[tuple[str, Held, bool]] = []  # the last: it was charged, not refunded
        self._touched: set[Node] = set()
        self._ticks: int | None = None  # of history: 4096 in a half-life, from the epoch on
        self._half_life_ms = tenancy.policy.half_life_s * 1000

    @property
    def capacity(self) -> Amounts:
        return self.tree.capacity

    def set_capacity(self, capacity: Amounts) -> None:
        """The pool has grown or shrunk. O(queues x names)."""
        if capacity != self.tree.capacity:
            self.tree.set_capacity(capacity)
            self._touched.update(node for node in self.tree.nodes.values() if not node.children)

    # --- books

    def charge(self, holder: str, leaf: str, amounts: Amounts) -> None:
        """`holder` uses `amounts` in `leaf` from now on. ValueError when it already holds something."""
        if holder in self._held:
            raise ValueError(f"{holder} is charged already")
        held = self._held[holder] = Held(self.tree.leaf(leaf), amounts, self.tree.pairs(amounts))
        self._book(held.leaf, held.pairs, 1)
        self._journal.append((holder, held, True))

    def refund(self, holder: str) -> None:
        """`holder` uses nothing any more. Who holds nothing may be refunded as often as one likes."""
        held = self._held.pop(holder, None)
        if held is not None:
            self._book(held.leaf, held.pairs, -1)
            self._journal.append((holder, held, False))

    def _book(self, leaf: Node, pairs: Pairs, sign: int) -> None:
        if leaf.children:  # it was a leaf when it was charged
            leaf = self.tree.leaf_below(leaf)
        self._touched.add(leaf)
        changes = pairs if sign > 0 else [(i, -amount) for i, amount in pairs]
        node: Node | None = leaf
        if not self.tree.promises:  # where nobody keeps anything, what is taken up is what is used
            while node is not None:
                used, sums = node.used, node.sums
                for i, change in changes:
                    used[i] = sums[i] = used[i] + change
                node.running += sign
                node = node.parent
            return
        while node is not None:
            used = node.used
            for i, change in changes:
                used[i] += change
            node.running += sign
            node = node.parent
        rest = list(changes)
        node = leaf
        while node is not None and rest:
            sums, kept, passed = node.sums, node.kept, []
            for i, change in rest:
                before = sums[i]
                sums[i] = after = before + change
                keeps = kept[i]
                change = (after if after > keeps else keeps) - (before if before > keeps else keeps)
                if change:
                    passed.append((i, change))
            rest = passed
            node = node.parent

    def mark(self) -> int:
        """A point to come back to."""
        return len(self._journal)

    def rollback(self, mark: int) -> None:
        """Take back everything since `mark`, the last first."""
        while len(self._journal) > mark:
            holder, held, charged = self._journal.pop()
            if charged:
                del self._held[holder]
                self._book(held.leaf, held.pairs, -1)
            else:
                self._held[holder] = held
                self._book(held.leaf, held.pairs, 1)

    def settle(self) -> None:
        """What was done stays done: marks are void."""
        self._journal.clear()

    def holds(self, holder: str) -> bool:
        return holder in self._held

    def held(self, holder: str) -> Held | None:
        return self._held.get(holder)

    def used(self, path: str) -> Amounts:
        """What runs in a queue and below it, by name; zeros are left out."""
        node = self.tree.nodes.get(path)
        return {} if node is None else self.tree.named(node.used)

    # --- may it start?

    def over(self, leaf: str, amounts: Amounts) -> Over | None:
        """The first limit on the way up that would be passed."""
        node = self.tree.leaf(leaf)
        return None if node.unlimited else self.over_at(node, self.tree.pairs(amounts))

    def over_at(self, node: Node, pairs: Pairs) -> Over | None:
        if node.unlimited:
            return None
        asked = dict(pairs)
        at: Node | None = node
        while at is not None:
            for i, most in at.limits:
                want = asked.get(i, 0)
                if want and at.used[i] + want > most:
                    return Over(
                        path=at.path, name=self.tree.names[i], used=at.used[i], asked=want, limit=most
                    )
            at = at.parent
        return None

    def spare(self, leaf: str, name: str) -> int:
        """How much more of one amount the limits on the way up allow."""
        ((i, _),) = self.tree.pairs({name: 1})
        node: Node | None = self.tree.leaf(leaf)
        left = 1 << 62
        while node is not None:
            for at, most in node.limits:
                if at == i:
                    left = min(left, most - node.used[i])
            node = node.parent
        return max(0, left)

    def never(self, leaf: str, amounts: Amounts, *, refusing: bool = False) -> Over | None:
        """The limit that these amounts pass even when nothing runs. `refusing`: only of queues that refuse
        such jobs."""
        asked = dict(self.tree.pairs(amounts))
        at: Node | None = self.tree.leaf(leaf)
        while at is not None:
            for i, most in at.limits:
                if asked.get(i, 0) > most and (at.queue.refuse_over_limit or not refusing):
                    return Over(path=at.path, name=self.tree.names[i], used=0, asked=asked[i], limit=most)
            at = at.parent
        return None

    def lends(self, leaf: str, amounts: Amounts) -> bool:
        """Whether it fits within what the queues on the way up keep, or others lend the rest."""
        return self.lack(leaf, amounts) is None

    def lack(self, leaf: str, amounts: Amounts) -> Lack | None:
        """What nobody lends, or None. Names that the pool does not have are not counted here."""
        node = self.tree.leaf(leaf)
        return self._lack(node, self.tree.pairs(amounts))

    def _lack(self, leaf: Node, pairs: Pairs) -> Lack | None:
        for i, asked in pairs:
            name = self.tree.names[i]
            most = self.capacity.get(name)
            if most is None or name == "jobs":
                continue
            change = asked
            node: Node | None = leaf
            spare = 0  # what the queues on the way up keep, unused
            while node is not None and node.parent is not None and change > 0:
                gap = node.kept[i] - node.sums[i]
                if gap > 0:
                    spare += min(gap, change)
                    change = max(0, change - gap)
                node = node.parent
            if change > 0 and self.tree.root.sums[i] + change > most:
                free = max(0, most - self.tree.root.sums[i])
                kept = max(0, self.tree.root.sums[i] - self.tree.root.used[i] - spare)
                return Lack(path=leaf.path, name=name, asked=asked, free=free + spare, kept=kept)
        return None

    # --- shares

    def key(self, path: str, amounts: Amounts) -> int:
        """How much a queue borrows once it has `amounts` more. The smallest of siblings goes first.

        0: within what it deserves; above: its share, half now and half as it was lately (decayed, see
        `advance`). A numerator over a denominator that all children of one queue have in common.
        """
        node = self.tree.nodes.get(path) or self.tree.leaf(path)
        return self.key_at(node, self.tree.vector(amounts))

    def key_at(self, node: Node, vector: Sequence[int]) -> int:
        used, deserved, unit, history = node.used, node.deserved, node.borrows_of, node.history
        best = 0
        borrows = False
        for i in node.counted:
            above = used[i] + vector[i] - deserved[i]
            if above > 0:
                borrows = True
            else:
                above = 0
            share = (above + history[i]) * unit[i]
            if share > best:
                best = share
        return best if borrows else 0

    def share_at(self, node: Node, change: Mapping[int, int]) -> int:
        """Its share now, with `change` more (or less): a numerator as in `key`, without history."""
        best = 0
        for i in node.counted:
            above = node.used[i] + change.get(i, 0) - node.deserved[i]
            if above > 0:
                best = max(best, above * node.borrows_of[i])
        return best

    def share(self, path: str) -> Fraction:
        """What a queue borrows of what its parent can lend, per weight of 1."""
        node = self.tree.nodes.get(path)
        if node is None or node.parent is None:
            return Fraction(0)
        return Fraction(self.share_at(node, {}) * UNIT_MILLI, node.parent.scale)

    def advance(self, now_ms: int) -> None:
        """Let what was borrowed fade: half of it after each `half_life_s`, in steps of a 4096th. Exact
        integers.

        Called at the start of a cycle; what happens between two steps is seen as it stands at the later one.
        """
        now = ticks_at(now_ms, self._half_life_ms)
        passed = 0 if self._ticks is None else now - self._ticks
        self._ticks = now
        if passed > 0:
            remains = decay(passed)
            for node in self.tree.nodes.values():
                fade(node, node.used, remains)

    def recall(self, spans: Iterable[Span], now_ms: int) -> None:
        """What was borrowed lately, from records of who used what: as if `advance` had been called whenever
        one of them began or ended, with the queues and the capacity of today. What was known of it before is
        replaced. O(spans x depth x names).
        """
        self._ticks = recall(self.tree, spans, now_ms, self._half_life_ms)

    # --- who must give back

    def below_guarantee(self, leaf: str, amounts: Amounts) -> bool:
        """Whether `amounts` stay within what the queues on the way up keep for themselves: nobody else has a
        right to it."""
        return self.keeps(self.tree.leaf(leaf), self.tree.pairs(amounts), None)

    def keeps(self, leaf: Node, pairs: Pairs, top: Node | None) -> bool:
        """The same as far as `top` (None: below the root): everything that is asked of names that any queue
        on the way keeps, and of GPUs, when any are asked, there must be such a queue: who has CPUs guaranteed
        has no right to GPUs by that.
        """
        inside: set[int] = set()
        asks_gpus = False
        for i, change in pairs:
            asks_gpus = asks_gpus or i == GPUS
            promised = False
            node = leaf
            while True:
                if node.kept[i]:
                    promised = True
                    gap = node.kept[i] - node.sums[i]
                    if gap > 0:
                        change -= gap
                if node is top or change <= 0 or node.parent is None:
                    break
                node = node.parent
            if promised:
                if change > 0:
                    return False
                inside.add(i)
        return GPUS in inside if asks_gpus else bool(inside)

    # --- for order and people

    def drain_touched(self) -> set[Node]:
        """Leaves whose books have changed since the last call."""
        touched = self._touched
        if touched:
            self._touched = set()
        return touched

    def successor(self, tenancy: Tenancy, *, owner: str | None = None) -> Quotas:
        """The same books under another tenancy: who holds what, and what was borrowed lately."""
        new = Quotas(tenancy, self.capacity, owner=self.tree.owner if owner is None else owner)
        for holder, held in self._held.items():
            new.charge(holder, held.leaf.path.removesuffix(f"/{OWN}"), held.amounts)
        new.settle()
        if new._half_life_ms == self._half_life_ms:
            new._ticks = self._ticks
        for path, node in self.tree.nodes.items():
            if any(node.history_fine):
                new.tree.leaf(path)
                at = new.tree.nodes[path]
                for i, fine in new.tree.pairs(self.tree.named(node.history_fine)):
                    at.history_fine[i], at.history[i] = fine, fine >> 32
        return new

    def rows(self, waiting: Mapping[str, Amounts] | None = None) -> tuple[QueueUsage, ...]:
        """Every queue that is named or in use, from the root down, siblings by path.

        `waiting`: what waits, by path of its leaf (`Order.wanted`); then each row says what would be fair
        now.
        """
        fair: Mapping[str, Amounts] = {}
        if waiting is not None:
            wanted = {path: dict(amounts) for path, amounts in waiting.items()}
            for held in self._held.values():
                row = wanted.setdefault(held.leaf.path, {})
                for name, amount in held.amounts.items():
                    row[name] = row.get(name, 0) + amount
            fair = fair_shares(self.tree, wanted)
        return tuple(self._rows(self.tree.root, fair))

    def _rows(self, node: Node, fair: Mapping[str, Amounts]) -> Iterable[QueueUsage]:
        named = node.path in self.tree.written
        if node.parent is not None and (named or node.running or any(fair.get(node.path, {}).values())):
            yield QueueUsage(
                path=node.path,
                guaranteed=node.queue.guaranteed,
                deserved=node.queue.deserved,
                limit=node.queue.limit,
                used=self.tree.named(node.used),
                fair=fair.get(node.path, {}),
                running=node.running,
                weight_milli=node.queue.weight_milli,
                share_milli=int(self.share(node.path) * 1000),
            )
        for path in sorted(node.children):
            yield from self._rows(node.children[path], fair)

"""The tree of queues in numbers: who is below whom, what each has in this pool, and what one unit counts in
its share.

**What nobody wrote.** A queue that names what it deserves of one resource deserves the same part of the CPUs,
memory and GPUs that it does not name: who deserves a quarter of the GPUs is no borrower for using a quarter
of the CPUs with them. Of single models (`gpus/A100`) only what is named counts. An inner queue that names
nothing has what its children have together. A path that no queue names is a leaf of weight 1 that deserves
nothing; it exists as soon as it is mentioned. A job that names a queue with children counts in a leaf `-`
below it.

**What a queue keeps** is never lent: `guaranteed`, or `deserved` less `lend_limit` where that is more.

**What it has to lend to its children**: what it deserves less what they keep; where that is nothing, what its
own parent has to lend.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from fractions import Fraction
from math import lcm
from typing import Final

from argosy.model.tenancy import Amounts, Queue, Tenancy
from argosy.scheduler.tenancy_check import parent_of

ALWAYS: Final = ("cpus", "memory", "gpus", "jobs")  # the first indices of every list of amounts
GPUS: Final = 2
JOBS: Final = 3
UNIT_MILLI: Final = 1000  # weight of what nobody wrote about
OWN: Final = "-"  # leaf for the jobs that name a queue with children
_SHARED: Final = (0, 1, 2)  # jobs are counted, not shared
PAIRS_MAX: Final = 4096  # different amounts that are remembered by index

Pairs = Sequence[tuple[int, int]]  # index of a name, amount


class Node:
    """One queue with its books. Lists are by the index of the name."""

    __slots__ = (
        "borrows_of",
        "children",
        "counted",
        "depth",
        "deserved",
        "guaranteed",
        "history",
        "history_fine",
        "kept",
        "lendable",
        "limits",
        "parent",
        "path",
        "queue",
        "running",
        "scale",
        "sums",
        "unlimited",
        "used",
    )

    def __init__(self, path: str, parent: Node | None, queue: Queue | None, size: int) -> None:
        self.path = path
        self.parent = parent
        self.depth: int = parent.depth + 1 if parent else 0
        self.queue = queue or Queue(path=path)
        self.children: dict[str, Node] = {}
        self.running = 0
        self.limits: tuple[tuple[int, int], ...] = ()
        self.unlimited = True  # this and what is above it has no limit at all
        self.guaranteed = [0] * size
        self.deserved = [0] * size
        self.kept = [0] * size  # never lent
        self.used = [0] * size
        self.sums = [0] * size  # what the children (of a leaf: its jobs) take up here
        self.history = [0] * size  # what it has borrowed lately: decayed mean
        self.history_fine = [0] * size  # the same with 32 binary places
        self.lendable = [0] * size  # what it has for its children to borrow
        self.scale = 1  # common denominator of its children's shares
        self.borrows_of = [0] * size  # its own share of one unit, as a numerator over the parent's scale
        self.counted: tuple[int, ...] = ()  # names that its share counts


class QueueTree:
    """The queues of one pool as nodes. `owner`: the queue that the pool itself belongs to ("": to all). What
    the owner and those above it may have was counted when they got the pool, so their quotas do not count
    inside; queues beside the owner deserve nothing of it; the limits of others do count.
    """

    def __init__(self, tenancy: Tenancy, capacity: Amounts, *, owner: str = "") -> None:
        self.owner = owner
        named = {name for queue in tenancy.queues for name in _names_in(queue)}
        self.names = [*ALWAYS, *sorted(named.difference(ALWAYS))]
        self._index = {name: place for place, name in enumerate(self.names)}
        self.width = len(self.names)  # of vectors; names that come later have no quotas
        self.written = {queue.path: queue for queue in tenancy.queues}
        self.root = Node("", None, None, self.width)
        self.nodes: dict[str, Node] = {"": self.root}
        self.capacity: Amounts = {}
        self.promises = False  # some queue keeps something for itself; else `sums` is `used` everywhere
        self._known: dict[tuple[tuple[str, int], ...], Pairs] = {}
        self._ready = False
        for queue in sorted(tenancy.queues, key=lambda each: each.path):
            self._grow(queue.path)
        self._ready = True
        self.set_capacity(capacity)

    def _grow(self, path: str) -> Node:
        found = self.nodes.get(path)
        if found is not None:
            return found
        parent = self._grow(parent_of(path))
        if (
            parent.running and not parent.children
        ):  # a leaf gets children: its jobs count in a leaf of their own from now on
            own = self.leaf_below(parent)
            own.used, own.sums, own.running = list(parent.used), list(parent.sums), parent.running
        return self._sprout(path, parent)

    def _sprout(self, path: str, parent: Node) -> Node:
        node = Node(path, parent, self.written.get(path), len(self.names))
        self.nodes[path] = parent.children[path] = node
        if self._ready:  # nobody wrote about it: its siblings' shares stay as they are
            self._entitle(node)
            self._unit_shares(parent, node)
            self._weigh(node)
        return node

    def leaf_below(self, node: Node) -> Node:
        """Where jobs count that name a queue with children: a leaf below it."""
        path = f"{node.path}/{OWN}" if node.path else OWN
        return node.children.get(path) or self._sprout(path, node)

    def leaf(self, path: str) -> Node:
        """The leaf that a job of `path` counts in; of a queue with children that is `path/-`."""
        node = self.nodes.get(path) or self._grow(path)
        return self.leaf_below(node) if node.children or node.parent is None else node

    # --- what quotas mean in this pool

    def set_capacity(self, capacity: Amounts) -> None:
        """The pool has grown or shrunk. O(queues x names)."""
        self.capacity = dict(capacity)
        self._entitle(self.root)
        self._weigh_down(self.root)
        self.promises = any(any(node.kept) for node in self.nodes.values())

    def _standing(self, path: str) -> str:
        """inside the owner's subtree | above (the owner itself, too) | beside."""
        if not self.owner or path.startswith(f"{self.owner}/"):
            return "inside" if path else "above"
        return "above" if not path or f"{self.owner}/".startswith(f"{path}/") else "beside"

    def _entitle(self, node: Node) -> None:
        """`guaranteed`, `deserved`, `kept` and `limits` of a node and what is below it, from the leaves
        up."""
        for child in node.children.values():
            self._entitle(child)
        size = len(self.names)
        children = node.children.values()
        standing = self._standing(node.path)
        guaranteed = [sum(child.guaranteed[i] for child in children) for i in range(size)]
        deserved = [sum(child.deserved[i] for child in children) for i in range(size)]
        kept = [0] * size
        node.counted = _SHARED
        queue = node.queue
        if standing == "inside":
            for name, amount in queue.guaranteed.items():
                guaranteed[self._index[name]] = amount
            models = sum(amount for name, amount in queue.guaranteed.items() if name.startswith("gpus/"))
            guaranteed[GPUS] = max(guaranteed[GPUS], models)
            for i, amount in self._deserved(queue):
                deserved[i] = amount if self.names[i] in queue.deserved else max(deserved[i], amount)
            for i in range(size):
                deserved[i] = max(deserved[i], guaranteed[i])
                lend = queue.lend_limit.get(self.names[i])
                kept[i] = guaranteed[i] if lend is None else max(guaranteed[i], deserved[i] - lend)
            node.counted += tuple(i for i in range(4, size) if self.names[i] in queue.deserved)
        elif standing == "above":
            node.counted = ()  # its own pool: it borrows nothing
            deserved = [self.capacity.get(name, 0) for name in self.names]
        node.guaranteed, node.deserved, node.kept = guaranteed, deserved, kept
        node.limits = (
            ()
            if standing == "above"
            else tuple((self._index[name], most) for name, most in queue.limit.items())
        )
        self._total(node)

    def _deserved(self, queue: Queue) -> Iterator[tuple[int, int]]:
        """What a queue deserves, with the same part of what it does not name."""
        named = dict(queue.deserved)
        for name, amount in queue.guaranteed.items():
            named[name] = max(named.get(name, 0), amount)
        models = sum(amount for name, amount in named.items() if name.startswith("gpus/"))
        if models and "gpus" not in named:
            named["gpus"] = models
        parts = [
            Fraction(named[name], self.capacity[name])
            for name in ("gpus", "cpus", "memory")
            if name in named and self.capacity.get(name)
        ]
        for i in _SHARED:
            name = self.names[i]
            if parts and name not in named and self.capacity.get(name):
                named[name] = int(max(parts) * self.capacity[name])
        return ((self._index[name], amount) for name, amount in named.items())

    def _total(self, node: Node) -> None:
        """`sums` anew from what is below: what the children take up, or what the jobs of a leaf use."""
        if node.children:
            rows = list(node.children.values())
            node.sums = [sum(max(row.kept[i], row.sums[i]) for row in rows) for i in range(len(self.names))]
        else:
            node.sums = list(node.used)

    def _weigh_down(self, node: Node) -> None:
        self._weigh(node)
        for child in node.children.values():
            self._unit_shares(node, child)
            self._weigh_down(child)

    def _weigh(self, node: Node) -> None:
        """What the children of a node may borrow, and the common denominator of their shares."""
        children = node.children.values()
        above = node.parent.lendable if node.parent else [0] * len(self.names)
        for i, name in enumerate(self.names):
            kept = sum(child.kept[i] for child in children)
            own = 0 if name == "jobs" else node.deserved[i]
            node.lendable[i] = own - kept if own > kept else above[i] or own
        node.scale = lcm(*(amount for amount in node.lendable if amount > 0)) * lcm(
            UNIT_MILLI, *{child.queue.weight_milli for child in children}
        )

    def _unit_shares(self, node: Node, child: Node) -> None:
        weight = child.queue.weight_milli
        child.borrows_of = [
            node.scale // (amount * weight) if amount > 0 and i in child.counted else 0
            for i, amount in enumerate(node.lendable)
        ]
        child.counted = tuple(i for i in child.counted if child.borrows_of[i])
        child.unlimited = node.unlimited and not child.limits

    def pairs(self, amounts: Mapping[str, int]) -> Pairs:
        """Amounts by index. A name that is new gets a place."""
        key = tuple(amounts.items())
        known = self._known.get(key)
        if known is not None:
            return known
        pairs = []
        for name, amount in amounts.items():
            place = self._index.get(name)
            if place is None:
                place = self._index[name] = len(self.names)
                self.names.append(name)
                for node in self.nodes.values():
                    for row in (node.guaranteed, node.deserved, node.kept, node.used, node.sums):
                        row.append(0)
                    for row in (node.history, node.history_fine, node.lendable, node.borrows_of):
                        row.append(0)
            if amount:
                pairs.append((place, amount))
        if len(self._known) == PAIRS_MAX:
            self._known.clear()
        known = self._known[key] = tuple(pairs)
        return known

    def vector(self, amounts: Mapping[str, int]) -> tuple[int, ...]:
        """Amounts by index, all of them, for shares."""
        return tuple(amounts.get(name, 0) for name in self.names[: self.width])

    def named(self, row: Sequence[int]) -> Amounts:
        """Amounts by name; zeros are left out."""
        return {name: amount for name, amount in zip(self.names, row, strict=True) if amount}


def _names_in(queue: Queue) -> Iterator[str]:
    for amounts in (queue.guaranteed, queue.deserved, queue.limit, queue.lend_limit):
        yield from amounts


def children_of_lowest(one: Node, two: Node) -> tuple[Node, Node]:
    """Of two leaves: the children of the lowest node above both that they are below."""
    while one.depth > two.depth and one.parent is not None:
        one = one.parent
    while two.depth > one.depth and two.parent is not None:
        two = two.parent
    while one.parent is not two.parent:
        assert one.parent is not None and two.parent is not None
        one, two = one.parent, two.parent
    return one, two

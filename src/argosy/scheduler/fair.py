"""The fair share of each queue now, if everything could be divided exactly: the figure that people compare
their usage with.

Down the tree, for each resource by itself: every child gets what it wants of what it deserves; what is left
beyond that, and beyond what idle queues keep for themselves, is divided by weight among those who want more,
nobody getting more than it wants (the two steps of NVIDIA's KAI scheduler; the second is weighted max-min
fairness). Integers; what division leaves over goes by the largest remainder, then by path.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from fractions import Fraction

from argosy.model.tenancy import Amounts
from argosy.scheduler.queues import JOBS, Node, QueueTree


def fair_shares(tree: QueueTree, wanted: Mapping[str, Amounts]) -> dict[str, Amounts]:
    """By path of every queue below the root. `wanted`: what each leaf uses and waits for, together, by path
    of the leaf."""
    wants: dict[Node, list[int]] = {}
    for path, amounts in sorted(wanted.items()):
        leaf = tree.leaf(path)
        row = wants.setdefault(leaf, [0] * tree.width)
        for i, amount in tree.pairs(amounts):
            if i < tree.width:
                row[i] += amount
    _sum_up(tree.root, wants, tree.width)
    result: dict[str, Amounts] = {}
    gets = [tree.capacity.get(name, 0) for name in tree.names[: tree.width]]
    _divide(tree, tree.root, gets, wants, result)
    return result


def _sum_up(node: Node, wants: dict[Node, list[int]], width: int) -> list[int]:
    """What a queue wants: what its children want together, within its limit."""
    row = wants.get(node) or [0] * width
    for child in node.children.values():
        row = [mine + more for mine, more in zip(row, _sum_up(child, wants, width), strict=True)]
    for i, most in node.limits:
        row[i] = min(row[i], most)
    wants[node] = row
    return row


def _divide(
    tree: QueueTree,
    node: Node,
    gets: Sequence[int],
    wants: Mapping[Node, list[int]],
    result: dict[str, Amounts],
) -> None:
    if node.parent is not None:
        result[node.path] = {
            name: amount
            for i, (name, amount) in enumerate(zip(tree.names, gets, strict=False))
            if amount and i != JOBS
        }
    children = [node.children[path] for path in sorted(node.children)]
    if not children:
        return
    rows = [[0] * tree.width for _ in children]
    for i in range(tree.width):
        want = [wants[child][i] for child in children]
        parts = divide(
            gets[i],
            want,
            deserved=[child.deserved[i] for child in children],
            kept=[child.kept[i] for child in children],
            weights=[child.queue.weight_milli for child in children],
        )
        for row, part in zip(rows, parts, strict=True):
            row[i] = part
    for child, row in zip(children, rows, strict=True):
        _divide(tree, child, row, wants, result)


def divide(
    amount: int,
    wanted: Sequence[int],
    *,
    deserved: Sequence[int],
    kept: Sequence[int],
    weights: Sequence[int],
) -> list[int]:
    """Parts of `amount`, none above what is wanted: first what is kept, then what is deserved, then the rest
    by weight.

    >>> divide(100, [60, 10, 60], deserved=[20, 20, 0], kept=[0, 0, 0], weights=[1, 1, 1])
    [55, 10, 35]
    """
    first = [min(each) for each in zip(wanted, kept, strict=True)]
    parts = by_weight(amount, first, first)
    idle = sum(max(0, mine - part) for mine, part in zip(kept, parts, strict=True))
    rights = [
        min(want, due) - part if min(want, due) > part else 0
        for want, due, part in zip(wanted, deserved, parts, strict=True)
    ]
    more = by_weight(amount - sum(parts) - idle, rights, rights)
    parts = [part + each for part, each in zip(parts, more, strict=True)]
    rest = by_weight(
        amount - sum(parts) - idle,
        [max(0, want - part) for want, part in zip(wanted, parts, strict=True)],
        weights,
    )
    return [part + each for part, each in zip(parts, rest, strict=True)]


def by_weight(amount: int, wanted: Sequence[int], weights: Sequence[int]) -> list[int]:
    """Weighted max-min: those who want least for their weight are filled, the others get equal parts per
    weight.

    >>> by_weight(10, [2, 9, 9], [1, 1, 1]), by_weight(9, [9, 9], [2, 1]), by_weight(-3, [1], [1])
    ([2, 4, 4], [6, 3], [0])
    """
    parts = [0] * len(wanted)
    asking = [i for i, want in enumerate(wanted) if want > 0 and weights[i] > 0]
    left, weight = max(0, amount), sum(weights[i] for i in asking)
    asking.sort(key=lambda i: (Fraction(wanted[i], weights[i]), i))
    for place, i in enumerate(asking):
        if wanted[i] * weight <= left * weights[i]:
            parts[i] = wanted[i]
            left -= wanted[i]
            weight -= weights[i]
            continue
        rest = asking[place:]
        for j in rest:
            parts[j] = left * weights[j] // weight
        spare = left - sum(parts[j] for j in rest)
        for j in sorted(rest, key=lambda j: (-(left * weights[j] % weight), j))[:spare]:
            parts[j] += 1
        break
    return parts

"""Reclaiming: whether a running job of one queue may be preempted so that a request of another starts."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from argosy.model.tenancy import Amounts
from argosy.scheduler.queues import JOBS, OWN, Node, children_of_lowest
from argosy.scheduler.quota import Quotas


def _keeps_any(leaf: Node, top: Node, i: int) -> bool:
    node = leaf
    while not node.kept[i] and node is not top and node.parent is not None:
        node = node.parent
    return bool(node.kept[i])


def entitled(quotas: Quotas, path: str, amounts: Amounts) -> str | None:
    """The lowest queue on the way up from `path` that stays within what it deserves with `amounts` more;
    None: all of them borrow. The queues of people, of which nobody wrote, deserve nothing."""
    node: Node | None = quotas.tree.nodes.get(path) or quotas.tree.leaf(path)
    vector = quotas.tree.vector(amounts)
    while node is not None and node.parent is not None:
        if quotas.key_at(node, vector) == 0:
            return node.path
        node = node.parent
    return None


def may_reclaim(quotas: Quotas, taker: str, amounts: Amounts, victim: str, victim_amounts: Amounts) -> bool:
    """Whether a running job of `victim` that uses `victim_amounts` may be ended so that `amounts` start
    in `taker`.

    No queue may come to use less of what it keeps (`guaranteed`, or more when it lends less) than it does
    now. Look at the two children of the lowest queue that is above both. Either

    (a) `amounts` stay within what the taker's queues up to that child keep, and the victim gives some of
    that; or (b) the taker's child borrows less with `amounts` than the victim's child borrows now, the
    victim lowers that, and
        each queue from the victim's up to that child borrows some of what is asked.

    Usage counts as it stands, without history. Of several victims each is asked about after those before
    it have been refunded.

    Why it ends. (b) Take the children of that lowest queue and sort their shares, the largest first. Let
    s be the largest share among the victims' children before. The taker's child ends below the share that
    each of them had when it was asked about, so below s; the victims' children all fall; the others stay.
    So fewer shares are s or more, none of them is new, and the sorted list falls lexicographically. Such
    lists of numbers with a lower bound cannot fall for ever, and a single victim (the last of several)
    cannot take back at once: the share of its child with it again is not below the taker's. (a) uses more
    of what is kept, and no reclaim ever uses less of it, so it happens at most as often as there is room
    that is kept. In a tree compare the lists of the highest level first: a reclaim inside a queue changes
    nothing above it but its sum, and as long as it takes no more than its victims give, no share above it
    rises.

    What this does not say: what starts in free room, alone or together with a reclaim, may raise shares,
    and then large and small jobs may still displace each other by turns (of 10 one has 6, the other 3 and
    waits with 2 and 5). Two things belong to it, which the pool sees to: who is let go because its room
    is not needed counts as running when the rights of the others are asked about (`may_reclaim_all`), and
    who was ended before is protected for longer.
    """
    taking, giving = quotas.tree.leaf(taker), quotas.tree.leaf(victim)
    if taking is giving:
        return False
    child, other = children_of_lowest(taking, giving)
    asked = quotas.tree.pairs(amounts)
    gives = dict(quotas.tree.pairs(victim_amounts))
    wanted = [i for i, amount in asked if amount and gives.get(i, 0) and i != JOBS]  # every job is one job
    if not wanted:
        return False
    takes = dict(asked)
    above: Node | None = giving
    shared = False  # with the taker
    while above is not None:
        shared = shared or above is other.parent
        for i, amount in gives.items():
            left = above.used[i] - amount + (takes.get(i, 0) if shared else 0)
            if left < above.kept[i] and left < above.used[i]:
                return False
        above = above.parent
    if quotas.keeps(taking, asked, child) and any(_keeps_any(taking, child, i) for i in wanted):
        return True
    before = quotas.share_at(other, {})
    if not quotas.share_at(child, takes) < before:
        return False
    if not quotas.share_at(other, {i: -amount for i, amount in gives.items()}) < before:
        return False
    node = giving
    while True:
        if not any(i in node.counted and node.used[i] > node.deserved[i] for i in wanted):
            return False
        if node is other or node.parent is None:
            return True
        node = node.parent


def givers(quotas: Quotas, taker: str, amounts: Amounts) -> Iterator[str]:
    """Queues in which something runs that `may_reclaim` may allow to end for `amounts` in `taker`; of all
    others it is known that it does not. Whole branches that borrow too little are left out at their top.
    """
    child = quotas.tree.leaf(taker)
    asked = quotas.tree.pairs(amounts)
    change = dict(asked)
    while child.parent is not None:
        after = quotas.share_at(child, change)
        kept = quotas.tree.promises and quotas.keeps(quotas.tree.leaf(taker), asked, child)
        for other in child.parent.children.values():
            if other is not child and other.running and (kept or after < quotas.share_at(other, {})):
                yield from _busy_leaves(other)
        child = child.parent


def may_reclaim_all(quotas: Quotas, taker: str, amounts: Amounts, victims: Sequence[str]) -> bool:
    """Whether these holders may be ended together, each asked about after those before it have been
    refunded."""
    mark = quotas.mark()
    asked = dict(quotas.tree.pairs(amounts))
    before: list[tuple[Node, list[int]]] = []
    node: Node | None = quotas.tree.leaf(taker)
    while node is not None:
        before.append((node, list(node.used)))
        node = node.parent
    try:
        for victim in victims:
            held = quotas.held(victim)
            if held is None:
                continue
            if not may_reclaim(quotas, taker, amounts, held.leaf.path, held.amounts):
                return False
            quotas.refund(victim)
        return all(  # together, too, they leave what is kept in use
            node.used[i] + asked.get(i, 0) >= min(node.kept[i], was)
            for node, row in before
            for i, was in enumerate(row)
        )
    finally:
        quotas.rollback(mark)


def _busy_leaves(node: Node) -> Iterator[str]:
    if not node.children:
        yield node.path.removesuffix(f"/{OWN}")
    for child in node.children.values():
        if child.running:
            yield from _busy_leaves(child)


__all__ = ["givers", "may_reclaim", "may_reclaim_all"]

"""Who makes room: the smallest set of running jobs that must end, or move, so that a waiting gang fits.

Rights. Only preemptible jobs make room, never one that is leaving already or younger than `min_runtime_s`. In its own queue an ask
displaces what is less urgent: a later priority class, or the same class and a lower priority, or (with `attained_service`, when both go
on from checkpoints) a later bucket of attained service. In other queues it takes back what they borrowed, as `Quotas.may_reclaim` allows:
then nobody falls below its guarantee, and the taker's branch stays below the victim's.

No circles. Within one queue, order its jobs by (class, -priority, bucket) and read the number of running jobs from the most urgent rank to
the least. Every eviction there raises that sequence lexicographically, for the taker's rank is strictly before the victims', and so does
every plain start; attained service only grows, so an evicted job never comes back in a better bucket. The sequence is
bounded by the jobs that exist, so without new jobs evictions end. Between queues, a reclaim needs share_after(taker's branch) <
share_before(victim's branch) below their lowest common ancestor, so the shares of these siblings, sorted from the
greatest, fall lexicographically with every reclaim: the victim cannot take it back, since the same test forbids it. (The flat
case is proved in Kueue's KEP-1714; here the test holds at each level, as `may_reclaim` looks at the branches below the common ancestor only.)

Smallest. Victims are taken greedily until the gang *places* in simulation, not only until the sums are right; those that do not
touch its place are let go, and the rest is filled back in reverse. When more room never hurts the placer, no proper
subset of what remains would do: a victim was kept because a larger set without it had failed.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import NamedTuple

from argosy.model.tenancy import Amounts, SharePolicy
from argosy.planning.pool.ask import Ask
from argosy.planning.pool.order import bucket_of, is_served
from argosy.planning.pool.whatif import Held, Seated, WhatIf


class Victim(NamedTuple):
    held: Held
    kind: str  # preempt | reclaim | consolidate


class Room(NamedTuple):
    """What must end, and where the gang goes then. `moved`: where the victims of a consolidation go on."""

    victims: tuple[Victim, ...]
    seated: Seated
    moved: tuple[tuple[str, Seated], ...] = ()


#: Places a gang in the books as they are at this moment, or says None; takes nothing.
Seat = Callable[[], Seated | None]


def may_displace(ask: Ask, held: Held, policy: SharePolicy, now_ms: int) -> bool:
    """Whether `ask` is more urgent than a running job of its own queue: the rank of the module's proof, strictly."""
    other = held.running.ask
    mine, theirs = (ask.urgency, -ask.priority), (other.urgency, -other.priority)
    if mine != theirs:
        return mine < theirs
    if not (is_served(ask, policy) and is_served(other, policy)):
        return False
    return bucket_of(ask.attained) < bucket_of(held.attained(now_ms))


def make_room(
    ask: Ask,
    amounts: Amounts,
    seat: Seat,
    *,
    books: WhatIf,
    candidates: Iterable[Held],
    policy: SharePolicy,
    now_ms: int,
) -> Room | None:
    """The smallest set of `candidates`, by the rights and the order of the module, without which `seat` places the gang; None: none would do.

    `books` are as they will be when everything that is leaving has left; they are left as they were. `amounts`: what the ask will count.
    """
    victims = _with_right(ask, amounts, books, candidates, policy, now_ms)
    if not victims:
        return None
    return _smallest(ask, amounts, _by_preference(victims, books, now_ms), seat, books)


def _with_right(
    ask: Ask,
    amounts: Amounts,
    books: WhatIf,
    candidates: Iterable[Held],
    policy: SharePolicy,
    now_ms: int,
) -> list[Victim]:
    found = []
    reclaims: dict[tuple[str, tuple[tuple[str, int], ...]], bool] = {}
    for held in candidates:
        if not may_end(held, policy, now_ms):
            continue
        if held.ask.queue == ask.queue:
            if may_displace(ask, held, policy, now_ms):
                found.append(Victim(held, "preempt"))
            continue
        key = held.ask.queue, tuple(held.seated.amounts.items())
        if key not in reclaims:
            reclaims[key] = books.quotas.may_reclaim(ask.queue, amounts, held.ask.queue, held.seated.amounts)
        if reclaims[key]:
            found.append(Victim(held, "reclaim"))
    return found


def may_end(held: Held, policy: SharePolicy, now_ms: int) -> bool:
    """Preemptible, not leaving, and old enough."""
    running = held.running
    if not running.ask.preemptible or running.leaving:
        return False
    return now_ms - running.started_ms >= max(1, policy.min_runtime_s * 1000)  # never what this very cycle started


def _by_preference(victims: list[Victim], books: WhatIf, now_ms: int) -> list[Victim]:
    """Least urgent first; then the queue that borrows most, the newest, the least lost work, the last id."""
    shares = {v.held.ask.queue: books.quotas.share(v.held.ask.queue) for v in victims}
    victims.sort(key=lambda v: v.held.id, reverse=True)
    victims.sort(
        key=lambda v: (
            -v.held.ask.urgency,
            v.held.ask.priority,
            -bucket_of(v.held.attained(now_ms)) if v.kind == "preempt" else 0,
            -shares[v.held.ask.queue],
            -v.held.running.started_ms,
            v.held.lost(now_ms),
        )
    )
    return victims


def _smallest(ask: Ask, amounts: Amounts, victims: list[Victim], seat: Seat, books: WhatIf) -> Room | None:
    start = books.mark()
    ended: set[str] = set()

    def end(victim: Victim) -> None:
        # A reclaim is asked again with what has been given back before it: a queue gives back only what it borrows.
        if victim.kind == "reclaim" and not books.quotas.may_reclaim(
            ask.queue, amounts, victim.held.ask.queue, victim.held.seated.amounts
        ):
            ended.discard(victim.held.id)
            return
        books.give(victim.held.id)
        ended.add(victim.held.id)

    try:
        found = books.shortest([lambda v=v: end(v) for v in victims], seat)  # type: ignore[misc]
        if found is None:
            return None
        count, seated = found
        return _fill_back([v for v in victims[:count] if v.held.id in ended], seated, seat, books)
    finally:
        books.rollback(start)


def _fill_back(chosen: list[Victim], seated: Seated, seat: Seat, books: WhatIf) -> Room:
    """Let go who is not in the way, then try to keep each of the others, the most valued first."""

    def kept(victims: Sequence[Victim]) -> Seated | None:
        mark = books.mark()
        for victim in victims:
            books.take(victim.held.id, victim.held.ask.queue, victim.held.seated)
        again = seat()
        if again is None:
            books.rollback(mark)
        return again

    nodes = {placement.node_id for placement in seated.placements}
    aside = [v for v in chosen if not any(p.node_id in nodes for p in v.held.running.placements)]
    if aside:
        again = kept(aside)
        if again is not None:  # else they are needed for a quota or for the topology, and asked one by one
            seated = again
            chosen = [v for v in chosen if v not in aside]
    needed: list[Victim] = []
    for victim in reversed(chosen):
        again = kept([victim])
        if again is None:
            needed.append(victim)
        else:
            seated = again
    needed.reverse()
    return Room(tuple(needed), seated)


def move_aside(
    ask: Ask,
    seat: Seat,
    reseat: Callable[[Held], Seated | None],
    *,
    books: WhatIf,
    candidates: Iterable[Held],
    policy: SharePolicy,
    now_ms: int,
) -> Room | None:
    """Running preemptible jobs that can all go on elsewhere, so that the gang fits; None: no such set was found.

    First whatever is cheapest to move, in that order, over the whole pool; then what stands on one machine after the other. Nobody
    loses anything but the work since the last checkpoint, and each move ends with one more job that runs, so moves end.
    """
    movable = [held for held in candidates if may_end(held, policy, now_ms)]
    movable.sort(key=lambda h: (h.rate, h.lost(now_ms), -h.running.started_ms, h.id))
    by_node: dict[str, list[Held]] = {}
    for held in movable:
        for placement in held.running.placements:
            by_node.setdefault(placement.node_id, []).append(held)
    groups = [movable]
    groups += sorted(by_node.values(), key=lambda group: (sum(h.lost(now_ms) for h in group), group[0].id))[
        :16
    ]
    for group in groups:
        start = books.mark()
        try:
            room = _moved(ask, group, seat, reseat, books)
        finally:
            books.rollback(start)
        if room is not None:
            return room
    return None


def _moved(
    ask: Ask, group: Sequence[Held], seat: Seat, reseat: Callable[[Held], Seated | None], books: WhatIf
) -> Room | None:
    unique = {held.id: held for held in group}
    victims = [Victim(held, "consolidate") for held in unique.values()]
    found = books.shortest([lambda v=v: books.give(v.held.id) for v in victims], seat)  # type: ignore[misc]
    if found is None:
        return None
    room = _fill_back(victims[: found[0]], found[1], seat, books)
    books.take(ask.id, ask.queue, room.seated)
    moved: list[tuple[str, Seated]] = []
    for victim in sorted(room.victims, key=lambda v: (-v.held.rate, v.held.id)):
        seated = reseat(victim.held)
        if seated is None:
            return None
        books.take(victim.held.id, victim.held.ask.queue, seated)
        moved.append((victim.held.id, seated))
    return Room(room.victims, room.seated, tuple(moved))

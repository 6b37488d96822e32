"""When room will be free, and what may start before those who wait for it.

EASY backfill (Lifka, "The ANL/IBM SP Scheduling System", JSSPP 1995) with one reservation per queue: the first of each queue that does not fit
gets the earliest time at which it will, by the expected ends of what runs, and the places that it gets then. Who comes later
in the order starts only where that is not disturbed: because they are over before, or because they fit beside it.

What is kept. At its time t a reservation needs some places. What running jobs give back there until t need not be kept; the rest
is free today, and has to stay free. That rest is taken in a copy of the books under the name of the reservation (`Keeps`), so "fits beside
all reservations" is one question to the placer: find room that is free today and also in the copy. A job that ends before t is asked
without the reservation, and what it will give back until then lessens what is kept. So no job that starts delays a reservation, as long as
nothing runs longer than expected; a job that does moves the reservation, nothing else.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import partial
from typing import Final, NamedTuple

import msgspec

from argosy.model.offer import DeviceShare, Placement
from argosy.model.tenancy import Amounts
from argosy.planning.pool.ask import Ask, Need, Reservation
from argosy.planning.pool.inventory import Inventory, OverCommitted
from argosy.planning.pool.whatif import Seated, WhatIf, reach

RESERVATIONS_MAX: Final = 64
RELEASES_MAX: Final = 4096  # ends that a search for a time looks at


class Release(NamedTuple):
    """Room that comes back."""

    at_ms: int
    holder: str
    queue: str
    seated: Seated


class _Owed:
    """What must stay free on one machine; below zero: more is given back until then than is needed."""

    __slots__ = ("cpus_milli", "memory_bytes", "milli", "shares")

    def __init__(self) -> None:
        self.cpus_milli = 0
        self.memory_bytes = 0
        self.milli: dict[int, int] = {}
        self.shares: dict[int, DeviceShare] = {}

    def add(self, placement: Placement) -> None:
        self.cpus_milli += placement.cpus_milli
        self.memory_bytes += placement.memory_bytes
        for share in placement.devices:
            self.milli[share.index] = self.milli.get(share.index, 0) + share.milli
            self.shares[share.index] = share

    def lessen(self, placement: Placement, sign: int = -1) -> None:
        self.cpus_milli += sign * placement.cpus_milli
        self.memory_bytes += sign * placement.memory_bytes
        for share in placement.devices:
            if share.index in self.milli:
                self.milli[share.index] += sign * share.milli


class Keep:
    """One reservation and what is kept for it."""

    def __init__(self, ask: Ask, at_ms: int, ends_ms: int | None, seated: Seated) -> None:
        self.ask = ask
        self.at_ms = at_ms
        self.ends_ms = ends_ms
        self.seated = seated
        self.owed: dict[str, _Owed] = {}
        self.amounts: Amounts = {}  # of quotas, below `scope`
        self.scope: str | None = None
        for placement in seated.placements:
            self.owed.setdefault(placement.node_id, _Owed()).add(placement)

    @property
    def reservation(self) -> Reservation:
        return Reservation(ask_id=self.ask.id, starts_at_ms=self.at_ms, placements=self.seated.placements)

    def counts(self, queue: str) -> bool:
        """Whether what `queue` uses counts in the limit that the reservation waits for."""
        return self.scope is not None and (queue == self.scope or queue.startswith(f"{self.scope}/"))

    def lessen(self, queue: str, seated: Seated, sign: int = -1) -> None:
        """Something on its places ends before its time."""
        for placement in seated.placements:
            owed = self.owed.get(placement.node_id)
            if owed is not None:
                owed.lessen(placement, sign)
        if self.counts(queue):
            for name, amount in seated.amounts.items():
                if name in self.amounts:
                    self.amounts[name] += sign * amount


class Keeps:
    """Reservations, taken in `books`: a copy of the books in which what is leaving has left.

    `neighbour` tells who uses a device that is not wholly free: (need, share). `scope_of`: the lowest queue on the way up
    from a leaf that has a limit; None: none has.
    """

    def __init__(
        self,
        books: WhatIf,
        neighbour: Callable[[str, int], tuple[Need, DeviceShare] | None],
        scope_of: Callable[[str], str | None],
    ) -> None:
        self.books = books
        self.all: list[Keep] = []
        self._neighbour = neighbour
        self._scope_of = scope_of
        self._spoiled: dict[
            tuple[str, int], int
        ] = {}  # devices that only those may use who are over before this time

    # --- when

    def earliest(
        self, ask: Ask, releases: Iterable[Release], test: Callable[[WhatIf], Seated | None], now_ms: int
    ) -> tuple[int, Seated] | None:
        """When `ask` fits at last, and where; None: not by itself.

        The search supposes one release after the other, which gives its room back except what earlier reservations take of it. The books
        are left as they were.
        """
        books = self.books
        ours = sorted([*releases, *self._own_releases()])
        del ours[RELEASES_MAX:]
        touching = {_name(keep): self._touching(keep, ours) for keep in self.all}
        gives = [release.seated.placements for release in ours]
        reaches = [
            reached
            for need in ask.needs
            if (reached := reach(books.inventory, need, ask.num_nodes, gives)) is not None
        ]
        if not reaches:
            return None
        at_least = min(each.least for each in reaches)
        nodes = frozenset[str]().union(*(each.nodes for each in reaches if each.least == at_least))
        start, spoiled = books.mark(), dict(self._spoiled)
        try:
            # The first moment at which the sums allow it, with what is released where it could go: mostly that is it.
            for at in range(at_least):
                if any(placement.node_id in nodes for placement in gives[at]):
                    self._pass(ours, at, touching)
            seated = test(books)
            if seated is not None:
                found_at: tuple[int, Seated] | None = at_least, seated
            else:
                books.rollback(start)
                start = books.mark()
                found_at = books.shortest(
                    len(ours),
                    lambda at: self._pass(ours, at, touching),
                    partial(test, books),
                    at_least=at_least,
                )
        finally:
            books.rollback(start)
            self._spoiled = spoiled
        if found_at is None:
            return None
        count, seated = found_at
        return (max(now_ms, ours[count - 1].at_ms) if count else now_ms), seated

    def _own_releases(self) -> Iterable[Release]:
        for keep in self.all:
            if keep.ends_ms is not None:
                yield Release(keep.ends_ms, _name(keep), keep.ask.queue, keep.seated)

    def _touching(self, keep: Keep, releases: Sequence[Release]) -> list[int]:
        """Which releases give something to a reservation."""
        return [
            at
            for at, release in enumerate(releases)
            if release.at_ms <= keep.at_ms
            and release.holder != _name(keep)
            and (
                any(place.node_id in keep.owed for place in release.seated.placements)
                or keep.counts(release.queue)
            )
        ]

    def _pass(self, releases: Sequence[Release], at: int, touching: Mapping[str, list[int]]) -> None:
        """The release at this place of the list happens."""
        release = releases[at]
        if release.holder in touching:
            self._let_go(next(keep for keep in self.all if _name(keep) == release.holder))
            return
        self.books.give(release.holder)
        for keep in self.all:
            mine = touching[_name(keep)]
            if at in mine:
                passed = [releases[each] for each in mine if each <= at]
                for each in passed:
                    keep.lessen(each.queue, each.seated, 1)
                self._hold(keep, dict.fromkeys(place.node_id for place in release.seated.placements))
                for each in passed:
                    keep.lessen(each.queue, each.seated)

    # --- keeping

    def add(
        self, ask: Ask, at_ms: int, ends_ms: int | None, seated: Seated, releases: Iterable[Release]
    ) -> Keep:
        keep = Keep(ask, at_ms, ends_ms, seated)
        keep.scope = self._scope_of(ask.queue)
        if keep.scope is not None:
            keep.amounts = dict(seated.amounts)
        for release in (*releases, *self._own_releases()):
            if release.at_ms <= at_ms and (
                keep.counts(release.queue) or any(p.node_id in keep.owed for p in release.seated.placements)
            ):
                keep.lessen(release.queue, release.seated)
        self.all.append(keep)
        self._hold(keep, keep.owed)
        return keep

    def _hold(self, keep: Keep, nodes: Iterable[str]) -> None:
        """Take anew what has to stay free for a reservation on these machines, and of quotas."""
        name = _name(keep)
        quotas, inventory, need = self.books.quotas, self.books.inventory, keep.seated.need
        for node_id in nodes:
            owed = keep.owed.get(node_id)
            if owed is None:
                continue
            self._let_go_at(keep, node_id)
            rest = [index for index, milli in owed.milli.items() if milli > 0]
            whole = [index for index in rest if owed.milli[index] >= owed.shares[index].milli]
            amounts = Placement(
                rank=0,
                node_id=node_id,
                cpus_milli=max(0, owed.cpus_milli),
                memory_bytes=max(0, owed.memory_bytes),
            )
            together = msgspec.structs.replace(amounts, devices=tuple(owed.shares[index] for index in whole))
            if _try(inventory, f"{name}@{node_id}", need, together):
                rest = [index for index in rest if index not in whole]
            else:
                _try(inventory, f"{name}@{node_id}", need, amounts)
            for index in rest:
                if not self._hold_device(inventory, keep, node_id, index, owed.milli[index]):
                    known = self._spoiled.get((node_id, index))
                    self._spoiled[node_id, index] = keep.at_ms if known is None else min(known, keep.at_ms)
        quotas.refund(name)
        left = {amount: owed for amount, owed in keep.amounts.items() if owed > 0}
        if left:
            quotas.charge(name, keep.ask.queue, left)

    def _hold_device(self, inventory: Inventory, keep: Keep, node_id: str, index: int, milli: int) -> bool:
        holder = f"{_name(keep)}@{node_id}:{index}"
        share = keep.owed[node_id].shares[index]
        if milli >= share.milli:
            whole = Placement(rank=0, node_id=node_id, devices=(share,))
            if _try(inventory, holder, keep.seated.need, whole):
                return True
        # Others use a part of it until then: what is left is kept as if it were theirs, since nobody else may join them.
        beside = self._neighbour(node_id, index)
        if beside is None or beside[1].mechanism == "mig":
            return False
        part = DeviceShare(index=index, milli=milli, mechanism=beside[1].mechanism)
        return _try(inventory, holder, beside[0], Placement(rank=0, node_id=node_id, devices=(part,)))

    def _let_go(self, keep: Keep) -> None:
        for node_id in keep.owed:
            self._let_go_at(keep, node_id)
        self.books.quotas.refund(_name(keep))

    def _let_go_at(self, keep: Keep, node_id: str) -> None:
        name, inventory = _name(keep), self.books.inventory
        inventory.give(f"{name}@{node_id}")
        for index in keep.owed[node_id].shares:
            inventory.give(f"{name}@{node_id}:{index}")

    # --- starting beside them

    def heeded(self, ends_ms: int | None) -> list[Keep]:
        """The reservations that a job touches which would run until then."""
        return [keep for keep in self.all if ends_ms is None or ends_ms > keep.at_ms]

    def lift(self, ends_ms: int | None) -> None:
        """Without those before which it would be over; the caller rolls back."""
        for keep in self.all:
            if ends_ms is not None and ends_ms <= keep.at_ms:
                self._let_go(keep)

    def lift_quotas(self, ends_ms: int | None) -> None:
        for keep in self.all:
            if ends_ms is not None and ends_ms <= keep.at_ms and keep.scope is not None:
                self.books.quotas.refund(_name(keep))

    def counts_on(self, placements: Sequence[Placement]) -> bool:
        """Whether some reservation waits for what is given back here: then nobody else makes it go."""
        for keep in self.all:
            for placement in placements:
                owed = keep.owed.get(placement.node_id)
                if owed is not None and (
                    not owed.shares or any(share.index in owed.shares for share in placement.devices)
                ):
                    return True
        return False

    def refuses(self, placements: Sequence[Placement], ends_ms: int | None) -> bool:
        """Whether it would sit on a device whose rest could not be kept otherwise."""
        if not self._spoiled:
            return False
        times = [
            self._spoiled[place.node_id, share.index]
            for place in placements
            for share in place.devices
            if (place.node_id, share.index) in self._spoiled
        ]
        return any(ends_ms is None or ends_ms > at_ms for at_ms in times)

    def started(self, holder: str, queue: str, seated: Seated, ends_ms: int | None) -> None:
        """Something has started: it is in these books, too (its quotas are charged already)."""
        before = [keep for keep in self.all if ends_ms is not None and ends_ms <= keep.at_ms]
        nodes = dict.fromkeys(placement.node_id for placement in seated.placements)
        for keep in before:
            keep.lessen(queue, seated)
            for node_id in nodes:
                if node_id in keep.owed:
                    self._let_go_at(keep, node_id)
        self.books.inventory.take(holder, seated.need, seated.placements)
        for keep in before:
            self._hold(keep, nodes)

    def clear_quotas(self) -> None:
        for keep in self.all:
            self.books.quotas.refund(_name(keep))


def _name(keep: Keep) -> str:
    return f"keep:{keep.ask.id}"


def _try(inventory: Inventory, holder: str, need: Need, placement: Placement) -> bool:
    try:
        inventory.take(holder, need, (placement,))
    except OverCommitted:
        return False
    return True

"""When capacity will be free, and what may start before a reservation.

EASY backfill (Lifka, "The ANL/IBM SP Scheduling System", JSSPP 1995) with reservations per queue: the first
that does not fit (`reserve` says who else) gets the earliest time at which it will, by the expected ends of
what runs, and the places that it gets then. A later request starts only where that delays no reservation:
because it is over before, or because it fits beside it.

What a reservation keeps free. At its time t it needs some places. What is given back there until t need not
be kept; the rest is free today, and has to stay free. On each machine reservations are sorted by their times:
the k-th keeps what all that hold something at its time need together, less what is given back until then,
less what those before it keep already (`_Ledger`). So what is given back is counted once. All that is kept is
taken in a copy of the inventory (`ReservationBook`), and "fits beside all reservations" is one question: find
room that is free today and also in the copy. A job that is over before t is asked without the reservations
from t on, and what it will give back lessens what they keep. So no job that starts delays a reservation, as
long as nothing runs longer than expected; a job that does moves the reservation, nothing else.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Container, Iterable, Iterator, Sequence
from functools import partial
from typing import Final

import msgspec

from argosy.model.offer import DeviceShare, Placement
from argosy.scheduler.ask import Ask, Need, Reservation
from argosy.scheduler.ends import Release
from argosy.scheduler.foresee import Reach, ever_hosting, foresee
from argosy.scheduler.inventory import Inventory, OverCommitted
from argosy.scheduler.whatif import Allocation, WhatIf

RESERVATIONS_MAX: Final = 64
RELEASES_MAX: Final = 4096  # ends that a search for a time looks at
PLACES_MAX: Final = 64  # machines with room at that time that it chooses from


Dims = dict[int | str, int]  # `cpus`, `memory`, index of a device; of quotas: names of amounts

KEEP: Final = "keep:"
CPUS: Final = "cpus"
MEMORY: Final = "memory"


def _dims(placement: Placement, into: Dims) -> Dims:
    into[CPUS] = into.get(CPUS, 0) + placement.cpus_milli
    into[MEMORY] = into.get(MEMORY, 0) + placement.memory_bytes
    for share in placement.devices:
        into[share.index] = into.get(share.index, 0) + share.milli
    return into


class _Gone(Collection[str]):
    """The holders of the first releases of a list, up to one that is told. Most searches never ask."""

    def __init__(self, releases: Sequence[Release]) -> None:
        self._releases = releases
        self._place: dict[object, int] = {}  # made when it is needed
        self._last = -1

    def until(self, at: int) -> _Gone:
        self._last = at
        return self

    def __contains__(self, holder: object) -> bool:
        if not self._place:
            self._place = {release.holder: at for at, release in enumerate(self._releases)}
        return self._place.get(holder, self._last + 1) <= self._last

    def __iter__(self) -> Iterator[str]:
        return (release.holder for release in self._releases[: self._last + 1])

    def __len__(self) -> int:
        return self._last + 1


class Booked:
    """One reservation."""

    def __init__(
        self, ask: Ask, at_ms: int, ends_ms: int | None, allocation: Allocation, scope: str | None
    ) -> None:
        self.ask = ask
        self.name = KEEP + ask.id
        self.at_ms = at_ms
        self.ends_ms = ends_ms
        self.allocation = allocation
        self.scope = scope  # the queue with a limit that it waits for, too
        self.needs: dict[str, Dims] = {}  # by machine
        self.shares: dict[str, dict[int, DeviceShare]] = {}
        self.holders: dict[str, tuple[str, ...]] = {}  # under which it may hold something on a machine
        for placement in allocation.placements:
            _dims(placement, self.needs.setdefault(placement.node_id, {}))
            shares = self.shares.setdefault(placement.node_id, {})
            for share in placement.devices:
                shares[share.index] = share
        for node_id, shares in self.shares.items():
            name = f"{self.name}@{node_id}"
            self.holders[node_id] = (name, *(f"{name}:{index}" for index in shares))

    def counts_on(self, placements: Sequence[Placement]) -> bool:
        """Whether it waits for what is given back here."""
        for placement in placements:
            shares = self.shares.get(placement.node_id)
            if shares is not None and (
                not shares or any(share.index in shares for share in placement.devices)
            ):
                return True
        return False

    @property
    def reservation(self) -> Reservation:
        return Reservation(ask_id=self.ask.id, starts_at_ms=self.at_ms, placements=self.allocation.placements)


class _Ledger:
    """One machine, or one queue with a limit: who needs what of it from when on, and what is given back
    when."""

    __slots__ = ("needs", "releases")

    def __init__(self) -> None:
        self.needs: list[tuple[Booked, Dims]] = []
        self.releases: dict[str, tuple[int, Dims]] = {}

    def owed(self, gone: Collection[str]) -> list[tuple[Booked, Dims]]:
        """What each reservation keeps of what is free today. `gone`: releases that have happened,
        reservations that are over."""
        alive = [each for each in self.needs if each[0].name not in gone]
        alive.sort(key=lambda each: each[0].at_ms)
        to_come = [each for holder, each in self.releases.items() if holder not in gone]
        kept: Dims = {}
        result = []
        for place, (keep, own) in enumerate(alive):
            wanted = dict.fromkeys(own, 0)
            for other, dims in alive[: place + 1]:
                if other.ends_ms is None or other.ends_ms > keep.at_ms:
                    for dim in wanted:
                        wanted[dim] += dims.get(dim, 0)
            for at_ms, dims in to_come:
                if at_ms <= keep.at_ms:
                    for dim in wanted:
                        wanted[dim] -= dims.get(dim, 0)
            keeps = {dim: max(0, amount - kept.get(dim, 0)) for dim, amount in wanted.items()}
            for dim, amount in keeps.items():
                kept[dim] = kept.get(dim, 0) + amount
            result.append((keep, keeps))
        return result


class ReservationBook:
    """Reservations, taken in `books`: a copy of the books in which what is leaving has left.

    `neighbour` tells who uses a device that is not wholly free: (need, share). `scope_of`: the lowest queue
    on the way up from a leaf that has a limit; None: none has. `places_max`: see `earliest`.
    """

    def __init__(
        self,
        books: WhatIf,
        neighbour: Callable[[str, int], tuple[Need, DeviceShare] | None],
        scope_of: Callable[[str], str | None],
        *,
        places_max: int = PLACES_MAX,
    ) -> None:
        self.books = books
        self._places_max = places_max
        self.all: list[Booked] = []
        self._named: dict[str, Booked] = {}
        self._neighbour = neighbour
        self._scope_of = scope_of
        self._nodes: dict[str, _Ledger] = {}
        self._scopes: dict[str, _Ledger] = {}
        self._releases: list[Release] = []
        self._of_holder: dict[str, Release] = {}  # the same, made when it is needed
        self._spoiled: dict[
            tuple[str, int], int
        ] = {}  # devices that only those may use who are over before this time

    # --- when

    def earliest(
        self, ask: Ask, test: Callable[[WhatIf], Allocation | None], now_ms: int
    ) -> tuple[int, Allocation] | None:
        """When `ask` fits at last, and where; None: not by itself.

        The search supposes one release after the other, which gives its room back except what earlier
        reservations take of it. Each machine is first looked at by itself, so that only those are emptied in
        the books that have room then, of many at one moment the first `PLACES_MAX`. The books are left as
        they were.
        """
        books = self.books
        ours = sorted([*self._releases, *self._own_releases()])
        del ours[RELEASES_MAX:]
        # What is released at one moment comes back together.
        ends = [
            at + 1 for at in range(len(ours)) if at + 1 == len(ours) or ours[at].at_ms < ours[at + 1].at_ms
        ]
        begins = [0, *ends][: len(ends)]
        moments = [ours[begin:end] for begin, end in zip(begins, ends, strict=True)]
        reaches = [each for need in ask.needs if (each := self._reach(ask, need, moments)) is not None]
        if not reaches:
            return None
        at_least = min(each.least for each in reaches)
        nodes = frozenset[str]().union(*(each.nodes for each in reaches if each.least == at_least))
        ever: frozenset[str] | None = None
        gone = _Gone(ours)

        def moment(number: int) -> None:
            for at in range(begins[number], ends[number]):
                self._pass(ours[at], gone.until(at), ever)

        start, spoiled = books.mark(), dict(self._spoiled)
        try:
            # The first moment at which the sums allow it, with what is released where it could go: mostly
            # that is it.
            for at in range(ends[at_least - 1] if at_least else 0):
                if any(placement.node_id in nodes for placement in ours[at].allocation.placements):
                    self._pass(ours[at], gone.until(at))
            allocation = test(books)
            if allocation is not None:
                found_at: tuple[int, Allocation] | None = at_least, allocation
            else:
                books.rollback(start)
                start = books.mark()
                ever = ever_hosting(books.inventory, ask.needs, ours)
                found_at = books.shortest(len(ends), moment, partial(test, books), at_least=at_least)
        finally:
            books.rollback(start)
            self._spoiled = spoiled
        if found_at is None:
            return None
        count, allocation = found_at
        return (max(now_ms, ours[begins[count - 1]].at_ms) if count else now_ms), allocation

    def _reach(self, ask: Ask, need: Need, moments: Sequence[Sequence[Release]]) -> Reach | None:
        """How many of `moments` it takes at least until the ranks could fit, and where."""
        alike = not (ask.required or ask.preferred or ask.spread)
        return foresee(
            self.books.inventory,
            need,
            ask.num_nodes,
            moments,
            by_sums=self._nodes,
            enough=self._places_max if alike else 1 << 30,
        )

    def _own_releases(self) -> Iterable[Release]:
        for keep in self.all:
            if keep.ends_ms is not None:
                yield Release(keep.ends_ms, keep.name, keep.ask.queue, keep.allocation)

    def _pass(self, release: Release, gone: Collection[str], ever: Container[str] | None = None) -> None:
        """It happens. `gone`: all that have happened then. `ever`: only machines among these matter; None:
        all do."""
        nodes = dict.fromkeys(place.node_id for place in release.allocation.placements)
        over = self._named.get(release.holder)
        matters = ever is None or any(node_id in ever for node_id in nodes)
        if over is not None:
            self._let_go(over)
        else:
            if matters:
                self.books.inventory.give(release.holder)
            if self.books.bounded:
                self.books.quotas.refund(release.holder)
        if self._scopes or (matters and any(node_id in self._nodes for node_id in nodes)):
            self._hold(nodes if matters else (), release.queue, gone)

    # --- keeping

    def learn(self, releases: Iterable[Release]) -> None:
        """What is expected to end, before a search: in order of time, at most `RELEASES_MAX`."""
        self._releases = list(releases)
        self._of_holder = {}
        for node_id in self._nodes:
            self._note_node(node_id)
        for scope in self._scopes:
            self._note_scope(scope)

    def add(self, ask: Ask, at_ms: int, ends_ms: int | None, allocation: Allocation) -> Booked:
        booked = Booked(ask, at_ms, ends_ms, allocation, self._scope_of(ask.queue))
        self.all.append(booked)
        self._named[booked.name] = booked
        for node_id, dims in booked.needs.items():
            if node_id not in self._nodes:
                self._nodes[node_id] = _Ledger()
                self._note_node(node_id)
            self._nodes[node_id].needs.append((booked, dims))
        scope = booked.scope
        if scope is not None:
            if scope not in self._scopes:
                self._scopes[scope] = _Ledger()
                self._note_scope(scope)
            self._scopes[scope].needs.append((booked, _plain(allocation)))
        self._hold(booked.needs, ask.queue, ())
        return booked

    def _note_node(self, node_id: str) -> None:
        """What is given back on a machine that reservations wait for."""
        if not self._of_holder:
            self._of_holder = {release.holder: release for release in self._releases}
        for holder in self.books.inventory.holders(node_id):
            release = self._of_holder.get(holder)
            if release is not None:
                self._note(release, node_id)

    def _note(self, release: Release, node_id: str) -> None:
        dims: Dims = {}
        for placement in release.allocation.placements:
            if placement.node_id == node_id:
                _dims(placement, dims)
        self._nodes[node_id].releases[release.holder] = release.at_ms, dims

    def _note_scope(self, scope: str) -> None:
        """The same for a queue with a limit."""
        ledger = self._scopes[scope]
        for release in self._releases:
            if _counts(release.queue, scope):
                ledger.releases[release.holder] = release.at_ms, _plain(release.allocation)

    def _hold(self, nodes: Iterable[str], queue: str, gone: Collection[str]) -> None:
        """Take anew what has to stay free on these machines, and of the limits above `queue`."""
        inventory, quotas = self.books.inventory, self.books.quotas
        for node_id in nodes:
            ledger = self._nodes.get(node_id)
            if ledger is None:
                continue
            owed = ledger.owed(gone)
            for keep, _ in owed:
                self._let_go_at(keep, node_id)
            for keep, dims in owed:
                self._hold_node(inventory, keep, node_id, dims)
        for scope, ledger in self._scopes.items():
            if _counts(queue, scope):
                for keep, dims in ledger.owed(gone):
                    quotas.refund(keep.name)
                    left = {str(name): amount for name, amount in dims.items() if amount}
                    if left:
                        quotas.charge(keep.name, keep.ask.queue, left)

    def _hold_node(self, inventory: Inventory, keep: Booked, node_id: str, dims: Dims) -> None:
        need, shares = keep.allocation.need, keep.shares[node_id]
        rest = [index for index in shares if dims[index]]
        whole = [index for index in rest if dims[index] >= shares[index].milli]
        amounts = Placement(rank=0, node_id=node_id, cpus_milli=dims[CPUS], memory_bytes=dims[MEMORY])
        together = msgspec.structs.replace(amounts, devices=tuple(shares[index] for index in whole))
        holder = f"{keep.name}@{node_id}"
        if _try(inventory, holder, need, together):
            rest = [index for index in rest if index not in whole]
        else:
            _try(inventory, holder, need, amounts)
        for index in rest:
            if not self._hold_device(inventory, keep, node_id, index, dims[index]):
                known = self._spoiled.get((node_id, index))
                self._spoiled[node_id, index] = keep.at_ms if known is None else min(known, keep.at_ms)

    def _hold_device(self, inventory: Inventory, keep: Booked, node_id: str, index: int, milli: int) -> bool:
        holder = f"{keep.name}@{node_id}:{index}"
        share = keep.shares[node_id][index]
        if milli >= share.milli:
            whole = Placement(rank=0, node_id=node_id, devices=(share,))
            if _try(inventory, holder, keep.allocation.need, whole):
                return True
        # Others use a part of it until then: what is left is kept as if it were theirs, since nobody else may
        # join them.
        beside = self._neighbour(node_id, index)
        if beside is None or beside[1].mechanism == "mig":
            return False
        part = DeviceShare(index=index, milli=milli, mechanism=beside[1].mechanism)
        return _try(inventory, holder, beside[0], Placement(rank=0, node_id=node_id, devices=(part,)))

    def _let_go(self, keep: Booked) -> None:
        for node_id in keep.needs:
            self._let_go_at(keep, node_id)
        self.books.quotas.refund(keep.name)

    def _let_go_at(self, keep: Booked, node_id: str) -> None:
        inventory = self.books.inventory
        for holder in keep.holders[node_id]:
            inventory.give(holder)

    # --- starting beside them

    def heeded(self, ends_ms: int | None) -> list[Booked]:
        """The reservations that a job touches which would run until then."""
        return [keep for keep in self.all if ends_ms is None or ends_ms > keep.at_ms]

    def lift(self, ends_ms: int | None, nodes: Collection[str]) -> None:
        """Without those before which it would be over, on these machines; the caller rolls back."""
        for keep in self.all:
            if ends_ms is not None and ends_ms <= keep.at_ms:
                for node_id in keep.needs:
                    if node_id in nodes:
                        self._let_go_at(keep, node_id)
                self.books.quotas.refund(keep.name)

    def lift_quotas(self, ends_ms: int | None) -> None:
        for keep in self.all:
            if ends_ms is not None and ends_ms <= keep.at_ms and keep.scope is not None:
                self.books.quotas.refund(keep.name)

    def touches(self, placements: Sequence[Placement]) -> bool:
        """Whether any reservation is on these machines. Where none is, these books say what today's say."""
        return any(placement.node_id in self._nodes for placement in placements)

    def counts(self, queue: str) -> bool:
        """Whether a reservation waits for a limit above this queue."""
        return any(_counts(queue, scope) for scope in self._scopes)

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

    def started(self, holder: str, queue: str, allocation: Allocation, ends_ms: int | None) -> None:
        """Something has started: it is in these books, too (its quotas are charged already)."""
        nodes = dict.fromkeys(placement.node_id for placement in allocation.placements)
        if ends_ms is not None:
            release = Release(ends_ms, holder, queue, allocation)
            for node_id in nodes:
                if node_id in self._nodes:
                    self._note(release, node_id)
            for scope, ledger in self._scopes.items():
                if _counts(queue, scope):
                    ledger.releases[holder] = ends_ms, _plain(allocation)
        for node_id in nodes:
            for keep, _ in self._nodes[node_id].needs if node_id in self._nodes else ():
                self._let_go_at(keep, node_id)
        self.books.inventory.take(holder, allocation.need, allocation.placements)
        self._hold(nodes, queue, ())

    def clear_quotas(self) -> None:
        for keep in self.all:
            self.books.quotas.refund(keep.name)


def _plain(allocation: Allocation) -> Dims:
    dims: Dims = {}
    for name, amount in allocation.amounts.items():
        dims[name] = amount
    return dims


def _counts(queue: str, scope: str) -> bool:
    return queue == scope or queue.startswith(f"{scope}/")


def _try(inventory: Inventory, holder: str, need: Need, placement: Placement) -> bool:
    try:
        inventory.take(holder, need, (placement,))
    except OverCommitted:
        return False
    return True

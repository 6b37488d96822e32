"""A cloud of virtual machines as a `Provider`: everything that does not depend on whose cloud it is.

    MachineDriver(MyCloud(...), setting)      # MyCloud is a `machine_vendor.Vendor`

Intent before effect: the note of an order is written before the first call; machines carry their claim's mark
from the call that makes them. A gang is all or none: by the cloud itself where it can, else what was made is
deleted on the first definite refusal.
"""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine, Mapping, Sequence
from pathlib import Path
from typing import Any, Final

import msgspec

from argosy.infra import border
from argosy.infra.agent_port import Channel
from argosy.infra.boot import agent_zipapp
from argosy.infra.machine_keys import Keys
from argosy.infra.machine_listing import MachineListing
from argosy.infra.machine_notes import Notes
from argosy.infra.machine_ordering import MachineOrdering
from argosy.infra.machine_refusals import refuse
from argosy.infra.machine_ssh import Door, MachineSsh
from argosy.infra.machine_strangers import strangers
from argosy.infra.machine_vendor import Vendor
from argosy.infra.machines import (
    RESTS,
    Machine,
    MachineState,
    Note,
    by_claim,
    fact_of,
    name_of,
    promised,
    surplus,
    with_found,
)
from argosy.infra.provider import Diagnostic, Setting, Want
from argosy.infra.to_its_end import ToItsEnd
from argosy.infra.tombstones import Tombstones, is_claim_id
from argosy.model.facts import ClaimFact, ClaimState
from argosy.model.offer import Offer
from argosy.model.phases import Desired
from argosy.model.rows import Claim, Node

_PATIENCE_S: Final = 1.0
_FIRST_LOOK_S, _LONGEST_LOOK_S = 0.1, 1.0


class MachineDriver:
    """`settle_s`: as the vendor's, for tests."""

    def __init__(self, vendor: Vendor, setting: Setting, *, settle_s: float | None = None) -> None:
        self.vendor, self.manifest = vendor, vendor.manifest
        self._clock = setting.clock
        self._settle_s = vendor.settle_s if settle_s is None else settle_s
        root = setting.root
        self._notes: Notes[Note] = Notes(root / "orders", Note)
        self._released = Tombstones(root / ".released")
        self._listing = MachineListing(vendor, self._notes, setting.clock)
        keys = Keys(root / "keys", self.manifest.name)
        self._ordering = MachineOrdering(vendor, self._notes, keys, setting.clock)
        self._ssh = MachineSsh(
            root, keys=keys, clock=setting.clock, ids=setting.ids, zipapp=lambda: _zipapp(root)
        )
        self._locks: dict[str, asyncio.Lock] = {}
        self._asking: asyncio.Task[Sequence[Offer]] | None = None
        self._to_its_end = ToItsEnd()

    def __repr__(self) -> str:
        return f"MachineDriver({self.manifest.name})"

    # -- the six verbs --------------------------------------------------------------------------------------

    async def check(self) -> Sequence[Diagnostic]:
        """Who we are and what we may do, and machines of claims that nobody here knows."""
        findings = list(await self.vendor.check())
        if findings and findings[0].ok:  # the first says who we are
            known = {note.claim_id for note in self._notes.all()}
            findings += await strangers(self.vendor, self._listing, known)
        return findings

    async def quote(self, want: Want) -> Sequence[Offer]:
        """What differs from the catalog. If the cloud takes its time, the next question gets the answer:
        nobody shall wait for a good one. Raises `CredentialsRejected`."""
        if not self.manifest.priced_by_catalog:
            return await self.vendor.quote(want)
        if self._asking is None:
            self._asking = asyncio.get_running_loop().create_task(self._quote())
            self._asking.add_done_callback(lambda task: task.cancelled() or task.exception())
        await asyncio.wait([self._asking], timeout=_PATIENCE_S)
        if not self._asking.done():
            return ()
        asked, self._asking = self._asking, None
        return asked.result()

    async def _quote(self) -> Sequence[Offer]:
        return await self.vendor.quote(Want())

    async def ensure(self, claim: Claim) -> None:
        refuse(self.manifest, claim)
        if self.vendor.place and not claim.choice.offer.region:
            what = f"an order at {self.manifest.title} names {self.vendor.place}"
            raise border.RequestRefused("infra", what)
        self.vendor.refuse(claim)
        await self._to_its_end(self._at_border(self._ensure(claim)))

    async def observe(self, claim_ids: Sequence[str]) -> Sequence[ClaimFact]:
        wanted = [id for id in claim_ids if is_claim_id(id)]
        if claim_ids and not wanted:
            return []
        listed = by_claim(await self._listing.machines(wanted))
        notes = {note.claim_id: note for note in self._notes.all()}
        found = []
        for name in wanted or sorted(listed.keys() | notes.keys()):
            machines = listed.get(name, [])
            if name in self._released and not any(each.to_delete for each in machines):
                continue
            fact = self._fact(name, machines, notes.get(name))
            if fact is not None:
                found.append(fact)
        if not wanted:
            await self._end_surplus(listed, notes)
            await self._tidy([note for note in notes.values() if note.ended_ms], listed)
        return found

    async def release(self, claim_id: str) -> None:
        if is_claim_id(claim_id):
            await self._to_its_end(self._at_border(self._release(claim_id)))

    async def reach(self, node: Node) -> Channel:
        machine = await self._listing.machine(node.claim_id, node.address)
        if machine is None or machine.state is not MachineState.RUNNING:
            raise border.Unreachable(f"there is no machine {node.address} that runs")
        try:
            return await self._ssh.open(self._door(machine))
        except border.Unreachable:
            self._listing.forget(machine.claim_id)  # it may have another address by now
            raise

    async def disconnect(self) -> None:
        await self.vendor.close()

    # -- effects --------------------------------------------------------------------------------------------

    async def _at_border(self, work: Coroutine[Any, Any, None]) -> None:
        try:
            await work
        except OSError as error:
            text = f"cannot keep notes of {self.manifest.title}: {error.strerror or error}"
            raise border.Transient(text, 10) from error

    def _lock(self, claim_id: str) -> asyncio.Lock:
        return self._locks.setdefault(claim_id, asyncio.Lock())

    async def _ensure(self, claim: Claim) -> None:
        async with self._lock(claim.id):
            if claim.id in self._released:
                raise border.RequestRefused("claim", f"{claim.id} was released before")
            note = self._notes.load(claim.id)
            region = note.region if note is not None else claim.choice.offer.region
            machines = await self._listing.of_claim(region, claim.id)
            for extra in surplus(machines, note):
                await self.vendor.delete(extra)
                machines.remove(extra)
            if note is not None and note != (found := with_found(note, machines)):
                note = self._notes.save(found)
            try:
                if self._has_ended(claim, note, machines):
                    return
            except border.BorderError:
                await self._undo(claim.id)
                raise
            if claim.desired is Desired.STOP:
                await self._rest(claim, note, machines)
            else:
                await self._run(claim, note, machines)
        await self._settle(claim)

    def _has_ended(self, claim: Claim, note: Note | None, machines: Sequence[Machine]) -> bool:
        """Whether the cloud, or somebody, has taken machines of it away: `observe` tells, and nothing is
        ordered again. Raises for what ended while it was made."""
        failed = _not_made(claim, machines)
        if failed is not None:
            text = f"{name_of(claim.id, failed.index)} was not made: {failed.said or 'nobody says why'}"
            raise failed.error or border.OutOfCapacity(failed.zone or failed.region, text)
        fact = self._fact(claim.id, machines, note)
        return fact is not None and fact.state in (ClaimState.GONE, ClaimState.PREEMPTED)

    def _fact(self, claim_id: str, machines: Sequence[Machine], note: Note | None) -> ClaimFact | None:
        now_ms, title = self._clock.now_ms(), self.manifest.title
        return fact_of(claim_id, machines, note, now_ms, lag_s=self.vendor.lag_s, title=title)

    async def _run(self, claim: Claim, note: Note | None, machines: Sequence[Machine]) -> None:
        if note is not None and note.rests:
            note = self._notes.save(msgspec.structs.replace(note, rests=False))
        have = {each.index: each for each in machines if each.is_live}
        if len(have) < claim.count and (note is None or not note.is_whole):
            try:
                await self._ordering.order(claim, note, have)
            except border.Transient:
                raise
            except border.BorderError as error:
                await self._undo(claim.id)
                raise error from None
            finally:
                self._listing.forget(claim.id)
        if any(each.state is MachineState.STOPPING for each in have.values()):
            raise border.Transient("the machines are still going to rest", 2)
        asleep = [each for each in have.values() if each.state is MachineState.STOPPED]
        if asleep:
            self._listing.forget(claim.id)
            await asyncio.gather(*(self._wake(each) for each in asleep))

    async def _wake(self, machine: Machine) -> None:
        try:
            await self.vendor.start(machine)
        except (border.OutOfCapacity, border.QuotaExceeded) as error:
            # Another place has not their disks: they wait for room where they are.
            raise border.Transient(f"the machines at rest cannot start yet: {error}", 30) from None

    async def _rest(self, claim: Claim, note: Note | None, machines: Sequence[Machine]) -> None:
        if note is None:
            note = self._ordering.blank(claim)
        if not note.rests:
            note = self._notes.save(msgspec.structs.replace(note, rests=True))
        awake = [each for each in machines if each.is_live and each.state not in RESTS]
        for machine in awake:
            await self._ssh.forget(self._door(machine))
        if awake:
            self._listing.forget(claim.id)
            await asyncio.gather(*(self.vendor.stop(each) for each in awake))

    async def _undo(self, claim_id: str) -> None:
        """After a definite refusal nothing of the claim stays. What cannot be deleted now is listed, and
        goes with the claim's release."""
        note = self._notes.load(claim_id)
        if note is None:
            return
        machines = [each for each in await self._listing.of_claim(note.region, claim_id) if each.to_delete]
        machines += self._unlisted(note, machines)
        try:
            await asyncio.gather(*(self.vendor.delete(each) for each in machines))
        except border.Transient:
            return
        await self._forget(note)

    async def _forget(self, note: Note) -> None:
        """The machines are gone or going: so goes the note, unless something beside them is left."""
        self._listing.forget(note.claim_id)
        if note.keeps and not await self.vendor.clear(note):
            self._notes.save(msgspec.structs.replace(note, ended_ms=self._clock.now_ms()))
        else:
            self._notes.remove(note.claim_id)

    async def _settle(self, claim: Claim) -> None:
        """Wait a little for what was ordered: some clouds tell only after the order that they have none."""
        waited_s, step_s = 0.0, _FIRST_LOOK_S
        while waited_s < self._settle_s:
            machines = await self._listing.machines([claim.id])
            note = self._notes.load(claim.id)
            if _not_made(claim, machines) is not None and claim.id not in self._released:
                async with self._lock(claim.id):
                    await self._undo(claim.id)
                self._has_ended(claim, note, machines)
            fact = self._fact(claim.id, by_claim(machines).get(claim.id, []), note)
            if fact is None or fact.state is not ClaimState.PENDING or claim.id in self._released:
                return
            await asyncio.sleep(step_s)
            waited_s += step_s
            step_s = min(step_s * 1.5, _LONGEST_LOOK_S)

    async def _release(self, claim_id: str) -> None:
        self._released.add(claim_id)  # first: what waits in `ensure` looks at it
        async with self._lock(claim_id):
            note = self._notes.load(claim_id)
            machines = [each for each in await self._listing.machines([claim_id]) if each.to_delete]
            if note is not None:
                machines += self._unlisted(note, machines)
            for machine in machines:
                await self._ssh.forget(self._door(machine))
            self._listing.forget(claim_id)
            await asyncio.gather(*(self.vendor.delete(each) for each in machines))
            if note is not None:
                note = with_found(note, machines)
                late_s = self.vendor.lag_s - (self._clock.now_ms() - note.asked_ms) / 1000
                if note.unclear and late_s > 0:
                    raise border.Transient(
                        f"{self.manifest.title} may still make what was ordered a moment ago", min(late_s, 5)
                    )
                await self._forget(note)
        self._locks.pop(claim_id, None)

    def _unlisted(self, note: Note, listed: Sequence[Machine]) -> list[Machine]:
        """Machines that the cloud has promised and does not list yet."""
        known = {each.id for each in (*self._listing.last(note.claim_id), *listed)}
        age_s = (self._clock.now_ms() - note.asked_ms) / 1000
        return [each for each in promised(note) if each.id not in known] if age_s <= self.vendor.lag_s else []

    async def _tidy(self, ended: Sequence[Note], listed: Mapping[str, Sequence[Machine]]) -> None:
        """What stood beside the machines of released claims goes when the cloud lets it."""
        for note in ended:
            if not any(each.to_delete for each in listed.get(note.claim_id, ())):
                try:
                    done = await self.vendor.clear(note)
                except border.BorderError:
                    continue
                if done:
                    self._notes.remove(note.claim_id)

    async def _end_surplus(self, listed: Mapping[str, Sequence[Machine]], notes: Mapping[str, Note]) -> None:
        """An order that was repeated, and whose first reply was lost, may have made two machines."""
        for name, machines in listed.items():
            for extra in surplus(machines, notes.get(name)) if name in notes else ():
                try:
                    await self.vendor.delete(extra)
                except border.BorderError:
                    continue  # the next look finds it again
                self._listing.forget(name)

    def _door(self, machine: Machine) -> Door:
        return Door(
            address=machine.address,
            name=machine.id,
            claim_id=machine.claim_id,
            host=machine.host,
            port=machine.port,
            user=machine.user,
            options=self.vendor.agent_options,
            jumps=self.vendor.jumps,
            new_key=self.vendor.own_host_keys or machine.own_key,
        )


def _not_made(claim: Claim, machines: Sequence[Machine]) -> Machine | None:
    """A machine of a claim that ended while it was made, and in whose place no other stands."""
    live = {each.index for each in machines if each.is_live}
    failed = (each for each in machines if each.state is MachineState.FAILED and each.index not in live)
    return next(failed, None) if claim.held_ms == 0 else None


def _zipapp(root: Path) -> Path:
    return agent_zipapp(root / "agent")

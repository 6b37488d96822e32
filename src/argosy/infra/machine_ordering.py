"""Ordering the machines of a claim: zone by zone, all or none, the note before the call."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from typing import Final

import msgspec

from argosy.infra import border
from argosy.infra.machine_keys import Keys
from argosy.infra.machine_notes import Notes
from argosy.infra.machine_vendor import MachineOrder, Vendor
from argosy.infra.machines import Machine, Note, most_telling
from argosy.model.ids import Clock
from argosy.model.offer import Capacity
from argosy.model.rows import Claim

_REASONS_MAX: Final = 6


class MachineOrdering:
    def __init__(self, vendor: Vendor, notes: Notes[Note], keys: Keys, clock: Clock) -> None:
        self._vendor, self._notes, self._keys, self._clock = vendor, notes, keys, clock

    def blank(self, claim: Claim) -> Note:
        """A note of a claim of which nothing was ordered yet."""
        offer = claim.choice.offer
        return Note(
            claim_id=claim.id,
            count=claim.count,
            region=offer.region,
            tag=claim.tag,
            spot=offer.capacity is Capacity.SPOT,
            keeps=self._vendor.keeps(claim),
        )

    async def order(self, claim: Claim, note: Note | None, have: Mapping[int, Machine]) -> Note:
        """Order what is missing of a claim. `have`: what is listed of it, by index of the node.

        Raises a border error: `Transient` when it is not known what was made; else the caller deletes what
        was.
        """
        begun, unclear = bool(have or (note and note.ids)), bool(note and note.unclear)
        note = note or self.blank(claim)
        ids = dict(note.ids) | {index: each.id for index, each in have.items()}
        note = msgspec.structs.replace(note, ids=ids, ended_ms=0)
        # An order that was begun somewhere is finished there; one without an answer is asked for there first.
        zone = next((each.zone for each in have.values()), note.zone)
        zones = [zone] if begun or unclear else list(await self._vendor.zones(claim))
        if not zones:
            raise border.OutOfCapacity(
                claim.choice.offer.region,
                f"{self._vendor.manifest.title} has no zone with {claim.choice.offer.shape.instance_type} in "
                f"{claim.choice.offer.region or 'reach'}",
            )
        refusals: list[border.BorderError] = []
        for zone in zones:
            note = msgspec.structs.replace(note, zone=zone, asked_ms=self._clock.now_ms())
            order = MachineOrder(
                claim=claim,
                zone=zone,
                user_data=self._keys.user_data(claim.id),
                opens=self._keys.opens(),
                host_secret=self._keys.host_secret(claim.id),
            )
            try:
                return await self._in_zone(order, note, have)
            except border.OutOfCapacity as refusal:
                refusals.append(refusal)
                if unclear and not begun and len(refusals) == 1:
                    zones += [each for each in await self._vendor.zones(claim) if each != zone]
                if zone is not zones[-1]:
                    note = await self._taken_back(self._notes.load(claim.id) or note)
            except border.RequestRefused as refusal:
                raise _telling(order, refusal) from None
        raise self._nowhere(order, refusals)

    async def _in_zone(self, order: MachineOrder, note: Note, have: Mapping[int, Machine]) -> Note:
        missing = [index for index in range(order.claim.count) if index not in have]
        waits = [index for index in missing if index in note.unclear or index in note.ids]
        if waits and not self._vendor.unique_names:
            since_ms = min(note.unclear.get(index, note.asked_ms) for index in waits)
            left_s = self._vendor.lag_s - (self._clock.now_ms() - since_ms) / 1000
            if left_s > 0:
                raise border.Transient(
                    f"{self._vendor.manifest.title} has not said what became of an order: it may yet appear",
                    min(left_s, 5),
                )
        await self._vendor.prepare(order)
        now_ms = self._clock.now_ms()
        note = msgspec.structs.replace(
            note,
            ids={index: id for index, id in note.ids.items() if index not in missing},
            unclear=dict.fromkeys(missing, now_ms),
        )
        self._notes.save(note)
        if self._vendor.makes_gangs and len(missing) == order.claim.count:
            try:
                made = await self._vendor.create_all(order)
            except border.Transient:
                raise
            except border.BorderError:
                self._notes.save(msgspec.structs.replace(note, unclear={}))
                raise
            return self._notes.save(msgspec.structs.replace(note, ids=dict(enumerate(made)), unclear={}))
        return await self._each(order, note, missing)

    async def _each(self, order: MachineOrder, note: Note, missing: Sequence[int]) -> Note:
        gate = asyncio.Semaphore(self._vendor.parallel)
        made: dict[int, str] = {}
        errors: dict[int, border.BorderError] = {}

        async def one(index: int) -> None:
            async with gate:
                if any(not isinstance(error, border.Transient) for error in errors.values()):
                    errors[index] = border.OutOfCapacity(order.scope, "not ordered: another was refused")
                    return
                try:
                    made[index] = await self._vendor.create(order, index)
                except border.BorderError as error:
                    errors[index] = error

        await asyncio.gather(*(one(index) for index in missing))
        unclear = {
            index: note.unclear[index]
            for index, error in errors.items()
            if isinstance(error, border.Transient)
        }
        note = self._notes.save(msgspec.structs.replace(note, ids={**note.ids, **made}, unclear=unclear))
        if errors:
            raise most_telling([error for _, error in sorted(errors.items())])
        return note

    async def _taken_back(self, note: Note) -> Note:
        """What the zone gave of a gang that it could not give whole: the next one is tried without it."""
        region = note.region if self._vendor.by_region else ""
        machines = [each for each in await self._vendor.listed(region) if each.claim_id == note.claim_id]
        known = {each.id for each in machines}
        if note.unclear or any(id not in known for id in note.ids.values()):
            raise border.Transient("what was ordered in vain is not listed yet: it goes first", 2)
        await asyncio.gather(*(self._vendor.delete(each) for each in machines if each.to_delete))
        return self._notes.save(msgspec.structs.replace(note, ids={}, unclear={}))

    def _nowhere(self, order: MachineOrder, refusals: Sequence[border.BorderError]) -> border.BorderError:
        if len(refusals) == 1:
            return refusals[0]
        what = f"{order.claim.count} x {order.kind}" if order.claim.count > 1 else order.kind
        said = "; ".join(dict.fromkeys(str(each) for each in refusals[:_REASONS_MAX]))
        return border.OutOfCapacity(order.region, f"no zone of {order.region} has {what}: {said}")


def _telling(order: MachineOrder, refusal: border.RequestRefused) -> border.RequestRefused:
    """Some APIs say that a type or a place is none of theirs, and not which. Words of ours say enough."""
    text = str(refusal)
    if " says: " not in text or order.kind in text or (order.region and order.region in text):
        return refusal
    return border.RequestRefused(refusal.field, f"{refusal}; asked for {order.scope}")

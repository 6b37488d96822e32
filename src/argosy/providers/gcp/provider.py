"""Calls of Compute Engine that the driver of virtual machines needs: by REST, without Google's library.

A gang is one order (`bulkInsert`, as many as are needed or none). Names are unique in a zone, so a repeated
order makes nothing twice. Orders, ends and rests are operations that go on after the answer.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from typing import Final

import msgspec

from argosy.infra import border
from argosy.infra.machine_vendor import MachineOrder, Vendor, findings_of
from argosy.infra.machines import Machine, MachineState, Mark, Note, name_of
from argosy.infra.provider import Diagnostic, Setting, Want
from argosy.model.offer import Offer
from argosy.model.rows import Claim
from argosy.providers.gcp import MANIFEST
from argosy.providers.gcp.account import Account
from argosy.providers.gcp.launching import gang_of, has_local_ssd, image_of, order_of, own_policy, policy_of
from argosy.providers.gcp.listing import FIELDS, Bridge, machine_of
from argosy.providers.gcp.network import Networks
from argosy.providers.gcp.orders import Orders, pending_of
from argosy.providers.gcp.permissions import rights_of
from argosy.providers.gcp.places import Places
from argosy.providers.gcp.quotas import Quotas
from argosy.providers.gcp.tpu_words import is_tpu
from argosy.providers.gcp.tpus import Tpus, refuse
from argosy.providers.gcp.wire import Named, Operation, last
from argosy.providers.gcp.wishes import Wishes, wishes_of

_POLICY: Final = "policy"  # of a note: `REGION/NAME` of the placement policy that was made for a claim
_KEPT_S: Final = 3600.0  # so long a machine that is gone is told of
_EXISTS: Final = "already exists"


class Google(Vendor):
    """`patience_s`: so long an order waits for Google to say that there is none."""

    manifest = MANIFEST
    place = "a region"
    unique_names = True
    makes_gangs = True
    lag_s = 60.0
    agent_options = ("--notice=gcp",)
    end_command = "gcloud compute instances delete {id} --zone {zone}"

    def __init__(self, setting: Setting, *, patience_s: float = 30.0) -> None:
        environ = self._environ = setting.environ
        self.jumps = tuple((environ.get("ARGOSY_GCP_SSH_JUMP") or "").replace(",", " ").split())
        self._private = environ.get("ARGOSY_GCP_ADDRESS") == "private" or bool(self.jumps)
        self._account = Account(setting, patience_s=patience_s)
        self._networks = Networks(self._account, environ.get("ARGOSY_GCP_SSH_FROM") or "0.0.0.0/0")
        self._places = Places(self._account, setting.clock)
        self._quotas = Quotas(self._account, setting.clock)
        self._orders = Orders(self._account.ended, setting.clock)
        self._tpus = Tpus(self._account, setting, patience_s=patience_s)
        self._bridge = Bridge()
        self._clock = setting.clock
        self._ending: set[str] = set()  # names of what we delete
        self._lost: dict[str, tuple[float, Machine]] = {}  # by name: when it was missed, and what it was

    async def check(self) -> Sequence[Diagnostic]:
        async def project() -> str:
            found = await self._quotas.project()
            return f"{self._account.credentials.who()} may use the project {found.name}"

        async def rights() -> str:
            return await rights_of(self._account, self._environ)

        return await findings_of(MANIFEST, project, rights, self._quotas.summary, self._networks.default)

    async def quote(self, want: Want) -> Sequence[Offer]:
        """Types with accelerators of which the project may have none are closed."""
        return await self._quotas.closed()

    def refuse(self, claim: Claim) -> None:
        wishes = self._wishes(claim)
        if is_tpu(wishes.kind):
            refuse(wishes)
            return
        image_of(wishes)
        policy_of(claim.id, wishes)

    def _wishes(self, claim: Claim) -> Wishes:
        return wishes_of(claim, private=self._private)

    async def zones(self, claim: Claim) -> Sequence[str]:
        offer, wishes = claim.choice.offer, self._wishes(claim)
        if offer.zone:
            return (offer.zone,)
        zones = await self._places.zones(wishes.kind, wishes.region)
        if not wishes.reservations:
            return zones
        reserved = await self._places.reserved(wishes.reservations)
        return [zone for zone in zones if zone in reserved] or zones

    def keeps(self, claim: Claim) -> Mapping[str, str]:
        if is_tpu(claim.choice.offer.shape.instance_type):
            return {}
        policy = policy_of(claim.id, self._wishes(claim))
        return {_POLICY: f"{claim.choice.offer.region}/{policy}"} if policy == own_policy(claim.id) else {}

    async def clear(self, note: Note) -> bool:
        """The placement policy of a gang, after its last machine."""
        region, _, policy = note.keeps[_POLICY].partition("/")
        try:
            return not await self._account.drop_soon(f"regions/{region}/resourcePolicies/{policy}")
        except (border.Transient, border.RequestRefused):
            return False  # machines that go still use it

    async def create(self, order: MachineOrder, index: int) -> str:
        wishes, name = self._wishes(order.claim), order.name(index)
        site = await self._networks.site(wishes)
        if is_tpu(wishes.kind):
            return await self._tpus.create(order, wishes, site, index)
        await self._make_policy(order, wishes)
        self._forget(name)
        self._bridge.forget(order.zone)
        body = order_of(order, wishes, site, index)
        try:
            operation = await self._account.begin("POST", f"zones/{order.zone}/instances", order.scope, body)
            await self._finish(operation, order, ((index, name),))
        except border.RequestRefused as error:
            if _EXISTS not in str(error):
                raise
        return name

    async def create_all(self, order: MachineOrder) -> Sequence[str]:
        wishes = self._wishes(order.claim)
        names = [name_of(order.claim.id, index) for index in range(wishes.count)]
        if is_tpu(wishes.kind) and wishes.queue is not None:
            return await self._tpus.queue(order, wishes, await self._networks.site(wishes))
        if wishes.queue is not None or wishes.count == 1 or is_tpu(wishes.kind):
            return await self._one_by_one(order, names)
        site = await self._networks.site(wishes)
        await self._make_policy(order, wishes)
        for name in names:
            self._forget(name)
        self._bridge.forget(order.zone)
        rest, body = f"zones/{order.zone}/instances/bulkInsert", gang_of(order, wishes, site)
        try:
            operation = await self._account.begin("POST", rest, order.scope, body)
            await self._finish(operation, order, tuple(enumerate(names)))
        except border.RequestRefused as error:
            if _EXISTS not in str(error):
                raise
            raise border.Transient("Google Cloud is making what was ordered before", 2) from None
        return names

    async def _one_by_one(self, order: MachineOrder, names: Sequence[str]) -> Sequence[str]:
        """A queue of Google's takes single machines: on a refusal those that were made go."""
        made = await asyncio.gather(
            *(self.create(order, index) for index in range(len(names))), return_exceptions=True
        )
        errors = [each for each in made if isinstance(each, BaseException)]
        if errors:
            refused = [each for each in errors if not isinstance(each, border.Transient)]
            if refused:
                for name in names:
                    await self.delete(_promised(order, name))
            raise (refused or errors)[0]
        return names

    async def _finish(
        self, operation: Operation, order: MachineOrder, names: tuple[tuple[int, str], ...]
    ) -> None:
        """Wait for the end of an order; one that takes longer is followed by the looks that come."""
        place = f"zones/{order.zone}"
        try:
            done = await self._account.finish(place, operation, order.scope)
        except border.OutOfCapacity as error:
            raise (await self._account.reason(place, operation, order.scope) or error) from None
        if not done:
            self._orders.add(pending_of(order, operation.name, names))

    async def _make_policy(self, order: MachineOrder, wishes: Wishes) -> None:
        """What keeps the machines of a gang close together."""
        policy = own_policy(order.claim.id)
        if policy_of(order.claim.id, wishes) != policy:
            return
        place = f"regions/{wishes.region}"
        body = {
            "name": policy,
            "groupPlacementPolicy": {"collocation": "COLLOCATED", "vmCount": wishes.count},
        }
        try:
            operation = await self._account.begin("POST", f"{place}/resourcePolicies", policy, body)
            await self._account.finish(place, operation, policy)
        except border.RequestRefused as error:
            if _EXISTS not in str(error):
                raise

    def _forget(self, name: str) -> None:
        self._ending.discard(name)
        self._lost.pop(name, None)
        self._orders.forget(name)

    async def listed(self, region: str) -> Sequence[Machine]:
        query = (("filter", "labels.argosy-claim:*"), ("fields", FIELDS))
        found, silent, zones = [], set(), set()
        async for page in self._account.aggregated("instances", query):
            for place, scope in page.items.items():
                zones.add(last(place))
                if scope.is_silent:
                    silent.add(last(place))
                told = (machine_of(each, self._ending) for each in scope.instances)
                found += [machine for machine in told if machine is not None]
        await self._note_lost(self._bridge.missing(found, silent))
        found = self._bridge.over(found, silent, zones)
        there = {each.id for each in found}
        self._ending &= there
        found += await self._tpus.listed()
        there |= {each.id for each in found}
        ended = [*await self._orders.failed(), *(machine for _, machine in self._lost.values())]
        return found + [each for each in ended if each.id not in there]

    async def _note_lost(self, missing: Sequence[Machine]) -> None:
        """Machines that are there no longer, though we did not delete them: a spot machine was taken back."""
        now_s = self._clock.monotonic_s()
        for each in missing:
            rest = f"zones/{each.zone}/instances/{each.id}"
            if each.id in self._ending or await self._account.find(rest, Named) is not None:
                continue
            state = MachineState.PREEMPTED if each.spot else MachineState.ENDED
            said = "" if each.spot else "it is no longer there"
            lost = msgspec.structs.replace(each, state=state, said=said)
            self._lost[each.id] = (now_s, lost)
        self._lost = {id: kept for id, kept in self._lost.items() if now_s - kept[0] < _KEPT_S}

    async def delete(self, machine: Machine) -> None:
        self._orders.forget(machine.id)
        if is_tpu(machine.kind) or (not machine.kind and self._tpus.is_used):
            await self._tpus.delete(machine)
        if machine.zone and not is_tpu(machine.kind):
            self._ending.add(machine.id)
            await self._account.drop(f"zones/{machine.zone}/instances/{machine.id}")

    async def stop(self, machine: Machine) -> None:
        if is_tpu(machine.kind):
            return await self._tpus.act(machine, "stop")
        query = [("discardLocalSsd", "true")] if has_local_ssd(machine.kind) else []
        await self._act(machine, "stop", query)

    async def start(self, machine: Machine) -> None:
        if is_tpu(machine.kind):
            return await self._tpus.act(machine, "start")
        await self._act(machine, "start", [])

    async def _act(self, machine: Machine, what: str, query: Sequence[tuple[str, str]]) -> None:
        rest = f"zones/{machine.zone}/instances/{machine.id}/{what}"
        scope = f"{machine.kind} in {machine.zone}"
        operation = await self._account.begin("POST", rest, scope, None, query)
        await self._account.finish(f"zones/{machine.zone}", operation, scope)

    async def close(self) -> None:
        await self._account.close()
        await self._tpus.close()


def _promised(order: MachineOrder, name: str) -> Machine:
    """A machine of an order, whether it was made or not."""
    return Machine(
        id=name,
        mark=Mark(claim_id=order.claim.id, index=0),
        state=MachineState.STARTING,
        zone=order.zone,
        kind=order.kind,
    )

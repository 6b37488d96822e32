"""The driver of EC2: a claim is one order of N machines in one zone, all or none.

What exists is what AWS lists by tag. Notes on this server's disk (`orders`) bridge what a listing does not
show yet. Every call is repeatable: an order by its client token, an end by its instances' ids.
"""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine, Sequence
from pathlib import Path
from typing import Any, Final

import msgspec

from argosy.infra import border
from argosy.infra.agent_port import Channel
from argosy.infra.boot import agent_zipapp
from argosy.infra.claim_checks import check_claim
from argosy.infra.machine_keys import Keys
from argosy.infra.machine_notes import Notes
from argosy.infra.machine_ssh import Door, MachineSsh
from argosy.infra.provider import Diagnostic, Want
from argosy.infra.to_its_end import ToItsEnd
from argosy.infra.tombstones import Tombstones, is_claim_id
from argosy.model.facts import ClaimFact, ClaimState
from argosy.model.ids import Clock, Ids
from argosy.model.offer import Capacity, Offer
from argosy.model.phases import Desired
from argosy.model.rows import Claim, Node
from argosy.providers.aws import MANIFEST
from argosy.providers.aws.account import Account
from argosy.providers.aws.checking import findings_of
from argosy.providers.aws.images import Images
from argosy.providers.aws.launching import group_of
from argosy.providers.aws.listing import Listing
from argosy.providers.aws.network import Network
from argosy.providers.aws.ordering import Ordering
from argosy.providers.aws.orders import Order
from argosy.providers.aws.quotas import Quotas
from argosy.providers.aws.states import LAG_S, Machine, by_claim, fact_of, launch_error, surplus
from argosy.providers.aws.wishes import wishes_of

_PATIENCE_S: Final = 1.0
LATE_S: Final = 30.0  # so long an order without an answer may still become machines
_FIRST_LOOK_S, _LONGEST_LOOK_S = 0.05, 0.5


class AwsProvider:
    """Amazon EC2. `settle_s`: so long `ensure` waits for machines that it has ordered."""

    def __init__(
        self,
        root: Path,
        *,
        clock: Clock,
        ids: Ids,
        account: Account | None = None,
        ssh_from: str = "0.0.0.0/0",
        private: bool = False,
        settle_s: float = 3.0,
    ) -> None:
        self.manifest = MANIFEST
        self._clock, self._settle_s, self._private = clock, settle_s, private
        self._account = account or Account()
        self._network = Network(self._account, clock, ssh_from)
        self._quotas = Quotas(self._account, clock)
        self._orders = Notes(root / "orders", Order)
        self._released = Tombstones(root / ".released")
        self._listing = Listing(self._account, self._orders, clock)
        self._keys = Keys(root / "keys", "aws")
        self._ordering = Ordering(
            self._account,
            self._network,
            Images(self._account, clock),
            self._quotas,
            self._keys,
            self._orders,
            clock,
        )
        self._ssh = MachineSsh(
            root, keys=self._keys, clock=clock, ids=ids, zipapp=lambda: agent_zipapp(root / "agent")
        )
        self._settling = 0  # how many wait in `_settle`
        self._locks: dict[str, asyncio.Lock] = {}
        self._asking: asyncio.Task[str] | None = None
        self._to_its_end = ToItsEnd()

    # -- the six verbs --------------------------------------------------------------------------------------

    async def check(self) -> Sequence[Diagnostic]:
        return await findings_of(self._account, self._network, self._strangers)

    async def _strangers(self) -> Sequence[Machine]:
        """Machines that carry a claim's mark, and no note of ours speaks of that claim."""
        known = {order.claim_id for order in self._orders.all()}
        every = await self._listing.everywhere()
        return [each for each in every if each.claim_id not in known and not each.is_ended]

    async def quote(self, want: Want) -> Sequence[Offer]:
        """Nothing but what differs from the catalog. Raises `CredentialsRejected`; if AWS takes its time, the
        next question does: nobody shall wait for a good answer."""
        if self._asking is None:
            self._asking = asyncio.get_running_loop().create_task(self._account.identity())
            self._asking.add_done_callback(lambda task: task.cancelled() or task.exception())
        await asyncio.wait([self._asking], timeout=_PATIENCE_S)
        if self._asking.done():
            asked, self._asking = self._asking, None
            asked.result()
        return ()

    async def ensure(self, claim: Claim) -> None:
        self._refuse(claim)
        await self._to_its_end(self._ensure(claim))

    async def observe(self, claim_ids: Sequence[str]) -> Sequence[ClaimFact]:
        wanted = [id for id in claim_ids if is_claim_id(id)]
        if claim_ids and not wanted:
            return []
        listed = by_claim(await self._listing.machines(wanted))
        orders = {order.claim_id: order for order in self._orders.all()}
        names = wanted or sorted(listed.keys() | orders.keys())
        now_ms = self._clock.now_ms()
        found = [
            fact
            for name in names
            if not self._is_over(name, listed.get(name, ()))
            and (fact := fact_of(name, listed.get(name, ()), orders.get(name), now_ms)) is not None
        ]
        if not wanted:
            await self._tidy([order for order in orders.values() if order.ended_ms], listed)
        return found

    def _is_over(self, claim_id: str, machines: Sequence[Machine]) -> bool:
        """Released by us; AWS lists what has ended for an hour more."""
        return claim_id in self._released and all(each.is_ended for each in machines)

    async def release(self, claim_id: str) -> None:
        if not is_claim_id(claim_id):
            return
        await self._to_its_end(self._release(claim_id))

    async def reach(self, node: Node) -> Channel:
        region, _, id = node.address.partition("/")
        machine = await self._listing.machine(region, id) if id.startswith("i-") else None
        if machine is None or machine.state != "running":
            raise border.Unreachable(f"there is no machine {node.address} that runs")
        try:
            return await self._ssh.open(self._door(machine))
        except border.Unreachable:
            self._listing.forget(machine.claim_id)  # it may have another address by now
            raise

    def _door(self, machine: Machine) -> Door:
        return Door(
            address=machine.address,
            name=machine.id,
            claim_id=machine.claim_id,
            host=machine.private_ip if self._private else machine.public_ip or machine.private_ip,
            user=machine.user,
            options=("--notice=aws",),
        )

    # -- effects --------------------------------------------------------------------------------------------

    async def _disk_at_border(self, work: Coroutine[Any, Any, None]) -> None:
        try:
            await work
        except OSError as error:
            raise border.Transient(f"cannot keep notes of AWS: {error.strerror or error}", 10) from error

    def _lock(self, claim_id: str) -> asyncio.Lock:
        return self._locks.setdefault(claim_id, asyncio.Lock())

    def _refuse(self, claim: Claim) -> None:
        offer = claim.choice.offer
        check_claim(claim, self.manifest.name, "AWS")
        if claim.choice.accelerators_milli % 1000:
            raise border.Unsupported("AWS rents whole machines: a part of an accelerator cannot be ordered")
        if claim.desired is Desired.STOP and offer.capacity is Capacity.SPOT:
            raise border.Unsupported("spot machines of AWS cannot rest: they can only go")
        if not offer.region or not offer.shape.instance_type:
            raise border.RequestRefused("infra", "an order at AWS names a region and a type of machine")

    async def _ensure(self, claim: Claim) -> None:
        async with self._lock(claim.id):
            if claim.id in self._released:
                raise border.RequestRefused("claim", f"{claim.id} was released before")
            order = self._orders.load(claim.id)
            region = order.region if order is not None else claim.choice.offer.region
            machines = await self._listing.of_claim(region, claim.id)
            if await self._has_ended(claim, order, machines):
                return
            if claim.desired is Desired.STOP:
                await self._rest(claim, order, machines)
            elif not machines and (order is None or not order.ids):
                await self._ordering.order(claim, wishes_of(claim), order)
            elif machines:
                await self._wake(region, machines)
        await self._settle(claim)

    async def _has_ended(self, claim: Claim, order: Order | None, machines: Sequence[Machine]) -> bool:
        """Whether AWS, or somebody, has taken machines of it away: `observe` tells, and nothing is ordered
        again. Raises for what ended while it was made. Of two orders for one claim the later goes."""
        more = surplus(machines, order)
        if more:
            await self._end(more[0].region, more)
        live = [each for each in machines if each not in more]
        fact = fact_of(claim.id, live, order, self._clock.now_ms())
        ended = next((each for each in live if each.is_ended), None)
        if ended is not None and fact is not None and fact.state is ClaimState.GONE and not claim.held_ms:
            raise launch_error(ended)
        return ended is not None

    async def _wake(self, region: str, machines: Sequence[Machine]) -> None:
        asleep = [each for each in machines if each.rests]
        if any(each.state == "stopping" for each in asleep):
            raise border.Transient("the machines are still going to rest", 2)
        if asleep:
            self._listing.forget(asleep[0].claim_id)
            what = f"{asleep[0].kind} in {asleep[0].zone}"
            ids = [each.id for each in asleep]
            try:
                await self._account.call("ec2", region, "start_instances", what, InstanceIds=ids)
            except (border.OutOfCapacity, border.QuotaExceeded) as error:
                # Another place has not their disks: they wait for room where they are.
                raise border.Transient(f"the machines at rest cannot start yet: {error}", 30) from None

    async def _rest(self, claim: Claim, order: Order | None, machines: Sequence[Machine]) -> None:
        if not machines and (order is None or not order.ids):
            region = claim.choice.offer.region
            self._orders.save(
                Order(
                    claim_id=claim.id,
                    region=region,
                    count=claim.count,
                    tag=claim.tag,
                    rests=True,
                    asked_ms=self._clock.now_ms(),
                )
            )
            return
        awake = [each for each in machines if not each.rests]
        for machine in awake:
            await self._ssh.forget(self._door(machine))
        if awake:
            self._listing.forget(claim.id)
            await self._account.call(
                "ec2", awake[0].region, "stop_instances", InstanceIds=[each.id for each in awake]
            )

    async def _settle(self, claim: Claim) -> None:
        """Wait a little for what was ordered: most machines run within seconds, and who waits for the next
        look loses them."""
        waited_s, step_s = 0.0, _FIRST_LOOK_S
        self._settling += 1
        try:
            while waited_s < self._settle_s:
                (fact,) = await self.observe([claim.id]) or (None,)
                if fact is None or fact.state is not ClaimState.PENDING or claim.id in self._released:
                    return
                pause_s = max(step_s, _FIRST_LOOK_S * self._settling)  # all of them look 20 times a second
                await asyncio.sleep(pause_s)
                waited_s += pause_s
                step_s = min(step_s * 1.5, _LONGEST_LOOK_S)
        finally:
            self._settling -= 1

    async def _release(self, claim_id: str) -> None:
        self._released.add(claim_id)  # first: what waits in `ensure` looks at it
        async with self._lock(claim_id):
            order = self._orders.load(claim_id)
            machines = [each for each in await self._listing.machines([claim_id]) if not each.is_ended]
            late = order is not None and not order.ids and not order.rests and not order.ended_ms
            age_s = (self._clock.now_ms() - order.asked_ms) / 1000 if order is not None else 0.0
            if order is not None:
                machines += self._unlisted(order, machines)
            regions = {each.region for each in machines}
            for machine in machines:
                await self._ssh.forget(self._door(machine))
            for region in regions:
                await self._end(region, [each for each in machines if each.region == region])
            if late and not machines and age_s < LATE_S:
                raise border.Transient("AWS may still make what was ordered a moment ago", 2)
            if order is not None and order.group:
                self._orders.save(msgspec.structs.replace(order, ended_ms=self._clock.now_ms()))
            else:
                self._orders.remove(claim_id)
            self._listing.forget(claim_id)
        self._locks.pop(claim_id, None)

    def _unlisted(self, order: Order, listed: Sequence[Machine]) -> list[Machine]:
        """Machines that AWS has promised and does not list yet."""
        if self._clock.now_ms() - order.asked_ms > LAG_S * 1000:
            return []
        known = {each.id for each in self._listing.last(order.claim_id)}
        return [_promised(order, id) for id in order.ids if id not in {each.id for each in listed} | known]

    async def _end(self, region: str, machines: Sequence[Machine]) -> None:
        """All of them go, without the goodbyes of their systems: what runs there has had its grace."""
        ids = [each.id for each in machines]
        await self._account.call("ec2", region, "terminate_instances", InstanceIds=ids, SkipOsShutdown=True)
        requests = [each.spot_request for each in machines if each.spot_request]
        if requests:  # a request that stays open would make another machine
            await self._account.call(
                "ec2", region, "cancel_spot_instance_requests", SpotInstanceRequestIds=requests
            )

    async def _tidy(self, ended: Sequence[Order], listed: dict[str, list[Machine]]) -> None:
        """Placement groups of released gangs go when AWS lets them: after the last machine."""
        for order in ended:
            if all(each.state == "terminated" for each in listed.get(order.claim_id, ())):
                fine = ("InvalidPlacementGroup.Unknown", "InvalidPlacementGroup.InUse")
                try:
                    await self._account.call(
                        "ec2",
                        order.region,
                        "delete_placement_group",
                        fine=fine,
                        GroupName=group_of(order.claim_id),
                    )
                except border.Transient:
                    continue
                self._orders.remove(order.claim_id)


def _promised(order: Order, id: str) -> Machine:
    return Machine(
        id=id,
        region=order.region,
        zone=order.zone,
        claim_id=order.claim_id,
        tag=order.tag,
        count=order.count,
        spot=order.spot,
    )

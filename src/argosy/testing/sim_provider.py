"""`infra.provider.Provider` on the simulated world: a scripted market, slow boots, listings that lag.

An owned offer describes a whole machine of which claims get slices; on-demand and spot offers describe one
node, may be refused and, for spot, be taken away again.
"""

from __future__ import annotations

import asyncio
import random
from collections.abc import Mapping, Sequence
from functools import partial
from typing import Final

import msgspec

from argosy.infra import border
from argosy.infra.agent_port import Channel
from argosy.infra.allotment import allot_devices, free_milli
from argosy.infra.provider import Capabilities, Diagnostic, Manifest, Provider, Want
from argosy.model.facts import ClaimFact, ClaimState, Device, NodeFacts, NodeSighting, Notice
from argosy.model.offer import Capacity, Offer, OwnedMachine, Placement, Shape, machine_id, place_of
from argosy.model.phases import Desired
from argosy.model.rows import Claim, Node
from argosy.model.units import GIB
from argosy.testing.builders import a_gpu_shape, a_shape, some_devices
from argosy.testing.machines import Machine
from argosy.testing.starts import check_claim_intent
from argosy.testing.world import World

_SECRET: Final = "sim-credential-f00dface"  # the suite looks for it in facts and errors

POOL: Final = Manifest(
    name="pool",
    title="a pool that we own",
    capabilities=Capabilities(owned=True, stop=True, multi_node=True, fractions=True),
    enabled_by_default=True,
)
FARM: Final = Manifest(
    name="farm",
    title="equal machines that we own",
    capabilities=Capabilities(owned=True, stop=True, multi_node=True, fractions=True),
    enabled_by_default=True,
    may_return=True,
)
CLOUD: Final = Manifest(
    name="cloud",
    title="a cloud with on-demand and spot nodes",
    capabilities=Capabilities(spot=True, stop=True, multi_node=True, preemption_notice=True),
    credentials=("CLOUD_KEY",),
    enabled_by_default=True,
)


class Order(msgspec.Struct, kw_only=True):
    """What the infrastructure knows of one claim."""

    claim: Claim
    state: ClaimState  # held, stopped or preempted
    since_s: float
    machines: list[Machine]
    devices: list[tuple[tuple[int, int], ...]]  # of an owned machine, per node: (device, thousandths)


class SimProvider:
    """`offers` are the market. Where an offer has `nodes_max`, there are no more nodes of it."""

    def __init__(self, world: World, manifest: Manifest, offers: Sequence[Offer]) -> None:
        self.world = world
        self.manifest = manifest
        self.offers = list(offers)
        self.orders: dict[str, Order] = {}
        self.released: set[str] = set()
        self._past: list[tuple[float, tuple[ClaimFact, ...]]] = []
        self.secret = _SECRET
        self.sharing: tuple[str, ...] = ()  # how its machines can keep parts of a device apart

    # -- the six verbs --------------------------------------------------------------------------------------

    async def check(self) -> Sequence[Diagnostic]:
        return [Diagnostic(provider=self.manifest.name, ok=True, what="the simulated world turns")]

    async def quote(self, want: Want) -> Sequence[Offer]:
        await self._call("quote")
        now_ms = self.world.clock.now_ms()
        return [
            msgspec.structs.replace(
                offer,
                quoted_at_ms=now_ms,
                price_micro_usd=self._price(offer),
                machines=tuple(_as_it_is(self.world, each) for each in offer.machines),
            )
            for offer in self.offers
        ]

    def _price(self, offer: Offer) -> int:
        """What it costs now: prices of clouds move when the weather says so."""
        moves_per_h = self.world.faults.price_moves_per_h
        if not offer.price_micro_usd or moves_per_h <= 0:
            return offer.price_micro_usd
        period = int(self.world.now_s * moves_per_h / 3600)
        place = f"{self.world.seed}:{offer.zone}:{offer.shape.instance_type}:{offer.capacity}:{period}"
        return round(offer.price_micro_usd * random.Random(place).uniform(0.5, 3.0))

    async def ensure(self, claim: Claim) -> None:
        if claim.choice.offer.provider != self.manifest.name:
            raise border.RequestRefused(
                "provider", f"`{claim.choice.offer.provider}` is not {self.manifest.name}"
            )
        self._refuse_undeclared(claim)
        await self._call("ensure")
        check_claim_intent(self.world, claim)
        for _ in range(2 if self.world.chance("duplicates", self.world.faults.duplicate) else 1):
            self._ensure(claim)
        self._remember()
        await self._answer("ensure")

    async def observe(self, claim_ids: Sequence[str]) -> Sequence[ClaimFact]:
        await self._call("observe")
        facts = self._listing()
        if self.world.chance("listings", self.world.faults.stale_listing):
            past = [old for at_s, old in self._past if at_s >= self.world.now_s - 60]
            facts = self.world.dice("listings").choice(past) if past else facts
        if self.world.chance("listings", self.world.faults.partial_listing) and facts:
            left_out = self.world.dice("listings").choice(facts).claim_id
            self.world.tell(f"{self.manifest.name}.observe leaves out {left_out}")
            facts = tuple(fact for fact in facts if fact.claim_id != left_out)
        wanted = set(claim_ids)
        return [fact for fact in facts if not wanted or fact.claim_id in wanted]

    async def release(self, claim_id: str) -> None:
        await self._call("release")
        _check_reachable(self, claim_id)
        self._release(claim_id)
        self._remember()
        await self._answer("release")

    async def reach(self, node: Node) -> Channel:
        raise border.Unsupported("simulated nodes are reached through SimAgentDirectory")

    # -- effects --------------------------------------------------------------------------------------------

    async def _call(self, verb: str) -> None:
        await self.world.call(
            f"{self.manifest.name}.{verb}", self.world.faults.provider_error, latency_max_s=2.0
        )

    async def _answer(self, verb: str) -> None:
        await self.world.answer(f"{self.manifest.name}.{verb}", self.world.faults.provider_lost_reply)

    def _refuse_undeclared(self, claim: Claim) -> None:
        can, offer = self.manifest.capabilities, claim.choice.offer
        for name, wanted, declared in (
            ("stop", claim.desired is Desired.STOP, can.stop),
            ("multi_node", claim.count > 1, can.multi_node),
            ("spot", offer.capacity is Capacity.SPOT, can.spot),
            ("fractions", claim.choice.accelerators_milli % 1000 != 0, can.fractions),
        ):
            if wanted and not declared:
                raise border.Unsupported(f"{self.manifest.name} does not declare `{name}`")

    def _ensure(self, claim: Claim) -> None:
        world, order = self.world, self.orders.get(claim.id)
        if order is None:
            if claim.id in self.released and world.faults.forgets_releases == 0:
                raise border.RequestRefused("claim", f"{claim.id} was released before")
            self._create(claim, self._take_capacity(claim))
        elif order.state is ClaimState.PREEMPTED:
            return  # `observe` tells; a preempted claim does not come back
        elif claim.desired is Desired.STOP and order.state is ClaimState.HELD:
            world.tell(f"{self.manifest.name}: {claim.id} stops")
            order.state, order.devices = ClaimState.STOPPED, []
            for machine in order.machines:
                if machine.state != "dead":
                    world.stop_machine(machine)
        elif claim.desired is Desired.RUN and order.state is ClaimState.STOPPED:
            order.devices = self._take_capacity(claim)
            world.tell(f"{self.manifest.name}: {claim.id} starts again")
            order.state = ClaimState.HELD
            for machine in order.machines:
                machine.facts = self._facts_of(claim, machine.index, order.devices)
                if machine.state == "stopped":
                    world.restart_machine(machine, self._boot_s())
        elif claim.desired is Desired.RUN:
            for machine in order.machines:
                if not machine.is_partitioned:
                    world.start_agent(machine)

    def _take_capacity(self, claim: Claim) -> list[tuple[tuple[int, int], ...]]:
        """Devices for each node (of an owned machine). Raises `OutOfCapacity`."""
        offer, choice = claim.choice.offer, claim.choice
        mine = next((one for one in self.offers if _same_place(one, offer)), None)
        if mine is None:
            raise border.RequestRefused("instance_type", f"there is no `{offer.shape.instance_type}`")
        held = [
            order
            for order in self.orders.values()
            if order.state is ClaimState.HELD
            and order.claim.id != claim.id
            and _same_place(order.claim.choice.offer, mine)
        ]
        if offer.capacity is Capacity.OWNED and claim.placements:
            return self._take_placed(claim, mine, held)
        used = sum(order.claim.count for order in held)
        if mine.nodes_max is not None and used + claim.count > mine.nodes_max:
            raise border.OutOfCapacity(
                offer.zone or self.manifest.name, f"{used} of {mine.nodes_max} nodes are used"
            )
        if offer.capacity is not Capacity.OWNED:
            if self.world.chance("capacity", self.world.faults.capacity_miss):
                raise border.OutOfCapacity(offer.zone or offer.region or offer.shape.instance_type)
            return []
        for name, total in (("cpus_milli", mine.shape.cpus_milli), ("memory_bytes", mine.shape.memory_bytes)):
            taken = sum(getattr(order.claim.choice, name) * order.claim.count for order in held)
            if taken + getattr(choice, name) * claim.count > total:
                raise border.OutOfCapacity(self.manifest.name, f"not enough {name} is free")
        shares = [share for order in held for node in order.devices for share in node]
        count = mine.shape.accelerators_milli // 1000
        devices = allot_devices(free_milli(range(count), shares), choice.accelerators_milli, claim.count)
        if devices is None:
            raise border.OutOfCapacity(self.manifest.name, "not enough accelerators are free")
        return devices

    def _take_placed(
        self, claim: Claim, mine: Offer, held: Sequence[Order]
    ) -> list[tuple[tuple[int, int], ...]]:
        """As the claim says: on which of our machines, and which devices. Raises `OutOfCapacity`."""
        cpus: dict[str, int] = {}
        memory: dict[str, int] = {}
        milli: dict[tuple[str, int], int] = {}
        for place in (*claim.placements, *(place for one in held for place in one.claim.placements)):
            cpus[place.node_id] = cpus.get(place.node_id, 0) + place.cpus_milli
            memory[place.node_id] = memory.get(place.node_id, 0) + place.memory_bytes
            for share in place.devices:
                key = place.node_id, share.index
                milli[key] = milli.get(key, 0) + share.milli
        for place in claim.placements:
            has = _machine_of(mine, place) or NodeFacts(
                cpus_milli=mine.shape.cpus_milli, memory_bytes=mine.shape.memory_bytes
            )
            if cpus[place.node_id] > has.cpus_milli or memory[place.node_id] > has.memory_bytes:
                raise border.OutOfCapacity(self.manifest.name, f"{place.node_id} is full")
            for share in place.devices:
                if milli[place.node_id, share.index] > 1000:
                    raise border.OutOfCapacity(
                        self.manifest.name, f"device {share.index} of {place.node_id} is taken"
                    )
        return [
            tuple((share.index, share.milli) for share in place.devices)
            for place in sorted(claim.placements, key=lambda each: each.rank)
        ]

    def _create(self, claim: Claim, devices: list[tuple[tuple[int, int], ...]]) -> None:
        """A claim that is to rest is made at rest."""
        world, rests = self.world, claim.desired is Desired.STOP
        world.tell(f"{self.manifest.name}: makes {claim.count} nodes for {claim.id}")
        machines = []
        for index in range(claim.count):
            facts = self._facts_of(claim, index, devices)
            machine = Machine(self.manifest.name, claim.id, index, facts)
            _give_character(machine, self)
            if machine.address in world.machines:
                world.violate("one-machine", f"a second machine for {machine.address}")
            world.add_machine(machine, self._boot_s(), fails=world.chance("boots", world.faults.failed_boot))
            if rests:
                world.stop_machine(machine)
            machines.append(machine)
        self.orders[claim.id] = Order(
            claim=claim,
            state=ClaimState.STOPPED if rests else ClaimState.HELD,
            since_s=world.now_s,
            machines=machines,
            devices=[] if rests else devices,
        )
        faults = world.faults
        if claim.choice.offer.capacity is Capacity.SPOT and faults.preemptions_per_h > 0:
            after_s = world.dice("preemptions").expovariate(faults.preemptions_per_h / 3600)
            asyncio.get_running_loop().call_later(after_s, self._preempt_by_weather, claim.id)

    def _facts_of(self, claim: Claim, index: int, devices: list[tuple[tuple[int, int], ...]]) -> NodeFacts:
        shape = claim.choice.offer.shape
        place = next((each for each in claim.placements if each.rank == index), None)
        named = next((each for each in map(partial(_machine_of, place=place), self.offers) if each), None)
        cards = named.devices if named is not None else _cards(shape)
        if claim.choice.offer.capacity is Capacity.OWNED:
            mine = {device for device, _ in devices[index]} if devices else set[int]()
            cards = tuple(card for card in cards if card.index in mine)
        return NodeFacts(
            hostname=f"{claim.id[-6:]}-{index}",
            arch=shape.arch,
            cpus_milli=named.cpus_milli if named is not None else shape.cpus_milli,
            memory_bytes=named.memory_bytes if named is not None else shape.memory_bytes,
            devices=cards,
            agent_version="sim",
            leases=True,
            sharing=self.sharing,
        )

    def _boot_s(self) -> float:
        dice = self.world.dice("boots")
        if self.world.chance("boots", self.world.faults.slow_boot):
            return dice.uniform(100, 900)
        return dice.uniform(0.1, 2.0) if self.manifest.capabilities.owned else dice.uniform(15, 60)

    def _release(self, claim_id: str) -> None:
        order = self.orders.pop(claim_id, None)
        self.released.add(claim_id)
        if order is None:
            return
        self.world.tell(f"{self.manifest.name}: releases {claim_id}")
        for machine in order.machines:
            self.world.remove_machine(machine)

    def _preempt_by_weather(self, claim_id: str) -> None:
        if self.world.faults.preemptions_per_h == 0:
            return  # the weather has calmed down since
        if not self.world.chance("preemptions", self.world.faults.notice):
            self.preempt(claim_id)
            return
        order = self.orders.get(claim_id)
        if order is None:
            return
        self.world.tell(f"{claim_id} will be preempted in 30 s")
        if self.world.dice("notices").random() < 0.5:  # its programs are told, or the machine
            for machine in order.machines:
                for rank_id in list(machine.ranks):
                    self.world.stop_rank(machine, rank_id, 30)
        else:
            announce(self.world, order, 30)
        asyncio.get_running_loop().call_later(30, self.preempt, claim_id)

    def preempt(self, claim_id: str) -> None:
        """The infrastructure takes the nodes away. The claim stays listed as preempted until it is
        released."""
        order = self.orders.get(claim_id)
        if order is None or order.state is not ClaimState.HELD:
            return
        self.world.tell(f"{claim_id} is preempted")
        order.state = ClaimState.PREEMPTED
        for machine in order.machines:
            self.world.remove_machine(machine)

    # -- listings -------------------------------------------------------------------------------------------

    def _listing(self) -> tuple[ClaimFact, ...]:
        lag_s = self.world.faults.listing_lag_s
        return tuple(
            _fact_of(order)
            for order in self.orders.values()
            if lag_s == 0 or self.world.now_s - order.since_s >= lag_s
        )

    def _remember(self) -> None:
        """Keeps what a stale listing may show."""
        if self.world.faults.stale_listing == 0:
            return
        self._past.append((self.world.now_s, self._listing()))
        del self._past[:-20]

    def names_of_all(self) -> set[str]:
        """The truth, for suites and checkers: ids of claims that hold something."""
        return {
            claim_id for claim_id, order in self.orders.items() if order.state is not ClaimState.PREEMPTED
        }


def _give_character(machine: Machine, provider: SimProvider) -> None:
    """Whether it comes back after it died, how fast its clock runs, and how wrong what that shows is."""
    machine.returns = provider.manifest.may_return
    machine.rate = 1 + provider.world.dice("drift").uniform(-1, 1) * provider.world.faults.clock_drift
    off_h = provider.world.dice("wall").uniform(-1, 1) * provider.world.faults.wall_off_h
    machine.wall_off_ms = int(off_h * 3_600_000)


def _check_reachable(provider: SimProvider, claim_id: str) -> None:
    """Where machines may return, nobody outside can end what runs on one that does not answer. Raises
    Unreachable."""
    order = provider.orders.get(claim_id) if provider.manifest.may_return else None
    for machine in order.machines if order is not None else ():
        if machine.state in ("dead", "booting") or machine.is_partitioned:
            raise border.Unreachable(f"{machine.address} does not answer")


def announce(world: World, order: Order, in_s: float) -> None:
    """The machines of a claim are told when they will be taken away."""
    notice = Notice(code="terminate", at_ms=world.clock.now_ms() + int(in_s * 1000))
    for machine in order.machines:
        machine.facts = msgspec.structs.replace(machine.facts, notice=notice)
        machine.notify()


class SimProviders:
    """`infra.provider.Providers`."""

    def __init__(self, providers: Sequence[SimProvider]) -> None:
        self._by_name = {one.manifest.name: one for one in providers}

    def get(self, name: str) -> SimProvider:
        return self._by_name[name]

    def all(self) -> Mapping[str, Provider]:
        return dict(self._by_name)

    def sims(self) -> Sequence[SimProvider]:
        return list(self._by_name.values())


def _same_place(one: Offer, other: Offer) -> bool:
    return (one.region, one.zone, one.capacity, one.shape.instance_type) == (
        other.region,
        other.zone,
        other.capacity,
        other.shape.instance_type,
    )


def _as_it_is(world: World, machine: OwnedMachine) -> OwnedMachine:
    """A machine closes for a while when the weather says so; what runs there runs on."""
    per_h = world.faults.hosts_close_per_h
    period_s = 240
    if per_h <= 0:
        return machine
    dice = random.Random(f"{world.seed}:{machine.name}:{int(world.now_s / period_s)}")
    is_closed = dice.random() < per_h * period_s / 3600
    return msgspec.structs.replace(machine, closed="does not answer") if is_closed else machine


def _machine_of(offer: Offer, place: Placement | None) -> NodeFacts | None:
    """What a placement stands on, where an offer names its machines."""
    where = place_of(offer)
    return next(
        (
            each.facts
            for each in offer.machines
            if place is not None and machine_id(where, each.name) == place.node_id
        ),
        None,
    )


def _cards(shape: Shape) -> tuple[Device, ...]:
    return some_devices(
        shape.accelerators_milli // 1000, shape.accelerator or "", shape.accelerator_memory_bytes
    )


def _fact_of(order: Order) -> ClaimFact:
    if order.state is ClaimState.PREEMPTED:
        return ClaimFact(claim_id=order.claim.id, state=ClaimState.PREEMPTED, tag=order.claim.tag)
    if order.state is ClaimState.HELD and any(machine.state == "booting" for machine in order.machines):
        return ClaimFact(claim_id=order.claim.id, state=ClaimState.PENDING, tag=order.claim.tag)
    return ClaimFact(
        claim_id=order.claim.id,
        state=order.state,
        tag=order.claim.tag,
        nodes=tuple(
            NodeSighting(
                index=machine.index,
                address=machine.address,
                ip=f"10.0.{len(order.claim.id) % 250}.{machine.index + 1}",
                alive=machine.state == "up" and machine.agent_alive,
            )
            for machine in order.machines
        ),
    )


def _different(equal: Offer) -> Offer:
    """As many devices on machines of different size. Each has a name."""
    machines = tuple(
        OwnedMachine(
            name=str(number),
            facts=NodeFacts(
                hostname=f"farm-{number}",
                arch="x86_64",
                cpus_milli=cpus_milli,
                memory_bytes=memory_bytes,
                devices=some_devices(gpus, "L4", 24 * GIB),
                sharing=("mps",),
            ),
        )
        for number, (gpus, cpus_milli, memory_bytes) in enumerate(
            ((5, 20_000, 512 * GIB), (4, 16_000, 256 * GIB), (4, 12_000, 512 * GIB), (3, 16_000, 128 * GIB))
        )
    )
    largest = msgspec.structs.replace(equal.shape, cpus_milli=20_000, accelerators_milli=5000)
    return msgspec.structs.replace(equal, shape=largest, nodes_max=4, machines=machines, apart=True)


def a_market(world: World) -> SimProviders:
    """The usual infrastructure of simulations: one large machine of our own, four small ones (equal, or in
    every third seed different ones with names), and a cloud with two zones."""
    pool = Offer(
        provider="pool", shape=a_gpu_shape(8, cpus_milli=64000), capacity=Capacity.OWNED, price_micro_usd=0
    )
    offers = [
        Offer(
            provider="cloud",
            region="east",
            zone=zone,
            shape=shape,
            capacity=capacity,
            price_micro_usd=price if capacity is Capacity.ON_DEMAND else price // 3,
        )
        for zone in ("east-a", "east-b")
        for shape, price in (
            (a_shape(instance_type="c8"), 400_000),
            (a_gpu_shape(1, instance_type="g1", cpus_milli=12000), 3_000_000),
        )
        for capacity in (Capacity.ON_DEMAND, Capacity.SPOT)
    ]
    l4 = a_gpu_shape(4, "L4", cpus_milli=16000, accelerator_memory_bytes=24 * GIB)
    equal = Offer(provider="farm", shape=l4, capacity=Capacity.OWNED, price_micro_usd=0, nodes_max=4)
    farm = SimProvider(world, FARM, [_different(equal) if world.seed % 3 == 1 else equal])
    farm.sharing = ("mps",)
    return SimProviders([SimProvider(world, POOL, [pool]), farm, SimProvider(world, CLOUD, offers)])

"""What gateways are told of services, and what is made of their counters."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine

import msgspec
import pytest
from service_stage import Stage, a_revision

from argosy.controllers.loads import Load
from argosy.controllers.observed import Facts
from argosy.controllers.routing import Routing
from argosy.controllers.service.routes import endpoints_of, route_of, routes_of
from argosy.controllers.service.scaling import wanted_replicas
from argosy.controllers.service.target import scaling_policy
from argosy.infra.border import Transient
from argosy.model.errors import ArgosyError
from argosy.model.kinds.service import ReplicaState, service_spec, service_state
from argosy.model.phases import Desired
from argosy.model.routes import (
    LATENCY_BOUNDS_MS,
    GatewayCounters,
    HashBy,
    ReplicaCounters,
    RevisionCounters,
    RouteTable,
    ServiceCounters,
    Wants,
    check_table,
)
from argosy.model.rows import Workload
from argosy.model.scaling import CONCURRENCY, REQUESTS, WORK, Seen
from argosy.model.serving import Replicas, Serving, Strategy
from argosy.server.features.services import check_hosts
from argosy.testing.virtual_time import EPOCH_MS, SimClock, run_virtual


def test_a_route_has_who_is_ready_and_who_leaves_with_their_shares() -> None:
    stage = Stage(replicas=2)
    stage.beat()
    stage.busy = {each.job_id: 1 for each in stage.replicas()}
    stage.want(fixed=1)
    stage.beat()
    route = route_of(stage.row)
    assert route.prefix == "/s/chat" and route.policy.name == "least-outstanding"
    [revision] = route.revisions
    assert (revision.id, revision.weight) == ("1", 10_000)
    assert [each.state for each in revision.replicas] == ["draining", "ready"]
    assert check_table(RouteTable(generation=1, services=(route,))) == []


def test_a_host_that_two_services_claim_is_the_older_ones() -> None:
    row = Stage().row
    revisions = tuple(
        msgspec.structs.replace(
            each, task=msgspec.structs.replace(each.task, service=Serving(hosts=("a.b",), grpc=True))
        )
        for each in service_spec(row).revisions
    )
    old = msgspec.structs.replace(row, spec=msgspec.structs.replace(row.spec, revisions=revisions))
    new = msgspec.structs.replace(old, id="svc-0", name="other", created_ms=old.created_ms + 1)
    routes = routes_of([new, old])
    assert [(route.name, route.hosts) for route in routes] == [("chat", ("a.b",)), ("other", ())]
    assert check_table(RouteTable(generation=1, services=routes)) == []
    assert [route.protocol for route in routes] == ["grpc", "grpc"]
    task = revisions[0].task
    check_hosts(task, old, [old])
    with pytest.raises(ArgosyError, match=r"the domain `a\.b` belongs to another service already"):
        check_hosts(task, None, [old])


def test_services_with_one_endpoint_share_it_and_its_host() -> None:
    def row(number: int, share: int, **fields: object) -> Workload:
        stage = Stage(replicas=1)
        spec = service_spec(stage.row)
        first = spec.revisions[0]
        told = {"endpoint": "chat", "share_milli": share, "models": (f"m{number}",), **fields}
        serving = msgspec.structs.replace(first.serving, hosts=("chat.example.org",), **told)
        new = msgspec.structs.replace(first, task=msgspec.structs.replace(first.task, service=serving))
        spec = msgspec.structs.replace(spec, revisions=(new,))
        return msgspec.structs.replace(stage.row, id=f"svc-{number}", name=f"chat-m{number}", spec=spec)

    rows = [row(1, 900), row(2, 100)]
    routes = routes_of(rows)
    assert [(each.prefix, each.hosts, each.models) for each in routes] == [
        ("/s/chat-m1", (), ("m1",)),
        ("/s/chat-m2", (), ("m2",)),
    ]
    [shared] = endpoints_of(rows, routes)
    assert (shared.prefix, shared.hosts) == ("/s/chat", ("chat.example.org",))
    assert [(each.service, each.weight) for each in shared.members] == [("svc-1", 9000), ("svc-2", 1000)]
    assert check_table(RouteTable(generation=1, services=routes, endpoints=(shared,))) == []


def _served(row: Workload, serving: Serving) -> Workload:
    """The row with this `service` in all revisions."""
    spec = service_spec(row)
    revisions = tuple(
        msgspec.structs.replace(each, task=msgspec.structs.replace(each.task, service=serving))
        for each in spec.revisions
    )
    return msgspec.structs.replace(row, spec=msgspec.structs.replace(spec, revisions=revisions))


def test_users_are_told_apart_as_the_file_says() -> None:
    serving = Serving(balance="consistent_hash", affinity="header:x-user")
    policy = route_of(_served(Stage().row, serving)).policy
    assert (policy.name, policy.hash_by) == ("consistent-hash", HashBy(attribute="header", name="x-user"))
    stage = Stage(replicas=1)
    stage.beat()
    stage.update(Strategy(name="ab", steps=(500,)))
    stage.beat(times=4)
    sticky = route_of(_served(stage.row, Serving(affinity="cookie:Sid"))).sticky_by
    assert sticky == HashBy(attribute="cookie", name="Sid")


def test_the_service_that_reads_prompts_is_found_by_its_name() -> None:
    chat = _served(Stage().row, Serving(prefill="reads", bootstrap_port=8998))
    assert route_of(chat).bootstrap_port == 8998
    reads = msgspec.structs.replace(Stage().row, id="svc-reads", name="reads")
    assert [route.prefill for route in routes_of([chat, reads])] == ["svc-reads", ""]
    assert [route.prefill for route in routes_of([chat])] == [""], "nobody reads them yet"
    elsewhere = msgspec.structs.replace(reads, project="vision")
    assert [route.prefill for route in routes_of([chat, elsewhere])] == ["", ""]


def _shared_update(stage: Stage, share_milli: int, strategy: Strategy) -> None:
    """A new revision that has this share at the endpoint `all`."""
    stage.update(strategy, replicas=1)
    spec = service_spec(stage.row)
    new = spec.revisions[-1]
    serving = msgspec.structs.replace(new.serving, endpoint="all", share_milli=share_milli, models=("m",))
    new = msgspec.structs.replace(new, task=msgspec.structs.replace(new.task, service=serving))
    revisions = (*spec.revisions[:-1], new)
    stage.put(msgspec.structs.replace(stage.row, spec=msgspec.structs.replace(spec, revisions=revisions)))


def _shares(stage: Stage) -> list[int]:
    routes = routes_of([stage.row])
    assert check_table(RouteTable(generation=1, services=routes)) == []
    return [each.weight for shared in endpoints_of([stage.row], routes) for each in shared.members]


def test_a_share_at_an_endpoint_changes_with_the_revision_that_serves_and_comes_back() -> None:
    stage = Stage(replicas=1)
    _shared_update(stage, 900, Strategy())
    stage.beat(times=6)
    assert _shares(stage) == [9000]
    _shared_update(stage, 300, Strategy(name="canary", steps=(100, 1000), auto=False))
    stage.beat(times=6)
    assert stage.weights == {2: 900, 3: 100} and _shares(stage) == [9000], "the canary changes no share"
    stage.want(promote=3)
    stage.beat(times=20)
    assert stage.weights == {3: 1000} and _shares(stage) == [3000]
    stage.want(fixed=0)
    stage.beat(times=6)
    assert stage.ready() == 0 and _shares(stage) == [3000], "zero replicas: its place is kept"
    stage.want(fixed=2)
    stage.beat(times=6)
    assert stage.ready() == 2 and _shares(stage) == [3000]
    stage.want(wanted=2, promote=0)
    stage.beat(times=20)
    assert stage.state.serves == 2 and _shares(stage) == [9000], "the older revision has its share again"


def test_a_shadow_is_no_part_of_the_shares() -> None:
    stage = Stage(replicas=1)
    stage.beat()
    stage.update(Strategy(name="shadow"))
    stage.beat(times=4)
    route = route_of(stage.row)
    assert {each.id: each.weight for each in route.revisions} == {"1": 10_000, "2": 0}
    assert route.shadow is not None and route.shadow.revision == "2"


def test_a_service_of_another_project_has_its_own_place() -> None:
    row = msgspec.structs.replace(Stage().row, project="vision")
    assert route_of(row).prefix == "/s/vision/chat"


def counters(requests: int, errors: int = 0, fast: int = 0, slow: int = 0, **fields: int) -> ServiceCounters:
    latency = [0] * (len(LATENCY_BOUNDS_MS) + 1)
    latency[3], latency[8] = fast, slow
    revision = RevisionCounters(id="1", requests=requests, errors=errors, latency=latency)
    return ServiceCounters(id="svc-1", requests=requests, revisions=[revision], **fields)


def test_counters_become_rates_and_signals() -> None:
    load = Load()
    load.add(counters(100), 1_000, "a")
    load.add(counters(150, errors=1, fast=40, slow=10, in_flight=3, held=2), 3_000, "a")
    assert load.signals([REQUESTS])[REQUESTS] == [25.0, 25.0] and load.signals([CONCURRENCY])[
        CONCURRENCY
    ] == [5.0, 5.0]
    rate = load.rate()
    assert (rate.requests_milli, rate.p50_ms, rate.p99_ms) == (25_000, 10, 500)


def test_each_replica_and_revision_has_its_pace_of_the_last_minute() -> None:
    def told(requests: int, other: int, tokens: int) -> ServiceCounters:
        latency = [0] * (len(LATENCY_BOUNDS_MS) + 1)
        latency[3], latency[8] = requests - requests // 10, requests // 10
        one = ReplicaCounters(
            id="job-1", revision="1", requests=requests, errors=requests // 10, latency=latency,
            output_tokens=tokens,
        )  # fmt: skip
        two = ReplicaCounters(id="job-2", revision="1", requests=other, latency=latency)
        revision = RevisionCounters(id="1", requests=requests + other, latency=latency)
        return ServiceCounters(
            id="svc-1", requests=requests + other, replicas=[one, two], revisions=[revision]
        )

    load = Load()
    for second in range(101):
        load.add(told(second * 20, 500, second * 100), second * 1000, "a")
    one = load.rates.of_replicas()["job-1"]
    assert (one.requests_milli, one.p50_ms, one.p99_ms) == (20_000, 10, 500)
    assert (one.errors, one.tokens_milli) == (120, 100_000)
    assert "job-2" not in load.rates.of_replicas(), "it has answered nothing in this minute"
    assert load.rates.of_revisions()[1].requests_milli == 20_000
    load.add(told(30, 500, 0), 106_000, "a")  # the gateway began anew
    assert 0 < load.rates.of_replicas()["job-1"].requests_milli < 1000


def test_a_gateway_that_begins_anew_counts_from_zero() -> None:
    load = Load()
    load.add(counters(1000), 1_000, "a")
    load.add(counters(10), 2_000, "a")
    assert load.signals([REQUESTS])[REQUESTS] == [10.0]


def test_counts_begin_anew_when_the_shares_change() -> None:
    load = Load()
    load.add(counters(100, errors=5, fast=100), 1_000, "a")
    now = counters(130, errors=6, fast=110, slow=20)
    load.add(now, 1_100, "a")
    assert load.counts(now, 1)[1].requests == 30 and load.counts(now, 1)[1].errors == 1
    load.add(now, 1_200, "b")
    assert load.counts(now, 1)[1].requests == 0


class FakeGateway:
    """Takes tables, and counts what a test says."""

    def __init__(self) -> None:
        self.tables: list[RouteTable] = []
        self.in_flight: dict[str, int] = {}
        self.held = 0
        self.is_away = False
        self.since_ms = 1
        self.rested = False
        self.sequence = 1
        self.per_s = self.work_ms_per_s = 0  # requests, and the work that they are weighed with

    async def take(self, table: RouteTable) -> int:
        if self.is_away:
            raise Transient("it is away")
        assert not self.tables or table.generation > self.tables[-1].generation
        self.tables.append(table)
        return table.generation

    async def counters(self) -> GatewayCounters:
        if self.is_away:
            raise Transient("it is away")
        replicas = [
            ReplicaCounters(id=id, revision="1", in_flight=count) for id, count in self.in_flight.items()
        ]
        seconds = int(asyncio.get_running_loop().time())
        service = ServiceCounters(
            id="svc-1", held=self.held, replicas=replicas, requests=seconds * self.per_s,
            work_ms=seconds * self.work_ms_per_s,
        )  # fmt: skip
        generation = self.tables[-1].generation if self.tables else 0
        return GatewayCounters(generation=generation, since_ms=self.since_ms, services=[service])

    async def wants(self, after: int) -> Wants:
        began_s = asyncio.get_running_loop().time()
        while self.sequence == after and asyncio.get_running_loop().time() < began_s + 25:
            await asyncio.sleep(0.01)
        return Wants(sequence=self.sequence)

    async def rest(self) -> None:
        self.rested = True


class Told:
    """Routing with its surroundings."""

    def __init__(self) -> None:
        loop = asyncio.get_running_loop()
        self.gateway, self.facts, self.woken = FakeGateway(), Facts(), list[str]()
        self.routing = Routing(
            gateway=self.gateway, facts=self.facts, clock=SimClock(loop), spawn=loop.create_task,
            wake=lambda *ids: self.woken.extend(ids),
        )  # fmt: skip

    def follow(self, *rows: Workload) -> None:
        self.routing.follow(list(rows))


def virtual(work: Coroutine[object, object, None]) -> None:
    run_virtual(work)


def test_what_is_under_way_is_told_together_with_the_routes_that_it_belongs_to() -> None:
    async def story() -> None:
        stage, told = Stage(replicas=1), Told()
        stage.beat()
        told.gateway.in_flight = {stage.replicas()[0].job_id: 3}
        told.follow(stage.row)
        await asyncio.sleep(0.01)
        fact = told.facts.served("svc-1")
        assert fact is not None and fact.generation == service_state(stage.row).generation
        assert fact.in_flight == {stage.replicas()[0].job_id: 3} and "svc-1" in told.woken
        told.follow()
        await asyncio.sleep(2)
        assert told.gateway.rested and told.gateway.tables[-1].services == ()

    virtual(story())


def test_a_gateway_that_was_away_gets_the_table_again() -> None:
    async def story() -> None:
        stage, told = Stage(replicas=1), Told()
        stage.beat()
        told.gateway.is_away = True
        told.follow(stage.row)
        await asyncio.sleep(5)
        assert told.facts.served("svc-1") is None
        told.gateway.is_away = False
        await asyncio.sleep(1)
        assert len(told.gateway.tables) == 1
        told.gateway.tables.clear()  # another process, that knows nothing
        told.gateway.since_ms = 2
        await asyncio.sleep(3)
        assert len(told.gateway.tables) == 1

    virtual(story())


@pytest.mark.parametrize("held", [0, 4])
def test_the_load_says_how_many_replicas_there_are(held: int) -> None:
    async def story() -> None:
        stage, told = Stage(replicas=0, most=2), Told()
        stage.now_ms = EPOCH_MS
        told.gateway.held = held
        told.follow(stage.row)
        await asyncio.sleep(3)
        fact = told.facts.served("svc-1")
        assert fact is not None and fact.wanted == (1 if held else 0), fact
        assert fact.why

    virtual(story())


def test_replicas_follow_the_work_that_gateways_weigh() -> None:
    """Without a target: two seconds of work arrive in a second, so two replicas are wanted, and some more."""
    load = Load()
    for second in range(300):
        load.add(counters(second * 10, work_ms=second * 2000), second * 1000, "a")
    assert load.signals([WORK])[WORK][-1] == 2.0 and load.work_each_s == pytest.approx(0.2)
    policy = scaling_policy(a_revision(1, replicas=1, most=8))
    seen = Seen(now_ms=300_000, ready=1, signals=load.signals([WORK, REQUESTS]))
    assert wanted_replicas(policy, seen).replicas >= 2
    plain = Load()
    plain.add(counters(0), 0, "a")
    plain.add(counters(10), 1000, "a")
    assert WORK not in plain.signals([WORK])


@pytest.mark.parametrize(("qps", "wanted"), [(0, 4), (10, 1)])
def test_who_says_what_a_replica_takes_is_not_told_otherwise_by_gateways(qps: int, wanted: int) -> None:
    """Ten requests a second that gateways weigh as the work of four replicas."""

    async def story() -> None:
        stage, told = Stage(replicas=1, most=8), Told()
        spec = service_spec(stage.row)
        [first] = spec.revisions
        replicas = Replicas(least=1, most=8, qps_milli={"": qps * 1000} if qps else {})
        serving = msgspec.structs.replace(first.serving, replicas=replicas)
        first = msgspec.structs.replace(first, task=msgspec.structs.replace(first.task, service=serving))
        row = msgspec.structs.replace(stage.row, spec=msgspec.structs.replace(spec, revisions=(first,)))
        told.gateway.per_s, told.gateway.work_ms_per_s = 9, 4000
        told.follow(row)
        await asyncio.sleep(40)
        fact = told.facts.served("svc-1")
        assert fact is not None and abs(fact.wanted - wanted) <= 1, fact

    virtual(story())


def test_a_service_at_zero_wakes_for_who_waits() -> None:
    stage = Stage(replicas=0, most=2)
    stage.beat()
    assert stage.ready() == 1, "the first revision has to show that it is any good"
    stage.facts.services["svc-1"] = msgspec.structs.replace(
        stage.facts.services["svc-1"], wanted=0, why="idle"
    )
    stage.is_gateway_there = False
    stage.beat(times=2)
    assert stage.state.target == 0 and stage.replicas(ReplicaState.DRAINING)
    assert all(job.desired is Desired.RUN for job in stage.rows.children_of("svc-1"))

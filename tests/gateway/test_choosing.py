"""Which revision and which replica: exact weights, users that stay, policies, regions, slow start."""

from __future__ import annotations

import asyncio
import itertools
from collections import Counter

import pytest
from gateway_house import Clock, House, run_house, service, table

from argosy.gateway.balance import BALANCERS, balancer_of
from argosy.gateway.exchange import Exchange
from argosy.gateway.heads import parse_request
from argosy.gateway.replicas import Replica, Revision
from argosy.gateway.shared import Board
from argosy.gateway.weights import Shares, sticky
from argosy.model.routes import HashBy, Policy, ReplicaRoute, RevisionRoute


def _revisions(*weights: int) -> list[RevisionRoute]:
    return [RevisionRoute(id=f"v{number}", weight=weight) for number, weight in enumerate(weights)]


def _exchange(*lines: str) -> Exchange:
    head = "GET / HTTP/1.1\r\nHost: a\r\n" + "".join(line + "\r\n" for line in lines) + "\r\n"
    return Exchange(None, parse_request(head.encode()), b"10.0.0.1", b"id", 0.0)  # type: ignore[arg-type]


def _replicas(count: int, **fields: int) -> list[Replica]:
    revision, clock = Revision(RevisionRoute(id="v")), Clock()
    return [
        Replica(ReplicaRoute(id=f"r{n}", address=f"h:{n + 1}", **fields), revision, Board(), clock)  # type: ignore[arg-type]
        for n in range(count)
    ]


@pytest.mark.parametrize("weights", [(90, 10), (1, 999), (333, 333, 334), (9000, 700, 300), (5, 0, 5)])
def test_shares_are_exact_in_every_thousand(weights: tuple[int, ...]) -> None:
    shares, revisions = Shares(), _revisions(*weights)
    chosen = [shares.next(revisions).id for _ in range(3000)]
    for start in range(0, 2000, 7):
        counts = Counter(chosen[start : start + 1000])
        for revision in revisions:
            off = abs(counts[revision.id] - 1000 * revision.weight / sum(weights))
            assert off <= (1 if len(weights) == 2 else 2), "two get theirs give or take one"


@pytest.mark.parametrize("period", [2, 5, 10, 20, 100])
def test_requests_that_come_with_a_period_are_shared_out_evenly(period: int) -> None:
    """Each tenth request is a long stream, and a canary has a tenth of all: it gets a tenth of those, not all
    or none."""
    shares, revisions = Shares(), _revisions(90, 10)
    chosen = [shares.next(revisions).id for _ in range(100 * period)]
    for phase in range(period):
        assert 4 <= chosen[phase::period].count("v1") <= 16, phase


def test_users_stay_and_no_more_move_than_the_weights_change() -> None:
    users = [b"user-%d" % number for number in range(5000)]
    before = {user: sticky(user, _revisions(90, 10)).id for user in users}
    assert abs(Counter(before.values())["v1"] - 500) < 75
    assert before == {user: sticky(user, _revisions(90, 10)).id for user in users}
    after = {user: sticky(user, _revisions(45, 5, 50)).id for user in users}
    moved = [user for user in users if before[user] != after[user]]
    assert {after[user] for user in moved} == {"v2"}, "who moves goes to the new revision"
    assert abs(len(moved) - 2500) < 150


def test_round_robin_and_least_outstanding() -> None:
    exchange, ready = _exchange(), _replicas(3)
    turns = balancer_of(Policy(name="round-robin"), Clock())
    assert Counter(turns.choose(exchange, ready).id for _ in range(300)) == {"r0": 100, "r1": 100, "r2": 100}
    least = balancer_of(Policy(), Clock())
    for replica in ready:
        replica.in_flight = 5
    ready[1].in_flight = 3
    assert {least.choose(exchange, ready).id for _ in range(9)} == {"r1"}
    ready[1].elsewhere = 9
    assert {least.choose(exchange, ready).id for _ in range(9)} == {"r0", "r2"}


def test_power_of_two_never_takes_the_worst() -> None:
    exchange, ready = _exchange(), _replicas(4)
    ready[2].in_flight = 100
    chosen = Counter(
        balancer_of(Policy(name="power-of-two"), Clock()).choose(exchange, ready).id for _ in range(1)
    )
    two = balancer_of(Policy(name="power-of-two"), Clock())
    chosen = Counter(two.choose(exchange, ready).id for _ in range(1000))
    assert chosen["r2"] == 0 and min(chosen[id] for id in ("r0", "r1", "r3")) > 200


def test_a_newcomer_gets_its_share_and_not_all() -> None:
    exchange, ready = _exchange(), _replicas(2)
    turns = balancer_of(Policy(name="round-robin"), Clock())
    for _ in range(1000):
        turns.choose(exchange, ready)
    ready = [*ready, *_replicas(3)[2:]]
    assert Counter(turns.choose(exchange, ready).id for _ in range(30))["r2"] <= 12


def test_slow_start_grows_the_share() -> None:
    exchange, ready = _exchange(), _replicas(2, slow_start_s=100)
    clock = ready[0]._now_s
    assert isinstance(clock, Clock)
    clock.now += 100.0  # the first two are warm
    ready.append(
        Replica(ReplicaRoute(id="new", address="h:9", slow_start_s=100), ready[0].revision, Board(), clock)
    )
    turns = balancer_of(Policy(name="round-robin"), Clock())
    assert Counter(turns.choose(exchange, ready).id for _ in range(210))["new"] <= 11
    clock.now += 50.0
    assert 38 <= Counter(turns.choose(exchange, ready).id for _ in range(210))["new"] <= 46


def test_a_user_stays_with_its_replica_and_few_move_when_one_comes() -> None:
    policy = Policy(name="consistent-hash", hash_by=HashBy(attribute="header", name="X-User"))
    ring, ready = balancer_of(policy, Clock()), _replicas(5)
    users = [_exchange(f"X-User: u{number}") for number in range(1000)]
    four = {user: ring.choose(user, ready[:4]).id for user in users}
    assert four == {user: ring.choose(user, ready[:4]).id for user in users}
    assert min(Counter(four.values()).values()) > 120
    five = {user: ring.choose(user, ready).id for user in users}
    moved = {user for user in users if four[user] != five[user]}
    assert {five[user] for user in moved} == {"r4"} and len(moved) < 320


def test_the_load_of_consistent_hashing_is_bounded() -> None:
    policy = Policy(name="consistent-hash", hash_by=HashBy(attribute="cookie", name="s"))
    ring, ready = balancer_of(policy, Clock()), _replicas(4)
    for _ in range(400):
        ring.choose(_exchange("Cookie: a=b; s=one"), ready).in_flight += 1
    assert sum(replica.in_flight for replica in ready) == 400
    assert max(replica.in_flight for replica in ready) <= 126


@pytest.mark.parametrize("name", sorted(BALANCERS))
def test_every_policy_works_through_the_gateway(name: str) -> None:
    async def test(house: House) -> None:
        for _ in range(12):
            assert (await house.gate.get("/s/web/")).endswith(b"ok")
        used = [len(replica.heads) for replica in house.replicas]
        assert sum(used) == 12 and (name == "consistent-hash" or min(used) >= 1)
        told = house.router.tell().services[0]
        assert [replica.requests for replica in told.replicas] == used and told.in_flight == 0

    run_house(test, 3, policy=Policy(name=name))  # type: ignore[arg-type]


def _two(one: str, other: str, weights: tuple[int, int]) -> tuple[RevisionRoute, ...]:
    return tuple(
        RevisionRoute(id=f"v{n}", weight=weight, replicas=(ReplicaRoute(id=f"r{n}", address=address),))
        for n, (address, weight) in enumerate(zip((one, other), weights, strict=True))
    )


def test_weights_and_variants_through_the_gateway() -> None:
    async def test(house: House) -> None:
        one, other = await house.add(2)
        house.router.take_table(table(service(revisions=_two(one, other, (90, 10)))))
        reader, writer = await house.gate.connect()
        variants: Counter[bytes] = Counter()
        for _ in range(100):
            writer.write(b"GET /s/web/ HTTP/1.1\r\nHost: a\r\n\r\n")
            answer = await reader.readuntil(b"\r\n\r\nok")
            variants[answer.split(b"x-argosy-variant: ")[1][:2]] += 1
        assert variants == {b"v0": 90, b"v1": 10}
        sticky_by = HashBy(attribute="cookie", name="user")
        half = service(revisions=_two(one, other, (50, 50)), sticky_by=sticky_by)
        house.router.take_table(table(half, generation=2))
        for user in (b"ada", b"bob", b"eve", b"kim", b"leo"):
            seen = set()
            for _ in range(3):
                answer = await house.gate.get("/s/web/", b"Cookie: user=" + user)
                seen.add(answer.split(b"x-argosy-variant: ")[1][:2])
            assert len(seen) == 1

    run_house(test, 0)


def test_replicas_of_the_same_region_come_first_and_others_take_over() -> None:
    async def test(house: House) -> None:
        near, far = await house.add(2)

        def told(generation: int, near_state: str) -> None:
            replicas = (
                ReplicaRoute(id="near", address=near, region="eu", state=near_state),  # type: ignore[arg-type]
                ReplicaRoute(id="far", address=far, region="us"),
            )
            route = service(revisions=(RevisionRoute(id="v1", replicas=replicas),))
            house.router.take_table(table(route, generation=generation, region="eu"))

        told(1, "ready")
        for _ in range(4):
            await house.gate.get("/s/web/")
        assert [len(replica.heads) for replica in house.replicas] == [4, 0]
        told(2, "draining")
        await house.gate.get("/s/web/")
        assert [len(replica.heads) for replica in house.replicas] == [4, 1]

    run_house(test, 0)


def test_shadow_copies_harm_nothing() -> None:
    from argosy.model.routes import Shadow

    async def test(house: House) -> None:
        main, dark = await house.add(2)
        revisions = _two(main, dark, (10_000, 0))
        shadow = Shadow(revision="v1", max_concurrency=2)
        house.router.take_table(table(service(revisions=revisions, shadow=shadow)))
        for _ in range(3):
            assert (await house.gate.get("/s/web/hang-not")).endswith(b"ok")
        assert (await house.gate.get("/s/web/echo", method=b"POST", body=b"hi")).endswith(b"hi")
        async with asyncio.timeout(90):
            while len(house.replicas[1].heads) < 3:
                await asyncio.sleep(0.005)
        assert all(b"x-argosy-shadow: 1\r\n" in head for head in house.replicas[1].heads)
        assert not any(head.startswith(b"POST") for head in house.replicas[1].heads), "not said to be safe"
        await house.replicas[1].kill()
        for _ in range(3):
            assert (await house.gate.get("/s/web/x")).endswith(b"ok")
        v0, v1 = house.router.tell().services[0].revisions
        assert (v0.requests, v0.errors, v1.requests, v1.errors) == (7, 0, 0, 0) and v1.shadowed >= 3

    run_house(test, 0)


def test_replicas_are_asked_in_turn_when_they_are_equal() -> None:
    least, ready = balancer_of(Policy(), Clock()), _replicas(3)
    chosen = [least.choose(_exchange(), ready).id for _ in range(6)]
    assert all(one != next_ for one, next_ in itertools.pairwise(chosen))

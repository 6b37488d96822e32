"""Two gateways of one machine: limits and usage are one, loads are shared, and one may be killed."""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import signal
import time
from collections.abc import AsyncIterator, Callable
from pathlib import Path

import pytest
import uvloop
from gateway_house import Gate, House, Replica, run_house, service, table
from test_gateway_process import Process

from argosy.gateway.merging import largest
from argosy.gateway.peers import _weight
from argosy.model.routes import (
    GatewayCounters,
    KeyRoute,
    Policy,
    RevisionCounters,
    ServiceCounters,
    ServiceRoute,
)
from argosy.model.service_keys import Prices
from argosy.server.gateway_process import GatewayProcess
from argosy.server.gateways import Gateways, Ledger

_SHA = hashlib.sha256(b"sk-one").hexdigest()
BEARER = "Authorization: Bearer sk-one"


class _PerMinute:
    """How many requests a limit lets through beyond those that it allows at once."""

    def __init__(self, rate: int) -> None:
        self._rate = rate
        self._begun_s = time.monotonic()

    def more(self) -> int:
        return int((time.monotonic() - self._begun_s) * self._rate / 60) + 1


class Two:
    """Gateways `a` and `b` beside each other, and what the server knows of them."""

    def __init__(self, folder: Path, replica: Replica) -> None:
        self.replica = replica
        self.gateways = Gateways(folder, GatewayProcess(folder))
        self.all = {name: Process(folder, 1, name) for name in "ab"}
        self.generation = 0

    async def take(self, route: ServiceRoute) -> None:
        self.generation += 1
        assert await self.gateways.take(table(route, generation=self.generation)) == self.generation

    async def told(self, count: str = "requests") -> dict[str, int]:
        return {name: getattr((await each.counters()).services[0], count) for name, each in self.all.items()}

    async def requests(self) -> int:
        return (await self.gateways.counters()).services[0].requests

    async def spent(self) -> int:
        return (await self.gateways.counters()).services[0].keys[0].spent_micro_usd


@contextlib.asynccontextmanager
async def _two(folder: Path) -> AsyncIterator[Two]:
    two = Two(folder, await Replica().start())
    try:
        for each in two.all.values():
            await each.start()
        yield two
    finally:
        for each in two.all.values():
            with contextlib.suppress(ProcessLookupError):
                each.process.kill()
            await each.process.wait()
        await two.replica.kill()


async def _until(test: Callable[[], object]) -> None:
    async with asyncio.timeout(90):
        while not test():
            await asyncio.sleep(0.02)


@pytest.mark.process
def test_one_limit_for_both_also_when_one_is_killed(tmp_path: Path) -> None:
    async def main() -> None:
        async with _two(tmp_path) as two:
            key = KeyRoute(id="k", sha256=_SHA, requests_per_minute=10, budget_micro_usd=1000)
            served = service(two.replica.address, keys=(key,), prices=Prices(requests=3_000_000))
            await two.take(served)
            await asyncio.sleep(1.2)  # they have heard of each other
            clock = _PerMinute(10)
            both = [two.all["a"], two.all["b"]] * 20
            answers = await asyncio.gather(*(each.get("/s/web/", BEARER) for each in both))
            passed = [answer for answer in answers if answer.startswith(b"HTTP/1.1 200 ")]
            assert 10 <= len(passed) <= 10 + clock.more(), "one limit for both"
            assert len(passed) == len(two.replica.heads)
            assert all(answer.startswith(b"HTTP/1.1 429 ") for answer in answers if answer not in passed)
            told = await two.told()
            assert sorted(told.values()) == [0, 40], "counted where it was decided, and once"
            assert await two.requests() == 40
            owner, other = sorted(two.all, key=lambda name: -told[name])
            await asyncio.sleep(1.2)  # what is left of the limit is known to the other, and kept
            two.all[owner].process.send_signal(signal.SIGKILL)
            await two.all[owner].process.wait()
            for _ in range(10):
                await two.all[other].get("/s/web/", BEARER)
            assert len(two.replica.heads) <= 10 + clock.more(), "the limit of the one that died goes on"
            spent = 3 * len(two.replica.heads)
            assert await two.spent() == spent, "and so does what was spent: three micro-dollars a request"
            assert (await two.gateways.counters()).generation == 0, "one has gone: the other is to be told"
            assert await two.requests() == 50
            before = len(two.replica.heads)
            await two.all[owner].start()
            await two.take(served)
            assert (await two.gateways.counters()).generation == 2
            await asyncio.sleep(1.2)
            await asyncio.gather(*(two.all[owner].get("/s/web/", BEARER) for _ in range(10)))
            assert before <= len(two.replica.heads) <= 10 + clock.more(), "nor does it begin with the process"
            assert await two.requests() == 60, "nothing is lost, nothing counted twice"
            async with asyncio.timeout(90):
                while await two.spent() != 3 * len(two.replica.heads):
                    await asyncio.sleep(0.1)

    uvloop.run(main())


@pytest.mark.process
def test_who_asks_the_other_gateway_does_not_notice_that_one_is_killed(tmp_path: Path) -> None:
    """The user belongs to `a`; requests come in at `b`. GETs without an answer byte are served by `b`."""

    async def main() -> None:
        async with _two(tmp_path) as two:
            key = KeyRoute(id="k", sha256=_SHA, max_concurrency=1000)
            await two.take(service(two.replica.address, keys=(key,)))
            await asyncio.sleep(1.2)
            for name in two.all:
                await two.all[name].get("/s/web/", BEARER)
            told = await two.told()
            owner, other = sorted(two.all, key=lambda name: -told[name])
            assert told[owner] == 2
            waiting = [asyncio.create_task(two.all[other].get("/s/web/hang", BEARER)) for _ in range(5)]
            await _until(lambda: len(two.replica.heads) == 7)
            two.replica.scripts[b"hang"] = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok"
            two.all[owner].process.send_signal(signal.SIGKILL)
            answers = await asyncio.gather(*waiting)
            assert all(answer.endswith(b"ok") for answer in answers), answers[0]
            answers = await asyncio.gather(*(two.all[other].get("/s/web/", BEARER) for _ in range(20)))
            assert all(answer.endswith(b"ok") for answer in answers)

    uvloop.run(main())


def test_what_is_in_flight_at_the_other_gateway_counts_for_the_choice() -> None:
    async def main(house: House) -> None:
        board, [one, other] = house.router.board, house.router.table.services[0].revisions[0].replicas
        board.note_peers({f"replica/{one.id}": 3})
        house.router.look_elsewhere()
        for _ in range(3):
            await house.gate.get("/s/web/x")
        assert [len(replica.heads) for replica in house.replicas] == [0, 3]
        board.note_peers({f"replica/{other.id}": 1})
        house.router.look_elsewhere()
        await house.gate.get("/s/web/x")
        assert [len(replica.heads) for replica in house.replicas] == [1, 3]
        assert board.own_in_flight() == {}

    run_house(main, 2)


def test_what_the_other_gateway_has_to_read_counts_for_the_choice_of_prompts() -> None:
    """Equally many requests are there; where they are long, the next one does not go."""

    async def main(house: House) -> None:
        board, [one, other] = house.router.board, house.router.table.services[0].revisions[0].replicas
        names = f"replica/{one.id}", f"replica/{other.id}"
        prompt = b'{"model": "m", "messages": [{"role": "user", "content": "' + b"word " * 2000 + b'"}]}'
        for long, heads in ((0, [0, 2]), (1, [2, 2])):
            board.note_peers(dict.fromkeys(names, 1), {names[long]: 1e6, names[1 - long]: 10.0})
            house.router.look_elsewhere()
            for _ in range(2):
                await house.gate.get("/s/web/x", method=b"POST", body=prompt)
            assert [len(replica.heads) for replica in house.replicas] == heads
        house.replica.scripts[b"hang"] = b""
        board.note_peers({})
        asking = asyncio.create_task(house.gate.get("/s/web/hang", method=b"POST", body=prompt))
        await _until(lambda: sum(len(replica.heads) for replica in house.replicas) > 4)
        assert len(board.own_work()) == 1
        asking.cancel()
        await _until(lambda: board.own_work() == {})

    run_house(main, 2, policy=Policy(name="prefix-aware"))


def test_nobody_else_says_that_a_request_was_passed_on() -> None:
    """A client that says so gets no more than others; at the socket of the gateways it counts."""

    async def main(house: House) -> None:
        house.router.take_table(table(service(house.replica.address, public=False), generation=2))
        assert b" 401 " in await house.gate.get("/s/web/x", b"X-Argosy-Passed: here")
        inner = await Gate(house.router, trusted=True).start()
        inner.door.peers = True
        assert b" 401 " in await inner.get("/s/web/x", b"X-Argosy-Passed: outside")
        assert (await inner.get("/s/web/x", b"X-Argosy-Passed: here")).endswith(b"ok")
        assert b"argosy-passed" not in house.replica.heads[-1].lower()
        inner.server.close()

    run_house(main)


def test_keys_of_two_services_with_one_name_have_two_limits() -> None:
    async def main(house: House) -> None:
        key = KeyRoute(id="ann", sha256=_SHA, requests_per_minute=1)
        address = house.replica.address
        routes = (service(address, keys=(key,)), service(address, name="other", keys=(key,)))
        house.router.take_table(table(*routes, generation=2))
        line = BEARER.encode()
        assert (await house.gate.get("/s/web/x", line)).endswith(b"ok")
        assert b" 429 " in await house.gate.get("/s/web/x", line)
        assert (await house.gate.get("/s/other/x", line)).endswith(b"ok")

    run_house(main)


def test_a_user_moves_only_when_its_gateway_goes() -> None:

    users = [f"user-{number}".encode() for number in range(2000)]
    three = ["a", "b", "c"]
    homes = {user: max(three, key=lambda name: _weight(name, user)) for user in users}
    assert all(500 < sum(home == name for home in homes.values()) < 850 for name in three)
    left = {user: max(["a", "b"], key=lambda name: _weight(name, user)) for user in users}
    assert all(left[user] == home for user, home in homes.items() if home != "c")


def _counters(since_ms: int, requests: int, in_flight: int = 0) -> GatewayCounters:
    revision = RevisionCounters(id="1", requests=requests, latency=[requests, 0])
    service = ServiceCounters(id="s", requests=requests, in_flight=in_flight, revisions=[revision])
    return GatewayCounters(generation=1, since_ms=since_ms, services=[service])


def test_the_sum_of_all_gateways_never_shrinks_and_counts_nothing_twice() -> None:
    ledger = Ledger()
    ledger.note("a", _counters(1, 10, 2))
    ledger.note("b", _counters(2, 5, 1))
    both = ledger.total({"a": 0, "b": 0}).services[0]
    assert (both.requests, both.in_flight) == (15, 3)
    ended = ledger.total({"a": 0}).services[0]
    assert (ended.requests, ended.in_flight) == (15, 2), "what `b` had under way is over"
    ledger.note("b", _counters(2, 4))  # killed: it comes back with what its file had
    assert ledger.total({"a": 0, "b": 0}).services[0].requests == 15
    ledger.note("b", _counters(2, 7))
    assert ledger.total({"a": 0, "b": 0}).services[0].requests == 17
    for life in range(3, 40):  # without its file each life begins at 0
        ledger.note("b", _counters(life, 1))
    assert ledger.total({"a": 0, "b": 0}).services[0].requests == 17 + 37
    merged = largest(_counters(1, 10), _counters(1, 8)).services[0]
    assert merged.revisions[0].latency == [10, 0]

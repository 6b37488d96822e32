"""Replicas that refuse, reset, lie, hang or leave: what is sent elsewhere, what is not, who takes no
more requests."""

from __future__ import annotations

import asyncio
import bisect
import os
import random
import shutil
import socket
import subprocess
import sys
from collections.abc import Callable, Iterator

import pytest
from gateway_house import OK, House, run_house, service, table

from argosy.gateway import addresses, pools
from argosy.gateway.addresses import Address, parse_address
from argosy.gateway.doubt import ALONE_S, is_silent
from argosy.model.routes import LATENCY_BOUNDS_MS, Holding, Policy, ReplicaRoute, RevisionRoute
from argosy.testing.language_replica import Engine, Query
from argosy.testing.language_replica import Replica as LanguageReplica
from argosy.testing.ports import free_port


async def _until(condition: object) -> None:
    async with asyncio.timeout(90):
        while not condition():  # type: ignore[operator]
            await asyncio.sleep(0.002)


def _states(house: House) -> list[str]:
    return [replica.state for replica in house.router.tell().services[0].replicas]


@pytest.mark.parametrize("method", [b"GET", b"POST"])
def test_a_refused_connection_is_tried_elsewhere_and_makes_suspect(method: bytes) -> None:
    async def test(house: House) -> None:
        await house.replica.kill()
        for _ in range(8):
            assert (await house.gate.get("/s/web/echo", method=method, body=b"x")).endswith(b"x")
        assert sorted(_states(house)) == ["ready", "ready", "suspect"]
        told = house.router.tell().services[0]
        assert told.retries == 2 and told.revisions[0].errors == 0

    run_house(test, 3)


def test_a_replica_killed_under_load_fails_only_what_had_begun() -> None:
    async def test(house: House) -> None:
        reader, writer = await house.gate.connect()  # its stream has begun
        writer.write(b"GET /s/web/stream HTTP/1.1\r\nHost: a\r\n\r\n")
        await reader.readuntil(b"data: 1\n\n")
        victim = next(replica for replica in house.replicas if replica.heads)
        reads = [asyncio.create_task(house.gate.get("/s/web/hang")) for _ in range(5)]
        await _until(lambda: [len(replica.heads) for replica in house.replicas] == [2, 2, 2])
        writes = [
            asyncio.create_task(house.gate.get("/s/web/hang", method=b"POST", body=b"x")) for _ in range(3)
        ]
        await _until(lambda: [len(replica.heads) for replica in house.replicas] == [3, 3, 3])
        for replica in house.replicas:
            replica.scripts[b"hang"] = OK  # who comes from now on is answered
        await victim.kill()
        answers = await asyncio.gather(*(house.gate.get("/s/web/") for _ in range(20)))
        assert all(answer.endswith(b"ok") for answer in answers)
        assert b"0\r\n\r\n" not in await reader.read(), "cut, never an end that looks whole"
        await _until(lambda: sum(task.done() for task in (*reads, *writes)) == 2)
        [again] = [task.result() for task in reads if task.done()]
        assert again.endswith(b"ok"), "no byte of its answer had come, and it may be repeated"
        [failed] = [task.result() for task in writes if task.done()]
        assert failed[9:12] == b"502", "who knows whether it was done"
        for task in (*reads, *writes):
            task.cancel()

    run_house(test, 3)


def test_what_is_not_idempotent_is_not_sent_twice_unless_its_service_says_so() -> None:
    async def test(house: House) -> None:
        answer = await house.gate.get("/s/web/die", method=b"POST", body=b"pay")
        assert answer.startswith(b"HTTP/1.1 502 ")
        assert sum(len(replica.heads) for replica in house.replicas) == 1
        route = service(*(replica.address for replica in house.replicas), retry_post=True)
        house.router.take_table(table(route, generation=2))
        answer = await house.gate.get("/s/web/die", method=b"POST", body=b"ask")
        assert (
            answer.startswith(b"HTTP/1.1 502 ") and sum(len(replica.heads) for replica in house.replicas) == 3
        )

    run_house(test, 2)


def test_retries_are_paid_from_a_budget() -> None:
    async def test(house: House) -> None:
        for _ in range(60):
            await house.gate.get("/s/web/die")
        asked = sum(len(replica.heads) for replica in house.replicas)
        assert 60 + 20 <= asked <= 60 + 25, "ten at the start and one for five requests"

    run_house(test, 4)


@pytest.mark.parametrize(
    "answer",
    [
        b"HTTP/1.1 200 OK\r\nContent-Length: 3\r\nTransfer-Encoding: chunked\r\n\r\nabc",
        b"HTTP/1.1 200 OK\r\nContent-Length: 3\r\nContent-Length: 4\r\n\r\nabcd",
        b"HTTP/1.1 200 OK\nContent-Length: 3\n\nabc",
        b"HTTP/1.1 200 OK\r\nX: a\r\n b\r\nContent-Length: 0\r\n\r\n",
        b"HTTP/1.1 101 Switching\r\nUpgrade: websocket\r\n\r\n",
        b"SSH-2.0-OpenSSH_9\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: gzip, chunked\r\n\r\n",
        b"HTTP/1.1 100 Continue\r\n\r\n" * 40,
    ],
)
def test_an_answer_that_two_would_read_differently_is_not_passed_on(answer: bytes) -> None:
    async def test(house: House) -> None:
        house.replica.scripts[b"odd"] = answer
        got = await house.gate.get("/s/web/odd")
        assert got.startswith(b"HTTP/1.1 502 ") and b"abc" not in got

    run_house(test)


def test_bytes_after_an_answer_never_become_the_next_ones() -> None:
    async def test(house: House) -> None:
        evil = b"HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\nevil"
        house.replica.scripts[b"two"] = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok" + evil
        reader, writer = await house.gate.connect()
        for path in (b"two", b"x", b"two", b"x"):
            writer.write(b"GET /s/web/%b HTTP/1.1\r\nHost: a\r\n\r\n" % path)
            assert (await reader.readuntil(b"\r\n\r\nok")).count(b"HTTP/1.1") == 1
        assert house.replica.connections >= 3

    run_house(test)


def test_a_hanging_replica_is_given_up_after_its_time() -> None:
    async def test(house: House) -> None:
        asking = asyncio.create_task(house.gate.get("/s/web/hang"))
        await _until(lambda: house.replica.heads)
        for _ in range(3):
            house.gate.door.sweep()
        assert (await asking).startswith(b"HTTP/1.1 504 ")
        assert house.router.tell().services[0].revisions[0].errors == 1
        await asyncio.wait_for(house.replica.closed.wait(), 5)

    run_house(test, answer_timeout_s=3)


def test_one_that_says_it_is_ready_and_answers_nothing_is_left_alone() -> None:
    """It takes connections, so probes find nothing wrong with it."""

    async def test(house: House) -> None:
        lies, good = house.replicas
        lies.scripts[b"work"] = b""  # it is silent
        for _ in range(2):
            asking = [asyncio.create_task(house.gate.get("/s/web/work")) for _ in range(2)]
            await _until(lambda: len(lies.heads) + len(good.heads) == 2)
            for _ in range(3):
                house.gate.door.sweep()
            answers = await asyncio.gather(*asking)
            assert sorted(answer[9:12] for answer in answers) == [b"200", b"504"]
            lies.heads.clear()
            good.heads.clear()

        async def sweep() -> None:
            for _ in range(3):
                house.router.sweep()
                await asyncio.sleep(0.01)

        await sweep()
        for _ in range(6):
            assert (await house.gate.get("/s/web/work")).endswith(b"ok")
        assert [len(replica.heads) for replica in house.replicas] == [0, 6]
        assert house.router.tell().services[0].replicas[0].state == "suspect"
        del lies.scripts[b"work"]
        house.clock.now += ALONE_S
        await sweep()
        await sweep()
        for _ in range(6):
            await house.gate.get("/s/web/work")
        assert [len(replica.heads) for replica in house.replicas] == [3, 9], "it has another chance"

    run_house(test, 2, answer_timeout_s=3)


def test_one_that_is_alone_is_asked_again_also_when_it_was_silent() -> None:
    async def test(house: House) -> None:
        house.replica.scripts[b"work"] = b""
        for _ in range(3):
            asking = asyncio.create_task(house.gate.get("/s/web/work"))
            await _until(lambda: house.replica.heads)
            for _ in range(3):
                house.gate.door.sweep()
            assert (await asking).startswith(b"HTTP/1.1 504 ")
            house.replica.heads.clear()
        assert (await house.gate.get("/s/web/")).endswith(b"ok")

    run_house(test, answer_timeout_s=3)


async def _seconds(house: House, count: int) -> None:
    """Time passes at the gateway."""
    for _ in range(count):
        house.clock.now += 1
        house.gate.door.sweep()


def test_one_that_hangs_is_doubted_long_before_its_time_and_trusted_when_it_answers() -> None:
    async def test(house: House) -> None:
        for _ in range(24):
            await house.gate.get("/s/web/x")
        hangs = house.replicas[0]
        hangs.scripts[b"work"] = b""
        waiting = []
        while b"/work" not in hangs.heads[-1]:
            waiting.append(asyncio.create_task(house.gate.get("/s/web/work")))
            await _until(lambda: sum(len(each.heads) for each in house.replicas) == 24 + len(waiting))
        await _seconds(house, 4)
        assert _states(house) == ["ready"] * 3
        await _seconds(house, 1)
        assert _states(house) == ["suspect", "ready", "ready"], "five seconds without a byte"
        for _ in range(6):
            await house.gate.get("/s/web/work")
        assert sum(b"/work" in head for head in hangs.heads) == 1, "others get what comes"
        assert [task.done() for task in waiting[-1:]] == [False], "what is there waits on"
        for writer in hangs._writers:
            writer.write(OK)
        assert (await waiting[-1]).endswith(b"ok")
        await _until(lambda: house.router.sweep() or _states(house)[0] == "ready")

    run_house(test, 3)


def test_a_slow_one_whose_other_answers_go_on_is_not_doubted() -> None:
    async def test(house: House) -> None:
        for _ in range(24):
            await house.gate.get("/s/web/x")
        slow = house.replicas[0]
        streams = []
        while b"stream" not in slow.heads[-1]:
            reader, writer = await house.gate.connect()
            writer.write(b"GET /s/web/stream HTTP/1.1\r\nHost: a\r\n\r\n")
            await reader.readuntil(b"data: 1\n\n")
            streams.append(writer)
        client = next(
            each for each in house.gate.door.clients
            if each._exchange is not None and each._exchange.memo.replica.id == "r0"  # type: ignore[attr-defined]
        )  # fmt: skip
        waiting = []
        while b"hang" not in slow.heads[-1]:
            waiting.append(asyncio.create_task(house.gate.get("/s/web/hang")))
            await _until(
                lambda: sum(len(each.heads) for each in house.replicas) == 24 + len(streams + waiting)
            )
        for _ in range(8):
            client._ticks = 0  # as if a token had come
            await _seconds(house, 1)
        assert _states(house)[0] == "ready"
        await _seconds(house, 7)
        assert _states(house)[0] == "suspect", "no token came any more"
        for task in waiting:
            task.cancel()

    run_house(test, 3)


def test_nothing_is_doubted_while_nobody_knows_what_is_usual() -> None:
    async def test(house: House) -> None:
        asking = [asyncio.create_task(house.gate.get("/s/web/hang")) for _ in range(2)]
        await _until(lambda: sum(len(each.heads) for each in house.replicas) == 2)
        await _seconds(house, 60)
        assert _states(house) == ["ready"] * 2
        for task in asking:
            task.cancel()

    run_house(test, 2)


@pytest.mark.parametrize(("streams", "soon_s"), [(True, 60), (False, 120)])
def test_a_language_model_at_its_limit_is_not_doubted_and_one_that_hangs_is(
    streams: bool, soon_s: int
) -> None:
    """Ten minutes of prompts as an engine reads them; then one of two replicas stops. Without streams a first
    byte is the end of an answer, and what is usual is longer."""
    dice = random.Random(3)
    replicas = [LanguageReplica(number, Engine(blocks=880)) for number in range(2)]
    counts, flying, moved_s = [0] * (len(LATENCY_BOUNDS_MS) + 1), list[Query](), [0.0, 0.0]
    doubted: dict[int, int] = {}
    arrives_s, number = 0.0, 0
    for second in range(1, 600 + soon_s):
        while arrives_s < second:
            number, prompt = number + 1, dice.randint(500, 12_000)
            blocks = [(number, block) for block in range(prompt // 512)]
            query = Query(number, arrives_s, prompt, dice.randint(20, 300), blocks)
            replicas[number % 2].submit(query)
            flying.append(query)
            arrives_s += dice.expovariate(2.2)
        for replica in replicas[second > 600 :]:
            replica.advance(second)
        for query in list(flying):
            byte_s = query.first_s if streams else query.ended_s
            if byte_s is not None and byte_s <= second:
                over = query.ended_s is not None and query.ended_s <= second
                hangs = query.replica == 0 and second > 600
                last_s = query.ended_s or byte_s if over or not streams else 600.0 if hangs else second
                moved_s[query.replica] = max(moved_s[query.replica], last_s)
                if over:
                    flying.remove(query)
                    counts[bisect.bisect_left(LATENCY_BOUNDS_MS, 1000 * (byte_s - query.sent_s))] += 1
            elif is_silent(second - query.sent_s, second - moved_s[query.replica], counts):
                doubted.setdefault(query.replica, second)
    assert list(doubted) == [0] and 600 < doubted[0] <= 600 + soon_s, doubted
    assert sum(counts) > 1000 and counts[-1] == 0


@pytest.fixture
def far() -> Iterator[tuple[str, Callable[[], None]]]:
    """A machine of its own, as the network sees it: its address, and what takes it off the network."""
    ours = free_port()  # nobody else on this machine has its number meanwhile
    name, net = f"ag{ours}", f"10.{160 + ours // 250}.{ours % 250}"
    if os.geteuid() or shutil.which("ip") is None:
        pytest.skip("network namespaces need root and `ip` (package iproute2)")

    def ip(*words: str) -> None:
        subprocess.run(["ip", *words], check=True, capture_output=True)

    try:
        ip("netns", "add", name)
    except subprocess.CalledProcessError as error:
        pytest.skip(f"network namespaces cannot be made here: {error.stderr.decode().strip()}")
    process = None
    try:
        ip("link", "add", f"{name}a", "type", "veth", "peer", "name", f"{name}b", "netns", name)
        ip("addr", "add", f"{net}.1/24", "dev", f"{name}a")
        ip("link", "set", f"{name}a", "up")
        for words in (("addr", "add", f"{net}.2/24", "dev", f"{name}b"), ("link", "set", f"{name}b", "up")):
            ip("-n", name, *words)
        program = (
            "import socket, threading\n"
            "s = socket.create_server(('0.0.0.0', 8000)); print('up', flush=True)\n"
            "def serve(c):\n"
            "    while (head := c.recv(65536)):\n"
            "        if b'/slow' not in head:\n"
            "            c.sendall(b'HTTP/1.1 200 OK\\r\\nContent-Length: 3\\r\\n\\r\\nfar')\n"
            "while True: threading.Thread(target=serve, args=(s.accept()[0],), daemon=True).start()\n"
        )
        process = subprocess.Popen(
            ["ip", "netns", "exec", name, sys.executable, "-c", program], stdout=subprocess.PIPE
        )
        assert process.stdout is not None and process.stdout.readline() == b"up\n"
        yield f"{net}.2:8000", lambda: ip("-n", name, "link", "set", f"{name}b", "down")
    finally:
        if process is not None:
            process.kill()
            process.wait()
        ip("netns", "del", name)


@pytest.mark.process
def test_a_node_that_vanishes_without_a_word(
    far: tuple[str, Callable[[], None]], monkeypatch: pytest.MonkeyPatch
) -> None:
    """No reset comes, nothing is acknowledged: what can be repeated is answered by another one."""
    address, vanish = far
    soon = tuple(
        (level, option, 600 if option == socket.TCP_USER_TIMEOUT else value)
        for level, option, value in addresses._KEEP_ALIVE
    )
    monkeypatch.setattr(addresses, "_KEEP_ALIVE", soon)
    dial = addresses.connect_to

    async def impatient(to: Address, factory: Callable[[], pools.Upstream]) -> pools.Upstream:
        """Nobody waits long for the node that has vanished; for the other one even on a busy machine."""
        async with asyncio.timeout(0.3 if str(to) == address else 90):
            return await dial(to, factory)

    async def test(house: House) -> None:
        [near] = await house.add(1)
        house.router.take_table(table(service(address, near, policy=Policy(name="round-robin"))))
        answers = {(await house.gate.get("/s/web/x"))[-3:] for _ in range(4)}
        assert answers == {b"far", b"\nok"}, "both answer"
        monkeypatch.setattr(pools, "CONNECT_S", 90)
        monkeypatch.setattr(pools, "connect_to", impatient)
        vanish()
        reads = [asyncio.create_task(house.gate.get("/s/web/slow")) for _ in range(4)]
        writes = [
            asyncio.create_task(house.gate.get("/s/web/x", method=b"POST", body=b"1")) for _ in range(4)
        ]
        read, ended = await asyncio.gather(*reads), await asyncio.gather(*writes)
        assert [answer[:90] for answer in read if not answer.endswith(b"ok")] == [], (
            "no byte of an answer had come"
        )
        assert all(answer[9:12] in (b"200", b"502") for answer in ended)
        assert len(house.replica.bodies) - 2 <= 8, "nothing was answered twice"
        before = len(house.replica.heads)
        for _ in range(4):
            assert (await house.gate.get("/s/web/x", method=b"POST", body=b"1")).endswith(b"ok")
        assert len(house.replica.heads) - before == 4, "it is out of the choice"

    run_house(test, 0)


def test_when_most_are_suspect_all_are_used() -> None:
    async def test(house: House) -> None:
        for replica in house.replicas[:2]:
            await replica.kill()
        for _ in range(12):
            assert (await house.gate.get("/s/web/")).endswith(b"ok")
        assert _states(house).count("suspect") == 2
        revision = house.router._services["svc-web"].revisions["v1"]
        assert len(revision.ready) == 3

    run_house(test, 3)


def test_a_suspect_that_answers_again_is_used_again() -> None:
    async def test(house: House) -> None:
        address, port = house.replica.address, int(house.replica.address.split(":")[1])
        await house.replica.kill()
        asking = [asyncio.create_task(house.gate.get("/s/web/")) for _ in range(5)]
        await _until(lambda: house.router.tell().services[0].held == 5)
        assert _states(house) == ["suspect"]
        await house.replica.start(port)
        assert house.replica.address == address
        for _ in range(2):
            house.router.sweep()
            await asyncio.sleep(0.02)
        assert all(answer.endswith(b"ok") for answer in await asyncio.gather(*asking))
        assert _states(house) == ["ready"]

    run_house(test, holding=Holding())


def test_when_all_are_gone_requests_wait_and_do_not_knock_again_and_again() -> None:
    async def test(house: House) -> None:
        port = int(house.replica.address.split(":")[1])
        for replica in house.replicas:
            await replica.kill()
        asking = [asyncio.create_task(house.gate.get("/s/web/")) for _ in range(5)]
        await _until(lambda: house.router.tell().services[0].held == 5)
        for _ in range(50):
            await asyncio.sleep(0.001)
        told = house.router.tell().services[0]
        assert told.held == 5 and sum(replica.errors for replica in told.replicas) <= 20, "four tries each"
        await house.replica.start(port)
        for _ in range(3):
            house.router.sweep()
            await asyncio.sleep(0.02)
        assert all(answer.endswith(b"ok") for answer in await asyncio.gather(*asking))

    run_house(test, 2, holding=Holding())


def test_draining_lets_answers_end_and_takes_no_more() -> None:
    async def test(house: House) -> None:
        one, other = house.replicas
        reader, writer = await house.gate.connect()
        writer.write(b"GET /s/web/stream HTTP/1.1\r\nHost: a\r\n\r\n")
        await reader.readuntil(b"data: 1\n\n")
        busy, idle = (one, other) if one.heads else (other, one)

        def told(generation: int, states: dict[str, str]) -> None:
            replicas = tuple(
                ReplicaRoute(id=address, address=address, state=state)  # type: ignore[arg-type]
                for address, state in states.items()
            )
            house.router.take_table(
                table(service(revisions=(RevisionRoute(id="v1", replicas=replicas),)), generation=generation)
            )

        told(2, {busy.address: "ready", idle.address: "ready"})
        reader2, writer2 = await house.gate.connect()
        writer2.write(b"GET /s/web/stream HTTP/1.1\r\nHost: a\r\n\r\n")
        await reader2.readuntil(b"data: 1\n\n")
        told(3, {busy.address: "draining", idle.address: "ready"})
        told(4, {idle.address: "ready"})
        heads = len(busy.heads)
        for _ in range(6):
            assert (await house.gate.get("/s/web/")).endswith(b"ok")
        assert len(busy.heads) == heads
        gone = [replica for replica in house.router.tell().services[0].replicas if replica.state == "gone"]
        assert sum(replica.in_flight for replica in gone) >= 1
        busy.go_on.set()
        idle.go_on.set()
        assert b"data: 3" in await reader.readuntil(b"0\r\n\r\n")
        assert b"data: 3" in await reader2.readuntil(b"0\r\n\r\n")
        await _until(lambda: [each.id for each in house.router.tell().services[0].replicas] == [idle.address])

    run_house(test, 2)


def test_websockets_of_a_draining_replica_are_told_after_a_while() -> None:
    async def test(house: House) -> None:
        reader, writer = await house.gate.connect()
        writer.write(
            b"GET /s/web/socket HTTP/1.1\r\nHost: a\r\nConnection: upgrade\r\nUpgrade: websocket\r\n\r\n"
        )
        await reader.readuntil(b"\r\n\r\n")
        draining = ReplicaRoute(id="r0", address=house.replica.address, state="draining")
        revisions = (RevisionRoute(id="v1", replicas=(draining,)),)
        house.router.take_table(table(service(revisions=revisions, drain_ws_s=30), generation=2))
        house.clock.now += 29
        house.router.sweep()
        writer.write(b"\x82\x01x")
        assert await reader.readexactly(3) == b"\x82\x01x"
        house.clock.now += 1
        house.router.sweep()
        assert await reader.read() == b"\x88\x02\x03\xe9"
        told = house.router.tell().services[0]
        assert told.in_flight == 0 and told.replicas[0].state == "draining"

    run_house(test)


@pytest.mark.parametrize(
    "address",
    [
        "169.254.169.254:80", "[fe80::1]:80", "[fd00:ec2::254]:80", "metadata.google.internal:80",
        "[::ffff:169.254.169.254]:80", "2852039166:80", "0xa9fea9fe:80", "169.254.43518:80", "0.0.0.0:80",
        "224.0.0.1:80", "METADATA.:80", "[2002:a9fe:a9fe::]:80", "168.63.129.16:32526", "host:99999",
        "100.100.100.200:80",
    ],
)  # fmt: skip
def test_no_replica_is_where_only_the_network_itself_is(address: str) -> None:
    with pytest.raises(ValueError, match=r"belongs to the network itself|not HOST:PORT"):
        parse_address(address)


def test_a_table_with_a_forbidden_replica_changes_nothing() -> None:
    async def test(house: House) -> None:
        with pytest.raises(ValueError, match="belongs to the network itself"):
            house.router.take_table(table(service("169.254.169.254:80"), generation=2))
        assert (await house.gate.get("/s/web/")).endswith(b"ok") and house.router.generation == 1

    run_house(test)


def test_a_name_that_resolves_to_the_network_itself_is_refused_when_it_is_dialled() -> None:
    async def test(house: House) -> None:
        loop = asyncio.get_running_loop()
        from argosy.gateway import addresses

        async def resolve(*_: object, **__: object) -> list[tuple[int, int, int, str, tuple[str, int]]]:
            return [(2, 1, 6, "", ("169.254.169.254", 80))]

        class Loop:
            getaddrinfo = staticmethod(resolve)
            create_connection = loop.create_connection

        before = addresses.asyncio.get_running_loop
        addresses.asyncio.get_running_loop = lambda: Loop()  # type: ignore[assignment]
        try:
            with pytest.raises(OSError, match="belongs to the network itself"):
                await addresses.connect_to(parse_address("rebinding.example:80"), asyncio.Protocol)
        finally:
            addresses.asyncio.get_running_loop = before

    run_house(test)

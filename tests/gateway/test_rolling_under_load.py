"""Replicas are replaced one after another while requests and streams go on: none fails, none is cut."""

from __future__ import annotations

import asyncio

from gateway_house import Gate, House, Replica, run_house, table

from argosy.model.routes import ReplicaRoute, RevisionRoute, RouteTable, ServiceRoute

STREAM = (
    b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n" + b"1\r\nx\r\n" * 50 + b"0\r\n\r\n"
)  # fmt: skip


class Fleet:
    """Replicas of revision after revision, and the table that says so."""

    def __init__(self, house: House) -> None:
        self.house = house
        self.there: dict[str, tuple[Replica, str]] = {}
        self.generation = 1

    async def add(self, revision: str) -> None:
        replica = await Replica().start()
        replica.scripts[b"who"] = b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n%b" % (
            len(revision),
            revision.encode(),
        )
        replica.scripts[b"stream"] = STREAM
        self.house.replicas.append(replica)
        self.there[replica.address] = (replica, revision)

    def tell(self, weights: dict[str, int], draining: str = "") -> None:
        self.generation += 1
        revisions = tuple(
            RevisionRoute(
                id=revision,
                weight=weight,
                replicas=tuple(
                    ReplicaRoute(
                        id=address, address=address, state="draining" if address == draining else "ready"
                    )
                    for address, (_, of) in self.there.items()
                    if of == revision
                ),
            )
            for revision, weight in weights.items()
        )
        route = ServiceRoute(id="svc-web", name="web", prefix="/s/web", public=True, revisions=revisions)
        told: RouteTable = table(route, generation=self.generation)
        self.house.router.take_table(told)
        assert self.house.router.tell().generation == self.generation

    async def end(self, address: str, weights: dict[str, int]) -> None:
        """The order of a drain: out of the routes, acknowledged, idle, then killed."""
        self.tell(weights, draining=address)
        while any(each.id == address and each.in_flight for each in self._told()):
            await asyncio.sleep(0)
        replica, _ = self.there.pop(address)
        self.tell(weights)
        await replica.kill()

    def _told(self) -> list:  # type: ignore[type-arg]
        return self.house.router.tell().services[0].replicas


async def _ask(gate: Gate, path: bytes, stop: asyncio.Event, seen: list[bytes]) -> None:
    reader, writer = await gate.connect()
    while not stop.is_set():
        writer.write(b"GET /s/web/%b HTTP/1.1\r\nHost: a\r\n\r\n" % path)
        head = await reader.readuntil(b"\r\n\r\n")
        assert head.startswith(b"HTTP/1.1 200 "), head
        if path == b"stream":
            assert (await reader.readuntil(b"0\r\n\r\n")).count(b"x") == 50
        else:
            seen.append(await reader.readexactly(2))
    writer.close()


def test_a_rolling_update_and_a_smaller_number_cut_nothing() -> None:
    async def test(house: House) -> None:
        fleet, stop = Fleet(house), asyncio.Event()
        for _ in range(3):
            await fleet.add("v0")
        fleet.tell({"v0": 1})
        seen: list[bytes] = []
        asking = [asyncio.create_task(_ask(house.gate, b"who", stop, seen)) for _ in range(8)]
        asking += [asyncio.create_task(_ask(house.gate, b"stream", stop, seen)) for _ in range(4)]
        for number in range(1, 6):  # five updates, each from three to three
            old, new = f"v{number - 1}", f"v{number}"
            for step in range(1, 4):
                await fleet.add(new)
                weights = {old: 3 - step, new: step}
                await fleet.end(next(each for each, (_, of) in fleet.there.items() if of == old), weights)
            fleet.tell({new: 1})
            promoted = len(seen)
            while len(seen) < promoted + 30:
                await asyncio.sleep(0)
            assert set(seen[promoted + 8 :]) == {new.encode()}, "no wrong revision after the promotion"
        await fleet.end(next(iter(fleet.there)), {"v5": 1})
        stop.set()
        await asyncio.gather(*asking)
        told = house.router.tell().services[0]
        assert sum(revision.errors for revision in told.revisions) == 0 and told.retries == 0
        assert told.in_flight == 0 and len(told.replicas) == 2

    run_house(test, 0)

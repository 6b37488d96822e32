"""Replicas in several regions: the nearest that are well take the requests, the others when those fail."""

from __future__ import annotations

import asyncio

from gateway_house import House, run_house, service, table

from argosy.model.routes import ReplicaRoute, RevisionRoute, RouteTable

NEAR = (("a/east",), ("a/west", "b/west"))


async def _take(house: House, *, limit: int = 0, generation: int = 2) -> None:
    regions = ("a/east", "a/east", "b/west", "c/south")
    replicas = tuple(
        ReplicaRoute(id=f"r{n}", address=replica.address, region=region, max_concurrency=limit)
        for n, (replica, region) in enumerate(zip(house.replicas, regions, strict=True))
    )
    route = service(revisions=(RevisionRoute(id="v1", replicas=replicas),))
    told = table(route, generation=generation, region="a/east")
    house.router.take_table(RouteTable(**{**_fields(told), "near": NEAR}))


def _fields(told: RouteTable) -> dict[str, object]:
    return {name: getattr(told, name) for name in told.__struct_fields__}


def _answered(house: House) -> list[int]:
    return [len(replica.heads) for replica in house.replicas]


def test_the_nearest_region_first_then_the_next_and_back_again() -> None:
    async def main(house: House) -> None:
        await _take(house)
        for _ in range(8):
            assert (await house.gate.get("/s/web/x")).endswith(b"ok")
        assert _answered(house) == [4, 4, 0, 0]
        address = house.replicas[1].address
        await house.replicas[0].kill()
        await house.replicas[1].kill()
        for _ in range(8):
            assert (await house.gate.get("/s/web/x")).endswith(b"ok"), "nobody notices that a region is gone"
        assert _answered(house)[2:] == [8, 0]
        await house.replicas[1].start(int(address.rsplit(":", 1)[1]))
        for _ in range(2):  # good probes of a suspect
            house.router.sweep()
            await asyncio.sleep(0.05)
        before = len(house.replicas[1].heads)
        assert (await house.gate.get("/s/web/x")).endswith(b"ok")
        assert len(house.replicas[1].heads) == before + 1, "half of the region is well: it is used again"

    run_house(main, 4)


def test_what_the_nearest_region_cannot_take_goes_to_the_next() -> None:
    async def main(house: House) -> None:
        await _take(house, limit=1)
        writers = []
        for _ in range(4):
            _, writer = await house.gate.connect()
            writer.write(b"GET /s/web/hang HTTP/1.1\r\nHost: a\r\n\r\n")
            writers.append(writer)
            await asyncio.sleep(0.02)
        assert _answered(house) == [1, 1, 1, 1]
        for writer in writers:
            writer.close()

    run_house(main, 4)


def test_a_gateway_of_no_region_uses_all() -> None:
    async def main(house: House) -> None:
        for _ in range(8):
            assert (await house.gate.get("/s/web/x")).endswith(b"ok")
        assert _answered(house) == [2, 2, 2, 2]

    run_house(main, 4)

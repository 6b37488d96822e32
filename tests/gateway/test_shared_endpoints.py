"""Several models or versions behind one endpoint: by the model that a request names, else by weights."""

from __future__ import annotations

import asyncio
import hashlib
import json
from collections import Counter

import pytest
from gateway_house import House, run_house, service

from argosy.model.routes import (
    EndpointRoute,
    KeyRoute,
    Member,
    ReplicaRoute,
    RevisionRoute,
    RouteTable,
    check_table,
)

_JSON = b"Content-Type: application/json"


async def _take(house: House, **fields: object) -> None:
    one, other = house.replicas
    routes = (
        service(one.address, name="small", models=("small",), **fields),
        service(other.address, name="large", models=("org/large",), **fields),
    )
    members = (Member(service="svc-small", weight=900), Member(service="svc-large", weight=100))
    shared = EndpointRoute(name="chat", prefix="/s/chat", hosts=("chat.example.org",), members=members)
    house.router.take_table(RouteTable(generation=2, services=routes, endpoints=(shared,)))


def _answered(house: House) -> list[int]:
    return [len(replica.heads) for replica in house.replicas]


async def _ask(house: House, model: str, path: str = "/s/chat/v1/chat/completions", *lines: bytes) -> bytes:
    body = json.dumps({"model": model, "messages": []}).encode()
    return await house.gate.get(path, _JSON, *lines, method=b"POST", body=body)


def test_a_model_that_is_named_and_shares_of_the_others() -> None:
    async def main(house: House) -> None:
        await _take(house)
        for _ in range(3):
            assert (await _ask(house, "org/large")).endswith(b"ok")
        assert _answered(house) == [0, 3]
        assert house.replicas[1].heads[0].startswith(b"POST /v1/chat/completions ")
        assert b'"org/large"' in house.replicas[1].bodies[0]
        for _ in range(20):
            await _ask(house, "chat")
        assert _answered(house) == [18, 5], "nine of ten, exactly"
        for _ in range(10):
            await house.gate.get("/s/chat/health")
        assert _answered(house) == [27, 6]
        said = await _ask(house, "middle")
        assert b" 404 " in said and b"there is no model `middle` here; there is: org/large, small" in said
        listed = json.loads((await house.gate.get("/s/chat/v1/models")).split(b"\r\n\r\n")[1])
        assert [each["id"] for each in listed["data"]] == ["org/large", "small"]
        assert (await _ask(house, "chat", "/v1/chat/completions")).endswith(b"ok"), (
            "also at the common address"
        )
        assert (await house.gate.get("/s/small/x")).endswith(b"ok"), "each has a place of its own, too"

    run_house(main, 2)


def test_an_update_of_a_member_is_not_noticed_at_the_shared_endpoint() -> None:
    """A canary, its promotion, a smaller number, zero and back, while requests go on."""

    async def main(house: House) -> None:
        new = (await house.add(1))[0]
        old, other = house.replicas[0].address, house.replicas[1].address
        stop, answers = asyncio.Event(), Counter[bytes]()

        async def ask(body: dict[str, object]) -> None:
            data = json.dumps(body).encode()
            while not stop.is_set():
                answer = await house.gate.get("/s/chat/v1/completions", _JSON, method=b"POST", body=data)
                answers[answer[9:12]] += 1

        def tell(generation: int, revisions: tuple[tuple[str, int, str, str], ...]) -> None:
            small = service(
                name="small",
                models=("small",),
                revisions=tuple(
                    RevisionRoute(
                        id=id,
                        weight=weight,
                        replicas=(ReplicaRoute(id=f"r-{id}", address=address, state=state),),  # type: ignore[arg-type]
                    )
                    for id, weight, address, state in revisions
                ),
            )
            large = service(other, name="large", models=("org/large",))
            members = (Member(service="svc-small", weight=900), Member(service="svc-large", weight=100))
            shared = EndpointRoute(name="chat", prefix="/s/chat", members=members)
            house.router.take_table(
                RouteTable(generation=generation, services=(small, large), endpoints=(shared,))
            )

        steps: tuple[tuple[tuple[str, int, str, str], ...], ...] = (
            (("1", 10_000, old, "ready"),),
            (("1", 9000, old, "ready"), ("2", 1000, new, "ready")),
            (("1", 0, old, "draining"), ("2", 10_000, new, "ready")),
            (("2", 10_000, new, "ready"),),
            (),  # scaled to zero: the other one has all that name no model
            (("1", 10_000, old, "ready"),),  # and taken back to the first revision
        )
        tell(2, steps[0])
        asking = [asyncio.create_task(ask({"prompt": "x"})) for _ in range(3)]
        for generation, step in enumerate(steps, 3):
            tell(generation, step)
            seen = sum(answers.values())
            while sum(answers.values()) < seen + 40:
                await asyncio.sleep(0.002)
        stop.set()
        await asyncio.gather(*asking)
        assert set(answers) == {b"200"}
        assert all(len(replica.heads) > 20 for replica in house.replicas)
        named = Counter[bytes]()
        for model in ("small", "org/large") * 2:
            named[(await _ask(house, model))[9:12]] += 1
        assert named == {b"200": 4}

    run_house(main, 2)


def test_a_member_without_a_replica_is_left_out_while_others_have_one() -> None:
    async def main(house: House) -> None:
        await _take(house)
        address = house.replicas[0].address
        await house.replicas[0].kill()
        for _ in range(10):
            await house.gate.get("/s/chat/x")
        before = _answered(house)[1]
        for _ in range(10):
            assert (await house.gate.get("/s/chat/x")).endswith(b"ok")
        assert _answered(house)[1] == before + 10, address

    run_house(main, 2)


def test_keys_are_asked_for_at_the_shared_endpoint_too() -> None:
    async def main(house: House) -> None:
        key = KeyRoute(id="k", sha256=hashlib.sha256(b"sk-one").hexdigest())
        await _take(house, keys=(key,), public=False)
        assert b" 401 " in await _ask(house, "small")
        assert b" 401 " in await house.gate.get("/s/chat/v1/models")
        assert (
            await _ask(house, "small", "/s/chat/v1/completions", b"Authorization: Bearer sk-one")
        ).endswith(b"ok")

    run_house(main, 2)


@pytest.mark.parametrize(
    ("endpoint", "said"),
    [
        (
            EndpointRoute(name="x", members=(Member(service="svc-no"),)),
            "its service `svc-no` is not in the table",
        ),
        (EndpointRoute(name="x", prefix="/s/web"), "its prefix `/s/web` belongs to `web` already"),
    ],
)
def test_a_table_whose_endpoints_are_wrong_is_refused(endpoint: EndpointRoute, said: str) -> None:
    faults = check_table(RouteTable(generation=1, services=(service("h:1"),), endpoints=(endpoint,)))
    assert len(faults) == 1 and said in faults[0]

"""A new endpoint is a declaration and a handler: door, both clients and openapi.json follow."""

from __future__ import annotations

import asyncio
import shutil
import socket
import tempfile
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated

import msgspec
import pytest
import uvicorn

from argosy.api.endpoint import Reply, Request, endpoint, endpoints_of
from argosy.api.endpoints import ENDPOINTS
from argosy.api.location import Location
from argosy.api.openapi import build_openapi
from argosy.api.server import Health
from argosy.client.async_client import AsyncClient
from argosy.client.client import Client
from argosy.infra.system import SystemClock, SystemIds
from argosy.model.errors import ArgosyError
from argosy.server.doorkeeper import Doorkeeper
from argosy.server.exchange import Exchange
from argosy.server.front import Front, bind
from argosy.server.identity import Identity
from argosy.server.recording import Recorder
from argosy.store import Store
from argosy.testing.fake_server import FakeServer


class ToyView(Reply, frozen=True, kw_only=True):
    name: str
    size: int
    tags: tuple[str, ...] = ()


class ToyRequest(Request, frozen=True, kw_only=True):
    tags: tuple[str, ...]
    key: str = ""


class ToyCalls:
    @endpoint("GET", "/toys/{toy}", permission="jobs.read")
    def toy(self, toy: str, *, size: Annotated[int, "how large"] = 1) -> ToyView:
        """One toy.

        This is not part of the text.
        """

    @endpoint("POST", "/toys/{toy}/tags", ToyRequest, permission="jobs.write")
    def tag_toy(self, toy: str, tags: tuple[str, ...], *, key: str = "") -> ToyView:
        """Tag a toy."""


class ToyFeature:
    async def health(self, exchange: Exchange) -> Health:
        return Health(version="0", api=1, pid=1, started_ms=0)

    async def toy(self, exchange: Exchange) -> ToyView:
        return ToyView(name=exchange.path["toy"], size=exchange.number("size") or 1)

    async def tag_toy(self, exchange: Exchange) -> ToyView:
        request = await exchange.decode(ToyRequest)
        assert len(request.key) == 24, "every client gives a key"
        return ToyView(name=exchange.path["toy"], size=1, tags=request.tags)


class ToyClient(ToyCalls, Client):
    pass


class AsyncToyClient(ToyCalls, AsyncClient):
    pass


HEALTH = next(each for each in ENDPOINTS if each.name == "health")
TOYS = (HEALTH, *endpoints_of(ToyCalls))


@pytest.fixture
def location(tmp_path: Path) -> Iterator[Location]:
    path = Path(tempfile.mkdtemp()) / "toys.sock"  # a short path
    listener = socket.socket(socket.AF_UNIX)
    listener.bind(str(path))
    listener.listen()
    clock, ids = SystemClock(), SystemIds()
    store = asyncio.run(Store.open("sqlite://", ids=ids, clock=clock, inline=True))
    keeper = Doorkeeper(store, clock, Identity(store, clock, ids))
    recorder = Recorder(store, clock, ids)
    front = Front(bind([ToyFeature()], TOYS), keeper=lambda: keeper, recorder=recorder, ids=ids)
    config = uvicorn.Config(front.over_socket, interface="asgi3", lifespan="off", log_config=None)
    server = uvicorn.Server(config)
    thread = threading.Thread(target=server.run, args=([listener],))
    thread.start()
    yield Location(path)
    server.should_exit = True
    thread.join(20)
    shutil.rmtree(path.parent)


def test_both_clients_have_it(location: Location) -> None:
    with ToyClient(location) as client:
        assert client.toy("bär", size=3) == ToyView(name="bär", size=3)
        assert client.tag_toy("a/b", ("x",)) == ToyView(name="a/b", size=1, tags=("x",))
        with pytest.raises(TypeError, match=r"toy\(\) got an unexpected keyword argument 'sise'"):
            client.toy("bear", sise=3)  # type: ignore[call-arg]
        with pytest.raises(ArgosyError, match="the name of the toy is empty"):
            client.toy("")
        with pytest.raises(ArgosyError, match="has no GET /v1/status"):
            client.status()  # this server has toys only

    async def main() -> None:
        async with AsyncToyClient(location) as client:
            assert await client.toy("bear") == ToyView(name="bear", size=1)

    asyncio.run(main())


def test_the_fake_server_follows(tmp_path: Path) -> None:
    with FakeServer(endpoints=TOYS) as server:
        with ToyClient(Location(None, host="127.0.0.1", port=server.port)) as client:
            assert client.toy("bear").size == 0
            assert client.tag_toy("bear", ("x",)) == ToyView(name="x", size=0)
        assert [seen.endpoint for seen in server.requests] == ["health", "toy", "tag_toy"]


def test_documents_follow() -> None:
    document = build_openapi(TOYS)
    operation = document["paths"]["/v1/toys/{toy}"]["get"]
    assert operation["summary"] == "One toy."
    assert [(one["name"], one["in"]) for one in operation["parameters"]] == [
        ("toy", "path"),
        ("size", "query"),
    ]
    assert document["components"]["schemas"]["ToyView"]["properties"]["size"] == {"type": "integer"}
    assert msgspec.json.encode(document)


def test_a_parameter_of_a_query_says_what_it_means() -> None:
    class Silent:
        @endpoint("GET", "/silent")
        def silent(self, loud: bool = False) -> ToyView:
            """Nothing."""

    with pytest.raises(TypeError, match="the parameter `loud` of a query says what it means"):
        build_openapi(endpoints_of(Silent))

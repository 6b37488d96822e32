from __future__ import annotations

import json

import pytest
from raw_requests import Raw
from test_requests_to_rows import TASK, run_cluster
from websockets.exceptions import InvalidStatus
from websockets.sync.client import ClientConnection, unix_connect

from argosy.infra import border
from argosy.testing.idle_server import IdleServer


def connect(server: IdleServer, name: str = "c", query: str = "") -> ClientConnection:
    return unix_connect(str(server.socket), f"ws://argosy/v1/clusters/{name}/shell{query}", compression=None)


@pytest.fixture
def ready(server: IdleServer, raw: Raw) -> IdleServer:
    raw.post("/launch", {"task": TASK, "cluster": "c"})
    run_cluster(server, "c")
    return server


def test_bytes_sizes_and_the_exit_code_travel(ready: IdleServer) -> None:
    with connect(ready, query="?rows=50&columns=132&node=0") as terminal:
        terminal.send(b"hello")
        assert terminal.recv() == b"HELLO"
        terminal.send(json.dumps({"rows": 10, "columns": 20}))
        terminal.send("not json")
        terminal.send(b"again")
        assert terminal.recv() == b"AGAIN"
        terminal.send(b"exit\n")
        assert json.loads(terminal.recv()) == {"exit_code": 7}
    (opened,) = ready.agents.terminals
    assert opened.sizes == [(50, 132), (10, 20)]
    assert opened.closed


def test_a_client_that_leaves_closes_the_shell(ready: IdleServer) -> None:
    import time

    with connect(ready) as terminal:
        terminal.send(b"x")
        terminal.recv()
    deadline = time.monotonic() + 90
    while not ready.agents.terminals[0].closed:
        assert time.monotonic() < deadline
        time.sleep(0.01)


def refused(server: IdleServer, name: str = "c", query: str = "") -> tuple[int, str]:
    with pytest.raises(InvalidStatus) as error:
        connect(server, name, query)
    response = error.value.response
    return response.status_code, json.loads(response.body or b"{}").get("code", "")


def test_refusals_are_problems(ready: IdleServer, raw: Raw) -> None:
    assert refused(ready, "nobody") == (404, "not-found")
    assert refused(ready, query="?node=4") == (404, "not-found")
    assert refused(ready, query="?nod=4") == (400, "usage")
    ready.agents.error = border.Unreachable("it does not answer")
    assert refused(ready) == (502, "node-unreachable")
    assert ready.agents.dropped == []  # terminals of others go on
    raw.post("/launch", {"task": TASK, "cluster": "new"})
    assert refused(ready, "new") == (409, "wrong-state")


def test_tcp_terminals_need_a_token() -> None:
    from websockets.sync.client import connect as connect_tcp

    with IdleServer(listen="127.0.0.1:0") as server:
        address = server.address.replace("http", "ws")
        with pytest.raises(InvalidStatus) as error:
            connect_tcp(f"{address}/v1/clusters/c/shell")
        assert error.value.response.status_code == 401

"""Forwarded ports, ssh and copies through the server: bytes, ends and refusals."""

from __future__ import annotations

import json
import time

import pytest
from raw_requests import Raw
from test_requests_to_rows import TASK, run_cluster
from websockets.exceptions import ConnectionClosedOK, InvalidStatus
from websockets.sync.client import ClientConnection, unix_connect

from argosy.infra import border
from argosy.testing.idle_server import IdleServer


def connect(server: IdleServer, target: str) -> ClientConnection:
    return unix_connect(str(server.socket), f"ws://argosy/v1/clusters/{target}", compression=None)


@pytest.fixture
def ready(server: IdleServer, raw: Raw) -> IdleServer:
    raw.post("/launch", {"task": TASK, "cluster": "c"})
    run_cluster(server, "c")
    return server


def refused(server: IdleServer, target: str) -> dict[str, str]:
    with pytest.raises(InvalidStatus) as error:
        connect(server, target)
    told: dict[str, str] = json.loads(error.value.response.body or b"{}")
    return told


def closed(server: IdleServer) -> bool:
    deadline = time.monotonic() + 90
    while not server.agents.terminals[-1].closed and time.monotonic() < deadline:
        time.sleep(0.01)
    return server.agents.terminals[-1].closed


def test_each_direction_ends_by_itself(ready: IdleServer) -> None:
    with connect(ready, "c/forward?port=80") as stream:
        stream.send(b"hello")
        assert stream.recv() == b"HELLO"
        stream.send("not json")
        stream.send(json.dumps({"end": True}))
        assert json.loads(stream.recv()) == {"end": True}
        with pytest.raises(ConnectionClosedOK):
            stream.recv()
    assert closed(ready)
    assert ready.agents.terminals[-1].sizes == [(80, 0)]  # the port


def test_a_client_that_leaves_ends_the_node_s_side(ready: IdleServer) -> None:
    with connect(ready, "c/forward?port=80") as stream:
        stream.send(b"x")
        stream.recv()
    assert closed(ready)


def test_the_node_s_end_is_told_and_the_rest_of_the_client_still_goes(ready: IdleServer) -> None:
    with connect(ready, "c/forward?port=80") as stream:
        stream.send(b"exit")
        assert json.loads(stream.recv()) == {"end": True}
        stream.send(b"rest")
        stream.send(json.dumps({"end": True}))
        with pytest.raises(ConnectionClosedOK):
            stream.recv()
    assert closed(ready)


def test_refusals_are_problems(ready: IdleServer) -> None:
    assert refused(ready, "nobody/forward?port=80")["code"] == "not-found"
    assert refused(ready, "c/forward?port=80&node=7")["code"] == "not-found"
    assert refused(ready, "c/forward?port=0")["what"] == "there is no port 0"
    assert refused(ready, "c/forward")["code"] == "usage"
    ready.agents.error = border.Transient("nothing answers on port 80 of n0")
    assert refused(ready, "c/forward?port=80")["code"] == "node-unreachable"


def test_a_node_without_sshd_says_what_works(ready: IdleServer) -> None:
    ready.agents.error = border.RequestRefused(
        "ssh", "n0 cannot be opened by ssh: sshd is not installed there"
    )
    told = refused(ready, "c/ssh?key=ssh-ed25519%20AAAA")
    assert told["what"] == "n0 cannot be opened by ssh: sshd is not installed there"
    assert told["hint"] == "`argosy ssh`, `argosy cp` and `argosy port-forward` work without it"


def test_a_copy_of_nothing(ready: IdleServer) -> None:
    ready.agents.error = border.RequestRefused("path", "there is no `x`")
    told = refused(ready, "c/copy?path=x&read=true")
    assert (told["code"], told["hint"]) == ("not-found", "`argosy ssh c -- ls` shows what is there")

from __future__ import annotations

import logging
import os
import socket
import stat

import pytest
from raw_requests import Raw

from argosy.api.endpoint import BODY_LIMIT_BYTES
from argosy.api.endpoints import ENDPOINTS
from argosy.identity.roles import TOKEN_GRANTS
from argosy.model.errors import CODES
from argosy.server.front import bind
from argosy.server.tokens import Tokens
from argosy.testing.idle_server import IdleServer

GOOD = "argosy_good-token"


def test_every_row_of_the_table_is_bound(server: IdleServer, raw: Raw) -> None:
    def feature(*names: str) -> object:
        return type("Feature", (), dict.fromkeys(names, lambda self, exchange: None))()

    names = [endpoint.name for endpoint in ENDPOINTS]
    with pytest.raises(ValueError, match="unbound: \\['health'\\]"):
        bind([feature(*(name for name in names if name != "health"))])
    with pytest.raises(ValueError, match="unknown: \\['more'\\]"):
        bind([feature(*names), feature("more")])
    with pytest.raises(ValueError, match="two features answer `health`"):
        bind([feature(*names), feature("health")])
    for endpoint in ENDPOINTS:
        if endpoint.method != "WS":
            path = endpoint.path.replace("{cluster}", "none").replace("{job}", "job-0")
            if endpoint.name != "server_stop":
                answer = raw.ask(endpoint.method, path, {})
                is_json = "json" in answer.headers.get("content-type", "") and answer.body
                code = answer.json.get("code") if is_json else None
                assert code != "version-mismatch", endpoint.name


def test_what_is_not_there_is_a_problem(raw: Raw) -> None:
    for method, path in [("GET", "/nothing"), ("POST", "/status"), ("GET", "/jobs/a/b/c")]:
        answer = raw.ask(method, path)
        assert (answer.status, answer.json["code"]) == (404, "version-mismatch")
        assert "has no" in answer.json["what"]
        assert answer.json["hint"]


def test_a_terminal_that_is_asked_for_without_a_websocket_is_told_so(raw: Raw) -> None:
    answer = raw.ask("GET", "/clusters/x/shell")
    assert (answer.status, answer.json["code"]) == (400, "usage")
    assert "WebSocket" in answer.json["what"] and answer.json["hint"], answer.json


def test_every_answer_says_the_version(raw: Raw) -> None:
    answer = raw.get("/health")
    assert answer.headers["x-argosy-api"] == str(answer.json["api"])
    assert answer.headers["x-argosy-version"] == answer.json["version"]
    refused = raw.get("/health", **{"X-Argosy-Api": "99"})
    assert (refused.status, refused.json["code"]) == (426, "version-mismatch")
    assert raw.get("/health", **{"X-Argosy-Api": "1"}).status == 200


@pytest.mark.parametrize(
    ("path", "body", "where", "text"),
    [
        ("/exec", {"cluster": "c", "tasks": [], "tsk": 1}, "", "unknown field `tsk`"),
        ("/exec", {"cluster": "c", "tasks": [{"runn": "x"}]}, "tasks[0].runn", "unknown field `runn`"),
        (
            "/launch",
            {"task": {"resources": [{}, {"acelerator": None}]}},
            "task.resources[1].acelerator",
            "unknown field `acelerator`",
        ),
        (
            "/launch",
            {"task": {"resources": [{"accelerator": {"model": "A", "milli": 1, "mili": 1}}]}},
            "task.resources[0].accelerator.mili",
            "unknown field `mili`",
        ),
        ("/launch", {"task": {"num_nodes": "two"}}, "task.num_nodes", "expected `int`, got `str`"),
        ("/launch", {}, "", "missing required field `task`"),
        ("/launch", b"{", "", "not JSON"),
        ("/launch", b'{"task": {"run": "\xff"}}', "", "not JSON"),
    ],
)
def test_requests_are_strict_with_a_path(raw: Raw, path: str, body: object, where: str, text: str) -> None:
    answer = raw.post(path, body)
    assert (answer.status, answer.json["code"]) == (422, "spec-invalid")
    assert text in answer.json["what"]
    assert where in answer.json.get("where", "")


def test_a_wrong_field_is_told_the_right_one(raw: Raw) -> None:
    answer = raw.post("/launch", {"task": {"resources": [{"acelerator": None}]}})
    assert answer.json["hint"] == "did you mean `accelerator`?"


@pytest.mark.parametrize(
    ("path", "text"),
    [
        ("/status?refesh=true", "no parameter `refesh`"),
        ("/status?all=maybe", "`all` is `true` or `false`"),
        ("/jobs?limit=many", "`limit` is a whole number"),
        ("/health?x=1", "no parameter `x`"),
    ],
)
def test_queries_are_strict(raw: Raw, path: str, text: str) -> None:
    answer = raw.get(path)
    assert (answer.status, answer.json["code"]) == (400, "usage")
    assert text in answer.json["what"]


def test_a_body_too_large_is_refused_before_it_is_sent(server: IdleServer, raw: Raw) -> None:
    connection = raw.connection()
    connection.putrequest("POST", "/v1/launch")
    connection.putheader("Content-Length", str(BODY_LIMIT_BYTES + 1))
    connection.endheaders()
    reply = connection.getresponse()
    assert reply.status == 413
    assert b'"too-large"' in reply.read()
    connection.close()
    assert raw.get("/health").status == 200


def test_a_body_of_unknown_length_is_cut_off(server: IdleServer, raw: Raw) -> None:
    """Chunked: nothing is announced. The reader stops at the limit, whoever goes on sending."""
    connection = raw.connection()
    connection.putrequest("POST", "/v1/trees")
    connection.putheader("Transfer-Encoding", "chunked")
    connection.endheaders()
    piece = b"100000\r\n" + b"x" * (1 << 20) + b"\r\n"
    for _ in range(80):
        connection.send(piece)
    assert b'"too-large"' in connection.getresponse().read()
    connection.close()
    assert raw.get("/health").status == 200


def test_names_may_hold_a_slash(raw: Raw) -> None:
    answer = raw.get("/clusters/a%2Fb")
    assert (answer.status, answer.json["what"]) == (404, "there is no cluster `a/b`")


def test_a_bug_is_told_by_a_number_only(
    server: IdleServer, raw: Raw, caplog: pytest.LogCaptureFixture
) -> None:
    known, server.providers.by_name = server.providers.by_name, None  # type: ignore[assignment]
    with caplog.at_level(logging.ERROR):
        answer = raw.get("/check")
    server.providers.by_name = known
    assert (answer.status, answer.json["code"]) == (500, "internal")
    name = answer.json["what"].split("`")[1]
    assert name.startswith("err-")
    assert "Traceback" not in answer.body.decode()
    assert "TypeError" not in answer.body.decode()
    assert any(name in record.getMessage() and record.exc_info for record in caplog.records)
    assert raw.get("/health").status == 200


def test_the_socket_is_its_owners(server: IdleServer) -> None:
    assert stat.S_IMODE(os.stat(server.socket).st_mode) == 0o600
    assert stat.S_IMODE(os.stat(server.socket.parent).st_mode) == 0o700


def test_noise_does_no_harm(server: IdleServer, raw: Raw) -> None:
    for noise in (
        b"\0" * 100,
        b"GET\r\n\r\n",
        b"GET /v1/health HTTP/9.9\r\n\r\n",
        b"POST /v1/launch HTTP/1.1\r\n",
    ):
        with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as sock:
            sock.connect(str(server.socket))
            sock.sendall(noise)
    assert raw.get("/health").status == 200


# -- tokens -----------------------------------------------------------------------------------------


def test_tcp_asks_for_a_token() -> None:
    with IdleServer(listen="127.0.0.1:0") as server:
        remote = Raw(server.address)
        server.do(Tokens(server.store).add(GOOD, name="a", scope="use", now_ms=0))
        none = remote.get("/status")
        assert (none.status, none.json["code"]) == (401, "unauthorized")
        assert none.headers["www-authenticate"] == "Bearer"
        for wrong in ("Bearer wrong", "Bearer ", "Basic " + GOOD, f"Bearer {GOOD}x", "Bearer \xff"):
            assert remote.get("/status", Authorization=wrong).status == 401
        assert remote.get("/status", Authorization=f"Bearer {GOOD}").status == 200
        assert remote.get("/nothing").status == 401  # what exists is told to those who may know
        assert Raw(server.socket).get("/status").status == 200


def test_health_is_open_and_says_little() -> None:
    with IdleServer(listen="127.0.0.1:0") as server:
        answer = Raw(server.address).get("/health")
        assert answer.status == 200
        assert "state_dir" not in answer.json
        assert str(server.home) not in answer.body.decode()
        assert Raw(server.socket).get("/health").json["state_dir"] == str(server.home)
        assert Raw(server.address).get("/health", Authorization="Bearer wrong").status == 401


def test_admin_is_more_than_use() -> None:
    with IdleServer(listen="127.0.0.1:0") as server:
        remote, tokens = Raw(server.address), Tokens(server.store)
        server.do(tokens.add(GOOD, name="a", scope="use", now_ms=0))
        server.do(tokens.add("argosy_boss", name="b", scope="admin", now_ms=0))
        refused = remote.get("/server", Authorization=f"Bearer {GOOD}")
        assert (refused.status, refused.json["code"]) == (403, "forbidden")
        told = remote.get("/server", Authorization="Bearer argosy_boss")
        assert told.json["memory_bytes"] > 1 << 20
        assert told.json["listening"] == [str(server.socket), server.address]
        assert server.do(tokens.remove("b"))
        assert remote.get("/server", Authorization="Bearer argosy_boss").status == 401  # at once


def test_tokens_are_kept_as_hashes() -> None:
    with IdleServer() as server:
        tokens = Tokens(server.store)
        server.do(tokens.add(GOOD, name="a", scope="use", now_ms=5))
        for path in server.home.rglob("*"):
            assert not path.is_file() or GOOD.encode() not in path.read_bytes(), path
        assert server.do(tokens.names()) == ["a"]
        caller = server.do(Tokens(server.store).caller_of(GOOD))
        assert caller is not None
        assert caller.grants == TOKEN_GRANTS["use"]


def test_codes_have_statuses() -> None:
    assert all(400 <= code.http < 600 for code in CODES.values())

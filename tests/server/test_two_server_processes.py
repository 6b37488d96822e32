"""Two real servers over one PostgreSQL, as behind a load balancer that sends each request anywhere."""

from __future__ import annotations

import http.client
import json
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from test_server_process import Process

from argosy.testing.postgres_server import PostgresServer, find_postgres

pytestmark = [pytest.mark.postgres, pytest.mark.nightly]


class Pair:
    """Both servers; every request goes to the other one than the last."""

    def __init__(self, folder: Path, url: str) -> None:
        env = {"ARGOSY_STORE": url, "ARGOSY_KEY_FILE": str(folder / "keys"), "HOME": str(folder)}
        more = ("--listen", "127.0.0.1:0")
        self.servers = [Process(folder / name, *more, wait=False, env=env) for name in "ab"]
        for each in self.servers:
            each.wait_until_ready()
        self.places = [each.raw.get("/server").json["listening"][1] for each in self.servers]
        self.turn = 0

    def ask(self, method: str, path: str, body: Any = None, token: str = "") -> tuple[int, Any]:
        """Over TCP with a token; without one over the unix socket."""
        self.turn ^= 1
        if not token:
            answer = self.servers[self.turn].raw.ask(method, path, body)
            return answer.status, answer.json
        connection = self.connection(self.turn)
        headers = {"authorization": f"Bearer {token}"}
        connection.request(method, "/v1" + path, None if body is None else json.dumps(body), headers)
        reply = connection.getresponse()
        text = reply.read()
        connection.close()
        return reply.status, json.loads(text)

    def connection(self, number: int) -> http.client.HTTPConnection:
        return http.client.HTTPConnection(self.places[number].removeprefix("http://"), timeout=60)

    def stop(self) -> None:
        for each in self.servers:
            each.stop()


@pytest.fixture
def pair(tmp_path: Path) -> Iterator[Pair]:
    binaries = find_postgres()
    if binaries is None:
        pytest.skip("NOT TESTED on PostgreSQL: no server binaries (apt-get install postgresql-15)")
    postgres = PostgresServer(binaries)
    made = Pair(tmp_path, postgres.url(postgres.make_database()))
    yield made
    made.stop()
    postgres.stop()


def test_any_request_anywhere_and_out_is_out_at_both(pair: Pair) -> None:
    password = "correct horse battery staple"
    for method, path, body in (
        ("POST", "/projects", {"name": "vision"}),
        ("POST", "/users", {"name": "ann", "password": password}),
        ("POST", "/members", {"user": "ann", "role": "member", "project": "vision"}),
    ):
        status, answer = pair.ask(method, path, body)
        assert status == 200, answer
    tokens = []
    for _ in range(2):  # made at one, used at the other
        status, answer = pair.ask(
            "POST", "/login", {"user": "ann", "password": password, "client": "cli"}, "x"
        )
        assert status == 401 or status == 200
        status, answer = pair.ask("POST", "/login", {"user": "ann", "password": password, "client": "cli"})
        assert status == 200, answer
        tokens.append(answer["token"])
        for _ in range(2):
            assert pair.ask("GET", "/whoami", token=tokens[-1])[1]["name"] == "ann"
    status, device = pair.ask("POST", "/login/device", {"host": "laptop"})
    assert status == 200 and pair.ask("POST", "/login/device/wait", {"secret": device["secret"]})[0] == 200
    assert pair.ask("POST", "/login/device/confirm", {"code": device["code"]}, token=tokens[0])[0] == 200
    login = pair.ask("POST", "/login/device/wait", {"secret": device["secret"]})[1]["login"]
    assert pair.ask("GET", "/whoami", token=login["token"])[0] == 200, (
        "begun, confirmed and finished anywhere"
    )
    waiting = []
    for number in (0, 1):  # a request that waits for news, which stays open for half a minute
        connection = pair.connection(number)
        headers = {"authorization": f"Bearer {tokens[number]}"}
        connection.request("GET", "/v1/events?after=1000000000&wait_s=30", headers=headers)
        waiting.append(connection)
    time.sleep(2)
    began_s = time.monotonic()
    assert pair.servers[0].raw.ask("POST", "/users/ann", {"is_disabled": True}).status == 200
    assert [each.getresponse().status for each in waiting] == [401, 401]
    print(f"what was open at both ended after {time.monotonic() - began_s:.2f} s")
    assert time.monotonic() - began_s < 20, "and did not wait for its end"
    for token in (*tokens, login["token"]):
        for _ in range(2):
            assert pair.ask("GET", "/whoami", token=token)[0] == 401

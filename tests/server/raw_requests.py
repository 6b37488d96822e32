from __future__ import annotations

import http.client
import json
import socket
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import pytest

from argosy.testing.idle_server import IdleServer


class Answer(NamedTuple):
    status: int
    body: bytes
    headers: dict[str, str]

    @property
    def json(self) -> Any:
        return json.loads(self.body)


class _Unix(http.client.HTTPConnection):
    def __init__(self, path: Path) -> None:
        super().__init__("argosy", timeout=90)
        self._path = path

    def connect(self) -> None:
        self.sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self.sock.settimeout(90)
        self.sock.connect(str(self._path))


class Raw:
    """Requests as any program would send them: nothing of our client."""

    def __init__(self, place: Path | str) -> None:
        self._place = place

    def connection(self) -> http.client.HTTPConnection:
        if isinstance(self._place, Path):
            return _Unix(self._place)
        host, _, port = self._place.removeprefix("http://").rpartition(":")
        return http.client.HTTPConnection(host, int(port), timeout=90)

    def ask(self, method: str, path: str, body: Any = None, headers: dict[str, str] | None = None) -> Answer:
        data = body if body is None or isinstance(body, bytes) else json.dumps(body).encode()
        connection = self.connection()
        try:
            connection.request(method, "/v1" + path, body=data, headers=headers or {})
            reply = connection.getresponse()
            return Answer(reply.status, reply.read(), {k.lower(): v for k, v in reply.getheaders()})
        finally:
            connection.close()

    def get(self, path: str, **headers: str) -> Answer:
        return self.ask("GET", path, headers=headers)

    def post(self, path: str, body: Any = None) -> Answer:
        return self.ask("POST", path, body)


@pytest.fixture
def server() -> Iterator[IdleServer]:
    with IdleServer() as running:
        yield running


@pytest.fixture
def raw(server: IdleServer) -> Raw:
    return Raw(server.socket)

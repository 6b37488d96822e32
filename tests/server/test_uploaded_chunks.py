"""Packs of chunks that come past the parser of HTTP: large ones, and those that break off."""

from __future__ import annotations

import hashlib
import os
import socket
from collections.abc import Iterator

import pytest

from argosy.api.location import Location
from argosy.client.client import Client
from argosy.model.errors import ArgosyError
from argosy.model.tree import pack_of
from argosy.testing.idle_server import IdleServer


def named(data: bytes) -> tuple[str, bytes]:
    return hashlib.sha256(data).hexdigest(), data


@pytest.fixture(scope="module")
def server() -> Iterator[IdleServer]:
    with IdleServer() as server:
        yield server


@pytest.fixture
def client(server: IdleServer) -> Iterator[Client]:
    with Client(Location(server.socket)) as client:
        yield client


def test_a_large_pack_is_stored(server: IdleServer, client: Client) -> None:
    chunks = [named(os.urandom(10_000)) for _ in range(400)] + [named(os.urandom(3 << 20)), named(b"")]
    for _ in range(2):
        client.put_chunks(chunks)
    digests = [digest for digest, _ in chunks]
    assert client.missing_chunks(digests).missing == ()
    for digest, data in chunks[::50]:
        assert server.do(server.blobs.read(digest)) == data


def test_a_wrong_chunk_in_a_large_pack_is_refused_and_those_before_it_stay(client: Client) -> None:
    good, wrong = [named(os.urandom(10_000)) for _ in range(300)], ("f" * 64, b"x" * 10_000)
    with pytest.raises(ArgosyError) as error:
        client.put_chunks([*good, wrong, *good])
    assert error.value.code == "conflict"
    assert client.missing_chunks([*(digest for digest, _ in good), wrong[0]]).missing == (wrong[0],)
    assert client.missing_chunks([good[0][0]]).missing == ()  # the client is still understood


def test_what_came_whole_before_a_connection_broke_is_there(server: IdleServer, client: Client) -> None:
    chunks = [named(os.urandom(10_000)) for _ in range(400)]
    body = b"".join(pack_of(chunks))
    with socket.socket(socket.AF_UNIX) as line:
        line.connect(os.fspath(server.socket))
        line.sendall(b"PUT /v1/chunks HTTP/1.1\r\nHost: x\r\nContent-Length: %d\r\n\r\n" % len(body))
        line.sendall(body[: len(body) // 2])
    digests = [digest for digest, _ in chunks]
    for _ in range(1000):  # until the server has seen the end
        missing = client.missing_chunks(digests).missing
        if len(missing) < len(digests):
            break
    assert list(missing) == digests[200:]
    client.put_chunks(chunks)
    assert client.missing_chunks(digests).missing == ()

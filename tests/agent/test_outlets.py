"""The way out of a sandbox: what it carries, and what it refuses."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from argosy.agent import outlet
from argosy.agent.outlet import Forbidden, Outlet, check


@pytest.mark.parametrize(
    "address",
    [
        *("127.0.0.1", "127.8.8.8", "::1", "::ffff:127.0.0.1", "0.0.0.0", "::", "169.254.169.254"),
        *("fe80::1", "fe80::1%eth0", "224.0.0.1", "ff02::1", "2002:7f00:1::", "::ffff:169.254.169.254"),
    ],
)
def test_what_a_session_does_not_reach(address: str) -> None:
    with pytest.raises(Forbidden, match="sessions do not reach"):
        check(address)


@pytest.mark.parametrize("address", ["192.0.2.7", "2001:db8::7"])
def test_other_machines_are_reached(address: str) -> None:
    check(address)


def talk(tmp_path: Path, request: bytes, monkeypatch: pytest.MonkeyPatch) -> bytes:
    """What comes back through an outlet, with a host behind it that says what it got. @PORT@: the host's."""
    monkeypatch.setattr(outlet, "check", lambda address: None)

    async def host(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(b"got:" + await reader.read())
        writer.close()

    async def scenario() -> bytes:
        server = await asyncio.start_server(host, "127.0.0.1", 0)
        port = b"%d" % server.sockets[0].getsockname()[1]
        way = Outlet()
        await way.open(str(tmp_path))
        reader, writer = await asyncio.open_unix_connection(str(tmp_path / outlet.NAME))
        writer.write(request.replace(b"@PORT@", port))
        writer.write_eof()
        said = await reader.read()
        writer.close()
        way.close()
        server.close()
        return said.replace(port, b"@PORT@")

    return asyncio.run(asyncio.wait_for(scenario(), 20))


def test_a_tunnel_carries_bytes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    said = talk(tmp_path, b"CONNECT localhost:@PORT@ HTTP/1.1\r\nHost: x\r\n\r\nhello", monkeypatch)
    assert said == b"HTTP/1.1 200 Connected\r\n\r\ngot:hello"


def test_a_request_goes_on_as_the_host_wants_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    asked = (
        b"POST http://me:pw@localhost:@PORT@/a?b HTTP/1.1\r\nHost: h\r\nProxy-Authorization: s\r\n\r\nbody"
    )
    told = b"got:POST /a?b HTTP/1.1\r\nHost: h\r\nConnection: close\r\n\r\nbody"
    assert talk(tmp_path, asked, monkeypatch) == told


@pytest.mark.parametrize(
    ("request_line", "status"),
    [
        (b"GET /x HTTP/1.1", b"400 Bad Request"),
        (b"GET ftp://h/x HTTP/1.1", b"400 Bad Request"),
        (b"CONNECT h HTTP/1.1", b"400 Bad Request"),
        (b"CONNECT h:99999 HTTP/1.1", b"400 Bad Request"),
        (b"CONNECT 127.0.0.1:1 HTTP/1.1", b"502 Bad Gateway"),
        (b"nonsense", b"400 Bad Request"),
    ],
)
def test_what_is_no_request_is_answered(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, request_line: bytes, status: bytes
) -> None:
    assert talk(tmp_path, request_line + b"\r\n\r\n", monkeypatch).startswith(b"HTTP/1.1 " + status)

"""Nodes that dial in: who is let in, and that their agents are reached through their own connection."""

from __future__ import annotations

import asyncio
import json
import shutil
import ssl
import subprocess
import tempfile
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
import uvloop

from argosy.infra import border
from argosy.infra.agent_client import AgentClient
from argosy.infra.agent_port import Channel, DialOrder
from argosy.infra.boot import agent_zipapp
from argosy.infra.bootstrap import AgentPlace, AgentPlan, start_agent
from argosy.infra.dialled import TOKEN_MS, Dialled, problem_of
from argosy.infra.ssh import Ssh, SshTarget
from argosy.infra.system import SystemIds
from argosy.model.errors import ArgosyError
from argosy.server.dialling import DialDoor, load_secret, parse_public
from argosy.server.door import Door, Limits
from argosy.server.listeners import bind_tcp
from argosy.testing.hosts import Host, HostLab
from argosy.testing.virtual_time import FixedClock

NODE = "clm-1-0"


@pytest.fixture
def folder() -> Iterator[Path]:
    made = Path(tempfile.mkdtemp(prefix="dial-"))
    yield made
    shutil.rmtree(made)


def registry(folder: Path, url: str = "", ca: str = "", clock: FixedClock | None = None) -> Dialled:
    secret = load_secret(folder / "dial.key")
    return Dialled(secret, clock or FixedClock(), SystemIds(), public_url=url, ca=ca)


def certificate(folder: Path, address: str) -> ssl.SSLContext:
    """Of this address; in `cert.pem`."""
    cert, key = str(folder / "cert.pem"), str(folder / "key.pem")
    command = [
        "openssl",
        "req",
        "-x509",
        "-newkey",
        "ec",
        "-pkeyopt",
        "ec_paramgen_curve:prime256v1",
        "-nodes",
    ]
    command += ["-keyout", key, "-out", cert, "-days", "2", "-subj", "/CN=argosy"]
    subprocess.run([*command, "-addext", f"subjectAltName=IP:{address}"], check=True, capture_output=True)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(cert, key)
    return context


@asynccontextmanager
async def door(folder: Path, address: str) -> AsyncIterator[tuple[Dialled, DialDoor]]:
    """A door with a certificate of its own, behind which nothing but nodes is answered."""

    async def nothing(scope: Any, receive: Any, send: Any) -> None:
        await send({"type": "http.response.start", "status": 204, "headers": []})
        await send({"type": "http.response.body", "body": b""})

    sock = bind_tcp(f"{address}:0")
    tls = certificate(folder, address)
    url = f"https://{address}:{sock.getsockname()[1]}"
    dialled = registry(folder, url, (folder / "cert.pem").read_text())
    dials = DialDoor(dialled)
    opened = Door(nothing, [sock], Limits(), dials=dials, tls=tls)
    await opened.open()
    try:
        yield dialled, dials
    finally:
        await dialled.close()
        await opened.close()


def test_a_token_is_good_once_for_its_node_and_for_a_while(tmp_path: Path) -> None:
    clock = FixedClock()
    dialled = registry(tmp_path, "https://argosy.example", clock=clock)
    order = dialled.order("n-1")
    assert order.token not in repr(order)
    assert dialled.admit("n-2", order.token) is None
    key = dialled.admit("n-1", order.token)
    assert key and dialled.admit("n-1", order.token) is None, "spent"
    assert dialled.admit("n-1", key) == key and dialled.admit("n-2", key) is None
    late = dialled.order("n-1").token
    clock.advance(TOKEN_MS / 1000 + 1)
    assert dialled.admit("n-1", late) is None
    for wrong in ("", ".", "x", f"{2**60}.dial.{'0' * 64}"):
        assert dialled.admit("n-1", wrong) is None
    token = dialled.order("n-1").token
    again = registry(tmp_path, "https://argosy.example", clock=clock)
    assert again.admit("n-1", token) is None, "tokens end with the server that made them"
    assert again.admit("n-1", key) == key, "keys do not"
    assert (tmp_path / "dial.key").stat().st_mode & 0o777 == 0o600


@pytest.mark.parametrize(
    ("url", "text"),
    [
        ("", "nodes cannot dial in: set ARGOSY_PUBLIC_URL to the https address at which they reach"),
        ("argosy.example", "ARGOSY_PUBLIC_URL=`argosy.example` is no address: write for example"),
        (
            "http://argosy.example",
            "is not encrypted: use https (ARGOSY_TLS_CERT and ARGOSY_TLS_KEY, or a proxy",
        ),
        ("http://127.0.0.1:1", ""),
        ("https://argosy.example", ""),
    ],
)
def test_an_address_that_nodes_cannot_use_is_said(url: str, text: str, tmp_path: Path) -> None:
    assert text in problem_of(url) and bool(text) == bool(problem_of(url))
    if text:
        with pytest.raises(border.RequestRefused, match="ARGOSY_PUBLIC_URL"):
            registry(tmp_path, url).order("n")
    if text and url:
        with pytest.raises(ArgosyError, match="ARGOSY_PUBLIC_URL"):
            parse_public({"ARGOSY_PUBLIC_URL": url})


async def connected(dialled: Dialled, node: str) -> None:
    async with asyncio.timeout(90):
        while not dialled.has(node):
            await asyncio.sleep(0.01)


async def agent_on(lab: HostLab, host: Host, folder: Path, dialled: Dialled, **plan: Any) -> AgentPlace:
    ssh = Ssh(folder, SystemIds())
    to = SshTarget(
        host=host.ip, user="root", key_file=str(lab.key_file), known_hosts=str(lab.known_hosts),
        host_keys="strict", config_file="/dev/null",
    )  # fmt: skip
    try:
        zipapp = await asyncio.to_thread(agent_zipapp, folder / "z")
        return await start_agent(ssh, to, zipapp, AgentPlan(name=NODE, **plan))
    finally:
        await ssh.close()


def test_a_node_behind_a_wall_is_reached_in_the_connection_that_it_keeps(
    hosts: HostLab, folder: Path
) -> None:
    host = hosts.hosts[0]

    async def body() -> None:
        async with door(folder, f"{hosts.subnet}.1") as (dialled, _):
            plain = await agent_on(hosts, host, folder, dialled)
            assert plain.started and not dialled.has(NODE)
            place = await agent_on(hosts, host, folder, dialled, dial=dialled.order(NODE))
            assert place.started, "an agent that did not dial is replaced by one that does"
            await connected(dialled, NODE)
            host.stop_sshd()

            async def reach() -> Channel:
                return dialled.open(NODE)

            client = AgentClient(reach)
            for facts in await asyncio.gather(*[client.node() for _ in range(20)]):
                assert facts.ip == host.ip
            kept = host.path(place.root + "/dial.json")
            told = json.loads(kept.read_text())
            assert (told["token"], bool(told["key"])) == ("", True) and kept.stat().st_mode & 0o777 == 0o600
            await dialled.close()  # as when the server goes down
            await connected(dialled, NODE)
            assert (await client.node()).ip == host.ip, "it came back with its key"
            await client.shutdown()
            await client.close()

    try:
        uvloop.run(body())
    finally:
        host.start_sshd()


def test_strangers_are_not_let_in_and_servers_are_checked(hosts: HostLab, folder: Path) -> None:
    host = hosts.hosts[1]

    async def body() -> None:
        async with door(folder, f"{hosts.subnet}.1") as (dialled, _):
            other = dialled.order(NODE)
            wrong = {"url": other.url, "node": NODE, "token": "1.2.3", "ca": other.ca}
            place = await agent_on(hosts, host, folder, dialled, dial=DialOrder(**wrong))
            log = host.path(place.root + "/agent.log")
            async with asyncio.timeout(90):
                while "it does not let this node in (HTTP/1.1 401 Unauthorized)" not in log.read_text():
                    await asyncio.sleep(0.02)
            host.path(place.root + "/dial.json").write_text(json.dumps({**wrong, "ca": ""}))
            async with asyncio.timeout(90):
                while "certificate verify failed" not in log.read_text():
                    await asyncio.sleep(0.02)
            assert dialled.nodes == 0 and wrong["token"] not in log.read_text()
        host.run("pkill -f '[a]gent-' || true")

    uvloop.run(body())

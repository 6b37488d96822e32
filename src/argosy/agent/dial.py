"""Dialling out: the agent keeps one TLS connection to its server, which opens streams to the agent in it.

What is needed is in `dial.json` in the agent's root: {"url", "node", "token", "ca", "key"}. The token is good
for one connection; the server answers with a key of this node alone, which is kept in its place.
"""

from __future__ import annotations

import asyncio
import random
import socket
import ssl

from argosy.agent import wire
from argosy.agent.dial_order import read_order, write_order
from argosy.agent.mux import Broken, Mux
from argosy.agent.rank import warn

TYPE_CHECKING = False
if TYPE_CHECKING:
    from argosy.agent.serve import Agent

_CONNECT_S = 15.0
_FIRST_RETRY_S, _MAX_RETRY_S = 0.5, 60.0
_LIMIT_BYTES = 256 << 10
_PARTIAL_CHAIN = 0x80000  # ssl.VERIFY_X509_PARTIAL_CHAIN, which Python 3.8 does not name


async def follow(root: str, agent: Agent) -> None:
    """Keep the connection for ever. The file is read again for each try."""
    retry_s = _FIRST_RETRY_S
    said = ""
    loop = asyncio.get_running_loop()
    while True:
        began_s = loop.time()
        order = read_order(root)
        try:
            if order is not None:
                await _once(root, order, agent)
            text = "it ended the connection"
        except (OSError, ValueError, KeyError, EOFError, Broken, asyncio.TimeoutError) as error:
            text = str(error) or type(error).__name__
        if text != said:
            said = text
            warn("the server at %s: %s; it is tried again" % ((order or {}).get("url", "?"), text))
        if loop.time() - began_s > 2 * _MAX_RETRY_S:
            retry_s, said = _FIRST_RETRY_S, ""
        # Dice: a thousand agents must not come back in the same moment.
        await asyncio.sleep(retry_s * (0.5 + random.random()))  # noqa: S311
        retry_s = min(_MAX_RETRY_S, retry_s * 2)


async def _once(root: str, order: dict[str, str], agent: Agent) -> None:
    """One connection, from its beginning to its end."""
    reader, writer = await asyncio.wait_for(_connect(order), _CONNECT_S)
    try:
        key = await asyncio.wait_for(_hello(order, reader, writer), _CONNECT_S)
        if key:
            write_order(root, {**order, "token": "", "key": key})
        mux = Mux(reader, writer, agent.connection)
        pinging = asyncio.ensure_future(_ping(mux))
        try:
            await mux.run()
        finally:
            pinging.cancel()
    finally:
        writer.close()


async def _connect(order: dict[str, str]) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
    host, port, context = _address(order)
    reader, writer = await asyncio.open_connection(host, port, ssl=context, limit=_LIMIT_BYTES)
    line = writer.get_extra_info("socket")
    if line is not None:
        line.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    return reader, writer


def _address(order: dict[str, str]) -> tuple[str, int, ssl.SSLContext | None]:
    scheme, _, place = order["url"].partition("://")
    host, _, port = place.split("/")[0].rpartition(":") if ":" in place else (place.split("/")[0], "", "")
    if scheme != "https":
        return host, int(port or 80), None
    context = ssl.create_default_context()
    if order.get("ca"):
        context.load_verify_locations(cadata=order["ca"])
        context.verify_flags |= _PARTIAL_CHAIN
    return host.strip("[]"), int(port or 443), context


async def _hello(order: dict[str, str], reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> str:
    """Say who we are. The key that the server gives; "" when it knows ours. Raises OSError."""
    lines = ["GET %s HTTP/1.1" % wire.DIAL_PATH, "Host: " + order["url"].partition("://")[2].split("/")[0]]
    lines += ["Connection: Upgrade", "Upgrade: " + wire.DIAL_UPGRADE]
    lines += ["Authorization: Bearer " + (order.get("key") or order.get("token", ""))]
    lines += ["X-Argosy-Node: " + order["node"]]
    writer.write(("\r\n".join(lines) + "\r\n\r\n").encode())
    head = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1").split("\r\n")
    if head[0].split()[1:2] != ["101"]:
        raise OSError("it does not let this node in (%s)" % head[0])
    for line in head[1:]:
        name, _, value = line.partition(":")
        if name.lower() == "x-argosy-key":
            return value.strip()
    return ""


async def _ping(mux: Mux) -> None:
    """Each side learns in this way that the other is gone; both keep translators of addresses awake."""
    loop = asyncio.get_running_loop()
    while True:
        await asyncio.sleep(wire.DIAL_PING_S)
        if loop.time() - mux.heard_s > wire.DIAL_SILENCE_S:
            mux.close()
        mux.ping()

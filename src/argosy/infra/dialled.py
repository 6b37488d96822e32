"""Nodes that have dialled in: each keeps one connection to this server, and streams to its agent go in it.

A node comes with a token that is good once and for a few minutes, and is given a key: a code over its name,
made with the server's secret. So nothing about nodes has to be kept, and a key opens nothing but the place of
its own node.
"""

from __future__ import annotations

import asyncio
import hashlib
import hmac
import ipaddress
from typing import Final
from urllib.parse import urlsplit

from argosy.agent import wire
from argosy.agent.mux import Mux
from argosy.infra import border
from argosy.infra.agent_port import Channel, DialOrder
from argosy.infra.mux import carry
from argosy.model.ids import Clock, Ids

TOKEN_MS: Final = 10 * 60_000
_LOOK_S: Final = 30.0


def problem_of(public_url: str) -> str:
    """What is wrong with the address that nodes are given, with the fix; "" when nothing is."""
    if not public_url:
        return (
            "nodes cannot dial in: set ARGOSY_PUBLIC_URL to the https address at which they reach this server"
        )
    parts = urlsplit(public_url)
    try:
        local = ipaddress.ip_address(parts.hostname or "").is_loopback
    except ValueError:
        local = False
    if not parts.hostname or parts.scheme not in ("http", "https"):
        return (
            f"ARGOSY_PUBLIC_URL=`{public_url}` is no address: write for example `https://argosy.example:7421`"
        )
    if parts.scheme != "https" and not local:
        return (
            f"ARGOSY_PUBLIC_URL=`{public_url}` is not encrypted: use https "
            "(ARGOSY_TLS_CERT and ARGOSY_TLS_KEY, or a proxy in front)"
        )
    return ""


class Dialled:
    """`agent_port.DialIn`: the registry of nodes that keep a connection to this server."""

    def __init__(self, secret: bytes, clock: Clock, ids: Ids, *, public_url: str = "", ca: str = "") -> None:
        self.public_url = public_url
        self.problem = problem_of(public_url)
        self._secret, self._clock, self._ids, self._ca = secret, clock, ids, ca
        self._life = ids.new("life")  # tokens end with this process
        self._used: dict[str, int] = {}  # token → when it would have ended
        self._muxes: dict[str, Mux] = {}
        self._looking: asyncio.Task[None] | None = None

    @property
    def is_offered(self) -> bool:
        """Whether nodes can be told to dial in."""
        return not self.problem

    @property
    def nodes(self) -> int:
        """How many are connected."""
        return len(self._muxes)

    def has(self, node: str) -> bool:
        mux = self._muxes.get(node)
        return mux is not None and not mux.is_over

    def order(self, node: str) -> DialOrder:
        """For an agent that is about to be started as `node`. Raises `RequestRefused` without a public
        address."""
        if self.problem:
            raise border.RequestRefused("public_url", self.problem)
        ends_ms = self._clock.now_ms() + TOKEN_MS
        stem = f"{ends_ms}.{self._ids.new('dial')}"
        return DialOrder(
            url=self.public_url, node=node, token=f"{stem}.{self._code('token', node, stem)}", ca=self._ca
        )

    def admit(self, node: str, given: str) -> str | None:
        """The key for `node`, when what it came with is its token or its key; else None. A token is spent by
        this."""
        key = self._code("key", node)
        if hmac.compare_digest(given.encode(), key.encode()):
            return key
        stem, _, code = given.rpartition(".")
        ends_ms = stem.partition(".")[0]
        if not hmac.compare_digest(code.encode(), self._code("token", node, stem).encode()):
            return None
        now_ms = self._clock.now_ms()
        if not ends_ms.isdigit() or int(ends_ms) < now_ms or given in self._used:
            return None
        self._used = {token: end for token, end in self._used.items() if end > now_ms}
        self._used[given] = int(ends_ms)
        return key

    def _code(self, *words: str) -> str:
        text = "\n".join((*words, self._life) if words[0] == "token" else words)
        return hmac.new(self._secret, text.encode(), hashlib.sha256).hexdigest()

    async def attach(self, node: str, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Keep a connection of an admitted node until it ends. An older one of the same node ends."""
        mux = Mux(reader, writer)
        before = self._muxes.get(node)
        self._muxes[node] = mux
        if before is not None:
            before.close()
        if self._looking is None or self._looking.done():
            self._looking = asyncio.ensure_future(self._look())
        try:
            await carry(mux)
        finally:
            if self._muxes.get(node) is mux:
                del self._muxes[node]

    def open(self, node: str) -> Channel:
        """A stream to the agent of a node that is connected. Raises `Unreachable`."""
        mux = self._muxes.get(node)
        try:
            if mux is not None:
                return mux.open()
        except ConnectionError:
            pass
        raise border.Unreachable(f"{node} has no connection to this server")

    async def _look(self) -> None:
        """End connections whose other end says nothing: it was cut off, or is another machine by now."""
        loop = asyncio.get_running_loop()
        while self._muxes:
            await asyncio.sleep(_LOOK_S)
            for mux in list(self._muxes.values()):
                if loop.time() - mux.heard_s > wire.DIAL_SILENCE_S:
                    mux.close()

    async def close(self) -> None:
        """End all connections. Agents come back when a server is there."""
        for mux in list(self._muxes.values()):
            mux.close()
        if self._looking is not None:
            self._looking.cancel()

"""Questions to other servers: one connection to each, made when it is first needed, and streams in it."""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import Sequence
from typing import Final

import msgspec

from argosy.infra.agent_client import StreamChannel
from argosy.infra.agent_port import Channel
from argosy.infra.border import Unreachable
from argosy.infra.mux import Carrier
from argosy.server.peers.membership import Membership
from argosy.server.peers.words import Answer, AnyQuestion, error_of, hear, say
from argosy.store.servers import Peer

_CONNECT_S: Final = 3.0
ANSWER_S: Final = 30.0
_LIMIT_BYTES: Final = 1 << 20


class Calls:
    """`connecting`: TLS that only servers of the same database have; None: nobody can be asked."""

    def __init__(self, membership: Membership, connecting: ssl.SSLContext | None) -> None:
        self._membership, self._tls = membership, connecting
        self._carriers: dict[str, Carrier] = {}  # by address: a server that came back elsewhere is another

    @property
    def others(self) -> Sequence[Peer]:
        """Servers that can be asked."""
        return [each for each in self._membership.others if self._way(each)]

    def _way(self, peer: Peer) -> str:
        """Its address as it can be used from here; "": it cannot."""
        here = not peer.address.startswith("/") or peer.boot == self._membership.me.boot
        return peer.address if here and self._tls is not None else ""

    async def ask(
        self, peer: Peer, question: AnyQuestion, limit_s: float = ANSWER_S
    ) -> tuple[Answer, Channel]:
        """What it answers, and the stream on which bytes may follow, which the caller closes. Raises
        `Unreachable`, and whatever the answer means."""
        way = self._way(peer)
        if not way:
            raise Unreachable(f"the server `{peer.name}` gave no address that can be reached from here")
        channel: Channel | None = None
        try:
            async with asyncio.timeout(limit_s):
                channel = await self._carrier(way).open()
                await say(channel.writer, question)
                answer = msgspec.json.decode(await hear(channel.reader), type=Answer)
        except (OSError, ValueError, TimeoutError) as error:
            if channel is not None:
                channel.writer.close()
            why = str(error) or type(error).__name__
            raise Unreachable(f"the server `{peer.name}` does not answer: {why}") from None
        except BaseException:
            if channel is not None:
                channel.writer.close()
            raise
        if answer.error:
            channel.writer.close()
            raise error_of(answer)
        return answer, channel

    def _carrier(self, way: str) -> Carrier:
        if way not in self._carriers:
            self._carriers[way] = Carrier(lambda: self._connect(way))
        return self._carriers[way]

    async def _connect(self, way: str) -> Channel:
        settings = {"ssl": self._tls, "server_hostname": "argosy", "limit": _LIMIT_BYTES}
        try:
            async with asyncio.timeout(_CONNECT_S):
                if way.startswith("/"):
                    return StreamChannel(*await asyncio.open_unix_connection(way, **settings))  # type: ignore[arg-type]
                host, _, port = way.rpartition(":")
                return StreamChannel(*await asyncio.open_connection(host.strip("[]"), int(port), **settings))  # type: ignore[arg-type]
        except (OSError, TimeoutError) as error:
            raise Unreachable(f"{way}: {error or type(error).__name__}") from None

    async def close(self) -> None:
        await asyncio.gather(*(each.close() for each in self._carriers.values()))

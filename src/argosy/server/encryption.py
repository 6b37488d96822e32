"""TLS of the running server: its certificate is renewed in the background, and plain HTTP answers the
challenges of a certificate authority. Loaded only where TLS is asked for."""

from __future__ import annotations

import asyncio
import contextlib
import signal
import socket
from collections.abc import AsyncIterator

from argosy.infra.acme_proofs import DnsProofs
from argosy.model.ids import Clock, Ids
from argosy.server.application import Application
from argosy.server.door import Door, Limits
from argosy.server.host_proofs import PlainHttp, StoredProofs
from argosy.server.listeners import bind_tcp
from argosy.server.own_tls import OwnTls, TlsWish
from argosy.store.store import Store


class Encryption:
    """Made before the server starts, so that what people can mend fails first."""

    def __init__(self, wish: TlsWish, clock: Clock, tcp: socket.socket) -> None:
        """Raises ArgosyError: a certificate that is not right, a port that is taken."""
        self._wish, self._port = wish, tcp.getsockname()[1]
        self.own = OwnTls(wish, clock)
        asked = wish.authority.http if wish.authority is not None else ""
        self.http = bind_tcp(asked) if asked else None

    def close(self) -> None:
        if self.http is not None:
            self.http.close()

    @contextlib.asynccontextmanager
    async def kept(
        self, application: Application, store: Store, clock: Clock, ids: Ids
    ) -> AsyncIterator[None]:
        """While it lasts, certificates are renewed; SIGHUP reads their files at once."""
        application.encryption = self.own.words
        authority, proofs = self._wish.authority, StoredProofs(store, clock, ids)
        solver = DnsProofs(authority.dns) if authority is not None and authority.dns else proofs
        port = "" if self._port == 443 else f":{self._port}"
        door: Door | None = None
        if self.http is not None:
            home = f"https://{self._wish.names[0]}{port}/"
            door = Door(PlainHttp(proofs, home), [self.http], Limits())
            await door.open()
        loop = asyncio.get_running_loop()
        loop.add_signal_handler(signal.SIGHUP, self.own.reload)
        running = loop.create_task(self.own.run(solver))
        try:
            yield
        finally:
            loop.remove_signal_handler(signal.SIGHUP)
            running.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await running
            if door is not None:
                await door.close()

"""Ways into sessions: streams to apps and ports, ssh, terminals to type in and to watch."""

from __future__ import annotations

from argosy.infra.agent_port import Enter
from argosy.model.errors import ArgosyError
from argosy.model.rows import Workload
from argosy.server.exchange import Exchange
from argosy.server.services import Services
from argosy.server.session_doors import serve_door, serve_gallery, serve_proxy, serve_seat
from argosy.server.session_shares import find_shared, is_watched
from argosy.server.sessions import find_session, live_session


class SessionWays:
    """Every method raises ArgosyError before its stream begins."""

    def __init__(self, services: Services) -> None:
        self._services, self._store = services, services.store

    async def session_forward(self, exchange: Exchange) -> None:
        port = exchange.number("port") or 0
        if not 0 <= port < 65536:
            raise ArgosyError("usage", f"there is no port {port}", hint="ports are 1 to 65535")
        enter = Enter(what="port", port=port) if port else Enter(what="app")
        await serve_door(exchange, self._services, await live_session(self._store, exchange), enter)

    async def apps_door(self, exchange: Exchange) -> None:
        await serve_proxy(exchange, self._services)

    async def session_ssh(self, exchange: Exchange) -> None:
        enter = Enter(what="sshd", key=exchange.text("key"))
        await serve_door(exchange, self._services, await live_session(self._store, exchange), enter)

    async def session_shell(self, exchange: Exchange) -> None:
        enter = Enter(
            what="shell",
            id=exchange.text("id"),
            seen=-1 if exchange.number("seen") is None else exchange.number("seen") or 0,
            command=exchange.text("command"),
            rows=min(max(exchange.number("rows") or 24, 1), 10_000),
            columns=min(max(exchange.number("columns") or 80, 1), 10_000),
            acks=exchange.flag("acks"),
            watch=exchange.flag("watch"),
        )
        if not enter.watch:
            await serve_seat(exchange, self._services, await live_session(self._store, exchange), enter)
            return
        session, is_guest = await self._watched(exchange)
        await serve_gallery(exchange, self._services, session, enter, is_guest=is_guest)

    async def _watched(self, exchange: Exchange) -> tuple[Workload, bool]:
        """As `live_session`, and sessions whose terminals the caller may watch: as a guest (True). Raises
        `not-found`, `forbidden`."""
        rows = await self._store.snapshot()
        found = find_shared(rows, exchange.path["session"], exchange.caller, self._services.clock.now_ms())
        own = find_session(rows, exchange.path["session"], exchange.caller)
        if (
            found is not None
            and own is None
            and is_watched(found, exchange.caller, self._services.clock.now_ms())
        ):
            return found, True
        return await live_session(self._store, exchange), False

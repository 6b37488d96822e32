"""The proxy of this server: made when the first app is opened, over the rows and agents that the server
has."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Awaitable, Callable, Sequence
from functools import cached_property
from typing import TYPE_CHECKING, Final

from argosy.api.sessions import OpenReply
from argosy.identity.deciding import may
from argosy.infra.agent_port import AgentDirectory, Duplex, Enter
from argosy.infra.system import random_bytes
from argosy.model.access import OWNER, Caller
from argosy.model.errors import ArgosyError
from argosy.model.ids import Clock
from argosy.model.kinds import kind_of
from argosy.model.kinds.session import SESSION, is_session, session_spec
from argosy.model.rows import Workload
from argosy.server.guarding import target_of
from argosy.server.listeners import connected
from argosy.server.ports import Controllers
from argosy.server.session_shares import is_shared
from argosy.store.snapshot import Snapshot
from argosy.store.store import Store

if TYPE_CHECKING:
    from argosy.server.apps.proxy import AppClient, Apps
    from argosy.server.apps.rules import Place
    from argosy.server.apps.tickets import Shelf, Tickets

_ASK_EVERY_S: Final = 0.5
_ASKED_KEPT: Final = 10_000
_ATTEND_EVERY_S: Final = 10.0
SUFFIX: Final = "localhost"  # browsers take every name below it for this machine, without asking anybody


class LiveApps:
    """Implements `proxy.Sessions`. What is heavy is imported when it is needed."""

    def __init__(self, store: Store, agents: AgentDirectory, controllers: Controllers, clock: Clock) -> None:
        domain = apps_domain()
        self._store, self._agents, self._controllers, self._clock = store, agents, controllers, clock
        self.suffixes = (SUFFIX, *((domain,) if domain else ()))
        self.current: Callable[[Caller], Awaitable[Caller | None]] | None = None  # with the rights of now
        self._attended_s: dict[str, float] = {}  # clusters, and when that was told last
        self._asked: dict[str, tuple[float, Caller | None]] = {}  # by credential: when, and what was told
        self.inner_door: Callable[[], Awaitable[Callable[[], asyncio.Protocol]]] = self._only_apps
        self._made: Apps | None = None
        self._tickets: Tickets | None = None

    @property
    def form_hosts(self) -> str:
        """Where pages of ours may send forms, as a content security policy says it."""
        hosts = [f"http://*.{SUFFIX}:* https://*.{SUFFIX}:*"]
        hosts += [f"https://*.{each}:*" for each in self.suffixes if each != SUFFIX]
        return " ".join(["'self'", *hosts])

    @property
    def tickets(self) -> Tickets:
        if self._tickets is None:
            from argosy.server.apps.tickets import Tickets

            self._tickets = Tickets(self._clock.now_ms, lambda: random_bytes(32).hex())
        return self._tickets

    @property
    def proxy(self) -> Apps:
        if self._made is None:
            from argosy.server.apps.proxy import Apps

            self._made = Apps(self, self.tickets, self.suffixes)
        return self._made

    def client_for(self, host: bytes, *, secure: bool) -> AppClient | None:
        """A protocol for a connection to this host (small letters, no port); None: it is no app's."""
        if b"--" not in host or not self.proxy.is_app(host):
            return None
        return self.proxy.client(secure=secure)

    async def open_pair(self) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        """A connection within this process, as over TCP: to apps by their host names, else to the front."""
        channel = await connected(await self.inner_door())
        return channel.reader, channel.writer

    async def _only_apps(self) -> Callable[[], asyncio.Protocol]:
        return lambda: self.proxy.client(secure=False)

    def close(self) -> None:
        if self._made is not None:
            self._made.close()

    # -- what the proxy asks ------------------------------------------------------------------------

    async def rows(self) -> Snapshot:
        return await self._store.snapshot()

    def find(self, rows: Snapshot, place: Place) -> Workload | None:
        found = rows.workloads.get(place.session) or rows.find_named(SESSION.name, place.session)
        found = found or rows.cluster_named(place.session)
        if found is None or not (is_session(found) or kind_of(found).hosts):
            return None
        if not is_session(found):
            return found if place.port else None
        app = session_spec(found).app
        return found if place.port or (place.app == app.name and app.is_proxied) else None

    def may(self, caller: Caller, session: Workload) -> bool:
        caller = self._asked.get(caller.credential, (0.0, None))[1] or caller
        verb = "sessions.enter" if is_session(session) else "clusters.enter"
        if caller is OWNER or may(caller, verb, target_of(session)):
            return True
        return is_session(session) and is_shared(session, caller, self._clock.now_ms())

    async def stays(self, caller: Caller) -> bool:
        if caller is OWNER or self.current is None:
            return True
        now_s = asyncio.get_running_loop().time()
        asked_s, known = self._asked.get(caller.credential, (-_ASK_EVERY_S, None))
        if now_s - asked_s >= _ASK_EVERY_S:
            if len(self._asked) > _ASKED_KEPT:
                self._asked.clear()
            known = await self.current(caller)
            self._asked[caller.credential] = (now_s, known)
        return known is not None

    async def issue(self, caller: Caller, session: str, app: str) -> str:
        """A code that opens an app once, at whichever server."""
        code = self.tickets.issue(caller, session, app)
        await self._shelf.keep(code, self.tickets.waiting(code))
        return code

    def reply(self, label: str, code: str, listening: Sequence[str]) -> OpenReply:
        """How a browser gets in by a code."""
        urls = tuple(each for each in listening if each.startswith("http"))
        return OpenReply(label=label, code=code, suffixes=self.suffixes, urls=urls)

    async def recall(self, secret: bytes) -> None:
        if not self.tickets.knows(secret):
            await self._shelf.fetch(secret, self.tickets)

    async def swap(self, code: bytes, ticket: str) -> bool:
        right = self.tickets.find(ticket.encode())
        return right is not None and await self._shelf.swap(code, ticket, right)

    @cached_property
    def _shelf(self) -> Shelf:
        from argosy.server.apps.tickets import Shelf

        return Shelf(self._store)

    def use(self, session: Workload, path: str) -> None:
        if not is_session(session):
            self._attend(session.id)
            return
        if path and session_spec(session).app.is_quiet(path):
            return
        if self._controllers.observed.set_used(session.id, self._clock.now_ms(), "requests"):
            self._controllers.wake(session.id)

    def _attend(self, cluster_id: str) -> None:
        """The cluster is in use now."""
        now_s = asyncio.get_running_loop().time()
        if now_s - self._attended_s.get(cluster_id, -_ATTEND_EVERY_S) >= _ATTEND_EVERY_S:
            self._attended_s[cluster_id] = now_s
            with self._controllers.attended(cluster_id):
                pass  # from now on it is idle again

    async def connect(self, session_id: str, port: int) -> Duplex:
        from argosy.infra.border import BorderError
        from argosy.server.sessions import place_of
        from argosy.server.terminal import ready_node

        rows = await self._store.snapshot()
        session = rows.workloads.get(session_id)
        if session is None:
            raise ArgosyError("not-found", "the session is gone")
        try:
            if not is_session(session):
                return await (await self._agents.get(ready_node(rows, session, 0))).forward(port)
            node, rank_id = place_of(rows, session)
            enter = Enter(what="port", port=port) if port else Enter(what="app")
            return await (await self._agents.get(node)).enter(rank_id, enter)
        except BorderError as error:
            raise ArgosyError("node-unreachable", str(error)) from None


def apps_domain(environ: Callable[[str], str | None] = os.environ.get) -> str:
    """ARGOSY_APPS_DOMAIN: a name below which every name leads to this server; "": there is none."""
    return (environ("ARGOSY_APPS_DOMAIN") or "").strip().lower().strip(".")

"""A real server (uvicorn, sockets, a store) whose controllers decide nothing: rows change only by requests
and tests.

For tests of the API's faces. `IdleServer` runs it in a thread of its own, so that blocking clients can be
used.
"""

from __future__ import annotations

import asyncio
import contextlib
import socket
import tempfile
import threading
from collections.abc import Callable, Coroutine, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from types import MappingProxyType, TracebackType
from typing import TYPE_CHECKING, Any, Self, TypeVar

from argosy.controllers.observed import Facts
from argosy.infra import border
from argosy.infra.agent_port import AgentPort, Channel, Duplex, Enter
from argosy.infra.provider import Capabilities, Diagnostic, Manifest, Provider, Want
from argosy.infra.system import SystemClock, SystemIds
from argosy.model.facts import ClaimFact
from argosy.model.ids import Clock
from argosy.model.offer import Offer
from argosy.model.rows import Claim, Node, Workload
from argosy.model.tenancy import QueueUsage
from argosy.planning.availability import Memory
from argosy.scheduler.ask import Waiting
from argosy.scheduler.picture import Pending, PoolPicture
from argosy.testing.builders import an_offer

if TYPE_CHECKING:
    from argosy.server.application import Application
    from argosy.server.door import Limits
    from argosy.storage.blobs import BlobStore
    from argosy.storage.logs import LogStore
    from argosy.store.snapshot import Snapshot
from argosy.store import Store

T = TypeVar("T")


class IdleControllers:
    """Notes who was woken. `whys`, `never`, `pictures` and `usage` are what it says about pools."""

    def __init__(self) -> None:
        self.observed = Facts()
        self.woken: list[str] = []
        self.refreshed = 0
        self.memory = Memory()
        self.whys: dict[str, Waiting] = {}
        self.never = ""
        self.pictures: list[PoolPicture] = []
        self.usage: list[QueueUsage] = []

    def wake(self, *ids: str) -> None:
        self.woken.extend(ids)

    def attended(self, cluster_id: str) -> AbstractContextManager[None]:
        return nullcontext()

    @property
    def picture(self) -> IdlePicture:
        return IdlePicture(self)

    async def pictured(self, seq: int) -> IdlePicture:
        return self.picture

    def refusals(self) -> Memory:
        return self.memory

    async def refresh(self) -> None:
        self.refreshed += 1
        self.observed.revision += 1

    async def run(self) -> None:
        await asyncio.Event().wait()


class IdlePicture:
    """What `IdleControllers` was told to say."""

    seq = 0

    def __init__(self, told: IdleControllers) -> None:
        self._told = told

    def pending(self, rows: Snapshot, workload: Workload, now_ms: int) -> Pending | None:
        queued = next((one for each in self.pools for one in each.waiting if one.id == workload.id), None)
        why = self._told.whys.get(workload.id) or (queued.waiting if queued is not None else None)
        if why is None:
            return None
        position = queued.position if queued is not None else 0
        return Pending(code=why.code, text=why.text, position=position, starts_at_ms=why.starts_at_ms)

    def knows(self, rows: Snapshot, workload: Workload) -> bool:
        return True

    def explain(self, rows: Snapshot, workload: Workload, now_ms: int) -> Waiting | None:
        return self._told.whys.get(workload.id)

    def line_of(self, workload: Workload) -> tuple[str, int]:
        for each in self.pools:
            if any(one.id == workload.id for one in each.waiting):
                return each.name, len(each.waiting)
        return "", 0

    def never(self, workload: Workload) -> str:
        return self._told.never

    @property
    def pools(self) -> Sequence[PoolPicture]:
        return self._told.pictures

    @property
    def usage(self) -> Sequence[QueueUsage]:
        return self._told.usage


class StaticProvider:
    """Quotes what it is given; `error` instead, when it is set."""

    def __init__(self, manifest: Manifest, offers: Sequence[Offer]) -> None:
        self.manifest = manifest
        self.offers = list(offers)
        self.error: border.BorderError | None = None

    async def check(self) -> Sequence[Diagnostic]:
        if self.error is not None:
            raise self.error
        return [Diagnostic(provider=self.manifest.name, ok=True, what="is ready")]

    async def quote(self, want: Want) -> Sequence[Offer]:
        if self.error is not None:
            raise self.error
        return self.offers

    async def ensure(self, claim: Claim) -> None:
        return None

    async def observe(self, claim_ids: Sequence[str]) -> Sequence[ClaimFact]:
        return ()

    async def release(self, claim_id: str) -> None:
        return None

    async def reach(self, node: Node) -> Channel:
        raise border.Unreachable(f"{node.id} is not real")


class StaticProviders:
    def __init__(self, *providers: StaticProvider) -> None:
        self.by_name: dict[str, Provider] = {provider.manifest.name: provider for provider in providers}

    def get(self, name: str) -> Provider:
        return self.by_name[name]

    def all(self) -> Mapping[str, Provider]:
        return MappingProxyType(self.by_name)


def a_pool(**offer: Any) -> StaticProvider:  # Any: fields of the offer, see builders
    """Owned machines: 8 CPUs, 32 GiB unless `offer` says otherwise."""
    can = Capabilities(owned=True, stop=True, multi_node=True, fractions=True)
    return StaticProvider(Manifest(name="pool", title="a pool", capabilities=can), [an_offer(**offer)])


class EchoTerminal:
    """A terminal that answers what is typed in capitals; `exit` ends it with code 7. Notes its sizes."""

    def __init__(self, rows: int, columns: int) -> None:
        self.sizes = [(rows, columns)]
        self.closed = False
        self._out: asyncio.Queue[bytes] = asyncio.Queue()
        self._code: int | None = None

    async def read(self) -> bytes:
        return await self._out.get()

    async def write(self, data: bytes) -> None:
        if data.strip() == b"exit":
            self._code = 7
            await self._out.put(b"")
        else:
            await self._out.put(data.upper())

    async def end(self) -> None:
        await self._out.put(b"")

    async def resize(self, rows: int, columns: int) -> None:
        self.sizes.append((rows, columns))

    async def close(self) -> int | None:
        self.closed = True
        return self._code


class TerminalAgents:
    """`AgentDirectory` whose agents can do nothing but open an `EchoTerminal`, whatever is asked."""

    def __init__(self) -> None:
        self.terminals: list[EchoTerminal] = []
        self.dropped: list[str] = []
        self.entered: list[tuple[str, Enter]] = []
        self.error: border.BorderError | None = None

    async def get(self, node: Node) -> AgentPort:
        return self  # type: ignore[return-value]  # only `shell` of it

    def drop(self, node_id: str) -> None:
        self.dropped.append(node_id)

    async def shell(self, command: str, rows: int, columns: int, env: Mapping[str, str]) -> Duplex:
        if self.error is not None:
            raise self.error
        self.terminals.append(EchoTerminal(rows, columns))
        return self.terminals[-1]

    async def forward(self, port: int) -> Duplex:
        return await self.shell("", port, 0, {})

    async def ssh(self, public_key: str) -> Duplex:
        return await self.shell("", 0, 0, {})

    async def enter(self, rank_id: str, enter: Enter) -> Duplex:
        self.entered.append((rank_id, enter))
        return await self.shell("", enter.port or enter.rows, enter.columns, {})

    async def copy(self, path: str, name: str, *, read: bool) -> Duplex:
        return await self.shell("", 0, 0, {})


class IdleServer:
    """Use as a context. `do` runs a coroutine in the server's loop and gives its result."""

    def __init__(
        self,
        *providers: StaticProvider,
        listen: str = "",
        state_dir: Path | None = None,
        clock: Clock | None = None,
        prices: Path | None = None,  # a table in place of the shipped one
        limits: Limits | None = None,  # of TCP
    ) -> None:
        self._clock, self._prices, self._limits = clock or SystemClock(), prices, limits
        self._own_home: tempfile.TemporaryDirectory[str] | None = None
        if state_dir is None:  # it goes with us, also when we never start or fail to
            self._own_home = tempfile.TemporaryDirectory(
                dir="/tmp", prefix="idle-", ignore_cleanup_errors=True
            )
            state_dir = Path(self._own_home.name)
        self.home = state_dir
        self.socket = self.home / "run" / "server.sock"
        self.controllers = IdleControllers()
        self.providers = StaticProviders(*(providers or (a_pool(),)))
        self.agents = TerminalAgents()
        self.address = ""  # of TCP
        self.store: Store
        self.logs: LogStore
        self.blobs: BlobStore
        self.application: Application
        self._listen = listen
        self._ready = threading.Event()
        self._error: BaseException | None = None
        self._loop: asyncio.AbstractEventLoop | None = None
        self._thread = threading.Thread(target=self._run, name="idle-server", daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        if not self._ready.wait(90):
            raise RuntimeError("the server did not start")
        if self._error is not None:
            self._leave()
            raise self._error
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._loop is not None:
            with contextlib.suppress(RuntimeError):  # it has stopped by itself
                self._loop.call_soon_threadsafe(self.application.stop)
        self._thread.join(90)
        self._leave()

    def _leave(self) -> None:
        if self._own_home is not None:
            self._own_home.cleanup()

    def do(self, work: Coroutine[Any, Any, T]) -> T:
        """Raises what `work` raises."""
        assert self._loop is not None
        return asyncio.run_coroutine_threadsafe(work, self._loop).result(90)

    def call(self, function: Callable[[], T]) -> T:
        """The same for what is no coroutine."""

        async def work() -> T:
            return function()

        return self.do(work())

    def order(self) -> None:
        """Let controllers decide once about who waits for machines: their claims are committed."""
        self.do(self._order())

    async def _order(self) -> None:
        from argosy.controllers.pool.decide import decide_owned
        from argosy.controllers.view import Put, View, abilities_of

        view = View(
            now_ms=self._clock.now_ms(),
            rows=await self.store.snapshot(),
            observed=self.controllers.observed,
            offers=[offer for each in self.providers.all().values() for offer in await each.quote(Want())],
            abilities=abilities_of(self.providers),
            memory=self.controllers.memory,
            priced=self.application.pricing.rented.priced(),
        )
        decided = decide_owned(view, SystemIds().new)
        await self.store.commit([action.row for action in decided if isinstance(action, Put)])

    def _run(self) -> None:
        try:
            asyncio.run(self._serve())
        except BaseException as error:  # noqa: BLE001  the test's thread raises it
            self._error = error
            self._ready.set()

    async def _serve(self) -> None:
        from argosy.server.application import Application
        from argosy.server.listeners import bind_socket, bind_tcp
        from argosy.storage.blobs import BlobStore
        from argosy.storage.logs import LogStore
        from argosy.store import Store

        self._loop = asyncio.get_running_loop()
        clock, ids = self._clock, SystemIds()
        tcp: socket.socket | None = bind_tcp(self._listen) if self._listen else None
        self.store = await Store.open(f"sqlite:///{self.home / 'argosy.db'}", ids=ids, clock=clock)
        self.logs, self.blobs = LogStore(self.home / "logs"), BlobStore(self.home)
        self.application = Application(
            store=self.store,
            providers=self.providers,
            controllers=self.controllers,
            agents=self.agents,
            logs=self.logs,
            blobs=self.blobs,
            clock=clock,
            ids=ids,
            state_dir=self.home,
            prices=self._prices,
        )
        async with self.application.listen(bind_socket(self.socket), tcp, self._limits):
            self.address = self.application.listening[-1]
            self._ready.set()
            await self.application.stopping.wait()
        await self.logs.close()
        await self.store.close()

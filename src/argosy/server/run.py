"""The composition root: every real part is made here, in the order in which it is needed, and ended in
reverse.

Order matters. What can fail for a reason that people can mend (the folder is in use, the port is taken, the
database is damaged) comes first, before anything has started; the unix socket comes last, so that whoever can
connect is answered.
"""

from __future__ import annotations

import asyncio
import contextlib
import gc
import logging
import os
import resource
import signal
import socket
import ssl
import time
from collections.abc import Awaitable
from pathlib import Path
from typing import TYPE_CHECKING, Final, NamedTuple

import msgspec

from argosy import __version__
from argosy.api.location import log_path, socket_path
from argosy.infra.system import SystemClock, SystemIds, new_token
from argosy.model.errors import ArgosyError
from argosy.server.application import Application, pricing_of
from argosy.server.channels import ChannelFile
from argosy.server.dialling import DialDoor, Public
from argosy.server.housekeeping import Housekeeping, Retention
from argosy.server.journal import open_journal
from argosy.server.listeners import LocalSocket, bind_tcp
from argosy.server.old_files import import_old_files
from argosy.server.peers.joining import Here, House
from argosy.server.ports import Controllers
from argosy.storage.blobs import BlobStore
from argosy.storage.logs import LogStore
from argosy.store import KEY_FILE, Store, lock_state_dir
from argosy.store.secrets import Keyring
from argosy.store.state_dir import StateLock

if TYPE_CHECKING:
    from argosy.controllers.shell import Shell
    from argosy.identity.oidc import Settings as Provider
    from argosy.infra.dialled import Dialled
    from argosy.providers import LoadedProviders
    from argosy.server.agents import Agents
    from argosy.server.door_rules import DoorRules
    from argosy.server.encryption import Encryption
    from argosy.server.own_tls import TlsWish

_log: Final = logging.getLogger("argosy.server")
_COLLECT_S: Final = 600.0  # how often long-lived objects are taken out of garbage collection
_CARE_S: Final = 3600.0  # how often backups and sweeps are looked at
_LOOK_S: Final = 15.0  # how often what may change at any time is looked at
_GUARD_S: Final = 0.5  # how often the state folder and the socket are looked at
_BUCKETS_S: Final = 10.0
_BUDGETS_S: Final = 120.0
_FIRST_CARE_S: Final = 20.0  # not while the first commands wait for answers
_DAY_S: Final = 86400.0
_OTHER_LEAVES_S: Final = 8.0  # a server that is on its way out may hold the state folder for so long


class Settings(msgspec.Struct, frozen=True, kw_only=True):
    """Of one server. `store` is empty for SQLite in the state folder; a URL may hold a password."""

    state_dir: Path
    listen: str = ""
    s3: str = ""  # HOST:PORT where programs reach the buckets
    gateway: str = ""  # HOST:PORT where services answer; "": on the loopback
    log_level: str = "info"
    store: str = ""
    peer: str = ""  # HOST:PORT where other servers of the database reach this one; "": a unix socket
    keys: Path | Keyring | None = None  # that seal secrets, or their file; None: in the state folder
    retention: Retention = Retention()
    provider: Provider | None = None  # of identities; None: people sign in here only
    rules: DoorRules | None = None  # names of the server, and proxies in front of it; None: it has neither
    public: Public = Public()  # how nodes and clients elsewhere reach it
    tls: TlsWish | None = None  # of the door over TCP; None: it is plain, and a proxy in front encrypts

    @property
    def url(self) -> str:
        return self.store or f"sqlite:///{self.state_dir / 'argosy.db'}"

    @property
    def backups(self) -> Path | None:
        """PostgreSQL is backed up by who runs it."""
        return self.state_dir / "backups" if self.url.startswith("sqlite") else None

    @property
    def key_file(self) -> Path | Keyring:
        return self.keys or self.state_dir / KEY_FILE

    def __repr__(self) -> str:
        return f"Settings(state_dir={self.state_dir!r}, listen={self.listen!r})"


def run(settings: Settings) -> None:
    """Serve until told to stop. Raises ArgosyError when it cannot start."""
    with contextlib.ExitStack() as stack:
        lock = _lock(stack, settings.state_dir)
        open_journal(log_path(settings.state_dir), settings.log_level)
        network = _network(stack, settings)
        _allow_many_files()
        import uvloop

        try:
            uvloop.run(serve(settings, network, lock))
        except ArgosyError as error:
            _log.error("cannot start: %s", error.what)
            raise


def _lock(stack: contextlib.ExitStack, state_dir: Path) -> StateLock:
    """Hold the state folder. A server that no longer listens is on its way out: it is waited for."""
    deadline = time.monotonic() + _OTHER_LEAVES_S
    while True:
        try:
            return stack.enter_context(lock_state_dir(state_dir))
        except ArgosyError as error:
            if (
                error.code != "server-running"
                or _answers(socket_path(state_dir))
                or time.monotonic() > deadline
            ):
                raise
        time.sleep(0.05)


def _answers(path: Path) -> bool:
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as probe:
        probe.settimeout(1.0)
        try:
            probe.connect(str(path))
        except OSError:
            return False
    return True


def _allow_many_files() -> None:
    """Every reader of a log and every agent is a file descriptor."""
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    with contextlib.suppress(ValueError, OSError):
        resource.setrlimit(resource.RLIMIT_NOFILE, (min(hard, 1 << 16) if hard > 0 else 1 << 16, hard))


class Network(NamedTuple):
    """Where clients elsewhere are answered, if at all."""

    tcp: socket.socket | None
    tls: Encryption | None

    @property
    def context(self) -> ssl.SSLContext | None:
        return None if self.tls is None else self.tls.own.context

    def kept(
        self, application: Application, store: Store, clock: SystemClock, ids: SystemIds
    ) -> contextlib.AbstractAsyncContextManager[None]:
        """While it lasts, certificates are renewed."""
        return contextlib.nullcontext() if self.tls is None else self.tls.kept(application, store, clock, ids)


def _network(stack: contextlib.ExitStack, settings: Settings) -> Network:
    """What was asked for. Raises ArgosyError: a port that is taken, a certificate that is not right."""
    tcp = stack.enter_context(bind_tcp(settings.listen)) if settings.listen else None
    if settings.tls is None or tcp is None:
        return Network(tcp, None)
    from argosy.server.encryption import Encryption

    made = Encryption(settings.tls, SystemClock(), tcp)
    stack.callback(made.close)
    return Network(tcp, made)


async def serve(settings: Settings, network: Network, lock: StateLock) -> None:
    """Everything between the lock and the end."""
    state_dir = settings.state_dir
    clock, ids = SystemClock(), SystemIds()
    opening = asyncio.ensure_future(
        Store.open(settings.url, ids=ids, clock=clock, backups=settings.backups, keys=settings.key_file)
    )
    # While the store's thread reads the disk, the rest is imported.
    from argosy.controllers.shell import Shell
    from argosy.infra.agent_client import AgentClient
    from argosy.infra.quotes import Quotes
    from argosy.server.agents import Agents
    from argosy.server.gateways import gateways_of
    from argosy.server.notifying import Notifier
    from argosy.server.replica_doors import ReplicaDoors

    store = await opening
    async with contextlib.AsyncExitStack() as stack:
        stack.push_async_callback(store.close)
        await import_old_files(store, state_dir)
        blobs, logs = BlobStore(state_dir), LogStore(state_dir / "logs")
        stack.push_async_callback(logs.close)
        house = House(store, state_dir, settings.peer, clock, ids)
        dialled, loaded = await _open_places(stack, house, settings, clock, ids)
        blobs.elsewhere, providers = house.peers, house.share(loaded)
        agents = Agents(providers, AgentClient, dialled, house.reach)
        stack.push_async_callback(agents.close)
        doors = ReplicaDoors(agents, state_dir / "relays")
        stack.push_async_callback(doors.close_all)
        pricing = pricing_of(state_dir, providers, clock)
        gateway = gateways_of(state_dir / "gateway", settings.gateway, pricing.rented.atlas, clock)
        quotes = Quotes(providers, clock, price=pricing.prices.own_prices)
        stack.push_async_callback(quotes.close)
        notifier = Notifier(store, ChannelFile(state_dir), clock, ids.new("srv"))
        shell = Shell(
            store=store,
            providers=providers,
            agents=agents,
            logs=logs,
            files=blobs,
            stores=lambda: application.objects.stores,
            clock=clock,
            ids=ids,
            quotes=quotes,
            prices=pricing.rented,
            is_ours=lock.is_ours,
            channels=notifier,
            replicas=doors,
            gateway=gateway,
        )
        shell.seat.term = house.term
        application = Application(
            store=store,
            providers=providers,
            controllers=shell,
            agents=agents,
            logs=logs,
            blobs=blobs,
            clock=clock,
            ids=ids,
            state_dir=state_dir,
            pricing=pricing,
            retention=settings.retention,
            quotes=quotes,
        )
        for name in (signal.SIGTERM, signal.SIGINT):
            asyncio.get_running_loop().add_signal_handler(name, application.stop)
        # Making a driver may block (it looks at the machine): the first requests are answered meanwhile.
        ready = asyncio.create_task(asyncio.to_thread(providers.all))
        deciding = asyncio.create_task(_decide(shell, ready))
        caring = asyncio.create_task(_care(store, application.housekeeping, clock))
        watching = asyncio.create_task(_watch(application))
        collecting = asyncio.create_task(_collect())
        telling = asyncio.create_task(notifier.run())
        stack.push_async_callback(_end, deciding, caring, watching, collecting, telling)
        local = LocalSocket(socket_path(state_dir))
        _introduce(application, settings, shell)
        here = _join(application, house, agents, loaded, logs, blobs, dialled)
        await stack.enter_async_context(house.joined(here, shell, shell.seat))
        dials, tls = DialDoor(dialled, house.admit), network.context
        async with application.listen(local.sock, network.tcp, dials=dials, tls=tls, s3=settings.s3):
            stack.callback(local.unlink)
            await stack.enter_async_context(network.kept(application, store, clock, ids))
            guarding = asyncio.create_task(_guard_place(lock, local, application))
            stack.push_async_callback(_end, guarding)
            where = ", ".join(application.listening)
            _log.info("Argosy %s listens on %s (process %d)", __version__, where, os.getpid())
            await asyncio.to_thread(_import_the_rest)
            _set_aside()
            stopped = asyncio.create_task(application.stopping.wait())
            await asyncio.wait({stopped, deciding}, return_when=asyncio.FIRST_COMPLETED)
            stopped.cancel()
            local.unlink()  # who comes now starts another server, which waits for our lock
        if deciding.done() and not application.stopping.is_set():
            deciding.result()  # it never ends by itself
        _log.info("stops; ranks go on")


async def _open_places(
    stack: contextlib.AsyncExitStack, house: House, settings: Settings, clock: SystemClock, ids: SystemIds
) -> tuple[Dialled, LoadedProviders]:
    """Where nodes dial in, and the providers, with what servers of one database share for them."""
    from argosy.providers import load_providers

    state_dir = settings.state_dir
    await house.open()
    await house.shared(state_dir / "dial.key", new_token)
    dialled = settings.public.registry(state_dir, clock, ids)
    stack.push_async_callback(dialled.close)
    loaded = load_providers(None, state_dir / "providers", clock, ids, os.environ, dialled)
    stack.push_async_callback(loaded.disconnect)
    await house.share_keys(loaded.names)
    return dialled, loaded


def _introduce(application: Application, settings: Settings, shell: Shell) -> None:
    """Tell the door how it is called, and where people sign in; and controllers where folders are."""
    shell.mounts.copies.folders = lambda: application.objects.folders
    application.front.rules = settings.rules
    application.front.is_encrypted = settings.public.url.startswith("https:")
    application.open_pages(settings.provider)


def _join(
    application: Application,
    house: House,
    agents: Agents,
    loaded: LoadedProviders,
    logs: LogStore,
    blobs: BlobStore,
    dialled: Dialled,
) -> Here:
    """Let the application ask other servers; what they may ask of this one."""
    application.streams.elsewhere = house.peers
    application.share_files(house.keeping)
    return Here(
        reach=agents.reach,
        providers=loaded,
        logs=logs,
        blobs=blobs,
        admit=dialled.admit,
        door=application.open_door,
    )


async def _guard_place(lock: StateLock, local: LocalSocket, application: Application) -> None:
    """A server whose state folder was deleted or replaced has no clients and no truth: it stops. What is
    there now belongs to another one and is left alone. A socket that was removed is made anew."""
    while True:
        await asyncio.sleep(_GUARD_S)
        if not lock.is_ours() or local.is_replaced():
            break
        if local.is_missing() and not application.stopping.is_set():
            _log.warning("the socket was removed: it is made anew")
            local.renew()
            await application.answer_on(local.sock)
    _log.critical("the state folder is gone or belongs to another server: this one stops")
    application.stop()


async def _decide(controllers: Controllers, ready: Awaitable[object]) -> None:
    await ready
    await controllers.run()


def _import_the_rest() -> None:
    """What the first launch needs and the first answer does not."""
    import argosy.spec.names  # noqa: F401


async def _end(*tasks: asyncio.Task[None]) -> None:
    for task in tasks:
        task.cancel()
    done, _ = await asyncio.wait(tasks)
    for task in done:
        if not task.cancelled() and task.exception() is not None:
            _log.critical("the controllers ended", exc_info=task.exception())
            raise ArgosyError("internal", f"the controllers ended: {type(task.exception()).__name__}")


async def _care(store: Store, housekeeping: Housekeeping, clock: SystemClock) -> None:
    await asyncio.gather(_care_daily(store, housekeeping, clock), _look_often(housekeeping))


async def _care_daily(store: Store, housekeeping: Housekeeping, clock: SystemClock) -> None:
    """Daily things: the backup of the database, and the end of what is old or belongs to nobody."""
    await asyncio.sleep(_FIRST_CARE_S)
    swept_s = -1e9
    while True:
        try:
            seq, head = (await store.audit_ends())[1]
            if seq:  # whoever keeps this log elsewhere can prove the audit log with it
                _log.info("audit log: row %d, %s", seq, head)
            made = await store.backup_if_due()
            if made is not None:
                _log.info("backup: %s", made)
            if clock.monotonic_s() - swept_s > _DAY_S:
                swept_s = clock.monotonic_s()
                await housekeeping.prune()
        except (ArgosyError, OSError) as error:
            _log.warning("housekeeping is tried again later: %s", error)
        await asyncio.sleep(_CARE_S)


async def _look_often(housekeeping: Housekeeping) -> None:
    await asyncio.sleep(_FIRST_CARE_S)
    while True:
        try:
            await housekeeping.look()
        except (ArgosyError, OSError) as error:
            _log.warning("it is looked at again later: %s", error)
        await asyncio.sleep(_LOOK_S)


async def _watch(application: Application) -> None:
    await asyncio.gather(_watch_budgets(application), _clear_buckets(application))


async def _watch_budgets(application: Application) -> None:
    """Budgets are looked at every few minutes: one system call when there are none. So is what is not written
    at once: when credentials were used."""
    while True:
        await asyncio.sleep(_BUDGETS_S)
        try:
            await application.accounts.watch()
            await application.identity.note_uses()
        except (ArgosyError, OSError) as error:
            _log.warning("budgets are looked at again later: %s", error)


async def _clear_buckets(application: Application) -> None:
    """Buckets that tasks do not keep go after their end. It costs nothing where there are none."""
    while True:
        await asyncio.sleep(_BUCKETS_S)
        try:
            await application.objects.made.look()
        except (ArgosyError, OSError) as error:
            _log.warning("buckets of tasks that ended are looked at again later: %s", error)


async def _collect() -> None:
    """Freeze long-lived objects (rows, caches of pools) every few minutes: then no garbage collection walks
    through all of them while a request waits."""
    while True:
        await asyncio.sleep(_COLLECT_S)
        _set_aside()


def _set_aside() -> None:
    gc.enable()
    gc.unfreeze()
    gc.collect()
    gc.freeze()
    _give_back()


def _give_back() -> None:
    """Memory that a burst of large requests needed goes back to the system, where the C library can do so."""
    import ctypes

    try:
        ctypes.CDLL(None).malloc_trim(0)
    except (AttributeError, OSError):
        pass  # another C library

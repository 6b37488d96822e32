"""The agent's process: one root folder with a lock, one unix socket, and what it follows from outside."""

from __future__ import annotations

import asyncio
import fcntl
import os
import signal
import socket
import stat
import sys

from argosy.agent import wire
from argosy.agent.addresses import socket_address
from argosy.agent.rank import warn
from argosy.agent.serve import Agent

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Optional, Tuple

    #: Whose metadata service tells of the machine's end, with its URL, and who hears that the agent serves.
    _Outside = Tuple[Optional[Tuple[str, str]], Optional[Callable[[dict[str, object]], None]]]

_LOOK_S = 2.0  # how often we look whether root and socket are still ours


class _CannotServe(Exception):
    def __init__(self, status: int, text: str) -> None:
        super().__init__(text)
        self.status = status


def _lock_root(root: str) -> int:
    """One agent for a root. The lock goes with the process, however it ends."""
    try:
        os.makedirs(root, mode=0o700, exist_ok=True)
        handle = os.open(root + "/agent.lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    except OSError as error:
        raise _CannotServe(4, "cannot use %s: %s" % (root, error.strerror)) from None
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        owner = os.read(handle, 32).decode("ascii", "replace").strip() or "?"
        raise _CannotServe(3, "another agent (pid %s) already serves %s" % (owner, root)) from None
    try:
        os.pwrite(handle, b"%-10d\n" % os.getpid(), 0)
    except OSError:
        pass  # a full disk: the lock holds all the same
    return handle


def _listen(path: str) -> socket.socket:
    try:
        os.makedirs(os.path.dirname(path), mode=0o700, exist_ok=True)
        address, folder = socket_address(path)
    except OSError as error:
        raise _CannotServe(4, "cannot use %s: %s" % (path, error.strerror)) from None
    try:
        if os.path.lexists(path):
            if not stat.S_ISSOCK(os.lstat(path).st_mode):
                raise _CannotServe(4, "%s exists and is not a socket" % path)
            with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as probe:
                try:
                    probe.connect(address)
                    raise _CannotServe(3, "another agent already listens on %s" % path)
                except OSError:
                    os.unlink(path)  # left over from an agent that was killed
        listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        old = os.umask(0o177)
        try:
            listener.bind(address)
        finally:
            os.umask(old)
        listener.listen(128)
        listener.setblocking(False)
        return listener
    except OSError as error:
        raise _CannotServe(4, "cannot listen on %s: %s" % (path, error.strerror or error)) from None
    finally:
        if folder is not None:
            os.close(folder)


def run(
    root: str,
    socket_path: str,
    name: str,
    own_devices: list[int] | None,
    notice: tuple[str, str] | None = None,
    serves: Callable[[dict[str, object]], None] | None = None,
) -> int:
    """Serve until told to stop; ranks outlive SIGTERM and SIGINT. `notice`: whose metadata service tells of
    the machine's end, and its URL. `serves`: who is told the node's facts once requests are answered; None:
    standard output says `listening`. The exit status is `__main__.main`'s."""
    try:
        lock = _lock_root(root)
        listener = _listen(socket_path)
    except _CannotServe as error:
        sys.stderr.write("argosy-agent: %s\n" % error)
        return error.status
    signal.signal(signal.SIGHUP, signal.SIG_IGN)
    loop = asyncio.new_event_loop()
    asyncio.set_event_loop(loop)
    status = 0
    door = _Door(socket_path, listener)
    try:
        agent = Agent(root, name, own_devices, loop)
        loop.run_until_complete(_serve(root, lock, door, agent, (notice, serves)))
    except OSError as error:
        warn("cannot go on: %s" % error)
        status = 4
    if door.is_ours():
        os.unlink(socket_path)
    os._exit(status)  # a thread that waits for a driver which never answers must not keep us


class _Door:
    """The socket, which is made anew when somebody has removed it: cleaners of /tmp do."""

    def __init__(self, path: str, listener: socket.socket) -> None:
        self.path = path
        self.listener = listener
        self._identity = _identity(path)
        self._server: asyncio.AbstractServer | None = None

    def is_ours(self) -> bool:
        """False also when it was removed before we had looked at it."""
        return self._identity is not None and _identity(self.path) == self._identity

    async def open(self, agent: Agent) -> None:
        self._server = await asyncio.start_unix_server(
            agent.connection, sock=self.listener, limit=wire.HEAD_LIMIT_BYTES
        )

    def close(self) -> None:
        if self._server is not None:
            self._server.close()

    async def mend(self, agent: Agent) -> None:
        try:
            listener = _listen(self.path)
        except _CannotServe as error:
            warn("the socket is gone and cannot be made anew: %s" % error)
            return
        warn("the socket was gone; it is here again")
        self.close()
        self.listener, self._identity = listener, _identity(self.path)
        await self.open(agent)


def _identity(path: str | int) -> tuple[int, int] | None:
    """Which file or folder that is; None when there is none. Raises OSError when nobody can tell."""
    try:
        info = os.fstat(path) if isinstance(path, int) else os.lstat(path)
    except (FileNotFoundError, NotADirectoryError):
        return None
    return info.st_dev, info.st_ino


async def _serve(root: str, lock: int, door: _Door, agent: Agent, outside: _Outside) -> None:
    notice, serves = outside
    # The loop's own way costs each agent half a millisecond; by its reaper's, signals wake it up.
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: agent.done.set())
    if notice is not None and notice[0] == "file":
        # A batch system tells all processes of a job at once. Ours tells how the others end, to the last.
        signal.signal(signal.SIGTERM, lambda *_: None)
    await door.open(agent)
    try:
        if serves is not None:
            serves(await agent.facts())
        else:
            sys.stdout.write("argosy-agent: listening on %s\n" % door.path)
            sys.stdout.flush()
    except (OSError, ValueError):
        pass  # nobody reads
    following = _follow(root, agent, notice)
    ours = _identity(root), _identity(lock)
    ending = asyncio.ensure_future(agent.done.wait())
    while not (await asyncio.wait({ending}, timeout=_LOOK_S))[0]:
        try:
            if (_identity(root), _identity(root + "/agent.lock")) != ours:
                warn("%s is gone or belongs to somebody else: its ranks end, and so do we" % root)
                await agent.end_ranks()
                break
            if not door.is_ours():
                await door.mend(agent)
        except OSError as error:  # a disk that does not answer is not gone
            warn("cannot look after %s: %s" % (root, error))
    door.close()
    for task in following:
        task.cancel()


def _follow(root: str, agent: Agent, notice: tuple[str, str] | None) -> list[asyncio.Future[None]]:
    """What the agent listens to from outside, as tasks."""
    following: list[asyncio.Future[None]] = []
    if notice is not None:
        from argosy.agent import notices

        following.append(asyncio.ensure_future(notices.follow(*notice, agent.told)))
    if os.path.exists(root + "/dial.json"):
        from argosy.agent import dial

        following.append(asyncio.ensure_future(dial.follow(root, agent)))
    return following

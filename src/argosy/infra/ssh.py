"""Hosts through OpenSSH: commands, streams to unix sockets and streams to commands, over one log-in a host.

Each host has one master process (`ssh -M`), which ends itself after ten minutes without use. Everything else
is a channel in it: a command is a session, a stream to a unix socket is a forward that the master makes. So
what people set up for ssh (configuration, agents, certificates, hardware keys, jump hosts) works as it is.
"""

from __future__ import annotations

import asyncio
import hashlib
import os
import re
import shlex
import stat
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Final

import msgspec

from argosy.agent import wire
from argosy.infra import border
from argosy.infra.agent_client import unix_channel
from argosy.infra.agent_port import Channel
from argosy.infra.askpass import Askpass
from argosy.infra.mux import Carrier
from argosy.infra.ssh_session import Ran, Session
from argosy.infra.ssh_target import CONNECT_S, HostKey, SshTarget, login_options, problem
from argosy.model.ids import Ids

__all__ = ["Ran", "Ssh", "SshTarget"]

_KEEP_S: Final = 600  # a master without channels ends itself after so long
_LOGIN_S: Final = 3.0 * CONNECT_S
_RESTING_MAX: Final = 64  # masters that only commands have used; a pool may have a thousand hosts
_RETRY_S: Final = 0.1  # between log-ins that fail at one host, and twice as much each time ...
_RETRY_MAX_S: Final = 5.0  # ... up to this
_LOGINS_MAX: Final = 8  # at once at one machine: sshd's MaxStartups drops some from ten on
_SESSIONS_MAX: Final = 8  # commands at once in one master: sshd's MaxSessions allows ten
_PATH_MAX: Final = 80  # a control socket's path; ssh appends 17 characters while it binds, of 107
_TAIL_BYTES: Final = 16 << 10
_FAILED: Final = 255  # ssh's own failures; also what a command may return


class _Line:
    """One host's master, and what is in it."""

    def __init__(self, control: Path) -> None:
        self.control = control
        self.login: asyncio.Task[None] | None = None  # under way; all who need it share it
        self.failures = 0  # of log-ins, one after the other
        self.not_before_s = 0.0  # the next log-in
        self.finding = asyncio.Lock()  # a way to a socket
        self.is_up = False
        self.used_s = 0.0  # when somebody last asked for it
        self.carries = False  # streams or other hosts' connections, not only commands
        self.running = 0  # commands
        self._sessions = asyncio.Semaphore(_SESSIONS_MAX)
        self.forwards: dict[str, Path] = {}  # by the socket's path on the host
        self.carriers: dict[str, Carrier] = {}  # of sockets that no forward may reach: `agent connect` does

    async def begin(self) -> None:
        """A command is about to run; wait while too many do."""
        await self._sessions.acquire()
        self.running += 1

    def end(self) -> None:
        self.running -= 1
        self._sessions.release()


class Ssh:
    """All hosts of one server. `folder` takes control sockets (another short one is used when its path is too
    long for them). Every call raises border errors for ssh's own failures: `RequestRefused` (name, host key,
    configuration), `CredentialsRejected`, `Unreachable`, `Transient`.
    """

    def __init__(self, folder: Path, ids: Ids, environ: Mapping[str, str] | None = None) -> None:
        self._folder = folder
        self._ids = ids
        self._environ = dict(os.environ if environ is None else environ)
        self._sockets: Path | None = None
        self._askpass = Askpass(ids)
        self._lines: dict[str, _Line] = {}
        self._logins: dict[str, asyncio.Semaphore] = {}
        self._sessions: dict[Session, asyncio.Task[None]] = {}  # whose process has not ended

    @contextmanager
    def with_password(self, to: SshTarget, password: str) -> Iterator[None]:
        """Within the block, ssh's questions about this host are answered with it; then it is forgotten."""
        self._askpass.remember(to, password)
        try:
            yield
        finally:
            self._askpass.forget(to)

    # ---- what callers use

    async def run(self, to: SshTarget, command: str, *, data: bytes = b"", timeout_s: float = 30.0) -> Ran:
        """Run shell text on the host, with `data` as its input. A status other than 0 is an answer too.
        Raises `Unreachable` when it takes longer than `timeout_s`."""
        try:
            async with asyncio.timeout(timeout_s):
                session = await self._session(to, command)
                try:
                    return await session.finish(data)
                finally:
                    self._end_session(to, session)
        except TimeoutError:
            words = f"`{command[:60]}` did not end on {to.label} within {timeout_s:.0f} s"
            raise border.Unreachable(words) from None

    async def open(self, to: SshTarget, socket: str) -> Channel:
        """A stream to the agent that listens on a unix socket of the host. Where sshd forbids forwards, the
        agent's `connect` command carries it. Raises `Unreachable` when nobody listens there."""
        line = await self._line(to)
        line.carries = True
        async with line.finding:
            if socket not in line.forwards and socket not in line.carriers:
                return await self._find_way(to, line, socket)
        carrier = line.carriers.get(socket)
        if carrier is not None:
            return await self._carried(to, socket, carrier)
        return await self._forwarded(to, line, socket)

    async def host_key(self, to: SshTarget) -> HostKey:
        """The key that a host shows now, whether it is known or not. Nobody logs in."""
        with tempfile.TemporaryDirectory(prefix="argosy-") as folder:
            file = Path(folder) / "known_hosts"
            shown = msgspec.structs.replace(to, known_hosts=str(file), host_keys="accept-new")
            command = ["ssh", "-o", "PreferredAuthentications=none", "-o", "GlobalKnownHostsFile=/dev/null"]
            command += login_options(shown, asks=False)
            jump = to.jump()
            if jump is not None:
                command += ["-o", f"ProxyCommand={await self._through(jump)}"]
            process = await asyncio.create_subprocess_exec(
                *command, "--", to.host, "true",
                stdin=asyncio.subprocess.DEVNULL, stdout=asyncio.subprocess.DEVNULL,
                stderr=asyncio.subprocess.PIPE, env=self._environ, start_new_session=True,
            )  # fmt: skip
            _, said = await process.communicate()
            line = file.read_text().strip().splitlines()[-1:] if file.exists() else []
        if not line:
            raise problem(to, said.decode("utf-8", "replace"))
        return HostKey.of(line[0])

    async def open_command(self, to: SshTarget, command: str) -> Channel:
        """Input and output of shell text that runs on the host, as a stream. Closing the writer ends its
        input."""
        session = await self._session(to, command)
        self._look_after(to, session)
        return session.channel

    async def drop(self, to: SshTarget) -> None:
        """End the master of this host, and all that goes through it. The next call logs in anew."""
        line = self._lines.pop(to.key, None)
        if line is not None:
            await self._end(line)

    async def close(self) -> None:
        """End all masters."""
        lines, self._lines = list(self._lines.values()), {}
        await asyncio.gather(*map(self._end, lines))
        await self._askpass.close()
        for session in self._sessions:
            session.end()
        if self._sessions:
            await asyncio.wait(self._sessions.values(), timeout=2.0)

    # ---- the master

    async def _line(self, to: SshTarget) -> _Line:
        """The host's master, logged in. Raises a border error."""
        key = to.key
        line = self._lines.get(key)
        if line is None:
            line = self._lines[key] = _Line(self._socket_folder() / key)
        line.used_s = asyncio.get_running_loop().time()
        if line.is_up and line.control.exists():
            return line
        if line.login is None:
            line.login = asyncio.ensure_future(self._come_up(to, line))
            line.login.add_done_callback(_look_at)  # who waited for it may be gone
        await asyncio.shield(line.login)
        return line

    async def _come_up(self, to: SshTarget, line: _Line) -> None:
        """Log in, after the pause that a host that did not answer is given."""
        loop = asyncio.get_running_loop()
        line.is_up = False
        line.forwards.clear()
        line.carriers.clear()
        try:
            await asyncio.sleep(line.not_before_s - loop.time())
            await self._log_in(to, line)
            line.is_up, line.failures = True, 0
            await self._rest(line)
        except border.Unreachable:
            line.failures += 1
            line.not_before_s = loop.time() + min(_RETRY_MAX_S, _RETRY_S * 2.0 ** (line.failures - 1))
            raise
        finally:
            line.login = None

    async def _rest(self, newest: _Line) -> None:
        """End masters that have not been used for longest, where too many do nothing."""
        resting = [
            (line.used_s, key)
            for key, line in self._lines.items()
            if line is not newest and line.is_up and not line.carries and not line.running
        ]
        for _, key in sorted(resting)[: max(0, len(resting) + 1 - _RESTING_MAX)]:
            await self._end(self._lines.pop(key))

    async def _log_in(self, to: SshTarget, line: _Line) -> None:
        asks = await self._askpass.environ(to, self._socket_folder())
        command = ["ssh", "-M", "-S", str(line.control), "-f", "-N", "-o", f"ControlPersist={_KEEP_S}"]
        command += login_options(to, asks=bool(asks))
        jump = to.jump()
        if jump is not None:
            command += ["-o", f"ProxyCommand={await self._through(jump)}"]
        line.control.unlink(missing_ok=True)
        logins = self._logins.setdefault(to.first_hop(), asyncio.Semaphore(_LOGINS_MAX))
        async with logins:
            # Its stderr goes to a file: the master that stays behind must not keep a pipe of ours open.
            with tempfile.TemporaryFile() as said:
                process = await asyncio.create_subprocess_exec(
                    *command, "--", to.host,
                    stdin=asyncio.subprocess.DEVNULL, stdout=asyncio.subprocess.DEVNULL, stderr=said,
                    env={**self._environ, **asks}, start_new_session=True,
                )  # fmt: skip
                try:
                    async with asyncio.timeout(_LOGIN_S):
                        status = await process.wait()
                except TimeoutError:
                    raise problem(to, "the log-in timed out") from None
                finally:
                    if process.returncode is None:
                        process.kill()
                        await process.wait()
                said.seek(0)
                text = said.read(_TAIL_BYTES).decode("utf-8", "replace")
        if status != 0 or not line.control.exists():
            raise problem(to, text, asked=bool(asks))

    async def _through(self, jump: SshTarget) -> str:
        """ssh's ProxyCommand through the master of a jump host: many hosts share it."""
        line = await self._line(jump)
        line.carries = True
        parts = ["ssh", "-F", "/dev/null", "-S", str(line.control), "-o", "ProxyCommand=false"]
        return shlex.join(parts).replace("%", "%%") + " -W [%h]:%p " + shlex.quote(jump.host)

    async def _end(self, line: _Line) -> None:
        line.is_up = False
        if line.login is not None:
            line.login.cancel()
        if line.control.exists():
            await _control(self._environ, line, "exit")
        line.control.unlink(missing_ok=True)
        for path in line.forwards.values():
            path.unlink(missing_ok=True)
        line.forwards.clear()
        for carrier in line.carriers.values():
            await carrier.close()
        line.carriers.clear()

    def _socket_folder(self) -> Path:
        if self._sockets is None:
            self._sockets = _short_folder(self._folder)
        return self._sockets

    # ---- channels in it

    async def _session(self, to: SshTarget, command: str) -> Session:
        """A running command, from the first byte that is its own. Raises a border error."""
        for is_last in (False, True):
            fresh = not (to.key in self._lines and self._lines[to.key].is_up)
            line = await self._line(to)
            await line.begin()
            try:
                session = await Session.start(
                    line.control, command, self._ids.new("out"), self._environ, line.end
                )
            except BaseException:
                line.end()
                raise
            try:
                if await session.begin():
                    return session
                status, said = await session.complaint()
            except BaseException:
                self._end_session(to, session)
                raise
            session.end()
            if status != _FAILED:
                raise border.RequestRefused(
                    "shell",
                    f"{to.label} accepts the log-in, but runs no commands ({_last_line(said)}): "
                    "give the account a shell such as /bin/sh",
                )
            if "Session open refused" in said or fresh or is_last:
                raise problem(to, said)
            await self.drop(to)  # the master was there, but the host behind it is not: once more
        raise AssertionError("unreachable")

    def _look_after(self, to: SshTarget, session: Session) -> None:
        """Until its process has ended; so long the host's master does not rest."""
        task = self._sessions[session] = asyncio.ensure_future(session.stay())
        line = self._lines.get(to.key)

        def ended(_: object) -> None:
            del self._sessions[session]
            if line is not None:
                line.running -= 1

        if line is not None:
            line.running += 1
        task.add_done_callback(ended)

    def _end_session(self, to: SshTarget, session: Session) -> None:
        session.end()
        if session.is_alive:
            self._look_after(to, session)

    async def _find_way(self, to: SshTarget, line: _Line, socket: str) -> Channel:
        """The first stream to a socket of the host, and how others get there too."""
        name = hashlib.sha256(socket.encode()).hexdigest()[:6]
        path = line.control.with_name(f"{line.control.name}-{name}")
        path.unlink(missing_ok=True)
        status, said = await _control(self._environ, line, "forward", "-L", f"{path}:{socket}")
        if status != 0:
            line.is_up = line.control.exists()
            raise border.Unreachable(f"the connection to {to.label} was lost: {_last_line(said)}")
        line.forwards[socket] = path
        channel = await self._forwarded(to, line, socket)
        if await _answers(channel):
            return channel
        channel.writer.close()
        await self._take_back(line, socket)
        # Either nobody listens, or forwards are forbidden: the command knows which.
        script = f"{Path(socket).parent}/connect"
        command = f"exec sh {shlex.quote(script)} --mux --socket {shlex.quote(socket)}"
        carrier = Carrier(lambda: self.open_command(to, command))
        channel = await self._carried(to, socket, carrier)
        line.carriers[socket] = carrier
        return channel

    async def _forwarded(self, to: SshTarget, line: _Line, socket: str) -> Channel:
        try:
            return await unix_channel(line.forwards[socket])
        except (border.Unreachable, KeyError):
            await self._take_back(line, socket)
            line.is_up = line.is_up and line.control.exists()
            raise border.Unreachable(f"the connection to {to.label} was lost") from None

    async def _take_back(self, line: _Line, socket: str) -> None:
        """End a forward. A master that was asked for the same one again would think that it is there."""
        path = line.forwards.pop(socket, None)
        if path is not None:
            await _control(self._environ, line, "cancel", "-L", f"{path}:{socket}")
            path.unlink(missing_ok=True)

    async def _carried(self, to: SshTarget, socket: str, carrier: Carrier) -> Channel:
        try:
            return await carrier.open()
        except (border.Unreachable, ConnectionError) as error:
            raise border.Unreachable(f"no agent answers at {socket} of {to.label}: {error}") from None


async def _control(environ: Mapping[str, str], line: _Line, verb: str, *more: str) -> tuple[int, str]:
    """Tell a master what to do; its status and complaint."""
    process = await asyncio.create_subprocess_exec(
        "ssh", "-F", "/dev/null", "-S", str(line.control), "-o", "StreamLocalBindUnlink=yes",
        "-O", verb, *more, "--", "x",
        stdin=asyncio.subprocess.DEVNULL, stdout=asyncio.subprocess.DEVNULL,
        stderr=asyncio.subprocess.PIPE, env=environ,
    )  # fmt: skip
    _, err = await process.communicate()
    return process.returncode or 0, err.decode("utf-8", "replace")


def _look_at(task: asyncio.Task[None]) -> None:
    if not task.cancelled():
        task.exception()


def _last_line(said: str) -> str:
    lines = said.strip().splitlines()
    return lines[-1].strip()[:200] if lines else "it said nothing"


async def _answers(channel: Channel) -> bool:
    """Whether an agent is at the other end. A forward to nobody looks open, and ends at the first byte."""
    channel.writer.write(b"HEAD %s/here HTTP/1.1\r\nContent-Length: 0\r\n\r\n" % wire.PREFIX.encode())
    try:
        async with asyncio.timeout(CONNECT_S):
            head = await channel.reader.readuntil(b"\r\n\r\n")
            length = re.search(rb"(?i)content-length: *(\d+)", head)
            await channel.reader.readexactly(int(length[1]) if length else 0)
    except (EOFError, OSError, TimeoutError, asyncio.LimitOverrunError):
        return False
    return True


def _short_folder(folder: Path) -> Path:
    """Where control sockets are: ours alone, and short; `folder` itself if it can be. Raises
    `RequestRefused`."""
    if len(os.fsencode(folder)) + 18 > _PATH_MAX:
        name = hashlib.sha256(os.fsencode(folder)).hexdigest()[:8]
        folder = Path(f"/tmp/argosy-{os.getuid()}/ssh-{name}")
        folder.parent.mkdir(mode=0o700, exist_ok=True)
        _own(folder.parent)
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    _own(folder)
    return folder


def _own(folder: Path) -> None:
    """Raises `RequestRefused` when others may have a hand in a folder."""
    info = folder.lstat()
    if not stat.S_ISDIR(info.st_mode) or info.st_uid != os.getuid():
        raise border.RequestRefused("folder", f"{folder} belongs to somebody else: remove it")
    if info.st_mode & 0o077:
        folder.chmod(0o700)

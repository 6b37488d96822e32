"""Starts the local server when nobody listens on its socket, and waits until it does.

The server is a process of its own: it outlives the command that started it, and its output goes to
`<state>/server.log`. Two clients may start it at the same time: the server's own lock lets one of the two
live, and both clients find it.
"""

from __future__ import annotations

import errno
import os
import sys
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Final

from argosy.api.location import Location, log_path
from argosy.client.connection import open_socket, unreachable
from argosy.model.errors import CODES, ArgosyError

if TYPE_CHECKING:
    import subprocess

START_TIMEOUT_S: Final = 90.0  # the process lives: a busy machine, or a slow disk
RACE_TIMEOUT_S: Final = 20.0  # for the other server, which began earlier
LOG_LINES: Final = 15
_PORT_TAKEN: Final = "` is in use"  # as `bind_tcp` of the server says it
_POLL_FIRST_S: Final = 0.01
_POLL_MOST_S: Final = 0.05
#: Kept so that a long-lived client reaps servers that it started once, and none is called forgotten.
_started: Final[list[subprocess.Popen[bytes]]] = []


def server_program(env: Mapping[str, str]) -> list[str]:
    """The server's own command line. ARGOSY_SERVER_COMMAND names another program."""
    named = env.get("ARGOSY_SERVER_COMMAND", "")
    if named:
        import shlex

        return shlex.split(named)
    return [sys.executable, "-m", "argosy.server"]


def server_command(home: Path, env: Mapping[str, str]) -> list[str]:
    """The command that serves the state folder `home`."""
    return [*server_program(env), "run", "--state-dir", str(home)]


def make_home(home: Path) -> None:
    """Make the state folder. Raises `server-unreachable` where that is not possible."""
    try:
        home.mkdir(mode=0o700, parents=True, exist_ok=True)
        if not os.access(home, os.W_OK | os.X_OK):
            raise PermissionError(errno.EACCES, os.strerror(errno.EACCES))
    except OSError as error:
        raise ArgosyError(
            "server-unreachable",
            f"the local server cannot keep its state in {home}: {error.strerror}",
            hint="ARGOSY_HOME names another folder; ARGOSY_SERVER another server",
        ) from None


def is_listening(location: Location, timeout_s: float = 1.0) -> bool:
    """Whether somebody accepts connections there."""
    try:
        open_socket(location, timeout_s).close()
    except OSError:
        return False
    return True


def holder_pid(home: Path) -> int | None:
    """The process that holds the state folder, whether it listens or not; None: no server does."""
    import fcntl

    try:
        with (home / "server.pid").open("rb") as file:
            try:
                fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
            except BlockingIOError:
                return int(file.read(64))
    except (OSError, ValueError):
        return None
    return None


def ensure_running(
    location: Location,
    env: Mapping[str, str],
    *,
    extra: tuple[str, ...] = (),
    timeout_s: float = START_TIMEOUT_S,
    clock: Callable[[], float] = time.monotonic,
    sleep: Callable[[float], None] = time.sleep,
) -> bool:
    """Start the local server unless it runs; returns when it listens. True when this call started it.

    `extra` are more arguments of `run`, such as `--listen`. Errors: "server-unreachable" with the last lines
    of the server's log.
    """
    if is_listening(location):
        return False
    import subprocess

    log = log_path(location.home)
    make_home(location.home)
    command = [*server_command(location.home, env), *extra]
    before = log.stat().st_size if log.exists() else 0
    child_env = {name: value for name, value in env.items() if name not in ("ARGOSY_SERVER", "ARGOSY_TOKEN")}
    try:
        with open(os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600), "ab") as out:
            child = subprocess.Popen(
                command,
                stdin=subprocess.DEVNULL,
                stdout=out,
                stderr=out,
                cwd=location.home,  # not the user's folder: its files must not shadow our modules
                env=child_env,
                start_new_session=True,  # Ctrl-C here must not reach it
            )
    except OSError as error:
        raise unreachable(location, f"cannot start it with `{command[0]}`: {error.strerror}") from None
    _started[:] = [other for other in _started if other.poll() is None] + [child]
    deadline = clock() + timeout_s
    wait_s = _POLL_FIRST_S
    lost = False
    while clock() < deadline:
        if is_listening(location):
            child.returncode = (
                child.returncode if child.returncode is not None else 0
            )  # it is not ours to wait for
            return True
        status = child.poll()
        if status is not None:
            said = last_lines(log, LOG_LINES, since=before)
            if status == CODES["port-taken"].exit and any(_PORT_TAKEN in line for line in said):
                raise _port_taken(said)
            if status != CODES["server-running"].exit:
                raise _failed(location, f"it ended with status {status}", log, before)
            # The one that lost a race for the state folder ends so; the winner is about to listen.
            deadline = min(deadline, clock() + RACE_TIMEOUT_S) if not lost else deadline
            lost = True
        sleep(wait_s)
        wait_s = min(wait_s * 1.5, _POLL_MOST_S)
    why = (
        "it found another one that does not listen" if lost else f"it does not listen after {timeout_s:.0f} s"
    )
    raise _failed(location, why, log, before)


def _port_taken(said: tuple[str, ...]) -> ArgosyError:
    """What the server said when somebody else listens on its port."""
    line = next(line for line in reversed(said) if _PORT_TAKEN in line)
    return ArgosyError("port-taken", f"the local server did not start: {line[line.index('port ') :]}")


def _failed(location: Location, why: str, log: Path, before: int) -> ArgosyError:
    return ArgosyError(
        "server-unreachable",
        f"the local server did not start: {why}",
        hint=f"correct what its log says ({log}), then repeat; `argosy server start` starts it alone",
        details=last_lines(log, LOG_LINES, since=before),
    )


def last_lines(path: Path, count: int, since: int = 0) -> tuple[str, ...]:
    """The last lines of a file, of what was written after its first `since` bytes."""
    try:
        with path.open("rb") as file:
            size = file.seek(0, os.SEEK_END)
            file.seek(max(since if since <= size else 0, size - (64 << 10)))
            text = file.read().decode("utf-8", "replace")
    except OSError:
        return ()
    return tuple(line.rstrip() for line in text.splitlines() if line.strip())[-count:]

"""A session as a kernel of a Jupyter on this machine.

Jupyter starts a program with a connection file that names five ports, and believes that program to be the
kernel. Ours starts an ipykernel in a terminal of the session and carries those ports to it. The key with
which messages are signed is typed into that terminal while it shows nothing: it stands in no argument and no
log.
"""

from __future__ import annotations

import sys
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Final, Protocol

import msgspec

from argosy.client.forwarding import listen, serve_port
from argosy.client.node_stream import NodeStream
from argosy.model.errors import ArgosyError

_FIRST_PORT: Final = 20_000  # below those that systems give to whoever connects
_PORTS: Final = 12_000
_READY: Final = b"argosy: kernel waits"
_ASK_S: Final = 0.03  # between two looks whether the kernel listens
_COMING_S: Final = 120.0
_LINE_MOST: Final = 4000  # a terminal takes no longer line
QUIT: Final = b"\x1c"  # Ctrl-\ of a terminal
#: What the session runs. It has the connection file in its own /tmp, for its owner only.
COMMAND: Final = (
    f"stty -echo; umask 077; echo '{_READY.decode()}'; read -r connection; file=$(mktemp); "
    'printf %s "$connection" >"$file"; exec python3 -m ipykernel_launcher --log-level=ERROR -f "$file"'
)


class ConnectionFile(msgspec.Struct, frozen=True, kw_only=True):
    """What Jupyter writes for a kernel; what else stands in it a kernel does not need."""

    shell_port: int
    iopub_port: int
    stdin_port: int
    control_port: int
    hb_port: int
    ip: str = "127.0.0.1"
    key: str = ""
    transport: str = "tcp"
    signature_scheme: str = "hmac-sha256"

    @property
    def ports(self) -> tuple[int, ...]:
        """The last one is that of the heartbeat, which a kernel opens last."""
        return (self.shell_port, self.iopub_port, self.stdin_port, self.control_port, self.hb_port)


class Console(Protocol):
    """The terminal in which the kernel runs: a `Shell`."""

    exit_code: int | None

    def write(self, data: bytes) -> None: ...


def read_connection(path: Path) -> ConnectionFile:
    """Raises "usage" for a file that is none, and OSError."""
    try:
        found = msgspec.json.decode(path.read_bytes(), type=ConnectionFile)
    except msgspec.MsgspecError as error:
        raise ArgosyError("usage", f"{path} is no connection file of Jupyter: {error}") from None
    if found.transport != "tcp":
        raise ArgosyError(
            "unsupported",
            f"{path} asks for the transport `{found.transport}`: only tcp is carried",
            hint="start Jupyter without `KernelManager.transport=ipc`",
        )
    return found


def inner_connection(here: ConnectionFile, dice: Callable[[int], bytes]) -> ConnectionFile:
    """The same for the kernel in the session, with ports of its own: without walls it shares them with this
    machine."""
    chosen: dict[int, None] = {}
    while len(chosen) < len(here.ports):
        chosen[_FIRST_PORT + int.from_bytes(dice(4), "big") % _PORTS] = None
    shell, iopub, stdin, control, heart = chosen
    return msgspec.structs.replace(
        here, ip="127.0.0.1", shell_port=shell, iopub_port=iopub, stdin_port=stdin, control_port=control,
        hb_port=heart,
    )  # fmt: skip


def kernel_spec(title: str, flags: Sequence[str], env: Mapping[str, str]) -> bytes:
    """The text of `kernel.json`. Interrupts come as messages: no signal reaches a machine elsewhere."""
    argv = [sys.executable, "-P", "-m", "argosy.cli", "kernel", "-f", "{connection_file}", *flags]
    text = {
        "argv": argv, "display_name": title, "language": "python", "interrupt_mode": "message",
        "env": dict(env), "metadata": {"debugger": False},
    }  # fmt: skip
    return msgspec.json.format(msgspec.json.encode(text), indent=1) + b"\n"


def kernels_folder(env: Mapping[str, str], platform: str = sys.platform) -> Path:
    """Where Jupyter looks for kernels of this user.

    >>> kernels_folder({"HOME": "/home/ann"}, "linux")
    PosixPath('/home/ann/.local/share/jupyter/kernels')
    """
    if named := env.get("JUPYTER_DATA_DIR"):
        return Path(named) / "kernels"
    home = Path(env["HOME"]) if env.get("HOME") else Path.home()
    if platform == "darwin":
        return home / "Library" / "Jupyter" / "kernels"
    data = Path(env["XDG_DATA_HOME"]) if env.get("XDG_DATA_HOME") else home / ".local" / "share"
    return data / "jupyter" / "kernels"


class Carried:
    """The five ports of this machine, each of which leads to one in the session."""

    def __init__(
        self, here: ConnectionFile, inner: ConnectionFile, opened: Callable[[int], NodeStream]
    ) -> None:
        """`opened`: a connection to a port of the session; raises ArgosyError. Errors: "port-taken"."""
        self._inner, self._opened = inner, opened
        self._listeners = [listen(here.ip, port) for port in here.ports]
        self._stopped = threading.Event()

    def start(self) -> None:
        """Clients may connect at once; they are answered as soon as the kernel listens."""
        threading.Thread(target=self._serve, daemon=True).start()

    def stop(self) -> None:
        self._stopped.set()
        for listener in self._listeners:
            listener.close()

    def _serve(self) -> None:
        until_s = time.monotonic() + _COMING_S
        while not self._is_up():
            if self._stopped.wait(_ASK_S) or time.monotonic() > until_s:
                return
        for listener, port in zip(self._listeners, self._inner.ports, strict=True):
            opened = self._to(port)
            threading.Thread(target=serve_port, args=(listener, opened, _ignore), daemon=True).start()

    def _is_up(self) -> bool:
        try:
            self._opened(self._inner.hb_port).close()
        except ArgosyError:
            return False
        return True

    def _to(self, port: int) -> Callable[[], NodeStream]:
        return lambda: self._opened(port)


def _ignore(error: ArgosyError) -> None:
    """Of a kernel that has ended clients learn by its end, and of a cut line by their next connection."""


class Typist:
    """Hears what the kernel's terminal prints, and types the connection file when it is asked for."""

    def __init__(self, inner: ConnectionFile) -> None:
        """Raises "usage" for a connection file that is too long."""
        self._line = msgspec.json.encode(inner) + b"\n"
        self._held = b""  # what came before it was asked for
        self._is_typed = False
        if len(self._line) > _LINE_MOST:
            raise ArgosyError("usage", f"the connection file is longer than {_LINE_MOST} bytes")

    def hear(self, data: bytes, console: Console) -> bytes:
        """What of it people should see."""
        if self._is_typed:
            return data
        self._held += data
        if _READY not in self._held:
            return b""
        console.write(self._line)
        self._is_typed = True
        return self._held.partition(_READY)[2].lstrip(b"\r\n")

    @property
    def complaint(self) -> bytes:
        """What was printed by a terminal that never asked for it."""
        return b"" if self._is_typed else self._held

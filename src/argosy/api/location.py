"""Where the server is: pure functions of an environment mapping, the same for client and server.

`ARGOSY_HOME` (default `~/.argosy`) is the state folder of the local server. `ARGOSY_SERVER` names another
server (`http://host:port`, `https://…`, or `unix:///path`), and `ARGOSY_TOKEN` is its token.
"""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Final, NamedTuple
from urllib.parse import urlsplit

from argosy.model.errors import ArgosyError

#: The kernel's limit on the path of a unix socket is 108 bytes with the final zero; we stay clear of it.
SOCKET_PATH_LIMIT: Final = 100


class Location(NamedTuple):
    """One server: a unix socket, or a host that is reached over TCP."""

    socket: Path | None  # None: over TCP
    host: str = ""
    port: int = 0
    tls: bool = False
    prefix: str = ""  # path of the URL, for servers behind a proxy: no slash at its end
    token: str = ""
    home: Path = Path()  # state folder: the local server's, and the client's cache
    is_default: bool = False  # the local server of `home`: started when it is absent
    project: str = ""  # in which names are meant; "": `default`

    def render(self) -> str:
        """For people; never the token.

        >>> locate({"ARGOSY_SERVER": "http://gpu:7421", "HOME": "/root", "ARGOSY_TOKEN": "s"}).render()
        'http://gpu:7421'
        """
        if self.socket is not None:
            return str(self.socket)
        host = f"[{self.host}]" if ":" in self.host else self.host
        return f"http{'s' if self.tls else ''}://{host}:{self.port}{self.prefix}"

    def __repr__(self) -> str:
        return f"Location({self.render()!r})"


def state_dir(env: Mapping[str, str]) -> Path:
    """The folder that holds everything the local server keeps.

    >>> state_dir({"HOME": "/root"}), state_dir({"ARGOSY_HOME": "/srv/argosy"})
    (PosixPath('/root/.argosy'), PosixPath('/srv/argosy'))
    """
    home = Path(env["HOME"]) if env.get("HOME") else Path.home()
    named = env.get("ARGOSY_HOME", "")
    if not named:
        return home / ".argosy"
    if named == "~" or named.startswith("~/"):
        return home / named[2:]
    return Path(os.path.abspath(named))  # noqa: PTH100  Path.resolve would follow links


def socket_path(state_dir: Path, uid: int | None = None) -> Path:
    """The server's unix socket: `<state_dir>/run/server.sock`, or a short stand-in when that is too long.

    >>> socket_path(Path("/root/.argosy"))
    PosixPath('/root/.argosy/run/server.sock')
    >>> len(str(socket_path(Path("/" + "x" * 200), uid=0))) < SOCKET_PATH_LIMIT
    True
    """
    plain = state_dir / "run" / "server.sock"
    if len(os.fsencode(plain)) < SOCKET_PATH_LIMIT:
        return plain
    import hashlib  # few have such a path, and every command would pay for it

    name = hashlib.sha256(os.fsencode(state_dir)).hexdigest()[:24]
    return Path(f"/tmp/argosy-{os.getuid() if uid is None else uid}/{name}.sock")


def log_path(state_dir: Path) -> Path:
    """Where the local server writes its own log."""
    return state_dir / "server.log"


def locate(env: Mapping[str, str]) -> Location:
    """The server that a client with this environment talks to.

    Errors: "usage" when ARGOSY_SERVER is not an address or ARGOSY_PROJECT no name.

    >>> locate({"HOME": "/root"})
    Location('/root/.argosy/run/server.sock')
    >>> locate({"HOME": "/root", "ARGOSY_SERVER": "gpu-box:7421"})
    Location('http://gpu-box:7421')
    """
    home = state_dir(env)
    token = env.get("ARGOSY_TOKEN", "").strip()
    named = env.get("ARGOSY_SERVER", "").strip()
    project = _project(env)
    if not named:
        return Location(socket_path(home), token=token, home=home, is_default=True, project=project)
    if named.startswith("unix:"):
        named = named[len("unix:") :]
        return Location(Path("/" + named.lstrip("/")), token=token, home=home, project=project)
    if named.startswith("/"):
        return Location(Path(named), token=token, home=home, project=project)
    try:
        parts = urlsplit(named if "://" in named else f"http://{named}")
        port = parts.port
    except ValueError:
        parts, port = urlsplit(""), None
    if parts.scheme not in ("http", "https") or not parts.hostname or parts.username is not None:
        raise ArgosyError(
            "usage",
            f"ARGOSY_SERVER is not an address: {named.rpartition('@')[2]}",
            hint="write `http://HOST:PORT`, `https://HOST` or `unix:///PATH`; a token goes into ARGOSY_TOKEN",
        )
    tls = parts.scheme == "https"
    return Location(
        None,
        host=parts.hostname,
        port=port or (443 if tls else 80),
        tls=tls,
        prefix=parts.path.rstrip("/"),
        token=token,
        home=home,
        project=project,
    )


def _project(env: Mapping[str, str]) -> str:
    """It becomes a header: nothing but what may name a project."""
    project = env.get("ARGOSY_PROJECT", "").strip()
    if project and not re.fullmatch(r"[a-z0-9][-a-z0-9._]{0,62}", project):
        raise ArgosyError(
            "usage",
            f"ARGOSY_PROJECT cannot name a project: {project[:40]!r}",
            hint="small letters, digits, `-`, `.` and `_`, for example `vision`",
        )
    return project

"""Where a mounting tool on this machine asks for its keys: an address of the loopback that only its own
process knows. Keys are in memory only, and are replaced before they end while the tool goes on.

An agent that starts anew finds the address in the environment of the tool, and answers there again.
"""

from __future__ import annotations

import hmac
import json
import secrets
import socket
import threading
import time

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

ADDRESS = "MOUNT_KEYS_AT"  # in the environment of the tool
_EARLY_S = 300  # the tool comes for new ones so long before the end
_TIMEOUT_S = 10.0
_REQUEST_MAX = 65536


class MountDoor:
    """The addresses of one agent."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._servers = {}  # type: dict[int, _Listener]

    def offer(self, kind: str, fresh: dict[str, Any], expires_s: float, address: str = "") -> str:
        """The address where these keys are had from now on; with `address` at the same as before. Raises
        OSError when somebody else has it."""
        with self._lock:
            port, nonce = 0, secrets.token_urlsafe(24)
            if address:
                place, _, nonce = address.rpartition("/")
                port = int(place.rpartition(":")[2])
            server = self._servers.get(port) or (None if port else next(iter(self._servers.values()), None))
            if server is None:
                server = _Listener(port)
                self._servers[server.port] = server
            server.keys[nonce] = (kind, fresh, expires_s)
            return "http://127.0.0.1:%d/%s" % (server.port, nonce)

    def forget(self, address: str) -> None:
        with self._lock:
            for server in self._servers.values():
                server.keys.pop(address.rpartition("/")[2], None)


def environment(kind: str, address: str, remote: str) -> dict[str, str]:
    """What the tool is told. `remote`: before the names of its settings."""
    told = {ADDRESS: address}
    if kind == "container":
        told["AWS_CONTAINER_CREDENTIALS_FULL_URI"] = address
        told["AWS_SHARED_CREDENTIALS_FILE"] = told["AWS_CONFIG_FILE"] = "/dev/null"
        told["AWS_EC2_METADATA_DISABLED"] = "true"
        return told
    ended = {
        "access_token": "",
        "token_type": "Bearer",
        "refresh_token": "-",
        "expiry": "2000-01-01T00:00:00Z",
    }
    told[remote + "TOKEN_URL"] = address
    told[remote + "TOKEN"] = json.dumps(ended)
    told[remote + "CLIENT_ID"] = told[remote + "CLIENT_SECRET"] = "argosy"
    return told


def address_of(pid: int) -> str:
    """Where a running tool asks; "": nowhere."""
    try:
        with open("/proc/%d/environ" % pid, "rb") as file:
            for each in file.read().split(b"\0"):
                name, _, value = each.partition(b"=")
                if name.decode("ascii", "replace") == ADDRESS:
                    return value.decode("ascii", "replace")
    except OSError:
        pass
    return ""


class _Listener:
    """One port of the loopback. As much of HTTP as the tools speak."""

    def __init__(self, port: int) -> None:
        self.keys = {}  # type: dict[str, tuple[str, dict[str, Any], float]]
        self._socket = socket.socket()
        try:
            self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            self._socket.bind(("127.0.0.1", port))
            self._socket.listen(16)
        except OSError:
            self._socket.close()
            raise
        self.port = int(self._socket.getsockname()[1])
        threading.Thread(target=self._listen, daemon=True).start()

    def _listen(self) -> None:
        while True:
            connection, _ = self._socket.accept()
            threading.Thread(target=self._answer, args=(connection,), daemon=True).start()

    def _answer(self, connection: socket.socket) -> None:
        with connection:
            connection.settimeout(_TIMEOUT_S)
            try:
                body = self._told(_path_of(connection))
                line = b"HTTP/1.0 200 OK" if body else b"HTTP/1.0 404 Not Found"
                head = b"\r\nContent-Type: application/json\r\nContent-Length: %d\r\n\r\n" % len(body)
                connection.sendall(line + head + body)
            except (OSError, ValueError):
                pass  # who asked is gone, or is no such tool

    def _told(self, path: str) -> bytes:
        for nonce, (kind, fresh, expires_s) in list(self.keys.items()):
            if hmac.compare_digest(nonce.encode(), path.lstrip("/").encode()):
                told = dict(fresh)
                if kind != "container":
                    told["expires_in"] = max(1, int(expires_s - time.time()) - _EARLY_S)
                return json.dumps(told).encode()
        return b""


def _path_of(connection: socket.socket) -> str:
    """The path of a request, which is read to its end."""
    text = b""
    while b"\r\n\r\n" not in text:
        more = connection.recv(8192)
        if not more or len(text) > _REQUEST_MAX:
            raise ValueError
        text += more
    head, _, body = text.partition(b"\r\n\r\n")
    length = 0
    for line in head.split(b"\r\n")[1:]:
        name, _, value = line.partition(b":")
        if name.lower() == b"content-length":
            length = min(int(value), _REQUEST_MAX)
    while len(body) < length:
        more = connection.recv(8192)
        if not more:
            raise ValueError
        body += more
    return head.split(b" ")[1].decode("ascii")

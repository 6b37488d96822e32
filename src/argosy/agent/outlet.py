"""The way out of a sandbox: a proxy (HTTP, and CONNECT for all else over TCP) on a socket in its folder.

The sandbox has a network of its own without any other way. Names are looked up out here, and each address is
asked before it is used: what belongs to this machine, its loopback first, and what is only reached on its own
wires (link-local: where clouds keep their credentials) is refused. So what a session reaches is what a
stranger beside this machine would reach, and nothing that listens here for its own people.
"""

from __future__ import annotations

import asyncio
import ipaddress
import os
import socket

from argosy.agent.addresses import socket_address
from argosy.agent.joining import join

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Tuple

    Streams = Tuple[asyncio.StreamReader, asyncio.StreamWriter]

NAME = "out.sock"
PORT = 3128  # on the loopback of the sandbox
_HEAD_BYTES = 32 << 10
_HEAD_S, _CONNECT_S = 30.0, 30.0
_HOP = (b"connection", b"proxy-connection", b"proxy-authorization", b"keep-alive")


class Forbidden(Exception):
    """What a session does not reach."""


class Outlet:
    """Serves one session; `close` when it ends."""

    def __init__(self) -> None:
        self._server: asyncio.AbstractServer | None = None

    async def open(self, folder: str) -> None:
        """Raises OSError."""
        path = folder + "/" + NAME
        try:
            os.unlink(path)  # of an agent before us
        except FileNotFoundError:
            pass
        address, handle = socket_address(path)
        try:
            self._server = await asyncio.start_unix_server(self._serve, address, limit=_HEAD_BYTES)
            info = os.stat(folder)  # the session's alone, whose programs may have another user id
            os.chown(path, info.st_uid, info.st_gid)
        finally:
            if handle is not None:
                os.close(handle)

    def close(self) -> None:
        if self._server is not None:
            self._server.close()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            head = await asyncio.wait_for(reader.readuntil(b"\r\n\r\n"), _HEAD_S)
            method, host, port, rest = _parsed(head)
            other = await self._connect(host, port)
            if method == b"CONNECT":
                writer.write(b"HTTP/1.1 200 Connected\r\n\r\n")
            else:
                other[1].write(rest)
            await join((reader, writer), other)
        except Forbidden as error:
            _say(writer, 403, str(error))
        except ValueError:
            _say(writer, 400, "this is a proxy: it takes CONNECT, and http:// addresses")
        except OSError as error:
            _say(writer, 502, error.strerror or str(error))
        except (asyncio.TimeoutError, asyncio.IncompleteReadError, asyncio.LimitOverrunError):
            pass
        finally:
            writer.close()

    async def _connect(self, host: str, port: int) -> Streams:
        """Raises Forbidden, OSError."""
        loop = asyncio.get_running_loop()
        found = await loop.getaddrinfo(host, port, type=socket.SOCK_STREAM)
        last: OSError = OSError("there is no address for %s" % host)
        for family, _, _, _, address in found[:4]:
            check(str(address[0]))
            try:
                return await asyncio.wait_for(
                    asyncio.open_connection(str(address[0]), port, family=family), _CONNECT_S
                )
            except asyncio.TimeoutError:
                last = OSError("%s does not answer" % host)
            except OSError as error:
                last = error
        raise last


def check(text: str) -> None:
    """Raises Forbidden for an address that a session does not reach."""
    address = ipaddress.ip_address(text.partition("%")[0])
    mapped = getattr(address, "ipv4_mapped", None) or getattr(address, "sixtofour", None)
    for each in (address, mapped):
        if each is None:
            continue
        if each.is_loopback or each.is_link_local or each.is_multicast or each.is_unspecified:
            raise Forbidden("sessions do not reach %s" % each)
        if _is_own(str(each)):
            raise Forbidden("sessions do not reach %s: it is this machine" % each)


def _is_own(address: str) -> bool:
    """Whether this machine has the address: who has it may listen on it."""
    family = socket.AF_INET6 if ":" in address else socket.AF_INET
    try:
        with socket.socket(family, socket.SOCK_DGRAM) as probe:
            probe.bind((address, 0))
    except OSError:
        return False
    return True


def _parsed(head: bytes) -> Tuple[bytes, str, int, bytes]:
    """Method, host, port, and the head as the host itself gets it. Raises ValueError."""
    line, _, fields = head.partition(b"\r\n")
    method, target, version = line.split(b" ")
    if method == b"CONNECT":
        host, port = _host_port(target.decode("ascii"), 0)
        return method, host, port, b""
    if not target.lower().startswith(b"http://"):
        raise ValueError("no http address")
    place, slash, path = target[7:].partition(b"/")
    host, port = _host_port(place.rpartition(b"@")[2].decode("ascii"), 80)
    kept = [each for each in fields.split(b"\r\n") if each and each.partition(b":")[0].lower() not in _HOP]
    first = b"%s %s %s" % (method, slash + path or b"/", version)
    return method, host, port, b"\r\n".join([first, *kept, b"Connection: close", b"", b""])


def _host_port(text: str, default: int) -> Tuple[str, int]:
    host, colon, port = text.rpartition(":")
    if not colon or port.endswith("]"):
        host, port = text, str(default)
    host = host[1:-1] if host.startswith("[") and host.endswith("]") else host
    if not host or not port.isdigit() or not 0 < int(port) < 65536:
        raise ValueError("no address")
    return host, int(port)


def _say(writer: asyncio.StreamWriter, status: int, text: str) -> None:
    body = ("argosy: %s\n" % text).encode("utf-8", "replace")
    reason = {400: b"Bad Request", 403: b"Forbidden", 502: b"Bad Gateway"}[status]
    head = b"HTTP/1.1 %d %s\r\nContent-Type: text/plain\r\nContent-Length: %d\r\nConnection: close\r\n\r\n"
    if not writer.is_closing():
        writer.write(head % (status, reason, len(body)) + body)

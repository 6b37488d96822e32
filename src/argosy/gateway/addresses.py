"""Addresses of replicas, and which of them no table may name.

A gateway stands inside a private network, so whoever could choose its upstreams freely could read what only
machines inside may read: the metadata services of clouds above all. Those are refused, also when a name
resolves to them at the moment of connecting.
"""

from __future__ import annotations

import asyncio
import ipaddress
import socket
from collections.abc import Callable
from typing import Final, TypeVar

import msgspec

from argosy.model.routes import RouteTable, check_table

_Protocol = TypeVar("_Protocol", bound=asyncio.Protocol)

_REFUSED: Final = tuple(
    ipaddress.ip_network(text)
    for text in (
        "169.254.0.0/16",  # link-local, the metadata services of most clouds
        "fe80::/10",
        "fd00:ec2::/32",
        "fd20:ce::/32",
        "100.100.100.200/32",
        "192.0.0.192/32",
        "168.63.129.16/32",
        "0.0.0.0/8",
        "::/128",
        "224.0.0.0/4",
        "ff00::/8",
        "255.255.255.255/32",
    )
)
_KEEP_ALIVE: Final = (
    (socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1),
    (socket.IPPROTO_TCP, socket.TCP_KEEPIDLE, 20),
    (socket.IPPROTO_TCP, socket.TCP_KEEPINTVL, 5),
    (socket.IPPROTO_TCP, socket.TCP_KEEPCNT, 4),
    # Bytes that nobody acknowledges: keep-alive says nothing of these, and the kernel's own patience is long.
    (socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, 60_000),
)
_REFUSED_NAMES: Final = ("metadata", "metadata.google.internal", "metadata.goog", "instance-data")


class Address(msgspec.Struct, frozen=True, kw_only=True):
    """Where a replica listens: a unix socket, or a host and port."""

    path: str = ""
    host: str = ""
    port: int = 0

    def __str__(self) -> str:
        if self.path:
            return self.path
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"


def parse_address(text: str) -> Address:
    """`host:port`, `[v6]:port` or the path of a unix socket. Raises ValueError for what no replica may have.

    >>> str(parse_address("[::1]:8000"))
    '[::1]:8000'
    >>> parse_address("169.254.169.254:80")
    Traceback (most recent call last):
    ...
    ValueError: 169.254.169.254 belongs to the network itself, no replica is there
    """
    if text.startswith("/"):
        return Address(path=text)
    host, _, port = text.rpartition(":")
    host = host.removeprefix("[").removesuffix("]")
    if not host or not (port.isascii() and port.isdigit() and 0 < int(port) < 65536):
        raise ValueError(f"`{text}` is not HOST:PORT or the path of a socket")
    if host.lower().rstrip(".") in _REFUSED_NAMES:
        raise ValueError(f"{host} belongs to the network itself, no replica is there")
    literal = as_literal(host)
    if literal:
        check_ip(literal)
    return Address(host=literal or host, port=int(port))


def as_literal(host: str) -> str:
    """The IP address that a text is, also in the short and numeric forms that resolvers take; "": it is
    a name."""
    try:
        return str(ipaddress.ip_address(host))
    except ValueError:
        pass
    try:
        return socket.inet_ntoa(socket.inet_aton(host))
    except OSError:
        return ""


def check_ip(text: str) -> None:
    """Raises ValueError for an address that no replica may have."""
    ip = ipaddress.ip_address(text.partition("%")[0])
    mapped = getattr(ip, "ipv4_mapped", None) or getattr(ip, "sixtofour", None)
    for each in (ip, mapped):
        if each is not None and any(
            each in network for network in _REFUSED if network.version == each.version
        ):
            raise ValueError(f"{text} belongs to the network itself, no replica is there")


def table_faults(table: RouteTable, own_paths: tuple[str, ...] = ()) -> list[str]:
    """What is wrong with a table, in sentences: also replicas at places that no replica may have, and
    replicas that would be the gateway itself."""
    found = check_table(table)
    for service in table.services:
        for replica in (each for revision in service.revisions for each in revision.replicas):
            try:
                parse_address(replica.address)
            except ValueError as error:
                found.append(f"service `{service.name}`: replica `{replica.id}`: {error}")
            if replica.address in own_paths:
                found.append(f"service `{service.name}`: replica `{replica.id}` is the gateway's own socket")
    return found


async def connect_to(address: Address, factory: Callable[[], _Protocol]) -> _Protocol:
    """A connection. A name is resolved here and now, and what it resolves to is what is checked and
    used. Raises OSError."""
    loop = asyncio.get_running_loop()
    if address.path:
        _, protocol = await loop.create_unix_connection(factory, address.path)
        return protocol
    if as_literal(address.host):
        return await _dial(factory, address.host, address.port)
    found = await loop.getaddrinfo(address.host, address.port, type=socket.SOCK_STREAM)
    error: OSError = OSError(f"{address.host} has no address")
    for _, _, _, _, place in found[:4]:
        ip = str(place[0])
        try:
            check_ip(ip)
            return await _dial(factory, ip, address.port)
        except ValueError as refused:
            error = OSError(str(refused))
        except OSError as failed:
            error = failed
    raise error


async def _dial(factory: Callable[[], _Protocol], ip: str, port: int) -> _Protocol:
    """A connection on which the loss of the other machine is noticed, also in the middle of a silent
    stream."""
    transport, protocol = await asyncio.get_running_loop().create_connection(factory, ip, port)
    sock = transport.get_extra_info("socket")
    for level, option, value in _KEEP_ALIVE:
        sock.setsockopt(level, option, value)
    return protocol

"""Checks of every request over TCP before authentication: its host, its origin, its method. Pure.

A browser sends cookies to us for pages of others, too, and a name that anybody owns may lead to this
machine. So a request with a cookie proves that one of our own pages made it, and a request without a bearer
token names a host that is ours. No page of somebody else knows a token.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Final
from urllib.parse import urlsplit

import msgspec

from argosy.model.errors import ArgosyError

COOKIE: Final = "__Host-argosy"
METHODS: Final = frozenset(("GET", "HEAD", "POST", "PUT", "DELETE", "PATCH"))
#: `argosy.localhost` has cookies of its own; those of `localhost` are sent to all its ports.
_LOCAL: Final = ("localhost", "argosy.localhost", "127.0.0.1", "[::1]")

#: Of every answer: no page shows, frames or guesses what the API says.
HEADERS: Final = (
    (b"x-content-type-options", b"nosniff"),
    (b"referrer-policy", b"no-referrer"),
    (b"x-frame-options", b"DENY"),
    (b"cross-origin-resource-policy", b"same-origin"),
    (b"cross-origin-opener-policy", b"same-origin"),
)
#: Of answers that are no pages of ours.
API_POLICY: Final = (b"content-security-policy", b"default-src 'none'; frame-ancestors 'none'")
LASTING_TLS: Final = (b"strict-transport-security", b"max-age=31536000")


class DoorRules(msgspec.Struct, frozen=True, kw_only=True):
    """Names under which this server is reached, and proxies that tell the truth about who comes."""

    hosts: frozenset[str] = frozenset()  # without ports, small letters
    origins: frozenset[str] = frozenset()  # of the public address: `https://argosy.example`
    proxies: tuple[str, ...] = ()  # networks whose X-Forwarded-For counts

    def is_ours(self, host: str, local_address: str = "") -> bool:
        """Whether `Host` names this server. `local_address`: at which the request came in: who used the bare
        address needs no name."""
        name = host_name(host)
        if name in _LOCAL or name in self.hosts:
            return True
        plain = name.strip("[]")
        return bool(local_address) and plain == local_address.partition("%")[0]

    def address_of(self, peer: str, forwarded: str) -> str:
        """Who comes: the last address of X-Forwarded-For that no trusted proxy wrote about another."""
        if not self.proxies or not forwarded:
            return peer
        import ipaddress

        address = peer
        for each in reversed([part.strip() for part in forwarded.split(",")]):
            if not self._is_proxy(address):
                break
            try:
                address = str(ipaddress.ip_address(each.strip("[]")))
            except ValueError:
                break
        return address

    def _is_proxy(self, address: str) -> bool:
        import ipaddress

        try:
            found = ipaddress.ip_address(address)
        except ValueError:
            return False
        return any(found in ipaddress.ip_network(each) for each in self.proxies)


def check_host(rules: DoorRules, host: str, local_address: str, *, has_bearer: bool) -> None:
    """Raises `wrong-host`: a name that anybody can point at this machine is none of ours. What names no host
    is no browser."""
    if has_bearer or not host or rules.is_ours(host, local_address):
        return
    raise ArgosyError(
        "wrong-host",
        f"this server is not called `{host[:100]}`",
        hint="ARGOSY_PUBLIC_URL and ARGOSY_HOSTS say its names; programs send a token",
    )


def check_method(method: str) -> None:
    """Raises `wrong-method`."""
    if method not in METHODS:
        raise ArgosyError(
            "wrong-method", f"there is no method `{method[:20]}` here", hint="see docs/openapi.json"
        )


def check_page(rules: DoorRules, headers: Mapping[str, str], *, is_websocket: bool) -> None:
    """Whether a request with our cookie comes from a page of ours. Raises `foreign-page`.

    The page says so by `Origin`, which no page can forge. Where a browser leaves it out (a plain GET), it
    says `Sec-Fetch-Site: same-origin`; and the header that our pages send makes every other site ask first,
    which we never answer. A WebSocket has neither of these two: there `Origin` is a must."""
    origin = headers.get("origin")
    if origin is not None:
        if not _is_own(rules, origin, headers.get("host", "")):
            raise _foreign(f"the page of `{origin[:100]}`")
    elif is_websocket or headers.get("sec-fetch-site") != "same-origin":
        raise _foreign("a page that does not say where it is from")
    if not is_websocket and "x-argosy-api" not in headers:
        raise _foreign("a page that is not ours")


def _is_own(rules: DoorRules, origin: str, host: str) -> bool:
    parts = urlsplit(origin)
    if parts.scheme not in ("http", "https") or origin != f"{parts.scheme}://{parts.netloc}":
        return False
    if origin.lower() in rules.origins:
        return True
    if host_name(parts.netloc) not in _LOCAL and parts.scheme == "http" and rules.origins:
        return False  # its public address is encrypted: a plain page of that name is somebody's in between
    return bool(host) and parts.netloc.lower() == host.lower() and rules.is_ours(host)


def host_name(host: str) -> str:
    """Without the port, in small letters.

    >>> host_name("Argosy.Example:7421"), host_name("[::1]:80"), host_name("a:b:c")
    ('argosy.example', '[::1]', 'a:b:c')
    """
    name, colon, port = host.lower().rpartition(":")
    if colon and port.isdigit() and (name.startswith("[") or ":" not in name):
        return name.rstrip(".")
    return host.lower().rstrip(".")


def cookie_of(header: str) -> str:
    """The value of our cookie; "" when there is none, or when there are two (one was planted)."""
    found = [
        value
        for name, _, value in (part.strip().partition("=") for part in header.split(";"))
        if name == COOKIE
    ]
    return found[0] if len(found) == 1 else ""


def set_cookie(secret: str, max_age_s: int) -> bytes:
    """The header's value; an empty secret takes the cookie away."""
    age = max_age_s if secret else 0
    return f"{COOKIE}={secret}; Path=/; Secure; HttpOnly; SameSite=Strict; Max-Age={age}".encode()


def parse_rules(environ: Mapping[str, str], names: Iterable[str] | None = None) -> DoorRules:
    """From ARGOSY_PUBLIC_URL, ARGOSY_HOSTS and ARGOSY_TRUSTED_PROXIES. `names`: of this machine. Raises
    `usage`."""
    hosts = {each.lower() for each in (names if names is not None else _own_names()) if each}
    hosts |= {host_name(each) for each in environ.get("ARGOSY_HOSTS", "").replace(",", " ").split()}
    origins = set()
    url = environ.get("ARGOSY_PUBLIC_URL", "")
    if url:
        parts = urlsplit(url)
        hosts.add(host_name(parts.netloc))
        origins.add(f"{parts.scheme}://{parts.netloc}".lower())
    proxies = tuple(environ.get("ARGOSY_TRUSTED_PROXIES", "").replace(",", " ").split())
    for each in proxies:
        import ipaddress

        try:
            ipaddress.ip_network(each)
        except ValueError:
            raise ArgosyError(
                "usage",
                f"ARGOSY_TRUSTED_PROXIES: `{each}` is no network",
                hint="write addresses or networks, such as `10.0.0.0/8`",
            ) from None
    return DoorRules(hosts=frozenset(hosts), origins=frozenset(origins), proxies=proxies)


def _own_names() -> tuple[str, ...]:
    import socket

    name = socket.gethostname()
    return (name, name.partition(".")[0])


def _foreign(who: str) -> ArgosyError:
    return ArgosyError(
        "foreign-page",
        f"{who} asked with your sign-in, and only pages of this server may",
        hint="open the server's own page; programs use a token",
    )

"""How a tunnel begins: an HTTP/1.1 `Upgrade` with a token, so that it passes what passes HTTPS.

    GET /tunnel/NAME HTTP/1.1               HTTP/1.1 101 Switching Protocols
    Upgrade: argosy-tunnel/1         or     HTTP/1.1 401 Unauthorized, and one line that says why
    Authorization: Bearer TOKEN
    Argosy-Serves: gateway

Tokens are 256 bits of chance; the accepting side keeps their SHA-256 only, one line for each name in a file.
"""

from __future__ import annotations

import hashlib
import hmac
import re
from collections.abc import Mapping
from typing import Final, Literal, cast, get_args

import msgspec

PROTOCOL: Final = "argosy-tunnel/1"
HEAD_MAX: Final = 4096
_LABEL: Final = r"[a-z0-9](?:[a-z0-9-]{0,61}[a-z0-9])?"
NAME: Final = re.compile(rf"{_LABEL}(?:/{_LABEL})?")
_HOST: Final = re.compile(rf"(?:\*\.)?{_LABEL}(?:\.{_LABEL})*")
_REQUEST: Final = re.compile(rb"GET /tunnel/([a-z0-9/-]{1,130}) HTTP/1\.1\r\n((?:[^\r\n]+\r\n)*)\r\n")
_ANSWER: Final = re.compile(rb"HTTP/1\.1 (\d{3}) [^\r\n]*\r\n((?:[^\r\n]+\r\n)*)\r\n")

#: What is behind a tunnel: a gateway of Argosy, which checks keys itself; a server that may answer anybody;
#: a server that is only for programs of the accepting machine.
Serves = Literal["gateway", "public", "private"]


class Allowed(msgspec.Struct, frozen=True, kw_only=True):
    """A name that a tunnel may have: the SHA-256 of its token, and hosts whose requests go through it."""

    name: str
    sha256: str  # hexadecimal
    hosts: tuple[str, ...] = ()


class Asked(msgspec.Struct, frozen=True, kw_only=True):
    """What the opening side says."""

    name: str
    token: str
    serves: Serves = "private"


class NotGreeted(Exception):
    """This is no greeting, or it is refused; `status` is the one of HTTP."""

    def __init__(self, status: int, why: str) -> None:
        super().__init__(why)
        self.status = status


def sha256_of(token: str) -> str:
    """As the accepting side keeps it."""
    return hashlib.sha256(token.encode()).hexdigest()


def parse_allowed(text: str) -> dict[str, Allowed]:
    """The lines `NAME SHA256 [HOST]...` of a file; `#` begins a comment. Raises ValueError with a sentence.

    >>> parse_allowed("web " + 64 * "0" + " web.example.org")["web"].hosts
    ('web.example.org',)
    >>> parse_allowed("web secret")
    Traceback (most recent call last):
    ...
    ValueError: line 1: after `web` comes no SHA-256; `argosy serve tunnel token web` makes a line
    """
    found: dict[str, Allowed] = {}
    for number, line in enumerate(text.splitlines(), 1):
        words = line.partition("#")[0].split()
        if not words:
            continue
        name, digest, hosts = words[0], (words[1:] or [""])[0], tuple(words[2:])
        if NAME.fullmatch(name) is None:
            raise ValueError(f"line {number}: `{name}` is no name of a service")
        if re.fullmatch(r"[0-9a-f]{64}", digest) is None:
            raise ValueError(
                f"line {number}: after `{name}` comes no SHA-256; "
                f"`argosy serve tunnel token {name}` makes a line"
            )
        wrong = [host for host in hosts if _HOST.fullmatch(host) is None]
        if wrong:
            raise ValueError(f"line {number}: `{wrong[0]}` is no host in lower case")
        if name in found:
            raise ValueError(f"line {number}: `{name}` has a line already")
        found[name] = Allowed(name=name, sha256=digest, hosts=hosts)
    return found


def render_request(asked: Asked, host: str) -> bytes:
    """What the opening side sends first."""
    return (
        f"GET /tunnel/{asked.name} HTTP/1.1\r\nHost: {host}\r\nConnection: Upgrade\r\nUpgrade: {PROTOCOL}\r\n"
        f"Authorization: Bearer {asked.token}\r\nArgosy-Serves: {asked.serves}\r\n\r\n"
    ).encode()


def parse_request(head: bytes, allowed: Mapping[str, Allowed]) -> Asked:
    """A head up to and with its empty line. Raises NotGreeted. An unknown name and a wrong token are told in
    the same words."""
    match = _REQUEST.fullmatch(head)
    if match is None:
        raise NotGreeted(404, "tunnels are accepted here, and nothing else")
    fields = _fields(match[2])
    if fields.get("upgrade", "").lower() != PROTOCOL:
        raise NotGreeted(426, f"tunnels are accepted here, and nothing else: upgrade to {PROTOCOL}")
    name, (scheme, _, token) = match[1].decode(), fields.get("authorization", "").partition(" ")
    known = allowed.get(name)
    right = hmac.compare_digest(sha256_of(token.strip()), known.sha256 if known else "0" * 64)
    if known is None or not right or scheme.lower() != "bearer":
        raise NotGreeted(401, f"this token is not for `{name}`: look at the file of tokens there")
    serves = fields.get("argosy-serves", "private")
    if serves not in get_args(Serves):
        raise NotGreeted(400, "`Argosy-Serves` is gateway, public or private")
    return Asked(name=name, token="", serves=cast(Serves, serves))


def render_answer(refused: NotGreeted | None = None) -> bytes:
    """What the accepting side sends first."""
    if refused is None:
        upgrade = f"Connection: Upgrade\r\nUpgrade: {PROTOCOL}\r\n\r\n"
        return f"HTTP/1.1 101 Switching Protocols\r\n{upgrade}".encode()
    body = f"{refused}\n".encode()
    line = f"HTTP/1.1 {refused.status} Refused\r\nConnection: close\r\nContent-Type: text/plain\r\n"
    return f"{line}Content-Length: {len(body)}\r\n\r\n".encode() + body


def check_answer(head: bytes, rest: bytes) -> None:
    """Raises NotGreeted unless the other side takes the tunnel. `rest`: what came after the head."""
    match = _ANSWER.fullmatch(head)
    if match is None:
        raise NotGreeted(502, "what answers there takes no tunnels")
    if int(match[1]) != 101 or _fields(match[2]).get("upgrade", "").lower() != PROTOCOL:
        said = rest.split(b"\n", 1)[0].decode("utf-8", "replace").strip()[:200]
        raise NotGreeted(int(match[1]), said or "what answers there takes no tunnels")


def _fields(block: bytes) -> dict[str, str]:
    pairs = (line.partition(b":") for line in block.split(b"\r\n")[:-1])
    return {name.decode("latin-1").lower(): value.decode("latin-1").strip() for name, _, value in pairs}

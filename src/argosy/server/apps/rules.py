"""Which requests reach an app, and what of them. Pure: heads in, verdicts out.

Every app has a host name of its own, `APP--SESSION.SUFFIX`: the browser keeps its cookies, scripts and
storage apart from Argosy's and from those of other apps. A request gets in by a cookie that only this host
has; what another site makes a browser send is refused; what belongs to Argosy is taken out before the app
sees it.
"""

from __future__ import annotations

import re
from typing import Final, NamedTuple

import msgspec

from argosy.gateway.heads import AnswerHead, RequestHead

COOKIE: Final = b"__Host-argosy-app"
OWN_PATHS: Final = b"/.argosy/"
ENTER: Final = b"/.argosy/enter"
CODE_BYTES_MAX: Final = 4096
_LABEL: Final = re.compile(r"([a-z0-9](?:-?[a-z0-9])*)--([a-z0-9](?:-?[a-z0-9])*)")
_OURS: Final = re.compile(rb"\s*(?:__(?:Host|Secure)-)?argosy", re.IGNORECASE)
_READING: Final = frozenset((b"GET", b"HEAD"))
_SHORT_BYTES: Final = 32
_TYPED_BYTES: Final = 8  # as Jupyter's terminal sends a key: ["stdin","a"]
_TEXT: Final = 0x81  # a whole frame of text
_BINARY: Final = 0x82
_DESKTOP: Final = {
    4: 8,
    5: 6,
    255: 12,
}  # what VNC sends for a key, the pointer, a key with its scan code: bytes
_HEARTBEATS: Final = (b"ping", b"pong", b"alive", b"heartbeat")
_METHODS: Final = frozenset(
    (
        b"GET",
        b"HEAD",
        b"POST",
        b"PUT",
        b"PATCH",
        b"DELETE",
        b"OPTIONS",
        b"PROPFIND",
        b"MKCOL",
        b"MOVE",
        b"COPY",
    )
)
#: Fields in which programs keep names of users: an app would believe them.
_IDENTITIES: Final = (b"x-remote-user", b"remote-user", b"x-auth-request-user", b"kubeflow-userid", b"x-user")


class Place(NamedTuple):
    """What a host name means: the app of a session, or a port of it."""

    app: str
    session: str

    @property
    def port(self) -> int:
        """Of the session's own network; 0: its app."""
        return int(self.app) if self.app.isdigit() and len(self.app) < 6 and int(self.app) < 65536 else 0


class Refusal(NamedTuple):
    status: int
    code: str
    text: str


_NO_UPGRADE: Final = Refusal(
    426,
    "no-websocket",
    "A WebSocket was asked for, and something on the way does not pass it: a proxy before this server must "
    "pass the fields Upgrade and Connection.",
)


def place_of(host: bytes, suffixes: tuple[str, ...]) -> Place | None:
    """What a host name (small letters, without a port) names; None: it is no app's.

    >>> place_of(b"jupyter--lab.localhost", ("localhost",))
    Place(app='jupyter', session='lab')
    >>> place_of(b"jupyter--lab.evil.example", ("localhost",)) is None
    True
    """
    text = host.decode("latin-1")
    for suffix in suffixes:
        label = text.removesuffix("." + suffix)
        if label != text and len(label) <= 63:
            match = _LABEL.fullmatch(label)
            return Place(match[1], match[2]) if match is not None else None
    return None


def is_use(data: bytes) -> bool:
    """Whether what a browser sends over a WebSocket is a sign that somebody is there. Short frames mostly are
    not: pings, words by which editors stay connected, a desktop's questions for its next picture. A key that
    is typed is one, too, and so is a pointer that moves on a desktop.

    >>> is_use(bytes(100)), is_use(b"\\x89\\x80mask"), is_use(b"\\x81\\x8d\\0\\0\\0\\0" + b'["stdin","a"]')
    (True, False, True)
    """
    if len(data) > _SHORT_BYTES:
        return True
    if len(data) <= 6 or not data[1] & 0x80:
        return False
    text = bytes(byte ^ data[2 + at % 4] for at, byte in enumerate(data[6:]))
    if data[0] == _BINARY:
        return _DESKTOP.get(text[0]) == len(text)
    if len(text) < _TYPED_BYTES or data[0] != _TEXT:
        return False
    return not any(word in text.lower() for word in _HEARTBEATS)


def own_origin(head: RequestHead, *, secure: bool) -> bytes:
    """The origin of the pages of this app, as browsers write it."""
    return (b"https://" if secure else b"http://") + (head.get(b"host") or b"").lower()


def crosses(head: RequestHead, *, secure: bool) -> Refusal | None:
    """Why this request was made by another site, and so is refused; None: it was not.

    `Origin` decides where there is one: browsers send it with everything that can change something, and with
    WebSockets always. Without one `Sec-Fetch-Site` decides; a link that a person follows may come from
    anywhere.
    """
    if head.method not in _METHODS:
        return Refusal(405, "method-not-allowed", "this method is not passed on to apps")
    origin, site = head.get(b"origin"), head.get(b"sec-fetch-site")
    if origin is not None:
        if origin.lower() != own_origin(head, secure=secure):
            return Refusal(403, "forbidden", "another site has made this request")
        return _NO_UPGRADE if head.get(b"sec-websocket-key") is not None and not head.upgrade else None
    if head.upgrade:
        return Refusal(403, "forbidden", "a WebSocket to an app tells its origin")
    if head.get(b"sec-websocket-key") is not None:
        return _NO_UPGRADE
    if site is None or site == b"same-origin":
        return None
    if head.method in _READING and (site == b"none" or _is_followed(head)):
        return None
    return Refusal(403, "forbidden", "another site has made this request")


def _is_followed(head: RequestHead) -> bool:
    """A link, which fills the window: nothing of the page can be read by the other site."""
    return head.get(b"sec-fetch-mode") == b"navigate" and head.get(b"sec-fetch-dest") == b"document"


def ticket_of(head: RequestHead) -> bytes | None:
    """The one cookie that lets in; two of the name are none."""
    found = [
        value
        for pair in (head.get(b"cookie") or b"").split(b";")
        for key, equals, value in [pair.strip(b" \t").partition(b"=")]
        if equals and key == COOKIE
    ]
    return found[0] if len(found) == 1 and found[0] else None


def passed_on(head: RequestHead) -> bytes:
    """The fields that the app sees: without what belongs to Argosy. Other cookies stay byte for byte."""
    kept = []
    for line in head.fields.split(b"\r\n")[:-1]:
        name, _, value = line.partition(b":")
        plain = name.lower().replace(b"_", b"-")
        if plain == b"cookie":
            others = others_cookies(value)
            if not others:
                continue
            line = name + b":" + others
        elif (
            (plain == b"authorization" and b"argosy" in value.lower())
            or plain in _IDENTITIES
            or plain.startswith((b"x-argosy", b"x-api-key"))
        ):
            continue
        kept.append(line)
    return b"".join(line + b"\r\n" for line in kept)


def others_cookies(value: bytes) -> bytes:
    """A field of cookies without those that belong to Argosy; b"" where no other is in it."""
    pairs = [pair for pair in value.split(b";") if _OURS.match(pair) is None]
    return b";".join(pairs) if any(pair.strip() for pair in pairs) else b""


def answered(head: AnswerHead) -> AnswerHead:
    """The head of an app's answer as the browser sees it: its cookies stay on its own host, and it sets
    none of ours."""
    if b"set-cookie" not in head.fields.lower():
        return head
    kept = []
    for line in head.fields.split(b"\r\n")[:-1]:
        name, _, value = line.partition(b":")
        if name.lower() == b"set-cookie":
            if _OURS.match(value) is not None:
                continue
            parts = [part for part in value.split(b";") if not part.strip().lower().startswith(b"domain")]
            line = name + b":" + b";".join(parts)
        kept.append(line)
    return head.with_fields(b"".join(line + b"\r\n" for line in kept))


def set_cookie(secret: bytes, seconds: int) -> bytes:
    """A line of an answer. Strict would be missing on the very redirect that follows."""
    return b"set-cookie: %b=%b; Path=/; Max-Age=%d; Secure; HttpOnly; SameSite=Lax\r\n" % (
        COOKIE,
        secret,
        seconds,
    )


class Entry(msgspec.Struct, frozen=True):
    """What the form of the entrance carries."""

    code: bytes
    next: bytes = b"/"


def parse_entry(body: bytes) -> Entry | None:
    """The form `code=…&next=…`; None: it is none."""
    fields: dict[bytes, bytes] = {}
    for pair in body.split(b"&"):
        key, equals, value = pair.partition(b"=")
        if not equals or key in fields:
            return None
        fields[key] = value
    code = fields.pop(b"code", b"")
    then = _unquoted(fields.pop(b"next", b"/"))
    if fields or not re.fullmatch(rb"[A-Za-z0-9_-]{20,100}", code):
        return None
    return Entry(code, then if is_local_path(then) else b"/")


def is_local_path(path: bytes) -> bool:
    """Whether a redirect to it stays on this host."""
    return re.fullmatch(rb"/(?![/\\])[\x21-\x7e]*", path) is not None and b"\\" not in path


def _unquoted(text: bytes) -> bytes:
    return re.sub(rb"%([0-9A-Fa-f]{2})", lambda match: bytes([int(match[1], 16)]), text.replace(b"+", b" "))

"""Heads of HTTP/1.1 messages: checked once against one strict grammar, and written anew.

What is ambiguous is refused, because two programs might read it in two ways (RFC 9112, section 11.2): a
length told twice, unknown transfer codings, folded lines, bare line feeds, dot segments. Fields of one hop,
and those that only the gateway may set, are left out of `fields`, which is what the next program sees.
Programs that ask again and again send the same head each time, so results are kept and parsing costs one
look-up.
"""

from __future__ import annotations

import functools
import hashlib
import re
from typing import Final

HEAD_MAX: Final = 32 * 1024
CHUNKED: Final = -1  # as a length: the body comes in chunks
UNTIL_CLOSE: Final = -2  # as a length: the body ends with the connection
_MEMO_BYTES: Final = 2048  # larger heads are not kept
_MEMO: Final = 512

_TOKEN: Final = rb"[!#$%&'*+.^_`|~0-9A-Za-z-]"
_FIELDS: Final = rb"((?:" + _TOKEN + rb"+:[^\x00-\x08\x0a-\x1f\x7f]*\r\n)*)\r\n"
_REQUEST: Final = re.compile(rb"(" + _TOKEN + rb"+) ([\x21-\x7e]+) HTTP/1\.([01])\r\n" + _FIELDS)
_ANSWER: Final = re.compile(rb"HTTP/1\.([01]) ([1-5]\d\d)(?: [^\x00-\x08\x0a-\x1f\x7f]*)?\r\n" + _FIELDS)
_ABSOLUTE: Final = re.compile(rb"(?i)https?://([^/?#@]+)(?=[/?]|$)")
_HOST: Final = re.compile(rb"(?:[0-9A-Za-z_](?:[0-9A-Za-z_.-]{0,253})|\[[0-9A-Fa-f:.]+\])(?::\d{1,5})?")
#: `.` and `..` as a segment, also encoded; NUL; backslashes, which some programs read as slashes; fragments.
_TRICKY: Final = re.compile(rb"(?i)(?:/|%2f|%5c)(?:\.|%2e){1,2}(?=/|%2f|%5c|;|%3b|$)|%00|%0[ad]|\\|%5c|#")
_EMPTY: Final = b""

_HOP: Final = frozenset(
    (b"connection", b"keep-alive", b"te", b"trailer", b"upgrade", b"http2-settings", b"proxy-connection")
)
_LENGTHS: Final = frozenset((b"content-length", b"transfer-encoding"))
#: Only the gateway says these to replicas.
_OURS: Final = frozenset((b"forwarded", b"x-real-ip", b"proxy-authorization", b"proxy", b"x-original-url"))
_OUR_PREFIXES: Final = (b"x-forwarded-", b"x-argosy-", b"x-original-", b"x-rewrite-")
#: `Connection` cannot take these away.
_ESSENTIAL: Final = frozenset((b"host", b"authorization", b"cookie", b"origin", *_LENGTHS))
_UPGRADES: Final = frozenset((b"websocket",))


class BadHead(Exception):
    """A head that is refused, with the status and the sentence that the client gets."""

    def __init__(self, status: int, text: str) -> None:
        super().__init__(text)
        self.status = status
        self.text = text


class RequestHead:
    """The head of one request. It is shared by requests with equal heads, so nobody changes it."""

    __slots__ = (
        "_digest", "_values", "_without_key", "expects", "fields", "forwarded_for", "forwarded_proto", "host",
        "keep", "length", "method", "minor", "passed", "path", "place", "query", "start", "upgrade",
    )  # fmt: skip

    def __init__(self, method: bytes, path: bytes, query: bytes, minor: int) -> None:
        self.method = method
        self.path = path  # without the query
        self.query = query  # with its question mark, or empty
        self.minor = minor  # 0 or 1 of HTTP/1.x
        self.host = b""  # in lower case, without the port
        self.length = 0  # of the body; or CHUNKED
        self.keep = minor == 1  # the connection may be used again
        self.upgrade = b""  # `websocket`
        self.expects = False  # it waits for `100 Continue`
        self.fields = b""  # what is passed on, each line with its CRLF
        self.forwarded_for = b""  # as the client said: only true when the client is our own edge
        self.forwarded_proto = b""
        self.passed = b""  # by another gateway, as the client said: only true at the socket for those
        self._values: dict[bytes, bytes] | None = None
        self._without_key: bytes | None = None
        self._digest: bytes | None = None
        #: What was found out about it before, by who found it out: equal heads have the same place and start.
        self.place: tuple[object, object] = (None, None)
        self.start: tuple[object, bytes] = (None, b"")

    def get(self, name: bytes) -> bytes | None:
        """The value of a field that is passed on; `name` in lower case. Several are joined by commas,
        cookies by semicolons."""
        if self._values is None:
            values: dict[bytes, bytes] = {}
            for line in self.fields.split(b"\r\n")[:-1]:
                key, _, value = line.partition(b":")
                key, value = key.lower(), value.strip(b" \t")
                if key in values:
                    value = values[key] + (b"; " if key == b"cookie" else b", ") + value
                values[key] = value
            self._values = values
        return self._values.get(name)

    def cookie(self, name: bytes) -> bytes | None:
        """The value of a cookie."""
        for pair in (self.get(b"cookie") or b"").split(b";"):
            key, equals, value = pair.strip(b" \t").partition(b"=")
            if equals and key == name:
                return value
        return None

    def key_digest(self) -> bytes:
        """SHA-256 of the key that it shows, as `Authorization: Bearer` or `X-Api-Key`; empty: none."""
        if self._digest is None:
            kind, _, shown = (self.get(b"authorization") or b"").partition(b" ")
            shown = shown.strip(b" ") if kind.lower() == b"bearer" else self.get(b"x-api-key") or b""
            self._digest = hashlib.sha256(shown).digest() if shown else b""
        return self._digest

    def without_key(self) -> bytes:
        """The fields that are passed on, but for those that hold an API key."""
        if self._without_key is None:
            self._without_key = self.without(b"authorization", b"x-api-key")
        return self._without_key

    def without(self, *names: bytes) -> bytes:
        """The fields that are passed on, but for these (in lower case)."""
        lines = self.fields.split(b"\r\n")[:-1]
        kept = [line for line in lines if line.partition(b":")[0].lower() not in names]
        return b"".join(line + b"\r\n" for line in kept)


class AnswerHead:
    """The head of one answer, shared as `RequestHead` is."""

    __slots__ = ("content_type", "fields", "keep", "length", "line", "status", "switches")

    def __init__(self, status: int, line: bytes) -> None:
        self.status = status
        self.line = line  # as the client gets it, with its CRLF
        self.length = UNTIL_CLOSE
        self.keep = False
        self.fields = b""
        self.switches = False  # to another protocol
        self.content_type = b""

    def with_fields(self, fields: bytes) -> AnswerHead:
        """The same answer with these fields."""
        head = AnswerHead(self.status, self.line)
        head.length, head.keep, head.switches = self.length, self.keep, self.switches
        head.content_type, head.fields = self.content_type, fields
        return head


def parse_request(data: bytes) -> RequestHead:
    """A whole head, up to and with its empty line. Raises BadHead."""
    return _kept_request(data) if len(data) <= _MEMO_BYTES else _parse_request(data)


def parse_answer(data: bytes) -> AnswerHead:
    """A whole head of an answer. Raises BadHead with 502."""
    return _kept_answer(data) if len(data) <= _MEMO_BYTES else _parse_answer(data)


def _parse_request(data: bytes) -> RequestHead:
    match = _REQUEST.fullmatch(data)
    if match is None:
        raise _why_not(data)
    method, target, minor, block = match.groups()
    path, query, authority = _parse_target(method, target)
    head = RequestHead(method, path, query, int(minor))
    fields = _Fields(block)
    hosts = fields.hosts
    if len(hosts) != 1 and (head.minor == 1 or hosts):
        raise BadHead(400, "the request needs exactly one `Host`")
    host = hosts[0] if hosts else authority
    if host and _HOST.fullmatch(host) is None:
        raise BadHead(400, "the `Host` is not the name of a host")
    if authority and authority.lower() != host.lower():
        raise BadHead(400, "the address of the request and its `Host` are not the same")
    head.host = _bare_host(host)
    head.length = fields.length(400) if fields.tells_length else 0
    if fields.chunked and head.minor == 0:
        raise BadHead(400, "HTTP/1.0 has no chunks")
    head.keep = head.minor == 1 and b"close" not in fields.connection
    head.expects = fields.expects and head.minor == 1 and head.length != 0
    if fields.upgrade and b"upgrade" in fields.connection and fields.upgrade in _UPGRADES:
        if method != b"GET" or head.length:
            raise BadHead(400, "a request that changes the protocol is a GET without a body")
        head.upgrade = fields.upgrade
    head.forwarded_for, head.forwarded_proto = fields.forwarded_for, fields.forwarded_proto
    head.passed = fields.passed
    head.fields = fields.passed_on(request=True)
    return head


def _parse_target(method: bytes, target: bytes) -> tuple[bytes, bytes, bytes]:
    """Path, query, and the host where the target tells one."""
    if method == b"CONNECT":
        raise BadHead(405, "CONNECT is not served here")
    authority = b""
    if target[:1] != b"/":
        absolute = _ABSOLUTE.match(target)
        if absolute is None:
            raise BadHead(400, "the request needs a path that begins with `/`")
        authority = absolute[1]
        target = target[absolute.end() :]
        if target[:1] != b"/":
            target = b"/" + target
    path, mark, query = target.partition(b"?")
    if _TRICKY.search(path) is not None or b"#" in query:
        raise BadHead(400, "the path has dot segments, backslashes or control characters")
    return path, mark + query, authority


def _bare_host(host: bytes) -> bytes:
    if host.endswith(b"]"):
        return host.lower()
    name, colon, port = host.rpartition(b":")
    bare = name if colon and port.isdigit() else host
    return bare.lower().rstrip(b".")


def _why_not(data: bytes) -> BadHead:
    if data[:14] == b"PRI * HTTP/2.0":
        return BadHead(505, "HTTP/2 is spoken at the edge, not here")
    return BadHead(400, "this is not a request of HTTP/1.1")


class _Fields:
    """One pass over the lines of a head."""

    def __init__(self, block: bytes, *, status: int = 400) -> None:
        self.hosts: list[bytes] = []
        self.connection: set[bytes] = set()
        self.upgrade = b""
        self.expects = False
        self.chunked = False
        self.tells_length = False
        self.forwarded_for = b""
        self.forwarded_proto = b""
        self.passed = b""
        self.content_type = b""
        self._lengths: list[bytes] = []
        self._codings: list[bytes] = []
        self._kept: list[tuple[bytes, bytes]] = []
        for line in block.split(b"\r\n")[:-1]:
            name, _, value = line.partition(b":")
            self._take(name.lower(), value.strip(b" \t"), line)
        self.chunked = bool(self._codings)
        self.tells_length = self.chunked or bool(self._lengths)
        if self.chunked and self._lengths:
            raise BadHead(status, "the body has both a length and chunks")

    def _take(self, name: bytes, value: bytes, line: bytes) -> None:
        if name == b"content-length":
            self._lengths.append(value)
        elif name == b"transfer-encoding":
            self._codings.append(value.lower())
        elif name == b"host":
            self.hosts.append(value)
        elif name == b"connection":
            self.connection.update(word.strip(b" \t") for word in value.lower().split(b","))
        elif name == b"upgrade":
            self.upgrade = value.lower()
        elif name == b"expect":
            self.expects = value.lower() == b"100-continue"
        elif name == b"content-type":
            self.content_type = value.lower()
        elif name == b"x-forwarded-for":
            self.forwarded_for = value
        elif name == b"x-forwarded-proto":
            self.forwarded_proto = value
        elif name == b"x-argosy-passed":
            self.passed = value
        self._kept.append((name, line))

    def length(self, status: int) -> int:
        """Of the body; CHUNKED; UNTIL_CLOSE where none is told. Raises BadHead with `status`."""
        if self._codings:
            if self._codings != [b"chunked"]:
                raise BadHead(status, "the transfer coding is not `chunked`")
            return CHUNKED
        if not self._lengths:
            return UNTIL_CLOSE
        if len(self._lengths) > 1:
            raise BadHead(status, "the length of the body is told twice")
        told = self._lengths[0]
        if not told.isdigit() or len(told) > 18:
            raise BadHead(status, "the length of the body is not a number")
        return int(told)

    def passed_on(self, *, request: bool, without: frozenset[bytes] = frozenset()) -> bytes:
        """The lines for the next program."""
        named = (self.connection - _ESSENTIAL) | without
        kept = []
        for name, line in self._kept:
            plain = name.replace(b"_", b"-")
            if plain in _HOP or name in named or plain.startswith(b"x-argosy-"):
                continue
            if request and (plain in _OURS or plain.startswith(_OUR_PREFIXES)):
                continue
            if plain != name and (plain in _LENGTHS or plain in _ESSENTIAL):
                continue  # servers that read `_` as `-` would take it for the real one
            kept.append(line)
        return b"\r\n".join(kept) + b"\r\n" if kept else _EMPTY


def _parse_answer(data: bytes) -> AnswerHead:
    match = _ANSWER.fullmatch(data)
    if match is None:
        raise BadHead(502, "the replica's answer is not HTTP/1.1")
    minor, status, block = match.groups()
    fields = _Fields(block, status=502)
    line = b"HTTP/1.1" + data[8 : data.index(b"\r\n") + 2]
    head = AnswerHead(int(status), line)
    head.length = fields.length(502)
    head.keep = minor == b"1" and b"close" not in fields.connection
    head.switches = head.status == 101
    head.content_type = fields.content_type
    has_none = head.status < 200 or head.status == 204
    if has_none or head.status == 304:
        head.length = 0
    head.fields = fields.passed_on(request=False, without=_LENGTHS if has_none else frozenset())
    if head.switches and fields.upgrade:
        head.fields += b"connection: upgrade\r\nupgrade: " + fields.upgrade + b"\r\n"
    return head


_kept_request: Final = functools.lru_cache(maxsize=_MEMO)(_parse_request)
_kept_answer: Final = functools.lru_cache(maxsize=_MEMO)(_parse_answer)

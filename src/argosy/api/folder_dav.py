"""Files of a folder as WebDAV, as a program that mounts it speaks: one connection, wherever it comes from.

Who asks has to know a token that only the program was told. What may be done is decided by whoever answers
(`DavFiles`) with each call.
"""

from __future__ import annotations

import hmac
from collections.abc import Callable, Iterator, Sequence
from email.utils import formatdate
from http.server import BaseHTTPRequestHandler
from typing import Any, Final, Protocol
from urllib.parse import quote, unquote, urlsplit
from xml.sax.saxutils import escape

from argosy.api.folders import FileView
from argosy.model.errors import ArgosyError

_PIECE: Final = 1 << 20
_STATUS: Final = {
    "not-found": 404,
    "forbidden": 403,
    "unauthorized": 403,
    "over-quota": 507,
    "disk-full": 507,
    "conflict": 409,
    "usage": 400,
}
_ENTRY: Final = (
    "<D:response><D:href>{href}</D:href><D:propstat><D:prop><D:displayname>{name}</D:displayname>"
    "<D:getcontentlength>{size}</D:getcontentlength><D:getlastmodified>{when}</D:getlastmodified>"
    "<D:resourcetype>{kind}</D:resourcetype></D:prop><D:status>HTTP/1.1 200 OK</D:status></D:propstat>"
    "</D:response>"
)

Begin = Callable[[int, dict[str, str]], None]  # a status and headers, before the first bytes


class DavFiles(Protocol):
    """Files of one folder, for one thread. Paths are below it, without `/` at their ends. Every method raises
    ArgosyError."""

    def look(self, path: str) -> FileView:
        """What lies at a path. Raises "not-found"."""

    def list(self, path: str) -> Sequence[FileView]: ...

    def make_folder(self, path: str) -> None: ...

    def remove(self, path: str) -> None: ...

    def rename(self, path: str, to: str, *, replace: bool) -> None: ...

    def read(self, path: str, span: str, begin: Begin, take: Callable[[bytes], object]) -> None:
        """All of a file, or what `span`, the text of a `Range` header, says."""

    def write(self, path: str, size: int, pieces: Iterator[bytes]) -> None:
        """A file, which appears when all of it has come; one that is there is replaced."""


class Dav(Protocol):
    """What a connection belongs to."""

    token: str

    @property
    def files(self) -> DavFiles:
        """For the thread that asks."""


class DavConnection(BaseHTTPRequestHandler):
    """Answers all requests of a connection. `server` is a `Dav`."""

    protocol_version = "HTTP/1.1"
    server: Any  # a Dav; its base has it as a server with a socket

    def log_message(self, format: str, *args: Any) -> None:  # Any: as its base has it
        pass

    def _guarded(self, answer: Callable[[str], None]) -> None:
        given = self.headers.get("authorization", "")
        try:
            if not hmac.compare_digest(given.encode(), f"Bearer {self.server.token}".encode()):
                raise ArgosyError("forbidden", "this is not for you", hint="mount the folder yourself")
            answer(_path(self.path))
        except ArgosyError as error:
            self.close_connection = True  # of a body that was not read
            self._reply(_STATUS.get(error.code, 502), error.what.encode())

    @property
    def _files(self) -> DavFiles:
        files: DavFiles = self.server.files
        return files

    def _reply(self, status: int, body: bytes = b"", *headers: tuple[str, str]) -> None:
        self.send_response(status)
        for name, value in headers:
            self.send_header(name, value)
        self.send_header("content-length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    # -- methods -------------------------------------------------------------------------------------

    def do_OPTIONS(self) -> None:
        self._guarded(lambda path: self._reply(200, b"", ("dav", "1")))

    def do_PROPFIND(self) -> None:
        self.rfile.read(int(self.headers.get("content-length", 0)))
        self._guarded(self._list)

    def do_GET(self) -> None:
        self._guarded(self._send)

    def do_HEAD(self) -> None:
        def answer(path: str) -> None:
            found = self._files.look(path)
            self.send_response(200)
            self.send_header("content-length", str(found.size))
            self.end_headers()

        self._guarded(answer)

    def do_PUT(self) -> None:
        self._guarded(self._take)

    def do_MKCOL(self) -> None:
        def answer(path: str) -> None:
            self._files.make_folder(path)
            self._reply(201)

        self._guarded(answer)

    def do_DELETE(self) -> None:
        def answer(path: str) -> None:
            self._files.remove(path)
            self._reply(204)

        self._guarded(answer)

    def do_MOVE(self) -> None:
        def answer(path: str) -> None:
            target = _path(urlsplit(self.headers.get("destination", "")).path)
            replace = self.headers.get("overwrite", "T") != "F"
            self._files.rename(path, target, replace=replace)
            self._reply(201)

        self._guarded(answer)

    def _list(self, path: str) -> None:
        entries = []
        if not path:
            entries.append(_entry("", "folder", 0, 0))
        else:
            found = self._files.look(path)
            entries.append(_entry(path, found.kind, found.size, found.mtime_ms))
        if self.headers.get("depth", "1") != "0" and "<D:collection/>" in entries[0]:
            for each in self._files.list(path):
                if each.kind in ("file", "folder"):
                    entries.append(
                        _entry(f"{path}/{each.name}".strip("/"), each.kind, each.size, each.mtime_ms)
                    )
        head = '<?xml version="1.0" encoding="utf-8"?>\n<D:multistatus xmlns:D="DAV:">'
        body = f"{head}{''.join(entries)}</D:multistatus>".encode("utf-8", "surrogateescape")
        self._reply(207, body, ("content-type", "application/xml; charset=utf-8"))

    def _send(self, path: str) -> None:
        began = False

        def begin(status: int, headers: dict[str, str]) -> None:
            nonlocal began
            began = True
            self.send_response(status)
            for name in ("content-length", "content-range", "etag"):
                if name in headers:
                    self.send_header(name, headers[name])
            self.end_headers()

        try:
            self._files.read(path, self.headers.get("range", ""), begin, self.wfile.write)
        except ArgosyError:
            if not began:
                raise
            self.close_connection = True  # what was begun cannot be taken back

    def _take(self, path: str) -> None:
        size = int(self.headers.get("content-length", -1))
        if size < 0:
            raise ArgosyError(
                "usage", "the length of the file is not told", hint="mount with a cache of writes"
            )
        self._files.write(path, size, self._pieces(size))
        self._reply(201)

    def _pieces(self, size: int) -> Iterator[bytes]:
        while size:
            piece = self.rfile.read(min(_PIECE, size))
            if not piece:
                raise ArgosyError("transient", "the connection broke off", hint="it is tried again")
            size -= len(piece)
            yield piece


def _path(text: str) -> str:
    return unquote(text.partition("?")[0], errors="surrogateescape").strip("/")


def _entry(path: str, kind: str, size: int, mtime_ms: int) -> str:
    folder = kind == "folder"
    return _ENTRY.format(
        href=quote(f"/{path}{'/' if folder and path else ''}", errors="surrogateescape"),
        name=escape(path.rpartition("/")[2]),
        size=size,
        when=formatdate(mtime_ms / 1000, usegmt=True),
        kind="<D:collection/>" if folder else "",
    )

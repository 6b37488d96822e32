"""A folder of the server as WebDAV on this machine's loopback, for a program that mounts it.

Whoever asks has to know the bridge's token, which only the program that mounts is told. What may be done is
decided by the server with each call: who loses a folder loses it in the mount, too.
"""

from __future__ import annotations

import hmac
import threading
from collections.abc import Callable, Iterator
from email.utils import formatdate
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import TYPE_CHECKING, Any, Final
from urllib.parse import quote, unquote, urlsplit
from xml.sax.saxutils import escape

from argosy.model.errors import ArgosyError

if TYPE_CHECKING:
    from argosy.api.folders import FileView
    from argosy.client.client import Client
    from argosy.client.folders import FolderFiles

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


class Bridge(ThreadingHTTPServer):
    """`make_client`: a client of the server for one thread. `files`: the folder's bytes."""

    daemon_threads = True

    def __init__(
        self, folder: str, make_client: Callable[[], Client], files: FolderFiles, token: str
    ) -> None:
        self.folder, self.files, self.token = folder, files, token
        self._make_client, self._local = make_client, threading.local()
        super().__init__(("127.0.0.1", 0), _Request)

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_address[1]}"

    @property
    def client(self) -> Client:
        """Of this thread."""
        if not hasattr(self._local, "client"):
            self._local.client = self._make_client()
        client: Client = self._local.client
        return client

    def start(self) -> None:
        threading.Thread(target=self.serve_forever, daemon=True).start()

    def look(self, path: str) -> FileView:
        """What lies at a path. Raises "not-found"."""
        above, _, name = path.rpartition("/")
        for each in self.client.folder_files(self.folder, above).files:
            if each.name == name:
                return each
        raise ArgosyError("not-found", f"there is no `{path}`", hint="look at the folder again")

    def handle_error(self, request: Any, client_address: Any) -> None:  # Any: as its base has it
        """A connection that breaks off is nothing to tell."""


class _Request(BaseHTTPRequestHandler):
    server: Bridge
    protocol_version = "HTTP/1.1"

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
            found = self.server.look(path)
            self.send_response(200)
            self.send_header("content-length", str(found.size))
            self.end_headers()

        self._guarded(answer)

    def do_PUT(self) -> None:
        self._guarded(self._take)

    def do_MKCOL(self) -> None:
        def answer(path: str) -> None:
            self.server.client.change_files(self.server.folder, path)
            self._reply(201)

        self._guarded(answer)

    def do_DELETE(self) -> None:
        def answer(path: str) -> None:
            self.server.client.remove_files(self.server.folder, path)
            self._reply(204)

        self._guarded(answer)

    def do_MOVE(self) -> None:
        def answer(path: str) -> None:
            target = _path(urlsplit(self.headers.get("destination", "")).path)
            replace = self.headers.get("overwrite", "T") != "F"
            self.server.client.change_files(self.server.folder, path, target, replace=replace)
            self._reply(201)

        self._guarded(answer)

    def _list(self, path: str) -> None:
        entries = []
        if not path:
            entries.append(_entry("", "folder", 0, 0))
        else:
            found = self.server.look(path)
            entries.append(_entry(path, found.kind, found.size, found.mtime_ms))
        if self.headers.get("depth", "1") != "0" and "<D:collection/>" in entries[0]:
            for each in self.server.client.folder_files(self.server.folder, path).files:
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
            self.server.files.read(path, self.headers.get("range", ""), begin, self.wfile.write)
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
        self.server.files.write(path, size, self._pieces(size))
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

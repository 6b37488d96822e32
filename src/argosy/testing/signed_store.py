"""Objects at addresses that anybody may GET and PUT: what a node sees of an object store. Standard library
only.

    with SignedStore({"a.bin": b"..."}) as store:
        store.address("a.bin")

Knobs: `failures[key]` are statuses that are answered first; `cut[key]` ends the next answer after so many
bytes; `ignores_ranges`; `etags_wrong`: If-Match never fits; `says`: headers of what is read. `asked` are
the requests: method, key, range.
"""

from __future__ import annotations

import hashlib
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from types import TracebackType
from typing import Any, Self
from urllib.parse import quote, unquote


class SignedStore:
    def __init__(self, objects: dict[str, bytes] | None = None) -> None:
        self.objects = objects if objects is not None else {}
        self.failures: dict[str, list[int]] = {}
        self.cut: dict[str, int] = {}
        self.ignores_ranges = self.etags_wrong = False
        self.says: dict[str, str] = {}
        self.asked: list[tuple[str, str, str]] = []
        self.lock = threading.Lock()
        outer = self

        class Handler(_Handler):
            store = outer

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._server.daemon_threads = True

    def __enter__(self) -> Self:
        threading.Thread(target=self._server.serve_forever, args=(0.02,), daemon=True).start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._server.shutdown()
        self.close()

    def close(self) -> None:
        """Nobody listens any more."""
        self._server.server_close()

    def address(self, key: str) -> str:
        return f"http://127.0.0.1:{self._server.server_address[1]}/{quote(key)}?signature=s3cr3t"

    def etag(self, key: str) -> str:
        return hashlib.md5(self.objects[key], usedforsecurity=False).hexdigest()


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    store: SignedStore

    def log_message(self, format: str, *args: Any) -> None:  # Any: as the library has it
        """Tests read what failed from the other side."""

    def _key(self) -> str:
        key = unquote(self.path.partition("?")[0].lstrip("/"))
        with self.store.lock:
            self.store.asked.append((self.command, key, self.headers.get("Range", "")))
        return key

    def _refuse(self, status: int) -> None:
        body = b"<Error><Code>Refused</Code></Error>"
        self.send_response(status)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def do_GET(self) -> None:
        store, key = self.store, self._key()
        if store.failures.get(key):
            return self._refuse(store.failures[key].pop(0))
        if key not in store.objects:
            return self._refuse(404)
        data, asked = store.objects[key], self.headers.get("If-Match")
        if asked and (store.etags_wrong or asked.strip('"') != store.etag(key)):
            return self._refuse(412)
        span, status = self.headers.get("Range", ""), 200
        if span and not store.ignores_ranges:
            first, _, last = span.removeprefix("bytes=").partition("-")
            data, status = data[int(first) : int(last) + 1], 206
        self.send_response(status)
        self.send_header("Content-Length", str(len(data)))
        for name, value in store.says.items():
            self.send_header(name, value)
        self.end_headers()
        cut = store.cut.pop(key, -1)
        self.wfile.write(data[:cut] if cut >= 0 else data)
        if cut >= 0:
            self.close_connection = True
        return None

    def do_PUT(self) -> None:
        store, key = self.store, self._key()
        data = self.rfile.read(int(self.headers["Content-Length"]))
        if store.failures.get(key):
            return self._refuse(store.failures[key].pop(0))
        with store.lock:
            store.objects[key] = data
        self.send_response(200)
        self.send_header("ETag", f'"{store.etag(key)}"')
        self.send_header("Content-Length", "0")
        self.end_headers()
        return None

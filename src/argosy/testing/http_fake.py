"""A fake that speaks HTTP on a port of the loopback: threads, one answer for each request.

class FakeX(HttpFake):
    def serve(self, method, target, headers, body): return Answer(200, {"ok": True})

with FakeX() as fake:
    fake.url
"""

from __future__ import annotations

import email.utils
import http
import http.server
import socketserver
import threading
import time
from collections.abc import Mapping
from types import TracebackType
from typing import Any, Final, Self

import msgspec

_PHRASES: Final = {status.value: status.phrase for status in http.HTTPStatus}


class Answer(Exception):
    """A reply with a status of its own; raised or returned. `cut`: the connection breaks after so many bytes
    of the body; -1: it does not."""

    def __init__(
        self, status: int, body: object = None, headers: Mapping[str, str] | None = None, *, cut: int = -1
    ) -> None:
        super().__init__(f"{status} {body}")
        self.status, self.body, self.headers, self.cut = status, body, dict(headers or {}), cut

    @property
    def data(self) -> bytes:
        """The body as it is sent: bytes as they are, else JSON."""
        if self.body is None or isinstance(self.body, bytes):
            return self.body or b""
        return msgspec.json.encode(self.body)


class HttpFake:
    url = ""
    _server: _Server | None = None

    def __enter__(self) -> Self:
        self._server = _Server(("127.0.0.1", 0), self)
        self.url = f"http://127.0.0.1:{self._server.server_address[1]}"
        threading.Thread(target=self._server.serve_forever, args=(0.02,), daemon=True).start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._server is not None:
            self._server.shutdown()
            self._server.server_close()

    def serve(self, method: str, target: str, headers: Mapping[str, str], body: bytes) -> Answer | None:
        """The answer to a request; names of headers are in lower case. None: it does not arrive."""
        raise NotImplementedError

    def hangs(self) -> bool:
        """Whether the reply of the present call shall not come: who waits for it is about to be killed."""
        return False

    def date_s(self) -> float:
        """What its clock says."""
        return time.time()


class _Server(http.server.ThreadingHTTPServer):
    daemon_threads = True
    request_queue_size = 64

    def __init__(self, address: tuple[str, int], fake: HttpFake) -> None:
        self.fake = fake
        super().__init__(address, _Handler)

    def server_bind(self) -> None:  # without asking for a name of the address
        socketserver.TCPServer.server_bind(self)
        self.server_name, self.server_port = str(self.server_address[0]), self.server_address[1]

    def handle_error(self, request: Any, client_address: Any) -> None: ...


class _Handler(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: _Server

    def log_message(self, *said: object) -> None: ...

    def answer(self) -> None:
        body = self.rfile.read(int(self.headers.get("content-length", "0")))
        fake = self.server.fake
        headers = {name.lower(): value for name, value in self.headers.items()}
        answer = fake.serve(self.command, self.path, headers, body)
        if fake.hangs():
            answer = None
            self.rfile.read(1)  # until who asked is gone
        if answer is None:  # the reply is lost
            self.close_connection = True
            return
        data = answer.data
        date = email.utils.formatdate(fake.date_s(), usegmt=True)
        lines = {"content-type": "application/json", "date": date, "content-length": str(len(data))}
        lines |= answer.headers
        head = f"HTTP/1.1 {answer.status} {_PHRASES.get(answer.status, 'X')}\r\n"
        head += "".join(f"{name}: {value}\r\n" for name, value in lines.items())
        if answer.cut >= 0:
            data, self.close_connection = data[: answer.cut], True
        self.wfile.write(head.encode("latin-1") + b"\r\n" + data)  # at once: two would wait for each other

    do_GET = do_POST = do_PUT = do_DELETE = do_PATCH = answer

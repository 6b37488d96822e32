"""Price services of all providers on one local port, each as recorded in its folder (`sample.py`), and faults
on demand."""

from __future__ import annotations

import importlib.util
import json
import threading
import time
from collections.abc import Callable
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import parse_qs, urlsplit

from argosy.catalog.refresh.recorded import HERE, Asked, Recorded, Refused
from argosy.providers import find_providers


class FakePrices:
    """`with FakePrices() as service: ... service.url`.

    Change what a sample holds before asking: `service["ibm"].profiles = [...]`. `faults` are HTTP statuses
    that are answered first, one for each request; `garbage` answers 200 with something else, `cut` breaks off
    in the middle of an answer, `slow_s` delays each of them; `requests` records (method, path, headers).
    """

    def __init__(self) -> None:
        self.faults: list[int] = []
        self.garbage = False
        self.cut = False
        self.slow_s = 0.0
        self.redirect = ""  # answer 302 with this location
        self.page_elsewhere = False
        self.secret: str | None = None  # what the header must hold
        self.requests: list[tuple[str, str, dict[str, str]]] = []
        self._samples = _samples()
        self._server = ThreadingHTTPServer(("127.0.0.1", 0), self._handler())
        self._server.daemon_threads = True

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self._server.server_address[1]}"

    def __enter__(self) -> FakePrices:
        threading.Thread(target=self._server.serve_forever, args=(0.02,), daemon=True).start()
        return self

    def __exit__(self, *_: object) -> None:
        self._server.shutdown()
        self._server.server_close()

    def __getitem__(self, provider: str) -> Any:  # Any: the sample has what its service has
        """What the service of a provider tells."""
        return self._samples[provider]

    def gives(self) -> dict[str, tuple[str, str, float]]:
        """By provider: what its sample gives (machine, region, dollars an hour)."""
        return {name: sample.GIVES for name, sample in self._samples.items()}

    def _answer(self, asked: Asked) -> tuple[str, str]:
        """(content type, text). Raises KeyError for what no service knows."""
        for sample in self._samples.values():
            told = sample.answer(asked)
            if isinstance(told, str):
                return "text/xml", told
            if told is not None:
                return "application/json", json.dumps(told).replace(HERE, self.url)
        raise KeyError(asked.path)

    def _handler(self) -> type[BaseHTTPRequestHandler]:
        fake = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def _serve(self) -> None:
                body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
                parts = urlsplit(self.path)
                headers = {key.lower(): value for key, value in self.headers.items()}
                fake.requests.append((self.command, self.path, headers))
                if fake.slow_s:
                    time.sleep(fake.slow_s)
                if fake.redirect:
                    return self._reply(302, "text/plain", "", location=fake.redirect)
                if fake.faults:
                    return self._reply(fake.faults.pop(0), "application/json", "{}")
                if fake.secret is not None and fake.secret not in headers.values():
                    return self._reply(401, "application/json", "{}")
                if fake.garbage:
                    return self._reply(200, "text/html", "<html>maintenance</html>")
                query = {key: values[0] for key, values in parse_qs(parts.query).items()}
                try:
                    kind, text = fake._answer(Asked(parts.path, query, body, headers))
                except KeyError:
                    return self._reply(404, "application/json", "{}")
                except Refused as error:
                    return self._reply(error.status, "application/json", "{}")
                return self._reply(200, kind, text)

            def _reply(self, status: int, kind: str, text: str, location: str = "") -> None:
                data = text.encode()
                self.send_response(status)
                self.send_header("Content-Type", kind)
                self.send_header("Content-Length", str(len(data)))
                if status == 429:
                    self.send_header("Retry-After", "7")
                if location:
                    self.send_header("Location", location)
                self.end_headers()
                if fake.cut and status == 200:
                    self.wfile.write(data[: len(data) // 2])
                    self.close_connection = True
                    return
                self.wfile.write(data)

            do_GET: Callable[[Handler], None] = _serve
            do_POST: Callable[[Handler], None] = _serve

            def log_message(self, format: str, *args: object) -> None:
                return

        return Handler


def _samples() -> dict[str, Recorded]:
    """One of each provider that has one: `providers/<x>/sample.py`."""
    found: dict[str, Recorded] = {}
    for name, module in find_providers().items():
        if importlib.util.find_spec(f"{module.__name__}.sample") is not None:
            made = getattr(importlib.import_module(f"{module.__name__}.sample"), "Sample", None)
            if made is not None:
                found[name] = made()
    return found

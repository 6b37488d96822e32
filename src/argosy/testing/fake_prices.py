"""Price services of all providers on one local port, each as recorded in its folder (`sample.py`), and faults
on demand."""

from __future__ import annotations

import importlib.util
import json
import time
from collections.abc import Mapping
from typing import Any
from urllib.parse import parse_qs, urlsplit

from argosy.catalog.refresh.recorded import HERE, Asked, Recorded, Refused
from argosy.providers import find_providers
from argosy.testing.http_fake import Answer, HttpFake


class FakePrices(HttpFake):
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

    def serve(self, method: str, target: str, headers: Mapping[str, str], body: bytes) -> Answer:
        parts = urlsplit(target)
        self.requests.append((method, target, dict(headers)))
        if self.slow_s:
            time.sleep(self.slow_s)
        if self.redirect:
            return Answer(302, b"", {"content-type": "text/plain", "location": self.redirect})
        if self.faults:
            status = self.faults.pop(0)
            return Answer(status, {}, {"retry-after": "7"} if status == 429 else {})
        if self.secret is not None and self.secret not in headers.values():
            return Answer(401, {})
        if self.garbage:
            return Answer(200, b"<html>maintenance</html>", {"content-type": "text/html"})
        query = {key: values[0] for key, values in parse_qs(parts.query).items()}
        try:
            kind, text = self._answer(Asked(parts.path, query, body, dict(headers)))
        except KeyError:
            return Answer(404, {})
        except Refused as error:
            return Answer(error.status, {})
        data = text.encode()
        return Answer(200, data, {"content-type": kind}, cut=len(data) // 2 if self.cut else -1)


def _samples() -> dict[str, Recorded]:
    """One of each provider that has one: `providers/<x>/sample.py`."""
    found: dict[str, Recorded] = {}
    for name, module in find_providers().items():
        if importlib.util.find_spec(f"{module.__name__}.sample") is not None:
            made = getattr(importlib.import_module(f"{module.__name__}.sample"), "Sample", None)
            if made is not None:
                found[name] = made()
    return found

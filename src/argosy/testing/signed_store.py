"""Objects at addresses that anybody may GET and PUT: what a node sees of an object store.

    with SignedStore({"a.bin": b"..."}) as store:
        store.address("a.bin")

Knobs: `failures[key]` are statuses that are answered first; `cut[key]` ends the next answer after so many
bytes; `ignores_ranges`; `etags_wrong`: If-Match never fits; `says`: headers of what is read. `asked` are
the requests: method, key, range.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from urllib.parse import quote, unquote

from argosy.testing.http_fake import Answer, HttpFake


class SignedStore(HttpFake):
    def __init__(self, objects: dict[str, bytes] | None = None) -> None:
        self.objects = objects if objects is not None else {}
        self.failures: dict[str, list[int]] = {}
        self.cut: dict[str, int] = {}
        self.ignores_ranges = self.etags_wrong = False
        self.says: dict[str, str] = {}
        self.asked: list[tuple[str, str, str]] = []

    def address(self, key: str) -> str:
        return f"{self.url}/{quote(key)}?signature=s3cr3t"

    def etag(self, key: str) -> str:
        return hashlib.md5(self.objects[key], usedforsecurity=False).hexdigest()

    def serve(self, method: str, target: str, headers: Mapping[str, str], body: bytes) -> Answer:
        key, span = unquote(target.partition("?")[0].lstrip("/")), headers.get("range", "")
        self.asked.append((method, key, span))
        if self.failures.get(key):
            return _refusal(self.failures[key].pop(0))
        if method == "PUT":
            self.objects[key] = body
            return Answer(200, None, {"etag": f'"{self.etag(key)}"'})
        if key not in self.objects:
            return _refusal(404)
        data, asked, status = self.objects[key], headers.get("if-match"), 200
        if asked and (self.etags_wrong or asked.strip('"') != self.etag(key)):
            return _refusal(412)
        if span and not self.ignores_ranges:
            first, _, last = span.removeprefix("bytes=").partition("-")
            data, status = data[int(first) : int(last) + 1], 206
        return Answer(status, data, self.says, cut=self.cut.pop(key, -1))


def _refusal(status: int) -> Answer:
    return Answer(status, b"<Error><Code>Refused</Code></Error>")

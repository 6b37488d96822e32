"""Files on the web and on a hub: read with ranges and redirects, listed where that is possible, never
written."""

from __future__ import annotations

import http.server
import json
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any, ClassVar
from urllib.parse import parse_qs, urlsplit

import pytest

from argosy.infra.buckets import (
    AccessRefused,
    CredentialsMissing,
    NotPossible,
    ObjectMissing,
    StoreSettings,
    StoreUnreachable,
    UrlUnknown,
)
from argosy.infra.system import SystemClock
from argosy.storage.buckets import open_bucket, sections_of

FILES = {"config.json": b"{}", "weights/a.bin": b"a" * 70_000, "weights/b.bin": b"b" * 10}
TOKEN = "hf_SECRET"


class Hub(http.server.BaseHTTPRequestHandler):
    """A web server with one repository, in the hub's own words: lists in pages, redirects of files."""

    protocol_version = "HTTP/1.1"
    seen: ClassVar[list[tuple[str, str]]] = []

    def log_message(self, *_: Any) -> None:
        pass

    def _answer(self, status: int, body: bytes = b"", **headers: str) -> None:
        self.send_response(status)
        for name, value in headers.items():
            self.send_header(name.replace("_", "-"), value)
        self.send_header("content-length", str(len(body)))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)

    def do_GET(self) -> None:
        split = urlsplit(self.path)
        self.seen.append((split.path, self.headers.get("authorization", "")))
        if split.path.startswith("/private"):
            self._answer(401 if split.path.endswith("who") else 403)
        elif split.path.startswith("/api/models/me/net/tree/main"):
            self._list(
                split.path.removeprefix("/api/models/me/net/tree/main").strip("/"), parse_qs(split.query)
            )
        elif split.path.startswith("/me/net/resolve/main/"):
            name = split.path.removeprefix("/me/net/resolve/main/")
            where = f"http://localhost:{self.server.server_port}/files/{name}"  # type: ignore[attr-defined]
            self._answer(302 if name in FILES else 404, Location=where)
        elif (name := split.path.removeprefix("/files/")) in FILES:
            body, whole = FILES[name], FILES[name]
            asked = self.headers.get("range", "")
            if asked:
                first, last = asked.removeprefix("bytes=").split("-")
                body = body[int(first) : int(last or len(body)) + 1]
                told = f"bytes {first}-{int(first) + len(body) - 1}/{len(whole)}"
                self._answer(206, body, ETag=f'"{name}"', Content_Range=told)
            else:
                self._answer(200, body, ETag=f'"{name}"', Last_Modified="Sun, 29 Nov 2026 10:00:00 GMT")
        else:
            self._answer(404)

    do_HEAD = do_GET

    def _list(self, folder: str, query: dict[str, list[str]]) -> None:
        rows: list[dict[str, Any]] = [
            {"type": "file", "path": name, "size": len(data), "oid": name[::-1]}
            for name, data in FILES.items()
            if name.startswith(folder) and ("recursive" in query or "/" not in name[len(folder) :].strip("/"))
        ]
        if "recursive" not in query and not folder:
            rows.append({"type": "directory", "path": "weights", "oid": "d"})
        at, limit = int(query.get("at", ["0"])[0]), int(query["limit"][0])
        headers = {}
        if at + limit < len(rows):
            recursive = "&recursive=true" if "recursive" in query else ""
            port = self.server.server_port  # type: ignore[attr-defined]
            path = urlsplit(self.path).path
            headers["Link"] = (
                f'<http://127.0.0.1:{port}{path}?limit={limit}{recursive}&at={at + limit}>; rel="next"'
            )
        self._answer(200, json.dumps(rows[at : at + limit]).encode(), **headers)


@pytest.fixture(scope="module")
def hub() -> Iterator[str]:
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Hub)
    threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True).start()
    yield f"http://127.0.0.1:{server.server_port}"
    server.shutdown()
    server.server_close()


def settings(root: Path, hub: str) -> StoreSettings:
    environ = {"HF_TOKEN": TOKEN}
    return StoreSettings(
        environ=environ, home=root, clock=SystemClock(), sections=sections_of(f"hf: {{endpoint: '{hub}'}}")
    )


def test_a_hub_is_listed_and_read(hub: str, tmp_path: Path) -> None:
    opened = open_bucket("hf://me/net/weights/", settings(tmp_path, hub))
    bucket = opened.bucket
    assert (bucket.url, opened.key) == ("hf://me/net", "weights/")
    for most in (1, 1000):
        found, after = [], ""
        while True:
            page = bucket.page(after=after, most=most)
            found += [(each.key, each.size) for each in page.objects]
            after = page.after
            if not after:
                break
        assert found == [(name, len(data)) for name, data in FILES.items()]
    top = bucket.page(delimiter="/")
    assert ([each.key for each in top.objects], top.prefixes) == (["config.json"], ("weights/",))
    assert b"".join(bucket.read("weights/a.bin")) == FILES["weights/a.bin"]
    assert b"".join(bucket.read("weights/a.bin", first=69_990, count=20)) == b"a" * 10
    assert bucket.head("weights/a.bin").size == 70_000
    with pytest.raises(ObjectMissing) as error:
        bucket.head("none")
    assert error.value.what == "there is no hf://me/net/none"


def test_who_asks_is_told_to_the_hub_alone(hub: str, tmp_path: Path) -> None:
    """Files come from other hosts, which must not learn the token."""
    Hub.seen.clear()
    bucket = open_bucket("hf://me/net/config.json", settings(tmp_path, hub)).bucket
    assert b"".join(bucket.read("config.json")) == b"{}"
    assert Hub.seen == [("/me/net/resolve/main/config.json", f"Bearer {TOKEN}"), ("/files/config.json", "")]
    assert TOKEN not in repr(bucket.site)  # type: ignore[attr-defined]


def test_files_on_the_web_are_read_and_never_written(hub: str, tmp_path: Path) -> None:
    opened = open_bucket(f"{hub}/files/weights/b.bin", settings(tmp_path, hub))
    bucket, key = opened
    assert b"".join(bucket.read(key)) == b"b" * 10
    assert [each.size for each in bucket.page(prefix=key).objects] == [10]
    assert bucket.sign(key, "GET", 60) == f"{hub}/files/weights/b.bin"
    with pytest.raises(NotPossible) as refused:
        bucket.write(key, [b"x"])
    assert refused.value.what == f"{hub} can only be read"
    host = hub.removeprefix("http://")
    for path, kind, what in (
        ("private/who", CredentialsMissing, f"{host} asks who we are for {hub}/private/who"),
        ("private/x", AccessRefused, f"{host} does not let us read {hub}/private/x"),
    ):
        with pytest.raises(kind) as error:
            bucket.head(path)
        assert error.value.what == what


def test_what_cannot_be_meant_or_reached_is_said(hub: str, tmp_path: Path) -> None:
    own = settings(tmp_path, hub)
    with pytest.raises(UrlUnknown) as unknown:
        open_bucket("hf://me", own)
    assert unknown.value.what == "`hf://me` names no repository"
    with pytest.raises(StoreUnreachable) as silent:
        open_bucket("http://127.0.0.1:9/x", own).bucket.head("x")
    assert silent.value.what == "127.0.0.1:9 does not answer (Connection refused)"

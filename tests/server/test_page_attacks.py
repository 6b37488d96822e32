"""Attacks on what browsers see of the server: nothing that others wrote is read as a page, no answer may
be framed, nobody is sent elsewhere. How the start page shows names and logs is in tests/e2e, in a browser."""

from __future__ import annotations

import http.client
import zlib
from collections.abc import Iterator
from html.parser import HTMLParser
from pathlib import Path
from typing import NamedTuple
from urllib.parse import urlencode

import pytest

from argosy.api.pool import DeviceView, MachineView, PoolView, ShareView, WaitingView
from argosy.client.client import Client
from argosy.client.folders import FolderFiles
from argosy.model.facts import Device
from argosy.model.pooled import HolderView
from argosy.pages.pool_map import render_html, render_svg
from argosy.server.apps.pages import refused
from argosy.server.apps.rules import Refusal
from argosy.testing.idle_server import IdleServer

EVIL = "\"><script>alert(1)</script><img src=x onerror=alert(2)>&'`"


class Answer(NamedTuple):
    status: int
    body: bytes
    headers: dict[str, str]


@pytest.fixture(scope="module")
def server() -> Iterator[IdleServer]:
    with IdleServer(listen="127.0.0.1:0") as made:
        yield made


def browse(server: IdleServer, target: str, method: str = "GET", **fields: str) -> Answer:
    """A request as a browser makes it; `target` goes on the wire as it is."""
    port = int(server.address.rpartition(":")[2])
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=90)
    connection.putrequest(method, target, skip_host=True, skip_accept_encoding=True)
    asked = {"host": f"localhost:{port}", "accept": "text/html,*/*", "sec-fetch-mode": "navigate", **fields}
    for name, value in asked.items():
        connection.putheader(name, value)
    connection.endheaders()
    reply = connection.getresponse()
    found = Answer(reply.status, reply.read(), {name.lower(): value for name, value in reply.getheaders()})
    connection.close()
    return found


#: What a person could be made to open.
PLACES = (
    *("/", "/v1/health", "/v1/status", "/v1/nothing", "/favicon.ico", "/index.html", "/../etc/passwd"),
    *(
        "/login/sso",
        "/login/sso/callback?code=x",
        "/login/sso?next=https://evil.example",
        "/?next=//evil.example",
    ),
    *("/v1/jobs/job-1/logs?format=text", "/v1/folders/data/files/x.html", "/v1/sessions/x/open"),
    *("/s3/bucket/page.html", "/s3/", "//evil.example/", "/%2f%2fevil.example/", "/\\evil.example"),
)


@pytest.mark.parametrize("place", PLACES)
def test_no_answer_is_framed_guessed_kept_or_leads_elsewhere(server: IdleServer, place: str) -> None:
    answer = browse(server, place)
    headers = answer.headers
    assert headers["x-content-type-options"] == "nosniff" and headers["referrer-policy"] == "no-referrer"
    assert (
        headers["x-frame-options"] == "DENY"
        and "frame-ancestors 'none'" in headers["content-security-policy"]
    )
    assert headers["cross-origin-opener-policy"] == headers["cross-origin-resource-policy"] == "same-origin"
    assert "access-control-allow-origin" not in headers
    assert headers["cache-control"] in ("no-store", "no-cache")
    assert "location" not in headers, "nobody is sent anywhere by an address"
    if headers.get("content-type", "").startswith("text/html"):
        assert place.partition("?")[0] == "/" and "default-src 'none'" in headers["content-security-policy"]


@pytest.mark.parametrize(
    "target",
    [
        f"/v1/{EVIL}", f"/v1/jobs/{EVIL}/logs", f"/v1/status?project={EVIL}", f"/s3/{EVIL}/{EVIL}",
        f"/?{EVIL}", f"/login/sso?port={EVIL}", f"/login/sso/callback?error={EVIL}&state={EVIL}",
    ],
)  # fmt: skip
def test_what_stands_in_an_address_is_no_page(server: IdleServer, target: str) -> None:
    answer = browse(server, target.replace(" ", "%20"))
    kind = answer.headers.get("content-type", "").partition(";")[0]
    assert kind in ("application/json", "application/xml", "text/plain", "text/html", "")
    if kind == "text/html":
        assert b"alert(" not in answer.body
    elif kind == "application/xml":
        assert b"<script" not in answer.body


@pytest.mark.parametrize(("field", "value"), [("host", EVIL), ("x-argosy-project", EVIL), ("cookie", EVIL)])
def test_what_stands_in_a_header_is_no_page(server: IdleServer, field: str, value: str) -> None:
    answer = browse(server, "/", **{field: value})
    assert b"alert(" not in answer.body or answer.headers["content-type"] == "application/json"


def test_a_stored_page_runs_nothing(server: IdleServer) -> None:
    """An object of a bucket keeps its type, for programs that stored it; a browser runs none of it."""
    with Client(env={"ARGOSY_SERVER": f"unix://{server.socket}", "HOME": str(server.home)}) as client:
        client.add_user("ann")
        client.set_member("ann", "owner")
        token = client.add_token("t", user="ann").secret
    bearer = {"authorization": f"Bearer {token}"}
    assert browse(server, "/s3/pages", "PUT", **bearer, **{"content-length": "0"}).status == 200
    stored = {**bearer, "content-type": "text/html", "content-length": "0"}
    assert browse(server, "/s3/pages/x.html", "PUT", **stored).status == 200
    answer = browse(server, "/s3/pages/x.html", **bearer)
    assert answer.status == 200 and answer.headers["content-type"] == "text/html"
    assert answer.headers["content-security-policy"] == "default-src 'none'; frame-ancestors 'none'"
    assert answer.headers["x-content-type-options"] == "nosniff"
    assert browse(server, "/s3/pages/x.html", cookie="__Host-argosy=x").status in (401, 403), (
        "no link opens it"
    )


@pytest.mark.parametrize(
    "name", ["page.html", "picture.svg", "notebook.ipynb", f"{EVIL[:20].replace('/', '')}.xhtml"]
)
def test_files_of_a_folder_run_nothing(server: IdleServer, tmp_path: Path, name: str) -> None:
    """Also the output of a notebook, which is markup in a file: what a folder holds is kept, never shown."""
    (tmp_path / "x").write_text(f"<script>alert(1)</script>{EVIL}")
    where = f"pages-{zlib.crc32(name.encode())}"
    with Client(env={"ARGOSY_SERVER": f"unix://{server.socket}", "HOME": str(server.home)}) as client:
        client.add_user(where)
        client.set_member(where, "owner")
        token = client.add_token("t", user=where).secret
        client.make_folder(where, user=where)
        FolderFiles(client.location, where).upload(tmp_path / "x", name, replace=False)
    target = f"/v1/folders/{where}/content?{urlencode({'path': name})}"
    answer = browse(server, target, authorization=f"Bearer {token}")
    assert answer.status == 200 and b"alert(1)" in answer.body
    assert answer.headers["content-type"] == "application/octet-stream"
    assert answer.headers["content-disposition"] == "attachment"
    assert answer.headers["x-content-type-options"] == "nosniff"
    assert "default-src 'none'" in answer.headers["content-security-policy"]
    assert browse(server, target).status == 401, "no link opens it"


def test_another_site_learns_nothing_by_a_preflight(server: IdleServer) -> None:
    for method in ("OPTIONS", "TRACE", "CONNECT", "PROPFIND"):
        fields = {"origin": "https://evil.example", "access-control-request-method": "POST"}
        answer = browse(server, "/v1/sessions", method, **fields)
        assert answer.status >= 400 and not any(name.startswith("access-control") for name in answer.headers)


class Tags(HTMLParser):
    """What a browser makes of a page."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: set[str] = set()
        self.attributes: set[str] = set()
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.add(tag)
        self.attributes.update(name for name, _ in attrs)

    @property
    def runs(self) -> bool:
        return bool(self.tags & {"script", "img", "iframe", "object", "embed"}) or any(
            name.startswith("on") for name in self.attributes
        )


def test_pages_that_are_written_to_files_hold_names_as_text() -> None:
    device = DeviceView(device=Device(index=0, model=EVIL), shares=(ShareView(holder=0, milli=1000),))
    machine = MachineView(id="n", name=EVIL, closed=EVIL, open=False, devices=(device,), holders=(0,))
    holder = HolderView(id="job-1", name=EVIL, user=EVIL, project=EVIL)
    waiting = WaitingView(id="job-2", name=EVIL, user=EVIL)
    pool = PoolView(
        id="p", name=EVIL, machines=(machine,), holders=(holder,), waiting=(waiting,), warnings=(EVIL,)
    )
    for text in (render_html([pool], now_ms=0), render_svg([pool], now_ms=0)):
        assert "alert(1)" in text, "it is shown"
        assert not Tags(text).runs


def test_why_an_app_is_not_open_is_text() -> None:
    page = refused(Refusal(403, "forbidden", EVIL), as_page=True)
    assert b"&lt;script&gt;" in page.body and not Tags(page.body.decode()).runs

"""`argosy web`: the page at a port of this machine, a code that no argument shows, and who else comes."""

from __future__ import annotations

import http.client
import json
import os
import re
import select
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

from argosy.testing.idle_server import IdleServer

PAGE = {"x-argosy-api": "1", "content-type": "application/json"}


class Answer(NamedTuple):
    status: int
    body: bytes
    headers: dict[str, str]

    @property
    def json(self) -> Any:
        return json.loads(self.body)


def ask(port: int, method: str, path: str, body: object = None, host: str = "", **headers: str) -> Answer:
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=90)
    name = host or f"argosy.localhost:{port}"
    fields = {"host": name, "origin": f"http://{name}", **PAGE, **headers}
    connection.request(method, path, None if body is None else json.dumps(body), fields)
    reply = connection.getresponse()
    found = Answer(reply.status, reply.read(), {key.lower(): value for key, value in reply.getheaders()})
    connection.close()
    return found


def first_line(process: subprocess.Popen[str]) -> str:
    assert process.stdout is not None
    ready, _, _ = select.select([process.stdout], [], [], 30)
    assert ready, "it said nothing"
    return process.stdout.readline()


@contextmanager
def web(server: IdleServer, folder: Path, *words: str, **env: str) -> Iterator[subprocess.Popen[str]]:
    known = {**os.environ, "HOME": str(folder), "ARGOSY_HOME": str(folder / "state"), "USER": "ann"}
    known |= {"ARGOSY_SERVER": f"unix://{server.socket}", "PYTHONUNBUFFERED": "1", **env}
    process = subprocess.Popen(
        [sys.executable, "-m", "argosy.cli", "web", *words], env=known, text=True,
        stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
    )  # fmt: skip
    try:
        yield process
    finally:
        process.terminate()
        process.communicate(timeout=90)


def test_it_opens_signed_in_and_no_argument_shows_the_code(tmp_path: Path) -> None:
    seen = tmp_path / "seen"
    browser = tmp_path / "browser"
    browser.write_text(
        f'#!/bin/sh\nfile="${{1#file://}}"\nstat -c "%a $1" "$file" >{seen}.new\n'
        f'cat "$file" >>{seen}.new\nmv {seen}.new {seen}\n'
    )
    browser.chmod(0o700)
    with IdleServer() as server, web(server, tmp_path, BROWSER=f"{browser} %s") as process:
        address = first_line(process).strip()
        until = time.monotonic() + 90
        while not seen.exists() and time.monotonic() < until:
            time.sleep(0.01)
        told, text = seen.read_text().split("\n", 1)
        assert re.fullmatch(rf"600 file://{tmp_path}/state/run/open-\d+\.html", told)
        [shown, code] = re.findall(r'url=(\S+)#code=([\w-]{43})"', text)[0]
        assert shown == address and re.fullmatch(r"http://argosy\.localhost:\d+/", address)
        port = int(address.rstrip("/").rpartition(":")[2])

        assert b"Sign in" in ask(port, "GET", "/").body
        assert ask(port, "GET", "/v1/sessions").status == 401, "the port alone lets nobody in"
        foreign = ask(port, "POST", "/v1/login/code", {"code": code}, host=f"evil.example:{port}")
        assert (foreign.status, foreign.json["code"]) == (421, "wrong-host")
        signed = ask(port, "POST", "/v1/login/code", {"code": code})
        assert signed.status == 200 and "token" not in signed.json
        cookie = signed.headers["set-cookie"].partition(";")[0]
        assert ask(port, "GET", "/v1/whoami", cookie=cookie).json["name"] == "ann"
        assert ask(port, "GET", "/v1/whoami", cookie=cookie, origin="http://x--y.localhost").status == 403
        assert ask(port, "POST", "/v1/login/code", {"code": code}).status == 401, "once"
        app = ask(port, "GET", "/", host=f"jupyter--none.localhost:{port}", cookie=cookie)
        assert (app.status, b"no app has this host name" in app.body) == (421, True), "apps are at this port"


def test_who_has_no_account_among_others_names_one(tmp_path: Path) -> None:
    with IdleServer() as server:
        with web(server, tmp_path, "--no-browser", USER="root") as process:
            assert "/#code=" in first_line(process)
        with web(server, tmp_path, USER="ben") as process:
            said = process.communicate(timeout=90)[1]
        assert process.returncode == 2
        assert "you have no account here: there is no user `ben`" in said and "argosy web --user NAME" in said
        with web(server, tmp_path, "--no-browser", "--user", "admin") as process:
            assert "/#code=" in first_line(process)

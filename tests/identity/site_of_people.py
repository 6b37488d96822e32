"""A server over TCP with a clock of the test's, and people who come to it."""

from __future__ import annotations

import http.client
import json
from typing import Any, NamedTuple, Self

from argosy.identity.people import People
from argosy.model.access import OWNER
from argosy.testing.idle_server import IdleServer
from argosy.testing.virtual_time import FixedClock

PASSWORD = "correct horse battery"
OWN_PAGE = {"x-argosy-api": "1", "sec-fetch-site": "same-origin"}


class Answer(NamedTuple):
    status: int
    json: Any
    headers: dict[str, str]

    @property
    def code(self) -> str:
        return str(self.json.get("code", "")) if isinstance(self.json, dict) else ""


class Site(IdleServer):
    """`people`: what may be done to accounts, without a door."""

    def __init__(self, **options: Any) -> None:
        self.clock = FixedClock()
        super().__init__(listen="127.0.0.1:0", clock=self.clock, **options)

    @property
    def people(self) -> People:
        return self.application.identity.people

    def __enter__(self) -> Self:
        super().__enter__()
        self.application.identity.passwords.memory_kib = 32  # hashes of tests are cheap
        return self

    def add_user(self, name: str, role: str = "", project: str = "", **fields: Any) -> str:
        """The id."""
        fields.setdefault("password", "" if fields.get("is_service") else PASSWORD)
        user = self.do(self.people.add_user(OWNER, name=name, **fields))
        rows = self.do(self.store.snapshot())
        if project and rows.entry_called(f"project:{project}") is None:
            self.do(self.people.add_project(OWNER, name=project))
        if role:
            self.do(self.people.give_role(OWNER, subject=name, role=role, project=project))
        return user.id

    def ask(self, method: str, path: str, body: Any = None, token: str = "", **headers: str) -> Answer:
        host, _, port = self.address.rpartition("/")[2].rpartition(":")
        connection = http.client.HTTPConnection(host, int(port), timeout=90)
        sent = {name.replace("_", "-"): value for name, value in headers.items()}
        if token:
            sent["authorization"] = f"Bearer {token}"
        data = None if body is None else body if isinstance(body, bytes) else json.dumps(body).encode()
        try:
            connection.request(method, "/v1" + path, body=data, headers=sent)
            reply = connection.getresponse()
            text = reply.read()
            found = json.loads(text) if text[:1] in (b"{", b"[") else text
            return Answer(reply.status, found, {k.lower(): v for k, v in reply.getheaders()})
        finally:
            connection.close()

    def login(self, name: str, password: str = PASSWORD, code: str = "", client: str = "cli") -> Answer:
        body = {"user": name, "password": password, "code": code, "client": client}
        return self.ask("POST", "/login", body)

    def token(self, name: str) -> str:
        """Of a command line that signs in."""
        return str(self.login(name).json["token"])

    def cookie(self, name: str) -> dict[str, str]:
        """Headers of a page of ours in a browser that signed in."""
        made = self.login(name, client="browser").headers["set-cookie"]
        return {"cookie": made.partition(";")[0], **OWN_PAGE}

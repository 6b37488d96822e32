"""Every credential that a server gives out or is given, and then a look into everything that it wrote:
the state folder with its database, its copies and logs, what it said at the finest level, errors included,
the arguments of its processes, and the addresses that were asked for."""

from __future__ import annotations

import base64
import contextlib
import logging
import os
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from asking import _service, _session
from site_of_people import OWN_PAGE, PASSWORD, Site
from test_scim_door import ask as ask_scim

from argosy.identity.one_time_codes import STEP_MS, code_at
from argosy.model.access import OWNER
from argosy.server.features.people import PeopleFeature
from argosy.server.journal import open_journal

NEW = "another long password"
WRONG = "wrong horse battery"
VALUE = "value-of-a-secret-of-a-project"
TYPED_AS_NAME = "typed-my-password-as-my-name"


@contextlib.contextmanager
def everything_is_said(path: Path) -> Iterator[None]:
    """The server's own log, at its finest."""
    root = logging.getLogger()
    names = ("uvicorn", "uvicorn.access", "asyncio")
    before = (root.handlers[:], root.level, sys.excepthook)
    others = [(each, each.level, each.disabled) for each in map(logging.getLogger, names)]
    open_journal(path, "debug")
    try:
        yield
    finally:
        for handler in root.handlers:
            handler.close()
        root.handlers[:] = before[0]
        root.setLevel(before[1])
        sys.excepthook = before[2]
        for logger, level, disabled in others:
            logger.setLevel(level)
            logger.disabled = disabled


def credentials(site: Site, monkeypatch: pytest.MonkeyPatch) -> dict[str, str]:
    """One of each kind, used, and some used wrongly; by what it is."""
    found = {"password": PASSWORD, "new password": NEW, "wrong password": WRONG, "secret": VALUE}
    site.add_user("ann", "owner")
    found["token of a command line"] = token = site.token("ann")
    page = site.cookie("ann")
    found["cookie"] = page["cookie"].partition("=")[2]
    site.ask("GET", "/status", **page)
    site.login("ann", WRONG)
    found["personal token"] = site.ask("POST", "/tokens", {"name": "ci"}, token=token).json["secret"]
    site.add_user("robot", "provisioner", is_service=True)
    body = {"name": "r", "user": "robot"}
    robot = site.ask("POST", "/tokens", body, token=token).json["secret"]
    found["token of a service account"] = robot
    site.ask("GET", "/whoami", token=found["personal token"])
    site.ask("GET", f"/jobs?token={found['personal token']}", token=token)  # a mistake of somebody
    assert ask_scim(site, "POST", "/scim/v2/Users", robot, {"userName": "bob", "password": NEW})[0] == 201
    device = site.ask("POST", "/login/device", {"host": "h"}).json
    site.ask("POST", "/login/device/confirm", {"code": device["code"]}, token=token)
    login = site.ask("POST", "/login/device/wait", {"secret": device["secret"]}).json["login"]
    found |= {"device": device["secret"], "short code": device["code"], "token of a device": login["token"]}
    found["one-time code"] = code = site.ask("POST", "/login/codes", {}, token=token).json["code"]
    site.ask("POST", "/login/code", {"code": code, "client": "browser"})
    begun = site.ask("POST", "/second-factor", {}, token=token).json
    found["key of a second factor"] = begun["key"]
    raw = base64.b32decode(begun["key"])
    found["key of a second factor, raw"] = raw.decode("latin-1")
    assert site.ask("PUT", "/secrets", {"name": "hf", "value": VALUE}, token=token).status == 200
    site.ask("PUT", "/secrets", {"name": "bad name!", "value": VALUE}, token=token)
    site.do(site.store.commit([_service("chat", "default", "ann"), _session("lab", "default", "ann")]))
    made = site.ask("POST", "/services/chat/keys", {"name": "k"}, token=token)
    found["key of a service"] = made.json["secret"]
    made = site.ask("POST", "/store-keys", {"name": "k"}, token=token)
    found["key of the object store"] = made.json["secret"]
    opened = site.ask("POST", "/sessions/lab/open", {}, token=token)
    found["code of an app"] = opened.json["code"]

    async def broken(self: object, exchange: object) -> None:
        held = await exchange.decode(exchange.endpoint.request)  # type: ignore[attr-defined]
        raise RuntimeError(f"broken with {held!r}")

    with monkeypatch.context() as patch:
        patch.setattr(PeopleFeature, "set_password", broken)
        body = {"password": NEW, "old": PASSWORD}
        assert site.ask("POST", "/password", body, token=token).status == 500
    site.ask("POST", "/password", b'{"password": "' + NEW.encode() + b'", "nope": 1}', token=token)
    code = code_at(begun["key"], site.clock.now_ms() // STEP_MS)
    site.ask("POST", "/second-factor", {"code": code}, token=token)
    site.do(site.people.set_password(OWNER, "ann", NEW))
    site.login("ann", NEW)
    return found


def test_no_credential_is_found_in_what_a_server_wrote(
    site: Site, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    said = tmp_path / "said.log"
    with everything_is_said(said):
        found = credentials(site, monkeypatch)
        site.do(site.store.backup_if_due())
        site.do(site.application.identity.note_uses())
    assert len(found) >= 17 and all(found.values())
    text = said.read_text(errors="replace")
    assert "RuntimeError: broken with PasswordRequest(user='')" in text, "the failure itself is told"
    places = [said, *(path for path in site.home.rglob("*") if path.is_file() and not path.is_socket())]
    assert any("backup" in str(path) for path in places) and any(path.name == "argosy.db" for path in places)
    leaks = []
    for path in places:
        if path.name == "secrets.key":
            continue
        data = path.read_bytes()
        for what, secret in found.items():
            if secret.encode("latin-1") in data or base64.b64encode(secret.encode("latin-1")) in data:
                leaks.append(f"{what} in {path.name}")
    for process in Path("/proc").glob("[0-9]*/cmdline"):
        with contextlib.suppress(OSError):
            line = process.read_bytes()
            leaks += [
                f"{what} in the arguments of {process}" for what, s in found.items() if s.encode() in line
            ]
    for name, value in os.environ.items():
        leaks += [f"{what} in {name}" for what, secret in found.items() if secret in value]
    assert leaks == []


def test_no_address_of_ours_carries_a_credential() -> None:
    """Paths and queries are what proxies write into their logs: no row of the API takes a secret there."""
    from argosy.api.endpoints import ENDPOINTS

    asked = {name for each in ENDPOINTS for name in (*each.path_names, *(q.name for q in each.query))}
    assert not asked & {"password", "code", "value", "access_token", "old", "proof"}


def test_headers_of_pages_keep_addresses_to_themselves(site: Site) -> None:
    answer = site.ask("GET", "/health", **OWN_PAGE)
    assert answer.headers["referrer-policy"] == "no-referrer"

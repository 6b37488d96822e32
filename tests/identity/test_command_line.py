"""The commands about people against a real server over TCP: sign in by every way, tokens, accounts, roles,
secrets, the audit log; and that no secret is an argument."""

from __future__ import annotations

import io
import json
import stat
import sys
import threading
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import SimpleNamespace
from typing import NamedTuple

import pytest
from site_of_people import PASSWORD, Site
from test_sign_in_pages import allow, go, open_pages

from argosy.cli import signing_in
from argosy.cli.main import run
from argosy.cli.session import Session
from argosy.identity.one_time_codes import STEP_MS, code_at
from argosy.testing.identity_provider import FakeIdentityProvider


class Done(NamedTuple):
    status: int
    out: str
    err: str


class Laptop:
    """A machine from which somebody works. `owner`: over the unix socket of the server's own machine."""

    def __init__(self, site: Site, folder: Path, capture: pytest.CaptureFixture[str], *, owner: bool) -> None:
        self.site, self._capture = site, capture
        self.home = folder
        self.home.mkdir()
        where = f"unix://{site.socket}" if owner else site.address
        self.env = {"HOME": str(folder), "ARGOSY_SERVER": where, "USER": "ann"}

    def __call__(self, *words: str, typed: str = "") -> Done:
        self._capture.readouterr()
        session = Session(self.env, cwd=self.home, now_ms=self.site.clock.now_ms)
        with _typed(typed):
            status = run(list(words), session)
        return Done(status, *self._capture.readouterr())

    def good(self, *words: str, typed: str = "") -> str:
        done = self(*words, typed=typed)
        assert done.status == 0, done
        return done.out

    @property
    def kept(self) -> Path:
        return self.home / ".argosy" / "sign-ins.json"


@contextmanager
def _typed(text: str) -> Iterator[None]:
    before, sys.stdin = sys.stdin, io.StringIO(text)
    try:
        yield
    finally:
        sys.stdin = before


@pytest.fixture
def laptop(site: Site, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> Laptop:
    return Laptop(site, tmp_path / "laptop", capsys, owner=False)


@pytest.fixture
def office(site: Site, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> Laptop:
    return Laptop(site, tmp_path / "office", capsys, owner=True)


def test_from_an_account_to_its_end(laptop: Laptop, office: Laptop) -> None:
    assert office.good("whoami").splitlines() == [
        f"owner (by socket) at {office.site.socket}", "Whoever reaches this socket may do everything.",
    ]  # fmt: skip
    refused = office("login")
    assert refused.status == 2 and "the server of this machine asks nobody to sign in" in refused.err
    assert laptop("whoami").status == 6 and "this server asks for a token" in laptop("whoami").err

    office.good("project", "create", "acme", "--as-organisation")
    office.good("project", "create", "vision", "--organisation", "acme")
    made = office.good("user", "add", "ann", "--name", "Ann Arbor", "--role", "member", "--project", "vision")
    first = made.split()[-1]
    assert made.startswith("`ann` has an account.\nFirst password, shown once: ") and len(first) == 23

    wrong = laptop("login", "--user", "ann", typed="not the password\n")
    assert (wrong.status, wrong.err.splitlines()[0]) == (
        6,
        "error: the name, the password or the one-time code is wrong",
    )
    assert not laptop.kept.exists()
    said = laptop.good("login", "--user", "ann", typed=f"{first}\n")
    assert said.startswith(f"Signed in to {laptop.site.address} as ann; the token is in {laptop.kept}.")
    assert "Somebody else chose your password" in said
    assert stat.S_IMODE(laptop.kept.stat().st_mode) == 0o600
    token = json.loads(laptop.kept.read_text())[laptop.site.address]
    assert token not in said and first not in said

    laptop.good("user", "password", typed=f"{first}\n{PASSWORD}\n")
    assert laptop("whoami").status == 6, "every sign-in of before has ended"
    laptop.good("login", "--user", "ann", typed=f"{PASSWORD}\n")
    assert laptop.good("whoami").splitlines()[1:] == ["  member          vision"]

    secret = laptop.good(
        "token", "create", "ci", "--days", "30", "--may", "jobs.*", "--project", "vision"
    ).strip()
    assert secret.startswith("argosy_pat_")
    listed = laptop.good("token", "ls")
    assert secret not in listed and "ci" in listed and "cli (this)" in listed
    robot = Laptop(laptop.site, laptop.home / "robot", laptop._capture, owner=False)
    robot.env["ARGOSY_TOKEN"] = secret
    assert robot.good("whoami").startswith("ann (by token)")
    assert robot("secret", "ls").status == 6, "the token is for jobs"
    laptop.good("token", "rm", "ci")
    assert "the server does not know this token" in robot("whoami").err

    assert laptop.good("logout") == f"Signed out of {laptop.site.address}.\n"
    assert json.loads(laptop.kept.read_text()) == {} and laptop("whoami").status == 6
    assert laptop.site.ask("GET", "/whoami", token=token).status == 401, "it has ended at the server, too"
    office.good("user", "disable", "ann")
    assert laptop("login", "--user", "ann", typed=f"{PASSWORD}\n").status == 6
    office.good("user", "enable", "ann")
    office.good("user", "rm", "ann")
    assert "is taken" in office("user", "add", "ann").err or office("user", "add", "ann").status


def test_a_code_of_an_authenticator(laptop: Laptop) -> None:
    laptop.site.add_user("ann")
    laptop.good("login", "--user", "ann", typed=f"{PASSWORD}\n")
    refused = laptop("user", "codes", typed="000000\n")
    assert refused.status == 6 and "Type this key into your authenticator app: " in refused.out
    key = refused.out.split("app: ")[1].split()[0]
    assert f"otpauth://totp/Argosy%3Aann?secret={key}" in refused.out
    laptop.good("login", "--user", "ann", typed=f"{PASSWORD}\n")
    _with_key(laptop, laptop.site)


def _with_key(laptop: Laptop, site: Site) -> None:
    """The key that the server shows next is the one that counts."""
    token = json.loads(laptop.kept.read_text())[site.address]
    key = site.ask("POST", "/second-factor", {}, token=token).json["key"]

    def now() -> str:
        return code_at(key, site.clock.now_ms() // STEP_MS)

    assert site.ask("POST", "/second-factor", {"code": now()}, token=token).status == 200
    site.clock.advance(60)
    done = laptop("login", "--user", "ann", typed=f"{PASSWORD}\n123456\n")
    assert done.status == 6, "a wrong code"
    laptop.good("login", "--user", "ann", typed=f"{PASSWORD}\n{now()}\n")
    assert laptop.good("whoami").startswith("ann (by session)")


def test_by_the_code_of_a_device(
    laptop: Laptop, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    site = laptop.site
    site.add_user("ann", "member", "vision")
    laptop.good("login", "--user", "ann", typed=f"{PASSWORD}\n")
    box = Laptop(site, tmp_path / "box", capsys, owner=False)
    shown: list[str] = []

    def meanwhile(seconds: float) -> None:
        """The person reads the code off the box and types it at the laptop."""
        text = capsys.readouterr().err
        shown.append(text)
        code = text.split("--confirm ")[1].split()[0]
        assert laptop("login", "--confirm", "BCDF-GHJK").status, "not any code"
        told = laptop("login", "--confirm", code.lower())
        assert told.status == 0 and "wants to be let in as you" in told.err and "is let in" in told.out
        site.clock.advance(seconds)

    monkeypatch.setattr(signing_in, "time", SimpleNamespace(sleep=meanwhile))
    assert " as ann; the token is in " in box.good("login", "--device")
    assert len(shown) == 1 and "The code is good for ten minutes" in shown[0]
    assert box.good("whoami").startswith("ann (by session)")


def test_by_the_browser(laptop: Laptop, monkeypatch: pytest.MonkeyPatch) -> None:
    site, provider = laptop.site, FakeIdentityProvider()
    open_pages(site, provider)
    allow(site)
    opened: list[str] = []

    def browser(address: str) -> bool:
        opened.append(address)
        page = go(site, provider, address.partition("/login/sso")[2])
        back = page.header("location")
        assert back.startswith("http://127.0.0.1:")
        threading.Thread(target=urllib.request.urlopen, args=(back,), kwargs={"timeout": 90}).start()
        return True

    monkeypatch.setattr("webbrowser.open", browser)
    assert " as ann; the token is in " in laptop.good("login", "--browser")
    assert len(opened) == 1 and laptop.good("whoami").splitlines()[1:] == ["  member          vision"]


def test_roles_secrets_and_the_audit_log(laptop: Laptop, office: Laptop, tmp_path: Path) -> None:
    site = laptop.site
    site.add_user("ann", "admin", "vision")
    site.add_user("bob")
    laptop.good("login", "--user", "ann", typed=f"{PASSWORD}\n")
    office.good("role", "create", "on-call", "--may", "*.read", "--may", "jobs.write", "--about", "at night")
    assert "on-call" in laptop.good("role", "ls")
    said = laptop.good("role", "give", "bob", "on-call", "--project", "vision")
    assert said == "`bob` is on-call of vision.\n"
    more = laptop("role", "give", "bob", "owner")
    assert more.status == 6, "nobody gives what they do not have"
    assert "bob" in laptop.good("role", "members", "--project", "vision")
    laptop.good("role", "take", "bob", "on-call", "--project", "vision")
    last = office("role", "take", "nobody", "owner")
    assert last.status

    value = "the value of a secret"
    said = laptop.good("secret", "set", "hf-token", "--project", "vision", typed=f"{value}\n")
    assert said.startswith("Secret `hf-token` is set") and value not in said
    assert value not in laptop.good("secret", "ls", "--json") and "hf-token" in laptop.good("secret", "ls")
    laptop.good("secret", "rm", "hf-token", "--project", "vision")

    assert laptop("audit", "ls").status == 6, "an administrator of one project reads no audit log"
    listed = office.good("audit", "ls", "--who", "ann")
    assert "set_secret" in listed and "set_member" in listed and value not in listed
    assert "denied" in office.good("audit", "ls", "--outcome", "denied")
    lines = [json.loads(line) for line in office.good("audit", "export").splitlines()]
    assert [each["seq"] for each in lines] == list(range(1, len(lines) + 1))
    assert all(each["hash"] and value not in str(each) for each in lines)
    given = next(each["act"] for each in lines if each["act"]["action"] == "set_member")
    assert (given["who"], given["via"], given["address"]) == ("ann", "session", "127.0.0.1")
    assert json.loads(given["changes"]), "before and after"
    behind = office.good("audit", "export", "--after", str(len(lines) - 1)).splitlines()
    assert json.loads(behind[0])["seq"] == len(lines)
    assert office.good("audit", "verify").startswith(f"{len(lines)} rows, 1 to {len(lines)}; head ")

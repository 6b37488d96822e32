"""Certificates by ACME, against an authority that forgives nothing, with a clock that is moved."""

from __future__ import annotations

import asyncio
import itertools
import stat
from collections.abc import Awaitable
from pathlib import Path
from typing import TypeVar

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding

from argosy.infra import border
from argosy.infra.acme import HTTP_PATH, Acme, Membership, Proof, Solver, renewal_ms, retry_s
from argosy.infra.acme_kept import Kept
from argosy.infra.acme_keys import AccountKey, make_key
from argosy.infra.acme_proofs import DnsProofs
from argosy.testing.fake_acme import FakeAuthority

T = TypeVar("T")
DAY_MS = 86_400_000
START_MS = 1_790_000_000_000


class Clock:
    """Moved by pauses."""

    def __init__(self) -> None:
        self.ms = START_MS
        self.pauses: list[float] = []

    def now_ms(self) -> int:
        return self.ms

    def monotonic_s(self) -> float:
        return self.ms / 1000

    async def pause(self, seconds: float) -> None:
        self.pauses.append(seconds)
        self.ms += int(seconds * 1000)


class DnsRecords:
    """Proofs that a test keeps."""

    kind = "dns-01"

    def __init__(self) -> None:
        self.records: dict[str, list[str]] = {}
        self.hidden = 0

    async def show(self, proof: Proof) -> None:
        self.records.setdefault(proof.host, []).append(proof.text)

    async def hide(self, proof: Proof) -> None:
        self.hidden += 1


class HttpProofs:
    """Proofs over plain HTTP, in the memory of a test."""

    kind = "http-01"

    def __init__(self) -> None:
        self._texts: dict[str, str] = {}

    async def show(self, proof: Proof) -> None:
        self._texts[proof.token] = proof.text

    async def hide(self, proof: Proof) -> None:
        self._texts.pop(proof.token, None)

    def answer(self, path: str) -> str | None:
        """What a GET of `path` is answered; None: it is no proof that is asked for now."""
        return self._texts.get(path.removeprefix(HTTP_PATH)) if path.startswith(HTTP_PATH) else None


class Site:
    """A host, its clock, and an authority that looks at it."""

    def __init__(self, tmp_path: Path, solver: Solver | None = None, **authority: float) -> None:
        self.clock, self.http, self.folder = Clock(), HttpProofs(), tmp_path / "acme"
        self.solver = solver or self.http
        self.authority = FakeAuthority(self.reach, lambda: self.clock.ms / 1000, **authority)
        self.membership = Membership(contact=("ann@example.com",))
        self.dice = lambda: 0.5
        self.seen: list[str] = []

    async def reach(self, kind: str, host: str, token: str) -> str | None:
        self.seen.append(f"{kind} {host}")
        if kind == "http-01":
            return self.http.answer(HTTP_PATH + token)
        assert isinstance(self.solver, DnsRecords)
        return self.solver.records.get(host, [""]).pop()

    def account(self, key: AccountKey) -> Acme:
        return Acme(
            self.authority.directory,
            key,
            ask=self.authority,
            clock=self.clock,
            pause=self.clock.pause,
            membership=self.membership,
        )

    def kept(self) -> Kept:
        return Kept(
            self.folder,
            self.account,
            self.solver,
            clock=self.clock,
            dice=lambda: self.dice(),
            pause=self.clock.pause,
        )

    async def obtain(self, *names: str) -> list[x509.Certificate]:
        chain = await self.account(AccountKey(make_key())).obtain(names, make_key(), self.solver)
        return x509.load_pem_x509_certificates(chain)


@pytest.fixture
def site(tmp_path: Path) -> Site:
    return Site(tmp_path)


def run(work: Awaitable[T]) -> T:
    async def go() -> T:
        return await work

    return asyncio.run(go())


def names_of(certificate: x509.Certificate) -> list[str]:
    found = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    return [*found.get_values_for_type(x509.DNSName), *map(str, found.get_values_for_type(x509.IPAddress))]


def test_a_certificate_of_two_hosts(site: Site) -> None:
    leaf, authority = run(site.obtain("argosy.example", "jobs.example"))
    assert names_of(leaf) == ["argosy.example", "jobs.example"]
    leaf.verify_directly_issued_by(authority)
    assert site.seen == ["http-01 argosy.example", "http-01 jobs.example"]
    assert site.authority.wrongs == [], "nothing that the authority had to refuse"
    assert site.http.answer(HTTP_PATH + "x") is None and not site.http._texts, "proofs are taken away again"


def test_an_address_has_one_too(site: Site) -> None:
    [leaf, _] = run(site.obtain("192.0.2.7"))
    assert names_of(leaf) == ["192.0.2.7"]


def test_a_wildcard_is_proved_by_the_dns(tmp_path: Path) -> None:
    records = DnsRecords()
    site = Site(tmp_path, records)
    [leaf, _] = run(site.obtain("apps.example", "*.apps.example"))
    assert names_of(leaf) == ["apps.example", "*.apps.example"]
    assert site.seen == ["dns-01 apps.example"] * 2 and records.hidden == 2
    with pytest.raises(border.RequestRefused, match=r"proves apps\.example by dns-01, not by http-01"):
        run(Site(tmp_path).obtain("*.apps.example"))


def test_a_nonce_that_is_old_is_replaced(site: Site) -> None:
    site.authority.bad_nonces = 3
    run(site.obtain("argosy.example"))
    assert [each.partition(":")[0] for each in site.authority.wrongs] == ["badNonce"] * 3
    site.authority.bad_nonces = 1000
    with pytest.raises(border.Transient, match="takes none of its own nonces"):
        run(site.obtain("argosy.example"))


def test_it_waits_as_long_as_the_authority_says(site: Site) -> None:
    site.authority.looks = 5
    run(site.obtain("argosy.example"))
    assert site.clock.pauses == [2.0] * 3
    site.authority.looks = 1000
    with pytest.raises(border.Transient, match="leaves the order processing"):
        run(site.obtain("argosy.example"))


def test_a_limit_says_when_to_come_back(site: Site) -> None:
    site.authority.rate_limited_s = 7200
    with pytest.raises(border.Transient, match="no more certificates for a while: too many") as told:
        run(site.obtain("argosy.example"))
    assert told.value.after_s == 7200


def test_a_host_that_is_not_ours(site: Site) -> None:
    site.http.answer = lambda path: None  # type: ignore[method-assign]
    with pytest.raises(
        border.RequestRefused, match=r"argosy\.example could not be proved: nothing is there at argosy"
    ):
        run(site.obtain("argosy.example"))
    assert not site.http._texts


def test_what_the_authority_refuses(site: Site) -> None:
    site.authority.refuses = {"evil.example"}
    with pytest.raises(border.RequestRefused, match=r"the authority refuses: no certificates for evil"):
        run(site.obtain("evil.example"))
    site.authority.down = OSError("no route to host")
    with pytest.raises(border.Unreachable, match=r"directory cannot be reached: no route to host"):
        run(site.obtain("argosy.example"))


def test_an_account_that_the_authority_knows_already(site: Site) -> None:
    site.authority.outside = ("team-7", "c2VjcmV0LXNlY3JldC1zZWNyZXQtc2VjcmV0")
    with pytest.raises(border.RequestRefused, match="wants to be told an account that it knows already"):
        run(site.obtain("argosy.example"))
    site.membership = Membership(outside="team-7", outside_secret="d3Jvbmctd3Jvbmctd3Jvbmctd3Jvbmctd3Jvbmct")
    with pytest.raises(border.RequestRefused, match="did not sign this"):
        run(site.obtain("argosy.example"))
    site.membership = Membership(outside="team-7", outside_secret=site.authority.outside[1])
    run(site.obtain("argosy.example"))
    assert site.authority.outside[1] not in repr(site.membership)


# -- kept and renewed ----------------------------------------------------------------------------------


def test_it_is_renewed_in_time_for_ever(tmp_path: Path) -> None:
    site = Site(tmp_path)
    made: list[tuple[int, bytes]] = []

    class Enough(Exception):
        pass

    def changed(path: Path) -> None:
        made.append((site.clock.ms, path.read_bytes()))
        if len(made) == 4:
            raise Enough

    with pytest.raises(Enough):
        run(site.kept().keep(["argosy.example"], changed))
    assert len({text for _, text in made}) == 4
    gaps = [(later - at) / DAY_MS for (at, _), (later, _) in itertools.pairwise(made)]
    assert all(55 < gap < 60 for gap in gaps), gaps
    assert len(site.authority.accounts) == 1, "one account, whose key is kept"
    for name in ("account.key", "argosy.example.pem"):
        assert stat.S_IMODE((site.folder / name).stat().st_mode) == 0o600
    assert sorted(path.name for path in site.folder.iterdir()) == ["account.key", "argosy.example.pem"]


def test_a_restart_asks_for_nothing_that_is_there(site: Site) -> None:
    names = ["argosy.example", "jobs.example"]
    assert run(site.kept().renew(names)) is not None
    assert run(site.kept().renew(names)) is None and len(site.authority.orders) == 1
    assert run(site.kept().renew([*names, "more.example"])) is not None, "another name, another certificate"
    path = site.kept().file(names)
    assert path is not None
    path.write_bytes(path.read_bytes()[:200])
    assert site.kept().file(names) is None and run(site.kept().renew(names)) is not None


def test_what_fails_is_tried_later_and_the_old_one_stays(site: Site) -> None:
    names = ["argosy.example"]
    kept = site.kept()
    first = run(kept.renew(names))
    assert first is not None
    before = first.read_bytes()
    site.clock.ms += 62 * DAY_MS
    site.authority.down = OSError("no route to host")
    assert run(kept.renew(names)) is None
    failed = site.kept().failure(names)
    assert failed is not None and failed.count == 1 and "no route to host" in failed.why
    assert run(site.kept().renew(names)) is None and site.kept().failure(names) == failed, "not yet"
    site.clock.ms = failed.next_ms
    site.authority.down = None
    site.authority.rate_limited_s = 86_400
    assert run(kept.renew(names)) is None
    failed = kept.failure(names)
    assert failed is not None and failed.count == 2 and failed.next_ms == site.clock.ms + DAY_MS
    assert kept.file(names) == first and first.read_bytes() == before
    site.clock.ms, site.authority.rate_limited_s = failed.next_ms, 0
    assert run(kept.renew(names)) == first and first.read_bytes() != before
    assert kept.failure(names) is None


def test_a_certificate_for_others_is_not_used(site: Site) -> None:
    other = run(site.obtain("evil.example"))
    site.authority.changed_chain = lambda chain: other[0].public_bytes(Encoding.PEM)
    kept = site.kept()
    assert run(kept.renew(["argosy.example"])) is None and kept.file(["argosy.example"]) is None
    failed = kept.failure(["argosy.example"])
    assert failed is not None and "no certificate for these hosts and this key" in failed.why


def test_dice_spread_renewals_and_tries() -> None:
    ends = [renewal_ms(0, 90 * DAY_MS, lambda dice=dice: dice) / DAY_MS for dice in (0, 0.5, 1)]
    assert ends == pytest.approx([60, 57.75, 55.5])
    waits = [retry_s(count, lambda: 0) for count in (1, 2, 3, 20)]
    assert waits == [900, 1800, 3600, 43_200] and retry_s(1, lambda: 1) == 1125


# -- the command that makes records ----------------------------------------------------------------------


def test_a_command_makes_the_records_of_the_dns(tmp_path: Path) -> None:
    script = tmp_path / "hook"
    script.write_text(
        f'#!/bin/sh\necho "$@" >> {tmp_path}/said\n'
        'case "$*" in *_acme-challenge.bad*) echo no zone >&2; exit 3;; esac\n'
    )
    script.chmod(0o755)
    proofs = DnsProofs([str(script), "--zone=example"])
    proof = Proof(kind="dns-01", host="apps.example", token="t", text="text")

    async def both() -> None:
        await proofs.show(proof)
        await proofs.hide(proof)

    run(both())
    lines = (tmp_path / "said").read_text().splitlines()
    assert lines == [f"--zone=example {verb} _acme-challenge.apps.example text" for verb in ("add", "remove")]
    with pytest.raises(border.RequestRefused, match="hook ended with 3: no zone"):
        run(DnsProofs([str(script)]).show(Proof(kind="dns-01", host="bad", token="t", text="t")))
    with pytest.raises(border.RequestRefused, match="cannot run /no/such: No such file"):
        run(DnsProofs(["/no/such"]).show(proof))

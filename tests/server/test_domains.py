"""Domains of services: certificates of their own and from an authority, and where a domain points."""

from __future__ import annotations

import asyncio
import contextlib
import datetime
import ssl
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec

from argosy.api.services import OwnCertificate
from argosy.gateway.run import Settings, load_certificates
from argosy.infra.acme import HTTP_PATH, Acme
from argosy.infra.acme_kept import Kept
from argosy.infra.acme_keys import AccountKey
from argosy.model.errors import ArgosyError
from argosy.model.routes import Listening
from argosy.server.domains import Domains, FileProofs, about_domains, keep_own, points_elsewhere
from argosy.testing.fake_acme import FakeAuthority

HOST = "chat.example.org"
NOW = datetime.datetime.now(datetime.UTC)
NOW_MS = int(NOW.timestamp() * 1000)


def _made(host: str = HOST, days: int = 30) -> OwnCertificate:
    """A certificate and its key, in PEM."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, host)])
    built = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(NOW - datetime.timedelta(days=60))
        .not_valid_after(NOW + datetime.timedelta(days=days))
        .add_extension(x509.SubjectAlternativeName([x509.DNSName(host)]), critical=False)
        .sign(key, hashes.SHA256())
    )
    pem = serialization.Encoding.PEM
    secret = key.private_bytes(pem, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    return OwnCertificate(certificate=built.public_bytes(pem).decode(), key=secret.decode())


def test_the_certificate_of_a_service_is_used_by_gateways_of_its_folder(tmp_path: Path) -> None:
    keep_own(tmp_path, "svc-1", _made(), [HOST], NOW_MS)
    place = tmp_path / "certificates" / "svc-1.pem"
    assert place.stat().st_mode & 0o777 == 0o600 and place.parent.stat().st_mode & 0o777 == 0o700
    settings = Settings(control=str(tmp_path / "control.sock"), tls=("127.0.0.1:0",))
    certificates = load_certificates(settings)
    assert certificates.covers(HOST.encode()) and certificates.covers(b"127.0.0.1")
    assert not certificates.covers(b"other.example.org"), "one that is made here is for this machine"
    keep_own(tmp_path, "svc-2", _made("other.example.org"), ["other.example.org"], NOW_MS)
    assert certificates.renew(NOW) == [] and certificates.covers(b"other.example.org")
    place.unlink()
    certificates.renew(NOW)
    assert not certificates.covers(HOST.encode())


@pytest.mark.parametrize(
    ("certificate", "said"),
    [
        (OwnCertificate(certificate=_made().certificate, key=_made().key), "does not belong to the key"),
        (_made(days=-1), "expired on"),
        (_made("web.example.org"), "the certificate is not for the domain `chat.example.org`"),
        (OwnCertificate(certificate="nothing", key="nothing"), "are not a certificate and its key in PEM"),
    ],
)
def test_a_certificate_that_is_no_good_is_refused_with_words(
    tmp_path: Path, certificate: OwnCertificate, said: str
) -> None:
    with pytest.raises(ArgosyError, match=said) as caught:
        keep_own(tmp_path, "svc-1", certificate, [HOST], NOW_MS)
    assert str(tmp_path) not in str(caught.value) and "PRIVATE" not in str(caught.value)
    assert list((tmp_path / "certificates").iterdir()) == []


def test_a_domain_that_points_elsewhere_is_told() -> None:
    async def to(*addresses: str) -> str:
        async def resolve(host: str) -> set[str]:
            return set(addresses)

        return await points_elsewhere(HOST, resolve, {"192.0.2.1"})

    async def story() -> None:
        assert await to("192.0.2.1", "192.0.2.9") == ""
        said = await to("192.0.2.9")
        assert said == f"the domain `{HOST}` points to 192.0.2.9, which is no address of this machine"
        assert await to() == f"the domain `{HOST}` points nowhere yet: let it point to this machine"
        [said] = await about_domains((HOST,), Listening(is_local=True))
        assert said.startswith("nobody outside reaches the gateway of this machine")
        assert await about_domains((), Listening()) == []

    asyncio.run(story())


class _Clock:
    def now_ms(self) -> int:
        return NOW_MS

    def monotonic_s(self) -> float:
        return 0.0


def test_a_domain_gets_its_certificate_from_an_authority_that_asks_a_gateway(tmp_path: Path) -> None:
    """The authority (a strict fake) asks over HTTP, and a gateway's finder answers from the folder."""
    from argosy.gateway.finding import Finder

    asked: list[bytes] = []
    finder = Finder(tmp_path / "proofs")

    async def reach(kind: str, host: str, token: str) -> str | None:
        path = (HTTP_PATH + token).encode()
        asked.append(path)
        answer = finder.prove(path)
        return answer.body.decode() if (kind, host, answer.status) == ("http-01", HOST, 200) else None

    async def story() -> None:
        authority = FakeAuthority(reach, lambda: NOW.timestamp())
        clock = _Clock()

        async def pause(seconds: float) -> None:
            if seconds > 3000:
                await asyncio.Event().wait()
            await asyncio.sleep(0)

        def account(key: AccountKey) -> Acme:
            return Acme(authority.directory, key, ask=authority, clock=clock, pause=pause)

        kept = Kept(
            tmp_path / "certificates",
            account,
            FileProofs(tmp_path),
            clock=clock,
            dice=lambda: 0.5,
            pause=pause,
        )
        domains = Domains(tmp_path, kept, clock)
        keep_own(tmp_path, "svc-1", _made("own.example.org"), ["own.example.org"], NOW_MS)
        domains.follow([HOST, "own.example.org"])
        async with asyncio.timeout(90):
            while kept.file((HOST,)) is None:
                await asyncio.sleep(0.01)
        assert asked and not list((tmp_path / "proofs").iterdir()), "proofs are taken away again"
        assert kept.file(("own.example.org",)) is None, "who has one is not asked for"
        settings = Settings(control=str(tmp_path / "control.sock"), tls=("127.0.0.1:0",))
        assert load_certificates(settings).covers(HOST.encode())
        domains.close()

    asyncio.run(story())


def test_a_client_that_trusts_the_certificate_made_here_gets_in(tmp_path: Path) -> None:
    settings = Settings(control=str(tmp_path / "control.sock"), tls=("127.0.0.1:0",))
    certificates = load_certificates(settings)

    async def story() -> None:
        async def hello(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            with contextlib.suppress(ConnectionError):
                writer.write(b"hello")
                writer.close()

        server = await asyncio.start_server(hello, "127.0.0.1", 0, ssl=certificates.context)
        port = server.sockets[0].getsockname()[1]
        trusting = ssl.create_default_context(cafile=str(tmp_path / "own" / "server.pem"))
        reader, writer = await asyncio.open_connection(
            "127.0.0.1", port, ssl=trusting, server_hostname="localhost"
        )
        assert await reader.read() == b"hello"
        writer.close()
        with pytest.raises(ssl.SSLCertVerificationError):
            await asyncio.open_connection("127.0.0.1", port, ssl=ssl.create_default_context())
        server.close()

    asyncio.run(story())

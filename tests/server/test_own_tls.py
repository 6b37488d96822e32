"""TLS of the server itself: certificates of one's own, signed here, and of an authority."""

from __future__ import annotations

import asyncio
import contextlib
import datetime
import http.client
import os
import socket
import ssl
import threading
import time
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from test_server_process import Process

from argosy.infra.acme import HTTP_PATH, Proof
from argosy.model.errors import ArgosyError
from argosy.server.host_proofs import PlainHttp, StoredProofs
from argosy.server.own_tls import OwnTls, TlsWish, parse_tls
from argosy.store import Store
from argosy.testing.fake_acme import FakeAuthority
from argosy.testing.ports import free_port
from argosy.testing.virtual_time import FixedClock, SimIds

NOW_MS = 1_790_000_000_000
DAY = datetime.timedelta(days=1)


def write_pair(folder: Path, *, begins: int = -1, ends: int = 90, name: str = "argosy.example") -> TlsWish:
    """`cert.pem` and `key.pem`, good from and to so many days from now."""
    now = datetime.datetime.fromtimestamp(NOW_MS / 1000, datetime.UTC)
    key = ec.generate_private_key(ec.SECP256R1())
    called = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, name)])
    made = (
        x509.CertificateBuilder()
        .subject_name(called)
        .issuer_name(called)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now + begins * DAY)
        .not_valid_after(now + ends * DAY)
        .add_extension(x509.SubjectAlternativeName([x509.DNSName(name)]), critical=False)
        .sign(key, hashes.SHA256())
    )
    certificate, secret = folder / "cert.pem", folder / "key.pem"
    certificate.write_bytes(made.public_bytes(serialization.Encoding.PEM))
    secret.write_bytes(_pem(key, serialization.NoEncryption()))
    return TlsWish(mode="files", folder=folder, certificate=str(certificate), key=str(secret))


def _pem(key: ec.EllipticCurvePrivateKey, how: serialization.KeySerializationEncryption) -> bytes:
    return key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, how)


def shown(context: ssl.SSLContext) -> x509.Certificate:
    """The certificate that a client sees."""
    here, there = socket.socketpair()

    def serve() -> None:
        with contextlib.suppress(OSError), context.wrap_socket(there, server_side=True) as peer:
            peer.recv(1)

    thread = threading.Thread(target=serve)
    thread.start()
    blind = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    blind.check_hostname, blind.verify_mode = False, ssl.CERT_NONE
    with blind.wrap_socket(here, server_hostname="x.example") as peer:
        found = peer.getpeercert(binary_form=True)
    thread.join()
    assert found is not None
    return x509.load_der_x509_certificate(found)


def clock() -> FixedClock:
    return FixedClock(NOW_MS)


@pytest.mark.parametrize(
    ("wrong", "text"),
    [
        ("expired", r"the certificate .*cert\.pem expired on 2026-09-"),
        ("early", r"cert\.pem is not valid before 2026-09-"),
        ("other key", r"cert\.pem does not belong to the key .*other\.pem"),
        ("no pem", r"cert\.pem and .*key\.pem are not a certificate and its key in PEM"),
        ("missing", r"key\.pem: No such file or directory"),
        ("passphrase", r"key\.pem is encrypted: keep it without a passphrase"),
    ],
)
def test_a_certificate_that_cannot_work_is_told_at_the_start(tmp_path: Path, wrong: str, text: str) -> None:
    begins, ends = {"expired": (-9, -1), "early": (1, 9)}.get(wrong, (-1, 90))
    wish = write_pair(tmp_path, begins=begins, ends=ends)
    key = ec.generate_private_key(ec.SECP256R1())
    if wrong == "other key":
        other = tmp_path / "other.pem"
        other.write_bytes(_pem(key, serialization.NoEncryption()))
        wish = TlsWish(mode="files", folder=tmp_path, certificate=wish.certificate, key=str(other))
    elif wrong == "no pem":
        Path(wish.certificate).write_text("hello")
    elif wrong == "missing":
        Path(wish.key).unlink()
    elif wrong == "passphrase":
        Path(wish.key).write_bytes(_pem(key, serialization.BestAvailableEncryption(b"x")))
    with pytest.raises(ArgosyError, match=text) as told:
        OwnTls(wish, clock())
    assert "name PEM files; the chain follows" in told.value.hint


def test_a_new_file_is_used_without_a_restart(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    wish = write_pair(tmp_path)
    now = clock()
    tls = OwnTls(wish, now)
    first = shown(tls.context)
    assert tls.words() == f"argosy.example, until {first.not_valid_after_utc:%Y-%m-%d} ({wish.certificate})"
    write_pair(tmp_path, ends=200)
    os.utime(wish.certificate, ns=(1, 1))  # another time than before, however quick this was
    asyncio.run(tls.look())
    assert shown(tls.context) != first
    second = shown(tls.context)
    Path(wish.certificate).write_text("torn")
    os.utime(wish.certificate, ns=(2, 2))
    for _ in range(3):
        asyncio.run(tls.look())
    tls.reload()
    assert shown(tls.context) == second, "a wrong one changes nothing"
    assert [each.message for each in caplog.records if "PEM" in each.message] == [
        f"TLS: {wish.certificate} and {wish.key} are not a certificate and its key in PEM"
    ], "told once"
    now.advance(190 * 86_400)
    asyncio.run(tls.look())
    assert any("the certificate ends on" in each.message for each in caplog.records)


def test_what_is_asked_for(tmp_path: Path) -> None:
    def parse(listen: str = "0.0.0.0:443", **environ: str) -> TlsWish | None:
        given = {f"ARGOSY_{name}": value for name, value in environ.items()}
        return parse_tls(given, tmp_path, listen, frozenset({"gpu-box"}))

    assert parse() is None and parse("", TLS="generated") is None, "nothing, and nothing that listens"
    files = parse(TLS_CERT="c", TLS_KEY="k")
    assert files is not None and (files.mode, files.trusted) == ("files", "c")
    made = parse("10.1.1.1:443", TLS="generated", TLS_DOMAINS="a.example")
    assert made is not None and made.names == ("a.example", "gpu-box", "10.1.1.1")
    assert made.trusted == str(tmp_path / "tls" / "ca.pem")
    acme = parse(TLS="acme", TLS_DOMAINS="a.example b.example", ACME_EMAIL="ann@example.com")
    assert acme is not None and acme.authority is not None and acme.authority.http == "0.0.0.0:80"
    assert acme.authority.directory.startswith("https://") and acme.trusted == ""
    wild = parse(TLS="acme", TLS_DOMAINS="*.a.example", ACME_DNS_COMMAND="hook --zone 'a b'")
    assert wild is not None and wild.authority is not None
    assert (wild.authority.dns, wild.authority.http) == (("hook", "--zone", "a b"), "")
    for given, text in (
        ({"TLS_CERT": "c"}, "ARGOSY_TLS_CERT and ARGOSY_TLS_KEY belong together"),
        ({"TLS": "yes"}, "ARGOSY_TLS is `yes`: `generated` or `acme`, without ARGOSY_TLS_CERT"),
        ({"TLS": "acme", "TLS_CERT": "c", "TLS_KEY": "k"}, "ARGOSY_TLS is `acme`"),
        ({"TLS": "acme"}, "ARGOSY_TLS_DOMAINS names no host"),
        ({"TLS": "acme", "TLS_DOMAINS": "*.a.example"}, "is given for a record in the DNS only"),
    ):
        with pytest.raises(ArgosyError, match=text):
            parse(**given)


def test_whichever_server_is_asked_knows_the_proof(tmp_path: Path) -> None:
    async def main() -> None:
        url = f"sqlite:///{tmp_path / 'argosy.db'}"
        store = await Store.open(url, ids=SimIds(), clock=clock())
        proofs = StoredProofs(store, clock(), SimIds())
        said: list[dict[str, object]] = []

        async def ask(path: str) -> tuple[int, bytes, dict[bytes, bytes]]:
            async def send(message: dict[str, object]) -> None:
                said.append(message)

            said.clear()
            door = PlainHttp(StoredProofs(store, clock(), SimIds()), "https://argosy.example/")
            await door({"type": "http", "path": path}, None, send)  # type: ignore[arg-type]
            return said[0]["status"], said[1]["body"], dict(said[0]["headers"])  # type: ignore[call-overload,return-value]

        proof = Proof(kind="http-01", host="argosy.example", token="t1", text="t1.thumb")
        await proofs.show(proof)
        assert (await ask(HTTP_PATH + "t1"))[:2] == (200, b"t1.thumb")
        for path in (HTTP_PATH + "t2", "/v1/jobs", "/\r\nset-cookie: a=b", HTTP_PATH):
            status, _, headers = await ask(path)
            assert status == 308 and headers[b"location"] == b"https://argosy.example/"
        await proofs.hide(proof)
        await proofs.hide(proof)
        assert (await ask(HTTP_PATH + "t1"))[0] == 308
        await store.close()

    asyncio.run(main())


class AuthorityServer:
    """The fake authority on a port; it looks at the proofs of the server on another."""

    def __init__(self) -> None:
        self.proofs = 0  # the port on which it looks
        outer = self

        class Handler(BaseHTTPRequestHandler):
            def log_message(self, *_: object) -> None:
                return

            def _answer(self) -> None:
                body = self.rfile.read(int(self.headers.get("content-length", 0))) or None
                url = f"{outer.authority.base}{self.path}"
                headers = {name.lower(): value for name, value in self.headers.items()}
                heard = asyncio.run(outer.authority(self.command, url, headers=headers, body=body))
                self.send_response(heard.status)
                for name, value in heard.headers.items():
                    self.send_header(name, value)
                self.send_header("content-length", str(len(heard.body)))
                self.end_headers()
                if self.command != "HEAD":
                    self.wfile.write(heard.body)

            do_GET = do_HEAD = do_POST = _answer

        self.http = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        base = f"http://127.0.0.1:{self.http.server_address[1]}"
        self.authority = FakeAuthority(self.reach, time.time, base=base)
        self.authority.looks = 0
        self.thread = threading.Thread(target=self.http.serve_forever)
        self.thread.start()

    async def reach(self, kind: str, host: str, token: str) -> str | None:
        connection = http.client.HTTPConnection("127.0.0.1", self.proofs, timeout=90)
        connection.request("GET", HTTP_PATH + token, headers={"host": host})
        return connection.getresponse().read().decode()

    def close(self) -> None:
        self.http.shutdown()
        self.thread.join()
        self.http.server_close()


@pytest.fixture
def authority() -> Iterator[AuthorityServer]:
    made = AuthorityServer()
    yield made
    made.close()


def test_a_server_gets_itself_a_certificate(tmp_path: Path, authority: AuthorityServer) -> None:
    """The real process: it listens at once with a certificate of its own, then with the authority's."""
    home = tmp_path / "h"
    authority.proofs = free_port()
    env = {"ARGOSY_ACME_DIRECTORY": authority.authority.directory, "ARGOSY_ACME_EMAIL": "ann@example.com"}
    more = ("--tls", "acme", "--domain", "argosy.example", "--acme-http", f"127.0.0.1:{authority.proofs}")
    process = Process(home, "--listen", "127.0.0.1:0", *more, env=env)
    try:
        process.wait_for(lambda: "by ACME" in process.raw.get("/server").json.get("certificate", ""))
        process.wait_for(lambda: (home / "tls" / "acme" / "argosy.example.pem").exists())
        port = int(process.raw.get("/server").json["listening"][1].rpartition(":")[2])
        trusted = tmp_path / "authority.pem"
        trusted.write_bytes(authority.authority.own_certificate)
        context = ssl.create_default_context(cafile=str(trusted))

        def answers() -> bool:
            plain = socket.create_connection(("127.0.0.1", port), 10)
            try:
                with context.wrap_socket(plain, server_hostname="argosy.example") as peer:
                    peer.sendall(b"GET /v1/health HTTP/1.1\r\nhost: argosy.example\r\n\r\n")
                    return peer.recv(100).startswith(b"HTTP/1.1 200")
            except ssl.SSLCertVerificationError:
                return False

        process.wait_for(answers)
        assert authority.authority.wrongs == []
        assert process.stop() == 0
    finally:
        process.kill()

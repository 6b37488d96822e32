"""TLS at the gateway: certificates by name, renewal, and what is wrong with a certificate in words."""

from __future__ import annotations

import asyncio
import datetime
import ssl
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from gateway_house import House, run_house

from argosy.gateway.connection import Door
from argosy.gateway.splice import clients
from argosy.gateway.tls import Certificates, Files

NOW = datetime.datetime.now(datetime.UTC)
DAY = datetime.timedelta(days=1)


def _write(folder: Path, name: str, *hosts: str, begins: int = -1, ends: int = 30) -> Files:
    key = ec.generate_private_key(ec.SECP256R1())
    subject = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, name)])
    builder = (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(subject)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(NOW + begins * DAY)
        .not_valid_after(NOW + ends * DAY)
    )
    if hosts:
        builder = builder.add_extension(
            x509.SubjectAlternativeName([x509.DNSName(host) for host in hosts]), critical=False
        )
    certificate, key_file = folder / f"{name}.pem", folder / f"{name}.key"
    certificate.write_bytes(builder.sign(key, hashes.SHA256()).public_bytes(serialization.Encoding.PEM))
    key_file.write_bytes(
        key.private_bytes(
            serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
        )
    )
    return Files(certificate=str(certificate), key=str(key_file))


def test_what_is_wrong_with_a_certificate_is_said(tmp_path: Path) -> None:
    one, two = _write(tmp_path, "one", "a"), _write(tmp_path, "two", "b")
    cases = {
        "does not belong to the key": Files(certificate=one.certificate, key=two.key),
        "old.pem expired on": _write(tmp_path, "old", "a", begins=-9, ends=-1),
        "early.pem is not valid before": _write(tmp_path, "early", "a", begins=2),
        "bare.pem names no host": _write(tmp_path, "bare"),
        "No such file": Files(certificate=str(tmp_path / "none"), key=one.key),
        "are not a certificate and its key": Files(certificate=one.key, key=one.key),
    }
    for said, files in cases.items():
        with pytest.raises(ValueError, match=said):
            Certificates([files], NOW)


def test_certificates_by_name_and_a_host_that_none_covers(tmp_path: Path) -> None:
    async def test(house: House) -> None:
        files = [_write(tmp_path, "one", "one.example"), _write(tmp_path, "apps", "*.apps.example")]
        certificates = Certificates(files, NOW)
        loop = asyncio.get_running_loop()
        door = Door(house.router, loop, lambda: b"id", secure=True)
        door.serves = certificates.covers
        server = await loop.create_server(clients(door), "127.0.0.1", 0, ssl=certificates.context)
        port = server.sockets[0].getsockname()[1]
        trusting = ssl.create_default_context()
        for each in files:
            trusting.load_verify_locations(each.certificate)

        async def get(name: str, host: str) -> bytes:
            reader, writer = await asyncio.open_connection(
                "127.0.0.1", port, ssl=trusting, server_hostname=name
            )
            writer.write(f"GET /s/web/ HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\n\r\n".encode())
            answer = await reader.read()
            writer.close()
            return answer

        assert (await get("one.example", "one.example")).endswith(b"ok")
        assert b"x-forwarded-proto: https\r\n" in house.replica.heads[0]
        assert (await get("x.apps.example", "x.apps.example")).endswith(b"ok")
        for host in ("evil.example", "apps.example", "y.x.apps.example"):
            assert (await get("one.example", host)).startswith(b"HTTP/1.1 421 ")
        assert len(house.replica.heads) == 2
        serial = certificates.find("one.example")
        _write(tmp_path, "one", "one.example", "new.example")
        assert certificates.renew(NOW) == [] and certificates.find("new.example") not in (None, serial)
        (tmp_path / "one.pem").write_text("broken")
        (wrong,) = certificates.renew(NOW)
        assert "are not a certificate and its key" in wrong and certificates.find("new.example") is not None
        server.close()

    run_house(test)

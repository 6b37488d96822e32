"""Clusters over TLS: their own authority, certificates of clients, and what is told when one is not "
"trusted."""

from __future__ import annotations

import asyncio
import datetime
import ipaddress
import ssl
from pathlib import Path
from typing import Any, NamedTuple

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID
from kube_cluster import a_driver, a_kube, a_pod_claim

from argosy.infra import border
from argosy.infra.provider import Want
from argosy.model.facts import ClaimState
from argosy.testing.builders import a_node


class Pem(NamedTuple):
    cert: bytes
    key: bytes


def a_certificate(name: str, *, over: bool = False) -> Pem:
    """Signed by itself, for 127.0.0.1. `over`: it ended yesterday."""
    key = ec.generate_private_key(ec.SECP256R1())
    who = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
    now, day = datetime.datetime.now(datetime.UTC), datetime.timedelta(days=1)
    address = x509.SubjectAlternativeName([x509.IPAddress(ipaddress.ip_address("127.0.0.1"))])
    made = (
        x509.CertificateBuilder()
        .subject_name(who)
        .issuer_name(who)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - 3 * day)
        .not_valid_after(now - day if over else now + day)
        .add_extension(address, critical=False)
        .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        .sign(key, hashes.SHA256())
    )
    secret = key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
    return Pem(made.public_bytes(serialization.Encoding.PEM), secret)


def serving(folder: Path, server: Pem, client: Pem | None = None) -> ssl.SSLContext:
    files = [folder / "cert.pem", folder / "key.pem"]
    files[0].write_bytes(server.cert)
    files[1].write_bytes(server.key)
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    context.load_cert_chain(*files)
    if client is not None:
        context.verify_mode = ssl.CERT_OPTIONAL
        context.load_verify_locations(cadata=client.cert.decode())
    return context


def test_a_client_is_known_by_its_certificate_and_streams_go_over_tls(tmp_path: Path) -> None:
    server, client = a_certificate("server"), a_certificate("client")

    async def run() -> None:
        async with a_kube(tmp_path, tls=serving(tmp_path, server, client)) as kube:
            provider = a_driver(kube, tmp_path / "driver")
            (tmp_path / "driver" / "client.pem").write_bytes(client.cert)
            (tmp_path / "driver" / "client.key").write_bytes(client.key)
            user = {"client-certificate": "client.pem", "client-key": "client.key"}
            kube.kubeconfig(tmp_path / "driver" / "config", namespace="ml", ca=server.cert, **user)
            claim = a_pod_claim()
            await provider.ensure(claim)
            for _ in range(200):
                (fact,) = await provider.observe([claim.id])
                if fact.state is ClaimState.HELD:
                    break
                await asyncio.sleep(0.005)
            node = a_node(claim_id=claim.id, provider="kubernetes", address=fact.nodes[0].address)
            (await provider.reach(node)).writer.close()
            await provider.release(claim.id)
            await provider.disconnect()

    asyncio.run(run())


@pytest.mark.parametrize(
    ("trusted", "over", "said"),
    [
        (True, True, "is this machine's clock right (`timedatectl`)? Else the cluster has to renew it"),
        (False, False, "the kubeconfig holds another cluster's `certificate-authority-data`: write it anew"),
    ],
)
def test_a_certificate_that_is_not_trusted(trusted: bool, over: bool, said: str, tmp_path: Path) -> None:
    server = a_certificate("server", over=over)
    ca = server.cert if trusted else a_certificate("another").cert

    async def run() -> None:
        options: dict[str, Any] = {"tls": serving(tmp_path, server)}
        async with a_kube(tmp_path, **options) as kube:
            provider = a_driver(kube, tmp_path / "driver")
            kube.kubeconfig(tmp_path / "driver" / "config", ca=ca)
            with pytest.raises(border.CredentialsRejected) as caught:
                await provider.quote(Want())
            assert str(caught.value).startswith(f"the certificate of {kube.url} is not trusted (")
            assert said in str(caught.value)
            await provider.disconnect()

    asyncio.run(run())

"""How servers of one database know each other: TLS with certificates of an authority that only they have.

The authority's key follows from a secret that is sealed in the database. Every server signs a certificate for
itself and accepts only this authority's: without access to the database's secrets nobody passes the
handshake.
"""

from __future__ import annotations

import datetime
import hashlib
import os
import ssl
import tempfile
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from cryptography.hazmat.primitives.asymmetric.ec import EllipticCurvePrivateKey
    from cryptography.x509 import Certificate

_ORDER: Final = 0xFFFFFFFF00000000FFFFFFFFFFFFFFFFBCE6FAADA7179E84F3B9CAC2FC632551  # of the curve P-256
_DAYS: Final = 3650  # a server makes another at every start


def contexts(secret: str, now_s: float) -> tuple[ssl.SSLContext, ssl.SSLContext]:
    """(of who accepts, of who connects)."""
    from cryptography.hazmat.primitives import serialization
    from cryptography.hazmat.primitives.asymmetric import ec

    authority = ec.derive_private_key(_number(secret), ec.SECP256R1())
    own = ec.generate_private_key(ec.SECP256R1())
    root = _certificate(authority, authority, now_s, is_authority=True)
    leaf = _certificate(own, authority, now_s, is_authority=False)
    trusted = root.public_bytes(serialization.Encoding.PEM).decode()
    chain = leaf.public_bytes(serialization.Encoding.PEM) + own.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
    accepting = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    connecting = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    connecting.check_hostname = False  # it is who has the key, whatever its address
    # Python reads keys from files only: one that nobody else can open, and that is gone at once.
    descriptor, path = tempfile.mkstemp(prefix="argosy-")
    try:
        os.write(descriptor, chain)
        os.close(descriptor)
        for context in (accepting, connecting):
            context.minimum_version = ssl.TLSVersion.TLSv1_3
            context.verify_mode = ssl.CERT_REQUIRED
            context.load_cert_chain(path)
            context.load_verify_locations(cadata=trusted)
    finally:
        os.unlink(path)  # noqa: PTH108
    return accepting, connecting


def _number(secret: str) -> int:
    """A private key of the curve, evenly spread."""
    wide = hashlib.sha512(b"argosy servers\0" + secret.encode()).digest()
    return int.from_bytes(wide) % (_ORDER - 1) + 1


def _certificate(
    key: EllipticCurvePrivateKey, signer: EllipticCurvePrivateKey, now_s: float, *, is_authority: bool
) -> Certificate:
    from cryptography import x509
    from cryptography.hazmat.primitives import hashes

    called = [
        x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, name)])
        for name in ("Argosy servers", "Argosy server")
    ]
    now = datetime.datetime.fromtimestamp(now_s, datetime.UTC)
    of = signer.public_key()
    return (
        x509.CertificateBuilder()
        .subject_name(called[0] if is_authority else called[1])
        .issuer_name(called[0])
        .public_key(key.public_key())
        .serial_number(1 if is_authority else x509.random_serial_number())
        .not_valid_before(now - datetime.timedelta(days=1))
        .not_valid_after(now + datetime.timedelta(days=_DAYS))
        .add_extension(x509.BasicConstraints(ca=is_authority, path_length=None), critical=True)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)
        .add_extension(x509.AuthorityKeyIdentifier.from_issuer_public_key(of), critical=False)
        .add_extension(
            x509.KeyUsage(
                digital_signature=True, key_cert_sign=is_authority, crl_sign=is_authority,
                content_commitment=False, key_encipherment=False, data_encipherment=False,
                key_agreement=False, encipher_only=False, decipher_only=False,
            ),
            critical=True,
        )
        .sign(signer, hashes.SHA256())
    )  # fmt: skip

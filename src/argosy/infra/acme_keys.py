"""Keys and signatures of ACME (RFC 8555, RFC 7515): an account's key, signed requests, certificate requests.

`cryptography` is imported by the first use.
"""

from __future__ import annotations

import base64
import hashlib
import hmac
import ipaddress
import json
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    from cryptography.hazmat.primitives.asymmetric.ec import EllipticCurvePrivateKey
    from cryptography.x509 import GeneralName

_COORDINATE_BYTES: Final = 32


class AccountKey:
    """The key (P-256) that is an account at an authority. It signs every request."""

    def __init__(self, pem: bytes) -> None:
        """From PEM, as `make_key` writes it. Raises ValueError."""
        from cryptography.hazmat.primitives.asymmetric.ec import SECP256R1, EllipticCurvePrivateKey
        from cryptography.hazmat.primitives.serialization import load_pem_private_key

        key = load_pem_private_key(pem, None)
        if not isinstance(key, EllipticCurvePrivateKey) or not isinstance(key.curve, SECP256R1):
            raise ValueError("the key of an account is one of P-256")
        self._key: EllipticCurvePrivateKey = key
        numbers = key.public_key().public_numbers()
        x, y = (encode(each.to_bytes(_COORDINATE_BYTES, "big")) for each in (numbers.x, numbers.y))
        self.public: Mapping[str, str] = {"crv": "P-256", "kty": "EC", "x": x, "y": y}

    @property
    def thumbprint(self) -> str:
        """RFC 7638: what the answer to a challenge ends with."""
        text = json.dumps(self.public, sort_keys=True, separators=(",", ":"))
        return encode(hashlib.sha256(text.encode()).digest())

    def signed(self, header: Mapping[str, Any], payload: object) -> bytes:
        """The body of a request: a flattened JWS. `payload` None: a GET that is sent as POST."""
        from cryptography.hazmat.primitives.asymmetric.ec import ECDSA
        from cryptography.hazmat.primitives.asymmetric.utils import decode_dss_signature
        from cryptography.hazmat.primitives.hashes import SHA256

        first = encode(json.dumps({"alg": "ES256", **header}).encode())
        second = "" if payload is None else encode(json.dumps(payload).encode())
        r, s = decode_dss_signature(self._key.sign(f"{first}.{second}".encode(), ECDSA(SHA256())))
        signature = r.to_bytes(_COORDINATE_BYTES, "big") + s.to_bytes(_COORDINATE_BYTES, "big")
        return _flat(first, second, signature)

    def bound_to(self, outside: str, secret: str, url: str) -> object:
        """The proof that this key belongs to an account which the authority knows already (RFC 8555, 7.3.4).
        `outside`: its id there; `secret`: its key, base64url."""
        first = encode(json.dumps({"alg": "HS256", "kid": outside, "url": url}).encode())
        second = encode(json.dumps(self.public).encode())
        key = base64.urlsafe_b64decode(secret + "=" * (-len(secret) % 4))
        signature = hmac.digest(key, f"{first}.{second}".encode(), hashlib.sha256)
        return json.loads(_flat(first, second, signature))


def make_key() -> bytes:
    """A new private key of P-256, in PEM: of an account, or of a certificate."""
    from cryptography.hazmat.primitives import serialization
    from cryptography.hazmat.primitives.asymmetric import ec

    return ec.generate_private_key(ec.SECP256R1()).private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )


def certificate_request(names: Sequence[str], key_pem: bytes) -> str:
    """A request for a certificate of this key, base64url of DER. `names`: hosts and addresses."""
    from cryptography import x509
    from cryptography.hazmat.primitives.asymmetric.ec import EllipticCurvePrivateKey
    from cryptography.hazmat.primitives.hashes import SHA256
    from cryptography.hazmat.primitives.serialization import Encoding, load_pem_private_key

    key = load_pem_private_key(key_pem, None)
    assert isinstance(key, EllipticCurvePrivateKey)
    built = (
        x509.CertificateSigningRequestBuilder()
        .subject_name(x509.Name([]))
        .add_extension(x509.SubjectAlternativeName([_general(name) for name in names]), critical=False)
        .sign(key, SHA256())
    )
    return encode(built.public_bytes(Encoding.DER))


def identifier_of(name: str) -> dict[str, str]:
    """As an order names a host, or (RFC 8738) an address."""
    try:
        return {"type": "ip", "value": str(ipaddress.ip_address(name))}
    except ValueError:
        return {"type": "dns", "value": name}


def encode(data: bytes) -> str:
    """Base64url without padding."""
    return base64.urlsafe_b64encode(data).decode().rstrip("=")


def _general(name: str) -> GeneralName:
    from cryptography import x509

    try:
        return x509.IPAddress(ipaddress.ip_address(name))
    except ValueError:
        return x509.DNSName(name)


def _flat(protected: str, payload: str, signature: bytes) -> bytes:
    return json.dumps({"protected": protected, "payload": payload, "signature": encode(signature)}).encode()

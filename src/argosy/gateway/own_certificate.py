"""A certificate that a server, or the accepting end of tunnels, makes for itself where no authority could.

In its folder `server.pem` is for clients (SSL_CERT_FILE), `server.key` (0600) for nobody else. It is kept as
long as it names the same hosts and has a month left; then another takes its place.
"""

from __future__ import annotations

import datetime
import ipaddress
import os
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Final

from argosy.model.errors import ArgosyError

if TYPE_CHECKING:
    from cryptography.x509 import GeneralName

_DAYS: Final = 365
_LEFT_DAYS: Final = 30


def ensure_certificate(folder: Path, names: Iterable[str], now_s: float) -> tuple[Path, Path]:
    """(certificate, key), made when they are not there, nearly over, or for other names. `names`: hosts and
    addresses. Raises ArgosyError `disk-full`."""
    certificate, key = folder / "server.pem", folder / "server.key"
    wanted = {"localhost", "127.0.0.1", "::1", *(name.strip("[]") for name in names if name)}
    if key.exists() and _is_good(certificate, wanted, now_s):
        return certificate, key
    try:
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        made, secret = _make(wanted, now_s)
        _write(key, secret)
        _write(certificate, made)
    except OSError as error:
        raise ArgosyError("disk-full", f"cannot write {error.filename}: {error.strerror}") from None
    return certificate, key


def _is_good(path: Path, wanted: set[str], now_s: float) -> bool:
    from cryptography import x509

    try:
        found = x509.load_pem_x509_certificate(path.read_bytes())
        names = found.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    except (OSError, ValueError, x509.ExtensionNotFound):
        return False
    there = {*names.get_values_for_type(x509.DNSName), *map(str, names.get_values_for_type(x509.IPAddress))}
    left_s = found.not_valid_after_utc.timestamp() - now_s
    return wanted <= there and left_s > _LEFT_DAYS * 86_400


def _make(names: set[str], now_s: float) -> tuple[bytes, bytes]:
    from cryptography import x509
    from cryptography.hazmat.primitives import hashes, serialization
    from cryptography.hazmat.primitives.asymmetric import ec

    key = ec.generate_private_key(ec.SECP256R1())
    called = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "Argosy")])
    now = datetime.datetime.fromtimestamp(now_s, datetime.UTC)
    built = (
        x509.CertificateBuilder()
        .subject_name(called)
        .issuer_name(called)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - datetime.timedelta(hours=1))
        .not_valid_after(now + datetime.timedelta(days=_DAYS))
        .add_extension(
            x509.SubjectAlternativeName([_general(name) for name in sorted(names)]), critical=False
        )
        .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        .sign(key, hashes.SHA256())
    )
    secret = key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
    return built.public_bytes(serialization.Encoding.PEM), secret


def _general(name: str) -> GeneralName:
    from cryptography import x509

    try:
        return x509.IPAddress(ipaddress.ip_address(name))
    except ValueError:
        return x509.DNSName(name)


def _write(path: Path, data: bytes) -> None:
    draft = path.with_name(f".{path.name}.{os.getpid()}")
    draft.unlink(missing_ok=True)
    with open(os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600), "wb") as file:
        file.write(data)
    draft.replace(path)

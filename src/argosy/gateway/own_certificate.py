"""A certificate that a server, or the accepting end of tunnels, makes for itself where no authority could.

In its folder `server.pem` is for clients (SSL_CERT_FILE), `server.key` (0600) for nobody else. It is kept as
long as it names the same hosts and has a month left; then another takes its place. With an authority of its
own (`ca.pem`, `ca.key`), clients trust that one, and every certificate that it signs for ten years.
"""

from __future__ import annotations

import contextlib
import datetime
import ipaddress
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Final, NamedTuple

from argosy.gateway.private_files import replace_file
from argosy.model.errors import ArgosyError

if TYPE_CHECKING:
    from cryptography.hazmat.primitives.asymmetric.ec import EllipticCurvePrivateKey
    from cryptography.x509 import Certificate, GeneralName

_DAYS: Final = 365
_LEFT_DAYS: Final = 30
_AUTHORITY_DAYS: Final = 3650


def ensure_certificate(folder: Path, names: Iterable[str], now_s: float) -> tuple[Path, Path]:
    """(certificate, key), made when they are not there, nearly over, or for other names. `names`: hosts and
    addresses. Raises ArgosyError `disk-full`."""
    certificate, key = folder / "server.pem", folder / "server.key"
    wanted = _wanted(names)
    if not (key.exists() and _is_good(certificate, wanted, now_s)):
        with _told():
            folder.mkdir(mode=0o700, parents=True, exist_ok=True)
            made, secret = _make(wanted, now_s)
            replace_file(key, secret)
            replace_file(certificate, made)
    return certificate, key


def ensure_signed(folder: Path, names: Iterable[str], now_s: float) -> tuple[Path, Path]:
    """As `ensure_certificate`, signed by the authority of this folder, which is made with the first one. The
    file of the certificate holds both."""
    certificate, key = folder / "server.pem", folder / "server.key"
    wanted = _wanted(names)
    with _told():
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        authority = _authority(folder, now_s)
        if not (key.exists() and _is_good(certificate, wanted, now_s, authority.certificate)):
            made, secret = _make(wanted, now_s, authority)
            replace_file(key, secret)
            replace_file(certificate, made + (folder / "ca.pem").read_bytes())
    return certificate, key


def _wanted(names: Iterable[str]) -> set[str]:
    return {"localhost", "127.0.0.1", "::1", *(name.strip("[]") for name in names if name)}


@contextlib.contextmanager
def _told() -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise ArgosyError("disk-full", f"cannot write {error.filename}: {error.strerror}") from None


class _Authority(NamedTuple):
    certificate: Certificate
    key: EllipticCurvePrivateKey


def _authority(folder: Path, now_s: float) -> _Authority:
    """The one of this folder. A damaged or nearly ended one is replaced: then clients have to be told."""
    from cryptography import x509
    from cryptography.hazmat.primitives.asymmetric.ec import EllipticCurvePrivateKey
    from cryptography.hazmat.primitives.serialization import load_pem_private_key

    place, secret = folder / "ca.pem", folder / "ca.key"
    for _ in range(2):
        with contextlib.suppress(FileNotFoundError, ValueError):
            found = x509.load_pem_x509_certificate(place.read_bytes())
            key = load_pem_private_key(secret.read_bytes(), None)
            left_s = found.not_valid_after_utc.timestamp() - now_s
            is_right = isinstance(key, EllipticCurvePrivateKey) and key.public_key() == found.public_key()
            if is_right and left_s > (_DAYS + _LEFT_DAYS) * 86_400:
                assert isinstance(key, EllipticCurvePrivateKey)
                return _Authority(found, key)
        made, pem = _make(set(), now_s, days=_AUTHORITY_DAYS)
        replace_file(secret, pem)
        replace_file(place, made)
    raise ArgosyError("disk-full", f"{place} does not stay as it is written")


def _is_good(path: Path, wanted: set[str], now_s: float, signer: Certificate | None = None) -> bool:
    from cryptography import x509
    from cryptography.exceptions import InvalidSignature

    try:
        found = x509.load_pem_x509_certificate(path.read_bytes())
        names = found.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
        if signer is not None:
            found.verify_directly_issued_by(signer)
    except (OSError, ValueError, TypeError, InvalidSignature, x509.ExtensionNotFound):
        return False
    there = {*names.get_values_for_type(x509.DNSName), *map(str, names.get_values_for_type(x509.IPAddress))}
    left_s = found.not_valid_after_utc.timestamp() - now_s
    return wanted <= there and left_s > _LEFT_DAYS * 86_400


def _make(
    names: set[str], now_s: float, signer: _Authority | None = None, days: int = _DAYS
) -> tuple[bytes, bytes]:
    """(certificate, key) in PEM. Without names it is one that only signs others; without a signer it signs
    itself."""
    from cryptography import x509
    from cryptography.hazmat.primitives import hashes, serialization
    from cryptography.hazmat.primitives.asymmetric import ec

    key = ec.generate_private_key(ec.SECP256R1())
    called = x509.Name(
        [x509.NameAttribute(x509.NameOID.COMMON_NAME, "Argosy" if names else "Argosy authority")]
    )
    now = datetime.datetime.fromtimestamp(now_s, datetime.UTC)
    is_authority = signer is None
    building = (
        x509.CertificateBuilder()
        .subject_name(called)
        .issuer_name(called if signer is None else signer.certificate.subject)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - datetime.timedelta(days=1))  # clocks of who reads it may be wrong
        .not_valid_after(now + datetime.timedelta(days=days))
        .add_extension(
            x509.BasicConstraints(ca=is_authority, path_length=0 if is_authority else None), critical=True
        )
    )
    if names:
        general = [_general(name) for name in sorted(names)]
        building = building.add_extension(x509.SubjectAlternativeName(general), critical=False)
    built = building.sign(key if signer is None else signer.key, hashes.SHA256())
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

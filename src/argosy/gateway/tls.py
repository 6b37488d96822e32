"""TLS where no edge ends it: own certificates, chosen by the name that the client says, read anew when
their files change.

What cannot work is refused at the start with the file's name: a certificate that does not belong to its
key, one that is expired or not valid yet. A request for a host that no certificate covers is answered with
421.
"""

from __future__ import annotations

import datetime
import ssl
from collections.abc import Sequence
from pathlib import Path

import msgspec
from cryptography import x509


class Files(msgspec.Struct, frozen=True, kw_only=True):
    """A certificate (with its chain) and its key, in PEM."""

    certificate: str
    key: str


class Certificate:
    """One certificate that is in use."""

    def __init__(self, files: Files, now: datetime.datetime) -> None:
        """Raises ValueError with a sentence."""
        self.stamp = _stamp(files)
        self.context = _context(files)
        leaf = x509.load_pem_x509_certificates(Path(files.certificate).read_bytes())[0]
        if leaf.not_valid_after_utc <= now:
            raise ValueError(
                f"the certificate {files.certificate} expired on {leaf.not_valid_after_utc:%Y-%m-%d}"
            )
        if leaf.not_valid_before_utc > now:
            begins = f"{leaf.not_valid_before_utc:%Y-%m-%d}"
            raise ValueError(f"the certificate {files.certificate} is not valid before {begins}")
        self.ends = leaf.not_valid_after_utc
        self.names = _names(leaf)
        if not self.names:
            raise ValueError(f"the certificate {files.certificate} names no host")


def _context(files: Files) -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    context.set_alpn_protocols(["http/1.1"])
    try:
        context.load_cert_chain(files.certificate, files.key, password=_refuse)
    except _Encrypted:
        raise ValueError(
            f"the key {files.key} is encrypted: keep it without a passphrase, for its owner alone"
        ) from None
    except ssl.SSLError as error:
        if "MISMATCH" in str(error):
            raise ValueError(
                f"the certificate {files.certificate} does not belong to the key {files.key}"
            ) from None
        raise ValueError(
            f"{files.certificate} and {files.key} are not a certificate and its key in PEM"
        ) from None
    except OSError as error:
        raise ValueError(f"{error.filename or files.certificate}: {error.strerror}") from None
    return context


class _Encrypted(Exception):
    """The key wants a passphrase, and nobody sits there."""


def _refuse() -> str:
    raise _Encrypted


def _names(leaf: x509.Certificate) -> tuple[str, ...]:
    try:
        names = leaf.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    except x509.ExtensionNotFound:
        return ()
    addresses = [str(each) for each in names.get_values_for_type(x509.IPAddress)]
    return tuple(name.lower() for name in (*names.get_values_for_type(x509.DNSName), *addresses))


def _stamp(files: Files) -> tuple[int, int]:
    try:
        return Path(files.certificate).stat().st_mtime_ns, Path(files.key).stat().st_mtime_ns
    except OSError as error:
        raise ValueError(f"{error.filename}: {error.strerror}") from None


class Certificates:
    """All certificates of a gateway. The first one is shown to who says no name or an unknown one."""

    def __init__(self, files: Sequence[Files], now: datetime.datetime) -> None:
        """Raises ValueError with a sentence."""
        self._files = tuple(files)
        self._all = [Certificate(each, now) for each in files]
        self._by_name: dict[str, Certificate] = {}
        self._index()
        self.context = self._all[0].context
        self.context.sni_callback = lambda connection, name, _: self.choose(connection, name)

    def _index(self) -> None:
        self._by_name = {name: each for each in reversed(self._all) for name in each.names}

    def find(self, name: str) -> Certificate | None:
        """The certificate that covers a host; `*.` covers one label."""
        name = name.lower().rstrip(".")
        return self._by_name.get(name) or self._by_name.get("*." + name.partition(".")[2])

    @property
    def names(self) -> tuple[str, ...]:
        """Hosts of the first certificate."""
        return self._all[0].names

    @property
    def ends(self) -> datetime.datetime:
        """When the first certificate is over."""
        return self._all[0].ends

    def covers(self, host: bytes) -> bool:
        return self.find(host.decode("latin-1").strip("[]")) is not None

    def choose(self, connection: ssl.SSLObject, name: str | None) -> None:
        """Show the certificate of the host that a client names."""
        connection.context = (self.find(name or "") or self._all[0]).context

    def renew(self, now: datetime.datetime) -> list[str]:
        """Read files that have changed. What is wrong with the new ones, in sentences: then the old ones
        stay."""
        wrong: list[str] = []
        for number, (files, old) in enumerate(zip(self._files, list(self._all), strict=True)):
            try:
                if _stamp(files) != old.stamp:
                    self._all[number] = Certificate(files, now)
            except ValueError as error:
                wrong.append(str(error))
        self._index()
        return wrong

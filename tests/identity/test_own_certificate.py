"""A certificate that the server makes for itself."""

from __future__ import annotations

import socket
import ssl
import stat
import threading
import time
from pathlib import Path

import pytest

from argosy.gateway.own_certificate import ensure_certificate, ensure_signed


def shake_hands(certificate: Path, key: Path, name: str, trusted: Path | None = None) -> str:
    """The TLS version of a connection whose client trusts this certificate alone, or `trusted`."""
    server = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    server.load_cert_chain(certificate, key)
    here, there = socket.socketpair()

    def serve() -> None:
        try:
            with server.wrap_socket(there, server_side=True) as peer:
                peer.recv(1)
        except (ssl.SSLError, OSError):
            pass

    thread = threading.Thread(target=serve)
    thread.start()
    try:
        context = ssl.create_default_context(cafile=str(trusted or certificate))
        with context.wrap_socket(here, server_hostname=name) as peer:
            return str(peer.version())
    finally:
        here.close()
        thread.join()


def test_whoever_has_the_file_trusts_its_hosts_and_no_others(tmp_path: Path) -> None:
    certificate, key = ensure_certificate(tmp_path / "tls", ["gpu-box", "10.0.0.5", ""], time.time())
    for name in ("localhost", "127.0.0.1", "gpu-box", "10.0.0.5"):
        assert shake_hands(certificate, key, name) == "TLSv1.3"
    with pytest.raises(ssl.SSLCertVerificationError):
        shake_hands(certificate, key, "evil.example")
    assert stat.S_IMODE(key.stat().st_mode) == 0o600
    assert stat.S_IMODE((tmp_path / "tls").stat().st_mode) == 0o700


def test_it_is_kept_until_it_must_not_be(tmp_path: Path) -> None:
    now_s = time.time()
    first = ensure_certificate(tmp_path, ["a"], now_s)[0].read_bytes()
    assert ensure_certificate(tmp_path, ["a"], now_s + 300 * 86_400)[0].read_bytes() == first
    second = ensure_certificate(tmp_path, ["a", "b"], now_s)[0].read_bytes()
    assert second != first, "another name"
    assert ensure_certificate(tmp_path, ["a"], now_s)[0].read_bytes() == second, "it names that, too"
    later = ensure_certificate(tmp_path, ["a"], now_s + 340 * 86_400)[0].read_bytes()
    assert later != second, "less than a month was left"
    (tmp_path / "server.pem").write_text("damaged")
    assert ensure_certificate(tmp_path, ["a"], now_s)[0].read_bytes().startswith(b"-----BEGIN")


def test_who_reads_it_may_have_a_clock_that_is_hours_behind(tmp_path: Path) -> None:
    """A node, say, on which nobody has set the time."""
    soon_s = time.time() + 2 * 3600
    certificate, key = ensure_certificate(tmp_path / "alone", ["gpu-box"], soon_s)
    assert shake_hands(certificate, key, "gpu-box") == "TLSv1.3"
    certificate, key = ensure_signed(tmp_path / "signed", ["gpu-box"], soon_s)
    assert shake_hands(certificate, key, "gpu-box", tmp_path / "signed" / "ca.pem") == "TLSv1.3"


def test_an_authority_of_the_folder_signs_for_ten_years(tmp_path: Path) -> None:
    now_s = time.time()
    certificate, key = ensure_signed(tmp_path, ["gpu-box", "10.0.0.5"], now_s)
    trusted = tmp_path / "ca.pem"
    authority, first = trusted.read_bytes(), certificate.read_bytes()
    for name in ("gpu-box", "10.0.0.5", "localhost"):
        assert shake_hands(certificate, key, name, trusted) == "TLSv1.3"
        assert shake_hands(certificate, key, name, certificate) == "TLSv1.3", "the file holds both"
    assert ensure_signed(tmp_path, ["gpu-box"], now_s + 300 * 86_400)[0].read_bytes() == first
    assert ensure_signed(tmp_path, ["gpu-box", "b"], now_s)[0].read_bytes() != first
    assert shake_hands(certificate, key, "b", trusted) == "TLSv1.3" and trusted.read_bytes() == authority
    for name in ("ca.key", "server.key"):
        assert stat.S_IMODE((tmp_path / name).stat().st_mode) == 0o600
    second = certificate.read_bytes()
    ensure_signed(tmp_path, ["b"], now_s + 340 * 86_400)
    assert certificate.read_bytes() != second and trusted.read_bytes() == authority, "clients notice nothing"
    trusted.write_text("damaged")
    ensure_signed(tmp_path, ["b"], now_s)
    assert shake_hands(certificate, key, "b", trusted) == "TLSv1.3" and trusted.read_bytes() != authority

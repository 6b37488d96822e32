"""Whether data may go to an address. Pure."""

from __future__ import annotations

from urllib.parse import urlsplit

from argosy.infra.buckets import UrlUnknown
from argosy.model.addresses import is_loopback


def check_tls(scheme: str, address: str, *, tls: bool) -> None:
    """Raises `UrlUnknown` for an address of another machine without TLS, unless `tls: false` stands for the
    scheme."""
    split = urlsplit(address)
    if split.scheme != "http" or not tls or is_loopback(split.hostname or ""):
        return
    raise UrlUnknown(
        f"{scheme}:// is at {split.scheme}://{split.netloc}: keys and data would go there without TLS",
        f"write https://, or `{scheme}: {{tls: false}}` in buckets.yaml if that network is yours",
    )

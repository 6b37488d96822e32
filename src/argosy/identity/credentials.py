"""Tokens and codes: how they are made, told apart, and kept (as SHA-256 only)."""

from __future__ import annotations

import base64
import hashlib
import hmac
import zlib
from typing import Final

from argosy.infra.system import random_bytes

PERSONAL: Final = "argosy_pat_"
SERVICE: Final = "argosy_sa_"
SIGNED_IN: Final = "argosy_cli_"  # of a command line that somebody signed in with
REQUESTS: Final = "argosy_sk_"  # of requests to a service: gateways ask for it, the API knows nothing of it
KINDS: Final = (PERSONAL, SERVICE, SIGNED_IN)
_SECRET_BYTES: Final = 25  # 200 bits
_ALPHABET: Final = "BCDFGHJKLMNPQRSTVWXZ"  # no vowels: no words; no letters that look alike


def make_token(kind: str) -> str:
    """`argosy_pat_<secret>_<checksum>`: scanners find the beginning, and typing errors are no attacks."""
    body = kind + _base32(random_bytes(_SECRET_BYTES))
    return f"{body}_{_checksum(body)}"


def is_well_formed(token: str) -> bool:
    """Whether it is a token of ours with a right checksum."""
    body, _, checksum = token.rpartition("_")
    return token.startswith(KINDS) and hmac.compare_digest(
        _checksum(body).encode(), checksum.encode("utf-8", "surrogateescape")
    )


def make_secret() -> str:
    """For a cookie or a code that programs carry: 43 characters, 256 bits."""
    return base64.urlsafe_b64encode(random_bytes(32)).decode().rstrip("=")


def make_short_code() -> str:
    """For a code that people type: `BCDF-GHJK`, 34 bits."""
    number = int.from_bytes(random_bytes(16), "big")
    letters = ""
    for _ in range(8):
        number, at = divmod(number, len(_ALPHABET))
        letters += _ALPHABET[at]
    return f"{letters[:4]}-{letters[4:]}"


def plain_code(typed: str) -> str:
    """A typed code as it was shown: any case, with or without the dash."""
    letters = "".join(each for each in typed.upper() if each.isalnum())
    return f"{letters[:4]}-{letters[4:]}"


def digest(secret: str) -> str:
    """What is kept of it."""
    return hashlib.sha256(secret.encode("utf-8", "surrogateescape")).hexdigest()


def _base32(data: bytes) -> str:
    return base64.b32encode(data).decode().rstrip("=").lower()


def _checksum(body: str) -> str:
    return _base32(zlib.crc32(body.encode("utf-8", "surrogateescape")).to_bytes(4, "big"))

"""One-time codes of authenticator apps (RFC 6238: SHA-1, 30 s, six digits, as all of them do). Pure."""

from __future__ import annotations

import base64
import hashlib
import hmac
from typing import Final
from urllib.parse import quote

STEP_MS: Final = 30_000
_DIGITS: Final = 6
_KEY_BYTES: Final = 20
_NEAR: Final = (0, -1, 1)  # clocks differ by half a minute


def render_key(random: bytes) -> str:
    """A key as apps take it, of at least 20 random bytes."""
    if len(random) < _KEY_BYTES:
        raise ValueError(f"a key has {_KEY_BYTES} bytes")
    return base64.b32encode(random[:_KEY_BYTES]).decode()


def address_of(key: str, user: str, issuer: str = "Argosy") -> str:
    """What a picture for the app says."""
    return f"otpauth://totp/{quote(f'{issuer}:{user}')}?secret={key}&issuer={quote(issuer)}"


def code_at(key: str, step: int) -> str:
    """The code of a step of 30 seconds.

    >>> code_at("GEZDGNBVGY3TQOJQGEZDGNBVGY3TQOJQ", 1)  # RFC 6238, appendix B
    '287082'
    """
    mac = hmac.digest(base64.b32decode(key), step.to_bytes(8, "big"), hashlib.sha1)
    at = mac[-1] & 15
    number = int.from_bytes(mac[at : at + 4], "big") & 0x7FFFFFFF
    return f"{number % 10**_DIGITS:0{_DIGITS}d}"


def step_of(key: str, code: str, now_ms: int, last_step: int) -> int | None:
    """The step whose code this is, now or one before or after; None: none, or one that is not after
    `last_step`, whose code was taken already."""
    typed = "".join(code.split())
    found: int | None = None
    for near in _NEAR:
        step = now_ms // STEP_MS + near
        if hmac.compare_digest(code_at(key, step).encode(), typed.encode("utf-8", "replace")):
            found = step
    return found if found is not None and found > last_step else None

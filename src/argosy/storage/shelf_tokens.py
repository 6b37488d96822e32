"""Temporary keys of the embedded store. What a key allows stands in its token, and its secret follows from
both: the server keeps nothing of them, and who changes a token has no secret for it."""

from __future__ import annotations

import base64
import binascii

import msgspec


class Allowed(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """What the holder may do, until `expires_s` (Unix time). `prefix`: of keys ("": the whole bucket)."""

    bucket: str
    prefix: str = ""
    reads_only: bool = False
    expires_s: int


def token_of(allowed: Allowed) -> str:
    """
    >>> allowed_by(token_of(Allowed(bucket="b", prefix="run/", expires_s=7))).prefix
    'run/'
    """
    return base64.urlsafe_b64encode(msgspec.json.encode(allowed)).decode().rstrip("=")


def allowed_by(token: str) -> Allowed | None:
    """None: it is none of ours.

    >>> allowed_by("nonsense") is None
    True
    """
    try:
        text = base64.urlsafe_b64decode(token + "=" * (-len(token) % 4))
        return msgspec.json.decode(text, type=Allowed)
    except (ValueError, binascii.Error, msgspec.MsgspecError):
        return None


def name_of(key_id: str, token: str) -> str:
    """What the secret is made of."""
    return f"{key_id} {token}"

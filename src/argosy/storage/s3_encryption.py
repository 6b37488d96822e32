"""How S3 is asked to encrypt what is written, and what it says of what is read.

A key of the customer (SSE-C) is on the server: it goes to the store with every request, over TLS, and to
nobody else. Source: Amazon's documentation, "Protecting data with server-side encryption".
"""

from __future__ import annotations

import base64
import binascii
import hashlib
from collections.abc import Mapping
from pathlib import Path
from typing import Final

from argosy.infra.buckets import CUSTOMER, Encryption, NotEncrypted, StoreSettings, UrlUnknown

SSE: Final = "x-amz-server-side-encryption"
KMS: Final = f"{SSE}-aws-kms-key-id"
_KEY_BYTES: Final = 32
_SECTION: Final = "customer_keys"  # of buckets.yaml: names, and files that hold 32 bytes, or base64 of them


def customer_key(settings: StoreSettings, encryption: Encryption) -> bytes:
    """The key that is named; b"" when none is asked for. Raises `UrlUnknown`."""
    if encryption.type != CUSTOMER:
        return b""
    name = encryption.key_id
    if not name:
        raise UrlUnknown(
            f"`encryption: {{type: {CUSTOMER}}}` names no key",
            f"write its `key_id`, which `{_SECTION}` in buckets.yaml knows",
        )
    file = settings.section(_SECTION, dict[str, str]).get(name, "")
    if not file:
        raise UrlUnknown(
            f"the customer's key `{name}` is not known",
            f"write `{_SECTION}: {{{name}: /PATH/OF/A/FILE}}` in the server's buckets.yaml",
        )
    path = Path(file).expanduser()
    try:
        text = (path if path.is_absolute() else settings.home / file).read_bytes()
    except OSError as error:
        raise UrlUnknown(
            f"the customer's key `{name}` cannot be read: {error.strerror}", f"look at `{_SECTION}`"
        ) from None
    if len(text) != _KEY_BYTES:
        try:
            text = base64.b64decode(text.strip(), validate=True)
        except (binascii.Error, ValueError):
            text = b""
    if len(text) != _KEY_BYTES:
        raise UrlUnknown(
            f"the customer's key `{name}` is not {_KEY_BYTES} bytes, nor base64 of so many",
            "make one: `openssl rand 32 > FILE`",
        )
    return text


def asking(encryption: Encryption, key: bytes) -> dict[str, str]:
    """Headers of what writes an object."""
    if key:
        return customer(key)
    headers = {SSE: encryption.type} if encryption.type else {}
    return headers | ({KMS: encryption.key_id} if encryption.key_id else {})


def customer(key: bytes, *, of_source: bool = False) -> dict[str, str]:
    """Headers of what reads or writes an object with a key of the customer; {} without one. `of_source`: of
    what is copied."""
    if not key:
        return {}
    before = "x-amz-copy-source-server-side-encryption-customer" if of_source else f"{SSE}-customer"
    digest = hashlib.md5(key, usedforsecurity=False).digest()
    return {
        f"{before}-algorithm": "AES256",
        f"{before}-key": base64.b64encode(key).decode(),
        f"{before}-key-md5": base64.b64encode(digest).decode(),
    }


def check(whole: str, wanted: Encryption, key: bytes, headers: Mapping[str, str]) -> None:
    """`headers` are of a reply with the object `whole`. Raises `NotEncrypted`."""
    has = Encryption(type=headers.get(SSE, ""), key_id=headers.get(KMS, ""))
    if headers.get(f"{SSE}-customer-algorithm", ""):
        has = Encryption(type=CUSTOMER)
    if not wanted.type:
        return
    if key:
        name = f"{SSE}-customer-key-md5"
        if headers.get(name, "") == customer(key)[name]:
            return
    elif wanted.type == has.type and has.key_id.endswith(wanted.key_id):
        return
    raise not_encrypted(whole, wanted, said(has) if has.type else "nothing")


def not_encrypted(whole: str, wanted: Encryption, has: str) -> NotEncrypted:
    return NotEncrypted(
        f"{whole} is not encrypted with {said(wanted)}, as is required: it is with {has}",
        "encrypt it (`argosy storage cp` it onto itself with --encrypt), or drop `encryption`",
    )


def said(encryption: Encryption) -> str:
    return encryption.type + (f" (key {encryption.key_id})" if encryption.key_id else "")

"""What the holder of a key of the embedded store may do: one that people made, or a temporary one."""

from __future__ import annotations

from argosy.facades.s3.ports import Holder
from argosy.storage.shelf import Shelf
from argosy.storage.shelf_tokens import allowed_by, name_of


async def holder_of(shelf: Shelf, key_id: str, token: str) -> Holder | None:
    """`token` "": the key is one of those that stay. None: it is not known."""
    if token:
        allowed = allowed_by(token)
        if allowed is None:
            return None
        return Holder(
            secret=shelf.secret_of(name_of(key_id, token)),
            bucket=allowed.bucket,
            prefix=allowed.prefix,
            reads_only=allowed.reads_only,
            expires_s=allowed.expires_s,
        )
    key = await shelf.access_key(key_id)
    if key is None:
        return None
    return Holder(secret=shelf.secret_of(key_id), bucket=key.bucket, reads_only=key.reads_only)

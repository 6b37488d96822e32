"""With what rclone mounts a bucket that speaks S3: settings for its process, and keys that are replaced while
it runs."""

from __future__ import annotations

import time
from typing import Final, NamedTuple

from argosy.infra.buckets import BY_ITSELF, Encryption, MountKeys
from argosy.storage.s3_signing import Keys

KEYS_S: Final = 3600  # so long temporary keys are good


class Place(NamedTuple):
    """Where a bucket is, and what of it is mounted."""

    endpoint: str
    region: str
    bucket: str
    key: str
    virtual_host: bool = False


def s3_mount(
    at: Place, keys: Keys | None, encryption: Encryption = BY_ITSELF, *, scoped: bool = False, why: str = ""
) -> MountKeys:
    """Keys with a token are asked for by the tool, and replaced; others are in its environment.

    >>> s3_mount(Place("http://h", "r", "b", "x/"), Keys(id="I", secret="S", token="T"), scoped=True).door
    'container'
    """
    comes_and_goes = keys is not None and bool(keys.token)
    found = {
        "type": "s3",
        "provider": "Other",
        "endpoint": at.endpoint,
        "region": at.region,
        "force_path_style": "false" if at.virtual_host else "true",
        "no_check_bucket": "true",
        "env_auth": "true" if comes_and_goes else "",
        "access_key_id": keys.id if keys is not None and not comes_and_goes else "",
        "secret_access_key": keys.secret if keys is not None and not comes_and_goes else "",
        "server_side_encryption": encryption.type,
        "sse_kms_key_id": encryption.key_id,
    }
    settings = {name: value for name, value in found.items() if value}
    path = f"{at.bucket}/{at.key}".rstrip("/")
    if not comes_and_goes:
        return MountKeys(settings=settings, path=path, scoped=scoped, why=why)
    assert keys is not None
    fresh = {
        "AccessKeyId": keys.id,
        "SecretAccessKey": keys.secret,
        "Token": keys.token,
        "Expiration": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(keys.expires_s or _FAR_S)),
    }
    return MountKeys(
        settings=settings,
        path=path,
        scoped=scoped,
        why=why,
        expires_s=keys.expires_s,
        door="container",
        fresh=fresh,
    )


_FAR_S: Final = 4_102_444_800.0  # 2100: when keys end is not known

"""Storage that appears in a task: which URL it is, and how. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

import msgspec

from argosy.model.task import StorageMount

#: SkyPilot's names of kinds of stores -> the URLs that they have here.
SCHEMES: Final[Mapping[str, str]] = {
    "s3": "s3",
    "gcs": "gs",
    "gs": "gs",
    "azure": "azblob",
    "azblob": "azblob",
    "r2": "r2",
    "ibm": "cos",
    "cos": "cos",
    "oci": "oci",
    "nebius": "nebius",
    "coreweave": "cw",
    "cw": "cw",
    "argosy": "argosy",
}


class MountEncryption(msgspec.Struct, frozen=True, kw_only=True):
    """As `infra.buckets.Encryption`."""

    type: str = ""
    key_id: str = ""


class MountExtra(msgspec.Struct, frozen=True, kw_only=True):
    """What of `StorageMount.extra` is read."""

    encryption: MountEncryption = MountEncryption()
    bucket_sub_path: str = msgspec.field(name="_bucket_sub_path", default="")


def is_url(source: str) -> bool:
    """
    >>> is_url("s3://b/x"), is_url("./data")
    (True, False)
    """
    return "://" in source


def extra_of(mount: StorageMount) -> MountExtra:
    return msgspec.json.decode(mount.extra or "{}", type=MountExtra)


def url_of(mount: StorageMount) -> str:
    """The one URL that is mounted. A bucket that is only named is in its `store`, or this server's own.

    >>> url_of(StorageMount(target="/d", name="corpus", store="gcs"))
    'gs://corpus'
    """
    urls = [source for source in mount.sources if is_url(source)]
    if urls:
        return urls[0]
    scheme = SCHEMES.get((mount.store or "argosy").lower(), (mount.store or "").lower())
    below = extra_of(mount).bucket_sub_path.strip("/")
    return f"{scheme}://{mount.name}" + (f"/{below}" if below else "")

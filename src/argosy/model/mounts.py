"""Mounts of a task: the URL of the storage, and how it is mounted or copied. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

import msgspec

from argosy.model.task import StorageMount, Task, VolumeMount

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


class MountTuning(msgspec.Struct, frozen=True, kw_only=True):
    """Of one mode; sizes and times as rclone writes them."""

    read_only: bool = False
    transfers: int | str | None = None
    buffer_size: int | str | None = None
    vfs_cache_max_size: int | str | None = None
    vfs_cache_max_age: int | str | None = None
    vfs_read_ahead: int | str | None = None
    vfs_read_chunk_size: int | str | None = None
    vfs_write_back: int | str | None = None


class MountConfig(msgspec.Struct, frozen=True, kw_only=True):
    mount: MountTuning = MountTuning()
    mount_cached: MountTuning = MountTuning()


class MountExtra(msgspec.Struct, frozen=True, kw_only=True):
    """What of `StorageMount.extra` is read."""

    encryption: MountEncryption = MountEncryption()
    config: MountConfig = MountConfig()
    unless_at: str = ""  # a URL: what lies there already is not copied
    bucket_sub_path: str | bool | None = msgspec.field(name="_bucket_sub_path", default=None)


class ServedFolder(StorageMount, frozen=True, kw_only=True, omit_defaults=True):
    """A virtual folder that nodes reach through the server. Made of `volumes` alone: no task says it."""

    folder: str  # its id
    sub_path: str = ""
    read_only: bool = False
    as_user: str = ""  # whose access counts; "": nobody is asked


def storage_of(task: Task) -> tuple[StorageMount, ...]:
    """Storage that appears in a task: what it names itself, and folders that go through the server.

    >>> from argosy.model.task import VolumeMount
    >>> volume = VolumeMount(target="/d", folder="fld-1", name="train", sub_path="a", is_served=True)
    >>> [url_of(each) for each in storage_of(Task(volumes=(volume,)))]
    ['folder://train/a']
    """
    return (*task.storage_mounts, *(_served(each) for each in task.volumes if each.is_served))


def _served(volume: VolumeMount) -> ServedFolder:
    below = volume.sub_path.strip("/")
    return ServedFolder(
        target=volume.target,
        name=volume.name,
        sources=(f"folder://{volume.name}" + (f"/{below}" if below else ""),),
        mode="MOUNT",
        folder=volume.folder,
        sub_path=below,
        read_only=volume.read_only,
        as_user=volume.as_user,
    )


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
    below = str(extra_of(mount).bucket_sub_path or "").strip("/")
    return f"{scheme}://{mount.name}" + (f"/{below}" if below else "")


def is_mounted(mount: StorageMount) -> bool:
    """Whether it is streamed, not copied."""
    return mount.mode != "COPY"


def tuning_of(mount: StorageMount) -> MountTuning:
    config = extra_of(mount).config
    return config.mount_cached if mount.mode == "MOUNT_CACHED" else config.mount


def is_written(mount: StorageMount) -> bool:
    """Whether programs may write to the store through it."""
    if isinstance(mount, ServedFolder):
        return not mount.read_only
    return is_mounted(mount) and not tuning_of(mount).read_only


def options_of(mount: StorageMount) -> tuple[str, ...]:
    """As rclone takes them, without dashes.

    >>> tuned = '{"config": {"mount_cached": {"transfers": 8, "vfs_cache_max_size": "10G"}}}'
    >>> options_of(StorageMount(target="/d", name="b", mode="MOUNT_CACHED", extra=tuned))
    ('transfers=8', 'vfs-cache-max-size=10G')
    """
    tuning = tuning_of(mount)
    named = ((name, getattr(tuning, name)) for name in tuning.__struct_fields__ if name != "read_only")
    return tuple(f"{name.replace('_', '-')}={value}" for name, value in named if value is not None)


def in_workdir(target: str) -> str:
    """Where a mount appears: a relative target is below the working directory, others are as they are.

    >>> in_workdir("./data"), in_workdir("~/x")
    ('workdir/data', '~/x')
    """
    return target if target.startswith(("~", "/")) else f"workdir/{target.removeprefix('./')}"


def overlap(one: str, other: str) -> bool:
    """Whether what lies at one URL may lie at the other, too.

    >>> overlap("s3://b/x/", "s3://b/x/y"), overlap("s3://b/x", "s3://b/xy"), overlap("s3://b", "s3://b/z")
    (True, False, True)
    """
    first, second = one.rstrip("/") + "/", other.rstrip("/") + "/"
    return first.startswith(second) or second.startswith(first)

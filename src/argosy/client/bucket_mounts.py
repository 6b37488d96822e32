"""Buckets of a task as programs write them: `Storage`, how it appears on nodes, and kinds of stores."""

from __future__ import annotations

from collections.abc import Sequence
from enum import StrEnum

from argosy.model.errors import ArgosyError


class StorageMode(StrEnum):
    """How a bucket appears on nodes."""

    MOUNT = "MOUNT"
    MOUNT_CACHED = "MOUNT_CACHED"
    COPY = "COPY"


class StoreType(StrEnum):
    """Kinds of object stores, by the names that `store:` takes."""

    S3 = "s3"
    GCS = "gcs"
    AZURE = "azure"
    R2 = "r2"
    IBM = "ibm"
    OCI = "oci"
    NEBIUS = "nebius"
    COREWEAVE = "coreweave"


class Storage:
    """A bucket of a task: mounted on its nodes, or copied to them, as `mode` says.

    >>> Storage(name="runs", stores=[StoreType.GCS], mode=StorageMode.COPY).to_yaml_config()
    {'name': 'runs', 'store': 'gcs', 'mode': 'COPY'}
    """

    def __init__(
        self,
        name: str | None = None,
        source: str | Sequence[str] | None = None,
        stores: Sequence[StoreType | str] | None = None,
        persistent: bool = True,
        mode: StorageMode | str = StorageMode.MOUNT,
    ) -> None:
        self.name, self.source, self.persistent, self.mode = name, source, persistent, str(mode)
        kinds = [str(kind).rpartition(".")[2].lower() for kind in stores or ()]
        if len(kinds) > 1:
            raise ArgosyError(
                "unsupported",
                f"a Storage is in one store, and `stores` names {len(kinds)}: {', '.join(kinds)}",
                hint="make one Storage for each, under paths of their own",
            )
        self.store = kinds[0] if kinds else None

    def to_yaml_config(self) -> dict[str, object]:
        fields = {"name": self.name, "source": self.source, "store": self.store, "mode": self.mode}
        given: dict[str, object] = {name: value for name, value in fields.items() if value is not None}
        return given if self.persistent else given | {"persistent": False}

"""The buckets of this server: one folder, and the doors to it.

The façade and the index are loaded with the first request, so that a server without buckets pays nothing.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from argosy.model.ids import Clock, Ids

if TYPE_CHECKING:
    from argosy.facades.s3.app import S3
    from argosy.facades.s3.ports import Holder
    from argosy.storage.shelf import Shelf

MOUNT: Final = "/s3"


class Objects:
    """`address`: where the store listens for programs, as http://HOST:PORT; "": nowhere."""

    def __init__(self, folder: Path, clock: Clock, ids: Ids) -> None:
        self._folder, self._clock, self._ids = folder, clock, ids
        self._shelf: Shelf | None = None
        self._apps: dict[bool, S3] = {}
        self.address = ""

    @property
    def shelf(self) -> Shelf:
        if self._shelf is None:
            from argosy.storage.shelf import Shelf

            self._shelf = Shelf(self._folder, self._clock, self._ids)
        return self._shelf

    async def holder_of(self, key_id: str) -> Holder | None:
        """What the holder of an access key may do (`facades.s3.ports.Doorkeeper`)."""
        from argosy.facades.s3.ports import Holder

        key = await self.shelf.access_key(key_id)
        if key is None:
            return None
        return Holder(secret=self.shelf.secret_of(key_id), bucket=key.bucket, reads_only=key.reads_only)

    async def for_owner(self, scope: Any, receive: Any, send: Any) -> None:
        """ASGI, below `MOUNT`, for who was let in already."""
        await self._app(signed=False)(scope, receive, send)

    async def for_programs(self, scope: Any, receive: Any, send: Any) -> None:
        """ASGI, at the root of an address of its own, where every request is signed."""
        await self._app(signed=True)(scope, receive, send)

    def _app(self, *, signed: bool) -> S3:
        if signed not in self._apps:
            from argosy.facades.s3.app import S3

            keeper, root = (self, "") if signed else (None, MOUNT)
            self._apps[signed] = S3(self.shelf, self._clock, keeper=keeper, root=root)
        return self._apps[signed]

    async def sweep(self) -> int:
        """Remove what killed servers left; how many files. Nothing is made where nobody has buckets."""
        return await self.shelf.sweep() if (self._folder / "index.db").exists() else 0

    def close(self) -> None:
        if self._shelf is not None:
            self._shelf.close()

"""Checks the storage that tasks name before anything is ordered, so that a bucket that is missing or
forbidden is reported before a machine is paid for."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable
from typing import Final

from argosy.infra.buckets import Encryption, ObjectMissing, OpensBuckets, StoreBusy
from argosy.model.errors import ArgosyError
from argosy.model.mounts import SCHEMES, extra_of, is_url, url_of
from argosy.model.task import StorageMount, Task
from argosy.server.keeping import Elsewhere
from argosy.server.made_buckets import MadeBuckets

_Key = tuple[str, Encryption, bool]  # a URL, how it is encrypted, whether nothing need be there yet
_PATIENCE_S: Final = 5.0
_URLS_MAX: Final = 50  # of one request


class DataChecks:
    """Asks stores, all at once. Who does not answer in time is asked again before the task is set up."""

    def __init__(
        self,
        stores: Callable[[], OpensBuckets],
        made: MadeBuckets | None = None,
        patience_s: float = _PATIENCE_S,
    ) -> None:
        self._stores, self._made, self._patience_s = stores, made, patience_s

    async def check(self, tasks: Iterable[Task]) -> None:
        """Raises the first `BucketError` that is no matter of waiting, with the path that it is about."""
        wanted: dict[_Key, str] = {}
        made: dict[_Key, bool] = {}  # buckets that are made when they are missing: whether they go again
        for task in tasks:
            for mount in task.storage_mounts:
                wish = extra_of(mount).encryption
                key = (url_of(mount), Encryption(type=wish.type, key_id=wish.key_id), _is_made(mount))
                wanted.setdefault(key, mount.target)
                if is_made_for_task(mount):
                    made[key] = made.get(key, True) and not mount.persistent
            if task.checkpoints.to:
                wanted.setdefault((task.checkpoints.to, Encryption(), True), "checkpoints")
            for output in task.returns:
                wanted.setdefault((output.url, Encryption(), True), output.path)
            if len(wanted) > _URLS_MAX:
                break
        if not wanted:
            return
        asking = {
            asyncio.ensure_future(self._ask(key, made.get(key))): target for key, target in wanted.items()
        }
        done, _ = await asyncio.wait(asking, timeout=self._patience_s)
        for each in asking:
            error = each.exception() if each in done else None
            if isinstance(error, Elsewhere):
                raise error
            if isinstance(error, ArgosyError) and not isinstance(error, StoreBusy):
                raise ArgosyError(error.code, f"`{asking[each]}`: {error}", hint=error.hint) from None

    async def _ask(self, wanted: _Key, passing: bool | None) -> None:
        """`passing` None: a bucket that is missing is not made."""
        if passing is not None and self._made is not None:
            await self._made.ensure(wanted[0], wanted[1], passing=passing)
        await asyncio.to_thread(self._look, wanted)

    def _look(self, wanted: _Key) -> None:
        url, encryption, is_new = wanted
        bucket, key = self._stores().open(url, encryption)
        if key and not key.endswith("/"):
            try:
                bucket.head(key)
                return
            except ObjectMissing:
                pass
        prefix = key + "/" if key and not key.endswith("/") else key
        page = bucket.page(prefix=prefix, most=1)
        if not page.objects and not page.prefixes and not is_new:
            raise ObjectMissing(
                f"nothing lies at {url}", f"`argosy storage ls {bucket.url}/` shows what there is"
            )


def is_made_for_task(mount: StorageMount) -> bool:
    """Whether a bucket that is only named, with a kind of store, is made when it is missing: to write to."""
    named = bool(mount.name) and not any(map(is_url, mount.sources))
    return named and _is_made(mount) and url_of(mount).partition("://")[0] in SCHEMES.values()


def _is_made(mount: StorageMount) -> bool:
    """Whether the mount may be empty: it is written to, or filled first."""
    return mount.mode != "COPY" or any(not is_url(source) for source in mount.sources)

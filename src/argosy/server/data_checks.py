"""Storage that tasks name is looked at before anything is ordered: a bucket that is missing or closed to us
is told at once, not by a machine that is paid for."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable
from typing import Final

from argosy.infra.buckets import BucketError, Encryption, ObjectMissing, OpensBuckets, StoreBusy
from argosy.model.errors import ArgosyError
from argosy.model.mounts import extra_of, is_url, url_of
from argosy.model.task import StorageMount, Task

_PATIENCE_S: Final = 5.0
_URLS_MAX: Final = 50  # of one request


class DataChecks:
    """Asks stores, all at once. Who does not answer in time is asked again before the task is set up."""

    def __init__(self, stores: Callable[[], OpensBuckets], patience_s: float = _PATIENCE_S) -> None:
        self._stores, self._patience_s = stores, patience_s

    async def check(self, tasks: Iterable[Task]) -> None:
        """Raises the first `BucketError` that is no matter of waiting, with the path that it is about."""
        wanted: dict[tuple[str, Encryption, bool], str] = {}
        for task in tasks:
            for mount in task.storage_mounts:
                wish = extra_of(mount).encryption
                key = (url_of(mount), Encryption(type=wish.type, key_id=wish.key_id), _is_made(mount))
                wanted.setdefault(key, mount.target)
            if task.checkpoints.to:
                wanted.setdefault((task.checkpoints.to, Encryption(), True), "checkpoints")
            for output in task.returns:
                wanted.setdefault((output.url, Encryption(), True), output.path)
            if len(wanted) > _URLS_MAX:
                break
        if not wanted:
            return
        asking = {
            asyncio.ensure_future(asyncio.to_thread(self._look, url, encryption, is_new)): target
            for (url, encryption, is_new), target in wanted.items()
        }
        done, _ = await asyncio.wait(asking, timeout=self._patience_s)
        for each in asking:
            error = each.exception() if each in done else None
            if isinstance(error, BucketError) and not isinstance(error, StoreBusy):
                raise ArgosyError(error.code, f"`{asking[each]}`: {error}", hint=error.hint) from None

    def _look(self, url: str, encryption: Encryption, is_new: bool) -> None:
        """`is_new`: nothing need be there yet."""
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


def _is_made(mount: StorageMount) -> bool:
    """Whether the mount may be empty: it is written to, or filled first."""
    return mount.mode != "COPY" or any(not is_url(source) for source in mount.sources)

"""A bucket of this server (`infra.buckets.Bucket`): its folder and index, without a network in between."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from typing import Final

from argosy.infra.buckets import (
    PLAIN,
    Bucket,
    BucketError,
    BucketInUse,
    BucketMissing,
    ChangedMeanwhile,
    ConditionFailed,
    Damaged,
    Extra,
    MountKeys,
    NoSpace,
    NotPossible,
    ObjectMissing,
    RequestRefused,
    Traits,
)
from argosy.model.errors import ArgosyError
from argosy.model.ids import Clock
from argosy.model.object_urls import missing_hint
from argosy.model.objects import ObjectInfo, ObjectPage, ObjectProblem
from argosy.storage.s3_mounts import KEYS_S, Place, s3_mount
from argosy.storage.shelf_folder import ShelfFolder
from argosy.storage.shelf_tokens import Allowed

_GATHER_BYTES: Final = 1 << 20
#: Signs a URL of the server's own address for programs: bucket, key, method, seconds; None: it has none.
Signer = Callable[[str, str, str, int], str | None]


class ShelfBucket:
    """`address`: where the server listens for programs, as http://HOST:PORT; "": nowhere. `door` makes it
    listen, and gives the bucket anew."""

    def __init__(
        self,
        folder: ShelfFolder,
        name: str,
        signer: Signer | None = None,
        address: str = "",
        clock: Clock | None = None,
        door: Callable[[], Awaitable[Bucket]] | None = None,
    ) -> None:
        self._door = door
        self._folder, self._name, self._signer = folder, name, signer
        self._address, self._clock = address, clock
        self._traits = Traits(
            signs=signer is not None,
            makes_buckets=True,
            md5_etags=True,
            mounts=bool(address) and clock is not None,
            opens=not address and door is not None,
        )

    async def with_door(self) -> Bucket:
        assert self._door is not None
        return await self._door()

    @property
    def url(self) -> str:
        return f"argosy://{self._name}"

    @property
    def region(self) -> str:
        return ""

    @property
    def traits(self) -> Traits:
        return self._traits

    def close(self) -> None:
        """The folder is the server's."""

    @contextmanager
    def _said(self, key: str = "") -> Iterator[None]:
        try:
            yield
        except ObjectProblem as problem:
            raise self._refused(problem, key) from None
        except ArgosyError as error:
            if error.code != "disk-full" or isinstance(error, BucketError):
                raise
            raise NoSpace(error.what, error.hint) from None

    def _refused(self, problem: ObjectProblem, key: str) -> BucketError:
        whole = f"{self.url}/{key}"
        match problem.code:
            case "NoSuchBucket":
                hint = missing_hint(self._name, f"`argosy storage create {self._name}` makes it")
                return BucketMissing(f"there is no bucket {self.url}", hint)
            case "NoSuchKey":
                return ObjectMissing(f"there is no {whole}", f"`argosy storage ls {self.url}/` lists them")
            case "PreconditionFailed":
                return ConditionFailed(f"{whole} is not as it was expected", "look at it again, then repeat")
            case "BucketNotEmpty":
                return BucketInUse(str(problem), f"`argosy storage rm -r {self.url}/` removes what it holds")
            case "InternalError":
                return Damaged(f"{whole}: {problem}", "restore the folder of the objects from a backup")
            case _:
                return RequestRefused(f"{whole}: {problem}")

    # -- listing --------------------------------------------------------------------------------------------

    def page(self, *, prefix: str = "", delimiter: str = "", after: str = "", most: int = 1000) -> ObjectPage:
        with self._said():
            return self._folder.index.page(self._name, prefix, delimiter, after, most)

    def head(self, key: str) -> ObjectInfo:
        with self._said(key):
            return self._folder.index.head(self._name, key).info

    # -- bytes ----------------------------------------------------------------------------------------------

    def read(self, key: str, *, first: int = 0, count: int = -1, etag: str = "") -> Iterator[bytes]:
        with self._said(key):
            head = self._folder.index.head(self._name, key)
            if etag and head.info.etag != etag:
                raise ChangedMeanwhile(
                    f"{self.url}/{key} was replaced while it was read", "read it again from its beginning"
                )
            left = max(0, head.info.size - first)
            yield from self._folder.read(head, first, left if count < 0 else min(count, left))

    def write(self, key: str, data: Iterable[bytes], extra: Extra = PLAIN) -> ObjectInfo:
        with self._said(key):
            writing, held, held_bytes = self._folder.begin(), list[bytes](), 0
            try:
                for piece in data:
                    held.append(piece)
                    held_bytes += len(piece)
                    if held_bytes >= _GATHER_BYTES:
                        writing.add(held)
                        held, held_bytes = [], 0
                writing.add(held)
                written = writing.end()
            except BaseException:
                writing.undo()
                raise
            return self._folder.put(self._name, key, written, extra.headers, extra.conditions)

    def remove(self, keys: Sequence[str]) -> None:
        with self._said():
            self._folder.remove(self._name, keys)

    def copy(self, source: str, target: str) -> None:
        with self._said(source):
            head = self._folder.index.head(self._name, source)
        self.write(target, self.read(source, etag=head.info.etag), Extra(headers=head.headers))

    def sign(self, key: str, method: str, seconds: int) -> str | None:
        return self._signer(self._name, key, method, seconds) if self._signer is not None else None

    def mount_keys(self, key: str, *, writes: bool) -> MountKeys:
        """A temporary key for what lies below `key`."""
        if not self._address or self._clock is None:
            raise NotPossible(
                "this server has no address for S3 clients", "`argosy server start --s3 HOST:PORT`"
            )
        prefix = f"{key.rstrip('/')}/" if key else ""
        expires_s = self._clock.now_ms() // 1000 + KEYS_S
        lent = self._folder.lend_key(
            Allowed(bucket=self._name, prefix=prefix, reads_only=not writes, expires_s=expires_s)
        )
        at = Place(endpoint=self._address, region="us-east-1", bucket=self._name, key=key)
        return s3_mount(at, lent, scoped=True)

    # -- the bucket -----------------------------------------------------------------------------------------

    def make(self) -> None:
        if not self._folder.index.has_bucket(self._name):
            with self._said():
                self._folder.make_bucket(self._name)

    def drop(self) -> None:
        try:
            with self._said():
                self._folder.remove_bucket(self._name)
        except BucketMissing:
            pass

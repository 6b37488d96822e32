"""A bucket through obstore (`infra.buckets.Bucket`): stores whose protocols we do not speak ourselves.

obstore is an extra, imported when such a bucket is opened. Its synchronous calls are used, from threads: the
asynchronous ones aborted the interpreter at its exit, now and then.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from datetime import timedelta
from itertools import chain
from typing import TYPE_CHECKING, Any, Final
from urllib.parse import quote

import msgspec

from argosy.infra.buckets import (
    PIECE_BYTES,
    PLAIN,
    AccessRefused,
    BucketError,
    BucketInUse,
    BucketMissing,
    ChangedMeanwhile,
    ConditionFailed,
    CredentialsExpired,
    CredentialsMissing,
    Damaged,
    Extra,
    NotPossible,
    ObjectMissing,
    RequestRefused,
    StoreBusy,
    StoreUnreachable,
    Traits,
)
from argosy.model.objects import ObjectInfo, ObjectPage

if TYPE_CHECKING:
    from obstore import ObjectMeta
    from obstore.store import ObjectStore

PART_BYTES: Final = 16 << 20
_PARALLEL: Final = 6
_STATUS: Final = re.compile(r"non-2xx status code: (\d+)")
_CODE: Final = re.compile(r"<Code>([^<]+)</Code>")
_EXPIRED: Final = re.compile(r"expired|AuthenticationFailed.*[Ee]xpir", re.DOTALL)
_NO_BUCKET: Final = ("NoSuchBucket", "ContainerNotFound", "specified bucket does not exist")
_IN_USE: Final = ("BucketNotEmpty", "BucketAlready", "ContainerAlreadyExists", "ContainerBeingDeleted")
_PATH: Final = re.compile(r"[^\x00-\x1f\x7f]+")
#: How obstore connects and repeats; a store is not waited for longer than a minute.
RETRY: Final[Mapping[str, Any]] = {"max_retries": 4, "retry_timeout": timedelta(seconds=60)}


class Named(msgspec.Struct, frozen=True, kw_only=True):
    """Whose store it is, for texts."""

    url: str  # of the bucket
    title: str
    sign_in: str


class ObstoreBucket:
    """`store`: obstore's; `by_version`: it replaces an object by its version, not by its ETag;
    `signs_plain`: addresses are signed for keys of plain letters alone (obstore signs those of Azure as they
    are encoded, and Azure looks at them decoded)."""

    def __init__(
        self,
        store: ObjectStore,
        named: Named,
        traits: Traits,
        *,
        by_version: bool = False,
        signs_plain: bool = False,
    ) -> None:
        self._store, self._named, self._traits = store, named, traits
        self._by_version, self._signs_plain = by_version, signs_plain

    @property
    def url(self) -> str:
        return self._named.url

    @property
    def region(self) -> str:
        return ""

    @property
    def traits(self) -> Traits:
        return self._traits

    def close(self) -> None:
        """Connections go when nobody uses them."""

    # -- listing --------------------------------------------------------------------------------------------

    def page(self, *, prefix: str = "", delimiter: str = "", after: str = "", most: int = 1000) -> ObjectPage:
        import obstore

        folder = prefix.rpartition("/")[0]  # obstore lists whole folders
        try:
            if delimiter:
                told = obstore.list_with_delimiter(self._store, folder or None)
                found = [_info(each) for each in told["objects"] if each["path"].startswith(prefix)]
                below = [f"{each}/" for each in told["common_prefixes"] if f"{each}/".startswith(prefix)]
                return ObjectPage(objects=tuple(found), prefixes=tuple(below))
            objects: list[ObjectInfo] = []
            listing = obstore.list(self._store, folder or None, offset=after or None, chunk_size=most)
            for chunk in listing:
                for each in chunk:
                    if not each["path"].startswith(prefix) or each["path"] <= after:
                        continue  # some stores begin their listing with `after`, or at its beginning
                    if len(objects) == most:
                        return ObjectPage(objects=tuple(objects), after=objects[-1].key)
                    objects.append(_info(each))
            return ObjectPage(objects=tuple(objects))
        except Exception as error:  # noqa: BLE001  obstore's errors have no class of their own
            raise self._refusal(error, "") from None

    def head(self, key: str) -> ObjectInfo:
        import obstore

        self._check(key)
        try:
            return _info(obstore.head(self._store, key), key)
        except Exception as error:  # noqa: BLE001  as above
            raise self._missing(self._refusal(error, key)) from None

    def _missing(self, error: BucketError) -> BucketError:
        """A reply to HEAD does not say whether it is the bucket that is missing: a listing does."""
        if isinstance(error, ObjectMissing):
            try:
                self.page(prefix="\u2063/", most=1)
            except BucketMissing as missing:
                return missing
        return error

    # -- bytes ----------------------------------------------------------------------------------------------

    def read(self, key: str, *, first: int = 0, count: int = -1, etag: str = "") -> Iterator[bytes]:
        import obstore

        if count == 0:
            return
        self._check(key)
        options: dict[str, Any] = {"if_match": f'"{etag}"'} if etag else {}
        if count > 0:
            options["range"] = (first, first + count)
        elif first:
            options["range"] = {"offset": first}
        try:
            reply = obstore.get(self._store, key, options=options)  # type: ignore[arg-type]
            got, wanted = 0, reply.range[1] - reply.range[0]
            for piece in reply.stream(min_chunk_size=PIECE_BYTES):
                got += len(piece)
                yield bytes(piece)
        except GeneratorExit:
            raise
        except Exception as error:  # noqa: BLE001  as above
            refused = self._refusal(error, key)
            if isinstance(refused, ConditionFailed):
                raise ChangedMeanwhile(
                    f"{self.url}/{key} was replaced while it was read", "read it again from its beginning"
                ) from None
            raise self._missing(refused) from None
        if got != wanted:
            raise Damaged(f"{self.url}/{key} ended after {got} of {wanted} bytes", "read it again")

    def write(self, key: str, data: Iterable[bytes], extra: Extra = PLAIN) -> ObjectInfo:
        import obstore

        self._check(key)
        part_bytes = max(PART_BYTES, -(-extra.size // 9_000))
        source = _Watched(data)
        first, more = _up_to(source, part_bytes)
        mode = self._mode(key, extra)
        options: dict[str, Any] = {"attributes": _attributes(extra.headers)}
        try:
            if not more:
                obstore.put(self._store, key, first, mode=mode, use_multipart=False, **options)  # type: ignore[arg-type]
            elif mode != "overwrite":
                whole = b"".join(chain((first,), source))  # obstore has no conditions for parts
                obstore.put(self._store, key, whole, mode=mode, use_multipart=False, **options)  # type: ignore[arg-type]
            else:
                rest = chain((first,), source)
                obstore.put(
                    self._store, key, rest, chunk_size=part_bytes, max_concurrency=_PARALLEL, **options
                )
        except Exception as error:  # noqa: BLE001  as above
            if source.failed is not None:
                raise source.failed from None
            raise self._refusal(error, key) from None
        return self.head(key)

    def _mode(self, key: str, extra: Extra) -> object:
        wanted = extra.conditions
        if wanted.if_absent:
            return "create"
        if not wanted.if_match:
            return "overwrite"
        if not self._by_version:
            return {"e_tag": f'"{wanted.if_match}"'}
        import obstore

        try:
            there = obstore.head(self._store, key)
        except Exception as error:  # noqa: BLE001  as above
            raise self._refusal(error, key) from None
        if (there["e_tag"] or "").strip('"') != wanted.if_match:
            raise self._unexpected(key)
        return {"e_tag": there["e_tag"], "version": there["version"]}

    def remove(self, keys: Sequence[str]) -> None:
        import obstore

        for at in range(0, len(keys), 250):
            some = list(keys[at : at + 250])
            try:
                obstore.delete(self._store, some)
            except FileNotFoundError:
                self._remove_each(some)
            except Exception as error:  # noqa: BLE001  as above
                raise self._refusal(error, some[0]) from None

    def _remove_each(self, keys: Sequence[str]) -> None:
        import obstore

        for key in keys:
            try:
                obstore.delete(self._store, key)
            except FileNotFoundError:
                pass
            except Exception as error:  # noqa: BLE001  as above
                raise self._refusal(error, key) from None

    def copy(self, source: str, target: str) -> None:
        import obstore

        for key in (source, target):
            self._check(key)
        try:
            obstore.copy(self._store, source, target)
        except Exception as error:  # noqa: BLE001  as above
            raise self._missing(self._refusal(error, source)) from None

    def sign(self, key: str, method: str, seconds: int) -> str | None:
        import obstore

        self._check(key)
        if not self._traits.signs or (self._signs_plain and quote(key) != key):
            return None
        try:
            return obstore.sign(self._store, method, key, timedelta(seconds=seconds))  # type: ignore[call-overload,no-any-return]
        except Exception as error:  # noqa: BLE001  as above
            raise self._refusal(error, key) from None

    def make(self) -> None:
        raise NotPossible(
            f"Argosy cannot make {self.url}", f"make it with the tools of {self._named.title}, then name it"
        )

    def drop(self) -> None:
        raise NotPossible(
            f"Argosy cannot remove {self.url}", f"remove it with the tools of {self._named.title}"
        )

    # -- what is refused ------------------------------------------------------------------------------------

    def _check(self, key: str) -> None:
        """obstore would make another key of these without a word."""
        parts = key.split("/")
        if _PATH.fullmatch(key) is None or any(part in ("", ".", "..") for part in parts):
            raise RequestRefused(
                f"`{key}` cannot be read or written at {self._named.title} from here",
                "keys are names between single /, without `.` and `..`",
            )

    def refused(self, status: int, body: str) -> BucketError:
        """The error for a reply to a call of our own."""
        return self._refusal(RuntimeError(f"non-2xx status code: {status}: {body}"), "")

    def _unexpected(self, key: str) -> ConditionFailed:
        return ConditionFailed(f"{self.url}/{key} is not as it was expected", "look at it again, then repeat")

    def _refusal(self, error: Exception, key: str) -> BucketError:
        if isinstance(error, BucketError):
            return error
        text, named = str(error), self._named
        status = int(found[1]) if (found := _STATUS.search(text)) is not None else 0
        code = found[1] if (found := _CODE.search(text)) is not None else ""
        whole = f"{named.url}/{key}" if key else named.url
        if any(each in text for each in _NO_BUCKET) or (status == 404 and not key):
            return BucketMissing(f"there is no bucket {named.url}", f"check its name; {named.sign_in}")
        if any(each in text for each in _IN_USE):
            return BucketInUse(
                f"{named.url} is not empty, or its name is taken", "empty it, or choose another"
            )
        if isinstance(error, FileNotFoundError) or status == 404:
            return ObjectMissing(
                f"there is no {whole}", f"`argosy storage ls {named.url}/` lists what there is"
            )
        if status in (409, 412) or type(error).__name__ in ("AlreadyExistsError", "PreconditionError"):
            return self._unexpected(key)
        if status in (400, 401, 403) and _EXPIRED.search(text):
            return CredentialsExpired(
                f"the credentials for {named.url} have expired",
                f"{named.sign_in}, then repeat: what was copied is not copied again",
            )
        if status == 401 or type(error).__name__ == "UnauthenticatedError" or code == "AuthenticationFailed":
            return CredentialsMissing(f"{named.title} does not accept the credentials", named.sign_in)
        if status == 403 or type(error).__name__ == "PermissionDeniedError":
            return AccessRefused(
                f"{named.title} does not let us do that with {whole} ({code or 'forbidden'})",
                f"ask the owner of {named.url} for access, or use other credentials: {named.sign_in}",
            )
        if status in (408, 429, 500, 502, 503, 504):
            return StoreBusy(f"{named.title} is busy ({code or status})", "it is tried again by itself")
        if "error sending request" in text or "HTTP error" in text or "timed out" in text:
            return StoreUnreachable(
                f"{named.title} does not answer for {named.url}", "check its endpoint and the network"
            )
        fact = text.partition("\n")[0].partition("Debug source")[0].strip()[:300]
        return RequestRefused(f"{named.title} refuses {whole}: {code or fact}")


class _Watched:
    """An iterator that remembers what its source raised: obstore makes another error of it."""

    def __init__(self, data: Iterable[bytes]) -> None:
        self._data = iter(data)
        self.failed: BaseException | None = None

    def __iter__(self) -> _Watched:
        return self

    def __next__(self) -> bytes:
        try:
            return next(self._data)
        except StopIteration:
            raise
        except BaseException as error:
            self.failed = error
            raise


def _up_to(data: Iterator[bytes], count: int) -> tuple[bytes, bool]:
    """The first bytes, at least `count` of them unless there are fewer; and whether more may follow."""
    held: list[bytes] = []
    size = 0
    for piece in data:
        held.append(piece)
        size += len(piece)
        if size >= count:
            return b"".join(held), True
    return b"".join(held), False


def _info(meta: ObjectMeta, key: str = "") -> ObjectInfo:
    return ObjectInfo(
        key=key or meta["path"],
        size=meta["size"],
        etag=(meta["e_tag"] or "").strip('"'),
        modified_ms=int(meta["last_modified"].timestamp() * 1000),
    )


def _attributes(headers: Mapping[str, str]) -> dict[str, str]:
    prefix = "x-amz-meta-"
    return {
        (name.removeprefix(prefix) if name.startswith(prefix) else name.title()): value
        for name, value in headers.items()
    }

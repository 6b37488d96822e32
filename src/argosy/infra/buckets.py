"""The border to object stores: what every store can do, and the closed set of errors that come back.

Calls block: they are made from threads, and a bucket may be used by several at once. Keys are texts as S3 has
them: `/` separates by custom only. What a store cannot do is in its `Traits`, not in its class.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Final, NamedTuple, Protocol, TypeVar

import msgspec

from argosy.model.errors import ArgosyError
from argosy.model.ids import Clock
from argosy.model.objects import Conditions, ObjectInfo, ObjectPage

T = TypeVar("T")
ALWAYS: Final = Conditions()
PIECE_BYTES: Final = 1 << 20  # about what `read` yields at once


class Encryption(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True, forbid_unknown_fields=True):
    """How a store encrypts what is written, and what is required of what is read.

    `type`: `AES256` (the store's own keys), `aws:kms` (a key of its key service, `key_id`), `customer` (a key
    that the server has, by the name `key_id`), or "": as the store does by itself."""

    type: str = ""
    key_id: str = ""  # "": the account's usual key


BY_ITSELF: Final = Encryption()
CUSTOMER: Final = "customer"


def parse_encryption(text: str) -> Encryption:
    """`AES256`, `aws:kms`, or `aws:kms:KEY`, where the key may be an ARN, `customer:NAME`; "" is as the store
    does by itself.

    >>> parse_encryption("aws:kms:k1").key_id, parse_encryption("AES256").type
    ('k1', 'AES256')
    """
    for name in ("aws:kms:dsse", "aws:kms", CUSTOMER):
        if text == name or text.startswith(f"{name}:"):
            return Encryption(type=name, key_id=text[len(name) + 1 :])
    return Encryption(type=text)


class Traits(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """What a store can do."""

    writes: bool = True
    signs: bool = False  # `sign` gives URLs
    conditions: bool = True  # writes under `Conditions`
    mounts: bool = False  # `GivesKeys`: nodes can mount it
    opens: bool = False  # `OpensDoor`: it can be made so that they can
    makes_buckets: bool = False
    encryption: tuple[str, ...] = ()  # types of `Encryption` that may be asked for
    md5_etags: bool = False  # an ETag without `-` is the MD5 of the bytes
    put_headers: Mapping[str, str] = {}  # what a PUT to a signed URL must say


class Extra(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """What is written with an object, beside its bytes. `headers`: those that come back with it, such as
    `content-type` and `x-amz-meta-...`, names in lower case; `size` -1: not known beforehand."""

    headers: Mapping[str, str] = {}
    conditions: Conditions = ALWAYS
    size: int = -1


PLAIN: Final = Extra()


class Bucket(Protocol):
    """One bucket. Every method raises a `BucketError`."""

    @property
    def url(self) -> str:
        """As users write it, without a `/` at the end: `s3://data`."""

    @property
    def region(self) -> str:
        """Where it is, in the store's own words ("": not known); certain once something was asked."""

    @property
    def traits(self) -> Traits: ...

    def page(self, *, prefix: str = "", delimiter: str = "", after: str = "", most: int = 1000) -> ObjectPage:
        """Objects whose keys begin with `prefix`, in order of the keys' bytes, at most about `most`.
        `delimiter` `/`: what lies deeper is told as prefixes. `after`: the `after` of the page before."""

    def head(self, key: str) -> ObjectInfo:
        """Raises `ObjectMissing`."""

    def read(self, key: str, *, first: int = 0, count: int = -1, etag: str = "") -> Iterator[bytes]:
        """Bytes from `first` on, all or `count` of them. `etag`: only of the object that has it, else
        `ChangedMeanwhile`. What is wrong is raised by the call or by a step of the iterator."""

    def write(self, key: str, data: Iterable[bytes], extra: Extra = PLAIN) -> ObjectInfo:
        """An object of these pieces, which appears whole or not at all; large ones go in parts, several at
        once. Errors that `data` raises pass through. Raises `ConditionFailed`."""

    def remove(self, keys: Sequence[str]) -> None:
        """What is not there is removed."""

    def copy(self, source: str, target: str) -> None:
        """Within the bucket: the bytes do not come here. Raises `ObjectMissing`."""

    def sign(self, key: str, method: str, seconds: int) -> str | None:
        """A URL with which anybody may GET or PUT this one object for so long; None: the store has none,
        or not for this key. A PUT says `traits.put_headers`, too."""

    def make(self) -> None:
        """Make the bucket; one that is ours already is fine. Raises `NotPossible` where users cannot."""

    def drop(self) -> None:
        """Remove the bucket, which must be empty; one that is not there is removed."""

    def close(self) -> None:
        """Connections go. A later call makes new ones."""


class MountKeys(msgspec.Struct, frozen=True, kw_only=True):
    """With what a mounting tool reaches a bucket. `settings`: options of an rclone remote by their names,
    secrets among them; `path`: the bucket as rclone names it; `scoped`: good for what is mounted only, else
    they are the server's own, and `why` says why. `expires_s`: Unix time (0: never).

    Keys that end are replaced while the tool runs. `door`: how it asks for them, as rclone's backend does
    (`container`: an address of container credentials, `oauth`: one of OAuth tokens), and `fresh` is what it
    is answered; "": it is started anew with other `settings`."""

    settings: Mapping[str, str]
    path: str
    scoped: bool = False
    why: str = ""
    expires_s: float = 0.0
    door: str = ""
    fresh: Mapping[str, str | int] = {}

    def __repr__(self) -> str:
        return f"MountKeys(path={self.path!r}, scoped={self.scoped})"


class GivesKeys(Protocol):
    """A bucket whose traits say `mounts`."""

    def mount_keys(self, key: str, *, writes: bool) -> MountKeys:
        """For what lies below `key`, made anew by every call. Blocks. Raises a `BucketError`."""


class OpensDoor(Protocol):
    """A bucket whose traits say `opens`."""

    async def with_door(self) -> Bucket:
        """The same bucket, that nodes can mount: it listens for them from now on."""


class Opened(NamedTuple):
    """A URL: its bucket, and the key or prefix that follows ("": all of it)."""

    bucket: Bucket
    key: str


class OpensBuckets(Protocol):
    """Object stores by URL; buckets stay open for those who come again."""

    def open(self, url: str, encryption: Encryption = BY_ITSELF) -> Opened:
        """What is written is encrypted like this, and what is read must be. Nothing is asked of the store
        yet. Raises `UrlUnknown`, `CredentialsMissing`, `NotPossible`."""


class StoreSettings(msgspec.Struct, frozen=True, kw_only=True):
    """What a store may use. `sections`: JSON text of each section of `buckets.yaml`, by its name; `local`:
    buckets of this server, by name (None: there are none here)."""

    environ: Mapping[str, str]  # of the server; never logged
    home: Path  # where tools of the stores keep credentials
    clock: Clock
    sections: Mapping[str, str] = {}
    local: Callable[[str], Bucket] | None = None

    def __repr__(self) -> str:  # the environment holds credentials
        return f"StoreSettings(sections={sorted(self.sections)!r})"

    def section(self, name: str, kind: type[T]) -> T:
        """What `buckets.yaml` says under a name. Raises `UrlUnknown` for what cannot be meant."""
        try:
            return msgspec.json.decode(self.sections.get(name, "{}"), type=kind)
        except msgspec.ValidationError as error:
            raise UrlUnknown(f"buckets.yaml: `{name}`: {error}", "see docs/storage.md") from None


class BucketError(ArgosyError):
    """An object store refused or failed. `what` is the fact and `hint` the fix; no secrets in either."""

    CODE = "internal"

    def __init__(self, what: str, hint: str = "") -> None:
        super().__init__(self.CODE, what, hint=hint)


class UrlUnknown(BucketError):
    """No store has such URLs, or its settings are wrong."""

    CODE = "usage"


class BucketMissing(BucketError):
    CODE = "not-found"


class ObjectMissing(BucketError):
    CODE = "not-found"


class AccessRefused(BucketError):
    """The store knows who we are, and that we may not."""

    CODE = "forbidden"


class CredentialsMissing(AccessRefused):
    """There are none, or the store does not know them."""


class CredentialsExpired(AccessRefused):
    """They were good once. Work that was done stays done: it goes on with fresh ones."""


class WrongRegion(BucketError):
    """The bucket is elsewhere. `region` "": the store does not say where."""

    CODE = "usage"

    def __init__(self, what: str, region: str, hint: str = "") -> None:
        super().__init__(what, hint)
        self.region = region


class ConditionFailed(BucketError):
    """A conditional write: what is there is not what was expected."""

    CODE = "conflict"


class ChangedMeanwhile(BucketError):
    """The object is another one than when its reading began."""

    CODE = "conflict"


class BucketInUse(BucketError):
    """The bucket is not empty, or its name is another's."""

    CODE = "conflict"


class NotEncrypted(BucketError):
    """What is read is not encrypted as it is required to be."""

    CODE = "forbidden"


class Damaged(BucketError):
    """The bytes are not those that the store vouches for."""

    CODE = "conflict"


class NotPossible(BucketError):
    """The store cannot do that."""

    CODE = "unsupported"


class RequestRefused(BucketError):
    """The store does not take this; repeating it cannot help."""

    CODE = "usage"


class ReadsOnly:
    """The verbs of a `Bucket` that can only be read. `refusal`: what is said to who would change it."""

    def refusal(self) -> NotPossible:
        raise NotImplementedError

    def sign(self, key: str, method: str, seconds: int) -> str | None:
        """There is nothing to sign."""
        return None

    def write(self, key: str, data: Iterable[bytes], extra: Extra = PLAIN) -> ObjectInfo:
        raise self.refusal()

    def remove(self, keys: Sequence[str]) -> None:
        raise self.refusal()

    def copy(self, source: str, target: str) -> None:
        raise self.refusal()

    def make(self) -> None:
        raise self.refusal()

    def drop(self) -> None:
        raise self.refusal()


class StoreBusy(BucketError):
    """Try again, not before `after_s` seconds."""

    CODE = "transient"

    def __init__(self, what: str, hint: str = "", after_s: float = 1.0) -> None:
        super().__init__(what, hint)
        self.after_s = after_s


class StoreUnreachable(StoreBusy):
    """Nobody answers there, or somebody who is no object store."""


class NoSpace(BucketError):
    """The disk or the quota behind the store is full."""

    CODE = "disk-full"

"""Buckets of this server, and the keys that programs sign with. Objects travel over `/s3/`, in S3's words."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from enum import Enum

from argosy.api.endpoint import Done, Reply, Request, endpoint
from argosy.model.errors import Problem


class BucketView(Reply, frozen=True, kw_only=True, omit_defaults=True):
    name: str
    objects: int
    bytes: int
    made_ms: int


class BucketList(Reply, frozen=True, kw_only=True):
    buckets: tuple[BucketView, ...]
    address: (
        str  # where programs reach them over S3, as http://HOST:PORT; "": only this server's own commands
    )


class BucketRequest(Request, frozen=True, kw_only=True, omit_defaults=True):
    name: str
    passing: bool = False  # it goes after the end of the workloads that mount it


class StoreKeyRequest(Request, frozen=True, kw_only=True, omit_defaults=True):
    name: str
    bucket: str = ""  # "": all of them
    reads_only: bool = False


class StoreKeyReply(Reply, frozen=True, kw_only=True):
    id: str
    secret: str  # told this once
    address: str

    def __repr__(self) -> str:
        return f"StoreKeyReply(id={self.id!r})"


class StoreKeyView(Reply, frozen=True, kw_only=True, omit_defaults=True):
    name: str
    id: str
    bucket: str = ""
    reads_only: bool = False
    made_ms: int = 0


class StoreKeyList(Reply, frozen=True, kw_only=True):
    keys: tuple[StoreKeyView, ...]


class SignRequest(Request, frozen=True, kw_only=True, omit_defaults=True):
    """Addresses of objects of one bucket, for one method: GET or PUT."""

    bucket: str  # as a URL: s3://data
    keys: tuple[str, ...]
    method: str = "GET"
    encryption: str = ""  # of what a PUT writes: AES256, aws:kms or aws:kms:KEY


class SignReply(Reply, frozen=True, kw_only=True, omit_defaults=True):
    """`urls`: one for each key, "" where the store has none; `headers`: what a PUT must say."""

    urls: tuple[str, ...]
    headers: Mapping[str, str] = {}
    md5_etags: bool = False  # an ETag without `-` is the MD5 of the bytes
    seconds: int = 0  # so long they are good


class TransferRequest(Request, frozen=True, kw_only=True, omit_defaults=True):
    """What lies below one URL goes below another."""

    source: str
    target: str
    delete: bool = False  # remove from the target what the source does not have
    include: tuple[str, ...] = ()  # patterns of names below the source
    exclude: tuple[str, ...] = ()
    key: str = ""  # the same again is the same transfer


class TransferState(Enum):
    PLANNED = "planned"
    RUNNING = "running"
    DONE = "done"
    FAILED = "failed"
    CANCELLED = "cancelled"


class TransferView(Reply, frozen=True, kw_only=True, omit_defaults=True):
    """A transfer: what it copies and costs, and how far it is."""

    source: str
    target: str
    state: TransferState
    id: str = ""
    source_place: str = ""  # provider/region ("": with us, or not known)
    target_place: str = ""
    files: int = 0  # to copy
    bytes: int = 0
    same: int = 0  # there already
    removes: int = 0
    egress_micro_usd: int = 0
    egress_micro_usd_per_gb: int = 0
    egress_note: str = ""
    egress_as_of: str = ""
    seconds: int = 0  # about so long
    near_egress_micro_usd: int = 0  # when a node where the source is copies it, not this server
    near_seconds: int = 0
    files_done: int = 0
    bytes_done: int = 0
    failed: tuple[str, ...] = ()
    problem: Problem | None = None


class TransferList(Reply, frozen=True, kw_only=True):
    transfers: tuple[TransferView, ...]


class StorageCalls:
    @endpoint("GET", "/buckets", permission="buckets.read")
    def buckets(self) -> BucketList:
        """Buckets of this server, with what they hold."""

    @endpoint("POST", "/buckets", BucketRequest, permission="buckets.write")
    def make_bucket(self, name: str, passing: bool = False) -> Done:
        """A new bucket; `passing`: for as long as workloads mount it. Errors: "usage", "conflict"."""

    @endpoint("DELETE", "/buckets/{bucket}", permission="buckets.write")
    def remove_bucket(self, bucket: str) -> Done:
        """Remove an empty bucket. Errors: "not-found", "conflict"."""

    @endpoint("GET", "/store-keys", permission="keys.read")
    def store_keys(self) -> StoreKeyList:
        """Keys that programs sign with, without their secrets."""

    @endpoint("POST", "/store-keys", StoreKeyRequest, permission="keys.write")
    def make_store_key(self, name: str, bucket: str = "", reads_only: bool = False) -> StoreKeyReply:
        """A new key, in place of an older one of that name. Its secret is told this once. Errors:
        "not-found"."""

    @endpoint("DELETE", "/store-keys/{key}", permission="keys.write")
    def remove_store_key(self, key: str) -> Done:
        """Take a key back: at once nobody is let in with it. Errors: "not-found"."""

    @endpoint("POST", "/objects/sign", SignRequest, permission="buckets.write")
    def sign_objects(
        self, bucket: str, keys: Sequence[str], method: str = "GET", encryption: str = ""
    ) -> SignReply:
        """Addresses with which whoever has them reads or writes single objects, for a short time and without
        credentials. Errors: "usage", "forbidden"."""

    @endpoint("POST", "/transfers/plan", TransferRequest, permission="buckets.read")
    def plan_transfer(
        self,
        source: str,
        target: str,
        delete: bool = False,
        include: Sequence[str] = (),
        exclude: Sequence[str] = (),
    ) -> TransferView:
        """What a transfer would copy, what its traffic costs and how long it takes. Errors: "usage",
        "not-found", "forbidden"."""

    @endpoint("POST", "/transfers", TransferRequest, permission="buckets.write")
    def start_transfer(
        self,
        source: str,
        target: str,
        delete: bool = False,
        include: Sequence[str] = (),
        exclude: Sequence[str] = (),
        key: str = "",
    ) -> TransferView:
        """Begin a transfer; it goes on by itself, and what is there already is not copied again."""

    @endpoint("GET", "/transfers", permission="buckets.read")
    def transfers(self) -> TransferList:
        """Transfers, newest first."""

    @endpoint("GET", "/transfers/{id}", permission="buckets.read")
    def transfer(self, id: str) -> TransferView:
        """How far a transfer is; one that a killed server left goes on. Errors: "not-found"."""

    @endpoint("DELETE", "/transfers/{id}", permission="buckets.write")
    def cancel_transfer(self, id: str) -> Done:
        """Call a transfer off; what was copied stays. Errors: "not-found"."""

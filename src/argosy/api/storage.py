"""Buckets of this server, and the keys that programs sign with. Objects travel over `/s3/`, in S3's words."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from argosy.api.endpoint import Done, Reply, Request, endpoint


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


class StoreKeyRequest(Request, frozen=True, kw_only=True, omit_defaults=True):
    name: str
    bucket: str = ""  # "": all of them
    reads_only: bool = False


class StoreKeyReply(Reply, frozen=True, kw_only=True):
    id: str
    secret: str  # told this once
    address: str


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


class SignReply(Reply, frozen=True, kw_only=True, omit_defaults=True):
    """`urls`: one for each key, "" where the store has none; `headers`: what a PUT must say."""

    urls: tuple[str, ...]
    headers: Mapping[str, str] = {}
    md5_etags: bool = False  # an ETag without `-` is the MD5 of the bytes
    seconds: int = 0  # so long they are good


class StorageCalls:
    @endpoint("GET", "/buckets", permission="buckets.read")
    def buckets(self) -> BucketList:
        """Buckets of this server, with what they hold."""

    @endpoint("POST", "/buckets", BucketRequest, permission="buckets.write")
    def make_bucket(self, name: str) -> Done:
        """A new bucket. Errors: "usage", "conflict"."""

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
    def sign_objects(self, bucket: str, keys: Sequence[str], method: str = "GET") -> SignReply:
        """Addresses with which whoever has them reads or writes single objects, for a short time and without
        credentials. Errors: "usage", "forbidden"."""

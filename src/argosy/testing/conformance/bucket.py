"""What every object store must do (`infra.buckets.Bucket`), as cases that run against any of them.

    @pytest.mark.parametrize("case", CASES, ids=case_name)
    def test_conformance(case): case(my_subject)

A *subject* opens buckets with names that nobody used. A case that needs what the store's `Traits` do not have
raises `NotApplicable`.
"""

from __future__ import annotations

import hashlib
import http.client
from collections.abc import Callable, Iterator, Mapping
from types import MappingProxyType
from typing import Final, Protocol
from urllib.parse import urlsplit

from argosy.infra.buckets import (
    Bucket,
    BucketError,
    BucketInUse,
    BucketMissing,
    ChangedMeanwhile,
    ConditionFailed,
    Extra,
    ObjectMissing,
)
from argosy.model.objects import Conditions
from argosy.testing.conformance.provider import NotApplicable

_PART: Final = 16 << 20


class Subject(Protocol):
    def bucket(self) -> Bucket:
        """A bucket that is not made yet, of a name that nobody used."""

    @property
    def awkward_keys(self) -> bool:
        """Whether keys may be what no path is: `a//b`, `a/`, and `a` beside `a/b`."""


Case = Callable[[Subject], None]


def _made(subject: Subject) -> Bucket:
    bucket = subject.bucket()
    bucket.make()
    return bucket


def _need(holds: bool, what: str) -> None:
    if not holds:
        raise NotApplicable(what)


def _raises(kind: type[BucketError], act: Callable[[], object]) -> BucketError:
    try:
        act()
    except kind as error:
        assert error.hint, f"{kind.__name__} has no hint: {error}"
        return error
    raise AssertionError(f"nothing raised {kind.__name__}")


def _bytes(bucket: Bucket, key: str) -> bytes:
    return b"".join(bucket.read(key))


def _keys(bucket: Bucket, prefix: str = "", most: int = 1000) -> list[str]:
    found: list[str] = []
    after = ""
    while True:
        page = bucket.page(prefix=prefix, after=after, most=most)
        found += [each.key for each in page.objects]
        after = page.after
        if not after:
            return found


# -- objects ----------------------------------------------------------------------------------------------


def what_is_written_is_read(subject: Subject) -> None:
    bucket = _made(subject)
    for key, data in (("a", b"one"), ("b/ü c+d%&=?#.bin", bytes(range(256)) * 500), ("b/empty", b"")):
        info = bucket.write(key, [data[:10], data[10:]])
        assert (info.key, info.size) == (key, len(data))
        assert _bytes(bucket, key) == data
        head = bucket.head(key)
        assert (head.size, head.etag) == (len(data), info.etag) and head.modified_ms > 0
        if bucket.traits.md5_etags:
            assert head.etag == hashlib.md5(data, usedforsecurity=False).hexdigest()


def a_write_replaces_whole_objects(subject: Subject) -> None:
    bucket = _made(subject)
    first = bucket.write("k", [b"longer than the second"])
    second = bucket.write("k", [b"second"])
    assert _bytes(bucket, "k") == b"second" and first.etag != second.etag
    assert _keys(bucket) == ["k"]


def ranges_are_read(subject: Subject) -> None:
    bucket = _made(subject)
    bucket.write("k", [b"0123456789"])
    assert b"".join(bucket.read("k", first=3)) == b"3456789"
    assert b"".join(bucket.read("k", first=3, count=4)) == b"3456"
    assert b"".join(bucket.read("k", first=8, count=40)) == b"89"
    assert b"".join(bucket.read("k", count=0)) == b""


def a_replaced_object_is_not_read_on(subject: Subject) -> None:
    bucket = _made(subject)
    old = bucket.write("k", [b"one"])
    bucket.write("k", [b"other"])
    _raises(ChangedMeanwhile, lambda: b"".join(bucket.read("k", etag=old.etag)))
    assert b"".join(bucket.read("k", etag=bucket.head("k").etag)) == b"other"


def large_objects_go_in_parts(subject: Subject) -> None:
    bucket = _made(subject)
    piece = hashlib.sha256(b"x").digest() * 32768  # 1 MiB
    count = _PART // len(piece) * 2 + 3
    bucket.write("big", (piece for _ in range(count)), Extra(size=count * len(piece)))
    assert bucket.head("big").size == count * len(piece)
    digest = hashlib.sha256()
    for each in bucket.read("big"):
        digest.update(each)
    assert digest.hexdigest() == hashlib.sha256(piece * count).hexdigest()
    assert b"".join(bucket.read("big", first=_PART - 3, count=6)) == (piece[-3:] + piece[:3])


def a_write_that_fails_leaves_what_was(subject: Subject) -> None:
    bucket = _made(subject)
    bucket.write("k", [b"old"])

    def broken(pieces: int) -> Iterator[bytes]:
        for _ in range(pieces):
            yield b"x" * (1 << 20)
        raise OSError("the disk died")

    for pieces in (1, 2 * _PART // (1 << 20) + 1):
        try:
            bucket.write("k", broken(pieces))
        except OSError as error:
            assert str(error) == "the disk died"
        else:
            raise AssertionError("the error of the data was lost")
    assert _bytes(bucket, "k") == b"old" and _keys(bucket) == ["k"]


def writes_under_conditions(subject: Subject) -> None:
    bucket = _made(subject)
    _need(bucket.traits.conditions, "writes under conditions")
    absent = Extra(conditions=Conditions(if_absent=True))
    info = bucket.write("k", [b"one"], absent)
    _raises(ConditionFailed, lambda: bucket.write("k", [b"two"], absent))
    same = bucket.write("k", [b"three"], Extra(conditions=Conditions(if_match=info.etag)))
    _raises(
        ConditionFailed,
        lambda: bucket.write("k", [b"four"], Extra(conditions=Conditions(if_match=info.etag))),
    )
    assert _bytes(bucket, "k") == b"three" and bucket.head("k").etag == same.etag


def copies_stay_inside(subject: Subject) -> None:
    bucket = _made(subject)
    bucket.write("a b/ü", [b"data"])
    bucket.copy("a b/ü", "c/d")
    assert _bytes(bucket, "c/d") == b"data"
    _raises(ObjectMissing, lambda: bucket.copy("none", "c/e"))


def what_is_removed_is_gone(subject: Subject) -> None:
    bucket = _made(subject)
    for key in ("a", "b/c", "b/d"):
        bucket.write(key, [b"x"])
    bucket.remove(["a", "b/c", "never/was"])
    bucket.remove(["a"])
    bucket.remove([])
    assert _keys(bucket) == ["b/d"]


# -- listings ---------------------------------------------------------------------------------------------

_LISTED: Final = ("a-b", "a/b", "a/c/d", "a/c/e", "b", "c/1", "ä/x")


def listings_come_in_pages(subject: Subject) -> None:
    bucket = _made(subject)
    for key in _LISTED:
        bucket.write(key, [b"x"])
    wanted = sorted(_LISTED, key=str.encode)
    for most in (1, 2, 1000):
        assert _keys(bucket, most=most) == wanted
        assert _keys(bucket, "a", most=most) == ["a-b", "a/b", "a/c/d", "a/c/e"]
        assert _keys(bucket, "a/c/", most=most) == ["a/c/d", "a/c/e"]
    assert _keys(bucket, "none/") == []
    sizes = {each.key: each.size for each in bucket.page().objects}
    assert sizes == dict.fromkeys(_LISTED, 1)


def listings_stop_at_a_delimiter(subject: Subject) -> None:
    bucket = _made(subject)
    for key in _LISTED:
        bucket.write(key, [b"x"])
    for most in (1, 3, 1000):
        objects, prefixes, after = [], [], ""
        while True:
            page = bucket.page(delimiter="/", after=after, most=most)
            objects += [each.key for each in page.objects]
            prefixes += list(page.prefixes)
            after = page.after
            if not after:
                break
        assert (sorted(objects), sorted(prefixes)) == (["a-b", "b"], ["a/", "c/", "ä/"])
    below = bucket.page(prefix="a/", delimiter="/")
    assert [each.key for each in below.objects] == ["a/b"] and list(below.prefixes) == ["a/c/"]


def keys_that_are_no_paths(subject: Subject) -> None:
    _need(subject.awkward_keys, "keys that are no paths")
    bucket = _made(subject)
    keys = ["a", "a/", "a//b", "a/b", "..", "../x", ".", "/lead", "x/./y"]
    for key in keys:
        bucket.write(key, [key.encode()])
    assert _keys(bucket) == sorted(keys, key=str.encode)
    for key in keys:
        assert _bytes(bucket, key) == key.encode(), key
    bucket.remove(keys)
    assert _keys(bucket) == []


# -- what is refused --------------------------------------------------------------------------------------


def what_is_missing_is_said(subject: Subject) -> None:
    absent = subject.bucket()
    acts: list[Callable[[], object]] = [
        lambda: absent.page(), lambda: absent.head("k"), lambda: b"".join(absent.read("k"))
    ]  # fmt: skip
    if absent.traits.makes_buckets:
        acts.append(lambda: absent.write("k", [b"x"]))
    for act in acts:
        error = _raises(BucketMissing, act)
        assert absent.url in error.what
    bucket = _made(subject)
    for act in (lambda: bucket.head("no/such"), lambda: b"".join(bucket.read("no/such"))):
        assert f"{bucket.url}/no/such" in _raises(ObjectMissing, act).what


def buckets_are_made_and_removed(subject: Subject) -> None:
    bucket = subject.bucket()
    _need(bucket.traits.makes_buckets, "making buckets")
    bucket.make()
    bucket.make()
    bucket.write("k", [b"x"])
    _raises(BucketInUse, bucket.drop)
    bucket.remove(["k"])
    bucket.drop()
    bucket.drop()
    _raises(BucketMissing, bucket.page)


# -- signed addresses -------------------------------------------------------------------------------------


def _http(
    method: str, url: str, body: bytes = b"", headers: Mapping[str, str] = MappingProxyType({})
) -> tuple[int, bytes]:
    split = urlsplit(url)
    kind = http.client.HTTPSConnection if split.scheme == "https" else http.client.HTTPConnection
    connection = kind(split.netloc, timeout=20)
    connection.request(method, f"{split.path}?{split.query}", body=body or None, headers=dict(headers))
    response = connection.getresponse()
    told = response.status, response.read()
    connection.close()
    return told


def signed_addresses_need_nothing_else(subject: Subject) -> None:
    bucket = _made(subject)
    _need(bucket.traits.signs, "signed addresses")
    key = "a b/ü+c" if bucket.sign("a b/ü+c", "GET", 60) is not None else "a/b"
    put, get = bucket.sign(key, "PUT", 60), bucket.sign(key, "GET", 60)
    assert put is not None and get is not None
    assert _http("PUT", put, b"hello", bucket.traits.put_headers)[0] in (200, 201)
    assert _http("GET", get) == (200, b"hello") and _bytes(bucket, key) == b"hello"


def secrets_stand_nowhere(subject: Subject) -> None:
    bucket = subject.bucket()
    error = _raises(BucketMissing, bucket.page)
    for text in (repr(bucket), repr(error), str(error), error.hint, bucket.url):
        assert "SECRET" not in text


CASES: Final[tuple[Case, ...]] = tuple(
    member
    for name, member in list(globals().items())
    if callable(member)
    and not name.startswith("_")
    and getattr(member, "__module__", "") == __name__
    and getattr(member, "__annotations__", {}) == {"subject": "Subject", "return": "None"}
)


def case_name(case: Case) -> str:
    return getattr(case, "__name__", str(case))

"""Where an object is, as a URL: which part names the bucket and which the key. Pure."""

from __future__ import annotations

import re
from typing import Final

#: Segments of the path that belong to the bucket, where it is more than the host.
_IN_BUCKET: Final = {"cos": 1, "hf": 1}
_AZURE: Final = ".blob.core.windows.net"
_NAME: Final = re.compile(r"[a-z0-9][a-z0-9.-]{1,61}[a-z0-9]")
#: What a bucket's name has, at S3 and on this server.
NAME_RULE: Final = "3 to 63 lower-case letters, digits, dots or -, a letter or digit first and last"


def may_be_bucket(name: str) -> bool:
    """Whether a bucket can have this name.

    >>> [may_be_bucket(name) for name in ("data", "my.data-2", "My_Data", "ab", "a..b", "-ab")]
    [True, True, False, False, False, False]
    """
    return _NAME.fullmatch(name) is not None and ".." not in name


def missing_hint(name: str, hint: str) -> str:
    """What to do when there is no such bucket: `hint`, where there could be one.

    >>> missing_hint("data", "make it"), missing_hint("My_Data", "make it")[:32]
    ('make it', 'no bucket can be called `My_Data')
    """
    return hint if may_be_bucket(name) else f"no bucket can be called `{name}`: a name has {NAME_RULE}"


def split_url(url: str) -> tuple[str, str] | None:
    """The bucket as a URL without a `/` at its end, and the key or prefix; None: it is no URL.

    >>> split_url("s3://data/a/b"), split_url("file:///tmp/x"), split_url("./x")
    (('s3://data', 'a/b'), ('file://', 'tmp/x'), None)
    >>> split_url("hf://datasets/me/d@v1/x.csv"), split_url("cos://eu-de/data/k")
    (('hf://datasets/me/d@v1', 'x.csv'), ('cos://eu-de/data', 'k'))
    """
    scheme, mark, rest = url.partition("://")
    if not mark or not scheme.replace("-", "").replace("+", "").replace(".", "").isalnum():
        return None
    scheme = scheme.lower()
    if scheme == "file":
        return "file://", rest.lstrip("/")
    count = 1 + _IN_BUCKET.get(scheme, 0)
    parts = rest.split("/")
    if (scheme == "hf" and parts[0] in ("datasets", "spaces")) or parts[0].endswith(_AZURE):
        count += 1
    return f"{scheme}://{'/'.join(parts[:count])}", "/".join(parts[count:])

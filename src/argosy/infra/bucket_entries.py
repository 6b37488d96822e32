"""What lies below a prefix of a bucket, as entries that are compared (`model.syncing`)."""

from __future__ import annotations

from argosy.infra.buckets import Bucket
from argosy.model.syncing import Entry


def entries(bucket: Bucket, prefix: str) -> list[Entry]:
    """`prefix` ends in `/`, or is empty. What stands for a folder alone is left out. Blocks. Raises
    BucketError."""
    found: list[Entry] = []
    after, cut = "", len(prefix)
    while True:
        page = bucket.page(prefix=prefix, after=after)
        found += [
            Entry(name=each.key[cut:], size=each.size, modified_ms=each.modified_ms, etag=each.etag)
            for each in page.objects
            if len(each.key) > cut and not (each.key.endswith("/") and not each.size)
        ]
        after = page.after
        if not after:
            return found

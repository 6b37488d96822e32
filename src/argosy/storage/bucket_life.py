"""Buckets that tasks bring along: whether they are there, and how they go with all that they hold."""

from __future__ import annotations

from argosy.infra.buckets import Bucket, BucketMissing


def is_there(bucket: Bucket) -> bool:
    """Raises BucketError."""
    try:
        bucket.page(most=1)
    except BucketMissing:
        return False
    return True


def release_bucket(bucket: Bucket) -> None:
    """Remove everything in it, then the bucket; one that is gone is fine, so it may be repeated."""
    try:
        while keys := [each.key for each in bucket.page().objects]:
            bucket.remove(keys)
        bucket.drop()
    except BucketMissing:
        pass

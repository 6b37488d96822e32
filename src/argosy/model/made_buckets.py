"""Rows of buckets that were created for a task and are deleted after it (`persistent: false`). Pure."""

from __future__ import annotations

from typing import Final

from argosy.model.entry import Entry

OF: Final = "made-buckets"


class MadeBucket(Entry, frozen=True, kw_only=True, omit_defaults=True, tag="made-bucket"):
    """`is_made` False: it is about to be made, and perhaps was. `users`: workloads that had it mounted; when
    none of them is left, the bucket goes, and `is_going` is written before."""

    url: str  # of the bucket, as `s3://data`
    users: tuple[str, ...] = ()
    is_made: bool = False
    is_going: bool = False
    told: str = ""  # why it could not be removed, as people were told

    @property
    def unique(self) -> str:
        return called(self.url) if self.is_live else ""

    @property
    def of(self) -> str:
        return OF


def called(url: str) -> str:
    return f"made-bucket:{url}"

"""Parts of a task about its data: what is kept of it."""

from __future__ import annotations

from typing import Final

from argosy.spec.leaves import SOURCE, SPAN
from argosy.spec.shapes import Field, OneOf, Table, Whole

_RULES: Final = Table(
    "checkpoints",
    (
        Field(
            "to",
            SOURCE,
            "Object store that the copies are kept in, in place of the server.",
            "s3://bucket/run-42/",
            also=("url", "store", "bucket"),
        ),
        Field("keep_last", Whole(minimum=1, maximum=100), "So many of the newest copies.", "3"),
        Field(
            "keep_every",
            SPAN,
            "Of the older ones, one for each such period.",
            "6h",
            also=("keep_every_n_hours", "keep_period"),
        ),
    ),
)

CHECKPOINTS: Final = OneOf("the URL of an object store, or a mapping", (SOURCE, _RULES))

"""Parts of a task about its data: what is kept of it."""

from __future__ import annotations

from typing import Final

from argosy.spec.leaves import SOURCE, SPAN
from argosy.spec.shapes import Field, OneOf, Table, Whole

_RULES: Final = Table(
    name="checkpoints",
    fields=(
        Field(
            name="to",
            shape=SOURCE,
            doc="Object store that the copies are kept in, in place of the server.",
            example="s3://bucket/run-42/",
            also=("url", "store", "bucket"),
        ),
        Field(
            name="keep_last",
            shape=Whole(minimum=1, maximum=100),
            doc="So many of the newest copies.",
            example="3",
        ),
        Field(
            name="keep_every",
            shape=SPAN,
            doc="Of the older ones, one for each such period.",
            example="6h",
            also=("keep_every_n_hours", "keep_period"),
        ),
    ),
)

CHECKPOINTS: Final = OneOf(says="the URL of an object store, or a mapping", shapes=(SOURCE, _RULES))

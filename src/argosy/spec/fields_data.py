"""Parts of a task about its data: what is kept of it."""

from __future__ import annotations

from typing import Final

from argosy.spec.leaves import SPAN
from argosy.spec.shapes import Field, Table, Whole

CHECKPOINTS: Final = Table(
    name="checkpoints",
    fields=(
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

"""Fields that make several jobs of a file: the order of tasks, and sweeps."""

from __future__ import annotations

from typing import Final

from argosy.spec.leaves import TEXTS
from argosy.spec.shapes import AsText, Choice, Field, Flag, ListOf, MapOf, OneOf, Text, Whole

_NAME: Final = Text(says="the name of a value")
_PARALLEL: Final = Field(
    name="parallel",
    shape=Whole(minimum=1, maximum=100_000),
    doc="At most so many jobs of the group at once.",
    example="8",
    also=("max_parallel", "parallelism"),
)
_FAIL_FAST: Final = Field(
    name="fail_fast", shape=Flag(), doc="The first job that fails ends the others.", example="true"
)

#: Of one task.
ORDER: Final = (
    Field(
        name="after",
        shape=TEXTS,
        doc="Tasks of this file that must have ended before, by name. Without `after` in any task each waits "
        "for the one above it.",
        example="[prepare]",
        aliases=("depends_on",),
        also=("needs", "dependencies"),
    ),
    Field(
        name="when",
        shape=Choice(words=("succeeded", "failed", "always")),
        doc="What must have become of the tasks before: all succeeded, one failed, or whatever.",
        example="always",
    ),
    Field(
        name="matrix",
        shape=MapOf(
            key=_NAME,
            value=ListOf(
                item=OneOf(
                    says="a value, or a mapping in `include` and `exclude`",
                    shapes=(AsText(), MapOf(key=_NAME, value=AsText(), says="a mapping from name to value")),
                ),
                one_will_do=True,
                maximum=20_000,
                says="a list of values",
            ),
            says="a mapping from name to values",
        ),
        doc="A sweep: one job for each combination of values, which are variables and `{{matrix.NAME}}`. "
        "`include` adds combinations, `exclude` takes some out.",
        example="{LR: [0.1, 0.01], MODEL: [small, large]}",
        verbatim=True,
        also=("sweep", "grid"),
    ),
    _PARALLEL,
    _FAIL_FAST,
)

#: Of the whole.
HEADER_ORDER: Final = (_PARALLEL, _FAIL_FAST)

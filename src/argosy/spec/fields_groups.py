"""Fields that make several jobs of a file: the order of tasks, and sweeps."""

from __future__ import annotations

from typing import Final

from argosy.model.hooks import MOMENTS, TIMEOUT_S
from argosy.model.notify import OCCASIONS
from argosy.spec import notation
from argosy.spec.leaves import SECONDS, TEXTS
from argosy.spec.shapes import AsText, Choice, Field, Flag, ListOf, MapOf, OneOf, Table, Text, Whole

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

_ADDRESS: Final = Text(says="a URL, an e-mail address or the name of a channel", check=notation.parse_address)
_NOTIFY: Final = Field(
    name="notify",
    shape=ListOf(
        item=OneOf(
            says="an address, or a mapping with `to` and `events`",
            shapes=(
                _ADDRESS,
                Table(
                    name="notify",
                    fields=(
                        Field(
                            name="to",
                            shape=_ADDRESS,
                            doc="A URL, an e-mail address, or a channel of the server.",
                            example="team",
                            secret=True,
                        ),
                        Field(
                            name="events",
                            shape=ListOf(item=Choice(words=tuple(OCCASIONS)), one_will_do=True),
                            doc="Of what; by default of its end.",
                            example="[started, failed]",
                        ),
                        Field(
                            name="secret",
                            shape=Text(),
                            doc="Signs what a webhook gets (HMAC-SHA256).",
                            example="s3cret",
                            secret=True,
                        ),
                    ),
                ),
            ),
        ),
        one_will_do=True,
        maximum=20,
        says="a list of addresses",
    ),
    doc="Who is told when it ends, or of its `events`: a webhook, Slack, e-mail, a channel of the server.",
    example="[team, {to: me@example.com, events: failed}]",
    secret=True,
    also=("notifications", "notification", "alerts"),
)

#: Of one task.
_COMMANDS: Final = Text(says="shell commands")
#: What nodes run at certain moments of a job.
HOOKS: Final = Field(
    name="hooks",
    shape=Table(
        name="hooks",
        fields=tuple(
            Field(
                name=moment,
                shape=OneOf(
                    says="shell commands, or a mapping with `run` and `timeout`",
                    shapes=(
                        _COMMANDS,
                        Table(
                            name=f"hooks.{moment}",
                            fields=(
                                Field(
                                    name="run",
                                    shape=_COMMANDS,
                                    doc="Commands.",
                                    example="./save.sh",
                                    verbatim=True,
                                ),
                                Field(
                                    name="timeout",
                                    shape=SECONDS,
                                    doc=f"So long they may take, by default {TIMEOUT_S} s.",
                                    example="1m",
                                ),
                            ),
                        ),
                    ),
                ),
                doc=doc,
                example="{run: ./save.sh, timeout: 1m}",
                verbatim=True,
            )
            for moment, doc in MOMENTS.items()
        ),
    ),
    doc="Commands that every node runs at certain moments; their lines in the log begin with `[hook NAME]`.",
    example="{before_start: nvidia-smi, on_notice: {run: ./save.sh, timeout: 1m}}",
    also=("hook",),
)

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
    _NOTIFY,
    HOOKS,
)

#: Of the whole.
HEADER_ORDER: Final = (_PARALLEL, _FAIL_FAST, _NOTIFY)

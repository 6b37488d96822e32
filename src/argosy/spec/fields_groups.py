"""Fields that make several jobs of a file: the order of tasks, and sweeps."""

from __future__ import annotations

from typing import Final

from argosy.model.hooks import MOMENTS, TIMEOUT_S
from argosy.model.notify import OCCASIONS
from argosy.spec import notation
from argosy.spec.leaves import SECONDS, TEXTS
from argosy.spec.shapes import AsText, Choice, Field, Flag, ListOf, MapOf, OneOf, Table, Text, Whole

_NAME: Final = Text("the name of a value")
_PARALLEL: Final = Field(
    "parallel",
    Whole(minimum=1, maximum=100_000),
    "At most so many jobs of the group at once.",
    "8",
    also=("max_parallel", "parallelism"),
)
_FAIL_FAST: Final = Field("fail_fast", Flag(), "The first job that fails ends the others.", "true")

_ADDRESS: Final = Text("a URL, an e-mail address or the name of a channel", notation.parse_address)
_NOTIFY: Final = Field(
    "notify",
    ListOf(
        OneOf(
            "an address, or a mapping with `to` and `events`",
            (
                _ADDRESS,
                Table(
                    "notify",
                    (
                        Field(
                            "to",
                            _ADDRESS,
                            "A URL, an e-mail address, or a channel of the server.",
                            "team",
                            secret=True,
                        ),
                        Field(
                            "events",
                            ListOf(Choice(tuple(OCCASIONS)), one_will_do=True),
                            "Of what; by default of its end.",
                            "[started, failed]",
                        ),
                        Field(
                            "secret",
                            Text(),
                            "Signs what a webhook gets (HMAC-SHA256).",
                            "s3cret",
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
    "Who is told when it ends, or of its `events`: a webhook, Slack, e-mail, a channel of the server.",
    "[team, {to: me@example.com, events: failed}]",
    secret=True,
    also=("notifications", "notification", "alerts"),
)

#: Of one task.
_COMMANDS: Final = Text("shell commands")
#: What nodes run at certain moments of a job.
HOOKS: Final = Field(
    "hooks",
    Table(
        "hooks",
        tuple(
            Field(
                moment,
                OneOf(
                    "shell commands, or a mapping with `run` and `timeout`",
                    (
                        _COMMANDS,
                        Table(
                            f"hooks.{moment}",
                            (
                                Field("run", _COMMANDS, "Commands.", "./save.sh", verbatim=True),
                                Field(
                                    "timeout",
                                    SECONDS,
                                    f"So long they may take, by default {TIMEOUT_S} s.",
                                    "1m",
                                ),
                            ),
                        ),
                    ),
                ),
                doc,
                "{run: ./save.sh, timeout: 1m}",
                verbatim=True,
            )
            for moment, doc in MOMENTS.items()
        ),
    ),
    "Commands that every node runs at certain moments; their lines in the log begin with `[hook NAME]`.",
    "{before_start: nvidia-smi, on_notice: {run: ./save.sh, timeout: 1m}}",
    also=("hook",),
)

ORDER: Final = (
    Field(
        "after",
        TEXTS,
        "Tasks of this file that must have ended before, by name. Without `after` in any task each waits "
        "for the one above it.",
        "[prepare]",
        aliases=("depends_on",),
        also=("needs", "dependencies"),
    ),
    Field(
        "when",
        Choice(("succeeded", "failed", "always")),
        "What must have become of the tasks before: all succeeded, one failed, or whatever.",
        "always",
    ),
    Field(
        "matrix",
        MapOf(
            _NAME,
            ListOf(
                OneOf(
                    "a value, or a mapping in `include` and `exclude`",
                    (AsText(), MapOf(_NAME, AsText(), "a mapping from name to value")),
                ),
                one_will_do=True,
                maximum=20_000,
                says="a list of values",
            ),
            "a mapping from name to values",
        ),
        "A sweep: one job for each combination of values, which are variables and `{{matrix.NAME}}`. "
        "`include` adds combinations, `exclude` takes some out.",
        "{LR: [0.1, 0.01], MODEL: [small, large]}",
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

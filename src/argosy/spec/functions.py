"""`function:` of a task file: a handler, and how it is run. It stands for `run`, and is served."""

from __future__ import annotations

import shlex
from typing import Final

from argosy.model.serving import FUNCTIONS
from argosy.spec.findings import Findings
from argosy.spec.leaves import PATH, SECONDS
from argosy.spec.shapes import Field, Flag, ListOf, Section, Table, Text, Whole

FUNCTION: Final = Table(
    name="function",
    fields=(
        Field(
            name="handler",
            shape=Text(says="`module.function`"),
            doc="The function that gets events, `module.function`.",
            example="app.lambda_handler",
        ),
        Field(
            name="command",
            shape=Text(says="a command"),
            doc="Instead of Python: a program that speaks Lambda's runtime API itself.",
            example="./bootstrap",
            verbatim=True,
        ),
        Field(name="folder", shape=PATH, doc="Where the code is.", example="src"),
        Field(name="timeout", shape=SECONDS, doc="Time of one event. Default 3 s.", example="30"),
        Field(
            name="concurrency",
            shape=Whole(minimum=1, maximum=1000),
            doc="Events that one replica has at once, each in a process. Default 10.",
            example="4",
        ),
        Field(
            name="provisioned_concurrency",
            shape=Whole(minimum=0, maximum=1000),
            doc="Processes that wait for events before any comes.",
            example="2",
        ),
        Field(name="idle", shape=SECONDS, doc="After which a process ends. Default 300 s.", example="60"),
        Field(name="memory", shape=Whole(minimum=1), doc="MiB, as handlers are told.", example="512"),
        Field(
            name="preload",
            shape=Flag(),
            doc="Import the handler once; all processes share what it has loaded.",
            example="true",
        ),
        Field(name="stream", shape=Flag(), doc="The URL streams what handlers yield.", example="true"),
        Field(
            name="aliases",
            shape=ListOf(item=Text(), one_will_do=True),
            doc="Names of this version.",
            example="live",
        ),
    ),
)

_OPTIONS: Final = (
    ("folder", "--root"),
    ("timeout", "--timeout"),
    ("concurrency", "--concurrency"),
    ("provisioned_concurrency", "--provisioned"),
    ("idle", "--idle"),
    ("memory", "--memory"),
)


def function_run(task: Section, run: str, findings: Findings) -> str:
    """The command that serves the function of a task; `run` where it has none."""
    given = task.get("function", Section)
    if given is None:
        return run
    if run.strip():
        findings.error(
            task.places["function"], "`function` and `run` exclude each other", "keep one of the two"
        )
    handler, command = given.get("handler", str), given.get("command", str)
    if not handler and not command:
        findings.error(given.place, "the function has no `handler`", "write `handler: app.lambda_handler`")
    if handler and "." not in handler:
        text = f"the handler `{handler}` names no function of a module"
        findings.error(given.places["handler"], text, f"write `{handler}.lambda_handler`")
    words = [FUNCTIONS]
    words += ["--handler", handler] if handler else []
    words += ["--command", command] if command else []
    for name, option in _OPTIONS:
        value = given.get(name, object)
        words += [option, str(value)] if value is not None else []
    words += [f"--{name}" for name in ("preload", "stream") if given.get(name, bool)]
    for alias in given.get("aliases", tuple) or ():
        words += ["--alias", str(alias)]
    return shlex.join(words)

"""`function:` of a task file: a handler, and how it is run. It stands for `run`, and is served."""

from __future__ import annotations

import shlex
from typing import Final

from argosy.model.serving import FUNCTIONS
from argosy.spec.findings import Findings
from argosy.spec.leaves import PATH, SECONDS
from argosy.spec.shapes import Field, Flag, ListOf, Section, Table, Text, Whole

FUNCTION: Final = Table(
    "function",
    (
        Field(
            "handler",
            Text("`module.function`"),
            "The function that gets events, `module.function`.",
            "app.lambda_handler",
        ),
        Field(
            "command",
            Text("a command"),
            "Instead of Python: a program that speaks Lambda's runtime API itself.",
            "./bootstrap",
            verbatim=True,
        ),
        Field("folder", PATH, "Where the code is.", "src"),
        Field("timeout", SECONDS, "Time of one event. Default 3 s.", "30"),
        Field(
            "concurrency",
            Whole(minimum=1, maximum=1000),
            "Events that one replica has at once, each in a process. Default 10.",
            "4",
        ),
        Field(
            "provisioned_concurrency",
            Whole(minimum=0, maximum=1000),
            "Processes that wait for events before any comes.",
            "2",
        ),
        Field("idle", SECONDS, "After which a process ends. Default 300 s.", "60"),
        Field("memory", Whole(minimum=1), "MiB, as handlers are told.", "512"),
        Field("preload", Flag(), "Import the handler once; all processes share what it has loaded.", "true"),
        Field("stream", Flag(), "The URL streams what handlers yield.", "true"),
        Field("aliases", ListOf(Text(), one_will_do=True), "Names of this version.", "live"),
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
